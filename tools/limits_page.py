"""Writes docs/reference/limits.md from the limits themselves, or checks that it is true."""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from tools.written_page import write_or_check
from wsserver import channel, gate, mail, passwords, post
from wsserver.config import PREFIX, Settings
from wsserver.gate import GateLimits
from wsserver.lbry import gateway, requests, serving, sockets
from wsserver.peer import TransportLimits
from wsserver.throttle import Rate

PAGE = Path(__file__).parent.parent / "docs/reference/limits.md"
MODULES: tuple[ModuleType, ...] = (
    *(gate, channel, mail, post),
    *(gateway, requests, serving, sockets),
)
SET_AS = {
    "authentication_timeout_s": "auth_timeout_s",
    "WAITING_MAX": "password_waiting_max",
}
"""Settings whose limits have another name in the code."""

HEAD = """# Limits of the server

What holds a crowd off, and users never meet. What is refused by a rate is answered with 429 and
`retryAfterMs`; who goes on after that is closed with 4429. An address here is an IPv4 address, or
the /64 of an IPv6 one. More limits, such as the size of a wallet, are [settings](settings.md) only.

This page is written by `tools/limits_page.py`, out of the modules that hold the limits.

## Of a crowd

How a rate is written is told with the [settings](settings.md). `WSSERVER_RATE_LIMITS=off` lifts all
of these but the last at once, for load tests.

| setting | default | what, and why |
|---|---|---|
"""

INSIDE = """
## Inside

| limit | value | what, and why |
|---|---|---|
"""

CONNECTION = """
## Of a connection

Seconds in `_s`, bytes in `_bytes_max`.

| limit | value |
|---|---|
"""


def render() -> str:
    """The page."""
    page = HEAD
    for name, value, text in (*list_fields(GateLimits()), *list_constants(passwords)):
        page += f"| {name_limit(name)} | {value} | {text} |\n"
    page += INSIDE
    for module in MODULES:
        for name, value, text in list_constants(module):
            page += f"| `{module.__name__.removeprefix('wsserver.')}.{name}` | {value} | {text} |\n"
    page += CONNECTION
    for field in fields(TransportLimits):
        # How many connections there may be is set, or counted from the descriptors.
        if isinstance(field.default, int | float) and field.name != "connections_max":
            page += f"| {name_limit(field.name)} | {field.default:,g} |\n"
    return page


def name_limit(name: str) -> str:
    """The variable that sets a limit; where none does, the limit's name in the code."""
    setting = SET_AS.get(name, name)
    return f"`{PREFIX}{setting.upper()}`" if setting in Settings.model_fields else f"`{name}`"


def list_fields(limits: GateLimits) -> Iterator[tuple[str, str, str]]:
    """Name, value and docstring of each limit of the gate, in their order."""
    [definition] = ast.parse(inspect.getsource(type(limits))).body
    assert isinstance(definition, ast.ClassDef)
    return list_documented(definition.body, lambda name: getattr(limits, name))


def list_constants(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Name, value and docstring of each limit of a module, in their order."""
    body = ast.parse(inspect.getsource(module)).body
    return list_documented(body, lambda name: getattr(module, name))


def list_documented(
    body: list[ast.stmt], find: Callable[[str], Any]
) -> Iterator[tuple[str, str, str]]:
    """Name, value and docstring of each assignment of a limit."""
    for statement, after in itertools.pairwise(body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if isinstance(find(name), Rate | int | float):
                yield name, describe(find(name)), " ".join(text.split())


def describe(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, Rate):
        return str(value)
    return f"{value:,g}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render))
