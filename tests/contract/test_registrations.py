"""What goes by mail, in every store: registrations that wait, and resets."""

from __future__ import annotations

import hashlib

import pytest

from tests.contract.backends import KDF, SEED, Account, Backend, Login, make_password, register
from wsschema.errors import BadResetToken, BadToken, BadVerificationToken
from wsschema.messages import Kdf, KeyDerivation
from wsserver.operations import (
    ActivateRegistration,
    FindAllowed,
    FinishReset,
    LoadCredentials,
    LoadDevices,
    LoadHistory,
    LoadKeyDerivation,
    LoadPendingPassword,
    LoadSession,
    RenewRegistration,
    StartRegistration,
    StartReset,
)
from wsserver.store.context import REGISTRATION_LIFETIME_MS, RESET_LIFETIME_MS

ANN = "ann@example.com"
NEW_SEED, NEW_KDF = "ef" * 32, Kdf.scrypt(2**19, p=2)


def hash_token(token: str | None) -> bytes:
    assert token is not None
    return hashlib.sha256(token.encode()).digest()


def registering(email: str = ANN, name: str = "first") -> StartRegistration:
    return StartRegistration(email, make_password(name), SEED, KDF)


def resetting(token: str | None) -> FinishReset:
    return FinishReset(hash_token(token), make_password("reset"), NEW_SEED, NEW_KDF)


async def activate(backend: Backend, token: str | None) -> None:
    await backend.perform(ActivateRegistration(hash_token(token)))


async def test_a_registration_is_no_account_until_its_token_comes(backend: Backend) -> None:
    token = await backend.perform(registering())

    assert await backend.perform(LoadCredentials(ANN)) is None
    assert await backend.perform(LoadKeyDerivation(ANN)) is None
    assert await backend.perform(LoadPendingPassword(ANN)) == make_password()

    await activate(backend, token)

    credentials = await backend.perform(LoadCredentials(ANN))
    assert credentials is not None
    assert (credentials.password, credentials.verified) == (make_password(), True)
    assert await backend.perform(LoadKeyDerivation(ANN)) == KeyDerivation(SEED, KDF)
    assert await backend.perform(LoadPendingPassword(ANN)) is None


async def test_a_token_works_once(backend: Backend) -> None:
    token = await backend.perform(registering())
    await activate(backend, token)

    with pytest.raises(BadVerificationToken):
        await activate(backend, token)


async def test_a_token_that_nobody_was_given_works_never(backend: Backend) -> None:
    await backend.perform(registering())

    with pytest.raises(BadVerificationToken):
        await activate(backend, "00" * 32)


async def test_the_newest_registration_of_an_address_is_the_one_that_counts(
    backend: Backend,
) -> None:
    older = await backend.perform(registering(name="older"))
    newer = await backend.perform(registering(name="newer"))

    with pytest.raises(BadVerificationToken):
        await activate(backend, older)
    await activate(backend, newer)

    credentials = await backend.perform(LoadCredentials(ANN))
    assert credentials is not None
    assert credentials.password == make_password("newer")


async def test_a_token_lives_two_days(backend: Backend) -> None:
    token = await backend.perform(registering())
    backend.clock.now_ms += REGISTRATION_LIFETIME_MS

    with pytest.raises(BadVerificationToken):
        await activate(backend, token)
    assert await backend.perform(LoadPendingPassword(ANN)) is None
    assert await backend.perform(RenewRegistration(ANN)) is None


async def test_a_renewed_token_takes_the_place_of_the_last_and_lives_as_long(
    backend: Backend,
) -> None:
    first = await backend.perform(registering())
    backend.clock.now_ms += REGISTRATION_LIFETIME_MS - 1
    second = await backend.perform(RenewRegistration(ANN))
    backend.clock.now_ms += REGISTRATION_LIFETIME_MS - 1

    with pytest.raises(BadVerificationToken):
        await activate(backend, first)
    await activate(backend, second)


async def test_where_nothing_waits_no_token_is_renewed(backend: Backend) -> None:
    assert await backend.perform(RenewRegistration("nobody@example.com")) is None


async def test_a_taken_address_gets_no_token_though_its_registration_is_kept(
    backend: Backend, account: Account
) -> None:
    assert await backend.perform(registering(account.email, "stranger's")) is None
    assert await backend.perform(RenewRegistration(account.email)) is None

    assert await backend.perform(LoadPendingPassword(account.email)) == make_password("stranger's")
    credentials = await account.credentials()
    assert credentials is not None
    assert credentials.password == account.password


async def test_a_token_for_an_address_that_was_taken_meanwhile_is_void(backend: Backend) -> None:
    first = await backend.perform(registering(ANN))

    await register(backend, ANN)

    with pytest.raises(BadVerificationToken):
        await activate(backend, first)


async def test_an_address_is_on_the_allowlist_or_not(backend: Backend) -> None:
    await backend.allow(ANN)

    assert await backend.perform(FindAllowed(ANN))
    assert not await backend.perform(FindAllowed("joe@example.com"))


async def test_a_reset_begins_the_account_anew(
    backend: Backend, account: Account, phone: Login, laptop: Login
) -> None:
    await phone.push_many([1, 2, 3])
    token = await backend.perform(StartReset(account.email))

    assert await backend.perform(resetting(token)) == account.account_id

    credentials = await account.credentials()
    assert credentials is not None
    assert credentials.password == make_password("reset")
    assert await backend.perform(LoadKeyDerivation(account.email)) == KeyDerivation(
        NEW_SEED, NEW_KDF
    )
    assert await account.wallet() is None
    assert await backend.perform(LoadHistory(account.account_id, 20, None)) == ()
    for login in (phone, laptop):
        with pytest.raises(BadToken):
            await backend.perform(LoadSession(login.token_hash))
    devices = (await backend.perform(LoadDevices(account.account_id))).devices
    assert [device.applied_sequence for device in devices] == [0, 0]
    account.password = make_password("reset")
    again = await account.log_in("phone")
    assert again.opened.epoch != phone.opened.epoch
    await again.push(1)


async def test_a_reset_token_works_once(backend: Backend, account: Account) -> None:
    token = await backend.perform(StartReset(account.email))
    await backend.perform(resetting(token))

    with pytest.raises(BadResetToken):
        await backend.perform(resetting(token))


async def test_the_newest_reset_token_is_the_one_that_counts(
    backend: Backend, account: Account
) -> None:
    older = await backend.perform(StartReset(account.email))
    newer = await backend.perform(StartReset(account.email))

    with pytest.raises(BadResetToken):
        await backend.perform(resetting(older))
    await backend.perform(resetting(newer))


async def test_a_reset_token_lives_an_hour(backend: Backend, account: Account) -> None:
    token = await backend.perform(StartReset(account.email))
    backend.clock.now_ms += RESET_LIFETIME_MS

    with pytest.raises(BadResetToken):
        await backend.perform(resetting(token))


async def test_an_unknown_address_has_nothing_to_reset(backend: Backend) -> None:
    assert await backend.perform(StartReset("nobody@example.com")) is None


async def test_a_disabled_account_is_not_reset(backend: Backend, account: Account) -> None:
    token = await backend.perform(StartReset(account.email))
    await backend.disable(account.account_id)

    assert await backend.perform(StartReset(account.email)) is None
    with pytest.raises(BadResetToken):
        await backend.perform(resetting(token))


async def test_a_deleted_account_is_not_reset(
    backend: Backend, account: Account, phone: Login
) -> None:
    token = await backend.perform(StartReset(account.email))
    await backend.perform(phone.removing_account())

    with pytest.raises(BadResetToken):
        await backend.perform(resetting(token))


async def test_a_password_change_makes_a_reset_that_was_not_used_void(
    backend: Backend, account: Account, phone: Login
) -> None:
    token = await backend.perform(StartReset(account.email))
    await backend.perform(phone.replacing(None))

    with pytest.raises(BadResetToken):
        await backend.perform(resetting(token))
