"""The bus between nodes: it can be reached, and lets this node in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from wsserver.bus.choosing import choose_transport, is_postgresql
from wsserver.bus.transports import BusError, Transport
from wsserver.config import Settings
from wsserver.doctor.findings import STEP_TIMEOUT_S, Finding, fail, ok


def check_bus(settings: Settings) -> Iterator[Finding]:
    """Whether there is a way to the other nodes; nothing where there are none."""
    bus_url = None if settings.bus_url is None else settings.bus_url.get_secret_value()
    try:
        transport = choose_transport(
            bus_url,
            settings.database_url,
            credentials=settings.bus_credentials,
            authorities=settings.bus_authorities,
        )
        if transport is None:
            return
        asyncio.run(_reach(transport))
    except BusError as error:
        yield fail("bus", str(error), "the server can't start before that is mended")
    except TimeoutError:
        text = f"the bus does not answer within {STEP_TIMEOUT_S:g} s"
        yield fail("bus", text, "is its address right, and does a firewall let it through?")
    else:
        kind = "PostgreSQL" if bus_url is None or is_postgresql(bus_url) else "NATS"
        yield ok("bus", f"{kind}, which lets this node in")


async def _reach(transport: Transport) -> None:
    async with asyncio.timeout(STEP_TIMEOUT_S):
        await transport.open(lambda payload: None, lambda: None)
        await transport.close()
