"""What is another between two values, and where what stayed has gone. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from wsclient.live.reading import Path, find, has_members
from wsclient.merge.json_document import Json


@dataclass(frozen=True, slots=True)
class Shift:
    """A list that has grown or shrunk in its middle."""

    begins: int
    """Entries before the change."""
    old_ends: int
    """Where the entries after the change began, and where they begin now."""
    new_ends: int


@dataclass(slots=True)
class Difference:
    """What turned the value ``old`` into ``new``."""

    new: Json = field(repr=False)
    changed: list[Path] = field(default_factory=list)
    """In ``new``: each value that is new or another."""
    thinned: list[Path] = field(default_factory=list)
    """In ``new``: each container that something was taken from."""
    shifts: dict[Path, Shift] = field(default_factory=dict)
    """The lists of ``old`` whose entries have moved."""
    same_shape: bool = True
    """Whether each value has the place that it had, and has as much in it."""

    def follow(self, path: Path) -> Path | None:
        """Where in ``new`` the value at the path of ``old`` is; None where it is gone."""
        moved: Path = ()
        for depth, step in enumerate(path):
            shift = self.shifts.get(path[:depth])
            if shift is not None and isinstance(step, int):
                if step >= shift.old_ends:
                    step += shift.new_ends - shift.old_ends
                elif step >= min(shift.old_ends, shift.new_ends):
                    return None
            moved = (*moved, step)
        try:
            find(self.new, moved)
        except LookupError:
            return None
        return moved


def compare(old: Json, new: Json) -> Difference:
    """The difference between two values.

    Entries of a list are told apart by what they are: those that begin and end both lists have
    stayed, and what is between is compared one by one.
    """
    difference = Difference(new)
    _compare(old, new, (), (), difference)
    return difference


def _compare(old: Json, new: Json, old_path: Path, path: Path, difference: Difference) -> None:
    if _is_same(old, new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() - new.keys():
            difference.thinned.append(path)
            difference.same_shape = False
        for name, inner in new.items():
            if name in old:
                _compare(old[name], inner, (*old_path, name), (*path, name), difference)
            else:
                difference.changed.append((*path, name))
                difference.same_shape = False
    elif isinstance(old, list) and isinstance(new, list):
        _compare_lists(old, new, old_path, path, difference)
    else:
        difference.changed.append(path)
        if has_members(old) or has_members(new):
            difference.same_shape = False


def _compare_lists(
    old: list[Json], new: list[Json], old_path: Path, path: Path, difference: Difference
) -> None:
    shorter = min(len(old), len(new))
    begins = 0
    while begins < shorter and _is_same(old[begins], new[begins]):
        begins += 1
    tail = 0
    while tail < shorter - begins and _is_same(old[-1 - tail], new[-1 - tail]):
        tail += 1
    old_ends, new_ends = len(old) - tail, len(new) - tail
    if old_ends != new_ends:
        difference.shifts[old_path] = Shift(begins, old_ends, new_ends)
        difference.same_shape = False
    if old_ends > new_ends:
        difference.thinned.append(path)
    for index in range(begins, new_ends):
        if index < old_ends:
            inner_path = (*path, index)
            _compare(old[index], new[index], (*old_path, index), inner_path, difference)
        else:
            difference.changed.append((*path, index))


def _is_same(one: Json, other: Json) -> bool:
    # Python takes 1, 1.0 and true for equal; their texts are not.
    return one == other and repr(one) == repr(other)
