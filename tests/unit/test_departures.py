"""A line for each connection that is over; in a storm, for some, and how many there were."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, cast

import pytest

from wsserver import logbook
from wsserver.channel import Channel
from wsserver.connection import Connection
from wsserver.departures import (
    LEFT_OUT_INTERVAL_S,
    LINES_AT_ONCE,
    LINES_PER_S,
    Departures,
    GoneSocket,
)


class Loop:
    """A loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Any) -> None:
        self._timers.append((self.now_s + delay_s, call))

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        due = [call for at_s, call in self._timers if at_s <= self.now_s]
        self._timers = [timer for timer in self._timers if timer[0] > self.now_s]
        for call in due:
            call()


@dataclass
class Gone:
    """As much of a connection, and of a channel, as a line tells."""

    account_id: int | None = 7
    device_id: str = "laptop"
    remote_address: str = "192.0.2.1"
    messages: int = 3
    bytes_received: int = 300
    bytes_sent: int = 30

    def find_age_s(self) -> float:
        return 1.23456

    def find_close(self) -> tuple[int, str]:
        return 1012, "the server is about to stop"


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def departures(loop: Loop) -> Departures:
    return Departures(cast(asyncio.AbstractEventLoop, loop))


def note(departures: Departures, gone: Gone, times: int = 1) -> None:
    for _ in range(times):
        departures.note(cast(Connection, gone), cast(Channel, gone))


def lines(caplog: pytest.LogCaptureFixture, entry: logbook.Entry) -> list[dict[str, Any]]:
    return [vars(each)["fields"] for each in caplog.records if vars(each)["entry"] is entry]


def test_a_line_tells_who_it_was_and_how_it_ended(
    departures: Departures, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    note(departures, Gone())
    assert lines(caplog, logbook.CONNECTION_ENDED) == [
        {
            "peer": "192.0.2.1",
            "account_id": 7,
            "device_id": "laptop",
            "duration_s": 1.235,
            "messages": 3,
            "bytes_received": 300,
            "bytes_sent": 30,
            "close_code": 1012,
            "close_reason": "the server is about to stop",
        }
    ]


def test_who_never_logged_in_has_no_device(
    departures: Departures, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    note(departures, Gone(account_id=None))
    (line,) = lines(caplog, logbook.CONNECTION_ENDED)
    assert (line["account_id"], line["device_id"]) == (None, None)


def test_a_socket_of_the_gateway_has_a_line_and_counts_in_a_storm(
    departures: Departures, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    departures.note_gateway(GoneSocket("192.0.2.1", 7, "laptop", 1.23456, 1001, ""))
    assert lines(caplog, logbook.GATEWAY_SOCKET_ENDED) == [
        {
            "peer": "192.0.2.1",
            "account_id": 7,
            "device_id": "laptop",
            "duration_s": 1.235,
            "close_code": 1001,
            "close_reason": "",
        }
    ]
    note(departures, Gone(), LINES_AT_ONCE)
    departures.note_gateway(GoneSocket("192.0.2.1", 7, "laptop", 1.0, 1001, ""))
    assert len(lines(caplog, logbook.CONNECTION_ENDED)) == LINES_AT_ONCE - 1
    assert len(lines(caplog, logbook.GATEWAY_SOCKET_ENDED)) == 1


def test_of_a_storm_some_have_a_line_and_the_others_are_counted(
    departures: Departures, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    note(departures, Gone(), LINES_AT_ONCE + 50)
    assert len(lines(caplog, logbook.CONNECTION_ENDED)) == LINES_AT_ONCE
    loop.pass_time(1)
    note(departures, Gone(), LINES_PER_S + 5)
    assert len(lines(caplog, logbook.CONNECTION_ENDED)) == LINES_AT_ONCE + LINES_PER_S
    assert lines(caplog, logbook.CONNECTIONS_LEFT_OUT) == []
    loop.pass_time(LEFT_OUT_INTERVAL_S)
    assert lines(caplog, logbook.CONNECTIONS_LEFT_OUT) == [{"count": 55}]
    loop.pass_time(LINES_AT_ONCE)
    note(departures, Gone(), LINES_AT_ONCE)
    loop.pass_time(LEFT_OUT_INTERVAL_S)
    assert len(lines(caplog, logbook.CONNECTION_ENDED)) == 2 * LINES_AT_ONCE + LINES_PER_S
    assert len(lines(caplog, logbook.CONNECTIONS_LEFT_OUT)) == 1


def test_where_such_lines_are_not_logged_none_is_made(
    departures: Departures, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    note(departures, Gone(), 2 * LINES_AT_ONCE)
    caplog.set_level(logging.INFO)
    loop.pass_time(LEFT_OUT_INTERVAL_S)
    assert caplog.records == []
