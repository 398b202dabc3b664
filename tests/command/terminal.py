"""A terminal with somebody at it: programs that ask, draw and listen to keys, under a pty."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

WAIT_S: Final = 60.0
PATIENCE_S: Final = 10.0
ROWS: Final = 24
COLUMNS: Final = 100

# It must be the terminal that controls the program: a password is asked for at /dev/tty, and a
# Ctrl-C goes to whom the terminal controls.
_TAKE_TERMINAL: Final = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
_CONTROL: Final = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[][()][^\x07\x1b]*\x07?|\x1b[=>78]")


class Terminal:
    """A program at a terminal of its own, and what it has written there."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._main, program_end = pty.openpty()
        termios.tcsetwinsize(program_end, (ROWS, COLUMNS))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *command],
            stdin=program_end,
            stdout=program_end,
            stderr=program_end,
            env={**environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            start_new_session=True,
        )
        os.close(program_end)
        self.written = ""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main)

    def expect(self, text: str) -> None:
        """Returns once the program has written the text, after what was expected before."""
        deadline_s = time.monotonic() + WAIT_S
        while (found := self.written.find(text, self._seen)) < 0:
            if not self._read(deadline_s):
                raise AssertionError(f"no {text!r} in {self.written[self._seen :]!r}")
        self._seen = found + len(text)

    def type(self, text: str) -> None:
        """Keys are pressed."""
        os.write(self._main, text.encode())

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """The exit code, once the program has ended."""
        deadline_s = time.monotonic() + timeout_s
        while self._read(deadline_s):
            pass
        return self.process.wait(WAIT_S)

    def interrupt(self) -> int:
        """Ctrl-C; gives the exit code.

        It is pressed again where it is not heard: Python may miss one that comes in the moment
        before it begins to wait for a key.
        """
        for _ in range(round(WAIT_S / PATIENCE_S)):
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                return self.wait(PATIENCE_S)
        raise AssertionError(f"it goes on after {self.written[self._seen :]!r}")

    @property
    def screen(self) -> list[str]:
        """The lines that can be seen, and those that were scrolled away above them."""
        return draw(self.written)

    def _read(self, deadline_s: float) -> bool:
        """Reads some more; False at the end."""
        ready, _, _ = select.select([self._main], [], [], max(0.0, deadline_s - time.monotonic()))
        if not ready:
            raise AssertionError(f"nothing more came after {self.written[self._seen :]!r}")
        try:
            read = os.read(self._main, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # so a terminal tells that nobody has it open any more
                return False
            raise
        self.written += read.decode(errors="replace")
        return bool(read)


def draw(written: str) -> list[str]:
    """What a terminal shows of it, as far as the controls go that a prompt uses."""
    lines, row, column = [""], 0, 0
    position = 0
    while position < len(written):
        control = _CONTROL.match(written, position)
        if control is not None:
            position = control.end()
            count = int(control[1]) if (control[1] or "").isdigit() else 1
            match control[2]:
                case "A":
                    row = max(0, row - count)
                case "B":
                    row += count
                case "C":
                    column += count
                case "D":
                    column = max(0, column - count)
                case "K":
                    lines[row] = lines[row][:column]
                case "J":
                    lines[row] = lines[row][:column]
                    del lines[row + 1 :]
            lines += [""] * (row + 1 - len(lines))
            continue
        character = written[position]
        position += 1
        match character:
            case "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            case "\r":
                column = 0
            case "\b":
                column = max(0, column - 1)
            case _ if character.isprintable():
                line = lines[row].ljust(column)
                lines[row] = line[:column] + character + line[column + 1 :]
                column += 1
    return lines
