"""Rounds of chaos: devices that change a wallet, over lines that break, on a server that dies.

A mark that a device has confirmed (`SyncedWallet.change` has returned) must be in what all devices
come to in the end, whatever was killed or cut meanwhile. A seed gives the same choices again; what
comes of them depends on when the processes get to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import signal
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.chaos.device import EMAIL, KDF, ROOT_PASSWORD, read_marks, run_device
from tests.chaos.proxy import Proxy
from tests.e2e.serving import ServerProcess
from wsclient import Session, register

DEVICES = ("laptop", "phone", "tablet")
STEPS_MAX = 12
PATIENCE_S = 60.0

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.chaos.device"])


class Device:
    """A device's process, which may be killed; its folder stays."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name = name
        self._arguments = (url, folder / name, name)
        self._pipe: Connection | None = None
        self._process: BaseProcess | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        self._pipe, theirs = _processes.Pipe()
        self._process = _processes.Process(target=run_device, args=(theirs, *self._arguments))
        self._process.start()
        theirs.close()
        await self._receive()

    def tell(self, order: str, argument: Any = None) -> None:
        assert self._pipe is not None
        self._pipe.send((order, argument))

    async def ask(self, order: str, argument: Any = None) -> Any:
        self.tell(order, argument)
        return (await self._receive())[1]

    def kill(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = self._pipe = None

    async def _receive(self) -> Any:
        assert self._pipe is not None
        async with asyncio.timeout(PATIENCE_S):
            while not self._pipe.poll():
                await asyncio.sleep(0.001)
        return self._pipe.recv()


class Chaos:
    """The devices of one account, the line, and the server."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.choices = random.Random(seed)
        self.server = ServerProcess(folder)
        self.proxy = Proxy(random.Random(seed))
        self.devices: list[Device] = []
        self.confirmed: set[str] = set()
        self.faults: dict[str, int] = {}
        self._folder = folder
        self._mark = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Chaos]:
        try:
            async with self.proxy:
                await self._start_server()
                async with Session(self.server.url) as session:
                    await register(session, EMAIL, ROOT_PASSWORD, kdf=KDF)
                url = f"ws://127.0.0.1:{self.proxy.port}/v1"
                self.devices = [Device(name, url, self._folder) for name in DEVICES]
                yield self
        finally:
            for device in self.devices:
                device.kill()
            self.server.end()

    async def run_round(self) -> int:
        """Changes and faults at random; then all is mended, and all must agree. Gives its steps."""
        steps = self.choices.randint(3, STEPS_MAX)
        for _ in range(steps):
            await self._start_killed()
            await self._step()
        await self._start_killed()
        values = await asyncio.gather(*(self._settle(device) for device in self.devices))
        # A device that was first to settle hears of what the others had still to push.
        while len(set(values)) > 1:
            values = await asyncio.gather(*(self._settle(device) for device in self.devices))
        marks = read_marks(values[0][1])
        lost = self.confirmed - marks
        assert not lost, f"lost: {sorted(lost)}"
        await self.devices[0].ask("clear")
        self.confirmed.clear()
        return steps

    async def _step(self) -> None:
        device = self.choices.choice(self.devices)
        faults: list[Callable[[], Any]] = [
            self.proxy.cut_all,
            self._lose_answers,
            device.kill,
            self._kill_server,
        ]
        if self.choices.random() < 0.65:
            await self._add_mark(device)
        elif self.choices.random() < 0.5:
            await asyncio.sleep(self.choices.random() * 0.05)
        else:
            fault = self.choices.choices(faults, weights=(4, 4, 3, 1))[0]
            name = fault.__name__.strip("_")
            self.faults[name] = self.faults.get(name, 0) + 1
            outcome = fault()
            if outcome is not None:
                await outcome

    async def _add_mark(self, device: Device) -> None:
        self._mark += 1
        mark = f"{device.name} {self._mark}"
        if self.choices.random() < 0.2:
            # Killed at any instruction of it: the mark may be there or not.
            device.tell("add", mark)
            await asyncio.sleep(self.choices.random() * 0.01)
            device.kill()
            self.faults["kill_in_change"] = self.faults.get("kill_in_change", 0) + 1
        else:
            await device.ask("add", mark)
            self.confirmed.add(mark)

    async def _settle(self, device: Device) -> tuple[int, bytes | None]:
        sequence, value = await device.ask("settle")
        return sequence, value

    async def _start_killed(self) -> None:
        await asyncio.gather(*(device.start() for device in self.devices if not device.runs))

    async def _lose_answers(self) -> None:
        self.proxy.swallow_answers()
        await asyncio.sleep(self.choices.random() * 0.05)
        self.proxy.cut_all()

    async def _kill_server(self) -> None:
        self.server.signal(signal.SIGKILL)
        await self.server.wait()
        await asyncio.sleep(self.choices.random() * 0.1)
        await self._start_server()

    async def _start_server(self) -> None:
        await self.server.start()
        self.proxy.server_port = self.server.port
