"""A snapshot of how a server is: plain JSON, that can be added up; and what is shown of it. Pure.

Where several processes serve as one, each answers ``/snapshot.json`` on its admin port with a
`Snapshot`. Whoever speaks for all of them reads these (`json.loads` is all it takes) and gives the
list to `add_up`. `AdminPages` with a ``snapshot`` that returns the sum then shows the whole server,
on its page and in ``wsserver status``. Samples are taken by the wall clock at the same seconds in
all processes, and hold what has happened since the sample before: those of one second are added,
and a process that has just come adds from its first sample on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypedDict

from wsserver.metrics import LAG_BUCKETS_S, PUSH_BUCKETS_S
from wsserver.recent import Record

SAMPLE_INTERVAL_S: Final = 2
SAMPLES_MAX: Final = 150
"""Samples that are kept: five minutes."""
WINDOW_SAMPLES: Final = 5
"""A percentile is that of the ten seconds before: of two alone it would jump about."""
FAILURES_MAX: Final = 50
"""Records of the log that are shown."""


class Sample(TypedDict):
    """How it stood at a second, and what has happened since the sample before."""

    at: int
    """Seconds since 1970, a multiple of the interval."""
    seconds: float
    """Since the sample before."""
    sessions: int
    connections: int
    waiting: int
    """Operations in all queues."""
    memory_bytes: int
    cpu_seconds: float
    calls: int
    failed_calls: int
    """Those that were answered with 503 or an internal error."""
    notifications: int
    batches: int
    """Transactions of the writing lane."""
    operations: int
    """What these did."""
    pushes: list[int]
    """By `PUSH_BUCKETS_S`."""
    lags: list[int]
    """By `LAG_BUCKETS_S`."""


class Failure(TypedDict):
    """A line of the log. ``at``: seconds since 1970."""

    at: float
    level: str
    text: str


class Snapshot(TypedDict):
    """One process, or several that were added up."""

    versions: dict[str, str]
    processes: int
    started_at: float
    """The oldest's, in seconds since 1970."""
    taken_at: float
    unready: list[str]
    """Why those are not ready that are not."""
    connections: dict[str, int]
    connections_max: int
    queues: dict[str, list[int]]
    """How many wait, and how many may."""
    totals: dict[str, int]
    """What was counted since the start."""
    database_bytes: dict[str, int]
    disk_free_bytes: int | None
    samples: list[Sample]
    """Oldest first."""
    failures: list[Failure]
    """Newest first."""


def add_up(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The processes of one server, as one; there must be one at least."""
    first = snapshots[0]
    by_second: dict[int, list[Sample]] = {}
    for snapshot in snapshots:
        for sample in snapshot["samples"]:
            by_second.setdefault(sample["at"], []).append(sample)
    free = [each["disk_free_bytes"] for each in snapshots if each["disk_free_bytes"] is not None]
    return Snapshot(
        versions=first["versions"],
        processes=sum(each["processes"] for each in snapshots),
        started_at=min(each["started_at"] for each in snapshots),
        taken_at=max(each["taken_at"] for each in snapshots),
        unready=[reason for each in snapshots for reason in each["unready"]],
        connections=_add_by_name(each["connections"] for each in snapshots),
        connections_max=sum(each["connections_max"] for each in snapshots),
        queues=_add_queues(each["queues"] for each in snapshots),
        totals=_add_by_name(each["totals"] for each in snapshots),
        # They share one database.
        database_bytes=max((each["database_bytes"] for each in snapshots), key=len),
        disk_free_bytes=min(free, default=None),
        samples=[_add_samples(by_second[at]) for at in sorted(by_second)][-SAMPLES_MAX:],
        failures=_newest(failure for each in snapshots for failure in each["failures"]),
    )


def tell_failures(records: Iterable[Record]) -> list[Failure]:
    """Records of the log as a snapshot has them."""
    return [Failure(at=each.at_s, level=each.level, text=each.text) for each in records]


def merge_failures(failures: Iterable[Failure], records: Iterable[Record]) -> list[Failure]:
    """Those of a sum, and those of who adds up."""
    return _newest((*failures, *tell_failures(records)))


def describe(snapshot: Snapshot, *, since: int = 0) -> dict[str, Any]:
    """What people and their programs are shown: ``points`` are those after ``since``."""
    samples = snapshot["samples"]
    return {
        "ready": not snapshot["unready"],
        "reasons": snapshot["unready"],
        "versions": snapshot["versions"],
        "processes": snapshot["processes"],
        "uptimeSeconds": round(snapshot["taken_at"] - snapshot["started_at"]),
        "connections": snapshot["connections"],
        "connectionsMax": snapshot["connections_max"],
        "queues": [
            {"name": name, "waiting": waiting, "max": waiting_max}
            for name, (waiting, waiting_max) in snapshot["queues"].items()
        ],
        "totals": snapshot["totals"],
        "databaseBytes": snapshot["database_bytes"],
        "diskFreeBytes": snapshot["disk_free_bytes"],
        "intervalSeconds": SAMPLE_INTERVAL_S,
        "points": [
            _describe_sample(samples[max(0, end - WINDOW_SAMPLES) : end])
            for end in range(1, len(samples) + 1)
            if samples[end - 1]["at"] > since
        ],
        "failures": snapshot["failures"],
    }


def find_percentile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value that this share of them does not exceed, as `counts` by `bounds` let it be known.

    None where there are no values; the last bound where it lies beyond.
    """
    left = share * sum(counts)
    if not left:
        return None
    lower = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and left <= count:
            return lower + (bound - lower) * left / count
        left -= count
        lower = bound
    return lower


def _describe_sample(window: Sequence[Sample]) -> dict[str, Any]:
    """The last of a window; its percentiles are the window's."""
    sample = window[-1]
    pushes = _add_counts(each["pushes"] for each in window)
    lags = _add_counts(each["lags"] for each in window)
    calls = sum(each["calls"] for each in window)
    operations = sum(each["operations"] for each in window)
    batches = sum(each["batches"] for each in window)
    return {
        "at": sample["at"],
        "sessions": sample["sessions"],
        "connections": sample["connections"],
        "pushes": _round(sum(sample["pushes"]) / sample["seconds"]),
        "p50": _round(find_percentile(PUSH_BUCKETS_S, pushes, 0.5)),
        "p95": _round(find_percentile(PUSH_BUCKETS_S, pushes, 0.95)),
        "p99": _round(find_percentile(PUSH_BUCKETS_S, pushes, 0.99)),
        "calls": _round(sample["calls"] / sample["seconds"]),
        "failed": _round(sum(each["failed_calls"] for each in window) / calls if calls else 0),
        "notifications": _round(sample["notifications"] / sample["seconds"]),
        "batch": _round(operations / batches if batches else None),
        "waiting": sample["waiting"],
        "memory": sample["memory_bytes"],
        "cpu": _round(sample["cpu_seconds"] / sample["seconds"]),
        "lag": _round(find_percentile(LAG_BUCKETS_S, lags, 0.99)),
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _add_samples(samples: Sequence[Sample]) -> Sample:
    """Those of one second."""

    def add(name: str) -> Any:
        return sum(each[name] for each in samples)  # type: ignore[literal-required]  # a member

    return Sample(
        at=samples[0]["at"],
        seconds=max(each["seconds"] for each in samples),
        sessions=add("sessions"),
        connections=add("connections"),
        waiting=add("waiting"),
        memory_bytes=add("memory_bytes"),
        cpu_seconds=add("cpu_seconds"),
        calls=add("calls"),
        failed_calls=add("failed_calls"),
        notifications=add("notifications"),
        batches=add("batches"),
        operations=add("operations"),
        pushes=_add_counts(each["pushes"] for each in samples),
        lags=_add_counts(each["lags"] for each in samples),
    )


def _add_counts(counts: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]


def _newest(failures: Iterable[Failure]) -> list[Failure]:
    return sorted(failures, key=lambda failure: -failure["at"])[:FAILURES_MAX]


def _add_by_name(figures: Iterable[dict[str, int]]) -> dict[str, int]:
    added: dict[str, int] = {}
    for each in figures:
        for name, value in each.items():
            added[name] = added.get(name, 0) + value
    return added


def _add_queues(queues: Iterable[dict[str, list[int]]]) -> dict[str, list[int]]:
    added: dict[str, list[int]] = {}
    for each in queues:
        for name, queue in each.items():
            added[name] = _add_counts((queue, added[name])) if name in added else queue
    return added
