"""Merging wallets that are JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.client.wallets import Account
from wsclient.errors import CannotMerge
from wsclient.merge import (
    ABSENT,
    JsonConflict,
    JsonMerge,
    keep_mine,
    keep_newest,
    keep_theirs,
)
from wsclient.merge.json_document import DEPTH_MAX, read, write
from wsclient.merge.json_merge import Identity, Rule

BY_ID: Mapping[str, Identity] = {"/entries": "id"}

patiently = settings(deadline=None)
"""On a busy machine, how long an example takes says nothing."""


def merge(
    base: str | None, mine: str, theirs: str, identity: Mapping[str, Identity], rule: Rule | None
) -> str:
    merging = JsonMerge(identity) if rule is None else JsonMerge(identity, rule)
    return merging(None if base is None else base.encode(), mine.encode(), theirs.encode()).decode()


def check(
    base: str | None,
    mine: str,
    theirs: str,
    merged: str,
    identity: Mapping[str, Identity] | None = None,
    rule: Rule | None = None,
) -> None:
    """Either side may be called mine."""
    assert merge(base, mine, theirs, identity or {}, rule) == merged
    assert merge(base, theirs, mine, identity or {}, rule) == merged


@pytest.mark.parametrize(
    ("base", "one", "other", "merged"),
    [
        ('{"a": 1}', '{"a": 1, "b": 2}', '{"a": 1, "c": 3}', '{"a":1,"b":2,"c":3}'),
        ('{"a": 1, "b": 1}', '{"a": 2, "b": 1}', '{"a": 1, "b": 2}', '{"a":2,"b":2}'),
        ('{"a": 1, "b": 1}', '{"b": 1}', '{"a": 1, "b": 2}', '{"b":2}'),
        ('{"a": 1, "b": 1}', '{"b": 1}', '{"a": 1}', "{}"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1, "c": 1}}', '{"a": {}}', '{"a":{"c":1}}'),
        (None, '{"a": {"b": 1}}', '{"a": {"c": 1}, "d": 1}', '{"a":{"b":1,"c":1},"d":1}'),
    ],
)
def test_members_that_one_side_added_changed_or_removed_are_so(
    base: str | None, one: str, other: str, merged: str
) -> None:
    check(base, one, other, merged)


IN_ORDER = [
    *("null", "false", "true", "-3", "-2.5", "1", "1.0", "1.5", "2", "18446744073709551616"),
    *('"2026-01-02"', '"2026-01-03"', '"a"', '"\u00e9"', '"\U0001f511"'),
    *("[0]", '{"x":0}', '{"x":1}'),
]


@pytest.mark.parametrize(("lesser", "greater"), [*itertools.pairwise(IN_ORDER)])
def test_of_two_changes_of_a_value_the_greater_is_kept(lesser: str, greater: str) -> None:
    check('{"a":"base"}', f'{{"a":{lesser}}}', f'{{"a":{greater}}}', f'{{"a":{greater}}}')


def test_an_edit_beats_a_removal() -> None:
    check('{"a":1}', "{}", '{"a":0}', '{"a":0}')
    check('{"a":{"b":1}}', "{}", '{"a":{}}', '{"a":{}}')
    check('{"a":1}', "{}", '{"a":null}', '{"a":null}')


@pytest.mark.parametrize(
    ("base", "one", "other", "merged"),
    [
        # added on both sides: by identity, where both put it behind the same
        ("[1, 2]", "[1, 2, 4]", "[1, 2, 3]", "[1,2,3,4]"),
        ("[1, 2]", "[0, 1, 2]", "[1, 1.5, 2]", "[0,1,1.5,2]"),
        ("[]", "[9, 1]", "[5, 6]", "[5,6,9,1]"),  # what one side put in a row stays in its order
        # removed, and added behind what was removed
        ("[1, 2, 3]", "[1, 3]", "[1, 2, 3, 4]", "[1,3,4]"),
        ("[1, 2, 3]", "[1, 3]", "[1, 2, 9, 3]", "[1,9,3]"),
        # moved on one side, added on the other
        ("[1, 2, 3]", "[3, 1, 2]", "[1, 9, 2, 3]", "[3,1,9,2]"),
        ("[1, 2, 3]", "[3, 2, 1]", "[1, 3]", "[3,1]"),
        ("[2, 1]", "[1, 2, 3]", "[2, 1, 3]", "[1,2,3]"),
        # moved on both: one of the two orders, the same on both
        ("[1, 2, 3]", "[3, 1, 2]", "[2, 1, 3]", "[3,1,2]"),
        # twice in a list
        ("[1]", "[1, 1]", "[1, 2]", "[1,1,2]"),
        ("[1, 1]", "[1]", "[1, 1, 2]", "[1,2]"),
        # an edit of an element that has no identity is a removal and an addition
        ("[1, 2]", "[1, 3]", "[1, 4]", "[1,3,4]"),
        ('["1", 1, true]', '["1", 1]', '[1, true, "x"]', '[1,"x"]'),
    ],
)
def test_elements_are_added_removed_and_moved_on_either_side(
    base: str, one: str, other: str, merged: str
) -> None:
    check(base, one, other, merged)


def entries(*texts: str) -> str:
    return json.dumps(
        {"entries": [dict(zip(("id", "user", "pw"), text.split(), strict=False)) for text in texts]}
    )


@pytest.mark.parametrize(
    ("base", "one", "other", "merged"),
    [
        (["1 joe x"], ["1 joe y"], ["1 jane x"], ["1 jane y"]),
        (["1 joe x"], ["1 joe x", "2 a b"], ["1 joe y"], ["1 joe y", "2 a b"]),
        (["1 joe x", "2 a b"], ["2 a b"], ["1 joe x", "2 a c"], ["2 a c"]),
        (["1 joe x", "2 a b"], ["2 a b"], ["1 joe y", "2 a b"], ["1 joe y", "2 a b"]),
        (["1 joe x", "2 a b"], ["2 a b", "1 joe x"], ["1 joe y", "2 a b"], ["2 a b", "1 joe y"]),
        ([], ["1 joe"], ["1 jane x"], ["1 joe x"]),  # the same identity given on both sides
    ],
)
def test_elements_with_an_identity_are_merged_by_it(
    base: list[str], one: list[str], other: list[str], merged: list[str]
) -> None:
    expected = write(json.loads(entries(*merged))).decode()
    check(entries(*base), entries(*one), entries(*other), expected, BY_ID)


@pytest.mark.parametrize(
    "identity",
    [
        {"/vaults/home": "id"},
        {"/vaults/*": "id"},
        {"/*/home": "id", "/vaults/*": None},  # the first that fits counts
        {"/vaults/*": lambda element: element["id"]},
    ],
)
def test_an_identity_is_told_by_pointers_with_any_step(identity: Mapping[str, Identity]) -> None:
    check(
        '{"vaults":{"home":[{"id":1,"a":1,"b":1}]}}',
        '{"vaults":{"home":[{"id":1,"a":2,"b":1}]}}',
        '{"vaults":{"home":[{"id":1,"a":1,"b":2}]}}',
        '{"vaults":{"home":[{"a":2,"b":2,"id":1}]}}',
        identity,
    )


def test_a_pointer_leads_through_elements_by_their_identity() -> None:
    one, other = '[{"id":"x","at":[1]}]', '[{"id":"x","at":[2]}]'
    check("[]", one, other, '[{"at":[2],"id":"x"}]', {"": "id", "/x/at": None})
    check("[]", one, other, '[{"at":[1,2],"id":"x"}]', {"": "id", "/y/at": None})
    check('{"a/~":[]}', '{"a/~":[1]}', '{"a/~":[2]}', '{"a/~":[2]}', {"/a~1~0": None})


def test_a_pointer_that_leads_nowhere_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="begins with a slash"):
        JsonMerge(identity={"entries": "id"})


def test_elements_without_their_identity_are_known_by_their_value() -> None:
    check(
        '{"entries":[{"id":1},7]}',
        '{"entries":[{"id":1,"a":1},7,{"new":1}]}',
        '{"entries":[{"id":1,"b":1},{"new":2}]}',
        '{"entries":[{"a":1,"b":1,"id":1},{"new":1},{"new":2}]}',
        BY_ID,
    )


def test_a_list_that_is_one_value_is_taken_as_a_whole() -> None:
    check('{"at":[1,2]}', '{"at":[3,2]}', '{"at":[1,4]}', '{"at":[3,2]}', {"/at": None})


def test_a_base_that_is_no_json_counts_as_none() -> None:
    check("coins: 3", '{"a":1}', '{"b":1}', '{"a":1,"b":1}')


# What is done about a conflict.


def collect(conflicts: list[JsonConflict]) -> Rule:
    def keep(conflict: JsonConflict) -> Any:
        conflicts.append(conflict)
        return conflict.mine

    return keep


def test_a_conflict_tells_where_it_is_and_what_each_side_has() -> None:
    conflicts: list[JsonConflict] = []
    merge(
        '{"entries":[{"id":"x","pw":1},{"id":2,"pw":1},{"id":3}]}',
        '{"entries":[{"id":"x","pw":2},{"id":2,"pw":1.50},{"id":3,"a":1}],"n":null}',
        '{"entries":[{"id":"x","pw":3},{"id":2}],"n":1}',
        BY_ID,
        collect(conflicts),
    )
    told = [
        (conflict.path, conflict.base, conflict.mine, conflict.theirs) for conflict in conflicts
    ]
    assert told == [
        (("entries", "x", "pw"), 1, 2, 3),
        (("entries", "2", "pw"), 1, Decimal("1.50"), ABSENT),
        (("entries", "3"), {"id": 3}, {"id": 3, "a": 1}, ABSENT),
        (("n",), ABSENT, None, 1),
    ]
    assert [len(conflict.holders) for conflict in conflicts] == [3, 3, 2, 1]
    assert conflicts[0].holders[-1] == ({"id": "x", "pw": 2}, {"id": "x", "pw": 3})
    assert repr(conflicts[0]) == "JsonConflict(path=('entries', 'x', 'pw'))"


def test_what_the_callback_gives_is_what_is_merged() -> None:
    base, mine, theirs = '{"a":1,"b":1}', '{"a":2,"b":2}', '{"a":3,"b":3}'
    answers: dict[tuple[str, ...], Any] = {("a",): 0.5, ("b",): ABSENT}
    merged = merge(base, mine, theirs, {}, lambda conflict: answers[conflict.path])
    assert merged == '{"a":0.5}'


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (b"x", "a bytes among its values"),
        ({1: 2}, "a dict among its values"),
        (float("nan"), "a float among its values"),
        (Decimal("Infinity"), "a Decimal among its values"),
    ],
)
def test_a_callback_that_gives_no_json_is_an_error(given: Any, text: str) -> None:
    with pytest.raises(CannotMerge, match=f"cannot merge: the merged wallet is no JSON: {text}"):
        merge("1", "2", "3", {}, lambda conflict: [given])


def test_a_wallet_cannot_be_removed_as_a_whole() -> None:
    with pytest.raises(CannotMerge, match="cannot merge: the merged wallet is not there"):
        merge("1", "2", "3", {}, lambda conflict: ABSENT)


def test_mine_and_theirs_are_kept_where_that_is_the_rule_removed_or_not() -> None:
    base, mine, theirs = '{"a":1,"b":1}', '{"a":2}', '{"a":3,"b":2}'
    assert merge(base, mine, theirs, {}, keep_mine) == '{"a":2}'
    assert merge(base, mine, theirs, {}, keep_theirs) == '{"a":3,"b":2}'


@pytest.mark.parametrize(
    ("base", "one", "other", "merged"),
    [
        # the side of the later time, field by field
        ('{"pw":"b","at":1}', '{"pw":"x","at":3}', '{"pw":"y","at":2}', '{"at":3,"pw":"x"}'),
        (
            '{"pw":"b","user":"u","at":"2026-01-01"}',
            '{"pw":"x","user":"u","at":"2026-03-01"}',
            '{"pw":"y","user":"v","at":"2026-02-01"}',
            '{"at":"2026-03-01","pw":"x","user":"v"}',
        ),
        # from the inside out
        (
            '{"at":1,"e":{"at":1,"f":{"pw":0}}}',
            '{"at":2,"e":{"at":4,"f":{"pw":1}}}',
            '{"at":3,"e":{"at":3,"f":{"pw":2}}}',
            '{"at":3,"e":{"at":4,"f":{"pw":1}}}',
        ),
        ('{"at":1,"e":{"pw":0}}', '{"at":3,"e":{"pw":1}}', '{"at":2,"e":{"pw":2}}', None),
        # no time, or the same
        ('{"pw":0}', '{"pw":1}', '{"pw":2}', '{"pw":2}'),
        ('{"pw":0,"at":0}', '{"pw":1}', '{"pw":2,"at":5}', '{"at":5,"pw":2}'),
        ('{"pw":0,"at":1}', '{"pw":1,"at":1}', '{"pw":2,"at":1}', '{"at":1,"pw":2}'),
        # an edit beats a removal
        ('{"at":0,"e":{"at":1}}', '{"at":9}', '{"at":8,"e":{"at":2}}', '{"at":9,"e":{"at":2}}'),
    ],
)
def test_the_newest_is_kept_where_that_is_the_rule(
    base: str, one: str, other: str, merged: str | None
) -> None:
    check(base, one, other, merged or '{"at":3,"e":{"pw":1}}', rule=keep_newest("/at"))


# What is read and written.


@pytest.mark.parametrize(
    "value",
    [
        *(
            "12345678901234567890123456789012345678901234567890",
            "0.1234567890123456789012345",
            "1.10",
        ),
        *("1E+400", "-0.0", '"\\ud800"', '"\U0001f511\u00e9\u2028"', '"\\u0000\\n\\"\\\\"'),
        *('""', "[[],{}]", '{"":1,"e\u0301":2,"\u00e9":3}'),
    ],
)
def test_what_is_not_changed_is_not_changed_to_the_last_digit(value: str) -> None:
    merged = f'{{"a":1,"b":2,"v":{value}}}'
    check(f'{{"v":{value}}}', f'{{"v": {value}, "a": 1}}', f'{{"v": {value}, "b": 2}}', merged)


def test_a_byte_order_mark_is_not_taken_for_a_value() -> None:
    check(None, '\ufeff{"a":1}', '{"b":1}', '{"a":1,"b":1}')


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"", "is no JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"pin": 1234', "is no JSON: Expecting ',' delimiter: line 1 column 13 (char 12)"),
        (b'{"pin": NaN}', "is no JSON: NaN among its values"),
        (b'{"pin": [-Infinity]}', "is no JSON: -Infinity among its values"),
        (b'{"pin": 1, "pin": 2}', "is no JSON: an object has a member twice"),
        (b"1e9999999999999999999", "is no JSON: a number has too large an exponent"),
        (b"1" * 5000, "is no JSON: Exceeds the limit"),
        (b'"\xff"', "is no UTF-8"),
        ('"x"'.encode("utf-16"), "is no UTF-8"),
        (b"[" * 102 + b"]" * 102, "is no JSON: nested deeper than 100 levels"),
        (b"[" * 1_000_000, "is nested deeper than 100 levels"),
    ],
)
def test_a_wallet_that_is_no_json_is_a_typed_error_that_tells_nothing_of_it(
    document: bytes, text: str
) -> None:
    for what, sides in (("mine", (document, b"1")), ("theirs", (b"1", document))):
        with pytest.raises(CannotMerge) as caught:
            JsonMerge()(b"0", *sides)
        assert str(caught.value).startswith(f"cannot merge: {what} {text}")
        assert caught.value.what == what
        assert "pin" not in str(caught.value)


def test_a_wallet_may_be_nested_as_deep_as_the_limit() -> None:
    base, one, other, merged = (
        '{"a":' * DEPTH_MAX + value + "}" * DEPTH_MAX for value in ("0", "1", "2", "2")
    )
    check(base, one, other, merged)


# The algebra.

SCALARS = st.sampled_from([None, False, 0, 1, "x"])
ENTRY: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"id": st.integers(0, 3)},
    optional={
        "user": SCALARS,
        "pw": SCALARS | st.fixed_dictionaries({}, optional={"old": SCALARS, "new": SCALARS}),
        "tags": st.lists(SCALARS, unique_by=json.dumps, max_size=3),
    },
)
WALLET = SCALARS | st.fixed_dictionaries(
    {},
    optional={
        "entries": st.lists(ENTRY, unique_by=lambda entry: entry["id"], max_size=4),
        "theme": SCALARS | st.lists(SCALARS, unique_by=json.dumps, max_size=4),
        "settings": SCALARS | st.dictionaries(st.sampled_from("abc"), SCALARS, max_size=3),
    },
)
MERGE = JsonMerge({"/entries": "id"})


def merge_values(base: Any, mine: Any, theirs: Any) -> Any:
    merged = MERGE(
        json.dumps(base).encode(), json.dumps(mine).encode(), json.dumps(theirs).encode()
    )
    return json.loads(merged)


def sort_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: sort_lists(member) for name, member in value.items()}
    if isinstance(value, list):
        return sorted(json.dumps(sort_lists(element), sort_keys=True) for element in value)
    return json.dumps(value)


@patiently
@given(base=st.none() | WALLET, one=WALLET, other=WALLET)
def test_mine_and_theirs_may_be_exchanged(base: Any, one: Any, other: Any) -> None:
    sides = json.dumps(one).encode(), json.dumps(other, indent=1).encode()
    shared = None if base is None else json.dumps(base).encode()
    assert MERGE(shared, *sides) == MERGE(shared, *reversed(sides))


@settings(patiently, max_examples=300)
@given(base=WALLET, changes=st.tuples(WALLET, WALLET, WALLET))
def test_the_order_in_which_changes_arrive_makes_no_difference_to_what_is_there(
    base: Any, changes: tuple[Any, Any, Any]
) -> None:
    outcomes = [
        sort_lists(merge_values(base, third, merge_values(base, second, first)))
        for first, second, third in itertools.permutations(changes)
    ]
    assert all(outcome == outcomes[0] for outcome in outcomes)


@patiently
@given(
    base=st.lists(st.integers(0, 9), unique=True),
    added=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=9),
)
@example(base=[], added=[(0, 9), (0, 0), (1, 8), (1, 1), (2, 0), (2, 7)])
def test_nor_does_it_to_the_order_of_lists_to_which_elements_were_added(
    base: list[int], added: list[tuple[int, int]]
) -> None:
    sides = [list(base) for _ in range(3)]
    for number, (side, at) in enumerate(added):
        sides[side].insert(at, 10 + (number * 7 + at) % 90 * 100 + number)
    outcomes = {
        json.dumps(merge_values(base, third, merge_values(base, second, first)))
        for first, second, third in itertools.permutations(sides)
    }
    assert len(outcomes) == 1


@patiently
@given(value=WALLET | st.floats(allow_nan=False, allow_infinity=False) | st.text())
def test_what_is_written_is_read_as_the_same_and_written_the_same(value: Any) -> None:
    written = write(value)
    assert json.loads(written) == value
    assert write(read(written, "mine")) == written


EDITS = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["add", "edit", "remove", "pull", "push"]),
    st.integers(0, 99),
)


@settings(patiently, max_examples=300)
@given(st.lists(EDITS, max_size=25))
def test_no_edit_of_an_entry_is_lost_and_no_removed_entry_comes_back(
    edits: list[tuple[int, str, int]],
) -> None:
    account = Account(MERGE)
    devices = [account.add_device() for _ in range(3)]
    devices[0].wallet = b'{"entries":[]}'
    account.settle(devices)
    added: set[int] = set()
    removed: set[int] = set()
    edited: dict[tuple[int, str], int] = {}

    for number, (at, action, choice) in enumerate(edits):
        device = devices[at]
        assert device.wallet is not None
        here = json.loads(device.wallet)["entries"]
        match action:
            case "pull":
                device.pull()
                continue
            case "push":
                device.push()
                continue
            case "add":
                here.insert(choice % (len(here) + 1), {"id": number})
                added.add(number)
            case "edit" if here:
                entry = here[choice % len(here)]
                entry[f"by {at}"] = edited[entry["id"], f"by {at}"] = number
            case "remove" if here:
                removed.add(here.pop(choice % len(here))["id"])
        device.wallet = json.dumps({"entries": here}).encode()

    settled = account.settle(devices)
    assert settled is not None
    left = {entry["id"]: entry for entry in json.loads(settled)["entries"]}
    assert left.keys() >= added - removed
    # A removed entry is there only where it was edited.
    assert left.keys() & removed <= {entry_id for entry_id, _ in edited}
    for (entry_id, name), value in edited.items():
        if entry_id not in removed:
            assert left[entry_id][name] == value
