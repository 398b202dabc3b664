"""What is wrong between here and a server: step by step, each with a verdict and an advice.

A step that fails ends the examination, for the next ones stand on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import enum
import ipaddress
import socket
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Final

from cryptography import x509
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidProxy, InvalidStatus, InvalidURI, ProxyError
from websockets.proxy import Proxy, get_proxy, parse_proxy
from websockets.uri import WebSocketURI, parse_uri

from wsclient.command.failures import ExitCode
from wsclient.connection import (
    WebSocketConnection,
    describe_opening_failure,
    is_loopback,
    make_trust,
    open_socket,
)
from wsclient.errors import CannotConnect, WalletSyncError
from wsclient.session import Session
from wsschema.limits import PATH
from wsschema.messages import Ping

STEP_TIMEOUT_S: Final = 10.0
ADDRESSES_MAX: Final = 4
"""Of a host with more, the first ones are tried."""
PINGS: Final = 5
PROTOCOL: Final = 1
CLOCK_TOLERANCE_S: Final = 60
EXPIRES_SOON: Final = timedelta(days=14)


class Verdict(enum.StrEnum):
    """How a step went."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    """It works, and is worth a look."""
    BAD = "bad"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a step found; ``exit_code`` is what a bad one ends the command with."""

    step: str
    verdict: Verdict
    text: str
    advice: str | None = None
    exit_code: ExitCode = ExitCode.CANNOT_CONNECT


def good(step: str, text: str) -> Finding:
    """A finding that all is well."""
    return Finding(step, Verdict.GOOD, text)


class Examination:
    """The way from here to the server at ``url``, walked once."""

    def __init__(self, url: str, *, ca: str | None = None, allow_plaintext: bool = False) -> None:
        self._url = url
        self._ca = ca
        self._allow_plaintext = allow_plaintext
        self._uri: WebSocketURI
        self._proxy: Proxy | None = None
        self._addresses: list[str] = []

    async def findings(self) -> AsyncIterator[Finding]:
        """Each step's, as soon as it is there; the last one is the bad one, if there is any."""
        steps: list[Callable[[], Awaitable[Finding]]] = [
            self._examine_address,
            self._examine_proxy,
            self._examine_dns,
            self._examine_tcp,
            self._examine_tls,
        ]
        for step in steps:
            finding = await step()
            yield finding
            if finding.verdict is Verdict.BAD:
                return
        begun_s = time.perf_counter()
        try:
            opened = await open_socket(
                self._url, ca=self._ca, allow_plaintext=self._allow_plaintext
            )
        except CannotConnect as error:
            yield _judge_upgrade(error)
            return
        took_ms = (time.perf_counter() - begun_s) * 1000
        yield good("websocket", f"opened in {took_ms:.0f} ms, sub-protocol {opened.subprotocol}")
        async for finding in self._examine_server(opened):
            yield finding

    # The way to the server.

    async def _examine_address(self) -> Finding:
        try:
            self._uri = parse_uri(self._url)
        except (InvalidURI, ValueError):
            return Finding(
                "address",
                Verdict.BAD,
                f"{self._url} is no address of a WebSocket server",
                f"it looks like wss://sync.example.com{PATH}",
                ExitCode.MISUSED,
            )
        text = f"{self._url}, port {self._uri.port}"
        if self._uri.path != PATH:
            advice = f"a server of this project serves on {PATH}, unless a proxy before it differs"
            return Finding("address", Verdict.DOUBTFUL, text, advice)
        if not self._uri.secure and not is_loopback(self._url):
            advice = "without TLS anyone on the way sees your address and your devices: use wss://"
            return Finding("address", Verdict.DOUBTFUL, text, advice)
        return good("address", text)

    async def _examine_proxy(self) -> Finding:
        named = None if is_loopback(self._url) else get_proxy(self._uri)
        if named is None:
            return good("proxy", "none, the way is direct")
        try:
            self._proxy = parse_proxy(named)
        except InvalidProxy:
            # Not shown: it may hold a password.
            text = "what the environment names as a proxy is none that is supported"
            return Finding("proxy", Verdict.BAD, text, _PROXY_ADVICE)
        return good("proxy", f"by way of {_show_proxy(self._proxy)}, as the environment says")

    async def _examine_dns(self) -> Finding:
        host, port = self._next_hop
        with contextlib.suppress(ValueError):
            self._addresses = [str(ipaddress.ip_address(host))]
            return good("dns", f"{host} is an address itself")
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                )
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            return Finding(
                "dns",
                Verdict.BAD,
                f"{host} has no address: {_describe(error)}",
                "is it spelled right, and is this machine online?",
            )
        self._addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))[:ADDRESSES_MAX]
        return good("dns", f"{host} is {', '.join(self._addresses)}")

    async def _examine_tcp(self) -> Finding:
        _, port = self._next_hop
        reached, failed = [], []
        for address in self._addresses:
            begun_s = time.perf_counter()
            try:
                async with asyncio.timeout(STEP_TIMEOUT_S):
                    _, writer = await asyncio.open_connection(address, port)
            except OSError as error:
                failed.append(f"{address}: {_describe(error)}")
            else:
                reached.append(f"{address} in {(time.perf_counter() - begun_s) * 1000:.0f} ms")
                writer.transport.abort()  # nothing was said
        if not reached:
            advice = f"does the server run, and does a firewall let port {port} through?"
            return Finding("tcp", Verdict.BAD, f"port {port}: {'; '.join(failed)}", advice)
        text = f"port {port} answers: {', '.join(reached)}"
        if failed:
            advice = "some of its addresses lead nowhere: connections may begin slowly"
            return Finding("tcp", Verdict.DOUBTFUL, f"{text}; but {'; '.join(failed)}", advice)
        return good("tcp", text)

    async def _examine_tls(self) -> Finding:
        if not self._uri.secure:
            return Finding("tls", Verdict.SKIPPED, "ws:// has none")
        if self._proxy is not None:
            return Finding("tls", Verdict.SKIPPED, "through a proxy it is part of the next step")
        try:
            trust = make_trust(self._ca)
        except ValueError as error:
            advice = "--ca or WSSERVER_CA names it"
            return Finding("tls", Verdict.BAD, str(error), advice, ExitCode.MISUSED)
        try:
            tls = await self._shake_hands(trust)
        except ssl.SSLCertVerificationError as error:
            return await self._judge_certificate(error)
        except OSError as error:
            advice = "if the server has no TLS and is on this machine, its address is ws://"
            return Finding("tls", Verdict.BAD, describe_opening_failure(error), advice)
        certificate = _read_certificate(tls)
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        text = (
            f"{tls.version()}; vouched for by {_show_name(certificate.issuer)}"
            f"{' (a private authority)' if self._ca else ''}, for {left.days} more days"
        )
        if left < EXPIRES_SOON:
            advice = "the certificate expires soon: the operator of the server has to renew it"
            return Finding("tls", Verdict.DOUBTFUL, text, advice)
        return good("tls", text)

    async def _judge_certificate(self, error: ssl.SSLCertVerificationError) -> Finding:
        blind = ssl.create_default_context()
        blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE  # nothing is sent over it
        certificate = _read_certificate(await self._shake_hands(blind))
        text = f"the certificate can't be trusted: {error.verify_message}"
        match error.verify_message:
            case "certificate has expired":
                advice = (
                    f"it did on {certificate.not_valid_after_utc:%Y-%m-%d}: the operator of the "
                    "server has to renew it; or this machine's clock is ahead"
                )
            case "certificate is not yet valid":
                advice = "is this machine's clock right?"
            case message if "mismatch" in message:
                names = ", ".join(_names_of(certificate)) or _show_name(certificate.subject)
                advice = f"it is for {names}: use that name in the address"
            case _:
                advice = (
                    f"{_show_name(certificate.issuer)} signed it. If that is an authority of your "
                    "own, name its file with --ca or WSSERVER_CA; if you don't know it, somebody "
                    "may be listening in between"
                )
        return Finding("tls", Verdict.BAD, text, advice)

    async def _shake_hands(self, context: ssl.SSLContext) -> ssl.SSLObject:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            _, writer = await asyncio.open_connection(
                self._addresses[0],
                self._uri.port,
                ssl=context,
                server_hostname=self._uri.host,
            )
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        writer.transport.abort()
        return tls

    @property
    def _next_hop(self) -> tuple[str, int]:
        there = self._uri if self._proxy is None else self._proxy
        return there.host, there.port

    # The server.

    async def _examine_server(self, opened: ClientConnection) -> AsyncIterator[Finding]:
        async def hand_over(_: str) -> WebSocketConnection:
            return WebSocketConnection(opened)

        try:
            async with Session(self._url, connect=hand_over) as session:
                info = session.info
                text = f"{info.name} {info.version} speaks version {info.protocol}"
                if info.protocol != PROTOCOL:
                    advice = (
                        f"this client ({_own_version()}) speaks {PROTOCOL}: update the older one"
                    )
                    yield Finding("protocol", Verdict.BAD, text, advice, ExitCode.FAILED)
                    return
                yield good("protocol", f"{text}; registration: {info.verification}")
                yield _judge_clock(opened)
                limits = info.limits
                yield good(
                    "limits",
                    f"wallets of {limits.wallet_bytes:,} bytes, {limits.history_depth} versions "
                    f"kept, {limits.devices} devices",
                )
                took_s = []
                for _ in range(PINGS):
                    begun_s = time.perf_counter()
                    await session.call(Ping(), timeout_s=STEP_TIMEOUT_S)
                    took_s.append(time.perf_counter() - begun_s)
                median_ms = statistics.median(took_s) * 1000
                yield good("round trip", f"{median_ms:.1f} ms, the median of {PINGS} pings")
        except WalletSyncError as error:
            advice = "is this the address of a wallet-sync server?"
            yield Finding("protocol", Verdict.BAD, str(error), advice)


def _judge_upgrade(error: CannotConnect) -> Finding:
    cause = error.__cause__
    advice = "is this the address of a wallet-sync server?"
    if isinstance(cause, InvalidStatus):
        status = cause.response.status_code
        if status in (502, 503, 504):
            advice = "a proxy before the server answers, and does not reach it: does it run?"
        elif status in (404, 405):
            advice = f"the path may be wrong: a server of this project serves on {PATH}"
        else:
            advice = (
                "a proxy before the server may not pass on the headers Upgrade and Connection; "
                "the project's page on TLS and proxies has settings that do"
            )
    elif isinstance(cause, ProxyError):
        advice = _PROXY_ADVICE
    elif isinstance(cause, ImportError):
        advice = "pip install python-socks"
    elif cause is None:
        advice = "use wss://"
    return Finding("websocket", Verdict.BAD, error.cause, advice)


_PROXY_ADVICE: Final = (
    "wss_proxy, https_proxy and their like name the proxy, and no_proxy the hosts to reach directly"
)


def _judge_clock(opened: ClientConnection) -> Finding:
    date = None if opened.response is None else opened.response.headers.get("Date")
    try:
        theirs = email.utils.parsedate_to_datetime(date or "")
    except ValueError:
        return Finding("clock", Verdict.SKIPPED, "the server does not tell its time")
    ahead_s = round((datetime.now(UTC) - theirs).total_seconds())
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        return good("clock", "as the server's")
    text = f"{abs(ahead_s):,} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    advice = (
        "set this machine's clock by the network, or tell the operator that the server's is off"
    )
    return Finding("clock", Verdict.DOUBTFUL, text, advice)


def _read_certificate(tls: ssl.SSLObject) -> x509.Certificate:
    certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None, "a server shows one"
    return x509.load_der_x509_certificate(certificate)


def _names_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def _show_name(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


def _show_proxy(proxy: Proxy) -> str:
    return f"{proxy.scheme}://{proxy.host}:{proxy.port}"  # and not its user and password


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {STEP_TIMEOUT_S:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _own_version() -> str:
    return metadata.version("wallet-sync")
