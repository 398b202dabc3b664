"""A wallet without a server: the members of `SyncedWallet`, and what a test makes happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from wsclient.merge import Merge, last_writer_wins
from wsclient.wallet import AskPassword, SyncedWallet
from wsclient.wallet_events import (
    ConflictMerged,
    PasswordNeeded,
    Pushed,
    Status,
    StatusChanged,
    Stopped,
    ValueChanged,
    WalletEvent,
)
from wsschema.messages import Device, WalletVersion

OWN_ID = "laptop-1"
OTHER_ID = "phone-1"
NOW = datetime.now(UTC)


def make_device(device_id: str, name: str, **members: object) -> Device:
    fields = {
        "created_at": NOW - timedelta(days=40),
        "last_seen_at": datetime.now(UTC),
        "online": True,
        "current": device_id == OWN_ID,
        "applied_sequence": 1,
    }
    return Device(device_id=device_id, name=name, **(fields | members))  # type: ignore[arg-type] # by name


class FakeWallet:
    """In sync at sequence 1 unless told otherwise; what is changed is pushed by `sync` alone."""

    def __init__(
        self,
        value: bytes | None = b'{"a":1}',
        *,
        merge: Merge = last_writer_wins,
        ask_password: AskPassword | None = None,
    ) -> None:
        self.email = "joe@example.com"
        self.folder = Path("nowhere")
        self.value = value
        self.sequence = 0 if value is None else 1
        self.status = Status.SYNCED
        self.stopped: Exception | None = None
        self.device_id = OWN_ID
        self.unsynced = False
        self.local_key = bytes(32)
        self.round_trip_s: float | None = 0.0012
        self.account = {
            device.device_id: device
            for device in (make_device(OWN_ID, "laptop"), make_device(OTHER_ID, "phone"))
        }
        self.calls: list[str] = []
        """What was called, in order."""
        self.called = asyncio.Condition()
        self.refusal: OSError | None = None
        """What a change is refused with."""
        self._merge = merge
        self._ask_password = ask_password
        self._readers: list[asyncio.Queue[WalletEvent]] = []

    @property
    def changes(self) -> list[str]:
        """What was called that changes something."""
        return [call for call in self.calls if call not in ("devices", "ping")]

    @property
    def as_real(self) -> SyncedWallet:
        """Itself, as what it stands for."""
        return cast(SyncedWallet, self)

    # What a test makes happen.

    def tell(self, event: WalletEvent) -> None:
        for reader in self._readers:
            reader.put_nowait(event)

    def arrive(self, value: bytes, device_id: str = OTHER_ID) -> None:
        """Another device's change is here."""
        self.value = value
        self.sequence += 1
        self.tell(ValueChanged(value, self.sequence, device_id))

    def set_status(
        self, status: Status, cause: str | None = None, retry_s: float | None = None
    ) -> None:
        self.status = status
        self.tell(StatusChanged(status, cause, retry_s))

    def stop(self, error: Exception) -> None:
        self.stopped = error
        self.tell(Stopped(error))
        self.set_status(Status.STOPPED, str(error))

    async def conflict(self, base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
        """Both sides have changed: what the merge comes to."""
        merged = self._merge(base, mine, theirs)
        self.value = merged if isinstance(merged, bytes) else await merged
        self.sequence += 1
        self.tell(ConflictMerged(base, mine, theirs, self.value, self.sequence))
        self.tell(ValueChanged(self.value, self.sequence, OTHER_ID))
        return self.value

    async def need_password(self) -> str | None:
        needed = PasswordNeeded("changed_elsewhere")
        self.tell(needed)
        assert self._ask_password is not None
        return await self._ask_password(needed)

    # What it stands for.

    async def __aenter__(self) -> FakeWallet:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._note("close")

    async def _note(self, call: str) -> None:
        async with self.called:
            self.calls.append(call)
            self.called.notify_all()

    def events(self) -> AsyncIterator[WalletEvent]:
        queue: asyncio.Queue[WalletEvent] = asyncio.Queue()
        queue.put_nowait(StatusChanged(self.status))
        self._readers.append(queue)

        async def read() -> AsyncIterator[WalletEvent]:
            while True:
                yield await queue.get()

        return read()

    async def change(self, value: bytes | Callable[[bytes | None], bytes]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.value = value(self.value) if callable(value) else value
        self.unsynced = True
        await self._note("change")
        self.tell(ValueChanged(self.value, self.sequence, OWN_ID))

    async def sync(self, timeout_s: float | None = None) -> None:
        await self._note("sync")
        if self.stopped is not None:
            raise self.stopped
        if self.status is Status.OFFLINE:
            raise TimeoutError
        if self.unsynced:
            self.sequence += 1
            self.unsynced = False
            self.tell(Pushed(self.sequence))

    async def pull(self, timeout_s: float | None = None) -> None:
        await self._note("pull")
        await self.sync(timeout_s)

    async def change_password(self, new_root_password: str) -> None:
        await self._note("change_password")

    async def devices(self) -> tuple[Device, ...]:
        await self._note("devices")
        return tuple(self.account.values())

    async def history(self, limit: int = 20) -> tuple[WalletVersion, ...]:
        return ()

    async def load_version(self, sequence: int) -> bytes:
        return b""

    async def revoke_device(self, device_id: str) -> None:
        await self._note("revoke_device")

    async def ping(self) -> float:
        await self._note("ping")
        return 0.0012

    async def logout(self) -> None:
        await self._note("logout")

    async def delete_account(self) -> None:
        await self._note("delete_account")

    async def recover(self) -> None:
        await self._note("recover")
        self.stopped = None
        self.set_status(Status.SYNCED)
