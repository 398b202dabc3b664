"""Merging by hand: what is asked, and what comes of the answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from wsclient.live.asking import Conflict, HandMerge, PasswordOnScreen, Side
from wsclient.wallet_events import PasswordNeeded


class Person:
    """Answers what is asked, and remembers it."""

    def __init__(self, *sides: Side | None) -> None:
        self.sides = sides
        self.asked: list[Conflict] = []

    async def __call__(self, conflicts: Sequence[Conflict]) -> Sequence[Side] | None:
        self.asked += conflicts
        return None if None in self.sides else [side for side in self.sides if side is not None]


def refuse(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
    raise AssertionError("merged by its rule")


def by_hand(person: Person, merge: HandMerge | None = None) -> HandMerge:
    merge = HandMerge(refuse) if merge is None else merge
    merge.by_hand, merge.ask = True, person
    return merge


async def test_each_conflict_of_json_is_asked_about_and_the_rest_is_merged() -> None:
    person = Person("theirs", "mine")

    merged = await by_hand(person)(
        b'{"a":1,"b":1,"c":1}', b'{"a":2,"b":2,"c":1,"mine":1}', b'{"a":3,"b":3,"c":9}'
    )

    assert merged == b'{"a":3,"b":2,"c":9,"mine":1}'
    assert person.asked == [Conflict("a", "1", "2", "3"), Conflict("b", "1", "2", "3")]


async def test_what_one_side_removed_can_be_kept_or_go() -> None:
    base, mine, theirs = b'{"a":1,"b":[1]}', b'{"a":1}', b'{"a":1,"b":[2]}'
    person = Person("mine")

    assert await by_hand(person)(base, mine, theirs) == b'{"a":1}'
    assert await by_hand(Person("theirs"))(base, mine, theirs) == b'{"a":1,"b":[2]}'
    assert await by_hand(Person("base"))(base, mine, theirs) == b'{"a":1,"b":[1]}'
    assert person.asked == [Conflict("b", "[\n  1\n]", "(removed)", "[\n  2\n]")]


async def test_a_null_is_a_base_like_any_other() -> None:
    person = Person("base")

    assert await by_hand(person)(b'{"a":null}', b'{"a":1}', b'{"a":2}') == b'{"a":null}'
    assert person.asked == [Conflict("a", "null", "1", "2")]


async def test_with_no_base_there_is_none_to_take() -> None:
    person = Person("theirs")

    assert await by_hand(person)(None, b'{"a":1}', b'{"a":2}') == b'{"a":2}'
    assert person.asked == [Conflict("a", None, "1", "2")]


async def test_where_nothing_is_in_conflict_nobody_is_asked() -> None:
    person = Person()

    merged = await by_hand(person)(b'{"a":1}', b'{"a":1,"b":2}', b'{"a":1,"c":3}')

    assert merged == b'{"a":1,"b":2,"c":3}'
    assert await by_hand(person)(b"x", b"x", b"y") == b"y"
    assert person.asked == []


async def test_elements_are_told_apart_as_by_the_merge_of_the_wallet() -> None:
    person = Person("theirs")
    merge = HandMerge(refuse, identity={"": "id"})

    merged = await by_hand(person, merge)(
        b'[{"id":"x","n":1}]', b'[{"id":"x","n":2}]', b'[{"id":"x","n":3}]'
    )

    assert merged == b'[{"id":"x","n":3}]'
    assert person.asked == [Conflict("x.n", "1", "2", "3")]


async def test_a_text_is_merged_by_lines() -> None:
    person = Person("mine")

    merged = await by_hand(person)(b"a\nb\nc\nd", b"a\nB\nc\nd", b"a\nbb\nc\nd\ne")

    assert merged == b"a\nB\nc\nd\ne"
    assert person.asked == [Conflict("some lines", "b", "B", "bb")]


async def test_anything_else_is_taken_as_a_whole() -> None:
    person = Person("theirs")

    assert await by_hand(person)(b"\x00", b"\x01", b"\x02") == b"\x02"
    (conflict,) = person.asked
    assert conflict.place == "the whole wallet"
    assert conflict.theirs.startswith("02 ")


@pytest.mark.parametrize("nobody", ["not by hand", "no screen", "nobody decides"])
async def test_where_nobody_decides_the_merge_of_the_wallet_does(nobody: str) -> None:
    async def merge_later(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
        return b"ruled"

    for rule in (merge_later, lambda base, mine, theirs: b"ruled"):
        merge = by_hand(Person(None), HandMerge(rule))
        if nobody == "not by hand":
            merge.by_hand = False
        elif nobody == "no screen":
            merge.ask = None
        assert await merge(b'{"a":1}', b'{"a":2}', b'{"a":3}') == b"ruled"


async def test_a_password_is_asked_for_where_there_is_a_screen() -> None:
    async def ask_terminal(needed: PasswordNeeded) -> str | None:
        return f"{needed.reason}, in the terminal"

    async def ask_screen(needed: PasswordNeeded) -> str | None:
        return f"{needed.reason}, on the screen"

    ask = PasswordOnScreen(ask_terminal)

    assert await ask(PasswordNeeded("sealed_before")) == "sealed_before, in the terminal"
    ask.ask = ask_screen
    assert await ask(PasswordNeeded("changed_elsewhere")) == "changed_elsewhere, on the screen"
