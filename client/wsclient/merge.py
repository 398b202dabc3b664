"""Merging wallets that are append logs: segments separated by ``:``. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

Merge = Callable[[bytes | None, bytes, bytes], bytes | Awaitable[bytes]]
"""(base, mine, theirs) -> merged; ``base`` is None where none is shared."""

SEPARATOR: Final = ":"


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
