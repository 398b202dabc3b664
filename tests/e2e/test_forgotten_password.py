"""A forgotten root password: the server has no wallet any more, and a device brings it back."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.e2e.conftest import Serve
from tests.e2e.mailing import Town, open_town
from wsclient import DEFAULT_KDF, Session, SyncedWallet, crypto, register
from wsclient.merge import last_writer_wins
from wsclient.testing.keys import cheap_keys
from wsclient.wallet_events import PasswordNeeded
from wsschema.messages import Reset, Verify

EMAIL = "joe@example.com"
FORGOTTEN = "correct horse"
NEW = "correct horse battery staple"


async def set_new_password(town: Town) -> None:
    """What the page behind the link of a mail does."""
    link = await town.request_reset(EMAIL)
    seed = secrets.token_hex(32)
    keys = crypto.derive_keys(EMAIL, NEW, seed, DEFAULT_KDF)
    async with Session(town.served.url) as session:
        await session.call(Reset(link.token, keys.password, seed, DEFAULT_KDF))


async def test_a_device_asks_for_the_new_password_and_pushes_what_it_has(
    serve: Serve, tmp_path: Path
) -> None:
    asked = []

    async def ask(needed: PasswordNeeded) -> str:
        asked.append(needed.reason)
        return NEW

    def open_wallet(folder: str, root_password: str) -> SyncedWallet:
        return SyncedWallet(
            town.served.url,
            EMAIL,
            root_password,
            tmp_path / folder,
            last_writer_wins,
            ask_password=ask,
        )

    async with open_town(serve) as town:
        with cheap_keys():
            async with Session(town.served.url) as session:
                await register(session, EMAIL, FORGOTTEN)
                await session.call(Verify((await town.link(EMAIL)).token))
            async with open_wallet("laptop", FORGOTTEN) as laptop:
                await laptop.change(b"three coins")
                await laptop.sync()

                await set_new_password(town)
                await laptop.pull()

            async with open_wallet("phone", NEW) as phone:
                await phone.pull()
                assert phone.value == b"three coins"
    assert asked == ["changed_elsewhere"]
