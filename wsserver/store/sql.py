"""The store on SQLAlchemy Core: operations in, answers out on the event loop in commit order.

State: the installation's row, read once. Threads: a writing lane (several on PostgreSQL, an account
always on the same one), one that reads for resumes and one for all other reads, each with a
connection of its own; the event loop submits and is handed the answers. Only immutable values
cross.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Engine, update

from wsschema.errors import RpcError, Unavailable
from wsschema.frozen import frozen
from wsschema.messages import SealedWallet
from wsserver import logbook
from wsserver.failures import report_failure
from wsserver.operations import (
    AcknowledgeState,
    ActivateRegistration,
    CreateAccount,
    EndSession,
    FindAllowed,
    FindMoved,
    FindNewestNotice,
    FindToken,
    FinishReset,
    LoadAccountCredentials,
    LoadCredentials,
    LoadDevices,
    LoadHistory,
    LoadKeyDerivation,
    LoadNotices,
    LoadPendingPassword,
    LoadSession,
    LoadWallet,
    MarkSeen,
    OpenSession,
    Operation,
    ProbeWrite,
    PushState,
    RemoveAccount,
    RemoveDevice,
    RenewRegistration,
    ReplacePassword,
    StartRegistration,
    StartReset,
)
from wsserver.store import accounts, devices, moved, notices, registrations, wallets
from wsserver.store.checkpoints import CHECKPOINT_BYTES, Checkpointer
from wsserver.store.context import Answer, Context, Done, Installation
from wsserver.store.databases import (
    BUSY_TIMEOUT_S,
    create_store_engine,
    is_sqlite,
    open_database,
    parse_url,
)
from wsserver.store.errors import StoreError
from wsserver.store.guard import ServingGuard
from wsserver.store.known import forget_changed
from wsserver.store.lanes import RETRY_AFTER_MS, Answers, Deliver, Lane, LaneLimits, Waiting
from wsserver.store.locking import lock_accounts_of
from wsserver.store.postgresql import ServingLock, refuse_beside_servers
from wsserver.store.schema import install
from wsserver.store.sqlite import find_folder
from wsserver.store.tables import installation

LANES: Final = 4
"""Writing lanes, where the database has room for more than one."""
DELIVERY_SLICE_S: Final = 0.00025
"""How long a turn of the loop may answer resumes: who is in waits no longer for who comes back."""
READING_BATCH_OPERATIONS: Final = 64
"""An answer may be a whole wallet, and the first of a batch waits for the last."""


@frozen
class _Passage(Operation[None]):
    """Done once all is answered that was committed on a lane before."""


def _pass(connection: Connection, context: Context, operation: _Passage) -> None:
    """Nothing."""


def _probe_write(connection: Connection, context: Context, operation: ProbeWrite) -> None:
    connection.execute(update(installation).values(probed_at=context.now_ms()))


_SINGLE: dict[type[Operation[Any]], Callable[[Connection, Context, Any], Any]] = {
    LoadCredentials: accounts.load_credentials,
    LoadAccountCredentials: accounts.load_account_credentials,
    LoadKeyDerivation: accounts.load_key_derivation,
    LoadWallet: wallets.load_wallet,
    LoadHistory: wallets.load_history,
    LoadDevices: devices.load_devices,
    CreateAccount: accounts.create_account,
    OpenSession: devices.open_session,
    AcknowledgeState: devices.acknowledge_state,
    ReplacePassword: accounts.replace_password,
    RemoveAccount: accounts.remove_account,
    EndSession: devices.end_session,
    RemoveDevice: devices.remove_device,
    FindAllowed: registrations.find_allowed,
    LoadPendingPassword: registrations.load_pending_password,
    StartRegistration: registrations.start_registration,
    RenewRegistration: registrations.renew_registration,
    ActivateRegistration: registrations.activate_registration,
    StartReset: registrations.start_reset,
    FinishReset: registrations.finish_reset,
    FindMoved: moved.find_moved,
    FindNewestNotice: notices.find_newest_notice,
    LoadNotices: notices.load_notices,
    ProbeWrite: _probe_write,
    _Passage: _pass,
}

_GROUPED: dict[type[Operation[Any]], Callable[[Connection, Context, Any], list[Any]]] = {
    FindToken: devices.find_tokens,
    LoadSession: devices.load_sessions,
    PushState: wallets.push_states,
    MarkSeen: devices.mark_seen,
}
"""Neighbours of these kinds are done as one set."""

_ACROSS = (LoadNotices, FinishReset)
"""What is about accounts of any lane: answered after all that was committed before it."""


def run_operations(
    connection: Connection, context: Context, operations: Sequence[Operation[Any]]
) -> list[Any]:
    """The answer or RpcError of each operation, done in order inside the caller's transaction.

    An RpcError undoes what its operation did. What else is raised is for the caller to roll back.
    """
    lock_accounts_of(connection, operations)
    answers: list[Any] = []
    for kind, group in itertools.groupby(operations, type):
        run_group = _GROUPED.get(kind)
        if run_group is not None:
            answers += run_group(connection, context, [*group])
            continue
        for operation in group:
            savepoint = connection.begin_nested() if operation.writes else contextlib.nullcontext()
            try:
                with savepoint:
                    answers.append(_SINGLE[kind](connection, context, operation))
            except RpcError as error:
                answers.append(error)
            forget_changed(connection, operation)
    return answers


class SqlStore:
    """Accounts, tokens and wallets in a database. Opened, then used from the event loop only."""

    def __init__(
        self,
        url: str,
        *,
        history_depth: int,
        token_lifetime_s: int,
        answer: Answer,
        limits: LaneLimits | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        lanes: int = LANES,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock: Callable[[], float] = time.monotonic,
        observe_batch: Callable[[str, int, float], None] = lambda lane, operations, seconds: None,
        observe_checkpoint: Callable[[float], None] = lambda seconds: None,
        count_fault: Callable[[str], None] = lambda lane: None,
        checkpoint_bytes: int = CHECKPOINT_BYTES,
        doubt: Callable[[Sequence[Operation[Any]]], None] = lambda operations: None,
    ) -> None:
        self._url = parse_url(url)
        self._context = Context(
            now_ms=now_ms, history_depth=history_depth, token_lifetime_ms=token_lifetime_s * 1000
        )
        self._answer = answer
        self._limits = limits or LaneLimits()
        self._busy_timeout_s = busy_timeout_s
        self._clock = clock
        self._observe_batch = observe_batch
        self._observe_checkpoint = observe_checkpoint
        self._count_fault = count_fault
        self._checkpoint_bytes = checkpoint_bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._doubt = doubt
        self._lanes = 1 if self._on_sqlite else lanes
        self._guard: ServingGuard | None = None
        self._lock: ServingLock | None = None
        self._undelivered: deque[tuple[Waiting, Any]] = deque()
        """Answers of the resuming lane whose turn is to come."""
        self._threads: list[Checkpointer | Lane | ServingLock] = []
        self._writing: tuple[Lane, ...] = ()
        self._resuming: Lane | None = None
        self._reading: Lane | None = None

    async def open(self, *, exclusive: bool = False, shared: bool = False) -> Installation:
        """Migrate, then start the lanes. Raises StoreError.

        ``exclusive`` is for a process that serves: one at a time on a database. ``shared`` is for
        one that has a bus to the others that serve, which PostgreSQL allows.
        """
        self._loop = asyncio.get_running_loop()
        install = self._install if self._on_sqlite else self._install_on_postgresql
        installed = await asyncio.to_thread(install, exclusive, shared)
        limits = self._limits
        fewer = min(limits.batch_operations, READING_BATCH_OPERATIONS)
        reading_limits = replace(limits, batch_operations=fewer)
        reader, writer = self._create_engine(reading=True), self._create_engine()
        # Apart, so that thousands of resumes are read in large sets, and wait for no large wallet.
        self._resuming = self._start_lane(
            "resuming lane", reader, reading_limits, hand_over=self._hand_over_resumes
        )
        self._reading = self._start_lane("reading lane", reader, reading_limits)
        first: tuple[Checkpointer | ServingLock, ...] = ()
        options: dict[str, Any] = {"doubt": self._hand_over_doubt}
        if self._on_sqlite:
            checkpointer = Checkpointer(
                writer,
                after_bytes=self._checkpoint_bytes,
                observe_checkpoint=self._observe_checkpoint,
            )
            first, options = (checkpointer,), {"begin": checkpointer.begin}
        elif self._lock is not None:
            first = (self._lock,)
        for thread in first:
            thread.start()
        self._writing = tuple(
            self._start_lane(name, writer, limits, **options) for name in name_lanes(self._lanes)
        )
        # The writing lane ends last, for the last connection to leave a SQLite file checkpoints it.
        self._threads = [*first, self._resuming, self._reading, *self._writing]
        return installed

    def submit(self, operation: Operation[Any], done: Done) -> None:
        """Perform the operation; its answer comes on the event loop, never at once.

        ``answer`` gets it first, together with ``done``, which it calls.
        """
        assert self._loop is not None, "the store has been opened"
        try:
            lane = self._choose_lane(operation)
            if lane is None:
                raise Unavailable("the store is closed", retry_after_ms=RETRY_AFTER_MS)
            if self._lock is not None and self._lock.is_anothers:
                raise Unavailable(retry_after_ms=RETRY_AFTER_MS)
            lane.submit(operation, done, size_bytes=_measure(operation))
        except Unavailable as error:
            self._loop.call_soon(self._answer, operation, error, done)

    @property
    def waiting(self) -> dict[str, int]:
        """How many operations wait, by lane."""
        return {lane.name: lane.waiting for lane in self._threads if isinstance(lane, Lane)}

    @property
    def waiting_max(self) -> int:
        """How many operations may wait in a lane."""
        return self._limits.queue_operations

    async def close(self, timeout_s: float = 60.0) -> None:
        """Finish what waits; then end the lanes and their connections.

        What is not done within ``timeout_s`` (another process locks the database) is not answered.
        """
        self._writing, self._resuming, self._reading = (), None, None
        ends_at_s = time.monotonic() + timeout_s
        ended = True
        for thread in self._threads:
            left_s = max(0.0, ends_at_s - time.monotonic())
            if not await asyncio.to_thread(thread.close, left_s):
                ended = False
                logbook.LANE_LEFT.log(lane=thread.name, timeout_s=timeout_s)
        self._threads = []
        while self._undelivered:
            self._answer_one(*self._undelivered.popleft())
        # A lane that is left to itself may write yet: then the guard ends with the process.
        if self._guard is not None and ended:
            self._guard.release()

    @property
    def _on_sqlite(self) -> bool:
        return is_sqlite(self._url)

    def _create_engine(self, *, reading: bool = False) -> Engine:
        return create_store_engine(
            self._url, reading=reading, busy_timeout_s=self._busy_timeout_s, bounded=True
        )

    def _choose_lane(self, operation: Operation[Any]) -> Lane | None:
        if not operation.writes:
            return self._resuming if type(operation) in _GROUPED else self._reading
        if len(self._writing) < 2:
            return self._writing[0] if self._writing else None
        return self._writing[hash(find_key(operation)) % len(self._writing)]

    def _install(self, exclusive: bool, shared: bool) -> Installation:
        if shared:
            raise StoreError("a SQLite file is served by one process; many take PostgreSQL")
        with contextlib.ExitStack() as undoing:
            if exclusive:
                find_folder(self._url)
                self._guard = ServingGuard(str(self._url.database))
                undoing.callback(self._guard.release)
            with open_database(self._url, busy_timeout_s=self._busy_timeout_s) as connection:
                installed = install(
                    connection,
                    history_depth=self._context.history_depth,
                    now_ms=self._context.now_ms(),
                )
            undoing.pop_all()
            return installed

    def _install_on_postgresql(self, exclusive: bool, shared: bool) -> Installation:
        with contextlib.ExitStack() as undoing, open_database(self._url) as connection:
            lock = None
            if exclusive or shared:
                lock = ServingLock(self._create_engine(), shared=shared)
                undoing.callback(lock.close, 0)
                lock.take()
            installed = install(
                connection,
                history_depth=self._context.history_depth,
                now_ms=self._context.now_ms(),
                refuse_beside_others=lock.refuse_beside_others
                if lock
                else functools.partial(refuse_beside_servers, connection),
            )
            undoing.pop_all()
        if lock is not None:
            lock.let_others_in()
            self._lock = lock
        return installed

    def _start_lane(
        self,
        name: str,
        engine: Engine,
        limits: LaneLimits,
        *,
        hand_over: Deliver | None = None,
        **options: Any,
    ) -> Lane:
        lane = Lane(
            name,
            engine,
            lambda connection, operations: run_operations(connection, self._context, operations),
            hand_over or self._hand_over,
            limits=limits,
            clock=self._clock,
            observe_batch=functools.partial(self._observe_batch, name),
            count_fault=functools.partial(self._count_fault, name),
            tries_again=not self._on_sqlite,
            **options,
        )
        lane.start()
        return lane

    def _hand_over(self, answers: Answers) -> None:
        """On a lane's thread: the transaction is committed, its answers go to the event loop."""
        self._tell_loop(self._deliver, answers)

    def _hand_over_resumes(self, answers: Answers) -> None:
        self._tell_loop(self._deliver_in_turns, answers)

    def _hand_over_doubt(self, operations: Sequence[Operation[Any]]) -> None:
        self._tell_loop(self._doubt, operations)

    def _tell_loop(self, take: Callable[[Any], None], what: Any) -> None:
        assert self._loop is not None
        # Where a process ends without waiting, the loop is closed, and nobody waits for an answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(take, what)

    def _deliver_in_turns(self, answers: Answers) -> None:
        """Those who come back by the thousand are answered in slices: others go on meanwhile."""
        if not self._undelivered:
            assert self._loop is not None
            self._loop.call_soon(self._deliver_some)
        self._undelivered += answers

    def _deliver_some(self) -> None:
        until_s = time.monotonic() + DELIVERY_SLICE_S
        while self._undelivered:
            self._answer_one(*self._undelivered.popleft())
            if self._undelivered and time.monotonic() >= until_s:
                assert self._loop is not None
                self._loop.call_soon(self._deliver_some)
                return

    def _deliver(self, answers: Answers) -> None:
        for waiting, answer in answers:
            if isinstance(waiting.operation, _Passage):
                waiting.done(answer)
            elif isinstance(waiting.operation, _ACROSS) and len(self._writing) > 1:
                self._answer_after_all(waiting, answer)
            else:
                self._answer_one(waiting, answer)

    def _answer_after_all(self, waiting: Waiting, answer: Any) -> None:
        """Answer it once every lane has answered what it had committed by now."""
        left = len(self._writing)

        def pass_one(_: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self._answer_one(waiting, answer)

        for lane in self._writing:
            lane.submit_anyway(_Passage(), pass_one)

    def _answer_one(self, waiting: Waiting, answer: Any) -> None:
        try:
            self._answer(waiting.operation, answer, waiting.done)
        except Exception as error:
            # One who can't take an answer must not cost the others theirs.
            report_failure(f"answering {type(waiting.operation).__name__} failed", error)


def name_lanes(count: int) -> Sequence[str]:
    """The names of so many writing lanes."""
    if count == 1:
        return ["writing lane"]
    return [f"writing lane {number}" for number in range(1, count + 1)]


def find_key(operation: Operation[Any]) -> Hashable:
    """What is alike for operations that have to stay in their order: they go to the same lane."""
    for name in ("account_id", "email", "token_hash"):
        key: Hashable | None = getattr(operation, name, None)
        if key is not None:
            return key
    return 0


def _measure(operation: Operation[Any]) -> int:
    """The bytes that an operation may hold in a queue beyond the bounds of every message."""
    match operation:
        case PushState(encrypted_wallet=text) | ReplacePassword(wallet=SealedWallet(_, text)):
            return len(text) if text.isascii() else len(text.encode())
        case _:
            return 0
