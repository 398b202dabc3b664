"""Accounts, in every store: registration, credentials, password change, deletion."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contract.backends import (
    KDF,
    SEED,
    Account,
    Backend,
    Login,
    creating,
    make_password,
    register,
)
from wsschema.errors import (
    AccountDisabled,
    AccountExists,
    BadCredentials,
    BadToken,
    Conflict,
    WalletExists,
)
from wsschema.messages import Kdf, KeyDerivation, SealedWallet
from wsserver.operations import (
    NO_DEVICE,
    Credentials,
    FindToken,
    LoadAccountCredentials,
    LoadCredentials,
    LoadHistory,
    LoadKeyDerivation,
    LoadSession,
    LoadWallet,
    ProbeWrite,
    ReplacePassword,
)


async def test_credentials_are_those_of_the_registration(backend: Backend) -> None:
    password = make_password("weak", n=2**14)

    account = await register(backend, "joe@example.com", password=password, verified=False)

    expected = Credentials(account.account_id, password, verified=False, disabled=False)
    assert await account.credentials() == expected
    assert await backend.perform(LoadAccountCredentials(account.account_id)) == expected


async def test_the_key_derivation_is_that_of_the_registration(backend: Backend) -> None:
    kdf = Kdf.scrypt(2**20, p=4)
    await backend.perform(creating("joe@example.com", client_salt_seed="0F" * 32, kdf=kdf))

    found = await backend.perform(LoadKeyDerivation("joe@example.com"))

    assert found == KeyDerivation("0F" * 32, kdf)


async def test_an_unknown_address_or_account_has_nothing(backend: Backend) -> None:
    assert await backend.perform(LoadCredentials("nobody@example.com")) is None
    assert await backend.perform(LoadKeyDerivation("nobody@example.com")) is None
    assert await backend.perform(LoadAccountCredentials(12345)) is None
    assert await backend.perform(LoadWallet(12345, None)) is None
    assert await backend.perform(LoadWallet(12345, 1)) is None
    assert await backend.perform(LoadHistory(12345, 20, None)) == ()


async def test_an_address_is_registered_once(account: Account) -> None:
    with pytest.raises(AccountExists):
        await account.backend.perform(creating(account.email, make_password("other")))

    credentials = await account.credentials()
    assert credentials is not None
    assert credentials.password == account.password


async def test_of_two_registrations_in_one_batch_the_first_wins(backend: Backend) -> None:
    first, second = make_password("first"), make_password("second")

    answers = await backend.perform_batch(
        [creating("joe@example.com", first), creating("joe@example.com", second)]
    )

    assert answers[0] is None
    assert isinstance(answers[1], AccountExists)
    credentials = await backend.perform(LoadCredentials("joe@example.com"))
    assert credentials is not None
    assert credentials.password == first


@pytest.mark.parametrize("email", ["jörg@例え.jp", "🦊@example.com", "a" * 242 + "@example.com"])
async def test_an_address_comes_back_to_the_letter(backend: Backend, email: str) -> None:
    account = await register(backend, email)

    assert (await account.credentials()) is not None
    assert await backend.perform(LoadKeyDerivation(email)) == KeyDerivation(SEED, KDF)


async def test_a_disabled_account_says_so(account: Account) -> None:
    await account.backend.disable(account.account_id)

    credentials = await account.credentials()
    assert credentials is not None
    assert credentials.disabled


async def test_a_write_probe_succeeds(backend: Backend) -> None:
    assert await backend.perform_all([ProbeWrite()]) == [None]


# Password change.


async def test_a_password_change_without_a_wallet_stores_the_new_credentials(
    phone: Login,
) -> None:
    backend, account = phone.account.backend, phone.account

    await backend.perform(phone.replacing(None))

    credentials = await account.credentials()
    assert credentials is not None
    assert credentials.password == make_password("new")
    assert await backend.perform(LoadKeyDerivation(account.email)) == KeyDerivation(
        "cd" * 32, Kdf.scrypt(2**18)
    )
    assert await account.wallet() is None


async def test_a_password_change_ends_every_token_of_its_account_only(
    phone: Login, laptop: Login
) -> None:
    backend = phone.account.backend
    stranger = await (await register(backend, "eve@example.com")).log_in()

    await backend.perform(phone.replacing(None))

    for login in (phone, laptop):
        assert await backend.perform(FindToken(login.token_hash)) is None
        with pytest.raises(BadToken):
            await backend.perform(LoadSession(login.token_hash))
        with pytest.raises(BadToken):
            await backend.perform(login.pushing(1))
    assert await phone.account.device_ids() == ["laptop", "phone"]
    await stranger.push(1)


async def test_a_password_change_with_the_wallet_stores_both(phone: Login, laptop: Login) -> None:
    backend, account = phone.account.backend, phone.account
    await phone.push_many(range(1, 4))

    await backend.perform(laptop.replacing(SealedWallet(4, "resealed", "new hmac")))

    wallet = await account.wallet()
    assert wallet is not None
    assert (wallet.sequence, wallet.encrypted_wallet, wallet.hmac, wallet.device_id) == (
        4,
        "resealed",
        "new hmac",
        "laptop",
    )
    credentials = await account.credentials()
    assert credentials is not None
    assert credentials.password == make_password("new")


async def test_a_password_change_deletes_the_earlier_versions(phone: Login) -> None:
    backend, account = phone.account.backend, phone.account
    await phone.push_many(range(1, 13))

    await backend.perform(phone.replacing(SealedWallet(13, "resealed", "hmac")))

    assert [await account.wallet(n) for n in range(1, 13)] == [None] * 12
    history = await backend.perform(LoadHistory(account.account_id, 100, None))
    assert [version.sequence for version in history] == [13]


async def test_pushes_go_on_after_a_password_change(phone: Login) -> None:
    backend, account = phone.account.backend, phone.account
    await phone.push_many(range(1, 4))
    await backend.perform(phone.replacing(SealedWallet(4, "resealed", "hmac")))
    account.password = make_password("new")

    again = await account.log_in("phone")
    assert again.opened.device.applied_sequence == 4
    await again.push_many(range(5, 30))

    history = await backend.perform(LoadHistory(account.account_id, 100, None))
    assert [version.sequence for version in history] == [*range(29, 19, -1)]


async def test_a_first_wallet_may_come_with_a_password_change(phone: Login) -> None:
    await phone.account.backend.perform(phone.replacing(SealedWallet(1, "first", "hmac")))

    wallet = await phone.account.wallet()
    assert wallet is not None
    assert wallet.encrypted_wallet == "first"


async def test_a_password_change_without_the_stored_wallet_is_refused(phone: Login) -> None:
    await phone.push(1)

    with pytest.raises(WalletExists):
        await phone.account.backend.perform(phone.replacing(None))

    await assert_unchanged(phone, sequence=1)


@pytest.mark.parametrize("sequence", [1, 2, 4, 5])
async def test_a_password_change_with_another_sequence_than_the_next_changes_nothing(
    phone: Login, sequence: int
) -> None:
    await phone.push_many([1, 2])
    latest = await phone.account.wallet()

    with pytest.raises(Conflict) as failed:
        await phone.account.backend.perform(
            phone.replacing(SealedWallet(sequence, "resealed", "hmac"))
        )

    assert failed.value.wallet == latest
    assert not failed.value.landed
    await assert_unchanged(phone, sequence=2)


async def test_a_password_change_out_of_sequence_without_a_wallet_tells_that_there_is_none(
    phone: Login,
) -> None:
    with pytest.raises(Conflict) as failed:
        await phone.account.backend.perform(phone.replacing(SealedWallet(2, "resealed", "hmac")))

    assert failed.value.wallet is None
    assert await phone.account.wallet() is None


async def test_a_password_change_may_go_by_the_password_alone(phone: Login, laptop: Login) -> None:
    backend, account = phone.account.backend, phone.account
    await phone.push_many([1, 2])

    change = replace(phone.replacing(SealedWallet(3, "resealed", "mac")), token_hash=None)
    await backend.perform(change)

    wallet = await account.wallet()
    assert wallet is not None
    assert (wallet.sequence, wallet.encrypted_wallet, wallet.device_id) == (
        3,
        "resealed",
        NO_DEVICE,
    )
    assert await backend.perform(FindToken(phone.token_hash)) is None
    assert await backend.perform(FindToken(laptop.token_hash)) is None
    account.password = make_password("new")
    again = await account.log_in("phone")
    assert again.opened.device.applied_sequence == 2
    await again.push(4)


async def test_a_password_change_by_the_password_alone_is_refused_as_any_other_is(
    phone: Login,
) -> None:
    backend, account = phone.account.backend, phone.account
    await phone.push(1)

    def changing(sequence: int | None, checked: str = "first") -> ReplacePassword:
        wallet = None if sequence is None else SealedWallet(sequence, "resealed", "mac")
        change = phone.replacing(wallet, checked=make_password(checked))
        return replace(change, token_hash=None)

    with pytest.raises(BadCredentials):
        await backend.perform(changing(2, "outdated"))
    with pytest.raises(WalletExists):
        await backend.perform(changing(None))
    with pytest.raises(Conflict):
        await backend.perform(changing(3))
    await assert_unchanged(phone, sequence=1)

    await backend.disable(account.account_id)
    with pytest.raises(AccountDisabled):
        await backend.perform(changing(2))


async def test_a_password_change_on_an_outdated_check_is_refused(phone: Login) -> None:
    with pytest.raises(BadCredentials):
        await phone.account.backend.perform(
            phone.replacing(None, checked=make_password("outdated"))
        )

    await assert_unchanged(phone, sequence=0)


async def test_a_password_change_under_an_ended_token_is_refused(
    phone: Login, laptop: Login
) -> None:
    await phone.account.backend.perform(laptop.ending())

    with pytest.raises(BadToken):
        await phone.account.backend.perform(laptop.replacing(None))
    # The session is over: what it says of the password is not looked at.
    with pytest.raises(BadToken):
        await phone.account.backend.perform(
            laptop.replacing(None, checked=make_password("outdated"))
        )

    await assert_unchanged(phone, sequence=0)


async def test_of_two_password_changes_in_one_batch_one_wins(phone: Login, laptop: Login) -> None:
    answers = await phone.account.backend.perform_batch(
        [phone.replacing(None, name="a"), laptop.replacing(None, name="b")]
    )

    assert answers[0] is None
    assert isinstance(answers[1], BadToken)
    credentials = await phone.account.credentials()
    assert credentials is not None
    assert credentials.password == make_password("a")


async def assert_unchanged(login: Login, *, sequence: int) -> None:
    """The account has its password, its sequence and this session still."""
    credentials = await login.account.credentials()
    assert credentials is not None
    assert credentials.password == login.account.password
    opened = await login.account.backend.perform(LoadSession(login.token_hash))
    assert (0 if opened.head is None else opened.head.sequence) == sequence


# Deletion.


async def test_a_deleted_account_leaves_nothing(phone: Login, laptop: Login) -> None:
    backend, account = phone.account.backend, phone.account
    await phone.push_many(range(1, 4))

    await backend.perform(phone.removing_account())

    assert await account.credentials() is None
    assert await backend.perform(LoadAccountCredentials(account.account_id)) is None
    assert await backend.perform(LoadKeyDerivation(account.email)) is None
    assert await account.wallet() is None
    assert await account.device_ids() == []
    for login in (phone, laptop):
        with pytest.raises(BadToken):
            await backend.perform(login.pushing(4))
        assert await backend.perform(FindToken(login.token_hash)) is None


async def test_the_id_of_a_deleted_account_is_never_anothers(phone: Login) -> None:
    backend, account = phone.account.backend, phone.account
    await backend.perform(phone.removing_account())

    again = await register(backend, account.email)

    assert again.account_id != account.account_id
    assert await again.wallet() is None
    with pytest.raises(BadToken):
        await backend.perform(phone.pushing(1))


async def test_a_new_life_of_an_account_has_another_epoch(phone: Login) -> None:
    await phone.account.backend.perform(phone.removing_account())

    again = await (await register(phone.account.backend, phone.account.email)).log_in()

    assert again.opened.epoch != phone.opened.epoch


async def test_a_deletion_on_an_outdated_check_is_refused(phone: Login) -> None:
    with pytest.raises(BadCredentials):
        await phone.account.backend.perform(
            phone.removing_account(checked=make_password("outdated"))
        )

    await assert_unchanged(phone, sequence=0)


async def test_a_deletion_under_an_ended_token_is_refused(phone: Login, laptop: Login) -> None:
    await phone.account.backend.perform(laptop.ending())

    with pytest.raises(BadToken):
        await phone.account.backend.perform(laptop.removing_account())

    await assert_unchanged(phone, sequence=0)


async def test_a_deletion_leaves_other_accounts_alone(phone: Login) -> None:
    stranger = await (await register(phone.account.backend, "eve@example.com")).log_in()
    await stranger.push(1)

    await phone.account.backend.perform(phone.removing_account())

    await stranger.push(2)
