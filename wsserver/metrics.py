"""The server's figures, for Prometheus; names and units follow its conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PUSH_BUCKETS_S = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1, 2, 5, 10)
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 512)


class Metrics:
    """All figures of one server, in a registry of their own."""

    def __init__(
        self, *, queues: Callable[[], Mapping[str, int]], connections: Callable[[], int]
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        Gauge(
            "wsserver_connections", "Open WebSocket connections.", registry=self.registry
        ).set_function(connections)
        self.sessions = Gauge(
            "wsserver_sessions", "Authenticated sessions.", registry=self.registry
        )
        self._calls = Counter(
            "wsserver_calls",
            "Calls answered, by method and by outcome: ok, or the reason or code of the error.",
            ["method", "outcome"],
            registry=self.registry,
        )
        self._notifications = Counter(
            "wsserver_notifications",
            "Notifications sent, by method.",
            ["method"],
            registry=self.registry,
        )
        self.push_seconds = Histogram(
            "wsserver_push_seconds",
            "From a push's arrival to the durable commit that answers it.",
            buckets=PUSH_BUCKETS_S,
            registry=self.registry,
        )
        self._batches = Histogram(
            "wsserver_batch_operations",
            "Operations in one transaction, by lane.",
            ["lane"],
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self._letters = Counter(
            "wsserver_letters",
            "Mails, by what became of them: delivered, deferred, refused, expired, overflowed, "
            "unsent.",
            ["outcome"],
            registry=self.registry,
        )
        self.registry.register(_Queues(queues))
        self._call_counters: dict[tuple[str, str], Counter] = {}
        self._notification_counters: dict[str, Counter] = {}

    def count_call(self, method: str, outcome: str) -> None:
        """A call was answered; a method that there is not has no name."""
        counter = self._call_counters.get((method, outcome))
        if counter is None:
            counter = self._calls.labels(method or "unknown", outcome)
            self._call_counters[method, outcome] = counter
        counter.inc()

    def count_notification(self, method: str) -> None:
        """A notification was sent."""
        counter = self._notification_counters.get(method)
        if counter is None:
            counter = self._notification_counters[method] = self._notifications.labels(method)
        counter.inc()

    def count_letter(self, outcome: str) -> None:
        """A mail was delivered, or not."""
        self._letters.labels(outcome).inc()

    def observe_batch(self, lane: str, operations: int) -> None:
        """A lane takes that many operations into one transaction. Called on the lane's thread."""
        self._batches.labels(lane).observe(operations)

    def expose(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _Queues(Collector):
    def __init__(self, queues: Callable[[], Mapping[str, int]]) -> None:
        self._queues = queues

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily(
            "wsserver_queue_operations", "Operations that wait, by queue.", labels=["queue"]
        )
        for queue, waiting in self._queues().items():
            family.add_metric([queue], waiting)
        return [family]
