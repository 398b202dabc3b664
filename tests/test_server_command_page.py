"""The page of the server's command and the command say the same; and every example is taken."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from wsserver.cli import main as wsserver

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools/server_command_page.py"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_command_is_on_the_page_as_it_is() -> None:
    checked = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr


def find_examples() -> set[str]:
    """Each call of the command in a block of shell code of any page."""
    return {
        call.strip()
        for page in PAGES
        for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        for call in re.findall(r"(?<!-u )(?<![\w/.-])wsserver(?: [^|#&$;>)\"]+)+", line)
    }


EXAMPLES = sorted(find_examples())


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_what_the_command_takes(example: str) -> None:
    command: click.Command = wsserver
    words = shlex.split(example)[1:]
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    if words in (["--help"], ["--version"]):
        return
    assert not isinstance(command, click.Group), f"no such command: {example}"

    with click.Context(command) as context:
        command.make_parser(context).parse_args(words)


def test_every_command_has_an_example_somewhere() -> None:
    shown = {shlex.split(example)[1] for example in EXAMPLES if len(shlex.split(example)) > 1}

    assert shown >= wsserver.commands.keys()
