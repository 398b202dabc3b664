"""Registration, login, password change, deletion: what is asked of the world, in which order."""

from __future__ import annotations

import pytest

from tests.unit.world import (
    EMAIL,
    KDF_JSON,
    PASSWORD,
    SEED,
    Peer,
    World,
    hash_of,
    make_facts,
    push_params,
)
from wsschema.limits import Limits
from wsserver.operations import (
    CheckPassword,
    CreateAccount,
    FindAllowed,
    FindOnline,
    FindToken,
    HashPassword,
    LoadAccountCredentials,
    LoadCredentials,
    LoadSession,
    OpenSession,
    RemoveAccount,
    ReplacePassword,
)

NEW_PASSWORD = "battery staple"


@pytest.fixture
def world() -> World:
    world = World()
    world.store.add_account()
    return world


def registration(email: str) -> dict[str, object]:
    return {"email": email, "password": PASSWORD, "clientSaltSeed": SEED, "kdf": KDF_JSON}


def log_in(peer: Peer, **params: object) -> int:
    return peer.call(
        "session.login", **({"email": EMAIL, "password": PASSWORD, "deviceId": "phone"} | params)
    )


def change(peer: Peer, **params: object) -> int:
    return peer.call(
        "account.changePassword",
        **(
            {
                "oldPassword": PASSWORD,
                "newPassword": NEW_PASSWORD,
                "clientSaltSeed": "b" * 64,
                "kdf": KDF_JSON,
            }
            | params
        ),
    )


# Registration.


def test_registration_makes_an_account_under_the_lowered_address() -> None:
    world = World()
    answer = world.connect().ask("account.register", **registration("Joe@Example.com"))
    assert answer == {"verified": True}
    account = world.store.accounts[EMAIL]
    assert account.password == hash_of(PASSWORD)
    assert account.key_derivation.client_salt_seed == SEED


def test_a_taken_address_is_told(world: World) -> None:
    answer = world.connect().ask("account.register", **registration(EMAIL))
    assert answer["data"]["reason"] == "account_exists"


def test_an_allowlist_lets_only_its_addresses_register() -> None:
    world = World(make_facts(allowlist=frozenset({EMAIL})))
    peer = world.connect()
    refused = peer.call("account.register", **registration("Eve@example.com"))
    assert world.do(FindAllowed).email == "eve@example.com"
    assert peer.answer(refused)["data"]["reason"] == "not_allowed"
    assert not world.jobs, "no password is hashed for a stranger"
    world.store.allowed.add("eve@example.com")
    assert peer.ask("account.register", **registration("eve@example.com")) == {"verified": True}
    assert peer.ask("account.register", **registration("JOE@example.com")) == {"verified": True}


def test_a_password_is_hashed_before_anything_is_stored() -> None:
    world = World()
    world.connect().call("account.register", **registration(EMAIL))
    assert world.waiting == [HashPassword]
    world.do(HashPassword)
    assert world.waiting == [CreateAccount]


# Login.


@pytest.mark.parametrize(
    "params", [{"email": "nobody@example.com"}, {"password": "wrong password"}]
)
def test_an_unknown_address_and_a_wrong_password_cost_and_tell_the_same(
    world: World, params: dict[str, object]
) -> None:
    peer = world.connect()
    call = log_in(peer, **params)
    world.do(LoadCredentials)
    world.do(CheckPassword)
    error = peer.answer(call)
    assert (error["code"], error["data"]) == (401, {"reason": "bad_credentials"})
    assert error["message"] == "the email or the password is wrong"
    assert not world.jobs


def test_login_matches_the_address_lowered(world: World) -> None:
    peer = world.connect()
    call = log_in(peer, email="JOE@example.com")
    world.settle()
    assert "token" in peer.answer(call)


def test_not_verified_is_told_only_after_the_right_password(world: World) -> None:
    world.store.accounts[EMAIL].verified = False
    peer = world.connect()
    wrong = log_in(peer, password="wrong password")
    world.settle()
    right = log_in(peer)
    world.settle()
    assert peer.answer(wrong)["data"]["reason"] == "bad_credentials"
    assert peer.answer(right)["data"]["reason"] == "not_verified"


def test_a_disabled_account_cannot_log_in(world: World) -> None:
    world.store.accounts[EMAIL].disabled = True
    peer = world.connect()
    call = log_in(peer)
    world.settle()
    assert peer.answer(call)["data"]["reason"] == "account_disabled"
    assert len(world.hub) == 0


def test_a_hash_of_yesterdays_cost_is_upgraded_with_the_login(world: World) -> None:
    outdated = hash_of(PASSWORD, n=2**14)
    world.store.accounts[EMAIL].password = outdated
    log_in(world.connect())
    world.do(LoadCredentials)
    world.do(CheckPassword)
    world.do(HashPassword)
    world.do(FindOnline)
    operation = world.do(OpenSession)
    assert (operation.checked, operation.upgraded) == (outdated, hash_of(PASSWORD))


def test_a_login_whose_password_was_changed_meanwhile_gets_nothing(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.connect()
    call = log_in(laptop, deviceId="laptop")
    world.do(LoadCredentials)
    job = world.take(CheckPassword).perform()
    change(phone)
    world.settle()
    job.answer()
    world.settle()
    assert laptop.answer(call)["data"]["reason"] == "bad_credentials"
    assert laptop.closed is None
    assert len(world.hub) == 0


def test_a_login_names_the_devices_that_are_online_and_may_not_be_dropped() -> None:
    world = World(make_facts(limits=Limits(devices=2)))
    account = world.store.add_account()
    world.log_in("phone").drop()
    world.log_in("laptop")
    log_in(world.connect(), deviceId="tablet")
    world.do(LoadCredentials)
    world.do(CheckPassword)
    world.do(FindOnline)
    operation = world.do(OpenSession)
    assert (operation.online, operation.devices_max) == (frozenset({"laptop"}), 2)
    assert [*account.devices] == ["laptop", "tablet"]


def test_one_device_too_many_is_refused_when_all_are_online() -> None:
    world = World(make_facts(limits=Limits(devices=1)))
    world.store.add_account()
    world.log_in("phone")
    peer = world.connect()
    call = log_in(peer, deviceId="laptop")
    world.settle()
    assert peer.answer(call)["data"]["reason"] == "too_many_devices"
    assert not peer.session.live
    assert peer.token_hash is None


def test_a_device_that_was_dropped_while_it_resumed_is_revoked() -> None:
    world = World(make_facts(limits=Limits(devices=1)))
    world.store.add_account()
    phone = world.log_in("phone")
    phone.drop()
    again, laptop = world.connect(), world.connect()
    call = again.call("session.resume", token=phone.token)
    world.do(FindToken)
    load = world.take(LoadSession).perform()
    log_in(laptop, deviceId="laptop")
    world.settle()
    load.answer()
    assert again.names == [str(call), "session.revoked"]
    assert again.closed == (4401, "device_revoked")
    assert laptop.session.live


def test_a_failed_login_may_be_tried_again_on_the_same_connection(world: World) -> None:
    peer = world.connect()
    log_in(peer, password="wrong password")
    world.settle()
    call = log_in(peer)
    world.settle()
    assert "token" in peer.answer(call)
    assert peer.session.live


# Password change.


def test_a_password_change_stores_credentials_and_wallet_in_one_operation(world: World) -> None:
    peer = world.log_in("phone")
    peer.push(1)
    world.settle()
    call = change(peer, wallet=push_params(2))
    world.do(LoadAccountCredentials)
    world.do(CheckPassword)
    assert world.do(HashPassword).password == NEW_PASSWORD
    operation = world.do(ReplacePassword)
    assert operation.wallet is not None
    assert operation.wallet.sequence == 2
    assert peer.answer(call) == {}
    assert peer.closed == (4401, "password_changed")
    account = world.store.accounts[EMAIL]
    assert (account.password, account.sequence) == (hash_of(NEW_PASSWORD), 2)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"oldPassword": "wrong password"}, "bad_credentials"),
        ({}, "wallet_exists"),
        ({"wallet": push_params(7)}, "conflict"),
    ],
)
def test_a_password_change_that_is_refused_changes_nothing(
    world: World, params: dict[str, object], reason: str
) -> None:
    peer = world.log_in("phone")
    peer.push(1)
    world.settle()
    call = change(peer, **params)
    world.settle()
    assert peer.answer(call)["data"]["reason"] == reason
    assert peer.session.live
    assert world.store.accounts[EMAIL].password == hash_of(PASSWORD)


def test_a_wallet_that_is_too_large_is_refused_before_a_password_is_checked() -> None:
    world = World(make_facts(limits=Limits(wallet_bytes=10)))
    world.store.add_account()
    peer = world.log_in("phone")
    call = change(peer, wallet=push_params(1) | {"encryptedWallet": "w" * 11})
    assert peer.answer(call)["data"] == {"reason": "wallet_too_large", "maxBytes": 10}
    assert not world.jobs
    assert peer.session.live


def test_a_password_change_without_wallet_is_done_where_none_is_stored(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.log_in("laptop")
    call = change(phone)
    world.settle()
    assert phone.answer(call) == {}
    assert laptop.closed == (4401, "password_changed")
    assert phone.closed == (4401, "password_changed")


# Deletion.


def test_a_deletion_needs_the_password(world: World) -> None:
    peer = world.log_in("phone")
    error = peer.ask("account.delete", password="wrong password")
    assert error["data"]["reason"] == "bad_credentials"
    assert peer.session.live


def test_a_deletion_ends_every_session_of_the_account_and_of_no_other(world: World) -> None:
    world.store.add_account("eve@example.com")
    phone, laptop, eve = world.log_in("phone"), world.log_in("laptop"), world.connect()
    log_in(eve, email="eve@example.com")
    world.settle()
    call = phone.call("account.delete", password=PASSWORD)
    world.settle()
    assert phone.answer(call) == {}
    assert laptop.closed == phone.closed == (4401, "account_deleted")
    assert eve.session.live
    assert EMAIL not in world.store.accounts


def test_a_second_deletion_finds_no_account(world: World) -> None:
    phone = world.log_in("phone")
    ids = phone.batch(
        ("account.delete", {"password": PASSWORD}), ("account.delete", {"password": PASSWORD})
    )
    world.do(LoadAccountCredentials)
    world.do(CheckPassword)
    world.do(RemoveAccount)
    world.settle()
    assert phone.answer(ids[0]) == {}
    assert phone.answer(ids[1])["data"]["reason"] == "bad_token"
    assert phone.closed == (4401, "account_deleted")
