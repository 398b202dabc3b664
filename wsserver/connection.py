"""One WebSocket connection: bytes in, whole text messages out, and the other way.

It stands between an asyncio transport and websockets' Sans-I/O core, and holds no task, no timer
and no closure of its own: thousands of idle connections are the usual case. Its deadlines are
looked at by its listener's sweep. Everything here belongs to the event loop.

A connection goes through four phases and never back: opening (an HTTP request is read and
answered), open, closing (our close frame is out, the peer's is awaited) and ending (nothing is left
to say).
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as Core
from websockets.protocol import Side, State

from wsschema.close_codes import CloseCode
from wsserver.handshake import (
    HEAD_END,
    Handshake,
    Response,
    build_response,
    core_log,
    encode_response,
    read_request,
)

if TYPE_CHECKING:
    from wsserver.transport import Listener

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """How long a peer may take and how much it may send: seconds in `_s`, bytes in `_bytes_max`.

    `message_bytes_max`: largest message of an authenticated connection (`limits.messageBytes`).
    `anonymous_message_bytes_max`: largest before that; what a stranger makes the server buffer.
    `connections_max`: open WebSocket connections; one more is answered 503. Bounds memory.
    `opening_timeout_s`: from the first byte to the end of the request; a slow loris ends here.
    `authentication_timeout_s`: from the upgrade to the login (protocol, Transport).
    `ping_interval_s`: proxies cut a silent connection at 60 s (protocol, Transport).
    `pong_timeout_s`: how long a pinged peer may stay silent (protocol, Transport).
    `closing_timeout_s`: for the peer's close frame once ours is out (RFC 6455, section 7.1.1).
    `linger_timeout_s`: how long input is discarded after the half-close, so that no TCP reset
        destroys the close frame in the peer's receive buffer (RFC 1122, section 4.2.2.13).
    `write_timeout_s`: a congested peer that takes nothing for so long is cut off.
    `response_timeout_s`: for an HTTP answer that has to be awaited.
    `write_buffer_bytes_max`: unsent bytes above which a peer counts as slow (asyncio's default).
    `request_bytes_max`: an HTTP request's head; nginx allows 8 to 32 KiB by default.
    """

    message_bytes_max: int
    anonymous_message_bytes_max: int = 16 * 1024
    connections_max: int = 10_000
    opening_timeout_s: float = 10.0
    authentication_timeout_s: float = 30.0
    ping_interval_s: float = 25.0
    pong_timeout_s: float = 20.0
    closing_timeout_s: float = 5.0
    linger_timeout_s: float = 2.0
    write_timeout_s: float = 30.0
    response_timeout_s: float = 5.0
    write_buffer_bytes_max: int = 64 * 1024
    request_bytes_max: int = 16 * 1024


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


PARSE_BYTES: Final = 16 * 1024
"""How much input is parsed at a time. What waits for a slow application waits unparsed: a parsed
frame takes some 300 bytes of memory, and the smallest takes 6 on the wire."""

CLOSE_REASON_BYTES_MAX: Final = 123
"""A control frame carries 125 bytes, two of them the code (RFC 6455, section 5.5)."""

_OPENING, _OPEN, _CLOSING, _ENDING = range(4)
_NEVER: Final = math.inf

_PING: Final = b"\x89\x00"
_NO_FRAMES: Final[list[Frame]] = []
_NO_ID: Final = uuid.UUID(int=0)
_LENGTH_16: Final = struct.Struct("!BBH")
_LENGTH_64: Final = struct.Struct("!BBQ")


def encode_text_frame(payload: bytes) -> bytes:
    """One unmasked text frame (RFC 6455, section 5.2), to be sent to any number of connections."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65_536:
        return _LENGTH_16.pack(0x81, 126, length) + payload
    return _LENGTH_64.pack(0x81, 127, length) + payload


class Connection(asyncio.Protocol):
    """One peer, from its first byte to its last."""

    __slots__ = (
        "_application",
        "_authenticated",
        "_core",
        "_deadline_s",
        "_delivering",
        "_frames",
        "_held",
        "_listener",
        "_outgoing",
        "_outgoing_bytes",
        "_partial",
        "_phase",
        "_ping_at_s",
        "_pinged_at_s",
        "_reading_paused",
        "_stalled_at_s",
        "_stalled_bytes",
        "_transport",
        "_unparsed",
        "congested",
        "remote_address",
        "wheel_second",
    )

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._core: Core | None = None
        self._application: Application | None = None
        self._phase = _OPENING
        self.remote_address = ""
        """IP address of the peer."""
        self.congested = False
        """Whether the peer reads more slowly than it is sent to. Nothing is delivered meanwhile."""

        # Input: the request's head or the fragments of a message; frames yet to be delivered, last
        # one first; bytes yet to be parsed.
        self._partial: bytearray | None = None
        self._frames = _NO_FRAMES
        self._unparsed: bytes | memoryview = b""
        self._held = False
        self._delivering = False
        self._reading_paused = False

        # Output that waits for the end of the delivery or of the loop's turn, to be one write.
        self._outgoing: list[bytes] | None = None
        self._outgoing_bytes = 0

        # Deadlines, on the listener's clock.
        self.wheel_second = 0
        self._authenticated = False
        self._deadline_s = _NEVER
        """When the phase ends; of the open one, when the authentication is due."""
        self._ping_at_s = _NEVER
        self._pinged_at_s = _NEVER
        """When the first ping since the peer was last heard went out."""
        self._stalled_at_s = _NEVER
        self._stalled_bytes = 0

    # What the application calls.

    @property
    def closing(self) -> bool:
        """Whether a close was started or the peer is gone: `send` does nothing then."""
        return self._phase != _OPEN

    def send(self, payload: bytes) -> None:
        """Sends one text message; the caller answers for its being UTF-8."""
        if self._phase == _OPEN:
            self.send_frame(encode_text_frame(payload))

    def send_frame(self, frame: bytes) -> None:
        """Sends what `encode_text_frame` made; the frames of one turn go out in one write."""
        if self._phase != _OPEN:
            return
        if self._outgoing is None:
            self._outgoing = [frame]
            self._outgoing_bytes = len(frame)
            self._listener.flush_soon(self)
        else:
            self._outgoing.append(frame)
            self._outgoing_bytes += len(frame)
        if self._outgoing_bytes > self._listener.limits.write_buffer_bytes_max:
            self._flush()  # Now, so that `congested` becomes true before yet more is made.

    def close(self, code: int, reason: str = "") -> None:
        """Closes after all that was sent. No message is delivered any more.

        `code` must be one that may be sent (RFC 6455, section 7.4); `reason` is cut to what fits.
        """
        if self._phase != _OPEN:
            return
        core = self._core
        assert core is not None
        if core.state is State.OPEN:
            core.send_close(code, _cut(reason))
        self._phase = _CLOSING
        self._frames = _NO_FRAMES
        self._partial = None
        self._flush()
        self._write_control(core)
        self._set_deadline(self._listener.limits.closing_timeout_s)
        if not self._delivering:
            self._deliver()  # The peer's close may wait in what was held back.

    def hold(self) -> None:
        """Stops the delivery of messages and the reading of the socket until `release`."""
        if not self._held:
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
        if self._phase == _OPEN:
            assert self._core is not None
            self._core.max_message_size = self._listener.limits.message_bytes_max
            self._set_deadline(_NEVER)

    def restart_authentication_clock(self) -> None:
        """Gives the peer its whole time to authenticate once more, from now."""
        if self._phase == _OPEN and not self._authenticated:
            self._set_deadline(self._listener.limits.authentication_timeout_s)

    def stop_authentication_clock(self) -> None:
        """Lets the authentication clock stand still until it is restarted: a login runs."""
        if self._phase == _OPEN and not self._authenticated:
            self._set_deadline(_NEVER)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the accepted connection."""
        self._transport = cast(asyncio.Transport, transport)  # a stream: TCP or TLS over it
        peer = transport.get_extra_info("peername")
        self.remote_address = peer[0] if peer else ""
        limits = self._listener.limits
        # Both marks: uvloop's own low-water mark is 16 bytes.
        self._transport.set_write_buffer_limits(
            limits.write_buffer_bytes_max, limits.write_buffer_bytes_max // 4
        )
        self._listener.attach(self)
        self._set_deadline(limits.opening_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Takes what the peer sent; over TLS also a last chunk while reading is paused."""
        self._pinged_at_s = _NEVER
        if self._phase == _OPENING and not self._reading_paused:
            self._read_head(data)
        elif self._phase == _OPENING:
            self._unparsed = bytes(self._unparsed) + data
        elif self._phase != _ENDING:
            self._unparsed = bytes(self._unparsed) + data if self._unparsed else data
            self._deliver()

    def eof_received(self) -> bool:
        """Lets the transport flush and close: a peer that half-closes has no more to ask."""
        if self._phase != _ENDING:
            self._enter_ending()
            self._set_deadline(self._listener.limits.linger_timeout_s)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the application, and lets go of everything."""
        application, self._application = self._application, None
        self._enter_ending()
        self._core = self._transport = self._outgoing = None
        self._deadline_s = _NEVER
        self._listener.detach(self)
        if application is not None:
            try:
                application.connection_lost()
            except Exception:
                log.exception("application failed when its connection was lost")

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
        self._stalled_at_s = _NEVER
        # Not now: over TLS this comes in the middle of a write of our own.
        self._listener.loop.call_soon(self._become_writable)

    # What the listener calls.

    def check_deadlines(self, now_s: float, *, lenient: bool) -> None:
        """Does what is due. `lenient`: the server itself was away, so nobody is late."""
        if self._transport is None:
            return
        limits = self._listener.limits
        if now_s >= self._deadline_s and not lenient:
            self._end_phase()
        elif self._phase == _OPEN and not lenient and self._is_stalled(now_s):
            self._transport.abort()
        elif self._phase == _OPEN and not lenient and self._is_silent(now_s):
            self.close(CloseCode.INTERNAL_ERROR, "keepalive: no sign of life")
        elif self._phase == _OPEN and now_s >= self._ping_at_s:
            self._ping(now_s)
        self._schedule(
            max(
                now_s + 1,  # What the server's leniency let pass is looked at again.
                min(
                    self._deadline_s,
                    self._ping_at_s,
                    self._pinged_at_s + limits.pong_timeout_s,
                    self._stalled_at_s + limits.write_timeout_s,
                ),
            )
        )

    def flush(self) -> None:
        """Writes what waited for the end of the loop's turn."""
        if not self._delivering:
            self._flush()

    def answer(self, handshake: Handshake, response: Response | None) -> None:
        """Answers the request; `None` stands for the upgrade."""
        if self._phase != _OPENING or self._transport is None:
            return  # gone while the answer was awaited
        response = self._listener.admit(handshake) if response is None else response
        if response.status_code == 101:
            self._open(response)
        else:
            self._refuse(response, with_body=handshake.request.method != "HEAD")

    def shut(self) -> None:
        """Ends a connection that is not open: no more answers."""
        if self._phase == _OPENING:
            self._end(linger=False)

    def abort(self) -> None:
        """Drops the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # Opening.

    def _read_head(self, data: bytes) -> None:
        head = self._partial
        if head is None:
            head = self._partial = bytearray()
        searched = max(0, len(head) - 2)
        head += data
        found = HEAD_END.search(head, searched)
        end = len(head) if found is None else found.end()
        if end > self._listener.limits.request_bytes_max:
            limit = self._listener.limits.request_bytes_max
            self._refuse(build_response(431, f"The limit of a request is {limit:,} bytes.\n"))
        elif found is not None:
            self._partial = None
            self._unparsed = bytes(head[end:])
            handshake = read_request(bytes(head[:end]))
            if isinstance(handshake, Response):
                self._refuse(handshake)
            else:
                self._ask(handshake)

    def _ask(self, handshake: Handshake) -> None:
        answer = self._listener.ask(handshake)
        if answer is None or isinstance(answer, Response):
            self.answer(handshake, answer)
        else:
            # The awaited answer has its own timeout.
            self._set_deadline(_NEVER)
            self._regulate_reading(pause=True)
            self._listener.answer_later(self, handshake, answer)

    def _refuse(self, response: Response, *, with_body: bool = True) -> None:
        self._write([encode_response(response, with_body=with_body)])
        self._end(linger=True)

    def _open(self, response: Response) -> None:
        listener, limits = self._listener, self._listener.limits
        self._write([response.serialize()])
        # A core of its own for the frames: that of the handshake goes, and all it remembers.
        self._core = Core(
            Side.SERVER,
            max_size=limits.anonymous_message_bytes_max,
            logger=core_log,
        )
        self._core.id = _NO_ID
        self._phase = _OPEN
        self._ping_at_s = listener.clock() + listener.spread(limits.ping_interval_s)
        self._schedule(self._ping_at_s)
        self._set_deadline(limits.authentication_timeout_s)
        self._application = listener.mount(self)
        if self._application is None:
            self.close(CloseCode.INTERNAL_ERROR, "internal error")
        self._deliver()

    # Receiving.

    def _deliver(self) -> None:
        """Delivers what has come, as far as back-pressure lets it, and sends what that brought."""
        core = self._core
        assert core is not None
        self._delivering = True
        if self._outgoing is None:
            self._outgoing = []
            self._outgoing_bytes = 0
        while not self._is_blocked():
            if self._frames:
                self._receive_frame(self._frames.pop())
            elif self._unparsed:
                self._parse(core)
            else:
                break
        self._delivering = False
        self._flush()
        if not self._frames:
            self._frames = _NO_FRAMES
            # Not before: the core answers a close frame when it parses it, we after all before it.
            self._write_control(core)
            if core.eof_sent:
                self._end(linger=core.parser_exc is not None)
        self._regulate_reading()

    def _parse(self, core: Core) -> None:
        if len(self._unparsed) > PARSE_BYTES:
            chunk = memoryview(self._unparsed)
            core.receive_data(bytes(chunk[:PARSE_BYTES]))
            self._unparsed = chunk[PARSE_BYTES:]
        else:
            core.receive_data(bytes(self._unparsed))
            self._unparsed = b""
        # Only frames: requests and responses are the handshake's.
        frames = cast(list[Frame], core.events_received())
        if self._phase == _OPEN:
            frames.reverse()
            self._frames = frames
        if core.eof_sent:
            self._unparsed = b""

    def _receive_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        payload: bytes | bytearray
        if opcode is Opcode.TEXT:
            payload = cast(bytes, frame.data)  # what the core hands over when it has unmasked it
            if not frame.fin:
                self._partial = bytearray(payload)
                return
        elif opcode is Opcode.CONT:
            assert self._partial is not None  # The core refuses a continuation of nothing.
            self._partial += frame.data
            if not frame.fin:
                return
            payload, self._partial = self._partial, None
        elif opcode is Opcode.BINARY:
            self.close(CloseCode.UNSUPPORTED_DATA, "text messages only")
            return
        else:
            return  # Pings and closes are answered by the core, a pong is a sign of life.
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
        if self._transport is not None and not self._is_blocked() and self._core is not None:
            self._deliver()

    def _become_writable(self) -> None:
        if self._application is not None and self._phase == _OPEN and not self.congested:
            try:
                self._application.writable()
            except Exception as error:
                self._fail(error)
        self._resume()

    def _fail(self, error: Exception) -> None:
        log.error("application failed; its connection is closed", exc_info=error)
        self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def _is_blocked(self) -> bool:
        if self._phase == _OPEN:
            return self.congested or self._held
        # A closing connection reads on for the peer's close, but not for pings by the thousand.
        return self.congested and self._phase == _CLOSING

    def _regulate_reading(self, *, pause: bool = False) -> None:
        pause = pause or self._is_blocked()
        if pause == self._reading_paused or self._transport is None or self._delivering:
            return
        self._reading_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._pinged_at_s = _NEVER  # It was not silent, it was not listened to.
            self._transport.resume_reading()

    # Sending.

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, None
        if outgoing:
            self._write(outgoing)

    def _write_control(self, core: Core) -> None:
        """Writes what the core has to say: pongs and the close frame."""
        chunks = core.data_to_send()
        if core.eof_sent:
            chunks = [chunk for chunk in chunks if chunk]  # its sign for the half-close
        if chunks:
            self._write(chunks)

    def _write(self, chunks: list[bytes]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.congested:
            self._stalled_bytes += sum(map(len, chunks))
        if len(chunks) == 1:
            transport.write(chunks[0])
        else:
            transport.writelines(chunks)

    # Ending.

    def _end(self, *, linger: bool) -> None:
        """Ends the connection after all that was written.

        `linger` where the peer may still be sending: closing a socket with unread input resets the
        connection, and a reset throws away what the peer has not read yet: our close frame too.
        """
        if self._transport is None or self._phase == _ENDING:
            return
        self._enter_ending()
        self._set_deadline(self._listener.limits.linger_timeout_s)
        if not linger:
            self._transport.close()
        elif not self._transport.is_closing():
            try:
                if self._transport.can_write_eof():  # TLS cannot
                    self._transport.write_eof()
            except OSError:  # asyncio lets through that the peer is gone
                self._transport.abort()
            self._regulate_reading()

    def _enter_ending(self) -> None:
        self._phase = _ENDING
        self._frames = _NO_FRAMES
        self._unparsed = b""
        self._partial = None

    def _end_phase(self) -> None:
        """The time of the phase is up."""
        assert self._transport is not None
        if self._phase == _OPENING:
            self._end(linger=False)
        elif self._phase == _OPEN:
            self.close(CloseCode.AUTHENTICATION_TIMEOUT, "authentication timeout")
        elif self._phase == _CLOSING:
            self._end(linger=True)
        elif self._transport.is_closing():
            self._transport.abort()
        else:
            # It has lingered enough; an orderly end first, for TLS has one.
            self._set_deadline(self._listener.limits.linger_timeout_s)
            self._transport.close()

    # Deadlines.

    def _set_deadline(self, timeout_s: float) -> None:
        self._deadline_s = self._listener.clock() + timeout_s
        if timeout_s != _NEVER:
            self._schedule(self._deadline_s)

    def _schedule(self, deadline_s: float) -> None:
        if deadline_s != _NEVER:
            self._listener.wheel.schedule(self, deadline_s)

    def _ping(self, now_s: float) -> None:
        interval_s = self._listener.limits.ping_interval_s
        # In step with its first, so that those who came at once stay spread after a pause.
        self._ping_at_s += interval_s * (1 + (now_s - self._ping_at_s) // interval_s)
        assert self._core is not None
        if not self.congested and self._core.state is State.OPEN:
            self._write([_PING])
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

Answer = Response | None | Awaitable[Response | None]


def _cut(reason: str) -> str:
    return reason.encode()[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
