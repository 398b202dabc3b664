"""A crowd of newcomers waits for its turns; those who are in do not wait for the crowd."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest

from tests.wire.harness import TEXT, UPGRADE, Clock, Echo, Loop, Wire, frame, serving
from wsserver.connection import Connection
from wsserver.handshake import read_request
from wsserver.opening import Opening
from wsserver.transport import OPENINGS_SLICE_S, SWEPT_AT_ONCE, Listener, TransportLimits

REQUEST = UPGRADE + b"\r\n"
PING = b"\x89\x00"


class Crowd:
    """Newcomers on wires to nowhere, each of whom costs the server `cost_s`."""

    def __init__(self, cost_s: float, **limits: Any) -> None:
        self.opened: list[int] = []
        """Whose connections have opened, by the order in which they came."""
        self.wires: list[Wire] = []
        self.newcomers: list[Opening] = []
        self.clock = Clock()
        self.clock.now_s = 1.0  # A listener that is not started thinks that it swept at 0.
        self.loop = Loop()
        self._cost_s = cost_s
        self.listener = Listener(
            limits=TransportLimits(**{"message_bytes_max": 1000} | limits),
            application=self._mount,
            respond=lambda request: None,
            clock=self.clock,
        )
        self.listener.loop = cast(asyncio.AbstractEventLoop, self.loop)

    def _mount(self, connection: Connection) -> Echo:
        self.clock.now_s += self._cost_s
        self.opened.append(self.wires.index(cast(Wire, connection._transport)))
        return Echo(connection)

    def come(self, number: int, request: bytes = REQUEST) -> None:
        for _ in range(number):
            newcomer = self.listener.take_in("192.0.2.1")
            if newcomer is None:
                continue
            wire = Wire()
            self.wires.append(wire)
            self.newcomers.append(newcomer)
            newcomer.connection_made(wire)
            newcomer.data_received(request)


def test_a_crowd_is_opened_in_order_a_slice_a_turn() -> None:
    crowd = Crowd(cost_s=0.6 * OPENINGS_SLICE_S)
    crowd.come(7)
    assert crowd.opened == []

    turns = []
    for _ in range(4):
        crowd.loop.turn()
        turns.append(list(crowd.opened))

    assert turns == [list(range(opened)) for opened in (2, 4, 6, 7)]
    assert crowd.loop.soon == []


def test_one_is_opened_in_a_turn_however_long_it_takes() -> None:
    crowd = Crowd(cost_s=10 * OPENINGS_SLICE_S)
    crowd.come(3)
    for opened in (1, 2, 3):
        crowd.loop.turn()
        assert len(crowd.opened) == opened


def test_who_comes_while_others_wait_waits_behind_them() -> None:
    crowd = Crowd(cost_s=OPENINGS_SLICE_S)
    crowd.come(2)
    crowd.loop.turn()
    crowd.come(1)
    crowd.loop.turn()
    assert crowd.opened == [0, 1]

    crowd.loop.turn()
    assert crowd.opened == [0, 1, 2]


def test_who_is_in_is_answered_between_the_turns_of_the_crowd() -> None:
    crowd = Crowd(cost_s=OPENINGS_SLICE_S)
    crowd.come(1)
    crowd.loop.turn()
    crowd.come(100)
    crowd.wires[0].written = b""
    cast(Connection, crowd.wires[0].protocol).data_received(frame(TEXT, b"hello"))

    assert crowd.wires[0].written == frame(TEXT, b"hello", mask=False)
    assert crowd.opened == [0]


@pytest.mark.parametrize(
    "leave",
    [lambda gone: gone.connection_lost(None), lambda gone: gone.shut()],
    ids=["lost", "shut"],
)
def test_who_has_left_is_passed_over(leave: Callable[[Opening], None]) -> None:
    crowd = Crowd(cost_s=0)
    crowd.come(2)
    crowd.come(1, b"nonsense\r\n\r\n")
    crowd.come(1)
    for gone in crowd.newcomers[1:3]:
        leave(gone)
    crowd.loop.turn()

    assert crowd.opened == [0, 3]
    assert [wire.written for wire in crowd.wires[1:3]] == [b"", b""]


def test_whose_time_is_up_while_it_waits_is_passed_over() -> None:
    crowd = Crowd(cost_s=0, opening_timeout_s=10)
    crowd.come(1)
    for _ in range(10):
        crowd.clock.now_s += 1
        crowd.listener.sweep()
    assert crowd.wires[0].end == "closed"

    crowd.loop.turn()
    assert crowd.opened == []


def test_who_waits_counts_among_those_who_open() -> None:
    crowd = Crowd(cost_s=0, openings_max=2, opening_grace_s=2)
    crowd.come(3)
    assert [wire.end for wire in crowd.wires] == ["", ""]

    crowd.clock.now_s += 2
    crowd.come(1)
    crowd.loop.turn()
    assert crowd.wires[0].end == "aborted"
    assert crowd.opened == [1, 2]


def test_frames_behind_a_request_that_waits_come_after_it_and_fill_no_memory() -> None:
    crowd = Crowd(cost_s=0, request_bytes_max=1000)
    crowd.come(1, REQUEST + frame(TEXT, b"one"))
    (wire,), (newcomer,) = crowd.wires, crowd.newcomers
    reading = []
    for text in (b"two", b"x" * 1000):
        newcomer.data_received(frame(TEXT, text))
        reading.append(wire.reading)
    crowd.loop.turn()
    reading.append(wire.reading)

    assert reading == [True, False, True]
    echoed = b"".join(frame(TEXT, text, mask=False) for text in (b"one", b"two", b"x" * 1000))
    assert wire.written.partition(b"\r\n\r\n")[2] == echoed


def test_a_failure_of_ours_costs_one_newcomer_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd = Crowd(cost_s=0)
    crowd.come(3)
    failing = iter([True])

    def fail_once(head: bytes) -> Any:
        if next(failing, False):
            raise LookupError
        return read_request(head)

    monkeypatch.setattr("wsserver.opening.read_request", fail_once)
    with pytest.raises(LookupError):
        crowd.loop.turn()
    crowd.loop.turn()

    assert crowd.opened == [1, 2]


def test_who_sends_no_more_is_answered_before_its_connection_ends() -> None:
    crowd = Crowd(cost_s=OPENINGS_SLICE_S)
    crowd.come(2)
    crowd.come(1, b"GET /v1 HTTP/1.1\r\n\r\n")
    asked = crowd.newcomers[2]

    assert not asked.eof_received()
    assert crowd.wires[2].written.startswith(b"HTTP/1.1 426 ")
    assert crowd.opened == []


async def test_a_crowd_that_comes_at_once_is_let_in_whole() -> None:
    async with serving() as server:
        clients = [await server.connect() for _ in range(200)]
        for client in clients:
            client.send(REQUEST + frame(TEXT, b"hello"))
        for client in clients:
            await client.read_head()
            assert await client.read_text() == b"hello"


def test_a_sweep_looks_at_so_many_a_turn_and_at_all_of_them() -> None:
    crowd = Crowd(cost_s=0)
    crowd.come(3 * SWEPT_AT_ONCE)
    while crowd.loop.soon:
        crowd.loop.turn()
    for wire in crowd.wires:
        wire.written = b""
    crowd.clock.now_s += crowd.listener.limits.ping_interval_s

    crowd.listener.sweep()
    pinged = [sum(wire.written == PING for wire in crowd.wires)]
    while crowd.loop.soon:
        crowd.loop.turn()
        pinged.append(sum(wire.written == PING for wire in crowd.wires))

    # The openings that they were stood in the wheel, too, and take turns like the others.
    assert pinged[-1] == len(crowd.wires)
    assert max(after - before for before, after in pairwise(pinged)) == SWEPT_AT_ONCE
