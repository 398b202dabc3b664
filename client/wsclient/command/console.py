"""What a command says: results on stdout, as text or JSON, and remarks for people on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from wsclient.command.failures import Failure

if TYPE_CHECKING:
    from rich.status import Status


class Console:
    """Says things as text, or with ``as_json`` in JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._status: Status | None = None

    def show(self, document: dict[str, Any], text: str) -> None:
        """The result: a document for programs, or a text for people."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            click.echo(printable(text))

    def show_next(self, document: dict[str, Any], text: str, color: str | None = None) -> None:
        """One of several results, told at once; each document is a line. Color: at a terminal."""
        if self.as_json:
            click.echo(json.dumps(document, ensure_ascii=False))
        else:
            click.secho(printable(text), fg=color)
        sys.stdout.flush()

    def write(self, value: bytes) -> None:
        """Bytes as they are; at a terminal, the prompt gets a line of its own."""
        binary = sys.stdout.buffer
        binary.write(value)
        if sys.stdout.isatty() and not value.endswith(b"\n"):
            binary.write(b"\n")
        binary.flush()

    def remark(self, text: str) -> None:
        """What is no result, but good for people to know."""
        click.echo(printable(text), err=True)

    def fail(self, failure: Failure) -> None:
        """Why the command could not be done."""
        if self.as_json:
            error = {
                "reason": failure.reason,
                "message": failure.text,
                "advice": failure.advice,
                "exitCode": int(failure.exit_code),
            }
            click.echo(json.dumps({"error": error}, indent=2, ensure_ascii=False))
        self.remark(f"wsclient: {failure.text}")
        if failure.advice is not None:
            self.remark(f"  {failure.advice}")

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Shows that something takes its time, to whoever sits at a terminal."""
        if self.as_json or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console as RichConsole

        self._status = RichConsole(stderr=True).status(text)
        with self._status:
            yield
        self._status = None

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Shows nothing of the kind while somebody is asked."""
        if self._status is not None:
            self._status.stop()
        yield
        if self._status is not None:
            self._status.start()


def printable(text: str) -> str:
    """The text without what could steer a terminal: some of it was written by others."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def tabulate(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a head, in columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
