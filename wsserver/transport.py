"""The transport: a listening port, an application on every WebSocket connection that comes in.

`Listener` is the way in. It is built of `wsserver.opening` (a connection while it speaks HTTP),
`wsserver.connection` (once it is a WebSocket), `wsserver.peer` (what the two share),
`wsserver.reactor` (their sockets), `wsserver.handshake` (requests and responses), `wsserver.frames`
(the plain ones) and `wsserver.deadlines` (the wheel of the sweep).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import ssl as tls
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

from wsschema.close_codes import CloseCode
from wsserver import logbook
from wsserver.connection import (
    Application,
    ApplicationFactory,
    Connection,
)
from wsserver.deadlines import Wheel
from wsserver.failures import report_failure
from wsserver.handshake import Handshake, Request, Response, build_response
from wsserver.opening import Opening
from wsserver.peer import NEVER, Peer, TransportLimits
from wsserver.proxies import Network, find_client, is_trusted
from wsserver.reactor import ACCEPT_BACKLOG, ACCEPT_RETRY_INTERVAL_S, HAS_EPOLL, Reactor
from wsserver.tallies import Tallies
from wsserver.throttle import address_key

__all__ = [
    "Answer",
    "Application",
    "ApplicationFactory",
    "Connection",
    "Listener",
    "Request",
    "Respond",
    "Response",
    "TransportLimits",
    "bind",
    "build_response",
]

Answer = Response | Awaitable[Response | None] | None

Respond = Callable[[Request], Answer]
"""Answers an HTTP request (GET or HEAD), at once or awaited; `None` goes on with the upgrade."""

SWEEP_INTERVAL_S: Final = 1.0
"""How exact a deadline is."""

SWEPT_AT_ONCE: Final = 50
"""Connections that are looked at in one turn of the loop: to ping so many takes half a millisecond.
Of 10,000 sessions 400 are due each second."""

SWEEP_LATE_S: Final = 2.0
"""A sweep that is later than this means that the server was away, and not its peers."""

REFUSALS_REPORT_INTERVAL_S: Final = 60.0
"""How often the log tells of newcomers that were dropped: a crowd costs a line, not a disk."""

OPENINGS_SLICE_S: Final = 0.00025
"""How long a turn of the loop may open newcomers, one at least: those who are in wait no longer."""

RETRY_AFTER_S: Final = 5
"""What a client is told that finds the server full."""

_GOLDEN_RATIO: Final = 0.618_033_988_749_895


class Listener:
    """One port, the connections that came in by it, and the sweep over their deadlines.

    `application` is mounted on each connection that opens; without one the port speaks plain HTTP
    alone. `respond` sees every well-formed request first. `admit_peer` is asked for every newcomer,
    by what counts as its address (`address_key`), before a byte is read. `trusted_proxies` are not
    asked for; whom they connect for is who `X-Forwarded-For` says. `observe_end` hears of every
    connection that had an application and is over. `clock` gives seconds that never go back.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        *,
        limits: TransportLimits,
        application: ApplicationFactory | None,
        respond: Respond,
        admit_peer: Callable[[str], bool] | None = None,
        trusted_proxies: Sequence[Network] = (),
        observe_end: Callable[[Connection, Any], None] = lambda connection, application: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.observe_end = observe_end
        self.wheel: Wheel[Peer] = Wheel()
        self.tallies = Tallies()
        self._application = application
        self._respond = respond
        self._admit_peer = admit_peer
        self._trusted_proxies = trusted_proxies
        self._open: set[Connection] = set()
        self._openings: dict[Opening, asyncio.Task[None] | None] = {}
        """Oldest first, each with its TLS handshake where there is one."""
        self._asking: deque[Opening] = deque()
        """Those whose request has come, in that order; perhaps gone since."""
        self._refused = 0
        self._refusals_reported_at_s = -NEVER
        self._gone = asyncio.Event()
        self._opened = 0
        self._unflushed: list[Connection] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._reactor: Reactor | None = None
        self._accepting: list[asyncio.Task[None]] = []
        self._swept_at_s = 0.0
        self._lenient_until_s = 0.0
        self._sweep_timer: asyncio.TimerHandle | None = None

    # What the server calls.

    @property
    def connections(self) -> Collection[Connection]:
        """The WebSocket connections, from the upgrade until they are gone."""
        return self._open

    @property
    def openings(self) -> int:
        """Connections that have not finished their request."""
        return len(self._openings)

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl: tls.SSLContext | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> int:
        """Listens on an address, or on `sockets` (bound by somebody else); gives the port.

        Raises:
            OSError: the address is taken or not ours.
        """
        self.loop = asyncio.get_running_loop()
        listening = list(sockets) or await bind(host, port)
        port = listening[0].getsockname()[1]
        for bound in listening:
            bound.setblocking(False)
            bound.listen(ACCEPT_BACKLOG)
        if ssl is None and HAS_EPOLL:
            self._reactor = Reactor(self.loop, self._adopt)
            for bound in listening:
                self._reactor.listen(bound)
        else:
            for bound in listening:
                accepting = self.loop.create_task(self._accept(bound, ssl))
                accepting.add_done_callback(functools.partial(_close_behind, bound))
                self._accepting.append(accepting)
        self._swept_at_s = self.clock()
        self._sweep_timer = self.loop.call_later(SWEEP_INTERVAL_S, self._tick)
        return port

    def stop_accepting(self) -> None:
        """Closes the port to newcomers; those who are in stay."""
        if self._reactor is not None:
            self._reactor.stop_listening()
        for accepting in self._accepting:
            accepting.cancel()

    async def settle(self, timeout_s: float) -> None:
        """Returns once whoever has connected has asked, and been answered; or when time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._openings:
                    self._gone.clear()
                    await self._gone.wait()

    async def close(self, timeout_s: float | None = None) -> None:
        """Closes every connection that is left (1001), and drops it after `timeout_s`.

        Unless told otherwise it waits as long as the limits let a peer take.
        """
        self.stop_accepting()
        if timeout_s is None:
            timeout_s = self.limits.closing_timeout_s + 2 * self.limits.linger_timeout_s
        for task in self._answering:
            task.cancel()
        for connection in tuple(self._open):
            connection.close(CloseCode.GOING_AWAY, "the server stops")
        for opening, securing in tuple(self._openings.items()):
            opening.shut()
            if securing is not None:
                securing.cancel()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_gone()
        except TimeoutError:
            for peer in (*self._open, *self._openings):
                peer.abort()
            await self._all_gone()
        finally:
            if self._sweep_timer is not None:
                self._sweep_timer.cancel()
            if self._reactor is not None:
                self._reactor.close()
                self._reactor = None

    def sweep(self) -> None:
        """Looks at every connection that has something due. Runs by itself once a second."""
        now_s = self.clock()
        if now_s - self._swept_at_s > SWEEP_INTERVAL_S + SWEEP_LATE_S:
            # What the peers sent meanwhile is unread yet, and their own timers may have run out.
            self._lenient_until_s = now_s + self.limits.pong_timeout_s
        self._swept_at_s = now_s
        self._check_some(self.wheel.take_due(now_s), now_s)
        if self._refused and now_s >= self._refusals_reported_at_s + REFUSALS_REPORT_INTERVAL_S:
            logbook.NEWCOMERS_DROPPED.log(count=self._refused)
            self._refused, self._refusals_reported_at_s = 0, now_s

    # What its connections call.

    def take_in(self, address: str) -> Opening | None:
        """Takes who has connected into account; None, and nothing taken, if it may not be."""
        if not self._is_admitted(address) or not self._make_room():
            self._refused += 1
            return None
        opening = Opening(self, address)
        self._openings[opening] = None
        return opening

    def find_client(self, opening: Opening, handshake: Handshake) -> str:
        """The address of who asks: the peer's, or whom a trusted one asks for."""
        if not self._trusted_proxies:
            return opening.remote_address
        forwarded_for = handshake.request.headers.get_all("X-Forwarded-For")
        return find_client(opening.remote_address, forwarded_for, self._trusted_proxies)

    def detach(self, peer: Peer) -> None:
        """Forgets a connection that is gone, or an opening that is over."""
        if isinstance(peer, Connection):
            self._open.discard(peer)
        elif isinstance(peer, Opening):
            self._openings.pop(peer, None)
        if not self._open or not self._openings:
            self._gone.set()

    def ask_soon(self, opening: Opening) -> None:
        """Has the connection ask when its turn comes."""
        if not self._asking:
            self.loop.call_soon(self._open_some)
        self._asking.append(opening)

    def ask(self, handshake: Handshake) -> Answer:
        """The answer to a request; 500 where none could be made."""
        try:
            return self._respond(handshake.request)
        except Exception as error:
            logbook.FAILURE_OUTSIDE.log(what="no answer to an HTTP request", error=error)
            return build_response(500, "Internal error.\n")

    def answer_later(
        self, opening: Opening, handshake: Handshake, answer: Awaitable[Response | None]
    ) -> None:
        """Has the connection answer once the answer is there; 503 if that takes too long."""
        task = self.loop.create_task(self._await_answer(opening, handshake, answer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def admit(self, handshake: Handshake) -> bytes | Response:
        """The upgrade (101) as it is sent, or why there is none."""
        if self._application is None:
            return build_response(404, "Not found.\n")
        answer = handshake.accept()
        if isinstance(answer, bytes) and len(self._open) >= self.limits.connections_max:
            self.tallies.refusals["connections_max"] += 1
            return build_response(
                503, "Too many connections.\n", headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        return answer

    def mount(self, connection: Connection) -> Application | None:
        """The application of a connection that has just opened; `None` if it failed."""
        assert self._application is not None
        self._open.add(connection)
        try:
            return self._application(connection)
        except Exception as error:
            logbook.FAILURE_OUTSIDE.log(
                what="no application for a connection; it is closed", error=error
            )
            return None

    def spread(self, interval_s: float) -> float:
        """A first interval between half and the whole, evenly spread over those who ask."""
        self._opened += 1
        return interval_s * (0.5 + 0.5 * (self._opened * _GOLDEN_RATIO % 1))

    def flush_soon(self, connection: Connection) -> None:
        """Has the connection write what it gathers in this turn of the loop."""
        if not self._unflushed:
            self.loop.call_soon(self._flush)
        self._unflushed.append(connection)

    # Its own affairs.

    def _is_admitted(self, address: str) -> bool:
        if self._admit_peer is None or is_trusted(address, self._trusted_proxies):
            return True
        return self._admit_peer(address_key(address))

    def _make_room(self) -> bool:
        """Whether one more may open: the oldest makes room, once it had time enough to ask."""
        if len(self._openings) < self.limits.openings_max:
            return True
        oldest, securing = next(iter(self._openings.items()))
        if self.clock() - oldest.opened_at_s < self.limits.opening_grace_s:
            self.tallies.refusals["openings_max"] += 1
            return False
        self.detach(oldest)
        oldest.abort()
        if securing is not None:
            securing.cancel()
        return True

    def _check_some(self, due: list[Peer], now_s: float) -> None:
        """Looks at the deadlines of as many as a turn of the loop may take; at the others next."""
        for peer in due[:SWEPT_AT_ONCE]:
            peer.check_deadlines(now_s, lenient=now_s < self._lenient_until_s)
        if len(due) > SWEPT_AT_ONCE:
            self.loop.call_soon(self._check_some, due[SWEPT_AT_ONCE:], now_s)

    def _open_some(self) -> None:
        """Answers those who ask, for as long as a turn may take; the others in the next."""
        until_s = self.clock() + OPENINGS_SLICE_S
        try:
            while self._asking:
                self._asking.popleft().ask()
                if self.clock() >= until_s:
                    break
        finally:
            # A failure of ours costs one of them, and a turn.
            if self._asking:
                self.loop.call_soon(self._open_some)

    async def _accept(self, listening: socket.socket, context: tls.SSLContext | None) -> None:
        """Accepts by hand, for asyncio shows a peer only after it has spoken TLS."""
        while True:
            try:
                accepted, address = await self.loop.sock_accept(listening)
            except ConnectionAbortedError:
                continue  # It was gone before it was taken.
            except OSError as error:
                logbook.CANNOT_ACCEPT.log(failure=error.strerror)
                await asyncio.sleep(ACCEPT_RETRY_INTERVAL_S)
                continue
            opening = self._greet(accepted, address)
            if opening is not None:
                opens = self._open_transport(opening, accepted, context)
                self._openings[opening] = self.loop.create_task(opens)
            await asyncio.sleep(0)  # A crowd takes turns with everybody else.

    def _adopt(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        opening = self._greet(accepted, address)
        if opening is not None:
            assert self._reactor is not None
            try:
                self._reactor.adopt(accepted, opening)
            except BaseException:
                self.detach(opening)
                accepted.close()
                raise

    def _greet(self, accepted: socket.socket, address: tuple[str, int]) -> Opening | None:
        """Takes an accepted connection into account, or drops it."""
        opening = None
        try:
            # Before HTTP and TLS, which cost several times what this does.
            opening = self.take_in(address[0])
        except Exception as error:
            logbook.FAILURE_OUTSIDE.log(what="a newcomer could not be taken in", error=error)
        if opening is None:
            accepted.close()
        return opening

    async def _open_transport(
        self, opening: Opening, accepted: socket.socket, context: tls.SSLContext | None
    ) -> None:
        try:
            await self.loop.connect_accepted_socket(
                lambda: opening,
                accepted,
                ssl=context,
                ssl_handshake_timeout=self.limits.opening_timeout_s if context else None,
                ssl_shutdown_timeout=self.limits.linger_timeout_s if context else None,
            )
        except BaseException as error:
            self.detach(opening)
            # A handshake that fails is the peer's affair; ssl.SSLError is an OSError.
            if not isinstance(error, OSError):
                raise

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, []
        for connection in unflushed:
            try:
                connection.flush()
            except Exception as error:
                # What it was to be told is lost, so it has to ask again; the others lose nothing.
                report_failure("a connection could not be written to, and is dropped", error)
                connection.abort()

    async def _await_answer(
        self, opening: Opening, handshake: Handshake, answer: Awaitable[Response | None]
    ) -> None:
        response: Response | None
        try:
            async with asyncio.timeout(self.limits.response_timeout_s):
                response = await answer
        except TimeoutError:
            response = build_response(503, "No answer in time.\n")
        except Exception as error:
            logbook.FAILURE_OUTSIDE.log(what="no answer to an HTTP request", error=error)
            response = build_response(500, "Internal error.\n")
        opening.answer(handshake, response)

    async def _all_gone(self) -> None:
        while self._open or self._openings:
            self._gone.clear()
            await self._gone.wait()

    def _tick(self) -> None:
        # First of all, so that a failure ends this sweep and not all to come.
        self._sweep_timer = self.loop.call_later(SWEEP_INTERVAL_S, self._tick)
        self.sweep()


def _close_behind(listening: socket.socket, accepting: asyncio.Task[None]) -> None:
    listening.close()


async def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of a host, all to the same port."""
    loop = asyncio.get_running_loop()
    bound: list[socket.socket] = []
    for family, _, _, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            listening = socket.create_server((address[0], port), family=family)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue  # `localhost` has an IPv6 address where the machine has none.
            for other in bound:
                other.close()
            raise
        bound.append(listening)
        port = listening.getsockname()[1]
    if not bound:
        raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} can be listened on")
    return bound
