"""Accounts that come from another server's database, each taken over whole or not at all.

In the caller's transaction, beside a running server or without: what is here already stays as it
is, so that nothing which a server knows becomes wrong.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from sqlalchemy import Connection, insert, select

from wsschema.messages import Kdf, SealedWallet
from wsserver.operations import NO_DEVICE, CreateAccount, PasswordHash
from wsserver.store.accounts import create_account, kdf_values, password_values
from wsserver.store.context import Context
from wsserver.store.tables import accounts, installation, newest_sequence, registrations, versions


@dataclass(frozen=True, slots=True)
class ImportedAccount:
    """An account as it was elsewhere; times in milliseconds since 1970.

    ``verified``: False keeps it from logging in until the operator verifies it. ``updated_at_ms``:
    when the wallet was pushed.
    """

    email: str = field(repr=False)
    password: PasswordHash = field(repr=False)
    client_salt_seed: str = field(repr=False)
    kdf: Kdf
    verified: bool
    created_at_ms: int
    wallet: SealedWallet | None
    updated_at_ms: int


@dataclass(frozen=True, slots=True)
class ImportedRegistration:
    """A registration that waits for its address to be verified: by the token of that hash."""

    email: str = field(repr=False)
    password: PasswordHash = field(repr=False)
    client_salt_seed: str = field(repr=False)
    kdf: Kdf
    token_hash: bytes = field(repr=False)
    expires_at_ms: int


class Outcome(enum.Enum):
    """What becomes of one that is to be taken over."""

    TAKEN_OVER = enum.auto()
    THERE = enum.auto()
    """It was taken over before: an account of that address has the same seed."""
    BEHIND = enum.auto()
    """The same, but its wallet here is older than the one that was to be taken over."""
    ADDRESS_TAKEN = enum.auto()
    """The address has another account here, or a registration that waits."""


def find_outcome(connection: Connection, one: ImportedAccount | ImportedRegistration) -> Outcome:
    """What would become of it; changes nothing."""
    row = connection.execute(
        select(accounts.c.client_salt_seed, newest_sequence().label("sequence")).where(
            accounts.c.email == one.email
        )
    ).one_or_none()
    if row is not None:
        if row.client_salt_seed != one.client_salt_seed:
            return Outcome.ADDRESS_TAKEN
        wallet = one.wallet if isinstance(one, ImportedAccount) else None
        is_behind = wallet is not None and wallet.sequence > row.sequence
        return Outcome.BEHIND if is_behind else Outcome.THERE
    if isinstance(one, ImportedAccount):
        # A registration holds no claim on an address: it leads nowhere from now on.
        return Outcome.TAKEN_OVER
    waiting = connection.execute(
        select(registrations.c.client_salt_seed).where(registrations.c.email == one.email)
    ).scalar_one_or_none()
    if waiting is None:
        return Outcome.TAKEN_OVER
    return Outcome.THERE if waiting == one.client_salt_seed else Outcome.ADDRESS_TAKEN


def take_over(connection: Connection, one: ImportedAccount | ImportedRegistration) -> Outcome:
    """Store it, unless it is here already or its address is taken."""
    outcome = find_outcome(connection, one)
    if outcome is Outcome.TAKEN_OVER:
        if isinstance(one, ImportedAccount):
            _store_account(connection, one)
        else:
            _store_registration(connection, one)
    return outcome


def _store_account(connection: Connection, account: ImportedAccount) -> None:
    depth: int = connection.execute(select(installation.c.history_depth)).scalar_one()
    context = Context(
        now_ms=lambda: account.created_at_ms, history_depth=depth, token_lifetime_ms=0
    )
    creation = CreateAccount(
        account.email, account.password, account.client_salt_seed, account.kdf, account.verified
    )
    create_account(connection, context, creation)
    wallet = account.wallet
    if wallet is not None:
        connection.execute(
            insert(versions).values(
                account_id=select(accounts.c.id)
                .where(accounts.c.email == account.email)
                .scalar_subquery(),
                slot=wallet.sequence % depth,
                sequence=wallet.sequence,
                device_id=NO_DEVICE,
                updated_at=account.updated_at_ms,
                hmac=wallet.hmac.encode(),
                encrypted_wallet=wallet.encrypted_wallet.encode(),
            )
        )


def _store_registration(connection: Connection, registration: ImportedRegistration) -> None:
    connection.execute(
        insert(registrations).values(
            email=registration.email,
            token_hash=registration.token_hash,
            **password_values(registration.password),
            **kdf_values(registration.client_salt_seed, registration.kdf),
            expires_at=registration.expires_at_ms,
        )
    )
