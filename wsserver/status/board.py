"""The board: takes a sample of the figures every other second, and gives a snapshot when asked.

State: the samples of five minutes, and whether the server was ready a moment ago. All of it belongs
to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from wsserver.metrics import Distribution, Metrics
from wsserver.readings import Instruments, Reading
from wsserver.status.snapshot import (
    SAMPLE_INTERVAL_S,
    SAMPLES_MAX,
    Sample,
    Snapshot,
    tell_failures,
)

LAG_INTERVAL_S: Final = 0.5
"""How often it is measured how late the event loop is."""
READY_KEPT_S: Final = 5.0
"""How long it is remembered that the server was ready: to find out costs a commit."""
FAILED: Final = frozenset({"unavailable", "-32603"})
"""Outcomes of calls that are the server's failure."""
WRITING_LANE: Final = "writing lane"
"""How the names of lanes begin that write."""


class Counted(NamedTuple):
    """What only rises, at one moment."""

    at_s: float
    cpu_seconds: float
    calls: int
    failed_calls: int
    notifications: int
    batches: int
    operations: int
    pushes: list[int]
    lags: list[int]


class Board:
    """``probe`` gives why the server is not ready, None when it is."""

    def __init__(
        self,
        metrics: Metrics,
        instruments: Instruments,
        probe: Callable[[], Awaitable[str | None]],
    ) -> None:
        self._metrics = metrics
        self._instruments = instruments
        self._probe = probe
        self._started_at_s = time.time()
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._last = self._count()
        self._ready_until_s = 0.0

    async def keep(self) -> None:
        """Take samples until it is cancelled, at the same seconds in every process."""
        while True:
            now_s = time.time()
            # From the nearest on: a timer may come a moment early.
            await asyncio.sleep(_find_second(now_s) + SAMPLE_INTERVAL_S - now_s)
            self.take_sample()

    def take_sample(self) -> None:
        """Add how it stands now, and what has happened since the last."""
        before, now = self._last, self._count()
        self._last = now
        reading = self._instruments.read()
        self._samples.append(
            Sample(
                at=_find_second(time.time()),
                seconds=max(0.001, now.at_s - before.at_s),
                sessions=self._metrics.sessions.value,
                connections=sum(reading.connections.values()),
                waiting=sum(queue.waiting for queue in reading.queues.values()),
                memory_bytes=measure_memory(),
                cpu_seconds=now.cpu_seconds - before.cpu_seconds,
                calls=now.calls - before.calls,
                failed_calls=now.failed_calls - before.failed_calls,
                notifications=now.notifications - before.notifications,
                batches=now.batches - before.batches,
                operations=now.operations - before.operations,
                pushes=_subtract(now.pushes, before.pushes),
                lags=_subtract(now.lags, before.lags),
            )
        )

    async def snapshot(self) -> Snapshot:
        """How it is now."""
        reason = None if time.monotonic() < self._ready_until_s else await self._probe()
        if reason is None and time.monotonic() >= self._ready_until_s:
            self._ready_until_s = time.monotonic() + READY_KEPT_S
        reading = self._instruments.read()
        return Snapshot(
            versions=dict(
                zip(("server", "python", "sqlite", "websockets"), reading.versions, strict=True)
            ),
            processes=1,
            started_at=self._started_at_s,
            taken_at=time.time(),
            unready=[] if reason is None else [reason],
            connections=dict(reading.connections),
            connections_max=reading.connections_max,
            queues={
                name: [queue.waiting, queue.waiting_max] for name, queue in reading.queues.items()
            },
            totals=self._total(reading),
            database_bytes=dict(reading.database_bytes),
            disk_free_bytes=reading.disk_free_bytes,
            samples=list(self._samples),
            failures=tell_failures(self._instruments.records.newest),
        )

    def _count(self) -> Counted:
        metrics = self._metrics
        written = [
            batches
            for lane, batches in metrics.batch_operations.copy().items()
            if lane.startswith(WRITING_LANE)
        ]
        return Counted(
            at_s=time.monotonic(),
            cpu_seconds=time.process_time(),
            calls=sum(metrics.calls.values()),
            failed_calls=self._count_failed_calls(),
            notifications=sum(metrics.notifications.values()),
            batches=sum(sum(batches.counts) for batches in written),
            operations=sum(int(batches.total) for batches in written),
            pushes=metrics.push_seconds.counts,
            lags=metrics.loop_lag_seconds.counts,
        )

    def _count_failed_calls(self) -> int:
        calls = self._metrics.calls.items()
        return sum(count for (_, outcome), count in calls if outcome in FAILED)

    def _total(self, reading: Reading) -> dict[str, int]:
        metrics = self._metrics
        return {
            "pushes": sum(metrics.push_seconds.counts),
            "calls": sum(metrics.calls.values()),
            "failedCalls": self._count_failed_calls(),
            "notifications": sum(metrics.notifications.values()),
            "superseded": sum(metrics.superseded.values()),
            "refusals": sum(reading.refusals.values()),
            "slowReadersDropped": reading.stalled,
            "databaseErrors": sum(metrics.database_errors.values()),
            "letters": sum(metrics.letters.values()),
        }


async def measure_lag(lag_seconds: Distribution) -> None:
    """Observe how late the event loop comes to a timer, until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        lag_seconds.observe(max(0.0, loop.time() - due_s))


def measure_memory() -> int:
    """What the process holds of the memory, in bytes; its peak where that alone is told."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:  # Windows tells neither.
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _find_second(now_s: float) -> int:
    """The nearest of the seconds at which samples are taken."""
    return round(now_s / SAMPLE_INTERVAL_S) * SAMPLE_INTERVAL_S


def _subtract(later: list[int], earlier: list[int]) -> list[int]:
    return [after - before for after, before in zip(later, earlier, strict=True)]
