"""Fixtures that any test may ask for: real servers, one of each a process that runs tests."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.nats import Nats
    from tests.servers.postgresql import PostgreSQL


def pytest_configure() -> None:
    """Let Ctrl-C end what the tests start, though who started the tests keeps it from them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """What a command that runs in the test's own process sets up is undone."""
    root, ours = logging.getLogger(), logging.getLogger("wsserver")
    before, levels = {*root.handlers}, (root.level, ours.level)
    yield
    for handler in {*root.handlers} - before:
        if type(handler).__module__ in ("logging", "wsserver.logs"):
            root.removeHandler(handler)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server for databases of many tests: none of them stops it.

    It does not wait for the disk.
    """
    from tests.servers.postgresql import PostgreSQL

    with PostgreSQL() as server:
        yield server


class Databases:
    """Gives databases that have the schema already, and does away with them afterwards."""

    def __init__(self, server: PostgreSQL) -> None:
        from wsserver.store.databases import open_database, parse_url

        self.server = server
        self._template = server.create_database()
        self._made: list[str] = []
        with open_database(parse_url(self._template)):
            pass

    def create(self) -> str:
        """The URL of a fresh one."""
        self._made.append(self.server.create_database(self._template))
        return self._made[-1]

    def drop_all(self) -> None:
        while self._made:
            self.server.drop_database(self._made.pop())


@pytest.fixture(scope="session")
def _databases(postgresql: PostgreSQL) -> Databases:
    return Databases(postgresql)


@pytest.fixture
def databases(_databases: Databases) -> Iterator[Databases]:
    """Databases of PostgreSQL for one test."""
    yield _databases
    _databases.drop_all()


@pytest.fixture(scope="session")
def nats() -> Iterator[Nats]:
    """A NATS server for many tests: none of them stops it."""
    from tests.servers.nats import Nats

    with Nats() as server:
        yield server
