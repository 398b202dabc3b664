"""A Python prompt with ``await``, at which a wallet is at hand, and tells what happens to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from prompt_toolkit.history import FileHistory, ThreadedHistory
from prompt_toolkit.patch_stdout import patch_stdout
from ptpython.repl import PythonRepl

from wsclient.command.console import printable
from wsclient.command.opening import OpenProfile
from wsclient.command.private_files import FILE_MODE
from wsclient.command.telling import describe_event
from wsclient.wallet_events import WalletEvent

HISTORY_FILE: Final = "repl-history"

GREETING: Final = """\
`wallet` is {email}'s, in sync with {server}. Try:

    wallet.value
    await wallet.change(b'{{"note": "hello"}}')
    await wallet.sync()
    await wallet.devices()
    help(wallet)

What happens to it is told here as it happens. Ctrl-D leaves.
"""


class DiscreetHistory(FileHistory):
    """A history in a file that is nobody else's, without the lines that name a password."""

    def __init__(self, path: Path) -> None:
        path.touch(FILE_MODE)
        super().__init__(path)

    def store_string(self, string: str) -> None:
        """Keeps the line, unless it may hold a secret."""
        if "password" not in string:
            super().store_string(string)


async def run_repl(opened: OpenProfile) -> None:
    """Reads and runs what is typed, until Ctrl-D or exit()."""
    profile, wallet = opened.profile, opened.wallet
    names: dict[str, Any] = {"wallet": wallet, "asyncio": asyncio, "json": json}
    repl = _make_prompt(names, profile.folder / HISTORY_FILE)
    print(GREETING.format(email=printable(profile.email), server=printable(profile.server)))
    with patch_stdout():
        telling = asyncio.create_task(_tell(opened.events(), wallet.device_id))
        try:
            await repl.run_async()
        finally:
            telling.cancel()


def _make_prompt(names: dict[str, Any], history: Path) -> PythonRepl:
    repl = PythonRepl(get_globals=lambda: names, get_locals=lambda: names)
    repl.history = ThreadedHistory(DiscreetHistory(history))
    repl.default_buffer.history = repl.history
    repl.confirm_exit = False
    repl.enable_auto_suggest = True
    repl.show_signature = True
    repl.terminal_title = "wsclient"
    return repl


async def _tell(events: AsyncIterator[WalletEvent], own_device_id: str) -> None:
    async for event in events:
        print(f"* {printable(describe_event(event, own_device_id))}")
