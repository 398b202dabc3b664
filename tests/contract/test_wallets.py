"""Wallets, in every store: pushes, conflicts, retries, kept versions, alone and in batches."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.backends import Account, Backend, Login, make_password, register
from tests.contract.conftest import OpenBackend
from wsschema.errors import AccountDisabled, BadCredentials, BadToken, Conflict
from wsschema.messages import SealedWallet, WalletState
from wsschema.times import time_from_ms
from wsserver.operations import (
    LoadHistory,
    LoadSession,
    LoadWallet,
    Operation,
    Pushed,
    PushState,
    RemoveAccount,
)


async def test_a_push_of_the_next_sequence_is_stored(phone: Login) -> None:
    backend = phone.account.backend

    pushed = await backend.perform(phone.pushing(1, "sealed", "mac"))

    expected = WalletState(1, "sealed", "mac", "phone", time_from_ms(backend.clock.now_ms))
    assert pushed == Pushed(expected, fresh=True)
    assert await phone.account.wallet() == expected
    assert await phone.account.wallet(1) == expected


async def test_a_push_acknowledges_its_own_sequence(phone: Login, laptop: Login) -> None:
    await phone.push_many([1, 2])
    await laptop.push(3)

    opened = await phone.account.backend.perform(LoadSession(phone.token_hash))
    assert opened.device.applied_sequence == 2
    opened = await phone.account.backend.perform(LoadSession(laptop.token_hash))
    assert opened.device.applied_sequence == 3


@pytest.mark.parametrize("sequence", [2, 3, 2**53 - 1])
async def test_a_first_push_of_another_sequence_conflicts_with_nothing(
    phone: Login, sequence: int
) -> None:
    with pytest.raises(Conflict) as failed:
        await phone.account.backend.perform(phone.pushing(sequence))

    assert failed.value.wallet is None
    assert not failed.value.landed
    assert await phone.account.wallet() is None


@pytest.mark.parametrize("sequence", [1, 2, 3, 5, 2**53 - 1])
async def test_a_stale_or_premature_push_returns_the_latest_state(
    phone: Login, laptop: Login, sequence: int
) -> None:
    await phone.push_many([1, 2, 3])
    latest = await phone.account.wallet()

    with pytest.raises(Conflict) as failed:
        await phone.account.backend.perform(laptop.pushing(sequence, "mine", "mine"))

    assert latest is not None
    assert failed.value.wallet == latest
    assert not failed.value.landed
    assert await phone.account.wallet() == latest


async def test_a_retry_to_the_letter_succeeds_and_changes_nothing(phone: Login) -> None:
    backend = phone.account.backend
    stored = await phone.push(1, "sealed", "mac")
    backend.clock.now_ms += 60_000

    again = await backend.perform(phone.pushing(1, "sealed", "mac"))

    assert again == Pushed(stored, fresh=False)
    assert await phone.account.wallet() == stored


async def test_a_retry_from_another_device_acknowledges_nothing(
    phone: Login, laptop: Login
) -> None:
    backend = phone.account.backend
    stored = await phone.push(1, "sealed", "mac")

    assert await backend.perform(laptop.pushing(1, "sealed", "mac")) == Pushed(stored, fresh=False)

    opened = await backend.perform(LoadSession(laptop.token_hash))
    assert opened.device.applied_sequence == 0


@pytest.mark.parametrize(
    ("text", "hmac"), [("sealed", "other"), ("other", "mac"), ("sealed ", "mac")]
)
async def test_a_retry_that_differs_in_a_letter_conflicts(
    phone: Login, text: str, hmac: str
) -> None:
    stored = await phone.push(1, "sealed", "mac")

    with pytest.raises(Conflict) as failed:
        await phone.account.backend.perform(phone.pushing(1, text, hmac))

    assert failed.value.wallet == stored
    assert not failed.value.landed


@pytest.mark.parametrize("depth", [2, 3, 10])
async def test_a_repeated_older_version_has_landed(open_backend: OpenBackend, depth: int) -> None:
    async with open_backend(history_depth=depth) as backend:
        phone = await (await register(backend)).log_in()
        await phone.push_many(range(1, 26))
        latest = await phone.account.wallet()

        answers = await backend.perform_all(
            [phone.pushing(n, f"wallet {n}", f"hmac {n}") for n in range(1, 25)]
        )

        assert all(isinstance(answer, Conflict) for answer in answers)
        assert all(answer.wallet == latest for answer in answers)
        landed = [n for n, answer in enumerate(answers, start=1) if answer.landed]
        assert landed == [*range(25 - depth + 1, 25)]


async def test_a_push_under_an_unknown_token_is_refused(phone: Login) -> None:
    with pytest.raises(BadToken):
        await phone.account.backend.perform(
            PushState(b"?" * 32, phone.account.account_id, 7, 1, "sealed", "mac")
        )

    assert await phone.account.wallet() is None


async def test_a_push_with_anothers_token_is_refused(phone: Login) -> None:
    stranger = await (await register(phone.account.backend, "eve@example.com")).log_in()

    with pytest.raises(BadToken):
        await phone.account.backend.perform(
            PushState(stranger.token_hash, phone.account.account_id, 7, 1, "sealed", "mac")
        )

    assert await phone.account.wallet() is None
    assert await stranger.account.wallet() is None


async def test_a_push_to_a_disabled_account_is_refused(phone: Login) -> None:
    await phone.push(1)
    await phone.account.backend.disable(phone.account.account_id)

    with pytest.raises(AccountDisabled):
        await phone.account.backend.perform(phone.pushing(2))

    assert await phone.account.wallet(2) is None


OPAQUE = {
    "nul characters": "\0a\0\0b\0",
    "one nul character": "\0",
    "emoji": "👩‍👩‍👧‍👦🦊",
    "right-to-left marks": "\u200f\u202eevil\u202c\ufeff",
    "unassigned and private": "\U0010ffff\ue000\ufffe",
    "unnormalised": "e\u0301é",
    "a JSON string": '"{\\"a\\":1}\\u0000"',
    "JSON": '{"sequence": 1, "wallet": null}',
    "a number": "007",
    "space": " \r\n\t ",
    "SQL": "'; DROP TABLE accounts; --",
    "parameters": "%s ? :name {0} \\",
}


@pytest.mark.parametrize("text", OPAQUE.values(), ids=OPAQUE.keys())
async def test_opaque_text_comes_back_to_the_letter(phone: Login, text: str) -> None:
    state = await phone.push(1, text, text)

    assert (state.encrypted_wallet, state.hmac) == (text, text)
    wallet = await phone.account.wallet()
    assert wallet == state
    (version,) = await phone.account.backend.perform(
        LoadHistory(phone.account.account_id, 20, None)
    )
    assert (version.hmac, version.bytes) == (text, len(text.encode()))
    assert await phone.account.backend.perform(phone.pushing(1, text, text)) == Pushed(
        state, fresh=False
    )
    with pytest.raises(Conflict) as failed:
        await phone.account.backend.perform(phone.pushing(3))
    assert failed.value.wallet == state


@pytest.mark.parametrize("letter", ["x", "é", "🦊"])
async def test_the_largest_wallet_is_kept(phone: Login, letter: str) -> None:
    text = letter * (256 * 1024 // len(letter.encode()))
    hmac = letter * (256 // len(letter.encode()))

    await phone.push(1, text, hmac)

    wallet = await phone.account.wallet()
    assert wallet is not None
    assert wallet.encrypted_wallet == text
    assert wallet.hmac == hmac


# What is kept.


@pytest.mark.parametrize("depth", [1, 3, 10])
async def test_the_last_versions_stay_readable(open_backend: OpenBackend, depth: int) -> None:
    async with open_backend(history_depth=depth) as backend:
        phone = await (await register(backend)).log_in()
        for last in (1, 2, 3, 4, 11, 40, 95):
            wallet = await phone.account.wallet()
            await phone.push_many(range(1 if wallet is None else wallet.sequence + 1, last + 1))

            kept = range(max(1, last - depth + 1), last + 1)
            for sequence in range(1, last + 2):
                state = await phone.account.wallet(sequence)
                if sequence in kept:
                    assert state is not None
                    assert state.encrypted_wallet == f"wallet {sequence}"
                    assert state.hmac == f"hmac {sequence}"
                else:
                    assert state is None
            history = await backend.perform(LoadHistory(phone.account.account_id, 100, None))
            assert [version.sequence for version in history] == [*reversed(kept)]


async def test_the_history_tells_each_version_without_its_wallet(
    phone: Login, laptop: Login
) -> None:
    backend = phone.account.backend
    await phone.push(1, "é", "mac one")
    backend.clock.now_ms += 1234
    second = await laptop.push(2, "two", "mac two")

    newest, oldest = await backend.perform(LoadHistory(phone.account.account_id, 20, None))

    assert (newest.sequence, newest.hmac, newest.device_id, newest.bytes) == (
        2,
        "mac two",
        "laptop",
        3,
    )
    assert newest.updated_at == second.updated_at
    assert (oldest.sequence, oldest.hmac, oldest.device_id, oldest.bytes) == (
        1,
        "mac one",
        "phone",
        2,
    )


@pytest.mark.parametrize(
    ("limit", "before", "expected"),
    [
        (3, None, [12, 11, 10]),
        (100, 6, [5, 4, 3]),
        (2, 6, [5, 4]),
        (100, 3, []),
        (100, 1, []),
        (1, 2**53 - 1, [12]),
    ],
)
async def test_the_history_is_read_in_pages(
    phone: Login, limit: int, before: int | None, expected: list[int]
) -> None:
    await phone.push_many(range(1, 13))

    versions = await phone.account.backend.perform(
        LoadHistory(phone.account.account_id, limit, before)
    )

    assert [version.sequence for version in versions] == expected


# What waits together.


async def test_pipelined_pushes_of_one_account_all_succeed(phone: Login) -> None:
    answers = await phone.account.backend.perform_batch(
        [phone.pushing(n, f"wallet {n}", f"hmac {n}") for n in range(1, 41)]
    )

    assert [answer.state.sequence for answer in answers] == [*range(1, 41)]
    assert all(answer.fresh for answer in answers)
    kept = [n for n in range(1, 42) if await phone.account.wallet(n) is not None]
    assert kept == [*range(31, 41)]
    opened = await phone.account.backend.perform(LoadSession(phone.token_hash))
    assert opened.device.applied_sequence == 40


@pytest.mark.parametrize("depth", [1, 3])
async def test_a_batch_longer_than_the_ring_leaves_the_newest(
    open_backend: OpenBackend, depth: int
) -> None:
    async with open_backend(history_depth=depth) as backend:
        phone = await (await register(backend)).log_in()
        await phone.push_many([1, 2])

        answers = await backend.perform_batch(
            [phone.pushing(n, f"wallet {n}", f"hmac {n}") for n in (3, 4, 5, 6, 7, 4, 7, 2, 8)]
        )

        assert [isinstance(answer, Pushed) for answer in answers] == [
            *[True] * 5, False, True, False, True,
        ]  # fmt: skip
        assert [answer.landed for answer in answers if isinstance(answer, Conflict)] == [
            False,
            False,
        ]
        history = await backend.perform(LoadHistory(phone.account.account_id, 100, None))
        assert [version.sequence for version in history] == [*range(8, 8 - depth, -1)]


async def test_in_one_batch_a_push_is_judged_by_what_came_before_it(
    phone: Login, laptop: Login
) -> None:
    await phone.push_many([1])
    pushes = [
        laptop.pushing(2, "laptop", "l"),
        phone.pushing(2, "phone", "p"),  # Lost to the laptop's.
        laptop.pushing(2, "laptop", "l"),  # A retry.
        phone.pushing(3, "merged", "m"),
        laptop.pushing(2, "laptop", "l"),  # Landed, but is the latest no more.
        laptop.pushing(9),
    ]

    won, lost, retried, merged, landed, premature = await phone.account.backend.perform_batch(
        pushes
    )

    assert won.fresh
    assert lost.wallet == won.state
    assert not lost.landed
    assert retried == Pushed(won.state, fresh=False)
    assert merged.fresh
    assert (landed.wallet, landed.landed) == (merged.state, True)
    assert (premature.wallet, premature.landed) == (merged.state, False)


async def test_a_conflict_carries_the_state_it_lost_to(phone: Login, laptop: Login) -> None:
    stored = await phone.push(1)

    early, second = await phone.account.backend.perform_batch(
        [laptop.pushing(1, "mine", "mine"), phone.pushing(2)]
    )

    assert early.wallet == stored
    assert second.fresh


async def test_devices_and_accounts_in_one_batch_do_not_mix(backend: Backend) -> None:
    logins = [
        await (await register(backend, f"user{n}@example.com")).log_in(f"device {n}")
        for n in range(20)
    ]

    answers = await backend.perform_batch(
        [login.pushing(n, login.account.email, "mac") for n in (1, 2, 3) for login in logins]
    )

    assert all(answer.fresh for answer in answers)
    for number, login in enumerate(logins):
        wallet = await login.account.wallet()
        assert wallet is not None
        assert (wallet.sequence, wallet.encrypted_wallet) == (3, login.account.email)
        assert wallet.device_id == f"device {number}"


async def test_of_devices_that_race_for_a_sequence_one_wins(account: Account) -> None:
    logins = [await account.log_in(f"device {n}") for n in range(4)]
    for sequence in range(1, 26):
        answers = await account.backend.perform_batch(
            [login.pushing(sequence, login.device_id, "mac") for login in logins]
        )

        winners = [answer for answer in answers if isinstance(answer, Pushed)]
        assert len(winners) == 1
        assert all(
            answer.wallet == winners[0].state for answer in answers if isinstance(answer, Conflict)
        )


async def answers_around(login: Login, operation: Operation[Any]) -> list[Any]:
    """A push of 2, the operation, a push of 3: in one batch."""
    return await login.account.backend.perform_batch(
        [login.pushing(2, "before", "b"), operation, login.pushing(3, "after", "a")]
    )


async def test_a_push_lands_before_a_logout_and_not_after(phone: Login, laptop: Login) -> None:
    await laptop.push(1)

    before, ended, after = await answers_around(phone, phone.ending())

    assert before.fresh
    assert ended is None
    assert isinstance(after, BadToken)
    wallet = await phone.account.wallet()
    assert wallet is not None
    assert wallet.encrypted_wallet == "before"


async def test_a_push_lands_before_a_revocation_and_not_after(phone: Login, laptop: Login) -> None:
    await laptop.push(1)

    before, removed, after = await answers_around(phone, laptop.removing_device("phone"))

    assert before.fresh
    assert removed is None
    assert isinstance(after, BadToken)


async def test_a_push_lands_before_a_password_change_and_not_after(
    phone: Login, laptop: Login
) -> None:
    await laptop.push(1)
    change = laptop.replacing(SealedWallet(3, "resealed", "mac"))

    before, changed, after = await answers_around(phone, change)

    assert before.fresh
    assert changed is None
    assert isinstance(after, BadToken)
    wallet = await phone.account.wallet()
    assert wallet is not None
    assert wallet.encrypted_wallet == "resealed"
    assert await phone.account.wallet(2) is None


async def test_a_push_in_the_same_batch_makes_a_password_change_conflict(
    phone: Login, laptop: Login
) -> None:
    await laptop.push(1)
    change = laptop.replacing(SealedWallet(2, "resealed", "mac"))

    before, changed, after = await answers_around(phone, change)

    assert before.fresh
    assert isinstance(changed, Conflict)
    assert changed.wallet == before.state
    assert after.fresh


async def test_a_push_lands_before_a_deletion_and_not_after(phone: Login, laptop: Login) -> None:
    await laptop.push(1)

    before, removed, after = await answers_around(phone, laptop.removing_account())

    assert before.fresh
    assert removed is None
    assert isinstance(after, BadToken)
    assert await phone.account.wallet() is None


async def test_a_push_lands_before_its_token_is_replaced_and_not_after(
    phone: Login, laptop: Login
) -> None:
    await laptop.push(1)

    before, opened, after = await answers_around(phone, phone.account.opening("phone"))

    assert before.fresh
    assert opened.head == before.state
    assert isinstance(after, BadToken)


async def test_a_refused_operation_leaves_nothing_of_itself_in_its_batch(
    phone: Login, laptop: Login
) -> None:
    outdated = make_password("outdated")
    account_id = phone.account.account_id

    answers = await phone.account.backend.perform_batch(
        [
            phone.pushing(1),
            laptop.replacing(SealedWallet(2, "resealed", "mac"), checked=outdated),
            RemoveAccount(laptop.token_hash, account_id, outdated),
            phone.account.opening("third", checked=outdated),
            laptop.pushing(2),
        ]
    )

    assert [type(answer) for answer in answers] == [
        Pushed,
        BadCredentials,
        BadCredentials,
        BadCredentials,
        Pushed,
    ]
    assert await phone.account.device_ids() == ["laptop", "phone"]


@pytest.mark.parametrize("sequence", [None, 1, 2])
async def test_a_session_is_given_a_wallet_while_its_token_lives(
    phone: Login, sequence: int | None
) -> None:
    await phone.push_many([1, 2])
    backend, account_id = phone.account.backend, phone.account.account_id
    load = LoadWallet(account_id, sequence, phone.token_hash)
    assert await backend.perform(load) == await phone.account.wallet(sequence)

    await backend.perform(phone.ending())

    with pytest.raises(BadToken):
        await backend.perform(load)


async def test_a_session_left_behind_by_a_password_change_is_not_given_the_new_wallet(
    phone: Login, laptop: Login
) -> None:
    await phone.push(1)
    backend, account_id = phone.account.backend, phone.account.account_id
    change = phone.replacing(SealedWallet(2, "sealed anew", "mac"))

    # The read may be done with the change, before anybody is told of it.
    _, given = await backend.perform_batch(
        [change, LoadWallet(account_id, None, laptop.token_hash)]
    )

    assert isinstance(given, BadToken) or given == WalletState(
        1, "wallet", "hmac", "phone", time_from_ms(backend.clock.now_ms)
    )
    with pytest.raises(BadToken):
        await backend.perform(LoadWallet(account_id, None, laptop.token_hash))


async def test_a_token_gives_no_wallet_of_another_account(backend: Backend, phone: Login) -> None:
    other = await register(backend, "ann@example.com")
    stranger = await other.log_in()
    await stranger.push(1)

    with pytest.raises(BadToken):
        await backend.perform(LoadWallet(other.account_id, None, phone.token_hash))
