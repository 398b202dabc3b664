"""The gateway: an ASGI application that answers as lbryio's wallet-sync-server does, version 3.

State: none of its own; accounts, tokens and wallets are the engine's. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from wsschema.close_codes import CloseCode
from wsschema.errors import RateLimited, RpcError, Unavailable
from wsserver.departures import GoneSocket
from wsserver.engine import Engine
from wsserver.failures import report_failure
from wsserver.lbry import flows, requests
from wsserver.lbry.refusals import Refusal, refuse
from wsserver.lbry.sockets import GONE, Socket
from wsserver.lbry.visits import Visit, carry_out
from wsserver.methods import hash_token
from wsserver.operations import OpenedSession
from wsserver.proxies import Network, find_client
from wsserver.throttle import address_key

PREFIX: Final = "/api/3"
BODY_TIMEOUT_S: Final = 10.0
"""How long the body of a request to the gateway may take."""
RETRY_AFTER_MS: Final = 1000
"""When who is one too many at the gateway may come back."""

Answer = Callable[["Gateway", Visit, Request], Awaitable[Response]]


class Gateway:
    """Answers requests with the engine's operations.

    ``trusted_proxies`` and ``allowed_origins`` are the settings of these names; None lets the pages
    of all origins open a WebSocket. ``observe_end`` is told of each that is over. Set ``draining``
    when the server is about to stop.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        trusted_proxies: Sequence[Network] = (),
        allowed_origins: Collection[str] | None = None,
        observe_end: Callable[[GoneSocket], None],
    ) -> None:
        self.engine = engine
        self.draining = False
        self._trusted_proxies = trusted_proxies
        self._allowed_origins = allowed_origins
        self._observe_end = observe_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one WebSocket."""
        if scope["type"] == "websocket":
            await self._serve_socket(WebSocket(scope, receive, send))
        else:
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)

    # Requests.

    async def _answer(self, request: Request) -> Response:
        name, make_text, outcome = "unknown", _json_error, "ok"
        try:
            name, answer = _find_answer(request)
            if name == "verify":
                make_text = _plain_error
            response = await answer(self, Visit(self.engine, self._admit(request)), request)
        except Exception as error:
            refusal = _as_refusal(error)
            outcome, response = refusal.reason, make_text(refusal)
        self.engine.metrics.count_call(f"lbry.{name}", outcome)
        return response

    async def _signup(self, visit: Visit, request: Request) -> Response:
        signup = requests.read_signup(await _read_body(request))
        answer = await carry_out(self.engine, flows.signup(visit, signup))
        return JSONResponse(answer, status_code=201)

    async def _auth_full(self, visit: Visit, request: Request) -> Response:
        auth_full = requests.read_auth_full(await _read_body(request))
        answer = await carry_out(self.engine, flows.auth_full(visit, auth_full))
        assert visit.opened is not None, "a login that was answered is open"
        self.engine.note_use(visit.opened, visit.address)
        return JSONResponse(answer)

    async def _get_wallet(self, visit: Visit, request: Request) -> Response:
        token = requests.read_token_query(request.query_params)
        opened = await self._authenticate(visit, token)
        return JSONResponse(flows.tell_wallet(opened))

    async def _post_wallet(self, visit: Visit, request: Request) -> Response:
        post = requests.read_post_wallet(await _read_body(request))
        opened = await self._authenticate(visit, post.token)
        started_s = time.monotonic()
        try:
            answer = await carry_out(self.engine, flows.post_wallet(visit, opened, post))
        finally:
            self.engine.metrics.push_seconds.observe(time.monotonic() - started_s)
        return JSONResponse(answer)

    async def _authenticate(self, visit: Visit, token: str) -> OpenedSession:
        opened = await carry_out(self.engine, flows.authenticate(visit.facts.gate, token))
        self.engine.note_use(opened, visit.address)
        return opened

    async def _post_password(self, visit: Visit, request: Request) -> Response:
        post = requests.read_post_password(await _read_body(request))
        return JSONResponse(await carry_out(self.engine, flows.post_password(visit, post)))

    async def _client_salt_seed(self, visit: Visit, request: Request) -> Response:
        email = requests.read_seed_query(request.query_params)
        return JSONResponse(await carry_out(self.engine, flows.client_salt_seed(visit, email)))

    async def _verify_resend(self, visit: Visit, request: Request) -> Response:
        email = requests.read_verify_resend(await _read_body(request))
        return JSONResponse(await carry_out(self.engine, flows.verify_resend(visit, email)))

    async def _verify(self, visit: Visit, request: Request) -> Response:
        token = request.query_params.get("verifyToken", "")
        return PlainTextResponse(await carry_out(self.engine, flows.verify(visit, token)))

    async def _no_upgrade(self, visit: Visit, request: Request) -> Response:
        raise Refusal(400, "This is a WebSocket")

    # WebSockets.

    async def _serve_socket(self, websocket: WebSocket) -> None:
        outcome, socket = "ok", None
        try:
            if websocket.scope["path"] != f"{PREFIX}/websocket":
                raise _no_endpoint(websocket.scope["path"])
            self._check_origin(websocket)
            address = self._admit(websocket)
            token = requests.read_token_query(websocket.query_params)
            socket = Socket(self.engine, websocket, address)
            if not self.engine.enter(socket):
                raise RateLimited("too many connections")
            self.engine.facts.gate.pass_request(hash_token(token))
            await socket.resume(token)
            await socket.serve()
        except Exception as error:
            refusal = _as_refusal(error)
            outcome = refusal.reason
            await _deny(websocket, refusal)
        finally:
            if socket is not None:
                socket.close()
                self.engine.forget(socket)
                if socket.accepted_at_s is not None:
                    self._observe_end(socket.describe_end())
        self.engine.metrics.count_call("lbry.websocket", outcome)

    def _check_origin(self, websocket: WebSocket) -> None:
        origins = websocket.headers.getlist("origin")
        allowed = self._allowed_origins
        if allowed is not None and not all(origin in allowed for origin in origins):
            raise Refusal(403, "Pages of this origin may not connect", reason="forbidden_origin")

    # What they share.

    def _admit(self, connection: HTTPConnection) -> str:
        """The address of who asks, if it may; raises RpcError."""
        if self.draining:
            raise Unavailable("the server is about to stop", retry_after_ms=RETRY_AFTER_MS)
        peer = "" if connection.client is None else connection.client.host
        forwarded_for = connection.headers.getlist("x-forwarded-for")
        address = address_key(find_client(peer, forwarded_for, self._trusted_proxies))
        # A request counts as a connection does: what it comes to gives it back.
        if not self.engine.facts.gate.may_connect(address):
            raise RateLimited(retry_after_ms=RETRY_AFTER_MS)
        return address


_ANSWERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "/signup": ("signup", {"POST": Gateway._signup}),
    "/auth/full": ("auth.full", {"POST": Gateway._auth_full}),
    "/wallet": ("wallet", {"GET": Gateway._get_wallet, "POST": Gateway._post_wallet}),
    "/password": ("password", {"POST": Gateway._post_password}),
    "/client-salt-seed": ("client_salt_seed", {"GET": Gateway._client_salt_seed}),
    "/verify": ("verify", {"GET": Gateway._verify}),
    "/verify/resend": ("verify.resend", {"POST": Gateway._verify_resend}),
    "/websocket": ("websocket", {"GET": Gateway._no_upgrade}),
}


def _find_answer(request: Request) -> tuple[str, Answer]:
    path = request.scope["path"]
    found = _ANSWERS.get(path.removeprefix(PREFIX)) if path.startswith(PREFIX) else None
    if found is None:
        raise _no_endpoint(path)
    name, by_method = found
    answer = by_method.get(request.method)
    if answer is None:
        raise Refusal(405)
    return (f"{name}.{request.method.lower()}" if len(by_method) > 1 else name), answer


def _no_endpoint(path: str) -> Refusal:
    if path.startswith("/api/") and not f"{path}/".startswith(f"{PREFIX}/"):
        return Refusal(404, "Wrong API version. Current version is 3.")
    return Refusal(404, "Unknown Endpoint")


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async with asyncio.timeout(BODY_TIMEOUT_S):
        async for chunk in request.stream():
            body += chunk
            if len(body) > requests.BODY_BYTES_MAX:
                raise Refusal(413)
    return bytes(body)


def _as_refusal(error: Exception) -> Refusal:
    match error:
        case Refusal():
            return error
        case RpcError():
            return refuse(error)
        case TimeoutError() | ClientDisconnect() | WebSocketDisconnect():
            return Refusal(408)
        case _:
            return refuse(report_failure("a request to the gateway failed", error))


def _json_error(refusal: Refusal) -> Response:
    return JSONResponse(
        {"error": refusal.text}, status_code=refusal.status, headers=_headers(refusal)
    )


def _plain_error(refusal: Refusal) -> Response:
    return PlainTextResponse(
        refusal.detail or refusal.text, status_code=refusal.status, headers=_headers(refusal)
    )


def _headers(refusal: Refusal) -> dict[str, str]:
    if refusal.retry_after_ms is None:
        return {}
    return {"Retry-After": str(-(-refusal.retry_after_ms // 1000))}


async def _deny(websocket: WebSocket, refusal: Refusal) -> None:
    """Answer the handshake that is not accepted; or close what was accepted, and failed since."""
    with contextlib.suppress(*GONE):
        if websocket.application_state is WebSocketState.CONNECTING:
            await websocket.send_denial_response(_json_error(refusal))
        else:
            await websocket.close(CloseCode.INTERNAL_ERROR, "internal error")
