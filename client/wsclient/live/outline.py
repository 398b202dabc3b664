"""A value as the rows of a tree. Pure."""

from __future__ import annotations

from collections.abc import Set
from typing import Final, NamedTuple

from wsclient.live.reading import Path, find, has_members, list_members, printable, show_json
from wsclient.merge.json_document import Json

PREVIEW_CHARACTERS: Final = 120
"""About as much of a closed container is shown on its row."""


class Row(NamedTuple):
    """A line of the tree: where its value is, and the branches before it."""

    path: Path
    branches: str
    open: bool
    """Whether it is a container whose rows follow."""


def lay_out(value: Json, closed: Set[Path]) -> list[Row]:
    """A row for the root and for each value in it, in order, but for what is in ``closed``."""
    rows = [Row((), "", True)]
    _lay_out(value, (), "", closed, rows)
    return rows


def _lay_out(
    container: Json, path: Path, branches: str, closed: Set[Path], rows: list[Row]
) -> None:
    members = list_members(container)
    for number, (step, value) in enumerate(members, start=1):
        last = number == len(members)
        inner_path = (*path, step)
        is_open = has_members(value) and inner_path not in closed
        rows.append(Row(inner_path, branches + ("└─" if last else "├─"), is_open))
        if is_open:
            _lay_out(value, inner_path, branches + ("  " if last else "│ "), closed, rows)


def list_containers(value: Json, path: Path = ()) -> list[Path]:
    """The paths of all that can be opened, the root excluded."""
    containers: list[Path] = []
    for step, inner in list_members(value):
        if has_members(inner):
            inner_path = (*path, step)
            containers += [inner_path, *list_containers(inner, inner_path)]
    return containers


def close_at_first(value: Json, rows_max: int) -> set[Path]:
    """The containers to show closed, so that there are about ``rows_max`` rows: the inner ones."""
    containers = list_containers(value)
    rows, depth = len(list_members(value)), 1
    while level := [path for path in containers if len(path) == depth]:
        rows += sum(len(list_members(find(value, path))) for path in level)
        if rows > rows_max:
            break
        depth += 1
    return {path for path in containers if len(path) >= depth}


def preview(container: Json) -> str:
    """The beginning of what is in a container."""
    parts, characters = [], 0
    for step, value in list_members(container):
        if isinstance(value, (dict, list)):
            shown = "{…}" if isinstance(value, dict) else "[…]"
            shown = shown if value else shown.replace("…", "")
        else:
            shown = show_json(value)
        parts.append(f"{printable(step)}: {shown}" if isinstance(step, str) else shown)
        characters += len(parts[-1])
        if characters > PREVIEW_CHARACTERS:
            break
    return ", ".join(parts)
