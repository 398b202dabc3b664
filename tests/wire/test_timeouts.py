import asyncio

import pytest

from tests.wire.harness import PING, PONG, TEXT, Client, Server, eventually, frame, serving


async def exchange(client: Client) -> None:
    """A round trip: whatever was sent before has arrived."""
    client.send(frame(TEXT, b"?"))
    assert await client.read_text() == b"?"


async def is_open(server: Server, client: Client) -> bool:
    await asyncio.sleep(0.01)
    return not server.connection.closing


@pytest.mark.parametrize("sent", [b"", b"GET /v1 HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "half"])
async def test_a_request_that_does_not_end_is_cut_off(sent: bytes) -> None:
    async with serving(opening_timeout_s=10) as server:
        client = await server.connect()
        client.send(sent)
        await eventually(lambda: server.listener.wheel._buckets)
        await server.pass_time(9)
        client.send(b"X")  # A byte now and then does not help.
        await server.pass_time(1)

        assert await client.is_cut_off()


async def test_who_does_not_authenticate_in_time_is_closed_with_4408() -> None:
    async with serving(authentication_timeout_s=30, ping_interval_s=1000) as server:
        client = await server.open()
        await server.pass_time(29)
        assert await is_open(server, client)
        await server.pass_time(1)

        assert await client.read_close() == 4408


async def test_who_has_authenticated_has_no_such_deadline() -> None:
    async with serving(authentication_timeout_s=30, ping_interval_s=1000) as server:
        client = await server.open()
        server.connection.authenticated()
        server.connection.restart_authentication_clock()
        await server.pass_time(100)

        assert await is_open(server, client)


async def test_the_authentication_clock_restarts_and_stands_still() -> None:
    async with serving(authentication_timeout_s=30, ping_interval_s=1000) as server:
        client = await server.open()
        await server.pass_time(20)
        server.connection.restart_authentication_clock()
        await server.pass_time(29)
        assert await is_open(server, client)

        server.connection.stop_authentication_clock()
        await server.pass_time(100)
        assert await is_open(server, client)

        server.connection.restart_authentication_clock()
        await server.pass_time(29)
        assert await is_open(server, client)
        await server.pass_time(1)
        assert await client.read_close() == 4408


async def test_a_ping_comes_every_interval_and_a_peer_that_pongs_stays() -> None:
    async with serving(ping_interval_s=25, pong_timeout_s=20) as server:
        client = await server.open()
        server.connection.authenticated()
        pings = 0
        for _ in range(8):
            await server.pass_time(25)
            assert await client.read_frame() == (PING, b"")
            client.send(frame(PONG))
            await exchange(client)
            pings += 1

        assert pings == 8
        assert await is_open(server, client)


async def test_a_peer_that_stays_silent_after_a_ping_is_closed_with_1011() -> None:
    async with serving(ping_interval_s=25, pong_timeout_s=20) as server:
        client = await server.open()
        server.connection.authenticated()
        await server.pass_time(25)
        assert await client.read_frame() == (PING, b"")
        pinged_at_least_s_ago = 0
        while not server.connection.closing:
            await server.pass_time(1)
            pinged_at_least_s_ago += 1

        # The first ping comes after half an interval to a whole one.
        assert 20 - 13 <= pinged_at_least_s_ago <= 20
        assert await client.read_close() == 1011
        # With no wait for the answer to that: who is not there is offline.
        await eventually(lambda: server.application.times_lost == 1)


async def test_a_half_sent_frame_is_given_the_pong_timeout_and_no_more() -> None:
    async with serving(ping_interval_s=25, pong_timeout_s=20) as server:
        client = await server.open()
        server.connection.authenticated()
        client.send(frame(TEXT, b"x" * 1000)[:500])
        await server.pass_time(25 + 20)

        assert await client.read_frame() == (PING, b"")
        assert await client.read_close() == 1011
        assert server.application.heard == []


async def test_who_trickles_a_frame_in_is_bounded_by_the_time_to_authenticate() -> None:
    async with serving(
        ping_interval_s=25, pong_timeout_s=20, authentication_timeout_s=30
    ) as server:
        client = await server.open()
        trickle = frame(TEXT, b"x" * 1000)
        for at in range(29):
            client.send(trickle[at : at + 1])
            await server.pass_time(1)
        assert await is_open(server, client)
        await server.pass_time(1)

        assert await client.read_frame() == (PING, b"")
        assert await client.read_close() == 4408


async def test_any_byte_is_a_sign_of_life() -> None:
    async with serving(
        ping_interval_s=25, pong_timeout_s=20, anonymous_message_bytes_max=1000
    ) as server:
        client = await server.open()
        server.connection.authenticated()
        trickle = frame(TEXT, bytes(100))
        for at in range(20):
            await server.pass_time(15)
            client.send(trickle[at : at + 1])
            await asyncio.sleep(0.005)

        assert await is_open(server, client)


async def test_pings_of_those_who_came_at_once_are_spread() -> None:
    async with serving(ping_interval_s=25) as server:
        await asyncio.gather(*(server.open() for _ in range(100)))
        due = {round(application.connection._ping_at_s) for application in server.applications}

        assert len(due) == 13
        assert all(1012 <= second <= 1025 for second in due)


async def test_a_held_connection_is_not_silent() -> None:
    async with serving(ping_interval_s=25, pong_timeout_s=20) as server:
        client = await server.open()
        server.connection.authenticated()
        server.connection.hold()
        client.send(frame(PONG) * 10)
        await server.pass_time(200)
        assert await is_open(server, client)

        # Nor on the tick after: it has its whole time again.
        server.connection.release()
        await server.pass_time(1)
        assert await is_open(server, client)


async def test_a_server_that_was_away_blames_nobody() -> None:
    async with serving(
        ping_interval_s=25, pong_timeout_s=20, authentication_timeout_s=30
    ) as server:
        client, waiting = await server.open(), await server.open()
        server.applications[0].connection.authenticated()
        await server.pass_time(25)  # Both are pinged, and neither answers.

        server.clock.now_s += 3600
        server.listener.sweep()
        await server.pass_time(19)
        await asyncio.sleep(0.01)
        assert [a.connection.closing for a in server.applications] == [False, False]

        await server.pass_time(1)
        codes = []
        for each in (client, waiting):
            opcode, payload = await each.read_frame()
            while opcode == PING:
                opcode, payload = await each.read_frame()
            codes.append(int.from_bytes(payload[:2]))
        assert codes == [1011, 4408]


async def test_a_sweep_that_is_a_little_late_is_none_the_milder() -> None:
    async with serving(authentication_timeout_s=30, ping_interval_s=1000) as server:
        client = await server.open()
        await server.pass_time(28)
        server.clock.now_s += 3
        server.listener.sweep()

        assert await client.read_close() == 4408


async def test_a_peer_that_takes_nothing_for_too_long_is_cut_off() -> None:
    async with serving(write_timeout_s=30, ping_interval_s=25) as server:
        client = await server.open()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined] # of its read half
        server.connection.authenticated()
        server.connection.send(bytes(20_000_000))
        await eventually(lambda: server.connection.congested)
        await asyncio.sleep(0.05)  # The kernel's buffers take their share.
        await server.pass_time(29)
        assert server.application.times_lost == 0

        await server.pass_time(32)
        await eventually(lambda: server.application.times_lost)


async def test_a_peer_that_takes_a_little_at_a_time_stays() -> None:
    async with serving(write_timeout_s=30) as server:
        client = await server.open(limit=1000)
        server.connection.authenticated()
        server.connection.send(bytes(30_000_000))
        await eventually(lambda: server.connection.congested)
        for _ in range(6):
            await client.reader.readexactly(2_000_000)
            await asyncio.sleep(0.01)
            await server.pass_time(25)

        assert server.connection.congested
        assert not server.connection.closing


async def test_what_is_sent_meanwhile_does_not_hide_what_a_slow_peer_takes() -> None:
    async with serving(write_timeout_s=30) as server:
        client = await server.open(limit=1000)
        server.connection.authenticated()
        server.connection.send(bytes(30_000_000))
        await eventually(lambda: server.connection.congested)
        await asyncio.sleep(0.05)  # The kernel's buffers take their share.
        for _ in range(3):
            await client.reader.readexactly(4_000_000)
            await asyncio.sleep(0.01)
            server.connection.send(bytes(8_000_000))
            await server.pass_time(31)

        assert not server.connection.closing
        assert server.application.times_lost == 0


async def test_the_sweep_runs_by_itself() -> None:
    async with serving(opening_timeout_s=2) as server:
        client = await server.connect()
        await eventually(lambda: server.listener.wheel._buckets)
        server.clock.now_s += 2

        assert await client.is_cut_off()
