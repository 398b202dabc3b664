"""A wallet's bytes as a value to show and to change: JSON, lines of text, or a hex dump. Pure."""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from wsclient.errors import CannotMerge
from wsclient.merge import json_document
from wsclient.merge.json_document import Json

Step: TypeAlias = str | int
Path: TypeAlias = tuple[Step, ...]
"""From the root to a value: names of members and indexes of entries."""

HEX_LINE_BYTES: Final = 16
INDENT: Final = "  "


class Form(enum.Enum):
    """What a wallet is read as, and thereby what can be changed in it."""

    EMPTY = "empty"
    """There is none yet; what is added to it begins a JSON object."""
    JSON = "JSON"
    TEXT = "text"
    """The value is the list of its lines."""
    BINARY = "binary"
    """The value is the list of the lines of its hex dump, which cannot be changed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A wallet that was read."""

    form: Form
    value: Json = field(repr=False)
    ends_line: bool = False
    """Whether the last line of a text is ended, too."""

    def write(self, value: Json) -> bytes:
        """The bytes of a wallet of this form that holds ``value``."""
        assert self.form is not Form.BINARY, "a hex dump is not changed"
        if self.form is not Form.TEXT:
            return json_document.write(value)
        assert isinstance(value, list), "a text is its lines"
        return ("\n".join(map(str, value)) + "\n" * self.ends_line).encode()


def read(wallet: bytes | None) -> Reading:
    """The wallet, as what it looks like."""
    if wallet is None:
        return Reading(Form.EMPTY, {})
    try:
        return Reading(Form.JSON, json_document.read(wallet, "it"))
    except CannotMerge:
        pass
    try:
        text = wallet.decode()
    except UnicodeDecodeError:
        return _read_binary(wallet)
    if any(not (character.isprintable() or character in "\t\r\n") for character in set(text)):
        return _read_binary(wallet)
    lines: list[Json] = list(text.removesuffix("\n").split("\n"))
    return Reading(Form.TEXT, lines, ends_line=text.endswith("\n"))


def parse_json(text: str) -> Json:
    """The value of a JSON text; ValueError, with a sentence for people, where it is none."""
    try:
        return json_document.read(text.encode("utf-8", "surrogatepass"), "it")
    except CannotMerge as error:
        said = error.cause.removeprefix("is ")
        raise ValueError(re.sub(r" \(char \d+\)$", "", said)) from None


def show_json(value: Json) -> str:
    """The value on one line of JSON that a terminal can be given."""
    return printable(json_document.write(value).decode())


def show_indented(value: Json, indent: str = "") -> str:
    """The value as JSON, with a line for each value in it."""
    inner = indent + INDENT
    if isinstance(value, dict) and value:
        lines = [f"{show_json(name)}: {show_indented(value[name], inner)}" for name in value]
        marks = "{}"
    elif isinstance(value, list) and value:
        lines = [show_indented(entry, inner) for entry in value]
        marks = "[]"
    else:
        return show_json(value)
    return f"{marks[0]}\n{inner}" + f",\n{inner}".join(lines) + f"\n{indent}{marks[1]}"


def name_place(reading: Reading, path: Path) -> str:
    """What to call a place in the wallet."""
    if path and reading.form in (Form.TEXT, Form.BINARY):
        return f"line {int(path[0]) + 1:,}"
    return show_path(path)


def show_path(path: Path) -> str:
    """The path as it is written in programs: ``accounts[2].name``."""
    parts = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif re.fullmatch(r"\w+", step):
            parts.append(f".{step}")
        else:
            parts.append(f"[{show_json(step)}]")
    return "".join(parts).removeprefix(".") or "the whole wallet"


def printable(text: str) -> str:
    """The text with whatever could steer a terminal as an escape, the one that JSON has for it."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else json.dumps(character)[1:-1] for character in text
    )


def list_members(container: Json) -> list[tuple[Step, Json]]:
    """What is in a container, with the step that leads there; nothing is in any other value."""
    if isinstance(container, dict):
        return list(container.items())
    if isinstance(container, list):
        return list(enumerate(container))
    return []


def has_members(value: Json) -> bool:
    """Whether anything is in it."""
    return isinstance(value, (dict, list)) and bool(value)


def find(value: Json, path: Path) -> Json:
    """The value at the path; LookupError where there is none."""
    for step in path:
        match value, step:
            case dict(), str():
                value = value[step]
            case list(), int():
                value = value[step]
            case _:
                raise LookupError(step)
    return value


def replace(value: Json, path: Path, new: Json) -> Json:
    """A value with ``new`` at the path, where it may be a member that was not there."""
    if not path:
        return new
    *outer, step = path
    container = find(value, tuple(outer))
    if isinstance(container, dict) and isinstance(step, str):
        changed: Json = {**container, step: new}
    else:
        assert isinstance(container, list), "a container is one of the two"
        assert isinstance(step, int), "an index leads into a list"
        changed = [*container[:step], new, *container[step + 1 :]]
    return replace(value, tuple(outer), changed)


def insert(value: Json, path: Path, new: Json) -> Json:
    """A value with ``new`` as an entry of a list, before the one that is at the path."""
    *outer, step = path
    entries = find(value, tuple(outer))
    assert isinstance(entries, list), "members have no order"
    assert isinstance(step, int), "an index leads into a list"
    return replace(value, tuple(outer), [*entries[:step], new, *entries[step:]])


def remove(value: Json, path: Path) -> Json:
    """A value without what is at the path."""
    *outer, step = path
    container = find(value, tuple(outer))
    rest: Json
    if isinstance(container, dict):
        rest = {name: inner for name, inner in container.items() if name != step}
    else:
        assert isinstance(container, list), "a container is one of the two"
        assert isinstance(step, int), "an index leads into a list"
        rest = [*container[:step], *container[step + 1 :]]
    return replace(value, tuple(outer), rest)


def _read_binary(wallet: bytes) -> Reading:
    lines: list[Json] = []
    for offset in range(0, len(wallet), HEX_LINE_BYTES):
        line = wallet[offset : offset + HEX_LINE_BYTES]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in line)
        lines.append(f"{line.hex(' '):{3 * HEX_LINE_BYTES}} {shown}")
    return Reading(Form.BINARY, lines)
