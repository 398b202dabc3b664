"""Whose address counts, which pages may connect, and what a crowd is held to."""

from __future__ import annotations

import contextlib
import sys

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidHandshake, InvalidStatus

from tests.e2e.conftest import MakeProcess, Serve
from tests.e2e.rawclient import RawClient, open_client, open_socket
from tests.e2e.serving import Served
from tests.wire.harness import CLOSE, PING, TEXT, Client, frame
from wsserver.gate import GateLimits

EMAIL = "joe@example.com"


async def open_for(served: Served, client: str) -> RawClient:
    """A connection that says that it comes from a client of that address."""
    return await served.open(additional_headers={"X-Forwarded-For": client})


# Proxies.


async def test_limits_count_the_client_behind_a_trusted_proxy(serve: Serve) -> None:
    served = await serve(
        rate_limits="on", anonymous_by_address_max=2, trusted_proxies=("127.0.0.1/32",)
    )
    for _ in range(2):
        await (await open_for(served, "203.0.113.9")).call("server.ping")

    assert await (await open_for(served, "203.0.113.9")).closed() == 4429
    await (await open_for(served, "203.0.113.10")).call("server.ping")
    await (await open_for(served, "2001:db8::1")).call("server.ping")


async def test_what_a_stranger_forwards_changes_nothing(serve: Serve) -> None:
    served = await serve(
        rate_limits="on", anonymous_by_address_max=2, trusted_proxies=("10.0.0.0/8",)
    )
    for client in ("203.0.113.9", "203.0.113.10"):
        await (await open_for(served, client)).call("server.ping")

    assert await (await open_for(served, "203.0.113.11")).closed() == 4429


# Crowds.


async def try_to_open(served: Served, address: str) -> ClientConnection | None:
    """A WebSocket from that address of this machine; None when it was dropped."""
    with contextlib.suppress(OSError, InvalidHandshake, EOFError):
        return await open_socket(served.url, local_addr=(address, 0))
    return None


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is loopback on Linux")
async def test_who_opens_and_drops_too_fast_is_dropped_and_nobody_else(serve: Serve) -> None:
    served = await serve(rate_limits="on")
    joe = await served.open_account(EMAIL)
    burst = GateLimits().connect_rate.burst
    opened = 0
    while (socket := await try_to_open(served, "127.0.1.1")) is not None:
        opened += 1
        socket.transport.abort()
        assert opened < 3 * burst, "nothing stops it"

    assert opened >= burst
    await joe.push(1)
    other = await try_to_open(served, "127.0.1.2")
    assert other is not None
    await other.close()


async def test_devices_that_log_in_are_never_too_many(serve: Serve) -> None:
    served = await serve(rate_limits="on", connect_rate="1/h, burst 5")
    await served.open_account(EMAIL)
    _, session = await served.open_device(EMAIL, "phone")
    for _ in range(20):
        client = await served.open()
        await client.call("session.resume", token=session["token"])
        await client.close()


async def test_behind_a_trusted_proxy_no_client_uses_up_the_others_connections(
    serve: Serve,
) -> None:
    served = await serve(
        rate_limits="on", connect_rate="1/h, burst 5", trusted_proxies=("127.0.0.0/8",)
    )
    for number in range(20):
        await (await open_for(served, f"203.0.113.{number}")).close()


async def test_the_command_holds_a_connection_to_the_rate_that_a_variable_sets(
    make_process: MakeProcess,
) -> None:
    server = make_process(rate_limits="on")
    server.environment["WSSERVER_MESSAGE_RATE"] = "1/min, burst 3"
    server.environment["WSSERVER_REFUSALS_MAX"] = "2"
    await server.start()

    async with open_client(server.url) as client:
        for _ in range(3):
            await client.call("server.ping")
        refusals = [await client.fail("server.ping") for _ in range(2)]

        assert [refusal.code for refusal in refusals] == [429, 429]
        assert 50_000 < refusals[0].data["retryAfterMs"] <= 60_000
        assert await client.closed() == 4429


# Origins.


async def test_only_pages_of_allowed_origins_connect_and_every_app_does(serve: Serve) -> None:
    app, own = "https://app.example.com", "https://sync.example.com"
    served = await serve(allowed_origins=(app,), public_url=f"{own}/wallets")
    for origin in (app, own, None):
        await (await served.open(origin=origin)).call("server.ping")

    for origin in ("https://evil.example", f"{app}:8443", "null"):
        with pytest.raises(InvalidStatus) as refusal:
            await served.open(origin=origin)
        assert refusal.value.response.status_code == 403


async def test_every_page_connects_unless_told_otherwise(served: Served) -> None:
    client = await served.open(origin="https://evil.example")

    # It is nobody there until it logs in: the browser brings along nothing that counts.
    assert (await client.fail("wallet.get")).reason == "not_authenticated"


# Peers that don't go on, over real sockets in real time.


async def read_code(client: Client) -> int:
    """The code of the close frame that comes, past pings."""
    while True:
        opcode, payload = await client.read_frame()
        if opcode == CLOSE:
            return int.from_bytes(payload[:2])
        assert opcode == PING


async def test_a_half_sent_frame_of_a_stranger_ends_with_the_time_to_log_in(serve: Serve) -> None:
    served = await serve(auth_timeout_s=0.3)
    client = await Client.connect(served.server.port)
    await client.upgrade()
    client.send(frame(TEXT, b"x" * 1000)[:500])

    assert await read_code(client) == 4408
    client.drop()


async def test_a_peer_that_never_answers_pings_is_closed_and_one_that_does_stays(
    serve: Serve,
) -> None:
    served = await serve(ping_interval_s=0.4, pong_timeout_s=0.4)
    dead, alive = await Client.connect(served.server.port), await served.open()
    await dead.upgrade()

    assert await read_code(dead) == 1011
    await alive.call("server.ping")
    dead.drop()
