"""The event loop behind a synchronous caller."""

from __future__ import annotations

import asyncio
import threading

import pytest

from wsclient.background import Background


@pytest.fixture
def background() -> Background:
    return Background("test")


async def name_thread() -> str:
    return threading.current_thread().name


async def fail() -> None:
    raise ZeroDivisionError


def test_a_coroutine_runs_on_the_other_thread(background: Background) -> None:
    assert background.run(name_thread()) == "test"
    background.stop()


def test_its_error_comes_back(background: Background) -> None:
    with pytest.raises(ZeroDivisionError):
        background.run(fail())
    background.stop()


def test_stopping_cancels_what_still_runs(background: Background) -> None:
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def start_waiting() -> asyncio.Task[None]:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return task

    background.run(start_waiting())
    background.stop()
    assert cancelled.is_set()


def test_it_can_be_stopped_twice_and_used_again(background: Background) -> None:
    background.stop()
    background.run(name_thread())
    background.stop()
    background.stop()
    assert background.run(name_thread()) == "test"
    background.stop()


def test_an_interrupt_cancels_what_was_waited_for(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    class InterruptedFuture:
        def __init__(self, future: object) -> None:
            self._future = future

        def result(self) -> None:
            started.wait(10)
            raise KeyboardInterrupt

        def cancel(self) -> None:
            self._future.cancel()  # type: ignore[attr-defined]  # a concurrent future

    submit = asyncio.run_coroutine_threadsafe
    monkeypatch.setattr(
        asyncio,
        "run_coroutine_threadsafe",
        lambda coroutine, loop: InterruptedFuture(submit(coroutine, loop)),
    )
    with pytest.raises(KeyboardInterrupt):
        background.run(wait())
    assert cancelled.wait(10)
    background.stop()
