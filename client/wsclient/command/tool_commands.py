"""The commands about the way to the server, and those that stay open."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import click
from click.shell_completion import get_completion_class

from wsclient.command.console import Console
from wsclient.command.doctor import Examination, Finding, Verdict, good
from wsclient.command.failures import CommandFailed, ExitCode, describe_failure
from wsclient.command.local_keys import LocalKeys
from wsclient.command.merging import make_merge
from wsclient.command.opening import ask_nobody, ask_password, open_profile
from wsclient.command.profiles import DEFAULT_SERVER, Profile
from wsclient.command.running import Invocation, command, wsclient
from wsclient.command.telling import SHORT_ID_CHARS
from wsclient.errors import FolderInUse, WalletSyncError


@command(
    "status",
    *("profile", "server", "email", "deviceName", "deviceId", "folder", "merge", "keyIn"),
    *("sequence", "bytes", "unsynced", "online", "cause", "roundTripMs"),
)
async def status(invocation: Invocation) -> None:
    """Show the profile, the wallet and the connection.

    It works without a connection, too.

    \b
    wsclient status
    """
    profile = invocation.load_profile()
    async with open_profile(profile, invocation.timeout_s, ask=ask_nobody) as opened:
        wallet = opened.wallet
        offline = await opened.try_pull()
        trip_s = None if offline is not None else await opened.finish(wallet.ping())
        document = {
            **profile.describe(),
            "deviceId": wallet.device_id,
            "folder": str(profile.folder),
            "merge": profile.merge,
            "keyIn": LocalKeys(profile.folder).place,
            "sequence": wallet.sequence,
            "bytes": None if wallet.value is None else len(wallet.value),
            "unsynced": wallet.unsynced,
            "online": offline is None,
            "cause": None if offline is None else str(offline),
            "roundTripMs": None if trip_s is None else round(trip_s * 1000, 3),
        }
    invocation.console.show(document, _describe_status(document))


def _describe_status(document: dict[str, Any]) -> str:
    lines = {
        "profile": f"{document['profile']}, in {document['folder']}",
        "account": f"{document['email']} at {document['server']}",
        "device": f"{document['deviceName']}, {document['deviceId'][:SHORT_ID_CHARS]}",
        "key": "in the system keyring" if document["keyIn"] == "keyring" else "in a file",
        "wallet": "none yet"
        if document["bytes"] is None
        else f"{document['bytes']:,} bytes, sequence {document['sequence']}",
        "changes": f"{'some' if document['unsynced'] else 'none'} that the server does not have",
        "server": f"online, round trip {document['roundTripMs']:.1f} ms"
        if document["online"]
        else document["cause"],
    }
    return "\n".join(f"{name:9}{text}" for name, text in lines.items())


@command("doctor", "step", "verdict", "text", "advice")
@click.option("--server", metavar="URL", help="Another address than the profile's.")
@click.option(
    "--ca",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="PEM file of the private authority that vouches for the server.",
)
async def doctor(invocation: Invocation, server: str | None, ca: str | None) -> ExitCode:
    """Find out what is wrong between here and the server.

    Step by step: the address, a proxy, DNS, TCP, TLS, the WebSocket, the protocol, the clock, the
    limits, the round trip, and the login, where there is a profile. The first step that fails is
    the last, and the exit code tells which kind it was. With --json each step is a line.

    \b
    wsclient doctor
    wsclient doctor --server wss://sync.example.com/v1
    """
    code = ExitCode.DONE
    async for finding in _examine(invocation, server, ca):
        if finding.verdict is Verdict.BAD:
            code = finding.exit_code
        _show_finding(invocation.console, finding)
    return code


async def _examine(
    invocation: Invocation, server: str | None, ca: str | None
) -> AsyncIterator[Finding]:
    profile = None
    try:
        profile = invocation.load_profile()
    except CommandFailed as error:
        if error.failure.reason != "no_profile":
            raise
    where = server or (profile.server if profile else os.environ.get("WSSERVER_URL"))
    examination = Examination(
        where or DEFAULT_SERVER,
        ca=ca or (profile.ca if profile else None),
        allow_plaintext=profile is not None and profile.allow_plaintext,
    )
    async for finding in examination.findings():
        yield finding
        if finding.verdict is Verdict.BAD:
            return
    if profile is None:
        yield Finding("login", Verdict.SKIPPED, f"there is no profile {invocation.profile_name!r}")
    elif server not in (None, profile.server):
        yield Finding("login", Verdict.SKIPPED, "the profile is at another server")
    else:
        yield await _examine_login(profile, invocation.timeout_s)


async def _examine_login(profile: Profile, timeout_s: float) -> Finding:
    try:
        async with open_profile(profile, timeout_s, ask=ask_nobody) as opened:
            await opened.pull()
            return good("login", f"{profile.email}, the wallet is at {opened.wallet.sequence}")
    except FolderInUse:
        return Finding("login", Verdict.SKIPPED, "another process has the profile open")
    except WalletSyncError as error:
        failure = describe_failure(error)
        assert failure is not None, "every error of the project is foreseen"
        return Finding("login", Verdict.BAD, failure.text, failure.advice, failure.exit_code)


_MARKS: Final = {
    Verdict.GOOD: ("\N{CHECK MARK}", None),
    Verdict.DOUBTFUL: ("!", "yellow"),
    Verdict.BAD: ("\N{BALLOT X}", "red"),
    Verdict.SKIPPED: ("-", "bright_black"),
}


def _show_finding(console: Console, finding: Finding) -> None:
    mark, color = _MARKS[finding.verdict]
    advice = "" if finding.advice is None else f"\n{'':14}{finding.advice}"
    console.show_next(
        {
            "step": finding.step,
            "verdict": finding.verdict,
            "text": finding.text,
            "advice": finding.advice,
        },
        f"{mark} {finding.step:12}{finding.text}{advice}",
        color,
    )


@command("repl")
async def repl(invocation: Invocation) -> None:
    """Try things out with the wallet, at a Python prompt with await.

    `wallet` is a SyncedWallet. What happens to it is told above the prompt as it happens.

    \b
    wsclient repl
    """
    from wsclient.command.repl import run_repl

    _require_terminal()
    profile = invocation.load_profile()
    async with open_profile(profile, invocation.timeout_s, ask=ask_nobody) as opened:
        await run_repl(opened)


@command("live")
async def live(invocation: Invocation) -> None:
    """See the wallet, its devices and what happens, and change it.

    \b
    wsclient live
    """
    from wsclient.live import HandMerge, PasswordOnScreen, run_live

    _require_terminal()
    profile = invocation.load_profile()
    merge = HandMerge(make_merge(profile.merge, profile.identity), identity=profile.identity)
    ask = PasswordOnScreen(ask_password)
    async with open_profile(profile, invocation.timeout_s, ask=ask, merge=merge) as opened:
        await run_live(
            opened.wallet,
            merge=merge,
            ask_password=ask,
            profile=profile.name,
            address=profile.server,
        )


def _require_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("this needs a terminal")


@command("completion", "shell", "script")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
async def completion(invocation: Invocation, shell: str) -> None:
    """Print what makes a shell complete commands and options.

    \b
    eval "$(wsclient completion bash)"                                    # in ~/.bashrc
    eval "$(wsclient completion zsh)"                                     # in ~/.zshrc
    wsclient completion fish > ~/.config/fish/completions/wsclient.fish
    """
    made = get_completion_class(shell)
    assert made is not None, "these are click's own"
    script = made(wsclient, {}, "wsclient", "_WSCLIENT_COMPLETE").source()
    invocation.console.show({"shell": shell, "script": script}, script)
