import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from wsclient.command.cli import wsclient

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools/command_page.py"
PAGES = [ROOT / "docs/how-to/use-the-command.md", ROOT / "docs/reference/command.md"]


def test_every_command_is_on_the_page_as_it_is() -> None:
    checked = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr


def find_examples() -> set[str]:
    """Each call of the command in a block of code."""
    return {
        call
        for page in PAGES
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
        for call in re.findall(r"\bwsclient(?: [^|#&$;>)]+)+", line)
    }


def test_every_command_has_an_example() -> None:
    named = {shlex.split(example)[1] for example in find_examples()}

    assert named >= wsclient.commands.keys()


@pytest.mark.parametrize("example", sorted(find_examples()))
def test_an_example_is_what_the_command_takes(example: str) -> None:
    _, name, *arguments = shlex.split(example)
    command = wsclient.commands[name]

    with click.Context(command) as context:
        command.make_parser(context).parse_args(arguments)
