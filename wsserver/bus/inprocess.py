"""A bus of nodes in one process: for tests and simulations. It loses nothing by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wsserver.bus.transports import Receive


class Wire:
    """What the nodes of a process share. ``cut`` holds those that neither hear nor are heard."""

    def __init__(self) -> None:
        self.nodes: list[InProcess] = []
        self.cut: set[InProcess] = set()

    def carry(self, sender: InProcess, payload: str) -> None:
        """Bring it to everyone who is not cut off."""
        if sender not in self.cut:
            for node in self.nodes:
                if node not in self.cut and node.receive is not None:
                    asyncio.get_running_loop().call_soon(node.receive, payload)


class InProcess:
    """The transport of one node."""

    by_account = False

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.receive: Receive | None = None

    @property
    def connected(self) -> bool:
        """Whether it is open."""
        return self.receive is not None

    async def open(self, receive: Receive, lost: Callable[[], object]) -> None:
        """From now on hear the others."""
        self.receive = receive
        self._wire.nodes.append(self)

    def send(self, payload: str, account_id: int | None = None) -> bool:
        """Send to all nodes."""
        self._wire.carry(self, payload)
        return True

    def follow(self, account_id: int, followed: Callable[[int], object]) -> None:
        """It hears everything."""

    def unfollow(self, account_id: int) -> None:
        """It hears everything."""

    async def close(self) -> None:
        """Hear nothing more."""
        self.receive = None
        self._wire.nodes.remove(self)
