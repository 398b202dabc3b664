"""Devices that push and get without a pause; every call and what came of it is on record."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from benchmarks.common import make_token, provision
from tests.e2e.rawclient import CallFailed, RawClient, open_socket
from tests.faults.register import (
    NO_WALLET,
    Call,
    Version,
    check_heard,
    check_history,
)

PATIENCE_S = 60.0
"""How long a test waits for what must come: long, for the machine may be busy with others."""
SERVES_AGAIN_S = 5.0
"""How soon after the end of a fault every device is served again."""
BUSY_S = 10.0
"""What a machine that is busy with others may add to that."""
CALL_S = 20.0
"""After which a device gives up waiting for an answer, and its connection."""
RECONNECT_S = 0.1
WARM_UP_CALLS = 20
"""What each device has done, about, when a fault begins."""
RETRY_S = 0.5
"""The longest that a device waits that was told when to come back."""

LOST = (OSError, ConnectionClosed, InvalidHandshake, TimeoutError, EOFError)
"""How a client finds that its server is not there."""


class Served(Protocol):
    """What devices connect to: one server, or several."""

    settings: dict[str, Any]

    @property
    def url(self) -> str: ...

    @property
    def log(self) -> str: ...

    async def start(self) -> None: ...


class Listener(RawClient):
    """A connection that keeps, of what comes unasked, the versions that it is told of."""

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)
        self.told: list[Version] = []
        self.accused: list[Any] = []
        """Errors that name no call: as if what this client sent were malformed."""

    def _take(self, message: Any) -> None:
        if "error" in message and message["id"] is None:
            self.accused.append(message["error"])
        if message.get("method") == "wallet.updated":
            told = message["params"]
            self.told.append((told["sequence"], told["hmac"]))
        super()._take(message)
        self.received.clear()


class Device:
    """One device: it connects, pushes and gets until it is told to stop, and connects again."""

    def __init__(self, load: Load, account: int, number: int) -> None:
        self.name = f"{account}.{number}"
        self.account = account
        self.token = make_token(account, number)
        self.connected = 0
        """How many connections it has had."""
        self.client: Listener | None = None
        self.answered_s = -1.0
        """The start of the newest call that was not refused."""
        self.pushed_s = -1.0
        """The start of the newest push that was acknowledged."""
        self._load = load
        self._chance = random.Random(f"{load.seed} {self.name}")
        self._tags = (f"{self.name} {number}" for number in itertools.count(1))
        self._known = NO_WALLET
        self._unanswered: Version | None = None

    async def run(self) -> None:
        while not self._load.stopping:
            try:
                client = Listener(await open_socket(self._load.server.url, open_timeout=CALL_S))
            except LOST:
                await asyncio.sleep(RECONNECT_S)
                continue
            self.connected += 1
            self.client = client
            self._load.heard[self.account].append(client.told)
            try:
                await self._work(client)
            except LOST:
                await asyncio.sleep(RECONNECT_S)
            finally:
                client.abort()
                await client.closed()
                self.client = None
                self._load.failures += client.accused

    async def _work(self, client: Listener) -> None:
        resumed = await self._call(client, "session.resume", token=self.token)
        while resumed is None and not self._load.stopping:
            resumed = await self._call(client, "session.resume", token=self.token)
        while not self._load.stopping:
            await self._step(client)

    async def _step(self, client: Listener) -> None:
        """One call."""
        if client.told:
            self._known = max(self._known, client.told[-1])
        if self._unanswered is not None and self._chance.random() < 0.8:
            version = self._unanswered
        elif self._chance.random() < self._load.reading:
            await self._call(client, "wallet.get")
            return
        else:
            version = (self._known[0] + 1, next(self._tags))
        self._unanswered = version
        await self._call(client, "wallet.push", pushed=version, **self._load.fill(version))
        self._unanswered = None
        await asyncio.sleep(self._chance.random() * self._load.pause_s)

    async def _call(
        self, client: Listener, method: str, pushed: Version | None = None, **params: Any
    ) -> Version | None:
        """What it found or stored; None if it was refused. Raises one of LOST, unanswered."""
        start_s = time.monotonic()
        record = self._load.record(self.account, self.name, start_s, pushed)
        try:
            async with asyncio.timeout(self._load.call_s):
                result = await (await client.submit(method, **params))
        except LOST:
            record()
            raise
        except CallFailed as error:
            if error.reason == "unavailable":
                record(refused=True)
                self._load.note_refusal(method, error)
                await asyncio.sleep(min(error.data["retryAfterMs"] / 1000, RETRY_S))
                return None
            if error.reason == "no_wallet":
                found = NO_WALLET
                record(answer=found)
            elif error.reason == "conflict":
                found = read_version(error.data["wallet"])
                record(answer=found, conflict=True, landed=error.data["landed"])
            else:
                self._load.failures.append(f"{method}: {error} {error.data}")
                raise ConnectionError("not to be expected") from error
        else:
            found = read_version(result)
            record(answer=found)
            if pushed is not None:
                self.pushed_s = start_s
        self.answered_s = start_s
        self._known = max(self._known, found)
        return found


class Load:
    """All devices on one server, and the record of what they were told."""

    def __init__(
        self,
        server: Served,
        *,
        accounts: int = 4,
        devices: int = 3,
        seed: int = 1,
        pause_s: float = 0.02,
        reading: float = 0.2,
        wallet_bytes: int = 0,
        call_s: float = CALL_S,
    ) -> None:
        self.server = server
        self.seed = seed
        self.pause_s, self.reading, self.call_s = pause_s, reading, call_s
        self.stopping = False
        self.calls: defaultdict[int, list[Call]] = defaultdict(list)
        self.heard: defaultdict[int, list[list[Version]]] = defaultdict(list)
        self.refusals: list[tuple[str, float]] = []
        self.failures: list[Any] = []
        self.fails_loudly = False
        """Whether a failure of the server's own may be in its log."""
        self.devices = [
            self.make_device(account, number)
            for account in range(1, accounts + 1)
            for number in range(1, devices + 1)
        ]
        self._accounts, self._devices_each = accounts, devices
        self._wallet_bytes = wallet_bytes
        self._tasks: list[asyncio.Task[None]] = []

    def make_device(self, account: int, number: int) -> Device:
        return Device(self, account, number)

    async def provision(self) -> None:
        """Make the accounts, whose devices are logged in; before the server is started."""
        url = self.server.settings["database_url"]
        await asyncio.to_thread(provision, url, self._accounts, devices_each=self._devices_each)

    def start(self) -> None:
        self.stopping = False
        self._tasks = [asyncio.create_task(device.run()) for device in self.devices]

    async def stop(self) -> None:
        """Every device finishes the call that it is at."""
        self.stopping = True
        await asyncio.gather(*self._tasks)
        self._tasks = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """The load on its server, which is started; checked in the end, when all has stopped."""
        await self.provision()
        await self.server.start()
        self.start()
        try:
            await self.served()
            await self.until(lambda: self.answered >= WARM_UP_CALLS * len(self.devices))
            yield self
        except BaseException:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            raise
        await self.stop()
        await self.check()

    @property
    def accounts(self) -> range:
        """The numbers of the accounts."""
        return range(1, self._accounts + 1)

    def newest(self, account: int) -> int:
        """The newest sequence of an account that a device was told of."""
        return max((call.answer[0] for call in self.calls[account] if call.answer), default=0)

    # What is recorded.

    def record(
        self, account: int, who: str, start_s: float, pushed: Version | None
    ) -> Callable[..., None]:
        """What is to be called once the call is answered, or has failed."""

        def finish(**outcome: Any) -> None:
            answered = "answer" in outcome
            end_s = time.monotonic() if answered else float("inf")
            call = Call(who=who, start_s=start_s, end_s=end_s, pushed=pushed, **outcome)
            self.calls[account].append(call)

        return finish

    def note_refusal(self, method: str, error: CallFailed) -> None:
        retry_after_ms = error.data.get("retryAfterMs")
        if error.code != 503 or not isinstance(retry_after_ms, int) or retry_after_ms <= 0:
            self.failures.append(f"{method} was refused with {error.code} {error.data}")
        self.refusals.append((method, time.monotonic()))

    def end_unanswered(self, at_s: float) -> None:
        """The server is dead since then: what it has not answered has no effect any more."""
        for calls in self.calls.values():
            for index, call in enumerate(calls):
                if not call.answered and not call.refused and call.end_s == float("inf"):
                    calls[index] = replace(call, end_s=at_s)

    def doubt_refusals(self) -> None:
        """What was refused may have happened: where more is at fault than a promise covers."""
        for calls in self.calls.values():
            calls[:] = [replace(call, refused=False) if call.refused else call for call in calls]

    def fill(self, version: Version) -> dict[str, Any]:
        sequence, tag = version
        wallet = f"{tag}:".ljust(self._wallet_bytes, "x")
        return {"sequence": sequence, "encryptedWallet": wallet, "hmac": tag}

    @property
    def connected(self) -> bool:
        """Whether any device has a connection."""
        return any(device.client is not None for device in self.devices)

    @property
    def answered(self) -> int:
        """Calls that were answered, with what is stored."""
        return sum(call.answered for calls in self.calls.values() for call in calls)

    @property
    def unanswered(self) -> int:
        """Calls that were given up."""
        return sum(
            not call.answered and not call.refused
            for calls in self.calls.values()
            for call in calls
        )

    # What is waited for.

    async def until(self, holds: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
        """Waits until it holds, while the devices go on."""
        try:
            async with asyncio.timeout(patience_s):
                while not holds():
                    assert not self.failures, self.failures[:3]
                    for task in self._tasks:
                        assert not task.done(), task.result()
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log = self.server.log[-2000:]
            raise AssertionError(f"not within {patience_s:g} s; the server's log: {log}") from None

    async def served(self, patience_s: float = PATIENCE_S) -> float:
        """Waits until every device was answered, and one of each account stored a push.

        Only calls count that begin from now on. Gives the seconds that it took.
        """
        since_s = time.monotonic()

        def all_served() -> bool:
            pushing = {device.account for device in self.devices if device.pushed_s > since_s}
            return len(pushing) == self._accounts and all(
                device.answered_s > since_s for device in self.devices
            )

        await self.until(all_served, patience_s)
        return time.monotonic() - since_s

    async def serves_again(self) -> float:
        """The same, right after the end of a fault: within 5 s, by the process that it found."""
        took_s = await self.served(SERVES_AGAIN_S + BUSY_S)
        print(f"all are served again after {took_s:.2f} s")
        return took_s

    async def refused(self, method: str = "wallet.push", count: int = 1) -> None:
        """Waits until so many more calls were refused with 503."""
        since = len(self.refusals)
        await self.until(lambda: sum(name == method for name, _ in self.refusals[since:]) >= count)

    async def read(self) -> None:
        """Opens a session of each account, and gets its wallet: what a fault of writing leaves."""
        for account in self.accounts:
            await (await self.open_reader(account)).close()

    async def open_reader(self, account: int) -> Listener:
        """A session that has got the wallet, which is put on record."""
        client = Listener(await open_socket(self.server.url, open_timeout=PATIENCE_S))
        await client.call("session.resume", token=make_token(account, 1))
        start_s = time.monotonic()
        found = read_version(await client.call("wallet.get"))
        self.record(account, "a reader", start_s, None)(answer=found)
        return client

    # What is checked.

    async def check(self) -> None:
        """Once all devices have stopped: nothing acknowledged is lost, every history is one."""
        assert not self.failures, self.failures[:3]
        for account in self.accounts:
            client = await self.open_reader(account)
            kept = (await client.call("wallet.history", limit=100))["versions"]
            await client.close()
            chain = await asyncio.to_thread(check_history, self.calls[account])
            check_heard(self.heard[account], chain)
            for version in kept:
                assert version["hmac"] == chain[version["sequence"] - 1]
            assert len(kept) == min(len(chain), 10)
        assert self.fails_loudly or "Traceback" not in self.server.log
        print(self.summary())

    def summary(self) -> str:
        calls = [call for account in self.calls.values() for call in account]
        pushes = [call for call in calls if call.pushed is not None]
        stored = sum(call.answered and not call.conflict for call in pushes)
        unanswered = sum(not call.answered and not call.refused for call in pushes)
        return (
            f"{len(calls):,} calls, {stored:,} pushes acknowledged, "
            f"{sum(call.conflict for call in pushes):,} conflicts, {unanswered:,} unanswered, "
            f"{len(self.refusals):,} refused; linearizable"
        )


def read_version(answer: dict[str, Any]) -> Version:
    """The version that an answer tells of; its wallet, if it has one, is that version's."""
    wallet = answer.get("encryptedWallet")
    assert wallet is None or wallet.startswith(f"{answer['hmac']}:"), "a state is torn"
    return (answer["sequence"], answer["hmac"] or "")
