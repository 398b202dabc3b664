"""What a snapshot shows, and that several add up to one."""

from __future__ import annotations

import json

import pytest

from tests.status.snapshots import NOW_S, make_failure, make_sample, make_snapshot
from wsserver.status.snapshot import SAMPLES_MAX, add_up, describe, find_percentile


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.5),
        ([0, 10, 0], 0.5, 1.5),
        ([5, 5, 0], 0.5, 1.0),
        ([5, 5, 0], 1.0, 2.0),
        ([0, 0, 3], 0.5, 2.0),
    ],
)
def test_a_percentile_lies_where_the_counts_say(
    counts: list[int], share: float, expected: float | None
) -> None:
    assert find_percentile((1.0, 2.0), counts, share) == expected


def test_points_have_rates_and_the_percentiles_of_the_seconds_before() -> None:
    first, _, last = describe(make_snapshot())["points"]

    assert (first["pushes"], first["p50"], first["batch"]) == (0, None, None)
    assert (last["pushes"], last["calls"], last["notifications"]) == (20, 25, 20)
    assert (last["p50"], last["batch"], last["cpu"]) == (0.003, 2, 0.25)
    assert last["sessions"] == 10


def test_calls_that_fail_are_a_share_of_all() -> None:
    samples = [make_sample(NOW_S, 10, calls=40, failed_calls=10)]

    [point] = describe(make_snapshot(samples=samples))["points"]

    assert point["failed"] == 0.25


def test_only_later_points_are_given_to_who_has_the_others() -> None:
    shown = describe(make_snapshot(), since=NOW_S - 2)

    assert [point["at"] for point in shown["points"]] == [NOW_S]
    assert shown["points"] == describe(make_snapshot())["points"][-1:]


def test_one_process_adds_up_to_itself() -> None:
    assert add_up([make_snapshot()]) == make_snapshot()


def test_processes_add_up_second_by_second() -> None:
    # The second has just come: it has one sample.
    late = make_snapshot(
        started_at=NOW_S - 3.0,
        unready=["the store can't be written"],
        samples=[make_sample(NOW_S, 60)],
        disk_free_bytes=None,
        failures=[make_failure(1, "newer"), make_failure(9, "older")],
    )
    early = make_snapshot(failures=[make_failure(5, "between")])

    added = json.loads(json.dumps(add_up([early, late])))
    shown = describe(added)

    assert (shown["processes"], shown["uptimeSeconds"]) == (2, 3720)
    assert (shown["ready"], shown["reasons"]) == (False, ["the store can't be written"])
    assert [point["pushes"] for point in shown["points"]] == [0, 10, 50]
    assert [point["sessions"] for point in shown["points"]] == [10, 10, 20]
    assert shown["connections"]["authenticated"] == 20
    assert shown["connectionsMax"] == 2000
    assert shown["queues"][0] == {"name": "writing lane", "waiting": 2, "max": 100_000}
    assert shown["totals"]["pushes"] == 120
    assert shown["databaseBytes"] == {"database": 8192, "wal": 4096}
    assert shown["diskFreeBytes"] == 20 * 2**30
    assert [failure["text"] for failure in shown["failures"]] == ["newer", "between", "older"]


def test_a_sum_keeps_as_many_samples_as_one_does() -> None:
    samples = [make_sample(2 * number) for number in range(SAMPLES_MAX)]
    later = [make_sample(2 * number) for number in range(50, SAMPLES_MAX + 50)]

    added = add_up([make_snapshot(samples=samples), make_snapshot(samples=later)])

    assert len(added["samples"]) == SAMPLES_MAX
    assert added["samples"][-1]["at"] == 2 * (SAMPLES_MAX + 49)
