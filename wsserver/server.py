"""The server: wires store, passwords, engine and listeners together, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import importlib.util
import logging
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from wsschema.errors import RpcError
from wsschema.limits import (
    JSON_ESCAPE_FACTOR,
    MESSAGE_OVERHEAD_BYTES,
    PATH,
    PROTOCOL_VERSION,
    Limits,
)
from wsschema.messages import AnnouncedLimits, ServerInfo
from wsschema.openrpc import openrpc_document
from wsserver import logbook
from wsserver.bus.choosing import choose_transport
from wsserver.bus.node import Bus
from wsserver.config import Settings
from wsserver.departures import Departures
from wsserver.engine import Engine
from wsserver.figures import Exposition
from wsserver.gate import Gate, GateLimits
from wsserver.http import AdminPages, PublicPages
from wsserver.metrics import Metrics
from wsserver.operations import Operation, ProbeWrite, PushState, SendLetter
from wsserver.passwords import PasswordPool
from wsserver.peer import OPENINGS_MAX
from wsserver.post import PostOffice
from wsserver.readings import Instruments, find_file
from wsserver.recent import RecentRecords
from wsserver.session import ServerFacts
from wsserver.status.board import Board, measure_lag
from wsserver.status.snapshot import Snapshot
from wsserver.store.sql import SqlStore
from wsserver.systemd import Overseer, Sockets, Systemd
from wsserver.tls import Certificate, CertificateError
from wsserver.transport import Listener, TransportLimits

if TYPE_CHECKING:
    from wsserver.lbry.serving import GatewayServer

NAME: Final = "wallet-sync"
DESCRIPTORS_RESERVED: Final = 64
"""Descriptors kept for the database, the admin port and the log."""
ADMIN_CONNECTIONS_MAX: Final = 32
"""Requests to the admin port at a time: half of what is reserved."""
PROBE_TIMEOUT_S: Final = 2.0
RECONNECTS_PER_S: Final = 1000
"""How fast a restarted server wants its clients back: what ``retryAfterMs`` is spread over."""
GATEWAY_SHARE: Final = 0.25
"""The share of the descriptors that are kept for the gateway, where there is one."""
SETTLE_TIMEOUT_S: Final = 1.0
"""How long a stop waits for those to ask who have connected, and not asked yet..."""
SETTLE_SHARE: Final = 0.2
"""...and how much of the drain time at most."""
CLOSE_SHARE: Final = 0.3
"""The share of the drain time that is kept for closing handshakes."""
GC_THRESHOLDS: Final = (1_000, 5, 100_000)
"""How much a look for garbage takes in: of what is young, little enough for a millisecond or two;
all there is hardly ever, for little of what a session leaves refers to itself."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread waits for the interpreter before it asks for it: a tenth of Python's own."""


class ExtraMissing(Exception):
    """A setting asks for what is not installed; the text says how to install it."""


class Server:
    """One process that serves. ``start`` it, then ``stop`` it; or ``run`` it until a signal.

    ``sockets``: what somebody else listens on for it, instead of the ports of these names that the
    settings have. ``overseer``: who is told how it is; systemd unless given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sockets: Sockets | None = None,
        overseer: Overseer | None = None,
    ) -> None:
        self._settings = settings
        self._sockets = sockets or {}
        self._overseer = overseer or Systemd()
        self._stopping = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None
        self._draining = False
        self._probing: asyncio.Task[str | None] | None = None
        self._bus: Bus | None = None
        self._upkeep: tuple[asyncio.Task[None], ...] = ()
        self._admin: Listener | None = None
        self._gateway: GatewayServer | None = None
        self._post: PostOffice | None = None
        self._records = RecentRecords()
        self._certificate: Certificate | None = None
        self.port = 0
        self.admin_port = 0

    async def start(self) -> None:
        """Open the database, then the ports.

        Raises BusError, CertificateError, ExtraMissing, StoreError and OSError with what stands in
        the way.
        """
        settings = self._settings
        limits = make_limits(settings)
        if self._has_gateway:
            check_gateway_installed()
        if settings.tls_cert is not None and settings.tls_key is not None:
            self._certificate = Certificate(settings.tls_cert, settings.tls_key)
        transport_limits = make_transport_limits(settings, limits, has_gateway=self._has_gateway)
        transport = choose_transport(
            None if settings.bus_url is None else settings.bus_url.get_secret_value(),
            settings.database_url,
            credentials=settings.bus_credentials,
            authorities=settings.bus_authorities,
        )
        self._metrics = Metrics()
        self._store = SqlStore(
            settings.database_url,
            history_depth=settings.history_depth,
            token_lifetime_s=settings.token_lifetime_s,
            answer=self._take_answer,
            doubt=self._note_doubt,
            lanes=settings.database_lanes,
            observe_batch=self._metrics.observe_batch,
            observe_checkpoint=self._metrics.checkpoint_seconds.observe,
            count_fault=self._metrics.count_database_error,
        )
        installed = await self._store.open(
            exclusive=transport is None, shared=transport is not None
        )
        # A figure that begins with its first failure can't be seen to rise.
        self._metrics.database_errors.update(dict.fromkeys(self._store.waiting, 0))
        self._passwords = PasswordPool(
            workers=settings.password_workers, waiting_max=settings.password_waiting_max
        )
        facts = ServerFacts(
            info=make_info(settings, limits),
            document=openrpc_document(version=version(NAME)),
            limits=limits,
            allowlist=settings.allowlist,
            decoy_key=installed.decoy_key,
            gate=Gate(
                make_gate_limits(settings),
                enabled=settings.rate_limits == "on",
                clock=time.monotonic,
                connections_max=transport_limits.connections_max,
            ),
        )
        if facts.sends_mail:
            self._post = PostOffice(settings, self._metrics)
        self._engine = Engine(
            facts=facts,
            store=self._store,
            passwords=self._passwords,
            send_letter=self._send_letter,
            metrics=self._metrics,
        )
        pages = PublicPages(
            sends_mail=facts.sends_mail, allowed_origins=find_allowed_origins(settings)
        )
        departures = Departures(asyncio.get_running_loop())
        self._public = Listener(
            limits=transport_limits,
            application=self._engine.mount,
            respond=pages.answer,
            admit_peer=facts.gate.may_connect,
            trusted_proxies=settings.trusted_proxies,
            observe_end=departures.note,
        )
        self._instruments = Instruments(
            store=self._store,
            passwords=self._passwords,
            gate=facts.gate,
            public=self._public,
            records=self._records,
            post=self._post,
            certificate=self._certificate,
            database=find_file(settings.database_url),
            count_gateway=self._count_gateway,
            is_draining=lambda: self._draining,
        )
        self._exposition = Exposition(self._metrics, self._instruments.read)
        self._board = Board(self._metrics, self._instruments, self.probe)
        self._records.attach()
        try:
            if transport is not None:
                self._bus = Bus(self._engine.hub, transport, self._store.submit)
                self._engine.bus = self._metrics.bus = self._bus
                await self._bus.open()
            if settings.admin_port or "admin" in self._sockets:
                await self._start_admin(transport_limits)
            if self._has_gateway:
                await self._start_gateway(departures)
            self.port = await self._public.start(
                settings.host,
                settings.port,
                ssl=None if self._certificate is None else self._certificate.context,
                sockets=self._sockets.get("wsserver", ()),
            )
        except BaseException:
            await self.stop()
            raise
        self._upkeep = (
            asyncio.create_task(self._engine.renew_tokens()),
            asyncio.create_task(self._engine.watch_notices()),
            asyncio.create_task(measure_lag(self._metrics.loop_lag_seconds)),
            asyncio.create_task(self._board.keep()),
        )
        if self._overseer.beat_interval_s is not None:
            self._beating = asyncio.create_task(self._beat(self._overseer.beat_interval_s))

    async def run(self, on_started: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once.

        With TLS, SIGHUP has the certificate read anew. SIGUSR1 switches the log to debug and back,
        SIGUSR2 writes the figures into it.
        """
        loop = asyncio.get_running_loop()

        def take_signal() -> None:
            if self._stopping.is_set():
                logbook.KILLED.log()
                logging.shutdown()
                # No finally clause, no thread is waited for: what was acknowledged is durable.
                signal.raise_signal(signal.SIGKILL)
            self._stopping.set()

        # Before the start: it may wait for the database, and the first process of a container
        # would not even be ended by a signal that nobody takes.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, take_signal)
        # Without either, it is the terminal that goes away.
        reloads = self._settings.tls_cert is not None or self._overseer.present
        reloads = reloads and hasattr(signal, "SIGHUP")
        if reloads:
            loop.add_signal_handler(signal.SIGHUP, self.reload_certificate)
        if hasattr(signal, "SIGUSR1"):
            loop.add_signal_handler(signal.SIGUSR1, self.switch_debug)
            loop.add_signal_handler(signal.SIGUSR2, self.log_figures)
        logbook.STARTING.log(version=version(NAME))
        await self.start()
        _tune_interpreter()
        if not self._stopping.is_set():
            on_started()
            self._overseer.tell_ready("serving")
            if reloads:
                loop.add_signal_handler(signal.SIGHUP, self._reload)
        await self._stopping.wait()
        self._overseer.tell_stopping()
        logbook.DRAINING.log(connections=self._count_connections())
        await self.stop()
        logbook.STOPPED.log()

    def reload_certificate(self) -> None:
        """Use the renewed certificate for new connections; if it can't be, log why and go on."""
        if self._certificate is None:
            return  # There is none, or not yet: the start reads it.
        try:
            self._certificate.reload()
        except CertificateError as error:
            logbook.CERTIFICATE_REFUSED.log(reason=str(error))
        else:
            logbook.CERTIFICATE_RENEWED.log(certificate=str(self._certificate.chain))

    def switch_debug(self) -> None:
        """Have the log tell everything; or, if it does, as much as the settings say."""
        level = self._settings.log_level
        if logbook.logger.isEnabledFor(logging.DEBUG):
            logbook.LEVEL_CHANGED.log(log_level=level)
            logbook.set_level(level)
        else:
            logbook.set_level("debug")
            logbook.LEVEL_CHANGED.log(log_level="debug")

    def log_figures(self) -> None:
        """Write the figures of the moment into the log."""
        logbook.FIGURES.log(
            connections=self._count_connections(),
            sessions=self._metrics.sessions.value,
            queues={**self._store.waiting, "passwords": self._passwords.waiting},
        )

    def ask_to_stop(self) -> None:
        """Have `run` drain and return, as a signal does."""
        self._stopping.set()

    async def stop(self) -> None:
        """Refuse newcomers, answer what is in flight, send clients away (1012), close the store.

        Takes ``drain_timeout_s`` at most.
        """
        self._draining = True
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + self._settings.drain_timeout_s
        for task in self._upkeep:
            task.cancel()
        self._public.stop_accepting()
        if self._gateway is not None:
            self._gateway.stop_accepting()
        # They came while the port was open: each is in before it is told to come back.
        await self._public.settle(
            min(SETTLE_TIMEOUT_S, SETTLE_SHARE * self._settings.drain_timeout_s)
        )
        spread_ms = 1000 + 1000 * self._count_connections() // RECONNECTS_PER_S
        self._engine.drain(lambda: random.randrange(spread_ms // 4, spread_ms))  # noqa: S311
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ends_at_s - CLOSE_SHARE * self._settings.drain_timeout_s):
                await self._engine.wait_until_empty()
        self._engine.send_away()
        if self._gateway is not None:
            await self._gateway.close(max(0.1, (ends_at_s - loop.time()) / 2))
        for listener in filter(None, (self._public, self._admin)):
            await listener.close(timeout_s=max(0.1, (ends_at_s - loop.time()) / 2))
        self._passwords.close()
        if self._post is not None:
            await self._post.close(max(0.1, (ends_at_s - loop.time()) / 2))
        self._engine.note_all_seen()
        if self._bus is not None:
            await self._bus.close()
        if self._beating is not None:
            self._beating.cancel()
        await self._store.close(max(0.1, ends_at_s - loop.time()))
        self._records.detach()

    async def probe(self) -> str | None:
        """Why the server is not ready; None when it is. Those who ask at once share one probe."""
        if self._draining:
            return "the server is stopping"
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe_store())
            self._probing.add_done_callback(self._forget_probe)
        return await asyncio.shield(self._probing)

    async def expose_figures(self) -> bytes:
        """The figures in Prometheus' text format."""
        return self._exposition.expose()

    async def take_snapshot(self) -> Snapshot:
        """How the server is, as it is shown, and added up where there are several."""
        return await self._board.snapshot()

    # Parts of it.

    @property
    def _has_gateway(self) -> bool:
        return bool(self._settings.lbry_port) or "lbry" in self._sockets

    def _reload(self) -> None:
        self._overseer.tell_reloading()
        self.reload_certificate()
        self._overseer.tell_ready("serving")

    async def _beat(self, interval_s: float) -> None:
        """Tell the overseer that all is well, for as long as the loop turns and the store answers.

        An answer that says that nothing can be written is one: a new start would not mend the disk,
        and would end those sessions that still read.
        """
        while True:
            await self._ask_store()
            self._overseer.beat()
            await asyncio.sleep(interval_s)

    async def _start_admin(self, limits: TransportLimits) -> None:
        pages = AdminPages(
            probe=self.probe, metrics=self.expose_figures, snapshot=self.take_snapshot
        )
        self._admin = Listener(
            limits=dataclasses.replace(limits, openings_max=ADMIN_CONNECTIONS_MAX),
            application=None,
            respond=pages.answer,
        )
        self.admin_port = await self._admin.start(
            self._settings.admin_host,
            self._settings.admin_port,
            sockets=self._sockets.get("admin", ()),
        )

    async def _start_gateway(self, departures: Departures) -> None:
        from wsserver.lbry.gateway import Gateway
        from wsserver.lbry.serving import GatewayServer

        settings = self._settings
        gateway = Gateway(
            self._engine,
            trusted_proxies=settings.trusted_proxies,
            allowed_origins=find_allowed_origins(settings),
            observe_end=departures.note_gateway,
        )
        self._gateway = GatewayServer(
            gateway,
            connections_max=max(1, int(GATEWAY_SHARE * find_connections_max())),
            ping_interval_s=settings.ping_interval_s,
            pong_timeout_s=settings.pong_timeout_s,
            tls=None if self._certificate is None else self._certificate.context,
        )
        await self._gateway.start(
            settings.host, settings.lbry_port, sockets=self._sockets.get("lbry", ())
        )

    def _take_answer(
        self, operation: Operation[Any], answer: Any, done: Callable[[Any], None]
    ) -> None:
        self._engine.take_answer(operation, answer, done)

    def _note_doubt(self, operations: Sequence[Operation[Any]]) -> None:
        """Pushes may have been committed, or not: whoever has to hear of them looks."""
        if self._bus is not None:
            for operation in operations:
                if isinstance(operation, PushState):
                    self._bus.doubt(operation.account_id, operation.sequence)

    def _send_letter(self, operation: SendLetter) -> None:
        assert self._post is not None, "only mode email sends mail"
        self._post.send(operation)

    def _count_connections(self) -> int:
        return len(self._public.connections) + self._count_gateway()

    def _count_gateway(self) -> int:
        return 0 if self._gateway is None else self._gateway.connections

    def _forget_probe(self, task: asyncio.Task[str | None]) -> None:
        self._probing = None

    def _ask_store(self) -> asyncio.Future[Any]:
        """The store's answer to a write of no consequence."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def settle(answer: Any) -> None:
            if not answered.done():
                answered.set_result(answer)

        self._store.submit(ProbeWrite(), settle)
        return answered

    async def _probe_store(self) -> str | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                answer = await self._ask_store()
                return "the store can't be written" if isinstance(answer, RpcError) else None
        return f"the store has not committed a write within {PROBE_TIMEOUT_S:g} s"


def _tune_interpreter() -> None:
    """Fit Python's own pauses to a server's: set for the whole process, which is the server's."""
    # What was imported stays for good: looking through it took some 40 ms, many times a minute.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # A lane whose commit is done waits for the event loop's thread no longer than this.
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def make_limits(settings: Settings) -> Limits:
    """The limits that the server announces and holds."""
    return Limits(
        wallet_bytes=settings.wallet_bytes,
        message_bytes=JSON_ESCAPE_FACTOR * settings.wallet_bytes + MESSAGE_OVERHEAD_BYTES,
        history_depth=settings.history_depth,
        devices=settings.devices_max,
    )


def make_gate_limits(settings: Settings) -> GateLimits:
    """The limits of the gate: the settings of their names."""
    return GateLimits(
        **{field.name: getattr(settings, field.name) for field in dataclasses.fields(GateLimits)}
    )


def make_transport_limits(
    settings: Settings, limits: Limits, *, has_gateway: bool
) -> TransportLimits:
    """The limits of a connection. What descriptors there are is shared out here."""
    room = find_connections_max()
    if has_gateway:
        room -= int(GATEWAY_SHARE * room)
    openings_max = min(OPENINGS_MAX, room // 4)
    return TransportLimits(
        message_bytes_max=limits.message_bytes,
        anonymous_message_bytes_max=limits.anonymous_message_bytes,
        connections_max=settings.connections_max or room - openings_max,
        openings_max=openings_max,
        authentication_timeout_s=settings.auth_timeout_s,
        ping_interval_s=settings.ping_interval_s,
        pong_timeout_s=settings.pong_timeout_s,
    )


def check_gateway_installed() -> None:
    """Raises ExtraMissing where the gateway can't be imported."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraMissing(
            f"the gateway (--lbry-port, WSSERVER_LBRY_PORT) needs {' and '.join(missing)}, which "
            "the extra lbry brings: pip install 'wallet-sync[server,lbry]'"
        )


def find_allowed_origins(settings: Settings) -> frozenset[str] | None:
    """Origins of the pages that may connect, our own included; None lets all of them."""
    if not settings.allowed_origins:
        return None
    own = () if settings.public_url is None else (find_origin(settings.public_url),)
    return frozenset((*settings.allowed_origins, *own))


def find_origin(url: str) -> str:
    """The origin of a URL's page, as browsers write it (RFC 6454, section 6.2)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    usual_port = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, usual_port) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def make_info(settings: Settings, limits: Limits) -> ServerInfo:
    """The answer to ``server.info``."""
    return ServerInfo(
        name=NAME,
        version=version(NAME),
        protocol=PROTOCOL_VERSION,
        features=(),
        verification=settings.verification,
        limits=AnnouncedLimits(
            wallet_bytes=limits.wallet_bytes,
            message_bytes=limits.message_bytes,
            anonymous_message_bytes=limits.anonymous_message_bytes,
            history_depth=limits.history_depth,
            batch=limits.batch,
            devices=limits.devices,
        ),
    )


def find_connections_max() -> int:
    """What the process's limit of descriptors allows, after raising it as far as it may be."""
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return 1_000_000
    return max(16, soft - DESCRIPTORS_RESERVED)


def describe_url(host: str, port: int, *, scheme: str = "ws", path: str = PATH) -> str:
    """The URL that clients of this machine use."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    shown = f"[{shown}]" if ":" in shown and "[" not in shown else shown
    return f"{scheme}://{shown}:{port}{path}"
