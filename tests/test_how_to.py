"""The Python of the how-to pages runs, against a real server, and does what the page says."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import Served
from tests.pages import ROOT, blocks
from wsclient import Contents, Session, Status, SyncedWallet, derive_keys, register, seal
from wsclient.errors import BadCredentials, SessionEnded
from wsclient.merge import JsonMerge
from wsclient.testing.keys import cheap_keys

EMAIL = "joe@example.com"
ROOT_PASSWORD = "correct horse"
NEW_ROOT_PASSWORD = "correct horse battery staple"
WAIT_S = 30


class Page:
    """A page's blocks of Python, run one by one in one namespace, as at a prompt."""

    def __init__(self, name: str, **names: Any) -> None:
        path = ROOT / "docs/how-to" / name
        self._blocks = [block.text for block in blocks(path) if block.info == "python"]
        self.names = {
            "EMAIL": EMAIL,
            "ROOT_PASSWORD": ROOT_PASSWORD,
            "NEW_ROOT_PASSWORD": NEW_ROOT_PASSWORD,
            **names,
        }

    async def run_next(self, **names: Any) -> None:
        """Runs the next block, with these names too."""
        self.names |= names
        code = compile(self._blocks.pop(0), "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        outcome = eval(code, self.names)  # noqa: S307  # the page's own
        if inspect.isawaitable(outcome):
            await asyncio.wait_for(outcome, WAIT_S)

    def assert_finished(self) -> None:
        """Nothing on the page is left to run."""
        assert not self._blocks


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A server with an account."""
    with cheap_keys():
        server = await Served.start(tmp_path)
        async with Session(server.url) as session:
            await register(session, EMAIL, ROOT_PASSWORD)
        yield server
        await server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "laptop"


@contextlib.asynccontextmanager
async def running(task: Awaitable[None]) -> AsyncIterator[None]:
    """The task beside the block; it must not have ended by itself."""
    future = asyncio.ensure_future(task)
    try:
        yield
        assert not future.done(), future.exception()
    finally:
        future.cancel()
        await asyncio.wait([future])


async def wait_until(holds: Callable[[], bool], wallet: SyncedWallet) -> None:
    async with asyncio.timeout(WAIT_S):
        events = wallet.events()
        while not holds():
            await anext(events)


async def test_using_the_client(
    served: Served, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Page("use-the-client.md", SERVER=served.url, FOLDER=folder, EMAIL="ann@example.com")

    await page.run_next()
    assert page.names["registered"].verified
    await page.run_next()
    assert capsys.readouterr().out == "None\n"

    def open_wallet(folder: Path) -> SyncedWallet:
        return SyncedWallet(served.url, "ann@example.com", ROOT_PASSWORD, folder, JsonMerge())

    async with open_wallet(folder) as wallet:
        page.names["wallet"] = wallet
        await page.run_next()
        assert wallet.value == b'{"coins": 3}'
        await page.run_next()
        assert wallet.value == b'{"coins": 4}'
        await page.run_next()
        assert (wallet.unsynced, wallet.sequence) == (False, 1)

        await page.run_next()
        async with (
            running(page.names["show"](wallet)),
            open_wallet(folder.with_name("phone")) as phone,
        ):
            await phone.pull()
            await phone.change(b'{"coins": 5}')
            await phone.sync()
            await wait_until(lambda: wallet.value == b'{"coins": 5}', wallet)
        assert "the wallet is now b'{\"coins\": 5}'" in capsys.readouterr().out

        await page.run_next()
        printed = capsys.readouterr().out
        assert all(f"b'{{\"coins\": {coins}}}'" in printed for coins in (4, 5))
        await page.run_next()
    await page.run_next()
    page.assert_finished()


async def test_working_offline(
    served: Served, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Page("work-offline.md", SERVER=served.url, FOLDER=folder)
    port = served.server.port
    await served.stop()

    await page.run_next()
    async with SyncedWallet(served.url, EMAIL, ROOT_PASSWORD, folder, JsonMerge()) as wallet:
        assert (wallet.value, wallet.unsynced) == (b'{"coins": 3}', True)
        await wait_until(lambda: wallet.status is Status.OFFLINE, wallet)
        await page.run_next(wallet=wallet)
        assert capsys.readouterr().out == "your change will go out the next time\n"

        again = await Served.start(tmp_path, port=port)
        await wallet.sync(WAIT_S)
        assert not wallet.unsynced
    await again.stop()
    page.assert_finished()


async def test_changing_the_password(served: Served, folder: Path) -> None:
    page = Page("change-the-password.md", SERVER=served.url)
    asked = []

    async def show_dialog(text: str) -> str:
        asked.append(text)
        return NEW_ROOT_PASSWORD if "now" in text else ROOT_PASSWORD

    for device in ("phone", "tablet"):
        other = folder.with_name(device)
        async with SyncedWallet(served.url, EMAIL, ROOT_PASSWORD, other, JsonMerge()) as wallet:
            await wallet.change(f'{{"{device}": 1}}'.encode())
            await wallet.sync()

    async with SyncedWallet(served.url, EMAIL, ROOT_PASSWORD, folder, JsonMerge()) as wallet:
        await page.run_next(wallet=wallet)
        assert [version.sequence for version in await wallet.history()] == [wallet.sequence]

    # Begun with the password of before, and of after.
    await page.run_next(FOLDER=folder.with_name("phone"), show_dialog=show_dialog)
    assert [text.split()[1] for text in asked] == ["password"]
    opened = page.names["wallet"]
    assert opened.value == b'{"phone":1,"tablet":1}'
    page.assert_finished()

    asked.clear()
    tablet = folder.with_name("tablet")
    async with SyncedWallet(
        served.url, EMAIL, NEW_ROOT_PASSWORD, tablet, JsonMerge(), ask_password=page.names["ask"]
    ) as wallet:
        await wallet.sync()
    assert [text.split()[1] for text in asked] == ["device"]


async def test_a_device_that_is_not_told_the_new_password_stops_until_it_is(
    served: Served, folder: Path
) -> None:
    phone = folder.with_name("phone")
    passwords = [None, NEW_ROOT_PASSWORD]

    async def ask(needed: object) -> str | None:
        return passwords.pop(0)

    async with (
        SyncedWallet(served.url, EMAIL, ROOT_PASSWORD, folder, JsonMerge()) as wallet,
        SyncedWallet(
            served.url, EMAIL, ROOT_PASSWORD, phone, JsonMerge(), ask_password=ask
        ) as other,
    ):
        await other.sync()
        await wallet.change_password(NEW_ROOT_PASSWORD)
        await wait_until(lambda: other.stopped is not None, other)
        assert isinstance(other.stopped, BadCredentials)

        await other.recover()
        await other.sync()


async def test_using_the_client_with_an_imported_account(served: Served) -> None:
    page = Page("come-from-lbry.md", SERVER=served.url)
    async with Session(served.url) as session:
        await session.login(await derive_keys(session, EMAIL, ROOT_PASSWORD), device_id="phone")
        await session.push(1, "sealed by another app")

    await page.run_next()

    assert page.names["state"].encrypted_wallet == "sealed by another app"
    page.assert_finished()


async def test_recovering(served: Served, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def confirm(text: str) -> bool:
        return True

    page = Page("recover.md", SyncedWallet=SyncedWallet, confirm=confirm)
    await page.run_next()
    page.assert_finished()

    async with SyncedWallet(served.url, EMAIL, ROOT_PASSWORD, folder, JsonMerge()) as wallet:
        await wallet.change(b'{"coins": 3}')
        await wallet.sync()
        async with running(page.names["watch_for_stops"](wallet)), Session(served.url) as liar:
            keys = await derive_keys(liar, EMAIL, ROOT_PASSWORD)
            await liar.login(keys, device_id="liar")
            unrelated = Contents(b'{"stamps": 5}', None, {"liar": 2})
            await liar.push(2, seal(keys, 2, unrelated))
            await wait_until(lambda: wallet.sequence >= 2, wallet)
            await wallet.sync()
        assert wallet.value == b'{"coins":3,"stamps":5}'
    assert "the sync has stopped: refused state 2" in capsys.readouterr().out


async def test_a_device_that_was_revoked_stops_until_it_is_told_to_log_in_again(
    served: Served, folder: Path
) -> None:
    phone = folder.with_name("phone")
    async with (
        SyncedWallet(served.url, EMAIL, ROOT_PASSWORD, folder, JsonMerge()) as wallet,
        SyncedWallet(served.url, EMAIL, ROOT_PASSWORD, phone, JsonMerge()) as other,
    ):
        await asyncio.gather(wallet.sync(WAIT_S), other.sync(WAIT_S))
        await wallet.revoke_device(other.device_id)
        await wait_until(lambda: other.stopped is not None, other)
        assert isinstance(other.stopped, SessionEnded)
        assert other.stopped.reason == "device_revoked"

        await other.recover()
        await other.sync(WAIT_S)
