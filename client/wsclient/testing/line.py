"""A connection in memory: whole messages, with the limits, clocks and close codes of a real one.

Left out is what an app can't tell: frames, the opening handshake, pings (but see `Network`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from wsclient.connection import ConnectionLost
from wsschema.close_codes import CloseCode
from wsschema.limits import Limits
from wsserver.channel import Channel
from wsserver.failures import report_failure

if TYPE_CHECKING:
    from wsclient.testing.network import Network

UNREAD_BYTES_MAX: Final = 64 * 1024
"""What may be on its way to a device before it counts as slow: a real connection's buffer."""


class Line:
    """The server's end: a channel is mounted on it. Everything here belongs to the event loop."""

    remote_address = "127.0.0.1"
    channel: Channel

    def __init__(self, network: Network) -> None:
        self.congested = False
        self.closing = False
        self.dropped = False
        """Whether it is gone for both ends, with all that was on its way."""
        self.loss: ConnectionLost | None = None
        """What the device is told once it has read what was sent before."""
        self.asked: dict[object, str] = {}
        """The methods of the calls that are not answered yet, by their ids."""
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._message_bytes_max = network.limits.anonymous_message_bytes
        self._held = False
        self._deadline: asyncio.TimerHandle | None = None
        self.restart_authentication_clock()

    @property
    def device_id(self) -> str | None:
        """Whose it is; None until it has logged in."""
        return self.channel.device_id or None

    # What the channel calls.

    def send(self, payload: bytes) -> None:
        """Sends one message to the device."""
        if self.closing:
            return
        passed = self._network.pass_down(self, payload)
        if passed is None:
            self.drop()
            return
        self._unread.append(passed)
        self._unread_bytes += len(passed)
        self.congested = self.congested or self._unread_bytes > UNREAD_BYTES_MAX
        self._network.ring()

    def send_frame(self, frame: bytes) -> None:
        """Sends what is in an unmasked text frame (RFC 6455, section 5.2)."""
        self.send(frame[{126: 4, 127: 10}.get(frame[1], 2) :])

    def close(self, code: int, reason: str = "") -> None:
        """Closes it after all that was sent."""
        if not self.closing:
            because = f" ({reason})" if reason else ""
            self._end(ConnectionLost(code, f"the server closed with {code}{because}"))

    def hold(self) -> None:
        """Delivers no messages until `release`."""
        self._held = True

    def release(self) -> None:
        """Takes up delivery again."""
        if self._held:
            self._held = False
            self._network.ring()

    def authenticated(self) -> None:
        """Stops the authentication clock for good, and takes larger messages."""
        self._message_bytes_max = self._network.limits.message_bytes
        self.stop_authentication_clock()

    def restart_authentication_clock(self) -> None:
        """Gives the device its whole time to log in once more."""
        self.stop_authentication_clock()
        self._deadline = self._loop.call_later(
            self._network.authentication_timeout_s,
            self.close,
            CloseCode.AUTHENTICATION_TIMEOUT,
            "authentication timeout",
        )

    def stop_authentication_clock(self) -> None:
        """Lets the clock stand still until it is restarted."""
        if self._deadline is not None:
            self._deadline.cancel()

    # What the device's end and the network call.

    @property
    def reads(self) -> bool:
        """Whether the server takes the next message now: back-pressure."""
        return not self._held and not self.congested

    @property
    def has_news(self) -> bool:
        """Whether there is something for the device to read, or to be told."""
        return bool(self._unread) or self.loss is not None

    def deliver(self, payload: bytes) -> None:
        """Hands the server a message."""
        if len(payload) > self._message_bytes_max:
            self.close(CloseCode.MESSAGE_TOO_BIG, "message too big")
        elif not self._network.pass_up(self, payload):
            try:
                self.channel.message_received(payload)
            except Exception as error:
                report_failure("a session failed, and its connection is closed", error)
                self.close(CloseCode.INTERNAL_ERROR, "internal error")
        self._network.ring()

    def take(self) -> bytes:
        """The next message to the device; raises ConnectionLost once there is none."""
        if not self._unread:
            assert self.loss is not None, "there is news"
            raise self.loss
        payload = self._unread.popleft()
        self._unread_bytes -= len(payload)
        if self.congested and self._unread_bytes <= UNREAD_BYTES_MAX // 4:
            self.congested = False
            self._loop.call_soon(self.channel.writable)
        self._network.ring()
        return payload

    def drop(self) -> None:
        """Ends it at both ends, and loses what is on its way."""
        if not self.dropped:
            self.dropped = True
            self._unread.clear()
            self._network.forget(self)
            self._end(ConnectionLost(None, "the connection was lost"))

    def _end(self, loss: ConnectionLost) -> None:
        self.loss = loss
        self.stop_authentication_clock()
        if not self.closing:
            self.closing = True
            # Not now: it may be the channel that is at work.
            self._loop.call_soon(self._tell_channel)
        self._network.ring()

    def _tell_channel(self) -> None:
        self.channel.connection_lost()
        self._network.ring()


class DeviceEnd:
    """The device's end, a `wsclient.connection.Connection`."""

    def __init__(self, network: Network, line: Line) -> None:
        self._network, self._line = network, line
        self._message_bytes_max = Limits().message_bytes

    async def send(self, payload: bytes) -> None:
        """Sends one message; returns once the server has it."""
        line = self._line
        await self._network.let_pass(line)
        await self._network.wait(lambda: line.reads or line.closing)
        if line.loss is not None:
            raise line.loss
        line.deliver(payload)

    async def receive(self) -> bytes:
        """The next message, whole."""
        line = self._line
        await self._network.wait(lambda: line.has_news)
        await self._network.let_pass(line)
        payload = line.take()
        if len(payload) > self._message_bytes_max:
            line.drop()
            return line.take()
        return payload

    async def close(self) -> None:
        """Closes it."""
        self._line.drop()

    def allow_messages_of(self, message_bytes: int) -> None:
        """From now on takes messages up to this size."""
        self._message_bytes_max = message_bytes
