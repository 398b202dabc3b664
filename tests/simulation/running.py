"""Many seeds: ranges of them, run side by side, and what is kept of that between two runs."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.plans import draw_plan
from tests.simulation.shrinking import shrink
from tests.simulation.tracing import trace
from tests.simulation.world import World

ROOT = Path(__file__).parents[2]
SOURCES = ("wsserver", "client/wsclient", "schema/wsschema", "tests/simulation")
RANGE_SEEDS = 250
"""Seeds that are run, and kept in mind, as one."""
COLLECTED_SEEDS = 25
"""Runs hold each other's garbage for so long: to look for it all the time takes a tenth."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of the seeds from ``first`` to ``last``; the failures by seed."""

    first: int
    last: int
    events: int
    events_min: int
    pushes: int
    seconds: float
    failures: dict[int, str]


def run_seeds(first: int, last: int) -> Report:
    """Run the seeds, on this processor."""
    gc.collect()  # what the last range left would be kept for good
    gc.freeze()
    gc.disable()
    started_s = time.process_time()
    events, pushes = [], 0
    failures: dict[int, str] = {}
    for seed in range(first, last + 1):
        world = World(draw_plan(seed))
        try:
            world.run()
        except Exception as error:  # whatever it is, it is what is looked for
            failures[seed] = f"{type(error).__name__}: {error}"
        events.append(world.timeline.events)
        pushes += world.audit.acknowledged
        if not seed % COLLECTED_SEEDS:
            gc.collect()
    gc.enable()
    seconds = time.process_time() - started_s
    return Report(first, last, sum(events), min(events), pushes, seconds, failures)


def describe_failure(seed: int) -> str:
    """The failure of a seed for whoever is to mend it: the smallest plan, and what happens."""
    plan = shrink(draw_plan(seed))
    lines, failure = trace(plan)
    steps = "".join(f"        {step},\n" for step in plan.steps)
    text = f"Plan(\n    {plan.seed},\n    {plan.setting},\n    (\n{steps}    ),\n)"
    return "\n".join(
        [f"Seed {seed} fails; its smallest plan:", text, "", *lines, "", repr(failure)]
    )


class Memory:
    """The ranges that this very code has run: a run that was broken off goes on where it was."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{_digest_sources()}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> list[Report]:
        if not self.path.exists():
            return []
        reports = [Report(**json.loads(line)) for line in self.path.read_text().splitlines()]
        return [
            dataclasses.replace(one, failures={int(seed): it for seed, it in one.failures.items()})
            for one in reports
        ]

    def note(self, report: Report) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(report)) + "\n")


def _digest_sources() -> str:
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def split(first: int, last: int) -> list[tuple[int, int]]:
    """The ranges of these seeds; they begin at multiples, so that another run has the same."""
    starts = range(first - first % RANGE_SEEDS, last + 1, RANGE_SEEDS)
    return [(max(first, start), min(last, start + RANGE_SEEDS - 1)) for start in starts]


def run_side_by_side(ranges: Iterable[tuple[int, int]], jobs: int) -> Iterator[Report]:
    """The reports, as they come."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(run_seeds, *one) for one in ranges]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def count_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
