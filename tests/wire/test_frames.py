"""Frames are read as websockets' core would read them, whichever of the two reads them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wire.harness import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
)
from tests.wire.readers import (
    ANONYMOUS_BYTES_MAX,
    AUTHENTICATE,
    BYTES_MAX,
    Listening,
    tell_of_the_core,
)

CONTINUATION = 0


def wasteful(payload: bytes, length_bytes: int, *, fin: bool = True) -> bytes:
    """A text frame that says its length in more bytes than it needs (RFC 6455, section 5.2)."""
    code, layout = {2: (254, "!BBH"), 8: (255, "!BBQ")}[length_bytes]
    return struct.pack(layout, fin << 7 | TEXT, code, len(payload)) + bytes(4) + payload


payloads = st.one_of(
    st.text(max_size=20).map(str.encode),
    st.integers(0, 2 * ANONYMOUS_BYTES_MAX + 10).map(lambda size: b"x" * size),
    st.binary(max_size=10),
    st.just(AUTHENTICATE),
)
usual = st.builds(frame, st.just(TEXT), payloads)
control = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125))
in_fragments = st.lists(
    st.tuples(payloads, st.lists(control, max_size=2).map(b"".join)), min_size=1, max_size=4
).map(
    lambda parts: b"".join(
        frame(CONTINUATION if number else TEXT, part, fin=number == len(parts) - 1) + between
        for number, (part, between) in enumerate(parts)
    )
)
any_frame = st.builds(
    frame,
    st.just(TEXT) | st.integers(0, 15),
    payloads,
    fin=st.booleans(),
    reserved=st.sampled_from([0, 0, 0, 1, 2, 4]),
    mask=st.sampled_from([True, True, True, False]),
)
closes = st.builds(close_frame, st.sampled_from([1000, 1001, 1006, 4000, 999]), st.text(max_size=5))
wasteful_frames = st.builds(wasteful, payloads, st.sampled_from([2, 8]), fin=st.booleans())
rubbish = st.binary(max_size=20)
pieces = st.one_of(
    usual, usual, usual, in_fragments, control, wasteful_frames, any_frame, closes, rubbish
)


@settings(max_examples=400, deadline=None)
@given(
    stream=st.lists(pieces, max_size=8).map(b"".join),
    cuts=st.lists(st.sampled_from([1, 2, 3, 5, 13, 40, 200, 5000]), min_size=1, max_size=12),
    holds=st.lists(st.booleans(), max_size=8),
)
@example(stream=frame(TEXT, b"x", reserved=2), cuts=[5000], holds=[])
@example(stream=b"\x81\xff" + bytes(8) + bytes(4) + frame(TEXT, b"x"), cuts=[5000], holds=[])
def test_every_stream_is_read_as_the_core_reads_it(
    stream: bytes, cuts: list[int], holds: list[bool]
) -> None:
    listening = Listening(holds)
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        listening.receive(stream[position : position + size])
        position, turn = position + size, turn + 1
        if turn % 3 == 0:
            listening.let_go()
    listening.let_go()

    assert listening.tell() == tell_of_the_core(stream)


@pytest.mark.parametrize("size", [20, 125, 126, 500, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [TEXT, CONTINUATION], ids=["text", "continuation"])
def test_a_header_may_be_split_anywhere(size: int, opcode: int) -> None:
    start = b"" if opcode == TEXT else frame(TEXT, b"", fin=False)
    message = b"x" * size
    sent = frame(opcode, message)
    for split in range(1, 16):
        listening = Listening(anonymous_message_bytes_max=size)
        listening.receive(start + sent[:split])
        assert listening.heard == []
        listening.receive(sent[split:] + frame(TEXT, b"next"))

        assert listening.heard == [message, b"next"]


def test_a_header_may_come_one_byte_at_a_time() -> None:
    listening = Listening(anonymous_message_bytes_max=70_000)
    sent = frame(TEXT, bytes(70_000))
    listening.receive(*(sent[i : i + 1] for i in range(14)), sent[14:])

    assert listening.heard == [bytes(70_000)]


def test_what_looks_like_a_frame_inside_another_is_none() -> None:
    inner = frame(TEXT, b"inner")
    # Masked twice, it is on the wire as it is here.
    outer = frame(PING, frame(PING, inner)[6:])
    assert outer.endswith(inner)
    listening = Listening()
    listening.receive(outer[: -len(inner)], inner, frame(TEXT, b"next"))

    assert listening.heard == [b"next"]


def test_what_is_refused_for_its_header_is_refused_at_once() -> None:
    for head, code in [
        (b"\x81\x05", 1002),  # not masked
        (b"\x83\xfe", 1002),  # a reserved opcode
        (b"\x81\xfe\xff\xff", 1009),
        (b"\x81\xff\x7f" + b"\xff" * 7, 1009),
    ]:
        listening = Listening()
        listening.receive(head[:-1])
        assert listening.wire.end == ""
        listening.receive(head[-1:])

        assert listening.wire.end == "lingers"
        assert listening.wire.written[2:4] == struct.pack("!H", code)


@pytest.mark.parametrize("size", [0, 5, 125, 126, 140])
@pytest.mark.parametrize("length_bytes", [2, 8])
def test_a_length_in_more_bytes_than_it_needs_is_read_all_the_same(
    size: int, length_bytes: int
) -> None:
    listening = Listening()
    listening.receive(wasteful(b"x" * size, length_bytes) + frame(TEXT, b"next"))

    assert listening.tell() == ([b"x" * size, b"next"], b"", "")


def test_a_large_message_that_trickles_in_is_copied_once() -> None:
    """What came of it is the core's to keep; nothing is put together anew with each segment."""
    listening = Listening(anonymous_message_bytes_max=1_000_000)
    sent = frame(TEXT, b"x" * 1_000_000)
    for position in range(0, len(sent), 100):
        listening.receive(sent[position : position + 100])
        assert len(listening.connection._unparsed) < 10

    assert listening.heard == [b"x" * 1_000_000]


def test_what_waits_for_a_slow_application_is_not_copied_with_each_message() -> None:
    listening = Listening(holds=[True] * 1000)
    sent = frame(TEXT, b"x") * 1000
    listening.receive(sent)
    for heard in range(1, 1000):
        assert len(listening.heard) == heard
        assert listening.connection._unparsed is sent
        listening.connection.release()
        listening.loop.turn()

    assert listening.connection._unparsed == b""


def test_plain_messages_and_heartbeats_need_no_core() -> None:
    listening = Listening()
    listening.receive(frame(PONG), frame(TEXT, b"one") + frame(PONG, bytes(125)), frame(PING))
    listening.receive(frame(PING, b"?" * 125) + frame(TEXT, b"two"))

    pongs = frame(PONG, mask=False) + frame(PONG, b"?" * 125, mask=False)
    assert listening.tell() == ([b"one", b"two"], pongs, "")
    assert listening.connection._core is None


@pytest.mark.parametrize("opcode", [PING, PONG])
@pytest.mark.parametrize(
    "wrong",
    [{"payload": bytes(126)}, {"fin": False}, {"reserved": 1}]
    + [{"payload": bytes(size), "mask": False} for size in (0, 4, 122, 124)],
    ids=str,
)
def test_a_heartbeat_that_must_not_be_is_refused(opcode: int, wrong: dict[str, Any]) -> None:
    listening = Listening()
    listening.receive(frame(opcode, **wrong))

    assert listening.wire.written[2:4] == struct.pack("!H", 1002)
    assert listening.wire.end == "lingers"


def test_a_limit_that_was_raised_holds_for_the_core_as_well() -> None:
    listening = Listening()
    listening.receive(frame(TEXT, AUTHENTICATE))
    long = frame(TEXT, b"x" * BYTES_MAX)
    listening.receive(long[:100], long[100:])
    assert listening.heard == [AUTHENTICATE, b"x" * BYTES_MAX]

    too_long = frame(TEXT, b"x" * (BYTES_MAX + 1))
    listening.receive(too_long[:100])
    assert listening.wire.written[2:4] == struct.pack("!H", 1009)


def test_control_frames_between_fragments_are_answered_and_part_nothing() -> None:
    listening = Listening()
    listening.receive(
        frame(TEXT, b"one ", fin=False)
        + frame(PING, b"?")
        + frame(CONTINUATION, b"two ", fin=False)
        + frame(PONG)
        + frame(CONTINUATION, b"three")
        + frame(TEXT, b"four")
    )

    pong = frame(PONG, b"?", mask=False)
    assert listening.tell() == ([b"one two three", b"four"], pong, "")


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_between_fragments_is_refused_however_plain_it_is(opcode: int) -> None:
    listening = Listening()
    listening.receive(frame(TEXT, b"one ", fin=False), frame(PING), frame(opcode, b"plain"))

    assert listening.heard == []
    assert listening.wire.end == "lingers"
    assert frame(PONG, mask=False) + struct.pack("!B", 0x80 | CLOSE) in listening.wire.written
