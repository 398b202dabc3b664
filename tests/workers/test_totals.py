"""The figures of many workers as those of one server."""

from __future__ import annotations

import re

from wsserver.workers.totals import Totals


def figures(calls: dict[str, int], sessions: int) -> str:
    lines = ["# HELP wsserver_calls_total Calls.", "# TYPE wsserver_calls_total counter"]
    lines += [f'wsserver_calls_total{{method="{name}"}} {count}.0' for name, count in calls.items()]
    lines += ["# HELP wsserver_sessions Sessions.", "# TYPE wsserver_sessions gauge"]
    return "\n".join([*lines, f"wsserver_sessions {sessions}.0", ""])


def read(exposed: bytes) -> dict[str, float]:
    found = re.findall(r"^([^#\s]\S*) (\S+)$", exposed.decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_counters_are_added_up_label_by_label_and_gauges_say_whose_they_are() -> None:
    current = {"1": figures({"push": 3, "get": 1}, 5), "2": figures({"push": 4}, 7)}

    exposed = Totals().expose(current, leaving=[figures({"push": 10}, 9)])

    assert read(exposed) == {
        'wsserver_calls_total{method="push"}': 17,
        'wsserver_calls_total{method="get"}': 1,
        'wsserver_sessions{worker="1"}': 5,
        'wsserver_sessions{worker="2"}': 7,
    }
    assert b"# HELP wsserver_calls_total Calls.\n# TYPE wsserver_calls_total counter" in exposed


def test_what_the_departed_counted_stays_and_their_gauges_go() -> None:
    totals = Totals()
    totals.keep(figures({"push": 3}, 5))
    totals.keep(figures({"push": 2, "get": 1}, 5))
    totals.keep("")

    for _ in range(2):
        assert read(totals.expose({"1": figures({"push": 1}, 2)}, leaving=[])) == {
            'wsserver_calls_total{method="push"}': 6,
            'wsserver_calls_total{method="get"}': 1,
            'wsserver_sessions{worker="1"}': 2,
        }
