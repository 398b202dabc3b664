"""What is asked before a wallet is changed by hand, and the same place in a later version."""

from __future__ import annotations

from wsclient.live.dialogs import Entry, QuestionDialog, ValueDialog
from wsclient.live.difference import compare
from wsclient.live.reading import (
    Form,
    Path,
    Reading,
    find,
    has_members,
    list_members,
    parse_json,
    show_indented,
    show_json,
    show_path,
)
from wsclient.merge.json_document import Json

_JSON: set[Form] = {Form.EMPTY, Form.JSON}


def relocate(before: Reading, path: Path, now: Reading) -> Path | None:
    """Where the value at the path of one version is in another; None where it is gone."""
    if before.form is not now.form and not {before.form, now.form} <= _JSON:
        return None
    return compare(before.value, now.value).follow(path)


def ask_for_value(
    reading: Reading, path: Path, typed: str | None = None, remark: str = ""
) -> ValueDialog:
    """The question for the new value of what is at the path."""
    value = find(reading.value, path)
    if reading.form is not Form.TEXT:
        text, parse = show_indented(value), parse_json
    elif path:
        text, parse = str(value), _keep_text
    else:
        assert isinstance(value, list), "a text is its lines"
        text, parse = "\n".join(map(str, value)), _split_lines
    return ValueDialog(
        f"Edit {name_place(reading, path)}",
        text if typed is None else typed,
        parse,
        lines=has_members(value),
        remark=remark,
    )


def ask_for_addition(
    reading: Reading, path: Path, entry: Entry | None = None, remark: str = ""
) -> ValueDialog:
    """The question for what to add to the container that is at the path."""
    container = find(reading.value, path)
    is_text = reading.form is Form.TEXT
    return ValueDialog(
        f"Add to {name_place(reading, path)}",
        entry.typed if entry is not None else "" if is_text else '""',
        _keep_text if is_text else parse_json,
        name="" if entry is None else entry.name,
        names_taken=container if isinstance(container, dict) else None,
        remark=remark,
    )


def ask_for_deletion(reading: Reading, path: Path) -> QuestionDialog:
    """The question whether to delete what is at the path."""
    value = find(reading.value, path)
    members = len(list_members(value))
    what = f"It has {members:,} in it." if members else shorten(show_json(value))
    return QuestionDialog(
        f"Delete {name_place(reading, path)}?",
        f"{what}\nIt goes from every device of the account.",
        yes="Delete",
        no="Keep",
    )


def name_place(reading: Reading, path: Path) -> str:
    """What to call the place."""
    if reading.form in _JSON or not path:
        return show_path(path)
    return f"line {int(path[0]) + 1:,}"


def begin_sentence(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def shorten(text: str, characters_max: int = 200) -> str:
    """The text, or its beginning."""
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"


def _keep_text(text: str) -> Json:
    return text


def _split_lines(text: str) -> Json:
    lines: list[Json] = list(text.split("\n"))
    return lines
