"""Devices and their tokens, in every store: login, resume, logout, revocation, acknowledgements."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.backends import (
    START_MS,
    TOKEN_LIFETIME_S,
    Account,
    Login,
    make_password,
    register,
)
from wsschema.errors import (
    AccountDisabled,
    BadCredentials,
    BadToken,
    NoSuchDevice,
    NoSuchVersion,
    TooManyDevices,
)
from wsschema.messages import SealedWallet
from wsserver.operations import (
    AcknowledgeState,
    EndSession,
    FindToken,
    LoadDevices,
    LoadSession,
    MarkSeen,
    Operation,
    RemoveDevice,
    TokenOwner,
)

LIFETIME_MS = TOKEN_LIFETIME_S * 1000


async def test_a_login_gives_a_token_whose_hash_is_stored(account: Account) -> None:
    login = await account.log_in("phone", device_name="Joe's phone")

    opened = login.opened
    assert opened.token is not None
    assert len(bytes.fromhex(opened.token)) == 32
    assert hashlib.sha256(opened.token.encode()).digest() == opened.token_hash
    assert await account.backend.perform(FindToken(opened.token_hash)) == TokenOwner(
        account.account_id, "phone"
    )


async def test_a_login_tells_the_session(account: Account) -> None:
    opened = (await account.log_in("phone", device_name="Joe's phone")).opened

    assert opened.account_id == account.account_id
    assert len(bytes.fromhex(opened.epoch)) == 16
    assert opened.head is None
    assert opened.dropped_device_id is None
    assert opened.token_used_at_ms == START_MS
    assert opened.expires_at_ms == START_MS + LIFETIME_MS
    device = opened.device
    assert (device.device_id, device.name) == ("phone", "Joe's phone")
    assert (device.created_at_ms, device.last_seen_at_ms) == (START_MS, START_MS)
    assert device.applied_sequence == 0


async def test_a_login_tells_the_latest_state(phone: Login) -> None:
    stored = await phone.push(1)

    assert (await phone.account.log_in("laptop")).opened.head == stored


async def test_a_resume_tells_the_session_without_a_token(phone: Login) -> None:
    backend = phone.account.backend
    stored = await phone.push(1)
    backend.clock.now_ms += 5000

    opened = await backend.perform(LoadSession(phone.token_hash))

    assert opened.token is None
    assert opened.head == stored
    assert (opened.account_id, opened.epoch) == (phone.account.account_id, phone.opened.epoch)
    assert opened.token_hash == phone.token_hash
    assert opened.token_used_at_ms == START_MS
    assert opened.expires_at_ms == START_MS + 5000 + LIFETIME_MS
    assert opened.device.applied_sequence == 1


async def test_an_unknown_token_is_nobodys(account: Account) -> None:
    assert await account.backend.perform(FindToken(b"?" * 32)) is None
    with pytest.raises(BadToken):
        await account.backend.perform(LoadSession(b"?" * 32))


async def test_a_login_with_a_hash_that_is_stored_no_longer_gets_nothing(phone: Login) -> None:
    backend = phone.account.backend
    await backend.perform(phone.replacing(None))

    with pytest.raises(BadCredentials):
        await backend.perform(phone.account.opening("thief", upgraded=make_password("upgraded")))

    assert await phone.account.device_ids() == ["phone"]
    credentials = await phone.account.credentials()
    assert credentials is not None
    assert credentials.password == make_password("new")


async def test_a_login_to_a_deleted_account_gets_nothing(phone: Login) -> None:
    await phone.account.backend.perform(phone.removing_account())

    with pytest.raises(BadCredentials):
        await phone.account.log_in("phone")


async def test_a_login_stores_an_upgraded_hash(phone: Login) -> None:
    upgraded = make_password("stronger")

    await phone.account.log_in("laptop", upgraded=upgraded)

    credentials = await phone.account.credentials()
    assert credentials is not None
    assert credentials.password == upgraded
    # The hash that was checked before is not the stored one now.
    with pytest.raises(BadCredentials):
        await phone.account.log_in("tablet")
    # An upgrade is no password change: sessions stay.
    await phone.push(1)


async def test_a_login_of_a_disabled_account_is_refused(phone: Login) -> None:
    await phone.account.backend.disable(phone.account.account_id)

    with pytest.raises(AccountDisabled):
        await phone.account.log_in("laptop")
    with pytest.raises(AccountDisabled):
        await phone.account.backend.perform(LoadSession(phone.token_hash))
    assert await phone.account.device_ids() == ["phone"]


async def test_a_new_login_of_a_device_replaces_its_token(phone: Login, laptop: Login) -> None:
    backend = phone.account.backend
    await phone.push(1)
    backend.clock.now_ms += 1000

    again = await phone.account.log_in("phone")

    assert again.token_hash != phone.token_hash
    assert await backend.perform(FindToken(phone.token_hash)) is None
    with pytest.raises(BadToken):
        await backend.perform(phone.pushing(2))
    device = again.opened.device
    assert (device.created_at_ms, device.last_seen_at_ms) == (START_MS, START_MS + 1000)
    assert device.applied_sequence == 1
    await laptop.push(2)


async def test_a_login_without_a_name_keeps_the_devices_name(account: Account) -> None:
    await account.log_in("phone", device_name="first")

    assert (await account.log_in("phone")).opened.device.name == "first"
    assert (await account.log_in("phone", device_name="second")).opened.device.name == "second"
    assert (await account.log_in("phone", device_name="")).opened.device.name == ""


# How many devices.


async def test_one_device_more_drops_the_one_seen_longest_ago(account: Account) -> None:
    clock = account.backend.clock
    logins = {}
    for name in ("a", "b", "c"):
        clock.now_ms += 1000
        logins[name] = await account.log_in(name)
    clock.now_ms += 1000
    await account.backend.perform(MarkSeen(logins["a"].token_hash, clock.now_ms))

    opened = (await account.log_in("d", devices_max=3)).opened

    assert opened.dropped_device_id == "b"
    assert await account.device_ids() == ["a", "c", "d"]
    with pytest.raises(BadToken):
        await account.backend.perform(logins["b"].pushing(1))


async def test_of_devices_seen_at_once_the_first_by_name_is_dropped(account: Account) -> None:
    for name in ("b", "a", "c"):
        await account.log_in(name)

    assert (await account.log_in("d", devices_max=3)).opened.dropped_device_id == "a"


async def test_a_device_that_is_online_is_not_dropped(account: Account) -> None:
    for name in ("a", "b", "c"):
        account.backend.clock.now_ms += 1000
        await account.log_in(name)

    login = await account.log_in("d", devices_max=3, online=frozenset({"a", "b"}))

    assert login.opened.dropped_device_id == "c"


async def test_no_device_is_dropped_when_all_are_online(account: Account) -> None:
    await account.log_in("a")
    await account.log_in("b")

    with pytest.raises(TooManyDevices):
        await account.log_in("c", devices_max=2, online=frozenset({"a", "b"}))

    assert await account.device_ids() == ["a", "b"]


async def test_a_known_device_needs_no_room(account: Account) -> None:
    await account.log_in("a")
    await account.log_in("b")

    login = await account.log_in("a", devices_max=2, online=frozenset({"a", "b"}))

    assert login.opened.dropped_device_id is None


async def test_devices_of_other_accounts_take_no_room(account: Account) -> None:
    stranger = await register(account.backend, "eve@example.com")
    await stranger.log_in("a")

    assert (await account.log_in("a", devices_max=1)).opened.dropped_device_id is None
    assert await stranger.device_ids() == ["a"]


# How long a token lives.


async def test_a_token_lives_from_its_last_use(phone: Login) -> None:
    backend = phone.account.backend
    backend.clock.now_ms = START_MS + LIFETIME_MS - 1
    await backend.perform(LoadSession(phone.token_hash))
    await backend.perform(MarkSeen(phone.token_hash, backend.clock.now_ms))

    backend.clock.now_ms += LIFETIME_MS - 1
    opened = await backend.perform(LoadSession(phone.token_hash))
    assert opened.token_used_at_ms == START_MS + LIFETIME_MS - 1

    backend.clock.now_ms += 1
    with pytest.raises(BadToken):
        await backend.perform(LoadSession(phone.token_hash))


async def test_a_clock_that_was_set_back_for_a_while_costs_no_token_its_life(phone: Login) -> None:
    backend = phone.account.backend

    await backend.perform(MarkSeen(phone.token_hash, START_MS - 2 * LIFETIME_MS))

    opened = await backend.perform(LoadSession(phone.token_hash))
    assert opened.token_used_at_ms == START_MS


async def test_being_seen_moves_the_time_on_the_list(phone: Login, laptop: Login) -> None:
    backend = phone.account.backend

    await backend.perform_batch(
        [MarkSeen(phone.token_hash, START_MS + 1), MarkSeen(laptop.token_hash, START_MS + 2)]
    )

    stored = await backend.perform(LoadDevices(phone.account.account_id))
    seen = {device.device_id: device.last_seen_at_ms for device in stored.devices}
    assert seen == {"phone": START_MS + 1, "laptop": START_MS + 2}


async def test_of_many_that_are_seen_at_once_each_has_its_own_time(
    phone: Login, laptop: Login
) -> None:
    """More than one statement takes, some of them unknown, and one of them twice."""
    backend = phone.account.backend
    strangers = [MarkSeen(b"%32d" % number, START_MS + 9) for number in range(150)]
    await backend.perform_batch(
        [
            MarkSeen(phone.token_hash, START_MS + 1),
            *strangers,
            MarkSeen(laptop.token_hash, START_MS + 2),
            MarkSeen(phone.token_hash, START_MS + 3),
        ]
    )

    stored = await backend.perform(LoadDevices(phone.account.account_id))
    seen = {device.device_id: device.last_seen_at_ms for device in stored.devices}
    assert seen == {"phone": START_MS + 3, "laptop": START_MS + 2}


async def test_seen_twice_at_once_by_a_clock_that_goes_back(phone: Login) -> None:
    """As if each came alone: the list has the last time, the token's life the latest."""
    backend = phone.account.backend

    await backend.perform_batch(
        [
            MarkSeen(phone.token_hash, START_MS + 2),
            MarkSeen(phone.token_hash, START_MS + 9),
            MarkSeen(phone.token_hash, START_MS + 1),
        ]
    )

    opened = await backend.perform(LoadSession(phone.token_hash))
    assert opened.token_used_at_ms == START_MS + 9
    assert opened.device.last_seen_at_ms == START_MS + 1


async def test_being_seen_under_an_ended_token_changes_nothing(phone: Login, laptop: Login) -> None:
    backend = phone.account.backend
    await backend.perform(phone.ending())

    answers = await backend.perform_batch(
        [
            MarkSeen(phone.token_hash, START_MS + 1),
            MarkSeen(b"?" * 32, START_MS + 1),
            MarkSeen(laptop.token_hash, START_MS + 2),
        ]
    )

    assert answers == [None, None, None]
    stored = await backend.perform(LoadDevices(phone.account.account_id))
    seen = {device.device_id: device.last_seen_at_ms for device in stored.devices}
    assert seen == {"phone": START_MS, "laptop": START_MS + 2}
    with pytest.raises(BadToken):
        await backend.perform(LoadSession(phone.token_hash))


# The list, logout, revocation.


async def test_the_list_is_in_the_order_in_which_devices_came(account: Account) -> None:
    for name in ("c", "b"):
        await account.log_in(name)
    account.backend.clock.now_ms += 1
    await account.log_in("a", device_name="Tablet")
    account.backend.clock.now_ms += 1

    stored = await account.backend.perform(LoadDevices(account.account_id))

    assert [device.device_id for device in stored.devices] == ["b", "c", "a"]
    assert stored.devices[2].name == "Tablet"
    assert stored.now_ms == account.backend.clock.now_ms


async def test_a_logged_out_device_stays_on_the_list(phone: Login, laptop: Login) -> None:
    backend = phone.account.backend
    backend.clock.now_ms += 1000

    await backend.perform(phone.ending())

    assert await phone.account.device_ids() == ["laptop", "phone"]
    stored = await backend.perform(LoadDevices(phone.account.account_id))
    assert stored.devices[1].last_seen_at_ms == START_MS + 1000
    with pytest.raises(BadToken):
        await backend.perform(phone.pushing(1))
    with pytest.raises(BadToken):
        await backend.perform(phone.ending())
    await laptop.push(1)


async def test_a_revoked_device_leaves_the_list(phone: Login, laptop: Login) -> None:
    backend = phone.account.backend

    await backend.perform(laptop.removing_device("phone"))

    assert await phone.account.device_ids() == ["laptop"]
    with pytest.raises(BadToken):
        await backend.perform(phone.pushing(1))


async def test_a_device_may_revoke_itself(phone: Login) -> None:
    await phone.account.backend.perform(phone.removing_device("phone"))

    assert await phone.account.device_ids() == []


async def test_an_unknown_device_can_not_be_revoked(phone: Login) -> None:
    with pytest.raises(NoSuchDevice):
        await phone.account.backend.perform(phone.removing_device("tablet"))


async def test_an_ended_token_revokes_nothing(phone: Login, laptop: Login) -> None:
    await phone.account.backend.perform(phone.ending())

    with pytest.raises(BadToken):
        await phone.account.backend.perform(phone.removing_device("laptop"))

    assert await phone.account.device_ids() == ["laptop", "phone"]


async def test_a_token_does_nothing_to_another_account(phone: Login) -> None:
    backend = phone.account.backend
    eve = await (await register(backend, "eve@example.com")).log_in("phone")
    joe = phone.account.account_id

    operations: list[Operation[Any]] = [
        RemoveDevice(eve.token_hash, joe, "phone"),
        EndSession(eve.token_hash, joe),
        AcknowledgeState(eve.token_hash, joe, 1),
        replace(phone.replacing(None), token_hash=eve.token_hash),
        replace(phone.removing_account(), token_hash=eve.token_hash),
    ]

    answers = await backend.perform_all(operations)

    assert [type(answer) for answer in answers] == [BadToken] * len(operations)
    assert await phone.account.device_ids() == ["phone"]
    await phone.push(1)
    await eve.push(1)


# Acknowledgements.


async def test_an_acknowledgement_is_noted(phone: Login, laptop: Login) -> None:
    backend = phone.account.backend
    await phone.push_many([1, 2])

    answer = await backend.perform(laptop.acknowledging(2))

    assert answer.changed
    assert (answer.device.device_id, answer.device.applied_sequence) == ("laptop", 2)
    opened = await backend.perform(LoadSession(laptop.token_hash))
    assert opened.device == answer.device


@pytest.mark.parametrize("sequence", [1, 2])
async def test_an_acknowledgement_that_is_not_newer_changes_nothing(
    phone: Login, sequence: int
) -> None:
    await phone.push_many([1, 2])

    answer = await phone.account.backend.perform(phone.acknowledging(sequence))

    assert not answer.changed
    assert answer.device.applied_sequence == 2


async def test_an_acknowledgement_above_the_stored_sequence_is_refused(phone: Login) -> None:
    with pytest.raises(NoSuchVersion):
        await phone.account.backend.perform(phone.acknowledging(1))
    await phone.push(1)
    with pytest.raises(NoSuchVersion):
        await phone.account.backend.perform(phone.acknowledging(2))


async def test_an_acknowledgement_under_an_ended_token_is_refused(
    phone: Login, laptop: Login
) -> None:
    await phone.push(1)
    await phone.account.backend.perform(laptop.ending())

    with pytest.raises(BadToken):
        await phone.account.backend.perform(laptop.acknowledging(1))


async def applied(phone: Login) -> dict[str, int]:
    stored = await phone.account.backend.perform(LoadDevices(phone.account.account_id))
    return {device.device_id: device.applied_sequence for device in stored.devices}


async def test_each_device_keeps_what_it_pushed_whoever_pushes_next(phone: Login) -> None:
    laptop = await phone.account.log_in("laptop")
    await phone.push(1)
    await laptop.push(2)
    assert await applied(phone) == {"phone": 1, "laptop": 2}

    await phone.account.backend.perform_batch([phone.pushing(3), laptop.pushing(4)])
    assert await applied(phone) == {"phone": 3, "laptop": 4}

    change = laptop.replacing(SealedWallet(5, "wallet", "hmac"))
    await laptop.account.backend.perform_batch([phone.pushing(5), phone.pushing(6), change])
    assert await applied(phone) == {"phone": 6, "laptop": 4}
    change = laptop.replacing(SealedWallet(7, "wallet", "hmac"))
    await laptop.account.backend.perform(change)
    assert await applied(phone) == {"phone": 6, "laptop": 7}


@pytest.mark.parametrize("later_ms", [0, 1])
async def test_a_device_that_comes_anew_has_applied_nothing(phone: Login, later_ms: int) -> None:
    backend = phone.account.backend
    laptop = await phone.account.log_in("laptop")
    await laptop.push(1)
    await backend.perform(phone.removing_device("laptop"))
    backend.clock.now_ms += later_ms

    again = await phone.account.log_in("laptop")
    assert again.opened.device.applied_sequence == 0
    assert again.opened.device.created_at_ms == START_MS + 1
    assert await applied(phone) == {"phone": 0, "laptop": 0}

    await phone.push(2)
    assert await applied(phone) == {"phone": 2, "laptop": 0}
