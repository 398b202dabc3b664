"""One WebSocket connection: bytes in, whole text messages out, and the other way.

It stands between an asyncio transport and websockets' Sans-I/O core, and holds no task, no timer
and no closure of its own: thousands of idle connections are the usual case. Its deadlines are
looked at by its listener's sweep. Everything here belongs to the event loop.

A message in one plain frame, as nearly all come, is read without the core, in a fifth of the time.
Everything else is the core's, one frame at a time: fragments, control frames, every error. There is
no core until such a frame comes: pings and pongs, all that an idle connection sees, wake none.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as Core
from websockets.protocol import Side, State

from wsschema.close_codes import CloseCode
from wsserver import logbook
from wsserver.failures import report_failure
from wsserver.frames import answer_heartbeat, encode_text_frame, measure_frame, read_text_message
from wsserver.handshake import core_log
from wsserver.peer import CLOSING, ENDING, NEVER, OPEN, Peer
from wsserver.reactor import Stream

if TYPE_CHECKING:
    from wsserver.transport import Listener


class Application(Protocol):
    """What is mounted on one WebSocket connection. Called on the event loop only.

    An exception out of any of these closes that connection with 1011 and is logged.
    """

    def message_received(self, payload: bytes | bytearray) -> None:
        """Takes one whole text message, valid UTF-8."""
        ...

    def writable(self) -> None:
        """Hears that the connection was congested and is no longer."""
        ...

    def connection_lost(self) -> None:
        """Hears, exactly once and however it came, that the connection is gone."""
        ...


CLOSE_REASON_BYTES_MAX: Final = 123
"""A control frame carries 125 bytes, two of them the code (RFC 6455, section 5.5)."""

ABNORMAL_CLOSURE: Final = 1006
"""What stands for the end of a connection that nobody closed (RFC 6455, section 7.4.1)."""

_PING: Final = b"\x89\x00"
_NO_ID: Final = uuid.UUID(int=0)


class Connection(Peer):
    """One WebSocket connection, from the upgrade to its end."""

    __slots__ = (
        "_application",
        "_authenticated",
        "_close",
        "_core",
        "_delivering",
        "_fragments",
        "_held",
        "_message_bytes_max",
        "_missing",
        "_opened_at_s",
        "_opened_at_s",
        "_outgoing",
        "_outgoing_bytes",
        "_ping_at_s",
        "_pinged_at_s",
        "_position",
        "_stalled_at_s",
        "_stalled_bytes",
        "_unparsed",
        "bytes_received",
        "bytes_sent",
        "congested",
        "messages",
    )

    def __init__(
        self, listener: Listener, transport: asyncio.Transport, remote_address: str
    ) -> None:
        super().__init__(listener, remote_address)
        self.congested = False
        """Whether the peer reads more slowly than it is sent to. Nothing is delivered meanwhile."""
        self._transport = transport
        self._application: Application | None = None
        self._message_bytes_max = listener.limits.anonymous_message_bytes_max
        self._core: Core | None = None
        self._close: tuple[int, str] | None = None

        # What the log tells of it at the end.
        self._opened_at_s = listener.clock()
        self.messages = 0
        """Messages that were received."""
        self.bytes_received = self.bytes_sent = 0

        # Input: fragments of a message; what is not parsed yet, from a position on; how many bytes
        # the core still lacks of the frame that it was given.
        self._fragments: bytearray | None = None
        self._unparsed = b""
        self._position = 0
        self._missing = 0
        self._held = False
        self._delivering = False

        # Output that waits for the end of the delivery or of the loop's turn, to be one write.
        self._outgoing: list[bytes] | None = None
        self._outgoing_bytes = 0

        # Times on the listener's clock.
        self._authenticated = False
        self._ping_at_s = NEVER
        self._pinged_at_s = NEVER
        """When the first ping since the peer was last heard went out."""
        self._stalled_at_s = NEVER
        """Since when a congested peer has taken nothing, as far as was looked."""
        self._stalled_bytes = 0

    def start(self, received: bytes) -> None:
        """Mounts the application, and takes what came right behind the request."""
        listener = self._listener
        self._ping_at_s = listener.clock() + listener.spread(listener.limits.ping_interval_s)
        self._schedule(self._ping_at_s)
        self._set_deadline(listener.limits.authentication_timeout_s)
        self._application = listener.mount(self)
        if self._application is None:
            self.close(CloseCode.INTERNAL_ERROR, "internal error")
        elif received:
            self.data_received(received)

    # What the application calls.

    @property
    def closing(self) -> bool:
        """Whether a close was started or the peer is gone: `send` does nothing then."""
        return self._phase != OPEN

    def find_age_s(self) -> float:
        """How long ago it opened."""
        return self._listener.clock() - self._opened_at_s

    def find_close(self) -> tuple[int, str]:
        """The code that it is or was closed with, and our reason; 1006 where it broke off.

        A peer's own reason is left out: it may be anything.
        """
        if self._close is not None:
            return self._close
        core = self._core
        frame = None if core is None else core.close_rcvd or core.close_sent
        return (ABNORMAL_CLOSURE if frame is None else frame.code, "")

    def send(self, payload: bytes) -> None:
        """Sends one text message; the caller answers for its being UTF-8."""
        if self._phase == OPEN:
            self.send_frame(encode_text_frame(payload))

    def send_frame(self, frame: bytes) -> None:
        """Sends what `encode_text_frame` made; the frames of one turn go out in one write."""
        if self._phase != OPEN:
            return
        outgoing = self._outgoing
        if outgoing is None:
            self._outgoing = [frame]
            self._outgoing_bytes = len(frame)
            if not self._delivering:
                self._listener.flush_soon(self)
        else:
            outgoing.append(frame)
            self._outgoing_bytes += len(frame)
        if self._outgoing_bytes > self._listener.limits.write_buffer_bytes_max:
            self.flush()  # Now, so that `congested` becomes true before yet more is made.

    def close(self, code: int, reason: str = "") -> None:
        """Closes after all that was sent. No message is delivered any more.

        `code` must be one that may be sent (RFC 6455, section 7.4); `reason` is cut to what fits.
        """
        if self._phase != OPEN:
            return
        core = self._wake_core()
        if core.state is State.OPEN:
            core.send_close(code, _cut(reason))
            self._close = (code, reason)
        self._phase = CLOSING
        self._held = False
        self._fragments = None  # What is unparsed stays: the peer's close may be in it.
        self.flush()
        self._set_deadline(self._listener.limits.closing_timeout_s)
        if not self._delivering:
            self._deliver()

    def hold(self) -> None:
        """Stops the delivery of messages and the reading of the socket until `release`."""
        if not self._held and self._phase == OPEN:
            self._held = True
            self._regulate_reading()

    def release(self) -> None:
        """Takes up delivery again: soon, never inside this call."""
        if self._held:
            self._held = False
            if not self._delivering:
                self._listener.loop.call_soon(self._resume)

    def authenticated(self) -> None:
        """Stops the authentication clock for good and raises the message limit."""
        self._authenticated = True
        if isinstance(self._transport, Stream):
            self._transport.established = True
        if self._phase == OPEN:
            self._message_bytes_max = self._listener.limits.message_bytes_max
            if self._core is not None:
                self._core.max_message_size = self._message_bytes_max
            self._set_deadline(NEVER)

    def restart_authentication_clock(self) -> None:
        """Gives the peer its whole time to authenticate once more, from now."""
        if self._phase == OPEN and not self._authenticated:
            self._set_deadline(self._listener.limits.authentication_timeout_s)

    def stop_authentication_clock(self) -> None:
        """Lets the authentication clock stand still until it is restarted: a login runs."""
        if self._phase == OPEN and not self._authenticated:
            self._set_deadline(NEVER)

    # What the event loop calls.

    def data_received(self, data: bytes) -> None:
        """Takes what the peer sent; over TLS also a last chunk while reading is paused."""
        self._pinged_at_s = NEVER
        self.bytes_received += len(data)
        if self._phase != ENDING:
            self._unparsed = self._unparsed[self._position :] + data if self._unparsed else data
            self._position = 0
            self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the application."""
        super().connection_lost(exc)
        self._outgoing = None
        application, self._application = self._application, None
        if application is not None:
            self._listener.observe_end(self, application)
        self._listener.tallies.count_close(self._core)
        if self._core is not None:
            # It and its parser refer to each other; and the wheel holds this object for a while.
            self._core.parser.close()
            self._core = None
        if application is not None:
            try:
                application.connection_lost()
            except Exception as error:
                logbook.FAILURE_OUTSIDE.log(
                    what="an application failed when its connection was lost", error=error
                )

    def pause_writing(self) -> None:
        """Hears that the write buffer is above its high-water mark."""
        assert self._transport is not None
        self.congested = True
        self._stalled_at_s = self._listener.clock()
        self._stalled_bytes = self._transport.get_write_buffer_size()
        self._schedule(self._stalled_at_s + self._listener.limits.write_timeout_s)
        self._regulate_reading()

    def resume_writing(self) -> None:
        """Hears that the write buffer is below its low-water mark."""
        self.congested = False
        self._stalled_at_s = NEVER
        # Not now: over TLS this comes in the middle of a write of our own.
        self._listener.loop.call_soon(self._become_writable)

    # What the listener calls.

    def flush(self) -> None:
        """Writes what was sent, and behind it the core's pongs and close frame, in one write."""
        outgoing, self._outgoing = self._outgoing, None
        core, transport = self._core, self._transport
        if core is not None and core.writes:
            # An empty chunk is its sign for the half-close.
            outgoing = [*(outgoing or ()), *filter(None, core.data_to_send())]
        if not outgoing or transport is None or transport.is_closing():
            return
        if self.congested:
            self._stalled_bytes += sum(map(len, outgoing))
        if len(outgoing) == 1:
            self.bytes_sent += len(outgoing[0])
            transport.write(outgoing[0])
        else:
            self.bytes_sent += sum(map(len, outgoing))
            transport.writelines(outgoing)

    # Receiving.

    def _deliver(self) -> None:
        """Delivers what has come, as far as back-pressure lets it, and sends what that brought."""
        self._delivering = True
        # Once the end has begun nothing is unparsed, so that the phase need not be looked at.
        while self._unparsed and not (self._held or self.congested):
            if self._missing == 0 and self._fragments is None and self._phase == OPEN:
                found = read_text_message(self._unparsed, self._position, self._message_bytes_max)
                if found is not None:
                    payload, end = found
                    self._advance(end)
                    self._receive_message(payload)
                    continue
            if not self._receive_other():
                break
        self._delivering = False
        core = self._core
        if core is not None or self._outgoing is not None:
            self.flush()
        if core is not None and core.eof_sent:
            self._end(linger=core.parser_exc is not None)
        if self._held or self.congested or self._reading_paused:
            self._regulate_reading()

    def _advance(self, end: int) -> None:
        if end == len(self._unparsed):
            self._unparsed = b""
        else:
            self._position = end

    def _receive_other(self) -> bool:
        """Takes what is no plain message: a frame, or what there is of it.

        False where too little of its header has come.
        """
        start = self._position
        size = self._missing or measure_frame(self._unparsed, start)
        if size is None:
            return False
        if self._core is None:
            answer = answer_heartbeat(self._unparsed, start, size)
            if answer is not None:
                self._advance(start + size)
                if answer:
                    self.send_frame(answer)
                return True
        core = self._wake_core()
        part = self._unparsed[start : start + size]
        self._missing = size - len(part)
        self._advance(start + len(part))
        core.receive_data(part)
        # Only frames: requests and responses are the handshake's.
        for frame in cast(list[Frame], core.events_received()):
            if self._phase == OPEN:
                self._receive_frame(frame)
        if core.eof_sent:
            self._forget_input()
        return True

    def _wake_core(self) -> Core:
        if self._core is None:
            self._core = Core(Side.SERVER, max_size=self._message_bytes_max, logger=core_log)
            self._core.id = _NO_ID
        return self._core

    def _receive_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        payload: bytes | bytearray
        if opcode is Opcode.TEXT:
            payload = cast(bytes, frame.data)  # what the core hands over when it has unmasked it
            if not frame.fin:
                self._fragments = bytearray(payload)
                return
        elif opcode is Opcode.CONT:
            assert self._fragments is not None  # The core refuses a continuation of nothing.
            self._fragments += frame.data
            if not frame.fin:
                return
            payload, self._fragments = self._fragments, None
        elif opcode is Opcode.BINARY:
            self.close(CloseCode.UNSUPPORTED_DATA, "text messages only")
            return
        else:
            return  # A ping or a close, which the core answers, or a pong.
        self._receive_message(payload)

    def _receive_message(self, payload: bytes | bytearray) -> None:
        self.messages += 1
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError:
                self.close(CloseCode.INVALID_DATA, "a text message must be UTF-8")
                return
        assert self._application is not None
        try:
            self._application.message_received(payload)
        except Exception as error:
            self._fail(error)

    def _resume(self) -> None:
        if self._transport is not None and not self._is_blocked():
            self._deliver()

    def _become_writable(self) -> None:
        if self._application is not None and self._phase == OPEN and not self.congested:
            try:
                self._application.writable()
            except Exception as error:
                self._fail(error)
        self._resume()

    def _fail(self, error: Exception) -> None:
        report_failure("an application failed, and its connection is closed", error)
        self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def _is_blocked(self) -> bool:
        # A closing connection reads on for the peer's close, but not for pings by the thousand.
        return (self._held or self.congested) and self._phase != ENDING

    def _regulate_reading(self) -> None:
        if not self._delivering:
            self._pause_reading(self._is_blocked())

    def _pause_reading(self, pause: bool) -> None:
        if self._reading_paused and not pause:
            self._pinged_at_s = NEVER  # It was not silent, it was not listened to.
        super()._pause_reading(pause)

    def _forget_input(self) -> None:
        self._unparsed = b""
        self._fragments = None

    # Deadlines.

    def _next_deadline_s(self) -> float:
        limits = self._listener.limits
        if self._phase != OPEN:
            return self._deadline_s
        return min(
            self._deadline_s,
            self._ping_at_s,
            self._pinged_at_s + limits.pong_timeout_s,
            self._stalled_at_s + limits.write_timeout_s,
        )

    def _look_after(self, now_s: float, *, lenient: bool) -> None:
        if not lenient and self._is_stalled(now_s):
            self._listener.tallies.stalled += 1
            self.abort()
        elif not lenient and self._is_silent(now_s):
            self.close(CloseCode.INTERNAL_ERROR, "keepalive: no sign of life")
            # Who is not there can't answer it: the device is offline from now on.
            self._end(linger=False)
        elif now_s >= self._ping_at_s:
            self._ping(now_s)

    def _end_phase(self) -> None:
        if self._phase == OPEN:
            self.close(CloseCode.AUTHENTICATION_TIMEOUT, "authentication timeout")
        else:
            super()._end_phase()

    def _ping(self, now_s: float) -> None:
        interval_s = self._listener.limits.ping_interval_s
        # In step with its first, so that those who came at once stay spread after a pause.
        self._ping_at_s += interval_s * (1 + (now_s - self._ping_at_s) // interval_s)
        if not self.congested:
            self._outgoing = [*(self._outgoing or ()), _PING]
            self.flush()
            self._pinged_at_s = min(self._pinged_at_s, now_s)

    def _is_silent(self, now_s: float) -> bool:
        waited_s = now_s - self._pinged_at_s
        return waited_s >= self._listener.limits.pong_timeout_s and not self._reading_paused

    def _is_stalled(self, now_s: float) -> bool:
        """Whether a congested peer has taken nothing in its time; what it took gives it anew."""
        if now_s - self._stalled_at_s < self._listener.limits.write_timeout_s:
            return False
        assert self._transport is not None
        unsent = self._transport.get_write_buffer_size()
        if unsent >= self._stalled_bytes:
            return True
        self._stalled_at_s = now_s
        self._stalled_bytes = unsent
        return False


ApplicationFactory = Callable[[Connection], Application]
"""Mounts an application on a connection that has just opened; it may send and close already."""


def _cut(reason: str) -> str:
    return reason.encode()[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
