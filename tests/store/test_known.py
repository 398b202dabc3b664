"""What the writing lane keeps in mind: it is never taken for true when it isn't any more."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Delete, Update, delete, event, update

from tests.contract.backends import Login, SqlBackend, creating, register
from tests.store.conftest import Disk, OpenSqlite
from wsschema.errors import AccountDisabled, BadToken, Conflict
from wsschema.messages import SealedWallet
from wsserver.operations import ProbeWrite
from wsserver.store import known
from wsserver.store.databases import open_live_database, parse_url
from wsserver.store.known import Known
from wsserver.store.tables import accounts, devices, versions


def write_beside(backend: SqlBackend, statement: Update | Delete) -> None:
    """Another connection writes, as the operator's commands do."""
    with open_live_database(parse_url(f"sqlite:///{backend.path}")) as connection:
        connection.execute(statement)


def backend_of(phone: Login) -> SqlBackend:
    assert isinstance(phone.account.backend, SqlBackend)
    return phone.account.backend


def known_to(backend: SqlBackend) -> Known:
    lane: Any = backend.store
    found: Known = lane._writing[0]._connection.info[Known]
    return found


async def test_the_second_push_of_a_device_reads_nothing(phone: Login) -> None:
    backend = backend_of(phone)
    await phone.push(1)
    lane: Any = backend.store
    statements: list[str] = []
    event.listen(
        lane._writing[0]._engine,
        "before_cursor_execute",
        lambda connection, cursor, text, *rest: statements.append(text),
    )

    await phone.push(2)

    assert statements == []


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (update(accounts).values(disabled=True), AccountDisabled),
        (update(devices).values(token_hash=None), BadToken),
        (delete(versions).where(versions.c.sequence == 5), Conflict),  # A restore, say.
    ],
)
async def test_what_another_process_wrote_counts_for_the_next_push(
    phone: Login, statement: Update | Delete, error: type[Exception]
) -> None:
    backend = backend_of(phone)
    for sequence in range(1, 6):
        await phone.push(sequence)

    write_beside(backend, statement)

    with pytest.raises(error):
        await phone.push(6)


async def test_each_way_to_end_a_token_is_seen_by_the_push_behind_it(phone: Login) -> None:
    backend = backend_of(phone)
    tablet = await phone.account.log_in("tablet")
    laptop = await phone.account.log_in("laptop")
    await phone.push(1)
    await tablet.push(2)
    await laptop.push(3)

    operations: list[Any] = [
        *(tablet.ending(), tablet.pushing(4), laptop.pushing(4)),
        *(phone.removing_device("laptop"), laptop.pushing(5), phone.pushing(5)),
        *(phone.replacing(SealedWallet(6, "wallet", "hmac")), phone.pushing(7)),
    ]
    answers = await backend.perform_batch(operations)

    assert [type(answer).__name__ for answer in answers] == [
        *("NoneType", "BadToken", "Pushed"),
        *("NoneType", "BadToken", "Pushed"),
        *("NoneType", "BadToken"),
    ]


async def test_a_new_login_of_a_device_ends_what_was_known_of_its_token(phone: Login) -> None:
    await phone.push(1)
    again = await phone.account.log_in("phone")

    with pytest.raises(BadToken):
        await phone.push(2)
    await again.push(2)


async def test_a_transaction_that_failed_leaves_nothing_behind(disk: Disk, phone: Login) -> None:
    backend = backend_of(phone)
    await phone.push(1)
    disk.fail_commit = OSError("no")
    (answer,) = await backend.perform_all([phone.pushing(2)])
    disk.fail_commit = None

    assert isinstance(answer, Exception)
    await phone.push(2)


async def test_what_does_not_concern_the_pushes_is_no_reason_to_read_anew(phone: Login) -> None:
    backend = backend_of(phone)
    await phone.push(1)

    await backend.perform_all([phone.acknowledging(1), ProbeWrite(), creating("new@example.com")])

    assert [*known_to(backend).accounts] == [phone.account.account_id]


async def test_another_accounts_login_is_no_reason_to_read_anew(phone: Login) -> None:
    backend = backend_of(phone)
    jane = await register(backend, "jane@example.com")
    await phone.push(1)

    await jane.log_in()

    assert [*known_to(backend).accounts] == [phone.account.account_id]


async def test_what_is_kept_in_mind_has_a_bound(
    open_store: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "ACCOUNTS_MAX", 3)
    async with open_store() as backend:
        phones = [
            await (await register(backend, f"user{number}@example.com")).log_in()
            for number in range(5)
        ]
        for sequence in range(1, 4):
            for phone in phones:
                await phone.push(sequence)

        assert len(known_to(backend).accounts) <= 4
