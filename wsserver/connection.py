"""One WebSocket connection: bytes in, whole text messages out, and the other way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """How long a peer may take and how much it may send."""

    message_bytes_max: int
    anonymous_message_bytes_max: int = 16_384
    connections_max: int = 10_000
    opening_timeout_s: float = 10.0
    authentication_timeout_s: float = 30.0
    ping_interval_s: float = 25.0
    pong_timeout_s: float = 20.0
    closing_timeout_s: float = 5.0
    linger_timeout_s: float = 2.0
    write_timeout_s: float = 30.0
    response_timeout_s: float = 5.0
    write_buffer_bytes_max: int = 65_536
    request_bytes_max: int = 16_384


class Application(Protocol):
    """What is mounted on one connection. Called on the event loop only."""

    def message_received(self, payload: bytes | bytearray) -> None:
        """Takes one whole text message, valid UTF-8."""

    def writable(self) -> None:
        """Hears that the connection was congested and is no longer."""

    def connection_lost(self) -> None:
        """Hears, exactly once and however it came, that the connection has ended."""


class Connection(asyncio.Protocol):
    """One connection, from its first byte to its last."""

    remote_address: str
    congested: bool
    closing: bool

    def send(self, payload: bytes) -> None:
        """Sends one text message."""
        raise NotImplementedError

    def send_frame(self, frame: bytes) -> None:
        """Sends an encoded text frame, shared among many connections."""
        raise NotImplementedError

    def close(self, code: int, reason: str = "") -> None:
        """Closes after all that was sent."""
        raise NotImplementedError

    def hold(self) -> None:
        """Stops the delivery of messages."""
        raise NotImplementedError

    def release(self) -> None:
        """Takes it up again."""
        raise NotImplementedError

    def authenticated(self) -> None:
        """Stops the authentication clock for good and raises the message limit."""
        raise NotImplementedError

    def restart_authentication_clock(self) -> None:
        """Starts the authentication clock anew."""
        raise NotImplementedError

    def stop_authentication_clock(self) -> None:
        """Stops the authentication clock until it is restarted."""
        raise NotImplementedError


ApplicationFactory = Callable[[Connection], Application]


def encode_text_frame(payload: bytes) -> bytes:
    """One unmasked text frame."""
    raise NotImplementedError
