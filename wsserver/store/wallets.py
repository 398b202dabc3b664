"""Wallets: pushes as one set a transaction, reads of the latest and of kept versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from wsschema.errors import AccountDisabled, BadToken, Conflict, RpcError
from wsschema.messages import WalletState, WalletVersion
from wsschema.times import time_from_ms
from wsserver.operations import LoadHistory, LoadWallet, Pushed, PushState
from wsserver.store.context import Context
from wsserver.store.tables import accounts, devices, versions

_AUTHORS = (
    select(
        devices.c.token_hash,
        devices.c.account_id,
        devices.c.device_id,
        accounts.c.sequence,
        accounts.c.disabled,
    )
    .join_from(devices, accounts)
    .where(devices.c.token_hash.in_(bindparam("tokens", expanding=True)))
    # Every row that the decision rests on, tokens and accounts alike, and always in the same order.
    .order_by(devices.c.account_id)
    .with_for_update()
)
_VERSION = select(versions).where(
    versions.c.account_id == bindparam("account_id"),
    versions.c.slot == bindparam("slot"),
    versions.c.sequence == bindparam("sequence"),
)
_LATEST = (
    select(versions)
    .join_from(
        versions,
        accounts,
        (versions.c.account_id == accounts.c.id) & (versions.c.sequence == accounts.c.sequence),
    )
    .where(versions.c.account_id == bindparam("account_id"))
)
_HISTORY = (
    select(
        versions.c.sequence,
        versions.c.hmac,
        versions.c.device_id,
        versions.c.updated_at,
        func.length(versions.c.encrypted_wallet).label("bytes"),
    )
    .where(
        versions.c.account_id == bindparam("account_id"),
        versions.c.sequence < bindparam("before"),
    )
    .order_by(versions.c.sequence.desc())
    .limit(bindparam("limit"))
)
_SET_HEAD = (
    update(accounts)
    .where(accounts.c.id == bindparam("head_account"))
    .values(sequence=bindparam("head_sequence"))
)
_SET_APPLIED = (
    update(devices)
    .where(
        devices.c.account_id == bindparam("author_account"),
        devices.c.device_id == bindparam("author_device"),
    )
    .values(applied_sequence=bindparam("author_sequence"))
)
_STATE = ("sequence", "device_id", "updated_at", "hmac", "encrypted_wallet")


def _store_statement(dialect: Any) -> Any:
    insertion = dialect.insert(versions)
    return insertion.on_conflict_do_update(
        index_elements=["account_id", "slot"],
        set_={name: insertion.excluded[name] for name in _STATE},
    )


_STORE = {"sqlite": _store_statement(sqlite), "postgresql": _store_statement(postgresql)}


@dataclass(slots=True)
class _Account:
    """An account as the pushes of one transaction leave it."""

    sequence: int
    accepted: dict[int, WalletState]


def push_states(
    connection: Connection, context: Context, pushes: Sequence[PushState]
) -> list[Pushed | RpcError]:
    """Decide all pushes in the order in which they came, then store those that won, in one set.

    A push wins with the stored sequence plus 1. One that repeats the stored state is the retry of
    a push whose answer was lost. Any other is answered with the latest state.
    """
    tokens = {push.token_hash for push in pushes}
    authors = {row.token_hash: row for row in connection.execute(_AUTHORS, {"tokens": [*tokens]})}
    states: dict[int, _Account] = {}
    now_ms = context.now_ms()
    updated_at = time_from_ms(now_ms)
    outcomes: list[Pushed | RpcError] = []
    for push in pushes:
        author = authors.get(push.token_hash)
        if author is None or author.account_id != push.account_id:
            outcomes.append(BadToken())
        elif author.disabled:
            outcomes.append(AccountDisabled())
        else:
            account = states.setdefault(author.account_id, _Account(author.sequence, {}))
            if push.sequence == account.sequence + 1:
                state = WalletState(
                    push.sequence, push.encrypted_wallet, push.hmac, author.device_id, updated_at
                )
                account.sequence = push.sequence
                account.accepted[push.sequence] = state
                outcomes.append(Pushed(state, fresh=True))
            else:
                outcomes.append(_judge_repeated(connection, context, push, account))
    _store_accepted(connection, context, states, now_ms)
    return outcomes


def _judge_repeated(
    connection: Connection, context: Context, push: PushState, account: _Account
) -> Pushed | Conflict:
    """A push of another sequence than the next: a retry, one that landed before, or a conflict."""
    kept = None
    if account.sequence - context.history_depth < push.sequence <= account.sequence:
        kept = account.accepted.get(push.sequence) or _load_version(
            connection, context, push.account_id, push.sequence
        )
    same = (
        kept is not None
        and kept.encrypted_wallet == push.encrypted_wallet
        and kept.hmac == push.hmac
    )
    if same and push.sequence == account.sequence:
        assert kept is not None
        return Pushed(kept, fresh=False)
    latest = account.accepted.get(account.sequence) or load_latest(
        connection, context, push.account_id, account.sequence
    )
    text = f"sequence {push.sequence} is not the next; the stored one is {account.sequence}"
    return Conflict(text, wallet=latest, landed=same)


def _store_accepted(
    connection: Connection, context: Context, states: dict[int, _Account], now_ms: int
) -> None:
    rows = []
    heads = []
    applied = {}
    for account_id, account in states.items():
        if not account.accepted:
            continue
        heads.append({"head_account": account_id, "head_sequence": account.sequence})
        accepted = [*account.accepted.values()]
        # What has fallen out of the ring by the end of the transaction is not written first.
        rows += [
            {
                "account_id": account_id,
                "slot": state.sequence % context.history_depth,
                "sequence": state.sequence,
                "device_id": state.device_id,
                "updated_at": now_ms,
                "hmac": state.hmac.encode(),
                "encrypted_wallet": state.encrypted_wallet.encode(),
            }
            for state in accepted[-context.history_depth :]
        ]
        for state in accepted:
            applied[account_id, state.device_id] = state.sequence
    if rows:
        connection.execute(_STORE[connection.dialect.name], rows)
        connection.execute(_SET_HEAD, heads)
        connection.execute(
            _SET_APPLIED,
            [
                {"author_account": account, "author_device": device, "author_sequence": sequence}
                for (account, device), sequence in applied.items()
            ],
        )


def load_wallet(
    connection: Connection, context: Context, operation: LoadWallet
) -> WalletState | None:
    """The latest state, or that of a sequence which is still kept."""
    account_id, sequence = operation.account_id, operation.sequence
    if sequence is None:
        row = connection.execute(_LATEST, {"account_id": account_id}).one_or_none()
        return None if row is None else _state(row)
    return _load_version(connection, context, account_id, sequence)


def load_latest(
    connection: Connection, context: Context, account_id: int, sequence: int
) -> WalletState | None:
    """The state of the account's latest sequence, which the caller knows; None for 0."""
    if sequence == 0:
        return None
    state = _load_version(connection, context, account_id, sequence)
    assert state is not None, "an account's latest version is always stored"
    return state


def load_history(
    connection: Connection, context: Context, operation: LoadHistory
) -> tuple[WalletVersion, ...]:
    """What is kept, newest first, without the wallets."""
    before = 2**53 if operation.before is None else operation.before
    rows = connection.execute(
        _HISTORY,
        {"account_id": operation.account_id, "before": before, "limit": operation.limit},
    )
    return tuple(
        WalletVersion(
            row.sequence, row.hmac.decode(), row.device_id, time_from_ms(row.updated_at), row.bytes
        )
        for row in rows
    )


def _load_version(
    connection: Connection, context: Context, account_id: int, sequence: int
) -> WalletState | None:
    parameters = {
        "account_id": account_id,
        "slot": sequence % context.history_depth,
        "sequence": sequence,
    }
    row = connection.execute(_VERSION, parameters).one_or_none()
    return None if row is None else _state(row)


def _state(row: Row[*tuple[Any, ...]]) -> WalletState:
    return WalletState(
        sequence=row.sequence,
        encrypted_wallet=row.encrypted_wallet.decode(),
        hmac=row.hmac.decode(),
        device_id=row.device_id,
        updated_at=time_from_ms(row.updated_at),
    )
