"""Devices of one account and a server, as little of them as a merge can tell: pure."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from wsclient.merge import Merge


@dataclass
class Server:
    """What it keeps; a push that does not follow it is turned down."""

    sequence: int = 0
    wallet: bytes | None = None


@dataclass
class Device:
    server: Server
    merge: Merge
    wallet: bytes | None = None
    base: bytes | None = None
    sequence: int = 0

    def pull(self) -> None:
        theirs = self.server.wallet
        if theirs is None or self.sequence == self.server.sequence:
            return
        self.wallet = theirs if self.wallet is None else self._merge(self.wallet, theirs)
        self.base, self.sequence = theirs, self.server.sequence

    def push(self) -> bool:
        """Whether what is here is on the server; else it must pull first."""
        if self.sequence != self.server.sequence:
            return False
        if self.wallet != self.base:
            self.server.sequence += 1
            self.server.wallet = self.base = self.wallet
            self.sequence = self.server.sequence
        return True

    def sync(self) -> None:
        self.pull()
        assert self.push()

    def _merge(self, mine: bytes, theirs: bytes) -> bytes:
        merged = self.merge(self.base, mine, theirs)
        assert not isinstance(merged, Awaitable)
        return merged


@dataclass
class Account:
    merge: Merge
    server: Server = field(default_factory=Server)

    def add_device(self) -> Device:
        return Device(self.server, self.merge)

    def settle(self, devices: Sequence[Device]) -> bytes | None:
        """What all devices have once each has synced twice: nothing is left to push then."""
        for device in [*devices, *devices]:
            device.sync()
        pushes = self.server.sequence
        for device in devices:
            device.sync()
            assert device.wallet == self.server.wallet
        assert self.server.sequence == pushes
        return self.server.wallet
