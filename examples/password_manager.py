"""A password manager for the terminal: works offline, and is the same on every device.

Against a server in mode open, for a start::

    python examples/password_manager.py joe@example.com register
    python examples/password_manager.py joe@example.com add example.org joe
    python examples/password_manager.py joe@example.com list

The folder is this device's; another one, with ``--folder``, is another device. Two devices may
change the same entry at the same time: fields that only one of them changed are kept, of others the
newer, and an edited entry outlives its removal.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import secrets
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from wsclient import Session, SyncedWallet, register
from wsclient.errors import WalletSyncError
from wsclient.merge import JsonMerge, keep_newest
from wsclient.wallet_events import PasswordNeeded

DEFAULT_URL: Final = "ws://127.0.0.1:8090/v1"
MERGE: Final = JsonMerge({"/entries": "id"}, keep_newest("/updatedAt"))
PATIENCE_S: Final = 5.0

Entry = dict[str, Any]


def read_entries(wallet: bytes | None) -> list[Entry]:
    """The entries, by site and user."""
    entries: list[Entry] = [] if wallet is None else json.loads(wallet)["entries"]
    return sorted(entries, key=lambda entry: (entry["site"], entry["user"]))


def write_entries(entries: list[Entry]) -> bytes:
    """The wallet that holds the entries."""
    return json.dumps({"entries": entries}).encode()


def find_entry(entries: list[Entry], site: str) -> Entry:
    """The first entry of a site; LookupError."""
    for entry in entries:
        if entry["site"] == site:
            return entry
    raise LookupError(f"there is no entry for {site}")


def add_entry(site: str, user: str, password: str) -> Callable[[bytes | None], bytes]:
    """A change: one more entry."""

    def change(wallet: bytes | None) -> bytes:
        entry = {
            "id": secrets.token_hex(16),
            "site": site,
            "user": user,
            "password": password,
            "updatedAt": now(),
        }
        return write_entries([*read_entries(wallet), entry])

    return change


def edit_entry(site: str, **fields: str) -> Callable[[bytes | None], bytes]:
    """A change: other fields of an entry."""

    def change(wallet: bytes | None) -> bytes:
        entries = read_entries(wallet)
        find_entry(entries, site).update(fields, updatedAt=now())
        return write_entries(entries)

    return change


def remove_entry(site: str) -> Callable[[bytes | None], bytes]:
    """A change: an entry is gone."""

    def change(wallet: bytes | None) -> bytes:
        entries = read_entries(wallet)
        entries.remove(find_entry(entries, site))
        return write_entries(entries)

    return change


def now() -> str:
    """The time, so that later is greater."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def ask_secret(prompt: str) -> str:
    """What is typed, unseen; or a line of the standard input."""
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    return sys.stdin.readline().rstrip("\n")


async def ask_password(needed: PasswordNeeded) -> str | None:
    """The root password, where the one that was given is not, or no longer, that of the account."""
    when = "as it is now" if needed.reason == "changed_elsewhere" else "as it was before"
    return await asyncio.to_thread(ask_secret, f"Not that; the root password {when}: ") or None


async def sync(wallet: SyncedWallet, patience_s: float) -> None:
    """Brings both sides together, where the server can be reached soon."""
    try:
        await wallet.pull(patience_s)
    except TimeoutError:
        print("offline: this is what is here", file=sys.stderr)


async def run(options: argparse.Namespace) -> None:
    """Carries out one command."""
    root_password = ask_secret("Root password: ")
    if options.command == "register":
        async with Session(options.url) as session:
            registered = await register(session, options.email, root_password)
        print("registered" if registered.verified else "registered: follow the link in the mail")
        return
    async with SyncedWallet(
        options.url,
        options.email,
        root_password,
        options.folder,
        MERGE,
        device_name=options.folder.name,
        ask_password=ask_password,
    ) as wallet:
        if wallet.value is None:
            await sync(wallet, options.patience)
        match options.command:
            case "add":
                password = ask_secret("Its password (empty: a new one): ")
                password = password or secrets.token_urlsafe(15)
                await wallet.change(add_entry(options.site, options.user, password))
            case "password":
                await wallet.change(edit_entry(options.site, password=ask_secret("Password: ")))
            case "user":
                await wallet.change(edit_entry(options.site, user=options.user))
            case "remove":
                await wallet.change(remove_entry(options.site))
        await sync(wallet, options.patience)
        entries = read_entries(wallet.value)
        if options.command == "show":
            print(find_entry(entries, options.site)["password"])
        else:
            for entry in entries:
                print(f"{entry['site']}  {entry['user']}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """What to do, for whom, and where."""
    parser = argparse.ArgumentParser(description="Keeps passwords, the same on every device.")
    parser.add_argument("email", help="of the account")
    url = os.environ.get("WSSERVER_URL", DEFAULT_URL)
    parser.add_argument("--url", default=url, help="of the server (default: %(default)s)")
    folder = Path.home() / ".password-manager"
    parser.add_argument("--folder", type=Path, default=folder, help="of this device")
    help_ = "seconds to wait for the server before going by what is here (default: %(default)g)"
    parser.add_argument("--patience", type=float, default=PATIENCE_S, metavar="S", help=help_)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("register", help="make the account")
    commands.add_parser("list", help="list the entries")
    for name, help_ in (
        ("show", "print the password of an entry"),
        ("add", "add an entry, and its password"),
        ("password", "change the password of an entry"),
        ("user", "change the user of an entry"),
        ("remove", "remove an entry"),
    ):
        command = commands.add_parser(name, help=help_)
        command.add_argument("site")
        if name in ("add", "user"):
            command.add_argument("user")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        asyncio.run(run(parse()))
    except (WalletSyncError, LookupError) as error:
        sys.exit(f"password manager: {error}")
