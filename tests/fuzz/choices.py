"""Decisions drawn from bytes, so that whatever makes bytes makes whole conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Reads an input as decisions. Where it has ended, each is the first, the plainest one."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        """Whether there is anything left to decide by."""
        return self._position < len(self._data)

    def below(self, bound: int) -> int:
        """A number from 0 to ``bound`` - 1; a byte where that is enough."""
        size = max(1, (bound - 1).bit_length() + 7 >> 3)
        return int.from_bytes(self.take(size), "little") % bound

    def pick(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.below(len(options))]

    def one_in(self, count: int) -> bool:
        """True once in ``count`` times."""
        return self.below(count) == count - 1

    def take(self, size: int) -> bytes:
        """The next bytes, as many as there are."""
        taken = self._data[self._position : self._position + size]
        self._position += len(taken)
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def cut(self, stream: bytes) -> list[bytes]:
        """The stream in segments: whole, byte by byte, or in pieces of some sizes."""
        sizes = self.pick([(len(stream) or 1,), (1,), (2, 3), (5, 1, 13), (40, 1, 200), (7, 1000)])
        parts, position, turn = [], 0, 0
        while position < len(stream):
            size = sizes[turn % len(sizes)]
            parts.append(stream[position : position + size])
            position, turn = position + size, turn + 1
        return parts
