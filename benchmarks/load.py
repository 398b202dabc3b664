"""The load: devices that push, in a closed loop or at a rate, and check every answer.

It runs in the process that measures; the servers have processes of their own. One that is idle but
for the load takes half the processor that the echo takes: the share is part of every result.
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.common import BareSocket, BenchmarkServer, make_hmac, make_token, make_wallet

ANSWER_TIMEOUT_S = 20.0
"""How long the last answers may take once a load has ended."""
ROUNDS_MIN = 3
"""How many times longer than the first pushes of all take a closed loop is measured at least."""
TICK_S = 0.001
"""How often an open loop looks what is due. Finer than that, uvloop would not sleep at all."""


class Session(BareSocket):
    """A device with an open session, that counts what it hears and should not.

    ``sequence``: the newest that it knows of; ``told``: the newest that the server told it of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sequence = 0
        self.told = 0
        self.faults: Counter[str] = Counter()
        self._resumed: asyncio.Future[dict[str, Any]] | None = None

    async def resume(self, token: str, **params: Any) -> dict[str, Any]:
        """The result of `session.resume`; the session goes on from the stored sequence."""
        call = {"id": 0, "method": "session.resume", "params": {"token": token, **params}}
        self._resumed = asyncio.get_running_loop().create_future()
        self.write_text(orjson.dumps({"jsonrpc": "2.0", **call}))
        try:
            return await self._resumed
        finally:
            self._resumed = None

    def receive(self, payload: bytes) -> None:
        message = orjson.loads(payload)
        if self._resumed is not None and message.get("id") == 0:
            if "result" in message:
                self.sequence = self.told = message["result"]["sequence"]
                self._resumed.set_result(message["result"])
            else:
                self._resumed.set_exception(RuntimeError(f"session.resume: {message}"))
        elif message.get("method") == "wallet.updated":
            self.hear(message["params"])
        else:
            self.take_answer(message)

    def hear(self, update: dict[str, Any]) -> None:
        """Another device of the account has pushed."""
        if update["sequence"] <= self.told:
            self.faults["notification out of order"] += 1
        self.told = update["sequence"]
        self.sequence = max(self.sequence, self.told)

    def take_answer(self, message: dict[str, Any]) -> None:
        """An answer, or whatever else it is."""
        self.faults["unexpected message"] += 1

    def lose(self) -> None:
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_exception(ConnectionError("the server has closed the connection"))


class Pusher(Session):
    """A device that pushes one state after the other. ``due_s``: of those under way, by sequence.

    ``receipt``: it asks for the short answer, not for the protocol's default, the whole state.
    """

    def __init__(self, wallet: str, *, receipt: bool = False) -> None:
        super().__init__()
        self.pushes = 0
        self.times_ms = array("d")
        self.ended_s = array("d")
        self.is_repeating = False
        self.due_s: dict[int, float] = {}
        self._wallet = wallet
        self._receipt = receipt
        self._template = (
            b'{"jsonrpc":"2.0","id":%d,"method":"wallet.push","params":{"sequence":%d,'
            b'"encryptedWallet":"' + wallet.encode() + b'","hmac":"%064x"'
        ) + (b',"receipt":true}}' if receipt else b"}}")

    def push(self, due_s: float | None = None) -> None:
        """Push the next state; it is timed from when it was due, or from now."""
        self.sequence = sequence = self.sequence + 1
        self.due_s[sequence] = due_s or time.perf_counter()
        self.write_text(self._template % (sequence, sequence, sequence))

    def take_answer(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        result = message.get("result")
        fault = None
        if "error" in message:
            fault = f"error {message['error']['code']}"
        elif result is None:
            fault = "unexpected message"
        elif number != next(iter(self.due_s), None):
            fault = "answer out of order"
        elif result["sequence"] != number or result["hmac"] != make_hmac(number):
            fault = "wrong state"
        elif not self._receipt and result["encryptedWallet"] != self._wallet:
            fault = "wrong wallet"
        self.finish(number, fault)

    def finish(self, number: int | None, fault: str | None) -> None:
        """Note the end of a push, and make the next one."""
        ended_s = time.perf_counter()
        due_s = None if number is None else self.due_s.pop(number, None)
        if due_s is None:
            fault = fault or "unexpected message"
        else:
            self.times_ms.append(1000 * (ended_s - due_s))
            self.ended_s.append(ended_s)
            self.pushes += 1
        if fault:
            self.faults[fault] += 1
        if self.is_repeating:
            self.push()

    def lose(self) -> None:
        super().lose()
        if self.due_s:
            self.faults["lost connection"] += 1


class Echoed(Pusher):
    """The reference: it sends the same pushes to a server that gives them back."""

    def receive(self, payload: bytes) -> None:
        number = next(iter(self.due_s), None)
        same = number is not None and payload == self._template % (number, number, number)
        self.finish(number, None if same else "wrong echo")


async def open_pushers(
    server: BenchmarkServer,
    numbers: Iterable[int],
    size_bytes: int,
    *,
    device: int = 1,
    receipt: bool = False,
) -> list[Pusher]:
    """A device of each of these accounts, its session open."""
    wallet = make_wallet(size_bytes)
    pushers = []
    for number in numbers:
        pusher = Pusher(wallet, receipt=receipt)
        await pusher.connect(server.port)
        await pusher.resume(make_token(number, device))
        pushers.append(pusher)
    return pushers


async def open_echoed(
    echo: BenchmarkServer, numbers: Iterable[int], size_bytes: int
) -> list[Pusher]:
    """As many connections to the reference."""
    wallet = make_wallet(size_bytes)
    echoed: list[Pusher] = [Echoed(wallet) for _ in numbers]
    for pusher in echoed:
        await pusher.connect(echo.port)
    return echoed


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to while it was measured.

    ``times_ms`` of its pushes, in ascending order; ``fairness``: the fewest pushes of a device, of
    the most; processor time in cores; ``faults``: what went wrong, before and after too.
    """

    seconds: float
    times_ms: list[float]
    fairness: float
    client_cpu: float
    server_cpu: float
    faults: Counter[str]

    @property
    def per_s(self) -> float:
        return len(self.times_ms) / self.seconds

    @property
    def p50_ms(self) -> float:
        return find_quantile(self.times_ms, 0.5)

    @property
    def p99_ms(self) -> float:
        return find_quantile(self.times_ms, 0.99)


def find_quantile(ascending: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))] if ascending else 0.0


async def push_in_a_loop(
    pushers: Sequence[Pusher], server: BenchmarkServer, *, seconds: float
) -> Load:
    """Closed loop: each device has one push under way, and pushes the next once it is answered.

    For so many seconds; longer where one round of all takes long. It is measured from when all have
    been answered for the first time.
    """
    collect_no_garbage()
    started_s = time.perf_counter()
    for pusher in pushers:
        pusher.is_repeating = True
        pusher.push()
    await asyncio.sleep(seconds / 6)
    while (warm_up_s := time.perf_counter() - started_s) < ANSWER_TIMEOUT_S:
        if all(pusher.pushes for pusher in pushers):
            break
        await asyncio.sleep(0.01)
    finish = _measure(pushers, server)
    await asyncio.sleep(max(seconds, ROUNDS_MIN * warm_up_s))
    load = finish()
    for pusher in pushers:
        pusher.is_repeating = False
    return await _settle(pushers, load)


async def push_at_a_rate(
    pushers: Sequence[Pusher],
    server: BenchmarkServer,
    *,
    per_s: float,
    until: asyncio.Future[Any] | float,
) -> Load:
    """Open loop: the devices push by turns, when it is time, whether they were answered or not.

    For so many seconds, or until that is done.
    """
    collect_no_garbage()
    pushing = asyncio.create_task(_push_when_due(pushers, per_s))
    try:
        if isinstance(until, float | int):
            await asyncio.sleep(until / 6)
        finish = _measure(pushers, server)
        if isinstance(until, float | int):
            await asyncio.sleep(until)
        else:
            await until
        load = finish()
    finally:
        pushing.cancel()
    return await _settle(pushers, load)


async def _push_when_due(pushers: Sequence[Pusher], per_s: float) -> None:
    started_s = time.perf_counter()
    count = 0
    while True:
        due = int((time.perf_counter() - started_s) * per_s)
        while count < due:
            count += 1
            pushers[count % len(pushers)].push(started_s + count / per_s)
        await asyncio.sleep(TICK_S)


def _measure(pushers: Sequence[Pusher], server: BenchmarkServer) -> Callable[[], Load]:
    """Gives what gives the load since."""
    for pusher in pushers:
        pusher.pushes = 0
        del pusher.times_ms[:], pusher.ended_s[:]
    started_s, client_s, server_s = time.perf_counter(), time.process_time(), server.read_cpu_s()

    def finish() -> Load:
        lasted_s = time.perf_counter() - started_s
        pushes = [pusher.pushes for pusher in pushers]
        return Load(
            seconds=lasted_s,
            times_ms=sorted(time_ms for pusher in pushers for time_ms in pusher.times_ms),
            fairness=min(pushes) / max(1, *pushes),
            client_cpu=(time.process_time() - client_s) / lasted_s,
            server_cpu=(server.read_cpu_s() - server_s) / lasted_s,
            faults=Counter(),
        )

    return finish


def collect_no_garbage() -> None:
    """Collect it now and no more: what comes of a run is little, and 45 ms would be timed."""
    gc.enable()
    gc.collect()
    gc.disable()


async def _settle(pushers: Sequence[Pusher], load: Load) -> Load:
    """The load with the faults of its devices, once all are answered."""
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    for pusher in pushers:
        while pusher.due_s and time.monotonic() < deadline_s:  # noqa: ASYNC110  # looking is cheap
            await asyncio.sleep(0.005)
        if pusher.due_s:
            pusher.faults["no answer"] += len(pusher.due_s)
            pusher.due_s.clear()
        load.faults.update(pusher.faults)
        pusher.faults.clear()
    return load


async def drop_all(sockets: Sequence[BareSocket]) -> None:
    """Drop the connections, all at once, and see them gone."""
    for socket in sockets:
        socket.abort()
    while not all(socket.is_lost for socket in sockets):  # noqa: ASYNC110  # a turn of the loop
        await asyncio.sleep(0.001)
