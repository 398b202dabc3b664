"""The transports, each on its real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.bus.buses import Carrier, InProcessCarrier, NatsCarrier, PostgreSQLCarrier
from tests.servers.nats import Nats
from tests.servers.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="session")
def nats_server() -> Iterator[Nats]:
    with Nats() as server:
        yield server


@pytest.fixture(params=["in process", "postgresql", "nats"])
async def carrier(request: pytest.FixtureRequest) -> AsyncIterator[Carrier]:
    """What carries the messages of one test's nodes."""
    make: dict[str, Callable[[], Carrier]] = {
        "in process": InProcessCarrier,
        "postgresql": lambda: PostgreSQLCarrier(request.getfixturevalue("postgresql")),
        "nats": lambda: NatsCarrier(request.getfixturevalue("nats_server")),
    }
    carrier = make[request.param]()
    yield carrier
    await carrier.close()


@pytest.fixture(params=["postgresql", "nats"])
async def outside_carrier(request: pytest.FixtureRequest) -> AsyncIterator[Carrier]:
    """One whose server a test may stop."""
    carrier: Carrier = (
        PostgreSQLCarrier(request.getfixturevalue("postgresql"))
        if request.param == "postgresql"
        else NatsCarrier(request.getfixturevalue("nats_server"))
    )
    yield carrier
    await carrier.close()
