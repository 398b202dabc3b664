"""The server's figures, for Prometheus; names and units follow its conventions.

They are plain numbers, put into Prometheus' form when it asks: its client's own counters take a
lock at each step, and a push counts four times. Each number has one thread that writes it: the
event loop, and for a lane's batches that lane.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

PUSH_BUCKETS_S = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1, 2, 5, 10)
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 512)


class Level:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """One more."""
        self.value += 1

    def dec(self) -> None:
        """One less."""
        self.value -= 1


class Distribution:
    """How many values lie where: at most the first of the bounds, the second, or beyond the last.

    Read on another thread than its writer's, the sum may be ahead of the counts.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count the value in."""
        self._sum += value
        self._counts[bisect_left(self._bounds, value)] += 1

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Put it into Prometheus' form, in which each bucket holds those below it too."""
        names = map(floatToGoString, (*self._bounds, math.inf))
        counts = accumulate(self._counts.copy())
        family.add_metric(labels, [*zip(names, counts, strict=True)], self._sum)


class BusFigures(Protocol):
    """What a node's bus tells of itself: see `wsserver.bus.node`."""

    messages: dict[str, int]
    gaps: int
    resyncs: int

    @property
    def connected(self) -> bool:
        """Whether it carries messages."""
        ...

    @property
    def nodes(self) -> int:
        """How many other nodes are heard."""
        ...


class Metrics(Collector):
    """All figures of one server, in a registry of their own."""

    def __init__(
        self, *, queues: Callable[[], Mapping[str, int]], connections: Callable[[], int]
    ) -> None:
        self._queues = queues
        self._connections = connections
        self.sessions = Level()
        self.bus: BusFigures | None = None
        """The bus, where there is one."""
        self.push_seconds = Distribution(PUSH_BUCKETS_S)
        self._calls: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._notifications: defaultdict[str, int] = defaultdict(int)
        self._letters: defaultdict[str, int] = defaultdict(int)
        self._batches: dict[str, Distribution] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(self)

    def count_call(self, method: str, outcome: str) -> None:
        """A call was answered; a method that there is not has no name."""
        self._calls[method or "unknown", outcome] += 1

    def count_notification(self, method: str) -> None:
        """A notification was sent."""
        self._notifications[method] += 1

    def count_letter(self, outcome: str) -> None:
        """A mail was delivered, or not."""
        self._letters[outcome] += 1

    def observe_batch(self, lane: str, operations: int) -> None:
        """A lane takes that many operations into one transaction. Called on the lane's thread."""
        batches = self._batches.get(lane)
        if batches is None:
            batches = self._batches[lane] = Distribution(BATCH_BUCKETS)
        batches.observe(operations)

    def expose(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The figures as Prometheus' client has them; called on the event loop, by `expose`."""
        yield GaugeMetricFamily(
            "wsserver_connections",
            "Open connections: WebSockets, and all of the gateway.",
            self._connections(),
        )
        yield GaugeMetricFamily("wsserver_sessions", "Authenticated sessions.", self.sessions.value)
        calls = CounterMetricFamily(
            "wsserver_calls",
            "Calls answered, by method and by outcome: ok, or the reason or code of the error.",
            labels=["method", "outcome"],
        )
        for (method, outcome), count in self._calls.items():
            calls.add_metric([method, outcome], count)
        yield calls
        notifications = CounterMetricFamily(
            "wsserver_notifications", "Notifications sent, by method.", labels=["method"]
        )
        for method, count in self._notifications.items():
            notifications.add_metric([method], count)
        yield notifications
        push_seconds = HistogramMetricFamily(
            "wsserver_push_seconds", "From a push's arrival to the durable commit that answers it."
        )
        self.push_seconds.add_to(push_seconds)
        yield push_seconds
        batches = HistogramMetricFamily(
            "wsserver_batch_operations", "Operations in one transaction, by lane.", labels=["lane"]
        )
        # A copy: a lane's first batch adds it while this runs.
        for lane, distribution in self._batches.copy().items():
            distribution.add_to(batches, [lane])
        yield batches
        letters = CounterMetricFamily(
            "wsserver_letters",
            "Mails, by what became of them: delivered, deferred, refused, expired, overflowed, "
            "unsent.",
            labels=["outcome"],
        )
        for outcome, count in self._letters.items():
            letters.add_metric([outcome], count)
        yield letters
        if self.bus is not None:
            yield from _collect_bus(self.bus)
        waiting = GaugeMetricFamily(
            "wsserver_queue_operations", "Operations that wait, by queue.", labels=["queue"]
        )
        for queue, operations in self._queues().items():
            waiting.add_metric([queue], operations)
        yield waiting


def _collect_bus(bus: BusFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "wsserver_bus_connected", "Whether the bus between nodes carries messages.", bus.connected
    )
    yield GaugeMetricFamily("wsserver_bus_nodes", "Other nodes that are heard.", bus.nodes)
    messages = CounterMetricFamily(
        "wsserver_bus_messages",
        "Messages between nodes, by what became of them: sent, received, dropped.",
        labels=["outcome"],
    )
    for outcome, count in bus.messages.items():
        messages.add_metric([outcome], count)
    yield messages
    yield CounterMetricFamily(
        "wsserver_bus_gaps", "Times that something may have been missed.", bus.gaps
    )
    yield CounterMetricFamily(
        "wsserver_bus_resyncs",
        "Times that the database was asked what moved of all accounts here.",
        bus.resyncs,
    )
