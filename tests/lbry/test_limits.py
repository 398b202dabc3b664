"""What strangers and single peers are held to at the gateway, what its log says, how it ends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import logging
import socket
import ssl
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from tests.certificates import Authority
from tests.e2e.conftest import MakeProcess, PasswordGate, Serve
from tests.e2e.rawclient import PASSWORD, SEED, WAIT_S
from tests.e2e.serving import Served, find_free_port, run_command
from tests.lbry.client import API, Http, hear
from tests.lbry.conftest import Gateway, OpenGateway
from wsserver.cli import main
from wsserver.lbry import flows, serving
from wsserver.lbry import gateway as gateways
from wsserver.throttle import Rate

JOE = "joe@example.com"
SIGNUP = {"email": JOE, "password": PASSWORD, "clientSaltSeed": SEED}
AUTH = {"email": JOE, "password": PASSWORD, "deviceId": "laptop"}
TOO_MANY = (429, {"error": "Too Many Requests"})
ONCE_AN_HOUR = Rate(1 / 3600, 2)
SEED_QUERY = {"email": base64.b64encode(JOE.encode()).decode()}


async def test_wrong_passwords_are_held_to_their_rate(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(rate_limits="on", wrong_password_rate=ONCE_AN_HOUR)
    await gateway.http.post("/signup", SIGNUP)
    wrong = {**AUTH, "password": "wrong password"}

    assert [(await gateway.http.post("/auth/full", wrong))[0] for _ in range(3)] == [401, 401, 429]

    # On either door, and for a password change too; not for others.
    assert await gateway.http.post("/auth/full", AUTH) == TOO_MANY
    client = await gateway.served.open()
    late = await client.fail("session.login", email=JOE, password=PASSWORD, deviceId="laptop")
    assert late.reason == "rate_limited"
    other = {**wrong, "email": "ann@example.com"}
    assert (await gateway.http.post("/auth/full", other))[0] == 401


async def test_who_is_too_fast_is_told_when_to_come_back(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(rate_limits="on", prelogin_rate=ONCE_AN_HOUR)
    for _ in range(2):
        await gateway.http.get("/client-salt-seed", **SEED_QUERY)

    response = await gateway.http.send("GET", f"{API}/client-salt-seed", params=SEED_QUERY)

    assert response.status_code == 429
    assert 3000 < int(response.headers["Retry-After"]) <= 3600


async def test_requests_that_come_to_nothing_are_held_to_the_rate_of_connections(
    open_gateway: OpenGateway,
) -> None:
    gateway = await open_gateway(rate_limits="on", connect_rate=Rate(1 / 3600, 3))
    client = gateway.client(JOE)
    await client.register()
    await client.get_auth_token()
    client.new_wallet_state()

    # With a token that lives there is no end to them.
    for _ in range(5):
        assert await client.update_wallet()
        await client.get_wallet()
    statuses = [(await gateway.http.get("/wallet", token="unknown"))[0] for _ in range(3)]

    assert statuses[-1] == 429


async def test_a_token_is_held_to_the_rate_of_messages(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(rate_limits="on", message_rate=Rate(1 / 3600, 3))
    client = await gateway.account(JOE)
    client.new_wallet_state()
    for _ in range(3):
        await client.update_wallet()

    assert await gateway.http.get("/wallet", token=client.token) == TOO_MANY


async def test_limits_count_the_client_behind_a_trusted_proxy(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(
        rate_limits="on", prelogin_rate=ONCE_AN_HOUR, trusted_proxies=("127.0.0.1/32",)
    )

    async def ask(client: str) -> int:
        headers = {"X-Forwarded-For": client}
        path = f"{API}/client-salt-seed"
        response = await gateway.http.send("GET", path, params=SEED_QUERY, headers=headers)
        return response.status_code

    assert [await ask("203.0.113.9") for _ in range(3)] == [404, 404, 429]
    assert await ask("203.0.113.10") == 404


async def test_too_many_devices_are_told(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(devices_max=1)
    client = await gateway.account(JOE)
    await client.listen()

    answer = await gateway.http.post("/auth/full", {**AUTH, "password": client.password})

    assert answer == (403, {"error": "Forbidden: Too many devices"})


async def test_a_body_that_does_not_come_is_not_waited_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "BODY_TIMEOUT_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /api/3/signup HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")

    async with asyncio.timeout(WAIT_S):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /api/3/wal"])
async def test_a_request_that_does_not_come_is_not_waited_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(serving, "REQUEST_TIMEOUT_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(sent)

    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_a_connection_too_many_is_dropped(
    open_gateway: OpenGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsserver.server.GATEWAY_SHARE", 0.0)  # One, then.
    gateway = await open_gateway()
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)

    async with asyncio.timeout(WAIT_S):
        while gateway.served.server._count_connections() < 1:
            await asyncio.sleep(0.01)
        late, late_writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        with contextlib.suppress(ConnectionError):
            assert await late.read() == b""
    for one in (writer, late_writer):
        one.close()


async def test_a_failure_of_our_own_tells_an_id_that_is_in_the_log(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> Any:
        raise ValueError(f"with {PASSWORD} in it")

    monkeypatch.setattr(flows, "signup", fail)

    status, answer = await gateway.http.post("/signup", SIGNUP)

    assert status == 500
    prefix, _, error_id = answer["error"].rpartition(" ")
    assert prefix == "Internal Server Error: error id"
    assert error_id in caplog.text
    assert PASSWORD not in caplog.text
    assert (await gateway.http.get("/client-salt-seed", **SEED_QUERY))[0] == 404


async def test_no_secret_is_logged(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = await gateway.account(JOE)
    client.new_wallet_state()
    await client.update_wallet()
    socket = await client.listen()
    await client.update_wallet()
    await hear(socket)
    await gateway.http.get("/wallet", token="unknown-token")

    ours = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(("uvicorn", "wsserver"))
    ]
    for secret in (client.token, client.password, JOE, "unknown-token"):
        assert not any(secret in line for line in ours)


async def test_the_figures_count_what_the_gateway_answers(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(admin_port=find_free_port())
    client = await gateway.account(JOE)
    client.new_wallet_state()
    socket = await client.listen()
    await client.update_wallet()
    await hear(socket)
    await gateway.http.get("/wallet", token="unknown")
    await gateway.http.get("/nothing")

    figures = gateway.served.server._exposition.expose().decode()

    for line in (
        'wsserver_calls_total{method="lbry.signup",outcome="ok"} 1.0',
        'wsserver_calls_total{method="lbry.auth.full",outcome="ok"} 1.0',
        'wsserver_calls_total{method="lbry.wallet.post",outcome="ok"} 1.0',
        'wsserver_calls_total{method="lbry.wallet.get",outcome="bad_token"} 1.0',
        'wsserver_calls_total{method="lbry.unknown",outcome="404"} 1.0',
        'wsserver_notifications_total{method="wallet-update"} 1.0',
        "wsserver_push_seconds_count 1.0",
        "wsserver_sessions 1.0",
    ):
        assert line in figures.splitlines(), line


# Starting and stopping.


async def test_a_request_in_flight_is_answered_before_the_server_stops(
    password_gate: PasswordGate, open_gateway: OpenGateway
) -> None:
    gateway = await open_gateway(drain_timeout_s=WAIT_S)
    await gateway.http.post("/signup", SIGNUP)
    password_gate.hold_next()
    answering = asyncio.create_task(gateway.http.post("/auth/full", AUTH))
    await password_gate.wait_until_held()

    stopping = asyncio.create_task(gateway.served.server.stop())
    await asyncio.sleep(0.1)
    other = Http(gateway.url)
    with contextlib.suppress(httpx.TransportError):
        late = await other.send("GET", f"{API}/client-salt-seed", params=SEED_QUERY)
        assert late.status_code == 503
        assert late.headers["Retry-After"] == "1"
    await other.close()
    password_gate.release()

    status, _ = await answering
    assert status == 200
    await stopping


async def test_a_client_that_hangs_does_not_hold_up_the_stop(gateway: Gateway) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /api/3/signup HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    async with asyncio.timeout(WAIT_S):
        while not gateway.served.server._count_connections():
            await asyncio.sleep(0.01)

    async with asyncio.timeout(5):
        await gateway.served.server.stop()
    writer.close()


async def test_the_gateway_speaks_tls_where_the_server_does(
    open_gateway: OpenGateway, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("first")
    gateway = await open_gateway(tls_cert=files.chain, tls_key=files.key)
    trusting = ssl.create_default_context(cafile=authority.path)

    async with httpx.AsyncClient(verify=trusting, trust_env=False, timeout=WAIT_S) as client:
        answer = await client.post(f"https://127.0.0.1:{gateway.port}{API}/signup", json=SIGNUP)

    assert (answer.status_code, answer.json()) == (201, {"verified": True})


async def test_without_a_port_there_is_no_gateway(serve: Serve) -> None:
    served: Served = await serve()

    assert served.server._gateway is None


def test_a_server_without_the_extra_says_which_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec

    def find_none(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("starlette", "uvicorn") else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_none)
    done = CliRunner().invoke(
        main, ["serve", f"--database-url=sqlite:///{tmp_path}/wallets.db", "--lbry-port=8092"]
    )

    assert done.exit_code == 1
    assert "needs starlette and uvicorn" in done.output
    assert "pip install 'wallet-sync[server,lbry]'" in done.output


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        done = run_command(["serve", "--port=0", "--admin-port=0", f"--lbry-port={port}"], tmp_path)

    assert done.returncode == 1
    assert f"lbry port {port}" in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_command_serves_and_says_where(make_process: MakeProcess) -> None:
    port = find_free_port()
    process = make_process(lbry_port=port)
    await process.start()

    assert f"lbryio's HTTP interface on http://127.0.0.1:{port}/api/3" in process.log
    http = Http(f"http://127.0.0.1:{port}")
    assert await http.post("/signup", SIGNUP) == (201, {"verified": True})
    await http.close()
