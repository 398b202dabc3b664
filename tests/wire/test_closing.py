import asyncio
import gc
import struct
import weakref

import pytest

from tests.wire.harness import CLOSE, PING, TEXT, Echo, close_frame, eventually, frame, serving
from wsserver.connection import Connection
from wsserver.frames import encode_text_frame


async def test_the_peers_close_is_answered_and_the_connection_ends() -> None:
    async with serving() as server:
        client = await server.open()
        client.send(close_frame(4000, "done"))

        assert await client.read_frame() == (CLOSE, struct.pack("!H", 4000) + b"done")
        assert await client.read_to_end() == b""
        await eventually(lambda: server.application.times_lost)
        assert server.connection.closing
        assert not server.listener.connections


async def test_a_close_without_a_code_is_answered_in_kind() -> None:
    async with serving() as server:
        client = await server.open()
        client.send(frame(CLOSE))

        assert await client.read_frame() == (CLOSE, b"")
        assert await client.read_to_end() == b""


async def test_messages_before_the_peers_close_are_delivered_and_answered() -> None:
    async with serving() as server:
        client = await server.open()
        client.send(frame(TEXT, b"push") + close_frame(1000))

        assert await client.read_text() == b"push"
        assert await client.read_close() == 1000


async def test_our_close_comes_after_all_that_was_sent_and_waits_for_the_answer() -> None:
    async with serving() as server:
        client = await server.open()
        server.connection.send(b"x" * 1_000_000)
        server.connection.close(4401, "session revoked")
        server.connection.send(b"too late")
        server.connection.close(1011, "not twice")

        assert await client.read_text() == b"x" * 1_000_000
        assert await client.read_close() == 4401
        assert server.application.times_lost == 0
        client.send(close_frame(4401))
        assert await client.read_to_end() == b""
        await eventually(lambda: server.application.times_lost)


async def test_no_message_is_delivered_once_a_close_was_started() -> None:
    async with serving() as server:
        client = await server.open()
        server.connection.close(1012)
        client.send(frame(TEXT, b"late") * 1000 + frame(PING, b"late too"))
        assert await client.read_close() == 1012
        client.send(close_frame(1012))
        await eventually(lambda: server.application.times_lost)

        assert server.application.heard == []


async def test_an_application_may_close_in_the_middle_of_a_delivery() -> None:
    class Once(Echo):
        def message_received(self, payload: bytes | bytearray) -> None:
            super().message_received(payload)
            self.connection.close(4429, "one is enough")

    async with serving(Once) as server:
        client = await server.open()
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two") + close_frame(1000))

        assert await client.read_text() == b"one"
        # Though the peer's close had come already: it was not reached.
        assert await client.read_close() == 4429
        assert await client.read_to_end() == b""
        assert server.application.heard == [b"one"]


async def test_an_application_may_send_and_close_while_it_is_mounted() -> None:
    class Full(Echo):
        def __init__(self, connection: Connection) -> None:
            super().__init__(connection)
            connection.send(b"full")
            connection.close(4429, "too many connections")

    async with serving(Full) as server:
        client = await server.open()

        assert await client.read_text() == b"full"
        assert await client.read_close() == 4429
        client.drop()
        await eventually(lambda: server.application.times_lost)


async def test_a_reason_is_cut_to_what_a_close_frame_carries() -> None:
    async with serving() as server:
        client = await server.open()
        server.connection.close(1011, "ü" * 100)

        opcode, payload = await client.read_frame()
        assert (opcode, payload[2:].decode()) == (CLOSE, "ü" * 61)


@pytest.mark.parametrize("rest", [b"", b"\x81", frame(TEXT, b"whole")[:-2]])
async def test_a_peer_that_vanishes_is_lost_once(rest: bytes) -> None:
    async with serving() as server:
        client = await server.open()
        client.send(rest)
        await asyncio.sleep(0)
        client.writer.close()
        await eventually(lambda: server.application.times_lost)
        server.connection.send(b"nobody hears")
        server.connection.close(1000)
        server.connection.hold()
        server.connection.release()
        await server.pass_time(60)

        assert server.application.times_lost == 1
        assert server.connection.closing


async def test_a_reset_is_lost_once() -> None:
    async with serving() as server:
        client = await server.open()
        client.drop()
        await eventually(lambda: server.application.times_lost)

        assert server.application.times_lost == 1


async def test_the_close_frame_arrives_though_the_client_had_input_in_flight() -> None:
    async with serving(anonymous_message_bytes_max=1000) as server:
        client = await server.open()
        # Far more than the server reads before it fails the connection.
        client.send(frame(TEXT, bytes(5_000_000)))
        await asyncio.wait_for(client.writer.drain(), 10)

        assert await client.read_close() == 1009
        assert await client.read_to_end() == b""


async def test_a_peer_that_never_answers_our_close_is_cut_off_in_time() -> None:
    async with serving(closing_timeout_s=5, linger_timeout_s=2) as server:
        client = await server.open()
        server.connection.close(1012)
        assert await client.read_close() == 1012

        await server.pass_time(5)
        client.send(frame(PING))  # It goes on for as long as it likes, and is not listened to.
        assert await client.read_to_end() == b""
        assert server.application.times_lost == 0
        await server.pass_time(3)
        await eventually(lambda: server.application.times_lost)


async def test_a_peer_that_reads_nothing_cannot_keep_a_closing_connection() -> None:
    async with serving(closing_timeout_s=5, linger_timeout_s=2) as server:
        client = await server.open()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined] # of its read half
        server.connection.send(bytes(20_000_000))
        server.connection.close(1012)

        await server.pass_time(10)
        await eventually(lambda: server.application.times_lost)


async def test_what_an_application_raises_when_its_connection_is_lost_ends_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Faulty(Echo):
        def connection_lost(self) -> None:
            super().connection_lost()
            raise LookupError

    async with serving(Faulty) as server:
        client = await server.open()
        client.drop()
        await eventually(lambda: not server.listener.connections)

    assert server.application.times_lost == 1
    assert len(caplog.records) == 1


async def test_a_connection_that_is_gone_leaves_nothing_behind() -> None:
    async with serving() as server:
        client = await server.open()
        client.send(frame(TEXT, b"x"))
        await client.read_text()
        server.connection.send_frame(encode_text_frame(b"y"))
        application = weakref.ref(server.applications.pop())
        client.drop()
        await eventually(lambda: not server.listener.connections)
        await server.pass_time(60)
        gc.collect()

        assert application() is None
        assert server.listener.wheel._buckets == {}
