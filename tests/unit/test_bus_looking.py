"""Which accounts are looked at, and what their sessions are told."""

from __future__ import annotations

from tests.unit.test_hub import ACCOUNT, NOW_MS, Ear, open_in
from wsschema.messages import WalletState
from wsschema.times import time_from_ms
from wsserver.bus.looking import (
    ACCOUNTS_AT_ONCE,
    REASONS_MAX,
    STATES_AT_ONCE,
    Looking,
)
from wsserver.hub import Hub
from wsserver.operations import Applied, FindMoved, Moved, Published, Revoked, Standing


def state_of(sequence: int, device_id: str = "phone") -> WalletState:
    return WalletState(sequence, "wallet", "hmac", device_id, time_from_ms(NOW_MS))


def news(sequence: int, device_id: str = "phone", author: int = 1) -> Published:
    return Published(ACCOUNT, state_of(sequence, device_id), author)


def begin(*ears: Ear) -> tuple[Hub, Looking]:
    hub = Hub()
    open_in(hub, *ears)
    for ear in ears:
        ear.devices.clear()
    return hub, Looking(hub)


def ask(looking: Looking) -> list[Standing]:
    question = looking.ask()
    return [] if question is None else [*question.standings]


def test_where_nothing_moved_there_is_nothing_to_ask() -> None:
    _, looking = begin(Ear(1))
    assert not looking.waiting
    assert looking.ask() is None


def test_an_account_that_moved_is_asked_about_with_what_its_sessions_know() -> None:
    phone, laptop = Ear(1, "phone", b"p"), Ear(2, "laptop", b"l")
    phone.known_sequence, laptop.known_sequence = 4, 3
    _, looking = begin(phone, laptop)
    looking.move(ACCOUNT, 4)
    assert looking.waiting
    question = looking.ask()
    assert question is not None
    assert question.states_max == STATES_AT_ONCE
    (standing,) = question.standings
    assert (standing.account_id, standing.sequence) == (ACCOUNT, 3)
    assert {*standing.sessions} == {("phone", b"p"), ("laptop", b"l")}
    assert not looking.waiting


def test_what_is_known_already_is_not_asked_about() -> None:
    ear = Ear(1)
    ear.known_sequence = 4
    _, looking = begin(ear)
    looking.move(ACCOUNT, 4)
    looking.move(8)
    looking.move(8, 1)
    looking.revoke(Revoked(8, "replaced"))
    looking.publish_later(Published(8, state_of(1), 1))
    assert not looking.waiting
    looking.move(ACCOUNT)
    assert looking.waiting


def test_a_newer_state_is_told_to_all() -> None:
    phone, laptop = Ear(1), Ear(2, "laptop")
    _, looking = begin(phone, laptop)
    looking.move(ACCOUNT, 1)
    looking.ask()
    told = looking.tell([Moved(ACCOUNT, 1, state_of(1, "tablet"))])
    assert told == [Applied(ACCOUNT, "tablet", 1)]
    assert [one.updates[0].state.sequence for one in (phone, laptop)] == [1, 1]
    assert not looking.waiting


def test_a_state_that_was_too_much_is_asked_for_again() -> None:
    _, looking = begin(Ear(1))
    looking.move(ACCOUNT, 1)
    looking.ask()
    assert looking.tell([Moved(ACCOUNT, 1)]) == []
    assert looking.waiting


def test_who_moved_back_is_not_asked_about_for_ever() -> None:
    ear = Ear(1)
    ear.known_sequence = 5
    _, looking = begin(ear)
    looking.move(ACCOUNT)
    looking.ask()
    looking.tell([Moved(ACCOUNT, 1, None, ((b"token", None),))])
    assert not looking.waiting


def test_sessions_whose_tokens_have_ended_are_over_for_the_reason_that_was_told() -> None:
    phone, laptop, tablet = Ear(1, "phone", b"p"), Ear(2, "laptop", b"l"), Ear(3, "tablet", b"t")
    _, looking = begin(phone, laptop, tablet)
    looking.revoke(Revoked(ACCOUNT, "device_revoked", "laptop"))
    looking.ask()
    ended = ((b"p", "replaced"), (b"l", None))
    looking.tell([Moved(ACCOUNT, 0, None, ended)])
    assert [one.reasons for one in (phone, laptop, tablet)] == [
        ["replaced"],
        ["device_revoked"],
        [],
    ]


def test_why_a_token_has_ended_may_not_be_known() -> None:
    phone = Ear(1)
    _, looking = begin(phone)
    looking.move(ACCOUNT)
    looking.ask()
    looking.tell([Moved(ACCOUNT, 0, None, ((b"token", None),))])
    assert phone.reasons == ["expired"]


def test_a_revocation_that_comes_late_ends_no_session_that_has_begun_since() -> None:
    phone = Ear(1)
    _, looking = begin(phone)
    looking.revoke(Revoked(ACCOUNT, "password_changed"))
    looking.ask()
    looking.tell([])
    assert phone.reasons == []


def test_a_session_without_a_token_yet_is_not_judged() -> None:
    opening = Ear(1, "phone", None)
    hub = Hub()
    hub.join(ACCOUNT, opening)
    looking = Looking(hub)
    looking.move(ACCOUNT)
    assert ask(looking) == [Standing(ACCOUNT, 0, ())]
    looking.tell([Moved(ACCOUNT, 0, None, ((b"other", None),))])
    assert opening.reasons == []


def test_a_push_of_this_node_is_told_to_those_alone_whose_tokens_live() -> None:
    phone, laptop, tablet = Ear(1, "phone", b"p"), Ear(2, "laptop", b"l"), Ear(3, "tablet", b"t")
    hub, looking = begin(phone, laptop, tablet)
    looking.publish_later(news(1))
    assert ask(looking)[0].sequence == 1
    laptop.revoked = _leaving(hub, laptop)  # type: ignore[method-assign]  # as a session does
    looking.tell([Moved(ACCOUNT, 1, None, ((b"l", None),))])
    assert [len(one.updates) for one in (phone, laptop, tablet)] == [0, 0, 1]
    assert not looking.waiting


def _leaving(hub: Hub, ear: Ear):  # type: ignore[no-untyped-def]  # only here
    return lambda reason: hub.leave(ACCOUNT, ear, now_ms=NOW_MS)


def test_of_several_pushes_the_newest_is_told_and_of_the_others_that_they_were_applied() -> None:
    phone, laptop, tablet = Ear(1), Ear(2, "laptop"), Ear(3, "tablet")
    _, looking = begin(phone, laptop, tablet)
    looking.publish_later(news(1, "phone", 1))
    looking.publish_later(news(2, "laptop", 2))
    looking.ask()
    looking.tell([])
    assert [update.state.sequence for update in tablet.updates] == [2]
    assert [(it.device_id, it.applied_sequence) for it in tablet.devices] == [
        ("laptop", 2),
        ("phone", 1),
    ][::-1]


def test_what_another_node_stored_after_a_push_of_this_one_is_told_after_it() -> None:
    phone, laptop = Ear(1), Ear(2, "laptop")
    _, looking = begin(phone, laptop)
    looking.publish_later(news(1))
    looking.ask()
    looking.tell([Moved(ACCOUNT, 2, state_of(2, "tablet"))])
    assert [update.state.sequence for update in laptop.updates] == [1, 2]
    assert [update.state.sequence for update in phone.updates] == [2]


def test_a_question_that_was_not_answered_is_put_again_with_what_came_since() -> None:
    phone, laptop = Ear(1), Ear(2, "laptop", b"l")
    _, looking = begin(phone, laptop)
    looking.publish_later(news(1))
    looking.revoke(Revoked(ACCOUNT, "device_revoked", "laptop"))
    looking.ask()
    looking.publish_later(news(2))
    looking.put_off()
    assert looking.waiting
    assert ask(looking)[0].sequence == 2
    looking.put_off()
    looking.ask()
    looking.move(ACCOUNT)
    looking.put_off()
    looking.ask()
    looking.tell([Moved(ACCOUNT, 2, None, ((b"l", None),))])
    assert laptop.reasons == ["device_revoked"]


def test_all_accounts_are_asked_about_in_parts_those_that_moved_first() -> None:
    hub = Hub()
    count = 2 * ACCOUNTS_AT_ONCE + 1
    for account_id in range(count):
        hub.join(account_id, Ear(account_id))
    looking = Looking(hub)
    looking.move_all()
    looking.move(count - 1)
    asked: list[int] = []
    sizes: list[int] = []
    while looking.waiting:
        assert looking.looks_at_all or len(sizes) == 2
        standings = ask(looking)
        asked += [one.account_id for one in standings]
        sizes.append(len(standings))
        looking.tell([])
    assert asked[0] == count - 1
    assert sorted(asked) == [*range(count)]
    assert sizes == [ACCOUNTS_AT_ONCE, ACCOUNTS_AT_ONCE, 1]
    assert not looking.looks_at_all


def test_who_has_left_is_not_asked_about() -> None:
    phone = Ear(1)
    hub, looking = begin(phone)
    looking.move_all()
    looking.move(ACCOUNT)
    hub.leave(ACCOUNT, phone, now_ms=NOW_MS)
    assert looking.ask() is None
    assert not looking.waiting


def test_no_more_reasons_are_kept_than_there_are_devices() -> None:
    phone = Ear(1)
    _, looking = begin(phone)
    for number in range(REASONS_MAX + 5):
        looking.revoke(Revoked(ACCOUNT, f"reason {number}", "phone"))
    looking.ask()
    looking.put_off()
    looking.ask()
    looking.tell([Moved(ACCOUNT, 0, None, ((b"token", None),))])
    assert phone.reasons == ["reason 5"]


def test_a_question_is_an_operation_that_reads() -> None:
    assert not FindMoved.writes
