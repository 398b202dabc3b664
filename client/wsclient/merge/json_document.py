"""JSON as a merge needs it: equal values are equal bytes, and writing loses nothing read. Pure.

Numbers keep their digits: those with a fraction or an exponent are read as `decimal.Decimal`. RFC
8259 is read strictly: no NaN, and no member twice in an object, which would lose one of the two.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NoReturn, TypeAlias

from wsclient.errors import CannotMerge

DEPTH_MAX: Final = 100
"""How many objects and lists a value may stand in: each takes a merge a few frames of the stack."""

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | Decimal | bool | None"
"""A JSON value. What is read has dicts and lists, and no float."""


class Absence(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = enum.auto()


ABSENT: Final = Absence.ABSENT
"""Stands where there is no value: it is not there yet, or was removed."""

OptionalJson: TypeAlias = Json | Literal[Absence.ABSENT]


def read(document: bytes, what: str) -> Json:
    """The value that ``document`` holds; CannotMerge says that ``what`` holds none."""
    try:
        value: Json = json.loads(
            document.decode("utf-8-sig"),
            parse_float=_read_fraction,
            parse_constant=_refuse_constant,
            object_pairs_hook=_read_object,
        )
        _check_depth(value)
    except UnicodeDecodeError:
        raise CannotMerge(what, "is no UTF-8") from None
    except RecursionError:
        raise CannotMerge(what, f"is {_TOO_DEEP}") from None
    except ValueError as error:
        raise CannotMerge(what, f"is no JSON: {error}") from None
    return value


def write(value: Json) -> bytes:
    """The one way to write ``value``: members by code point, no spaces, UTF-8.

    Raises CannotMerge where it is no JSON.
    """
    try:
        _check_depth(value)
        # What UTF-8 has no bytes for, a lone surrogate, is written as its escape.
        return _write(value).encode("utf-8", "backslashreplace")
    except ValueError as error:
        raise CannotMerge("the merged wallet", f"is no JSON: {error}") from None


def is_same(one: OptionalJson, other: OptionalJson) -> bool:
    """Whether they are written the same; 1, 1.0 and true are three values."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return one == other and _write(one) == _write(other)


def order_of(value: OptionalJson) -> tuple[Any, ...]:
    """A key that puts all values in one order, the same everywhere.

    No value, then null, false, true, numbers, strings by code point, lists, objects.
    """
    match value:
        case Absence.ABSENT:
            return (0,)
        case None:
            return (1,)
        case bool():
            return (2, value)
        case int() | float() | Decimal():
            return (3, Decimal(value), write(value))
        case str():
            return (4, value)
        case Mapping():
            return (6, write(value))
        case Sequence():
            return (5, write(value))


def split_pointer(pointer: str) -> tuple[str, ...]:
    """The steps of a JSON pointer (RFC 6901): ``/a/b`` has a and b, the empty one has none."""
    if not pointer:
        return ()
    if not pointer.startswith("/"):
        raise ValueError(f"a JSON pointer is empty or begins with a slash, unlike {pointer!r}")
    return tuple(
        step.replace("~1", "/").replace("~0", "~") for step in pointer.removeprefix("/").split("/")
    )


def look_up(value: Json, steps: Sequence[str]) -> OptionalJson:
    """What stands at the end of ``steps`` from member to member."""
    for step in steps:
        if not isinstance(value, Mapping) or step not in value:
            return ABSENT
        value = value[step]
    return value


def _read_fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError("a number has too large an exponent") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} among its values")


def _read_object(members: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(members)
    if len(value) < len(members):
        raise ValueError("an object has a member twice")
    return value


def _check_depth(value: Json) -> None:
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        level = [inner for outer in level for inner in _values_in(outer)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


_TOO_DEEP: Final = f"nested deeper than {DEPTH_MAX:,} levels"


def _values_in(value: Json) -> Sequence[Json]:
    match value:
        case Mapping():
            return [*value.values()]
        case list() | tuple():
            return value
        case _:
            return ()


def _write(value: Json) -> str:
    match value:
        case None:
            return "null"
        case True:
            return "true"
        case False:
            return "false"
        case str():
            return _quote(value)
        case int():
            return str(value)
        case Decimal() if value.is_finite():
            return str(value)
        case float() if math.isfinite(value):
            return str(Decimal(repr(value)))
        case Mapping() if all(isinstance(name, str) for name in value):
            members = (f"{_quote(name)}:{_write(value[name])}" for name in sorted(value))
            return f"{{{','.join(members)}}}"
        case list() | tuple():
            return f"[{','.join(map(_write, value))}]"
        case _:
            raise ValueError(f"a {type(value).__name__} among its values")


_quote: Final = json.JSONEncoder(ensure_ascii=False).encode
