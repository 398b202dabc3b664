"""Lanes: group commit, limits of what waits, the order of answers, the end."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.contract.backends import (
    PATIENCE_S,
    Login,
    SqlBackend,
    creating,
    gather_answers,
    register,
)
from tests.store.conftest import Disk, OpenSqlite
from wsschema.errors import Unavailable
from wsschema.messages import SealedWallet
from wsserver.operations import (
    LoadCredentials,
    LoadSession,
    LoadWallet,
    Operation,
    ProbeWrite,
    Pushed,
)
from wsserver.store.databases import create_store_engine, parse_url
from wsserver.store.errors import StoreError
from wsserver.store.lanes import Lane, LaneLimits, Waiting
from wsserver.store.sql import READING_BATCH_OPERATIONS, SqlStore


@dataclass
class Timer:
    """A monotonic clock that the test moves."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


# Group commit.


async def test_what_waits_is_committed_at_once(open_store: OpenSqlite, disk: Disk) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        before = disk.commits

        answers = await backend.perform_batch([phone.pushing(n) for n in range(1, 301)])

        assert len(answers) == 300
        assert disk.commits - before == 2
    assert backend.written[-2:] == [1, 300]


async def test_a_batch_has_a_limit_of_operations(open_store: OpenSqlite) -> None:
    limits = LaneLimits(batch_operations=64)
    async with open_store(limits=limits) as backend:
        phone = await (await register(backend)).log_in()

        await backend.perform_batch([phone.pushing(n) for n in range(1, 151)])

    assert backend.written[-4:] == [1, 64, 64, 22]


async def test_a_batch_has_a_limit_of_bytes(open_store: OpenSqlite) -> None:
    async with open_store(limits=LaneLimits(batch_bytes=3000)) as backend:
        phone = await (await register(backend)).log_in()

        # Each of 1,000 bytes: three make a batch.
        await backend.perform_batch([phone.pushing(n, "é" * 500) for n in range(1, 9)])

    assert backend.written[-4:] == [1, 3, 3, 2]


async def test_reading_lanes_take_fewer_at_once(open_store: OpenSqlite) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        await phone.push(1)

        reads: list[Any] = [LoadWallet(phone.account.account_id, None) for _ in range(500)]
        reads += [LoadSession(phone.token_hash) for _ in range(500)]
        answers = await backend.perform_all(reads)

        assert {answer.sequence for answer in answers[:500]} == {1}
        assert {answer.head.sequence for answer in answers[500:]} == {1}
    lanes = ("reading lane", "resuming lane")
    sizes = [[size for lane, size in backend.batches if lane == name] for name in lanes]
    assert max(map(max, sizes)) <= READING_BATCH_OPERATIONS
    # One more was for the registration.
    assert [*map(sum, sizes)] == [501, 500]


# Limits of what waits.


async def test_more_operations_than_may_wait_are_refused(open_store: OpenSqlite) -> None:
    limits = LaneLimits(queue_operations=3)
    async with open_store(limits=limits) as backend:
        async with backend.held() as held:
            futures = backend.submit_all([creating(f"user{n}@example.com") for n in range(5)])
            assert isinstance(backend.store, SqlStore)
            assert backend.store.waiting["writing lane"] == backend.store.waiting_max == 3
            refused = await gather_answers(futures[3:])
            assert not any(future.done() for future in futures[:3])

        assert [type(answer) for answer in refused] == [Unavailable, Unavailable]
        assert await gather_answers([held, *futures[:3]]) == [None] * 4
        assert await backend.perform_all([creating("user4@example.com")]) == [None]


async def test_a_refusal_is_not_answered_before_submit_returns(open_store: OpenSqlite) -> None:
    async with open_store(limits=LaneLimits(queue_operations=0)) as backend:
        (future,) = backend.submit_all([ProbeWrite()])

        assert not future.done()
        (answer,) = await gather_answers([future])
        assert isinstance(answer, Unavailable)
        assert answer.retry_after_ms > 0


@pytest.mark.parametrize("text", ["x" * 1000, "é" * 500, "🦊" * 250])
async def test_more_bytes_than_may_wait_are_refused(open_store: OpenSqlite, text: str) -> None:
    limits = LaneLimits(queue_bytes=2000)
    async with open_store(limits=limits) as backend:
        phone = await (await register(backend)).log_in()
        for _ in range(3):  # What was taken waits no more.
            answers = await fill(backend, phone, text)
            assert [type(answer) for answer in answers[2:]] == [Unavailable] * 2
            assert not any(isinstance(answer, Unavailable) for answer in answers[:2])


async def fill(backend: SqlBackend, phone: Login, text: str) -> list[Any]:
    """Answers of a push, of a password change with a wallet, of two pushes more: of 1,000 bytes."""
    change = phone.replacing(SealedWallet(1000, text, "mac"))
    async with backend.held() as held:
        pushes = [phone.pushing(n, text) for n in (1, 1000, 1001)]
        futures = backend.submit_all([pushes[0], change, *pushes[1:]])
        answers = await gather_answers(futures[2:])
    return [*(await gather_answers([held, *futures[:2]]))[1:], *answers]


async def test_what_waited_too_long_is_refused(open_store: OpenSqlite) -> None:
    timer = Timer()
    async with open_store(limits=LaneLimits(wait_s=10), clock=timer) as backend:
        phone = await (await register(backend)).log_in()
        async with backend.held() as held:
            late = backend.submit_all([phone.pushing(1), phone.pushing(2)])
            timer.now_s += 10.5
            fresh = backend.submit_all([phone.pushing(1, "fresh")])

        assert await gather_answers([held]) == [None]
        assert [type(answer) for answer in await gather_answers(late)] == [Unavailable] * 2
        (pushed,) = await gather_answers(fresh)
        assert pushed.fresh
        assert pushed.state.encrypted_wallet == "fresh"
    # What was refused made no transaction.
    assert backend.written[-2:] == [1, 1]
    assert sum(backend.written) == 4


async def test_a_batch_that_waited_too_long_altogether_is_refused(open_store: OpenSqlite) -> None:
    timer = Timer()
    async with open_store(limits=LaneLimits(wait_s=10), clock=timer) as backend:
        async with backend.held() as held:
            late = backend.submit_all([creating("late@example.com")])
            timer.now_s += 11
        assert isinstance((await gather_answers([held, *late]))[1], Unavailable)
        assert await backend.perform(LoadCredentials("late@example.com")) is None


# Answers.


async def test_answers_come_in_commit_order_on_the_event_loop(phone: Login) -> None:
    backend = phone.account.backend
    assert isinstance(backend, SqlBackend)
    laptop = await phone.account.log_in("laptop")
    backend.answered.clear()
    threads: set[int] = set()
    answered: list[int] = []
    pushes = [login.pushing(n) for n in range(1, 60) for login in (phone, laptop)]
    done = asyncio.get_running_loop().create_future()

    for number, push in enumerate(pushes):

        def take(answer: Any, number: int = number) -> None:
            threads.add(threading.get_ident())
            answered.append(number)
            if len(answered) == len(pushes):
                done.set_result(None)

        backend.store.submit(push, take)
        if number % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.wait_for(done, PATIENCE_S)

    assert answered == [*range(len(pushes))]
    assert threads == {threading.get_ident()}
    assert [operation for operation, _ in backend.answered] == pushes
    won = [answer.state.sequence for _, answer in backend.answered if isinstance(answer, Pushed)]
    assert won == sorted(won)


async def test_what_was_answered_is_seen_by_every_reading_lane(phone: Login) -> None:
    backend, account_id = phone.account.backend, phone.account.account_id
    for sequence in range(1, 101):
        await phone.push(sequence)

        # Two in a row are answered by different lanes.
        states = await backend.perform_all([LoadWallet(account_id, None)] * 2)

        assert [state.sequence for state in states] == [sequence, sequence]


async def test_one_who_can_not_take_an_answer_costs_nobody_theirs(
    phone: Login, caplog: pytest.LogCaptureFixture
) -> None:
    backend = phone.account.backend

    def fail(answer: Any) -> None:
        raise RuntimeError(f"can't take {answer.state.encrypted_wallet}")

    assert isinstance(backend, SqlBackend)
    async with backend.held() as held:
        futures = backend.submit_all([phone.pushing(1)])
        backend.store.submit(phone.pushing(2, "a secret wallet"), fail)
        futures += backend.submit_all([phone.pushing(3)])
    answers = await gather_answers([held, *futures])

    assert [answer.state.sequence for answer in answers[1:]] == [1, 3]
    assert "answering PushState failed" in caplog.text
    assert "a secret wallet" not in caplog.text


async def test_a_figure_that_can_not_be_taken_ends_no_lane(
    open_store: OpenSqlite, caplog: pytest.LogCaptureFixture
) -> None:
    def observe(lane: str, operations: int, seconds: float) -> None:
        raise RuntimeError("no figures today")

    async with open_store(observe_batch=observe) as backend:
        phone = await (await register(backend)).log_in()
        await phone.push(1)
        await phone.push(2)
    assert "writing lane: a batch of 1 went wrong" in caplog.text


# The end.


async def test_closing_finishes_what_waits(open_store: OpenSqlite) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        async with backend.held() as held:
            futures = backend.submit_all([phone.pushing(n) for n in range(1, 101)])
            closing = asyncio.create_task(backend.store.close())
            await asyncio.sleep(0)
            (refused,) = await backend.perform_all([phone.pushing(101)])
        await asyncio.wait_for(closing, PATIENCE_S)

        assert isinstance(refused, Unavailable)
        answers = await gather_answers([held, *futures])
        assert all(answer.fresh for answer in answers[1:])


async def test_closing_takes_no_longer_than_it_may(
    open_store: OpenSqlite, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        async with backend.held():
            backend.submit_all([phone.pushing(1)])
            async with asyncio.timeout(PATIENCE_S):
                await backend.store.close(timeout_s=0.05)
    assert "writing lane: not done within 0.05 s" in caplog.text


async def test_the_writing_lane_leaves_last(open_store: OpenSqlite, disk: Disk) -> None:
    # The last connection to leave a SQLite file checkpoints it.
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        await backend.perform(LoadSession(phone.token_hash))

    assert disk.closed_by[-3:-1] == ["resuming lane", "reading lane"]
    assert disk.closed_by[-1] == "writing lane"


async def test_closing_ends_in_time_though_the_database_is_locked(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make_store() -> SqlStore:
        url = f"sqlite:///{database}"
        return SqlStore(url, history_depth=1, token_lifetime_s=1, answer=lambda *answer: None)

    store = make_store()
    await store.open(exclusive=True)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.submit(creating("joe@example.com"), lambda answer: None)

    await store.close(timeout_s=0.05)

    assert "writing lane: not done within 0.05 s" in caplog.text
    # It may write yet, so nobody else may serve from the file.
    with pytest.raises(StoreError, match="another server serves"):
        await make_store().open(exclusive=True)
    other.execute("ROLLBACK")
    other.close()
    await asyncio.to_thread(join_thread, "writing lane")


def join_thread(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(PATIENCE_S)


async def test_a_closed_store_leaves_one_file(open_store: OpenSqlite) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        await phone.push(1)
        assert backend.path.with_name("wallet-sync.db-wal").exists()
    assert [path.name for path in backend.path.parent.iterdir()] == ["wallet-sync.db"]


def test_a_lane_outlives_its_event_loop(tmp_path: Path) -> None:
    # The process ends without closing the store: nothing may be raised on the lane's thread.
    url = f"sqlite:///{tmp_path / 'wallet-sync.db'}"
    failures: list[Any] = []
    hook, threading.excepthook = threading.excepthook, failures.append
    store = SqlStore(url, history_depth=1, token_lifetime_s=1, answer=lambda *answer: None)

    async def leave_behind() -> None:
        await store.open()
        store.submit(creating("first@example.com"), lambda answer: None)
        store.submit(creating("second@example.com"), lambda answer: None)

    try:
        asyncio.run(leave_behind())
        asyncio.run(store.close())
    finally:
        threading.excepthook = hook
    assert not failures
    with create_store_engine(parse_url(url)).begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM accounts")).scalar_one() == 2


# A lane alone.


@dataclass
class FakeConnection:
    """Counts transactions; fails as it is told to."""

    engine: FakeEngine

    def begin(self) -> FakeConnection:
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *failure: Any) -> None: ...

    def close(self) -> None:
        self.engine.closed += 1
        raise RuntimeError("a secret")


@dataclass
class FakeEngine:
    closed: int = 0
    opened: list[FakeConnection] = field(default_factory=list)

    def connect(self) -> FakeConnection:
        self.opened.append(FakeConnection(self))
        return self.opened[-1]


def test_a_connection_that_can_not_be_closed_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = FakeEngine()
    answered: list[Any] = []

    def run(connection: Any, operations: Sequence[Operation[Any]]) -> list[Any]:
        if len(engine.opened) == 1:
            raise LookupError("a secret")
        return [len(engine.opened) for _ in operations]

    lane = Lane(
        "lane",
        engine,  # type: ignore[arg-type]  # a fake
        run,
        lambda answers: answered.extend(answers),
        limits=LaneLimits(),
        clock=Timer(),
        observe_batch=lambda operations, seconds: None,
        count_fault=lambda: None,
    )
    for _ in range(2):
        lane.submit(ProbeWrite(), lambda answer: None)
    lane.start()
    assert lane.close(timeout_s=10)

    assert [answer for _, answer in answered] == [2, 2]
    assert all(isinstance(waiting, Waiting) for waiting, _ in answered)
    assert (len(engine.opened), engine.closed) == (2, 2)
    assert "closing its connection failed: RuntimeError" in caplog.text
    assert "a secret" not in caplog.text
    assert logging.getLevelName(caplog.records[0].levelno) == "ERROR"
