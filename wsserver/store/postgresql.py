"""How PostgreSQL is spoken to: what each connection is set up with, and the locks of processes.

Writers are READ COMMITTED: they lock the accounts that they decide on first, and every later
statement sees what was committed before it began, so that there is nothing to be serialised again.
Readers are REPEATABLE READ: a batch sees one moment, as on SQLite.
"""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from wsserver import logbook
from wsserver.store.errors import StoreError

CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_S: Final = 8
"""How long a statement of a lane may take: less than an operation waits in it."""
IDLE_TRANSACTION_TIMEOUT_S: Final = 10
"""After which the database ends the transaction of a process that stalls, and lets its locks go."""
SILENCE_TIMEOUT_S: Final = 8
"""After which a connection whose other side answers nothing, not even by TCP, is over."""
MIGRATION_PATIENCE_S: Final = 60.0
"""How long a process waits for another that migrates the database."""
CHECK_INTERVAL_S: Final = 2.0
"""How often a serving process sees whether it has its lock."""

_CLASS: Final = 0x5753
"""Our advisory locks are those with this first key; the second tells what is locked."""
_MIGRATING: Final = 1
_SERVING: Final = 2


def complete_url(url: URL) -> URL:
    """The URL with its driver; raises StoreError where that is not installed."""
    try:
        importlib.import_module("psycopg")
    except ImportError:
        raise StoreError(
            "a database on PostgreSQL needs psycopg, which the extra postgresql brings: "
            "pip install 'wallet-sync[server,postgresql]'"
        ) from None
    return url.set(drivername="postgresql+psycopg")


def create_postgresql_engine(
    url: URL, *, reading: bool, lock_timeout_s: float, bounded: bool
) -> Engine:
    """An engine whose every connection is its own, set up to read, or to write.

    ``bounded``: its statements may take `STATEMENT_TIMEOUT_S` at most.
    """
    settings = {
        "statement_timeout": STATEMENT_TIMEOUT_S * 1000 if bounded else 0,
        "lock_timeout": max(1, int(lock_timeout_s * 1000)),
        "idle_in_transaction_session_timeout": IDLE_TRANSACTION_TIMEOUT_S * 1000,
        "default_transaction_read_only": "on" if reading else "off",
    }

    def set_up(dbapi_connection: Any, record: Any) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) "
            "AS wanted (name, value)",
            ([*settings], [str(value) for value in settings.values()]),
        )
        # What was acknowledged has to be durable, whatever the database's own setting is.
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') = 'off'"
        )
        cursor.close()
        dbapi_connection.commit()

    given = {
        "application_name": "wallet-sync",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": SILENCE_TIMEOUT_S // 2,
        "keepalives_interval": SILENCE_TIMEOUT_S // 4,
        "keepalives_count": 2,
        "tcp_user_timeout": SILENCE_TIMEOUT_S * 1000,
    }
    engine = create_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        isolation_level="REPEATABLE READ" if reading else "READ COMMITTED",
        use_native_hstore=False,
        connect_args={name: value for name, value in given.items() if name not in url.query},
    )
    event.listen(engine, "connect", set_up)
    return engine


def wait_to_migrate(connection: Connection) -> None:
    """Have no other process migrate until the transaction ends; raises StoreError in the end."""
    ends_at_s = time.monotonic() + MIGRATION_PATIENCE_S
    while not _ask(connection, "pg_try_advisory_xact_lock", _MIGRATING):
        if time.monotonic() > ends_at_s:
            raise StoreError(
                f"another process has been migrating the database for {MIGRATION_PATIENCE_S:g} s"
            )
        time.sleep(0.05)


def refuse_beside_servers(connection: Connection) -> None:
    """Raises StoreError while a server serves from the database; none starts until the end."""
    if not _ask(connection, "pg_try_advisory_xact_lock", _SERVING):
        raise StoreError("a server serves the database; stop all of them first")


class ServingLock:
    """One process that serves a database, or many with a bus between them: held until closed.

    A thread sees to it that the lock is taken again when the database was restarted. ``shared``:
    others may serve too.
    """

    name = "serving lock"

    def __init__(self, engine: Engine, *, shared: bool) -> None:
        self._engine = engine
        self._shared = shared
        self._connection: Connection | None = None
        self._refuses = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=self.name, daemon=True)
        self.is_anothers = False
        """Whether another process took it when the database was restarted."""

    def take(self) -> None:
        """Take it; raises StoreError where another process has it, DBAPIError."""
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        function = "pg_try_advisory_lock_shared" if self._shared else "pg_try_advisory_lock"
        try:
            if not _ask(connection, function, _SERVING):
                raise StoreError(self._explain())
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def refuse_beside_others(self) -> None:
        """Raises StoreError where other processes serve too; none starts until `let_others_in`."""
        assert self._connection is not None
        if not _ask(self._connection, "pg_try_advisory_lock", _SERVING):
            raise StoreError("other servers serve the database")
        self._refuses = True

    def let_others_in(self) -> None:
        """End what `refuse_beside_others` began, if it was called."""
        if self._refuses:
            assert self._connection is not None
            _ask(self._connection, "pg_advisory_unlock", _SERVING)
            self._refuses = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """End the thread, and let go; False when ``timeout_s`` was too short."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._drop()
        return True

    def _explain(self) -> str:
        if self._shared:
            return (
                "another server serves the database without a bus, so that its devices would not "
                "hear of what those of this one push: give that one the same WSSERVER_BUS_URL, or "
                "stop it"
            )
        return (
            "another server serves the database, and there is no bus between the two, so that the "
            "devices of one would not hear of what those of the other push: give all of them the "
            "same WSSERVER_BUS_URL, or stop the other"
        )

    def _watch(self) -> None:
        while not self._ending.wait(CHECK_INTERVAL_S):
            try:
                if self._connection is None:
                    self.take()
                    self.is_anothers = False
                else:
                    self._connection.execute(text("SELECT 1"))
            except StoreError as error:
                if not self.is_anothers:
                    self.is_anothers = True
                    logbook.DATABASE_ANOTHERS.log(reason=str(error))
            except DBAPIError:
                # The lanes say what is wrong with the database.
                self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _ask(connection: Connection, function: str, what: int) -> bool:
    answer = connection.execute(text(f"SELECT {function}({_CLASS}, {what})"))
    return bool(answer.scalar_one())
