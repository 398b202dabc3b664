"""The schema: migrations, constraints, the ring of versions laid out anew."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Connection, Engine, create_engine, insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import StaticPool

from tests.contract.backends import open_sqlite, register
from wsserver.operations import LoadHistory
from wsserver.store import migrations
from wsserver.store.databases import create_store_engine, open_database, parse_url
from wsserver.store.errors import SchemaTooNew, StoreError
from wsserver.store.schema import install, migrate
from wsserver.store.tables import accounts, devices, installation, metadata, versions


@pytest.fixture
def url(tmp_path: Path) -> URL:
    return parse_url(f"sqlite:///{tmp_path / 'wallet-sync.db'}")


@pytest.fixture
def engine(url: URL) -> Engine:
    with open_database(url):
        pass
    return create_store_engine(url)


# Migrations.


def test_a_migrated_database_is_what_the_tables_say(engine: Engine) -> None:
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_migrated_database_has_every_clause_of_the_tables(engine: Engine) -> None:
    declared = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(declared)

    with engine.begin() as migrated, declared.begin() as created:
        assert read_clauses(migrated) == read_clauses(created)
    declared.dispose()


def read_clauses(connection: Connection) -> dict[str, set[str]]:
    """Each table's columns and constraints, as SQLite was told them, in whatever order."""
    rows = connection.execute(
        text(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            " AND name NOT IN ('alembic_version', 'sqlite_sequence')"
        )
    )
    tables = {}
    for name, sql in rows:
        head, _, body = re.sub(r"\s+", " ", sql).partition(" (")
        clauses = re.split(r", (?=[a-z_]+ [A-Z]|CONSTRAINT )", body.strip().removesuffix(")"))
        tables[name] = {head, *(clause.strip() for clause in clauses)}
    return tables


def test_the_clauses_that_are_compared_are_the_whole(engine: Engine) -> None:
    with engine.begin() as connection:
        clauses = read_clauses(connection)
    assert clauses.keys() >= {"accounts", "devices", "versions", "installation"}
    assert "CONSTRAINT ck_accounts_kdf_r CHECK (kdf_r = 8)" in clauses["accounts"]
    assert "hmac BLOB NOT NULL" in clauses["versions"]


def test_migrating_once_more_changes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        before = connection.execute(text("PRAGMA schema_version")).scalar_one()
        revision, same = migrate(connection)
        assert revision == same
        assert connection.execute(text("PRAGMA schema_version")).scalar_one() == before


def test_the_first_migration_tells_that_there_was_none(url: URL) -> None:
    with create_store_engine(url).begin() as connection:
        before, after = migrate(connection)
        assert before is None
        assert migrate(connection) == (after, after)


def test_a_migration_can_be_taken_back(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert list_tables(connection) == {"alembic_version", "sqlite_sequence"}
        migrate(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def list_tables(connection: Connection) -> set[str]:
    return {*connection.execute(text("SELECT name FROM sqlite_master")).scalars()} - {
        "sqlite_autoindex_alembic_version_1"
    }


def test_a_database_from_the_future_is_refused(url: URL, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(SchemaTooNew, match="revision 9999") as failed, open_database(url):
        pass
    assert isinstance(failed.value, StoreError)


def test_a_migration_that_fails_leaves_nothing(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = command.upgrade

    def upgrade_halfway(*arguments: Any) -> None:
        upgrade(*arguments)
        raise RuntimeError("the power went out")

    monkeypatch.setattr(command, "upgrade", upgrade_halfway)
    with pytest.raises(RuntimeError), open_database(url):
        pass

    with create_store_engine(url).begin() as connection:
        assert list_tables(connection) == set()


STARTER = """
import asyncio, sys
from wsserver.store.sql import SqlStore

async def start():
    store = SqlStore(
        sys.argv[1], history_depth=10, token_lifetime_s=60,
        answer=lambda operation, answer, done: done(answer),
    )
    sys.stdin.readline()
    installed = await store.open()
    await store.close()
    print(installed.decoy_key.hex())

print("ready", flush=True)
asyncio.run(start())
"""


@pytest.mark.parametrize("attempt", range(2))
def test_processes_that_start_at_once_on_a_new_file_share_it(url: URL, attempt: int) -> None:
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, str(url)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for starter in starters:
            assert starter.stdout is not None
            assert starter.stdout.readline() == "ready\n"
        for starter in starters:
            assert starter.stdin is not None
            starter.stdin.write("go\n")
            starter.stdin.flush()
        keys = {starter.communicate(timeout=60)[0] for starter in starters}
    finally:
        for starter in starters:
            starter.kill()
            starter.wait()
    assert [starter.returncode for starter in starters] == [0, 0, 0]
    assert len(keys) == 1


# Constraints.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A migrated database that every test leaves as it was."""
    url = parse_url(f"sqlite:///{tmp_path_factory.mktemp('constraints') / 'wallet-sync.db'}")
    with open_database(url):
        pass
    return create_store_engine(url)


@contextlib.contextmanager
def rolled_back(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


ACCOUNT: dict[str, Any] = {
    "id": 1, "email": "joe@example.com", "password_digest": b"d" * 32, "password_salt": b"s" * 32,
    "password_n": 2**15, "password_r": 8, "password_p": 1, "client_salt_seed": "ab" * 32,
    "kdf_n": 2**17, "kdf_r": 8, "kdf_p": 1, "epoch": "cd" * 16, "sequence": 0, "verified": True,
    "disabled": False, "created_at": 1,
}  # fmt: skip
DEVICE: dict[str, Any] = {
    "account_id": 1, "device_id": "phone", "name": None, "token_hash": None, "token_used_at": 1,
    "created_at": 1, "last_seen_at": 1, "applied_sequence": 0,
}  # fmt: skip
VERSION: dict[str, Any] = {
    "account_id": 1, "slot": 1, "sequence": 1, "device_id": "phone", "updated_at": 1,
    "hmac": b"m", "encrypted_wallet": b"w",
}  # fmt: skip
INSTALLATION: dict[str, Any] = {
    "id": 1, "decoy_key": b"k" * 32, "history_depth": 10, "probed_at": 1,
}  # fmt: skip
SECOND_ACCOUNT = {**ACCOUNT, "id": 2, "email": "eve@example.com"}

NOT_NULL = [
    (table, row, {column.name: None})
    for table, row in (
        (accounts, SECOND_ACCOUNT),
        (devices, {**DEVICE, "device_id": "laptop"}),
        (versions, {**VERSION, "slot": 2, "sequence": 2}),
    )
    for column in table.c
    if not column.nullable and column.name != "id"
]


@pytest.mark.parametrize(
    ("table", "row", "wrong"),
    [
        *NOT_NULL,
        (accounts, SECOND_ACCOUNT, {"id": 1}),
        (accounts, SECOND_ACCOUNT, {"email": "joe@example.com"}),
        (accounts, SECOND_ACCOUNT, {"email": "a@"}),
        (accounts, SECOND_ACCOUNT, {"email": "a" * 243 + "@example.com"}),
        (accounts, SECOND_ACCOUNT, {"password_digest": b"d" * 31}),
        (accounts, SECOND_ACCOUNT, {"password_salt": b"s" * 15}),
        (accounts, SECOND_ACCOUNT, {"password_n": 1}),
        (accounts, SECOND_ACCOUNT, {"password_r": 0}),
        (accounts, SECOND_ACCOUNT, {"password_p": 0}),
        (accounts, SECOND_ACCOUNT, {"client_salt_seed": "ab" * 31}),
        (accounts, SECOND_ACCOUNT, {"kdf_n": 2**13}),
        (accounts, SECOND_ACCOUNT, {"kdf_n": 2**21}),
        (accounts, SECOND_ACCOUNT, {"kdf_r": 9}),
        (accounts, SECOND_ACCOUNT, {"kdf_p": 0}),
        (accounts, SECOND_ACCOUNT, {"kdf_p": 5}),
        (accounts, SECOND_ACCOUNT, {"epoch": "cd" * 15}),
        (accounts, SECOND_ACCOUNT, {"sequence": -1}),
        (accounts, SECOND_ACCOUNT, {"sequence": 2**53}),
        (accounts, SECOND_ACCOUNT, {"sequence": "many"}),
        (devices, DEVICE, {}),
        (devices, DEVICE, {"account_id": 7, "device_id": "laptop"}),
        (devices, DEVICE, {"device_id": ""}),
        (devices, DEVICE, {"device_id": "d" * 65}),
        (devices, DEVICE, {"device_id": "laptop", "name": "n" * 129}),
        (devices, DEVICE, {"device_id": "laptop", "token_hash": b"t" * 31}),
        (devices, DEVICE, {"device_id": "laptop", "token_hash": b"t" * 32}),
        (devices, DEVICE, {"device_id": "laptop", "applied_sequence": -1}),
        (devices, DEVICE, {"device_id": "laptop", "applied_sequence": 2**53}),
        (versions, VERSION, {"sequence": 11}),
        (versions, VERSION, {"account_id": 7}),
        (versions, VERSION, {"slot": -1}),
        (versions, VERSION, {"slot": 2, "sequence": 0}),
        (versions, VERSION, {"slot": 2, "sequence": 2**53}),
        (versions, VERSION, {"slot": 2, "sequence": "many"}),
        (versions, VERSION, {"slot": 2, "device_id": ""}),
        (versions, VERSION, {"slot": 2, "hmac": b""}),
        (versions, VERSION, {"slot": 2, "hmac": b"m" * 257}),
        (versions, VERSION, {"slot": 2, "encrypted_wallet": b""}),
        (installation, INSTALLATION, {}),
        (installation, INSTALLATION, {"id": 2}),
    ],
)
def test_a_wrong_row_is_refused(
    shared: Engine, table: Any, row: dict[str, Any], wrong: dict[str, Any]
) -> None:
    with rolled_back(shared) as connection:
        connection.execute(insert(accounts).values(ACCOUNT))
        connection.execute(insert(devices).values({**DEVICE, "token_hash": b"t" * 32}))
        connection.execute(insert(versions).values(VERSION))
        connection.execute(insert(installation).values(INSTALLATION))

        with pytest.raises(IntegrityError):
            connection.execute(insert(table).values({**row, **wrong}))


@pytest.mark.parametrize("wrong", [{"history_depth": 0}, {"decoy_key": b"k" * 31}, {"id": 2}])
def test_a_wrong_installation_is_refused(shared: Engine, wrong: dict[str, Any]) -> None:
    with rolled_back(shared) as connection, pytest.raises(IntegrityError):
        connection.execute(insert(installation).values({**INSTALLATION, **wrong}))


def test_right_rows_are_taken(shared: Engine) -> None:
    with rolled_back(shared) as connection:
        connection.execute(insert(accounts).values(ACCOUNT))
        connection.execute(insert(accounts).values({**SECOND_ACCOUNT, "sequence": 2**53 - 1}))
        connection.execute(insert(devices).values(DEVICE))
        connection.execute(insert(devices).values({**DEVICE, "device_id": "laptop", "name": ""}))
        connection.execute(insert(versions).values({**VERSION, "hmac": b"m" * 256}))


# The installation and its ring.


def test_the_installation_is_made_once(engine: Engine) -> None:
    with engine.begin() as connection:
        first = install(connection, history_depth=10, now_ms=1)
    with engine.begin() as connection:
        second = install(connection, history_depth=10, now_ms=2)
    assert len(first.decoy_key) == 32
    assert first == second


@pytest.mark.parametrize("head", [1, 10, 25])
@pytest.mark.parametrize(("before", "after"), [(10, 3), (3, 10), (10, 1), (1, 10), (7, 6), (6, 7)])
async def test_another_depth_keeps_what_fits(
    tmp_path: Path, before: int, after: int, head: int
) -> None:
    path = tmp_path / "wallet-sync.db"
    async with open_sqlite(path, history_depth=before) as backend:
        joe = await (await register(backend, "joe@example.com")).log_in()
        eve = await (await register(backend, "eve@example.com")).log_in()
        await joe.push_many(range(1, head + 1))
        await eve.push(1, "eve's")

    async with open_sqlite(path, history_depth=after) as backend:
        joe.account.backend = eve.account.backend = backend
        kept = await read_kept(joe)
        assert kept == [*range(max(1, head - min(before, after) + 1), head + 1)]
        assert await read_kept(eve) == [1]

        # The ring goes on in its new depth.
        await joe.push_many(range(head + 1, head + after + 6))
        last = head + after + 5
        assert await read_kept(joe) == [*range(last - after + 1, last + 1)]


async def read_kept(login: Any) -> list[int]:
    """The sequences in the history, each of which can be read."""
    account = login.account
    history = await account.backend.perform(LoadHistory(account.account_id, 100, None))
    kept = sorted(version.sequence for version in history)
    for sequence in kept:
        state = await account.wallet(sequence)
        assert state is not None
        assert state.sequence == sequence
    assert await account.wallet(kept[0] - 1) is None
    return kept


async def test_a_depth_that_goes_back_and_forth_loses_no_head(tmp_path: Path) -> None:
    path = tmp_path / "wallet-sync.db"
    async with open_sqlite(path, history_depth=4) as backend:
        joe = await (await register(backend)).log_in()
        await joe.push_many(range(1, 8))
    for depth in (1, 9, 2, 100, 3):
        async with open_sqlite(path, history_depth=depth) as backend:
            joe.account.backend = backend
            wallet = await joe.account.wallet()
            assert wallet is not None
            assert wallet.encrypted_wallet == "wallet 7"
