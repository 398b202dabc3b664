"""What a merge is, and what every merge begins with. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

Merge: TypeAlias = Callable[[bytes | None, bytes, bytes], bytes | Awaitable[bytes]]
"""``(base, mine, theirs) -> merged``: the wallet with what was changed here and elsewhere.

``base`` is the version that both come from; None where none is shared. A merge is a function of
these three alone, and of each of ``merge(b, b, x)``, ``merge(b, x, b)`` and ``merge(b, x, x)`` it
makes x, to the letter: so devices that have nothing left to push have the same bytes.
"""


def take_only_change(base: bytes | None, mine: bytes, theirs: bytes) -> bytes | None:
    """The merged wallet where only one side changed, or both to the same; None: merge them."""
    if mine in (base, theirs):
        return theirs
    return mine if theirs == base else None


def last_writer_wins(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
    """My wallet where it was changed here, else theirs, as a whole. A `Merge`.

    Devices converge on the wallet of the one that pushes last: what was changed elsewhere at the
    same time is lost, and what that is depends on the order of pushes. With no base, mine counts as
    changed.
    """
    only_change = take_only_change(base, mine, theirs)
    return mine if only_change is None else only_change
