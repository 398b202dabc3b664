"""A synced wallet whose process stops at any call to its disk: nothing confirmed is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from tests.chaos.device import merge_marks, read_marks
from tests.client.simulated_disk import Crash, SimulatedDisk
from wsclient import SyncedWallet, wallet
from wsclient.errors import WrongPassword
from wsclient.storage import LocalStore
from wsclient.testing import TestServer
from wsschema.messages import Kdf

HOME = Path("/simulated")
EMAIL = "joe@example.com"
KDF = Kdf.scrypt(2**14)
PATIENCE_S = 20.0
PARTS = 4
"""Of the calls, each a test: so that they run side by side."""


class Disks:
    """The disk that the next wallet opens its folder on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.next = SimulatedDisk(HOME)
        opened, disks = LocalStore.open, self

        class Store(LocalStore):
            @classmethod
            def open(cls, folder: Path, **options: object) -> LocalStore:  # type: ignore[override]  # passes all on
                return opened(folder, **{**options, "files": disks.next})  # type: ignore[arg-type]  # the same

        monkeypatch.setattr(wallet, "LocalStore", Store)


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> Disks:
    return Disks(monkeypatch)


class Device:
    """A wallet that tells which marks it has confirmed."""

    def __init__(self, server: TestServer, name: str) -> None:
        self.confirmed: set[str] = set()
        self.root_password = "before"
        self._server, self._name = server, name

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[SyncedWallet]:
        opening = SyncedWallet(
            self._server.make_session,
            EMAIL,
            self.root_password,
            HOME / self._name,
            merge_marks,
            minimum_kdf=KDF,
            debounce_s=0.0,
        )
        async with opening as opened:
            yield opened

    async def add(self, opened: SyncedWallet, mark: str) -> None:
        await opened.change(lambda value: orjson.dumps(sorted({*read_marks(value), mark})))
        self.confirmed.add(mark)


async def live(server: TestServer, disks: Disks, disk: SimulatedDisk, device: Device) -> None:
    """A day of a device's: alone, with another, over a change of the password."""
    other = Device(server, "other")
    disks.next = SimulatedDisk(HOME)
    async with other.open() as theirs:
        disks.next = disk
        async with device.open() as mine:
            await device.add(mine, "first")
            await mine.sync()
            await theirs.pull()
            server.refuse_connections()
            server.drop_connections()
            await device.add(mine, "while away")
            await other.add(theirs, "theirs")
            server.accept_connections()
            await asyncio.gather(mine.pull(), theirs.pull())
            await device.add(mine, "merged")
            await mine.sync()
            device.root_password = "after"
            await mine.change_password("after")
            await device.add(mine, "last")
            await mine.sync()


async def count_calls(disks: Disks) -> int:
    disk = SimulatedDisk(HOME)
    async with TestServer() as server:
        await server.register(EMAIL, "before", kdf=KDF)
        async with asyncio.timeout(PATIENCE_S):
            await live(server, disks, disk, Device(server, "mine"))
    return len(disk.calls)


async def crash(disks: Disks, call: int, moment: str) -> bool:
    """Whether it came to that call; how many there are differs a little from run to run."""
    disk = SimulatedDisk(HOME)
    disk.fail_at(call, moment, Crash(), lasting=True)
    async with TestServer() as server:
        await server.register(EMAIL, "before", kdf=KDF)
        device = Device(server, "mine")
        await stop_when(lambda: disk.failed, live(server, disks, disk, device))
        server.drop_connections()
        server.accept_connections()
        snapshot = server.snapshot()
        for after in disk.crashes():
            await server.go_back(snapshot, announced=False)
            disks.next = after
            assert device.confirmed <= await open_again(device), f"call {call}, {moment}"
    return disk.failed


async def stop_when(stops: Callable[[], bool], doing: object) -> None:
    task = asyncio.ensure_future(doing)  # type: ignore[call-overload]  # a coroutine
    async with asyncio.timeout(PATIENCE_S):
        while not task.done() and not stops():
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Crash, ValueError):
            await task


async def open_again(device: Device) -> set[str]:
    """The marks that the next process has once it is in sync, by whichever password it may be."""
    # A person tries the new one first, if it had come to that.
    for root_password in sorted({"before", device.root_password}):
        device.root_password = root_password
        with contextlib.suppress(WrongPassword):
            async with device.open() as opened:
                kept = read_marks(opened.value)
                assert device.confirmed <= kept, "what is on disk"
                await opened.sync(PATIENCE_S)
                return read_marks(opened.value)
    raise AssertionError("neither password opens the folder")


@pytest.mark.parametrize("part", range(PARTS))
async def test_a_wallet_stopped_at_any_call_to_its_disk_opens_again_with_nothing_lost(
    disks: Disks, part: int
) -> None:
    calls = await count_calls(disks)
    assert calls > 50
    crashes = 0
    for call in range(1 + part, calls + 1, PARTS):
        crashes += await crash(disks, call, "before")
        await crash(disks, call, "halfway")
    assert crashes > calls // PARTS * 0.8
