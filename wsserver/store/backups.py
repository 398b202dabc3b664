"""Backups of a SQLite database: made while it is served from, put back while it is not.

SQLite's own backup interface copies the pages of one snapshot, so that writers wait for nothing and
the copy is as of one moment: all that was acknowledged before it is in it. Putting one back is one
transaction of the database, so that a crash leaves what was there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from wsserver.store import operator
from wsserver.store.databases import open_database, open_live_database, require_sqlite
from wsserver.store.errors import StoreError
from wsserver.store.guard import ServingGuard
from wsserver.store.sqlite import find_folder

PAGES_AT_ONCE: Final = 1024
"""What is copied between two signs of progress: 4 MiB."""

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What was made: a file of ``size_bytes``, and how many rows each table in it has."""

    file: Path
    size_bytes: int
    rows: Mapping[str, int]


def back_up(url: URL, target: Path, *, overwrite: bool, progress: Progress) -> Backup:
    """Copy the database to the file ``target``.

    It is there whole and durable, or not at all: found sound, and with as many rows as the database
    had. A server may go on writing meanwhile: its write-ahead log is not shortened until this is
    done. Raises StoreError.
    """
    require_sqlite(url, "back up with pg_dump, or with its continuous archiving")
    if target.exists() and not overwrite:
        raise StoreError(f"{target} exists already; give the backup a name of its own")
    with (
        _unfinished(target.absolute()) as unfinished,
        open_live_database(url, reading=True) as connection,
    ):
        # A read begins the snapshot: were it to begin with each step of the copy, every commit
        # would start that anew.
        operator.count_accounts(connection)
        source: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # sqlite3's
        with open_file(unfinished) as copy:
            source.backup(copy, pages=PAGES_AT_ONCE, progress=_tell(progress))
            _make_plain(copy)
            _check(copy, unfinished)
            rows = count_rows(copy)
            if rows != count_rows(source):
                raise StoreError(f"{target} would not have had the rows of the database")
        _finish(unfinished, target)
        return Backup(target, target.stat().st_size, rows)


def restore(url: URL, backup: Path, *, keep_tokens: bool, replace: bool, progress: Progress) -> int:
    """Put a backup in the place of all that is in the database; gives its number of accounts.

    Every account has a new epoch then, and no token, lest a device that was revoked since come back
    to life; ``keep_tokens`` leaves them. ``replace``: also where the database has accounts. Raises
    StoreError: a server is running, the backup is damaged, is no backup, is of a later version.
    """
    require_sqlite(url, "restore with pg_restore, then run `wsserver epoch renew`")
    if not backup.is_file():
        raise StoreError(f"there is no file {backup}")
    folder = find_folder(url)
    database = Path(str(url.database))
    guard = ServingGuard(database)
    try:
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=folder) as workplace:
            prepared = Path(workplace) / "prepared.db"
            _prepare(backup, prepared, keep_tokens=keep_tokens)
            with open_database(url) as connection:
                found = operator.count_accounts(connection)
            if found and not replace:
                raise StoreError(
                    f"{database} has {found:,} accounts already; --replace puts the backup in "
                    "their place, for good: make a backup of it first"
                )
            with open_file(prepared) as source, open_file(database) as target:
                source.backup(target, pages=PAGES_AT_ONCE, progress=_tell(progress))
                target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return _count_accounts(target)
    except sqlite3.Error as error:
        raise StoreError(f"the database {database} can't be written: {_name(error)}") from None
    finally:
        guard.release()


def _prepare(backup: Path, prepared: Path, *, keep_tokens: bool) -> None:
    """A copy of the backup, found whole, of this version's schema, with new epochs."""
    try:
        with open_file(backup, reading=True) as source, open_file(prepared) as copy:
            source.backup(copy)
            _check(copy, backup)
    except sqlite3.Error as error:
        raise StoreError(f"{backup} is no backup that can be read: {_name(error)}") from None
    url = URL.create("sqlite", database=str(prepared))
    # Before it is migrated: an empty file would be made a database.
    with open_file(prepared) as copy:
        if not copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'accounts'").fetchone():
            raise StoreError(f"{backup} is no backup of a wallet-sync database")
    with open_database(url) as connection:
        for _ in operator.renew_epochs(connection, keep_tokens=keep_tokens):
            pass
    with open_file(prepared) as copy:
        _make_plain(copy)


@contextlib.contextmanager
def open_file(file: Path, *, reading: bool = False) -> Iterator[sqlite3.Connection]:
    """A file that no server uses; with ``reading`` it stays as it is."""
    # immutable: a backup may lie where nothing can be written.
    mode = "mode=ro&immutable=1" if reading else "mode=rwc"
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?{mode}", uri=True, isolation_level=None
    )
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA fullfsync=ON")
        yield connection
    finally:
        connection.close()


def _make_plain(connection: sqlite3.Connection) -> None:
    """One file, with no log beside it."""
    connection.execute("PRAGMA journal_mode=DELETE")


def _check(connection: sqlite3.Connection, file: Path) -> None:
    found = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
    if found != ["ok"]:
        raise StoreError(f"{file} is damaged: {found[0]}")


def count_rows(connection: sqlite3.Connection) -> dict[str, int]:
    """The rows of each table that has any place in a backup, by name."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
        "AND name <> 'alembic_version' ORDER BY name"
    ).fetchall()
    counts = {}
    for (name,) in names:
        ((counts[name],),) = connection.execute(f'SELECT count(*) FROM "{name}"')  # noqa: S608  # a table's own name
    return counts


def _count_accounts(connection: sqlite3.Connection) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM accounts").fetchall()
    return int(count)


def _tell(progress: Progress) -> Callable[[int, int, int], object]:
    return lambda _, remaining, total: progress(total - remaining, total)


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A file beside the target, for its owner's eyes only, that is gone afterwards."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise StoreError(f"{target.parent} can't be written: {error.strerror}") from None
    os.close(descriptor)
    try:
        yield Path(name)
    except sqlite3.Error as error:
        raise StoreError(f"{target} can't be written: {_name(error)}") from None
    finally:
        for left in (name, f"{name}-journal", f"{name}-wal", f"{name}-shm"):
            Path(left).unlink(missing_ok=True)


def _finish(unfinished: Path, target: Path) -> None:
    sync_path(unfinished)
    os.replace(unfinished, target)
    sync_path(target.absolute().parent)


def sync_path(path: Path) -> None:
    """A file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or type(error).__name__
