"""The figures of a server as a terminal shows them, within 80 columns and 24 lines. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

BARS: Final = "▁▂▃▄▅▆▇█"
PLOT_COLUMNS: Final = 36
FAILURES_SHOWN: Final = 4


def draw_status(status: Mapping[str, Any]) -> RenderableType:
    """What ``/status.json`` says."""
    return Group(
        _draw_head(status),
        Text("─" * 78, style="bright_black"),
        _draw_plots(status["points"]),
        _draw_queues(status["queues"]),
        _draw_storage(status),
        _draw_failures(status["failures"]),
    )


def draw_plot(values: Sequence[float | None], columns: int = PLOT_COLUMNS) -> str:
    """Bars of the highest of each column's values, from 0 on; blank where there is none."""
    top = max((value for value in values if value is not None), default=0.0)
    drawn = []
    for column in range(columns):
        start = len(values) * column // columns
        part = values[start : max(start + 1, len(values) * (column + 1) // columns)]
        known = [value for value in part if value is not None]
        if not known:
            drawn.append(" ")
        else:
            share = max(known) / top if top else 0.0
            drawn.append(BARS[min(len(BARS) - 1, int(share * len(BARS)))])
    return "".join(drawn)


# How figures are written.


def write_number(value: float) -> str:
    """With three digits that count, and thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write_seconds(value: float) -> str:
    """In milliseconds below one second."""
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def write_share(value: float) -> str:
    """In per cent."""
    return f"{100 * value:.3g} %"


def write_bytes(value: float) -> str:
    """In the unit that fits."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{write_number(value)} {units[0]}"


def write_duration(seconds: int) -> str:
    """In its two largest units."""
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s"


@dataclass(frozen=True, slots=True)
class _Row:
    """A figure with its plot. ``warn_above`` and ``bad_above`` are where its colour changes."""

    title: str
    name: str
    write: Callable[[float], str]
    warn_above: float = float("inf")
    bad_above: float = float("inf")


_ROWS: Final = (
    _Row("Sessions", "sessions", write_number),
    _Row("Connections", "connections", write_number),
    _Row("Pushes a second", "pushes", write_number),
    _Row("Push latency, p50", "p50", write_seconds, 0.1, 0.5),
    _Row("Push latency, p95", "p95", write_seconds, 0.1, 0.5),
    _Row("Push latency, p99", "p99", write_seconds, 0.1, 0.5),
    _Row("Calls a second", "calls", write_number),
    _Row("Calls that fail", "failed", write_share, 0.001, 0.01),
    _Row("Writes per commit", "batch", write_number),
    _Row("Waiting in queues", "waiting", write_number, 5_000, 25_000),
    _Row("Memory", "memory", write_bytes),
    _Row("Processor, cores", "cpu", write_number),
    _Row("Event loop lag, p99", "lag", write_seconds, 0.05, 0.2),
)


def _draw_head(status: Mapping[str, Any]) -> Text:
    ready, versions = status["ready"], status["versions"]
    facts = [f"up {write_duration(status['uptimeSeconds'])}"]
    if status["processes"] > 1:
        facts.append(f"{status['processes']} processes")
    return Text.assemble(
        (f"wallet-sync {versions['server']}", "bold"),
        (f"  {' · '.join(facts)}  ", "bright_black"),
        ("● ready" if ready else f"● not ready: {'; '.join(status['reasons'])}", _tone(ready)),
    )


def _tone(good: bool) -> str:
    return "bold green" if good else "bold red"


def _draw_plots(points: Sequence[Mapping[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=19, no_wrap=True)
    table.add_column(width=9, justify="right", no_wrap=True)
    table.add_column(width=PLOT_COLUMNS, no_wrap=True)
    table.add_column(width=10, style="bright_black", no_wrap=True)
    for row in _ROWS:
        values = [point[row.name] for point in points]
        last = values[-1] if values else None
        known = [value for value in values if value is not None]
        style = _choose_style(row, last)
        table.add_row(
            row.title,
            Text("-" if last is None else row.write(last), style=style),
            Text(draw_plot(values), style="cyan" if style == "bold" else style),
            f"≤ {row.write(max(known))}" if known else "",
        )
    return table


def _choose_style(row: _Row, value: float | None) -> str:
    if value is None or value <= row.warn_above:
        return "bold"
    return "bold red" if value > row.bad_above else "bold yellow"


def _draw_queues(queues: Sequence[Mapping[str, Any]]) -> Text:
    text = Text("Queues  ", overflow="ellipsis", no_wrap=True)
    for queue in queues:
        fill = queue["waiting"] / queue["max"] if queue["max"] else 0
        style = "bold red" if fill > 0.5 else "bold yellow" if fill > 0.2 else "bold"
        text.append(f"{queue['waiting']:,}", style).append(f" {queue['name']}  ", "bright_black")
    return text


def _draw_storage(status: Mapping[str, Any]) -> Text:
    files, free = status["databaseBytes"], status["diskFreeBytes"]
    text = Text("On disk ", overflow="ellipsis", no_wrap=True)
    for name, size in files.items():
        text.append(write_bytes(size), "bold").append(f" {name}  ", "bright_black")
    if free is not None:
        text.append(write_bytes(free), "bold" if free > 2**30 else "bold red")
        text.append(" free", "bright_black")
    return text


def _draw_failures(failures: Sequence[Mapping[str, Any]]) -> Text:
    if not failures:
        return Text("No warnings or failures since the start.", style="bright_black")
    lines = []
    for failure in failures[:FAILURES_SHOWN]:
        at = datetime.fromtimestamp(failure["at"], UTC)
        style = "red" if failure["level"] == "error" else "yellow"
        lines.append(Text.assemble((f"{at:%H:%M:%SZ} ", "bright_black"), (failure["text"], style)))
    text = Text("\n", overflow="ellipsis", no_wrap=True).join(lines)
    text.overflow, text.no_wrap = "ellipsis", True
    return text
