"""What nodes say: written, read, and short enough for a NOTIFY."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsserver.bus.messages import (
    PAYLOAD_BYTES_MAX,
    Asks,
    Came,
    Counted,
    Counts,
    Ended,
    Entry,
    Farewell,
    Message,
    Stands,
    Unreadable,
    Went,
    decode,
    encode,
    pack,
    write,
)
from wsserver.operations import Applied

ENTRIES: list[Entry] = [
    Stands(7, 3),
    Ended(7, "replaced", "phone"),
    Ended(7, "password_changed", None),
    Applied(7, "phone", 3),
    Came(7, "phone"),
    Went(7, "phone"),
    Asks(7),
    Counts(7, 5),
    Counted("node", 5, ()),
    Counted("node", 5, ("phone", "laptop")),
    Farewell(),
]
device_ids = st.text(min_size=1, max_size=64)


@pytest.mark.parametrize("entry", ENTRIES, ids=repr)
def test_what_is_written_is_read(entry: Entry) -> None:
    payload = encode("node", 4, [write(entry)])
    assert decode(payload) == Message("node", 4, (entry,))
    assert decode(payload.encode()) == Message("node", 4, (entry,))


def test_a_message_may_hold_nothing() -> None:
    assert decode(encode("node", 4)) == Message("node", 4, ())


@given(st.lists(st.builds(Came, st.integers(1, 2**53), device_ids), max_size=300))
def test_payloads_are_short_and_hold_everything_in_order(entries: list[Came]) -> None:
    payloads = [encode("0" * 16, 2**53, packed) for packed in pack(entries)]
    assert all(payload.isascii() and len(payload) <= PAYLOAD_BYTES_MAX for payload in payloads)
    assert [entry for payload in payloads for entry in decode(payload).entries] == entries


def test_as_few_payloads_as_hold_them() -> None:
    packed = [*pack([Stands(123_456, 42)] * 1000)]
    assert len(packed) == 3
    assert [*pack([])] == []


@pytest.mark.parametrize(
    "item",
    [["of tomorrow", 1], ["s", 7], ["s", "7", 3], [], {}, "s", ["r", 7, "reason", 5]],
    ids=repr,
)
def test_what_is_unknown_is_left_out_and_noticed(item: object) -> None:
    payload = encode("node", 4, [json.dumps(item), write(Stands(7, 3))])
    assert decode(payload) == Message("node", 4, (Stands(7, 3),), understood=False)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "[]",
        "{}",
        "7",
        '{"v":2,"n":"node","i":1,"e":[]}',
        '{"v":1,"n":7,"i":1,"e":[]}',
        '{"v":1,"n":"node","i":"1","e":[]}',
        '{"v":1,"n":"node","i":1,"e":{}}',
        b"\xff",
    ],
    ids=repr,
)
def test_what_is_no_message_of_this_version_is_unreadable(payload: str | bytes) -> None:
    with pytest.raises(Unreadable):
        decode(payload)
