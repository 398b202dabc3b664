"""Writes docs/reference/settings.md from the settings themselves, or checks that it is true."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from tools.written_page import write_or_check
from wsserver.config import PREFIX, Settings

PAGE = Path(__file__).parent.parent / "docs/reference/settings.md"

HEAD = """# Settings of the server

Each setting is a flag of `wsserver serve`, a variable, and a key of a TOML file that `--config` or
`WSSERVER_CONFIG` names. A flag wins over a variable, a variable over the file, the file over the
default. Lists are separated by commas. Wrong settings are refused at the start, all at once.

`wsserver config` shows what is in force and from where, `wsserver config --toml` writes it as a
file, and `wsserver config --check` says all that is wrong with it and with what it names, before a
start does.

A rate is written `20/s, burst 200`: after a rest 200 may come at once, and 20 a second from then
on. Both are whole numbers from 1 to 1,000,000; instead of `s` there may be `min` or `h`, as in
`12/min, burst 30`. Why the limits are what they are is told on [a page of their own](limits.md).

This page is written by `tools/settings_page.py`.

| variable, flag | default | what |
|---|---|---|
"""


def render() -> str:
    """The page."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=False)
        empty = default in (None, "", (), frozenset(), PydanticUndefined)
        shown = "" if empty else f"`{default}`"
        names = f"`{PREFIX}{name.upper()}`<br>`--{name.replace('_', '-')}`"
        rows.append(f"| {names} | {shown} | {field.description} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render))
