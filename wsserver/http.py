"""The plain HTTP that the server answers: on the public port, and on the admin port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from wsschema.limits import PATH
from wsserver.pages import reset_page, verify_page
from wsserver.transport import Request, Response, build_response


class PublicPages:
    """``/v1`` goes on to the WebSocket; where mails are sent, their links lead to two pages."""

    def __init__(self, *, sends_mail: bool) -> None:
        self._pages = {"/verify": verify_page, "/reset": reset_page} if sends_mail else {}

    def answer(self, request: Request) -> Response | None:
        """The page of that path; None for the WebSocket's."""
        path, _, query = request.path.partition("?")
        if path == PATH:
            return None
        make_page = self._pages.get(path)
        if make_page is None:
            return build_response(404, "Not found.\n")
        page = make_page(parse_qs(query).get("token", [None])[0])
        return build_response(page.status, page.body, headers=page.headers)


class AdminPages:
    """``/healthz``: the process is alive. ``/readyz``: it can serve. ``/metrics``: its figures."""

    def __init__(
        self, *, probe: Callable[[], Awaitable[str | None]], metrics: Callable[[], bytes]
    ) -> None:
        self._probe = probe
        self._metrics = metrics

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        """The page of that path."""
        match _path(request):
            case "/healthz":
                return _json(200, {"status": "ok"})
            case "/readyz":
                return self._answer_readyz()
            case "/metrics":
                return build_response(200, self._metrics(), content_type=CONTENT_TYPE_LATEST)
            case _:
                return build_response(404, "Not found. Try /healthz, /readyz or /metrics.\n")

    async def _answer_readyz(self) -> Response:
        reason = await self._probe()
        if reason is None:
            return _json(200, {"status": "ready"})
        return _json(503, {"status": "unavailable", "reason": reason})


def _path(request: Request) -> str:
    return request.path.partition("?")[0]


def _json(status: int, value: dict[str, str]) -> Response:
    return build_response(status, orjson.dumps(value) + b"\n", content_type="application/json")
