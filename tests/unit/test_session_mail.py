"""Mode email: registration, verification, resets, and that nothing tells on an address."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from tests.unit.world import EMAIL, KDF, PASSWORD, SEED, Peer, World, hash_of, make_facts
from wsschema.errors import BadResetToken, BadVerificationToken, RpcError
from wsserver.effects import Perform
from wsserver.gate import Gate, GateLimits
from wsserver.operations import (
    ActivateRegistration,
    CheckPassword,
    FinishReset,
    HashPassword,
    LoadCredentials,
    LoadPendingPassword,
    Operation,
    RenewRegistration,
    SendLetter,
    StartRegistration,
    StartReset,
)

P = TypeVar("P", bound=Operation[Any])
TOKEN = "ab" * 32
TOKEN_HASH = hashlib.sha256(TOKEN.encode()).digest()
CREDENTIALS = {"email": "Joe@Example.com", "password": PASSWORD, "clientSaltSeed": SEED}
LIMITS = GateLimits()
KDF_PARAMS = {"name": "scrypt", "n": KDF.n, "r": KDF.r, "p": KDF.p}


@pytest.fixture
def world() -> World:
    facts = make_facts(gate=Gate(LIMITS, enabled=True, clock=lambda: 0.0))
    return World(replace(facts, info=replace(facts.info, verification="email")))


def give(world: World, kind: type[P], answer: object) -> P:
    """Answer the first operation of a kind that is waited for; gives it."""
    job = world.take(kind)
    job.result = answer
    job.answer()
    assert isinstance(job.operation, kind)
    return job.operation


def start_registering(world: World, peer: Peer, token: str | None) -> int:
    call_id = peer.call("account.register", **CREDENTIALS, kdf=KDF_PARAMS)
    give(world, HashPassword, hash_of(PASSWORD))
    registration = give(world, StartRegistration, token)
    assert registration.email == EMAIL
    return call_id


def test_a_new_address_gets_a_letter_with_its_token(world: World) -> None:
    peer = world.connect()
    call_id = start_registering(world, peer, TOKEN)

    letter = give(world, SendLetter, None)

    assert (letter.kind, letter.email, letter.token) == ("verification", EMAIL, TOKEN)
    assert peer.answer(call_id) == {"verified": False}


def test_a_taken_address_is_answered_alike_and_its_owner_gets_a_letter(world: World) -> None:
    peer = world.connect()
    call_id = start_registering(world, peer, None)

    letter = give(world, SendLetter, None)

    assert (letter.kind, letter.email, letter.token) == ("address_taken", EMAIL, None)
    assert peer.answer(call_id) == {"verified": False}


def test_a_mailbox_that_got_enough_letters_gets_no_more_and_nobody_is_told(world: World) -> None:
    peer = world.connect()
    for _ in range(LIMITS.letter_rate.burst):
        start_registering(world, peer, TOKEN)
        give(world, SendLetter, None)

    call_id = start_registering(world, peer, TOKEN)

    assert give(world, SendLetter, None).kind == "none"
    assert peer.answer(call_id) == {"verified": False}


@pytest.mark.parametrize(("outcome", "reason"), [(None, None), (BadVerificationToken(), "bad")])
def test_a_token_from_a_mail_is_looked_up_by_its_hash(
    world: World, outcome: RpcError | None, reason: str | None
) -> None:
    peer = world.connect()
    call_id = peer.call("account.verify", token=TOKEN)

    activation = give(world, ActivateRegistration, outcome)

    assert activation.token_hash == TOKEN_HASH
    answer = peer.answer(call_id)
    assert answer == {} if reason is None else answer["data"]["reason"].startswith(reason)


@pytest.mark.parametrize(
    ("method", "kind", "letter_kind"),
    [
        ("account.resendVerification", RenewRegistration, "verification"),
        ("account.requestReset", StartReset, "reset"),
    ],
)
def test_asking_for_a_letter_is_answered_alike_whoever_asks(
    world: World, method: str, kind: type[RenewRegistration | StartReset], letter_kind: str
) -> None:
    peer = world.connect()

    known = peer.call(method, email="JOE@example.com")
    assert give(world, kind, TOKEN).email == EMAIL
    letter = give(world, SendLetter, None)
    unknown = peer.call(method, email="nobody@example.com")
    give(world, kind, None)
    nothing = give(world, SendLetter, None)

    assert (letter.kind, letter.email, letter.token) == (letter_kind, EMAIL, TOKEN)
    assert nothing.kind == "none"
    assert peer.answer(known) == peer.answer(unknown) == {}


def test_a_reset_sets_new_credentials(world: World) -> None:
    peer = world.connect()
    call_id = peer.call(
        "account.reset", token=TOKEN, password=PASSWORD, clientSaltSeed=SEED, kdf=KDF_PARAMS
    )
    give(world, HashPassword, hash_of(PASSWORD))

    reset = give(world, FinishReset, 1)

    assert (reset.token_hash, reset.password) == (TOKEN_HASH, hash_of(PASSWORD))
    assert (reset.client_salt_seed, reset.kdf) == (SEED, KDF)
    assert peer.answer(call_id) == {}


def test_a_reset_with_a_used_token_changes_nothing(world: World) -> None:
    peer = world.connect()
    call_id = peer.call(
        "account.reset", token=TOKEN, password=PASSWORD, clientSaltSeed=SEED, kdf=KDF_PARAMS
    )
    give(world, HashPassword, hash_of(PASSWORD))
    give(world, FinishReset, BadResetToken())

    assert peer.answer(call_id)["data"] == {"reason": "bad_reset_token"}


def test_a_reset_revokes_the_sessions_of_the_account(world: World) -> None:
    account = world.store.add_account()
    device = world.log_in("phone")
    stranger = world.connect()
    stranger.call(
        "account.reset", token=TOKEN, password=PASSWORD, clientSaltSeed=SEED, kdf=KDF_PARAMS
    )
    give(world, HashPassword, hash_of(PASSWORD))

    give(world, FinishReset, account.account_id)

    assert device.notifications == [("session.revoked", {"reason": "password_reset"})]
    assert device.close_code == 4401


@pytest.mark.parametrize("pending", [None, hash_of("another one")])
def test_a_login_that_fails_costs_the_same_whatever_is_stored(
    world: World, pending: object
) -> None:
    peer = world.connect()
    call_id = peer.call("session.login", email=EMAIL, password=PASSWORD, deviceId="phone")
    give(world, LoadCredentials, None)
    give(world, CheckPassword, False)
    give(world, LoadPendingPassword, pending)
    give(world, CheckPassword, False)

    assert peer.answer(call_id)["data"] == {"reason": "bad_credentials"}
    done = [effect.operation for effect in peer.effects if isinstance(effect, Perform)]
    kinds = [LoadCredentials, CheckPassword, LoadPendingPassword, CheckPassword]
    assert [type(operation) for operation in done] == kinds


def test_not_verified_is_told_to_the_right_password_alone(world: World) -> None:
    peer = world.connect()
    call_id = peer.call("session.login", email=EMAIL, password=PASSWORD, deviceId="phone")
    give(world, LoadCredentials, None)
    give(world, CheckPassword, False)
    give(world, LoadPendingPassword, hash_of(PASSWORD))
    checked = give(world, CheckPassword, True)

    assert checked.stored == hash_of(PASSWORD)
    assert peer.answer(call_id)["data"] == {"reason": "not_verified"}


def test_wrong_passwords_are_slowed_down(world: World) -> None:
    world.store.add_account()
    peer = world.connect()
    for _ in range(LIMITS.wrong_password_rate.burst):
        peer.call("session.login", email=EMAIL, password="not this one", deviceId="phone")
        give(world, LoadCredentials, None)
        give(world, CheckPassword, False)
        give(world, LoadPendingPassword, None)
        give(world, CheckPassword, False)

    call_id = peer.call("session.login", email=EMAIL, password=PASSWORD, deviceId="phone")

    assert peer.answer(call_id)["data"] == {"reason": "rate_limited", "retryAfterMs": 5_000}


def test_a_connection_that_sends_too_much_is_told_and_one_that_goes_on_is_closed(
    world: World,
) -> None:
    peer = world.connect()
    for _ in range(LIMITS.message_rate.burst):
        peer.call("server.ping")

    refused = [peer.call("server.ping") for _ in range(LIMITS.refusals_max)]

    assert {peer.answer(call_id)["code"] for call_id in refused} == {429}
    assert peer.answer(refused[0])["data"] == {"reason": "rate_limited", "retryAfterMs": 2}
    assert peer.close_code == 4429


def test_a_client_that_goes_on_logging_in_after_429_is_closed(world: World) -> None:
    """Answering it costs less than a login, and yet 50 of its kind would keep a server busy."""
    gate = world.facts.gate
    for _ in range(LIMITS.wrong_password_rate.burst):
        gate.note_failure(world.connect().session.address, EMAIL)
    peer = world.connect()
    login = {"email": EMAIL, "password": PASSWORD, "deviceId": "phone"}

    refused = [peer.call("session.login", **login) for _ in range(LIMITS.refusals_max - 1)]
    assert peer.close_code is None
    refused.append(peer.call("session.login", **login))

    assert {peer.answer(call_id)["code"] for call_id in refused} == {429}
    assert peer.close_code == 4429


def test_calls_of_a_batch_count_each(world: World) -> None:
    peer = world.connect()
    for _ in range(LIMITS.message_rate.burst - 1):
        peer.call("server.ping")

    first, second = peer.batch(("server.ping", {}), ("server.ping", {}))

    assert peer.answer(first) == {}
    assert peer.answer(second)["code"] == 429


def test_a_session_that_is_crowded_out_is_closed_and_may_come_back(world: World) -> None:
    world.store.add_account()
    peer = world.log_in("phone")

    peer.carry_out(peer.session.crowd_out())
    peer.carry_out(peer.session.crowd_out())

    assert peer.close_code == 4429
