"""Devices that were seen are noted a few at a time, so that nobody waits for thousands of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from wsschema.errors import Unavailable
from wsserver import engine
from wsserver.engine import SEEN_AT_ONCE, Engine
from wsserver.operations import MarkSeen, Operation


class Notebook:
    """A store that keeps what it is to note, and answers when it is told to."""

    def __init__(self) -> None:
        self.noted: list[MarkSeen] = []
        self._unanswered: list[Callable[[Any], None]] = []

    def submit(self, operation: Operation[Any], done: Callable[[Any], None]) -> None:
        assert isinstance(operation, MarkSeen)
        self.noted.append(operation)
        self._unanswered.append(done)

    def answer(self, answer: Any = None) -> None:
        unanswered, self._unanswered = self._unanswered, []
        for done in unanswered:
            done(answer)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    monkeypatch.setattr(engine, "SEEN_INTERVAL_S", 0)
    return Notebook()


def make_engine(notebook: Notebook) -> Engine:
    nobody = cast(Any, None)
    return Engine(
        facts=nobody,
        store=cast(Any, notebook),
        passwords=nobody,
        send_letter=nobody,
        metrics=nobody,
    )


def see(server: Engine, numbers: range) -> None:
    for number in numbers:
        server._note_seen(b"%d" % number, number)


async def pass_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("answer", [None, Unavailable("the disk is full")])
async def test_the_next_are_noted_once_those_before_are(notebook: Notebook, answer: Any) -> None:
    server = make_engine(notebook)
    see(server, range(SEEN_AT_ONCE + 2))
    assert notebook.noted == []

    await pass_turns()
    assert len(notebook.noted) == SEEN_AT_ONCE
    notebook.answer(answer)
    await pass_turns()
    assert [one.at_ms for one in notebook.noted] == [*range(SEEN_AT_ONCE + 2)]


async def test_who_is_seen_after_all_were_noted_is_noted_too(notebook: Notebook) -> None:
    server = make_engine(notebook)
    for number in range(2):
        see(server, range(number, number + 1))
        await pass_turns()
        notebook.answer()
    assert [one.at_ms for one in notebook.noted] == [0, 1]


async def test_at_the_end_the_rest_is_noted_at_once_and_nobody_twice(notebook: Notebook) -> None:
    server = make_engine(notebook)
    see(server, range(SEEN_AT_ONCE + 2))
    await pass_turns()

    server.note_all_seen()
    assert [one.at_ms for one in notebook.noted] == [*range(SEEN_AT_ONCE + 2)]
    notebook.answer()
    await pass_turns()
    assert len(notebook.noted) == SEEN_AT_ONCE + 2
