"""What is another between two values, and where what stayed has gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live.test_reading import values
from wsclient.live.difference import compare
from wsclient.live.reading import Path, find, list_members
from wsclient.merge.json_document import Json, is_same


@pytest.mark.parametrize(
    ("old", "new", "changed", "thinned"),
    [
        ({"a": 1}, {"a": 1}, [], []),
        ({"a": 1}, {"a": 2}, [("a",)], []),
        ({"a": 1}, {"a": 1, "b": 2}, [("b",)], []),
        ({"a": 1, "b": 2}, {"a": 1}, [], [()]),
        ({"a": {"b": [1, 2, 3]}}, {"a": {"b": [1, 9, 3]}}, [("a", "b", 1)], []),
        ([1, 2], [0, 1, 2], [(0,)], []),
        ([1, 2, 3], [1, 3], [], [()]),
        ([{"id": 1, "x": 1}, {"id": 2, "x": 1}], [{"id": 1, "x": 1}, {"id": 2, "x": 5}],
         [(1, "x")], []),
        ({"a": [1]}, {"a": {"b": 1}}, [("a",)], []),
        ({"a": 1}, {"a": True}, [("a",)], []),
        ("old", "new", [()], []),
    ],
)  # fmt: skip
def test_a_change_is_told_by_its_smallest_place(
    old: Json, new: Json, changed: list[Path], thinned: list[Path]
) -> None:
    difference = compare(old, new)

    assert (difference.changed, difference.thinned) == (changed, thinned)


def test_an_entry_is_followed_where_others_were_put_before_it() -> None:
    difference = compare({"list": ["a", "b", "c"]}, {"list": ["new", "a", "b", "c"]})

    assert difference.follow(("list", 2)) == ("list", 3)


def test_an_entry_that_was_removed_is_gone_and_the_ones_after_it_are_not() -> None:
    difference = compare([{"n": 1}, {"n": 2}, {"n": 3}], [{"n": 1}, {"n": 3}])

    assert difference.follow((1,)) is None
    assert difference.follow((1, "n")) is None
    assert difference.follow((2, "n")) == (1, "n")
    assert difference.follow((0,)) == (0,)


def test_a_member_that_was_removed_is_gone() -> None:
    assert compare({"a": 1, "b": 2}, {"b": 2}).follow(("a",)) is None


@given(st.lists(st.integers(), max_size=8), st.lists(st.integers(), max_size=8), values)
def test_what_stands_before_or_after_a_change_of_a_list_is_followed(
    before: list[Json], after: list[Json], new: Json
) -> None:
    old: Json = [*before, *after]
    changed: Json = [*before, new, *after]

    difference = compare(old, changed)

    for index, value in enumerate([*before, *after]):
        moved = difference.follow((index,))
        assert moved is not None
        assert is_same(find(changed, moved), value)


@given(values, values)
def test_nothing_is_told_to_have_changed_that_is_the_same(old: Json, new: Json) -> None:
    difference = compare(old, new)

    told = difference.changed + difference.thinned
    assert bool(told) is not is_same(old, new)
    for path in told:
        find(new, path)


@given(values, values)
def test_values_of_the_same_shape_have_the_same_places(old: Json, new: Json) -> None:
    if compare(old, new).same_shape:
        assert _list_places(old) == _list_places(new)


def _list_places(value: Json, path: Path = ()) -> set[Path]:
    places = {path}
    for step, inner in list_members(value):
        places |= _list_places(inner, (*path, step))
    return places
