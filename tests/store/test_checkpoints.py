"""The write-ahead log goes back into the file, beside the pushes, and stays bounded."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.contract.backends import PATIENCE_S, Login, SqlBackend, register
from tests.store.conftest import OpenSqlite
from wsserver.operations import LoadNotices
from wsserver.store import checkpoints
from wsserver.store.checkpoints import COMMIT_BYTES
from wsserver.store.databases import create_store_engine, open_database, parse_url

WALLET = "0123456789" * 20_000
AFTER_BYTES = 10 * len(WALLET)


class Copies:
    """Stands before the copying: counts it, stops it, has it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self.failure: Exception | None = None
        self.released = threading.Event()
        self.released.set()
        copy = checkpoints._copy

        def stand_between(connection: Any) -> bool:
            self.begun += 1
            self.released.wait(PATIENCE_S)
            if self.failure is not None:
                raise self.failure
            return copy(connection)

        monkeypatch.setattr(checkpoints, "_copy", stand_between)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copies:
    return Copies(monkeypatch)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


async def log_in(backend: SqlBackend) -> Login:
    return await (await register(backend)).log_in()


async def test_the_log_stays_bounded_however_much_is_written(
    open_store: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LOG_BYTES_MAX", AFTER_BYTES)
    async with open_store(checkpoint_bytes=AFTER_BYTES) as backend:
        phone = await log_in(backend)
        log = backend.path.with_name("wallet-sync.db-wal")
        largest = 0
        for sequence in range(1, 101):
            await phone.push(sequence, f"{sequence:06}{WALLET}")
            largest = max(largest, log.stat().st_size)

    # 20 MB were written. The lane is ahead of the copying by what it writes meanwhile.
    assert largest < 5 * AFTER_BYTES


async def test_what_was_pushed_is_all_there_whatever_was_copied_meanwhile(
    open_store: OpenSqlite,
) -> None:
    async with open_store(checkpoint_bytes=1) as backend:
        phone = await log_in(backend)
        for sequence in range(1, 301):
            await phone.push(sequence, f"wallet {sequence}")

    with sqlite3.connect(backend.path) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = database.execute("SELECT encrypted_wallet FROM versions ORDER BY sequence")
        assert [wallet for (wallet,) in kept] == [
            f"wallet {sequence}".encode() for sequence in range(291, 301)
        ]
    database.close()


async def test_pushes_go_on_while_the_log_is_copied(open_store: OpenSqlite, copies: Copies) -> None:
    async with open_store(checkpoint_bytes=COMMIT_BYTES) as backend:
        phone = await log_in(backend)
        await until(lambda: copies.begun >= 1)
        copies.released.clear()
        begun = copies.begun
        sequence = 0
        while copies.begun == begun:  # A commit in the end of the one before does not count.
            sequence += 1
            await phone.push(sequence)

        await phone.push(sequence + 1)  # The first copying holds nobody up.

        copies.released.set()
        await phone.push(sequence + 2)


async def test_nothing_is_copied_before_enough_is_written(
    open_store: OpenSqlite, copies: Copies
) -> None:
    taken_s: list[float] = []
    async with open_store(checkpoint_bytes=1_000_000, observe_checkpoint=taken_s.append) as backend:
        phone = await log_in(backend)
        await phone.push(1, "w" * 500_000)
        await backend.perform(LoadNotices(0, 10))
        assert copies.begun == 0
        await phone.push(2, "w" * 500_000)
        await until(lambda: copies.begun == 1)
        await until(lambda: len(taken_s) == 1)


async def test_the_lane_waits_for_the_rest_of_a_log_that_is_long(
    open_store: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying, released = threading.Event(), threading.Event()
    copy, copied = checkpoints._copy, [0]

    def stop_at_the_second(connection: Any) -> bool:
        copied[0] += 1
        if copied[0] == 2:
            copying.set()
            released.wait(PATIENCE_S)
        copy(connection)
        return copied[0] == 1  # As of a log that is long, and has grown meanwhile.

    monkeypatch.setattr(checkpoints, "_copy", stop_at_the_second)
    async with open_store(checkpoint_bytes=1) as backend:
        account = await register(backend)
        assert await asyncio.to_thread(copying.wait, PATIENCE_S)
        logging_in = asyncio.create_task(account.log_in())
        done, _ = await asyncio.wait({logging_in}, timeout=0.2)
        assert not done

        released.set()
        await (await logging_in).push(1)


def test_a_log_is_long_only_where_there_is_more_to_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LOG_BYTES_MAX", 1)
    url = parse_url(f"sqlite:///{tmp_path / 'wallet-sync.db'}")
    with open_database(url):
        pass
    engine = create_store_engine(url)
    with engine.connect() as writing, engine.connect() as copying, engine.connect() as reading:
        with writing.begin():
            writing.execute(text("UPDATE alembic_version SET version_num = version_num"))
        # Who reads holds what comes after back.
        reading.connection.execute("BEGIN")
        reading.connection.execute("SELECT * FROM alembic_version").fetchall()
        assert not checkpoints._copy(copying)
        with writing.begin():
            writing.execute(text("UPDATE alembic_version SET version_num = version_num"))
        assert checkpoints._copy(copying)
        monkeypatch.undo()
        assert not checkpoints._copy(copying)


async def test_a_transaction_that_writes_nothing_does_not_count(
    open_store: OpenSqlite, copies: Copies
) -> None:
    async with open_store(checkpoint_bytes=1_000_000) as backend:
        for _ in range(1_000_000 // COMMIT_BYTES + 10):
            await backend.perform(LoadNotices(0, 10))
        await asyncio.sleep(0)
        assert copies.begun == 0


async def test_a_copying_that_failed_is_tried_again_with_the_next_commit(
    open_store: OpenSqlite, copies: Copies, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    copies.failure = OperationalError("PRAGMA", None, sqlite3.OperationalError("disk I/O error"))
    async with open_store(checkpoint_bytes=1) as backend:
        phone = await log_in(backend)
        await until(lambda: "was not copied: OperationalError: disk I/O error" in caplog.text)
        copies.failure = None
        begun = copies.begun
        await phone.push(1)
        await until(lambda: copies.begun > begun)


async def test_the_store_closes_while_the_log_is_copied(
    open_store: OpenSqlite, copies: Copies
) -> None:
    async with open_store(checkpoint_bytes=1) as backend:
        await log_in(backend)
        await until(lambda: copies.begun >= 1)

    assert not any(thread.name == "checkpointer" for thread in threading.enumerate())
