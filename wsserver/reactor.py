"""A reactor for plain sockets: who is at home is served at once, who comes and goes in its turn.

When a network fails, thousands of connections are lost in one moment, and come back in the next. An
event loop that attends to all of them before it turns keeps everybody else waiting for as long:
libuv, under uvloop, some 200 ms for 9,000 that are lost. So the server has an epoll of its own for
its sockets, inside the loop. `EPOLLRDHUP` tells of a hang-up without a read: established peers are
read from at once, those that have hung up and newcomers for a slice of each turn. Edge-triggered
(epoll(7)), for otherwise each look would have to pass by all those that still wait.

Linux alone has it. TLS, and other systems, use the loop's own transports.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from wsserver import logbook
from wsserver.failures import report_failure

HAS_EPOLL: Final = hasattr(select, "epoll")

READ_BYTES_MAX: Final = 64 * 1024
"""How much one read takes; memory for more would have to be mapped anew each time (malloc(3))..."""

READS_MAX: Final = 4
"""...and how many reads of a connection a turn of the loop has room for."""

EVENTS_AT_ONCE: Final = 4_096
"""Sockets of which one look at them tells."""

SLICE_S: Final = 0.00025
"""How long a turn of the loop may accept newcomers, and as long again read from who waits..."""

WAITING_SHARE: Final = 0.25
"""...or, if that is longer, this share of what the turn took: a busy loop has long turns."""

HIGH_WATER_BYTES: Final = 64 * 1024
"""Unsent bytes above which a protocol is to pause, unless told otherwise (asyncio's default)."""

ACCEPT_BACKLOG: Final = 1024
"""Connections that the kernel keeps until they are accepted; it cuts this to its own limit."""

ACCEPT_RETRY_INTERVAL_S: Final = 1.0
"""How long newcomers wait where there are no descriptors for them (asyncio's own figure)."""

if HAS_EPOLL:
    _READABLE = select.EPOLLIN
    _WRITABLE = select.EPOLLOUT
    _HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    _WATCHED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Reactor:
    """Accepts connections, and serves their sockets. It belongs to one event loop.

    `accept` is given each accepted socket with its address, and answers for closing it if it fails.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, accept: Callable[[socket.socket, Any], None]
    ) -> None:
        self._loop = loop
        self._accept = accept
        self._epoll = select.epoll()
        self._listening: dict[int, socket.socket] = {}
        self._streams: dict[int, Stream] = {}
        self._waiting: deque[Stream] = deque()
        """Newcomers, who has hung up, who has sent more than a turn takes: each waits once."""
        self._is_due = False
        """Whether they are read from in this turn of the loop or the next."""
        self._turned_at_s = 0.0
        """When they were last read from."""
        loop.add_reader(self._epoll.fileno(), self._poll)

    def listen(self, listening: socket.socket) -> None:
        """Accepts what comes to a socket that listens, which is the reactor's from now on."""
        # What is accepted inherits it: a small frame does not wait for the answer to another.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listening[listening.fileno()] = listening
        self._epoll.register(listening.fileno(), _READABLE)

    def stop_listening(self) -> None:
        """Closes the ports; connections stay, and who has connected is in."""
        listening, self._listening = self._listening, {}
        for closing in listening.values():
            self._accept_some(closing, until_s=math.inf)
            closing.close()

    def adopt(self, accepted: socket.socket, protocol: asyncio.Protocol) -> None:
        """Serves an accepted socket: `connection_made` first, what it sends from the next turn."""
        accepted.setblocking(False)
        stream = Stream(self, accepted, protocol)
        self._epoll.register(accepted.fileno(), _WATCHED)
        self._streams[accepted.fileno()] = stream
        protocol.connection_made(stream)

    def close(self) -> None:
        """Lets go of the epoll. The streams must have ended."""
        self.stop_listening()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    # What its streams call.

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        """As the loop's."""
        self._loop.call_soon(callback, *args)

    def read_soon(self, stream: Stream) -> None:
        """Reads from the stream when its turn comes."""
        if not stream.waits:
            stream.waits = True
            self._waiting.append(stream)
            if not self._is_due:
                self._is_due = True
                self._turned_at_s = time.monotonic()
                self._loop.call_soon(self._read_some)

    def forget(self, descriptor: int) -> None:
        """Serves a stream no longer. Its end takes it out of the epoll (epoll(7))."""
        del self._streams[descriptor]

    # Its own affairs.

    def _poll(self) -> None:
        for descriptor, events in self._epoll.poll(0, EVENTS_AT_ONCE):
            stream = self._streams.get(descriptor)
            if stream is None:
                if descriptor in self._listening:
                    self._accept_some(self._listening[descriptor], time.monotonic() + SLICE_S)
                continue
            try:
                stream.ready(events)
            except Exception as error:
                # No edge tells of the others in this turn again: they must not pay for it.
                stream.fail(error)

    def _read_some(self) -> None:
        """Reads from those who wait, for as long as a turn may take; those left have the next."""
        now_s = time.monotonic()
        until_s = now_s + max(SLICE_S, WAITING_SHARE * (now_s - self._turned_at_s))
        for _ in range(len(self._waiting)):
            stream = self._waiting.popleft()
            stream.waits = False
            try:
                stream.read()
            except Exception as error:
                stream.fail(error)
            if time.monotonic() >= until_s:
                break
        self._is_due = bool(self._waiting)
        if self._is_due:
            self._turned_at_s = time.monotonic()
            self._loop.call_soon(self._read_some)

    def _accept_some(self, listening: socket.socket, until_s: float) -> None:
        while time.monotonic() < until_s:
            try:
                accepted, address = listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # It was gone before it was taken.
            except OSError as error:
                logbook.CANNOT_ACCEPT.log(failure=error.strerror)
                self._epoll.unregister(listening.fileno())
                self._loop.call_later(ACCEPT_RETRY_INTERVAL_S, self._listen_again, listening)
                return
            try:
                self._accept(accepted, address)
            except Exception as error:
                logbook.FAILURE_OUTSIDE.log(what="a newcomer could not be taken in", error=error)

    def _listen_again(self, listening: socket.socket) -> None:
        if listening.fileno() in self._listening:
            self._epoll.register(listening.fileno(), _READABLE)


class Stream(asyncio.Transport):
    """One accepted TCP connection: as much of asyncio's transport as a peer's protocol uses.

    A `Reactor` serves it.
    """

    __slots__ = (
        "_closing",
        "_ends",
        "_high_water",
        "_hung_up",
        "_low_water",
        "_paused",
        "_protocol",
        "_reactor",
        "_socket",
        "_unsent",
        "_unsent_bytes",
        "_writing_paused",
        "established",
        "waits",
    )

    def __init__(
        self, reactor: Reactor, accepted: socket.socket, protocol: asyncio.Protocol
    ) -> None:
        self.established = False
        """Whether the peer is read from at once. The protocol says so, when it knows who it is."""
        self.waits = False
        """Whether its turn to be read from is to come. Only the reactor writes it."""
        self._reactor = reactor
        self._socket: socket.socket | None = accepted
        self._protocol = protocol
        self._paused = False
        self._hung_up = False
        """Whether no more will come than what is there: no edge tells of that again."""
        self._closing = False
        self._ends = False
        """Whether the half-close comes behind what is unsent."""
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._writing_paused = False
        self._high_water, self._low_water = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4

    # What the protocol calls: asyncio's Transport.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Has another hear of what comes."""
        self._protocol = cast(asyncio.Protocol, protocol)  # what a stream needs

    def pause_reading(self) -> None:
        """Leaves what comes where it is."""
        self._paused = True

    def resume_reading(self) -> None:
        """Reads again: soon, never inside this call."""
        self._paused = False
        self._reactor.read_soon(self)  # The edge may have come while nobody looked.

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Above how many unsent bytes the protocol is to pause, and below how many to go on."""
        self._high_water = HIGH_WATER_BYTES if high is None else high
        self._low_water = self._high_water // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """How many bytes are unsent."""
        return self._unsent_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends, or keeps what the kernel does not take."""
        if self._closing or not data:
            return
        assert self._socket is not None
        sent = 0
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self.abort()
                return
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._unsent_bytes += len(data) - sent
            if self._unsent_bytes > self._high_water and not self._writing_paused:
                self._writing_paused = True
                self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """TCP has a half-close."""
        return True

    def write_eof(self) -> None:
        """Half-closes behind what is unsent; what comes is still read."""
        self._ends = True
        if not self._unsent:
            self._shut_down()

    def is_closing(self) -> bool:
        """Whether the end has begun: nothing is read or written any more."""
        return self._closing

    def close(self) -> None:
        """Ends the connection behind what is unsent."""
        if not self._closing:
            self._closing = True
            if not self._unsent:
                self._reactor.call_soon(self._lose, None)

    def abort(self) -> None:
        """Ends the connection at once. What is unsent is lost."""
        self._closing = True
        self._unsent.clear()
        self._unsent_bytes = 0
        self._reactor.call_soon(self._lose, None)

    # What the reactor calls.

    def ready(self, events: int) -> None:
        """Does what has become possible."""
        if self._unsent and events & (_WRITABLE | _HUNG_UP):
            self._send_unsent()
        if events & _HUNG_UP:
            self._hung_up = True
            self._reactor.read_soon(self)
        elif events & _READABLE:
            if self.established:
                self.read()
            else:
                self._reactor.read_soon(self)

    def read(self) -> None:
        """Reads what is there, once; it waits for a turn if more may be."""
        if self._paused or self._closing:
            return
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_BYTES_MAX)
            if len(data) == READ_BYTES_MAX:
                data += self._read_on()
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if not data:
            self._end()
            return
        self._protocol.data_received(data)
        if self._hung_up or len(data) == READS_MAX * READ_BYTES_MAX:
            self._reactor.read_soon(self)

    def fail(self, error: Exception) -> None:
        """Ends for a failure of ours."""
        report_failure("a connection could not be served, and is dropped", error)
        self.abort()

    # Its own affairs.

    def _read_on(self) -> bytes:
        """What there is behind a first read, as far as a turn has room for it."""
        assert self._socket is not None
        parts: list[bytes] = []
        with contextlib.suppress(
            OSError
        ):  # Behind an error comes the end, with an edge of its own.
            while len(parts) < READS_MAX - 1:
                parts.append(self._socket.recv(READ_BYTES_MAX))
                if len(parts[-1]) < READ_BYTES_MAX:
                    break
        return b"".join(parts)

    def _send_unsent(self) -> None:
        assert self._socket is not None
        try:
            while self._unsent:
                first = self._unsent[0]
                sent = self._socket.send(first)
                self._unsent_bytes -= sent
                if sent < len(first):
                    self._unsent[0] = first[sent:]
                    break  # The kernel's buffer is full, and its edge comes when it is not.
                self._unsent.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(error)
            return
        if self._writing_paused and self._unsent_bytes <= self._low_water:
            self._writing_paused = False
            self._protocol.resume_writing()
        if not self._unsent:
            if self._closing:
                self._lose(None)
            elif self._ends:
                self._shut_down()

    def _shut_down(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):  # The peer is gone, which an event tells.
            self._socket.shutdown(socket.SHUT_WR)

    def _end(self) -> None:
        """No more will come."""
        if self._protocol.eof_received() or self._closing:
            return
        if self._unsent:
            self.close()
        else:
            self._lose(None)  # Now, so that it counts in the turn of those who have hung up.

    def _lose(self, error: Exception | None) -> None:
        lost, self._socket = self._socket, None
        if lost is None:
            return
        self._closing = True
        self._unsent.clear()
        self._reactor.forget(lost.fileno())
        try:
            self._protocol.connection_lost(error)
        finally:
            lost.close()
