"""Merging append logs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsclient.merge import append_segment, merge_append_logs

LOGS = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=6).map(":".join)
SEGMENTS = st.lists(st.text("0123456789", min_size=1, max_size=4), max_size=4)


def append_all(log: str, segments: list[str]) -> str:
    for segment in segments:
        log = append_segment(log, segment)
    return log


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        ("-:a776", "-:a776:2433", "-:a776:8fc8", "-:a776:8fc8:2433"),
        ("-", "-", "-:1:2", "-:1:2"),
        ("-", "-:1", "-", "-:1"),
        (None, "-:1:2", "-:1:3", "-:1:3:2"),  # no base: what both begin with
        (None, "-:1", "-:1", "-:1"),
        (None, "-:1:2", "-", "-:1:2"),
        ("-:1", "-:1:2", "other", "other:2"),  # theirs was made anew
        ("-:1", "-:1:2", "-", "-:2"),
    ],
)
def test_what_was_appended_here_comes_after_what_was_appended_there(
    base: str | None, mine: str, theirs: str, merged: str
) -> None:
    assert merge_append_logs(base, mine, theirs) == merged


@given(base=LOGS, ours=SEGMENTS, theirs=SEGMENTS)
def test_a_merge_keeps_every_segment_once_and_in_order(
    base: str, ours: list[str], theirs: list[str]
) -> None:
    merged = merge_append_logs(base, append_all(base, ours), append_all(base, theirs))
    assert merged == append_all(append_all(base, theirs), ours)


@given(base=LOGS, theirs=SEGMENTS)
def test_a_side_that_did_not_change_takes_the_other(base: str, theirs: list[str]) -> None:
    changed = append_all(base, theirs)
    assert merge_append_logs(base, base, changed) == changed
    assert merge_append_logs(base, changed, base) == changed
    assert merge_append_logs(None, base, changed) == changed
