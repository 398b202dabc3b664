"""A wheel of one-second buckets: who has a deadline now, for thousands that rarely have one.

A timer for each connection costs memory, and a heap operation whenever it moves. Here a deadline
costs one list entry, and one that moves later (the usual case: the peer was heard) costs nothing
until the old one comes up.
"""

from __future__ import annotations

import math
from typing import Generic, Protocol, TypeVar


class Scheduled(Protocol):
    """What a wheel holds: it keeps its own place in it, so that the wheel needs no index."""

    wheel_second: int
    """The second of its entry; 0 while it has none. Only the wheel writes it."""


T = TypeVar("T", bound=Scheduled)


class Wheel(Generic[T]):
    """The deadlines of many, rounded up to whole seconds.

    Pure: the caller brings the time, in seconds above 0 that never go back.
    """

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[int, list[T]] = {}

    def schedule(self, item: T, deadline_s: float) -> None:
        """Has `item` come up by the first second after `deadline_s`, or before.

        An entry that is earlier stays: who comes up with nothing due is scheduled again.
        """
        second = math.ceil(deadline_s)
        if item.wheel_second == 0 or second < item.wheel_second:
            # A later entry stays behind in its bucket; take_due() knows it by the difference.
            item.wheel_second = second
            self._buckets.setdefault(second, []).append(item)

    def take_due(self, now_s: float) -> list[T]:
        """The items whose entry has come up, each once, earliest first; they leave the wheel."""
        due = []
        for second in sorted(second for second in self._buckets if second <= now_s):
            for item in self._buckets.pop(second):
                if item.wheel_second == second:
                    item.wheel_second = 0
                    due.append(item)
        return due
