"""A profile's wallet, open: what nearly every command works on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable
from typing import Final, TypeVar

from wsclient.command import passwords
from wsclient.command.failures import CommandFailed, ExitCode
from wsclient.command.local_keys import LocalKeys
from wsclient.command.merging import make_merge
from wsclient.command.profiles import Profile
from wsclient.crypto import DEFAULT_KDF
from wsclient.errors import MessageTooLarge, WalletTooLarge
from wsclient.merge import Merge
from wsclient.wallet import AskPassword, SyncedWallet
from wsclient.wallet_events import PasswordNeeded, Status, StatusChanged, WalletEvent

T = TypeVar("T")

MINIMUM_KDF = DEFAULT_KDF
"""The weakest key derivation to take from a server on first contact, and that of new accounts."""

_PROMPTS: Final = {
    "changed_elsewhere": "The account has another root password. That one",
    "sealed_before": "It does not open what is here. The root password that was in use here last",
}


class OpenProfile:
    """A profile whose wallet is open, and syncs in the background."""

    def __init__(self, profile: Profile, wallet: SyncedWallet, timeout_s: float) -> None:
        self.profile = profile
        self.wallet = wallet
        self._timeout_s = timeout_s
        self._offline_cause = ""
        self._was_online = False
        self._has_failed = asyncio.Event()

    async def pull(self) -> None:
        """Returns once the server's latest is here, and what is here is there."""
        await self.finish(self.wallet.pull())

    async def try_pull(self) -> CommandFailed | None:
        """Like `pull`, for what can go on without a connection: gives why there is none.

        It can go on as well where the server refuses what is here for its size.
        """
        try:
            await self.pull()
        except (WalletTooLarge, MessageTooLarge):
            return None
        except CommandFailed as error:
            if error.failure.exit_code is not ExitCode.CANNOT_CONNECT:
                raise
            return error
        return None

    async def sync(self) -> None:
        """Returns once the server has what is here."""
        await self.finish(self.wallet.sync())

    async def finish(self, work: Awaitable[T]) -> T:
        """What the work comes to; a server that can't be reached is not waited for.

        A connection that was there and got lost is, as long as the command may take.
        """
        self._has_failed.clear()
        working = asyncio.ensure_future(work)
        failing = asyncio.create_task(self._has_failed.wait())
        try:
            await asyncio.wait(
                {working, failing},
                timeout=self._timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if working.done():
                return working.result()
        finally:
            failing.cancel()
            working.cancel()
        if self._has_failed.is_set():
            raise CommandFailed(
                "cannot_connect",
                self._offline_cause,
                "wsclient doctor finds out why",
                ExitCode.CANNOT_CONNECT,
            )
        raise CommandFailed(
            "timed_out",
            f"not done within {self._timeout_s:g} s",
            "--timeout gives it longer, wsclient doctor finds out what is wrong",
            ExitCode.CANNOT_CONNECT,
        )

    async def events(self) -> AsyncIterator[WalletEvent]:
        """What happens to the wallet from now on."""
        events = self.wallet.events()
        await anext(events)  # how it stands before anything was tried
        async for event in events:
            yield event

    async def take_note(self, events: AsyncIterator[WalletEvent]) -> None:
        """Takes note of what happens, for as long as the wallet is open."""
        async for event in events:
            match event:
                case StatusChanged(status=Status.SYNCING | Status.SYNCED):
                    self._was_online = True
                case StatusChanged(status=Status.OFFLINE, cause=str(cause)):
                    self._offline_cause = cause
                    if not self._was_online:
                        self._has_failed.set()


@contextlib.asynccontextmanager
async def open_profile(
    profile: Profile,
    timeout_s: float,
    *,
    root_password: str | None = None,
    ask: AskPassword | None = None,
    merge: Merge | None = None,
) -> AsyncIterator[OpenProfile]:
    """The profile with its wallet, by the key that is kept here or by the root password.

    ``ask`` is asked for root passwords where one is needed: `ask_password` unless given. ``merge``
    takes the place of the profile's own.
    """
    local_key = None
    if root_password is None:
        local_key = LocalKeys(profile.folder).find()
        if local_key is None:
            raise CommandFailed(
                "not_logged_in",
                f"nobody is logged in to the profile {profile.name!r}",
                "wsclient login",
                ExitCode.NOT_LOGGED_IN,
            )
    wallet = SyncedWallet(
        profile.server,
        profile.email,
        root_password,
        profile.wallet_folder,
        merge or make_merge(profile.merge, profile.identity),
        local_key=local_key,
        device_name=profile.device_name,
        ask_password=ask_password if ask is None else ask,
        minimum_kdf=MINIMUM_KDF,
        ca=profile.ca,
        allow_plaintext=profile.allow_plaintext,
    )
    async with wallet:
        opened = OpenProfile(profile, wallet, timeout_s)
        noting = asyncio.create_task(opened.take_note(wallet.events()))
        try:
            yield opened
        finally:
            noting.cancel()


async def ask_nobody(needed: PasswordNeeded) -> None:
    """No root password: what needs one stops."""


async def ask_password(needed: PasswordNeeded) -> str | None:
    """What a sync is in need of, from whoever sits at the terminal; None where nobody does."""
    if not passwords.can_ask():
        return None
    # The loop stands still meanwhile, so that nothing else writes to the terminal.
    try:
        return passwords.ask(_PROMPTS[needed.reason])
    except KeyboardInterrupt:
        # It is the loop that ends the command: raised here, it would end the sync alone.
        signal.raise_signal(signal.SIGINT)
    return None
