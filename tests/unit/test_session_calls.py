"""Envelopes, the order of checks, batches, and the methods that wait for nothing."""

from __future__ import annotations

import hashlib

import pytest

from tests.unit.world import (
    EMAIL,
    KDF_JSON,
    PASSWORD,
    SEED,
    World,
    make_call,
    make_facts,
    push_params,
)
from wsschema.errors import Unavailable
from wsschema.limits import Limits
from wsserver.effects import Answered, Perform, RestartClock, StopClock
from wsserver.operations import (
    CheckPassword,
    LoadHistory,
    LoadKeyDerivation,
    LoadWallet,
    PushState,
)


@pytest.fixture
def world() -> World:
    world = World()
    world.store.add_account()
    return world


AUTHENTICATED = [
    "account.changePassword",
    "account.delete",
    "session.logout",
    "wallet.get",
    "wallet.push",
    "wallet.history",
    "wallet.ack",
    "device.list",
    "device.revoke",
]


# Methods that wait for nothing.


def test_info_ping_and_discovery_are_answered_to_anyone_at_once(world: World) -> None:
    peer = world.connect()
    assert peer.answer(peer.call("server.info"))["protocol"] == 1
    assert peer.answer(peer.call("server.ping")) == {}
    assert peer.answer(peer.call("rpc.discover")) == {"openrpc": "1.3.2"}
    assert not world.jobs


@pytest.mark.parametrize(
    ("method", "params", "reason"),
    [
        ("account.resendVerification", {"email": EMAIL}, "not_allowed"),
        ("account.requestReset", {"email": EMAIL}, "not_allowed"),
    ],
)
def test_what_needs_mail_is_refused_where_there_is_none(
    world: World, method: str, params: dict[str, object], reason: str
) -> None:
    peer = world.connect()
    assert peer.answer(peer.call(method, **params))["data"]["reason"] == reason


# Envelopes.


@pytest.mark.parametrize(
    ("payload", "code", "call_id"),
    [
        (b"{", -32700, None),
        (b"[]", -32600, None),
        (b"1", -32600, None),
        (b'{"jsonrpc":"2.0","id":7}', -32600, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"no.such"}', -32601, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"server.ping","params":null}', -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"server.ping","params":{"x":1}}', -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"server.ping","params":[1]}', -32602, 7),
    ],
)
def test_an_unsound_call_is_answered_with_its_error(
    world: World, payload: bytes, code: int, call_id: object
) -> None:
    peer = world.connect()
    peer.carry_out(peer.session.receive(payload))
    (answer,) = peer.inbox
    assert (answer["error"]["code"], answer["id"]) == (code, call_id)


def test_a_call_without_id_is_done_and_not_answered(world: World) -> None:
    peer = world.log_in("phone")
    calls: list[tuple[str, dict[str, object]]] = [
        ("server.ping", {}),
        ("no.such", {}),
        ("wallet.push", {"sequence": 1, "encryptedWallet": "w", "hmac": "h"}),
        ("wallet.push", {"sequence": 9, "encryptedWallet": "w", "hmac": "h"}),
    ]
    for method, params in calls:
        peer.send({"jsonrpc": "2.0", "method": method, "params": params})
    world.settle()
    assert peer.inbox == []
    assert [effect.outcome for effect in peer.effects if isinstance(effect, Answered)] == [
        "ok",
        "-32601",
        "ok",
        "conflict",
    ]
    assert world.store.accounts[EMAIL].sequence == 1


def test_an_id_of_null_is_answered(world: World) -> None:
    peer = world.connect()
    peer.send({"jsonrpc": "2.0", "id": None, "method": "server.ping"})
    assert peer.inbox == [{"jsonrpc": "2.0", "id": None, "result": {}}]


def test_the_shell_is_told_the_method_and_the_outcome_of_each_call(world: World) -> None:
    peer = world.connect()
    peer.call("server.ping")
    peer.call("wallet.get")
    peer.call("no.such")
    peer.call("account.prelogin")
    answered = [effect for effect in peer.effects if isinstance(effect, Answered)]
    assert [(effect.method, effect.outcome) for effect in answered] == [
        ("server.ping", "ok"),
        ("wallet.get", "not_authenticated"),
        ("", "-32601"),
        ("account.prelogin", "-32602"),
    ]


# The order of checks: envelope, method, authentication, parameters.


@pytest.mark.parametrize("method", AUTHENTICATED)
def test_who_is_not_authenticated_hears_that_before_anything_of_the_params(
    world: World, method: str
) -> None:
    peer = world.connect()
    error = peer.answer(peer.call(method, nonsense=1))
    assert (error["code"], error["data"]["reason"]) == (401, "not_authenticated")


@pytest.mark.parametrize("method", ["session.login", "session.resume"])
def test_who_is_authenticated_already_hears_that_before_anything_of_the_params(
    world: World, method: str
) -> None:
    peer = world.log_in("phone")
    error = peer.answer(peer.call(method, nonsense=1))
    assert (error["code"], error["data"]["reason"]) == (403, "already_authenticated")


def test_bad_params_name_the_member_and_begin_nothing(world: World) -> None:
    peer = world.log_in("phone")
    error = peer.answer(peer.push(0))
    assert error["data"] == {"path": "sequence", "reason": "out_of_bounds"}
    assert not world.jobs


# Calls under way.


def test_each_call_is_answered_by_its_id_as_soon_as_it_can_be(world: World) -> None:
    peer = world.connect()
    login = peer.call("session.login", email=EMAIL, password=PASSWORD, deviceId="phone")
    ping = peer.call("server.ping")
    assert peer.answer(ping) == {}
    world.settle()
    assert "token" in peer.answer(login)


def test_calls_in_flight_are_counted(world: World) -> None:
    peer = world.log_in("phone")
    assert peer.session.in_flight == 0
    peer.call("wallet.get")
    peer.call("wallet.history")
    peer.call("server.ping")
    assert peer.session.in_flight == 2
    world.do(LoadWallet)
    assert peer.session.in_flight == 1
    world.settle()
    assert peer.session.in_flight == 0


def test_pushes_are_submitted_in_the_order_in_which_they_came(world: World) -> None:
    peer = world.log_in("phone")
    peer.push(1)
    peer.batch(*[("wallet.push", push_params(sequence)) for sequence in (2, 3, 4)])
    peer.push(5)
    pushes = [job.operation for job in world.jobs if isinstance(job.operation, PushState)]
    assert [push.sequence for push in pushes] == [1, 2, 3, 4, 5]


def test_what_the_store_could_not_do_is_the_answer(world: World) -> None:
    peer = world.log_in("phone")
    call = peer.call("wallet.history")
    world.take(LoadHistory).fail(Unavailable(retry_after_ms=50)).answer()
    assert peer.answer(call)["data"] == {"reason": "unavailable", "retryAfterMs": 50}
    assert peer.session.live


def test_an_answer_to_an_unknown_ticket_is_passed_over(world: World) -> None:
    peer = world.log_in("phone")
    assert peer.session.complete(99, None) == []
    peer.call("wallet.get")
    assert peer.session.complete(99, None) == []
    assert peer.session.in_flight == 1


# Batches.


def test_a_batch_is_answered_in_one_array_once_all_its_calls_have_ended(world: World) -> None:
    peer = world.log_in("phone")
    ids = peer.batch(("wallet.history", {}), ("server.ping", {}), ("no.such", {}))
    assert peer.inbox == []
    world.settle()
    (answers,) = peer.inbox
    assert sorted(answer["id"] for answer in answers) == ids
    assert peer.answer(ids[0]) == {"versions": []}
    assert peer.answer(ids[2])["code"] == -32601


def test_a_batch_answers_its_malformed_calls_and_not_its_notifications(world: World) -> None:
    peer = world.connect()
    peer.send([{"jsonrpc": "2.0", "method": "server.ping"}, 1, make_call("server.ping", 5)])
    (answers,) = peer.inbox
    assert [answer["id"] for answer in answers] == [None, 5]


def test_a_batch_of_notifications_is_not_answered(world: World) -> None:
    peer = world.connect()
    peer.send([{"jsonrpc": "2.0", "method": "server.ping"}] * 2)
    assert peer.inbox == []


def test_a_batch_of_more_calls_than_the_limit_is_one_error() -> None:
    world = World(make_facts(limits=Limits(batch=2)))
    peer = world.connect()
    peer.send([make_call("server.ping", number) for number in range(3)])
    (answer,) = peer.inbox
    assert answer["error"]["code"] == -32600
    peer.batch(("server.ping", {}), ("server.ping", {}))
    assert len(peer.inbox[-1]) == 2


def test_the_pushes_of_a_batch_are_applied_in_array_order(world: World) -> None:
    peer = world.log_in("phone")
    ids = peer.batch(*[("wallet.push", push_params(sequence)) for sequence in (2, 1, 2)])
    world.settle()
    assert peer.answer(ids[0])["data"]["reason"] == "conflict"
    assert [peer.answer(call)["sequence"] for call in ids[1:]] == [1, 2]


# The authentication clock.


def test_prelogin_restarts_the_clock_of_an_anonymous_connection(world: World) -> None:
    peer = world.connect()
    peer.call("account.prelogin", email=EMAIL)
    assert [type(effect) for effect in peer.effects] == [RestartClock, Perform]


def test_prelogin_leaves_the_clock_alone_while_a_login_runs_and_after_it(world: World) -> None:
    peer = world.connect()
    peer.call("session.login", email=EMAIL, password=PASSWORD, deviceId="phone")
    peer.effects.clear()
    peer.call("account.prelogin", email=EMAIL)
    assert [type(effect) for effect in peer.effects] == [Perform]
    world.settle()
    peer.effects.clear()
    peer.call("account.prelogin", email=EMAIL)
    assert [type(effect) for effect in peer.effects] == [Perform]


def test_the_clock_stands_still_while_a_login_runs_and_starts_anew_when_it_failed(
    world: World,
) -> None:
    peer = world.connect()
    peer.call("session.login", email=EMAIL, password="not correct", deviceId="phone")
    assert isinstance(peer.effects[0], StopClock)
    assert RestartClock() not in peer.effects
    world.do(type(world.jobs[0].operation))
    assert RestartClock() not in peer.effects
    world.do(CheckPassword)
    assert isinstance(peer.effects[-1], RestartClock)


# Prelogin.


def test_prelogin_tells_how_the_keys_are_derived_whatever_the_case_of_the_address(
    world: World,
) -> None:
    peer = world.connect()
    answer = peer.ask("account.prelogin", email="Joe@Example.COM")
    assert answer == {"clientSaltSeed": SEED, "kdf": KDF_JSON}


def test_prelogin_answers_an_unknown_address_with_a_decoy_that_stays(world: World) -> None:
    peer, other = world.connect(), world.connect()
    decoy = peer.ask("account.prelogin", email="nobody@example.com")
    assert decoy == other.ask("account.prelogin", email="Nobody@example.com")
    assert decoy != peer.ask("account.prelogin", email="no-one@example.com")
    assert len(decoy["clientSaltSeed"]) == 64
    assert decoy["kdf"] == {"name": "scrypt", "n": 2**17, "r": 8, "p": 1}


def test_prelogin_asks_the_same_of_the_store_for_a_known_and_an_unknown_address(
    world: World,
) -> None:
    peer = world.connect()
    for email in (EMAIL, "nobody@example.com"):
        peer.call("account.prelogin", email=email)
        assert world.waiting == [LoadKeyDerivation]
        world.settle()


# Secrets.


def test_no_effect_shows_a_secret(world: World) -> None:
    peer = world.log_in("phone", since=0)
    token = peer.token
    peer.drop()
    peer = world.connect()
    peer.call("session.resume", token=token, since=0, deliver="state")
    world.settle()
    peer.call("wallet.push", sequence=1, encryptedWallet="wallet secret", hmac="hmac secret")
    peer.call("account.delete", password=PASSWORD)
    world.settle()
    shown = repr(peer.effects)
    token_hash = hashlib.sha256(token.encode()).digest()
    for secret in (token, repr(token_hash), PASSWORD, EMAIL, "wallet secret", "hmac secret"):
        assert secret not in shown
