"""Fixtures that any test may ask for: real servers, one of each a process that runs tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.nats import Nats
    from tests.servers.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server for databases of many tests: none of them stops it.

    It does not wait for the disk.
    """
    from tests.servers.postgresql import PostgreSQL

    server = PostgreSQL()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def nats() -> Iterator[Nats]:
    """A NATS server for many tests: none of them stops it."""
    from tests.servers.nats import Nats

    server = Nats()
    try:
        server.start()
        yield server
    finally:
        server.close()
