"""A live view, and what a person at it does and sees."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, TextArea

from tests.live.fake_wallet import FakeWallet
from wsclient.live.app import LiveApp
from wsclient.live.asking import HandMerge, PasswordOnScreen
from wsclient.merge import Merge, last_writer_wins
from wsclient.wallet_events import PasswordNeeded

T = TypeVar("T")

LOOKS_MAX = 400
"""How often it is looked whether something has happened, before a test fails."""
LOOK_INTERVAL_S = 0.02


class View:
    """One live view that runs."""

    def __init__(self, app: LiveApp, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot
        self._begun: set[asyncio.Task[Any]] = set()

    async def press(self, *keys: str) -> None:
        with self.app._context():  # there may be two apps
            await self.pilot.press(*keys)

    async def enter(self, text: str) -> None:
        """Types a text in place of what the field with the focus has."""
        field = self.app.focused
        assert isinstance(field, Input | TextArea)
        field.clear()
        await self.press(*(_name_key(character) for character in text))

    async def pause(self, seconds: float | None = None) -> None:
        """Returns once the app has done what there was to do."""
        with self.app._context():
            await self.pilot.pause(seconds)

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns once it holds."""
        for _ in range(LOOKS_MAX):
            if holds():
                return
            await self.pause(LOOK_INTERVAL_S)
        raise AssertionError(f"never came to hold; the screen:\n{self.text}")

    async def until_shown(self, text: str) -> None:
        await self.until(lambda: text in self.text)

    async def until_told(self, text: str) -> None:
        """Returns once an event says that; on the screen, it may be broken into lines."""
        await self.until(lambda: any(text in line for line in self.app.event_log.plain_lines))

    async def until_notified(self, text: str) -> None:
        await self.until(lambda: any(text in toast.message for toast in self.app._notifications))

    async def until_asked(self, dialog: type[Screen[Any]]) -> None:
        """Returns once that question is on the screen, and takes keys."""
        await self.until(lambda: isinstance(self.app.screen, dialog))
        await self.pause()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begins what asks a question, and is done once that is answered."""
        task = asyncio.create_task(coroutine)
        self._begun.add(task)
        return task

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(lines_of(self.app))


class Stage(View):
    """A live view of a wallet that a test has in its hand."""

    def __init__(self, app: LiveApp, wallet: FakeWallet, pilot: Pilot[None]) -> None:
        super().__init__(app, pilot)
        self.wallet = wallet

    async def until_called(self, call: str) -> None:
        await self.until(lambda: call in self.wallet.calls)


def lines_of(app: App[None]) -> list[str]:
    """The lines of the screen, without their colours."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


@contextlib.asynccontextmanager
async def open_stage(
    value: bytes | None = b'{"a":1}',
    *,
    merge: Merge = last_writer_wins,
    size: tuple[int, int] = (100, 30),
    prepare: Callable[[FakeWallet], None] = lambda wallet: None,
) -> AsyncIterator[Stage]:
    """A live view of a wallet with this value; ``prepare`` is done to it first."""

    async def ask_nobody(needed: PasswordNeeded) -> str | None:
        raise AssertionError("asked in the terminal")

    hand_merge, ask_password = HandMerge(merge), PasswordOnScreen(ask_nobody)
    wallet = FakeWallet(value, merge=hand_merge, ask_password=ask_password)
    prepare(wallet)
    app = LiveApp(
        wallet.as_real,
        merge=hand_merge,
        ask_password=ask_password,
        profile="home",
        address="wss://sync.example.com/v1",
        clock=lambda: "12:00:00",
    )
    async with app.run_test(size=size, notifications=True) as pilot:
        stage = Stage(app, wallet, pilot)
        await stage.until_called("devices")
        yield stage


def _name_key(character: str) -> str:
    names = {
        '"': "quotation_mark", " ": "space", ":": "colon", ",": "comma", ".": "full_stop",
        "{": "left_curly_bracket", "}": "right_curly_bracket", "[": "left_square_bracket",
        "]": "right_square_bracket", "-": "minus",
    }  # fmt: skip
    return names.get(character, character)
