"""What every merge promises, and merging append logs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.wallets import Account
from wsclient.merge import (
    JsonMerge,
    Merge,
    append_log,
    append_segment,
    keep_mine,
    keep_newest,
    keep_theirs,
    last_writer_wins,
    merge_append_logs,
)
from wsclient.merge.text import merge_text

SHIPPED: dict[str, Merge] = {
    "JSON": JsonMerge(),
    "JSON, by identity": JsonMerge(identity={"/a": "b", "/*/*": None}),
    "JSON, mine": JsonMerge(on_conflict=keep_mine),
    "JSON, theirs": JsonMerge(on_conflict=keep_theirs),
    "JSON, newest": JsonMerge(on_conflict=keep_newest("/a")),
    "append log": append_log,
    "text": merge_text,
    "last writer": last_writer_wins,
}

DOCUMENTS = st.recursive(
    st.sampled_from([None, True, 0, 0.0, 1, "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
LOGS = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=6).map(":".join)
SEGMENTS = st.lists(st.text("0123456789", min_size=1, max_size=4), max_size=4)
TEXTS = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=6).map("\n".join).map(str.encode)


def wallets_for(name: str) -> st.SearchStrategy[bytes]:
    if name.startswith("JSON"):
        return DOCUMENTS
    return TEXTS if name == "text" else LOGS.map(str.encode)


DEVICES = st.integers(0, 2)
ACTIONS = st.sampled_from(["edit", "pull", "push"])

patiently = settings(deadline=None)
"""On a busy machine, how long an example takes says nothing."""


@pytest.mark.parametrize("name", SHIPPED)
@patiently
@given(data=st.data())
def test_a_merge_gives_the_only_change_there_is_to_the_letter(
    name: str, data: st.DataObject
) -> None:
    merge, wallets = SHIPPED[name], wallets_for(name)
    base, changed = data.draw(wallets), data.draw(wallets)
    assert merge(base, base, changed) == changed
    assert merge(base, changed, base) == changed
    assert merge(base, changed, changed) == changed
    assert merge(None, changed, changed) == changed


@pytest.mark.parametrize("name", SHIPPED)
@patiently
@given(data=st.data())
def test_three_devices_converge_whatever_they_change_and_whoever_pushes_first(
    name: str, data: st.DataObject
) -> None:
    account = Account(SHIPPED[name])
    devices = [account.add_device() for _ in range(3)]
    for at, action in data.draw(st.lists(st.tuples(DEVICES, ACTIONS), max_size=12)):
        match action:
            case "edit":
                devices[at].wallet = data.draw(wallets_for(name))
            case "pull":
                devices[at].pull()
            case "push":
                devices[at].push()
    account.settle(devices)


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        (b"1", b"2", b"1", b"2"),
        (b"1", b"1", b"3", b"3"),
        (b"1", b"2", b"3", b"2"),  # what else is changed at the same time is lost
        (None, b"2", b"3", b"2"),
    ],
)
def test_the_last_writer_wins(
    base: bytes | None, mine: bytes, theirs: bytes, merged: bytes
) -> None:
    assert last_writer_wins(base, mine, theirs) == merged


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
    base_log = None if base is None else base.encode()
    assert append_log(base_log, mine.encode(), theirs.encode()) == merged.encode()


@patiently
@given(base=LOGS, ours=SEGMENTS, theirs=SEGMENTS)
def test_a_merge_keeps_every_segment_once_and_in_order(
    base: str, ours: list[str], theirs: list[str]
) -> None:
    merged = merge_append_logs(base, append_all(base, ours), append_all(base, theirs))
    assert merged == append_all(append_all(base, theirs), ours)


@patiently
@given(base=LOGS, theirs=SEGMENTS)
def test_a_side_that_did_not_change_takes_the_other(base: str, theirs: list[str]) -> None:
    changed = append_all(base, theirs)
    assert merge_append_logs(base, base, changed) == changed
    assert merge_append_logs(base, changed, base) == changed
    assert merge_append_logs(None, base, changed) == changed


def test_a_log_of_any_bytes_is_merged_to_the_byte() -> None:
    assert append_log(b"\xff", b"\xff:\x80\x00", b"\xff:\xfe") == b"\xff:\xfe:\x80\x00"


@patiently
@given(st.lists(st.tuples(DEVICES, ACTIONS), max_size=20))
def test_no_device_loses_a_segment_and_each_finds_its_own_in_order(
    steps: list[tuple[int, str]],
) -> None:
    account = Account(append_log)
    devices = [account.add_device() for _ in range(3)]
    devices[0].wallet = b"-"
    account.settle(devices)
    appended: list[list[str]] = [[], [], []]
    for step, (at, action) in enumerate(steps):
        device = devices[at]
        match action:
            case "edit":
                segment = f"{at}.{step}"
                appended[at].append(segment)
                assert device.wallet is not None
                device.wallet = append_segment(device.wallet.decode(), segment).encode()
            case "pull":
                device.pull()
            case "push":
                device.push()
    settled = account.settle(devices)
    assert settled is not None
    segments = settled.decode().split(":")[1:]
    assert len(segments) == sum(map(len, appended))
    for at, own in enumerate(appended):
        assert [segment for segment in segments if segment.startswith(f"{at}.")] == own
