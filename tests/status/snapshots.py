"""Snapshots as a server gives them."""

from __future__ import annotations

from typing import Any

from wsserver.metrics import LAG_BUCKETS_S, PUSH_BUCKETS_S
from wsserver.status.snapshot import Failure, Sample, Snapshot

NOW_S = 1_800_000_000


def make_sample(at: int, pushes: int = 0, **changes: Any) -> Sample:
    """A sample with so many pushes of 2 to 4 ms."""
    counts = [0] * (len(PUSH_BUCKETS_S) + 1)
    counts[2] = pushes
    lags = [4, *[0] * len(LAG_BUCKETS_S)]
    sample: Any = {
        "at": at,
        "seconds": 2.0,
        "sessions": 10,
        "connections": 12,
        "waiting": 1,
        "memory_bytes": 64 * 2**20,
        "cpu_seconds": 0.5,
        "calls": pushes + 10,
        "failed_calls": 0,
        "notifications": pushes,
        "batches": pushes,
        "operations": 2 * pushes,
        "pushes": counts,
        "lags": lags,
        **changes,
    }
    made: Sample = sample
    return made


def make_snapshot(**changes: Any) -> Snapshot:
    """One process, with three samples."""
    snapshot: Any = {
        "versions": {"server": "0.1.0", "python": "3.11", "sqlite": "3.50", "websockets": "17"},
        "processes": 1,
        "started_at": NOW_S - 3720.0,
        "taken_at": float(NOW_S),
        "unready": [],
        "connections": {"opening": 0, "anonymous": 2, "authenticated": 10, "gateway": 0},
        "connections_max": 1000,
        "queues": {"writing lane": [1, 50_000], "passwords": [0, 128]},
        "totals": {
            "pushes": 60,
            "calls": 90,
            "failedCalls": 0,
            "notifications": 60,
            "superseded": 0,
            "refusals": 0,
            "slowReadersDropped": 0,
            "databaseErrors": 0,
            "letters": 0,
        },
        "database_bytes": {"database": 8192, "wal": 4096},
        "disk_free_bytes": 20 * 2**30,
        "samples": [make_sample(NOW_S - 4 + 2 * number, 20 * number) for number in range(3)],
        "failures": [],
        **changes,
    }
    made: Snapshot = snapshot
    return made


def make_failure(seconds_ago: float, text: str, level: str = "error") -> Failure:
    """A line of the log."""
    return Failure(at=NOW_S - seconds_ago, level=level, text=text)
