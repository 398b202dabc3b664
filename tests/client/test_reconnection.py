"""What to do after which close, when, and what to send again: every case, without a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsclient.errors import AnswerLost, MessageTooLarge
from wsclient.reconnection import (
    BACKOFF_MAX_S,
    REPEATABLE,
    STABLE_AFTER_S,
    ComeBack,
    Outbox,
    Reconnection,
    StayAway,
)
from wsschema import errors
from wsschema.close_codes import CloseCode
from wsschema.messages import (
    METHODS,
    REVOCATION_REASONS,
    Acknowledge,
    Call,
    ChangePassword,
    DeleteAccount,
    GetWallet,
    Kdf,
    Ping,
    PushWallet,
    RequestReset,
    RevokeDevice,
)


def middle() -> float:
    return 0.5


def make(random: Callable[[], float] = middle) -> Reconnection:
    return Reconnection(random)


COMES_BACK = [None, 1000, 1001, 1005, 1006, 1008, 1009, 1011, 1012, 1013, 4000, 4402, 4408, 4429]


@pytest.mark.parametrize("code", COMES_BACK)
def test_after_most_codes_known_or_not_it_comes_back(code: int | None) -> None:
    assert make().after_close(code, 0.0) == ComeBack(0.5)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1002, "close_1002"), (1003, "close_1003"), (1007, "close_1007"), (4401, "revoked")],
)
def test_after_these_codes_it_stays_away(code: int, reason: str) -> None:
    assert make().after_close(code, 0.0) == StayAway(reason)


def test_every_code_of_the_protocol_has_its_verdict_here() -> None:
    assert {int(code) for code in CloseCode} <= {*COMES_BACK, 1002, 1003, 1007, 4401}


@pytest.mark.parametrize("reason", REVOCATION_REASONS)
@pytest.mark.parametrize("code", [4401, 1006, None])
def test_a_revoked_session_stays_away_however_it_was_closed(reason: str, code: int | None) -> None:
    reconnection = make()
    reconnection.note_revoked(reason)
    assert reconnection.after_close(code, 0.0) == StayAway(reason)


def test_the_bound_doubles_with_every_failure_up_to_a_minute() -> None:
    reconnection = make(lambda: 1.0)
    verdicts = [reconnection.after_close(1006, 0.0)]
    verdicts += [reconnection.after_failed_opening(0.0) for _ in range(100)]
    waits_s = [verdict.after_s for verdict in verdicts if isinstance(verdict, ComeBack)]
    assert waits_s == [1, 2, 4, 8, 16, 32, *[60.0] * 95]


@given(share=st.floats(0, 1), failures=st.integers(1, 50))
def test_the_jitter_is_full(share: float, failures: int) -> None:
    reconnection = make(lambda: share)
    for _ in range(failures):
        verdict = reconnection.after_failed_opening(0.0)
    assert verdict.after_s == share * min(BACKOFF_MAX_S, 2.0 ** (failures - 1))


def test_a_connection_that_lived_begins_the_backoff_anew() -> None:
    reconnection = make()
    for _ in range(5):
        reconnection.after_failed_opening(0.0)
    reconnection.note_up(100.0)
    assert reconnection.after_close(1006, 100.0 + STABLE_AFTER_S) == ComeBack(0.5)


def test_one_that_was_lost_at_once_does_not() -> None:
    reconnection = make()
    for now_s in (0.0, 1.0, 2.0):
        reconnection.note_up(now_s)
        verdict = reconnection.after_close(4429, now_s + STABLE_AFTER_S - 0.001)
    assert verdict == ComeBack(2.0)


def test_it_never_comes_back_before_it_was_told_to() -> None:
    reconnection = make(lambda: 0.0)
    reconnection.note_retry_after(5_000, 10.0)
    reconnection.note_retry_after(1_000, 11.0)
    assert reconnection.after_close(1012, 12.0) == ComeBack(3.0)
    assert reconnection.after_close(1012, 20.0) == ComeBack(0.0)


def test_jitter_comes_on_top_of_what_it_was_told() -> None:
    reconnection = make()
    reconnection.note_retry_after(5_000, 0.0)
    assert reconnection.after_close(1012, 0.0) == ComeBack(5.5)


@pytest.mark.parametrize("error", [errors.RateLimited, errors.Unavailable])
def test_a_refusal_that_names_a_time_is_waited_for(
    error: type[errors.RateLimited | errors.Unavailable],
) -> None:
    verdict = make().after_refusal(error(retry_after_ms=2_000), 7.0)
    assert verdict == ComeBack(2.5)


@pytest.mark.parametrize(
    "error", [errors.InternalError(), errors.UnknownError(499, "?"), errors.UnknownError(-1, "?")]
)
def test_a_failure_of_the_server_passes(error: errors.RpcError) -> None:
    assert make().after_refusal(error, 0.0) == ComeBack(0.5)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.BadToken(), "bad_token"),
        (errors.AccountDisabled(), "account_disabled"),
        (errors.NotVerified(), "not_verified"),
        (errors.Unauthorized(), "error_401"),
        (errors.Forbidden(), "error_403"),
        (errors.InvalidParams(), "error_-32602"),
        (errors.MethodNotFound(), "error_-32601"),
        (errors.InvalidRequest(), "error_-32600"),
        (errors.ParseError(), "error_-32700"),
    ],
)
def test_a_refusal_that_will_not_change_ends_it(error: errors.RpcError, reason: str) -> None:
    assert make().after_refusal(error, 0.0) == StayAway(reason)


# What is sent again.


def send_all(outbox: Outbox) -> list[Call[Any]]:
    sent = []
    while (entry := outbox.next_unsent()) is not None:
        entry.sent = True
        sent.append(entry.call)
    return sent


def push(sequence: int, wallet: str = "-") -> PushWallet:
    return PushWallet(sequence, wallet, f"hmac {sequence}")


def test_calls_go_out_in_the_order_in_which_they_were_made() -> None:
    outbox = Outbox()
    calls = [push(1), push(2), Ping(), push(3)]
    for call in calls:
        outbox.add(call)
    assert send_all(outbox) == calls
    assert outbox.next_unsent() is None


def test_unanswered_pushes_go_again_in_order_and_to_the_letter() -> None:
    outbox = Outbox()
    entries = [outbox.add(push(sequence)) for sequence in (1, 2, 3)]
    payloads = [entry.payload for entry in entries]
    send_all(outbox)
    outbox.remove(entries[0].id)

    assert outbox.lose_connection(1006) == []

    again = []
    while (entry := outbox.next_unsent()) is not None:
        entry.sent = True
        again.append(entry.payload)
    assert again == payloads[1:]


def test_a_call_made_while_away_goes_after_those_without_an_answer() -> None:
    outbox = Outbox()
    outbox.add(push(1))
    send_all(outbox)
    outbox.lose_connection(None)
    outbox.add(push(2))
    assert send_all(outbox) == [push(1), push(2)]


def test_what_must_not_be_repeated_fails_when_its_answer_is_lost() -> None:
    outbox = Outbox()
    outbox.add(GetWallet())
    lost = outbox.add(RevokeDevice("phone"))
    send_all(outbox)

    ((entry, error),) = outbox.lose_connection(1006)

    assert entry is lost
    assert isinstance(error, AnswerLost)
    assert str(error).startswith("the connection was lost before device.revoke was answered")
    assert send_all(outbox) == [GetWallet()]


def test_what_was_never_sent_is_not_lost() -> None:
    outbox = Outbox()
    outbox.add(DeleteAccount("password"))
    assert outbox.lose_connection(1006) == []
    assert send_all(outbox) == [DeleteAccount("password")]


def test_only_what_changes_nothing_twice_is_repeated() -> None:
    repeated = {name for name, method in METHODS.items() if method.params in REPEATABLE}
    assert set(METHODS) - repeated == {
        "account.register",
        "account.verify",
        "account.resendVerification",
        "account.requestReset",
        "account.reset",
        "account.changePassword",
        "account.delete",
        "session.logout",
        "device.revoke",
    }


def test_after_1009_the_largest_message_is_left_behind() -> None:
    outbox = Outbox()
    outbox.add(push(1))
    large = outbox.add(push(2, "x" * 1000))
    outbox.add(GetWallet())
    send_all(outbox)

    ((entry, error),) = outbox.lose_connection(1009)

    assert entry is large
    assert isinstance(error, MessageTooLarge)
    assert error.message_bytes == len(large.payload)
    assert send_all(outbox) == [push(1), GetWallet()]


def test_after_1009_a_message_that_was_not_sent_is_not_blamed() -> None:
    outbox = Outbox()
    outbox.add(push(2, "x" * 1000))
    assert outbox.lose_connection(1009) == []
    assert len(outbox) == 1


def test_after_1009_a_large_call_that_is_not_repeatable_fails_once() -> None:
    outbox = Outbox()
    outbox.add(RequestReset("joe@example.com"))
    send_all(outbox)
    ((_, error),) = outbox.lose_connection(1009)
    assert isinstance(error, MessageTooLarge)
    assert len(outbox) == 0


def test_an_answered_call_is_taken_out_once() -> None:
    outbox = Outbox()
    entry = outbox.add(Acknowledge(1))
    assert outbox.remove(entry.id) is entry
    assert outbox.remove(entry.id) is None


@pytest.mark.parametrize("call_id", [None, "1", 1.0, 99, True])
def test_an_answer_to_nothing_that_was_asked_is_ignored(call_id: object) -> None:
    outbox = Outbox()
    outbox.add(Ping())
    assert outbox.remove(call_id) is None
    assert len(outbox) == 1


def test_every_call_has_its_own_id_kept_or_not() -> None:
    outbox = Outbox()
    entries = [outbox.add(Ping()), outbox.number(Ping()), outbox.add(Ping())]
    assert len(outbox) == 2
    assert [orjson.loads(entry.payload)["id"] for entry in entries] == [1, 2, 3]


def test_a_push_that_waits_for_its_answer_is_known_by_its_state() -> None:
    outbox = Outbox()
    entry = outbox.add(push(3))
    assert outbox.holds_push(3, "hmac 3")
    assert not outbox.holds_push(3, "another hmac")
    assert not outbox.holds_push(4, "hmac 4")
    outbox.remove(entry.id)
    assert not outbox.holds_push(3, "hmac 3")


def test_what_rests_on_lost_states_is_taken_out_where_the_data_was_restored() -> None:
    outbox = Outbox()
    push = outbox.add(PushWallet(1, "-", "h"))
    ping = outbox.add(Ping())
    acknowledgement = outbox.add(Acknowledge(1))
    change = outbox.add(ChangePassword("old password", "new password", "a" * 64, Kdf.scrypt(2**14)))
    dropped = outbox.drop_outdated()
    assert [entry for entry, _ in dropped] == [push, acknowledgement, change]
    assert all(isinstance(error, AnswerLost) for _, error in dropped)
    assert outbox.next_unsent() is ping
    assert len(outbox) == 1
