"""Accounts that come from another server's database."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.contract.backends import (
    HISTORY_DEPTH,
    KDF,
    SEED,
    START_MS,
    Account,
    SqlBackend,
    make_password,
    register,
)
from wsschema.messages import KeyDerivation, SealedWallet
from wsschema.times import time_from_ms
from wsserver.operations import (
    NO_DEVICE,
    ActivateRegistration,
    Credentials,
    LoadCredentials,
    LoadKeyDerivation,
    StartRegistration,
)
from wsserver.store.imports import (
    ImportedAccount,
    ImportedRegistration,
    Outcome,
    find_outcome,
    take_over,
)

JOE = "joe@example.com"
PASSWORD = make_password("imported")
IMPORTED_SEED = "ef" * 32
TOKEN_HASH = hashlib.sha256(b"token").digest()


def account(**members: Any) -> ImportedAccount:
    return ImportedAccount(
        **{
            "email": JOE,
            "password": PASSWORD,
            "client_salt_seed": IMPORTED_SEED,
            "kdf": KDF,
            "verified": True,
            "created_at_ms": 1000,
            "wallet": SealedWallet(23, "wallet", "mac"),
            "updated_at_ms": 2000,
            **members,
        }
    )


def registration(**members: Any) -> ImportedRegistration:
    return ImportedRegistration(
        **{
            "email": JOE,
            "password": PASSWORD,
            "client_salt_seed": IMPORTED_SEED,
            "kdf": KDF,
            "token_hash": TOKEN_HASH,
            "expires_at_ms": START_MS + 1000,
            **members,
        }
    )


def run(backend: SqlBackend, one: ImportedAccount | ImportedRegistration) -> Outcome:
    """As another process would; it is what was foretold."""
    with backend.engine.begin() as connection:
        foretold = find_outcome(connection, one)
        outcome = take_over(connection, one)
    assert outcome is foretold
    return outcome


async def test_an_account_is_taken_over_with_its_wallet(backend: SqlBackend) -> None:
    assert run(backend, account()) is Outcome.TAKEN_OVER

    credentials = await backend.perform(LoadCredentials(JOE))
    assert credentials is not None
    account_id = credentials.account_id
    assert credentials == Credentials(account_id, PASSWORD, verified=True, disabled=False)
    assert await backend.perform(LoadKeyDerivation(JOE)) == KeyDerivation(IMPORTED_SEED, KDF)
    joe = Account(backend, account_id, JOE, PASSWORD)
    wallet = await joe.wallet()
    assert wallet is not None
    assert (wallet.sequence, wallet.encrypted_wallet, wallet.hmac) == (23, "wallet", "mac")
    assert (wallet.device_id, wallet.updated_at) == (NO_DEVICE, time_from_ms(2000))

    phone = await joe.log_in("phone")
    assert phone.opened.device.applied_sequence == 0
    await phone.push_many(range(24, 24 + HISTORY_DEPTH))
    assert await joe.wallet(23) is None


async def test_an_account_without_a_wallet_is_taken_over(backend: SqlBackend) -> None:
    assert run(backend, account(wallet=None, verified=False)) is Outcome.TAKEN_OVER

    credentials = await backend.perform(LoadCredentials(JOE))
    assert credentials is not None
    assert not credentials.verified
    assert await Account(backend, credentials.account_id, JOE, PASSWORD).wallet() is None


async def test_what_was_taken_over_before_stays_as_it_is(backend: SqlBackend) -> None:
    run(backend, account())

    assert run(backend, account()) is Outcome.THERE
    assert run(backend, account(wallet=None)) is Outcome.THERE
    assert run(backend, registration()) is Outcome.THERE
    newer = SealedWallet(24, "newer", "mac")
    assert run(backend, account(wallet=newer)) is Outcome.BEHIND

    credentials = await backend.perform(LoadCredentials(JOE))
    assert credentials is not None
    wallet = await Account(backend, credentials.account_id, JOE, PASSWORD).wallet()
    assert wallet is not None
    assert wallet.sequence == 23


async def test_an_address_that_has_an_account_keeps_it(backend: SqlBackend) -> None:
    await register(backend, JOE)

    assert run(backend, account()) is Outcome.ADDRESS_TAKEN
    assert run(backend, registration()) is Outcome.ADDRESS_TAKEN

    assert await backend.perform(LoadKeyDerivation(JOE)) == KeyDerivation(SEED, KDF)


async def test_a_registration_waits_for_its_own_token(backend: SqlBackend) -> None:
    assert run(backend, registration()) is Outcome.TAKEN_OVER
    assert run(backend, registration()) is Outcome.THERE
    assert await backend.perform(LoadCredentials(JOE)) is None

    await backend.perform(ActivateRegistration(TOKEN_HASH))

    credentials = await backend.perform(LoadCredentials(JOE))
    assert credentials is not None
    assert (credentials.password, credentials.verified) == (PASSWORD, True)


@pytest.mark.parametrize("one", [registration(), account()])
async def test_a_registration_that_waits_here_holds_off_another_and_no_account(
    backend: SqlBackend, one: ImportedAccount | ImportedRegistration
) -> None:
    await backend.perform(StartRegistration(JOE, make_password("own"), SEED, KDF))

    is_account = isinstance(one, ImportedAccount)
    assert run(backend, one) is (Outcome.TAKEN_OVER if is_account else Outcome.ADDRESS_TAKEN)
