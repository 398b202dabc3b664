"""What must hold after every step, held against what was committed and what was told.

The audit keeps books of its own: it is told what the store committed, what devices made, and what
they were answered. Only `Audit.check_store` looks into the store, to compare it with the books.
"""

from __future__ import annotations

from typing import Any

from tests.simulation import marks
from wsschema.errors import RpcError
from wsschema.messages import METHODS, Call
from wsschema.openrpc import errors_of
from wsserver.operations import (
    EndSession,
    OpenedSession,
    OpenSession,
    Operation,
    Pushed,
    PushState,
    RemoveDevice,
    ReplacePassword,
)
from wsserver.store.memory import Memory

DOCUMENTED = {method.params: frozenset(errors_of(method)) for method in METHODS.values()}
"""The errors that each method may answer with."""


class Violation(AssertionError):
    """A promise was broken; ``rule`` names it."""

    def __init__(self, rule: str, text: str) -> None:
        self.rule = rule
        super().__init__(f"{rule}: {text}")


class Audit:
    """The books of the one account that there is."""

    def __init__(self, history_depth: int, devices_max: int) -> None:
        self.history_depth, self.devices_max = history_depth, devices_max
        self.made: dict[str, marks.Wallet] = {}
        """What each state that a device sealed holds, by its hmac."""
        self.kept: dict[int, str] = {}
        """The hmacs of what must be readable, by sequence."""
        self.sequence = 0
        self.head: str | None = None
        self.landed: set[str] = set()
        """The hmacs of all that was ever committed."""
        self.tokens: dict[str, bytes] = {}
        """The live token of each device."""
        self.was_restored = False
        self.acknowledged = 0
        """How many pushes were answered with success."""

    # What the store commits.

    def note_committed(self, operation: Operation[Any], answer: Any) -> None:
        """The operation is durable, with this answer."""
        match operation, answer:
            case _, RpcError():
                pass
            case PushState(), Pushed(fresh=fresh):
                self._check_token(operation.token_hash)
                if fresh:
                    self._store(operation.sequence, operation.hmac)
            case ReplacePassword(wallet=wallet), None:
                self._check_token(operation.token_hash)
                self.tokens.clear()
                if wallet is not None:
                    self.kept.clear()
                    self._store(wallet.sequence, wallet.hmac)
            case OpenSession(device_id=device_id), OpenedSession() as opened:
                self.tokens[device_id] = opened.token_hash
                if opened.dropped_device_id is not None:
                    self.tokens.pop(opened.dropped_device_id, None)
            case EndSession(token_hash=token_hash), None:
                ended = [name for name, live in self.tokens.items() if live == token_hash]
                for device_id in ended:
                    del self.tokens[device_id]
            case RemoveDevice(device_id=device_id), None:
                self.tokens.pop(device_id, None)

    def _check_token(self, token_hash: bytes | None) -> None:
        if token_hash not in self.tokens.values():
            raise Violation("dead token", "a write landed under a token that had ended")

    def _store(self, sequence: int, hmac: str) -> None:
        if sequence != self.sequence + 1:
            raise Violation("sequence", f"{sequence} was stored after {self.sequence}")
        if hmac in self.landed:
            raise Violation("twice", f"what was stored as {sequence} had landed before")
        if hmac not in self.made:
            raise Violation("from nowhere", f"nobody made what was stored as {sequence}")
        wallet = marks.read(self.made[hmac])
        if len(set(wallet)) < len(wallet):
            raise Violation("twice", f"state {sequence} has a change twice")
        if self.head is not None:
            lost = set(marks.read(self.made[self.head])).difference(wallet)
            if lost:
                raise Violation("lost", f"state {sequence} lacks {sorted(lost)} of the one before")
        self.sequence, self.head = sequence, hmac
        self.landed.add(hmac)
        self.kept[sequence] = hmac
        self.kept.pop(sequence - self.history_depth, None)

    def check_store(self, memory: Memory) -> None:
        """The store has what was committed, neither less nor more."""
        for account in memory.accounts.values():
            stored = {sequence: state.hmac for sequence, state in account.versions.items()}
            if stored != self.kept:
                raise Violation("stored", f"{[*stored]} where {[*self.kept]} was committed")
            if len(account.devices) > self.devices_max:
                raise Violation("limit", f"the account has {len(account.devices)} devices")

    def note_restored(self, memory: Memory) -> None:
        """The data is that of a backup."""
        self.was_restored = True
        for account in memory.accounts.values():
            self.kept = {sequence: state.hmac for sequence, state in account.versions.items()}
            self.sequence = max(self.kept, default=0)
            self.head = self.kept.get(self.sequence)
            self.tokens = {
                device_id: device.token_hash
                for device_id, device in account.devices.items()
                if device.token_hash is not None
            }

    # What devices do and hear.

    def note_made(self, hmac: str, wallet: marks.Wallet) -> None:
        """A device is about to send this state."""
        self.made[hmac] = wallet

    def note_told(self, sequence: int, hmac: str) -> None:
        """A device is shown a state of the server's."""
        if hmac not in self.landed:
            raise Violation("not durable", f"a device was told of {sequence}, which is not stored")

    def note_acknowledged(self, sequence: int, hmac: str) -> None:
        """A device is answered that its push has landed."""
        self.acknowledged += 1
        self.note_told(sequence, hmac)

    def note_error(self, call: Call[Any], error: RpcError) -> None:
        """A device is answered with an error."""
        documented = DOCUMENTED[type(call)]
        if type(error) not in documented or error.code < 0:
            raise Violation("undocumented", f"{type(call).__name__} was answered {error!r}")
