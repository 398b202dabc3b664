"""A folder of backups: what a run makes there, what it removes, and what it leaves alone."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.contract.backends import open_sqlite, register
from tests.store.conftest import OpenSqlite
from wsserver.store import backup_folder
from wsserver.store.backup_folder import FolderBusy, Turn, back_up_into, find_newest
from wsserver.store.databases import parse_url
from wsserver.store.errors import StoreError

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def url(database: Path, open_store: OpenSqlite) -> URL:
    """A database with an account."""
    async with open_store() as backend:
        await register(backend)
    return parse_url(f"sqlite:///{database}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


def run(url: URL, folder: Path, *, at: datetime = NOON, keep: int | None = None) -> Turn:
    return back_up_into(url, folder, keep=keep, progress=lambda done, total: None, now=lambda: at)


def run_hourly(url: URL, folder: Path, times: int) -> list[Path]:
    return [run(url, folder, at=NOON + hour * HOUR).backup.file for hour in range(times)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != backup_folder.LOCK_NAME)


def test_a_backup_is_named_by_its_time_and_is_whole(url: URL, folder: Path) -> None:
    turn = run(url, folder)
    assert names(folder) == ["wallet-sync-2026-11-28T12-00-00Z.db"]
    assert turn.backup.file == folder / "wallet-sync-2026-11-28T12-00-00Z.db"
    assert turn.backup.rows["accounts"] == 1
    assert (turn.removed, turn.stuck, turn.kept) == ([], [], 1)
    assert find_newest(folder) == turn.backup.file


def test_two_of_one_second_have_names_of_their_own(url: URL, folder: Path) -> None:
    run(url, folder)
    seconds = iter([NOON, NOON + timedelta(seconds=1)])
    turn = back_up_into(
        url, folder, keep=None, progress=lambda done, total: None, now=lambda: next(seconds)
    )
    assert turn.backup.file.name == "wallet-sync-2026-11-28T12-00-01Z.db"


def test_the_newest_are_kept(url: URL, folder: Path) -> None:
    made = run_hourly(url, folder, 4)
    turn = run(url, folder, at=NOON + 4 * HOUR, keep=2)
    assert turn.removed == made[2::-1]
    assert names(folder) == [made[3].name, turn.backup.file.name]
    assert turn.kept == 2


def test_what_no_run_made_stays(url: URL, folder: Path, tmp_path: Path) -> None:
    old = run(url, folder, at=NOON - 9 * HOUR).backup.file
    mine = folder / "wallet-sync-2026-11-28.db"
    mine.write_bytes(old.read_bytes())
    (folder / "wallet-sync-2025-01-01T00-00-00Z.db").write_text("no database")
    (folder / "wallet-sync-2025-01-02T00-00-00Z.db").write_bytes(b"")
    (folder / "wallet-sync-2025-01-03T00-00-00Z.db").mkdir()
    (folder / "wallet-sync-2025-01-04T00-00-00Z.db").symlink_to(mine)
    empty = sqlite3.connect(folder / "wallet-sync-2025-01-05T00-00-00Z.db")
    empty.execute("CREATE TABLE installation (decoy_key BLOB)")
    empty.close()
    before = names(folder)
    turn = run(url, folder, keep=1)
    assert turn.removed == [old]
    assert names(folder) == sorted({*before, turn.backup.file.name} - {old.name})


async def test_the_backups_of_another_installation_stay(
    url: URL, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    async with open_sqlite(other):
        pass
    others = run(parse_url(f"sqlite:///{other}"), folder, at=NOON - HOUR).backup.file
    run(url, folder)
    turn = run(url, folder, at=NOON + HOUR, keep=1)
    assert turn.removed == [folder / "wallet-sync-2026-11-28T12-00-00Z.db"]
    assert names(folder) == [others.name, turn.backup.file.name]


def test_a_clock_that_was_ahead_costs_no_backup(url: URL, folder: Path) -> None:
    ahead = run(url, folder, at=NOON + 9000 * HOUR).backup.file
    made = run_hourly(url, folder, 3)
    turn = run(url, folder, at=NOON + 3 * HOUR, keep=2)
    assert turn.removed == made[1::-1]
    assert names(folder) == [made[2].name, turn.backup.file.name, ahead.name]


def test_nothing_is_removed_when_no_backup_could_be_made(
    url: URL, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_hourly(url, folder, 2)
    Path(str(url.database)).unlink()
    with pytest.raises(StoreError, match="there is no database"):
        run(url, folder, at=NOON + 5 * HOUR, keep=1)
    assert names(folder) == [path.name for path in made]


def test_one_that_can_not_be_removed_is_told(
    url: URL, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_hourly(url, folder, 3)
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == made[1]:
            raise PermissionError
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    turn = run(url, folder, at=NOON + 5 * HOUR, keep=1)
    assert (turn.removed, turn.stuck, turn.kept) == ([made[2], made[0]], [made[1]], 2)


def test_what_a_killed_run_left_is_gone_with_the_next(url: URL, folder: Path) -> None:
    left = folder / ".wallet-sync-2026-11-28T11-00-00Z.db-x1_y2z3a"
    for path in (left, Path(f"{left}-journal")):
        path.write_bytes(b"half")
    (folder / ".wallet-sync-notes").write_text("mine")
    turn = run(url, folder)
    assert names(folder) == [".wallet-sync-notes", turn.backup.file.name]


def test_one_run_at_a_time(url: URL, folder: Path) -> None:
    descriptor = os.open(folder / backup_folder.LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(FolderBusy, match="another backup into"):
        run(url, folder, keep=1)
    os.close(descriptor)
    run(url, folder, keep=1)


def test_where_there_are_no_locks_it_works_without(
    url: URL, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_folder, "fcntl", None)
    assert run(url, folder, keep=1).kept == 1


def test_a_folder_that_can_not_be_used_is_told(url: URL, folder: Path) -> None:
    with pytest.raises(StoreError, match="there is no folder"):
        run(url, folder / "missing")
    with pytest.raises(StoreError, match="there is no backup in the folder"):
        find_newest(folder)
    with pytest.raises(StoreError, match="there is no backup in the folder"):
        find_newest(folder / "missing")
    (folder / backup_folder.LOCK_NAME).mkdir()
    with pytest.raises(StoreError, match="can't be written: Is a directory"):
        run(url, folder)
