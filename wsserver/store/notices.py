"""Notices: how an operator's command reaches the sessions of a server, by way of the database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from wsserver.operations import FindNewestNotice, LoadNotices, Notice
from wsserver.store.context import Context
from wsserver.store.tables import devices, installation, notices

NOTICE_LIFETIME_MS: Final = 3_600_000
"""Servers read them twice a second; one that was stalled for an hour has lost its peers."""

_NEWEST = select(func.coalesce(func.max(notices.c.id), 0))
_AFTER = (
    select(notices, devices.c.token_hash)
    .outerjoin_from(
        notices,
        devices,
        (devices.c.account_id == notices.c.account_id)
        & (devices.c.device_id == notices.c.device_id),
    )
    .where(notices.c.id > bindparam("after"))
    .order_by(notices.c.id)
    .limit(bindparam("limit"))
)
# Has those who write notices at once wait for each other: ids become visible in their order.
_IN_ORDER = select(installation.c.id).with_for_update()


def find_newest_notice(
    connection: Connection, context: Context, operation: FindNewestNotice
) -> int:
    """The id of the newest notice; 0 where there is none."""
    newest: int = connection.execute(_NEWEST).scalar_one()
    return newest


def load_notices(
    connection: Connection, context: Context, operation: LoadNotices
) -> tuple[Notice, ...]:
    """The notices after one, oldest first, with the tokens that their devices have by now."""
    rows = connection.execute(_AFTER, {"after": operation.after, "limit": operation.limit})
    return tuple(
        Notice(row.id, row.account_id, row.reason, row.device_id, row.token_hash) for row in rows
    )


def give_notice(
    connection: Connection,
    account_id: int,
    reason: str,
    *,
    device_ids: Iterable[str | None] = (None,),
    now_ms: int,
) -> None:
    """Tell the servers that sessions of the account are over, or those of these devices only."""
    connection.execute(_IN_ORDER)
    connection.execute(delete(notices).where(notices.c.created_at < now_ms - NOTICE_LIFETIME_MS))
    values = [
        {
            "account_id": account_id,
            "device_id": device_id,
            "reason": reason,
            "created_at": now_ms,
        }
        for device_id in device_ids
    ]
    if values:
        connection.execute(insert(notices), values)


def take_back_notice(connection: Connection, account_id: int, reason: str) -> None:
    """The servers that have not read it yet need not hear of it any more."""
    connection.execute(
        delete(notices).where(notices.c.account_id == account_id, notices.c.reason == reason)
    )
