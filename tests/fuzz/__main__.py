"""Fuzzing on all cores: `python -m tests.fuzz --minutes 10`; `make fuzz`.

What is found is kept, made small, in `build/fuzz/findings`; `--run FILE` shows it again. The next
run goes on from the inputs of the last (`build/fuzz/inputs`). With `--keep` some of those that
reached something new join the corpus, which every `make test` runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tests.fuzz.findings import FOLDER, run_and_tell
from tests.fuzz.targets import TARGETS, Target

BUILD: Final = Path("build/fuzz")
NICENESS: Final = 19
KEPT_MAX: Final = 60
"""Inputs of one target that are kept."""
KEPT_BYTES_MAX: Final = 400
OVERTIME_S: Final = 120
"""How much longer than it was told a process may take: loading, shrinking, a slow last input."""


@dataclass
class Job:
    """One process for one target."""

    target: Target
    seconds: float
    seed: int
    executions: int = 0
    processor_s: float = 0.0
    coverage: int = 0
    findings: list[str] = field(default_factory=list)
    failed: bool = False

    @property
    def inputs(self) -> Path:
        return BUILD / "inputs" / f"{self.target.name}-{self.seed}"

    @property
    def command(self) -> list[str]:
        own = ["-m", "tests.fuzz.engine", self.target.name, "--seconds", str(self.seconds)]
        return [sys.executable, *own, "--seed", str(self.seed), "--inputs", str(self.inputs)]

    async def run(self, slots: asyncio.Semaphore, progress: Progress, task: TaskID) -> None:
        """Waits for a core, and reads what the process tells into a log and the progress."""
        async with slots:
            started_s = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
            assert process.stdout is not None
            try:
                async with asyncio.timeout(self.seconds + OVERTIME_S):
                    with (BUILD / f"{self.target.name}-{self.seed}.log").open("wb") as log:
                        async for line in process.stdout:
                            log.write(line)
                            self._take_line(line.decode(errors="replace"))
                            self._show(progress, task, time.monotonic() - started_s)
                    self.failed = await process.wait() != 0
            except TimeoutError:
                process.kill()
                self.failed = True
            self._show(progress, task, self.seconds)

    def _take_line(self, line: str) -> None:
        if told := re.match(r"fuzz: (\d+) ([\d.]+)", line):
            self.executions, self.processor_s = int(told[1]), float(told[2])
        elif told := re.search(r"^#(\d+)\s.* cov: (\d+) ", line):
            self.executions = max(self.executions, int(told[1]))
            self.coverage = int(told[2])
        elif line.startswith("finding: "):
            self.findings.append(line.removeprefix("finding: ").strip())

    def _show(self, progress: Progress, task: TaskID, passed_s: float) -> None:
        progress.update(
            task,
            completed=min(passed_s, self.seconds),
            per_s=f"{self.executions / max(passed_s, 1):,.0f}",
            executions=f"{self.executions:,}",
            coverage=str(self.coverage or "-"),
            findings=str(len(self.findings)),
        )


async def fuzz(targets: list[Target], minutes: float, cores: int, seed: int) -> list[Job]:
    """Runs each target for its share of all cores' time."""
    processes_each = max(1, -(-cores // len(targets)))
    seconds = minutes * 60 * cores / (len(targets) * processes_each)
    jobs = [
        Job(target, seconds, seed + number)
        for number in range(processes_each)
        for target in targets
    ]
    slots = asyncio.Semaphore(cores)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        TextColumn("{task.fields[executions]} runs, {task.fields[per_s]}/s"),
        TextColumn("coverage {task.fields[coverage]}, findings {task.fields[findings]}"),
        TimeRemainingColumn(),
    )
    told = {"executions": "0", "per_s": "0", "coverage": "-", "findings": "0"}
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                task = progress.add_task(job.target.name, total=seconds, **told)  # type: ignore[arg-type] # fields of ours
                group.create_task(job.run(slots, progress, task))
    return jobs


def report(jobs: list[Job]) -> bool:
    """Prints what came of it; whether all is well."""
    for name in dict.fromkeys(job.target.name for job in jobs):
        of_it = [job for job in jobs if job.target.name == name]
        executions = sum(job.executions for job in of_it)
        coverage = max(job.coverage for job in of_it)
        seconds = sum(job.processor_s for job in of_it)
        reached = f", coverage {coverage}" if coverage else ""
        print(f"{name:8} {executions:>12,} runs in {seconds:.0f} s of the processor{reached}")
        for job in of_it:
            for finding in job.findings:
                print(f"         found: {finding}")
            if job.failed:
                print(f"         ended early: {BUILD / f'{name}-{job.seed}.log'}")
    return not any(job.findings or job.failed for job in jobs)


def keep(jobs: list[Job]) -> None:
    """Has some of the inputs that reached something new join the corpus, short and long ones."""
    for name in dict.fromkeys(job.target.name for job in jobs):
        target = TARGETS[name]
        folders = [job.inputs for job in jobs if job.target is target]
        inputs = sorted(
            {path.read_bytes() for folder in folders for path in folder.iterdir()}, key=len
        )
        short = [data for data in inputs if 0 < len(data) <= KEPT_BYTES_MAX]
        clean = [data for data in _spread(short) if run_and_tell(target, data) is None]
        target.save_corpus([*target.load_corpus(), *clean][:KEPT_MAX])


def _spread(inputs: list[bytes]) -> list[bytes]:
    """As many as may be kept, evenly over short and long."""
    step = max(1, -(-len(inputs) // KEPT_MAX))
    return inputs[::step]


def show(path: Path) -> bool:
    """Runs a reproducer again; whether all is well by now."""
    target = TARGETS[path.name.partition("-")[0]]
    told = run_and_tell(target, bytes.fromhex(path.read_text().partition("\n")[0]))
    print("all is well" if told is None else told[1])
    return told is None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of this machine's time")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="add what reaches more to the corpus")
    parser.add_argument("--run", type=Path, metavar="FILE", help="a finding, to be seen again")
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    if arguments.run is not None:
        sys.exit(0 if show(arguments.run) else 1)
    unknown = [name for name in arguments.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        print("atheris is not installed: inputs are mutated blindly", file=sys.stderr)
    shutil.rmtree(FOLDER, ignore_errors=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    targets = [TARGETS[name] for name in arguments.targets or TARGETS]
    jobs = asyncio.run(fuzz(targets, arguments.minutes, arguments.cores, arguments.seed))
    is_well = report(jobs)
    if arguments.keep:
        keep(jobs)
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
