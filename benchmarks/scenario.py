"""What every scenario is run with: its plan as flags, a folder, a notebook that becomes JSON."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import resource
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.table import describe_row_table, judge_all

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "build" / "benchmarks"
SMOKE_RESULTS = ROOT / "build" / "benchmarks-smoke"
PACKAGES = ("websockets", "uvloop", "orjson", "SQLAlchemy", "scrypt")

Row = dict[str, str | int | float]
"""A line of a table: its headings, with their units, and its figures."""


class Bench:
    """A run of a scenario: where it may write, and what it has found so far."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.tell = tell
        self.tables: dict[str, list[Row]] = {}
        self.series: dict[str, list[Row]] = {}
        self.measures: dict[str, list[float]] = {}
        self.faults: Counter[str] = Counter()

    def add_row(self, table: str, row: Row) -> None:
        """Note a line of a table."""
        self.tables.setdefault(table, []).append(row)

    def add_point(self, series: str, row: Row) -> None:
        """Note a point of a course, which is drawn and not shown as a table."""
        self.series.setdefault(series, []).append(row)

    def add_measure(self, target: str, value: float) -> None:
        """Note a figure that has a target, once a round."""
        self.measures.setdefault(target, []).append(value)

    def make_database(self, name: str) -> str:
        """The URL of a new database."""
        return f"sqlite:///{self.folder / name}.db"


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Something to measure: with its full plan, or with one that takes a second or two.

    A plan is a dataclass of numbers. ``expected_s`` is about how long the full one takes.
    """

    name: str
    about: str
    measure: Callable[[Any, Bench], Coroutine[Any, Any, None]]
    plan: Any
    smoke: Any
    expected_s: float


def run_scenario(
    scenario: Scenario, plan: Any, results: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Measure, and write what was found into the folder of the results."""
    raise_descriptor_limit()
    results.mkdir(parents=True, exist_ok=True)
    # On the disk that the project is on: what is below /tmp may be in memory.
    with tempfile.TemporaryDirectory(dir=results, prefix="run-") as name:
        bench = Bench(Path(name), tell)
        started_s = time.monotonic()
        uvloop.run(scenario.measure(plan, bench))
    found = {
        "scenario": scenario.name,
        "about": scenario.about,
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - started_s, 1),
        "machine": describe_machine(),
        "plan": dataclasses.asdict(plan),
        "tables": bench.tables,
        "series": bench.series,
        "measures": bench.measures,
        "faults": dict(bench.faults),
    }
    (results / f"{scenario.name}.json").write_bytes(
        orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    )
    return found


def run_alone(scenario: Scenario) -> None:
    """The command of a scenario: flags for its plan, a table, a JSON file."""
    parser = argparse.ArgumentParser(description=scenario.about)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: seconds, no figures")
    parser.add_argument("--results", type=Path, help="folder for the JSON file")
    for field in dataclasses.fields(scenario.plan):
        default = getattr(scenario.plan, field.name)
        several = isinstance(default, tuple)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(default[0] if several else default),
            nargs="+" if several else None,
            help=f"{' '.join(map(str, default)) if several else default} unless given",
        )
    flags = vars(parser.parse_args())
    smoke = flags.pop("smoke")
    results = flags.pop("results") or (SMOKE_RESULTS if smoke else RESULTS)
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in flags.items()
        if value is not None
    }
    plan = dataclasses.replace(scenario.smoke if smoke else scenario.plan, **given)
    console = Console()
    with show_progress(console, {scenario.name: scenario.expected_s}) as tellers:
        found = run_scenario(scenario, plan, results, tellers[scenario.name])
    print_found(console, found)
    console.print(judge_all([found], only_measured=True))
    console.print(f"written to {results / scenario.name}.json", soft_wrap=True)


def print_found(console: Console, found: Mapping[str, Any]) -> None:
    """Print the tables of a scenario, and what went wrong."""
    for title, rows in found["tables"].items():
        console.print(describe_row_table(f"{found['scenario']}: {title}", rows))
    for fault, count in found["faults"].items():
        console.print(f"[red]{count:,} times: {fault}[/red]")


@contextlib.contextmanager
def show_progress(
    console: Console, expected_s: Mapping[str, float]
) -> Iterator[dict[str, Callable[[str], None]]]:
    """A progress bar over scenarios; gives the way in which each tells what it does.

    Nothing refreshes it in between: that would take time from what is measured.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=sum(expected_s.values()))
        started_s: dict[str, float] = {}

        def make_teller(name: str, before_s: float) -> Callable[[str], None]:
            def tell(text: str) -> None:
                since_s = started_s.setdefault(name, time.monotonic())
                spent_s = min(time.monotonic() - since_s, expected_s[name])
                progress.update(task, completed=before_s + spent_s, description=f"{name}: {text}")
                progress.refresh()

            return tell

        tellers, before_s = {}, 0.0
        for name, seconds in expected_s.items():
            tellers[name] = make_teller(name, before_s)
            before_s += seconds
        yield tellers


def raise_descriptor_limit() -> None:
    """Allow this process and its children as many sockets as the system lets them have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def describe_machine() -> dict[str, str]:
    """The machine and the versions that a figure was measured with."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if "model name" in line),
        platform.processor() or platform.machine(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "processor": f"{os.cpu_count()} cores, {cpu}",
        "memory": f"{memory_gib:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        **versions,
        "SQLite": sqlite3.sqlite_version,
        "commit": _find_commit(),
    }


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _find_commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        told = subprocess.run(  # noqa: S603  # what is run is above
            command, cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()
