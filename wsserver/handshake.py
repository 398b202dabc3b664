"""The opening: an HTTP request's head in, a request to answer or a response out. Pure."""

from __future__ import annotations

import http
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

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

core_log: Final = logging.getLogger(f"{__name__}.core")
"""Where the Sans-I/O core logs: its own failures alone. Its debug lines would show payloads."""
core_log.setLevel(logging.ERROR)


@dataclass(slots=True)
class Handshake:
    """A well-formed GET or HEAD that awaits its answer."""

    request: Request
    _protocol: ServerProtocol

    def accept(self) -> Response:
        """The upgrade to WebSocket (101), or the response that says why not."""
        if self.request.method == "HEAD":
            return _upgrade_required()
        response = self._protocol.accept(self.request)
        return _upgrade_required() if response.status_code == 426 else response


def read_request(head: bytes) -> Handshake | Response:
    """The request that a complete head makes, or the response that refuses it."""
    protocol = _ServerProtocol(logger=core_log)
    assert protocol.state is State.CONNECTING
    protocol.receive_data(head)
    protocol.parser.close()  # It and the protocol refer to each other, and it is done.
    method, _, _ = head.partition(b" ")
    match protocol.events_received():
        case [Request(method="GET" | "HEAD") as request]:
            return Handshake(request, protocol)
        case [Request()]:
            return _method_not_allowed()
    if method in _OTHER_METHODS:
        # The core refuses a body before anyone has asked whether the method is right.
        return _method_not_allowed()
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
    headers.setdefault("Date", formatdate(usegmt=True))
    if response.body:
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
    body = response.body if with_body else b""
    return Response(response.status_code, response.reason_phrase, headers, body).serialize()


_OTHER_METHODS: Final = frozenset(
    {b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT"}
)

_UPGRADE: Final = {"Upgrade": "websocket"}


def _method_not_allowed() -> Response:
    return build_response(405, "Only GET and HEAD.\n", headers={"Allow": "GET, HEAD"})


def _upgrade_required() -> Response:
    return build_response(
        426, "A WebSocket is served here: the request lacks its Upgrade.\n", headers=_UPGRADE
    )


class _ServerProtocol(ServerProtocol):
    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        # A client that offers none, or none we know, is served all the same: any stock library.
        ours = Subprotocol(SUBPROTOCOL)
        return ours if ours in subprotocols else None
