"""A wallet's bytes as a value: what is read, written, and changed in it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsclient.live.reading import (
    Form,
    find,
    insert,
    list_members,
    parse_json,
    printable,
    read,
    remove,
    replace,
    show_indented,
    show_json,
    show_path,
)
from wsclient.merge.json_document import Json, is_same, write

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("wallet", "form"),
    [
        (None, Form.EMPTY),
        (b'{"a": 1}', Form.JSON),
        (b"42", Form.JSON),
        (b"wallet:coffee", Form.TEXT),
        (b"", Form.TEXT),
        ("Kaffee: 3 €\n".encode(), Form.TEXT),
        (b"\x00\x01", Form.BINARY),
        (b"\xff\xfe", Form.BINARY),
        (b"\x1b[2J clears a screen", Form.BINARY),
        (b'{"a": 1, "a": 2}', Form.TEXT),
    ],
)
def test_a_wallet_is_read_as_what_it_looks_like(wallet: bytes | None, form: Form) -> None:
    assert read(wallet).form is form


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_a_text_that_is_written_as_it_was_read_is_the_same(text: str) -> None:
    reading = read(text.encode())
    if reading.form is Form.TEXT:
        assert reading.write(reading.value) == text.encode()


@given(values)
def test_json_is_written_as_it_was_read(value: Json) -> None:
    assert is_same(read(write(value)).value, value)


def test_a_number_keeps_its_digits() -> None:
    reading = read(b'{"balance":0.10000000000000000000001,"name":"old"}')

    changed = reading.write(replace(reading.value, ("name",), "new"))

    assert changed == b'{"balance":0.10000000000000000000001,"name":"new"}'


def test_the_first_entry_makes_a_wallet() -> None:
    reading = read(None)

    assert reading.write(replace(reading.value, ("coffee",), Decimal("2.5"))) == b'{"coffee":2.5}'


@given(values)
def test_what_is_shown_on_lines_is_the_value(value: Json) -> None:
    assert is_same(parse_json(show_indented(value)), value)


@given(st.text())
def test_nothing_that_is_shown_can_steer_a_terminal(text: str) -> None:
    assert printable(text).isprintable()
    assert show_json(text).isprintable()


@pytest.mark.parametrize("text", ["", "coffee", "{", '{"a":1,"a":2}', "NaN", "1 2"])
def test_what_is_no_json_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(no JSON: |nested)[^()]*$"):
        parse_json(text)


def test_a_path_is_shown_as_in_programs() -> None:
    assert show_path(("accounts", 2, "full name", "x")) == 'accounts[2]["full name"].x'
    assert show_path(()) == "the whole wallet"


def test_values_are_replaced_inserted_and_removed_in_a_copy() -> None:
    value: Json = {"list": [1, {"a": "b"}], "other": None}

    assert replace(value, ("list", 1, "a"), "c") == {"list": [1, {"a": "c"}], "other": None}
    assert replace(value, ("new",), 5) == {"list": [1, {"a": "b"}], "other": None, "new": 5}
    assert insert(value, ("list", 1), 7) == {"list": [1, 7, {"a": "b"}], "other": None}
    assert remove(value, ("list", 0)) == {"list": [{"a": "b"}], "other": None}
    assert remove(value, ("other",)) == {"list": [1, {"a": "b"}]}
    assert value == {"list": [1, {"a": "b"}], "other": None}


@given(values)
def test_everything_in_a_value_is_found_where_it_is_said_to_be(value: Json) -> None:
    for step, inner in list_members(value):
        assert find(value, (step,)) is inner


@pytest.mark.parametrize("path", [("b",), ("a", "x"), ("a", 9), (0,), ("a", 0, "x")])
def test_what_is_not_there_is_not_found(path: tuple[str | int, ...]) -> None:
    with pytest.raises(LookupError):
        find({"a": [1]}, path)
