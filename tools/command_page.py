"""Writes docs/reference/command.md from the command itself, or checks that it is true."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tools.written_page import write_or_check
from wsclient.command.cli import wsclient
from wsclient.command.failures import ExitCode
from wsclient.command.running import COMMON_OPTIONS

PAGE = Path(__file__).parent.parent / "docs/reference/command.md"

HEAD = """# The command `wsclient`

How it is used is told on [another page](../how-to/use-the-command.md). It is installed with
`pip install 'wallet-sync[cli]'`.

Results go to stdout, remarks for people to stderr. Every command takes `--json`: then stdout has
one document, or where it says so a document a line; `?` marks a member that may be missing. Times
are RFC 3339 in UTC. A command that fails prints `{"error": {reason, message, advice, exitCode}}`: a
program goes by `reason`, which is lower_snake and stable; `message` and `advice` are sentences for
people.

This page is written by `tools/command_page.py`.

## Exit codes

| code | what it means |
|---|---|
"""

VARIABLES = """
## Variables

| variable | what |
|---|---|
| `WSCLIENT_PROFILE` | The profile, where no `--profile` is given; else `default`. |
| `WSCLIENT_HOME` | The folder of the profiles; else the user's one for data (`~/.local/share`). |
| `WSSERVER_URL` | The server's address for a new profile, and for `doctor` without one. |
| `WSSERVER_CA` | PEM file of the authority that vouches for servers, where the profile has none. |
| `WSSERVER_ALLOW_PLAINTEXT` | `1` takes `ws://` to other machines. |
| `VISUAL`, `EDITOR` | The editor of `edit`. |
| `PYTHON_KEYRING_BACKEND` | The keyring; with `keyring.backends.null.Keyring` keys are in files. |

## Files

Each profile is a folder of that name, for its owner alone (mode 0700, its files 0600):

| file | what |
|---|---|
| `profile.json` | Its settings, to be read and changed: the server, the account, how to merge. |
| `wallet/` | The wallet and how it stands with the server, sealed. |
| `local-key` | The key that opens the folder, where no system keyring keeps it. |
| `working-copies` | What files that were pulled and pushed had in common with the wallet, sealed. |
| `repl-history` | What was typed at the prompt, without the lines that name a password. |
"""


def render() -> str:
    """The page."""
    codes = "".join(f"| {int(code)} | {code.meaning} |\n" for code in ExitCode)
    with click.Context(wsclient) as context:
        common = _render_options(COMMON_OPTIONS, context)
    commands = map(render_command, wsclient.commands.values())
    return (
        f"{HEAD}{codes}\n## Options of every command\n{common}{VARIABLES}"
        f"\n## Commands\n{''.join(commands)}"
    )


def render_command(command: click.Command) -> str:
    """One command's section."""
    with click.Context(command, info_name=f"wsclient {command.name}") as context:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        own = [each for each in command.params if each not in COMMON_OPTIONS]
        options = _render_options(own, context)
    prints = f"\n{_mark_members(command.epilog)}\n" if command.epilog else ""
    text = _render_help(command.help or "")
    return f"\n### {command.name}\n\n`{usage}`\n\n{text}{prints}{options}"


def _render_options(parameters: Sequence[click.Parameter], context: click.Context) -> str:
    """A table of the options among them; nothing where there are none."""
    records = [
        parameter.get_help_record(context)
        for parameter in parameters
        if isinstance(parameter, click.Option)
    ]
    rows = [f"| `{_escape(each[0])}` | {_escape(each[1])} |\n" for each in records if each]
    return f"\n| option | what |\n|---|---|\n{''.join(rows)}" if rows else ""


def _render_help(text: str) -> str:
    """Its paragraphs, and what click prints as it is, the examples, as code."""
    parts = []
    for part in inspect.cleandoc(text).split("\n\n"):
        if part.startswith("\b"):
            examples = part.removeprefix("\b").strip()
            parts.append(f"```sh\n{examples}\n```\n")
        else:
            parts.append(f"{part}\n")
    return "\n".join(parts)


def _mark_members(epilog: str) -> str:
    return re.sub(r"(--json|\{.*\})", r"`\1`", epilog)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render))
