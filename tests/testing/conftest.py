from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.testing.devices import EMAIL, PASSWORD
from wsclient.testing import TestServer


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    """A server with one account."""
    async with TestServer() as server:
        await server.register(EMAIL, PASSWORD)
        yield server
