"""Merging wallets that are JSON, member by member and element by element. Pure."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from wsclient.errors import CannotMerge
from wsclient.merge.json_document import (
    ABSENT,
    Json,
    OptionalJson,
    is_same,
    look_up,
    order_of,
    read,
    split_pointer,
    write,
)
from wsclient.merge.three_way import take_only_change

ANY_STEP: Final = "*"

Identity: TypeAlias = str | Callable[[Any], Json] | None
"""What tells the elements of a list apart: a member's name, a function, or None.

None: the list is one value, as a position or a color is.
"""

Key: TypeAlias = tuple[bytes, int]
"""An element's identity as it is written, and how many before it in the list have the same."""

Name = TypeVar("Name", str, Key)

Holders: TypeAlias = tuple[tuple[Json, Json], ...]


@dataclass(frozen=True, slots=True)
class JsonConflict:
    """A value that both sides changed, each in its way; `ABSENT` where there is none.

    ``path`` leads to it: members' names, and identities of elements. ``holders`` are what it stands
    in on either side, ``(mine, theirs)``, from the whole wallet inwards.
    """

    path: tuple[str, ...]
    base: OptionalJson = field(repr=False)
    mine: OptionalJson = field(repr=False)
    theirs: OptionalJson = field(repr=False)
    holders: Holders = field(default=(), repr=False)


Rule: TypeAlias = Callable[[JsonConflict], OptionalJson]
"""What a conflict comes to; `ABSENT` removes the value."""


def keep_greatest(conflict: JsonConflict) -> OptionalJson:
    """The greater of the two in one order over all values, in which nothing is less than no value.

    So an edit beats a removal. Then come null, false, true, numbers, strings by code point, lists
    and objects.
    """
    return max(conflict.mine, conflict.theirs, key=order_of)


def keep_mine(conflict: JsonConflict) -> OptionalJson:
    """What this device made of it; where it removed it, nothing."""
    return conflict.mine


def keep_theirs(conflict: JsonConflict) -> OptionalJson:
    """What the other devices made of it; where they removed it, nothing."""
    return conflict.theirs


def keep_newest(by: str) -> Rule:
    """A rule that keeps the side with the greater value at the JSON pointer ``by``.

    It is looked up in what the conflict stands in, from the inside out, until both sides have one:
    the ``/updatedAt`` of the entry, then that of the wallet. An edit beats a removal, which has no
    time, and between equal times `keep_greatest` decides.
    """
    steps = split_pointer(by)

    def keep(conflict: JsonConflict) -> OptionalJson:
        if conflict.mine is not ABSENT and conflict.theirs is not ABSENT:
            for holders in reversed(conflict.holders):
                mine, theirs = (order_of(look_up(holder, steps)) for holder in holders)
                if order_of(ABSENT) not in (mine, theirs):
                    if mine == theirs:
                        break
                    return conflict.mine if mine > theirs else conflict.theirs
        return keep_greatest(conflict)

    return keep


@dataclass(frozen=True, slots=True)
class JsonMerge:
    """A `Merge` of JSON wallets: what one side added, changed or removed is so in the merged one.

    Objects are merged by member, lists by element, in any depth. ``identity`` tells elements apart:
    by JSON pointers to the lists, in which ``*`` is any one step, as in ``{"/vaults/*/entries":
    "id"}``; the first that fits counts. An element of another list, or without that member, is
    known by its value: it is there or not, and an edit of it is a removal and an addition.

    ``on_conflict`` is asked what becomes of a value that both sides changed, or that one changed
    and the other removed. A merged list has the order of the side that moved elements; what either
    added stands behind what it was put behind, and by identity where both added something there.

    Every rule lets devices converge, to the byte. Under `keep_greatest`, the default, mine and
    theirs may be exchanged, and the order in which the changes of several devices arrive makes no
    difference to which values there are. (It may to the order of a list in which elements were
    moved or removed as others were added, and to how often a list has an element that it has more
    than once.) The other rules promise neither, nor does a function of yours.

    With no base, or one that is no JSON, all that either side has was added: what was removed is
    back. What comes out is written in one way: members sorted, no spaces, numbers to their last
    digit. Raises CannotMerge for a wallet that is no JSON (RFC 8259, in UTF-8), has a member twice
    in an object, or is nested deeper than 100 levels.
    """

    identity: Mapping[str, Identity] = field(default_factory=dict)
    on_conflict: Rule = keep_greatest

    def __post_init__(self) -> None:
        for pointer in self.identity:
            split_pointer(pointer)

    def __call__(self, base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
        only_change = take_only_change(base, mine, theirs)
        if only_change is not None:
            return only_change
        merged = self._merge(_read_base(base), read(mine, "mine"), read(theirs, "theirs"), (), ())
        if merged is ABSENT:
            raise CannotMerge("the merged wallet", "is not there: it was removed as a whole")
        return write(merged)

    def _merge(
        self,
        base: OptionalJson,
        mine: OptionalJson,
        theirs: OptionalJson,
        path: tuple[str, ...],
        holders: Holders,
    ) -> OptionalJson:
        if is_same(mine, theirs) or is_same(base, theirs):
            return mine
        if is_same(base, mine):
            return theirs
        if isinstance(mine, dict) and isinstance(theirs, dict):
            members = base if isinstance(base, dict) else {}
            return self._merge_each(members, mine, theirs, path, (*holders, (mine, theirs)))
        if isinstance(mine, list) and isinstance(theirs, list):
            identity = self._find_identity(path)
            if identity is not None:
                before = _index(base if isinstance(base, list) else [], identity)
                here, there = _index(mine, identity), _index(theirs, identity)
                merged = self._merge_each(before, here, there, path, (*holders, (mine, theirs)))
                return [merged[key] for key in _order(merged, before, here, there)]
        return self.on_conflict(JsonConflict(path, base, mine, theirs, holders))

    def _merge_each(
        self,
        base: Mapping[Name, Json],
        mine: Mapping[Name, Json],
        theirs: Mapping[Name, Json],
        path: tuple[str, ...],
        holders: Holders,
    ) -> dict[Name, Json]:
        merged = {}
        for name in sorted(mine.keys() | theirs.keys()):
            value = self._merge(
                base.get(name, ABSENT),
                mine.get(name, ABSENT),
                theirs.get(name, ABSENT),
                (*path, _describe(name)),
                holders,
            )
            if value is not ABSENT:
                merged[name] = value
        return merged

    def _find_identity(self, path: tuple[str, ...]) -> Identity:
        for pointer, identity in self.identity.items():
            steps = split_pointer(pointer)
            if len(steps) == len(path) and all(
                step in (ANY_STEP, taken) for step, taken in zip(steps, path, strict=True)
            ):
                return identity
        return _itself


def _read_base(base: bytes | None) -> OptionalJson:
    if base is None:
        return ABSENT
    try:
        return read(base, "base")
    except CannotMerge:
        # An application that takes up JSON has wallets of another kind behind it.
        return ABSENT


def _itself(element: Json) -> Json:
    return element


def _index(elements: Sequence[Json], identity: str | Callable[[Any], Json]) -> dict[Key, Json]:
    """The elements by identity, in their order."""
    indexed: dict[Key, Json] = {}
    seen: Counter[bytes] = Counter()
    for element in elements:
        if not isinstance(identity, str):
            written = write(identity(element))
        elif isinstance(element, dict) and identity in element:
            written = write(element[identity])
        else:
            written = write(element)
        indexed[written, seen[written]] = element
        seen[written] += 1
    return indexed


def _describe(name: str | Key) -> str:
    """A step of a path: a member's name, or an element's identity, plainly where it is a string."""
    if isinstance(name, str):
        return name
    identity = json.loads(name[0])
    return identity if isinstance(identity, str) else name[0].decode()


def _order(
    merged: Collection[Key], base: Collection[Key], mine: Collection[Key], theirs: Collection[Key]
) -> list[Key]:
    """The merged elements in one order, whichever side is called mine.

    What both sides have comes in the order of the side that moved it. What one side has follows
    what it follows there.
    """
    sides = [[key for key in side if key in merged] for side in (mine, theirs)]
    orders = [[key for key in side if key in mine and key in theirs] for side in sides]
    known = set(base)
    before = [key for key in base if key in mine and key in theirs and key in merged]
    moved = [order for order in orders if [key for key in order if key in known] != before]
    backbone = max(moved or orders)
    runs = [_split(side, set(backbone)) for side in sides]
    ordered = []
    for anchor in (None, *backbone):
        ordered += [] if anchor is None else [anchor]
        # The lesser of what is next, though no run is sorted: so it makes no difference which
        # two of three devices' runs are merged first.
        ordered += heapq.merge(*(run[anchor] for run in runs))
    return ordered


def _split(side: Sequence[Key], anchors: Container[Key]) -> dict[Key | None, list[Key]]:
    """The runs of elements between anchors, by the anchor that each follows."""
    runs: dict[Key | None, list[Key]] = {None: []}
    anchor = None
    for key in side:
        if key in anchors:
            anchor = key
            runs[anchor] = []
        else:
            runs[anchor].append(key)
    return runs
