"""What goes by mail: registrations that wait for their address, and resets of forgotten passwords.

An answer must not tell whether an address has an account, by its time either: who asks for a
letter has the same statements run whatever they find, and something written, so that the commit
costs as much.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, LargeBinary, bindparam, delete, select, update

from wsschema.errors import BadResetToken, BadVerificationToken
from wsschema.messages import Kdf
from wsserver.operations import (
    ActivateRegistration,
    CreateAccount,
    FindAllowed,
    FinishReset,
    LoadPendingPassword,
    PasswordHash,
    RenewRegistration,
    StartRegistration,
    StartReset,
)
from wsserver.store.accounts import (
    create_account,
    kdf_values,
    make_epoch,
    password_of,
    password_values,
)
from wsserver.store.context import REGISTRATION_LIFETIME_MS, RESET_LIFETIME_MS, Context
from wsserver.store.rows import by_dialect
from wsserver.store.tables import (
    accounts,
    allowlist,
    devices,
    installation,
    registrations,
    resets,
    versions,
)

_ACCOUNT = select(accounts.c.id).where(accounts.c.email == bindparam("email"))
_PENDING = select(registrations)


def _start_reset(insert: Any) -> Any:
    """One statement that finds the account and keeps the token: it is the same for nobody."""
    found = select(
        accounts.c.id,
        bindparam("new_token_hash", type_=LargeBinary),
        bindparam("new_expires_at", type_=BigInteger),
    ).where(accounts.c.email == bindparam("email"), accounts.c.verified, ~accounts.c.disabled)
    insertion = insert(resets).from_select(["account_id", "token_hash", "expires_at"], found)
    changed = {name: insertion.excluded[name] for name in ("token_hash", "expires_at")}
    return insertion.on_conflict_do_update(index_elements=["account_id"], set_=changed)


_START_RESET: Final = by_dialect(_start_reset)


def _replace(insert: Any) -> Any:
    insertion = insert(registrations)
    changed = {
        column.name: insertion.excluded[column.name]
        for column in registrations.columns
        if column.name != "email"
    }
    return insertion.on_conflict_do_update(index_elements=["email"], set_=changed)


_REPLACE: Final = by_dialect(_replace)
_EXPIRED: Final = (
    select(registrations.c.email)
    .where(registrations.c.expires_at <= bindparam("now_ms"))
    # Another process lets go of those.
    .with_for_update(skip_locked=True)
)
_LET_GO: Final = delete(registrations).where(registrations.c.email.in_(_EXPIRED))


def find_allowed(connection: Connection, context: Context, operation: FindAllowed) -> bool:
    """Whether the operator let this address register."""
    found = select(allowlist.c.email).where(allowlist.c.email == operation.email)
    return connection.execute(found).one_or_none() is not None


def load_pending_password(
    connection: Connection, context: Context, operation: LoadPendingPassword
) -> PasswordHash | None:
    """The password of the address's registration, while its token lives."""
    row = connection.execute(
        _PENDING.where(
            registrations.c.email == operation.email,
            registrations.c.expires_at > context.now_ms(),
        )
    ).one_or_none()
    return None if row is None else password_of(row)


def start_registration(
    connection: Connection, context: Context, operation: StartRegistration
) -> str | None:
    """Keep the credentials in place of the address's last; let go of those that have expired."""
    now_ms = context.now_ms()
    connection.execute(_LET_GO, {"now_ms": now_ms})
    token, token_hash = _make_token()
    values = {
        "email": operation.email,
        "token_hash": token_hash,
        **password_values(operation.password),
        **kdf_values(operation.client_salt_seed, operation.kdf),
        "expires_at": now_ms + REGISTRATION_LIFETIME_MS,
    }
    connection.execute(_REPLACE[connection.dialect.name].values(values))
    return None if _is_taken(connection, operation.email) else token


def renew_registration(
    connection: Connection, context: Context, operation: RenewRegistration
) -> str | None:
    """A new token in place of the last."""
    now_ms = context.now_ms()
    token, token_hash = _make_token()
    renewed = connection.execute(
        update(registrations)
        .where(registrations.c.email == operation.email, registrations.c.expires_at > now_ms)
        .values(token_hash=token_hash, expires_at=now_ms + REGISTRATION_LIFETIME_MS)
    )
    is_taken = _is_taken(connection, operation.email)
    _write_something(connection, now_ms)
    return token if renewed.rowcount and not is_taken else None


def activate_registration(
    connection: Connection, context: Context, operation: ActivateRegistration
) -> None:
    """Make the account; the token is used up."""
    row = connection.execute(
        _PENDING.where(
            registrations.c.token_hash == operation.token_hash,
            registrations.c.expires_at > context.now_ms(),
        )
    ).one_or_none()
    if row is None or _is_taken(connection, row.email):
        raise BadVerificationToken
    make_account(connection, context, row)


def make_account(connection: Connection, context: Context, row: Any) -> None:
    """The account of a registration's row, which goes."""
    kdf = Kdf.scrypt(row.kdf_n, row.kdf_r, row.kdf_p)
    account = CreateAccount(row.email, password_of(row), row.client_salt_seed, kdf, verified=True)
    create_account(connection, context, account)
    connection.execute(delete(registrations).where(registrations.c.email == row.email))


def start_reset(connection: Connection, context: Context, operation: StartReset) -> str | None:
    """A token for the account of that address, in place of its last."""
    now_ms = context.now_ms()
    token, token_hash = _make_token()
    started = connection.execute(
        _START_RESET[connection.dialect.name],
        {
            "email": operation.email,
            "new_token_hash": token_hash,
            "new_expires_at": now_ms + RESET_LIFETIME_MS,
        },
    )
    _write_something(connection, now_ms)
    return token if started.rowcount else None


def finish_reset(connection: Connection, context: Context, operation: FinishReset) -> int:
    """A new life of the account: credentials and epoch are new, the wallet and every token go."""
    account_id: int | None = connection.execute(
        select(resets.c.account_id)
        .join_from(resets, accounts)
        .where(
            resets.c.token_hash == operation.token_hash,
            resets.c.expires_at > context.now_ms(),
            ~accounts.c.disabled,
        )
    ).scalar_one_or_none()
    if account_id is None:
        raise BadResetToken
    connection.execute(delete(resets).where(resets.c.account_id == account_id))
    connection.execute(delete(versions).where(versions.c.account_id == account_id))
    connection.execute(
        update(devices)
        .where(devices.c.account_id == account_id)
        .values(token_hash=None, applied_sequence=0)
    )
    connection.execute(
        update(accounts)
        .where(accounts.c.id == account_id)
        .values(
            **password_values(operation.password),
            **kdf_values(operation.client_salt_seed, operation.kdf),
            epoch=make_epoch(),
        )
    )
    return account_id


def _make_token() -> tuple[str, bytes]:
    token = secrets.token_hex(32)
    return token, hashlib.sha256(token.encode()).digest()


def _is_taken(connection: Connection, email: str) -> bool:
    return connection.execute(_ACCOUNT, {"email": email}).one_or_none() is not None


def _write_something(connection: Connection, now_ms: int) -> None:
    connection.execute(update(installation).values(probed_at=now_ms))
