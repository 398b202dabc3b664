"""A pytest plugin with one fixture; it needs pytest-asyncio.

In ``conftest.py``::

    pytest_plugins = ["wsclient.testing.pytest_plugin"]

and then a test takes ``wallet_server``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from wsclient.testing import TestServer


@pytest_asyncio.fixture
async def wallet_server() -> AsyncIterator[TestServer]:
    """A `wsclient.testing.TestServer` of the test's own."""
    async with TestServer() as server:
        yield server
