"""Who may come in at all: decided before a byte is read, over TLS before its handshake."""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.certificates import Authority
from tests.wire.harness import TEXT, UPGRADE, Client, Server, eventually, frame, serving
from wsserver.transport import REFUSALS_REPORT_INTERVAL_S


@pytest.fixture(scope="module")
def server_context(tmp_path_factory: pytest.TempPathFactory) -> tls.SSLContext:
    files = Authority(tmp_path_factory.mktemp("tls")).issue("server")
    context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    return context


@asynccontextmanager
async def a_crowd(server: Server, number: int) -> AsyncIterator[list[Client]]:
    """Connections that say nothing, taken into account one after another."""
    crowd = []
    for _ in range(number):
        crowd.append(await server.connect())
        await eventually(lambda: len(server.listener._openings) == len(crowd))
    yield crowd


async def is_dropped(client: Client) -> bool:
    """Whether the connection ends though it asks nothing but to come in."""
    with contextlib.suppress(ConnectionError):
        client.send(UPGRADE + b"\r\n")
    return await client.is_cut_off()


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
async def test_who_is_not_admitted_is_dropped_and_costs_no_handshake(
    secure: bool, server_context: tls.SSLContext
) -> None:
    asked: list[str] = []

    def refuse(address: str) -> bool:
        asked.append(address)
        return False

    async with serving(admit_peer=refuse, ssl=server_context if secure else None) as server:
        client = await server.connect()

        assert await is_dropped(client)
        assert asked == ["127.0.0.1"]
        assert server.listener._openings == {}
        assert server.applications == []


async def test_a_trusted_proxy_is_not_asked_for() -> None:
    async with serving(admit_peer=lambda address: False, trusted_proxies=["127.0.0.1"]) as server:
        client = await server.open()
        client.send(frame(TEXT, b"hello"))

        assert await client.read_text() == b"hello"


async def test_a_failure_of_who_admits_costs_the_one_connection(
    server_context: tls.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([True])

    def fail_once(address: str) -> bool:
        if next(answers, False):
            raise LookupError("it fails")
        return True

    async with serving(admit_peer=fail_once, ssl=server_context) as server:
        assert await is_dropped(await server.connect())

        client = await server.connect(ssl=trusting_all())
        await client.upgrade()
    assert [record.exc_info is not None for record in caplog.records] == [True]


def trusting_all() -> tls.SSLContext:
    context = tls.create_default_context()
    context.check_hostname = False
    context.verify_mode = tls.CERT_NONE
    return context


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
async def test_the_oldest_that_has_not_asked_makes_room_once_it_had_its_time(
    secure: bool, server_context: tls.SSLContext
) -> None:
    async with (
        serving(
            openings_max=3, opening_grace_s=2, ssl=server_context if secure else None
        ) as server,
        a_crowd(server, 3) as crowd,
    ):
        server.clock.now_s += 2
        newcomer = await server.connect(ssl=trusting_all() if secure else None)

        await newcomer.upgrade()
        assert await crowd[0].is_cut_off()
        assert len(server.listener._openings) == 2


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
async def test_within_their_time_the_newcomer_is_the_one_too_many(
    secure: bool, server_context: tls.SSLContext
) -> None:
    async with (
        serving(
            openings_max=3, opening_grace_s=2, ssl=server_context if secure else None
        ) as server,
        a_crowd(server, 3) as crowd,
    ):
        server.clock.now_s += 1
        assert await is_dropped(await server.connect())

        crowd.pop().drop()
        await eventually(lambda: len(server.listener._openings) == 2)
        newcomer = await server.connect(ssl=trusting_all() if secure else None)
        await newcomer.upgrade()


async def test_websockets_take_no_room_from_those_who_open() -> None:
    async with serving(openings_max=1) as server:
        for _ in range(5):
            await server.open()

        assert len(server.listener.connections) == 5


async def test_a_crowd_costs_a_line_a_minute_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(admit_peer=lambda address: False) as server:
        for _ in range(3):
            assert await is_dropped(await server.connect())
            await server.pass_time(1)
        assert [vars(record)["fields"] for record in caplog.records] == [{"count": 1}]

        await server.pass_time(int(REFUSALS_REPORT_INTERVAL_S))
        assert [vars(record)["fields"] for record in caplog.records] == [{"count": 1}, {"count": 2}]


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00"], ids=["silent", "half"])
async def test_a_tls_handshake_that_does_not_end_is_cut_off(
    sent: bytes, server_context: tls.SSLContext
) -> None:
    # A timer of the event loop's own ends it: the clock of this test does not matter to it.
    async with serving(ssl=server_context, opening_timeout_s=0.2) as server:
        client = await server.connect()
        client.send(sent)

        assert await client.is_cut_off()
        await eventually(lambda: not server.listener._openings)


async def test_over_tls_a_request_that_does_not_end_is_cut_off(
    server_context: tls.SSLContext,
) -> None:
    async with serving(ssl=server_context, opening_timeout_s=10) as server:
        client = await server.connect(ssl=trusting_all())
        client.send(b"GET /v1 HTTP/1.1\r\nHost: x\r\n")
        await eventually(lambda: server.listener.wheel._buckets)
        await server.pass_time(10)

        assert await client.is_cut_off()


async def test_what_is_no_tls_is_dropped_and_forgotten(
    server_context: tls.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(ssl=server_context) as server:
        client = await server.connect()
        client.send(UPGRADE + b"\r\n")
        with contextlib.suppress(ConnectionError):
            await client.read_to_end()  # An alert, perhaps.

        await eventually(lambda: not server.listener._openings)
    assert caplog.records == []


async def test_over_tls_the_port_closes_to_newcomers_and_those_in_their_handshake_end(
    server_context: tls.SSLContext,
) -> None:
    async with serving(ssl=server_context) as server:
        client = await server.open(ssl=trusting_all())
        async with a_crowd(server, 1) as crowd:
            server.listener.stop_accepting()
            await asyncio.sleep(0.01)
            with pytest.raises(ConnectionRefusedError):
                await server.connect()

            closing = asyncio.create_task(server.listener.close())
            assert await crowd[0].is_cut_off()
            assert await client.read_close() == 1001
            client.drop()
            await asyncio.wait_for(closing, 10)
