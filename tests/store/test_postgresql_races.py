"""Several processes on one PostgreSQL: whatever they do at once, it is as if one after another."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.conftest import Databases
from tests.contract.backends import (
    PATIENCE_S,
    Account,
    Login,
    SqlBackend,
    creating,
    gather_answers,
    make_password,
    open_sql,
    register,
)
from wsschema.errors import AccountExists, BadCredentials, BadToken, Conflict, RpcError
from wsschema.messages import SealedWallet
from wsserver.operations import (
    FinishReset,
    LoadNotices,
    MarkSeen,
    Operation,
    Pushed,
    PushState,
    StartRegistration,
    StartReset,
)
from wsserver.store.databases import create_store_engine, parse_url
from wsserver.store.lanes import LaneLimits
from wsserver.store.notices import give_notice

LANES = 3
ACCOUNTS = 4


@pytest.fixture
async def nodes(databases: Databases) -> AsyncIterator[list[SqlBackend]]:
    """Two stores on one database, as two processes would have them."""
    url = databases.create()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_sql(
                    url,
                    lanes=LANES,
                    opening={"shared": True},
                    history_depth=1000,
                    limits=LaneLimits(wait_s=PATIENCE_S),  # a busy machine's slowness is no fault
                )
            )
            for _ in range(2)
        ]


def at(node: SqlBackend, account: Account) -> Account:
    """The account, by way of another node."""
    return Account(node, account.account_id, account.email, account.password)


async def push_eagerly(node: SqlBackend, login: Login, rounds: int, mine: str) -> list[int]:
    """Push what comes next, as a device does that is told of conflicts; gives what it won."""
    won, sequence = [], 1
    for number in range(rounds):
        push = login.pushing(sequence, f"{mine} {number}")
        (answer,) = await node.perform_all([push])
        if isinstance(answer, Pushed):
            won.append(sequence)
            sequence += 1
        else:
            assert isinstance(answer, Conflict), answer
            sequence = 1 if answer.wallet is None else answer.wallet.sequence + 1
    return won


async def test_of_all_that_push_a_sequence_one_wins(nodes: list[SqlBackend]) -> None:
    accounts = [await register(nodes[0], f"user{n}@example.com") for n in range(ACCOUNTS)]
    racing = []
    for account in accounts:
        for device in range(4):
            login = await account.log_in(f"device {device}")
            node = nodes[device % 2]
            racing.append((account, push_eagerly(node, login, 15, f"{device}")))
    won = await asyncio.gather(*(pushing for _, pushing in racing))

    for account in accounts:
        sequences = sorted(
            n for (of, _), each in zip(racing, won, strict=True) if of is account for n in each
        )
        head = await account.wallet()
        assert head is not None
        assert sequences == [*range(1, head.sequence + 1)]


@pytest.mark.parametrize("means", ["logout", "removal", "password", "reset", "deletion"])
async def test_no_push_lands_after_a_revocation_on_another_node(
    nodes: list[SqlBackend], means: str
) -> None:
    here, there = nodes
    for attempt in range(6):
        account = await register(here, f"user{attempt}@example.com")
        phone, laptop = await account.log_in("phone"), await account.log_in("laptop")
        await phone.push(1)
        token = await here.perform(StartReset(account.email))
        assert token is not None
        pushing = there.submit_all([phone.pushing(n) for n in range(2, 40)])
        await asyncio.sleep(random.random() * 0.01)
        (revoked,) = await here.perform_all([revoke(means, laptop, phone, token)])
        head = await account.wallet()
        answers = await gather_answers(pushing)

        landed = [one.state.sequence for one in answers if isinstance(one, Pushed)]
        if isinstance(revoked, RpcError):
            assert isinstance(revoked, Conflict)  # The password change lost: nothing is revoked.
            assert landed == [*range(2, 40)]
            continue
        assert all(isinstance(one, BadToken | Conflict) for one in answers[len(landed) :])
        assert await account.wallet() == head
        (late,) = await there.perform_all([phone.pushing(head.sequence + 1 if head else 1)])
        assert isinstance(late, BadToken)


def revoke(means: str, laptop: Login, phone: Login, token: str) -> Operation[Any]:
    match means:
        case "logout":
            return phone.ending()
        case "removal":
            return laptop.removing_device("phone")
        case "password":
            return laptop.replacing(SealedWallet(8, "sealed anew", "hmac"))
        case "reset":
            return resetting(token)
        case _:
            return laptop.removing_account()


def resetting(token: str) -> FinishReset:
    digest = hashlib.sha256(token.encode()).digest()
    creation = creating("unused@example.com", make_password("new"))
    return FinishReset(digest, creation.password, creation.client_salt_seed, creation.kdf)


async def test_of_password_changes_at_once_one_wins(nodes: list[SqlBackend]) -> None:
    for attempt in range(5):
        account = await register(nodes[0], f"user{attempt}@example.com")
        logins = [await account.log_in(f"device {n}") for n in range(4)]
        changes = [
            nodes[n % 2].perform_all([login.replacing(None, name=f"new {n}")])
            for n, login in enumerate(logins)
        ]
        answers = [answer for (answer,) in await asyncio.gather(*changes)]

        winners = [n for n, answer in enumerate(answers) if answer is None]
        assert len(winners) == 1
        assert all(isinstance(one, BadToken | BadCredentials) for one in answers if one is not None)
        credentials = await account.credentials()
        assert credentials is not None
        assert credentials.password == make_password(f"new {winners[0]}")


async def test_an_address_is_registered_once_on_all_nodes(nodes: list[SqlBackend]) -> None:
    emails = [f"user{n}@example.com" for n in range(30)]
    backwards = emails[::-1]
    made = await asyncio.gather(
        nodes[0].perform_all([creating(email) for email in emails]),
        nodes[1].perform_all([creating(email) for email in backwards]),
    )
    for email, first, second in zip(emails, made[0], made[1][::-1], strict=True):
        assert {type(first), type(second)} == {type(None), AccountExists}, email


async def test_whatever_nodes_do_at_once_nothing_fails(nodes: list[SqlBackend]) -> None:
    choices = random.Random(7)
    accounts = [await register(nodes[0], f"user{n}@example.com") for n in range(ACCOUNTS)]
    logins = [await account.log_in(f"device {n}") for account in accounts for n in range(3)]

    def choose() -> Operation[Any]:
        login = choices.choice(logins)
        creation = creating(f"new{choices.randrange(5)}@example.com")
        return choices.choice(
            [
                login.pushing(choices.randrange(1, 9)),
                login.acknowledging(choices.randrange(1, 9)),
                MarkSeen(login.token_hash, 1_800_000_000_001),
                login.account.opening(f"device {choices.randrange(4)}"),
                login.removing_device(f"device {choices.randrange(3, 6)}"),
                StartRegistration(
                    creation.email, creation.password, creation.client_salt_seed, creation.kdf
                ),
                StartReset(login.account.email),
                creation,
                login.account.opening(login.device_id),
            ]
        )

    rounds = [[choose() for _ in range(100)] for _ in range(6)]
    answers = await asyncio.gather(
        *(nodes[n % 2].perform_all(operations) for n, operations in enumerate(rounds))
    )
    for operations, given in zip(rounds, answers, strict=True):
        for operation, answer in zip(operations, given, strict=True):
            # Refused by the rules, perhaps; never by the database.
            assert not isinstance(answer, RpcError) or answer.code not in (503, -32603), operation


async def test_every_node_is_given_every_notice_in_order(nodes: list[SqlBackend]) -> None:
    account = await register(nodes[0])
    engine = create_store_engine(parse_url(str(nodes[0].engine.url)))

    def give(number: int) -> None:
        with engine.begin() as connection:
            give_notice(connection, account.account_id, f"reason {number}", now_ms=number)

    async def watch(node: SqlBackend) -> list[str]:
        seen: list[str] = []
        after = 0
        async with asyncio.timeout(60):
            while len(seen) < 20:
                for notice in await node.perform(LoadNotices(after, 3)):
                    seen.append(notice.reason)
                    after = notice.notice_id
        return seen

    watching = [asyncio.create_task(watch(node)) for node in nodes]
    await asyncio.gather(*(asyncio.to_thread(give, number) for number in range(20)))
    first, second = await asyncio.gather(*watching)
    assert first == second
    assert sorted(first) == sorted(f"reason {number}" for number in range(20))


async def test_a_push_that_landed_on_another_node_is_a_retry_here(nodes: list[SqlBackend]) -> None:
    phone = await (await register(nodes[0])).log_in()
    push: PushState = phone.pushing(1)
    await nodes[0].perform(push)
    (again,) = await nodes[1].perform_all([push])
    assert isinstance(again, Pushed)
    assert not again.fresh
