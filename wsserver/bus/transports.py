"""What carries messages between nodes: the face of every transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

QUEUE_MESSAGES_MAX: Final = 5000
"""Messages that wait to be sent; what is more is dropped, and the others learn of a gap."""

Receive = Callable[[str | bytes], object]
"""Takes a payload, on the event loop."""


class BusError(Exception):
    """The bus can't be used; the text says why."""


class Transport(Protocol):
    """Brings payloads to all nodes, this one included. It may lose, double and delay them."""

    by_account: bool
    """Whether what concerns an account comes only to the nodes that have asked for it: then a
    node does not hear all of another's messages, and their numbers tell nothing of those."""

    @property
    def connected(self) -> bool:
        """Whether it can be reached, as far as it knows."""
        ...

    async def open(self, receive: Receive, lost: Callable[[], object]) -> None:
        """Connect, and go on connecting when cut off. Raises BusError where there is none.

        ``lost`` is called when it is connected again: what was said meanwhile did not come.
        """
        ...

    def send(self, payload: str, account_id: int | None = None) -> bool:
        """Send to all nodes, or those that have asked for the account; False if it is dropped."""
        ...

    def follow(self, account_id: int, followed: Callable[[int], object]) -> None:
        """From about now on hear what concerns the account; ``followed`` is called when sure."""
        ...

    def unfollow(self, account_id: int) -> None:
        """Hear of it no more."""
        ...

    async def close(self) -> None:
        """Send what waits, within a second, and disconnect."""
        ...
