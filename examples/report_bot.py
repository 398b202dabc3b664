"""A bot that reports what changes in a JSON wallet: which device changed what.

::

    WALLET_EMAIL=joe@example.com WALLET_ROOT_PASSWORD=... python examples/report_bot.py bot-folder

It tells where something changed, never what it is: a report goes further than a wallet. It is a
device of the account like any other, and goes on after a lost connection by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from wsclient import SyncedWallet
from wsclient.merge import last_writer_wins
from wsclient.wallet_events import StatusChanged, Stopped, ValueChanged

URL = os.environ.get("WSSERVER_URL", "ws://127.0.0.1:8090/v1")


def report(line: str) -> None:
    """Sends a line to whom it concerns: here to the terminal; a chat would do as well."""
    print(line, flush=True)


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where what stands; an entry of a list by its id where it has one."""
    match value:
        case dict() if value:
            for name, member in value.items():
                yield from flatten(member, f"{path}/{name}")
        case list() if value:
            for at, element in enumerate(value):
                by_id = element.get("id", at) if isinstance(element, dict) else at
                yield from flatten(element, f"{path}/{by_id}")
        case _:
            yield path, json.dumps(value)


def compare(before: bytes, after: bytes) -> Iterator[str]:
    """What was added, changed and removed, one line each."""
    old, new = dict(flatten(json.loads(before))), dict(flatten(json.loads(after)))
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            yield f"added {path}"
        elif path not in new:
            yield f"removed {path}"
        elif old[path] != new[path]:
            yield f"changed {path}"


async def name_device(wallet: SyncedWallet, device_id: str) -> str:
    """What people call the device."""
    for device in await wallet.devices():
        if device.device_id == device_id and device.name:
            return device.name
    return f"device {device_id[:8]}"


async def main(folder: str) -> None:
    """Reports until it is stopped."""
    email, root_password = os.environ["WALLET_EMAIL"], os.environ["WALLET_ROOT_PASSWORD"]
    # It changes nothing itself, so that there is nothing to merge.
    async with SyncedWallet(
        URL, email, root_password, folder, last_writer_wins, device_name="report bot"
    ) as wallet:
        before = wallet.value
        async for event in wallet.events():
            match event:
                case ValueChanged(value=after, device_id=device_id):
                    name = await name_device(wallet, device_id)
                    # What was there before the bot first came is no change.
                    for line in compare(after if before is None else before, after):
                        report(f"{name} {line}")
                    before = after
                case StatusChanged(status=status):
                    report(f"({status})")
                case Stopped(error=error):
                    raise error


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
