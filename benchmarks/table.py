"""The targets, and the tables: what was measured, at least what it should be, and the verdict."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

Figure = str | int | float
Verdict = Literal["aim reached", "met", "MISSED", "not measured"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a measure should come to: at least ``at_least``, or at most where less is better."""

    name: str
    text: str
    unit: str
    at_least: float
    aim: float
    digits: int = 2

    @property
    def more_is_better(self) -> bool:
        return self.aim > self.at_least

    def judge(self, value: float | None) -> Verdict:
        """The verdict on a value, as it is shown: what rounds to the target has met it."""
        if value is None:
            return "not measured"
        shown = round(value, self.digits)
        sign = 1 if self.more_is_better else -1
        if sign * shown >= sign * self.aim:
            return "aim reached"
        return "met" if sign * shown >= sign * self.at_least else "MISSED"

    def show(self, value: float | None) -> str:
        """The value with its unit."""
        return "" if value is None else f"{value:,.{self.digits}f}{self.unit}"


TARGETS = (
    Target("push 2 KiB", "push, 2 KiB, 200 accounts, of the echo", "", 0.55, 0.75),
    Target("push 20 KiB", "push, 20 KiB, 200 accounts, of the echo", "", 0.40, 0.60),
    Target("fairness", "fewest pushes of an account, of the most", "", 0.8, 0.95),
    Target("fdatasyncs", "push, 1 account: p50, in fdatasyncs of this disk", "", 6, 4, 1),
    Target("open loop", "push, 2,000/s over 200 accounts: p99", " ms", 15, 6, 1),
    Target("notify 1", "notify, 1 listener: p50 above the push's own", " ms", 0.3, 0.1),
    Target("notify 100", "notify, 100 listeners: p50", " ms", 3, 2),
    Target("idle", "idle session, one of 10,000, 2 minutes in", " bytes", 7000, 5500, 0),
    Target("storm", "storm, 10,000 sessions: resumes", "/s", 3000, 4000, 0),
    Target("storm missed", "storm: updates missed", "", 0, 0, 0),
    Target("storm p99", "storm: p99 of the pushes beside it, of alone", " times", 4, 2, 1),
    Target("login", "logins beside 200 pushes/s, of raw scrypt on all cores", "", 0.9, 0.97),
    Target("login p99", "login: p99 of the pushes beside them, of alone", " times", 3, 2, 1),
    Target("growth", "pushes with 300,000 accounts, of those with 1,000", "", 0.9, 1.0),
    Target("faults", "errors, drops, notifications missed or out of order", "", 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A target, what was measured (once a round), and the verdict on the median."""

    target: Target
    values: Sequence[float]

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def verdict(self) -> Verdict:
        return self.target.judge(self.median)

    @property
    def figures(self) -> tuple[str, str, str, str, str]:
        """The cells: text, measured, target, aim, verdict."""
        target = self.target
        measured = target.show(self.median)
        if len(self.values) > 1 and min(self.values) < max(self.values):
            low, high = (
                f"{end:,.{target.digits}f}" for end in (min(self.values), max(self.values))
            )
            measured += f" ({low} to {high})"
        sign = (
            "\N{GREATER-THAN OR EQUAL TO} "
            if target.more_is_better
            else "\N{LESS-THAN OR EQUAL TO} "
        )
        at_least, aim = (sign + target.show(bound) for bound in (target.at_least, target.aim))
        return target.text, measured, at_least, aim, self.verdict


def list_lines(results: Iterable[Mapping[str, Any]]) -> list[Line]:
    """A line for each target, out of what the scenarios found."""
    measures: dict[str, list[float]] = {}
    for found in results:
        measures |= found["measures"]
        measures.setdefault("faults", [0])[0] += sum(found["faults"].values())
    return [Line(target, measures.get(target.name, [])) for target in TARGETS]


COLOURS = {"aim reached": "green", "met": "green", "MISSED": "bold red", "not measured": "yellow"}
HEADINGS = ("", "measured", "target", "aim", "verdict")


def judge_all(results: Iterable[Mapping[str, Any]], *, only_measured: bool = False) -> Table:
    """The table of the targets."""
    table = Table(title="Targets (median of the rounds, from the lowest to the highest)")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if 0 < number < 4 else "left")
    for line in list_lines(results):
        if line.values or not only_measured:
            *cells, verdict = line.figures
            table.add_row(*cells, f"[{COLOURS[verdict]}]{verdict}[/]")
    return table


def describe_row_table(title: str, rows: Sequence[Mapping[str, Figure]]) -> Table:
    """A table of rows, whose headings are those of the first."""
    table = Table(title=title)
    for heading in rows[0]:
        table.add_column(heading, justify="left" if isinstance(rows[0][heading], str) else "right")
    for row in rows:
        table.add_row(*map(show_figure, row.values()))
    return table


def show_figure(figure: Figure) -> str:
    """A figure with no more digits than it deserves."""
    if isinstance(figure, str):
        return figure
    if isinstance(figure, int):
        return f"{figure:,}"
    size = abs(figure)
    return f"{figure:,.{0 if size >= 100 else 1 if size >= 10 else 2}f}"
