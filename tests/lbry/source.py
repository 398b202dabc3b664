"""A database as lbryio's wallet-sync-server keeps it, made by hand from its description."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE accounts(
    normalized_email TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    key TEXT NOT NULL,
    client_salt_seed TEXT NOT NULL,
    server_salt TEXT NOT NULL,
    verify_token TEXT UNIQUE,
    verify_expiration DATETIME,
    user_id INTEGER PRIMARY KEY AUTOINCREMENT,
    updated DATETIME NOT NULL,
    created DATETIME DEFAULT (DATETIME('now'))
);
CREATE TABLE wallets(
    user_id INTEGER NOT NULL PRIMARY KEY REFERENCES accounts(user_id),
    encrypted_wallet TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    hmac TEXT NOT NULL,
    updated DATETIME NOT NULL
);
CREATE TABLE auth_tokens(
    token TEXT NOT NULL UNIQUE,
    user_id INTEGER NOT NULL REFERENCES accounts(user_id),
    device_id TEXT NOT NULL,
    scope TEXT NOT NULL,
    expiration DATETIME NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
"""
CREATED = "2022-09-01 12:34:56.789123456+00:00"
UPDATED = "2023-01-02T03:04:05Z"


def make_seed(name: str) -> str:
    """A seed that is that address's alone."""
    return hashlib.sha256(f"seed of {name}".encode()).hexdigest()


class LbryFile:
    """The file; ``add`` accounts to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run(SCHEMA)

    def add(self, email: str, password: str = "a login password", **columns: Any) -> None:
        """An account whose login password that is."""
        salt = hashlib.sha256(f"salt of {email}".encode()).digest()[:16]
        key = hashlib.scrypt(
            password.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=2**26, dklen=32
        )
        row = {
            "normalized_email": email.lower(),
            "email": email,
            "key": key.hex(),
            "client_salt_seed": make_seed(email),
            "server_salt": salt.hex(),
            "verify_token": None,
            "verify_expiration": None,
            "created": CREATED,
            "updated": UPDATED,
            **columns,
        }
        self._insert("accounts", row)

    def add_wallet(self, email: str, sequence: int = 7, **columns: Any) -> None:
        """The wallet of an account of the file."""
        row = {
            "encrypted_wallet": f"wallet {sequence}",
            "sequence": sequence,
            "hmac": f"hmac {sequence}",
            "updated": UPDATED,
            **columns,
        }
        with self._open() as connection:
            (user_id,) = connection.execute(
                "SELECT user_id FROM accounts WHERE email = ?", [email]
            ).fetchone()
        self._insert("wallets", {"user_id": user_id, **row})

    def execute(self, statement: str, *values: Any) -> None:
        with self._open() as connection:
            connection.execute(statement, values)

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        marks = ", ".join("?" for _ in row)
        statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"  # noqa: S608
        self.execute(statement, *row.values())

    def _run(self, script: str) -> None:
        connection = self._open()
        connection.executescript(script)
        connection.close()

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)
