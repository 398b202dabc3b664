"""Merging wallets that are text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsclient.merge.text import Lines, TextConflict, TextMerge, merge_text

patiently = settings(deadline=None)
"""On a busy machine, how long an example takes says nothing."""


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        ("a\nb\nc\n", "a\nb\nc\nm\n", "t\na\nb\nc\n", "t\na\nb\nc\nm\n"),
        ("a\nb\nc\n", "a\nc\n", "a\nb\nC\n", "a\nC\n"),
        ("a\nb\nc\n", "a\nc\n", "a\nc\n", "a\nc\n"),
        ("a\nb\nc\n", "a\nm\nc\n", "a\nb\nt\n", "a\nt\nm\n"),
        # both added at the same place: theirs, then mine
        ("a\n", "a\nm\n", "a\nt\n", "a\nt\nm\n"),
        ("a\nb\nc\n", "a\nm\nc\n", "a\nt\nc\n", "a\nt\nm\nc\n"),
        ("a\nb\nc\n", "a\nm\nc\n", "a\nc\n", "a\nm\nc\n"),
        # what both have is there once
        ("", "x\nm\ny\n", "x\nt\ny\n", "x\nt\nm\ny\n"),
        (None, "x\nm\ny\n", "x\nt\ny\n", "x\nt\nm\ny\n"),
        (None, "x\ny\n", "x\n", "x\ny\n"),
        # with and without a newline at the end
        ("a", "a\nm", "a\nt", "a\nt\nm"),
        ("a", "a\nm\n", "a\nt", "a\nt\nm\n"),
        ("a\n", "a", "b\na\n", "b\na"),
        # a marker is a line like any other
        ("a\n", "a\n<<<<<<< m\n", "a\n=======\n", "a\n=======\n<<<<<<< m\n"),
    ],
)
def test_lines_are_added_changed_and_removed_on_either_side(
    base: str | None, mine: str, theirs: str, merged: str
) -> None:
    base_text = None if base is None else base.encode()
    assert merge_text(base_text, mine.encode(), theirs.encode()) == merged.encode()


def test_lines_that_both_changed_are_handed_to_the_callback() -> None:
    conflicts: list[TextConflict] = []

    def keep_theirs(conflict: TextConflict) -> Lines:
        conflicts.append(conflict)
        return conflict.theirs

    merged = TextMerge(keep_theirs)(b"a\nb\nc", b"a\nm\nm2\nc\nd", b"a\n\nc")

    assert merged == b"a\n\nc\nd"
    assert conflicts == [TextConflict([b"b"], [b"m", b"m2"], [b""])]
    assert repr(conflicts[0]) == "TextConflict()"


def test_a_text_of_any_encoding_is_merged_to_the_byte() -> None:
    assert merge_text(b"\xff\r\nb", b"\xff\r\nb\n\x00", b"\xfe\r\n\xff\r\nb") == (
        b"\xfe\r\n\xff\r\nb\n\x00"
    )


EDITS = st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=6)


@patiently
@given(lines=st.integers(0, 8), mine=EDITS, theirs=EDITS)
def test_no_added_line_is_lost_and_no_removed_line_comes_back(
    lines: int, mine: list[tuple[int, bool]], theirs: list[tuple[int, bool]]
) -> None:
    base = [f"base {number}" for number in range(lines)]
    sides = {"mine": mine, "theirs": theirs}
    edited = {name: list(base) for name in sides}
    for name, edits in sides.items():
        for number, (at, adds) in enumerate(edits):
            edited[name][at : at if adds else at + 1] = [f"{name} {number}"] if adds else []
    texts = ("\n".join(lines).encode() for lines in (base, *edited.values()))

    merged = merge_text(*texts).decode().split("\n")

    for name, side in edited.items():
        added = [line for line in side if line.startswith(name)]
        assert [line for line in merged if line.startswith(name)] == added
    kept = [line for line in base if all(line in side for side in edited.values())]
    assert [line for line in merged if line.startswith("base")] == kept
