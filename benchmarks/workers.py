"""Pushes on PostgreSQL: one process, two workers on one port, two nodes on two ports.

    python -m benchmarks.workers [--accounts 100] [--rate 300] [--seconds 3] [--rounds 3]

By turns, on one database of a PostgreSQL of the tests' that waits for the disk. Each node has as
many accounts as the one process, whose workers share them: in a closed loop, and at a rate, at
which all of them have the same to do.
Alone: each account has one device, which pushes. Heard: a second device of each account, on the
other node where there is one, is told of each push. What counts is the processor time that a push
costs, in the server and in PostgreSQL: the wall clock is shared with the load and the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.common import (
    TICKS_PER_S,
    BenchmarkServer,
    make_token,
    provision,
    start_server,
)
from benchmarks.load import (
    Load,
    Pusher,
    Session,
    drop_all,
    open_pushers,
    push_at_a_rate,
    push_in_a_loop,
)
from benchmarks.scenario import Bench, Row, Scenario, run_alone
from tests.servers.postgresql import PostgreSQL

ONE, WORKERS, NODES = "one process", "two workers", "two nodes"
HEARD_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Plan:
    """``accounts`` of each node push ``kib`` KiB for so many seconds, ``rounds`` times on each."""

    accounts: int = 100
    rate: int = 300
    kib: int = 2
    seconds: float = 3.0
    rounds: int = 3


SMOKE = Plan(accounts=4, rate=50, seconds=0.2, rounds=1)


class Nodes(BenchmarkServer):
    """Servers that are measured as one."""

    def __init__(self, servers: Sequence[BenchmarkServer]) -> None:
        self.servers = servers

    def read_cpu_s(self) -> float:
        return sum(server.read_cpu_s() for server in self.servers)


@dataclass(frozen=True)
class Cost:
    """What a load came to. Processor time a push, in microseconds."""

    load: Load
    server_us: float
    database_us: float


async def measure(plan: Plan, bench: Bench) -> None:
    """All kinds of servers run all the time; each is measured alone, by turns."""
    costs: dict[tuple[str, str], list[Cost]] = {}
    with start_database() as database, contextlib.ExitStack() as running:
        url = database.create_database()
        provision(url, 2 * plan.accounts, devices_each=2)

        def start(name: str, *flags: str) -> BenchmarkServer:
            folder = bench.folder / name
            folder.mkdir()
            return running.enter_context(start_server(folder, url, *flags))

        first = start("first")
        servers = {
            ONE: Nodes([first]),
            WORKERS: Nodes([start("workers", "--workers=2")]),
            NODES: Nodes([first, start("second")]),
        }
        loads: dict[str, tuple[bool, int]] = {
            "closed loop, alone": (False, 0),
            "closed loop, heard": (True, 0),
            f"{plan.rate} pushes/s, alone": (False, plan.rate),
            f"{plan.rate} pushes/s, heard": (True, plan.rate),
        }
        for round_number in range(1, plan.rounds + 1):
            for kind, (is_heard, rate) in loads.items():
                for name, nodes in servers.items():
                    bench.tell(f"{kind}, {name}, round {round_number}")
                    cost = await measure_one(
                        plan, nodes, database, bench, is_heard=is_heard, rate=rate
                    )
                    costs.setdefault((name, kind), []).append(cost)
    for kind in loads:
        for name in servers:
            bench.add_row(kind, row_of(name, costs[name, kind], costs[ONE, kind]))


async def measure_one(
    plan: Plan, nodes: Nodes, database: PostgreSQL, bench: Bench, *, is_heard: bool, rate: int
) -> Cost:
    """One load on one kind of server."""
    pushers: list[Pusher] = []
    for place, server in enumerate(nodes.servers):
        accounts = share(plan, place)
        pushers += await open_pushers(server, accounts, plan.kib * 1024, receipt=True)
    listeners: list[Session] = []
    for place, server in enumerate(reversed(nodes.servers) if is_heard else ()):
        for number in share(plan, place):
            listeners.append(Session())
            await listeners[-1].connect(server.port)
            await listeners[-1].resume(make_token(number, 2))
    before_s, before = read_family_cpu_s(database), sum(pusher.sequence for pusher in pushers)
    if rate:
        load = await push_at_a_rate(pushers, nodes, per_s=rate, until=plan.seconds)
    else:
        load = await push_in_a_loop(pushers, nodes, seconds=plan.seconds)
    # Those of the warm-up too, and those that were still under way.
    pushes = sum(pusher.sequence for pusher in pushers) - before
    database_s = read_family_cpu_s(database) - before_s
    for pusher, listener in zip(pushers, listeners, strict=False):
        deadline_s = time.monotonic() + HEARD_TIMEOUT_S
        while (  # noqa: ASYNC110  # looking is cheap
            listener.told < pusher.sequence and time.monotonic() < deadline_s
        ):
            await asyncio.sleep(0.01)
        if listener.told < pusher.sequence:
            bench.faults["not heard"] += 1
    bench.faults += load.faults
    for listener in listeners:
        bench.faults += listener.faults
    await drop_all([*pushers, *listeners])
    return Cost(
        load,
        # A machine so busy that nothing was pushed has no cost of a push.
        server_us=1e6 * load.server_cpu / load.per_s if load.per_s else math.nan,
        database_us=1e6 * database_s / pushes,
    )


def share(plan: Plan, place: int) -> range:
    """The accounts of one of the nodes."""
    return range(1 + plan.accounts * place, 1 + plan.accounts * (place + 1))


def row_of(name: str, costs: list[Cost], ones: list[Cost]) -> Row:
    """The medians of the rounds, and how they compare, round by round, with one process."""
    ratios = [cost.server_us / one.server_us for cost, one in zip(costs, ones, strict=True)]
    rates = [cost.load.per_s / one.load.per_s for cost, one in zip(costs, ones, strict=True)]
    return {
        "servers": name,
        "pushes/s": median(cost.load.per_s for cost in costs),
        "of one": median(rates),
        "p50 ms": median(cost.load.p50_ms for cost in costs),
        "p99 ms": median(cost.load.p99_ms for cost in costs),
        "server us a push": median(cost.server_us for cost in costs),
        "of one process's": median(ratios),
        "from": min(ratios),
        "to": max(ratios),
        "PostgreSQL us a push": median(cost.database_us for cost in costs),
    }


@contextlib.contextmanager
def start_database() -> Iterator[PostgreSQL]:
    """A PostgreSQL of its own."""
    database = PostgreSQL(durable=True)
    try:
        database.start()
        yield database
    finally:
        database.close()


def read_family_cpu_s(database: PostgreSQL) -> float:
    """The processor time that PostgreSQL's processes have used, those that are over too (Linux)."""
    pid = database.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for one in (str(pid), *children):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15] if one == str(pid) else fields[11:13]))
    return total / TICKS_PER_S


SCENARIO = Scenario(
    "workers",
    "Pushes on PostgreSQL: one process, two workers, two nodes.",
    measure,
    Plan(),
    SMOKE,
    90,
)

if __name__ == "__main__":
    run_alone(SCENARIO)
