"""RFC 6455, rule by rule: what a frame may be and what closes the connection, however it is cut.

Each case is held against websockets' own core as well: the two must agree on every byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.protocol import Protocol as Core
from websockets.protocol import Side

from tests.wire.harness import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame
from tests.wire.readers import (
    ANONYMOUS_BYTES_MAX,
    AUTHENTICATE,
    BYTES_MAX,
    Listening,
    tell_of_the_core,
)

CONTINUATION = 0
OPCODES = {"text": TEXT, "binary": BINARY, "close": CLOSE, "ping": PING, "pong": PONG}
FIRST = frame(TEXT, b"first")
BEGUN = frame(TEXT, b"begun ", fin=False)


def told_of(stream: bytes, *parts: bytes) -> tuple[list[bytes], int | None]:
    """What is heard of a stream, and the code of the close; the same as the core tells of it."""
    listening = Listening()
    listening.receive(*parts or (stream,))
    told = listening.tell()
    assert told == tell_of_the_core(stream)
    return told[0], close_code_in(told[1])


def close_code_in(written: bytes) -> int | None:
    """The code of the first close frame; 1005 where it has none."""
    client = Core(Side.CLIENT)
    client.receive_data(written)
    return client.close_rcvd.code if client.close_rcvd is not None else None


def cuts_of(stream: bytes) -> Iterator[tuple[bytes, ...]]:
    """Whole, a byte at a time, and in two at each place."""
    yield (stream,)
    yield tuple(stream[at : at + 1] for at in range(len(stream)))
    for at in range(1, len(stream)):
        yield stream[:at], stream[at:]


def close_of_bytes(payload: bytes) -> bytes:
    return frame(CLOSE, payload)


def length_of(code: int, layout: str, length: int, *, opcode: int = TEXT) -> bytes:
    """The head of a masked frame that says this length in this many bytes, and the key."""
    return struct.pack(f"!BB{layout}", 0x80 | opcode, 0x80 | code, length) + bytes(4)


# 5.2: reserved bits, opcodes, masking.


@pytest.mark.parametrize("reserved", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
def test_a_reserved_bit_in_any_frame_is_a_protocol_error(opcode: int, reserved: int) -> None:
    stream = FIRST + frame(opcode, reserved=reserved)
    assert told_of(stream) == ([b"first"], 1002)


@pytest.mark.parametrize("reserved", [1, 2, 4])
def test_a_reserved_bit_in_a_continuation_is_a_protocol_error(reserved: int) -> None:
    stream = FIRST + BEGUN + frame(CONTINUATION, b"end", reserved=reserved)
    assert told_of(stream) == ([b"first"], 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"x", bytes(126), bytes(70_000)], ids=len)
@pytest.mark.parametrize("begun", [b"", BEGUN], ids=["alone", "within a message"])
def test_a_reserved_opcode_is_a_protocol_error_whatever_it_carries(
    opcode: int, payload: bytes, begun: bytes
) -> None:
    stream = FIRST + begun + frame(opcode, payload)
    assert told_of(stream[:300]) == ([b"first"], 1002)


@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
@pytest.mark.parametrize("size", [0, 1, 4, 5, 125])
def test_a_frame_without_a_mask_is_a_protocol_error(opcode: int, size: int) -> None:
    stream = FIRST + frame(opcode, b"x" * size, mask=False) + FIRST
    assert told_of(stream) == ([b"first"], 1002)


@pytest.mark.parametrize("code", [254, 255])
def test_a_frame_without_a_mask_is_refused_before_its_length_has_come(code: int) -> None:
    head = bytes((0x81, code - 128))
    assert told_of(head) == ([], 1002)


@pytest.mark.parametrize("key", [bytes(4), b"\xff" * 4, b"\x00\x00\x00\x01", b"\x81\x80\x81\x80"])
def test_any_key_masks(key: bytes) -> None:
    payload = "grüße an alle \u20ac".encode()
    masked = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    stream = bytes((0x81, 0x80 | len(payload))) + key + masked
    for parts in cuts_of(stream):
        assert told_of(stream, *parts) == ([payload], None)


# 5.2: lengths.


@pytest.mark.parametrize("top", [2**63, 2**64 - 1, 2**63 + 5])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("before", [b"", frame(TEXT, AUTHENTICATE)], ids=["stranger", "known"])
def test_a_length_with_the_top_bit_is_too_large(top: int, opcode: int, before: bytes) -> None:
    stream = before + length_of(127, "Q", top, opcode=opcode) + b"xxxxx"
    assert told_of(stream)[1] == 1009


@pytest.mark.parametrize(("code", "layout"), [(126, "H"), (127, "Q")])
@pytest.mark.parametrize("size", [0, 5, 125])
@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frames_length_in_more_bytes_than_it_needs(
    opcode: int, size: int, code: int, layout: str
) -> None:
    """It must be minimal, but nothing says what to do else: it is judged as the core judges it."""
    payload = struct.pack("!H", 1000) + b"x" * (size - 2) if size else b""
    stream = FIRST + length_of(code, layout, len(payload), opcode=opcode) + payload + FIRST
    listening = Listening()
    listening.receive(stream)
    assert listening.tell() == tell_of_the_core(stream)
    assert listening.heard[:1] == [b"first"]


@pytest.mark.parametrize(("code", "layout"), [(126, "H"), (127, "Q")])
@pytest.mark.parametrize("size", [0, 1, 125, 126, ANONYMOUS_BYTES_MAX])
def test_a_lengths_own_size_changes_nothing_of_the_message(
    size: int, code: int, layout: str
) -> None:
    stream = length_of(code, layout, size) + b"x" * size + FIRST
    for parts in cuts_of(stream):
        assert told_of(stream, *parts) == ([b"x" * size, b"first"], None)


def test_a_length_that_promises_more_than_comes_is_waited_for() -> None:
    stream = FIRST + length_of(126, "H", ANONYMOUS_BYTES_MAX) + b"x" * (ANONYMOUS_BYTES_MAX - 1)
    assert told_of(stream) == ([b"first"], None)


def test_a_length_that_promises_less_than_comes_has_the_rest_read_as_a_frame() -> None:
    stream = length_of(126, "H", 130) + b"x" * 130
    assert told_of(stream + b"yyyyyyy") == ([b"x" * 130], 1002)


@pytest.mark.parametrize("size", [ANONYMOUS_BYTES_MAX, ANONYMOUS_BYTES_MAX + 1])
def test_a_message_may_be_as_large_as_the_limit_and_no_larger(size: int) -> None:
    too_large = size > ANONYMOUS_BYTES_MAX
    stream = frame(TEXT, b"x" * size)
    assert told_of(stream) == (([], 1009) if too_large else ([b"x" * size], None))


@pytest.mark.parametrize("size", [BYTES_MAX, BYTES_MAX + 1])
@pytest.mark.parametrize("pieces", [1, 2, 3, BYTES_MAX])
def test_the_limit_holds_for_a_message_in_however_many_fragments(size: int, pieces: int) -> None:
    payload = b"x" * size
    step = -(-size // pieces)
    parts = [payload[at : at + step] for at in range(0, size, step)]
    stream = frame(TEXT, AUTHENTICATE) + b"".join(
        frame(CONTINUATION if at else TEXT, part, fin=at == len(parts) - 1)
        for at, part in enumerate(parts)
    )
    heard, code = told_of(stream)
    assert (heard[1:], code) == (([], 1009) if size > BYTES_MAX else ([payload], None))


# 5.4: fragmentation.


def test_control_frames_may_come_between_any_two_fragments() -> None:
    controls = [frame(PING, b"?"), frame(PONG), frame(PING) + frame(PONG, bytes(125))]
    for control in controls:
        stream = (
            BEGUN
            + control
            + frame(CONTINUATION, fin=False)
            + control
            + frame(CONTINUATION, b"and ended")
            + control
        )
        for parts in cuts_of(stream):
            assert told_of(stream, *parts) == ([b"begun and ended"], None)


def test_a_close_between_fragments_is_a_protocol_error() -> None:
    """The message was promised, and will not come: so the core has it; RFC 6455 says nothing."""
    stream = FIRST + BEGUN + close_frame(1000) + frame(CONTINUATION, b"and ended")
    for parts in cuts_of(stream):
        assert told_of(stream, *parts) == ([b"first"], 1002)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize("begun", [b"", BEGUN], ids=["alone", "within a message"])
def test_a_control_frame_is_never_a_fragment(opcode: int, begun: bytes) -> None:
    assert told_of(FIRST + begun + frame(opcode, fin=False)) == ([b"first"], 1002)


@pytest.mark.parametrize("fin", [True, False])
def test_a_continuation_of_nothing_is_a_protocol_error(fin: bool) -> None:
    stream = BEGUN + frame(CONTINUATION, b"ended") + frame(CONTINUATION, b"x", fin=fin)
    assert told_of(stream) == ([b"begun ended"], 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_a_second_message_within_the_first_is_a_protocol_error(opcode: int, fin: bool) -> None:
    assert told_of(FIRST + BEGUN + frame(opcode, b"x", fin=fin)) == ([b"first"], 1002)


# 5.5: control frames.


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize(
    ("size", "code"), [(126, 1002), (ANONYMOUS_BYTES_MAX, 1002), (1000, 1009), (65_536, 1009)]
)
def test_a_control_frame_of_more_than_125_bytes_is_refused(
    opcode: int, size: int, code: int
) -> None:
    """As a protocol error, or where it is longer than any frame may be, as that."""
    payload = struct.pack("!H", 1000) + b"x" * (size - 2)
    stream = FIRST + frame(opcode, payload)[:200]
    assert told_of(stream) == ([b"first"], code)


@pytest.mark.parametrize("size", [0, 1, 124, 125])
def test_a_ping_comes_back_to_the_letter(size: int) -> None:
    stream = frame(PING, bytes(range(size)))
    for parts in cuts_of(stream):
        listening = Listening()
        listening.receive(*parts)
        assert listening.wire.written == frame(PONG, bytes(range(size)), mask=False)


def test_pings_are_answered_each_and_in_order() -> None:
    listening = Listening()
    listening.receive(b"".join(frame(PING, b"%d" % number) for number in range(1000)))
    answers = b"".join(frame(PONG, b"%d" % number, mask=False) for number in range(1000))
    assert listening.wire.written == answers


# 7.4: close codes.

MAY_BE_SENT = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
"""1004 is reserved; 1005, 1006 and 1015 are told to applications and never sent; below 3000 there
are only those that were registered."""


def test_every_close_code_that_may_be_sent_comes_back_and_every_other_is_a_protocol_error() -> None:
    for code in (*range(5100), 9999, 32_768, 65_535):
        heard, answered = told_of(FIRST + close_frame(code) + FIRST)
        assert heard == [b"first"]
        assert answered == (code if code in MAY_BE_SENT else 1002), code


def test_a_close_without_a_code_comes_back_without_one() -> None:
    listening = Listening()
    listening.receive(FIRST, frame(CLOSE), FIRST)
    assert listening.tell() == ([b"first"], frame(CLOSE, mask=False), "closed")


@pytest.mark.parametrize("size", [0, 1, 122, 123])
def test_a_close_may_have_a_reason_of_up_to_123_bytes(size: int) -> None:
    assert told_of(close_frame(4000, "x" * size)) == ([], 4000)


def test_a_close_whose_reason_is_too_long_is_a_protocol_error() -> None:
    assert told_of(close_of_bytes(struct.pack("!H", 4000) + b"x" * 124)) == ([], 1002)


@pytest.mark.parametrize("reason", [b"\xff", b"ok \xed\xa0\x80", b"\xe2\x82", b"\xc0\x80"])
def test_a_close_whose_reason_is_not_utf8_is_1007(reason: bytes) -> None:
    assert told_of(close_of_bytes(struct.pack("!H", 1000) + reason)) == ([], 1007)


@pytest.mark.parametrize("payload", [b"\x03", b"\x00", b"\xff"])
def test_a_close_of_one_byte_is_a_protocol_error(payload: bytes) -> None:
    assert told_of(close_of_bytes(payload)) == ([], 1002)


def test_nothing_is_heard_after_a_close_however_it_is_cut() -> None:
    stream = FIRST + close_frame(1001, "bye") + FIRST + frame(PING) + frame(3) + b"\xff" * 20
    for parts in cuts_of(stream):
        assert told_of(stream, *parts) == ([b"first"], 1001)


# 8.1: UTF-8.

TEXTS = ["\u00e9", "\u20ac", "\U0001f511", "a\u00e9\u20ac\U0001f511z", "\u0000\U0010ffff\ufeff"]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_character_may_be_split_anywhere_over_any_number_of_fragments(text: str) -> None:
    payload = text.encode()
    for at in range(len(payload) + 1):
        for until in range(at, len(payload) + 1):
            parts = payload[:at], payload[at:until], payload[until:]
            stream = (
                frame(TEXT, parts[0], fin=False)
                + frame(PING)
                + frame(CONTINUATION, parts[1], fin=False)
                + frame(CONTINUATION, parts[2])
            )
            assert told_of(stream) == ([payload], None)


INVALID = {
    "a lone continuation": b"\x80",
    "a lead without its rest": b"\xe2\x82",
    "overlong slash": b"\xc0\xaf",
    "overlong nul": b"\xe0\x80\x80",
    "surrogate": b"\xed\xa0\x80",
    "surrogate pair": b"\xed\xa0\xbd\xed\xb4\x91",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "no byte of UTF-8": b"\xfe",
}


@pytest.mark.parametrize("invalid", INVALID.values(), ids=INVALID)
def test_what_is_not_utf8_is_1007_wherever_it_stands(invalid: bytes) -> None:
    for before in range(10):
        for after in ("", "z", "zz", "\u20ac"):
            payload = b"a" * before + invalid + after.encode()
            assert told_of(FIRST + frame(TEXT, payload) + FIRST) == ([b"first"], 1007)
            for at in range(before, len(payload)):
                stream = frame(TEXT, payload[:at], fin=False) + frame(CONTINUATION, payload[at:])
                assert told_of(stream) == ([], 1007)


@pytest.mark.parametrize("invalid", INVALID.values(), ids=INVALID)
def test_a_ping_may_carry_any_bytes(invalid: bytes) -> None:
    listening = Listening()
    listening.receive(frame(PING, invalid))
    assert listening.wire.written == frame(PONG, invalid, mask=False)


# All of it, however it is cut.

STREAMS: dict[str, tuple[bytes, list[bytes], int | None]] = {
    "messages": (
        FIRST * 3 + frame(TEXT) + frame(TEXT, b"x" * 126),
        [b"first"] * 3 + [b"", b"x" * 126],
        None,
    ),
    "binary": (FIRST + frame(BINARY, b"x") + FIRST, [b"first"], 1003),
    "binary in fragments": (
        FIRST + frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"y"),
        [b"first"],
        1003,
    ),
    "not UTF-8": (FIRST + frame(TEXT, b"\xff") + FIRST, [b"first"], 1007),
    "unmasked": (FIRST + frame(TEXT, b"x", mask=False) + FIRST, [b"first"], 1002),
    "reserved opcode": (FIRST + frame(4, b"x") + FIRST, [b"first"], 1002),
    "too large": (FIRST + frame(TEXT, b"x" * 151) + FIRST, [b"first"], 1009),
    "too large in fragments": (
        FIRST + frame(TEXT, b"x" * 100, fin=False) + frame(CONTINUATION, b"x" * 51),
        [b"first"],
        1009,
    ),
    "64 bits": (FIRST + length_of(127, "Q", 2**64 - 1) + FIRST, [b"first"], 1009),
    "long ping": (FIRST + frame(PING, bytes(126)) + FIRST, [b"first"], 1002),
    "larger once known": (
        frame(TEXT, AUTHENTICATE) + frame(TEXT, b"x" * BYTES_MAX),
        [AUTHENTICATE, b"x" * BYTES_MAX],
        None,
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_however_a_stream_is_cut_the_same_is_heard_and_the_same_close_is_sent(name: str) -> None:
    stream, heard, code = STREAMS[name]
    for parts in cuts_of(stream):
        assert told_of(stream, *parts) == (heard, code)


def test_a_closed_connection_takes_any_amount_and_keeps_none_of_it() -> None:
    listening = Listening()
    listening.receive(frame(3))
    for _ in range(100):
        listening.receive(b"\x81" * 65_536)
    connection: Any = listening.connection
    assert (connection._unparsed, connection._fragments) == (b"", None)
    assert not connection._core.reader.buffer
