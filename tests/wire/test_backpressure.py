import asyncio

import pytest

from tests.wire.harness import (
    PING,
    PONG,
    TEXT,
    Client,
    Echo,
    Server,
    close_frame,
    eventually,
    frame,
    serving,
)
from wsserver.transport import Connection


class Big(Echo):
    """Answers every message with a megabyte."""

    def message_received(self, payload: bytes | bytearray) -> None:
        self.heard.append(bytes(payload))
        self.connection.send(bytes(payload) * 1_000_000)


class Slow(Echo):
    """Takes one message at a time, until it is released."""

    def message_received(self, payload: bytes | bytearray) -> None:
        super().message_received(payload)
        self.connection.hold()


async def stop_reading(client: Client) -> None:
    client.writer.transport.pause_reading()  # type: ignore[attr-defined] # of its read half


async def flood(server: Server, client: Client) -> int:
    """Sends requests until the server takes no more; how many bytes it took."""
    sent, request = 0, frame(TEXT, b"x") * 1000
    while sent < 50_000_000:
        client.send(request)
        sent += len(request)
        try:
            await asyncio.wait_for(client.writer.drain(), 0.3)
        except TimeoutError:
            break
    return sent


async def test_a_peer_that_never_reads_is_not_read_from_either() -> None:
    async with serving(Big) as server:
        client = await server.open()
        await stop_reading(client)
        sent = await flood(server, client)

        assert server.connection.congested
        assert sent < 50_000_000
        # What the kernel takes aside, no more than the answer that went above the mark.
        assert len(server.application.heard) < 20
        transport = server.connection._transport
        assert transport is not None
        assert transport.get_write_buffer_size() < 1_200_000


async def test_all_is_answered_in_order_once_the_peer_reads_again() -> None:
    async with serving(Big) as server:
        client = await server.open()
        await stop_reading(client)
        letters = [bytes([letter]) for letter in b"abcdefghijklmnop"]
        client.send(b"".join(frame(TEXT, letter) for letter in letters))
        await eventually(lambda: server.connection.congested)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined] # of its read half

        for letter in letters:
            assert await client.read_text() == letter * 1_000_000
        assert not server.connection.congested
        assert server.application.times_writable >= 1


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
async def test_pings_of_a_peer_that_never_reads_fill_no_memory(closing: bool) -> None:
    async with serving() as server:
        client = await server.open()
        await stop_reading(client)
        if closing:
            server.connection.close(1012)
        pings = frame(PING, bytes(125)) * 1000
        for _ in range(400):
            client.send(pings)
            try:
                await asyncio.wait_for(client.writer.drain(), 0.3)
            except TimeoutError:
                break
        await eventually(lambda: server.connection.congested)

        transport = server.connection._transport
        assert transport is not None
        assert transport.get_write_buffer_size() < 500_000


async def test_while_held_nothing_is_delivered_and_afterwards_all_in_order() -> None:
    async with serving(Slow) as server:
        client = await server.open()
        sent = [b"%d" % number for number in range(50)]
        client.send(b"".join(frame(TEXT, message) for message in sent))
        await eventually(lambda: server.application.heard)
        for number in range(50):
            await asyncio.sleep(0.001)
            assert server.application.heard == sent[: number + 1]
            server.connection.release()

        assert [await client.read_text() for _ in sent] == sent


async def test_release_delivers_soon_but_not_inside_the_call() -> None:
    async with serving(Slow) as server:
        client = await server.open()
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
        await eventually(lambda: server.application.heard)

        server.connection.release()
        assert server.application.heard == [b"one"]
        await eventually(lambda: server.application.heard == [b"one", b"two"])


async def test_a_held_connection_takes_no_more_than_a_socket_does() -> None:
    async with serving(Slow) as server:
        client = await server.open()
        sent = await flood(server, client)

        assert sent < 50_000_000
        assert len(server.application.heard) == 1
        assert len(server.connection._unparsed) <= 256 * 1024


async def test_hold_and_release_within_one_message_stop_nothing() -> None:
    class Hesitant(Echo):
        def message_received(self, payload: bytes | bytearray) -> None:
            self.connection.hold()
            super().message_received(payload)
            self.connection.release()

    async with serving(Hesitant) as server:
        client = await server.open()
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two"))

        assert [await client.read_text(), await client.read_text()] == [b"one", b"two"]


async def test_a_held_connection_still_sends() -> None:
    async with serving() as server:
        client = await server.open()
        server.connection.hold()
        server.connection.send(b"news")

        assert await client.read_text() == b"news"


async def test_closing_drops_what_was_held_back_and_finds_the_peers_close_in_it() -> None:
    async with serving(Slow) as server:
        client = await server.open()
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two") * 10_000 + close_frame(1000))
        await eventually(lambda: server.application.heard)
        server.connection.close(1012)

        assert await client.read_text() == b"one"
        assert await client.read_close() == 1012
        assert await client.read_to_end() == b""
        assert server.application.heard == [b"one"]


async def test_the_peers_close_waits_for_what_came_before_it() -> None:
    async with serving(Slow) as server:
        client = await server.open()
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two") + close_frame(1000))
        await eventually(lambda: server.application.heard)
        assert await client.read_text() == b"one"
        assert not server.connection.closing

        server.connection.release()
        assert await client.read_text() == b"two"
        server.connection.release()
        assert await client.read_close() == 1000


async def test_a_connection_that_is_held_and_dropped_is_lost_once_a_write_finds_out() -> None:
    async with serving(ping_interval_s=25) as server:
        client = await server.open()
        server.connection.hold()
        client.drop()
        await server.pass_time(25)
        await server.pass_time(25)

        await eventually(lambda: server.application.times_lost)
        assert server.application.times_lost == 1


async def test_a_ping_behind_a_held_message_is_answered_once_that_is_delivered() -> None:
    async with serving(Slow) as server:
        client = await server.open()
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(PING, b"?"))
        assert await client.read_text() == b"one"

        server.connection.release()
        assert await client.read_text() == b"two"
        server.connection.release()
        assert await client.read_frame() == (PONG, b"?")


async def test_what_writable_raises_closes_that_connection() -> None:
    class Faulty(Big):
        def writable(self) -> None:
            super().writable()
            raise LookupError

    async with serving(Faulty) as server:
        client = await server.open()
        await stop_reading(client)
        client.send(frame(TEXT, b"x") * 20)
        await eventually(lambda: server.connection.congested)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined] # of its read half
        received = await client.read_frame()
        while received[0] == TEXT:
            received = await client.read_frame()

        assert received[1][:2] == (1011).to_bytes(2)
        assert server.application.times_writable == 1


async def test_a_connection_that_can_not_be_written_to_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as server:
        clients = [await server.open() for _ in range(3)]
        broken = server.applications[0].connection
        flush = Connection.flush

        def fail(connection: Connection) -> None:
            if connection is broken:
                raise MemoryError
            flush(connection)

        monkeypatch.setattr(Connection, "flush", fail)
        for application in server.applications:
            application.connection.send(b"news")

        for client in clients[1:]:
            assert await client.read_frame() == (TEXT, b"news")
        await eventually(lambda: server.applications[0].times_lost == 1)
