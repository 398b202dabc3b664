"""Devices spread over nodes: they push, and stand still for a look at what they have come to."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.faults.load import Device, Listener, Load

CONVERGES_S = 3.0
"""How soon after the last fault every device knows the newest state."""


class SpreadDevice(Device):
    """A device that connects to a node at random, and pauses when it is told to."""

    def __init__(self, load: SpreadLoad, account: int, number: int) -> None:
        super().__init__(load, account, number)
        self._spread = load
        self._resting: Listener | None = None

    @property
    def sequence(self) -> int:
        """The newest that it knows of; -1 unless it rests, with a session."""
        resting = self._resting
        if resting is None or resting is not self.client:
            return -1
        return max(self._known, *resting.told[-1:])[0]

    async def _step(self, client: Listener) -> None:
        if not self._spread.pausing:
            self._resting = None
            await super()._step(client)
            return
        self._resting = client
        await asyncio.sleep(0.01)
        if client._ended:
            raise ConnectionError


class SpreadLoad(Load):
    """While ``pausing`` is set, devices stay connected and push nothing."""

    def __init__(self, nodes: Any, **options: Any) -> None:
        self.pausing = False
        super().__init__(nodes, **options)

    def make_device(self, account: int, number: int) -> SpreadDevice:
        return SpreadDevice(self, account, number)

    async def converge(self) -> float:
        """Have all pause; gives the seconds until every device knows the newest state."""
        since_s = time.monotonic()
        self.pausing = True
        await self.until(lambda: all(map(self._has_converged, self.accounts)))
        return time.monotonic() - since_s

    def _has_converged(self, account: int) -> bool:
        newest = self.newest(account)
        known = {
            one.sequence
            for one in self.devices
            if isinstance(one, SpreadDevice) and one.account == account
        }
        return len(known) == 1 and known.pop() >= newest
