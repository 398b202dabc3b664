"""The SQLite file of lbryio's wallet-sync-server: what is in it, as this server would keep it.

The file is only read, as of one moment.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from wsschema.fields import Email, FieldError, lower_email
from wsschema.limits import CLIENT_SALT_SEED_HEX_DIGITS, HMAC_BYTES_MAX, INTEGER_MAX
from wsschema.messages import SealedWallet
from wsserver.lbry.flows import KDF
from wsserver.operations import PasswordHash
from wsserver.store.errors import StoreError
from wsserver.store.imports import ImportedAccount, ImportedRegistration

SCRYPT_N: Final = 2**15
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
"""What that server stores passwords with. They are stored with each, and upgraded at the next login
should they be weaker than this server's own by then."""
DIGEST_HEX_DIGITS: Final = 64
SALT_HEX_DIGITS_MIN: Final = 32

_COLUMNS: Final = {
    "accounts": {
        *("normalized_email", "email", "key", "client_salt_seed", "server_salt"),
        *("verify_token", "verify_expiration", "user_id", "created", "updated"),
    },
    "wallets": {"user_id", "encrypted_wallet", "sequence", "hmac", "updated"},
}
_ACCOUNTS: Final = """
    SELECT email, "key", server_salt, client_salt_seed, verify_token, verify_expiration,
        accounts.created, encrypted_wallet, sequence, hmac, wallets.updated
    FROM accounts LEFT JOIN wallets ON wallets.user_id = accounts.user_id
    ORDER BY accounts.user_id
"""
_HEX: Final = re.compile("(?:[0-9a-fA-F]{2})+")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An account that can't be kept here, and why."""

    email: str = field(repr=False)
    reason: str


class Source:
    """An open file; ``count`` accounts are in it. `close` it.

    Raises StoreError where it is not a file of that server's, or is damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        if not file.is_file():
            raise StoreError(f"there is no file {file}")
        self._connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
        )
        # What is no text is told apart below, account by account.
        self._connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        try:
            self._data_version = self._ask("PRAGMA data_version")
            self._connection.execute("BEGIN")
            self._check()
            self.count = int(self._ask("SELECT count(*) FROM accounts"))
            addresses = self._connection.execute("SELECT email FROM accounts")
            self._addresses = Counter(lower_email(str(email)) for (email,) in addresses)
        except sqlite3.Error as error:
            self.close()
            raise self._unreadable(error) from None
        except StoreError:
            self.close()
            raise

    def read(self, now_ms: int) -> Iterator[ImportedAccount | ImportedRegistration | LeftOut]:
        """All accounts, in the order in which they were made; raises StoreError."""
        try:
            for row in self._connection.execute(_ACCOUNTS):
                yield self._convert(row, now_ms)
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def has_changed(self) -> bool:
        """Whether someone has written to the file since it was opened; to be asked at the end."""
        try:
            self._connection.execute("COMMIT")
            return bool(self._ask("PRAGMA data_version") != self._data_version)
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _check(self) -> None:
        for table, columns in _COLUMNS.items():
            found = {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}
            if not columns <= found:
                raise StoreError(
                    f"{self._file} is no database of lbryio's wallet-sync-server: its table "
                    f"{table} lacks {', '.join(sorted(columns - found))}"
                )
        found_damage = self._ask("PRAGMA quick_check(1)")
        if found_damage != "ok":
            raise StoreError(f"{self._file} is damaged: {found_damage}")

    def _ask(self, statement: str) -> Any:
        return self._connection.execute(statement).fetchone()[0]

    def _unreadable(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        return StoreError(f"{self._file} can't be read: {name}")

    def _convert(
        self, row: tuple[Any, ...], now_ms: int
    ) -> ImportedAccount | ImportedRegistration | LeftOut:
        typed, key, salt, seed, verify_token, verify_expiration, created, *kept = row
        try:
            if self._addresses[lower_email(str(typed))] > 1:
                raise _Unfit("another account of the file has the same address here")
            email = _read_email(typed)
            password = _read_password(key, salt)
            if not _is_hex(seed) or len(seed) != CLIENT_SALT_SEED_HEX_DIGITS:
                raise _Unfit(
                    f"its client_salt_seed is not {CLIENT_SALT_SEED_HEX_DIGITS} hex digits"
                )
            wallet = _read_wallet(*kept[:3])
            if verify_token is not None and wallet is None:
                expires_at_ms = _read_time(verify_expiration)
                if expires_at_ms is None or expires_at_ms <= now_ms:
                    raise _Unfit("it was not verified in time")
                token_hash = hashlib.sha256(str(verify_token).encode()).digest()
                return ImportedRegistration(email, password, seed, KDF, token_hash, expires_at_ms)
        except _Unfit as unfit:
            return LeftOut(_show(str(typed)), str(unfit))
        created_at_ms = _read_time(created) or now_ms
        return ImportedAccount(
            email,
            password,
            seed,
            KDF,
            verified=verify_token is None,
            created_at_ms=created_at_ms,
            wallet=wallet,
            updated_at_ms=_read_time(kept[3]) or created_at_ms,
        )


class _Unfit(Exception):
    """Why an account can't be kept."""


def _read_email(typed: Any) -> str:
    try:
        return lower_email(_text(Email().read(typed, "", lenient=False)))
    except FieldError as error:
        raise _Unfit(f"its address {error.text}") from None


def _read_password(key: Any, salt: Any) -> PasswordHash:
    if not _is_hex(key) or len(key) != DIGEST_HEX_DIGITS:
        raise _Unfit(f"its key is not {DIGEST_HEX_DIGITS} hex digits")
    if not _is_hex(salt) or len(salt) < SALT_HEX_DIGITS_MIN:
        raise _Unfit(f"its server_salt is not {SALT_HEX_DIGITS_MIN} hex digits or more")
    return PasswordHash(bytes.fromhex(key), bytes.fromhex(salt), SCRYPT_N, SCRYPT_R, SCRYPT_P)


def _read_wallet(encrypted_wallet: Any, sequence: Any, hmac: Any) -> SealedWallet | None:
    if sequence is None:
        return None
    if type(sequence) is not int or not 1 <= sequence <= INTEGER_MAX:
        raise _Unfit(f"its wallet has the sequence {sequence!r}")
    wallet, mac = _text(encrypted_wallet), _text(hmac)
    if not wallet:
        raise _Unfit("its wallet is empty")
    if not 1 <= len(mac.encode()) <= HMAC_BYTES_MAX:
        raise _Unfit(f"the hmac of its wallet is not 1 to {HMAC_BYTES_MAX} bytes")
    return SealedWallet(sequence, wallet, mac)


def _text(value: Any) -> str:
    """The value, which must be text; SQLite keeps what it is given in a column for text."""
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
        text.encode()
    except UnicodeError:
        raise _Unfit("it has text that is not UTF-8") from None
    return text


def _show(text: str) -> str:
    """The text as a terminal can show it, whatever it is."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def _read_time(value: Any) -> int | None:
    """Milliseconds since 1970; None for what can't be read. A time without a zone is in UTC."""
    try:
        time = datetime.fromisoformat(str(value))
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
