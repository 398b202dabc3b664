"""The load: devices that push, in a closed loop or at a rate, and check every answer."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import statistics
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.common import BareSocket, BenchmarkServer

ANSWER_TIMEOUT_S = 20.0
"""How long the last answers may take once a load has ended."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to. ``faults``: wrong answers, and answers that did not come, by kind."""

    pushes: int
    per_s: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    fairness: float
    client_cpu: float
    server_cpu: float
    faults: dict[str, int]


class Pusher(BareSocket):
    """A device that pushes one state after the other."""

    def __init__(self, wallet: str, *, receipt: bool = False) -> None:
        super().__init__()
        self.sequence = 0
        self.pushes = 0
        self.times_ms = array("d")
        self.faults: Counter[str] = Counter()
        self.is_repeating = False
        self.due_s: dict[int, float] = {}
        self._wallet = wallet
        self._receipt = receipt
        self._resumed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        end = b',"receipt":true}}' if receipt else b"}}"
        self._template = (
            b'{"jsonrpc":"2.0","id":%d,"method":"wallet.push","params":{"sequence":%d,'
            b'"encryptedWallet":"' + wallet.encode() + b'","hmac":"%064x"' + end
        )

    async def resume(self, token: str) -> None:
        """Open the session of a token, and go on from the stored sequence."""
        params = {"token": token}
        call = {"jsonrpc": "2.0", "id": 0, "method": "session.resume", "params": params}
        self.write_text(orjson.dumps(call))
        answer = await self._resumed
        self.sequence = answer["sequence"]

    def push(self, due_s: float | None = None) -> None:
        """Push the next state, to be timed from now or from when it was due."""
        self.sequence = sequence = self.sequence + 1
        self.due_s[sequence] = due_s or time.perf_counter()
        self.write_text(self._template % (sequence, sequence, sequence))

    def receive(self, payload: bytes) -> None:
        message = orjson.loads(payload)
        number = message.get("id")
        if number == 0:
            self._resumed.set_result(message["result"])
            return
        self._finish(number, self._find_fault(number, message))

    def lose(self) -> None:
        if self.due_s:
            self.faults["lost connection"] += 1

    def _finish(self, number: int | None, fault: str | None) -> None:
        due_s = None if number is None else self.due_s.pop(number, None)
        if due_s is None:
            fault = fault or "unexpected message"
        else:
            self.times_ms.append(1000 * (time.perf_counter() - due_s))
            self.pushes += 1
        if fault:
            self.faults[fault] += 1
        if self.is_repeating:
            self.push()

    def _find_fault(self, number: int | None, message: dict[str, Any]) -> str | None:
        if "error" in message:
            return f"error {message['error']['code']}"
        result = message.get("result")
        if result is None:
            return "unexpected message"
        if number != next(iter(self.due_s), None):
            return "answer out of order"
        if result["sequence"] != number or result["hmac"] != f"{number:064x}":
            return "wrong state"
        if not self._receipt and result["encryptedWallet"] != self._wallet:
            return "wrong wallet"
        return None


class Echoed(Pusher):
    """The reference: it sends the same pushes to a server that echoes them."""

    def receive(self, payload: bytes) -> None:
        number = next(iter(self.due_s), None)
        same = number is not None and payload == self._template % (number, number, number)
        self._finish(number, None if same else "wrong echo")


def make_wallet(size_bytes: int) -> str:
    """An encrypted wallet, as far as anyone can tell."""
    return base64.b64encode(os.urandom(size_bytes))[:size_bytes].decode()


async def push_in_a_loop(
    pushers: Sequence[Pusher], server: BenchmarkServer, *, seconds: float, warm_up_s: float = 0.5
) -> Load:
    """Closed loop: each device has one push under way, and pushes the next once it is answered."""
    for pusher in pushers:
        pusher.is_repeating = True
        pusher.push()

    return await _measure(pushers, server, seconds, warm_up_s)


async def push_at_a_rate(
    pushers: Sequence[Pusher],
    server: BenchmarkServer,
    *,
    per_s: float,
    seconds: float,
    warm_up_s: float = 0.5,
) -> Load:
    """Open loop: the devices push by turns, when it is time, whether they were answered or not.

    A push is timed from when it was due.
    """
    pushing = asyncio.create_task(_push_when_due(pushers, per_s))
    try:
        return await _measure(pushers, server, seconds, warm_up_s, pushing)
    finally:
        pushing.cancel()


async def _push_when_due(pushers: Sequence[Pusher], per_s: float) -> None:
    started_s = time.perf_counter()
    count = 0
    while True:
        due = int((time.perf_counter() - started_s) * per_s)
        while count < due:
            count += 1
            pushers[count % len(pushers)].push(started_s + count / per_s)
        await asyncio.sleep(0.0005)


async def _measure(
    pushers: Sequence[Pusher],
    server: BenchmarkServer,
    seconds: float,
    warm_up_s: float,
    pushing: asyncio.Task[None] | None = None,
) -> Load:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        await asyncio.sleep(warm_up_s)
        for pusher in pushers:
            pusher.pushes = 0
            del pusher.times_ms[:]
        started_s, client_s, server_s = (
            time.perf_counter(),
            time.process_time(),
            server.read_cpu_s(),
        )
        await asyncio.sleep(seconds)
        lasted_s = time.perf_counter() - started_s
        client_cpu = (time.process_time() - client_s) / lasted_s
        server_cpu = (server.read_cpu_s() - server_s) / lasted_s
        pushes = [pusher.pushes for pusher in pushers]
        times_ms = [time_ms for pusher in pushers for time_ms in pusher.times_ms]
    finally:
        gc.enable()
    if pushing is not None:
        pushing.cancel()
    for pusher in pushers:
        pusher.is_repeating = False
    faults: Counter[str] = Counter()
    for pusher in pushers:
        await _wait_for_answers(pusher)
        faults += pusher.faults
        pusher.faults.clear()
    cuts = statistics.quantiles(times_ms, n=100) if len(times_ms) > 1 else [0.0] * 99
    return Load(
        pushes=sum(pushes),
        per_s=sum(pushes) / lasted_s,
        p50_ms=cuts[49],
        p99_ms=cuts[98],
        worst_ms=max(times_ms, default=0.0),
        fairness=min(pushes) / max(1, *pushes),
        client_cpu=client_cpu,
        server_cpu=server_cpu,
        faults=dict(faults),
    )


async def _wait_for_answers(pusher: Pusher) -> None:
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while pusher.due_s and time.monotonic() < deadline_s:  # noqa: ASYNC110  # looking costs little
        await asyncio.sleep(0.01)
    if pusher.due_s:
        pusher.faults["no answer"] += len(pusher.due_s)
        pusher.due_s.clear()
