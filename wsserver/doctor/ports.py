"""The ports: free, or served by us; and what a server that runs says of itself."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from wsserver.config import Settings
from wsserver.doctor.findings import STEP_TIMEOUT_S, Finding, fail, ok, warn
from wsserver.server import NAME, describe_url

_CALL = '{"jsonrpc": "2.0", "id": 1, "method": "server.info", "params": {}}'


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Whether each port is free, or ours."""
    yield _check_public(settings)
    if settings.admin_port:
        yield _check_admin(settings)
    if settings.lbry_port:
        yield _check_other("lbry port", settings.host, settings.lbry_port)


def _check_public(settings: Settings) -> Finding:
    if settings.port == 0 or not _is_taken(settings.host, settings.port):
        return _judge_free("port", settings.host, settings.port)
    url = describe_url(
        settings.host, settings.port, scheme="ws" if settings.tls_cert is None else "wss"
    )
    try:
        info = _ask_server(url)
    except (OSError, WebSocketException, ValueError, KeyError):
        return fail("port", f"{url} is served by another program", _OTHERS)
    text = f"{url} is served by {info['name']} {info['version']}"
    if info["version"] != version(NAME):
        advice = f"this is {version(NAME)}: restart the server to have what is installed"
        return warn("port", text, advice)
    return ok("port", text)


def _check_admin(settings: Settings) -> Finding:
    host, port = settings.admin_host, settings.admin_port
    if not _is_taken(host, port):
        return _judge_free("ready", host, port)
    url = describe_url(host, port, scheme="http", path="/readyz")
    try:
        status, document = _fetch(host, port)
    except (OSError, http.client.HTTPException, ValueError):
        return fail("ready", f"{url} is served by another program", _OTHERS)
    if status == http.HTTPStatus.OK:
        return ok("ready", f"{url}: a write was just committed")
    reason = document.get("reason", f"status {status}")
    return fail("ready", f"{url}: {reason}", "the server's log says what is wrong")


def _check_other(check: str, host: str, port: int) -> Finding:
    if _is_taken(host, port):
        return ok(check, f"port {port} is served")
    return _judge_free(check, host, port)


_OTHERS = "end that program, or choose another port"


def _is_taken(host: str, port: int) -> bool:
    try:
        socket.create_connection((_reach(host), port), timeout=STEP_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _judge_free(check: str, host: str, port: int) -> Finding:
    """No one listens there; can we?"""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return fail(
            check,
            f"can't listen on {host} port {port}: {error.strerror or error}",
            "the host must be an address of this machine; ports below 1024 take leave "
            "(AmbientCapabilities=CAP_NET_BIND_SERVICE of systemd)",
        )
    return ok(check, f"{host} port {port} is free; no server runs")


def _ask_server(url: str) -> dict[str, Any]:
    context = None
    if url.startswith("wss:"):
        # Whom it is for is not the question here, and nothing is sent that matters.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(url, ssl=context, proxy=None, open_timeout=STEP_TIMEOUT_S) as socket_:
        socket_.send(_CALL)
        answer = json.loads(socket_.recv(timeout=STEP_TIMEOUT_S))
    info: dict[str, Any] = answer["result"]
    return {name: str(info[name]) for name in ("name", "version")}


def _fetch(host: str, port: int) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(_reach(host), port, timeout=STEP_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        document = json.loads(response.read())
    finally:
        connection.close()
    if not isinstance(document, dict):
        raise ValueError("not ours")
    return response.status, document


def _reach(host: str) -> str:
    """Where what listens on that host is reached."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
