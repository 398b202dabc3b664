"""The figures are what the Prometheus client's own counters would show, but for ``_created``."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from wsserver.figures import FIGURES, Exposition, Figure
from wsserver.metrics import BATCH_BUCKETS, BATCH_BUCKETS_S, PUSH_BUCKETS_S, Metrics
from wsserver.readings import Queue, Reading
from wsserver.recent import RECORDS_MAX, TEXT_CHARS_MAX, RecentRecords

READING = Reading(
    versions=("1.0", "3.11", "3.50", "17.0"),
    schema_revision="0002",
    draining=False,
    connections={"opening": 1, "anonymous": 2},
    connections_max=100,
    queues={"writing lane": Queue(3, 10)},
    refusals={"connect_rate": 2},
    closes={("1000", "client"): 4},
    stalled=1,
    database_bytes={"database": 4096},
    disk_free_bytes=None,
    log_records={"error": 1},
    certificate_expires_at_s=None,
)
MEANINGS = {figure.name: figure.meaning for figure in FIGURES}


class Ours:
    """Metrics, and what is shown of them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.expose = Exposition(self.metrics, lambda: READING).expose


class ClientsOwn:
    """Of the same figures some, kept by the Prometheus client."""

    def __init__(self) -> None:
        self.registry = registry = prometheus_client.CollectorRegistry()
        self.metrics = self
        self.sessions = prometheus_client.Gauge(
            "wsserver_sessions", MEANINGS["wsserver_sessions"], registry=registry
        )
        self._calls = self._count("wsserver_calls_total", "method", "outcome")
        self._notifications = self._count("wsserver_notifications_total", "method")
        self._letters = self._count("wsserver_letters_total", "outcome")
        self._database_errors = self._count("wsserver_database_errors_total", "lane")
        self.push_seconds = self._observe("wsserver_push_seconds", PUSH_BUCKETS_S)
        self._operations = self._observe("wsserver_batch_operations", BATCH_BUCKETS, "lane")
        self._seconds = self._observe("wsserver_batch_seconds", BATCH_BUCKETS_S, "lane")

    def _count(self, name: str, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(name, MEANINGS[name], labels, registry=self.registry)

    def _observe(self, name: str, buckets: Any, *labels: str) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(
            name, MEANINGS[name], labels, buckets=buckets, registry=self.registry
        )

    def count_call(self, method: str, outcome: str) -> None:
        self._calls.labels(method or "unknown", outcome).inc()

    def count_notification(self, method: str) -> None:
        self._notifications.labels(method).inc()

    def count_letter(self, outcome: str) -> None:
        self._letters.labels(outcome).inc()

    def count_database_error(self, lane: str) -> None:
        self._database_errors.labels(lane).inc()

    def observe_batch(self, lane: str, operations: int, seconds: float) -> None:
        self._operations.labels(lane).observe(operations)
        self._seconds.labels(lane).observe(seconds)

    def expose(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)


COMPARED = re.compile(
    r"wsserver_(sessions|calls|notifications|letters|database_errors|push_seconds|batch)"
    r"(?!_superseded)"
)


def own_lines(exposed: bytes) -> list[str]:
    """What both show, sorted; when each counter was made is nobody's question."""
    lines = exposed.decode().splitlines()
    return sorted(line for line in lines if COMPARED.search(line) and "_created" not in line)


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
        st.floats(0, 20) | st.sampled_from(BATCH_BUCKETS_S),
    ),
    st.tuples(st.just("count_database_error"), st.just("writing lane")),
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
    ours = own_lines(Ours().expose())
    assert ours == own_lines(ClientsOwn().expose())
    assert len(ours) > 15


@given(st.lists(EVENTS, max_size=30))
def test_the_text_is_the_one_that_the_prometheus_client_would_write(
    events: list[tuple[Any, ...]],
) -> None:
    ours, theirs = Ours(), ClientsOwn()
    for event in events:
        tell(ours.metrics, event)
        tell(theirs, event)
    assert own_lines(ours.expose()) == own_lines(theirs.expose())


def test_figures_of_the_process_are_there_too() -> None:
    assert b"\npython_gc_collections_total{" in Ours().expose()


@pytest.mark.parametrize("bound", [0.001, 10])
def test_a_value_on_a_bound_is_within_it(bound: float) -> None:
    ours = Ours()
    ours.metrics.push_seconds.observe(bound)
    le = str(float(bound))
    assert figure(ours.expose(), "wsserver_push_seconds_bucket", le=le) == 1


def test_lanes_count_beside_each_other_while_somebody_looks() -> None:
    ours = Ours()
    lanes = [f"lane {number}" for number in range(8)]
    start = threading.Barrier(len(lanes) + 1)

    def work(lane: str) -> None:
        start.wait()
        for _ in range(2000):
            ours.metrics.observe_batch(lane, 2, 0.1)

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


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_name_follows_the_conventions(figure: Figure) -> None:
    # https://prometheus.io/docs/practices/naming
    assert re.fullmatch(r"wsserver(_[a-z]+)+", figure.name)
    assert figure.name.endswith("_total") == (figure.kind == "counter")
    assert figure.meaning.endswith(".")
    if figure.kind == "histogram":
        assert figure.name.endswith(("_seconds", "_operations"))


def test_what_was_read_is_shown_and_what_there_is_not_is_not() -> None:
    exposed = Ours().expose()

    def shown(name: str, **labels: str) -> float | None:
        return figure(exposed, f"wsserver_{name}", **labels)

    versions = {"version": "1.0", "python": "3.11", "sqlite": "3.50", "websockets": "17.0"}
    assert shown("build_info", **versions) == 1
    assert shown("connections", state="anonymous") == 2
    assert shown("queue_operations", queue="writing lane") == 3
    assert shown("queue_operations_max", queue="writing lane") == 10
    assert shown("closes_total", code="1000", by="client") == 4
    assert shown("database_bytes", file="database") == 4096
    assert shown("disk_free_bytes") is None
    assert shown("certificate_expiry_timestamp_seconds") is None


def test_who_failed_to_authenticate_is_counted_by_reason() -> None:
    ours = Ours()
    for method in ("session.login", "account.delete", "lbry.auth.full"):
        ours.metrics.count_call(method, "bad_credentials")
    ours.metrics.count_call("session.login", "ok")

    exposed = ours.expose()

    name = "wsserver_authentication_failures_total"
    assert figure(exposed, name, reason="bad_credentials") == 3
    assert figure(exposed, name, reason="bad_token") == 0


# The newest records of the log.


@pytest.fixture
def records() -> Any:
    records = RecentRecords()
    records.attach()
    yield records
    records.detach()


def test_warnings_and_failures_are_counted_and_the_newest_kept(records: RecentRecords) -> None:
    logger = logging.getLogger("wsserver.somewhere")
    logger.info("all is well")
    for number in range(RECORDS_MAX):
        logger.warning("warning %d", number)
    logger.error("x" * 1000)

    assert records.counts == {"warning": RECORDS_MAX, "error": 1}
    assert len(records.newest) == RECORDS_MAX
    assert [record.level for record in records.newest[:2]] == ["error", "warning"]
    assert len(records.newest[0].text) == TEXT_CHARS_MAX
    assert records.newest[-1].text == "warning 1"
