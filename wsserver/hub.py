"""Who is connected: the listeners of each account, and what each is to hear. Pure.

A listener is in the hub from before its session reads the stored sequence (join before loading: a
push between the two would be lost) until its session is over. Listeners keep what they can't send
in slots of their own where the newest wins; the hub keeps no message.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Protocol, assert_never

from wsschema.messages import Device
from wsschema.times import time_from_ms
from wsserver.operations import Applied, DeviceRecord, Event, Published, Revoked


class Listener(Protocol):
    """One connection of an account, as the hub sees it."""

    connection_id: int
    """Unique in this process."""

    @property
    def device_id(self) -> str:
        """Which device it opens, or has opened, a session for."""

    @property
    def token_hash(self) -> bytes | None:
        """None until a login's token is committed: no revocation before that means this one."""

    @property
    def device(self) -> DeviceRecord | None:
        """The device once the session is open: from the answer to login or resume on."""

    @device.setter
    def device(self, device: DeviceRecord) -> None: ...

    @property
    def known_sequence(self) -> int:
        """The newest sequence that it was told of, or is about to be."""
        ...

    @property
    def presence(self) -> bool:
        """Whether it hears of the account's other devices."""

    @property
    def idle_since_s(self) -> float:
        """About when its last message came, on the gate's clock."""
        ...

    def crowd_out(self) -> None:
        """End it: the account has more sessions than it may have."""
        ...

    def wallet_updated(self, update: Published) -> None:
        """Another connection of the account pushed."""

    def device_updated(self, device: Device) -> None:
        """Another device of the account came, went or acknowledged."""

    def revoked(self, reason: str) -> None:
        """Its token is gone."""


class Hub:
    """Account ids to listeners, as many as connections: the transport bounds them.

    ``changed`` is called with an account whose listeners, or their devices, are others than before;
    ``find_elsewhere`` gives the devices of an account that are online at other nodes.
    """

    __slots__ = ("_listeners", "changed", "find_elsewhere")

    def __init__(self) -> None:
        self.changed: Callable[[int], object] = _nothing
        self.find_elsewhere: Callable[[int], Collection[str]] = _nowhere
        # A tuple is the smallest there is; most accounts have one connection, none has many.
        self._listeners: dict[int, tuple[Listener, ...]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._listeners.values()))

    def __iter__(self) -> Iterator[Listener]:
        """Those who are in the hub now, whoever leaves meanwhile."""
        for listeners in tuple(self._listeners.values()):
            yield from listeners

    @property
    def account_ids(self) -> Collection[int]:
        """The accounts that have a listener."""
        return self._listeners.keys()

    def join(self, account_id: int, listener: Listener) -> None:
        """From now on the listener hears what is published for the account."""
        self._listeners[account_id] = (*self._listeners.get(account_id, ()), listener)
        self.changed(account_id)

    def leave(self, account_id: int, listener: Listener, *, now_ms: int) -> None:
        """It hears nothing any more. The others learn that its device went, if it was its last."""
        left = tuple(other for other in self._listeners[account_id] if other is not listener)
        if left:
            self._listeners[account_id] = left
        else:
            del self._listeners[account_id]
        device = listener.device
        if device is not None and not self.is_online(account_id, device.device_id):
            self.tell_device(account_id, replace(device, last_seen_at_ms=now_ms), online=False)
        self.changed(account_id)

    def announce(self, account_id: int, listener: Listener) -> None:
        """Its session is open. The others learn that its device came, if this is its first."""
        device = listener.device
        assert device is not None, "announced before its session was open"
        self.changed(account_id)
        for other in self._listeners[account_id]:
            twin = other.device
            if other is listener or twin is None or twin.device_id != device.device_id:
                continue
            # The twin's was kept true; what this one's session read while it joined may be older.
            applied_sequence = max(twin.applied_sequence, device.applied_sequence)
            listener.device = device.having_applied(applied_sequence)
            return
        self.tell_device(account_id, device, online=True)

    def listeners_of(self, account_id: int) -> tuple[Listener, ...]:
        """The account's listeners, in the order in which they joined."""
        return self._listeners.get(account_id, ())

    def find_online(self, account_id: int) -> frozenset[str]:
        """The ids of the account's devices with an open session here."""
        return frozenset(
            listener.device.device_id
            for listener in self._listeners.get(account_id, ())
            if listener.device is not None
        )

    def is_online(self, account_id: int, device_id: str) -> bool:
        """Whether the device has an open session, at whatever node."""
        return device_id in self.find_online(account_id) or device_id in self.find_elsewhere(
            account_id
        )

    def publish(self, event: Event) -> None:
        """Tell everyone whom the event concerns; to be called in commit order."""
        listeners = self._listeners.get(event.account_id, ())
        match event:
            case Published():
                for listener in listeners:
                    if listener.connection_id != event.author:
                        listener.wallet_updated(event)
                state = event.state
                self._apply(event.account_id, state.device_id, state.sequence, listeners)
            case Applied():
                self._apply(event.account_id, event.device_id, event.sequence, listeners)
            case Revoked():
                for listener in listeners:
                    if concerns(event, listener):
                        listener.revoked(event.reason)
            case _:
                assert_never(event)

    def _apply(
        self, account_id: int, device_id: str, sequence: int, listeners: tuple[Listener, ...]
    ) -> None:
        applied: DeviceRecord | None = None
        for listener in listeners:
            device = listener.device
            if device is not None and device.device_id == device_id:
                applied = applied or device.having_applied(sequence)
                listener.device = applied
        if applied is not None:
            self.tell_device(account_id, applied, online=True)

    def tell_device(self, account_id: int, device: DeviceRecord, *, online: bool) -> None:
        """Tell the account's other devices; a device hears nothing of itself."""
        others = [
            listener
            for listener in self._listeners.get(account_id, ())
            if listener.presence and listener.device_id != device.device_id
        ]
        if others:
            update = device_message(device, online=online, current=False)
            for listener in others:
                listener.device_updated(update)


def _nothing(account_id: int) -> None:
    """Nobody wants to know."""


def _nowhere(account_id: int) -> tuple[str, ...]:
    return ()


def concerns(event: Revoked, listener: Listener) -> bool:
    """Whether the listener's token is one of those that have ended."""
    token_hash = listener.token_hash
    if token_hash is None or token_hash == event.kept_token_hash:
        return False
    if event.token_hash is not None:
        return token_hash == event.token_hash
    return event.device_id is None or listener.device_id == event.device_id


def device_message(device: DeviceRecord, *, online: bool, current: bool) -> Device:
    """The device as the wire has it."""
    return Device(
        device_id=device.device_id,
        name=device.name,
        created_at=time_from_ms(device.created_at_ms),
        last_seen_at=time_from_ms(device.last_seen_at_ms),
        online=online,
        current=current,
        applied_sequence=device.applied_sequence,
    )
