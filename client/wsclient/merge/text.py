"""Merging wallets that are text, by lines. Pure.

It stands on the library ``merge3``, whose licence is the GPL: nothing else imports this module, so
an application that merges no text takes no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Final, TypeAlias

from merge3 import Merge3

from wsclient.merge.three_way import take_only_change

NEWLINE: Final = b"\n"

Lines: TypeAlias = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class TextConflict:
    """A run of lines, without their newlines, that both sides changed, each in its way."""

    base: Lines = field(repr=False)
    mine: Lines = field(repr=False)
    theirs: Lines = field(repr=False)


def keep_both(conflict: TextConflict) -> Lines:
    """What each side added, theirs before mine; what both added is there once.

    Lines of the base that either side removed are gone.
    """
    theirs, mine = (_added(conflict.base, side) for side in (conflict.theirs, conflict.mine))
    lines: list[bytes] = []
    for tag, theirs_start, theirs_end, mine_start, mine_end in _compare(theirs, mine):
        lines += theirs[theirs_start:theirs_end]
        if tag != "equal":
            lines += mine[mine_start:mine_end]
    return lines


@dataclass(frozen=True, slots=True)
class TextMerge:
    """A `Merge` of texts by lines, of whatever encoding has a newline for a newline, as UTF-8.

    Lines that one side added, changed or removed are so in the merged text. What ``on_conflict``
    gives stands for the lines that both changed: `keep_both` unless told otherwise. No marker is
    put into the text. With no base, all lines are such lines, so what one side removed is back.

    Devices converge; how conflicting lines are ordered depends on the order of pushes.
    """

    on_conflict: Callable[[TextConflict], Lines] = keep_both

    def __call__(self, base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
        only_change = take_only_change(base, mine, theirs)
        if only_change is not None:
            return only_change
        base_lines = [] if base is None else base.split(NEWLINE)
        merge = Merge3(base_lines, mine.split(NEWLINE), theirs.split(NEWLINE))
        lines: list[bytes] = []
        for group in merge.merge_groups():
            if group[0] == "conflict":
                lines += self.on_conflict(TextConflict(*group[1:]))
            else:
                lines += group[1]
        return NEWLINE.join(lines)


def _added(base: Lines, side: Lines) -> Lines:
    changes = (change for change in _compare(base, side) if change[0] != "equal")
    return [line for *_, start, end in changes for line in side[start:end]]


def _compare(one: Lines, other: Lines) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, one, other).get_opcodes()


merge_text: Final = TextMerge()
"""Merges texts by lines, and keeps both sides of a conflict: see `TextMerge`."""
