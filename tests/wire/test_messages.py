import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from tests.wire.harness import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Echo,
    close_frame,
    eventually,
    frame,
    serving,
)
from wsserver.connection import Connection
from wsserver.frames import encode_text_frame

CONTINUATION = 0


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 300_000])
async def test_a_message_of_any_size_comes_back_to_the_letter(size: int) -> None:
    async with serving(anonymous_message_bytes_max=300_000) as server:
        client = await server.open()
        message = bytes(33 + i % 90 for i in range(size))
        client.send(frame(TEXT, message))

        assert await client.read_text() == message


@given(st.binary(max_size=200) | st.integers(65_000, 66_000).map(bytes))
def test_an_encoded_frame_is_what_a_server_sends(payload: bytes) -> None:
    assert encode_text_frame(payload) == frame(TEXT, payload, mask=False)


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_a_stock_client_is_served_without_the_compression_it_offers(
    compression: str | None,
) -> None:
    async with (
        serving() as server,
        connect(
            f"ws://127.0.0.1:{server.port}/v1",
            compression=compression,
            subprotocols=["wallet-sync.v1"],  # type: ignore[list-item] # a NewType of str
        ) as client,
    ):
        await client.send("grüße " * 500)

        assert await client.recv() == "grüße " * 500
        assert client.subprotocol == "wallet-sync.v1"
        assert client.protocol.extensions == []


async def test_fragments_make_one_message_with_pings_answered_in_between() -> None:
    async with serving() as server:
        client = await server.open()
        client.send(frame(TEXT, b"one ", fin=False))
        client.send(frame(PING, b"still there?"))
        client.send(frame(CONTINUATION, b"two ", fin=False))
        client.send(frame(CONTINUATION, b"", fin=False))
        client.send(frame(CONTINUATION, b"three"))

        answers = {await client.read_frame(), await client.read_frame()}
        assert answers == {(PONG, b"still there?"), (TEXT, b"one two three")}


async def test_bytes_may_come_one_at_a_time() -> None:
    async with serving() as server:
        client = await server.open()
        for byte in frame(TEXT, b"slow", fin=False) + frame(CONTINUATION, "ly ü".encode()):
            client.send(bytes([byte]))
            await asyncio.sleep(0)

        assert await client.read_text() == "slowly ü".encode()


async def test_everything_may_come_in_one_segment() -> None:
    async with serving() as server:
        client = await server.connect()
        client.send(
            UPGRADE + b"\r\n" + frame(TEXT, b"one") + frame(TEXT, b"two") + close_frame(1000)
        )
        await client.read_head()

        assert await client.read_text() == b"one"
        assert await client.read_text() == b"two"
        assert await client.read_close() == 1000
        assert await client.read_to_end() == b""


async def test_many_messages_in_one_segment_all_come_back_in_order() -> None:
    async with serving() as server:
        client = await server.open()
        messages = [b"%d" % i + b"x" * (i % 50) for i in range(2_000)]
        client.send(b"".join(frame(TEXT, message) for message in messages))

        assert [await client.read_text() for _ in messages] == messages


async def test_a_character_may_be_split_over_fragments() -> None:
    async with serving() as server:
        client = await server.open()
        euro = "€".encode()
        client.send(frame(TEXT, euro[:1], fin=False) + frame(CONTINUATION, euro[1:]))

        assert await client.read_text() == euro


BAD_INPUT = {
    "binary": (1003, frame(BINARY, b"x")),
    "binary_fragment": (
        1003,
        frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"y"),
    ),
    "not_utf8": (1007, frame(TEXT, b"\xff")),
    "surrogate": (1007, frame(TEXT, b"\xed\xa0\x80")),
    "half_a_character": (1007, frame(TEXT, b"\xe2\x82")),
    "not_utf8_over_fragments": (
        1007,
        frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\xe2"),
    ),
    "reserved_bit": (1002, frame(TEXT, b"x", reserved=4)),
    "reserved_opcode": (1002, frame(3, b"x")),
    "reserved_control_opcode": (1002, frame(11)),
    "unmasked": (1002, frame(TEXT, b"x", mask=False)),
    "continuation_of_nothing": (1002, frame(CONTINUATION, b"x")),
    "message_within_a_message": (1002, frame(TEXT, b"x", fin=False) + frame(TEXT, b"y")),
    "fragmented_ping": (1002, frame(PING, b"x", fin=False)),
    "long_ping": (1002, frame(PING, bytes(126))),
    "close_code_that_is_never_sent": (1002, close_frame(1006)),
    "close_of_one_byte": (1002, frame(CLOSE, b"x")),
    "close_reason_not_utf8": (1007, frame(CLOSE, b"\x03\xe8\xff")),
    "too_large": (1009, frame(TEXT, bytes(1001))),
    "too_large_in_fragments": (
        1009,
        frame(TEXT, bytes(600), fin=False) + frame(CONTINUATION, bytes(600)),
    ),
    "announced_too_large": (1009, b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff"),
}


@pytest.mark.parametrize(("code", "sent"), BAD_INPUT.values(), ids=BAD_INPUT)
async def test_bad_input_closes_with_its_code_after_what_came_before(
    code: int, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(anonymous_message_bytes_max=1000) as server:
        client = await server.open()
        client.send(frame(TEXT, b"before") + sent + frame(TEXT, b"after"))

        assert await client.read_text() == b"before"
        assert await client.read_close() == code
        client.send(close_frame(code))
        assert await client.read_to_end() == b""
        client.writer.close()
        await eventually(lambda: server.application.times_lost)

    assert server.application.heard == [b"before"]
    assert server.application.times_lost == 1
    assert caplog.records == []


async def test_who_has_authenticated_may_send_larger_messages() -> None:
    async with serving(anonymous_message_bytes_max=1000, message_bytes_max=100_000) as server:
        client = await server.open()
        client.send(frame(TEXT, bytes(1000)))
        assert await client.read_text() == bytes(1000)

        server.connection.authenticated()
        client.send(frame(TEXT, bytes(100_000)))
        assert await client.read_text() == bytes(100_000)

        client.send(frame(TEXT, bytes(100_001)))
        assert await client.read_close() == 1009


async def test_empty_fragments_without_end_cost_no_memory() -> None:
    async with serving() as server:
        client = await server.open()
        client.send(frame(TEXT, b"x", fin=False))
        client.send(frame(CONTINUATION, fin=False) * 100_000)
        client.send(frame(PING))
        await client.read_frame()

        assert server.connection._fragments == bytearray(b"x")


async def test_a_message_after_the_mistake_of_an_application_reaches_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Faulty(Echo):
        def message_received(self, payload: bytes | bytearray) -> None:
            super().message_received(payload)
            if payload == b"bad":
                raise LookupError

    async with serving(Faulty) as server:
        other, client = await server.open(), await server.open()
        client.send(frame(TEXT, b"good") + frame(TEXT, b"bad") + frame(TEXT, b"more"))

        assert [await client.read_text() for _ in range(2)] == [b"good", b"bad"]
        assert await client.read_close() == 1011
        other.send(frame(TEXT, b"hello"))
        assert await other.read_text() == b"hello"

    assert server.applications[1].heard == [b"good", b"bad"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


async def test_a_connection_whose_application_cannot_be_made_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(connection: Connection) -> Echo:
        raise LookupError

    async with serving(fail) as server:
        client = await server.connect()
        client.send(UPGRADE + b"\r\n" + frame(TEXT, b"x"))
        await client.read_head()

        assert await client.read_close() == 1011
    assert len(caplog.records) == 1


async def test_the_address_of_the_peer_is_known() -> None:
    async with serving() as server:
        await server.open()

        assert server.connection.remote_address == "127.0.0.1"


async def test_what_is_sent_outside_of_a_delivery_goes_out_too_and_in_order() -> None:
    async with serving() as server:
        client = await server.open()
        shared = encode_text_frame(b"shared")
        server.connection.send(b"own")
        server.connection.send_frame(shared)
        server.connection.send(b"x" * 70_000)
        server.connection.send(b"last")

        texts = [await client.read_text() for _ in range(4)]

    assert texts == [b"own", b"shared", b"x" * 70_000, b"last"]


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(st.text(max_size=300), max_size=8),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    fragments=st.integers(1, 4),
)
def test_however_a_stream_is_cut_its_messages_arrive_whole(
    messages: list[str], cuts: list[int], fragments: int
) -> None:
    stream = bytearray()
    for message in messages:
        payload = message.encode()
        size = max(1, -(-len(payload) // fragments))
        parts = [payload[i : i + size] for i in range(0, len(payload), size)] or [b""]
        for number, part in enumerate(parts):
            opcode = CONTINUATION if number else TEXT
            stream += frame(opcode, part, fin=number == len(parts) - 1) + frame(PING)

    async def converse() -> list[bytes]:
        async with serving() as server:
            client = await server.open()
            connection = server.connection
            position, turn = 0, 0
            while position < len(stream):
                size = cuts[turn % len(cuts)]
                # As the event loop would, without a socket's own idea of where to cut.
                connection.data_received(bytes(stream[position : position + size]))
                position, turn = position + size, turn + 1
            client.drop()
            return server.application.heard

    assert asyncio.run(converse()) == [message.encode() for message in messages]
