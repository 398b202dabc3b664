"""Runs every console line of client/README.md against a real server, and compares what it prints.

    python tools/walkthrough.py            exits with 1 when the page is stale
    python tools/walkthrough.py --write    writes the page anew

The prose is the page's own; what stands after a ``>>>`` line is the software's. Tokens, random
segments, device ids and times differ from run to run and count as equal.
"""

from __future__ import annotations

import argparse
import code
import contextlib
import difflib
import io
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tools.local_server import run_server
from wsclient import Client

PAGE = Path(__file__).parents[1] / "client" / "README.md"
HEARD_TIMEOUT_S = 10.0

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_RANDOM = {
    "token": re.compile(r"\b[0-9a-f]{64}\b"),
    "device": re.compile(r"(?<=device )[0-9a-f]{8}\b"),
    "segment": re.compile(r"(?<=:)[0-9a-f]{4}\b"),
}
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def main() -> int:
    """The exit code: 0 when the page is true, or was made true."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the page anew")
    arguments = parser.parse_args()
    page = PAGE.read_text()
    with run_server() as url:
        regenerated = regenerate(page, url)
    if is_same(page, regenerated):
        print(f"{PAGE.name} is true to the software")
        return 0
    if arguments.write:
        PAGE.write_text(regenerated)
        print(f"{PAGE.name} was written anew")
        return 0
    told, printed = normalise(page).splitlines(), normalise(regenerated).splitlines()
    print(*difflib.unified_diff(told, printed, "the page", "the software", lineterm=""), sep="\n")
    print(f"{PAGE.name} is stale: `make walkthrough` writes it anew", file=sys.stderr)
    return 1


def regenerate(page: str, url: str) -> str:
    """The page with what its console lines print against the server at ``url``."""
    console = RecordingConsole()
    with console.recording(url):

        def run(fence: re.Match[str]) -> str:
            body = fence["body"]
            if body.startswith(">>> "):
                body = console.run_block(body)
            elif fence["info"] == "text heard":
                body = console.wait_for_heard(body.count("\n"))
            return f"```{fence['info']}\n{body}```"

        return _FENCE.sub(run, page)


def is_same(page: str, other: str) -> bool:
    """Whether two pages differ in random parts alone, each used in the same places."""
    return normalise(page) == normalise(other)


def normalise(page: str) -> str:
    """The page with its random parts numbered in the order in which they first occur."""
    for kind, pattern in _RANDOM.items():
        numbers: dict[str, int] = {}
        page = pattern.sub(
            lambda found, numbers=numbers, kind=kind: (  # type: ignore[misc]  # bound early
                f"<{kind} {numbers.setdefault(found[0], len(numbers) + 1)}>"
            ),
            page,
        )
    return _TIME.sub("<time>", page)


class RecordingConsole(code.InteractiveConsole):
    """A Python prompt that takes its lines from a page and records what they print."""

    def __init__(self) -> None:
        super().__init__()
        self._output = OutputByThread()

    @contextlib.contextmanager
    def recording(self, url: str) -> Iterator[None]:
        """Sends what is printed here, and has `Client()` find the server at ``url``."""
        before = os.environ.get("WSSERVER_URL")
        os.environ["WSSERVER_URL"] = url
        try:
            with contextlib.redirect_stdout(self._output):
                yield
                self._close_clients()
        finally:
            if before is None:
                del os.environ["WSSERVER_URL"]
            else:
                os.environ["WSSERVER_URL"] = before

    def run_block(self, block: str) -> str:
        """The block with its lines run and their output written anew."""
        recorded = ""
        for line in block.splitlines():
            if line.startswith((">>> ", "... ")) or line in (">>>", "..."):
                self.push(line[4:])
                recorded += f"{line}\n{self._output.take_here()}"
        return recorded

    def wait_for_heard(self, lines: int) -> str:
        """What was printed from the background, once it is as many lines."""
        deadline_s = time.monotonic() + HEARD_TIMEOUT_S
        while self._output.count_elsewhere() < lines and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return self._output.take_elsewhere()

    def write(self, data: str) -> None:
        """Fails: what a prompt writes itself is the traceback of a line that does not work."""
        raise RuntimeError(f"a line of the page failed:\n{data}")

    def _close_clients(self) -> None:
        for value in [*self.locals.values()]:
            if isinstance(value, Client):
                value.close()


class OutputByThread(io.TextIOBase):
    """Keeps what this thread prints apart from what others do."""

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self._lock = threading.Lock()
        self._here = self._elsewhere = ""

    def write(self, text: str) -> int:
        """Keeps the text."""
        with self._lock:
            if threading.current_thread() is self._thread:
                self._here += text
            else:
                self._elsewhere += text
        return len(text)

    def take_here(self) -> str:
        """What this thread printed since the last time."""
        with self._lock:
            taken, self._here = self._here, ""
        return taken

    def take_elsewhere(self) -> str:
        """What other threads printed since the last time."""
        with self._lock:
            taken, self._elsewhere = self._elsewhere, ""
        return taken

    def count_elsewhere(self) -> int:
        """How many lines `take_elsewhere` would give."""
        with self._lock:
            return self._elsewhere.count("\n")


if __name__ == "__main__":
    sys.exit(main())
