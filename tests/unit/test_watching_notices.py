"""How a server follows the operator's notices: from where it was, and past a store's failures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from wsschema.errors import InternalError, RpcError, Unavailable
from wsserver import engine
from wsserver.engine import NOTICE_INTERVAL_S, NOTICES_MAX, Engine
from wsserver.operations import FindNewestNotice, LoadNotices, Notice, Operation

TURNS_MAX = 10_000


class ScriptedStore:
    """Notices that a test adds, and failures that come before the answers. Never at once."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.failures: list[RpcError] = []
        self.taken_back = False
        self.silent = False
        self.submitted: list[Operation[Any]] = []

    def submit(self, operation: Operation[Any], done: Callable[[Any], None]) -> None:
        self.submitted.append(operation)
        if not self.silent:
            asyncio.get_running_loop().call_soon(done, self._answer(operation))

    def _answer(self, operation: Operation[Any]) -> Any:
        if self.failures:
            return self.failures.pop(0)
        if isinstance(operation, FindNewestNotice):
            return max((notice.notice_id for notice in self.notices), default=0)
        assert isinstance(operation, LoadNotices)
        if self.taken_back:
            self.notices.clear()
        after = [notice for notice in self.notices if notice.notice_id > operation.after]
        return tuple(after[: operation.limit])

    def add(self, *ids: int) -> None:
        self.notices += [Notice(notice_id, 7, "account_disabled") for notice_id in ids]

    @property
    def loaded(self) -> list[int]:
        """What was read: from which notice on, each time."""
        return [each.after for each in self.submitted if isinstance(each, LoadNotices)]

    async def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(TURNS_MAX):
            if holds():
                return
            await asyncio.sleep(0)
        raise AssertionError("it never held")

    async def rounds(self, count: int) -> None:
        """Return once it was asked for the newest notice so many times more."""
        before = len(self.submitted)
        await self.until(
            lambda: sum(isinstance(it, FindNewestNotice) for it in self.submitted[before:]) >= count
        )


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedStore]:
    """What an engine watches, without a pause between two looks."""
    monkeypatch.setattr(engine, "NOTICE_INTERVAL_S", 0)
    store = ScriptedStore()
    nobody = cast(Any, None)
    watching = asyncio.create_task(
        Engine(
            facts=nobody,
            store=cast(Any, store),
            passwords=nobody,
            send_letter=nobody,
            metrics=nobody,
        ).watch_notices()
    )
    yield store
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


def test_two_looks_fit_into_the_second_that_an_operator_is_promised() -> None:
    assert 2 * NOTICE_INTERVAL_S <= 1


async def test_while_nothing_is_done_only_the_newest_is_asked_for(store: ScriptedStore) -> None:
    await store.rounds(5)
    assert store.loaded == []


async def test_each_notice_is_read_once(store: ScriptedStore) -> None:
    store.add(3, 4)
    await store.rounds(3)
    store.add(9)
    await store.rounds(3)
    assert store.loaded == [0, 4]


async def test_many_notices_are_read_in_parts(store: ScriptedStore) -> None:
    store.add(*range(1, 2 * NOTICES_MAX + 2))
    await store.rounds(2)
    assert store.loaded == [0, NOTICES_MAX, 2 * NOTICES_MAX]


async def test_a_notice_that_was_taken_back_meanwhile_is_passed_over(store: ScriptedStore) -> None:
    store.taken_back = True
    store.add(5)
    await store.rounds(3)
    store.taken_back = False
    store.add(6)
    await store.rounds(3)
    assert store.loaded == [0, 5]


async def test_a_store_that_is_busy_is_asked_again_without_a_word(
    store: ScriptedStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.failures = [Unavailable() for _ in range(20)]
    store.add(5)
    await store.until(lambda: store.loaded == [0])
    assert caplog.text == ""


async def test_a_failure_of_our_own_is_logged_once_in_a_while(
    store: ScriptedStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.failures = [InternalError(error_id="1234")]
    store.add(5)
    await store.until(lambda: "can't be read: InternalError" in caplog.text)
    asked = len(store.submitted)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(store.submitted) == asked
    assert len(caplog.records) == 1


async def test_after_a_failure_it_goes_on_from_where_it_was(
    store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "NOTICE_RETRY_INTERVAL_S", 0)
    store.add(5)
    await store.until(lambda: store.loaded == [0])
    store.failures = [InternalError(error_id="1234"), Unavailable(), InternalError(error_id="5")]
    store.add(6)
    await store.until(lambda: store.loaded[-1] == 5)


async def test_an_answer_that_never_comes_does_not_end_the_watch(
    store: ScriptedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "NOTICE_ANSWER_TIMEOUT_S", 0)
    monkeypatch.setattr(engine, "NOTICE_RETRY_INTERVAL_S", 0)
    store.silent = True
    await store.until(lambda: "can't be read: TimeoutError" in caplog.text)
    monkeypatch.setattr(engine, "NOTICE_ANSWER_TIMEOUT_S", 30)
    store.silent = False
    store.add(5)
    await store.until(lambda: store.loaded == [0])
