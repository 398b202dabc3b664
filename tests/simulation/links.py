"""One connection between a device and a node: in order in each direction, until it fails.

Its server's end has the face of `wsserver.connection.Connection`, as far as a channel looks.
"""

from __future__ import annotations

import sys
from collections import deque
from random import Random
from typing import Protocol

from tests.simulation.audit import Violation
from tests.simulation.timeline import Owner, Timeline
from wsschema.close_codes import CloseCode

KEEPALIVE_MS = 45_000.0
"""After so long either end finds out that nothing comes any more."""
ANSWERS_MAX = 16
"""What a congested connection is sent at most: answers, and the newest of each kind of news."""


class Application(Protocol):
    """What the server mounts on a connection."""

    def message_received(self, payload: bytes | bytearray) -> None: ...

    def writable(self) -> None: ...

    def connection_lost(self) -> None: ...


class Client(Protocol):
    """The device's end."""

    def receive(self, link: Link, payload: bytes) -> None: ...

    def lose(self, link: Link, code: int | None) -> None: ...


class Link:
    """A connection that is open.

    ``process`` is the node's: when it dies, nothing happens at that end any more. ``window``: how
    many messages the device may leave unread before the server's end is congested.
    """

    remote_address = "192.0.2.1"

    def __init__(
        self,
        timeline: Timeline,
        process: Owner,
        client: Client,
        random: Random,
        *,
        latency_ms: float,
        window: int,
    ) -> None:
        self.timeline = timeline
        self.process = process
        self.client = client
        self.alive = True
        """False once neither end has it any more."""
        self.application: Application | None = None
        self.closing = False
        self.congested = False
        self._random = random
        self._latency_ms = latency_ms
        self._window = window
        self._up = self._down = True
        """Whether what is sent to the server, and to the device, arrives."""
        self._up_ms = self._down_ms = 0.0
        self._held = False
        self._undelivered: deque[bytes] = deque()
        self._unread: deque[bytes] | None = None
        """What has come to a device that does not read; None while it reads."""
        self._sent = 0
        """Messages that the device has not read yet."""
        self._client_knows = self._server_knows = False
        self._updates = 0
        """Notifications of the wallet sent since the device began to read again."""

    def _draw_ms(self) -> float:
        """How long a message takes: one in 16 takes much longer."""
        drawn = self._random.random()
        return self._latency_ms * (drawn if drawn < 0.9375 else 8 * drawn)

    # The device's end.

    def send_up(self, payload: bytes) -> None:
        if self._up and not self._client_knows:
            self._up_ms = max(self._up_ms, self.timeline.now_ms + self._draw_ms())
            self.timeline.at(self._up_ms, self.process, self._arrive_up, payload)

    def read(self, reading: bool) -> None:
        """Whether the device reads what comes."""
        if not reading:
            self._unread = deque() if self._unread is None else self._unread
        elif self._unread is not None:
            unread, self._unread = self._unread, None
            for payload in unread:
                self._take_down(payload)

    def hang_up(self) -> None:
        """The device closes the connection."""
        self._client_knows = True
        if self._up:
            at_ms = max(self._up_ms, self.timeline.now_ms + self._draw_ms())
            self.timeline.at(at_ms, self.process, self._lose_server)
        else:
            self.timeline.after(KEEPALIVE_MS, self.process, self._lose_server)

    def _arrive_down(self, payload: bytes) -> None:
        if not self._down or self._client_knows:
            return
        if self._unread is None:
            self._take_down(payload)
        else:
            self._unread.append(payload)

    def _take_down(self, payload: bytes) -> None:
        if self._client_knows:
            return
        self._sent -= 1
        if self.congested and self._sent <= self._window // 2 and self.process.alive:
            self.congested = False
            self.timeline.after(self._draw_ms(), self.process, self._become_writable)
        self.client.receive(self, payload)

    def _lose_client(self, code: int | None) -> None:
        if not self._client_knows:
            self._client_knows = True
            self.client.lose(self, code)

    # The server's end.

    def send(self, payload: bytes) -> None:
        self._send(payload)

    def send_frame(self, frame: bytes) -> None:
        self._updates += 1
        self._send(_read_frame(frame))

    def _send(self, payload: bytes) -> None:
        if self.closing:
            return
        self._sent += 1
        if self._sent > self._window + ANSWERS_MAX:
            raise Violation("limit", f"{self._sent} messages wait for a slow reader")
        if self._sent > self._window:
            self.congested = True
        if self._down:
            self._down_ms = max(self._down_ms, self.timeline.now_ms + self._draw_ms())
            self.timeline.at(self._down_ms, self, self._arrive_down, payload)

    def close(self, code: int, reason: str = "") -> None:
        if self.closing:
            return
        if code == CloseCode.INTERNAL_ERROR:
            failure = sys.exc_info()[1]
            if isinstance(failure, Violation):
                raise failure
            raise Violation("failed", f"a session failed: {failure!r}")
        self.closing = True
        self._held = False
        lost_ms = KEEPALIVE_MS
        if self._down:
            self._down_ms = max(self._down_ms, self.timeline.now_ms + self._draw_ms())
            self.timeline.at(self._down_ms, self, self._lose_client, code)
            lost_ms = self._down_ms - self.timeline.now_ms + self._draw_ms()
        self.timeline.after(lost_ms, self.process, self._lose_server)

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self.timeline.after(0, self.process, self._deliver)

    def authenticated(self) -> None: ...

    def restart_authentication_clock(self) -> None: ...

    def stop_authentication_clock(self) -> None: ...

    def _arrive_up(self, payload: bytes) -> None:
        if self._up and not self.closing:
            self._undelivered.append(payload)
            self._deliver()

    def _deliver(self) -> None:
        while self._undelivered and not (self._held or self.congested or self.closing):
            assert self.application is not None
            self.application.message_received(self._undelivered.popleft())

    def _become_writable(self) -> None:
        if not (self.congested or self.closing):
            assert self.application is not None
            self._updates = 0
            self.application.writable()
            if self._updates > 1:
                raise Violation("limit", f"{self._updates} updates waited for a slow reader")
            self._deliver()

    def _lose_server(self) -> None:
        if not self._server_knows:
            self._server_knows = self.closing = True
            self._up = False
            assert self.application is not None
            self.application.connection_lost()

    # What goes wrong.

    def cut(self, *, up: bool, down: bool, server_ms: float, client_ms: float) -> None:
        """From now on nothing arrives in these directions; when does each end find out?"""
        self._up, self._down = self._up and not up, self._down and not down
        self.timeline.after(server_ms, self.process, self._lose_server)
        self.timeline.after(client_ms, self, self._lose_client, None)

    def lose_node(self, client_ms: float) -> None:
        """The process at the server's end is gone."""
        self._up = self._down = False
        self.timeline.after(client_ms, self, self._lose_client, None)


def _read_frame(frame: bytes) -> bytes:
    """What a text frame of `wsserver.frames.encode_text_frame` carries."""
    length = frame[1]
    return frame[2 if length < 126 else 4 if length == 126 else 10 :]
