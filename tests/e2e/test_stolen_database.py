"""A stolen database file gives no login: whatever is in it, none of it opens anything."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.mailing import Town, new_credentials, open_town
from tests.e2e.rawclient import CallFailed, RawClient
from tests.e2e.serving import Served, open_database

EMAILS = ("joe@example.com", "ann@example.com")
PENDING = ("eve@example.com", "dan@example.com")
PASSWORD = "what only the owner knows"
AT_ONCE = 16
REFUSALS = {
    "session.resume": {"bad_token"},
    "session.login": {"bad_credentials"},
    "account.verify": {"bad_verification_token"},
    "account.reset": {"bad_reset_token"},
}
PASSWORD_LENGTHS = range(8, 1025)


class Loot:
    """What a thief has: every value of the database; and what its owners have, to compare with."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.session_tokens: list[str] = []
        self.verification_tokens: list[str] = []
        self.reset_tokens: list[str] = []

    @property
    def secrets(self) -> list[str]:
        return [
            PASSWORD,
            *self.session_tokens,
            *self.verification_tokens,
            *self.reset_tokens,
        ]


@pytest.fixture
async def loot(serve: Serve) -> AsyncIterator[Loot]:
    """A database with all that may be in one: accounts, wallets, tokens, registrations, resets."""
    async with open_town(serve, auth_timeout_s=600) as town:
        loot = Loot(town)
        for email in (*EMAILS, *PENDING):
            client = await town.served.open()
            link = await town.register(client, email, password=PASSWORD)
            if email in PENDING:
                loot.verification_tokens.append(link.token)
                continue
            await client.call("account.verify", token=link.token)
            opened = await client.login(email, password=PASSWORD, deviceName="a laptop")
            loot.session_tokens.append(opened["token"])
            await client.push(1)
            await client.push(2)
            loot.reset_tokens.append((await town.request_reset(email)).token)
        await town.served.close_clients()
        yield loot


async def test_no_value_of_the_database_logs_anybody_in(loot: Loot) -> None:
    values = read_all_values(loot.town.served.database)
    guesses = sorted({text for value in values for text in spell(value)})
    emails = sorted({value for value in values if isinstance(value, str) and "@" in value})
    calls: list[tuple[str, dict[str, Any]]] = []
    for guess in guesses:
        calls.append(("session.resume", {"token": guess}))
        calls.append(("account.verify", {"token": guess}))
        calls.append(("account.reset", {"token": guess, **new_credentials("a thief's password")}))
        if len(guess) in PASSWORD_LENGTHS:
            for email in emails:
                login = {"email": email, "password": guess, "deviceId": "thief"}
                calls.append(("session.login", login))

    refused = await try_all(loot.town.served, calls)

    assert emails == sorted((*EMAILS, *PENDING))
    assert len(guesses) > 100
    # A value that has not even the form of a token is told so: that is a refusal, too.
    assert {method: found - {"params"} for method, found in refused.items()} == REFUSALS


async def test_what_the_owners_have_opens_everything(loot: Loot) -> None:
    """Or the refusals of the thief would show nothing."""
    client = await loot.town.served.open()
    for token in loot.verification_tokens:
        assert await client.call("account.verify", token=token) == {}
    for email in PENDING:
        other = await loot.town.served.open()
        assert await other.login(email, password=PASSWORD)
    for token in loot.session_tokens:
        other = await loot.town.served.open()
        assert (await other.call("session.resume", token=token))["sequence"] == 2
    for token in loot.reset_tokens:
        assert await client.call("account.reset", token=token, **new_credentials("anew!!!!")) == {}


async def test_no_secret_is_in_the_files_of_the_database(loot: Loot) -> None:
    files = loot.town.served.database.parent.glob("wallets.db*")
    content = b"".join(file.read_bytes() for file in files)

    assert b"wallet 2" in content, "the files that were looked at are the right ones"
    for secret in loot.secrets:
        for spelled in (secret, secret.encode().hex(), base64.b64encode(secret.encode()).decode()):
            assert spelled.encode() not in content
    for token in loot.secrets[1:]:
        assert bytes.fromhex(token) not in content


def read_all_values(database: Path) -> list[Any]:
    """Every value of every column of every table that is in the file."""
    with open_database(database) as connection:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        rows = [
            row
            for table in tables
            for row in connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608
        ]
    assert {"accounts", "devices", "registrations", "resets", "versions"} <= set(tables)
    return [value for row in rows for value in row if value is not None]


def spell(value: Any) -> set[str]:
    """The ways to write a value as text: as it is, in hex, in base64, with and without padding."""
    raw = value if isinstance(value, bytes) else str(value).encode()
    encoded = {
        raw.hex(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
        raw.decode("utf-8", "replace"),
        raw.decode("latin-1"),
    }
    return {text for one in encoded for text in (one, one.rstrip("="), one.upper()) if text}


async def try_all(served: Served, calls: list[tuple[str, dict[str, Any]]]) -> dict[str, set[str]]:
    """The reasons that each method was refused with; no call must succeed."""
    refused: dict[str, set[str]] = {method: set() for method in REFUSALS}
    waiting = list(calls)

    async def work(client: RawClient) -> None:
        while waiting:
            method, params = waiting.pop()
            try:
                result = await client.call(method, **params)
            except CallFailed as error:
                refused[method].add("params" if error.code == -32602 else error.reason)
            else:
                raise AssertionError(f"{method} let the thief in: {params} gave {result}")

    clients = [await served.open() for _ in range(AT_ONCE)]
    await asyncio.gather(*map(work, clients))
    return refused
