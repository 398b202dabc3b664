"""Merging wallets that are text, by lines. Pure.

Source: diff3 (Khanna, Kunal, Pierce, "A Formal Investigation of Diff3", 2007), on the comparisons
of Python's difflib. The library for it, merge3, has a licence that wallet apps could not all take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Final, TypeAlias

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
        lines: list[bytes] = []
        for run in _align(base_lines, mine.split(NEWLINE), theirs.split(NEWLINE)):
            if run.mine == run.theirs or run.theirs == run.base:
                lines += run.mine
            elif run.mine == run.base:
                lines += run.theirs
            else:
                lines += self.on_conflict(run)
        return NEWLINE.join(lines)


def _align(base: Lines, mine: Lines, theirs: Lines) -> Iterator[TextConflict]:
    """The texts in runs: those that all three share, and what stands between these."""
    at_base = at_mine = at_theirs = 0
    for start, end, in_mine, in_theirs in _shared_by_all(base, mine, theirs):
        yield TextConflict(base[at_base:start], mine[at_mine:in_mine], theirs[at_theirs:in_theirs])
        shared = base[start:end]
        yield TextConflict(shared, shared, shared)
        length = end - start
        at_base, at_mine, at_theirs = end, in_mine + length, in_theirs + length


def _shared_by_all(base: Lines, mine: Lines, theirs: Lines) -> Iterator[tuple[int, int, int, int]]:
    """Where runs of the base start and end that both have kept, and where they stand in these.

    The last is the empty run at the end of all.
    """
    of_mine, of_theirs = (
        SequenceMatcher(None, base, side, autojunk=False).get_matching_blocks()
        for side in (mine, theirs)
    )
    one = other = 0
    while one < len(of_mine) and other < len(of_theirs):
        in_base, in_mine, mine_length = of_mine[one]
        also_in_base, in_theirs, their_length = of_theirs[other]
        start = max(in_base, also_in_base)
        end = min(in_base + mine_length, also_in_base + their_length)
        if start < end or mine_length == their_length == 0:
            yield start, end, in_mine + start - in_base, in_theirs + start - also_in_base
        # The run that ends first is done; of two that end together, the one that is not the last.
        if (in_base + mine_length, -mine_length) < (also_in_base + their_length, -their_length):
            one += 1
        else:
            other += 1


def _added(base: Lines, side: Lines) -> Lines:
    changes = (change for change in _compare(base, side) if change[0] != "equal")
    return [line for *_, start, end in changes for line in side[start:end]]


def _compare(one: Lines, other: Lines) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, one, other, autojunk=False).get_opcodes()


merge_text: Final = TextMerge()
"""Merges texts by lines, and keeps both sides of a conflict: see `TextMerge`."""
