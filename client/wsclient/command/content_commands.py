"""The commands about what is in the wallet."""

from __future__ import annotations

import json
import os
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

import click

from wsclient.command import passwords
from wsclient.command.console import tabulate
from wsclient.command.editor import edit_text
from wsclient.command.failures import CommandFailed, ExitCode
from wsclient.command.merging import Prefer, find_form, merge_copy
from wsclient.command.opening import OpenProfile, open_profile
from wsclient.command.private_files import write_private
from wsclient.command.profiles import Profile
from wsclient.command.running import Invocation, command, confirm, yes_option
from wsclient.command.telling import (
    describe_event,
    encode_event,
    encode_wallet,
    name_device,
    show_time,
)
from wsclient.command.working_copies import WorkingCopies
from wsclient.errors import CannotMerge, MessageTooLarge, StateRefused, WalletTooLarge
from wsclient.merge.json_document import read, write
from wsclient.wallet_events import Stopped
from wsschema.fields import encode
from wsschema.limits import HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX
from wsschema.times import format_time

STDIO: Final = "-"


@command("push", "changed", "merged", "sequence")
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False, exists=True))
@click.option(
    "--prefer",
    type=click.Choice(["mine", "theirs"]),
    help="Whose counts where FILE and another device changed the same.",
)
@click.option("--replace", is_flag=True, help="Merge nothing: the wallet is what FILE says.")
async def push(invocation: Invocation, file: str, prefer: Prefer | None, replace: bool) -> None:
    """Bring FILE's changes into the wallet; - is standard input.

    What other devices changed since FILE was last pulled or pushed is merged with it; FILE stays as
    it is. Where both changed the same, nothing is done, and the exit code is 5.

    Without a connection the wallet is changed here and goes out with the next command that has one;
    the exit code is 3.

    \b
    wsclient push wallet.json
    wsclient pull | jq '.theme = "dark"' | wsclient push -
    """
    # All of it first: what it comes from may be a pull, which has the folder open until its end.
    mine = _read(file)
    profile = invocation.load_profile()
    _check_form(profile, mine)
    async with open_profile(profile, invocation.timeout_s) as opened:
        wallet = opened.wallet
        copies = WorkingCopies(profile.folder, wallet.local_key)
        name = _name_copy(file, sys.stdin)
        base = copies.recall(name)

        def merge(theirs: bytes | None) -> bytes:
            if theirs is None or replace:
                return mine
            return merge_copy(profile.merge, profile.identity, base, mine, theirs, prefer)

        offline = await opened.try_pull()
        before = wallet.value
        await wallet.change(merge)
        copies.remember(name, mine)
        try:
            await _send(opened, before, offline)
        except (WalletTooLarge, MessageTooLarge):
            copies.remember(name, base)
            raise
        after, sequence = wallet.value, wallet.sequence
    merged, changed = after != mine, after != before
    if merged:
        invocation.console.remark(
            "What other devices changed is in the wallet too; wsclient pull brings it into FILE."
        )
    invocation.console.show(
        {"changed": changed, "merged": merged, "sequence": sequence},
        f"{'pushed' if changed else 'nothing new'}, sequence {sequence}",
    )


@command("pull", "sequence", "wallet?", "encoding?", "file?", "bytes?")
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.option("--offline", is_flag=True, help="Give what is here, and ask no server.")
async def pull(invocation: Invocation, file: str | None, offline: bool) -> None:
    """Write the wallet to FILE, or without one to standard output.

    FILE is replaced as a whole, and is nobody else's to read (mode 0600).

    \b
    wsclient pull wallet.json
    wsclient pull | jq .
    """
    profile = invocation.load_profile()
    async with open_profile(profile, invocation.timeout_s) as opened:
        if not offline:
            await opened.pull()
        value, sequence = opened.wallet.value, opened.wallet.sequence
        copies = WorkingCopies(profile.folder, opened.wallet.local_key)
    if value is None:
        raise CommandFailed(
            "no_wallet", "the account has no wallet yet", "wsclient push FILE begins one"
        )
    # The folder is let go by now: what comes next may read this and push.
    console = invocation.console
    if file is not None:
        _write(Path(file), value)
        console.show(
            {"file": file, "sequence": sequence, "bytes": len(value)},
            f"{file}: {len(value):,} bytes, sequence {sequence}",
        )
    elif console.as_json:
        console.show({"sequence": sequence, **encode_wallet(value)}, "")
    else:
        console.write(value)
    copies.remember(_name_copy(file or STDIO, sys.stdout), value)


@command("edit", "changed", "sequence?")
async def edit(invocation: Invocation) -> None:
    """Change the wallet in your editor, and push it.

    The editor is $VISUAL or $EDITOR. The file that it works on is nobody else's to read, and gone
    afterwards. What other devices change meanwhile is merged with it; where you changed the same,
    yours counts, and theirs stays in the history. A file that you leave as it was pushes nothing.

    \b
    wsclient edit
    EDITOR=nano wsclient edit
    """
    profile = invocation.load_profile()
    async with open_profile(profile, invocation.timeout_s) as opened:
        offline = await opened.try_pull()
        if offline is not None:
            invocation.console.remark(f"working offline: {offline}")
        before = opened.wallet.value
        edited = await _edit(profile, before)
        if edited is None:
            invocation.console.show({"changed": False}, "nothing is changed")
            return

        def merge(theirs: bytes | None) -> bytes:
            if theirs is None:
                return edited
            return merge_copy(profile.merge, profile.identity, before, edited, theirs, "mine")

        await opened.wallet.change(merge)
        await _send(opened, before)
        sequence = opened.wallet.sequence
    invocation.console.show({"changed": True, "sequence": sequence}, f"pushed, sequence {sequence}")


@command("watch", "at", "event", "...")
@click.option("--values", is_flag=True, help="With --json: put the wallet into its changes.")
async def watch(invocation: Invocation, values: bool) -> None:
    """Tell what happens to the wallet, until Ctrl-C.

    Each event is a line, with --json a document in a line.

    \b
    wsclient watch
    wsclient watch --json | jq --unbuffered 'select(.event == "changed")'
    """
    async with open_profile(invocation.load_profile(), invocation.timeout_s) as opened:
        async for event in opened.events():
            now = datetime.now(UTC)
            invocation.console.show_next(
                {"at": format_time(now), **encode_event(event, values=values)},
                f"{now.astimezone():%H:%M:%S}  {describe_event(event, opened.wallet.device_id)}",
            )
            if isinstance(event, Stopped):
                raise event.error


@command("history", "versions")
@click.option(
    "--limit",
    type=click.IntRange(1, HISTORY_LIMIT_MAX),
    default=HISTORY_LIMIT_DEFAULT,
    show_default=True,
    help="How many versions, at most.",
)
async def history(invocation: Invocation, limit: int) -> None:
    """List the versions that the server keeps, newest first.

    \b
    wsclient history
    """
    async with open_profile(invocation.load_profile(), invocation.timeout_s) as opened:
        versions = await opened.finish(opened.wallet.history(limit))
        devices = await opened.finish(opened.wallet.devices())
    names = {device.device_id: name_device(device) for device in devices}
    rows = [
        (
            str(version.sequence),
            show_time(version.updated_at),
            names.get(version.device_id, version.device_id),
            f"{version.bytes:,}",
        )
        for version in versions
    ]
    invocation.console.show(
        {"versions": [encode(version) for version in versions]},
        tabulate(("SEQUENCE", "PUSHED", "BY", "SEALED BYTES"), rows),
    )


@command("restore", "restored", "changed", "sequence")
@click.argument("sequence", type=click.IntRange(min=1))
async def restore(invocation: Invocation, sequence: int) -> None:
    """Make an older version, as of `wsclient history`, the next one.

    Nothing is lost by it: the version of now stays in the history, too.

    \b
    wsclient restore 41
    """
    async with open_profile(invocation.load_profile(), invocation.timeout_s) as opened:
        await opened.pull()
        value = await opened.finish(opened.wallet.load_version(sequence))
        before = opened.wallet.value
        await opened.wallet.change(value)
        await opened.sync()
        newest = opened.wallet.sequence
    changed = value != before
    invocation.console.show(
        {"restored": sequence, "changed": changed, "sequence": newest},
        f"version {sequence} is back, as sequence {newest}" if changed else "it is that already",
    )


@command("recover", "recovered", "sequence")
@yes_option
async def recover(invocation: Invocation, yes: bool) -> None:
    """Believe a server that showed what cannot be, and go on.

    A server that went back to an older state without announcing it may have been put back from a
    backup by hand, or may be lying. What it has now is merged with what is here, as if this device
    had never seen it; what was deleted may be back.

    \b
    wsclient recover
    """
    profile = invocation.load_profile()
    async with open_profile(profile, invocation.timeout_s) as opened:
        try:
            await opened.pull()
        except StateRefused as refused:
            invocation.console.remark(str(refused))
            if not yes:
                confirm(f"Believe what {profile.server} has now?")
            await opened.wallet.recover()
            await opened.pull()
            changed, text = True, "believed and merged"
        else:
            changed, text = False, "there is nothing to recover from"
        sequence = opened.wallet.sequence
    invocation.console.show(
        {"recovered": changed, "sequence": sequence}, f"{text}, sequence {sequence}"
    )


# How.


async def _send(
    opened: OpenProfile, before: bytes | None, offline: CommandFailed | None = None
) -> None:
    """The server has what was changed; what it does not take is taken back here."""
    try:
        if offline is not None:
            raise offline
        await opened.sync()
    except CommandFailed as error:
        if error.failure.exit_code is not ExitCode.CANNOT_CONNECT:
            raise
        raise CommandFailed(
            "kept_here",
            f"the wallet is changed here, and not on the server yet: {error}",
            "the next command that has a connection brings it there",
            ExitCode.CANNOT_CONNECT,
        ) from None
    except (WalletTooLarge, MessageTooLarge):
        if before is not None:
            await opened.wallet.change(before)
        raise


async def _edit(profile: Profile, before: bytes | None) -> bytes | None:
    """What the person makes of the wallet; None where it is left as it was."""
    was_json = (
        before is not None
        and profile.merge in ("auto", "json")
        and find_form("auto", before) == "json"
    )
    must_be_json = was_json or profile.merge == "json"
    shown = text = _lay_out(before) if was_json and before is not None else before or b""
    while True:
        text = await edit_text(text, "wallet.json" if must_be_json else "wallet.txt")
        if text == shown:
            return None
        if not must_be_json:
            return text
        try:
            read(text, "what you typed")
        except CannotMerge as error:
            if not passwords.can_ask():
                raise
            confirm(f"{error}. Edit again? No drops it.")
        else:
            return text


def _lay_out(wallet: bytes) -> bytes:
    """A JSON wallet over several lines, if it has but one, and the same to the last digit."""
    if b"\n" in wallet.strip():
        return wallet
    shown = json.dumps(json.loads(wallet), indent=2, ensure_ascii=False).encode() + b"\n"
    return shown if write(read(shown, "it")) == write(read(wallet, "it")) else wallet


def _check_form(profile: Profile, wallet: bytes) -> None:
    if profile.merge == "json":
        try:
            read(wallet, "it")
        except CannotMerge as error:
            raise CommandFailed(
                "not_json", f"this profile's wallet is JSON: {error.cause}"
            ) from None


def _name_copy(file: str, stream: TextIO) -> str:
    """What a working copy goes by: the file's path, also where a shell opened it."""
    if file != STDIO:
        return str(Path(file).resolve())
    try:
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return os.readlink(f"/proc/self/fd/{stream.fileno()}")
    except OSError:
        pass  # no system that tells
    return STDIO


def _read(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == STDIO else Path(file).read_bytes()


def _write(path: Path, value: bytes) -> None:
    if path.exists() and not path.is_file():
        path.write_bytes(value)  # a pipe or a device can't be replaced
    else:
        write_private(path, value)
