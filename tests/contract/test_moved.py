"""What moved of many accounts, asked by a node that may have missed it, in every store."""

from __future__ import annotations

from collections.abc import Sequence

from tests.contract.backends import Account, Backend, Login, register
from wsschema.messages import SealedWallet
from wsserver.operations import FindMoved, Moved, Standing

STATES_MAX = 10


def standing(account: Account, sequence: int, *logins: Login) -> Standing:
    return Standing(
        account.account_id, sequence, tuple((login.device_id, login.token_hash) for login in logins)
    )


async def find(backend: Backend, *standings: Standing, states_max: int = STATES_MAX) -> list[Moved]:
    return [*await backend.perform(FindMoved(standings, states_max))]


async def test_what_is_as_it_is_known_is_not_told(
    backend: Backend, account: Account, phone: Login, laptop: Login
) -> None:
    await phone.push(1)
    assert await find(backend, standing(account, 1, phone, laptop)) == []
    assert await find(backend, standing(account, 1)) == []
    assert await find(backend) == []


async def test_a_newer_state_is_told_whole(
    backend: Backend, account: Account, phone: Login
) -> None:
    for sequence in (1, 2, 3):
        state = await phone.push(sequence, f"wallet {sequence}")
        (moved,) = await find(backend, standing(account, sequence - 1, phone))
        assert moved == Moved(account.account_id, sequence, state)


async def test_of_more_states_than_are_wanted_only_the_sequence_is_told(backend: Backend) -> None:
    standings: list[Standing] = []
    for number in range(5):
        account = await register(backend, f"joe{number}@example.com")
        await (await account.log_in()).push(1)
        standings.append(standing(account, 0))
    moved = await find(backend, *standings, states_max=3)
    assert [one.sequence for one in moved] == [1] * 5
    assert sum(one.state is not None for one in moved) == 3


async def test_tokens_that_have_ended_are_told(
    backend: Backend, account: Account, phone: Login, laptop: Login
) -> None:
    tablet = await account.log_in("tablet")
    await backend.perform(phone.ending())
    await backend.perform(laptop.removing_device("tablet"))
    (moved,) = await find(backend, standing(account, 0, phone, laptop, tablet))
    assert moved.ended == ((phone.token_hash, None), (tablet.token_hash, "device_revoked"))
    assert (moved.sequence, moved.state) == (0, None)
    again = await account.log_in("phone")
    (moved,) = await find(backend, standing(account, 0, phone, again))
    assert moved.ended == ((phone.token_hash, "replaced"),)


async def test_a_password_change_ends_every_token_and_moves_the_wallet(
    backend: Backend, account: Account, phone: Login, laptop: Login
) -> None:
    await phone.push(1)
    await backend.perform(phone.replacing(SealedWallet(2, "sealed anew", "hmac")))
    (moved,) = await find(backend, standing(account, 1, phone, laptop))
    assert moved.ended == ((phone.token_hash, None), (laptop.token_hash, None))
    assert moved.state is not None
    assert moved.state.encrypted_wallet == "sealed anew"


async def test_why_all_sessions_are_over_is_told_where_the_account_says_it(
    backend: Backend, account: Account, phone: Login
) -> None:
    other = await register(backend, "ann@example.com")
    pad = await other.log_in("pad")
    await backend.perform(phone.removing_account())
    await backend.disable(other.account_id)
    moved = await find(backend, standing(account, 0, phone), standing(other, 0, pad))
    assert [one.ended for one in moved] == [
        ((phone.token_hash, "account_deleted"),),
        ((pad.token_hash, "account_disabled"),),
    ]


async def test_a_token_of_another_account_is_none_of_this_one(
    backend: Backend, account: Account, phone: Login
) -> None:
    other = await register(backend, "ann@example.com")
    (moved,) = await find(backend, standing(other, 0, phone))
    assert moved.ended == ((phone.token_hash, "device_revoked"),)


async def test_thousands_of_accounts_are_asked_about_at_once(
    backend: Backend, account: Account, phone: Login
) -> None:
    await phone.push(1)
    beyond = account.account_id
    strangers: Sequence[Standing] = [Standing(beyond + n, 0, ()) for n in range(1, 3000)]
    moved = await find(backend, *strangers, standing(account, 0, phone))
    assert [one.account_id for one in moved] == [account.account_id]
