"""A database as the operator's commands open it: one that a server may be using meanwhile."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import URL, delete, select, update
from sqlalchemy.exc import OperationalError

from tests.contract.backends import SqlBackend, register
from wsserver.store.databases import (
    database_exists,
    open_database,
    open_live_database,
    parse_url,
    refusing_beside_servers,
)
from wsserver.store.errors import SchemaTooNew, StoreError
from wsserver.store.guard import ServingGuard
from wsserver.store.tables import accounts, newest_sequence


def url_of(path: Path) -> URL:
    return parse_url(f"sqlite:///{path}")


def test_a_database_that_is_not_there_is_not_made(database: Path) -> None:
    with (
        pytest.raises(StoreError, match="there is no database /"),
        open_live_database(url_of(database)),
    ):
        pass
    assert [*database.parent.iterdir()] == []


def test_a_file_that_is_no_database_is_told(database: Path) -> None:
    database.write_text("this is no database" * 100)
    with (
        pytest.raises(StoreError, match="can't be used: DatabaseError"),
        open_live_database(url_of(database)),
    ):
        pass


def test_an_empty_database_stays_empty(database: Path) -> None:
    database.touch()
    for reading in (True, False):
        with (
            pytest.raises(StoreError, match="`wsserver migrate` makes one"),
            open_live_database(url_of(database), reading=reading),
        ):
            pass
    with open_database(url_of(database)):
        pass


def test_a_schema_of_another_version_is_left_to_its_server(database: Path) -> None:
    with open_database(url_of(database)):
        pass
    for revision, error, text in (
        ("0001", StoreError, "run `wsserver migrate`"),
        ("9999", SchemaTooNew, "9999"),
    ):
        other = sqlite3.connect(database, isolation_level=None)
        other.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        with pytest.raises(error, match=text), open_live_database(url_of(database)):
            pass
        assert other.execute("SELECT * FROM alembic_version").fetchall() == [(revision,)]
        other.close()


async def test_looking_at_a_database_keeps_nobody_from_writing(backend: SqlBackend) -> None:
    phone = await (await register(backend)).log_in()
    with open_live_database(url_of(backend.path), reading=True) as connection:
        assert connection.execute(select(newest_sequence()).select_from(accounts)).scalar_one() == 0
        await phone.push(1)
        assert connection.execute(select(newest_sequence()).select_from(accounts)).scalar_one() == 0
        with pytest.raises(OperationalError, match="readonly"):
            connection.execute(delete(accounts))


async def test_what_a_command_changes_is_seen_once_it_is_done(backend: SqlBackend) -> None:
    account = await register(backend)
    with open_live_database(url_of(backend.path)) as connection:
        connection.execute(update(accounts).values(disabled=True))
        credentials = await account.credentials()
        assert credentials is not None
        assert not credentials.disabled
    credentials = await account.credentials()
    assert credentials is not None
    assert credentials.disabled


def test_on_sqlite_a_file_is_the_database_and_has_one_server(tmp_path: Path) -> None:
    url = parse_url(f"sqlite:///{tmp_path / 'wallets.db'}")
    assert not database_exists(url)
    with open_database(url) as connection, refusing_beside_servers(connection):
        assert database_exists(url)
        with pytest.raises(StoreError, match="another server serves"):
            ServingGuard(tmp_path / "wallets.db")
    ServingGuard(tmp_path / "wallets.db").release()
