"""How a session ends: logout and the like, revocation, drain, loss."""

from __future__ import annotations

import pytest

from tests.unit.world import EMAIL, KDF_JSON, PASSWORD, Peer, World, make_facts, push_params
from wsschema.errors import Unavailable
from wsserver.effects import Answered, Close, Leave, Send
from wsserver.gate import Gate, GateLimits
from wsserver.operations import (
    CheckPassword,
    EndSession,
    LoadAccountCredentials,
    LoadHistory,
    LoadWallet,
    PushState,
)

CHANGE = {
    "oldPassword": PASSWORD,
    "newPassword": "battery staple",
    "clientSaltSeed": "b" * 64,
    "kdf": KDF_JSON,
}
LIMITS = GateLimits()
ENDING = [
    ("session.logout", {}, "logged_out"),
    ("account.delete", {"password": PASSWORD}, "account_deleted"),
    ("account.changePassword", CHANGE, "password_changed"),
    ("device.revoke", {"deviceId": "phone"}, "device_revoked"),
]


@pytest.fixture
def world() -> World:
    world = World()
    world.store.add_account()
    return world


@pytest.fixture
def phone(world: World) -> Peer:
    return world.log_in("phone")


# What ends a session is answered first.


@pytest.mark.parametrize(("method", "params", "reason"), ENDING)
def test_what_ends_the_session_is_answered_then_the_session_is_revoked(
    world: World, phone: Peer, method: str, params: dict[str, object], reason: str
) -> None:
    call = phone.call(method, **params)
    world.settle()
    assert phone.names == [str(call), "session.revoked"]
    assert phone.answer(call) == {}
    assert phone.notifications == [("session.revoked", {"reason": reason})]
    assert phone.closed == (4401, reason)
    assert [type(effect) for effect in phone.effects[-4:]] == [Answered, Send, Close, Leave]
    assert len(world.hub) == 0


@pytest.mark.parametrize(("method", "params", "reason"), ENDING)
def test_in_a_batch_it_is_revoked_after_the_batchs_answer(
    world: World, phone: Peer, method: str, params: dict[str, object], reason: str
) -> None:
    ids = phone.batch((method, params), ("wallet.history", {}))
    slow = world.take(LoadHistory).perform()
    world.settle()
    assert phone.inbox == []
    slow.answer()
    assert phone.names == [str(ids), "session.revoked"]
    assert phone.closed == (4401, reason)


@pytest.mark.parametrize(("method", "params", "reason"), ENDING)
def test_without_id_there_is_no_answer_to_wait_for(
    world: World, phone: Peer, method: str, params: dict[str, object], reason: str
) -> None:
    phone.send({"jsonrpc": "2.0", "method": method, "params": params})
    world.settle()
    assert phone.names == ["session.revoked"]
    assert phone.closed == (4401, reason)


def test_a_push_before_a_logout_is_answered_and_one_after_it_in_the_batch_does_not_land(
    world: World, phone: Peer
) -> None:
    before = phone.push(1)
    logout, after = phone.batch(("session.logout", {}), ("wallet.push", push_params(2)))
    world.settle()
    assert phone.answer(before)["sequence"] == 1
    assert phone.answer(logout) == {}
    assert phone.answer(after)["data"]["reason"] == "bad_token"
    assert world.store.accounts[EMAIL].sequence == 1
    assert phone.names[-1] == "session.revoked"


def test_two_logouts_are_both_answered(world: World, phone: Peer) -> None:
    first, second = phone.call("session.logout"), phone.call("session.logout")
    world.settle()
    assert phone.names == [str(first), str(second), "session.revoked"]
    assert phone.answer(first) == {}
    assert phone.answer(second)["data"]["reason"] == "bad_token"
    assert phone.closed == (4401, "logged_out")


def test_two_logouts_in_a_batch_are_both_answered(world: World, phone: Peer) -> None:
    ids = phone.batch(("session.logout", {}), ("session.logout", {}))
    world.settle()
    assert phone.names == [str(ids), "session.revoked"]


def test_a_logout_that_fails_ends_nothing(world: World, phone: Peer) -> None:
    call = phone.call("session.logout")
    world.take(EndSession).fail(Unavailable()).answer()
    assert phone.answer(call)["data"]["reason"] == "unavailable"
    assert phone.ask("wallet.get")["data"]["reason"] == "no_wallet"
    world.log_in("phone")
    assert phone.closed == (4401, "replaced")


def test_revoking_another_device_ends_the_other_alone(world: World, phone: Peer) -> None:
    laptop = world.log_in("laptop")
    call = phone.call("device.revoke", deviceId="laptop")
    world.settle()
    assert phone.answer(call) == {}
    assert phone.closed is None
    assert laptop.names == ["session.revoked"]
    assert laptop.closed == (4401, "device_revoked")


def test_a_logout_ends_the_tokens_other_connections_too(world: World, phone: Peer) -> None:
    twin, laptop = world.resume(phone.token), world.log_in("laptop")
    phone.ask("session.logout")
    assert twin.closed == (4401, "logged_out")
    assert laptop.closed is None


# Revocation by others.


def test_a_revocation_is_told_at_once_and_calls_in_flight_are_given_up(
    world: World, phone: Peer
) -> None:
    call = phone.call("wallet.get")
    read = world.take(LoadWallet).perform()
    world.log_in("phone")
    assert phone.names == ["session.revoked"]
    assert phone.session.in_flight == 0
    read.answer()
    assert str(call) not in phone.names


def test_nothing_reaches_a_session_that_is_over(world: World, phone: Peer) -> None:
    world.log_in("phone")
    told = len(phone.inbox)
    laptop = world.log_in("laptop")
    laptop.push(1)
    world.settle()
    phone.call("server.ping")
    phone.caught_up()
    phone.drain()
    phone.revoked("expired")
    phone.drop()
    assert len(phone.inbox) == told
    assert phone.closed == (4401, "replaced")


@pytest.mark.parametrize("drains", [False, True])
def test_an_ending_call_in_flight_is_answered_before_a_revocation_by_others(
    world: World, phone: Peer, drains: bool
) -> None:
    """Who waits for its end is not told that the server drains."""
    call = phone.call("account.delete", password="wrong password")
    check = world.take(LoadAccountCredentials)
    world.log_in("phone")
    if drains:
        phone.drain()
    assert phone.inbox == []
    check.perform().answer()
    world.settle()
    assert phone.names == [str(call), "session.revoked"]
    assert phone.answer(call)["code"] == 401
    assert phone.closed == (4401, "replaced")


def test_a_session_whose_token_is_gone_hears_nothing_while_its_call_runs(
    world: World, phone: Peer
) -> None:
    phone.drop()
    phone = world.resume(phone.token, deliver="state", presence=True)
    laptop = world.log_in("laptop")
    phone.inbox.clear()
    phone.congested = True
    laptop.push(1)
    world.settle()
    phone.call("account.delete", password="wrong password")
    credentials = world.take(LoadAccountCredentials).perform()
    laptop.ask("device.revoke", deviceId="phone")
    phone.congested = False
    laptop.push(2)
    world.settle()
    world.log_in("tablet")
    phone.caught_up()
    assert phone.inbox == []
    credentials.answer()
    world.settle()
    assert phone.notifications == [("session.revoked", {"reason": "device_revoked"})]


@pytest.mark.parametrize("method", ["account.delete", "session.logout", "wallet.get"])
def test_a_session_whose_token_is_gone_can_not_put_off_its_end_by_new_calls(
    world: World, phone: Peer, method: str
) -> None:
    phone.call("account.delete", password="wrong password")
    check = world.take(LoadAccountCredentials)
    world.log_in("phone")
    late = phone.call(method, password="wrong password")
    assert phone.answer(late)["data"]["reason"] == "bad_token"
    assert phone.answer(phone.call("server.ping")) == {}
    check.perform().answer()
    world.do(CheckPassword)
    assert phone.closed == (4401, "replaced")


def test_the_first_reason_is_told(world: World, phone: Peer) -> None:
    phone.call("account.delete", password="wrong password")
    check = world.take(LoadAccountCredentials)
    world.log_in("phone")
    phone.revoked("account_disabled")
    check.perform().answer()
    world.settle()
    assert phone.closed == (4401, "replaced")


# Drain.


def test_an_idle_session_is_told_that_the_server_drains_and_closed(phone: Peer) -> None:
    phone.drain(250)
    assert phone.notifications == [("server.closing", {"retryAfterMs": 250})]
    assert phone.close_code == 1012
    assert isinstance(phone.effects[-1], Leave)


def test_an_idle_stranger_is_closed_and_told_nothing(world: World) -> None:
    peer = world.connect()
    peer.drain()
    assert peer.inbox == []
    assert peer.close_code == 1012
    assert not any(isinstance(effect, Leave) for effect in peer.effects)


def test_calls_in_flight_are_answered_before_a_drained_session_is_closed(
    world: World, phone: Peer
) -> None:
    push, get = phone.push(1), phone.call("wallet.get")
    phone.drain()
    assert phone.closed is None
    world.do(PushState)
    assert phone.closed is None
    world.do(LoadWallet)
    assert phone.names == ["server.closing", str(push), str(get)]
    assert phone.close_code == 1012


def test_a_session_that_is_drained_refuses_new_calls_and_tells_when_to_come_back(
    world: World, phone: Peer
) -> None:
    phone.push(1)
    phone.drain(250)
    for method in ("wallet.get", "server.ping", "session.login"):
        error = phone.answer(phone.call(method))
        assert (error["code"], error["data"]["retryAfterMs"]) == (503, 250)
    ids = phone.batch(("server.ping", {}), ("no.such", {}))
    assert phone.answer(ids[1])["code"] == -32601
    assert phone.closed is None
    world.settle()
    assert phone.close_code == 1012


def test_a_session_that_is_drained_still_hears_of_pushes(world: World, phone: Peer) -> None:
    laptop = world.log_in("laptop")
    phone.call("wallet.history")
    slow = world.take(LoadHistory).perform()
    laptop.push(1)
    phone.drain()
    world.settle()
    assert phone.sequences == [1]
    slow.answer()
    assert phone.close_code == 1012


def test_a_batch_with_a_logout_ends_revoked_and_not_to_be_resumed_though_the_server_drains(
    world: World, phone: Peer
) -> None:
    phone.batch(("wallet.history", {}), ("session.logout", {}))
    phone.drain()
    world.settle()
    assert phone.closed == (4401, "logged_out")


def test_a_call_without_id_is_finished_before_a_drained_session_is_closed(
    world: World, phone: Peer
) -> None:
    phone.send({"jsonrpc": "2.0", "method": "wallet.push", "params": push_params(1)})
    phone.drain()
    assert phone.closed is None
    world.settle()
    assert phone.close_code == 1012
    assert world.store.accounts[EMAIL].sequence == 1


# Cut off by the gate.


def test_a_batch_in_which_the_gate_cuts_the_connection_off_goes_no_further() -> None:
    world = World(make_facts(gate=Gate(LIMITS, enabled=True, clock=lambda: 0.0)))
    peer = world.connect()
    for _ in range(LIMITS.message_rate.burst + LIMITS.refusals_max - 1):
        peer.call("server.ping")
    heard = len(peer.inbox)
    peer.batch(("server.ping", {}), ("account.prelogin", {"email": EMAIL}))
    assert peer.close_code == 4429
    assert len(peer.inbox) == heard
    assert not world.jobs


def test_who_spoke_last_is_idle_for_the_shortest_time() -> None:
    seconds = [10.0]
    world = World(make_facts(gate=Gate(LIMITS, enabled=True, clock=lambda: seconds[0])))
    first, second = world.connect(), world.connect()
    first.call("server.ping")
    seconds[0] += 1
    second.call("server.ping")
    assert 10 <= first.idle_since_s < 11 <= second.idle_since_s < 12


# Loss.


def test_a_lost_session_leaves_once_and_answers_no_one(world: World, phone: Peer) -> None:
    phone.call("wallet.get")
    phone.drop()
    phone.drop()
    world.settle()
    assert [type(effect) for effect in phone.effects[-1:]] == [Leave]
    assert phone.inbox == []
    assert len(world.hub) == 0


def test_a_token_outlives_the_loss_of_its_connection(world: World, phone: Peer) -> None:
    phone.drop()
    assert world.resume(phone.token).session.live


def test_there_is_no_token_before_login_or_resume(world: World) -> None:
    with pytest.raises(AssertionError, match="before login or resume"):
        _ = world.connect().session.token
