"""Writes docs/reference/server-command.md from the command itself, or checks that it is true."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tools.written_page import write_or_check
from wsserver.cli import main as wsserver
from wsserver.config import Settings

PAGE = Path(__file__).parent.parent / "docs/reference/server-command.md"

HEAD = """# The command `wsserver`

Results go to stdout, remarks and the log to stderr. Exit codes: 0, done; 1, failed, with a sentence
on stderr that says why; 2, misused: a wrong option, argument or setting. Where a command has more,
it says so.

The database is `--database-url`, `WSSERVER_DATABASE_URL` or the key `database_url` of the file, as
for `serve`. What each [setting](settings.md) means is on a page of its own.

This page is written by `tools/server_command_page.py`.
"""


def render() -> str:
    """The page."""
    return HEAD + "".join(
        _describe(path, command) for path, command in walk(wsserver, ("wsserver",))
    )


def walk(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below, with the words that call it."""
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from walk(below, (*path, name))
    else:
        yield path, command


def _describe(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=path[-1])
    usage = " ".join((*path, *command.collect_usage_pieces(context)))
    text = "\n\n".join(map(_show, inspect.cleandoc(command.help or "").split("\n\n")))
    lines = [f"\n## `{' '.join(path)}`\n", f"```\n{usage}\n```\n", f"{text}\n"]
    own, settings = [], []
    for parameter in command.params:
        if not isinstance(parameter, click.Option):
            continue
        shown = parameter.get_help_record(context)
        if parameter.name in Settings.model_fields:
            settings.append(f"`{parameter.opts[0]}`")
        elif shown is not None:
            own.append(f"| `{shown[0].replace('|', ' or ')}` | {' '.join(shown[1].split())} |\n")
    if own:
        lines.append(f"| option | what |\n|---|---|\n{''.join(own)}")
    if len(settings) == len(Settings.model_fields):
        lines.append("Every setting is an option of it.\n")
    elif settings:
        lines.append(f"Settings among its options: {', '.join(settings)}.\n")
    return "\n".join(lines)


def _show(paragraph: str) -> str:
    """A paragraph of a help text; those that click does not wrap are code."""
    unwrapped = paragraph.removeprefix("\b\n")
    return paragraph if unwrapped == paragraph else f"```sh\n{unwrapped}\n```"


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render))
