"""A wallet of notes that is the same on all devices, in as few lines as that takes.

Run it with a folder for each device, against a server in mode open::

    python examples/minimal_wallet.py laptop "buy milk"
    python examples/minimal_wallet.py phone "call Jane"
"""

import asyncio
import contextlib
import json
import os
import sys

from wsclient import Session, SyncedWallet, register
from wsclient.errors import AccountExists
from wsclient.merge import JsonMerge

URL = os.environ.get("WSSERVER_URL", "ws://127.0.0.1:8090/v1")
EMAIL = "joe@example.com"
ROOT_PASSWORD = "correct horse battery staple"


def add_note(wallet: bytes | None, note: str) -> bytes:
    """The wallet with one more note."""
    notes = [] if wallet is None else json.loads(wallet)
    return json.dumps([*notes, note]).encode()


async def main(folder: str, note: str) -> None:
    """Adds a note on the device whose folder it is, and prints all there are."""
    async with Session(URL) as session:
        with contextlib.suppress(AccountExists):
            await register(session, EMAIL, ROOT_PASSWORD)
    async with SyncedWallet(URL, EMAIL, ROOT_PASSWORD, folder, JsonMerge()) as wallet:
        await wallet.change(lambda value: add_note(value, note))
        await wallet.sync()
        print(*json.loads(wallet.value or b"[]"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
