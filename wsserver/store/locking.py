"""The lock on an account: its row, which whoever changes anything of the account has locked first.

On PostgreSQL a batch locks the accounts of all its operations before anything else, in the order of
their ids, so that no two batches of any process wait for each other. What it decides on it reads in
later statements: one that waited for a lock goes on with what it saw before. SQLite has one writer
at a time, and needs none of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY

from wsserver.operations import FinishReset, MarkSeen, Operation
from wsserver.store.rows import is_postgresql, read_rows
from wsserver.store.tables import accounts, devices, resets

# Not as strong as FOR UPDATE: what only refers to the account (a token of a reset) goes on.
_LOCK = (
    select(accounts.c.id)
    .where(accounts.c.id == bindparam("ids", type_=ARRAY(accounts.c.id.type)).any_())
    .order_by(accounts.c.id)
    .with_for_update(key_share=True)
)
_SEEN = select(devices.c.account_id).where(
    devices.c.token_hash == bindparam("tokens", type_=ARRAY(devices.c.token_hash.type)).any_()
)
_RESET = select(resets.c.account_id).where(
    resets.c.token_hash == bindparam("tokens", type_=ARRAY(resets.c.token_hash.type)).any_()
)


def lock_accounts(connection: Connection, account_ids: Iterable[int]) -> None:
    """Lock these accounts until the transaction ends; a transaction does it once, at its start."""
    if is_postgresql(connection):
        read_rows(connection, _LOCK, [[*account_ids]])


def lock_accounts_of(connection: Connection, operations: Sequence[Operation[Any]]) -> None:
    """Lock the accounts that the operations may change."""
    if not is_postgresql(connection):
        return
    # Nothing of these two tells the account; it never becomes another's.
    seen = [one.token_hash for one in operations if isinstance(one, MarkSeen)]
    resetting = [one.token_hash for one in operations if isinstance(one, FinishReset)]
    ids = {one.account_id for one in operations if one.writes and hasattr(one, "account_id")}
    for query, tokens in ((_SEEN, seen), (_RESET, resetting)):
        if tokens:
            ids.update(account_id for (account_id,) in read_rows(connection, query, [tokens]))
    if ids:
        lock_accounts(connection, ids)
