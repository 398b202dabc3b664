"""What a wallet's sync asks a person: how to merge, and for a root password.

Both are handed to `SyncedWallet` before there is anything on the screen, and to `run_live`, which
puts their questions there.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from wsclient.live.reading import (
    Form,
    list_members,
    printable,
    read,
    show_indented,
    show_path,
)
from wsclient.merge import ABSENT, JsonConflict, JsonMerge, Merge
from wsclient.merge.json_document import OptionalJson
from wsclient.merge.json_merge import Identity
from wsclient.merge.text import TextConflict, TextMerge
from wsclient.merge.three_way import take_only_change
from wsclient.wallet import AskPassword
from wsclient.wallet_events import PasswordNeeded

Side: TypeAlias = Literal["base", "mine", "theirs"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """What both sides changed, to be looked at: where it is, and the text of each side.

    ``base`` is None where none is shared, or where there was nothing yet.
    """

    place: str
    base: str | None = field(repr=False)
    mine: str = field(repr=False)
    theirs: str = field(repr=False)


AskSides: TypeAlias = Callable[[Sequence[Conflict]], Awaitable[Sequence[Side] | None]]
"""Gives the side to take for each conflict; None where nobody decides."""

_Rule: TypeAlias = Callable[[Any], Any]
_PlainMerge: TypeAlias = Callable[[bytes | None, bytes, bytes], bytes]


class HandMerge:
    """A `Merge` that asks about each conflict while it is set to `by_hand`, and else is another.

    By hand, JSON is merged by member and element (``identity`` as of `JsonMerge`), text by line,
    anything else as a whole. Where nobody decides, ``merge`` does.
    """

    def __init__(self, merge: Merge, *, identity: Mapping[str, Identity] | None = None) -> None:
        self.by_hand = False
        self.ask: AskSides | None = None
        """What puts conflicts on the screen; None while there is none."""
        self._merge = merge
        self._identity = identity or {}

    async def __call__(self, base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
        if self.by_hand and self.ask is not None:
            merged = await self._merge_by_hand(self.ask, base, mine, theirs)
            if merged is not None:
                return merged
        outcome = self._merge(base, mine, theirs)
        return await outcome if inspect.isawaitable(outcome) else outcome

    async def _merge_by_hand(
        self, ask: AskSides, base: bytes | None, mine: bytes, theirs: bytes
    ) -> bytes | None:
        only_change = take_only_change(base, mine, theirs)
        if only_change is not None:
            return only_change
        make_merge = self._choose_merge(mine, theirs)
        conflicts: list[Any] = []

        def note(conflict: Any) -> Any:
            conflicts.append(conflict)
            return conflict.mine

        merged = make_merge(note)(base, mine, theirs)
        if not conflicts:
            return merged
        sides = await ask([_describe(conflict) for conflict in conflicts])
        if sides is None:
            return None
        # A merge asks about the same conflicts in the same order, whatever it is answered.
        left = iter(sides)
        return make_merge(lambda conflict: getattr(conflict, next(left)))(base, mine, theirs)

    def _choose_merge(self, mine: bytes, theirs: bytes) -> Callable[[_Rule], _PlainMerge]:
        forms = {read(mine).form, read(theirs).form}
        if forms == {Form.JSON}:
            return lambda rule: JsonMerge(self._identity, rule)
        if Form.BINARY not in forms:
            return TextMerge
        return lambda rule: lambda *wallets: rule(_WholeConflict(*wallets))


class PasswordOnScreen:
    """An `AskPassword` that asks on the screen while there is one, and else asks ``otherwise``."""

    def __init__(self, otherwise: AskPassword) -> None:
        self.ask: AskPassword | None = None
        self._otherwise = otherwise

    async def __call__(self, needed: PasswordNeeded) -> str | None:
        return await (self.ask or self._otherwise)(needed)


@dataclass(frozen=True, slots=True)
class _WholeConflict:
    base: bytes | None = field(repr=False)
    mine: bytes = field(repr=False)
    theirs: bytes = field(repr=False)


def _describe(conflict: JsonConflict | TextConflict | _WholeConflict) -> Conflict:
    """The conflict of any of these merges, as texts."""
    match conflict:
        case JsonConflict():
            base = None if conflict.base is ABSENT else _show_json(conflict.base)
            place = show_path(conflict.path)
            return Conflict(place, base, _show_json(conflict.mine), _show_json(conflict.theirs))
        case TextConflict():
            sides = (conflict.base, conflict.mine, conflict.theirs)
            return Conflict("some lines", *map(_show_lines, sides))
        case _WholeConflict():
            base = None if conflict.base is None else _show_whole(conflict.base)
            mine, theirs = _show_whole(conflict.mine), _show_whole(conflict.theirs)
            return Conflict("the whole wallet", base, mine, theirs)


def _show_json(value: OptionalJson) -> str:
    return "(removed)" if value is ABSENT else show_indented(value)


def _show_whole(wallet: bytes) -> str:
    return "\n".join(str(line) for _, line in list_members(read(wallet).value))


def _show_lines(lines: Sequence[bytes]) -> str:
    return "\n".join(printable(line.decode().expandtabs(4)) for line in lines)
