"""The figures are what the Prometheus client's own counters would show, but for ``_created``."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from wsserver.metrics import BATCH_BUCKETS, PUSH_BUCKETS_S, Metrics

QUEUES = {"writing lane": 3, "passwords": 0}


class ClientsOwn:
    """The same figures, kept by the Prometheus client."""

    def __init__(self) -> None:
        self.registry = registry = prometheus_client.CollectorRegistry()
        connections = prometheus_client.Gauge(
            "wsserver_connections",
            "Open connections: WebSockets, and all of the gateway.",
            registry=registry,
        )
        connections.set(4)
        self.sessions = prometheus_client.Gauge(
            "wsserver_sessions", "Authenticated sessions.", registry=registry
        )
        self._calls = prometheus_client.Counter(
            "wsserver_calls",
            "Calls answered, by method and by outcome: ok, or the reason or code of the error.",
            ["method", "outcome"],
            registry=registry,
        )
        self._notifications = prometheus_client.Counter(
            "wsserver_notifications", "Notifications sent, by method.", ["method"],
            registry=registry,
        )  # fmt: skip
        self.push_seconds = prometheus_client.Histogram(
            "wsserver_push_seconds",
            "From a push's arrival to the durable commit that answers it.",
            buckets=PUSH_BUCKETS_S,
            registry=registry,
        )
        self._batches = prometheus_client.Histogram(
            "wsserver_batch_operations",
            "Operations in one transaction, by lane.",
            ["lane"],
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._letters = prometheus_client.Counter(
            "wsserver_letters",
            "Mails, by what became of them: delivered, deferred, refused, expired, overflowed, "
            "unsent.",
            ["outcome"],
            registry=registry,
        )
        queues = prometheus_client.Gauge(
            "wsserver_queue_operations", "Operations that wait, by queue.", ["queue"],
            registry=registry,
        )  # fmt: skip
        for queue, waiting in QUEUES.items():
            queues.labels(queue).set(waiting)

    def count_call(self, method: str, outcome: str) -> None:
        self._calls.labels(method or "unknown", outcome).inc()

    def count_notification(self, method: str) -> None:
        self._notifications.labels(method).inc()

    def count_letter(self, outcome: str) -> None:
        self._letters.labels(outcome).inc()

    def observe_batch(self, lane: str, operations: int) -> None:
        self._batches.labels(lane).observe(operations)

    def expose(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)


def metrics(queues: Mapping[str, int] = QUEUES) -> Metrics:
    return Metrics(queues=lambda: queues, connections=lambda: 4)


def own_lines(exposed: bytes) -> list[str]:
    """What is said of the server itself; when each counter was made is nobody's question."""
    lines = exposed.decode().splitlines()
    return [line for line in lines if "wsserver_" in line and "_created" not in line]


def figure(exposed: bytes, name: str, **labels: str) -> float | None:
    samples = [
        sample
        for family in text_string_to_metric_families(exposed.decode())
        for sample in family.samples
    ]
    return next((it.value for it in samples if (it.name, it.labels) == (name, labels)), None)


METHODS = st.sampled_from(["wallet.push", "session.login", ""])
EVENTS = st.one_of(
    st.tuples(st.just("count_call"), METHODS, st.sampled_from(["ok", "conflict", "-32601"])),
    st.tuples(st.just("count_notification"), st.sampled_from(["wallet.updated", 'a"b\\c\n'])),
    st.tuples(st.just("count_letter"), st.sampled_from(["delivered", "refused"])),
    st.tuples(
        st.just("observe_batch"),
        st.sampled_from(["writing lane", "reading lane"]),
        st.integers(1, 600) | st.sampled_from(BATCH_BUCKETS),
    ),
    st.tuples(st.just("push_seconds.observe"), st.floats(0, 20) | st.sampled_from(PUSH_BUCKETS_S)),
    st.tuples(st.just("sessions.inc")),
    st.tuples(st.just("sessions.dec")),
)


def tell(target: Any, event: tuple[Any, ...]) -> None:
    name, *arguments = event
    for part in name.split("."):
        target = getattr(target, part)
    target(*arguments)


def test_before_anything_happens_every_figure_is_there() -> None:
    assert own_lines(metrics().expose()) == own_lines(ClientsOwn().expose())


@given(st.lists(EVENTS, max_size=30))
def test_the_text_is_the_one_that_the_prometheus_client_would_write(
    events: list[tuple[Any, ...]],
) -> None:
    ours, theirs = metrics(), ClientsOwn()
    for event in events:
        tell(ours, event)
        tell(theirs, event)
    assert own_lines(ours.expose()) == own_lines(theirs.expose())


def test_figures_of_the_process_are_there_too() -> None:
    assert b"\npython_gc_collections_total{" in metrics().expose()


@pytest.mark.parametrize("bound", [0.001, 10])
def test_a_value_on_a_bound_is_within_it(bound: float) -> None:
    ours = metrics()
    ours.push_seconds.observe(bound)
    le = str(float(bound))
    assert figure(ours.expose(), "wsserver_push_seconds_bucket", le=le) == 1


def test_lanes_count_beside_each_other_while_somebody_looks() -> None:
    ours = metrics()
    lanes = [f"lane {number}" for number in range(8)]
    start = threading.Barrier(len(lanes) + 1)

    def work(lane: str) -> None:
        start.wait()
        for _ in range(2000):
            ours.observe_batch(lane, 2)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        ours.expose()
    for thread in threads:
        thread.join()
    exposed = ours.expose()
    for lane in lanes:
        assert figure(exposed, "wsserver_batch_operations_count", lane=lane) == 2000
        assert figure(exposed, "wsserver_batch_operations_sum", lane=lane) == 4000
