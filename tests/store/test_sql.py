"""How the store speaks to SQLite: URLs, pragmas, what is in the file."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, make_url, text, update
from sqlalchemy.exc import OperationalError

from tests.contract.backends import Login, SqlBackend, open_sqlite, register
from wsschema.errors import NoSuchDevice
from wsserver.operations import LoadSession, Operation, Pushed
from wsserver.store import sql
from wsserver.store.context import Context
from wsserver.store.databases import create_store_engine, open_database, parse_url
from wsserver.store.errors import StoreError
from wsserver.store.sqlite import switch_to_wal
from wsserver.store.tables import devices

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///wallet-sync.db", "wallet-sync.db"),
        ("sqlite:////var/lib/wallet-sync.db", "/var/lib/wallet-sync.db"),
        ("sqlite+pysqlite:///wallet-sync.db", "wallet-sync.db"),
        ("sqlite:///a folder/ü%3F.db", "a folder/ü?.db"),
    ],
)
def test_the_url_of_a_file_names_it(url: str, expected: str) -> None:
    assert parse_url(url).database == expected


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "is not one that SQLAlchemy can read"),
        ("wallet-sync.db", "is not one that SQLAlchemy can read"),
        (f"joe:{PASSWORD}@database", "is not one that SQLAlchemy can read"),
        (f"postgresql://joe:{PASSWORD}@db:port/x", "is not one that SQLAlchemy can read"),
        (f"postgresql+asyncpg://joe:{PASSWORD}@db/x", r"'postgresql\+asyncpg' are not supported"),
        (f"mysql+pymysql://joe:{PASSWORD}@db/x", r"'mysql\+pymysql' are not supported"),
        ("sqlite+aiosqlite:///wallet-sync.db", r"'sqlite\+aiosqlite' are not supported"),
        ("sqlite://wallet-sync.db", "names a host"),
        (f"sqlite://joe:{PASSWORD}@/wallet-sync.db", "names a host"),
        (f"sqlite:///wallet-sync.db?key={PASSWORD}&cache=shared", r"\(cache, key\)"),
        ("sqlite://", "in-memory"),
        ("sqlite:///", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
    ],
)
def test_a_wrong_url_is_told_in_a_sentence_without_its_password(url: str, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence) as failed:
        parse_url(url)
    assert PASSWORD not in str(failed.value)
    assert failed.value.__cause__ is None


def read_pragmas(path: Path, **options: Any) -> dict[str, Any]:
    names = ("journal_mode", "synchronous", "wal_autocheckpoint", "query_only", "foreign_keys",
             "busy_timeout", "fullfsync")  # fmt: skip
    engine = create_store_engine(parse_url(f"sqlite:///{path}"), **options)
    with engine.connect() as connection:
        return {name: connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in names}


def test_connections_are_set_up_for_what_they_do(tmp_path: Path) -> None:
    path = tmp_path / "wallet-sync.db"
    common = {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}
    common |= {"wal_autocheckpoint": 0}  # See test_checkpoints.
    writing = {**common, "synchronous": 2, "query_only": 0, "fullfsync": 1}  # 2 is FULL.

    assert read_pragmas(path) == writing
    reading = read_pragmas(path, reading=True, busy_timeout_s=0.25)
    assert {**reading, "synchronous": 2, "fullfsync": 1} == {
        **writing,
        "query_only": 1,
        "busy_timeout": 250,
    }


@dataclass
class FakeCursor:
    """Fails as it is told to, then has switched."""

    failures: list[str]

    def execute(self, statement: str) -> FakeCursor:
        if self.failures:
            error = sqlite3.OperationalError("no")
            error.sqlite_errorname = self.failures.pop(0)
            raise error
        return self

    def fetchone(self) -> tuple[str]:
        return ("wal",)


def test_the_switch_to_a_write_ahead_log_waits_for_others_that_switch() -> None:
    cursor: Any = FakeCursor(["SQLITE_BUSY", "SQLITE_BUSY_RECOVERY"])

    switch_to_wal(cursor, patience_s=60)

    assert cursor.failures == []


@pytest.mark.parametrize(
    ("failures", "patience_s", "left"),
    [(["SQLITE_CANTOPEN"] * 3, 60, 2), (["SQLITE_BUSY"] * 3, 0, 2)],
)
def test_the_switch_to_a_write_ahead_log_gives_up(
    failures: list[str], patience_s: float, left: int
) -> None:
    cursor: Any = FakeCursor([*failures])

    with pytest.raises(sqlite3.OperationalError):
        switch_to_wal(cursor, patience_s=patience_s)

    assert len(cursor.failures) == left


def test_a_database_without_a_write_ahead_log_is_refused() -> None:
    with (
        pytest.raises(StoreError, match="its journal mode stays 'memory'"),
        create_store_engine(make_url("sqlite://")).connect(),
    ):
        pass


def test_a_reading_connection_can_not_write(tmp_path: Path) -> None:
    url = parse_url(f"sqlite:///{tmp_path / 'wallet-sync.db'}")
    with open_database(url):
        pass
    reader = create_store_engine(url, reading=True)

    with (
        reader.connect() as connection,
        pytest.raises(OperationalError, match="attempt to write a readonly database"),
    ):
        connection.execute(text("DELETE FROM accounts"))


def test_what_fails_inside_a_command_is_rolled_back_and_told(tmp_path: Path) -> None:
    url = parse_url(f"sqlite:///{tmp_path / 'wallet-sync.db'}")

    def fail() -> None:
        with open_database(url) as connection:
            connection.execute(text("CREATE TABLE made (x)"))
            connection.execute(text("SELECT * FROM missing"))

    with pytest.raises(StoreError, match=r"can't be used: OperationalError \(SQLITE_ERROR\)"):
        fail()

    with open_database(url) as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master")).scalars().all()
    assert "made" not in tables


async def test_a_locked_database_can_not_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "wallet-sync.db"
    async with open_sqlite(path):
        pass
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreError, match="database is locked"):
        async with open_sqlite(path, busy_timeout_s=0.02):
            pass

    other.close()
    async with open_sqlite(path):
        pass


async def test_a_database_that_is_a_folder_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open database file"):
        async with open_sqlite(tmp_path):
            pass


async def test_no_token_is_in_the_file(backend: SqlBackend) -> None:
    account = await register(backend)
    logins: list[Login] = [await account.log_in(f"device {n}") for n in range(5)]
    for number, login in enumerate(logins, start=1):
        await login.push(number)
    await backend.perform(logins[0].ending())

    content = b"".join(file.read_bytes() for file in backend.path.parent.iterdir())

    assert b"device 4" in content
    assert logins[4].token_hash in content
    for login in logins:
        assert login.opened.token is not None
        assert login.opened.token.encode() not in content
        assert login.opened.token.upper().encode() not in content
        assert bytes.fromhex(login.opened.token) not in content


class WriteAndFail(Operation[None]):
    """Takes every token away, then finds that it should not have."""

    writes = True


async def test_an_operation_that_fails_undoes_what_it_did(
    backend: SqlBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_fail(connection: Connection, context: Context, operation: WriteAndFail) -> None:
        connection.execute(update(devices).values(token_hash=None))
        raise NoSuchDevice

    monkeypatch.setitem(sql._SINGLE, WriteAndFail, write_and_fail)
    phone = await (await register(backend)).log_in()

    answers = await backend.perform_batch([phone.pushing(1), WriteAndFail(), phone.pushing(2)])

    assert [type(answer) for answer in answers] == [Pushed, NoSuchDevice, Pushed]


async def test_reads_go_on_during_a_long_write(backend: SqlBackend) -> None:
    phone = await (await register(backend)).log_in()
    stored = await phone.push(1)
    with backend.locked():
        (writing,) = backend.submit_all([phone.pushing(2)])
        for _ in range(20):
            assert await asyncio.wait_for(phone.account.wallet(), 4) == stored
        assert not writing.done()
    assert (await writing).fresh


async def test_resumes_are_answered_in_turns_with_everybody_else(
    backend: SqlBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all of a set before the event loop turns; and those that wait, before it is closed."""
    monkeypatch.setattr(sql, "DELIVERY_SLICE_S", 0)
    login = await (await register(backend)).log_in("phone")
    loop = asyncio.get_running_loop()
    order: list[str] = []
    store = backend.store

    def take(answer: Any) -> None:
        order.append("resumed")
        loop.call_soon(order.append, "turned")

    for _ in range(3):
        store.submit(LoadSession(login.token_hash), take)
    async with asyncio.timeout(10):
        while "resumed" not in order:  # looking is cheap
            await asyncio.sleep(0)
    await store.close()

    assert order.count("resumed") == 3
    assert order[1] == "turned"


async def test_a_store_that_is_closed_has_answered_all_resumes(
    backend: SqlBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "DELIVERY_SLICE_S", 0)
    login = await (await register(backend)).log_in("phone")
    answers: list[Any] = []

    def take(answer: Any) -> None:
        time.sleep(0.001)  # The loop is slower than the lane, which ends first.
        answers.append(answer)

    for _ in range(300):
        backend.store.submit(LoadSession(login.token_hash), take)

    await backend.store.close()
    assert [answer.account_id for answer in answers] == [login.account.account_id] * 300
