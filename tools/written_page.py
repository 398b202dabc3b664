"""A page that is made of the code: written anew, or checked to be true."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

WRITE = "--write"


def write_or_check(page: Path, render: Callable[[], str]) -> int:
    """Write it where the command line says so, else check it; 1 where it is stale."""
    if sys.argv[1:] == [WRITE]:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render())
        return 0
    if not page.exists() or page.read_text() != render():
        print(f"{page} is stale: run tools/{Path(sys.argv[0]).name} {WRITE}", file=sys.stderr)
        return 1
    return 0
