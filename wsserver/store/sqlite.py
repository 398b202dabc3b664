"""How SQLite is spoken to: the file, and what each connection is set up with."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from wsserver.store.errors import StoreError
from wsserver.store.rows import execute_text

CACHE_KIB: Final = 32 * 1024
"""What a writing connection keeps: the rings of some hundred wallets. SQLite's own is 2 MiB."""


def check_sqlite_url(url: URL) -> None:
    """Raises StoreError with a sentence on what is wrong with it."""
    if url.host or url.username or url.port:
        raise StoreError(
            "the database URL names a host; a SQLite file has three slashes before its path, and a "
            "fourth if the path is absolute: sqlite:////var/lib/wallet-sync/wallet-sync.db"
        )
    if url.query:
        raise StoreError(
            f"the database URL has parameters ({', '.join(sorted(url.query))}), which this "
            "server does not take; use sqlite:///FILE"
        )
    if url.database in (None, "", ":memory:"):
        raise StoreError(
            "an in-memory SQLite database can't be shared by the store's lanes; use sqlite:///FILE"
        )


def find_folder(url: URL) -> Path:
    """The folder of the database file; raises StoreError where there is none."""
    folder = Path(str(url.database)).absolute().parent
    if not folder.is_dir():
        raise StoreError(f"the folder of the database, {folder}, does not exist")
    return folder


def create_sqlite_engine(url: URL, *, reading: bool, busy_timeout_s: float) -> Engine:
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
