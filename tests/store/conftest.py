"""Stores on a SQLite file, and the faults that a disk can have."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.contract.backends import PATIENCE_S, Login, SqlBackend, open_sqlite, register
from wsserver.store import sql
from wsserver.store.databases import create_store_engine

OpenSqlite = Callable[..., AbstractAsyncContextManager[SqlBackend]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "wallet-sync.db"


@pytest.fixture
def open_store(database: Path) -> OpenSqlite:
    """Opens the database's store, with options of the test; it waits long for locks."""

    def open_with(**options: Any) -> AbstractAsyncContextManager[SqlBackend]:
        return open_sqlite(database, **{"busy_timeout_s": PATIENCE_S, **options})

    return open_with


@pytest.fixture
async def backend(database: Path) -> AsyncIterator[SqlBackend]:
    """A store that waits for locks as long as it does by default."""
    async with open_sqlite(database) as opened:
        yield opened


@pytest.fixture
async def phone(backend: SqlBackend) -> Login:
    return await (await register(backend)).log_in("phone")


@dataclasses.dataclass
class Disk:
    """Pragmas that every new connection of the store's lanes begins with, and their commits."""

    pragmas: list[str] = dataclasses.field(default_factory=list)
    fail_commit: Exception | None = None
    commits: int = 0
    closed_by: list[str] = dataclasses.field(default_factory=list)
    """The threads that closed a connection."""


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Stands between the lanes and the disk."""
    disk = Disk()
    create = create_store_engine

    def create_engine(*arguments: Any, **options: Any) -> Engine:
        engine = create(*arguments, **options)

        def set_up(dbapi_connection: Any, record: Any) -> None:
            for pragma in disk.pragmas:
                dbapi_connection.execute(f"PRAGMA {pragma}")

        def commit(connection: Any) -> None:
            disk.commits += 1
            if disk.fail_commit is not None:
                raise disk.fail_commit

        def close(dbapi_connection: Any, record: Any) -> None:
            disk.closed_by.append(threading.current_thread().name)

        event.listen(engine, "connect", set_up)
        event.listen(engine, "close", close)
        if not options.get("reading"):
            event.listen(engine, "commit", commit)
        return engine

    monkeypatch.setattr(sql, "create_store_engine", create_engine)
    return disk
