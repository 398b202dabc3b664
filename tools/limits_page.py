"""Writes docs/reference/limits.md from the limits themselves, or checks that it is true."""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from wsserver import channel, gate, mail, post
from wsserver.peer import TransportLimits
from wsserver.throttle import Rate

PAGE = Path(__file__).parent.parent / "docs/reference/limits.md"
MODULES: tuple[ModuleType, ...] = (gate, channel, mail, post)

HEAD = """# Limits of the server

What holds a crowd off, and users never meet. `WSSERVER_RATE_LIMITS=off` lifts those of the gate,
for load tests. More limits are [settings](settings.md). What is refused by a rate is answered with
429 and `retryAfterMs`; who goes on after that is closed with 4429.

This page is written by `tools/limits_page.py`, out of the modules that hold the limits.

| limit | value | what, and why |
|---|---|---|
"""


def render() -> str:
    """The page."""
    rows = [
        f"| `{module.__name__.removeprefix('wsserver.')}.{name}` | {value} | {text} |\n"
        for module in MODULES
        for name, value, text in list_constants(module)
    ]
    timeouts = "## Of a connection\n\nSeconds in `_s`, bytes in `_bytes_max`.\n\n"
    timeouts += "| limit | value |\n|---|---|\n"
    for field in fields(TransportLimits):
        # How many connections there may be is set, or counted from the descriptors.
        if isinstance(field.default, int | float) and field.name != "connections_max":
            timeouts += f"| `{field.name}` | {field.default:,g} |\n"
    return f"{HEAD}{''.join(rows)}\n{timeouts}"


def list_constants(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Name, value and docstring of each limit of a module, in their order."""
    body = ast.parse(inspect.getsource(module)).body
    for statement, after in itertools.pairwise(body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if isinstance(getattr(module, name), Rate | int | float):
                yield name, describe(getattr(module, name)), " ".join(text.split())


def describe(value: Any) -> str:
    """A value as people read it."""
    if not isinstance(value, Rate):
        return f"{value:,g}" if isinstance(value, float) else f"{value:,}"
    if value.per_s >= 1:
        return f"{value.burst:,} at once, then {value.per_s:,g} a second"
    return f"{value.burst:,} at once, then one every {1 / value.per_s:,g} s"


def main(arguments: list[str]) -> int:
    """0 when the page is, or was made, true; 1 when it is stale."""
    if arguments == ["--write"]:
        PAGE.write_text(render())
        return 0
    if not PAGE.exists() or PAGE.read_text() != render():
        print(f"{PAGE} is stale: run tools/limits_page.py --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
