"""Writes docs/status-terminal.svg: what ``wsserver status`` shows of the server whose URL is given.

The page's own picture is made by a browser, of a server that has had five minutes of traffic:

    chromium --headless --hide-scrollbars --window-size=1180,1080 --timeout=9000 \\
        --screenshot=docs/status-page.png http://127.0.0.1:8091/
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from wsserver.status.command import fetch_status
from wsserver.status.drawing import draw_status

PICTURE = Path(__file__).parent.parent / "docs/status-terminal.svg"


def main(url: str) -> None:
    """Draw it as a terminal of 80 columns has it."""
    console = Console(file=io.StringIO(), record=True, width=80, highlight=False)
    console.print(draw_status(fetch_status(url)))
    picture = console.export_svg(title="wsserver status")
    # A picture loads nothing: the reader's own monospaced font will do.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    main(sys.argv[1])
