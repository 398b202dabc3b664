"""A storm: sessions that are lost all at once come back, while other devices push.

    python -m benchmarks.storm [--sessions 10000] [--at-once 500] [--rounds 3]

The sessions are in a process of their own, which runs when nobody else wants to (SCHED_IDLE, see
sched(7)): their machines are not the server's. They resume with the sequence that they hold; some
belong to the accounts that are pushed to meanwhile, and must end up with the newest state of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from benchmarks.common import BenchmarkServer, gather_bounded, make_token, provision, start_server
from benchmarks.load import Pusher, Session, drop_all, find_quantile, open_pushers, push_at_a_rate
from benchmarks.scenario import Bench, Scenario, run_alone

OPENING_AT_ONCE = 50
CATCH_UP_TIMEOUT_S = 20.0
BIN_S = 0.1


@dataclass(frozen=True)
class Plan:
    """``pushed``: how many of the accounts are pushed to, from another device of theirs."""

    sessions: int = 10_000
    at_once: int = 500
    pushed: int = 50
    rate: int = 200
    seconds: float = 3.0
    rounds: int = 3


SMOKE = Plan(sessions=20, at_once=5, pushed=4, rate=50, seconds=0.3, rounds=1)


class Crowd:
    """The sessions, told by the parent process what to do."""

    def __init__(self, port: int, plan: Plan) -> None:
        self._port = port
        self._plan = plan
        self._sessions: list[Session] = []
        self._faults: Counter[str] = Counter()
        self._back_s: list[float] = []

    async def open(self) -> None:
        """Come for the first time."""
        self._sessions = await gather_bounded(self._plan.sessions, OPENING_AT_ONCE, self._come)

    async def come_back(self) -> dict[str, Any]:
        """Be lost all at once, and come back: gives when, and when each was back."""
        known = [session.sequence for session in self._sessions]
        for session in self._sessions:
            self._faults += session.faults
        lost_s = time.perf_counter()
        await drop_all(self._sessions)
        self._back_s = []
        self._sessions = await gather_bounded(
            self._plan.sessions,
            self._plan.at_once,
            lambda number: self._come(number, known[number - 1]),
        )
        return {"lost_s": lost_s, "back_s": self._back_s}

    async def catch_up(self, sequences: dict[int, int]) -> dict[str, Any]:
        """How many never heard of the newest state, by account; and other faults."""
        deadline_s = time.monotonic() + CATCH_UP_TIMEOUT_S
        behind = set(sequences)
        while behind and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)
            behind = {
                number
                for number in behind
                if self._sessions[number - 1].sequence != sequences[number]
            }
        for session in self._sessions:
            self._faults += session.faults
            session.faults.clear()
        faults, self._faults = self._faults, Counter()
        return {"missed": len(behind), "faults": faults}

    async def _come(self, number: int, since: int = 0) -> Session:
        session = Session()
        await session.connect(self._port)
        result = await session.resume(make_token(number), since=since)
        self._back_s.append(time.perf_counter())
        if result["sequence"] != since and result["wallet"]["sequence"] != result["sequence"]:
            self._faults["resumed without the newest state"] += 1
        return session


def run_crowd(port: int, plan: Plan, parent: Connection) -> None:
    """The process of the sessions: does what it is told by name, and gives back what came of it."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    async def obey() -> None:
        crowd = Crowd(port, plan)
        while (order := await asyncio.to_thread(parent.recv)) is not None:
            name, *arguments = order
            parent.send(await getattr(crowd, name)(*arguments))

    uvloop.run(obey())


@contextlib.contextmanager
def start_crowd(port: int, plan: Plan) -> Iterator[Connection]:
    """The process, and the way to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_crowd, args=(port, plan, theirs), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        ours.send(None)
        process.join(timeout=10)
        process.terminate()


async def order(crowd: Connection, name: str, *arguments: Any) -> Any:
    """What came of an order to the crowd."""
    crowd.send((name, *arguments))
    return await asyncio.to_thread(crowd.recv)


async def measure(plan: Plan, bench: Bench) -> None:
    """Pushes alone, then beside the storm, by turns."""
    url = bench.make_database("storm")
    provision(url, plan.sessions, devices_each=2)
    with (
        start_server(bench.folder, url) as server,
        start_crowd(server.port, plan) as crowd,
    ):
        bench.tell(f"{plan.sessions:,} sessions come")
        await order(crowd, "open")
        pushers = await open_pushers(server, range(1, plan.pushed + 1), 2048, device=2)
        for round_number in range(1, plan.rounds + 1):
            bench.tell(f"round {round_number}")
            await measure_round(plan, bench, server, crowd, pushers, round_number)
        await drop_all(pushers)


async def measure_round(
    plan: Plan,
    bench: Bench,
    server: BenchmarkServer,
    crowd: Connection,
    pushers: list[Pusher],
    round_number: int,
) -> None:
    """One storm."""
    alone = await push_at_a_rate(pushers, server, per_s=plan.rate, until=plan.seconds)
    storm = asyncio.ensure_future(order(crowd, "come_back"))
    beside = await push_at_a_rate(pushers, server, per_s=plan.rate, until=storm)
    told = storm.result()
    lasted_s = max(told["back_s"]) - told["lost_s"]
    sequences = {number: pusher.sequence for number, pusher in enumerate(pushers, 1)}
    caught_up = await order(crowd, "catch_up", sequences)
    missed = Counter({"update missed": caught_up["missed"]})
    bench.faults += alone.faults + beside.faults + caught_up["faults"] + missed
    bench.add_measure("storm", plan.sessions / lasted_s)
    bench.add_measure("storm missed", caught_up["missed"])
    bench.add_measure("storm p99", beside.p99_ms / alone.p99_ms)
    bench.add_row(
        "sessions come back",
        {
            "round": round_number,
            "sessions": plan.sessions,
            "s": lasted_s,
            "resumes/s": plan.sessions / lasted_s,
            "updates missed": caught_up["missed"],
            "p99 ms alone": alone.p99_ms,
            "p99 ms beside": beside.p99_ms,
            "worst ms beside": find_quantile(beside.times_ms, 1.0),
            "server CPU": beside.server_cpu,
        },
    )
    if round_number == plan.rounds:
        note_course(bench, pushers, told["lost_s"], told["back_s"])


def note_course(bench: Bench, pushers: list[Pusher], lost_s: float, back_s: list[float]) -> None:
    """How the last round went: sessions back and the time of pushes, since they were lost."""
    ended = [
        (ended_s - lost_s, time_ms)
        for pusher in pushers
        for ended_s, time_ms in zip(pusher.ended_s, pusher.times_ms, strict=True)
    ]
    for number in range(int((max(back_s) - lost_s) / BIN_S) + 1):
        start_s, end_s = number * BIN_S, (number + 1) * BIN_S
        times_ms = sorted(time_ms for at_s, time_ms in ended if start_s <= at_s < end_s)
        bench.add_point(
            "course",
            {
                "s": end_s,
                "sessions back": sum(at_s - lost_s < end_s for at_s in back_s),
                "pushes": len(times_ms),
                "p50 ms": find_quantile(times_ms, 0.5),
                "worst ms": find_quantile(times_ms, 1.0),
            },
        )


SCENARIO = Scenario(
    "storm", "Sessions lost all at once come back.", measure, Plan(), SMOKE, expected_s=60
)

if __name__ == "__main__":
    run_alone(SCENARIO)
