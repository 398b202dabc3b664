"""The commands about an account and this device's part in it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from wsclient import account
from wsclient.command import opening
from wsclient.command.failures import CommandFailed, ExitCode, Failure, describe_failure
from wsclient.command.local_keys import LocalKeys
from wsclient.command.merging import MERGES
from wsclient.command.opening import ask_nobody, ask_password, open_profile
from wsclient.command.passwords import PasswordSource
from wsclient.command.private_files import make_private_folder
from wsclient.command.profiles import DEFAULT_SERVER, Profile, find_folder
from wsclient.command.running import Invocation, command, confirm, yes_option
from wsclient.errors import FolderInUse, SessionEnded, Unauthorized, WalletSyncError
from wsclient.session import Session
from wsclient.wallet_events import PasswordNeeded
from wsschema.fields import Email, FieldError, lower_email

F = TypeVar("F", bound=Callable[..., Any])


def _read_email(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        Email().read(text, "", lenient=False)
    except FieldError as error:
        raise click.BadParameter(f"{text!r} {error.text}") from None
    return text


def _read_identity(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, str]:
    identity = {}
    for text in texts:
        pointer, _, member = text.rpartition("=")
        if not member or not pointer.startswith("/"):
            raise click.BadParameter(f"{text!r} is not like /entries=id")
        identity[pointer] = member
    return identity


def _profile_options(function: F) -> F:
    for option in (
        click.option("--allow-plaintext", is_flag=True, help="Take ws:// to other machines too."),
        click.option(
            "--ca",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, resolve_path=True),
            help="PEM file of the private authority that vouches for the server.",
        ),
        click.option(
            "--identity",
            metavar="POINTER=MEMBER",
            multiple=True,
            callback=_read_identity,
            help="The elements of the JSON list at POINTER are told apart by MEMBER: /entries=id.",
        ),
        click.option(
            "--merge",
            type=click.Choice([*MERGES]),
            help="How to merge what two devices changed: "
            + ", ".join(f"{kind} ({how})" for kind, how in MERGES.items())
            + ".  [default: auto]",
        ),
        click.option(
            "--device-name",
            metavar="TEXT",
            help="What your other devices see.  [default: the name of this machine]",
        ),
        click.option(
            "--server",
            metavar="URL",
            help=f"Address of the server.  [default: WSSERVER_URL, else {DEFAULT_SERVER}]",
        ),
    ):
        function = option(function)
    return function


def _password_options(function: F) -> F:
    function = click.option(
        "--password-file",
        metavar="FILE",
        type=click.Path(exists=True, path_type=Path),
        help="Read the root password from a file that is yours alone (mode 0600).",
    )(function)
    return click.option(
        "--password-stdin", is_flag=True, help="Read the root password from standard input."
    )(function)


_LOGGED_IN: Final = (
    *("profile", "server", "email", "deviceName", "verified"),
    *("deviceId?", "sequence?", "keyIn?"),
)


@command("register", *_LOGGED_IN)
@click.argument("email", callback=_read_email)
@_profile_options
@_password_options
async def register(
    invocation: Invocation,
    email: str,
    password_file: Path | None,
    password_stdin: bool,
    **chosen: Any,
) -> None:
    """Make an account, and log in to it.

    The root password is asked for. It never leaves this device, and nobody can give it back to
    you: without it the wallet is lost.

    \b
    wsclient register joe@example.com --server wss://sync.example.com/v1
    """
    profile = _prepare_profile(invocation.profile_name, email, chosen)
    source = PasswordSource(password_file, password_stdin)
    root_password = source.read_new(f"New root password for {email}")
    with invocation.console.busy("Deriving keys from the root password"):
        async with Session(
            profile.server, ca=profile.ca, allow_plaintext=profile.allow_plaintext
        ) as session:
            registered = await account.register(
                session, email, root_password, kdf=opening.MINIMUM_KDF
            )
    if registered.verified:
        await _log_in(invocation, profile, root_password, may_ask=source.is_terminal)
        return
    profile.save()
    invocation.console.show(
        {**profile.describe(), "verified": False},
        f"A mail is on its way to {email}. Follow its link, then: wsclient login",
    )


@command("login", *_LOGGED_IN)
@click.argument("email", required=False, callback=_read_email)
@_profile_options
@_password_options
async def login(
    invocation: Invocation,
    email: str | None,
    password_file: Path | None,
    password_stdin: bool,
    **chosen: Any,
) -> None:
    """Make this device one of the account's.

    It gets a key of its own, kept in the system's keyring or else in a file (mode 0600), with which
    all commands open what is here. The root password is kept nowhere.

    \b
    wsclient login joe@example.com --server wss://sync.example.com/v1
    wsclient login --password-file secret    # once more, to the same account
    """
    profile = _prepare_profile(invocation.profile_name, email, chosen)
    source = PasswordSource(password_file, password_stdin)
    root_password = source.read(f"Root password for {profile.email}")
    await _log_in(invocation, profile, root_password, may_ask=source.is_terminal)


@command("passwd", "changed")
@click.option(
    "--new-password-file",
    metavar="FILE",
    type=click.Path(exists=True, path_type=Path),
    help="Read the new root password from a file of mode 0600.",
)
@_password_options
async def passwd(
    invocation: Invocation,
    new_password_file: Path | None,
    password_file: Path | None,
    password_stdin: bool,
) -> None:
    """Change the root password.

    The wallet is sealed anew in the same step, and its older versions are deleted, for the old
    password opens them. Your other devices ask for the new one. With --password-stdin the first
    line is the present password, and the second the new one.

    \b
    wsclient passwd
    """
    profile = invocation.load_profile()
    source = PasswordSource(password_file, password_stdin)
    present = source.read("Present root password")
    new = PasswordSource(new_password_file, password_stdin).read_new("New root password")
    with invocation.console.busy("Deriving keys from both root passwords"):
        async with open_profile(
            profile, invocation.timeout_s, root_password=present, ask=ask_nobody
        ) as opened:
            await opened.finish(opened.wallet.change_password(new))
    invocation.console.show({"changed": True}, "The root password is changed.")


@command("logout", "loggedOut", "forgotten")
@click.option("--forget", is_flag=True, help="Also delete what this device keeps of the wallet.")
@yes_option
async def logout(invocation: Invocation, forget: bool, yes: bool) -> None:
    """End this device's session, and remove its key.

    The wallet stays here, sealed, and opens at the next login with the root password.

    \b
    wsclient logout
    """
    profile = invocation.load_profile()
    if forget and not yes:
        confirm(f"Delete what this device keeps of the wallet of {profile.email}?")
    keys, untold = LocalKeys(profile.folder), None
    if keys.find() is not None:
        untold = await _end_token(profile, invocation.timeout_s)
        keys.forget()
    if forget:
        profile.remove()
    if untold is not None:
        raise CommandFailed(
            "server_not_told",
            f"logged out here, but the server was not told: {untold.text}",
            "revoke this device from another one",
            untold.exit_code,
        )
    kept = "nothing of the wallet is left here" if forget else "the wallet stays here, sealed"
    invocation.console.show({"loggedOut": True, "forgotten": forget}, f"Logged out; {kept}.")


@command("delete", "deleted")
@yes_option
async def delete(invocation: Invocation, yes: bool) -> None:
    """Delete the account and its wallet for good.

    It is gone from the server and from here; your other devices keep what they have.

    \b
    wsclient pull backup.json && wsclient delete
    """
    profile = invocation.load_profile()
    if not yes:
        confirm(
            f"Delete the account {profile.email} and its wallet for good, on the server and here?"
        )
    async with open_profile(profile, invocation.timeout_s) as opened:
        await opened.finish(opened.wallet.delete_account())
    LocalKeys(profile.folder).forget()
    profile.remove()
    invocation.console.show({"deleted": True}, f"{profile.email} is deleted.")


# How.


def _prepare_profile(name: str, email: str | None, chosen: dict[str, Any]) -> Profile:
    """The profile of that name, or a new one, with what was chosen; not saved yet."""
    given = {option: value for option, value in chosen.items() if value}
    try:
        profile = Profile.load(name)
    except CommandFailed as error:
        if error.failure.reason != "no_profile" or email is None:
            raise
        return Profile(
            **{
                "folder": find_folder(name),
                "server": os.environ.get("WSSERVER_URL") or DEFAULT_SERVER,
                "email": lower_email(email),
                "device_name": socket.gethostname(),
                "merge": "auto",
                **given,
            }
        )
    if email is not None and lower_email(email) != profile.email:
        raise CommandFailed(
            "profile_taken",
            f"the profile {name!r} is that of {profile.email}",
            "--profile NAME makes another one; wsclient logout --forget frees this one",
            ExitCode.MISUSED,
        )
    return dataclasses.replace(profile, **given)


async def _log_in(
    invocation: Invocation, profile: Profile, root_password: str, *, may_ask: bool
) -> None:
    async def ask(needed: PasswordNeeded) -> str | None:
        if not may_ask:
            return None
        with invocation.console.quiet():
            return await ask_password(needed)

    is_new = not profile.folder.exists()
    make_private_folder(profile.folder)
    try:
        with invocation.console.busy("Deriving keys from the root password"):
            async with open_profile(
                profile, invocation.timeout_s, root_password=root_password, ask=ask
            ) as opened:
                await opened.pull()
                wallet = opened.wallet
                place = LocalKeys(profile.folder).keep(wallet.local_key)
                profile.save()
    except BaseException:
        if is_new:
            shutil.rmtree(profile.folder)
        raise
    invocation.console.show(
        {
            **profile.describe(),
            "verified": True,
            "deviceId": wallet.device_id,
            "sequence": wallet.sequence,
            "keyIn": place,
        },
        f"{profile.email} is logged in at {profile.server}.\n"
        f"This device is {profile.device_name!r}; its key is in "
        f"{'the system keyring' if place == 'keyring' else 'a file of the profile'}.",
    )


async def _end_token(profile: Profile, timeout_s: float) -> Failure | None:
    """Ends this device's token; gives why it may still be good."""
    try:
        async with open_profile(profile, timeout_s, ask=ask_nobody) as opened:
            await opened.finish(opened.wallet.logout())
    except FolderInUse:
        raise
    except (SessionEnded, Unauthorized):
        pass  # it is good no more
    except WalletSyncError as error:
        return describe_failure(error)
    return None
