"""The plain HTTP that the server answers: on the public port, and on the admin port."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from wsschema.limits import PATH
from wsserver.pages import reset_page, verify_page
from wsserver.status.page import status_page
from wsserver.status.snapshot import Snapshot, describe
from wsserver.transport import Request, Response, build_response


class PublicPages:
    """``/v1`` goes on to the WebSocket; where mails are sent, their links lead to two pages.

    ``allowed_origins``: of the pages that may open the WebSocket; None lets all of them.
    """

    def __init__(self, *, sends_mail: bool, allowed_origins: Collection[str] | None = None) -> None:
        self._allowed_origins = allowed_origins
        self._pages = {"/verify": verify_page, "/reset": reset_page} if sends_mail else {}

    def answer(self, request: Request) -> Response | None:
        """The page of that path; None for the WebSocket's."""
        path, _, query = request.path.partition("?")
        if path == PATH:
            return None if self._may_open(request) else _forbidden()
        make_page = self._pages.get(path)
        if make_page is None:
            return build_response(404, "Not found.\n")
        page = make_page(parse_qs(query).get("token", [None])[0])
        return build_response(page.status, page.body, headers=page.headers)

    def _may_open(self, request: Request) -> bool:
        # Every browser says which page asks, and no page can change it; apps say nothing.
        return self._allowed_origins is None or all(
            origin in self._allowed_origins for origin in request.headers.get_all("Origin")
        )


class AdminPages:
    """``/healthz``: the process is alive. ``/readyz``: it can serve. ``/metrics``: its figures.

    ``/`` is the page to look at, which asks for ``/status.json``: what `describe` gives, with
    ``?since=SECOND`` the later points alone. By ``/snapshot.json`` several processes are added up.
    """

    def __init__(
        self,
        *,
        probe: Callable[[], Awaitable[str | None]],
        metrics: Callable[[], Awaitable[bytes]],
        snapshot: Callable[[], Awaitable[Snapshot]],
    ) -> None:
        self._probe = probe
        self._metrics = metrics
        self._snapshot = snapshot

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        """The page of that path."""
        match _path(request):
            case "/healthz":
                return _json(200, {"status": "ok"})
            case "/":
                page = status_page()
                return build_response(page.status, page.body, headers=page.headers)
            case "/status.json":
                return self._answer_status(request)
            case "/snapshot.json":
                return self._answer_snapshot()
            case "/readyz":
                return self._answer_readyz()
            case "/metrics":
                return self._answer_metrics()
            case _:
                return build_response(404, "Not found. Try /, /healthz, /readyz or /metrics.\n")

    async def _answer_status(self, request: Request) -> Response:
        [since] = parse_qs(request.path.partition("?")[2]).get("since", ["0"])[-1:]
        if not re.fullmatch(r"[0-9]{1,15}", since):
            return build_response(400, "since: a second since 1970.\n")
        return _json(200, describe(await self._snapshot(), since=int(since)))

    async def _answer_snapshot(self) -> Response:
        return _json(200, await self._snapshot())

    async def _answer_metrics(self) -> Response:
        return build_response(200, await self._metrics(), content_type=CONTENT_TYPE_LATEST)

    async def _answer_readyz(self) -> Response:
        reason = await self._probe()
        if reason is None:
            return _json(200, {"status": "ready"})
        return _json(503, {"status": "unavailable", "reason": reason})


def _forbidden() -> Response:
    return build_response(403, "Pages of this origin may not connect (allowed_origins).\n")


def _path(request: Request) -> str:
    return request.path.partition("?")[0]


def _json(status: int, value: Mapping[str, Any]) -> Response:
    return build_response(status, orjson.dumps(value) + b"\n", content_type="application/json")
