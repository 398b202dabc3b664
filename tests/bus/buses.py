"""Transports on real servers, and nodes on them that have a hub, a bus and a common database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.servers.nats import Nats
from tests.servers.postgresql import PostgreSQL
from tests.servers.processes import ServerProgram
from wsserver.bus.inprocess import InProcess, Wire
from wsserver.bus.nats import NatsBus
from wsserver.bus.postgresql import PostgreSQLBus
from wsserver.bus.transports import Transport

PATIENCE_S = 30.0


async def until(holds: Callable[[], bool], what: str = "it") -> None:
    """Wait until it holds."""
    ends_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends_s, f"waited {PATIENCE_S:g} s for {what}"
        await asyncio.sleep(0.005)


@dataclass(slots=True, eq=False)
class End:
    """A transport, and what it has brought."""

    transport: Transport
    heard: list[str] = field(default_factory=list)
    losses: int = 0

    async def open(self) -> None:
        await self.transport.open(self._hear, self._lose)

    def _hear(self, payload: str | bytes) -> None:
        self.heard.append(payload if isinstance(payload, str) else payload.decode())

    def _lose(self) -> None:
        self.losses += 1

    async def follow(self, account_id: int) -> None:
        """Follow the account; returns once it is sure."""
        followed = asyncio.Event()
        self.transport.follow(account_id, lambda account_id: followed.set())
        if self.transport.by_account:
            await asyncio.wait_for(followed.wait(), PATIENCE_S)


class Carrier:
    """Makes transports of one kind that reach each other."""

    server: ServerProgram | None = None

    def __init__(self) -> None:
        self.ends: list[End] = []

    def make(self) -> Transport:
        raise NotImplementedError

    async def open(self) -> End:
        end = End(self.make())
        await end.open()
        self.ends.append(end)
        return end

    async def close(self) -> None:
        for end in self.ends:
            await end.transport.close()


class InProcessCarrier(Carrier):
    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire()

    def make(self) -> Transport:
        return InProcess(self.wire)


class PostgreSQLCarrier(Carrier):
    def __init__(self, server: PostgreSQL) -> None:
        super().__init__()
        self.server = server
        self.url = server.create_database()

    def make(self) -> Transport:
        return PostgreSQLBus(self.url)


class NatsCarrier(Carrier):
    def __init__(self, server: Nats) -> None:
        super().__init__()
        self.server = server
        self.url = server.url

    def make(self) -> Transport:
        return NatsBus(self.url)
