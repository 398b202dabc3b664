"""Run seeds of the simulation on all processors: `make simulate SEEDS=1000000`.

    python -m tests.simulation [--jobs N] [SEEDS]     SEEDS: how many, or first-last
    python -m tests.simulation --show SEED            what a seed does, line by line
    python -m tests.simulation --mutants              which seed finds each mutant first

What was run is kept in build/simulation, so that the same command goes on where it was broken off.
A seed that fails is shrunk, and told there in a file of its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tests.simulation.mutants import MUTANTS
from tests.simulation.plans import draw_plan
from tests.simulation.running import (
    Memory,
    Report,
    count_processors,
    describe_failure,
    run_side_by_side,
    split,
)
from tests.simulation.shrinking import find_failure
from tests.simulation.tracing import trace

FOLDER = Path("build/simulation")
SEEDS_DEFAULT = "100000"
MUTANT_SEEDS_MAX = 20_000
SHRUNK_MAX = 5
"""Failures that are shrunk: it takes seconds each, and one is mended at a time."""


def main() -> int:
    """The command; gives its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("seeds", nargs="?", default=SEEDS_DEFAULT, help="how many, or first-last")
    parser.add_argument("--jobs", type=int, default=count_processors(), help="side by side")
    parser.add_argument("--show", type=int, metavar="SEED", help="tell what a seed does")
    parser.add_argument("--mutants", action="store_true", help="find the first seed of each")
    arguments = parser.parse_args()
    console = Console()
    if arguments.show is not None:
        return show(arguments.show)
    if arguments.mutants:
        return find_mutants(console)
    first, _, last = arguments.seeds.rpartition("-")
    seeds = (int(first), int(last)) if first else (0, int(last) - 1)
    return simulate(console, *seeds, arguments.jobs)


def simulate(console: Console, first: int, last: int, jobs: int) -> int:
    """Run the seeds from first to last that were not run yet; 1 when any has failed."""
    memory = Memory(FOLDER)
    wanted = split(first, last)
    known = {(one.first, one.last): one for one in memory.load()}
    reports = [known[one] for one in wanted if one in known]
    missing = [one for one in wanted if one not in known]
    started_s = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        done = sum(one.last - one.first + 1 for one in reports)
        task = progress.add_task("seeds", total=last - first + 1, completed=done, pace="")
        new = 0
        for report in run_side_by_side(missing, jobs) if missing else ():
            memory.note(report)
            reports.append(report)
            count = report.last - report.first + 1
            new += count
            pace = f"{60 * new / (time.monotonic() - started_s):,.0f} a minute"
            progress.update(task, advance=count, pace=pace)
            for seed, text in report.failures.items():
                progress.console.print(f"[red]seed {seed}[/red]: {text}", highlight=False)
    return summarize(console, reports)


def summarize(console: Console, reports: list[Report]) -> int:
    """Tell what came of all of them; 1 when any has failed."""
    seeds = sum(one.last - one.first + 1 for one in reports)
    events = sum(one.events for one in reports)
    seconds = sum(one.seconds for one in reports)
    failures = {seed: text for one in reports for seed, text in one.failures.items()}
    console.print(
        f"{seeds:,} seeds: {events:,} events, {events / seeds:,.0f} a seed and at least "
        f"{min(one.events_min for one in reports)}; "
        f"{sum(one.pushes for one in reports):,} pushes acknowledged; "
        f"{60 * seeds / seconds:,.0f} seeds a minute on one processor; {len(failures)} failed",
        highlight=False,
    )
    for seed in sorted(failures)[:SHRUNK_MAX]:
        path = FOLDER / f"seed-{seed}.txt"
        path.write_text(describe_failure(seed) + "\n")
        console.print(f"seed {seed}, shrunk: {path}", highlight=False)
    return 1 if failures else 0


def show(seed: int) -> int:
    """Tell what happens in the run of a seed; 1 when it fails."""
    lines, failure = trace(draw_plan(seed))
    print("\n".join(lines))
    return 0 if failure is None else 1


def find_mutants(console: Console) -> int:
    """Tell the first seed that finds each mutant; 1 when one is not found."""
    escaped = 0
    for mutant in MUTANTS:
        with mutant.mutate():
            found = next(
                (seed for seed in range(MUTANT_SEEDS_MAX) if find_failure(draw_plan(seed))), None
            )
        escaped += found is None
        by = "not found" if found is None else f"seed {found}"
        console.print(f"{mutant.name:50} {by}", highlight=False)
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
