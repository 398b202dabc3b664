"""The transport: listening sockets in, an application mounted on every WebSocket connection."""

from __future__ import annotations

import ssl as tls
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from socket import socket

from websockets.http11 import Request, Response

from wsserver.connection import (
    Application,
    ApplicationFactory,
    Connection,
    TransportLimits,
    encode_text_frame,
)

__all__ = [
    "Application",
    "ApplicationFactory",
    "Connection",
    "Listener",
    "Request",
    "Response",
    "TransportLimits",
    "encode_text_frame",
]

Respond = Callable[[Request], Response | Awaitable[Response | None] | None]


class Listener:
    """One port."""

    def __init__(
        self,
        *,
        limits: TransportLimits,
        application: ApplicationFactory | None,
        respond: Respond,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connections: Collection[Connection] = set()

    async def start(
        self,
        host: str = "",
        port: int = 0,
        *,
        ssl: tls.SSLContext | None = None,
        sockets: Sequence[socket] = (),
    ) -> int:
        """Listens; the bound port."""
        raise NotImplementedError

    def stop_accepting(self) -> None:
        """Takes no further connection."""
        raise NotImplementedError

    async def close(self, timeout_s: float | None = None) -> None:
        """Ends the sweep and everything still open, within a bound."""
        raise NotImplementedError
