"""Copies between databases of either kind: every row by its value, wherever they were cut short."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, delete, insert, select, text, update

from tests.conftest import Databases
from tests.contract.backends import open_sql, register
from wsserver.store import copying
from wsserver.store import rows as rows_module
from wsserver.store.copying import CopiedTable, copy
from wsserver.store.databases import (
    create_store_engine,
    is_sqlite,
    open_database,
    open_live_database,
    parse_url,
)
from wsserver.store.errors import StoreError
from wsserver.store.guard import ServingGuard
from wsserver.store.postgresql import ServingLock
from wsserver.store.schema import find_newest_revision, install
from wsserver.store.tables import (
    accounts,
    allowlist,
    devices,
    installation,
    metadata,
    notices,
    registrations,
    resets,
    versions,
)

ACCOUNTS = 20
NOW_MS = 1_800_000_000_000
KINDS = ("sqlite", "postgresql")
Make = Callable[[str], URL]


one_way = pytest.mark.parametrize(
    ("source", "target"), [("sqlite", "postgresql")], indirect=["source", "target"]
)


class CutShort(Exception):
    """What a kill is to the copy."""


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes the URL of a new database of a kind, which is empty."""
    numbers = iter(range(100))

    def make_url(kind: str) -> URL:
        if kind == "sqlite":
            return parse_url(f"sqlite:///{tmp_path / f'{next(numbers)}.db'}")
        databases: Databases = request.getfixturevalue("databases")
        return parse_url(databases.create())

    return make_url


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, make: Make) -> URL:
    """A database of each kind, with rows in all tables."""
    url = make(request.param)
    with open_database(url) as connection:
        install(connection, history_depth=10, now_ms=NOW_MS)
        fill(connection)
    return url


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, make: Make) -> URL:
    """An empty database of each kind."""
    return make(request.param)


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PORTION_ROWS", 7)


def credentials(name: str) -> dict[str, Any]:
    return {
        "password_digest": hashlib.sha256(name.encode()).digest(),
        "password_salt": hashlib.sha256(b"salt" + name.encode()).digest()[:16],
        "password_n": 2**15,
        "password_r": 8,
        "password_p": 1,
        "client_salt_seed": "ab" * 32,
        "kdf_n": 2**17,
        "kdf_r": 8,
        "kdf_p": 1,
    }


def fill(connection: Connection) -> None:
    """Rows of each table; the account that was made last is gone."""
    emails = [f"{name}@example.com" for name in ("joe", "JÖE", "a_b", "a-b", "a b", "a.b", "ab")]
    emails += [f"user{number}@example.com" for number in range(ACCOUNTS + 1 - len(emails))]
    connection.execute(
        insert(accounts),
        [
            {
                "email": email,
                **credentials(email),
                "epoch": f"{number:032x}",
                "sequence": 0,
                "verified": number % 3 > 0,
                "disabled": number % 5 == 0,
                "created_at": NOW_MS + number,
            }
            for number, email in enumerate(emails)
        ],
    )
    ids = [*connection.execute(select(accounts.c.id).order_by(accounts.c.id)).scalars()]
    connection.execute(delete(accounts).where(accounts.c.id == ids.pop()))
    connection.execute(
        insert(devices),
        [
            {
                "account_id": account_id,
                "device_id": device_id,
                "name": None if device_id == "phone" else 'Joe\'s "\\tab" — \\N',
                "token_hash": hashlib.sha256(f"{account_id} {device_id}".encode()).digest()
                if device_id > "b"
                else None,
                "token_used_at": NOW_MS,
                "created_at": NOW_MS,
                "last_seen_at": NOW_MS,
                "applied_sequence": 2**53 - 1,
            }
            for account_id in ids
            for device_id in ("B", "a", "a b", "a-b", "phone", "ß")
        ],
    )
    connection.execute(
        insert(versions),
        [
            {
                "account_id": account_id,
                "slot": sequence % 10,
                "sequence": sequence,
                "device_id": "phone",
                "updated_at": NOW_MS + sequence,
                "hmac": b"\0\xff\\x41'",
                "encrypted_wallet": bytes(range(256)) * sequence,
            }
            for account_id in ids[:5]
            for sequence in range(7, 17)
        ],
    )
    waiting = [f"{name}@example.org" for name in ("Z", "a", "_", "é")]
    connection.execute(
        insert(registrations),
        [
            {
                "email": email,
                "token_hash": hashlib.sha256(email.encode()).digest(),
                **credentials(email),
                "expires_at": NOW_MS,
            }
            for email in waiting
        ],
    )
    connection.execute(insert(allowlist), [{"email": it, "created_at": 1} for it in waiting])
    connection.execute(
        insert(resets).values(account_id=ids[3], token_hash=b"\x80" * 32, expires_at=NOW_MS)
    )
    connection.execute(
        insert(notices),
        [{"account_id": 7, "device_id": None, "reason": "x", "created_at": 1} for _ in range(3)],
    )


def run(source: URL, target: URL, *, cut_after: int | None = None) -> list[CopiedTable]:
    """The copy; cut short when so many of its signs of progress were given."""
    left = cut_after

    def progress(table: str, done: int, total: int) -> None:
        nonlocal left
        assert 0 <= done <= total
        if left is not None:
            left -= 1
            if left < 0:
                raise CutShort

    return copy(source, target, progress=progress)


def read(url: URL) -> dict[str, Any]:
    """Every row of a database, by table, in an order that is the same everywhere."""
    with create_store_engine(url, reading=True).begin() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
        }


def written(tables: list[CopiedTable]) -> int:
    return sum(table.written for table in tables)


def change(url: URL, statement: Any, **values: Any) -> None:
    with create_store_engine(url).begin() as connection:
        connection.execute(statement, values)


def test_every_row_is_in_the_target_as_it_was(source: URL, target: URL) -> None:
    before = read(source)
    tables = run(source, target)
    assert read(target) == read(source) == before
    assert {table.name: table.rows for table in tables} == {
        name: len(rows) for name, rows in before.items()
    }
    assert written(tables) == sum(map(len, before.values()))
    assert all(len(bytes.fromhex(table.checksum)) == 32 for table in tables)


def test_the_checksums_are_those_of_the_way_back_too(make: Make, source: URL, target: URL) -> None:
    there = run(source, target)
    back = make("sqlite")
    assert run(target, back) == there
    assert read(back) == read(source)


async def test_ids_that_were_given_out_are_not_given_out_again(source: URL, target: URL) -> None:
    run(source, target)
    async with open_sql(target.render_as_string(hide_password=False)) as store:
        account = await register(store, "new@example.com")
    assert account.account_id == ACCOUNTS + 2


@pytest.mark.parametrize("cut_after", [0, 4, 20])
def test_a_copy_that_was_cut_short_goes_on(source: URL, target: URL, cut_after: int) -> None:
    with pytest.raises(CutShort):
        run(source, target, cut_after=cut_after)
    so_far = sum(map(len, read(target).values()))
    with pytest.raises(StoreError, match="is not finished"), open_database(target):
        pass
    with pytest.raises(StoreError, match="is not finished"), open_live_database(target):
        pass
    tables = run(source, target)
    assert read(target) == read(source)
    assert written(tables) == sum(map(len, read(source).values())) - so_far
    with open_live_database(target):
        pass


def test_what_changed_in_the_source_meanwhile_is_right_in_the_end(source: URL, target: URL) -> None:
    with pytest.raises(CutShort):
        run(source, target, cut_after=25)
    # An address goes to an account of a later portion; accounts and devices come and go.
    change(source, update(accounts).where(accounts.c.id == 3).values(email="old@example.com"))
    change(source, update(accounts).where(accounts.c.id == 18).values(email="a_b@example.com"))
    change(source, delete(accounts).where(accounts.c.id == 9))
    change(source, delete(allowlist))
    change(source, update(devices).where(devices.c.device_id == "a").values(name="new"))
    run(source, target)
    assert read(target) == read(source)


@one_way
def test_what_is_in_the_target_beyond_the_source_goes(source: URL, target: URL) -> None:
    with pytest.raises(CutShort):
        run(source, target, cut_after=25)
    change(source, delete(accounts).where(accounts.c.id > 14))
    tables = run(source, target)
    assert read(target) == read(source)
    assert tables[0].written == 0


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_an_installation_that_nobody_uses_yet_is_copied(make: Make, target: URL) -> None:
    new = make("sqlite")
    with open_database(new) as connection:
        install(connection, history_depth=7, now_ms=NOW_MS)
    run(new, target)
    assert read(target) == read(new)


@one_way
def test_a_portion_ends_with_so_many_bytes(
    source: URL, target: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PORTION_ROWS", 10_000)
    monkeypatch.setattr(copying, "PORTION_BYTES", 5000)
    run(source, target)
    assert read(target) == read(source)


# What is refused, and changes nothing.


@one_way
def test_a_target_that_holds_an_installation_is_refused(
    make: Make, source: URL, target: URL
) -> None:
    run(source, target)
    before = read(target)
    with pytest.raises(StoreError, match="holds this installation already"):
        run(source, target)
    other = make("sqlite")
    with open_database(other) as connection:
        install(connection, history_depth=3, now_ms=NOW_MS)
    with pytest.raises(StoreError, match="holds another installation already"):
        run(other, target)
    with pytest.raises(CutShort):
        run(source, fresh := make("sqlite"), cut_after=3)
    with pytest.raises(StoreError, match="an unfinished copy of another installation"):
        run(other, fresh)
    assert read(target) == before


@one_way
def test_rows_without_an_installation_are_anothers_too(source: URL, target: URL) -> None:
    with open_database(target) as connection:
        connection.execute(insert(allowlist).values(email="joe@example.com", created_at=1))
    with pytest.raises(StoreError, match="holds another installation already"):
        run(source, target)


def test_a_source_that_holds_nothing_is_refused(make: Make, target: URL) -> None:
    empty = make("sqlite")
    with pytest.raises(StoreError, match="there is no database"):
        run(empty, target)
    with open_database(empty):
        pass
    with pytest.raises(StoreError, match="no server was ever started on it"):
        run(empty, target)


def test_a_source_that_a_later_version_has_migrated_is_refused(make: Make, source: URL) -> None:
    # This version could serve from it; but there may be columns that it doesn't know.
    later = {"schema_revision": "9999", "oldest_code": find_newest_revision()}
    change(source, update(installation).values(later))
    change(source, text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="at most; use the newer version"):
        run(source, make("sqlite"))


@pytest.fixture
def serve() -> Iterator[Callable[[URL], None]]:
    """Has a server serve a database, as far as locks go."""
    with ExitStack() as stack:

        def start(url: URL) -> None:
            if is_sqlite(url):
                stack.callback(ServingGuard(str(url.database)).release)
            else:
                lock = ServingLock(create_store_engine(url), shared=True)
                lock.take()
                stack.callback(lock.close, 0)

        yield start


def test_nothing_is_copied_from_under_a_server(
    source: URL, target: URL, serve: Callable[[URL], None]
) -> None:
    serve(source)
    with pytest.raises(StoreError, match="server serves"):
        run(source, target)


def test_nothing_is_copied_to_where_a_server_serves(
    source: URL, target: URL, serve: Callable[[URL], None]
) -> None:
    serve(target)
    with pytest.raises(StoreError, match="server serves"):
        run(source, target)


@one_way
def test_no_server_starts_meanwhile(source: URL, target: URL, serve: Callable[[URL], None]) -> None:
    def try_to_serve(table: str, done: int, total: int) -> None:
        for url in (source, target):
            with pytest.raises(StoreError):
                serve(url)

    copy(source, target, progress=try_to_serve)


def test_a_database_is_not_copied_to_itself(source: URL) -> None:
    with pytest.raises(StoreError, match="server serves"):
        run(source, source)


# Faults.


@one_way
def test_a_target_that_gives_back_something_else_is_told(
    source: URL, target: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget_one(connection: Connection, table: Any, rows: Any) -> None:
        rows_module.copy_rows(connection, table, rows[:-1] if table.name == "versions" else rows)

    monkeypatch.setattr(copying, "copy_rows", forget_one)
    with pytest.raises(StoreError, match="gives back other rows of versions"):
        run(source, target)
    monkeypatch.undo()
    run(source, target)
    assert read(target) == read(source)


# A cursor of a server that is gone can't be closed.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_target_that_fails_is_told_and_the_copy_goes_on_later(
    make: Make, source: URL, databases: Databases
) -> None:
    target = make("postgresql")

    def cut(table: str, done: int, total: int) -> None:
        if table == "versions":
            databases.server.cut_connections()

    with pytest.raises(StoreError, match="the copy stopped"):
        copy(source, target, progress=cut)
    run(source, target)
    assert read(target) == read(source)


def test_rows_that_the_target_refuses_are_told(source: URL, target: URL) -> None:
    with pytest.raises(CutShort):
        run(source, target, cut_after=0)
    if is_sqlite(target):
        refusal = "CREATE TRIGGER no BEFORE INSERT ON versions BEGIN SELECT RAISE(ABORT, 'x'); END"
    else:
        refusal = "ALTER TABLE versions ADD CONSTRAINT no CHECK (sequence < 0)"
    change(target, text(refusal))
    with pytest.raises(StoreError, match="the copy stopped: "):
        run(source, target)
    assert read(target)["accounts"] == read(source)["accounts"]


def test_a_database_that_is_not_there_is_told(source: URL, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the copy stopped: "):
        run(source, parse_url("postgresql://nobody@127.0.0.1:1/none"))
    with pytest.raises(StoreError, match="does not exist"):
        run(source, parse_url(f"sqlite:///{tmp_path}/none/x.db"))
    assert installation.name in read(source)
