"""Changing a wallet as a person says, whatever other devices make of it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from wsclient.errors import WalletSyncError
from wsclient.live.dialogs import Dialog, Entry, QuestionDialog, ValueDialog
from wsclient.live.difference import compare
from wsclient.live.reading import (
    Form,
    Path,
    Reading,
    find,
    has_members,
    insert,
    list_members,
    name_place,
    parse_json,
    read,
    remove,
    replace,
    show_indented,
    show_json,
)
from wsclient.merge.json_document import Json, is_same
from wsclient.wallet import SyncedWallet

T = TypeVar("T")

SHOWN_CHARACTERS_MAX: Final = 200
"""As much of a value is shown in a question about it."""
GONE: Final = "It was removed on another device meanwhile, so nothing was changed."
CHANGED: Final = "It was changed on another device meanwhile, so nothing was deleted."
TAKEN: Final = "Another device has added a member of that name meanwhile."
SINGLE: Final = "Nothing can be added to a single value."


class Ask(Protocol):
    """Puts a question on the screen, and gives its answer; None where there is none."""

    async def __call__(self, dialog: Dialog[T], /) -> T | None: ...


class Editor:
    """Asks what is to be changed, and changes it where it is by then.

    Its methods give whether anything was changed. ``say`` shows a sentence for a moment.
    """

    def __init__(self, wallet: SyncedWallet, ask: Ask, say: Callable[[str], None]) -> None:
        self._wallet, self._ask, self._say = wallet, ask, say

    async def edit(self, reading: Reading, path: Path) -> bool:
        """Another value in place of the one at the path of the wallet that was read."""
        entry: Entry | None = None
        remark = ""
        while True:
            entry = await self._ask(ask_for_value(reading, path, entry, remark))
            if entry is None:
                return False
            now = read(self._wallet.value)
            place = relocate(reading, path, now)
            if place is None:
                self._say(GONE)
                return False
            value = find(now.value, place)
            if is_same(value, find(reading.value, path)):
                return await self._change(now, replace(now.value, place, entry.value))
            reading, path = now, place
            remark = f"Changed on another device meanwhile, to {_shorten(show_json(value))}"

    async def add(self, reading: Reading, path: Path) -> bool:
        """A member of the container at the path or around it; in a list, after what is there."""
        index: int | None = None
        if not isinstance(find(reading.value, path), (dict, list)):
            if not path:
                self._say(SINGLE)
                return False
            *outer, step = path
            path = tuple(outer)
            index = step + 1 if isinstance(step, int) else None
        entry: Entry | None = None
        remark = ""
        while True:
            entry = await self._ask(ask_for_addition(reading, path, entry, remark))
            if entry is None:
                return False
            now = read(self._wallet.value)
            place = relocate(reading, path, now)
            container = None if place is None else find(now.value, place)
            if place is None or type(container) is not type(find(reading.value, path)):
                self._say(GONE)
                return False
            if isinstance(container, list):
                at = len(container) if index is None else min(index, len(container))
                return await self._change(now, insert(now.value, (*place, at), entry.value))
            assert isinstance(container, dict), "a container is one of the two"
            if entry.name not in container:
                member = (*place, entry.name)
                return await self._change(now, replace(now.value, member, entry.value))
            reading, path, remark = now, place, TAKEN

    async def delete(self, reading: Reading, path: Path) -> bool:
        """Nothing in place of what is at the path."""
        if not path or not await self._ask(ask_for_deletion(reading, path)):
            return False
        now = read(self._wallet.value)
        place = relocate(reading, path, now)
        if place is None:
            return False
        if not is_same(find(now.value, place), find(reading.value, path)):
            self._say(CHANGED)
            return False
        return await self._change(now, remove(now.value, place))

    async def _change(self, reading: Reading, value: Json) -> bool:
        """Changes the wallet, which ``reading`` was read from in this turn of the event loop."""
        try:
            await self._wallet.change(reading.write(value))
        except (OSError, WalletSyncError) as error:
            self._say(f"Not changed: {error}")
            return False
        return True


def relocate(before: Reading, path: Path, now: Reading) -> Path | None:
    """Where the value at the path of one version is in another; None where it is gone."""
    if before.form is not now.form and {before.form, now.form} != {Form.EMPTY, Form.JSON}:
        return None
    return compare(before.value, now.value).follow(path)


def ask_for_value(
    reading: Reading, path: Path, entry: Entry | None = None, remark: str = ""
) -> ValueDialog:
    """The question for the new value of what is at the path; ``entry`` was typed already."""
    value = find(reading.value, path)
    parse: Callable[[str], Json]
    if reading.form is not Form.TEXT:
        text, parse = show_indented(value), parse_json
    elif path:
        text, parse = str(value), str
    else:
        text, parse = "\n".join(str(line) for _, line in list_members(value)), _split_lines
    return ValueDialog(
        f"Edit {name_place(reading, path)}",
        text if entry is None else entry.typed,
        parse,
        lines=has_members(value),
        remark=remark,
    )


def ask_for_addition(
    reading: Reading, path: Path, entry: Entry | None = None, remark: str = ""
) -> ValueDialog:
    """The question for what to add to the container at the path; ``entry`` was typed already."""
    container = find(reading.value, path)
    is_text = reading.form is Form.TEXT
    return ValueDialog(
        f"Add to {name_place(reading, path)}",
        entry.typed if entry is not None else "" if is_text else '""',
        str if is_text else parse_json,
        name="" if entry is None else entry.name,
        names_taken=container if isinstance(container, dict) else None,
        remark=remark,
    )


def ask_for_deletion(reading: Reading, path: Path) -> QuestionDialog:
    """The question whether to delete what is at the path."""
    value = find(reading.value, path)
    members = len(list_members(value))
    what = f"It has {members:,} in it." if members else _shorten(show_json(value))
    return QuestionDialog(
        f"Delete {name_place(reading, path)}?",
        f"{what}\nIt goes from every device of the account.",
        yes="Delete",
        no="Keep",
    )


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}…"


def _split_lines(text: str) -> Json:
    lines: list[Json] = list(text.split("\n"))
    return lines
