"""A frozen class is a frozen dataclass in everything but the time that making one takes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, assert_type

import pytest

from wsschema.frozen import frozen

R = TypeVar("R")


class Parent(Generic[R]):
    __slots__ = ()
    loud: ClassVar[bool] = False


@frozen
class Note(Parent["int"]):
    """A note."""

    loud: ClassVar[bool] = True
    number: int
    text: str = field(repr=False)
    tags: tuple[str, ...] = ()
    author: str | None = field(default=None, repr=False)


@frozen
class Signed(Note):
    """A note with one member more."""

    signature: str = ""


@frozen
class Nothing:
    """No members at all."""


@dataclass(frozen=True, slots=True)
class Plain:
    """The same members in a dataclass as `dataclasses` makes it."""

    number: int
    text: str = field(repr=False)
    tags: tuple[str, ...] = ()
    author: str | None = field(default=None, repr=False)


NOTE = Note(1, "hush", ("a",))


def test_members_are_given_by_place_or_by_name_and_may_be_left_out() -> None:
    assert Note(1, "hush", ("a",), None) == NOTE == Note(tags=("a",), text="hush", number=1)
    assert (Note(1, "x").tags, Note(1, "x").author) == ((), None)
    assert_type(NOTE.tags, tuple[str, ...])


@pytest.mark.parametrize("wrong", [{}, {"number": 1}, {"number": 1, "text": "", "colour": 1}])
def test_a_member_that_is_missing_or_unknown_is_refused_as_by_a_dataclass(wrong: Any) -> None:
    with pytest.raises(TypeError) as ours:
        Note(**wrong)
    with pytest.raises(TypeError) as theirs:
        Plain(**wrong)
    assert str(ours.value) == str(theirs.value).replace("Plain", "Note")


def test_its_signature_is_that_of_the_dataclass() -> None:
    assert inspect.signature(Note) == inspect.signature(Plain)
    assert Note.__init__.__qualname__ == "Note.__init__"
    assert Note.__match_args__ == ("number", "text", "tags", "author")
    assert [member.name for member in dataclasses.fields(Note)] == [*Note.__match_args__]


def test_nothing_can_be_assigned_deleted_or_added() -> None:
    # mypy says so too: it warns of an ignore that is not needed.
    with pytest.raises(FrozenInstanceError):
        NOTE.number = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del NOTE.number
    with pytest.raises(FrozenInstanceError):
        setattr(NOTE, "number", 2)  # noqa: B010  # not by its name in the source either
    with pytest.raises((FrozenInstanceError, TypeError)):
        NOTE.colour = 2  # type: ignore[attr-defined]
    assert not hasattr(NOTE, "__dict__")
    assert NOTE.number == 1


def test_equality_and_hash_go_by_the_members_and_the_class() -> None:
    assert Note(1, "x") == Note(1, "x") != Note(2, "x")
    assert hash(Note(1, "x")) == hash(Note(1, "x"))
    assert len({Note(1, "x"), Note(1, "x"), Note(1, "y")}) == 2
    others: list[object] = [Plain(1, "x"), Signed(1, "x"), (1, "x", (), None)]
    assert Note(1, "x") not in others


def test_repr_shows_what_it_may() -> None:
    assert repr(NOTE) == "Note(number=1, tags=('a',))"


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301  # our own


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, through_pickle])
def test_a_copy_is_equal(again: Callable[[Any], Any]) -> None:
    for one in (NOTE, Signed(1, "x", signature="y"), Nothing()):
        assert again(one) == one
        assert type(again(one)) is type(one)


def test_one_is_made_from_another() -> None:
    assert dataclasses.replace(NOTE, text="x") == Note(1, "x", ("a",))
    assert dataclasses.asdict(NOTE)["text"] == "hush"


def test_it_is_matched_by_place_and_by_name() -> None:
    match NOTE:
        case Note(1, text, author=None):
            assert text == "hush"
        case _:
            raise AssertionError


def test_classes_can_be_empty_and_have_heirs() -> None:
    assert Nothing() == Nothing()
    assert Signed(1, "x", signature="y").signature == "y"
    assert (NOTE.loud, Parent.loud) == (True, False)


def test_what_takes_more_than_setting_members_is_not_frozen_this_way() -> None:
    class WithFactory:
        tags: list[str] = field(default_factory=list)

    class WithKeywords:
        number: int = field(kw_only=True)

    class WithPostInit:
        number: int

        def __post_init__(self) -> None: ...

    for cls in (WithFactory, WithKeywords, WithPostInit):
        with pytest.raises(AssertionError):
            frozen(cls)
