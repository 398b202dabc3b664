"""Pushes, reads, history, acknowledgements, the list of devices."""

from __future__ import annotations

import pytest

from tests.unit.world import EMAIL, NOW_MS, World, make_facts, push_params
from wsschema.errors import Unavailable
from wsschema.limits import Limits
from wsschema.times import format_time, time_from_ms
from wsserver.operations import (
    AcknowledgeState,
    FindOnline,
    LoadDevices,
    LoadHistory,
    LoadWallet,
    PushState,
    RemoveAccount,
)

NOW = format_time(time_from_ms(NOW_MS))


@pytest.fixture
def world() -> World:
    world = World()
    world.store.add_account()
    return world


# Pushes.


def test_a_push_is_answered_once_it_is_durable(world: World) -> None:
    phone = world.log_in("phone")
    call = phone.push(1)
    job = world.take(PushState).perform()
    assert phone.inbox == []
    job.answer()
    assert phone.answer(call) == {
        "sequence": 1,
        "encryptedWallet": "wallet 1",
        "hmac": "hmac 1",
        "deviceId": "phone",
        "updatedAt": NOW,
    }


def test_a_push_that_asks_for_a_receipt_gets_no_more(world: World) -> None:
    phone = world.log_in("phone")
    answer = phone.ask("wallet.push", **push_params(1), receipt=True)
    assert answer == {"sequence": 1, "hmac": "hmac 1", "updatedAt": NOW}


def test_a_push_carries_its_token_and_its_author_to_the_store(world: World) -> None:
    phone = world.log_in("phone")
    phone.push(1)
    operation = world.do(PushState)
    assert operation.token_hash == phone.token_hash
    assert operation.author == phone.connection_id


def test_a_stale_push_returns_the_latest_state(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    laptop.push(1)
    world.settle()
    call = phone.push(1, encryptedWallet="mine")
    world.settle()
    error = phone.answer(call)
    assert error["code"] == 409
    assert error["data"]["wallet"]["encryptedWallet"] == "wallet 1"
    assert error["data"]["landed"] is False


def test_a_retry_of_the_latest_push_succeeds_and_tells_no_one(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    answers = []
    for _ in range(2):
        call = phone.push(1)
        world.settle()
        answers.append(phone.answer(call))
    assert answers[0] == answers[1]
    assert laptop.sequences == [1]


@pytest.mark.parametrize(("wallet", "bytes_"), [("w" * 11, 11), ("\u00e9" * 6, 12)])
def test_a_wallet_above_the_limit_in_utf_8_is_refused(wallet: str, bytes_: int) -> None:
    world = World(make_facts(limits=Limits(wallet_bytes=10)))
    world.store.add_account()
    phone = world.log_in("phone")
    error = phone.answer(phone.push(1, encryptedWallet=wallet))
    assert error["code"] == 413
    assert error["data"] == {"reason": "wallet_too_large", "maxBytes": 10}
    assert error["message"] == f"the wallet is {bytes_} bytes; the limit is 10"
    assert not world.jobs


@pytest.mark.parametrize("wallet", ["w" * 10, "\u00e9" * 5])
def test_a_wallet_at_the_limit_in_utf_8_is_taken(wallet: str) -> None:
    world = World(make_facts(limits=Limits(wallet_bytes=10)))
    world.store.add_account()
    phone = world.log_in("phone")
    call = phone.push(1, encryptedWallet=wallet)
    world.settle()
    assert phone.answer(call)["encryptedWallet"] == wallet


def test_a_push_that_was_committed_is_published_though_its_author_is_gone(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    phone.push(1)
    job = world.take(PushState).perform()
    phone.drop()
    job.answer()
    assert laptop.sequences == [1]
    assert phone.inbox == []


def test_no_push_under_a_token_that_was_replaced_lands(world: World) -> None:
    old = world.log_in("phone")
    old.push(1)
    late = world.take(PushState)
    new = world.log_in("phone")
    late.perform().answer()
    assert world.store.accounts[EMAIL].sequence == 0
    assert old.closed == (4401, "replaced")
    assert new.sequences == []


# Reads.


def test_a_get_without_sequence_is_the_latest_and_with_one_a_kept_state(world: World) -> None:
    phone = world.log_in("phone")
    for sequence in (1, 2, 3):
        phone.push(sequence)
    world.settle()
    assert phone.ask("wallet.get")["encryptedWallet"] == "wallet 3"
    assert phone.ask("wallet.get", sequence=2)["encryptedWallet"] == "wallet 2"


def test_a_get_of_nothing_is_no_wallet_or_no_such_version(world: World) -> None:
    phone = world.log_in("phone")
    assert phone.ask("wallet.get")["data"] == {"reason": "no_wallet"}
    assert phone.ask("wallet.get", sequence=1)["data"] == {"reason": "no_such_version"}


def test_a_get_that_fails_is_answered_with_that(world: World) -> None:
    phone = world.log_in("phone")
    call = phone.call("wallet.get")
    world.take(LoadWallet).fail(Unavailable()).answer()
    assert phone.answer(call)["data"]["reason"] == "unavailable"


@pytest.mark.parametrize("before", [0, 1])
def test_a_get_that_a_notification_overtook_reads_again(world: World, before: int) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    for sequence in range(1, before + 1):
        phone.push(sequence)
        world.settle()
    call = laptop.call("wallet.get")
    read = world.take(LoadWallet).perform()
    phone.push(before + 1)
    world.settle()
    assert laptop.sequences[-1] == before + 1
    read.answer()
    assert laptop.answers == []
    world.settle()
    assert laptop.answer(call)["sequence"] == before + 1


def test_a_get_that_the_own_push_overtook_reads_again(world: World) -> None:
    phone = world.log_in("phone")
    get = phone.call("wallet.get")
    read = world.take(LoadWallet).perform()
    phone.push(1)
    world.settle()
    read.answer()
    world.settle()
    assert phone.answer(get)["sequence"] == 1


def test_a_get_that_a_conflict_overtook_reads_again(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    laptop.congested = True
    get = laptop.call("wallet.get")
    read = world.take(LoadWallet).perform()
    phone.push(1)
    laptop.push(1, encryptedWallet="mine")
    world.settle()
    read.answer()
    world.settle()
    assert laptop.answer(get)["sequence"] == 1


def test_gets_that_overtake_each_other_never_go_back(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    laptop.congested = True  # so that answers alone tell it where the wallet stands
    first = laptop.call("wallet.get")
    early = world.take(LoadWallet).perform()
    phone.push(1)
    world.settle()
    second = laptop.call("wallet.get")
    world.settle()
    early.answer()
    world.settle()
    assert [answer["id"] for answer in laptop.answers] == [second, first]
    assert [answer["result"]["sequence"] for answer in laptop.answers] == [1, 1]


def test_a_get_of_a_sequence_that_was_notified_meanwhile_reads_again(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    call = laptop.call("wallet.get", sequence=1)
    read = world.take(LoadWallet).perform()
    phone.push(1)
    world.settle()
    read.answer()
    world.settle()
    assert laptop.answer(call)["sequence"] == 1


@pytest.mark.parametrize("sequence", [1, 5])
def test_a_get_of_a_sequence_that_is_not_stored_does_not_read_again(
    world: World, sequence: int
) -> None:
    world = World(history_depth=2)
    world.store.add_account()
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    for pushed in (1, 2, 3):
        phone.push(pushed)
    world.settle()
    call = laptop.call("wallet.get", sequence=sequence)
    read = world.take(LoadWallet).perform()
    phone.push(4)
    world.settle()
    read.answer()
    assert laptop.answer(call)["data"]["reason"] == "no_such_version"


def test_a_get_does_not_read_on_for_the_wallet_of_a_deleted_account(world: World) -> None:
    phone = world.log_in("phone")
    phone.push(1)
    world.settle()
    ids = phone.batch(("account.delete", {"password": "correct horse"}), ("wallet.get", {}))
    get = world.take(LoadWallet)
    while RemoveAccount not in world.waiting:
        world.do(type(world.jobs[0].operation))
    world.do(RemoveAccount)
    get.perform().answer()
    assert not world.jobs
    assert phone.answer(ids[1])["data"]["reason"] == "bad_token"
    assert phone.closed == (4401, "account_deleted")


# History and acknowledgements.


def test_history_is_newest_first_and_within_its_bounds(world: World) -> None:
    phone = world.log_in("phone")
    for sequence in (1, 2, 3):
        phone.push(sequence)
    world.settle()
    versions = phone.ask("wallet.history", limit=1, before=3)["versions"]
    assert versions == [
        {"sequence": 2, "hmac": "hmac 2", "deviceId": "phone", "updatedAt": NOW, "bytes": 8}
    ]
    assert [version["sequence"] for version in phone.ask("wallet.history")["versions"]] == [3, 2, 1]


def test_history_is_limited_to_20_unless_told_otherwise(world: World) -> None:
    phone = world.log_in("phone")
    phone.call("wallet.history")
    operation = world.do(LoadHistory)
    assert (operation.limit, operation.before) == (20, None)


def test_an_acknowledgement_is_stored_under_the_sessions_token(world: World) -> None:
    phone = world.log_in("phone")
    phone.push(1)
    world.settle()
    call = phone.call("wallet.ack", sequence=1)
    assert world.do(AcknowledgeState).token_hash == phone.token_hash
    assert phone.answer(call) == {}
    assert phone.ask("wallet.ack", sequence=2)["data"]["reason"] == "no_such_version"


# Devices.


def test_the_list_shows_who_is_online_which_is_current_and_what_each_applied(
    world: World,
) -> None:
    world.log_in("tablet").drop()
    phone = world.log_in("phone", deviceName="Joe's phone")
    world.log_in("laptop")
    phone.push(1)
    world.settle()
    later = format_time(time_from_ms(NOW_MS + 5000))
    devices = phone.ask("device.list")["devices"]
    assert [
        (device["deviceId"], device["online"], device["current"], device["appliedSequence"])
        for device in devices
    ] == [("tablet", False, False, 0), ("phone", True, True, 1), ("laptop", True, False, 0)]
    assert [device["lastSeenAt"] for device in devices] == [NOW, later, later]
    assert devices[1]["name"] == "Joe's phone"


def test_who_is_online_is_asked_after_the_list_is_read(world: World) -> None:
    phone = world.log_in("phone")
    phone.call("device.list")
    world.do(LoadDevices)
    assert world.waiting == [FindOnline]


def test_a_revoked_device_is_closed_and_leaves_the_list(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    assert phone.ask("device.revoke", deviceId="laptop") == {}
    assert laptop.closed == (4401, "device_revoked")
    devices = phone.ask("device.list")["devices"]
    assert [device["deviceId"] for device in devices] == ["phone"]
    assert phone.ask("device.revoke", deviceId="laptop")["data"]["reason"] == "no_such_device"


def test_a_device_that_logged_out_stays_on_the_list(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    laptop.ask("session.logout")
    devices = phone.ask("device.list")["devices"]
    assert [(device["deviceId"], device["online"]) for device in devices] == [
        ("phone", True),
        ("laptop", False),
    ]
