"""The operator's commands, each in the caller's transaction, beside servers or without.

What ends sessions leaves a notice, so that servers close those that are open. Nothing that a
password or a token could be made of is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    Subquery,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    null,
    select,
    union_all,
    update,
)

from wsserver.operations import DeviceRecord
from wsserver.store.accounts import make_epoch
from wsserver.store.context import Context
from wsserver.store.devices import DEVICE, WITH_LATEST
from wsserver.store.errors import NotFound
from wsserver.store.locking import lock_accounts
from wsserver.store.notices import give_notice, take_back_notice
from wsserver.store.registrations import make_account
from wsserver.store.rows import by_dialect
from wsserver.store.tables import (
    accounts,
    allowlist,
    devices,
    newest_sequence,
    registrations,
    resets,
)

EPOCH_CHUNK: Final = 1000
"""Accounts that get their new epochs in one go, between two signs of progress."""

Narrow = Callable[[Select[Any], ColumnElement[str]], Select[Any]]
"""Takes a selection and its column with the address; gives what of it is wanted."""

_SET_EPOCH = (
    update(accounts)
    .where(accounts.c.id == bindparam("renewed_id"))
    .values(epoch=bindparam("new_epoch"))
)
_ALLOW = by_dialect(
    lambda insert: insert(allowlist).on_conflict_do_nothing(index_elements=["email"])
)


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """An account, or a registration that waits for its address to be verified.

    ``state`` is active, disabled or unverified; times are in milliseconds since the Unix epoch. A
    registration has no id, was not created yet, and expires.
    """

    account_id: int | None
    email: str = field(repr=False)
    state: str
    sequence: int
    devices: int
    created_at_ms: int | None
    expires_at_ms: int | None


@dataclass(frozen=True, slots=True)
class OperatorDevice:
    """A device, and whether it has a token: whether it can come back without a password."""

    record: DeviceRecord
    logged_in: bool


# Looking.


def list_accounts(
    connection: Connection, *, part: str, after: str, limit: int, now_ms: int
) -> list[AccountRecord]:
    """Those whose address contains ``part`` and comes after ``after``, by address."""

    def narrow(records: Select[Any], email: ColumnElement[str]) -> Select[Any]:
        wanted = records.where(email.contains(part, autoescape=True), email > after)
        return wanted.order_by(email).limit(limit)

    listed = _select_records(now_ms, narrow)
    return [_record(row) for row in connection.execute(narrow(select(listed), listed.c.email))]


def find_account(connection: Connection, email: str, *, now_ms: int) -> AccountRecord:
    """The account, or the registration, of an address; raises NotFound."""
    found = _select_records(now_ms, lambda records, column: records.where(column == email))
    row = connection.execute(select(found)).one_or_none()
    if row is None:
        raise NotFound(f"no account has the address {email}")
    return _record(row)


def list_devices(connection: Connection, account_id: int) -> list[OperatorDevice]:
    """The devices of an account, oldest first."""
    rows = connection.execute(
        select(*DEVICE, devices.c.token_hash.is_not(None).label("logged_in"))
        .select_from(WITH_LATEST)
        .where(devices.c.account_id == account_id)
        .order_by(devices.c.created_at, devices.c.device_id)
    )
    return [OperatorDevice(DeviceRecord(*row[:-1]), row.logged_in) for row in rows]


def list_allowed(connection: Connection) -> list[tuple[str, int]]:
    """The allowlist by address, and since when each is on it."""
    rows = connection.execute(
        select(allowlist.c.email, allowlist.c.created_at).order_by(allowlist.c.email)
    )
    return [(row.email, row.created_at) for row in rows]


# Changing. Those that could have been asked for in vain tell whether they changed anything.


def verify_account(connection: Connection, context: Context, email: str) -> bool:
    """Make the account of a registration, as the link in its mail would have."""
    record = find_account(connection, email, now_ms=context.now_ms())
    if record.account_id is not None:
        return _set(connection, record.account_id, accounts.c.verified, True)
    make_account(
        connection,
        context,
        connection.execute(select(registrations).where(registrations.c.email == email)).one(),
    )
    return True


def disable_account(connection: Connection, email: str, *, now_ms: int) -> bool:
    """Let nobody in any more, until it is enabled; sessions end."""
    account_id = _find_id(connection, email, now_ms)
    changed = _set(connection, account_id, accounts.c.disabled, True)
    # Also where it was disabled already: whoever asks wants the sessions to be over.
    give_notice(connection, account_id, "account_disabled", now_ms=now_ms)
    return changed


def enable_account(connection: Connection, email: str, *, now_ms: int) -> bool:
    """Let its devices in again, with the tokens that they had."""
    account_id = _find_id(connection, email, now_ms)
    take_back_notice(connection, account_id, "account_disabled")
    return _set(connection, account_id, accounts.c.disabled, False)


def revoke_devices(
    connection: Connection, email: str, *, device_id: str | None, forget: bool, now_ms: int
) -> list[str]:
    """End the tokens of the account's devices, or of one; gives those that had one.

    With ``forget`` the devices leave the list too; gives all that did. Raises NotFound.
    """
    account_id = _find_id(connection, email, now_ms)
    chosen = devices.c.account_id == account_id
    if device_id is not None:
        chosen &= devices.c.device_id == device_id
    lock_accounts(connection, [account_id])
    rows = connection.execute(
        select(devices.c.device_id, devices.c.token_hash.is_not(None).label("logged_in"))
        .where(chosen)
        .order_by(devices.c.device_id)
    ).all()
    if device_id is not None and not rows:
        raise NotFound(f"{email} has no device {device_id}")
    if forget:
        connection.execute(delete(devices).where(chosen))
    else:
        connection.execute(update(devices).where(chosen).values(token_hash=None))
    logged_in = [row.device_id for row in rows if row.logged_in]
    # By device: one that logs in again meanwhile is told apart by its new token.
    give_notice(connection, account_id, "device_revoked", device_ids=logged_in, now_ms=now_ms)
    return [row.device_id for row in rows] if forget else logged_in


def delete_account(connection: Connection, email: str, *, now_ms: int) -> None:
    """Delete the account and its wallet, or the registration that waits; raises NotFound."""
    record = find_account(connection, email, now_ms=now_ms)
    connection.execute(delete(registrations).where(registrations.c.email == email))
    if record.account_id is not None:
        connection.execute(delete(accounts).where(accounts.c.id == record.account_id))
        give_notice(connection, record.account_id, "account_deleted", now_ms=now_ms)


def allow(connection: Connection, emails: Sequence[str], *, now_ms: int) -> list[str]:
    """Put addresses on the allowlist; gives those that were not on it."""
    insertion = _ALLOW[connection.dialect.name]
    return [
        email
        for email in dict.fromkeys(emails)
        if connection.execute(insertion.values(email=email, created_at=now_ms)).rowcount
    ]


def disallow(connection: Connection, emails: Sequence[str]) -> None:
    """Take addresses off the allowlist; raises NotFound for those that are not on it."""
    missing = [
        email
        for email in dict.fromkeys(emails)
        if not connection.execute(delete(allowlist).where(allowlist.c.email == email)).rowcount
    ]
    if missing:
        raise NotFound(f"not on the allowlist: {', '.join(missing)}")


def count_accounts(connection: Connection) -> int:
    """How many accounts there are."""
    count: int = connection.execute(select(func.count()).select_from(accounts)).scalar_one()
    return count


def renew_epochs(connection: Connection, *, keep_tokens: bool) -> Iterator[int]:
    """Begin a new life of every account's data; yields how many accounts are done, in steps.

    Unless ``keep_tokens``, all tokens end, those of resets too. The caller sees to it that no
    server is running, and runs it to its end.
    """
    if not keep_tokens:
        connection.execute(update(devices).values(token_hash=None))
        connection.execute(delete(resets))
    last_id = 0
    while True:
        ids = connection.execute(
            select(accounts.c.id)
            .where(accounts.c.id > last_id)
            .order_by(accounts.c.id)
            .limit(EPOCH_CHUNK)
        ).scalars()
        epochs = [{"renewed_id": account_id, "new_epoch": make_epoch()} for account_id in ids]
        if not epochs:
            return
        connection.execute(_SET_EPOCH, epochs)
        last_id = epochs[-1]["renewed_id"]
        yield len(epochs)


# Finding.


def _find_id(connection: Connection, email: str, now_ms: int) -> int:
    record = find_account(connection, email, now_ms=now_ms)
    if record.account_id is None:
        raise NotFound(f"{email} has no account yet: the registration waits to be verified")
    return record.account_id


def _select_records(now_ms: int, narrow: Narrow) -> Subquery:
    """Accounts, and the registrations that could become one: those of each that ``narrow`` leaves.

    It is narrowed before it is put together, so that an index serves.
    """
    nothing = cast(null(), BigInteger)
    state = case(
        (accounts.c.disabled, "disabled"), (accounts.c.verified, "active"), else_="unverified"
    )
    owned = select(func.count()).where(devices.c.account_id == accounts.c.id).scalar_subquery()
    made = select(
        accounts.c.id,
        accounts.c.email,
        state.label("state"),
        newest_sequence().label("sequence"),
        owned.label("devices"),
        accounts.c.created_at,
        nothing.label("expires_at"),
    )
    # A taken address keeps registrations too, lest it be told from a free one: they lead nowhere.
    taken = select(accounts.c.id).where(accounts.c.email == registrations.c.email).exists()
    waiting = select(
        nothing.label("id"),
        registrations.c.email,
        literal("unverified").label("state"),
        literal(0, BigInteger).label("sequence"),
        literal(0, BigInteger).label("devices"),
        nothing.label("created_at"),
        registrations.c.expires_at,
    ).where(registrations.c.expires_at > now_ms, ~taken)
    return union_all(
        select(narrow(made, accounts.c.email).subquery()),
        select(narrow(waiting, registrations.c.email).subquery()),
    ).subquery()


def _record(row: Row[*tuple[Any, ...]]) -> AccountRecord:
    return AccountRecord(*row)


def _set(connection: Connection, account_id: int, column: ColumnElement[bool], value: bool) -> bool:
    """Whether the account's column had another value."""
    changed = connection.execute(
        update(accounts)
        .where(accounts.c.id == account_id, column.is_not(value))
        .values({column: value})
    )
    return changed.rowcount == 1
