"""Merging wallets that are append logs: segments separated by ``:``. Pure."""

from __future__ import annotations

from typing import Final

from wsclient.merge.three_way import take_only_change

SEPARATOR: Final = ":"


def append_log(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
    """Their log, followed by what was appended to mine since ``base``. A `Merge`.

    Devices converge, and every segment is kept; their order is that of the pushes. A log that two
    devices made equal counts as one: let each segment have something of its own, as a time and a
    device.
    """
    only_change = take_only_change(base, mine, theirs)
    if only_change is not None:
        return only_change
    # Latin-1 has a character for every byte, and the separator is ASCII: any encoding may pass.
    base_text = None if base is None else base.decode("latin-1")
    merged = merge_append_logs(base_text, mine.decode("latin-1"), theirs.decode("latin-1"))
    return merged.encode("latin-1")


def append_segment(log: str, segment: str) -> str:
    """The log with one more segment."""
    return f"{log}{SEPARATOR}{segment}"


def merge_append_logs(base: str | None, mine: str, theirs: str) -> str:
    """Their log, followed by what was appended to mine since ``base``.

    ``base`` is the version that both come from. Without one, what both begin with stands for it.
    """
    mine_segments, their_segments = mine.split(SEPARATOR), theirs.split(SEPARATOR)
    shared_segments = their_segments if base is None else base.split(SEPARATOR)
    shared = _count_shared(mine_segments, shared_segments)
    return SEPARATOR.join([*their_segments, *mine_segments[shared:]])


def _count_shared(first: list[str], second: list[str]) -> int:
    """How many segments both begin with."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
