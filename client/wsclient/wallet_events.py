"""What a wallet in sync tells: the events of `SyncedWallet.events`. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal

from wsclient.errors import WalletSyncError
from wsschema.messages import Device


class Status(enum.StrEnum):
    """How a wallet stands with the server."""

    CONNECTING = "connecting"
    SYNCING = "syncing"
    """Connected; something is still on its way, in one direction or the other."""
    SYNCED = "synced"
    OFFLINE = "offline"
    """No connection, or none that works; it is tried again by itself."""
    STOPPED = "stopped"
    """Nothing is tried again by itself; `SyncedWallet.stopped` says why."""


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The status is another; offline, why, and in how many seconds the next attempt is made."""

    status: Status
    cause: str | None = None
    retry_s: float | None = None


@dataclass(frozen=True, slots=True)
class ValueChanged:
    """The wallet here is another: ``device_id`` changed it, this device or another.

    ``sequence`` is that of the newest state of the server which is merged into it.
    """

    value: bytes = field(repr=False)
    sequence: int
    device_id: str


@dataclass(frozen=True, slots=True)
class ConflictMerged:
    """Both sides had changed ``base``, and were merged; None where no base was shared."""

    base: bytes | None = field(repr=False)
    mine: bytes = field(repr=False)
    theirs: bytes = field(repr=False)
    merged: bytes = field(repr=False)
    sequence: int


@dataclass(frozen=True, slots=True)
class Pushed:
    """What this device pushed is on the server's disk."""

    sequence: int


@dataclass(frozen=True, slots=True)
class PushRefused:
    """The server does not take the wallet as it is, which stays here; the next change is tried."""

    error: WalletSyncError


@dataclass(frozen=True, slots=True)
class DeviceUpdated:
    """Another device of the account came, went, or applied a state."""

    device: Device


@dataclass(frozen=True, slots=True)
class Restored:
    """The server's data was restored from a backup, and it said so: merged with no base."""

    epoch: str


@dataclass(frozen=True, slots=True)
class PasswordNeeded:
    """A root password is asked for.

    ``reason``: ``changed_elsewhere``, another device changed it or it was wrong; ``sealed_before``,
    what is on disk was sealed under an earlier one.
    """

    reason: Literal["changed_elsewhere", "sealed_before"]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The sync has stopped; what is here stays."""

    error: Exception


WalletEvent = (
    StatusChanged
    | ValueChanged
    | ConflictMerged
    | Pushed
    | PushRefused
    | DeviceUpdated
    | Restored
    | PasswordNeeded
    | Stopped
)
