"""Devices and their tokens: login, resume, logout, revocation, presence, acknowledgements."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

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
from wsserver.store.accounts import lock_checked, password_values
from wsserver.store.context import Context
from wsserver.store.tables import accounts, devices

_FIND_TOKEN = select(devices.c.account_id, devices.c.device_id).where(
    devices.c.token_hash == bindparam("token_hash")
)
_SESSION = (
    select(devices, accounts.c.epoch, accounts.c.sequence, accounts.c.disabled)
    .join_from(devices, accounts)
    .where(devices.c.token_hash == bindparam("token_hash"))
)
_SESSION_LOCKED = _SESSION.where(devices.c.account_id == bindparam("account_id")).with_for_update()
_DEVICES = (
    select(devices)
    .where(devices.c.account_id == bindparam("account_id"))
    .order_by(devices.c.created_at, devices.c.device_id)
)
_MARK_SEEN = (
    update(devices)
    .where(devices.c.token_hash == bindparam("seen_token"))
    .values(
        token_used_at=bindparam("seen_at"),
        last_seen_at=bindparam("seen_at"),
    )
)


def find_token(connection: Connection, context: Context, operation: FindToken) -> TokenOwner | None:
    """Whose the token is."""
    row = connection.execute(_FIND_TOKEN, {"token_hash": operation.token_hash}).one_or_none()
    return None if row is None else TokenOwner(row.account_id, row.device_id)


def load_session(connection: Connection, context: Context, operation: LoadSession) -> OpenedSession:
    """What a resume answers; raises BadToken, AccountDisabled."""
    row = connection.execute(_SESSION, {"token_hash": operation.token_hash}).one_or_none()
    now_ms = context.now_ms()
    if row is None or row.token_used_at + context.token_lifetime_ms <= now_ms:
        raise BadToken
    if row.disabled:
        raise AccountDisabled
    return OpenedSession(
        account_id=row.account_id,
        device=_record(row),
        epoch=row.epoch,
        head=wallets.load_latest(connection, context, row.account_id, row.sequence),
        token_hash=operation.token_hash,
        token_used_at_ms=row.token_used_at,
        expires_at_ms=now_ms + context.token_lifetime_ms,
    )


def load_devices(connection: Connection, context: Context, operation: LoadDevices) -> StoredDevices:
    """All devices of the account, oldest first."""
    rows = connection.execute(_DEVICES, {"account_id": operation.account_id})
    return StoredDevices(tuple(map(_record, rows)), context.now_ms())


def open_session(connection: Connection, context: Context, operation: OpenSession) -> OpenedSession:
    """Give the device a new token in place of its last, making room for it where there is none."""
    account_id, device_id = operation.account_id, operation.device_id
    account = lock_checked(connection, account_id, operation.checked)
    if account.disabled:
        raise AccountDisabled
    token = secrets.token_hex(32)
    token_hash = hashlib.sha256(token.encode()).digest()
    now_ms = context.now_ms()
    rows = connection.execute(_DEVICES, {"account_id": account_id}).all()
    known = next((_record(row) for row in rows if row.device_id == device_id), None)
    dropped = None
    session = {"token_hash": token_hash, "token_used_at": now_ms, "last_seen_at": now_ms}
    if known is None:
        dropped = _make_room(connection, rows, operation)
        connection.execute(
            insert(devices).values(
                account_id=account_id,
                device_id=device_id,
                name=operation.device_name,
                created_at=now_ms,
                applied_sequence=0,
                **session,
            )
        )
        device = DeviceRecord(device_id, operation.device_name, now_ms, now_ms, 0)
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
        head=wallets.load_latest(connection, context, account_id, account.sequence),
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
    _lock_session(connection, operation)
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
    row = _lock_session(connection, operation)
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
    connection.execute(
        _MARK_SEEN,
        [
            {"seen_token": operation.token_hash, "seen_at": operation.at_ms}
            for operation in operations
        ],
    )
    return [None for _ in operations]


def _lock_session(
    connection: Connection, operation: AcknowledgeState | RemoveDevice
) -> Row[*tuple[Any, ...]]:
    parameters = {"token_hash": operation.token_hash, "account_id": operation.account_id}
    row = connection.execute(_SESSION_LOCKED, parameters).one_or_none()
    if row is None:
        raise BadToken
    return row


def _record(row: Row[*tuple[Any, ...]]) -> DeviceRecord:
    return DeviceRecord(
        row.device_id, row.name, row.created_at, row.last_seen_at, row.applied_sequence
    )
