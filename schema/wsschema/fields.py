"""Kinds of member, and the exact reading and writing of dataclasses made of them.

A message is a frozen dataclass whose members are annotated with a kind, e.g. ``Annotated[int,
Integer(1, 9)]``. From that one declaration come the check of what arrives (`decode`), the form on
the wire (`encode`) and the JSON Schema (`Kind.schema`, `object_schema`). snake_case becomes
camelCase here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar

from wsschema import limits
from wsschema.times import format_time, parse_time

T = TypeVar("T")

FIELD_REASONS = ("missing", "unknown", "wrong_type", "out_of_bounds", "malformed")
"""Why a member is refused: ``data.reason`` of a -32602."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# The two classes of an atom share no character: with `\w` for the first, matching took 2^n steps.
_ATOM = r"(?:[A-Za-z0-9_!#$%&'*+/=?^`{|}~-]|[^\x00-\x7f\s])+"
_EMAIL = re.compile(
    rf"(?:{_ATOM}(?:\.{_ATOM})*|\"(?:[^\"\\\s]|\\\S)+\")@(?:{_ATOM}(?:\.{_ATOM})*|\[[^\[\]\\\s]+\])"
)
"""RFC 5322, section 3.4.1: an addr-spec without comments and folding; by RFC 6531, in Unicode."""


class FieldError(Exception):
    """A value that its kind refuses.

    ``path`` names the member, dotted (``kdf.n``; empty for the whole), ``reason`` is one of
    `FIELD_REASONS`, ``text`` says it for people.
    """

    def __init__(self, path: str, reason: str, text: str) -> None:
        self.path, self.reason, self.text = path, reason, text
        super().__init__(f"{path or 'the value'} {text}")


class Kind(Protocol):
    """What a member may hold."""

    def read(self, value: Any, path: str, lenient: bool) -> Any:
        """The value as the program has it; FieldError when it is not of this kind."""

    def write(self, value: Any) -> Any:
        """The value as it goes on the wire."""

    def schema(self) -> dict[str, Any]:
        """Its JSON Schema (draft 7)."""


class _Plain:
    """A kind whose values are the same inside and on the wire."""

    __slots__ = ()
    identical: ClassVar[bool] = True

    def write(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Integer(_Plain):
    """A whole number in JSON: 1, not 1.0, which is a number with a fraction of nothing."""

    minimum: int = 0
    maximum: int = limits.INTEGER_MAX

    def read(self, value: Any, path: str, lenient: bool) -> int:
        if type(value) is not int:
            raise _wrong_type(path, "an integer", value)
        if not self.minimum <= value <= self.maximum:
            raise FieldError(
                path,
                "out_of_bounds",
                f"is {value}; it must be from {self.minimum} to {self.maximum}",
            )
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, slots=True)
class PowerOfTwo(_Plain):
    """A power of two; both bounds are powers of two."""

    minimum: int
    maximum: int

    def read(self, value: Any, path: str, lenient: bool) -> int:
        if type(value) is not int:
            raise _wrong_type(path, "an integer", value)
        if not self.minimum <= value <= self.maximum or value & (value - 1):
            text = f"is {value}; it must be a power of two from {self.minimum} to {self.maximum}"
            raise FieldError(path, "out_of_bounds", text)
        return value

    def schema(self) -> dict[str, Any]:
        exponents = range(self.minimum.bit_length() - 1, self.maximum.bit_length())
        return {"type": "integer", "enum": [2**exponent for exponent in exponents]}


@dataclass(frozen=True, slots=True)
class Boolean(_Plain):
    """``true`` or ``false``, nothing that counts as either."""

    def read(self, value: Any, path: str, lenient: bool) -> bool:
        if type(value) is not bool:
            raise _wrong_type(path, "a boolean", value)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Text(_Plain):
    """Text without control characters (Unicode category Cc), bounded in characters."""

    chars_min: int
    chars_max: int

    def read(self, value: Any, path: str, lenient: bool) -> str:
        if type(value) is not str:
            raise _wrong_type(path, "a string", value)
        if not self.chars_min <= len(value) <= self.chars_max:
            bounds = f"{self.chars_min} to {self.chars_max:,}"
            text = f"has {len(value):,} characters; it must have {bounds}"
            raise FieldError(path, "out_of_bounds", text)
        if _CONTROL.search(value):
            raise FieldError(path, "malformed", "must not contain control characters")
        return value

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string",
            "minLength": self.chars_min,
            "maxLength": self.chars_max,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        }


@dataclass(frozen=True, slots=True)
class Email(_Plain):
    """A bare address, matched with A to Z lowered and nothing else changed; given on as it came."""

    def read(self, value: Any, path: str, lenient: bool) -> str:
        if type(value) is not str:
            raise _wrong_type(path, "a string", value)
        if len(value) > limits.EMAIL_CHARS_MAX:
            text = f"has {len(value):,} characters; it must have at most {limits.EMAIL_CHARS_MAX}"
            raise FieldError(path, "out_of_bounds", text)
        if not _EMAIL.fullmatch(value) or _CONTROL.search(value):
            raise FieldError(path, "malformed", "must be a bare email address like joe@example.com")
        return value

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string",
            "minLength": 3,
            "maxLength": limits.EMAIL_CHARS_MAX,
            "format": "idn-email",
        }


@dataclass(frozen=True, slots=True)
class HexDigits(_Plain):
    """Exactly so many hex digits, in either case."""

    digits: int

    def read(self, value: Any, path: str, lenient: bool) -> str:
        if type(value) is not str:
            raise _wrong_type(path, "a string", value)
        if len(value) != self.digits or not re.fullmatch("[0-9a-fA-F]*", value):
            raise FieldError(path, "malformed", f"must be {self.digits} hex digits")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^[0-9a-fA-F]{{{self.digits}}}$"}


@dataclass(frozen=True, slots=True)
class Opaque(_Plain):
    """Any non-empty Unicode text, given back to the letter; ``bytes_max`` bounds its UTF-8.

    Without ``bytes_max`` the server's own limit applies, which it announces (``walletBytes``).
    """

    bytes_max: int | None = None

    def read(self, value: Any, path: str, lenient: bool) -> str:
        if type(value) is not str:
            raise _wrong_type(path, "a string", value)
        if not value:
            raise FieldError(path, "out_of_bounds", "must not be empty")
        if self.bytes_max is not None:
            size_bytes = len(value.encode())
            if size_bytes > self.bytes_max:
                text = f"has {size_bytes:,} bytes in UTF-8; it must have at most {self.bytes_max:,}"
                raise FieldError(path, "out_of_bounds", text)
        return value

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if self.bytes_max is None:
            bound = "limits.walletBytes of server.info"
        else:
            bound = str(self.bytes_max)
            schema["maxLength"] = self.bytes_max
        return schema | {"description": f"At most {bound} bytes in UTF-8."}


@dataclass(frozen=True, slots=True)
class OneOf(_Plain):
    """One of the values that are listed; where ``grows``, a client lets unknown ones pass."""

    values: tuple[str | int, ...]
    grows: bool = False

    def read(self, value: Any, path: str, lenient: bool) -> Any:
        if type(value) is not type(self.values[0]):
            expected = "a string" if isinstance(self.values[0], str) else "an integer"
            raise _wrong_type(path, expected, value)
        if value not in self.values and not (lenient and self.grows):
            choices = ", ".join(str(choice) for choice in self.values)
            raise FieldError(path, "out_of_bounds", f"must be one of: {choices}")
        return value

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string" if isinstance(self.values[0], str) else "integer",
            "enum": [*self.values],
        }


@dataclass(frozen=True, slots=True)
class Time:
    """An RFC 3339 time in UTC."""

    def read(self, value: Any, path: str, lenient: bool) -> datetime:
        if type(value) is not str:
            raise _wrong_type(path, "a string", value)
        try:
            return parse_time(value)
        except ValueError:
            raise FieldError(path, "malformed", "must be an RFC 3339 time in UTC") from None

    write = staticmethod(format_time)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


@dataclass(frozen=True, slots=True)
class Object:
    """A nested message."""

    cls: type[Any]

    def read(self, value: Any, path: str, lenient: bool) -> Any:
        return decode(self.cls, value, path=path, lenient=lenient)

    def write(self, value: Any) -> dict[str, Any]:
        return encode(value)

    def schema(self) -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{self.cls.__name__}"}


@dataclass(frozen=True, slots=True)
class Array:
    """A list of one kind; it occurs in answers only."""

    item: Kind

    def read(self, value: Any, path: str, lenient: bool) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _wrong_type(path, "an array", value)
        return tuple(
            self.item.read(item, f"{path}[{index}]", lenient) for index, item in enumerate(value)
        )

    def write(self, value: tuple[Any, ...]) -> list[Any]:
        return [self.item.write(item) for item in value]

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema()}


@dataclass(frozen=True, slots=True)
class Nullable:
    """A member that is always there and may be null; it occurs in answers only."""

    kind: Kind

    def read(self, value: Any, path: str, lenient: bool) -> Any:
        return None if value is None else self.kind.read(value, path, lenient)

    def write(self, value: Any) -> Any:
        return None if value is None else self.kind.write(value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self.kind.schema(), {"type": "null"}]}


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a message: its two names, its kind, and its value when it is left out."""

    name: str
    attribute: str
    kind: Kind
    required: bool
    default: Any
    read: Callable[[Any, str, bool], Any]
    write: Callable[[Any], Any] | None
    """None where the value goes on the wire as it is."""


def members(cls: type[Any]) -> tuple[Member, ...]:
    """The members of a message class, in the order in which they are declared."""
    known = _MEMBERS.get(cls)
    if known is None:
        hints = typing.get_type_hints(cls, include_extras=True)
        known = tuple(_member(field, hints[field.name]) for field in dataclasses.fields(cls))
        _MEMBERS[cls] = known
    return known


_MEMBERS: dict[type[Any], tuple[Member, ...]] = {}


def _member(field: dataclasses.Field[Any], hint: Any) -> Member:
    required = field.default is dataclasses.MISSING
    kind = _kind(hint, nullable=required)
    return Member(
        name=camel_case(field.name),
        attribute=field.name,
        kind=kind,
        required=required,
        default=None if required else field.default,
        read=kind.read,
        write=None if isinstance(kind, _Plain) else kind.write,
    )


def _kind(hint: Any, *, nullable: bool) -> Kind:
    """The kind an annotation names.

    ``X | None`` is nullable where the member is required; elsewhere None says that it is absent.
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = (option for option in typing.get_args(hint) if option is not types.NoneType)
        kind = _kind(inner, nullable=False)
        return Nullable(kind) if nullable else kind
    if typing.get_origin(hint) is typing.Annotated:
        return typing.cast(Kind, typing.get_args(hint)[1])
    if typing.get_origin(hint) is tuple:
        return Array(_kind(typing.get_args(hint)[0], nullable=False))
    return Object(hint)


def lower_email(email: str) -> str:
    """The form in which addresses are matched: A to Z lowered and nothing else changed."""
    return email.translate(_LOWER_ASCII)


_LOWER_ASCII = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def camel_case(name: str) -> str:
    """The wire's name of a snake_case one: ``updated_at`` gives ``updatedAt``."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def decode(cls: type[T], value: Any, *, path: str = "", lenient: bool = False) -> T:
    """The message that a JSON value stands for, checked to the last member.

    ``lenient`` is for clients: unknown members pass, and unknown values of what is declared to
    grow, so that a server may grow. Raises FieldError.
    """
    if type(value) is not dict:
        raise _wrong_type(path, "an object", value)
    prefix = f"{path}." if path else ""
    arguments = []
    matched = 0
    for member in members(cls):
        name = member.name
        if name in value:
            matched += 1
            arguments.append(member.read(value[name], prefix + name, lenient))
        elif member.required:
            raise FieldError(prefix + name, "missing", "is required")
        else:
            arguments.append(member.default)
    if matched != len(value) and not lenient:
        known = {member.name for member in members(cls)}
        unknown = next(name for name in value if name not in known)
        raise FieldError(
            f"{prefix}{unknown[:64]}", "unknown", "is not a member of this method's params"
        )
    return cls(*arguments)


def encode(message: Any) -> dict[str, Any]:
    """The JSON object of a message; a member that may be absent and is None is left out."""
    wire = {}
    for member in members(type(message)):
        value = getattr(message, member.attribute)
        if value is None and not member.required:
            continue
        wire[member.name] = value if member.write is None else member.write(value)
    return wire


def object_schema(cls: type[Any], *, closed: bool) -> dict[str, Any]:
    """The JSON Schema of a message; ``closed``: no member but these, as a server reads it."""
    properties = {}
    for member in members(cls):
        schema = member.kind.schema()
        if not member.required and member.default is not None:
            schema = schema | {"default": member.default}
        properties[member.name] = schema
    schema = {
        "type": "object",
        "title": cls.__name__,
        "description": (cls.__doc__ or "").strip().split("\n")[0],
        "properties": properties,
        "required": [member.name for member in members(cls) if member.required],
    }
    return schema | {"additionalProperties": False} if closed else schema


def _wrong_type(path: str, expected: str, value: Any) -> FieldError:
    names = {
        bool: "a boolean", int: "an integer", float: "a number", str: "a string",
        list: "an array", dict: "an object", types.NoneType: "null",
    }  # fmt: skip
    return FieldError(path, "wrong_type", f"must be {expected}, not {names[type(value)]}")
