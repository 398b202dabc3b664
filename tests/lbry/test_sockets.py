"""The WebSocket of the interface, and devices on it and on ``/v1`` of one account."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from tests.e2e.mailing import until
from tests.e2e.rawclient import WAIT_S
from tests.lbry.client import LbryClient, WalletState, hear, open_socket
from tests.lbry.conftest import Gateway, OpenGateway
from wsserver import logbook

JOE = "joe@example.com"


async def refusal(gateway: Gateway, query: str, **options: object) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refused:
        await open_socket(gateway.url, query, **options)
    response = refused.value.response
    assert response.body is not None
    assert response.headers["Content-Type"] == "application/json"
    return response.status_code, response.body.decode()


async def closed(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(WAIT_S):
        await socket.wait_closed()
    return socket.close_code


def read_ends(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of the lines, one a socket that is over."""
    return [
        vars(record)["fields"]
        for record in caplog.records
        if vars(record).get("entry") is logbook.GATEWAY_SOCKET_ENDED
    ]


async def test_every_push_is_told_to_every_socket_the_pushers_own_too(gateway: Gateway) -> None:
    c1 = await gateway.account(JOE)
    c2 = gateway.client(JOE)
    await c2.get_auth_token()
    sockets = [await c1.listen(), await c1.listen(), await c2.listen()]
    c1.new_wallet_state()

    for _ in range(20):
        assert await c1.update_wallet()

    for socket in sockets:
        assert await hear(socket, 20) == [f"wallet-update:{n}" for n in range(1, 21)]


async def test_two_devices_on_the_gateway_and_one_on_v1_see_each_others_pushes(
    gateway: Gateway,
) -> None:
    c1 = await gateway.account(JOE)
    c2 = gateway.client(JOE)
    await c2.get_auth_token()
    v1, opened = await gateway.served.open_device(JOE, "phone", password=c1.password, presence=True)
    assert opened["sequence"] == 0
    first, second = await c1.listen(), await c2.listen()
    await v1.until(lambda: len(v1.heard("device.updated")) == 2)
    c1.new_wallet_state()
    c1.change_encrypted_wallet()

    # One on the gateway pushes, and all hear of it.
    assert await c1.update_wallet()
    assert await hear(first) == await hear(second) == ["wallet-update:1"]
    [told] = await v1.hear("wallet.updated")
    assert (told["sequence"], told["deviceId"]) == (1, c1.device_id)
    state = await v1.call("wallet.get")
    assert state["encryptedWallet"] == c1.cur_encrypted_wallet()
    assert state["hmac"] == c1.compute_hmac(1, state["encryptedWallet"])

    # The one on /v1 pushes, and those on the gateway hear of it.
    wallet = f"{state['encryptedWallet']}:beef"
    await v1.call("wallet.push", **c1.sign(2, wallet))
    assert await hear(first) == await hear(second) == ["wallet-update:2"]
    await c2.get_wallet()
    assert c2.synced == WalletState(2, wallet)

    # Who is late is told so, on either.
    c1.change_encrypted_wallet()
    assert not await c1.update_wallet()
    assert c1.synced == WalletState(2, wallet)
    conflict = await v1.fail("wallet.push", **c1.sign(2, "late"))
    assert (conflict.code, conflict.data["wallet"]["encryptedWallet"]) == (409, wallet)
    assert await c1.update_wallet()
    assert await hear(first) == await hear(second) == ["wallet-update:3"]
    await v1.hear_sequence(3)

    devices = {it["deviceId"]: it for it in (await v1.call("device.list"))["devices"]}
    assert set(devices) == {c1.device_id, c2.device_id, "phone"}
    assert all(device["online"] for device in devices.values())
    assert devices[c1.device_id]["appliedSequence"] == 3


async def test_a_password_change_on_either_side_ends_the_sessions_of_both(
    gateway: Gateway,
) -> None:
    c1 = await gateway.account(JOE)
    c2 = gateway.client(JOE)
    await c2.get_auth_token()
    v1, _ = await gateway.served.open_device(JOE, "phone", password=c1.password)
    sockets = [await c1.listen(), await c2.listen()]
    c1.new_wallet_state()
    await c1.update_wallet()
    assert [await hear(socket) for socket in sockets] == [["wallet-update:1"]] * 2

    await c1.change_password("another root password")

    assert [await closed(socket) for socket in sockets] == [4401, 4401]
    assert await v1.closed() == 4401
    assert v1.received[-1]["params"] == {"reason": "password_changed"}
    await c1.get_auth_token()
    await c1.get_wallet()
    assert c1.synced == WalletState(2, "-")

    # And from the other side.
    socket = await c1.listen()
    v1, _ = await gateway.served.open_device(JOE, "phone", password=c1.password)
    await v1.change_password(c1.password, "a third password", 3)
    assert await closed(socket) == 4401


async def test_a_new_login_of_the_device_ends_its_sockets_and_no_others(gateway: Gateway) -> None:
    c1 = await gateway.account(JOE)
    c2 = gateway.client(JOE)
    await c2.get_auth_token()
    old, other = await c1.listen(), await c2.listen()

    await c1.get_auth_token()

    assert await closed(old) == 4401
    c1.new_wallet_state()
    await c1.update_wallet()
    assert await hear(other) == ["wallet-update:1"]


async def test_a_device_is_revoked_from_v1(gateway: Gateway) -> None:
    c1 = await gateway.account(JOE)
    socket = await c1.listen()
    v1, _ = await gateway.served.open_device(JOE, "phone", password=c1.password)

    await v1.call("device.revoke", deviceId=c1.device_id)

    assert await closed(socket) == 4401
    assert await c1.http.get("/wallet", token=c1.token) == (
        401,
        {"error": "Unauthorized: Token Not Found"},
    )


async def test_a_socket_needs_a_token_that_lives(gateway: Gateway) -> None:
    assert await refusal(gateway, "") == (400, '{"error":"Bad Request: Missing token parameter"}')
    assert await refusal(gateway, "?token=x") == (401, '{"error":"Unauthorized: Token Not Found"}')


async def test_there_is_one_path_for_sockets_and_it_is_for_them_alone(gateway: Gateway) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await open_socket(gateway.url, "/nothing")
    assert refused.value.response.status_code == 404

    response = await gateway.http.send("GET", "/api/3/websocket?token=x")
    assert (response.status_code, response.json()) == (
        400,
        {"error": "Bad Request: This is a WebSocket"},
    )


async def test_the_server_pings_and_cuts_off_who_does_not_answer(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(ping_interval_s=0.1, pong_timeout_s=0.3)
    client = await gateway.account(JOE)
    client.new_wallet_state()
    answering = await client.listen()
    silent = await client.listen()
    # It reads nothing more, and so answers no ping.
    silent.transport.pause_reading()

    async with asyncio.timeout(WAIT_S):
        while len(gateway.served.server._engine.hub) > 1:
            await asyncio.sleep(0.01)
    silent.transport.resume_reading()
    assert await closed(silent) in (1006, 1011)
    await client.update_wallet()
    assert await hear(answering) == ["wallet-update:1"]


async def test_what_a_client_says_on_a_socket_is_let_go(gateway: Gateway) -> None:
    client = await gateway.account(JOE)
    client.new_wallet_state()
    socket = await client.listen()

    for text in ("hello", b"\x00", "x" * 512):
        await socket.send(text)
    await client.update_wallet()
    assert await hear(socket) == ["wallet-update:1"]

    await socket.send("x" * 513)
    assert await closed(socket) == 1009


async def test_a_socket_that_is_gone_is_forgotten(gateway: Gateway) -> None:
    client = await gateway.account(JOE)
    v1, _ = await gateway.served.open_device(JOE, "phone", password=client.password, presence=True)

    def presence() -> list[bool]:
        return [told["online"] for told in v1.heard("device.updated")]

    closing = await client.listen()
    await closing.close()
    await v1.until(lambda: presence() == [True, False])
    dropping = await client.listen()
    dropping.transport.abort()
    await v1.until(lambda: presence() == [True, False] * 2)

    engine = gateway.served.server._engine
    assert len(engine.hub) == len(engine._members) == 1


async def test_a_socket_has_a_line_in_the_log_at_its_end(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client = await gateway.account(JOE)
    closing, staying = await client.listen(), await client.listen()
    await closing.close(1001)
    dropping = await client.listen()
    await asyncio.sleep(0.01)  # It is told in milliseconds.
    dropping.transport.abort()
    await until(lambda: len(read_ends(caplog)) == 2)
    await gateway.served.server.stop()
    assert await closed(staying) == 1012

    ends = read_ends(caplog)
    assert [end["close_code"] for end in ends] == [1001, 1005, 1012]
    assert [end["close_reason"] for end in ends] == ["", "", "the server is about to stop"]
    for end in ends:
        assert (end["peer"], end["account_id"]) == ("127.0.0.1", 1)
        assert end["device_id"] == client.device_id
        assert end["duration_s"] > 0


async def test_the_pages_of_other_origins_are_kept_out(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(allowed_origins=("https://app.example.com",))
    client = await gateway.account(JOE)

    status, _ = await refusal(gateway, f"?token={client.token}", origin="https://evil.example.com")

    assert status == 403
    await client.listen(origin="https://app.example.com")
    await client.listen()


async def test_an_account_has_no_more_sessions_than_it_may_have(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(rate_limits="on", sessions_by_account_max=2)
    client = await gateway.account(JOE)
    first = await client.listen()
    rest = [await client.listen() for _ in range(2)]

    assert await closed(first) == 4429
    client.new_wallet_state()
    await client.update_wallet()
    assert [await hear(socket) for socket in rest] == [["wallet-update:1"]] * 2


async def test_a_server_that_stops_sends_its_sockets_away(gateway: Gateway) -> None:
    client = await gateway.account(JOE)
    socket = await client.listen()

    stopping = asyncio.create_task(gateway.served.server.stop())

    assert await closed(socket) == 1012
    await stopping


async def test_pushes_of_many_devices_at_once_lose_no_listener(gateway: Gateway) -> None:
    clients = [await gateway.account(JOE)]
    for _ in range(3):
        clients.append(gateway.client(JOE))
        await clients[-1].get_auth_token()
    sockets = [await client.listen() for client in clients]
    for client in clients:
        client.new_wallet_state()
        client.change_encrypted_wallet()

    async def push(client: LbryClient) -> None:
        while not await client.update_wallet():
            pass

    await asyncio.gather(*map(push, clients))

    for socket in sockets:
        assert await hear(socket, 4) == [f"wallet-update:{n}" for n in range(1, 5)]
