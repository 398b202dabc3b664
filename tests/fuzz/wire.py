"""Bytes as the stream of a WebSocket: read as websockets' own core reads them; only what is
documented comes of them, and nobody else is harmed."""

from __future__ import annotations

from typing import Final

from tests.fuzz.choices import Choices
from tests.fuzz.grammar import Known, message
from tests.fuzz.inside import (
    LIMITS,
    OURS,
    PEER_MAY_SEND,
    SEGMENT_BYTES_MAX,
    TRANSPORT_LIMITS,
    Inside,
    Line,
    close_code_of,
    masked,
    read_frames,
    require,
)
from tests.fuzz.inside import run as run_inside
from tests.wire.harness import BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, Echo, frame
from tests.wire.readers import AUTHENTICATE, Listening, tell_of_the_core

CONTINUATION: Final = 0
LATEST_S: Final = 1020.0
"""Of a clock that begins at 1000: no honest peer is late by then."""
HELD_BYTES_MAX: Final = 2 * TRANSPORT_LIMITS.message_bytes_max + SEGMENT_BYTES_MAX
"""What a peer may make the server keep: a message, its pieces, and what came with them at once."""

TOKENS: Final = (
    *(frame(TEXT, b"hello"), frame(TEXT, AUTHENTICATE), frame(TEXT, b"x" * 151)),
    *(frame(TEXT, b"one", fin=False), frame(CONTINUATION, b"two"), frame(BINARY, b"x")),
    *(frame(PING, b"?"), frame(PONG), frame(CLOSE), frame(CLOSE, b"\x03\xe8")),
    *(b"\x81\xfe\x00\x05", b"\x81\xff" + bytes(8), b"\x81\xff\x80" + bytes(7), b"\xe2\x82\xac"),
)


def run_frames(data: bytes) -> None:
    """The first byte says where it is cut; the rest is the stream."""
    choices = Choices(data)
    listening = Listening()
    # Cut where the first byte says; the cutting itself draws nothing else from the stream.
    cutting, stream = Choices(choices.take(1)), choices.rest()
    listening.receive(*cutting.cut(stream))
    told, core = listening.tell(), tell_of_the_core(stream)
    require(told == core, "it is read as the core reads it", told, core)


def run_wire(data: bytes) -> None:
    """Decisions: an echo or a session, what is sent and when, and what else happens meanwhile."""
    run_inside(lambda: _converse(Choices(data)))


async def _converse(choices: Choices) -> None:
    inside = Inside()
    listener, echoes = inside.listen_echo()
    if choices.below(2):
        listener = inside.public
    honest = await inside.open(listener)
    line = Line(listener, "192.0.2.2")
    line.send(*choices.cut(UPGRADE + b"\r\n"))
    if not choices.one_in(8):
        await inside.settle(line)
    for _ in range(60):
        if not choices or line.over:
            break
        await _take_a_step(choices, inside, line, echoes)
        require(line.held_bytes <= HELD_BYTES_MAX, "input that is held is bounded", line.held_bytes)
    await inside.settle(line)
    _check_written(line)
    await _check_honest(inside, honest, is_echo=listener is not inside.public)
    inside.close(line, honest)
    require(not listener.connections, "nobody is left behind", listener.connections)


async def _take_a_step(choices: Choices, inside: Inside, line: Line, echoes: list[Echo]) -> None:
    connection = echoes[-1].connection if len(echoes) > 1 else None
    match choices.below(20):
        case 0:
            line.choke(not line.choked)
        case 1 if connection is not None:
            connection.hold() if choices.below(2) else connection.release()
        case 2 if connection is not None:
            connection.authenticated()
        case 3 if connection is not None:
            connection.send(b"unasked" * (1 + choices.below(3)))
        case 4 if inside.clock.now_s < LATEST_S:
            inside.clock.now_s += 1
            line.current._listener.sweep()
        case 5:
            line.shut()
        case 6 if connection is not None:
            connection.close(1000)
        case 7 | 8:
            await inside.settle(line)
        case _:
            stream = b"".join(_piece(choices) for _ in range(1 + choices.below(3)))
            line.send(*choices.cut(stream))


def _piece(choices: Choices) -> bytes:
    match choices.below(12):
        case 0 | 1 | 2:
            return masked(_payload(choices))
        case 3:
            parts = [_payload(choices) for _ in range(2 + choices.below(3))]
            return b"".join(
                masked(part, CONTINUATION if at else TEXT, fin=at == len(parts) - 1)
                + masked(b"?" * choices.pick([0, 125]), choices.pick([PING, PONG]))
                for at, part in enumerate(parts)
            )
        case 4:
            return masked(choices.take(choices.below(126)), choices.pick([PING, PONG]))
        case 5:
            code = choices.pick([1000, 1001, 1005, 1006, 1015, 999, 3000, 4999, 5000, 0, 65_535])
            return masked(code.to_bytes(2, "big") + choices.take(choices.below(8)), CLOSE)
        case 6:
            return frame(
                choices.below(16),
                choices.take(choices.below(130)),
                fin=bool(choices.below(2)),
                reserved=choices.below(8),
                mask=bool(choices.below(2)),
            )
        case 7:
            # A length that lies.
            head = choices.pick([b"\x81\xfe", b"\x81\xff", b"\x01\xff", b"\x89\xfe", b"\x80\xfe"])
            return head + choices.take(choices.pick([2, 8, 4, 12]))
        case 8:
            return choices.take(choices.below(40))
        case 9:
            return masked(message(choices, Known()))
        case _:
            return masked(_payload(choices)) * (1 + choices.below(4))


def _payload(choices: Choices) -> bytes:
    match choices.below(6):
        case 0:
            return choices.take(choices.below(20))
        case 1:
            return b"x" * choices.pick([125, 126, 1000, 4096, 4097, 5000])
        case 2:
            text = "grüße \u20ac \U0001f511".encode()
            return text[choices.below(len(text)) :] + text[: choices.below(len(text))]
        case 3:
            return b'{"jsonrpc":"2.0","id":1,"method":"server.ping"}'
        case 4:
            return choices.pick([b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
        case _:
            return b"text"


def _check_written(line: Line) -> None:
    """After the upgrade come whole frames, the close behind all text, its code a documented one."""
    head, _, written = line.written.partition(b"\r\n\r\n")
    if not head:
        return
    require(head.startswith(b"HTTP/1.1 101 "), "an upgrade is answered", head)
    opcodes = [opcode for opcode, _ in read_frames(written)]
    require({*opcodes} <= {TEXT, CLOSE, PING, PONG}, "frames of these kinds alone", opcodes)
    # Pings are answered until the peer's own close has come (RFC 6455, section 5.5.2).
    behind = opcodes[opcodes.index(CLOSE) + 1 :] if CLOSE in opcodes else []
    require({*behind} <= {PONG}, "nothing but pongs comes after a close", opcodes)
    code = close_code_of(written)
    require(code is None or code in OURS | PEER_MAY_SEND, "a close code that may be", code)
    require(b"\x03\xf3internal error" not in written, "nothing of ours failed", code)
    longest = max((len(payload) for _, payload in read_frames(written)), default=0)
    require(longest <= 2 * LIMITS.message_bytes, "no answer is longer than what is asked", longest)


async def _check_honest(inside: Inside, honest: Line, *, is_echo: bool) -> None:
    honest.send(masked(b'{"jsonrpc":"2.0","id":"honest","method":"server.ping"}'))
    await inside.settle(honest)
    told = [payload for opcode, payload in read_frames(honest.written) if opcode == TEXT]
    require(len(told) == 1 and b'"honest"' in told[0], "the other one is served", honest.written)
    if not is_echo:
        require(b'"result"' in told[0], "and in peace", told[0])
