"""The store on SQLAlchemy Core: operations in, answers out on the event loop in commit order.

State: the installation's row, read once. Threads: a writing lane, one that reads for resumes and
one for all other reads, each with a connection of its own; the event loop submits and is handed the
answers. Only immutable values cross.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from wsschema.errors import RpcError, Unavailable
from wsschema.messages import SealedWallet
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
from wsserver.store.errors import StoreError as StoreError
from wsserver.store.guard import ServingGuard
from wsserver.store.known import forget_changed
from wsserver.store.lanes import RETRY_AFTER_MS, Lane, LaneLimits, Waiting, describe
from wsserver.store.rows import execute_text
from wsserver.store.schema import check_schema, install, migrate
from wsserver.store.tables import installation

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S: Final = 5.0
"""How long a connection waits for another process's lock on the SQLite file before it gives up."""
CACHE_KIB: Final = 32 * 1024
"""What a writing connection keeps: the rings of some hundred wallets. SQLite's own is 2 MiB."""
READING_BATCH_OPERATIONS: Final = 64
"""An answer may be a whole wallet, and the first of a batch waits for the last."""


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
}

_GROUPED: dict[type[Operation[Any]], Callable[[Connection, Context, Any], list[Any]]] = {
    FindToken: devices.find_tokens,
    LoadSession: devices.load_sessions,
    PushState: wallets.push_states,
    MarkSeen: devices.mark_seen,
}
"""Neighbours of these kinds are done as one set."""


def run_operations(
    connection: Connection, context: Context, operations: Sequence[Operation[Any]]
) -> list[Any]:
    """The answer or RpcError of each operation, done in order inside the caller's transaction.

    An RpcError undoes what its operation did. What else is raised is for the caller to roll back.
    """
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
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock: Callable[[], float] = time.monotonic,
        observe_batch: Callable[[str, int], None] = lambda lane, operations: None,
        checkpoint_bytes: int = CHECKPOINT_BYTES,
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
        self._checkpoint_bytes = checkpoint_bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._guard: ServingGuard | None = None
        self._threads: list[Checkpointer | Lane] = []
        self._writing: Lane | None = None
        self._resuming: Lane | None = None
        self._reading: Lane | None = None

    async def open(self, *, exclusive: bool = False) -> Installation:
        """Migrate, then start the lanes. Raises StoreError.

        ``exclusive`` is for a process that serves: one at a time on a database.
        """
        self._loop = asyncio.get_running_loop()
        installed = await asyncio.to_thread(self._install, exclusive)
        limits = self._limits
        fewer = min(limits.batch_operations, READING_BATCH_OPERATIONS)
        reading_limits = replace(limits, batch_operations=fewer)
        reader = create_store_engine(self._url, reading=True, busy_timeout_s=self._busy_timeout_s)
        writer = create_store_engine(self._url, busy_timeout_s=self._busy_timeout_s)
        checkpointer = Checkpointer(writer, after_bytes=self._checkpoint_bytes)
        checkpointer.start()
        # Apart, so that thousands of resumes are read in large sets, and wait for no large wallet.
        self._resuming = self._start_lane("resuming lane", reader, reading_limits)
        self._reading = self._start_lane("reading lane", reader, reading_limits)
        self._writing = self._start_lane("writing lane", writer, limits, begin=checkpointer.begin)
        # The writing lane ends last, for the last connection to leave a SQLite file checkpoints it.
        self._threads = [checkpointer, self._resuming, self._reading, self._writing]
        return installed

    def submit(self, operation: Operation[Any], done: Done) -> None:
        """Perform the operation; its answer comes on the event loop, never at once.

        ``answer`` gets it first, together with ``done``, which it calls.
        """
        assert self._loop is not None, "the store has been opened"
        try:
            if operation.writes:
                lane = self._writing
            else:
                lane = self._resuming if type(operation) in _GROUPED else self._reading
            if lane is None:
                raise Unavailable("the store is closed", retry_after_ms=RETRY_AFTER_MS)
            lane.submit(operation, done, size_bytes=_measure(operation))
        except Unavailable as error:
            self._loop.call_soon(self._answer, operation, error, done)

    @property
    def waiting(self) -> dict[str, int]:
        """How many operations wait, by lane."""
        return {lane.name: lane.waiting for lane in self._threads if isinstance(lane, Lane)}

    async def close(self, timeout_s: float = 60.0) -> None:
        """Finish what waits; then end the lanes and their connections.

        What is not done within ``timeout_s`` (another process locks the database) is not answered.
        """
        self._writing = self._resuming = self._reading = None
        ends_at_s = time.monotonic() + timeout_s
        ended = True
        for thread in self._threads:
            left_s = max(0.0, ends_at_s - time.monotonic())
            if not await asyncio.to_thread(thread.close, left_s):
                ended = False
                logger.warning("%s: not done within %g s; left to itself", thread.name, timeout_s)
        self._threads = []
        # A lane that is left to itself may write yet: then the guard ends with the process.
        if self._guard is not None and ended:
            self._guard.release()

    def _install(self, exclusive: bool) -> Installation:
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

    def _start_lane(self, name: str, engine: Engine, limits: LaneLimits, **options: Any) -> Lane:
        lane = Lane(
            name,
            engine,
            lambda connection, operations: run_operations(connection, self._context, operations),
            self._hand_over,
            limits=limits,
            clock=self._clock,
            observe_batch=lambda operations: self._observe_batch(name, operations),
            **options,
        )
        lane.start()
        return lane

    def _hand_over(self, answers: list[tuple[Waiting, Any]]) -> None:
        """On a lane's thread: the transaction is committed, its answers go to the event loop."""
        assert self._loop is not None
        # Where a process ends without waiting, the loop is closed, and nobody waits for an answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver, answers)

    def _deliver(self, answers: list[tuple[Waiting, Any]]) -> None:
        for waiting, answer in answers:
            try:
                self._answer(waiting.operation, answer, waiting.done)
            except Exception as error:
                # One who can't take an answer must not cost the others theirs.
                report_failure(f"answering {type(waiting.operation).__name__} failed", error)


def _measure(operation: Operation[Any]) -> int:
    """The bytes that an operation may hold in a queue beyond the bounds of every message."""
    match operation:
        case PushState(encrypted_wallet=text) | ReplacePassword(wallet=SealedWallet(_, text)):
            return len(text) if text.isascii() else len(text.encode())
        case _:
            return 0


def parse_url(url: str) -> URL:
    """The database's URL; raises StoreError with a sentence on what is wrong with it."""
    try:
        parsed = make_url(url)
    except Exception:
        # Not the URL: there may be a password in it.
        raise StoreError(
            "the database URL is not one that SQLAlchemy can read; "
            "it looks like sqlite:///wallet-sync.db or sqlite:////var/lib/wallet-sync/wallet-sync.db"
        ) from None
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StoreError(
            f"databases of kind {parsed.drivername!r} are not supported; use sqlite:///FILE"
        )
    if parsed.host or parsed.username or parsed.port:
        raise StoreError(
            "the database URL names a host; a SQLite file has three slashes before its path, and a "
            "fourth if the path is absolute: sqlite:////var/lib/wallet-sync/wallet-sync.db"
        )
    if parsed.query:
        raise StoreError(
            f"the database URL has parameters ({', '.join(sorted(parsed.query))}), which this "
            "server does not take; use sqlite:///FILE"
        )
    if parsed.database in (None, "", ":memory:"):
        raise StoreError(
            "an in-memory SQLite database can't be shared by the store's lanes; use sqlite:///FILE"
        )
    return parsed


def find_folder(url: URL) -> Path:
    """The folder of the database file; raises StoreError where there is none."""
    folder = Path(str(url.database)).absolute().parent
    if not folder.is_dir():
        raise StoreError(f"the folder of the database, {folder}, does not exist")
    return folder


@contextlib.contextmanager
def open_database(url: URL, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[Connection]:
    """A connection inside a transaction, to a database whose schema is up to date.

    Raises StoreError where the database can't be used, or fails what is done with it.
    """
    find_folder(url)
    engine = create_store_engine(url, busy_timeout_s=busy_timeout_s)
    with _telling_faults(url), engine.begin() as connection:
        before, after = migrate(connection)
        if before != after:
            logger.info("database schema: %s -> %s", before or "none", after)
        yield connection


@contextlib.contextmanager
def open_live_database(url: URL, *, reading: bool = False) -> Iterator[Connection]:
    """A connection inside a transaction, to a database that may be served from meanwhile.

    It is neither made nor migrated. With ``reading`` it keeps nobody from writing. Raises
    StoreError where the database can't be used, or fails what is done with it.
    """
    if not Path(str(url.database)).is_file():
        raise StoreError(f"there is no database {Path(str(url.database)).absolute()}")
    engine = create_store_engine(url, reading=reading)
    with _telling_faults(url), engine.begin() as connection:
        check_schema(connection)
        yield connection


@contextlib.contextmanager
def _telling_faults(url: URL) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise StoreError(f"the database {url.database} can't be used: {describe(error)}") from None


def create_store_engine(
    url: URL,
    *,
    reading: bool = False,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
) -> Engine:
    """An engine whose every connection is its own, set up to read, or to write.

    None of them checkpoints by itself: see `wsserver.store.checkpoints`.
    """
    pragmas = [
        f"busy_timeout={int(busy_timeout_s * 1000)}",
        "foreign_keys=ON",
        "wal_autocheckpoint=0",
    ]
    if reading:
        pragmas += ["query_only=ON"]
    else:
        # fullfsync: without it macOS leaves the commit in the disk's own cache.
        pragmas += ["synchronous=FULL", "fullfsync=ON", f"cache_size=-{CACHE_KIB}"]

    def set_up(dbapi_connection: Any, record: Any) -> None:
        # SQLAlchemy's events begin transactions, not the driver.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        if not reading:
            switch_to_wal(cursor, patience_s=busy_timeout_s)
        cursor.close()

    def begin(connection: Connection) -> None:
        execute_text(connection, "BEGIN" if reading else "BEGIN IMMEDIATE")

    # Parameters stay out of errors and logs: they hold tokens and wallets.
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin)
    return engine


def switch_to_wal(cursor: sqlite3.Cursor, *, patience_s: float) -> None:
    """Have the file keep a write-ahead log, for all connections from now on.

    SQLite refuses one of two that switch a new file at once, without waiting for the other.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            (mode,) = cursor.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
            if not busy or time.monotonic() >= deadline_s:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StoreError(
            f"SQLite can't keep a write-ahead log there (its journal mode stays {mode!r}); the "
            "database must be a file on a disk of this machine"
        )
