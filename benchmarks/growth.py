"""Whether pushes are slower where many accounts are stored, each with a wallet.

python -m benchmarks.growth [--few 1000] [--many 300000] [--seconds 3] [--rounds 3]
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.common import BenchmarkServer, provision, start_server
from benchmarks.load import Load, drop_all, open_pushers, push_in_a_loop
from benchmarks.scenario import Bench, Scenario, run_alone

WALLET_BYTES = 2048


@dataclass(frozen=True)
class Plan:
    """``pushing`` accounts, spread over all of them."""

    few: int = 1000
    many: int = 300_000
    pushing: int = 200
    seconds: float = 3.0
    rounds: int = 3


SMOKE = Plan(few=10, many=50, pushing=4, seconds=0.2, rounds=1)


async def measure(plan: Plan, bench: Bench) -> None:
    """Two servers, by turns."""
    few_url, many_url = bench.make_database("few"), bench.make_database("many")
    for url, count in ((few_url, plan.few), (many_url, plan.many)):
        provision(
            url,
            count,
            wallet_bytes=WALLET_BYTES,
            tell=lambda numbers: bench.tell(f"{numbers[-1]:,} accounts made"),
        )
    folders = bench.folder / "few", bench.folder / "many"
    for folder in folders:
        folder.mkdir()
    with start_server(folders[0], few_url) as few, start_server(folders[1], many_url) as many:
        for round_number in range(1, plan.rounds + 1):
            bench.tell(f"round {round_number}")
            at_few = await push_to(plan, few, plan.few)
            at_many = await push_to(plan, many, plan.many)
            bench.faults += at_few.faults + at_many.faults
            bench.add_measure("growth", at_many.per_s / at_few.per_s)
            bench.add_row(
                f"pushes/s of {plan.pushing} accounts",
                {
                    "round": round_number,
                    f"with {plan.few:,} stored": at_few.per_s,
                    f"with {plan.many:,} stored": at_many.per_s,
                    "ratio": at_many.per_s / at_few.per_s,
                },
            )


async def push_to(plan: Plan, server: BenchmarkServer, count: int) -> Load:
    """The load on one of them."""
    numbers = range(1, count + 1, count // plan.pushing)[: plan.pushing]
    pushers = await open_pushers(server, numbers, WALLET_BYTES)
    load = await push_in_a_loop(pushers, server, seconds=plan.seconds)
    await drop_all(pushers)
    return load


SCENARIO = Scenario(
    "growth", "Pushes where many accounts are stored.", measure, Plan(), SMOKE, expected_s=90
)

if __name__ == "__main__":
    run_alone(SCENARIO)
