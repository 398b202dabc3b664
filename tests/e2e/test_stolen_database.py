"""Who has the database file can't log in with anything that is in it."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path

from tests.e2e.conftest import Serve
from tests.e2e.rawclient import SEED

EMAIL = "joe@example.com"
KDF = {"name": "scrypt", "n": 2**17, "r": 8, "p": 1}
REFUSALS = {
    "session.resume": {"bad_token"},
    "session.login": {"bad_credentials"},
    "account.verify": {"bad_verification_token"},
    "account.reset": {"bad_reset_token"},
}


def read_values(database: Path) -> set[str]:
    """Every value of every row and column, as text, in hex and in base64."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        rows = [row for name in tables for row in connection.execute(f'SELECT * FROM "{name}"')]  # noqa: S608
    values: set[str] = set()
    for value in (value for row in rows for value in row if value is not None):
        raw = value if isinstance(value, bytes) else str(value).encode()
        values |= {raw.hex(), base64.b64encode(raw).decode(), raw.decode("latin-1")}
    return values


async def test_no_value_of_the_database_logs_anybody_in(serve: Serve) -> None:
    served = await serve(
        verification="email", smtp_url="console:", public_url="https://sync.example.com"
    )
    stranger = await served.open()
    credentials = {"password": "a password of Joe's", "clientSaltSeed": SEED, "kdf": KDF}
    await stranger.call("account.register", email="pending@example.com", **credentials)
    add_account(served.database)
    joe = await served.open()
    await joe.call("session.login", email=EMAIL, password="a password of Joe's", deviceId="phone")
    await joe.push(1)
    await stranger.call("account.requestReset", email=EMAIL)

    values = [
        value
        for value in read_values(served.database)
        if value.isprintable() and 1 <= len(value) <= 256
    ]

    assert len(values) > 60
    for value in values:
        refused = {"session.resume": await stranger.fail("session.resume", token=value)}
        refused["account.verify"] = await stranger.fail("account.verify", token=value)
        refused["account.reset"] = await stranger.fail("account.reset", token=value, **credentials)
        for email in (EMAIL, "pending@example.com"):
            if len(value) >= 8:
                refused["session.login"] = await stranger.fail(
                    "session.login", email=email, password=value, deviceId="thief"
                )
        for method, failure in refused.items():
            assert failure.reason in REFUSALS[method], (method, failure.reason)


def add_account(database: Path) -> None:
    """Make Joe's account out of a copy of the registration that waits."""
    with sqlite3.connect(database) as connection:
        connection.execute(
            "INSERT INTO accounts (email, password_digest, password_salt, password_n, password_r,"
            " password_p, client_salt_seed, kdf_n, kdf_r, kdf_p, epoch, sequence, verified,"
            " disabled, created_at) SELECT ?, password_digest, password_salt, password_n,"
            " password_r, password_p, client_salt_seed, kdf_n, kdf_r, kdf_p, ?, 0, 1, 0, 0"
            " FROM registrations",
            (EMAIL, "ab" * 16),
        )
