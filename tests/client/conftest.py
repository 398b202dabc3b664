"""A real server, as a process of its own, for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.local_server import run_server


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The address of a server that is shared; each test has its own account on it."""
    with run_server(rate_limits="off") as url:
        yield url
