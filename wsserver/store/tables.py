"""The tables, with the constraints that make a wrong row impossible. Times are in ms since 1970.

Text that the protocol calls opaque (``encryptedWallet``, ``hmac``) is kept as the bytes of its
UTF-8: PostgreSQL's text can't hold every Unicode string (U+0000). Sequences end at 2^53 - 1, like
integers on the wire; on SQLite, whose columns take text for an integer, the bound refuses that too.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    ScalarSelect,
    Table,
    Text,
    UniqueConstraint,
    func,
    select,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

BigKey = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column declared INTEGER."""

installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("decoy_key", LargeBinary, nullable=False),
    Column("history_depth", Integer, nullable=False),
    Column("probed_at", BigInteger, nullable=False),
    Column("schema_revision", Text),
    Column("oldest_code", Text),
    CheckConstraint("id = 1", name="single"),
    CheckConstraint("length(decoy_key) = 32", name="decoy_key"),
    CheckConstraint("history_depth >= 1", name="history_depth"),
)
"""One row: what all processes on this database share.

``history_depth`` is the number of slots that `versions` is laid out for. ``oldest_code``: of which
revision on a version of the server can go on with the schema, now that it has ``schema_revision``.
"""

accounts = Table(
    "accounts",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("email", Text, nullable=False),
    Column("password_digest", LargeBinary, nullable=False),
    Column("password_salt", LargeBinary, nullable=False),
    Column("password_n", Integer, nullable=False),
    Column("password_r", Integer, nullable=False),
    Column("password_p", Integer, nullable=False),
    Column("client_salt_seed", Text, nullable=False),
    Column("kdf_n", Integer, nullable=False),
    Column("kdf_r", Integer, nullable=False),
    Column("kdf_p", Integer, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("email"),
    CheckConstraint("length(email) BETWEEN 3 AND 254", name="email"),
    CheckConstraint("length(password_digest) = 32", name="password_digest"),
    CheckConstraint("length(password_salt) >= 16", name="password_salt"),
    CheckConstraint("password_n > 1", name="password_n"),
    CheckConstraint("password_r > 0", name="password_r"),
    CheckConstraint("password_p > 0", name="password_p"),
    CheckConstraint("length(client_salt_seed) = 64", name="client_salt_seed"),
    CheckConstraint("kdf_n BETWEEN 16384 AND 1048576", name="kdf_n"),
    CheckConstraint("kdf_r = 8", name="kdf_r"),
    CheckConstraint("kdf_p BETWEEN 1 AND 4", name="kdf_p"),
    CheckConstraint("length(epoch) = 32", name="epoch"),
    CheckConstraint("sequence BETWEEN 0 AND 9007199254740991", name="sequence"),
    sqlite_autoincrement=True,  # The id of a deleted account never becomes another's.
)
"""``email`` with A to Z lowered.

``sequence`` is neither read nor kept: where a wallet stands is told by its versions alone (see
`newest_sequence`), for to write it here too took a page more a push. It goes once SQLite can drop a
column that a constraint names, or the table has to be built anew for another reason.
"""

devices = Table(
    "devices",
    metadata,
    Column("account_id", BigKey, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("device_id", Text, primary_key=True),
    Column("name", Text),
    Column("token_hash", LargeBinary),
    Column("token_used_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
    Column("applied_sequence", BigInteger, nullable=False),
    UniqueConstraint("token_hash"),
    CheckConstraint("length(device_id) BETWEEN 1 AND 64", name="device_id"),
    CheckConstraint("length(name) <= 128", name="name"),
    CheckConstraint("length(token_hash) = 32", name="token_hash"),
    CheckConstraint("applied_sequence BETWEEN 0 AND 9007199254740991", name="applied_sequence"),
)
"""A device has one token at most; ``token_hash`` is its SHA-256, null once it is logged out.

``applied_sequence`` is behind for the device that pushed the latest version, which it has applied.
"""

versions = Table(
    "versions",
    metadata,
    Column("account_id", BigKey, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("hmac", LargeBinary, nullable=False),
    Column("encrypted_wallet", LargeBinary, nullable=False),
    CheckConstraint("slot >= 0", name="slot"),
    CheckConstraint("sequence BETWEEN 1 AND 9007199254740991", name="sequence"),
    CheckConstraint("length(device_id) BETWEEN 1 AND 64", name="device_id"),
    CheckConstraint("length(hmac) BETWEEN 1 AND 256", name="hmac"),
    CheckConstraint("length(encrypted_wallet) >= 1", name="encrypted_wallet"),
)
"""The last states of each wallet, in a ring: ``slot`` is the sequence modulo the installation's
depth, so that storing one state lets go of the one that fell out, in the same write."""


def newest_sequence(account_id: ColumnElement[int] = accounts.c.id) -> ScalarSelect[int]:
    """The sequence of the account's latest version, 0 where there is none, inside a query on it."""
    kept = versions.alias("kept")
    newest = func.coalesce(func.max(kept.c.sequence), 0)
    return select(newest).where(kept.c.account_id == account_id).scalar_subquery()


registrations = Table(
    "registrations",
    metadata,
    Column("email", Text, primary_key=True),
    Column("token_hash", LargeBinary, nullable=False),
    Column("password_digest", LargeBinary, nullable=False),
    Column("password_salt", LargeBinary, nullable=False),
    Column("password_n", Integer, nullable=False),
    Column("password_r", Integer, nullable=False),
    Column("password_p", Integer, nullable=False),
    Column("client_salt_seed", Text, nullable=False),
    Column("kdf_n", Integer, nullable=False),
    Column("kdf_r", Integer, nullable=False),
    Column("kdf_p", Integer, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    UniqueConstraint("token_hash"),
    CheckConstraint("length(email) BETWEEN 3 AND 254", name="email"),
    CheckConstraint("length(token_hash) = 32", name="token_hash"),
    CheckConstraint("length(password_digest) = 32", name="password_digest"),
    CheckConstraint("length(password_salt) >= 16", name="password_salt"),
    CheckConstraint("length(client_salt_seed) = 64", name="client_salt_seed"),
)
"""Credentials that wait for their address to be verified: the newest of each address."""

resets = Table(
    "resets",
    metadata,
    Column("account_id", BigKey, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("token_hash", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    UniqueConstraint("token_hash"),
    CheckConstraint("length(token_hash) = 32", name="token_hash"),
)
"""Tokens that a forgotten root password can be got over with: the newest of each account."""

allowlist = Table(
    "allowlist",
    metadata,
    Column("email", Text, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("length(email) BETWEEN 3 AND 254", name="email"),
)
"""Addresses that may register in mode allowlist, besides those in the settings."""

notices = Table(
    "notices",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("account_id", BigKey, nullable=False),
    Column("device_id", Text),
    Column("reason", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
"""What an operator's command did to an account, for the servers that have sessions of it."""
