"""An installation moves from one database to another, of whichever kind, while nobody serves it.

A table at a time, in an order that references allow, a portion of its rows at a time: read from the
source in the order of their keys, written to the target in one transaction, read back from there,
and compared by checksum. Portions that the target has already are compared and left; from the first
that differs on, the table is written anew. So a copy that was cut short at any moment goes on where
it was, and one whose source has changed meanwhile comes out right all the same.

Until the end a table in the target says whose copy it is, and keeps servers off.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import marshal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    and_,
    delete,
    exists,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.exc import DBAPIError

from wsserver.store.databases import create_store_engine, is_sqlite, open_live_database
from wsserver.store.errors import StoreError
from wsserver.store.guard import ServingGuard
from wsserver.store.lanes import describe
from wsserver.store.postgresql import ServingLock, wait_to_migrate
from wsserver.store.rows import copy_rows, is_postgresql
from wsserver.store.schema import UNFINISHED, check_newest, migrate
from wsserver.store.sqlite import find_folder
from wsserver.store.tables import installation, metadata

PORTION_ROWS: Final = 5_000
PORTION_BYTES: Final = 8 * 2**20
"""A portion ends with the row that reaches either: so much is held in memory, and one row more."""
STREAMING: Final = {"stream_results": True, "yield_per": 200}
"""So many rows come from PostgreSQL at once."""
WAL_PAGES: Final = 1_000
"""What SQLite's log may grow to before it is copied into the file: nobody else uses the target."""

_unfinished = Table(
    UNFINISHED,
    MetaData(),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("began_at", BigInteger, nullable=False),
)

Progress = Callable[[str, int, int], None]
"""Told the table that is at hand, and how many rows of how many in all are done."""
Key = tuple[Any, ...]


@dataclass(slots=True)
class CopiedTable:
    """How many rows a table has, how many of them this run wrote, and the checksum of all.

    The checksum is that of the rows as they were read, from the source and from the target alike.
    """

    name: str
    rows: int = 0
    written: int = 0
    checksum: str = ""


def copy(source_url: URL, target_url: URL, *, progress: Progress) -> list[CopiedTable]:
    """Have in the target what is in the source; the source stays as it is.

    Raises StoreError: either is served from, the target holds another installation, a database
    fails. After a failure, and after a kill, the same call goes on.
    """
    with (
        _telling_faults(),
        _alone(source_url, "source"),
        _alone(target_url, "target"),
        open_live_database(source_url, reading=True) as source,
        _telling_faults(),
        create_store_engine(target_url).connect() as target,
    ):
        check_newest(source)
        _set_up(source, target)
        _begin(target, _identify(source))
        tables = _copy_tables(source, target, progress)
        _finish(source, target)
        return tables


# Beginning and ending.


@contextlib.contextmanager
def _telling_faults() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise StoreError(
            f"the copy stopped: {describe(error)}; the same command goes on with it"
        ) from None


@contextlib.contextmanager
def _alone(url: URL, role: str) -> Iterator[None]:
    """While no server serves from the database, and none starts to."""
    if is_sqlite(url):
        find_folder(url)
        guard = ServingGuard(Path(str(url.database)))
        try:
            yield
        finally:
            guard.release()
        return
    lock = ServingLock(create_store_engine(url), shared=False)
    try:
        lock.take()
    except StoreError:
        raise StoreError(f"a server serves the {role}; stop all of them first") from None
    try:
        yield
    finally:
        lock.close(0)


def _set_up(source: Connection, target: Connection) -> None:
    if is_postgresql(source):
        # Its one transaction waits while the target is written to.
        source.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    if not is_postgresql(target):
        with target.begin():
            target.exec_driver_sql(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")


def _identify(source: Connection) -> bytes:
    """What tells the source's installation from every other; the target may be others' to read."""
    key: bytes | None = source.execute(select(installation.c.decoy_key)).scalar_one_or_none()
    if key is None:
        raise StoreError("there is nothing in the source: no server was ever started on it")
    return hashlib.sha256(key).digest()


def _begin(target: Connection, fingerprint: bytes) -> None:
    """Make the target's tables, and the record of whose copy is under way; or go on with it."""
    with target.begin():
        if is_postgresql(target):
            wait_to_migrate(target)
        if inspect(target).has_table(UNFINISHED):
            if target.execute(select(_unfinished.c.fingerprint)).scalar_one() != fingerprint:
                raise StoreError("the target holds an unfinished copy of another installation")
            migrate(target)
            return
        migrate(target)
        for table in metadata.sorted_tables:
            if target.execute(select(exists(select(table)))).scalar_one():
                key = target.execute(select(installation.c.decoy_key)).scalar_one_or_none()
                same = key is not None and hashlib.sha256(key).digest() == fingerprint
                raise StoreError(
                    f"the target holds {'this' if same else 'another'} installation already; "
                    "give it an empty database"
                )
        _unfinished.create(target)
        began_at_ms = time.time_ns() // 1_000_000
        target.execute(insert(_unfinished).values(fingerprint=fingerprint, began_at=began_at_ms))


def _finish(source: Connection, target: Connection) -> None:
    """Carry over which ids were given out, and let servers in."""
    with target.begin():
        for table in metadata.sorted_tables:
            if table.dialect_options["sqlite"]["autoincrement"]:
                _write_mark(target, table, _read_mark(source, table))
        _unfinished.drop(target)
    if is_postgresql(target):
        with target.begin():
            target.execute(text("ANALYZE"))


def _read_mark(connection: Connection, table: Table) -> int:
    """The highest id that was ever given out: its row may be gone."""
    if is_postgresql(connection):
        query = f"SELECT last_value FROM {_name_sequence(connection, table)} WHERE is_called"  # noqa: S608  # the database's own name
        mark = connection.execute(text(query)).scalar_one_or_none()
    else:
        query = "SELECT seq FROM sqlite_sequence WHERE name = :name"
        mark = connection.execute(text(query), {"name": table.name}).scalar_one_or_none()
    highest = connection.execute(select(func.max(table.c.id))).scalar_one()
    return max(mark or 0, highest or 0)


def _write_mark(connection: Connection, table: Table, mark: int) -> None:
    if not mark:
        return
    if is_postgresql(connection):
        connection.execute(
            text("SELECT setval(:sequence, :mark)"),
            {"sequence": _name_sequence(connection, table), "mark": mark},
        )
    else:
        values = {"name": table.name, "mark": mark}
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), values)
        connection.execute(text("INSERT INTO sqlite_sequence VALUES (:name, :mark)"), values)


def _name_sequence(connection: Connection, table: Table) -> str:
    query = text("SELECT pg_get_serial_sequence(:name, 'id')")
    return str(connection.execute(query, {"name": table.name}).scalar_one())


# Copying.


def _copy_tables(source: Connection, target: Connection, progress: Progress) -> list[CopiedTable]:
    total = sum(
        source.execute(select(func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
    )
    copied: list[CopiedTable] = []
    for table in metadata.sorted_tables:
        before = sum(one.rows for one in copied)

        def tell(rows: int, name: str = table.name, before: int = before) -> None:
            progress(name, before + rows, total)

        copied.append(_copy_table(source, target, table, tell))
    return copied


def _copy_table(
    source: Connection, target: Connection, table: Table, tell: Callable[[int], None]
) -> CopiedTable:
    copied = CopiedTable(table.name)
    ours, theirs = hashlib.sha256(), hashlib.sha256()
    last: Key | None = None
    appending = False
    tell(0)
    with contextlib.closing(_read_portions(source, table)) as portions:
        for portion in portions:
            for row in portion:
                _feed(ours, row)
            upto = tuple(portion[-1]._mapping[column] for column in table.primary_key)
            if not appending:
                found = theirs.copy()
                _feed_range(found, target, table, last, upto)
                appending = found.digest() != ours.digest()
                if appending:
                    _delete_beyond(target, table, last)
                else:
                    theirs = found
            if appending:
                with target.begin():
                    copy_rows(target, table, portion)
                _feed_range(theirs, target, table, last, upto)
                if theirs.digest() != ours.digest():
                    raise StoreError(
                        f"the target gives back other rows of {table.name} than were written"
                    )
                copied.written += len(portion)
            copied.rows += len(portion)
            last = upto
            tell(copied.rows)
    if not appending:
        _delete_beyond(target, table, last)
    copied.checksum = theirs.hexdigest()
    return copied


def _read_portions(source: Connection, table: Table) -> Generator[list[Row[Any]], None, None]:
    ordered = select(table).order_by(*_key(source, table))
    sizeable = [
        place for place, column in enumerate(table.columns) if isinstance(column.type, LargeBinary)
    ]
    portion: list[Row[Any]] = []
    size_bytes = 0
    with source.execute(ordered, execution_options=STREAMING) as rows:
        for row in itertools.chain.from_iterable(rows.partitions()):
            portion.append(row)
            size_bytes += sum(len(row[place]) for place in sizeable if row[place] is not None)
            if len(portion) == PORTION_ROWS or size_bytes >= PORTION_BYTES:
                yield portion
                portion, size_bytes = [], 0
    if portion:
        yield portion


def _feed_range(
    checksum: Any, target: Connection, table: Table, after: Key | None, upto: Key
) -> None:
    """Add the target's rows with keys after the one, up to and with the other."""
    key = _key(target, table)
    wanted = select(table).where(_beyond(key, after), _row(key) <= _values(key, upto))
    # For the index, which may have another order of text.
    wanted = wanted.where(key[0] <= upto[0]).order_by(*key)
    with target.begin():
        for row in target.execute(wanted).all():
            _feed(checksum, row)


def _delete_beyond(target: Connection, table: Table, last: Key | None) -> None:
    with target.begin():
        target.execute(delete(table).where(_beyond(_key(target, table), last)))


def _key(connection: Connection, table: Table) -> Sequence[ColumnElement[Any]]:
    """The columns of the primary key, in an order that is the same on every database."""
    if not is_postgresql(connection):
        return [*table.primary_key]
    return [
        column.collate("C") if isinstance(column.type, Text) else column
        for column in table.primary_key
    ]


def _beyond(key: Sequence[ColumnElement[Any]], last: Key | None) -> ColumnElement[bool]:
    if last is None:
        return true()
    return and_(key[0] >= last[0], _row(key) > _values(key, last))


def _row(key: Sequence[ColumnElement[Any]]) -> Any:
    return tuple_(*key) if len(key) > 1 else key[0]


def _values(key: Sequence[ColumnElement[Any]], values: Key) -> Any:
    return _row([literal(value, part.type) for value, part in zip(values, key, strict=True)])


def _feed(checksum: Any, row: Row[Any]) -> None:
    # Of version 2, it depends on nothing but the values; and nothing else is as quick.
    checksum.update(marshal.dumps(tuple(row), 2))
