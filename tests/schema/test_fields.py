"""The kinds of member: what each lets in, and what its error says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsschema.fields import (
    Array,
    Boolean,
    Email,
    FieldError,
    HexDigits,
    Integer,
    Kind,
    Nullable,
    Object,
    OneOf,
    Opaque,
    PowerOfTwo,
    Text,
    Time,
    camel_case,
    decode,
    encode,
    lower_email,
    members,
    object_schema,
)
from wsschema.messages import Kdf


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf.

    And more of it.
    """

    some_number: Annotated[int, Integer(1, 9)]
    when: Annotated[Any, Time()]


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree."""

    leaf: Leaf
    leaves: tuple[Leaf, ...]
    numbers: tuple[Annotated[int, Integer()], ...]
    maybe: Annotated[str, Text(0, 3)] | None
    spare: Leaf | None = None
    mood: Annotated[str, OneOf(("calm", "wild"), grows=True)] = "calm"


LEAF = {"someNumber": 1, "when": "2026-01-02T03:04:05.678Z"}
TREE = {"leaf": LEAF, "leaves": [LEAF], "numbers": [1], "maybe": None}


def refusal(kind: Kind, value: Any, *, lenient: bool = False) -> tuple[str, str]:
    with pytest.raises(FieldError) as caught:
        kind.read(value, "it", lenient)
    assert caught.value.path == "it"
    assert str(caught.value) == f"it {caught.value.text}"
    return caught.value.reason, caught.value.text


@pytest.mark.parametrize(
    ("kind", "value", "reason", "text"),
    [
        (Integer(1, 9), 0, "out_of_bounds", "is 0; it must be from 1 to 9"),
        (Integer(1, 9), 10, "out_of_bounds", "is 10; it must be from 1 to 9"),
        (Integer(1, 9), 1.0, "wrong_type", "must be an integer, not a number"),
        (Integer(1, 9), True, "wrong_type", "must be an integer, not a boolean"),
        (Integer(1, 9), None, "wrong_type", "must be an integer, not null"),
        (PowerOfTwo(4, 16), 2, "out_of_bounds", "is 2; it must be a power of two from 4 to 16"),
        (PowerOfTwo(4, 16), 6, "out_of_bounds", "is 6; it must be a power of two from 4 to 16"),
        (PowerOfTwo(4, 16), 32, "out_of_bounds", "is 32; it must be a power of two from 4 to 16"),
        (PowerOfTwo(4, 16), "4", "wrong_type", "must be an integer, not a string"),
        (Boolean(), 0, "wrong_type", "must be a boolean, not an integer"),
        (Text(2, 3), "x", "out_of_bounds", "has 1 characters; it must have 2 to 3"),
        (Text(2, 3), "xxxx", "out_of_bounds", "has 4 characters; it must have 2 to 3"),
        (Text(2, 3), "x\x7f", "malformed", "must not contain control characters"),
        (Text(2, 3), [], "wrong_type", "must be a string, not an array"),
        (Email(), "x" * 255, "out_of_bounds", "has 255 characters; it must have at most 254"),
        (Email(), "joe", "malformed", "must be a bare email address like joe@example.com"),
        (Email(), {}, "wrong_type", "must be a string, not an object"),
        (HexDigits(4), "abc", "malformed", "must be 4 hex digits"),
        (HexDigits(4), 1234, "wrong_type", "must be a string, not an integer"),
        (Opaque(3), "", "out_of_bounds", "must not be empty"),
        (Opaque(3), "é" * 2, "out_of_bounds", "has 4 bytes in UTF-8; it must have at most 3"),
        (Opaque(3), False, "wrong_type", "must be a string, not a boolean"),
        (OneOf(("a", "b")), "c", "out_of_bounds", "must be one of: a, b"),
        (OneOf((8,)), 9, "out_of_bounds", "must be one of: 8"),
        (OneOf((8,)), "8", "wrong_type", "must be an integer, not a string"),
        (OneOf((8,)), True, "wrong_type", "must be an integer, not a boolean"),
        (OneOf(("a", "b")), 1, "wrong_type", "must be a string, not an integer"),
        (Time(), 1, "wrong_type", "must be a string, not an integer"),
        (Time(), "now", "malformed", "must be an RFC 3339 time in UTC"),
        (Array(Integer()), {}, "wrong_type", "must be an array, not an object"),
        (Nullable(Boolean()), 1, "wrong_type", "must be a boolean, not an integer"),
        (Object(Leaf), [], "wrong_type", "must be an object, not an array"),
    ],
)  # fmt: skip
def test_a_value_is_refused_with_the_fact_and_the_limit(
    kind: Kind, value: Any, reason: str, text: str
) -> None:
    assert refusal(kind, value) == (reason, text)


def test_integers_go_up_to_what_javascript_holds_exactly() -> None:
    assert Integer().read(2**53 - 1, "it", False) == 2**53 - 1
    assert refusal(Integer(), 2**53)[0] == "out_of_bounds"


@pytest.mark.parametrize("control", [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))])
def test_no_control_character_is_text(control: str) -> None:
    assert refusal(Text(1, 9), f"a{control}")[0] == "malformed"
    assert refusal(Email(), f'"{control}"@example.com')[0] == "malformed"


def test_characters_are_counted_as_code_points_and_opaque_text_in_bytes() -> None:
    assert Text(1, 2).read("\U0001f511\U0001f511", "it", False) == "\U0001f511\U0001f511"
    assert Opaque(8).read("\U0001f511\U0001f511", "it", False) == "\U0001f511\U0001f511"
    assert refusal(Opaque(7), "\U0001f511\U0001f511")[0] == "out_of_bounds"
    assert len(Opaque().read("x" * 10**6, "it", False)) == 10**6


@given(st.text(min_size=1))
def test_opaque_text_is_given_back_to_the_letter(text: str) -> None:
    assert Opaque().write(Opaque().read(text, "it", False)) == text


@given(st.emails().filter(lambda email: len(email) <= 254))
def test_addresses_that_people_have_are_read(email: str) -> None:
    assert Email().read(email, "it", False) == email


@pytest.mark.parametrize(
    "hostile",
    [
        "\u00e9" * 254,
        "a." * 127,
        "a@" + "\u00e9." * 126,
        '"' + "\\a" * 126,
        '"' + "\u00e9" * 253,
        "a@[" + "\u00e9" * 251,
    ],
)
def test_no_address_takes_long_to_refuse(hostile: str) -> None:
    """Once 28 letters with an accent took a minute, and each more doubled it."""
    begun = time.process_time()
    assert refusal(Email(), hostile)[0] == "malformed"
    assert time.process_time() - begun < 1


def test_a_client_lets_unknown_values_pass_only_where_a_server_may_add_some() -> None:
    assert OneOf(("a",), grows=True).read("b", "it", True) == "b"
    assert refusal(OneOf(("a",), grows=True), "b")[0] == "out_of_bounds"
    assert refusal(OneOf(("a",)), "b", lenient=True)[0] == "out_of_bounds"
    with pytest.raises(FieldError):
        decode(Kdf, {"name": "argon2id", "n": 2**14, "r": 8, "p": 1}, lenient=True)


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        ({"leaf": LEAF | {"someNumber": 0}}, "leaf.someNumber", "out_of_bounds"),
        ({"leaf": LEAF | {"colour": 1}}, "leaf.colour", "unknown"),
        ({"leaf": {"someNumber": 1}}, "leaf.when", "missing"),
        ({"leaf": None}, "leaf", "wrong_type"),
        ({"leaves": [LEAF, LEAF | {"when": 1}]}, "leaves[1].when", "wrong_type"),
        ({"numbers": [1, 2, "3"]}, "numbers[2]", "wrong_type"),
        ({"spare": None}, "spare", "wrong_type"),
        ({"spare": {}}, "spare.someNumber", "missing"),
        ({"maybe": "long"}, "maybe", "out_of_bounds"),
        ({"mood": None}, "mood", "wrong_type"),
        ({"c" * 99: 1}, "c" * 64, "unknown"),
    ],
)
def test_the_path_leads_to_the_member_at_any_depth(
    change: dict[str, Any], path: str, reason: str
) -> None:
    with pytest.raises(FieldError) as caught:
        decode(Tree, TREE | change)
    assert (caught.value.path, caught.value.reason) == (path, reason)


@pytest.mark.parametrize("value", [None, [], "x", 1, 1.5, True])
def test_what_is_no_object_is_refused_as_a_whole(value: Any) -> None:
    with pytest.raises(FieldError) as caught:
        decode(Tree, value)
    assert caught.value.path == ""
    assert str(caught.value).startswith("the value must be an object, not ")


def test_a_message_and_its_wire_form_are_the_same_thing() -> None:
    tree = decode(Tree, TREE)
    assert tree.spare is None
    assert tree.mood == "calm"
    assert isinstance(tree.leaves, tuple)
    assert encode(tree) == TREE | {"mood": "calm"}


def test_a_client_ignores_unknown_members_at_any_depth() -> None:
    grown = TREE | {"leaf": LEAF | {"colour": 1}, "leaves": [LEAF | {"colour": 1}], "colour": 1}
    assert decode(Tree, grown, lenient=True) == decode(Tree, TREE)


def test_members_are_found_once_and_named_in_camel_case() -> None:
    assert members(Tree) is members(Tree)
    assert [member.name for member in members(Leaf)] == ["someNumber", "when"]
    assert camel_case("wallet") == "wallet"
    assert camel_case("client_salt_seed") == "clientSaltSeed"


def test_only_a_to_z_of_an_address_is_lowered() -> None:
    assert lower_email("JoE@EXAMPLE.com") == "joe@example.com"
    assert lower_email("\u00c4\u0130@\u212a.com") == "\u00c4\u0130@\u212a.com"


def test_a_schema_is_closed_for_what_a_client_sends_and_open_for_what_a_server_sends() -> None:
    closed, grown = object_schema(Leaf, closed=True), object_schema(Leaf, closed=False)
    assert closed == grown | {"additionalProperties": False}
    assert grown["title"] == "Leaf"
    assert grown["description"] == "A leaf."
    assert grown["required"] == ["someNumber", "when"]


def test_a_schema_names_the_defaults() -> None:
    properties = object_schema(Tree, closed=True)["properties"]
    assert properties["mood"]["default"] == "calm"
    assert properties["spare"] == {"$ref": "#/components/schemas/Leaf"}
    assert properties["numbers"]["type"] == "array"


KINDS: list[Kind] = [
    Integer(1, 9), PowerOfTwo(4, 16), Boolean(), Text(2, 3), HexDigits(4), OneOf(("a", "b")),
    OneOf((8,)), Array(Integer(0, 3)), Nullable(Integer(1, 9)), Opaque(), Time(), Email(),
]  # fmt: skip
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 40)
    | st.floats(0.5, 9.5).filter(lambda number: number % 1)
    | st.text("ab8@.\u00e9", max_size=5)
    | st.sampled_from(["a", "b", "abcd", "2026-01-02T03:04:05Z"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text("ab"), values),
    max_leaves=5,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@given(value=JSON_VALUES)
def test_what_a_kind_lets_in_satisfies_its_schema(kind: Kind, value: Any) -> None:
    valid = jsonschema.Draft7Validator(kind.schema()).is_valid(value)
    try:
        kind.read(value, "it", False)
    except FieldError:
        # Formats and time are looser in a schema; the rest says exactly the same.
        assert not valid or isinstance(kind, Email | Time)
    else:
        assert valid
