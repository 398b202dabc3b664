"""The disk is full, broken, read-only or slow, while all devices are at work.

Pushes get 503 then, reads are served, and all is well within 5 s once the disk is.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.common import make_email
from tests.e2e.conftest import MakeProcess
from tests.e2e.serving import open_database
from tests.faults.interposing import Interposed
from tests.faults.load import Load

DISK_BYTES = 16 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting: list[str | Path] = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={DISK_BYTES}",
        "wallet-sync-test",
        folder,
    ]
    if sys.platform != "linux" or run(mounting):
        pytest.skip("a file system can't be mounted here: that takes Linux and root")
    yield folder
    run(["umount", "--lazy", folder])


def run(command: Sequence[str | Path]) -> int:
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def fill(file: Path) -> None:
    """Take all that is left of the disk."""
    with file.open("wb", buffering=0) as filler:
        for size in (2**16, 2**10, 1):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC


async def test_a_full_disk_refuses_pushes_until_there_is_room(
    make_process: MakeProcess, small_disk: Path
) -> None:
    server = make_process()
    server.database = small_disk / "wallets.db"
    server.settings["database_url"] = f"sqlite:///{server.database}"
    filler = small_disk / "filler"
    try:
        async with Load(server, wallet_bytes=2000).running() as load:
            fill(filler)
            await load.refused(count=len(load.devices))
            await load.read()

            filler.unlink()
            await load.serves_again()
    finally:
        server.end()
    assert "SQLITE_FULL" in server.log


@pytest.mark.parametrize(
    ("orders", "told"),
    [
        pytest.param({"write_errno": errno.ENOSPC}, "SQLITE_FULL", id="full"),
        pytest.param({"write_errno": errno.EIO}, "SQLITE_IOERR_WRITE", id="broken"),
        pytest.param({"sync_errno": errno.EIO}, "SQLITE_IOERR_FSYNC", id="does-not-sync"),
        pytest.param(
            {"write_errno": errno.EROFS, "open_errno": errno.EROFS}, "SQLITE_", id="read-only"
        ),
        pytest.param(
            {"write_errno": errno.EACCES, "open_errno": errno.EACCES}, "SQLITE_", id="forbidden"
        ),
    ],
)
async def test_a_disk_that_fails_refuses_pushes_until_it_is_mended(
    make_process: MakeProcess, orders: dict[str, int], told: str
) -> None:
    server = make_process()
    disk = Interposed(server)
    async with Load(server).running() as load:
        with disk.ordered(**orders):
            await load.refused(count=2 * len(load.devices))
            assert disk.failed
            await load.read()
        await load.serves_again()
    assert told in server.log
    assert server.log.count("answering 503") <= 4, "a line a lane and kind of fault, not a push"


async def test_a_server_that_dies_on_a_disk_that_does_not_sync_keeps_what_it_acknowledged(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    disk = Interposed(server)
    async with Load(server).running() as load:
        with disk.ordered(sync_errno=errno.EIO):
            await load.refused(count=len(load.devices))
            server.signal(signal.SIGKILL)
            await server.wait()
            killed_s = time.monotonic()
            await load.until(lambda: not load.connected)
        # Two faults at once: what was refused stands in SQLite's log, unsynced. If it can be read
        # after the death, it is there, as an unanswered push may be.
        load.doubt_refusals()
        load.end_unanswered(killed_s)
        await server.start()
        await load.serves_again()


async def test_a_slow_disk_makes_pushes_wait_and_nobody_else(make_process: MakeProcess) -> None:
    server = make_process()
    disk = Interposed(server)
    async with Load(server).running() as load:
        with disk.ordered(sync_delay_ms=400):
            since_s = time.monotonic()
            await load.until(lambda: disk.synced >= 5)
            # A batch waits for a sync, and reads for none: they are many more than syncs.
            reads = [
                call
                for calls in load.calls.values()
                for call in calls
                if call.pushed is None and call.start_s > since_s
            ]
            assert reads
            assert min(call.end_s - call.start_s for call in reads) < 0.4
        await load.serves_again()
    assert not load.refusals


async def test_on_a_read_only_disk_the_server_says_so_and_starts_once_it_can_write(
    make_process: MakeProcess, small_disk: Path
) -> None:
    server = make_process()
    server.database = small_disk / "wallets.db"
    server.settings["database_url"] = f"sqlite:///{server.database}"
    async with Load(server).running() as load:
        await load.stop()
        server.end()
        assert run(["mount", "-o", "remount,ro", small_disk]) == 0
        server.launch()
        assert await server.wait() == 1
        assert "Read-only file system" in server.log

        assert run(["mount", "-o", "remount,rw", small_disk]) == 0
        await server.start()
        load.start()
        await load.serves_again()
        server_log = server.log
    server.end()
    assert "Traceback" not in server_log


# What another process does to the database.

LOCKING = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
database.execute("ROLLBACK")
"""


async def test_a_database_that_another_process_locks_refuses_pushes_until_it_is_free(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    async with Load(server).running() as load:
        locking = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            LOCKING,
            server.database,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert locking.stdout is not None
            assert await locking.stdout.readline() == b"locked\n"
            # The server waits for it for 5 s; then it says so to those who wait.
            await load.refused()
            await load.read()
        finally:
            await locking.communicate(b"")  # Ends its input, and so the lock.
        await load.serves_again()
    assert "SQLITE_BUSY" in server.log


async def test_a_backup_by_another_process_is_whole_and_holds_nobody_up(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    copy = server.folder / "copy"
    async with Load(server).running() as load:
        before = {account: load.newest(account) for account in load.accounts}
        backup = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BACKING_UP, server.database, copy
        )
        assert await backup.wait() == 0
        await load.serves_again()
        assert not load.refusals
    with open_database(copy) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for account, sequence in before.items():
            (kept,) = database.execute(
                "SELECT max(versions.sequence) FROM versions JOIN accounts ON account_id = id"
                " WHERE email = ?",
                (make_email(account),),
            ).fetchone()
            assert kept >= sequence


BACKING_UP = """
import sqlite3, sys
source, copy = (sqlite3.connect(name, timeout=60) for name in sys.argv[1:])
source.backup(copy, pages=4, sleep=0.005)
"""
