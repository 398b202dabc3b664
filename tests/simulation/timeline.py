"""Simulated time: one queue of what happens when. Nothing else moves a clock.

Callbacks of an owner that has died meanwhile (a process, a connection) are dropped.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Protocol

START_MS = 1_800_000_000_000
"""The beginning, in milliseconds since 1970."""


class Owner(Protocol):
    """Whose callbacks these are."""

    alive: bool


class Timer:
    """Something that is to happen once, unless it is cancelled."""

    __slots__ = ("alive",)

    def __init__(self) -> None:
        self.alive = True

    def cancel(self) -> None:
        self.alive = False


class Timeline:
    """What is to happen, by time and then by the order in which it was said."""

    __slots__ = ("_number", "_queue", "events", "now_ms")

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.events = 0
        """How many things have happened."""
        self._queue: list[tuple[float, int, Owner, Callable[..., object], tuple[Any, ...]]] = []
        self._number = 0

    @property
    def unix_ms(self) -> int:
        """The time, as a server's clock tells it."""
        return START_MS + int(self.now_ms)

    @property
    def now_s(self) -> float:
        return self.now_ms / 1000

    def at(self, at_ms: float, owner: Owner, callback: Callable[..., object], *args: Any) -> None:
        self._number += 1
        heapq.heappush(self._queue, (at_ms, self._number, owner, callback, args))

    def after(
        self, delay_ms: float, owner: Owner, callback: Callable[..., object], *args: Any
    ) -> None:
        self._number += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._number, owner, callback, args))

    def step(self) -> bool:
        """Have the next thing happen; False when nothing is left."""
        while self._queue:
            at_ms, _, owner, callback, args = heapq.heappop(self._queue)
            if owner.alive:
                self.now_ms = at_ms
                self.events += 1
                callback(*args)
                return True
        return False
