"""A person's editor, on a file that nobody else can read and that is gone afterwards."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Final

from wsclient.command.failures import CommandFailed
from wsclient.command.private_files import write_private

FALLBACKS: Final = ("sensible-editor", "nano", "vi", "notepad")


async def edit_text(text: bytes, file_name: str) -> bytes:
    """What the person makes of the text; CommandFailed when the editor fails.

    The event loop goes on meanwhile.
    """
    command = find_editor()
    # A folder of its own (0700): what an editor writes beside the file goes with it.
    with tempfile.TemporaryDirectory(prefix="wsclient-") as folder:
        file = Path(folder, file_name)
        write_private(file, text)
        # A Ctrl-C in the editor is the editor's.
        handler = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            process = await asyncio.create_subprocess_exec(*command, str(file))
            code = await process.wait()
        except FileNotFoundError:
            raise CommandFailed(
                "no_editor", f"there is no {command[0]}", "set VISUAL or EDITOR"
            ) from None
        finally:
            signal.signal(signal.SIGINT, handler)
        if code != 0:
            raise CommandFailed(
                "editor_failed", f"{command[0]} ended with {code}: nothing is changed"
            )
        return file.read_bytes()  # noqa: ASYNC240  # a small file, that was written just now


def find_editor() -> list[str]:
    """The editor's command: VISUAL's, EDITOR's, or one that is there."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if named:
        return shlex.split(named)
    for name in FALLBACKS:
        if shutil.which(name):
            return [name]
    raise CommandFailed("no_editor", "no editor was found", "set VISUAL or EDITOR")
