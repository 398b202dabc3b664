"""The command ``wsclient``: a wallet in sync, from a terminal.

It needs the packages of the extra ``cli``; without them it says so, and nothing else.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

PACKAGES: Final = ("click", "keyring", "platformdirs", "ptpython", "rich", "textual")


def main() -> int:
    """Runs the command that the program's arguments name; gives the exit code."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"wsclient needs {', '.join(missing)}: pip install 'wallet-sync[cli]' brings what is "
            "missing.",
            file=sys.stderr,
        )
        return 1
    from wsclient.command.cli import run

    return run(sys.argv[1:])
