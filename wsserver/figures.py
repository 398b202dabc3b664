"""The server's figures as Prometheus has them: name, kind, labels, meaning, and where each is read.

`FIGURES` is the one list of them: what ``/metrics`` shows and ``docs/reference/metrics.md`` says.
Names and units follow https://prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, Literal

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

from wsserver.metrics import Distribution, Metrics
from wsserver.readings import Reading

AUTHENTICATION_FAILURES: Final = frozenset(
    {"bad_credentials", "bad_token", "not_verified", "account_disabled"}
)
"""Outcomes of a call that mean: this one could not prove who it is, or is kept out."""

Values = Mapping[Any, Any] | float | Distribution
"""A value, or values by their label; by a tuple of labels where there are several."""

Read = Callable[[Reading, Metrics], Values]


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric. ``read`` gives its values: for a histogram each is a `Distribution`."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    """As Prometheus stores it: a counter ends in ``_total``."""
    labels: tuple[str, ...]
    meaning: str
    read: Read


FIGURES: Final = (
    Figure(
        "gauge",
        "wsserver_build_info",
        ("version", "python", "sqlite", "websockets"),
        "Always 1; the versions are in the labels.",
        lambda now, counted: {now.versions: 1},
    ),
    Figure(
        "gauge",
        "wsserver_schema_info",
        ("revision",),
        "Always 1; the label is the revision of the database's schema.",
        lambda now, counted: {now.schema_revision: 1},
    ),
    Figure(
        "gauge",
        "wsserver_draining",
        (),
        "1 while the server stops, 0 otherwise.",
        lambda now, counted: int(now.draining),
    ),
    Figure(
        "gauge",
        "wsserver_connections",
        ("state",),
        "Open connections: `opening` (no whole request yet), `anonymous`, `authenticated`, and "
        "`gateway` (all of the gateway's).",
        lambda now, counted: now.connections,
    ),
    Figure(
        "gauge",
        "wsserver_connections_max",
        (),
        "WebSockets that there is room for; one more is answered 503.",
        lambda now, counted: now.connections_max,
    ),
    Figure(
        "gauge",
        "wsserver_sessions",
        (),
        "Authenticated sessions, those of the gateway's WebSockets included.",
        lambda now, counted: counted.sessions.value,
    ),
    Figure(
        "counter",
        "wsserver_calls_total",
        ("method", "outcome"),
        "Calls answered, by method and by outcome: `ok`, or the reason or code of the error.",
        lambda now, counted: counted.calls,
    ),
    Figure(
        "counter",
        "wsserver_authentication_failures_total",
        ("reason",),
        "Calls that failed to prove who called, or whose account is kept out, by reason.",
        lambda now, counted: count_authentication_failures(counted.calls),
    ),
    Figure(
        "counter",
        "wsserver_refusals_total",
        ("limit",),
        "Newcomers, calls and mails refused, by the limit that they met: each is a "
        "setting of that name, but for `openings_max`.",
        lambda now, counted: now.refusals,
    ),
    Figure(
        "histogram",
        "wsserver_push_seconds",
        (),
        "From a push's arrival to the durable commit that answers it.",
        lambda now, counted: counted.push_seconds,
    ),
    Figure(
        "counter",
        "wsserver_notifications_total",
        ("method",),
        "Notifications sent, by method.",
        lambda now, counted: counted.notifications,
    ),
    Figure(
        "counter",
        "wsserver_notifications_superseded_total",
        ("method",),
        "Notifications that waited for a slow reader and gave way to a newer one, by method.",
        lambda now, counted: counted.superseded,
    ),
    Figure(
        "counter",
        "wsserver_slow_readers_dropped_total",
        (),
        "Connections cut off because their peer took nothing of what it was sent.",
        lambda now, counted: now.stalled,
    ),
    Figure(
        "counter",
        "wsserver_closes_total",
        ("code", "by"),
        "WebSockets that are over, by the code of the first close frame and by whose it was: "
        "`server`, `client`, or `none` with 1006. Codes that are not the protocol's are `other`.",
        lambda now, counted: now.closes,
    ),
    Figure(
        "histogram",
        "wsserver_batch_operations",
        ("lane",),
        "Operations in one transaction, by lane.",
        # A copy: a lane's first batch adds it while this runs.
        lambda now, counted: counted.batch_operations.copy(),
    ),
    Figure(
        "histogram",
        "wsserver_batch_seconds",
        ("lane",),
        "One transaction from its begin to the end of its commit, by lane.",
        lambda now, counted: counted.batch_seconds.copy(),
    ),
    Figure(
        "counter",
        "wsserver_database_errors_total",
        ("lane",),
        "Batches that the database failed (locked, full, read-only, damaged, gone), by lane.",
        lambda now, counted: counted.database_errors.copy(),
    ),
    Figure(
        "gauge",
        "wsserver_queue_operations",
        ("queue",),
        "Operations that wait, by queue: a lane's, `passwords` to be hashed, `letters`.",
        lambda now, counted: {name: queue.waiting for name, queue in now.queues.items()},
    ),
    Figure(
        "gauge",
        "wsserver_queue_operations_max",
        ("queue",),
        "Operations that may wait, by queue; one more is refused.",
        lambda now, counted: {name: queue.waiting_max for name, queue in now.queues.items()},
    ),
    Figure(
        "gauge",
        "wsserver_database_bytes",
        ("file",),
        "Size of the database's files: `database`, and `wal`, SQLite's write-ahead log.",
        lambda now, counted: now.database_bytes,
    ),
    Figure(
        "gauge",
        "wsserver_disk_free_bytes",
        (),
        "Room left on the disk of the database's file.",
        lambda now, counted: {} if now.disk_free_bytes is None else now.disk_free_bytes,
    ),
    Figure(
        "histogram",
        "wsserver_checkpoint_seconds",
        (),
        "How long it took to copy the write-ahead log back into the database's file.",
        lambda now, counted: counted.checkpoint_seconds,
    ),
    Figure(
        "histogram",
        "wsserver_loop_lag_seconds",
        (),
        "How late the event loop came to a timer, measured twice a second.",
        lambda now, counted: counted.loop_lag_seconds,
    ),
    Figure(
        "gauge",
        "wsserver_bus_connected",
        (),
        "1 while the bus carries messages between nodes, 0 while it is cut off and the database is "
        "asked instead; absent without a bus.",
        lambda now, counted: {} if counted.bus is None else int(counted.bus.connected),
    ),
    Figure(
        "gauge",
        "wsserver_bus_nodes",
        (),
        "Other nodes that this one hears; absent without a bus.",
        lambda now, counted: {} if counted.bus is None else counted.bus.nodes,
    ),
    Figure(
        "counter",
        "wsserver_bus_messages_total",
        ("outcome",),
        "Messages between nodes: `sent`, `received`, or `dropped` because the bus was cut off or "
        "its queue full.",
        lambda now, counted: {} if counted.bus is None else counted.bus.messages,
    ),
    Figure(
        "counter",
        "wsserver_bus_gaps_total",
        (),
        "Times that something of what other nodes said may have been missed; absent without a bus.",
        lambda now, counted: {} if counted.bus is None else counted.bus.gaps,
    ),
    Figure(
        "counter",
        "wsserver_bus_resyncs_total",
        (),
        "Times that the database was asked what moved of all accounts served here; absent without "
        "a bus.",
        lambda now, counted: {} if counted.bus is None else counted.bus.resyncs,
    ),
    Figure(
        "counter",
        "wsserver_letters_total",
        ("outcome",),
        "Mails, by what became of them: `delivered`, `deferred`, `refused`, `expired`, "
        "`overflowed`, `unsent`.",
        lambda now, counted: counted.letters,
    ),
    Figure(
        "counter",
        "wsserver_log_records_total",
        ("level",),
        "What was logged, by level: `warning`, and `error` for failures of the server's own.",
        lambda now, counted: now.log_records,
    ),
    Figure(
        "gauge",
        "wsserver_certificate_expiry_timestamp_seconds",
        (),
        "When the TLS certificate ends, in seconds since 1970; absent without TLS.",
        lambda now, counted: (
            {} if now.certificate_expires_at_s is None else now.certificate_expires_at_s
        ),
    ),
)


def count_authentication_failures(calls: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """By reason; each reason is there from the start."""
    failures = dict.fromkeys(sorted(AUTHENTICATION_FAILURES), 0)
    for (_, outcome), count in calls.items():
        if outcome in failures:
            failures[outcome] += count
    return failures


class Exposition(Collector):
    """All figures of one server, and of its process, in a registry of their own."""

    def __init__(self, metrics: Metrics, read: Callable[[], Reading]) -> None:
        self._metrics = metrics
        self._read = read
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(self)

    def expose(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """The names, so that registering reads nothing."""
        return [_make_family(figure, {}) for figure in FIGURES]

    def collect(self) -> Iterator[Metric]:
        """The figures as Prometheus' client has them; called on the event loop, by `expose`."""
        now = self._read()
        for figure in FIGURES:
            yield _make_family(figure, figure.read(now, self._metrics))


def _make_family(figure: Figure, values: Values) -> Metric:
    if not isinstance(values, Mapping):
        values = {(): values}
    labelled = {key if isinstance(key, tuple) else (key,): values[key] for key in values}
    if figure.kind == "histogram":
        return _make_histogram(figure, labelled)
    kind = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
    family = kind(figure.name, figure.meaning, labels=figure.labels)
    for labels, value in labelled.items():
        family.add_metric([*labels], value)
    return family


def _make_histogram(
    figure: Figure, values: Mapping[tuple[str, ...], Distribution]
) -> HistogramMetricFamily:
    """In Prometheus' form, in which each bucket holds those below it too."""
    family = HistogramMetricFamily(figure.name, figure.meaning, labels=figure.labels)
    for labels, distribution in values.items():
        names = map(floatToGoString, (*distribution.bounds, math.inf))
        buckets = [*zip(names, accumulate(distribution.counts), strict=True)]
        family.add_metric([*labels], buckets, distribution.total)
    return family
