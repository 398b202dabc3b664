"""What a listener counts: how its connections end, and whom it lets not in."""

from tests.wire.harness import CLOSE, UPGRADE, Server, close_frame, eventually, frame, serving


async def count_closes(server: Server) -> dict[tuple[str, str], int]:
    await eventually(lambda: not server.listener.connections)
    return dict(server.listener.tallies.closes)


async def test_a_close_is_counted_by_its_code_and_by_who_began() -> None:
    async with serving() as server:
        for sent in (close_frame(1000), close_frame(4999, "of my own"), frame(CLOSE)):
            client = await server.open()
            client.send(sent)
            await client.read_to_end()

        assert await count_closes(server) == {
            ("1000", "client"): 1,
            ("1005", "client"): 1,
            ("other", "client"): 1,
        }


async def test_our_own_close_counts_as_ours_though_the_peer_answers_it() -> None:
    async with serving() as server:
        client = await server.open()
        server.connection.close(4401, "session revoked")
        assert await client.read_close() == 4401
        client.send(close_frame(4401))
        await client.read_to_end()

        assert await count_closes(server) == {("4401", "server"): 1}


async def test_what_breaks_the_protocol_is_counted_too() -> None:
    async with serving() as server:
        client = await server.open()
        client.send(b"\xff\x80")
        assert await client.read_close() == 1002
        client.drop()

        assert await count_closes(server) == {("1002", "server"): 1}


async def test_who_vanishes_is_counted_with_1006() -> None:
    async with serving() as server:
        client = await server.open()
        client.drop()

        assert await count_closes(server) == {("1006", "none"): 1}


async def test_who_takes_nothing_is_counted() -> None:
    async with serving(write_timeout_s=30) as server:
        client = await server.open()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined] # of its read half
        server.connection.authenticated()
        server.connection.send(bytes(20_000_000))
        await eventually(lambda: server.connection.congested)
        await server.pass_time(65)
        await eventually(lambda: server.application.times_lost)

        assert server.listener.tallies.stalled == 1


async def test_who_finds_no_room_is_counted_by_the_limit() -> None:
    async with serving(connections_max=1, openings_max=1) as server:
        await server.open()
        refused = await server.connect()
        refused.send(UPGRADE + b"\r\n")
        assert "503" in await refused.read_head()
        refused.drop()
        await eventually(lambda: not server.listener.openings)
        await server.connect()
        await eventually(lambda: server.listener.openings)
        assert await (await server.connect()).is_cut_off()

        assert server.listener.tallies.refusals == {"connections_max": 1, "openings_max": 1}
        assert server.listener.openings == 1
