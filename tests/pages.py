"""What stands in the fenced blocks of a page of documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """``info`` is what stands behind the fence, the language first; ``before`` the line above."""

    info: str
    text: str
    before: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in their order."""
    text = page.read_text()
    for fence in _FENCE.finditer(text):
        above = text[: fence.start()].rstrip().rpartition("\n")[2]
        yield Block(fence["info"], fence["text"], above)
