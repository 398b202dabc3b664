"""The databases that there can be: by their URL, a connection or an engine of theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError

from wsserver import logbook
from wsserver.store.errors import StoreError as StoreError
from wsserver.store.guard import ServingGuard
from wsserver.store.lanes import describe
from wsserver.store.postgresql import (
    complete_url,
    create_postgresql_engine,
    refuse_beside_servers,
    wait_to_migrate,
)
from wsserver.store.schema import check_finished, check_schema, is_migrated, migrate
from wsserver.store.sqlite import check_sqlite_url, create_sqlite_engine, find_folder

BUSY_TIMEOUT_S: Final = 5.0
"""How long a connection waits for another process's lock before it gives up."""


def parse_url(url: str) -> URL:
    """The database's URL; raises StoreError with a sentence on what is wrong with it."""
    try:
        parsed = make_url(url)
    except Exception:
        # Not the URL: there may be a password in it.
        raise StoreError(
            "the database URL is not one that SQLAlchemy can read; it looks like "
            "sqlite:///wallet-sync.db, sqlite:////var/lib/wallet-sync/wallet-sync.db or "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return complete_url(parsed)
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StoreError(
            f"databases of kind {parsed.drivername!r} are not supported; use sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    check_sqlite_url(parsed)
    return parsed


def is_sqlite(url: URL) -> bool:
    """Whether the database is a file of SQLite; one on PostgreSQL otherwise."""
    return url.get_backend_name() == "sqlite"


def create_store_engine(
    url: URL,
    *,
    reading: bool = False,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    bounded: bool = False,
) -> Engine:
    """An engine whose every connection is its own, set up to read, or to write.

    ``bounded``: on PostgreSQL its statements may take so long and no longer, as those of lanes.
    """
    if is_sqlite(url):
        return create_sqlite_engine(url, reading=reading, busy_timeout_s=busy_timeout_s)
    return create_postgresql_engine(
        url, reading=reading, lock_timeout_s=busy_timeout_s, bounded=bounded
    )


def require_sqlite(url: URL, instead: str) -> None:
    """Raises StoreError where the database is none of SQLite, with what to do there."""
    if not is_sqlite(url):
        raise StoreError(f"that is for databases on SQLite; on PostgreSQL {instead}")


@contextlib.contextmanager
def open_database(url: URL, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[Connection]:
    """A connection inside a transaction, to a database whose schema is up to date.

    Raises StoreError where the database can't be used, or fails what is done with it.
    """
    if is_sqlite(url):
        find_folder(url)
    engine = create_store_engine(url, busy_timeout_s=busy_timeout_s)
    with _telling_faults(url), engine.begin() as connection:
        if not is_sqlite(url):
            wait_to_migrate(connection)
        check_finished(connection)
        before, after = migrate(connection)
        if before != after:
            logbook.SCHEMA_MIGRATED.log(revision_before=before or "none", revision=after)
        yield connection


@contextlib.contextmanager
def open_live_database(url: URL, *, reading: bool = False) -> Iterator[Connection]:
    """A connection inside a transaction, to a database that may be served from meanwhile.

    It is neither made nor migrated. With ``reading`` it keeps nobody from writing. Raises
    StoreError where the database can't be used, or fails what is done with it.
    """
    if is_sqlite(url) and not Path(str(url.database)).is_file():
        raise StoreError(f"there is no database {Path(str(url.database)).absolute()}")
    engine = create_store_engine(url, reading=reading)
    with _telling_faults(url), engine.begin() as connection:
        check_finished(connection)
        check_schema(connection)
        yield connection


def database_exists(url: URL) -> bool:
    """Whether there is a database of a server, as far as can be told without changing anything."""
    if is_sqlite(url):
        return Path(str(url.database)).is_file()
    with _telling_faults(url), create_store_engine(url, reading=True).begin() as connection:
        return is_migrated(connection)


@contextlib.contextmanager
def refusing_beside_servers(connection: Connection) -> Iterator[None]:
    """While no server serves from the connection's database, and none starts to.

    To be left after the transaction's end: a server that starts must find it committed. Raises
    StoreError where one serves.
    """
    url = connection.engine.url
    if is_sqlite(url):
        guard = ServingGuard(str(url.database))
        try:
            yield
        finally:
            guard.release()
    else:
        refuse_beside_servers(connection)
        yield


@contextlib.contextmanager
def _telling_faults(url: URL) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise StoreError(f"the database {url.database} can't be used: {describe(error)}") from None
