"""The live view of a wallet in sync, in a terminal: what ``wsclient live`` shows.

::

    merge, ask_password = HandMerge(profile_merge), PasswordOnScreen(ask_in_terminal)
    async with SyncedWallet(server, email, None, folder, merge, local_key=key,
                            ask_password=ask_password) as wallet:
        await run_live(wallet, merge=merge, ask_password=ask_password,
                       profile="home", address=server)
"""

from __future__ import annotations

from wsclient.live.app import LiveApp
from wsclient.live.asking import HandMerge, PasswordOnScreen
from wsclient.wallet import SyncedWallet

__all__ = ["HandMerge", "PasswordOnScreen", "run_live"]


async def run_live(
    wallet: SyncedWallet,
    *,
    merge: HandMerge | None = None,
    ask_password: PasswordOnScreen | None = None,
    profile: str = "",
    address: str = "",
) -> None:
    """Shows a wallet that is open, until the person at the terminal has seen enough.

    ``merge`` and ``ask_password`` are those that the wallet was made with: while it is shown, they
    ask on the screen. ``profile`` and ``address`` (the server's) are shown on top.
    """
    await LiveApp(
        wallet, merge=merge, ask_password=ask_password, profile=profile, address=address
    ).run_async()
