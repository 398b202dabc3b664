"""Whether the server's memory grows under an hour of everything at once.

    python -m benchmarks.soak [--minutes 60]

Devices push at a rate and others of their accounts hear of it; sessions are dropped and resumed;
users log in, some with a wrong password. It is run by hand: `make bench` leaves it out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.common import (
    BareClient,
    BenchmarkServer,
    gather_bounded,
    make_email,
    make_token,
    provision,
    start_server,
)
from benchmarks.load import Session, drop_all, open_pushers, push_at_a_rate
from benchmarks.scenario import Bench, Scenario, run_alone

PASSWORD = "a password of a benchmark"  # noqa: S105  # of accounts that live for an hour
AT_ONCE = 50


@dataclass(frozen=True)
class Plan:
    """Rates are a second; ``samples`` of the memory are taken in all, evenly."""

    minutes: float = 60.0
    sessions: int = 2000
    pushing: int = 100
    pushes_per_s: int = 100
    drops_per_s: int = 20
    logins_per_s: int = 2
    samples: int = 120


SMOKE = Plan(
    minutes=0.02, sessions=10, pushing=4, pushes_per_s=20, drops_per_s=5, logins_per_s=5, samples=4
)


async def measure(plan: Plan, bench: Bench) -> None:
    """All of it at once, and the memory from time to time."""
    url = bench.make_database("soak")
    provision(url, plan.sessions, devices_each=2, password=PASSWORD)
    with start_server(bench.folder, url) as server:
        bench.tell(f"{plan.sessions:,} sessions")
        soak = Soak(plan, server)
        await soak.open()
        pushers = await open_pushers(server, range(1, plan.pushing + 1), 2048, device=2)
        disturbing = [
            asyncio.create_task(repeat(soak.drop_one, plan.drops_per_s)),
            asyncio.create_task(repeat(soak.log_in, plan.logins_per_s)),
        ]
        sampling = asyncio.ensure_future(take_samples(plan, bench, server))
        load = await push_at_a_rate(pushers, server, per_s=plan.pushes_per_s, until=sampling)
        for task in disturbing:
            task.cancel()
        for result in await asyncio.gather(*disturbing, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError):
                raise RuntimeError("the soak ended before its time") from result
        bench.faults += load.faults + soak.collect_faults()
        await drop_all([*pushers, *soak.sessions])
    points = bench.series["memory"]
    # The first quarter fills what is to be filled: caches, the allocator's arenas, the history.
    settled, end = points[len(points) // 4], points[-1]
    bench.add_row(
        "memory of the server",
        {
            "minutes": end["minute"],
            "MiB at the start": points[0]["MiB"],
            "MiB after a quarter": settled["MiB"],
            "MiB at the end": end["MiB"],
            "descriptors after a quarter": settled["descriptors"],
            "at the end": end["descriptors"],
            "pushes": len(load.times_ms),
            "p99 ms": load.p99_ms,
            "drops": soak.counts["drops"],
            "logins": soak.counts["logins"],
        },
    )


async def take_samples(plan: Plan, bench: Bench, server: BenchmarkServer) -> None:
    """The server's memory, from the first minute to the last."""
    started_s = time.monotonic()
    for number in range(plan.samples + 1):
        due_s = started_s + 60 * plan.minutes * number / plan.samples
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        minute = (time.monotonic() - started_s) / 60
        rss_mib = server.read_rss_bytes() / 2**20
        bench.tell(f"minute {minute:.0f} of {plan.minutes:.0f}, {rss_mib:.1f} MiB")
        bench.add_point(
            "memory",
            {"minute": minute, "MiB": rss_mib, "descriptors": server.count_descriptors()},
        )


async def repeat(act: Callable[[], Awaitable[None]], per_s: int) -> None:
    """Until it is cancelled: one act after the other, so many a second at most."""
    while True:
        await act()
        await asyncio.sleep(1 / per_s)


class Soak:
    """Sessions that listen, come and go."""

    def __init__(self, plan: Plan, server: BenchmarkServer) -> None:
        self.sessions: list[Session] = []
        self.counts: Counter[str] = Counter()
        self._plan = plan
        self._server = server
        self._faults: Counter[str] = Counter()

    async def open(self) -> None:
        """Come for the first time."""
        self.sessions = await gather_bounded(self._plan.sessions, AT_ONCE, self._come)

    async def drop_one(self) -> None:
        """A session is lost, and comes back with what it knows."""
        at = self.counts["drops"] % len(self.sessions)
        lost = self.sessions[at]
        lost.abort()
        self._faults += lost.faults
        self.sessions[at] = await self._come(at + 1, lost.sequence)
        self.counts["drops"] += 1

    async def log_in(self) -> None:
        """A third device logs in, every other time with a wrong password."""
        number = self.counts["logins"] % self._plan.sessions + 1
        is_wrong = bool(self.counts["logins"] % 2)
        self.counts["logins"] += 1
        client = await BareClient.open(self._server.port)
        answer = await client.call(
            "session.login",
            email=make_email(number),
            password="not that one" if is_wrong else PASSWORD,
            deviceId="device 3",
        )
        client.abort()
        code = answer.get("error", {}).get("code")
        if code != (401 if is_wrong else None):
            self._faults[f"login answered with {code}"] += 1

    def collect_faults(self) -> Counter[str]:
        """What went wrong with any of them."""
        for session in self.sessions:
            self._faults += session.faults
        return self._faults

    async def _come(self, number: int, since: int = 0) -> Session:
        session = Session()
        await session.connect(self._server.port)
        await session.resume(make_token(number), since=since)
        return session


SCENARIO = Scenario(
    "soak", "Memory under an hour of everything.", measure, Plan(), SMOKE, expected_s=3700
)

if __name__ == "__main__":
    run_alone(SCENARIO)
