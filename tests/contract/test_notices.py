"""What the operator's commands leave for a server, in every store."""

from __future__ import annotations

import itertools

from sqlalchemy import func, select

from tests.contract.backends import Account, Backend, Login, MemoryBackend, SqlBackend, register
from wsserver.operations import FindNewestNotice, LoadNotices, Notice
from wsserver.store.memory import MemoryStore
from wsserver.store.notices import give_notice
from wsserver.store.tables import notices


def give(backend: Backend, account: Account, reason: str, device_id: str | None = None) -> int:
    """Do as a command of the operator; gives the notice's id."""
    if isinstance(backend, SqlBackend):
        with backend.engine.begin() as connection:
            give_notice(
                connection,
                account.account_id,
                reason,
                device_ids=[device_id],
                now_ms=backend.clock.now_ms,
            )
            return int(connection.execute(select(func.max(notices.c.id))).scalar_one())
    assert isinstance(backend, MemoryBackend)
    assert isinstance(backend.store, MemoryStore)
    kept = backend.store.memory.notices
    kept.append(Notice(len(kept) + 1, account.account_id, reason, device_id))
    return len(kept)


async def test_where_nothing_was_done_there_is_no_notice(backend: Backend) -> None:
    assert await backend.perform(FindNewestNotice()) == 0
    assert await backend.perform(LoadNotices(0, 10)) == ()


async def test_notices_come_oldest_first_from_where_one_is(
    backend: Backend, account: Account
) -> None:
    ids = [give(backend, account, f"reason {n}") for n in range(5)]
    assert ids == sorted(set(ids))

    assert await backend.perform(FindNewestNotice()) == ids[-1]
    for start, limit in itertools.product(range(5), (1, 3, 10)):
        loaded = await backend.perform(LoadNotices(ids[start], limit))
        expected = [Notice(ids[n], account.account_id, f"reason {n}") for n in range(start + 1, 5)]
        assert list(loaded) == expected[:limit]


async def test_a_notice_about_a_device_has_the_token_that_it_was_given_since(
    backend: Backend, account: Account, phone: Login
) -> None:
    notice_id = give(backend, account, "device_revoked", "phone")
    other = await register(backend, "ann@example.com")
    await other.log_in("phone")
    again = await account.log_in("phone")

    (notice,) = await backend.perform(LoadNotices(0, 10))

    expected = Notice(notice_id, account.account_id, "device_revoked", "phone", again.token_hash)
    assert notice == expected
    assert again.token_hash != phone.token_hash


async def test_a_notice_outlives_its_device_and_its_account(
    backend: Backend, account: Account, phone: Login
) -> None:
    give(backend, account, "device_revoked", "tablet")
    give(backend, account, "account_deleted")
    await backend.perform(phone.removing_account())
    give(backend, account, "device_revoked", "phone")

    loaded = await backend.perform(LoadNotices(0, 10))

    assert [(it.account_id, it.device_id, it.kept_token_hash) for it in loaded] == [
        (account.account_id, "tablet", None),
        (account.account_id, None, None),
        (account.account_id, "phone", None),
    ]
