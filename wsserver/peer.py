"""What every accepted connection has, whatever it speaks: a transport, a deadline, an end."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wsserver.transport import Listener

NEVER: Final = math.inf

OPENINGS_MAX: Final = 2_000
"""At 1,000 newcomers a second, half a second each, 500 are under way."""

OPEN, CLOSING, ENDING = range(3)
"""The phases, of which there is no way back: in use; our close frame is out, the peer's is awaited;
nothing is left to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """How long a peer may take and how much it may send: seconds in `_s`, bytes in `_bytes_max`.

    `message_bytes_max`: largest message of an authenticated connection (`limits.messageBytes`).
    `anonymous_message_bytes_max`: largest before that; what a stranger makes the server buffer.
    `connections_max`: open WebSocket connections; one more is answered 503. Bounds memory.
    `openings_max`: connections that have not finished their request; they are descriptors beyond
        `connections_max`.
    `opening_grace_s`: how long a newcomer's request may take, whoever else waits to come in.
    `opening_timeout_s`: for the TLS handshake, and again from there to the end of the request; a
        slow loris ends here.
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
    openings_max: int = OPENINGS_MAX
    opening_grace_s: float = 2.0
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


class Peer(asyncio.Protocol):
    """One accepted connection; it has no task and no timer of its own."""

    __slots__ = (
        "_deadline_s",
        "_listener",
        "_phase",
        "_reading_paused",
        "_transport",
        "remote_address",
        "wheel_second",
    )

    def __init__(self, listener: Listener, remote_address: str) -> None:
        self.remote_address = remote_address
        """IP address of the peer."""
        self.wheel_second = 0
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._phase = OPEN
        self._deadline_s = NEVER
        """When the phase must have ended, on the listener's clock."""
        self._reading_paused = False

    def abort(self) -> None:
        """Drops the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def check_deadlines(self, now_s: float, *, lenient: bool) -> None:
        """Does what is due. `lenient`: the server itself was away, so nobody is late."""
        if self._transport is None:
            return
        if now_s >= self._deadline_s and not lenient:
            self._end_phase()
        elif self._phase == OPEN:
            self._look_after(now_s, lenient=lenient)
        # What leniency let pass is looked at again in a second.
        self._schedule(max(now_s + 1, self._next_deadline_s()))

    # What the event loop calls.

    def eof_received(self) -> bool:
        """Lets the transport flush and close: a peer that half-closes has no more to ask."""
        if self._phase != ENDING:
            self._enter_ending()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets go of everything."""
        self._phase = ENDING
        self._transport = None
        self._deadline_s = NEVER
        self._forget_input()
        self._listener.detach(self)

    # What differs.

    def _look_after(self, now_s: float, *, lenient: bool) -> None:
        """Does what is due of the peer's own deadlines, while it is in use."""

    def _next_deadline_s(self) -> float:
        return self._deadline_s

    def _forget_input(self) -> None:
        """Drops what was received and not used yet."""

    def _end_phase(self) -> None:
        """The time of the phase is up."""
        assert self._transport is not None
        if self._phase != ENDING:
            self._end(linger=self._phase == CLOSING)
        elif self._transport.is_closing():
            self._transport.abort()
        else:
            # It has lingered enough; an orderly end first, for TLS has one.
            self._set_deadline(self._listener.limits.linger_timeout_s)
            self._transport.close()

    # What they share.

    def _end(self, *, linger: bool) -> None:
        """Ends the connection after all that was written.

        `linger` where the peer may still be sending: closing a socket with unread input resets the
        connection, and a reset throws away what the peer has not read yet: our close frame too.
        """
        if self._transport is None or self._phase == ENDING:
            return
        self._enter_ending()
        if not linger:
            self._transport.close()
        elif not self._transport.is_closing():
            try:
                if self._transport.can_write_eof():  # TLS cannot
                    self._transport.write_eof()
            except OSError:  # asyncio lets through that the peer is gone
                self._transport.abort()
            self._pause_reading(False)

    def _enter_ending(self) -> None:
        self._phase = ENDING
        self._forget_input()
        self._set_deadline(self._listener.limits.linger_timeout_s)

    def _pause_reading(self, pause: bool) -> None:
        if pause != self._reading_paused and self._transport is not None:
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _set_deadline(self, timeout_s: float) -> None:
        self._deadline_s = self._listener.clock() + timeout_s
        self._schedule(self._deadline_s)

    def _schedule(self, deadline_s: float) -> None:
        if deadline_s != NEVER:
            self._listener.wheel.schedule(self, deadline_s)
