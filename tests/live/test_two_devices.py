"""Two live views of one account, on a real server in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.stage import View
from wsclient import SyncedWallet
from wsclient.live.app import LiveApp
from wsclient.live.asking import HandMerge, PasswordOnScreen
from wsclient.live.dialogs import PasswordDialog, QuestionDialog, ValueDialog
from wsclient.live.merge_dialog import MergeDialog
from wsclient.merge import JsonMerge
from wsclient.testing import TestServer
from wsclient.wallet_events import PasswordNeeded

EMAIL, PASSWORD, NEW_PASSWORD = "joe@example.com", "correct horse", "batterystaple"


class Device(View):
    """A live view of a wallet that is in sync with a server."""

    def __init__(self, wallet: SyncedWallet, view: View) -> None:
        super().__init__(view.app, view.pilot)
        self.wallet = wallet

    async def edit_first_value(self, text: str) -> None:
        await self.press("home", "down", "e")
        await self.until_asked(ValueDialog)
        await self.enter(text)
        await self.press("enter")
        await self.until(lambda: len(self.app.screen_stack) == 1)


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    async with TestServer() as server:
        await server.register(EMAIL, PASSWORD)
        yield server


@contextlib.asynccontextmanager
async def open_device(server: TestServer, folder: Path, name: str) -> AsyncIterator[Device]:
    async def ask_nobody(needed: PasswordNeeded) -> str | None:
        raise AssertionError("asked in the terminal")

    merge, ask_password = HandMerge(JsonMerge()), PasswordOnScreen(ask_nobody)
    async with SyncedWallet(
        server.make_session,
        EMAIL,
        PASSWORD,
        folder / name,
        merge,
        device_name=name,
        ask_password=ask_password,
    ) as wallet:
        app = LiveApp(wallet, merge=merge, ask_password=ask_password)
        async with app.run_test(size=(120, 40), notifications=True) as pilot:
            device = Device(wallet, View(app, pilot))
            await device.until_shown("● synced")
            yield device


@pytest.fixture
async def devices(server: TestServer, tmp_path: Path) -> AsyncIterator[tuple[Device, Device]]:
    """A laptop and a phone that have the same wallet."""
    async with (
        open_device(server, tmp_path, "laptop") as laptop,
        open_device(server, tmp_path, "phone") as phone,
    ):
        await laptop.wallet.change(b'{"coffee":1,"rent":800}')
        await phone.until_shown("coffee: 1")
        yield laptop, phone


async def test_what_is_changed_in_one_is_seen_in_the_other(
    devices: tuple[Device, Device],
) -> None:
    laptop, phone = devices
    await laptop.edit_first_value("2")

    await phone.until_shown("coffee: 2")
    await phone.until_told("laptop changed coffee")
    await laptop.until_told("phone has sequence 2")
    for device, other in ((laptop, "phone"), (phone, "laptop")):
        await device.until_shown(f"● {other:6}  ✓ 2")
    assert phone.app.wallet_tree.glowing == {("coffee",)}


async def test_a_conflict_is_merged_by_hand(
    server: TestServer, devices: tuple[Device, Device]
) -> None:
    laptop, phone = devices
    await phone.press("m")
    server.hold(phone.wallet.device_id)
    await laptop.edit_first_value("2")
    await laptop.until_told("sequence 2 is on the server")
    await phone.edit_first_value("3")
    server.release(phone.wallet.device_id)

    await phone.until_asked(MergeDialog)
    await phone.until_shown("1 of 1  coffee")
    await phone.press("right", "left", "enter")

    await laptop.until_shown("coffee: 3")
    assert phone.wallet.value == laptop.wallet.value == b'{"coffee":3,"rent":800}'


async def test_a_server_that_is_gone_is_waited_for(
    server: TestServer, devices: tuple[Device, Device]
) -> None:
    laptop, phone = devices
    server.refuse_connections()
    server.drop_connections()
    await laptop.until_shown("● offline, next try in")
    await laptop.edit_first_value("2")
    await laptop.until_shown("✎ unsynced changes")
    server.accept_connections()

    await phone.until_shown("coffee: 2")
    await laptop.until_shown("● synced")
    await laptop.until(lambda: "✎" not in laptop.text)


async def test_a_password_that_was_changed_on_another_device_is_asked_for(
    devices: tuple[Device, Device],
) -> None:
    laptop, phone = devices
    await laptop.wallet.change_password(NEW_PASSWORD)

    await phone.until_asked(PasswordDialog)
    await phone.press(*NEW_PASSWORD, "enter")

    await phone.until_shown("● synced")
    await phone.edit_first_value("5")
    await laptop.until_shown("coffee: 5")


async def test_a_server_that_went_back_in_time_is_believed_only_if_that_is_wanted(
    server: TestServer, devices: tuple[Device, Device]
) -> None:
    laptop, phone = devices
    before = server.snapshot()
    await laptop.edit_first_value("2")
    await phone.until_shown("coffee: 2")
    await server.go_back(before, announced=False)

    await phone.until_asked(QuestionDialog)
    assert phone.wallet.value == b'{"coffee":2,"rent":800}'
    await phone.press("y")

    await phone.until_shown("● synced")
    await phone.until(lambda: not phone.wallet.unsynced)
    assert phone.wallet.value == b'{"coffee":2,"rent":800}'
