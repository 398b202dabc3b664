"""Nodes with a hub, a bus and a database in memory that they share, and ears as their sessions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.bus.buses import PATIENCE_S, until
from wsschema.errors import RpcError, Unavailable
from wsschema.messages import Device, Kdf, SealedWallet
from wsserver.bus.node import Bus
from wsserver.bus.transports import Transport
from wsserver.hub import Hub
from wsserver.operations import (
    AcknowledgeState,
    CreateAccount,
    DeviceRecord,
    EndSession,
    OpenedSession,
    OpenSession,
    Operation,
    PasswordHash,
    Published,
    PushState,
    RemoveAccount,
    RemoveDevice,
    ReplacePassword,
    events_of,
)
from wsserver.store.context import Context
from wsserver.store.memory import Memory

PASSWORD = PasswordHash(b"digest", b"salt", 2**15, 8, 1)
SEED = "ab" * 32
KDF = Kdf.scrypt(2**17)
numbers = itertools.count(1)


class Database:
    """What all nodes share. While ``fails`` is set, nothing can be read or written."""

    def __init__(self) -> None:
        context = Context(
            now_ms=lambda: 1_800_000_000_000, history_depth=10, token_lifetime_ms=10**9
        )
        self.memory = Memory(context)
        self.fails = False

    def register(self) -> int:
        """A new account's id."""
        made = self.memory.perform(
            CreateAccount(f"joe{next(numbers)}@example.com", PASSWORD, SEED, KDF, True)
        )
        assert made is None
        return max(self.memory.accounts)


class Ear:
    """A session of a device, that notes what it hears."""

    idle_since_s = 0.0

    def __init__(self, node: Node, opened: OpenedSession, presence: bool) -> None:
        self.node, self.opened = node, opened
        self.connection_id = next(numbers)
        self.account_id = opened.account_id
        self.device_id = opened.device.device_id
        self.token_hash: bytes | None = opened.token_hash
        self.device: DeviceRecord | None = None
        self.presence = presence
        self.known_sequence = 0 if opened.head is None else opened.head.sequence
        self.told: list[int] = []
        self.devices: list[Device] = []
        self.reasons: list[str] = []

    def crowd_out(self) -> None:
        raise NotImplementedError

    def wallet_updated(self, update: Published) -> None:
        if not self.reasons and update.state.sequence > self.known_sequence:
            self.known_sequence = update.state.sequence
            self.told.append(update.state.sequence)

    def device_updated(self, device: Device) -> None:
        self.devices.append(device)

    def revoked(self, reason: str) -> None:
        if not self.reasons:
            self.reasons.append(reason)

    def leave(self) -> None:
        self.node.hub.leave(self.account_id, self, now_ms=0)

    def push(self) -> int:
        """Push the next state; gives its sequence."""
        assert self.token_hash is not None
        stored = self.node.database.memory.accounts[self.account_id].sequence
        sequence = self.known_sequence = stored + 1
        self.node.perform(
            PushState(self.token_hash, self.account_id, self.connection_id, sequence, "w", "h")
        )
        return sequence

    def acknowledge(self, sequence: int) -> None:
        assert self.token_hash is not None
        self.node.perform(AcknowledgeState(self.token_hash, self.account_id, sequence))

    def log_out(self) -> None:
        assert self.token_hash is not None
        self.node.perform(EndSession(self.token_hash, self.account_id))

    def revoke(self, device_id: str) -> None:
        assert self.token_hash is not None
        self.node.perform(RemoveDevice(self.token_hash, self.account_id, device_id))

    def delete_account(self) -> None:
        assert self.token_hash is not None
        self.node.perform(RemoveAccount(self.token_hash, self.account_id, PASSWORD))

    def change_password(self, wallet: SealedWallet | None = None) -> None:
        assert self.token_hash is not None
        self.node.perform(
            ReplacePassword(self.token_hash, self.account_id, PASSWORD, PASSWORD, SEED, KDF, wallet)
        )


@dataclass(eq=False)
class Node:
    """As much of a server as a bus needs. While ``mute`` is set, it tells nobody of its commits."""

    database: Database
    transport: Transport
    hub: Hub = field(default_factory=Hub)
    mute: bool = False

    def __post_init__(self) -> None:
        self.bus = Bus(self.hub, self.transport, self._submit)
        self.asked: list[Operation[Any]] = []
        self._looks, look = 0, self.bus.look

        def count_and_look(account_id: int) -> None:
            self._looks += 1
            look(account_id)

        self.bus.look = count_and_look  # type: ignore[method-assign]  # to know when it is done

    def _submit(self, operation: Operation[Any], done: Callable[[Any], None]) -> None:
        self.asked.append(operation)
        answer = Unavailable() if self.database.fails else self.database.memory.perform(operation)
        asyncio.get_running_loop().call_soon(done, answer)

    async def rest(self) -> None:
        """Wait until nothing is to be asked or said: for one session that was opened here."""
        bus = self.bus
        await until(lambda: self._looks >= 1 + self.transport.by_account)
        await until(lambda: not (bus._flushing or bus._looking._asked or bus._looking.waiting))

    def perform(self, operation: Operation[Any]) -> Any:
        """Commit it, and tell of it."""
        answer = self.database.memory.perform(operation)
        assert not isinstance(answer, RpcError), answer
        if not self.mute:
            for event in events_of(operation, answer):
                self.bus.publish(event)
        return answer

    def log_in(self, account_id: int, device_id: str, *, presence: bool = False) -> Ear:
        """A session of the device here."""
        operation = OpenSession(account_id, PASSWORD, None, device_id, None, 64, frozenset())
        ear = Ear(self, self.perform(operation), presence)
        self.hub.join(account_id, ear)
        ear.device = ear.opened.device
        self.hub.announce(account_id, ear)
        self.bus.look(account_id)
        return ear

    async def find_online(self, account_id: int) -> frozenset[str]:
        found: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()
        self.bus.find_online(account_id, found.set_result)
        return await asyncio.wait_for(found, PATIENCE_S)


async def meet(*nodes: Node) -> None:
    """Wait until each hears all others."""
    await until(lambda: all(node.bus.nodes == len(nodes) - 1 for node in nodes), "each other")
