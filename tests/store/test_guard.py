"""The guard: one serving process a database."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.contract.backends import open_sqlite
from wsserver.store import guard
from wsserver.store.errors import StoreError
from wsserver.store.guard import ServingGuard
from wsserver.store.sql import SqlStore

HOLDER = """
import sys
from wsserver.store.guard import ServingGuard
guard = ServingGuard(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def make_store(path: Path) -> SqlStore:
    return SqlStore(
        f"sqlite:///{path}",
        history_depth=10,
        token_lifetime_s=60,
        answer=lambda operation, answer, done: done(answer),
    )


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "wallet-sync.db"


def test_a_second_guard_is_refused_and_told_who_has_the_first(database: Path) -> None:
    first = ServingGuard(database)

    with pytest.raises(StoreError, match=rf"another server serves .*process {os.getpid()}\)"):
        ServingGuard(database)

    first.release()
    second = ServingGuard(database)
    second.release()
    second.release()  # Once more is no harm.


def test_two_names_of_one_database_are_one_lock(tmp_path: Path, database: Path) -> None:
    database.touch()
    link = tmp_path / "link.db"
    link.symlink_to(database)
    held = ServingGuard(link)

    with pytest.raises(StoreError):
        ServingGuard(database)
    held.release()


def test_a_killed_server_lets_go(database: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            with pytest.raises(StoreError, match=f"process {holder.pid}"):
                ServingGuard(database)
        finally:
            holder.kill()
            holder.wait()
    ServingGuard(database).release()


def test_a_lock_file_that_can_not_be_opened_is_told(database: Path) -> None:
    database.with_name("wallet-sync.db.lock").mkdir()

    with pytest.raises(StoreError, match=r"wallet-sync\.db\.lock can't be opened"):
        ServingGuard(database)


def test_a_disk_that_can_not_lock_is_told(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(guard, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4))

    with pytest.raises(StoreError, match="can't be locked: No locks available"):
        ServingGuard(database)


def test_where_there_is_no_flock_there_is_no_guard(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "fcntl", None)

    first, second = ServingGuard(database), ServingGuard(database)

    first.release()
    second.release()
    assert not database.with_name("wallet-sync.db.lock").exists()


async def test_a_serving_store_keeps_another_off(database: Path) -> None:
    serving, second = make_store(database), make_store(database)
    await serving.open(exclusive=True)

    with pytest.raises(StoreError, match="another server serves"):
        await second.open(exclusive=True)
    # A command of the operator is not kept off.
    async with open_sqlite(database):
        pass

    await serving.close()
    await second.open(exclusive=True)
    await second.close()


@pytest.fixture
def garbage(database: Path) -> Path:
    database.write_bytes(b"this is no database" * 1000)
    return database


async def test_a_store_that_could_not_be_opened_holds_no_guard(garbage: Path) -> None:
    for _ in range(2):
        with pytest.raises(StoreError, match="not a database"):
            await make_store(garbage).open(exclusive=True)
    ServingGuard(garbage).release()


async def test_a_missing_folder_is_told_before_the_lock(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the folder of the database, .* does not exist"):
        await make_store(tmp_path / "missing" / "wallet-sync.db").open(exclusive=True)
