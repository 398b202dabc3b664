"""What the writing lane knows of the accounts that push, so that a push reads nothing.

State: a `Known` for each writing connection, kept with it: a transaction that fails costs its
connection, and what is known goes with it. Used on the lane's thread alone.

It holds while no one else writes, which a SQLite file has in one process at a time but for the
operator's commands: those show by ``PRAGMA data_version``, which is read in every transaction. On
PostgreSQL any number of processes write, so that nothing is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from wsserver.operations import (
    AcknowledgeState,
    ActivateRegistration,
    CreateAccount,
    LoadNotices,
    MarkSeen,
    Operation,
    ProbeWrite,
    PushState,
    RenewRegistration,
    StartRegistration,
    StartReset,
)
from wsserver.store.rows import execute_text, is_postgresql

ACCOUNTS_MAX: Final = 20_000
"""Accounts that are kept in mind, half a KiB each; beyond that all are read anew."""

_HARMLESS: Final = frozenset(
    {
        *(PushState, AcknowledgeState, MarkSeen, LoadNotices, ProbeWrite),
        *(CreateAccount, StartRegistration, RenewRegistration, ActivateRegistration, StartReset),
    }
)
"""What leaves true what is known, or sees to it itself."""


@dataclass(slots=True)
class KnownAccount:
    """An account as the transaction under way leaves it; ``devices`` by the hash of their token.

    ``author``: the device that pushed the latest version, at ``pushed_at_ms``; none of sequence 0.
    """

    disabled: bool
    sequence: int
    author: str | None
    pushed_at_ms: int
    devices: dict[bytes, str] = field(default_factory=dict)


class Known:
    """Accounts by their id."""

    __slots__ = ("_data_version", "accounts")

    def __init__(self) -> None:
        self.accounts: dict[int, KnownAccount] = {}
        self._data_version = 0

    def has(self, account_id: int, token_hash: bytes) -> bool:
        """Whether the account is known, and a device of it with that token."""
        account = self.accounts.get(account_id)
        return account is not None and token_hash in account.devices

    def learn(self, account_id: int, account: KnownAccount) -> KnownAccount:
        """The account, known from now on: as it is known already, or else like this."""
        return self.accounts.setdefault(account_id, account)

    def keep_if(self, data_version: int) -> None:
        """Forget all where another connection has written since, or where it is too much."""
        if data_version != self._data_version or len(self.accounts) > ACCOUNTS_MAX:
            self._data_version = data_version
            self.accounts.clear()


def recall(connection: Connection) -> Known:
    """What is known by this connection, which has a transaction under way.

    Nothing on PostgreSQL, where anyone may have written since.
    """
    if is_postgresql(connection):
        return Known()
    known: Known = connection.info.setdefault(Known, Known())
    ((data_version,),) = execute_text(connection, "PRAGMA data_version")
    known.keep_if(data_version)
    return known


def forget_changed(connection: Connection, operation: Operation[Any]) -> None:
    """Forget what the operation may have changed: of its account, or of all."""
    known: Known | None = connection.info.get(Known)
    if known is None or type(operation) in _HARMLESS:
        return
    account_id = getattr(operation, "account_id", None)
    if account_id is None:
        known.accounts.clear()
    else:
        known.accounts.pop(account_id, None)
