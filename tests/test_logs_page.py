"""The page of the log and the code name the same lines, both ways."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsserver import logbook
from wsserver.logbook import ENTRIES, FIELDS, Entry

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools/logs_page.py"
THE_LOGS_OWN = {"logbook.py", "logs.py"}
NAMES = {id(value): name for name, value in vars(logbook).items() if isinstance(value, Entry)}


def test_every_line_is_on_the_page_as_it_is() -> None:
    checked = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr


def test_every_event_has_a_name_of_its_own() -> None:
    names = [entry.name for entry in ENTRIES]
    assert len({*names}) == len(names)
    assert all(re.fullmatch(r"[a-z]+(\.[a-z_]+)?", name) for name in names)


def test_every_field_is_told_and_every_field_told_is_one() -> None:
    assert {field for entry in ENTRIES for field in entry.fields} == {*FIELDS}
    assert [*FIELDS] == sorted(FIELDS)
    assert not {*FIELDS} & {"time", "level", "event", "message", "traceback"}


def calls_in(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """The entries that a module writes, by their names in the code, each with its fields there."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Attribute(value=ast.Name(id="logbook"), attr=name), attr="log"
                ),
                keywords=keywords,
            ):
                yield name, {str(keyword.arg) for keyword in keywords}


MODULES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for path in sorted((ROOT / "wsserver").rglob("*.py"))
    if path.name not in THE_LOGS_OWN
}


def test_every_line_is_written_somewhere_with_all_of_its_fields() -> None:
    written = set()
    for module, tree in MODULES.items():
        for name, given in calls_in(tree):
            entry = getattr(logbook, name)
            assert given - {"error"} == {*entry.fields}, f"{name} in {module}"
            written.add(name)
    assert written | {"LINES_DROPPED"} == {*NAMES.values()}


@pytest.mark.parametrize("module", MODULES)
def test_no_line_goes_past_the_logbook(module: str) -> None:
    """One that does has no name and is on no page: add an entry to `wsserver.logbook`."""
    loggers = [
        node
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger"
    ]
    # That of websockets' core, which is told to be silent.
    assert len(loggers) == (1 if module == "wsserver/handshake.py" else 0)
