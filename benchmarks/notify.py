"""How long it takes until the other devices of an account have heard of a push.

    python -m benchmarks.notify [--listeners 1 10 100 1000] [--seconds 2] [--rounds 3]

One device pushes; once all the others have heard of it, it pushes again. Each notification is timed
from when the push was sent, and so is the push's own answer.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from array import array
from dataclasses import dataclass, field
from typing import Any

from benchmarks.common import BenchmarkServer, gather_bounded, make_token, provision, start_server
from benchmarks.load import Pusher, Session, drop_all, find_quantile, open_pushers
from benchmarks.scenario import Bench, Scenario, run_alone

HEARING_TIMEOUT_S = 20.0
AT_ONCE = 50
WARM_UP = 20


@dataclass(frozen=True)
class Plan:
    """``rounds`` are for what has a target: 1 and 100 listeners, told the sequence."""

    listeners: tuple[int, ...] = (1, 10, 100, 1000)
    kib: int = 2
    seconds: float = 2.0
    rounds: int = 3


SMOKE = Plan(listeners=(1, 100), seconds=0.2, rounds=1)


@dataclass(slots=True)
class Hearing:
    """A push, and who has heard of it."""

    missing: int = 0
    sent_s: float = 0.0
    times_ms: array[float] = field(default_factory=lambda: array("d"))
    all_heard: asyncio.Event = field(default_factory=asyncio.Event)


class Listener(Session):
    """Another device of the account."""

    def __init__(self, hearing: Hearing, *, whole_state: bool) -> None:
        super().__init__()
        self._hearing = hearing
        self._whole_state = whole_state

    def hear(self, update: dict[str, Any]) -> None:
        hearing = self._hearing
        hearing.times_ms.append(1000 * (time.perf_counter() - hearing.sent_s))
        if self._whole_state and "wallet" not in update:
            self.faults["notification without its state"] += 1
        super().hear(update)
        hearing.missing -= 1
        if not hearing.missing:
            hearing.all_heard.set()


async def measure(plan: Plan, bench: Bench) -> None:
    """Every number of listeners, in both modes, on one server."""
    url = bench.make_database("notify")
    provision(url, 1, devices_each=2)
    with start_server(bench.folder, url) as server:
        for mode in ("sequence", "state"):
            for count in plan.listeners:
                has_target = mode == "sequence" and count in (1, 100)
                for round_number in range(1, 1 + (plan.rounds if has_target else 1)):
                    bench.tell(f"{count:,} listeners, {mode}, round {round_number}")
                    await measure_round(plan, bench, server, mode, count, has_target)


async def measure_round(
    plan: Plan, bench: Bench, server: BenchmarkServer, mode: str, count: int, has_target: bool
) -> None:
    """Push after push for some seconds, heard by so many."""
    hearing = Hearing()

    async def open_listener(number: int) -> Listener:
        listener = Listener(hearing, whole_state=mode == "state")
        await listener.connect(server.port)
        await listener.resume(make_token(1, 2), deliver=mode)
        return listener

    (pusher,) = await open_pushers(server, [1], plan.kib * 1024)
    listeners = await gather_bounded(count, AT_ONCE, open_listener)
    for _ in range(WARM_UP):
        await push_to_all(pusher, hearing, count)
    del hearing.times_ms[:], pusher.times_ms[:]
    started_s, client_s, server_s = time.perf_counter(), time.process_time(), server.read_cpu_s()
    while (lasted_s := time.perf_counter() - started_s) < plan.seconds:
        await push_to_all(pusher, hearing, count)
    client_cpu = (time.process_time() - client_s) / lasted_s
    server_cpu = (server.read_cpu_s() - server_s) / lasted_s
    for device in (pusher, *listeners):
        if device.sequence != pusher.sequence:
            device.faults["newest state never heard of"] += 1
        bench.faults += device.faults
    await drop_all([pusher, *listeners])
    heard_ms, pushed_ms = sorted(hearing.times_ms), statistics.median(pusher.times_ms)
    p50_ms = find_quantile(heard_ms, 0.5)
    if has_target and count == 1:
        bench.add_measure("notify 1", p50_ms - pushed_ms)
    elif has_target:
        bench.add_measure("notify 100", p50_ms)
    bench.add_row(
        "from the push to the notification",
        {
            "listeners": count,
            "deliver": mode,
            "p50 ms": p50_ms,
            "p99 ms": find_quantile(heard_ms, 0.99),
            "worst ms": heard_ms[-1],
            "p50 ms of the push": pushed_ms,
            "notifications/s": len(heard_ms) / lasted_s,
            "client CPU": client_cpu,
            "server CPU": server_cpu,
        },
    )


async def push_to_all(pusher: Pusher, hearing: Hearing, count: int) -> None:
    """One push, heard by everyone, its author answered."""
    hearing.missing = count
    hearing.all_heard.clear()
    hearing.sent_s = time.perf_counter()
    pusher.push()
    try:
        async with asyncio.timeout(HEARING_TIMEOUT_S):
            await hearing.all_heard.wait()
            while pusher.due_s:  # noqa: ASYNC110  # it is answered by then, or in the same turn
                await asyncio.sleep(0)
    except TimeoutError:
        pusher.faults["notification missed"] += hearing.missing
        pusher.faults["no answer"] += len(pusher.due_s)


SCENARIO = Scenario(
    "notify", "From a push to its notifications.", measure, Plan(), SMOKE, expected_s=30
)

if __name__ == "__main__":
    run_alone(SCENARIO)
