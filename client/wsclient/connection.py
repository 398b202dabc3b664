"""One connection to a server, by the websockets library: bytes of whole messages in and out."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from importlib import metadata
from typing import Final, Protocol
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from wsclient.errors import CannotConnect
from wsschema.limits import SUBPROTOCOL, Limits

OPENING_TIMEOUT_S: Final = 10
PING_INTERVAL_S: Final = 30
"""Between pings of our own: the server's find a dead client, these a dead server."""
PING_TIMEOUT_S: Final = 20
CLOSING_TIMEOUT_S: Final = 2


class ConnectionLost(Exception):
    """The connection is gone; ``code`` is the server's close code, None when it sent none."""

    def __init__(self, code: int | None, cause: str) -> None:
        self.code, self.cause = code, cause
        super().__init__(cause)


class Connection(Protocol):
    """What a session needs of a connection; every method but `close` raises ConnectionLost."""

    async def send(self, payload: bytes) -> None:
        """Sends one message of UTF-8 text."""
        ...

    async def receive(self) -> bytes | str:
        """The next message, whole."""
        ...

    async def close(self) -> None:
        """Closes it, within ``CLOSING_TIMEOUT_S``."""
        ...

    def allow_messages_of(self, message_bytes: int) -> None:
        """From now on takes messages up to this size."""
        ...


class WebSocketConnection:
    """A `Connection` over a real socket."""

    __slots__ = ("_socket",)

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, payload: bytes) -> None:
        """Sends one message of UTF-8 text."""
        try:
            await self._socket.send(payload, text=True)
        except ConnectionClosed as closed:
            raise _lost(closed) from None

    async def receive(self) -> bytes:
        """The next message, whole."""
        try:
            return await self._socket.recv(decode=False)
        except ConnectionClosed as closed:
            raise _lost(closed) from None

    async def close(self) -> None:
        """Closes it, within ``CLOSING_TIMEOUT_S``."""
        try:
            await self._socket.close()
        except asyncio.CancelledError:
            self._socket.transport.abort()
            raise

    def allow_messages_of(self, message_bytes: int) -> None:
        """From now on takes messages up to this size."""
        self._socket.protocol.max_message_size = message_bytes


async def open_websocket(
    url: str, *, ca: str | os.PathLike[str] | None = None, allow_plaintext: bool = False
) -> Connection:
    """A new connection to ``url``; raises CannotConnect.

    ``ca``: PEM file of the one authority that may vouch for the server, in place of the system's;
    else that in ``WSSERVER_CA``. ``allow_plaintext``, or 1 in ``WSSERVER_ALLOW_PLAINTEXT``: take
    ``ws://`` to other machines too, which anyone on the way can read and change.
    """
    return WebSocketConnection(await open_socket(url, ca=ca, allow_plaintext=allow_plaintext))


async def open_socket(
    url: str, *, ca: str | os.PathLike[str] | None = None, allow_plaintext: bool = False
) -> ClientConnection:
    """The socket of `open_websocket`, which still knows how the server answered its opening."""
    secure = is_secure(url)
    if not secure and not is_loopback(url) and not (allow_plaintext or _allows_plaintext()):
        raise CannotConnect(url, _PLAINTEXT_REFUSED)
    try:
        return await connect(
            url,
            ssl=make_trust(ca) if secure else None,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,  # ciphertext does not shrink
            user_agent_header=f"wallet-sync-client/{_version()}",
            proxy=None if is_loopback(url) else True,
            open_timeout=OPENING_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            close_timeout=CLOSING_TIMEOUT_S,
            max_size=Limits().message_bytes,
        )
    except (OSError, InvalidHandshake, InvalidURI, ValueError) as error:
        raise CannotConnect(url, describe_opening_failure(error)) from error


def _lost(closed: ConnectionClosed) -> ConnectionLost:
    theirs = closed.rcvd  # None after a fault that we found: a ping unanswered, a broken frame
    if theirs is None:
        return ConnectionLost(None, "the connection was lost")
    reason = f" ({theirs.reason})" if theirs.reason else ""
    return ConnectionLost(theirs.code, f"the server closed with {theirs.code}{reason}")


_PLAINTEXT_REFUSED: Final = (
    "ws:// is not encrypted, and goes to this machine only; use wss://, or say allow_plaintext=True"
    " (WSSERVER_ALLOW_PLAINTEXT=1) where nobody else can listen"
)


def make_trust(ca: str | os.PathLike[str] | None) -> ssl.SSLContext:
    """What verifies the server's certificate: by one authority, or by those of the system.

    Raises ValueError where the authority's file can't be used.
    """
    ca = ca or os.environ.get("WSSERVER_CA")
    try:
        return ssl.create_default_context(cafile=ca)
    except FileNotFoundError:
        raise ValueError(f"the authority's file {ca} does not exist") from None
    except ssl.SSLError:
        raise ValueError(f"the authority's file {ca} has no certificate in PEM format") from None


def describe_opening_failure(error: Exception) -> str:
    """Why no connection came about, for people."""
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate can't be trusted: {error.verify_message}; the file of a private "
                "authority is named by ca= or WSSERVER_CA"
            )
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE"):
            return "what answers there does not speak TLS: is it ws://?"
        case ConnectionRefusedError():
            return "nothing listens there (connection refused)"
        case TimeoutError() | asyncio.TimeoutError():
            return f"no answer within {OPENING_TIMEOUT_S} s"
        case InvalidStatus():
            return f"it answered with HTTP {error.response.status_code}, not as a WebSocket server"
        case InvalidMessage():
            return "what answers there does not speak WebSocket"
        case InvalidURI():
            return "that is no address of a WebSocket server, like ws://127.0.0.1:8090/v1"
    return str(error) or type(error).__name__


def is_secure(url: str) -> bool:
    """Whether the address is one of TLS."""
    return not url.lower().startswith("ws://")


def _allows_plaintext() -> bool:
    return os.environ.get("WSSERVER_ALLOW_PLAINTEXT") == "1"


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _version() -> str:
    try:
        return metadata.version("wallet-sync")
    except metadata.PackageNotFoundError:
        return "0"
