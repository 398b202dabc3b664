"""What a terminal shows of a server."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.status.snapshots import NOW_S, make_failure, make_sample, make_snapshot
from wsserver.status.drawing import (
    draw_plot,
    draw_status,
    write_bytes,
    write_duration,
    write_number,
    write_seconds,
)
from wsserver.status.snapshot import Snapshot, describe


def draw(snapshot: Snapshot, *, colours: bool = False) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=colours, highlight=False)
    console.print(draw_status(describe(snapshot)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_figures_fit_a_small_terminal_whatever_they_are() -> None:
    failures = [make_failure(number, "x" * 300) for number in range(50)]
    huge = make_sample(NOW_S, 10**9, sessions=10**9, memory_bytes=10**14, cpu_seconds=10**3)
    queues = {f"lane number {number}": [50_000, 50_000] for number in range(9)}

    drawn = draw(make_snapshot(failures=failures, samples=[huge], queues=queues))

    lines = drawn.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


def test_it_says_that_the_server_is_ready_and_how_it_is() -> None:
    drawn = draw(make_snapshot())

    assert "● ready" in drawn
    assert "up 1 h 2 min" in drawn
    assert "No warnings or failures since the start." in drawn
    [latency] = [line for line in drawn.splitlines() if line.startswith("Push latency, p50")]
    assert "3 ms" in latency
    assert "█" in latency


def test_it_says_why_the_server_is_not_ready_and_what_has_failed() -> None:
    drawn = draw(
        make_snapshot(
            unready=["the server is stopping"],
            failures=[make_failure(0, "writing lane: 3 operations failed")],
            processes=4,
        )
    )

    assert "not ready: the server is stopping" in " ".join(drawn.split())
    assert "08:00:00Z writing lane: 3 operations failed" in drawn
    assert "4 processes" in drawn


@pytest.mark.parametrize(("waiting", "codes"), [(10, "1"), (9_000, "1;33"), (40_000, "1;31")])
def test_what_is_too_much_is_coloured(waiting: int, codes: str) -> None:
    snapshot = make_snapshot(samples=[make_sample(NOW_S, waiting=waiting)])

    [line] = [line for line in draw(snapshot, colours=True).splitlines() if "Waiting in" in line]

    assert f"\x1b[{codes}m{waiting:>9,}\x1b[0m" in line


def test_a_server_without_samples_is_drawn() -> None:
    assert "Sessions" in draw(make_snapshot(samples=[], disk_free_bytes=None, database_bytes={}))


def test_a_plot_has_a_bar_a_column_and_a_gap_where_nothing_is_known() -> None:
    assert draw_plot([0, 4, 8], 3) == "▁▅█"
    assert draw_plot([1, None, 2, 2], 4) == "▅ ██"
    assert draw_plot([], 3) == "   "
    assert draw_plot([0, 0], 2) == "▁▁"
    assert draw_plot([0, 9, 0, 0], 2) == "█▁"


def test_figures_are_written_in_the_unit_that_fits() -> None:
    assert [write_number(value) for value in (0.1234, 12.34, 12345)] == ["0.123", "12.3", "12,345"]
    assert [write_seconds(value) for value in (0.0123, 2.5)] == ["12.3 ms", "2.5 s"]
    assert [write_bytes(value) for value in (512, 2**21)] == ["512 B", "2 MiB"]
    assert [write_duration(value) for value in (61, 3720, 90_000)] == [
        "1 min 1 s",
        "1 h 2 min",
        "1 d 1 h",
    ]
