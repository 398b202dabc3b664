"""The stores that every test of the contract runs against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Databases
from tests.contract.backends import (
    Account,
    Backend,
    Login,
    open_memory,
    open_sql,
    open_sqlite,
    register,
)

OpenBackend = Callable[..., AbstractAsyncContextManager[Backend]]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def open_backend(request: pytest.FixtureRequest, tmp_path: Path) -> OpenBackend:
    """Opens a store of each kind, with options of its own."""
    if request.param == "memory":
        return open_memory
    if request.param == "postgresql":
        databases: Databases = request.getfixturevalue("databases")
        # One writing lane: what waits together is one batch.
        return lambda **options: open_sql(databases.create(), **{"lanes": 1, **options})
    numbers = iter(range(1000))

    def open_numbered(**options: Any) -> AbstractAsyncContextManager[Backend]:
        return open_sqlite(tmp_path / f"store-{next(numbers)}.db", **options)

    return open_numbered


@pytest.fixture
async def backend(open_backend: OpenBackend) -> AsyncIterator[Backend]:
    """An empty store of each kind."""
    async with open_backend() as opened:
        yield opened


@pytest.fixture
async def account(backend: Backend) -> Account:
    """An account without a wallet."""
    return await register(backend)


@pytest.fixture
async def phone(account: Account) -> Login:
    """A session of the account's first device."""
    return await account.log_in("phone")


@pytest.fixture
async def laptop(account: Account) -> Login:
    """A session of the account's second device."""
    return await account.log_in("laptop")
