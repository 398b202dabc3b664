"""Three real nodes on a real PostgreSQL, with the bus that it brings or a real NATS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.e2e.serving import ServerProcess
from tests.servers.nats import Nats
from tests.servers.postgresql import PostgreSQL

START_S = 120.0
"""How long a node may take to start: long, for the machine may be busy with others."""
CUT_OFF_S = 3.0
"""How long a bus is cut off: longer than it takes a transport to give its connection up."""


class Nodes:
    """The nodes, and what they stand on. Devices see one of them at random as `tests.faults` do."""

    def __init__(self, folder: Path, *, bus: str = "postgresql", count: int = 3) -> None:
        self.chance = random.Random(1)
        self.bus = bus
        self.postgresql = PostgreSQL()
        self.nats = Nats() if bus == "nats" else None
        self.processes: list[ServerProcess] = []
        self.settings: dict[str, Any] = {}
        self._down: set[ServerProcess] = set()
        self._folders = [folder / f"node-{number}" for number in range(1, count + 1)]

    @contextlib.asynccontextmanager
    async def standing(self) -> AsyncIterator[Nodes]:
        """While the servers that the nodes need run."""
        try:
            await asyncio.to_thread(self.postgresql.start)
            self.settings["database_url"] = await asyncio.to_thread(self.postgresql.create_database)
            if self.nats is not None:
                await asyncio.to_thread(self.nats.start)
                self.settings["bus_url"] = self.nats.url
            for folder in self._folders:
                folder.mkdir()
                self.processes.append(ServerProcess(folder, **self.settings))
            yield self
        finally:
            for process in self.processes:
                with contextlib.suppress(AssertionError):
                    process.end()
            self.postgresql.close()
            if self.nats is not None:
                self.nats.close()

    async def start(self) -> None:
        """Start all nodes; returns once they listen."""
        await asyncio.gather(*(process.start(START_S) for process in self.processes))

    @property
    def live(self) -> list[ServerProcess]:
        """Those that serve."""
        return [process for process in self.processes if process not in self._down]

    @property
    def url(self) -> str:
        """Of one of them that lives, as a load balancer gives it."""
        return self.chance.choice(self.live).url

    @property
    def log(self) -> str:
        return "".join(process.log for process in self.processes if process.log_path.exists())

    # Faults. Each is over when it returns.

    async def kill_node(self) -> None:
        """A node dies at whatever it is at, and is started again."""
        await self._end_node(signal.SIGKILL)

    async def stop_node(self) -> None:
        """A node is drained, and started again."""
        await self._end_node(signal.SIGTERM)

    async def _end_node(self, number: signal.Signals) -> None:
        process = self.chance.choice(self.processes)
        self._down.add(process)
        process.signal(number)
        await process.wait()
        await asyncio.sleep(self.chance.random())
        await process.start(START_S)
        self._down.discard(process)

    async def restart_postgresql(self) -> None:
        await asyncio.to_thread(self.postgresql.restart)

    async def kill_bus(self) -> None:
        """The bus is gone for a moment: NATS is killed, or all of PostgreSQL's connections."""
        if self.nats is None:
            await asyncio.to_thread(self.postgresql.cut_connections)
        else:
            await asyncio.to_thread(self.nats.kill)
            await asyncio.sleep(self.chance.random())
            await asyncio.to_thread(self.nats.start)

    async def cut_off_bus(self) -> None:
        """The bus carries nothing for a while, and does not say so."""
        if self.nats is None:
            await self._cut_off_notifications()
        else:
            self.nats.freeze()
            try:
                await asyncio.sleep(CUT_OFF_S)
            finally:
                self.nats.thaw()

    async def _cut_off_notifications(self) -> None:
        """The processes of PostgreSQL that serve the bus stand still; those of the store go on."""
        with self.postgresql.connect() as connection:
            pids = [
                pid
                for (pid,) in connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = 'wallet-sync bus'"
                )
            ]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(CUT_OFF_S)
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
