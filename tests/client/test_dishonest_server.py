"""A server that lies to `SyncedWallet`: each lie is caught, and nothing here is lost by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest

from wsclient import SyncedWallet
from wsclient.errors import StateRefused, WeakKdf
from wsclient.testing import TestServer
from wsclient.wallet_events import PasswordNeeded, Restored, Status, Stopped, WalletEvent
from wsschema.messages import Kdf

EMAIL = "joe@example.com"
PASSWORD = "correct horse"
PATIENCE_S = 10.0


def merge(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
    """Entries that are only ever added: who has fewer has lost some."""
    return b",".join(sorted({*mine.split(b","), *theirs.split(b",")}))


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    async with TestServer() as server:
        await server.register(EMAIL, PASSWORD)
        yield server


@pytest.fixture
def laptop(server: TestServer, tmp_path: Path) -> SyncedWallet:
    return make_wallet(server, tmp_path / "laptop")


@pytest.fixture
def phone(server: TestServer, tmp_path: Path) -> SyncedWallet:
    return make_wallet(server, tmp_path / "phone")


def make_wallet(server: TestServer, folder: Path) -> SyncedWallet:
    return SyncedWallet(server.make_session, EMAIL, PASSWORD, folder, merge, debounce_s=0)


async def change(wallet: SyncedWallet, entry: bytes) -> None:
    """One entry more, here."""
    await wallet.change(lambda value: entry if value is None else merge(None, value, entry))


async def add(wallet: SyncedWallet, *entries: bytes) -> None:
    """Entries more, here and on the server, a state each."""
    for entry in entries:
        await change(wallet, entry)
        await wallet.sync(PATIENCE_S)


async def find(events: AsyncIterator[WalletEvent], kind: type[WalletEvent]) -> WalletEvent:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            event = await anext(events)
            if isinstance(event, kind):
                return event


@contextlib.asynccontextmanager
async def refusing(wallet: SyncedWallet, reason: str, value: bytes) -> AsyncIterator[None]:
    """What is done inside stops the sync, and leaves the value here as it was; on disk too."""
    events = wallet.events()
    yield
    stopped = await find(events, Stopped)
    assert isinstance(wallet.stopped, StateRefused)
    assert stopped == Stopped(wallet.stopped)
    assert wallet.status is Status.STOPPED
    assert wallet.stopped.reason == reason
    assert wallet.value == value


async def assert_same_next_time(server: TestServer, wallet: SyncedWallet, reason: str) -> None:
    """The app's next life has all that this one had, and believes no more than it did."""
    value = wallet.value
    await wallet.close()
    async with make_wallet(server, wallet.folder) as reopened:
        assert reopened.value == value
        with pytest.raises(StateRefused) as refused:
            await reopened.pull(PATIENCE_S)
        assert refused.value.reason == reason
        assert reopened.value == value


# Back in time, and it is not said.


async def test_a_rollback_is_caught(server: TestServer, laptop: SyncedWallet) -> None:
    async with laptop:
        await add(laptop, b"1")
        snapshot = server.snapshot()
        await add(laptop, b"2")
        async with refusing(laptop, "went_back", b"1,2"):
            await server.go_back(snapshot, announced=False)
        await assert_same_next_time(server, laptop, "went_back")

    assert str(laptop.stopped) == (
        "refused state 1 from the server: sequence 2 was there already, and no restore was "
        "announced"
    )


async def test_a_device_that_recovers_from_a_rollback_brings_back_what_was_lost(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet
) -> None:
    async with laptop:
        await add(laptop, b"1")
        snapshot = server.snapshot()
        await add(laptop, b"2")
        await server.go_back(snapshot, announced=False)
        with pytest.raises(StateRefused):
            await laptop.pull(PATIENCE_S)
        await change(laptop, b"3")
        async with phone:
            await add(phone, b"4")
            await laptop.recover()
            await laptop.sync(PATIENCE_S)
            await phone.sync(PATIENCE_S)
            assert phone.value == b"1,2,3,4"

        assert laptop.value == b"1,2,3,4"
        assert laptop.stopped is None
        assert laptop.status is Status.SYNCED


@pytest.mark.parametrize(
    ("pushes", "reason"),
    [(0, "went_back"), (1, "went_back"), (2, "changed"), (3, "overwritten"), (4, "overwritten")],
)
async def test_a_rollback_is_caught_however_much_was_pushed_since(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet, pushes: int, reason: str
) -> None:
    snapshot = server.snapshot()
    async with laptop:
        await add(laptop, b"1", b"2")
    await server.go_back(snapshot, announced=False)
    async with phone:
        await add(phone, *[b"3", b"4", b"5", b"6"][:pushes])

    laptop = make_wallet(server, laptop.folder)
    async with refusing(laptop, reason, b"1,2"), laptop:
        with pytest.raises(StateRefused):
            await laptop.sync(PATIENCE_S)


@pytest.mark.parametrize("pushes", [2, 3])
async def test_a_device_that_pushed_nothing_catches_a_rollback_too(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet, pushes: int
) -> None:
    snapshot = server.snapshot()
    async with laptop, phone:
        await add(laptop, b"1")
        await phone.pull(PATIENCE_S)
    await server.go_back(snapshot, announced=False)
    async with make_wallet(server, phone.folder.with_name("tablet")) as tablet:
        await add(tablet, *[b"2", b"3", b"4"][:pushes])

    phone = make_wallet(server, phone.folder)
    async with refusing(phone, "forked", b"1"), phone:
        with pytest.raises(StateRefused):
            await phone.sync(PATIENCE_S)


# Two devices, two histories.


@pytest.mark.parametrize(
    ("pushes", "reason"), [(0, "went_back"), (1, "changed"), (2, "overwritten"), (3, "overwritten")]
)
async def test_a_fork_is_caught_when_its_ends_meet(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet, pushes: int, reason: str
) -> None:
    async with laptop, phone:
        await add(laptop, b"1")
        await phone.pull(PATIENCE_S)
        await server.lies.fork(phone.device_id)
        await server.until(lambda: phone.device_id in server.connections)
        await add(phone, b"phone's")
        await add(laptop, *[b"2", b"3", b"4"][:pushes])
        assert phone.value == b"1,phone's"

        async with refusing(phone, reason, b"1,phone's"):
            server.lies.stop()
        await phone.recover()
        await phone.sync(PATIENCE_S)
        await laptop.pull(PATIENCE_S)
        assert laptop.value == phone.value
        assert phone.value == merge(None, b"1,phone's", b"1,2,3,4"[: 1 + 2 * pushes])


async def test_a_fork_that_nobody_pushed_to_is_harmless(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet
) -> None:
    async with laptop, phone:
        await add(laptop, b"1")
        await phone.pull(PATIENCE_S)
        await server.lies.fork(phone.device_id)
        await add(laptop, b"2")
        server.lies.stop()
        await phone.pull(PATIENCE_S)

        assert phone.value == b"1,2"


# A push that was acknowledged and is gone.


async def test_a_push_that_another_device_overwrote_is_caught(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet
) -> None:
    async with laptop, phone:
        await add(laptop, b"1")
        await phone.pull(PATIENCE_S)
        server.lies.overwrite_next_push(laptop.device_id)
        await add(laptop, b"mine")
        async with refusing(laptop, "changed", b"1,mine"):
            await add(phone, b"theirs")
        await assert_same_next_time(server, laptop, "changed")


@pytest.mark.parametrize("pushes", [2, 3])
async def test_an_overwritten_push_is_caught_by_a_device_that_was_away(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet, pushes: int
) -> None:
    async with phone:
        async with laptop:
            await add(laptop, b"1")
            await phone.pull(PATIENCE_S)
            server.lies.overwrite_next_push(laptop.device_id)
            await add(laptop, b"mine")
        await add(phone, *[b"2", b"3", b"4"][:pushes])

        laptop = make_wallet(server, laptop.folder)
        async with refusing(laptop, "overwritten", b"1,mine"), laptop:
            with pytest.raises(StateRefused):
                await laptop.sync(PATIENCE_S)
        laptop = make_wallet(server, laptop.folder)
        async with laptop:
            with pytest.raises(StateRefused):
                await laptop.pull(PATIENCE_S)
            await laptop.recover()
            await laptop.sync(PATIENCE_S)
            assert laptop.value == merge(None, phone.value or b"", b"mine")


async def test_a_push_that_is_denied_later_is_caught(
    server: TestServer, laptop: SyncedWallet
) -> None:
    async with laptop:
        await add(laptop, b"1")
        server.lies.overwrite_next_push(laptop.device_id)
        await add(laptop, b"2")
        await change(laptop, b"3")
        async with refusing(laptop, "went_back", b"1,2,3"):
            pass  # its next push is a conflict with the state before
        await laptop.recover()
        await laptop.sync(PATIENCE_S)
        assert laptop.value == b"1,2,3"


# States that were not made with the account's keys, or not for that place.


@pytest.mark.parametrize("member", ["encryptedWallet", "hmac"])
async def test_a_notification_that_was_tampered_with_is_caught(
    server: TestServer,
    laptop: SyncedWallet,
    phone: SyncedWallet,
    member: Literal["encryptedWallet", "hmac"],
) -> None:
    async with laptop, phone:
        await add(laptop, b"1")
        await phone.pull(PATIENCE_S)
        server.lies.tamper(member)
        async with refusing(phone, "bad_hmac", b"1"):
            await add(laptop, b"2")

        server.lies.stop()
        await phone.recover()
        await phone.sync(PATIENCE_S)
        assert phone.value == b"1,2"


def keep_quiet(method: str, message: dict[str, Any]) -> None:
    """Instead of a pushed state, every device is told what it doesn't know, and passes over."""
    if method == "wallet.updated":
        message["method"] = "wallet.unheardOf"


@pytest.mark.parametrize("member", ["encryptedWallet", "hmac"])
async def test_a_conflict_that_was_tampered_with_is_caught(
    server: TestServer,
    laptop: SyncedWallet,
    phone: SyncedWallet,
    member: Literal["encryptedWallet", "hmac"],
) -> None:
    async with phone, laptop:
        await add(phone, b"1")
        await laptop.pull(PATIENCE_S)
        server.hold(phone.device_id)
        await change(phone, b"mine")
        await server.until(lambda: server.held)
        server.rewriters.append(keep_quiet)  # so that the conflict is the first that it hears
        await add(laptop, b"2")
        server.lies.tamper(member)
        server.release(phone.device_id)
        with pytest.raises(StateRefused, match="its HMAC is wrong"):
            await phone.sync(PATIENCE_S)
        assert phone.value == b"1,mine"

        server.lies.stop()
        await phone.recover()
        await phone.sync(PATIENCE_S)
        assert phone.value == b"1,2,mine"


@pytest.mark.parametrize("member", ["encryptedWallet", "hmac"])
async def test_what_comes_after_a_login_is_checked(
    server: TestServer,
    laptop: SyncedWallet,
    phone: SyncedWallet,
    member: Literal["encryptedWallet", "hmac"],
) -> None:
    async with laptop, phone:
        await add(laptop, b"1")
    server.lies.tamper(member)
    async with make_wallet(server, phone.folder.with_name("tablet")) as tablet:
        with pytest.raises(StateRefused, match="its HMAC is wrong"):
            await tablet.sync(PATIENCE_S)
        assert tablet.value is None

        server.lies.stop()
        await tablet.recover()
        await tablet.sync(PATIENCE_S)
        assert tablet.value == b"1"


@pytest.mark.parametrize("member", ["encryptedWallet", "hmac"])
async def test_what_a_resume_brings_is_checked(
    server: TestServer,
    laptop: SyncedWallet,
    phone: SyncedWallet,
    member: Literal["encryptedWallet", "hmac"],
) -> None:
    async with laptop:
        async with phone:
            await add(phone, b"1")
        await add(laptop, b"2")
        server.lies.tamper(member)
        async with make_wallet(server, phone.folder) as phone:
            with pytest.raises(StateRefused, match="its HMAC is wrong"):
                await phone.sync(PATIENCE_S)
            assert phone.value == b"1"

            server.lies.stop()
            await phone.recover()
            await phone.sync(PATIENCE_S)
            assert phone.value == b"1,2"


async def test_an_old_state_under_a_new_sequence_is_caught(
    server: TestServer, laptop: SyncedWallet
) -> None:
    async with laptop:
        await add(laptop, b"1", b"2")
        async with refusing(laptop, "bad_hmac", b"1,2"):
            server.lies.replay(EMAIL, 1)
        await assert_same_next_time(server, laptop, "bad_hmac")


# Keys that would be cheap to guess.


async def test_a_weak_key_derivation_is_caught_on_first_contact(
    server: TestServer, laptop: SyncedWallet
) -> None:
    server.lies.downgrade_kdf(Kdf.scrypt(2**14))
    async with laptop:
        await laptop.change(b"1")
        with pytest.raises(WeakKdf, match="weaker than n=131072"):
            await laptop.sync(PATIENCE_S)
        assert "session.login" not in [call.method for call in server.calls]

        server.lies.stop()
        await laptop.recover()
        await laptop.sync(PATIENCE_S)
        assert laptop.value == b"1"


async def test_a_key_derivation_that_is_weaker_than_the_last_one_is_caught(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet
) -> None:
    strong, new_password = Kdf.scrypt(2**18), "correcter horse"
    asked = []

    async def ask(needed: PasswordNeeded) -> str:
        asked.append(needed)
        return new_password

    email = "jane@example.com"
    await server.register(email, PASSWORD, kdf=strong)
    laptop = SyncedWallet(
        server.make_session, email, PASSWORD, laptop.folder, merge, ask_password=ask
    )
    phone = SyncedWallet(server.make_session, email, PASSWORD, phone.folder, merge)
    async with laptop, phone:
        await add(laptop, b"1")
        await phone.pull(PATIENCE_S)
        server.lies.downgrade_kdf(Kdf.scrypt(2**17))
        await phone.change_password(new_password)
        with pytest.raises(WeakKdf, match="weaker than n=262144"):
            await laptop.pull(PATIENCE_S)
        assert laptop.value == b"1"

        server.lies.stop()
        await laptop.recover()
        await laptop.sync(PATIENCE_S)
        assert len(asked) == 1


# Back in time, and it is said: no lie.


async def test_an_announced_restore_merges_by_itself_and_loses_nothing(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet
) -> None:
    async with laptop, phone:
        await add(laptop, b"1")
        snapshot = server.snapshot()
        await phone.pull(PATIENCE_S)
        await add(phone, b"2")
        await add(laptop, b"3")
        heard = laptop.events(), phone.events()
        await server.go_back(snapshot, announced=True)
        await asyncio.gather(*[find(events, Restored) for events in heard])
        await server.until(lambda: laptop.value == phone.value == b"1,2,3")
        await add(phone, b"4")
        await server.until(lambda: laptop.value == b"1,2,3,4")

        assert (laptop.stopped, phone.stopped) == (None, None)


async def test_a_device_that_was_away_during_a_restore_brings_what_it_has(
    server: TestServer, laptop: SyncedWallet, phone: SyncedWallet
) -> None:
    snapshot = server.snapshot()
    async with laptop, phone:
        await add(laptop, b"1")
        await phone.pull(PATIENCE_S)
    await server.go_back(snapshot, announced=True)
    async with make_wallet(server, laptop.folder) as laptop:
        await add(laptop, b"2", b"3")
        assert laptop.value == b"1,2,3"

        server.refuse_connections()
        async with make_wallet(server, phone.folder) as phone:
            await change(phone, b"4")
            server.accept_connections()
            await phone.sync(PATIENCE_S)
            assert phone.value == b"1,2,3,4"
        await laptop.pull(PATIENCE_S)
        assert laptop.value == b"1,2,3,4"
