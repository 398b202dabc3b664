"""Durable pushes by many accounts at once, against an echo of the same messages.

    python -m benchmarks.push [--accounts 200] [--kib 2 20] [--rates] [--seconds 3] [--rounds 3]

Closed loop: each account has one push under way. It is answered with the whole state, which is the
protocol's default, so that the server sends about as much as the echo does; beside it the short
answer (``receipt``). Open loop: pushes come at a rate, each timed from when it was due.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from benchmarks.common import BenchmarkServer, provision, start_echo, start_server
from benchmarks.load import (
    Load,
    Pusher,
    drop_all,
    find_quantile,
    open_echoed,
    open_pushers,
    push_at_a_rate,
    push_in_a_loop,
)
from benchmarks.references import measure_fdatasync_ms, measure_group_commit
from benchmarks.scenario import Bench, Row, Scenario, run_alone

CLOSED = "closed loop"
OPEN = "open loop"
QUANTILES = {"p50 ms": 0.5, "p90 ms": 0.9, "p99 ms": 0.99, "p99.9 ms": 0.999, "worst ms": 1.0}

Open = Callable[[BenchmarkServer], Coroutine[Any, Any, list[Pusher]]]


@dataclass(frozen=True)
class Plan:
    """``rounds`` are for what has a target, with ``target_accounts``; all else is done once."""

    accounts: tuple[int, ...] = (1, 50, 200, 1000)
    kib: tuple[int, ...] = (2, 20, 200)
    rates: tuple[int, ...] = (500, 2000)
    target_accounts: int = 200
    seconds: float = 3.0
    short_seconds: float = 1.5
    rounds: int = 3
    fdatasyncs: int = 300


SMOKE = Plan(
    accounts=(1, 4),
    kib=(2, 20),
    rates=(50,),
    target_accounts=4,
    seconds=0.2,
    short_seconds=0.1,
    rounds=1,
    fdatasyncs=10,
)


async def measure(plan: Plan, bench: Bench) -> None:
    """All of it, on one server and one echo."""
    url = bench.make_database("push")
    provision(url, max(*plan.accounts, plan.target_accounts))
    measure_references(plan, bench)
    with start_server(bench.folder, url) as server, start_echo(bench.folder) as echo:
        # The rates first: what the closed loops write, gigabytes at the largest size, goes on
        # being written to the disk for minutes.
        for rate in plan.rates:
            await measure_open(plan, bench, server, rate)
        for count in plan.accounts:
            for kib in plan.kib:
                await measure_closed(plan, bench, server, echo, count, kib)


def measure_references(plan: Plan, bench: Bench) -> None:
    """What the disk and bare SQLite do."""
    for kib, batch in itertools.product((2, 20), (1, 10, 50)):
        bench.tell(f"bare SQLite, {kib} KiB, {batch} a commit")
        per_s, p50_ms = measure_group_commit(
            bench.folder, batch=batch, value_bytes=kib * 1024, seconds=plan.short_seconds
        )
        row: Row = {
            "KiB": kib,
            "rows a commit": batch,
            "rows/s": per_s,
            "p50 ms of a commit": p50_ms,
        }
        bench.add_row("bare SQLite", row)


async def measure_closed(
    plan: Plan, bench: Bench, server: BenchmarkServer, echo: BenchmarkServer, count: int, kib: int
) -> None:
    """One number of accounts, one size: the echo and the pushes by turns."""
    numbers, size_bytes = range(1, count + 1), kib * 1024
    has_ratio = count == plan.target_accounts and kib in (2, 20)
    has_p50 = count == 1 and kib == 2
    rounds = plan.rounds if has_ratio or has_p50 else 1
    seconds = plan.seconds if has_ratio else plan.short_seconds
    openings: dict[str, tuple[BenchmarkServer, Open]] = {
        "echo": (echo, lambda at: open_echoed(at, numbers, size_bytes)),
        "state": (server, lambda at: open_pushers(at, numbers, size_bytes)),
    }
    if has_ratio:
        openings["receipt"] = (
            server,
            lambda at: open_pushers(at, numbers, size_bytes, receipt=True),
        )
    loads: dict[str, list[Load]] = {answer: [] for answer in openings}
    for round_number in range(1, rounds + 1):
        disk_ms = 0.0
        if has_p50:
            disk_ms = measure_fdatasync_ms(bench.folder, count=plan.fdatasyncs)
        for answer, (at, open_devices) in openings.items():
            bench.tell(f"{count:,} accounts, {kib} KiB, {answer}, round {round_number}")
            devices = await open_devices(at)
            load = await push_in_a_loop(devices, at, seconds=seconds)
            await drop_all(devices)
            await asyncio.sleep(0.1)
            loads[answer].append(load)
            bench.faults += load.faults
        if has_ratio:
            ratio = loads["state"][-1].per_s / loads["echo"][-1].per_s
            bench.add_measure(f"push {kib} KiB", ratio)
        if has_ratio and kib == 2:
            bench.add_measure("fairness", loads["state"][-1].fairness)
        if has_p50:
            bench.add_measure("fdatasyncs", loads["state"][-1].p50_ms / disk_ms)
            bench.add_row(
                "one account, 2 KiB",
                {
                    "round": round_number,
                    "fdatasync p50 ms": disk_ms,
                    "push p50 ms": loads["state"][-1].p50_ms,
                    "echo p50 ms": loads["echo"][-1].p50_ms,
                },
            )
    reference = find_median(loads["echo"])
    for answer in openings:
        load = find_median(loads[answer])
        row: Row = {"accounts": count, "KiB": kib, "answer": answer}
        bench.add_row(CLOSED, row | describe_load(load, reference.per_s))


async def measure_open(plan: Plan, bench: Bench, server: BenchmarkServer, rate: int) -> None:
    """One rate, over the accounts of the target."""
    loads = []
    for round_number in range(1, plan.rounds + 1):
        bench.tell(f"{rate:,} pushes/s, round {round_number}")
        pushers = await open_pushers(server, range(1, plan.target_accounts + 1), 2048)
        load = await push_at_a_rate(pushers, server, per_s=rate, until=plan.seconds)
        await drop_all(pushers)
        loads.append(load)
        bench.faults += load.faults
        if rate == max(plan.rates):
            bench.add_measure("open loop", load.p99_ms)
    load = sorted(loads, key=lambda load: load.p99_ms)[len(loads) // 2]
    row: Row = {"due/s": rate, "pushes/s": load.per_s}
    row |= {name: find_quantile(load.times_ms, share) for name, share in QUANTILES.items()}
    row |= {"client CPU": load.client_cpu, "server CPU": load.server_cpu}
    bench.add_row(OPEN, row)


def find_median(loads: list[Load]) -> Load:
    """The load with the median rate."""
    return sorted(loads, key=lambda load: load.per_s)[len(loads) // 2]


def describe_load(load: Load, echo_per_s: float) -> Row:
    """The cells of a load."""
    return {
        "per s": load.per_s,
        "of the echo": load.per_s / echo_per_s,
        "p50 ms": load.p50_ms,
        "p99 ms": load.p99_ms,
        "fairness": load.fairness,
        "client CPU": load.client_cpu,
        "server CPU": load.server_cpu,
        "faults": load.faults.total(),
    }


SCENARIO = Scenario(
    "push", "Durable pushes, against an echo of the same messages.", measure, Plan(), SMOKE, 130
)

if __name__ == "__main__":
    run_alone(SCENARIO)
