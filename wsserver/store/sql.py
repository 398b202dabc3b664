"""The store on SQLAlchemy Core: operations in, answers out on the event loop in commit order.

State: the installation's row, read once. Threads: one writing lane and a few reading ones, each with a
connection of its own; the event loop submits and is handed the answers. Only immutable values cross.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, update
from sqlalchemy.pool import NullPool

from wsschema.errors import RpcError, Unavailable
from wsserver.operations import (
    AcknowledgeState,
    CreateAccount,
    EndSession,
    FindToken,
    LoadAccountCredentials,
    LoadCredentials,
    LoadDevices,
    LoadHistory,
    LoadKeyDerivation,
    LoadSession,
    LoadWallet,
    MarkSeen,
    OpenSession,
    Operation,
    ProbeWrite,
    PushState,
    RemoveAccount,
    RemoveDevice,
    ReplacePassword,
)
from wsserver.store import accounts, devices, wallets
from wsserver.store.context import Context
from wsserver.store.lanes import Done, Lane, LaneLimits, Waiting
from wsserver.store.schema import Installation, install, migrate
from wsserver.store.tables import installation

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S: Final = 5.0
"""How long a connection waits for another process's lock on the SQLite file before it gives up."""
READING_LANES: Final = 2

Answer = Callable[[Operation[Any], Any, Done], None]
"""Called on the event loop for each operation, in commit order: with the answer, or the RpcError."""


class StoreError(Exception):
    """The database can't be used as it is; the text says why and what to do."""


def _probe_write(connection: Connection, context: Context, operation: ProbeWrite) -> None:
    connection.execute(update(installation).values(probed_at=context.now_ms()))


_SINGLE: dict[type[Operation[Any]], Callable[[Connection, Context, Any], Any]] = {
    LoadCredentials: accounts.load_credentials,
    LoadAccountCredentials: accounts.load_account_credentials,
    LoadKeyDerivation: accounts.load_key_derivation,
    FindToken: devices.find_token,
    LoadSession: devices.load_session,
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
    ProbeWrite: _probe_write,
}

_GROUPED: dict[type[Operation[Any]], Callable[[Connection, Context, Any], list[Any]]] = {
    PushState: wallets.push_states,
    MarkSeen: devices.mark_seen,
}
"""Neighbours of these kinds are done as one set."""


def run_operations(
    connection: Connection, context: Context, operations: Sequence[Operation[Any]]
) -> list[Any]:
    """The answer, or the RpcError, of each operation, done in order inside the caller's transaction.

    An RpcError undoes what its operation did. Whatever else is raised is for the caller to roll back.
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
    return answers


class SqlStore:
    """Accounts, tokens and wallets in a database. To be opened, then used from the event loop only."""

    def __init__(
        self,
        url: str,
        *,
        history_depth: int,
        token_lifetime_s: int,
        answer: Answer,
        limits: LaneLimits | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        observe_batch: Callable[[str, int], None] = lambda lane, operations: None,
    ) -> None:
        self._url = parse_url(url)
        self._context = Context(
            now_ms=now_ms, history_depth=history_depth, token_lifetime_ms=token_lifetime_s * 1000
        )
        self._answer = answer
        self._limits = limits or LaneLimits()
        self._observe_batch = observe_batch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing: Lane | None = None
        self._reading: list[Lane] = []
        self._next_reading: itertools.cycle[Lane] | None = None

    async def open(self) -> Installation:
        """Migrate, then start the lanes. Raises StoreError, SchemaTooNew, or the driver's error."""
        self._loop = asyncio.get_running_loop()
        installed = await asyncio.to_thread(self._install)
        self._writing = self._start_lane("writing lane", create_store_engine(self._url))
        reader = create_store_engine(self._url, reading=True)
        self._reading = [
            self._start_lane(f"reading lane {number}", reader) for number in range(READING_LANES)
        ]
        self._next_reading = itertools.cycle(self._reading)
        return installed

    def submit(self, operation: Operation[Any], done: Done) -> None:
        """Perform the operation; ``done`` gets its answer or RpcError on the event loop, never at once."""
        assert self._writing is not None and self._next_reading is not None, "the store is open"
        assert self._loop is not None
        lane = self._writing if operation.writes else next(self._next_reading)
        size_bytes = 0
        if type(operation) is PushState:
            size_bytes = len(operation.encrypted_wallet)
        try:
            lane.submit(operation, done, size_bytes=size_bytes)
        except Unavailable as error:
            self._loop.call_soon(self._answer, operation, error, done)

    @property
    def waiting(self) -> dict[str, int]:
        """How many operations wait, by lane."""
        lanes = [*([self._writing] if self._writing else []), *self._reading]
        return {lane.name: lane.waiting for lane in lanes}

    async def close(self) -> None:
        """Finish what waits; then end the lanes and their connections."""
        for lane in [*([self._writing] if self._writing else []), *self._reading]:
            await asyncio.to_thread(lane.close)
        self._writing, self._reading, self._next_reading = None, [], None

    def _install(self) -> Installation:
        with open_database(self._url) as connection:
            return install(
                connection,
                history_depth=self._context.history_depth,
                now_ms=self._context.now_ms(),
            )

    def _start_lane(self, name: str, engine: Engine) -> Lane:
        lane = Lane(
            name,
            engine,
            lambda connection, operations: run_operations(connection, self._context, operations),
            self._hand_over,
            limits=self._limits,
            clock=time.monotonic,
            observe_batch=lambda operations: self._observe_batch(name, operations),
        )
        lane.start()
        return lane

    def _hand_over(self, answers: list[tuple[Waiting, Any]]) -> None:
        """On a lane's thread: the transaction is committed; its answers go to the event loop at once."""
        assert self._loop is not None
        # The loop may be closed when a process ends without waiting: then nobody waits for an answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver, answers)

    def _deliver(self, answers: list[tuple[Waiting, Any]]) -> None:
        for waiting, answer in answers:
            try:
                self._answer(waiting.operation, answer, waiting.done)
            except Exception:
                logger.exception("handing over the answer to %s failed", type(waiting.operation))


def parse_url(url: str) -> URL:
    """The database's URL; raises StoreError with a sentence on what is wrong with it."""
    try:
        parsed = make_url(url)
    except Exception:
        raise StoreError(
            "the database URL is not one that SQLAlchemy can read; "
            "it looks like sqlite:///wallet-sync.db or sqlite:////var/lib/wallet-sync/wallet-sync.db"
        ) from None
    if parsed.get_backend_name() != "sqlite":
        raise StoreError(
            f"databases of kind {parsed.get_backend_name()!r} are not supported; use sqlite:///FILE"
        )
    if parsed.database in (None, "", ":memory:"):
        raise StoreError(
            "an in-memory SQLite database can't be shared by the store's lanes; use sqlite:///FILE"
        )
    return parsed


@contextlib.contextmanager
def open_database(url: URL) -> Any:
    """A connection inside a transaction, to a database whose schema is up to date."""
    directory = Path(str(url.database)).absolute().parent
    if not directory.is_dir():
        raise StoreError(f"the folder of the database, {directory}, does not exist")
    engine = create_store_engine(url)
    with engine.begin() as connection:
        before, after = migrate(connection)
        if before != after:
            logger.info("database schema: %s -> %s", before or "none", after)
        yield connection


def create_store_engine(url: URL, *, reading: bool = False) -> Engine:
    """An engine whose every connection is its own, set up for a lane."""
    # Parameters stay out of errors and logs: they hold tokens and wallets.
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "connect", _set_up_reader if reading else _set_up_writer)
    event.listen(engine, "begin", _begin_reading if reading else _begin_writing)
    return engine


def _set_up_writer(dbapi_connection: Any, record: Any) -> None:
    _set_up(dbapi_connection, ["PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"])


def _set_up_reader(dbapi_connection: Any, record: Any) -> None:
    # Only the writing lane checkpoints: SQLite before 3.51.3 can lose commits to two that race.
    _set_up(dbapi_connection, ["PRAGMA wal_autocheckpoint=0", "PRAGMA query_only=ON"])


def _set_up(dbapi_connection: Any, pragmas: Sequence[str]) -> None:
    dbapi_connection.isolation_level = (
        None  # SQLAlchemy's events begin transactions, not the driver.
    )
    cursor = dbapi_connection.cursor()
    for pragma in (
        f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}",
        "PRAGMA foreign_keys=ON",
        *pragmas,
    ):
        cursor.execute(pragma)
    cursor.close()


def _begin_writing(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
