"""Serves the gateway by uvicorn, in the event loop of the server that it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from wsserver.lbry.gateway import Gateway

REQUEST_TIMEOUT_S: Final = 10.0
"""How long a connection to the gateway may be open without a request; twice that at most."""
SOCKET_MESSAGE_BYTES_MAX: Final = 512
"""Largest message on a WebSocket of the gateway: a client has nothing to say there."""
HEAD_BYTES_MAX: Final = 16 * 1024
"""Largest head of a request to the gateway."""


class GatewayServer:
    """The gateway's port. ``start`` it, then ``close`` it."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        connections_max: int,
        ping_interval_s: float,
        pong_timeout_s: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._gateway = gateway
        self._config = uvicorn.Config(
            gateway,
            http=_Connection,
            # The one that speaks by websockets' core, as the server itself does.
            ws="websockets-sansio",
            ws_max_size=SOCKET_MESSAGE_BYTES_MAX,
            ws_ping_interval=ping_interval_s,
            ws_ping_timeout=pong_timeout_s,
            ws_per_message_deflate=False,
            lifespan="off",
            interface="asgi3",
            # Its lines would have tokens in them, which stand in queries.
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=connections_max,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        )
        self._config.load()
        self._config.ssl = tls
        self._server = _Server(self._config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, *, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen on an address, or on sockets that somebody else has bound; raises OSError."""
        listening = list(sockets) or await bind(host, port)
        await self._server.listen(listening)
        self._serving = asyncio.create_task(self._server.serve(listening))

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    def stop_accepting(self) -> None:
        """Take no newcomers from now on; requests of those who are in are answered 503."""
        self._gateway.draining = True
        if self._serving is not None:
            for server in self._server.servers:
                server.close()

    async def close(self, timeout_s: float) -> None:
        """End the connections once their requests are answered, within that time."""
        if self._serving is None:
            return
        self._server.should_exit = True
        done, _ = await asyncio.wait([self._serving], timeout=timeout_s)
        if not done:
            self._server.force_exit = True
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()
            self._serving.cancel()
            await asyncio.wait([self._serving])


class _Server(uvicorn.Server):
    """One that takes no signals, which are the whole server's, and tells when it listens."""

    async def listen(self, sockets: list[socket.socket]) -> None:
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self.main_loop()
        await self.shutdown(sockets)


class _Connection(H11Protocol):
    """A connection that is cut off where it takes its time, or is one too many."""

    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            transport.abort()
            return
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        # From here on pings tell whether the peer is there.
        self._stop_watching()
        super().handle_websocket_upgrade(event)

    def _look_again(self) -> None:
        self._watch = self.loop.call_later(REQUEST_TIMEOUT_S, self._look, self.cycle)

    def _look(self, last_cycle: object) -> None:
        """Nothing was asked since the last look: it dribbles, or has sent no request at all."""
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        idle = cycle is None or cycle.response_complete
        if idle and cycle is last_cycle:
            self.transport.abort()
        else:
            self._look_again()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()


async def bind(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address that the host has; raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with contextlib.ExitStack() as undoing:
        sockets = []
        for family, kind, number, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, number)
            undoing.callback(listening.close)
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setblocking(False)
            listening.bind(address)
            sockets.append(listening)
        undoing.pop_all()
        return sockets
