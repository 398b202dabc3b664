"""A wallet that stays in sync, against a real server in this process."""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from wsclient import Status, SyncedWallet, WalletEvent
from wsclient.errors import (
    BadCredentials,
    FolderInUse,
    LocalStateDamaged,
    NoSuchVersion,
    NotAuthenticated,
    SessionEnded,
    WalletTooLarge,
    WrongPassword,
)
from wsclient.storage import LocalStore
from wsclient.testing import TestServer
from wsclient.wallet import EVENTS_MAX
from wsclient.wallet_events import (
    ConflictMerged,
    DeviceUpdated,
    PasswordNeeded,
    Pushed,
    PushRefused,
    Restored,
    StatusChanged,
    Stopped,
    ValueChanged,
)
from wsschema.limits import Limits

EMAIL, PASSWORD, NEW_PASSWORD = "joe@example.com", "correct horse", "battery staple"
PATIENCE_S = 10.0


def merge(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
    """Words; what either side added or removed is added or removed."""
    shared, ours, others = set((base or b"").split()), set(mine.split()), set(theirs.split())
    return b" ".join(sorted((ours & others) | (ours - shared) | (others - shared)))


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    async with TestServer(limits=Limits(wallet_bytes=4096)) as server:
        await server.register(EMAIL, PASSWORD)
        yield server


class Devices:
    """The wallets of one account, each with its folder."""

    def __init__(self, server: TestServer, folder: Path) -> None:
        self._server, self._folder = server, folder

    def __call__(
        self, name: str, root_password: str | None = PASSWORD, **options: Any
    ) -> SyncedWallet:
        chosen = {"device_name": name, "debounce_s": 0.0, "merge": merge, **options}
        return SyncedWallet(
            self._server.make_session, EMAIL, root_password, self._folder / name, **chosen
        )


@pytest.fixture
def device(server: TestServer, tmp_path: Path) -> Devices:
    return Devices(server, tmp_path)


class Answers:
    """Someone who is asked for a password."""

    def __init__(self, *passwords: str | None) -> None:
        self.asked: list[PasswordNeeded] = []
        self._passwords = [*passwords]

    async def __call__(self, needed: PasswordNeeded) -> str | None:
        self.asked.append(needed)
        return self._passwords.pop(0)


async def find(events: AsyncIterator[WalletEvent], kind: type[WalletEvent]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__} came")


async def add(wallet: SyncedWallet, word: bytes) -> None:
    await wallet.change(lambda value: merge(None, value or b"", word))


async def put(wallet: SyncedWallet, word: bytes) -> None:
    await add(wallet, word)
    await wallet.sync(PATIENCE_S)


# Two devices.


async def test_a_change_on_one_device_is_on_the_other(device: Devices) -> None:
    async with device("laptop") as laptop, device("phone") as phone:
        events = phone.events()
        await phone.sync(PATIENCE_S)
        await put(laptop, b"one")
        assert await find(events, ValueChanged) == ValueChanged(b"one", 1, laptop.device_id)
        assert phone.value == b"one"
        assert not phone.unsynced


async def test_changes_on_both_devices_are_merged(server: TestServer, device: Devices) -> None:
    async with device("laptop") as laptop, device("phone") as phone:
        await put(laptop, b"base")
        await phone.pull(PATIENCE_S)
        server.hold()
        events = [laptop.events(), phone.events()]
        await add(laptop, b"laptop")
        await add(phone, b"phone")
        server.release()
        await server.until(lambda: laptop.value == phone.value == b"base laptop phone")
        merged = [
            await find(reader, kind) for reader, kind in zip(events, (Pushed, Pushed), strict=True)
        ]
        assert {event.sequence for event in merged} == {2, 3}
        assert not laptop.unsynced
        assert not phone.unsynced


async def test_a_merge_may_wait_for_a_person(server: TestServer, device: Devices) -> None:
    decided = asyncio.Event()

    async def ask(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
        await decided.wait()
        return merge(base, mine, theirs)

    async with device("laptop") as laptop, device("phone", merge=ask) as phone:
        events = phone.events()
        await phone.sync(PATIENCE_S)
        server.hold(phone.device_id)
        await add(phone, b"phone")
        await put(laptop, b"laptop")
        server.release(phone.device_id)
        decided.set()
        await phone.sync(PATIENCE_S)
        merged: ConflictMerged = await find(events, ConflictMerged)
        assert (merged.base, merged.mine, merged.theirs) == (None, b"phone", b"laptop")
        assert phone.value == b"laptop phone"


async def test_what_each_device_has_applied_is_known(device: Devices) -> None:
    async with device("laptop") as laptop:
        assert await laptop.devices() == ()
        await put(laptop, b"one")
        events = laptop.events()
        async with device("phone") as phone:
            await phone.pull(PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                while (await find(events, DeviceUpdated)).device.applied_sequence < 1:
                    pass
            known = {one.name: one for one in await laptop.devices()}
            assert {name: one.applied_sequence for name, one in known.items()} == {
                "laptop": 1,
                "phone": 1,
            }
            assert known["phone"].online
            assert known["laptop"].current
            await phone.revoke_device(laptop.device_id)
            assert isinstance((await find(events, Stopped)).error, SessionEnded)
        offline = await laptop.devices()
        assert len(offline) == 2
        assert not any(one.online for one in offline)


async def test_older_versions_can_be_looked_at(device: Devices) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"one")
        await put(laptop, b"two")
        assert [version.sequence for version in await laptop.history()] == [2, 1]
        assert await laptop.load_version(1) == b"one"
        with pytest.raises(NoSuchVersion):
            await laptop.load_version(3)


# Without a connection.


async def test_what_was_changed_offline_goes_out_after_a_restart(
    server: TestServer, device: Devices
) -> None:
    server.refuse_connections()
    async with device("laptop") as laptop:
        await add(laptop, b"offline")
        await server.until(lambda: laptop.status is Status.OFFLINE)
        with pytest.raises(TimeoutError):
            await laptop.sync(0.01)
    async with device("laptop") as laptop:
        assert laptop.value == b"offline"
        server.accept_connections()
        await laptop.sync(PATIENCE_S)
    assert server.stored(EMAIL).sequence == 1


async def test_a_push_whose_answer_is_lost_lands_once(server: TestServer, device: Devices) -> None:
    async with device("laptop") as laptop:
        await laptop.sync(PATIENCE_S)
        server.lose_next_answer("wallet.push")
        await put(laptop, b"one")
        assert server.stored(EMAIL).sequence == laptop.sequence == 1


async def test_changes_in_a_moment_go_out_as_one(server: TestServer, device: Devices) -> None:
    async with device("laptop", debounce_s=0.05) as laptop:
        await laptop.sync(PATIENCE_S)
        for number in range(20):
            await add(laptop, b"%d" % number)
        await server.until(lambda: laptop.status is Status.SYNCED and not laptop.unsynced)
        assert laptop.sequence < 5


async def test_a_wallet_that_never_stops_changing_goes_out_all_the_same(
    server: TestServer, device: Devices
) -> None:
    async with device("laptop", debounce_s=0.02) as laptop:
        await laptop.sync(PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            number = 0
            while laptop.sequence == 0:
                number += 1
                await laptop.change(b"%d" % number)
                await asyncio.sleep(0.001)


# What the server does not take.


async def test_a_wallet_that_is_too_large_stays_here_and_a_smaller_one_goes_out(
    device: Devices,
) -> None:
    async with device("laptop") as laptop:
        events = laptop.events()
        await laptop.change(bytes(5000))
        with pytest.raises(WalletTooLarge):
            await laptop.sync(PATIENCE_S)
        assert isinstance((await find(events, PushRefused)).error, WalletTooLarge)
        assert laptop.unsynced
        assert laptop.stopped is None
        await laptop.change(b"small")
        await laptop.sync(PATIENCE_S)
        assert not laptop.unsynced


async def test_a_merge_that_fails_stops_the_sync_until_it_is_told_to_go_on(
    server: TestServer, device: Devices
) -> None:
    outcomes: list[Exception | None] = [ZeroDivisionError("merge"), None]

    def fail_once(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
        error = outcomes.pop(0)
        if error is not None:
            raise error
        return merge(base, mine, theirs)

    async with device("laptop") as laptop, device("phone", merge=fail_once) as phone:
        await phone.sync(PATIENCE_S)
        server.hold(phone.device_id)
        await add(phone, b"phone")
        await put(laptop, b"laptop")
        server.release(phone.device_id)
        with pytest.raises(ZeroDivisionError):
            await phone.sync(PATIENCE_S)
        assert phone.status is Status.STOPPED
        assert phone.value == b"phone"
        await phone.recover()
        await phone.sync(PATIENCE_S)
        assert phone.value == b"laptop phone"


# The root password.


async def test_a_password_change_reaches_devices_that_ask_for_the_new_one(
    device: Devices,
) -> None:
    someone = Answers(NEW_PASSWORD)
    async with device("laptop") as laptop:
        async with device("phone", ask_password=someone) as phone:
            await put(laptop, b"one")
            await laptop.change_password(NEW_PASSWORD)
            await laptop.sync(PATIENCE_S)
            await add(phone, b"two")
            await phone.sync(PATIENCE_S)
            assert someone.asked == [PasswordNeeded("changed_elsewhere")]
            await laptop.pull(PATIENCE_S)
            assert laptop.value == phone.value == b"one two"
        with pytest.raises(WrongPassword):
            await device("phone").__aenter__()
    for name in ("laptop", "phone"):
        async with device(name, NEW_PASSWORD) as again:
            await again.pull(PATIENCE_S)
            assert again.value == b"one two"


async def test_who_has_no_one_to_ask_stops_and_keeps_the_wallet(device: Devices) -> None:
    async with device("laptop") as laptop, device("phone") as phone:
        await put(laptop, b"one")
        await phone.pull(PATIENCE_S)
        events = phone.events()
        await laptop.change_password(NEW_PASSWORD)
        stopped: Stopped = await find(events, Stopped)
        assert isinstance(stopped.error, BadCredentials)
        assert phone.value == b"one"


async def test_the_new_password_opens_what_was_sealed_under_the_one_before(
    device: Devices,
) -> None:
    async with device("phone") as phone:
        await put(phone, b"one")
    async with device("laptop") as laptop:
        await laptop.pull(PATIENCE_S)
        await laptop.change_password(NEW_PASSWORD)
    someone = Answers("wrong", PASSWORD)
    async with device("phone", NEW_PASSWORD, ask_password=someone) as phone:
        await put(phone, b"two")
    assert someone.asked == [PasswordNeeded("sealed_before")] * 2
    async with device("phone", NEW_PASSWORD) as phone:
        assert phone.value == b"one two"


async def test_a_password_change_whose_answer_is_lost_is_finished(
    server: TestServer, device: Devices
) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"one")
        server.lose_next_answer("account.changePassword")
        await laptop.change_password(NEW_PASSWORD)
        await put(laptop, b"two")
    with pytest.raises(WrongPassword):
        await device("laptop").__aenter__()
    async with device("tablet", NEW_PASSWORD) as tablet:
        await tablet.pull(PATIENCE_S)
        assert tablet.value == b"one two"


@pytest.mark.parametrize("opened_with", [PASSWORD, NEW_PASSWORD])
async def test_a_password_change_that_was_cut_short_is_finished_by_the_next_start(
    server: TestServer, device: Devices, opened_with: str
) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"one")
        server.hold()
        changing = asyncio.create_task(laptop.change_password(NEW_PASSWORD))
        await server.until(lambda: laptop._core.state.password_change is not None)
    with pytest.raises(SessionEnded):
        await changing
    server.release()
    async with device("laptop", opened_with) as laptop:
        await put(laptop, b"two")
        await server.until(lambda: laptop._core.state.password_change is None)
        await laptop.sync(PATIENCE_S)
    async with device("tablet", NEW_PASSWORD) as tablet:
        await tablet.pull(PATIENCE_S)
        assert tablet.value == b"one two"
    with pytest.raises(WrongPassword):
        await device("laptop", PASSWORD).__aenter__()


async def test_of_two_devices_that_change_the_password_one_is_told_that_it_was_late(
    server: TestServer, device: Devices
) -> None:
    someone = Answers(NEW_PASSWORD)
    async with device("laptop") as laptop, device("phone", ask_password=someone) as phone:
        await put(laptop, b"one")
        await phone.pull(PATIENCE_S)
        server.hold(phone.device_id)
        late = asyncio.create_task(phone.change_password("a third"))
        await server.until(lambda: phone._core.state.password_change is not None)
        await laptop.change_password(NEW_PASSWORD)
        server.release(phone.device_id)
        with pytest.raises(BadCredentials):
            await late
        await put(phone, b"two")
    async with device("phone", NEW_PASSWORD) as phone:
        assert phone.value == b"one two"


# The end of a token, of a device, of an account.


async def test_a_token_that_ended_is_replaced_by_a_login(
    server: TestServer, device: Devices
) -> None:
    async with device("laptop") as laptop:
        events = laptop.events()
        await put(laptop, b"one")
        snapshot = server.snapshot()
        await put(laptop, b"two")
        await server.go_back(snapshot, announced=True)
        await find(events, Restored)
        await laptop.sync(PATIENCE_S)
        assert laptop.value == b"one two"
        assert server.stored(EMAIL).sequence == laptop.sequence == 2


async def test_a_copy_of_the_folder_in_use_elsewhere_is_replaced_and_stays_away(
    device: Devices, tmp_path: Path
) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"one")
        copy = tmp_path / "copy"
        copy.mkdir()
        (copy / "wallet.sealed").write_bytes((laptop.folder / "wallet.sealed").read_bytes())
        laptop._core.state.token = None
        async with device("copy") as other:
            other._core.state.token = None
            events = laptop.events()
            stopped: Stopped = await find(events, Stopped)
            assert isinstance(stopped.error, SessionEnded)
            assert stopped.error.reason == "replaced"
            await other.sync(PATIENCE_S)


async def test_after_a_logout_nothing_goes_on_by_itself(
    server: TestServer, device: Devices
) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"one")
        await laptop.logout()
        assert laptop.status is Status.STOPPED
        assert isinstance(laptop.stopped, SessionEnded)
        assert laptop.value == b"one"
        assert server.connections == ()
        await laptop.recover()
        await laptop.sync(PATIENCE_S)


async def test_a_deleted_account_leaves_the_wallet_here(
    server: TestServer, device: Devices
) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"one")
        await laptop.delete_account()
        assert isinstance(laptop.stopped, SessionEnded)
        assert laptop.value == b"one"
    with pytest.raises(LookupError):
        server.stored(EMAIL)


async def test_an_account_is_not_deleted_before_this_device_has_logged_in(
    server: TestServer, device: Devices
) -> None:
    server.refuse_connections()
    async with device("laptop") as laptop:
        with pytest.raises(NotAuthenticated):
            await laptop.delete_account()


# The folder.


async def test_a_folder_opens_with_its_own_key_and_no_password(device: Devices) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"one")
        key = laptop.local_key
    async with device("laptop", None, local_key=key) as laptop:
        await put(laptop, b"two")


async def test_a_folder_is_one_processs_and_one_accounts(
    server: TestServer, device: Devices, tmp_path: Path
) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"one")
        with pytest.raises(FolderInUse):
            await device("laptop").__aenter__()
    other = SyncedWallet(
        server.make_session, "eve@example.com", PASSWORD, tmp_path / "laptop", merge
    )
    with pytest.raises(ValueError, match="another account"):
        await other.__aenter__()
    async with device("laptop"):
        pass


async def test_it_is_entered_once(device: Devices) -> None:
    laptop = device("laptop")
    async with laptop:
        pass
    with pytest.raises(RuntimeError, match="make another"):
        await laptop.__aenter__()


async def test_what_a_later_version_kept_is_left_alone(device: Devices, tmp_path: Path) -> None:
    async with device("laptop"):
        pass
    store = LocalStore.open(tmp_path / "laptop", root_password=PASSWORD)
    store.save(b'{"v": 2}')
    store.close()
    with pytest.raises(LocalStateDamaged):
        await device("laptop").__aenter__()


async def test_a_change_that_can_not_be_kept_is_not_made(
    device: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: LocalStore, payload: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    async with device("laptop") as laptop:
        await put(laptop, b"one")
        with monkeypatch.context() as full:
            full.setattr(LocalStore, "save", refuse)
            with pytest.raises(OSError, match="no space"):
                await add(laptop, b"two")
            assert laptop.value == b"one"
        await put(laptop, b"three")
        assert laptop.value == b"one three"


async def test_a_disk_that_is_full_for_a_while_stops_nothing_for_good(
    server: TestServer, device: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: LocalStore, payload: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    async with device("laptop") as laptop, device("phone") as phone:
        await phone.sync(PATIENCE_S)
        events = phone.events()
        with monkeypatch.context() as full:
            full.setattr(phone._opened_store(), "save", refuse.__get__(phone._opened_store()))
            await put(laptop, b"one")
            async with asyncio.timeout(PATIENCE_S):
                while (await find(events, StatusChanged)).status is not Status.OFFLINE:
                    pass
        await phone.sync(PATIENCE_S)
        assert phone.value == b"one"


# Events.


async def test_events_begin_with_the_status_and_end_with_the_wallet(device: Devices) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"one")
        events = laptop.events()
        assert await anext(events) == StatusChanged(laptop.status)
    left = [event async for event in events]
    assert all(isinstance(event, StatusChanged) for event in left)


async def test_a_reader_of_events_that_does_not_read_loses_the_oldest(device: Devices) -> None:
    async with device("laptop") as laptop:
        events = laptop.events()
        for number in range(EVENTS_MAX + 10):
            laptop._put(Pushed(number))
    seen = [event.sequence async for event in events if isinstance(event, Pushed)]
    assert len(seen) <= EVENTS_MAX
    assert seen[-1] == EVENTS_MAX + 9


async def test_a_reader_of_events_that_nobody_holds_is_not_kept(device: Devices) -> None:
    async with device("laptop") as laptop:
        laptop.events()
        events = laptop.events()
        gc.collect()
        assert [*laptop._readers] == [events]


async def test_what_it_is_shows_no_secret(device: Devices) -> None:
    async with device("laptop") as laptop:
        await put(laptop, b"secret word")
        told = repr(laptop) + repr(laptop._core.state)
        assert "secret" not in told
        assert PASSWORD not in told
        assert "sequence 1" in repr(laptop)
        assert await laptop.ping() >= 0
