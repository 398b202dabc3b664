"""What a session tells without being asked, and the slots in which it waits to be read. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wsschema.messages import Device, WalletUpdated

DEVICE_SLOTS_MAX: Final = 1024
"""Devices whose news wait at the same time; past that the oldest is dropped."""


@dataclass(frozen=True, slots=True)
class Offline:
    """The connection was lost, or could not be had again; the next attempt is in ``retry_s``."""

    cause: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class Online:
    """The connection is back and the session resumed.

    Under another ``epoch`` than before, the server's data was restored: drop the merge base, merge
    without one, and push. None before login.
    """

    epoch: str | None


Event = WalletUpdated | Device | Offline | Online


class EventSlots:
    """The newest event of each kind, and of each device; never a growing queue."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: dict[tuple[str, str], Event] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def put(self, event: Event) -> None:
        """Keeps the event, and drops the one whose place it takes."""
        match event:
            case WalletUpdated():
                slot = ("wallet", "")
            case Device():
                slot = ("device", event.device_id)
            case Offline() | Online():
                slot = ("connection", "")
        self._slots.pop(slot, None)
        if slot[0] == "device":
            self._make_room_for_device()
        self._slots[slot] = event

    def take(self) -> Event | None:
        """The event that has waited longest, or None."""
        return self._slots.pop(next(iter(self._slots))) if self._slots else None

    def drop_wallet(self) -> None:
        """Forgets a wallet's update that counts no more."""
        self._slots.pop(("wallet", ""), None)

    def _make_room_for_device(self) -> None:
        devices = [slot for slot in self._slots if slot[0] == "device"]
        if len(devices) >= DEVICE_SLOTS_MAX:
            del self._slots[devices[0]]
