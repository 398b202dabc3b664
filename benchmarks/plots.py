"""The plots of the page, as SVG: each drawn from what one scenario found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from benchmarks.idle import KINDS
from benchmarks.push import CLOSED, OPEN, QUANTILES
from benchmarks.table import TARGETS, Line, Target

# Told apart by those who see fewer colours too (Okabe and Ito, "Color Universal Design").
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#666666"
COLOURS = (BLUE, ORANGE, GREEN, RED)
# Any: the type of the keys is as long as the list of all of them.
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "font.size": 10,
    "grid.color": "#e5e5e5",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.markersize": 5,
    # Text stays text, and a figure drawn twice is the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "wallet-sync",
}
COUNT = StrMethodFormatter("{x:,.0f}")
HEIGHT_IN = 3.8
FACTOR_MAX = 4.0
"""Where the bar of a target ends that is exceeded by far."""

Found = Mapping[str, Any]


def draw_all(found: Mapping[str, Found], lines: Sequence[Line], folder: Path) -> None:
    """Draw what was measured into SVG files; what was not has no plot."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        _save(_draw_targets(lines), folder / "targets.svg")
        for name, draw in PLOTS.items():
            path = folder / f"{name}.svg"
            path.unlink(missing_ok=True)
            if name in found:
                _save(draw(found[name]), path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})


def _make_figure(panels: int = 1, height_in: float = HEIGHT_IN) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(8.4, height_in), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)
    return figure, [*axes[0]]


def _find_target(name: str) -> Target:
    return next(target for target in TARGETS if target.name == name)


def _draw_targets(lines: Sequence[Line]) -> Figure:
    """Each target's measure, as a factor of what it should at least be."""
    shown = [line for line in lines if line.values and line.target.at_least]
    figure, (axes,) = _make_figure(height_in=0.8 + 0.36 * len(shown))
    for place, line in enumerate(reversed(shown)):
        target, median = line.target, line.median or 0.0
        factor = _find_factor(target, median)
        colour = {"aim reached": GREEN, "met": BLUE}.get(line.verdict, RED)
        axes.barh(place, min(factor, FACTOR_MAX), color=colour, height=0.6)
        aim = _find_factor(target, target.aim)
        axes.plot([aim, aim], [place - 0.38, place + 0.38], color="black", linestyle=":")
        axes.text(FACTOR_MAX + 0.1, place, target.show(median), va="center")
    axes.axvline(1, color="black", linestyle="--")
    axes.set_yticks(range(len(shown)), [line.target.text for line in reversed(shown)], fontsize=9)
    axes.set_xlim(0, FACTOR_MAX + 1)
    axes.set_xticks(range(int(FACTOR_MAX) + 1))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(
        "times as good as the target (dashed); dotted: the aim\n"
        "green: aim reached, blue: target met, red: missed"
    )
    return figure


def _find_factor(target: Target, value: float) -> float:
    if target.more_is_better:
        return value / target.at_least
    return target.at_least / value if value > 0 else FACTOR_MAX


def _draw_push(found: Found) -> Figure:
    """What share of the echo's rate is left, and how long a push takes at a rate."""
    figure, (left, right) = _make_figure(2)
    rows = [row for row in found["tables"][CLOSED] if row["answer"] == "state"]
    counts = sorted({row["accounts"] for row in rows})
    for kib, colour in zip(sorted({row["KiB"] for row in rows}), COLOURS, strict=False):
        points = [row for row in rows if row["KiB"] == kib]
        left.plot(
            [row["accounts"] for row in points],
            [row["of the echo"] for row in points],
            color=colour,
            marker="o",
            label=f"{kib} KiB",
        )
        target = next((target for target in TARGETS if target.name == f"push {kib} KiB"), None)
        if target is not None:
            at = found["plan"]["target_accounts"]
            _mark_target(left, target, at, colour)
    _label_counts(left, counts)
    left.set(ylim=(0, None), xlabel="accounts, each with one push under way")
    left.set_title("durable pushes/s, of the echoes/s")
    _add_legend(left, with_target=True)
    for row, colour in zip(found["tables"][OPEN], COLOURS, strict=False):
        right.plot(
            range(len(QUANTILES)),
            [row[name] for name in QUANTILES],
            color=colour,
            marker="o",
            label=f"{row['due/s']:,} pushes/s",
        )
    _mark_target(right, _find_target("open loop"), list(QUANTILES).index("p99 ms"), GREY)
    right.set_xticks(range(len(QUANTILES)), [name.removesuffix(" ms") for name in QUANTILES])
    _scale_logarithmically(right)
    right.set_xlabel("quantiles of the pushes")
    right.set_title("ms from when a push was due to its answer")
    _add_legend(right, with_target=True)
    return figure


def _draw_notify(found: Found) -> Figure:
    """From a push to what its listeners hear."""
    figure, (axes,) = _make_figure()
    (rows,) = found["tables"].values()
    medians = {(row["deliver"], row["listeners"]): row for row in rows}
    counts = sorted({row["listeners"] for row in rows})
    for mode, colour in (("sequence", BLUE), ("state", ORANGE)):
        for name, style in (("p50 ms", "-"), ("p99 ms", "--")):
            axes.plot(
                counts,
                [medians[mode, count][name] for count in counts],
                color=colour,
                linestyle=style,
                marker="o",
                label=f"deliver: {mode}, {name.removesuffix(' ms')}",
            )
    _mark_target(axes, _find_target("notify 100"), 100, GREY)
    _label_counts(axes, counts)
    _scale_logarithmically(axes)
    axes.set_xlabel("listeners of one account")
    axes.set_title("ms from a push to its notifications")
    _add_legend(axes, with_target=True)
    return figure


def _draw_idle(found: Found) -> Figure:
    """Bytes of a session."""
    figure, (axes,) = _make_figure()
    (rows,) = found["tables"].values()
    rows = sorted(rows, key=lambda row: KINDS.index(row[""]))
    labels = [f"{row['sessions']:,}\n{row['']}, after {row['s after']} s" for row in rows]
    bars = axes.bar(
        range(len(rows)),
        [row["bytes each"] for row in rows],
        color=[BLUE if row[""] == KINDS[0] else ORANGE for row in rows],
        width=0.6,
    )
    axes.bar_label(bars, fmt="{:,.0f}", label_type="center", color="white")
    axes.set_xticks(range(len(rows)), labels, fontsize=9)
    target = _find_target("idle")
    axes.axhline(target.at_least, color="black", linestyle="--", label="target, at most")
    axes.axhline(target.aim, color="black", linestyle=":", label="aim, at most")
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(COUNT)
    axes.set_title("bytes of the server's memory, for each idle session")
    _add_legend(axes)
    return figure


def _draw_storm(found: Found) -> Figure:
    """Sessions back, and pushes meanwhile."""
    figure, (left, right) = _make_figure(2)
    points = found["series"]["course"]
    seconds = [0.0, *(point["s"] for point in points)]
    left.plot(seconds, [0, *(point["sessions back"] for point in points)], color=BLUE, label="back")
    sessions = found["plan"]["sessions"]
    for bound, style, name in (("at_least", "--", "target"), ("aim", ":", "aim")):
        per_s = getattr(_find_target("storm"), bound)
        left.plot([0, sessions / per_s], [0, sessions], color="black", linestyle=style, label=name)
    left.yaxis.set_major_formatter(COUNT)
    left.set_xlabel("s since all were lost")
    left.set_title("sessions that have come back")
    _add_legend(left)
    timed = [point for point in points if point["pushes"]]
    for name, colour in (("worst ms", ORANGE), ("p50 ms", BLUE)):
        right.plot(
            [point["s"] for point in timed],
            [point[name] for point in timed],
            color=colour,
            label=name.removesuffix(" ms"),
        )
    (rows,) = found["tables"].values()
    alone_ms = rows[-1]["p99 ms alone"]
    right.axhline(alone_ms, color=GREY, linestyle="--", label="p99 alone")
    _scale_logarithmically(right)
    right.set_xlabel("s since all were lost")
    right.set_title("ms of a push beside them")
    _add_legend(right)
    return figure


def _draw_login(found: Found) -> Figure:
    """Logins against scrypt, and pushes with and without them."""
    figure, (left, right) = _make_figure(2)
    (rows,) = found["tables"].values()
    rounds = range(len(rows))
    names = [f"round {row['round']}" for row in rows]
    for shift, heading, colour in ((-0.2, "scrypt/s", GREY), (0.2, "logins/s", BLUE)):
        places = [place + shift for place in rounds]
        left.bar(places, [row[heading] for row in rows], 0.36, color=colour, label=heading)
    target = _find_target("login")
    for share, style, name in ((target.at_least, "--", "target"), (target.aim, ":", "aim")):
        for place, row in enumerate(rows):
            left.plot(
                [place, place + 0.4],
                [share * row["scrypt/s"]] * 2,
                color="black",
                linestyle=style,
                label="" if place else name,
            )
    left.set_xticks(rounds, names)
    left.set_title("passwords checked a second")
    _add_legend(left)
    for place, (heading, colour) in enumerate(
        (
            ("p50 ms alone", GREY),
            ("p50 ms beside", BLUE),
            ("p99 ms alone", "#b0b0b0"),
            ("p99 ms beside", ORANGE),
        )
    ):
        places = [at - 0.3 + 0.2 * place for at in rounds]
        right.bar(places, [row[heading] for row in rows], 0.18, color=colour, label=heading)
    right.set_xticks(rounds, names)
    right.set_title("ms of a push, alone and beside the logins")
    _add_legend(right)
    return figure


def _draw_growth(found: Found) -> Figure:
    """Pushes a second with few and with many accounts."""
    figure, (axes,) = _make_figure()
    (rows,) = found["tables"].values()
    few, many = (heading for heading in rows[0] if heading.startswith("with"))
    for shift, heading, colour in ((-0.2, few, GREY), (0.2, many, BLUE)):
        places = [place + shift for place in range(len(rows))]
        bars = axes.bar(places, [row[heading] for row in rows], 0.36, color=colour, label=heading)
        axes.bar_label(bars, fmt="{:,.0f}", label_type="center", color="white")
    for place, row in enumerate(rows):
        axes.plot(
            [place, place + 0.4],
            [_find_target("growth").at_least * row[few]] * 2,
            color="black",
            linestyle="--",
            label="" if place else "target",
        )
    axes.set_xticks(range(len(rows)), [f"round {row['round']}" for row in rows])
    axes.yaxis.set_major_formatter(COUNT)
    axes.set_title("durable pushes a second, by the accounts that are stored")
    _add_legend(axes)
    return figure


def _draw_soak(found: Found) -> Figure:
    """The memory over time."""
    figure, (axes,) = _make_figure(height_in=2.6)
    points = found["series"]["memory"]
    axes.plot([point["minute"] for point in points], [point["MiB"] for point in points], color=BLUE)
    axes.set(ylim=(0, None), xlabel="minutes")
    axes.set_title("MiB of the server's memory under everything at once")
    return figure


PLOTS = {
    "push": _draw_push,
    "notify": _draw_notify,
    "idle": _draw_idle,
    "storm": _draw_storm,
    "login": _draw_login,
    "growth": _draw_growth,
    "soak": _draw_soak,
}


def _mark_target(axes: Axes, target: Target, at: float, colour: str) -> None:
    """The two bounds of a target, where they hold."""
    axes.plot([at], [target.at_least], color=colour, marker="_", markersize=16, markeredgewidth=2.5)
    axes.plot([at], [target.aim], color=colour, marker="*", markersize=8)


def _add_legend(axes: Axes, *, with_target: bool = False) -> None:
    """A legend below the plot, where it hides nothing."""
    if with_target:
        for marker, label in (("_", "target"), ("*", "aim")):
            axes.plot([], [], color=GREY, marker=marker, linestyle="", markersize=9, label=label)
    below = -0.2 if axes.get_xlabel() else -0.12
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncols=3)


def _label_counts(axes: Axes, counts: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(COUNT)


def _scale_logarithmically(axes: Axes) -> None:
    """With plain figures instead of powers of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
