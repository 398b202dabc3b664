"""Wallets: pushes as one set a transaction, reads of the latest and of kept versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, literal_column, select, update

from wsschema.errors import AccountDisabled, BadToken, Conflict, RpcError
from wsschema.messages import WalletState, WalletVersion
from wsschema.times import time_from_ms
from wsserver.operations import LoadHistory, LoadWallet, Pushed, PushState
from wsserver.store.context import Context
from wsserver.store.known import Known, KnownAccount, recall
from wsserver.store.rows import by_dialect, write_rows
from wsserver.store.tables import accounts, devices, versions

_kept = versions.alias("kept")
LATEST = (versions.c.account_id == accounts.c.id) & (
    versions.c.slot
    == select(_kept.c.slot)
    .where(_kept.c.account_id == accounts.c.id)
    .order_by(_kept.c.sequence.desc())
    .limit(literal_column("1"))
    .offset(literal_column("0"))
    .scalar_subquery()
)
"""Joins an account to its latest version."""
_AUTHORS = (
    select(
        devices.c.token_hash,
        devices.c.account_id,
        devices.c.device_id,
        accounts.c.disabled,
        func.coalesce(versions.c.sequence, 0).label("sequence"),
        versions.c.device_id.label("author"),
        func.coalesce(versions.c.updated_at, 0).label("pushed_at_ms"),
    )
    .join_from(devices, accounts)
    .outerjoin(versions, LATEST)
    .where(devices.c.token_hash.in_(bindparam("tokens", expanding=True)))
)
_VERSION = select(versions).where(
    versions.c.account_id == bindparam("account_id"),
    versions.c.slot == bindparam("slot"),
    versions.c.sequence == bindparam("sequence"),
)
_LATEST = (
    select(versions)
    .where(versions.c.account_id == bindparam("account_id"))
    .order_by(versions.c.sequence.desc())
    .limit(1)
)
_TOKEN = select(devices.c.device_id).where(
    devices.c.token_hash == bindparam("token_hash"), devices.c.account_id == bindparam("account_id")
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
_SETTLE_AUTHOR = (
    update(devices)
    .where(
        devices.c.account_id == bindparam("author_account"),
        devices.c.device_id == bindparam("author_device"),
        devices.c.created_at <= bindparam("author_pushed_at"),
    )
    .values(applied_sequence=bindparam("author_sequence"))
)


def _store(insert: Any) -> Any:
    insertion = insert(versions)
    kept = ("sequence", "device_id", "updated_at", "hmac", "encrypted_wallet")
    changed = {name: insertion.excluded[name] for name in kept}
    return insertion.on_conflict_do_update(index_elements=["account_id", "slot"], set_=changed)


_STORE = by_dialect(_store)


def push_states(
    connection: Connection, context: Context, pushes: Sequence[PushState]
) -> list[Pushed | RpcError]:
    """Decide all pushes in the order in which they came, then store those that won, in one set.

    A push wins with the stored sequence plus 1. One that repeats the stored state is the retry of
    a push whose answer was lost. Any other is answered with the latest state.
    """
    known = recall(connection)
    _learn_missing(connection, known, pushes)
    now_ms = context.now_ms()
    updated_at = time_from_ms(now_ms)
    accepted: dict[int, dict[int, WalletState]] = {}
    settled: list[tuple[int, int, str, int]] = []
    outcomes: list[Pushed | RpcError] = []
    for push in pushes:
        account = known.accounts.get(push.account_id)
        device_id = None if account is None else account.devices.get(push.token_hash)
        if account is None or device_id is None:
            outcomes.append(BadToken())
        elif account.disabled:
            outcomes.append(AccountDisabled())
        elif push.sequence == account.sequence + 1:
            state = WalletState(
                push.sequence, push.encrypted_wallet, push.hmac, device_id, updated_at
            )
            if account.author not in (device_id, None):
                # So far the latest version told that its author has it; now it is another's.
                settled.append(
                    (account.sequence, push.account_id, account.author, account.pushed_at_ms)
                )
            account.sequence = push.sequence
            account.author, account.pushed_at_ms = device_id, now_ms
            accepted.setdefault(push.account_id, {})[push.sequence] = state
            outcomes.append(Pushed(state, fresh=True))
        else:
            unwritten = accepted.get(push.account_id, {})
            outcomes.append(_judge_repeated(connection, context, push, account.sequence, unwritten))
    if accepted:
        _store_accepted(connection, context, accepted, now_ms)
    if settled:
        write_rows(connection, _SETTLE_AUTHOR, settled)
    return outcomes


def _learn_missing(connection: Connection, known: Known, pushes: Sequence[PushState]) -> None:
    """Read the accounts and the devices of the tokens that are not known yet."""
    missing = {
        push.token_hash for push in pushes if not known.has(push.account_id, push.token_hash)
    }
    if missing:
        for row in connection.execute(_AUTHORS, {"tokens": [*missing]}):
            account = known.learn(
                row.account_id,
                KnownAccount(row.disabled, row.sequence, row.author, row.pushed_at_ms),
            )
            account.devices[row.token_hash] = row.device_id


def settle_author(connection: Connection, account_id: int) -> None:
    """Note with the device of the latest version, which is about to be another, that it has it."""
    row = connection.execute(_LATEST, {"account_id": account_id}).one_or_none()
    if row is not None:
        author = (row.sequence, account_id, row.device_id, row.updated_at)
        write_rows(connection, _SETTLE_AUTHOR, [author])


def _judge_repeated(
    connection: Connection,
    context: Context,
    push: PushState,
    newest: int,
    unwritten: Mapping[int, WalletState],
) -> Pushed | Conflict:
    """A push of another sequence than the next: a retry, one that landed before, or a conflict.

    ``newest``: the account's sequence; ``unwritten``: what this transaction has accepted of it.
    """
    kept = None
    if newest - context.history_depth < push.sequence <= newest:
        kept = unwritten.get(push.sequence) or _load_version(
            connection, context, push.account_id, push.sequence
        )
    same = (
        kept is not None
        and kept.encrypted_wallet == push.encrypted_wallet
        and kept.hmac == push.hmac
    )
    if same and push.sequence == newest:
        assert kept is not None
        return Pushed(kept, fresh=False)
    latest = unwritten.get(newest) or load_latest(connection, context, push.account_id, newest)
    text = f"sequence {push.sequence} is not the next; the stored one is {newest}"
    return Conflict(text, wallet=latest, landed=same)


def _store_accepted(
    connection: Connection,
    context: Context,
    accepted: Mapping[int, Mapping[int, WalletState]],
    now_ms: int,
) -> None:
    depth = context.history_depth
    rows = [
        (
            account_id,
            state.sequence % depth,
            state.sequence,
            state.device_id,
            now_ms,
            state.hmac.encode(),
            state.encrypted_wallet.encode(),
        )
        for account_id, states in accepted.items()
        # What has fallen out of the ring by the end of the transaction is not written first.
        for state in [*states.values()][-depth:]
    ]
    write_rows(connection, _STORE[connection.dialect.name], rows)


def load_wallet(
    connection: Connection, context: Context, operation: LoadWallet
) -> WalletState | None:
    """The latest state, or that of a sequence which is still kept."""
    account_id, sequence = operation.account_id, operation.sequence
    if operation.token_hash is not None:
        session = {"account_id": account_id, "token_hash": operation.token_hash}
        if connection.execute(_TOKEN, session).one_or_none() is None:
            raise BadToken
    if sequence is None:
        row = connection.execute(_LATEST, {"account_id": account_id}).one_or_none()
        return None if row is None else state_of_row(row)
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
    return None if row is None else state_of_row(row)


def state_of(
    sequence: int, encrypted_wallet: bytes, hmac: bytes, device_id: str, updated_at_ms: int
) -> WalletState:
    """The state that these columns of `versions` hold."""
    return WalletState(
        sequence, encrypted_wallet.decode(), hmac.decode(), device_id, time_from_ms(updated_at_ms)
    )


def state_of_row(row: Row[*tuple[Any, ...]]) -> WalletState:
    """The state that a row of `versions` holds."""
    return state_of(row.sequence, row.encrypted_wallet, row.hmac, row.device_id, row.updated_at)
