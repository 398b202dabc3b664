"""The plain HTTP that the server answers: on the public port, and on the admin port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from wsschema.limits import PATH
from wsserver.transport import Request, Response, build_response


def answer_public(request: Request) -> Response | None:
    """``/v1`` goes on to the WebSocket; there is nothing else."""
    return None if _path(request) == PATH else build_response(404, "Not found.\n")


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
