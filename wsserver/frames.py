"""Frames of a WebSocket at their plainest: a whole text message in, another out. Pure.

Whatever else a peer may send is websockets' Sans-I/O core's to read; here it is only measured, so
that the core is given one frame at a time.
"""

from __future__ import annotations

import struct
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel for this platform, and no compiler
    from websockets.utils import apply_mask

_FINAL_TEXT: Final = 0x81
_PING, _PONG = 0x89, 0x8A
_MASKED: Final = 0x80

_HEAD_16: Final = struct.Struct("!BBH")
_HEAD_64: Final = struct.Struct("!BBQ")
_LENGTH_16: Final = struct.Struct("!H")
_LENGTH_64: Final = struct.Struct("!Q")


def encode_text_frame(payload: bytes) -> bytes:
    """One unmasked text frame (RFC 6455, section 5.2), to be sent to any number of connections."""
    length = len(payload)
    if length < 126:
        return bytes((_FINAL_TEXT, length)) + payload
    if length < 65_536:
        return _HEAD_16.pack(_FINAL_TEXT, 126, length) + payload
    return _HEAD_64.pack(_FINAL_TEXT, 127, length) + payload


def read_text_message(data: bytes, start: int, bytes_max: int) -> tuple[bytes, int] | None:
    """The message that a single frame at `start` makes, and where that frame ends.

    `None` for everything that is not a whole, masked, final text frame without reserved bits, its
    length in as few bytes as can be and at most `bytes_max`. Whether it is UTF-8 is not looked at.
    """
    there = len(data)
    if there - start < 6 or data[start] != _FINAL_TEXT:
        return None
    length = data[start + 1] - _MASKED
    key_at = start + 2
    if length == 126:
        (length,) = _LENGTH_16.unpack_from(data, key_at)
        key_at += 2
        if length < 126:
            return None
    elif length == 127:
        if there - start < 14:
            return None
        (length,) = _LENGTH_64.unpack_from(data, key_at)
        key_at += 8
        if length < 65_536:
            return None
    payload_at = key_at + 4
    end = payload_at + length
    if not 0 <= length <= bytes_max or end > there:
        return None
    return apply_mask(data[payload_at:end], data[key_at:payload_at]), end


def measure_frame(data: bytes, start: int) -> int | None:
    """How many bytes the frame at `start` has in all; `None` while too little of it has come.

    Of one that is refused whatever its length, only what it is refused for counts: its opcode is
    reserved, or it is not masked.
    """
    there = len(data) - start
    if there < 2:
        return None
    length = data[start + 1] - _MASKED
    # 0 to 2 and 8 to 10 are opcodes (RFC 6455, section 11.8).
    if length < 0 or data[start] & 0x07 > 2:
        return 2
    if length < 126:
        return 6 + length
    if length == 126:
        return 8 + int(_LENGTH_16.unpack_from(data, start + 2)[0]) if there >= 4 else None
    return 14 + int(_LENGTH_64.unpack_from(data, start + 2)[0]) if there >= 10 else None


def answer_heartbeat(data: bytes, start: int, size: int) -> bytes | None:
    """The frame that answers the one at `start`, which measures `size`: none (b"") to a pong.

    `None` for everything that is not a ping or a pong, whole, masked and of the usual form.
    """
    end, length = start + size, data[start + 1] - _MASKED
    if end > len(data) or not 0 <= length == size - 6 <= 125:
        return None
    if data[start] == _PING:
        return bytes((_PONG, length)) + apply_mask(
            data[start + 6 : end], data[start + 2 : start + 6]
        )
    return b"" if data[start] == _PONG else None
