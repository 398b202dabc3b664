"""The root password, as it is handed in: typed, on standard input, or in a file of one's own.

Never on a command line or in a variable, where other programs see it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wsclient.command.failures import CommandFailed, ExitCode

OTHERS: Final = 0o077
"""What a file's mode allows to the group and to everyone."""


@dataclass(frozen=True, slots=True)
class PasswordSource:
    """Where root passwords come from: the lines of a file or of stdin, else the terminal."""

    file: Path | None = None
    stdin: bool = False

    @property
    def is_terminal(self) -> bool:
        """Whether somebody types them."""
        return self.file is None and not self.stdin

    def read(self, prompt: str) -> str:
        """The next one."""
        return ask(prompt) if self.is_terminal else self._read_line()

    def read_new(self, prompt: str) -> str:
        """The next one; typed twice, so that a slip does not lock anybody out."""
        if not self.is_terminal:
            return self._read_line()
        while True:
            password = ask(prompt)
            if ask("Once more") == password:
                return password
            print("These were not the same.", file=sys.stderr)

    def _read_line(self) -> str:
        if self.file is None:
            line = sys.stdin.readline()
        else:
            with self.file.open() as file:
                if os.name == "posix" and os.fstat(file.fileno()).st_mode & OTHERS:
                    raise CommandFailed(
                        "password_file_open",
                        f"{self.file} is open to others",
                        f"chmod 600 {self.file}",
                    )
                line = file.readline()
        password = line.rstrip("\r\n")
        if not password:
            raise CommandFailed(
                "no_password",
                f"{self.file or 'standard input'} has no line with a root password",
                exit_code=ExitCode.MISUSED,
            )
        return password


def ask(prompt: str) -> str:
    """What is typed at the terminal, unseen; asked again while it is empty."""
    if not can_ask():
        raise CommandFailed(
            "no_terminal",
            "there is no terminal at which to ask for the root password",
            "--password-stdin or --password-file hand it in",
            ExitCode.MISUSED,
        )
    with interruptible():
        while True:
            try:
                password = getpass.getpass(f"{prompt}: ", stream=sys.stderr)
            except EOFError:
                raise KeyboardInterrupt from None  # Ctrl-D says no, as Ctrl-C does
            if password:
                return password


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets a Ctrl-C end what is asked here.

    An event loop's own handler takes it for later, when the loop goes on; a prompt would wait for
    its answer meanwhile.
    """
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def can_ask() -> bool:
    """Whether somebody sits at a terminal."""
    try:
        with open("/dev/tty"):
            return True
    except OSError:
        return sys.stdin.isatty()
