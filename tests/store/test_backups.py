"""Backups of a SQLite database, made and put back inside this process."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.contract.backends import register
from tests.store.conftest import OpenSqlite
from wsserver.store import backups
from wsserver.store.databases import parse_url
from wsserver.store.errors import StoreError
from wsserver.store.guard import ServingGuard


@pytest.fixture
async def url(database: Path, open_store: OpenSqlite) -> URL:
    """A database with an account, which has a device."""
    async with open_store() as backend:
        await (await register(backend)).log_in("phone")
    return parse_url(f"sqlite:///{database}")


@pytest.fixture
def backup(url: URL, tmp_path: Path) -> Path:
    made = tmp_path / "made.bak"
    backups.back_up(url, made, overwrite=False, progress=ignore)
    return made


def ignore(done: int, total: int) -> None:
    """Nobody looks."""


def restore(url: URL, file: Path, *, keep_tokens: bool = False, replace: bool = True) -> int:
    return backups.restore(url, file, keep_tokens=keep_tokens, replace=replace, progress=ignore)


def read(url: URL | Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(str(url.database) if isinstance(url, URL) else url)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def test_a_backup_tells_how_far_it_is_and_is_one_file_of_its_size(url: URL, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = tmp_path / "made.bak"
    backup = backups.back_up(
        url, made, overwrite=False, progress=lambda done, total: seen.append((done, total))
    )
    assert (backup.file, backup.size_bytes) == (made, made.stat().st_size)
    assert backup.rows == {
        "accounts": 1,
        "allowlist": 0,
        "devices": 1,
        "installation": 1,
        "notices": 0,
        "registrations": 0,
        "resets": 0,
        "versions": 0,
    }
    assert seen[-1][0] == seen[-1][1] > 0
    assert read(made, "PRAGMA journal_mode") == [("delete",)]
    assert [path.name for path in tmp_path.glob("*made*")] == ["made.bak"]


def test_a_backup_replaces_another_when_it_is_told_to(url: URL, backup: Path) -> None:
    with pytest.raises(StoreError, match="exists already"):
        backups.back_up(url, backup, overwrite=False, progress=ignore)
    backup.write_text("old")
    backups.back_up(url, backup, overwrite=True, progress=ignore)
    assert read(backup, "SELECT count(*) FROM accounts") == [(1,)]


def test_a_backup_that_can_not_be_begun_or_finished_leaves_nothing(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="can't be written"):
        backups.back_up(url, tmp_path / "missing" / "x.bak", overwrite=False, progress=ignore)

    def fail(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(backups, "_make_plain", fail)
    with pytest.raises(StoreError, match=r"x\.bak can't be written: OperationalError"):
        backups.back_up(url, tmp_path / "x.bak", overwrite=False, progress=ignore)
    assert [*tmp_path.glob("*x.bak*")] == []


def test_a_backup_that_has_not_every_row_is_none(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([{"accounts": 1}, {"accounts": 2}])
    monkeypatch.setattr(backups, "count_rows", lambda connection: next(counts))
    with pytest.raises(StoreError, match="would not have had the rows"):
        backups.back_up(url, tmp_path / "x.bak", overwrite=False, progress=ignore)
    assert [*tmp_path.glob("*x.bak*")] == []


@pytest.mark.parametrize("keep_tokens", [True, False])
def test_what_is_restored_has_new_epochs_and_tokens_only_if_they_are_kept(
    url: URL, backup: Path, keep_tokens: bool
) -> None:
    before = read(url, "SELECT id, epoch FROM accounts")
    assert restore(url, backup, keep_tokens=keep_tokens) == 1
    after = read(url, "SELECT id, epoch FROM accounts")
    assert [row[0] for row in after] == [row[0] for row in before]
    assert [row[1] for row in after] != [row[1] for row in before]
    tokens = read(url, "SELECT count(token_hash) FROM devices")
    assert tokens == [(1 if keep_tokens else 0,)]


def test_a_backup_makes_a_database_where_there_is_none(tmp_path: Path, backup: Path) -> None:
    new = parse_url(f"sqlite:///{tmp_path / 'new.db'}")
    assert restore(new, backup, replace=False) == 1
    assert read(new, "SELECT count(*) FROM accounts") == [(1,)]


def test_accounts_are_not_replaced_by_mistake(url: URL, backup: Path) -> None:
    before = read(url, "SELECT epoch FROM accounts")
    with pytest.raises(StoreError, match="has 1 accounts already; --replace"):
        restore(url, backup, replace=False)
    assert read(url, "SELECT epoch FROM accounts") == before


def test_nothing_is_restored_under_a_server(url: URL, backup: Path) -> None:
    guard = ServingGuard(str(url.database))
    try:
        with pytest.raises(StoreError, match="another server"):
            restore(url, backup)
    finally:
        guard.release()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def scramble(content: bytes) -> bytes:
    return content[:8192] + os.urandom(16384) + content[24576:]


@pytest.mark.parametrize(
    "damage", [cut, scramble, lambda content: b"", lambda content: b"text" * 2000]
)
def test_what_is_no_whole_backup_is_refused(
    url: URL, backup: Path, damage: Callable[[bytes], bytes]
) -> None:
    backup.write_bytes(damage(backup.read_bytes()))
    with pytest.raises(StoreError, match=str(backup)):
        restore(url, backup)
    with pytest.raises(StoreError, match="there is no file"):
        restore(url, backup.with_name("none"))
    assert read(url, "SELECT count(*) FROM accounts") == [(1,)]


def test_a_database_that_can_not_be_written_is_told(
    url: URL, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: sqlite3.Connection) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(backups, "_count_accounts", fail)
    with pytest.raises(StoreError, match="can't be written: OperationalError"):
        restore(url, backup)
