"""Devices and their tokens: login, resume, logout, revocation, presence, acknowledgements."""

from __future__ import annotations

import functools
import hashlib
import itertools
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    LargeBinary,
    Row,
    Select,
    Update,
    bindparam,
    case,
    column,
    delete,
    func,
    insert,
    select,
    update,
    values,
)

from wsschema.errors import (
    AccountDisabled,
    BadToken,
    NoSuchDevice,
    NoSuchVersion,
    TooManyDevices,
)
from wsserver.operations import (
    Acknowledged,
    AcknowledgeState,
    DeviceRecord,
    EndSession,
    FindToken,
    LoadDevices,
    LoadSession,
    MarkSeen,
    OpenedSession,
    OpenSession,
    RemoveDevice,
    StoredDevices,
    TokenOwner,
)
from wsserver.store import wallets
from wsserver.store.accounts import load_checked, password_values
from wsserver.store.context import Context, find_creation_ms
from wsserver.store.rows import read_rows, write_rows
from wsserver.store.tables import accounts, devices, versions

_Query = Select[*tuple[Any, ...]]

_OWNERS: _Query = select(devices.c.token_hash, devices.c.account_id, devices.c.device_id)
DEVICE = (
    devices.c.device_id,
    devices.c.name,
    devices.c.created_at,
    devices.c.last_seen_at,
    # Who pushed the latest version has applied it: unless the device was removed since, and is new.
    case(
        (
            (devices.c.device_id == versions.c.device_id)
            & (devices.c.created_at <= versions.c.updated_at),
            versions.c.sequence,
        ),
        else_=devices.c.applied_sequence,
    ).label("applied_sequence"),
)
"""The columns of a `DeviceRecord`, from `WITH_LATEST`."""
WITH_LATEST = devices.join(accounts).outerjoin(versions, wallets.LATEST)
"""Devices with their accounts, and with the latest version of each, where there is one."""
_SESSION = (
    select(*DEVICE, func.coalesce(versions.c.sequence, 0).label("sequence"))
    .select_from(WITH_LATEST)
    .where(
        devices.c.token_hash == bindparam("token_hash"),
        devices.c.account_id == bindparam("account_id"),
    )
)
_SESSIONS: _Query = select(
    devices.c.token_hash,
    devices.c.account_id,
    devices.c.token_used_at,
    accounts.c.epoch,
    accounts.c.disabled,
    *DEVICE,
    versions.c.sequence,
    versions.c.encrypted_wallet,
    versions.c.hmac,
    versions.c.device_id,
    versions.c.updated_at,
).select_from(WITH_LATEST)
_DEVICES = (
    select(*DEVICE)
    .select_from(WITH_LATEST)
    .where(devices.c.account_id == bindparam("account_id"))
    .order_by(devices.c.created_at, devices.c.device_id)
)
_SEEN_ROWS_MAX = 64
"""Devices of one statement that marks them as seen."""


def find_tokens(
    connection: Connection, context: Context, operations: Sequence[FindToken]
) -> list[TokenOwner | None]:
    """Whose each token is."""
    tokens = [operation.token_hash for operation in operations]
    owners = {
        token_hash: TokenOwner(account_id, device_id)
        for token_hash, account_id, device_id in _read_by_token(connection, _OWNERS, tokens)
    }
    return [owners.get(token_hash) for token_hash in tokens]


def load_sessions(
    connection: Connection, context: Context, operations: Sequence[LoadSession]
) -> list[OpenedSession | BadToken | AccountDisabled]:
    """What each resume answers."""
    tokens = [operation.token_hash for operation in operations]
    now_ms = context.now_ms()
    opened = {
        row[0]: _open(row, context, now_ms) for row in _read_by_token(connection, _SESSIONS, tokens)
    }
    return [opened.get(token_hash) or BadToken() for token_hash in tokens]


def _read_by_token(
    connection: Connection, query: _Query, tokens: Sequence[bytes]
) -> list[tuple[Any, ...]]:
    # Few statements, which the driver keeps: the last token fills up to a power of two.
    count = 1 << (len(tokens) - 1).bit_length()
    padding = [tokens[-1]] * (count - len(tokens))
    return read_rows(connection, _by_tokens(query, count), (*tokens, *padding))


@functools.cache
def _by_tokens(query: _Query, count: int) -> _Query:
    listed: list[Any] = [bindparam(f"token_{number}") for number in range(count)]
    return query.where(devices.c.token_hash.in_(listed))


def _open(
    row: tuple[Any, ...], context: Context, now_ms: int
) -> OpenedSession | BadToken | AccountDisabled:
    token_hash, account_id, token_used_at, epoch, disabled, *rest = row
    if token_used_at + context.token_lifetime_ms <= now_ms:
        return BadToken()
    if disabled:
        return AccountDisabled()
    device, state = rest[:5], rest[5:]
    return OpenedSession(
        account_id=account_id,
        device=DeviceRecord(*device),
        epoch=epoch,
        head=None if state[0] is None else wallets.state_of(*state),
        token_hash=token_hash,
        token_used_at_ms=token_used_at,
        expires_at_ms=now_ms + context.token_lifetime_ms,
    )


def load_devices(connection: Connection, context: Context, operation: LoadDevices) -> StoredDevices:
    """All devices of the account, oldest first."""
    rows = connection.execute(_DEVICES, {"account_id": operation.account_id})
    return StoredDevices(tuple(map(_record, rows)), context.now_ms())


def open_session(connection: Connection, context: Context, operation: OpenSession) -> OpenedSession:
    """Give the device a new token in place of its last, making room for it where there is none."""
    account_id, device_id = operation.account_id, operation.device_id
    account = load_checked(connection, account_id, operation.checked)
    if account.disabled:
        raise AccountDisabled
    token = secrets.token_hex(32)
    token_hash = hashlib.sha256(token.encode()).digest()
    now_ms = context.now_ms()
    head = wallets.load_latest(connection, context, account_id, account.sequence)
    rows = connection.execute(_DEVICES, {"account_id": account_id}).all()
    known = next((_record(row) for row in rows if row.device_id == device_id), None)
    dropped = None
    session = {"token_hash": token_hash, "token_used_at": now_ms, "last_seen_at": now_ms}
    if known is None:
        dropped = _make_room(connection, rows, operation)
        created_at_ms = find_creation_ms(device_id, head, now_ms)
        connection.execute(
            insert(devices).values(
                account_id=account_id,
                device_id=device_id,
                name=operation.device_name,
                created_at=created_at_ms,
                applied_sequence=0,
                **session,
            )
        )
        device = DeviceRecord(device_id, operation.device_name, created_at_ms, now_ms, 0)
    else:
        name = known.name if operation.device_name is None else operation.device_name
        connection.execute(
            update(devices)
            .where(devices.c.account_id == account_id, devices.c.device_id == device_id)
            .values(name=name, **session)
        )
        device = DeviceRecord(device_id, name, known.created_at_ms, now_ms, known.applied_sequence)
    if operation.upgraded is not None:
        connection.execute(
            update(accounts)
            .where(accounts.c.id == account_id)
            .values(password_values(operation.upgraded))
        )
    return OpenedSession(
        account_id=account_id,
        device=device,
        epoch=account.epoch,
        head=head,
        token_hash=token_hash,
        token_used_at_ms=now_ms,
        expires_at_ms=now_ms + context.token_lifetime_ms,
        token=token,
        dropped_device_id=dropped,
    )


def _make_room(
    connection: Connection, rows: Sequence[Row[*tuple[Any, ...]]], operation: OpenSession
) -> str | None:
    if len(rows) < operation.devices_max:
        return None
    offline = [row for row in rows if row.device_id not in operation.online]
    if not offline:
        raise TooManyDevices
    oldest: str = min(offline, key=lambda row: (row.last_seen_at, row.device_id)).device_id
    connection.execute(
        delete(devices).where(
            devices.c.account_id == operation.account_id, devices.c.device_id == oldest
        )
    )
    return oldest


def end_session(connection: Connection, context: Context, operation: EndSession) -> None:
    """End the token; its device stays on the list."""
    ended = connection.execute(
        update(devices)
        .where(
            devices.c.token_hash == operation.token_hash,
            devices.c.account_id == operation.account_id,
        )
        .values(token_hash=None, last_seen_at=context.now_ms())
    )
    if ended.rowcount == 0:
        raise BadToken


def remove_device(connection: Connection, context: Context, operation: RemoveDevice) -> None:
    """Take the device and its token away."""
    _load_session(connection, operation)
    removed = connection.execute(
        delete(devices).where(
            devices.c.account_id == operation.account_id,
            devices.c.device_id == operation.device_id,
        )
    )
    if removed.rowcount == 0:
        raise NoSuchDevice


def acknowledge_state(
    connection: Connection, context: Context, operation: AcknowledgeState
) -> Acknowledged:
    """Note what the device has applied; a lower sequence than the last changes nothing."""
    row = _load_session(connection, operation)
    if operation.sequence > row.sequence:
        text = f"sequence {operation.sequence} is not stored; the latest is {row.sequence}"
        raise NoSuchVersion(text)
    known = _record(row)
    if operation.sequence <= known.applied_sequence:
        return Acknowledged(known, changed=False)
    connection.execute(
        update(devices)
        .where(devices.c.token_hash == operation.token_hash)
        .values(applied_sequence=operation.sequence)
    )
    return Acknowledged(known.having_applied(operation.sequence), changed=True)


def mark_seen(
    connection: Connection, context: Context, operations: Sequence[MarkSeen]
) -> list[None]:
    """Keep tokens alive and ``lastSeenAt`` true; a token that has ended is passed over."""
    # A token that comes twice has one row: with the latest of its times, and with the last.
    used_at: dict[bytes, int] = {}
    seen_at: dict[bytes, int] = {}
    for one in operations:
        used_at[one.token_hash] = max(one.at_ms, used_at.get(one.token_hash, one.at_ms))
        seen_at[one.token_hash] = one.at_ms
    seen = [*zip(used_at, used_at.values(), seen_at.values(), strict=True)]
    for start in range(0, len(seen), _SEEN_ROWS_MAX):
        rows = seen[start : start + _SEEN_ROWS_MAX]
        # Few statements, each prepared once: the last row again does nothing more.
        size = 1 << (len(rows) - 1).bit_length()
        rows += [rows[-1]] * (size - len(rows))
        write_rows(connection, _mark_so_many(size), [tuple(itertools.chain(*rows))])
    return [None for _ in operations]


@functools.cache
def _mark_so_many(count: int) -> Update:
    """Takes a token and its two times for each: every statement hands Python's lock over twice."""
    columns = (
        column("token_hash", LargeBinary),
        column("used_at", BigInteger),
        column("seen_at", BigInteger),
    )
    parameters: list[tuple[Any, ...]] = [
        tuple(bindparam(f"{each.name}_{number}") for each in columns) for number in range(count)
    ]
    seen = values(*columns, name="seen").data(parameters).cte()
    # Never back: a clock that was wrong for a while must not cost a token its life.
    used_at = case(
        (devices.c.token_used_at > seen.c.used_at, devices.c.token_used_at), else_=seen.c.used_at
    )
    return (
        update(devices)
        .where(devices.c.token_hash == seen.c.token_hash)
        .values(token_used_at=used_at, last_seen_at=seen.c.seen_at)
    )


def _load_session(
    connection: Connection, operation: AcknowledgeState | RemoveDevice
) -> Row[*tuple[Any, ...]]:
    parameters = {"token_hash": operation.token_hash, "account_id": operation.account_id}
    row = connection.execute(_SESSION, parameters).one_or_none()
    if row is None:
        raise BadToken
    return row


def _record(row: Row[*tuple[Any, ...]]) -> DeviceRecord:
    return DeviceRecord(
        row.device_id, row.name, row.created_at, row.last_seen_at, row.applied_sequence
    )
