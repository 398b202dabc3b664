"""What a live session is told, and when: delivery, slow readers, presence, what comes first."""

from __future__ import annotations

import pytest

from tests.unit.world import EMAIL, NOW_MS, World
from wsschema.times import format_time, time_from_ms
from wsserver.effects import Superseded
from wsserver.operations import LoadHistory, LoadWallet, PushState


@pytest.fixture
def world() -> World:
    world = World()
    world.store.add_account()
    return world


# Delivery.


def test_every_other_connection_hears_of_a_push_and_its_author_does_not(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    twin = world.resume(phone.token)
    phone.push(1)
    world.settle()
    assert phone.notifications == []
    for peer in (laptop, twin):
        assert peer.notifications == [
            (
                "wallet.updated",
                {
                    "sequence": 1,
                    "hmac": "hmac 1",
                    "deviceId": "phone",
                    "updatedAt": format_time(time_from_ms(NOW_MS)),
                },
            )
        ]


def test_the_others_hear_of_a_push_before_its_author_is_answered(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    phone.push(1)
    heard: list[int] = []
    deliver = laptop.wallet_updated
    laptop.wallet_updated = lambda update: (deliver(update), heard.append(len(phone.inbox)))  # type: ignore[method-assign,assignment,func-returns-value]  # a probe
    world.settle()
    assert heard == [0]
    assert len(phone.inbox) == 1


def test_who_asked_for_the_state_gets_it_with_the_notification(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop", deliver="state")
    phone.push(1)
    world.settle()
    params = laptop.notifications[0][1]
    assert params["wallet"] == phone.answers[0]["result"]


def test_an_update_that_is_told_already_is_not_told_again(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    phone.push(1)
    job = world.take(PushState).perform()
    job.answer()
    job.answer()
    assert laptop.sequences == [1]


def test_another_account_hears_nothing(world: World) -> None:
    world.store.add_account("eve@example.com")
    eve = world.connect()
    eve.ask("session.login", email="eve@example.com", password="correct horse", deviceId="phone")
    phone = world.log_in("phone")
    phone.push(1)
    world.settle()
    assert eve.notifications == []


def test_nothing_older_is_told_after_a_get_that_was_ahead(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    pushes = []
    for sequence in (1, 2):
        phone.push(sequence)
        pushes.append(world.take(PushState).perform())
    assert laptop.ask("wallet.get")["sequence"] == 2
    for push in pushes:
        push.answer()
    assert laptop.sequences == [2]


def test_nothing_older_is_told_after_a_conflict_that_was_ahead(world: World) -> None:
    # On several nodes: the conflict is read from the database, the updates come by the bus.
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    pushes = []
    for sequence in (1, 2):
        phone.push(sequence)
        pushes.append(world.take(PushState).perform())
    laptop.push(2, encryptedWallet="mine")
    world.settle()
    assert laptop.answers[0]["error"]["data"]["wallet"]["sequence"] == 2
    for push in pushes:
        push.answer()
    assert laptop.sequences == [2]


# Slow readers.


def test_a_slow_reader_gets_the_newest_only_and_without_its_state(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop", deliver="state")
    laptop.congested = True
    for sequence in (1, 2, 3):
        phone.push(sequence)
    world.settle()
    assert laptop.inbox == []
    laptop.caught_up()
    assert laptop.sequences == [3]
    assert "wallet" not in laptop.notifications[0][1]
    laptop.caught_up()
    assert laptop.sequences == [3]
    assert laptop.effects.count(Superseded("wallet.updated")) == 2


def test_a_slot_that_was_overtaken_is_dropped(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    laptop.congested = True
    phone.push(1)
    world.settle()
    laptop.congested = False  # the transport tells so a moment later
    phone.push(2)
    world.settle()
    laptop.caught_up()
    assert laptop.sequences == [2]


def test_a_slot_keeps_the_newest_though_an_older_one_comes_late(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    laptop.congested = True
    pushes = []
    for sequence in (1, 2):
        phone.push(sequence)
        pushes.append(world.take(PushState).perform())
    for push in reversed(pushes):
        push.answer()
    laptop.caught_up()
    assert laptop.sequences == [2]


def test_the_own_push_empties_a_slot_with_what_was_before_it(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    laptop.congested = True
    phone.push(1)
    laptop.push(2)
    world.settle()
    laptop.caught_up()
    assert laptop.sequences == []
    assert laptop.answers[0]["result"]["sequence"] == 2


def test_a_peer_that_caught_up_with_nothing_to_tell_is_told_nothing(world: World) -> None:
    phone = world.log_in("phone")
    phone.caught_up()
    stranger = world.connect()
    stranger.caught_up()
    assert phone.inbox == stranger.inbox == []


# Answers that come first.


@pytest.mark.parametrize("before", [0, 1])
def test_a_get_in_a_batch_is_not_overtaken_by_a_notification(world: World, before: int) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop", deliver="state")
    for sequence in range(1, before + 1):
        phone.push(sequence)
        world.settle()
    laptop.inbox.clear()
    get, _ = laptop.batch(("wallet.get", {}), ("wallet.history", {}))
    slow = world.take(LoadHistory).perform()
    world.do(LoadWallet)
    phone.push(before + 1)
    world.settle()
    assert laptop.inbox == []
    slow.answer()
    given = laptop.answer(get)
    assert (given["sequence"] if before else given["data"]["reason"]) == (before or "no_wallet")
    assert isinstance(laptop.inbox[0], list)
    assert laptop.sequences == [before + 1]
    assert laptop.notifications[0][1]["wallet"]["sequence"] == before + 1


def test_two_batches_with_gets_are_both_answered_before_the_notification(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop", presence=True)
    slow, batches = [], []
    for _ in range(2):
        ids = laptop.batch(("wallet.get", {}), ("wallet.get", {}), ("wallet.history", {}))
        batches.append(str(ids))
        slow.append(world.take(LoadHistory).perform())
        world.settle()
    phone.push(1)
    world.settle()
    laptop.caught_up()
    slow[0].answer()
    assert laptop.notifications == []
    slow[1].answer()
    assert laptop.names == [*batches, "wallet.updated", "device.updated"]


def test_a_batch_without_a_get_holds_nothing_back(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    laptop.batch(("server.ping", {}), ("wallet.history", {}))
    slow = world.take(LoadHistory).perform()
    phone.push(1)
    world.settle()
    assert laptop.sequences == [1]
    slow.answer()
    assert len(laptop.inbox) == 2


def test_a_get_in_a_batch_that_waits_yet_is_read_again_and_holds_nothing_back(
    world: World,
) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    get, _ = laptop.batch(("wallet.get", {}), ("server.ping", {}))
    read = world.take(LoadWallet).perform()
    phone.push(1)
    world.settle()
    assert laptop.sequences == [1]
    read.answer()
    world.settle()
    assert laptop.answer(get)["sequence"] == 1


# Presence.


def test_who_asked_for_presence_hears_of_others_that_come_go_and_acknowledge(
    world: World,
) -> None:
    phone = world.log_in("phone", presence=True)
    laptop = world.log_in("laptop", deviceName="Joe's laptop")
    laptop.push(1)
    world.settle()
    world.now_ms = NOW_MS + 1000
    laptop.drop()
    expected = {
        "deviceId": "laptop",
        "name": "Joe's laptop",
        "createdAt": format_time(time_from_ms(NOW_MS)),
        "lastSeenAt": format_time(time_from_ms(NOW_MS)),
        "online": True,
        "current": False,
        "appliedSequence": 0,
    }
    assert [params for name, params in phone.notifications if name == "device.updated"] == [
        expected,
        expected | {"appliedSequence": 1},
        expected
        | {
            "appliedSequence": 1,
            "online": False,
            "lastSeenAt": format_time(time_from_ms(NOW_MS + 1000)),
        },
    ]
    assert laptop.notifications == []


def test_a_device_hears_nothing_of_itself(world: World) -> None:
    phone = world.log_in("phone", presence=True)
    twin = world.resume(phone.token, presence=True)
    phone.push(1)
    world.settle()
    phone.ask("wallet.ack", sequence=1)
    phone.drop()
    assert [name for name, _ in twin.notifications] == ["wallet.updated"]


def test_only_the_first_and_the_last_connection_of_a_device_are_told_of(world: World) -> None:
    phone = world.log_in("phone", presence=True)
    laptop = world.log_in("laptop")
    twin = world.resume(laptop.token)
    laptop.drop()
    twin.drop()
    assert [params["online"] for _, params in phone.notifications] == [True, False]


def test_a_slow_reader_hears_the_newest_of_each_device(world: World) -> None:
    phone = world.log_in("phone", presence=True)
    phone.congested = True
    laptop = world.log_in("laptop")
    world.log_in("tablet")
    laptop.drop()
    assert phone.inbox == []
    phone.caught_up()
    assert [(params["deviceId"], params["online"]) for _, params in phone.notifications] == [
        ("laptop", False),
        ("tablet", True),
    ]
    assert phone.effects.count(Superseded("device.updated")) == 1


def test_what_waits_for_a_slow_reader_is_not_told_after_what_is_newer(world: World) -> None:
    phone = world.log_in("phone", presence=True)
    phone.congested = True
    laptop = world.log_in("laptop")
    phone.congested = False  # the transport tells so a moment later
    laptop.drop()
    phone.caught_up()
    assert [params["online"] for _, params in phone.notifications] == [False]


def test_what_a_twin_applied_while_a_resume_was_loaded_is_not_forgotten(world: World) -> None:
    phone = world.log_in("phone", presence=True)
    laptop = world.log_in("laptop")
    phone.push(1)
    world.settle()
    twin = world.connect()
    twin.call("session.resume", token=laptop.token)
    world.jobs.pop(0).perform().answer()
    load = world.jobs.pop(0).perform()
    laptop.ask("wallet.ack", sequence=1)
    load.answer()
    laptop.drop()
    twin.drop()
    assert phone.notifications[-1][1]["online"] is False
    assert phone.notifications[-1][1]["appliedSequence"] == 1
    assert world.store.accounts[EMAIL].devices["laptop"].record.applied_sequence == 1


# What the hub asks.


def test_a_session_knows_what_it_was_told_what_waits_to_be_told_and_what_it_pushed(
    world: World,
) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    assert (phone.known_sequence, laptop.known_sequence) == (0, 0)
    laptop.congested = True
    phone.push(1)
    world.settle()
    assert (phone.known_sequence, laptop.known_sequence) == (1, 1)
    phone.ask("wallet.get")
    laptop.ask("wallet.push", sequence=2, encryptedWallet="mine", hmac="h", receipt=True)
    assert (phone.known_sequence, laptop.known_sequence) == (2, 2)
    assert world.log_in("tablet").known_sequence == 2


def test_what_a_get_gave_was_not_told(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    phone.push(1)
    push = world.take(PushState).perform()
    laptop.ask("wallet.get")
    assert laptop.known_sequence == 0
    push.answer()
    assert laptop.sequences == [1]
