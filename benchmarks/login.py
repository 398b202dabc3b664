"""Logins beside pushes, against scrypt alone on all cores.

    python -m benchmarks.login [--clients 8] [--rate 200] [--seconds 4] [--rounds 3]

Each client opens a connection, logs in with the right password, and drops it, over and over: the
server always has more passwords to check than threads to do it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from benchmarks.common import (
    BareClient,
    BenchmarkServer,
    make_email,
    provision,
    start_server,
)
from benchmarks.load import Pusher, drop_all, open_pushers, push_at_a_rate
from benchmarks.references import measure_scrypt_per_s
from benchmarks.scenario import Bench, Scenario, run_alone

PASSWORD = "a password of a benchmark"  # noqa: S105  # of accounts that live for a minute


@dataclass(frozen=True)
class Plan:
    """``rate`` of the pushes, over so many ``accounts``."""

    clients: int = 8
    accounts: int = 50
    rate: int = 200
    seconds: float = 4.0
    rounds: int = 3


SMOKE = Plan(clients=2, accounts=4, rate=50, seconds=1.5, rounds=1)


async def measure(plan: Plan, bench: Bench) -> None:
    """Scrypt alone, pushes alone, both together, by turns."""
    url = bench.make_database("login")
    provision(url, plan.accounts + plan.clients, password=PASSWORD)
    with start_server(bench.folder, url) as server:
        pushers = await open_pushers(server, range(1, plan.accounts + 1), 2048)
        for round_number in range(1, plan.rounds + 1):
            bench.tell(f"round {round_number}")
            await measure_round(plan, bench, server, pushers, round_number)
        await drop_all(pushers)


async def measure_round(
    plan: Plan, bench: Bench, server: BenchmarkServer, pushers: list[Pusher], round_number: int
) -> None:
    """The three of them once."""
    scrypt_per_s = await asyncio.to_thread(measure_scrypt_per_s, seconds=plan.seconds)
    alone = await push_at_a_rate(pushers, server, per_s=plan.rate, until=plan.seconds)
    counts: Counter[str] = Counter()
    logging_in = [
        asyncio.create_task(log_in_over_and_over(server, plan.accounts + number, counts))
        for number in range(1, plan.clients + 1)
    ]
    # Until every thread of the server is at work.
    await asyncio.sleep(plan.seconds / 6)
    counts.clear()
    beside = await push_at_a_rate(
        pushers, server, per_s=plan.rate, until=asyncio.ensure_future(asyncio.sleep(plan.seconds))
    )
    logins_per_s = counts.pop("login", 0) / beside.seconds
    for task in logging_in:
        task.cancel()
    await asyncio.gather(*logging_in, return_exceptions=True)
    bench.faults += alone.faults + beside.faults + counts
    bench.add_measure("login", logins_per_s / scrypt_per_s)
    bench.add_measure("login p99", beside.p99_ms / alone.p99_ms)
    bench.add_row(
        f"logins beside {plan.rate} pushes/s",
        {
            "round": round_number,
            "scrypt/s": scrypt_per_s,
            "logins/s": logins_per_s,
            "of scrypt": logins_per_s / scrypt_per_s,
            "p50 ms alone": alone.p50_ms,
            "p50 ms beside": beside.p50_ms,
            "p99 ms alone": alone.p99_ms,
            "p99 ms beside": beside.p99_ms,
            "client CPU": beside.client_cpu,
            "server CPU": beside.server_cpu,
        },
    )


async def log_in_over_and_over(server: BenchmarkServer, number: int, counts: Counter[str]) -> None:
    """Until it is cancelled; ``counts`` the logins, and what was no login."""
    while True:
        client = await BareClient.open(server.port)
        try:
            answer = await client.call(
                "session.login", email=make_email(number), password=PASSWORD, deviceId="device 1"
            )
        finally:
            client.abort()
        counts["login" if "token" in answer.get("result", {}) else "failed login"] += 1


SCENARIO = Scenario(
    "login", "Logins beside pushes, against scrypt alone.", measure, Plan(), SMOKE, expected_s=50
)

if __name__ == "__main__":
    run_alone(SCENARIO)
