"""The opening: an HTTP request's head in, a request to answer or a response out.

What HTTP is, and what an upgrade, websockets decides. But clients of one kind ask in the same
words, each with a key of its own: what it decided of a request holds for the next that differs in
its key alone. State: those requests, and the date of this second.
"""

from __future__ import annotations

import functools
import http
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final, cast

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.streams import StreamReader
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from wsschema.limits import SUBPROTOCOL

__all__ = [
    "HEAD_END",
    "Handshake",
    "Request",
    "Response",
    "build_response",
    "encode_response",
    "read_request",
]

HEAD_END: Final = re.compile(rb"\n\r?\n")
"""Where a request's head ends. A bare LF ends it too: it is refused, not waited on."""

KNOWN_REQUESTS_MAX: Final = 64
"""Requests that are remembered but for their key: kinds of clients, not clients."""

KNOWN_HEAD_BYTES_MAX: Final = 2048
"""The longest head that is remembered; a browser's has some 600 bytes, and cookies are not ours."""

core_log: Final = logging.getLogger(f"{__name__}.core")
"""Where the Sans-I/O core logs: its own failures alone. Its debug lines would show payloads."""
core_log.setLevel(logging.ERROR)


@dataclass(slots=True)
class Handshake:
    """A well-formed GET or HEAD that awaits its answer."""

    request: Request
    """As it came; only the key of one that was known is not its own."""
    _key: str | None = None
    _subprotocol: str | None = None

    def accept(self) -> bytes | Response:
        """The upgrade to WebSocket (101) as it is sent, or the response that says why not."""
        if self._key is not None:
            return _encode_upgrade(accept_key(self._key), self._subprotocol)
        if self.request.method == "HEAD":
            return _upgrade_required()
        try:
            accept, _, subprotocol = _core.process_request(self.request)
        except Exception:
            # The same once more, and a response made of what is wrong.
            response = _ServerProtocol(logger=core_log).accept(self.request)
            return _upgrade_required() if response.status_code == 426 else response
        return _encode_upgrade(accept, subprotocol)


def read_request(head: bytes) -> Handshake | Response:
    """The request that a complete head makes, or the response that refuses it."""
    key = _KEY.search(head) if len(head) <= KNOWN_HEAD_BYTES_MAX else None
    if key is not None:
        known = _read_upgrade(head[: key.start(1)], head[key.end(1) :])
        if known is not None:
            request, subprotocol = known
            return Handshake(request, key[1].decode(), subprotocol)
    method, _, _ = head.partition(b" ")
    parsed = _parse(head)
    if parsed is not None and parsed.method in ("GET", "HEAD"):
        return Handshake(parsed)
    if parsed is not None or method in _OTHER_METHODS:
        # The core refuses a body before anyone has asked whether the method is right.
        return build_response(405, "Only GET and HEAD.\n", headers={"Allow": "GET, HEAD"})
    return build_response(400, "The request is not well-formed HTTP/1.1.\n")


def build_response(
    status: int,
    text: str | bytes,
    *,
    content_type: str = "text/plain; charset=utf-8",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An HTTP response with `text` as its body and `headers` beside the usual ones."""
    body = text.encode() if isinstance(text, str) else text
    fields = Headers({"Content-Type": content_type, **(headers or {})})
    return Response(status, http.HTTPStatus(status).phrase, fields, body)


def encode_response(response: Response, *, with_body: bool = True) -> bytes:
    """The bytes of a response that ends its connection; length, date and type are filled in.

    `with_body` is false for the answer to HEAD: the same header fields, nothing after them.
    """
    headers = response.headers
    for name in ("Connection", "Content-Length"):
        if name in headers:
            del headers[name]
    headers["Connection"] = "close"
    headers["Content-Length"] = str(len(response.body))
    headers.setdefault("Date", _format_date(int(time.time())))
    if response.body:
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
    body = response.body if with_body else b""
    return Response(response.status_code, response.reason_phrase, headers, body).serialize()


_OTHER_METHODS: Final = frozenset(
    {b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT"}
)

_UPGRADE: Final = {"Upgrade": "websocket"}

_KEY: Final = re.compile(rb"\r\n(?i:Sec-WebSocket-Key): ([A-Za-z0-9+/]{21}[AQgw]==)\r\n")
"""Where a key stands in a head, plainly: 16 bytes in base64 (RFC 6455, section 4.1)."""

_ANY_KEY: Final = b"A" * 22 + b"=="


def _upgrade_required() -> Response:
    return build_response(
        426, "A WebSocket is served here: the request lacks its Upgrade.\n", headers=_UPGRADE
    )


@functools.lru_cache(maxsize=KNOWN_REQUESTS_MAX)
def _read_upgrade(before: bytes, after: bytes) -> tuple[Request, str | None] | None:
    """The request to upgrade that a head makes but for its key, and the sub-protocol it gets.

    `None` where there is no upgrade, whatever the key.
    """
    request = _parse(before + _ANY_KEY + after)
    if request is None:
        return None
    try:
        _, _, subprotocol = _core.process_request(request)
    except Exception:
        return None
    return request, subprotocol


def _parse(head: bytes) -> Request | None:
    reader = StreamReader()
    reader.feed_data(head)
    reader.feed_eof()
    try:
        next(Request.parse(reader.read_line))
    except StopIteration as parsed:
        return cast(Request, parsed.value)
    except Exception:  # It has no error of its own for what is malformed.
        return None
    raise AssertionError("it waits for more than a complete head")


def _encode_upgrade(accept: str, subprotocol: str | None) -> bytes:
    chosen = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        f"Date: {_format_date(int(time.time()))}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
    ).encode()


@functools.lru_cache(maxsize=1)
def _format_date(second: int) -> str:
    return formatdate(second, usegmt=True)


class _ServerProtocol(ServerProtocol):
    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        # A client that offers none, or none we know, is served all the same: any stock library.
        ours = Subprotocol(SUBPROTOCOL)
        return ours if ours in subprotocols else None


_core: Final = _ServerProtocol(logger=core_log)
"""Judges requests, one like another: it keeps nothing of one that matters to the next."""
