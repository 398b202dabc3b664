"""Many rounds of chaos: `python -m tests.chaos --rounds 1000 --seed 1`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.chaos.rounds import Chaos


async def run(rounds: int, seed: int) -> None:
    steps, faults = 0, {}
    started_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"seed {seed}", total=rounds)
        with tempfile.TemporaryDirectory(prefix="wallet-sync-chaos-") as folder:
            async with Chaos(Path(folder), seed).running() as chaos:
                for number in range(rounds):
                    try:
                        steps += await chaos.run_round()
                    except BaseException:
                        print(f"seed {seed}, round {number + 1}", file=sys.stderr)
                        raise
                    progress.advance(task)
                faults = chaos.faults
    seconds = time.monotonic() - started_s
    told = ", ".join(f"{count} {name}" for name, count in sorted(faults.items()))
    print(f"{rounds} rounds, {steps} steps in {seconds:.0f} s, nothing lost: {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.rounds, arguments.seed))


if __name__ == "__main__":
    main()
