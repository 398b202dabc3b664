"""``wsserver import lbry``: what is taken over, what is left out, and how users log in then."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.rawclient import PASSWORD, SEED
from tests.e2e.serving import Served, find_free_port, open_database
from tests.e2e.test_operator import invoke
from tests.lbry.client import API, LbryClient, WalletState, derive
from tests.lbry.conftest import Gateway, OpenGateway
from tests.lbry.source import LbryFile, make_seed
from tests.pages import ROOT, blocks
from wsclient import Session, SyncedWallet, crypto, derive_keys, log_in, register
from wsclient.errors import BadCredentials
from wsclient.interactive import Client
from wsclient.merge import JsonMerge
from wsschema.messages import GetWallet, Kdf
from wsserver import operations, passwords
from wsserver.lbry import importing
from wsserver.store import imports

JOE = "joe@example.com"
ANN = "ann@example.com"
FUTURE = "2999-01-01 00:00:00+00:00"
PAST = "2022-01-01 00:00:00+00:00"


@pytest.fixture
def file(tmp_path: Path) -> LbryFile:
    return LbryFile(tmp_path / "lbry.db")


class Importer:
    """The command, on a database."""

    def __init__(self, file: LbryFile, database: Path) -> None:
        self.file, self.database = file, database

    def __call__(self, *options: str) -> Any:
        """What it says in JSON."""
        return json.loads(self.say(*options, "--json"))

    def say(self, *options: str, code: int = 0) -> str:
        url = f"--database-url=sqlite:///{self.database}"
        said = invoke("import", "lbry", str(self.file.path), url, *options, code=code)
        return said.stdout if code == 0 else said.stderr

    def rows(self, query: str) -> list[Any]:
        with open_database(self.database) as connection:
            found: list[Any] = connection.execute(query).fetchall()
        return found


@pytest.fixture
def run(file: LbryFile, tmp_path: Path) -> Importer:
    return Importer(file, tmp_path / "wallets.db")


def test_accounts_are_taken_over_with_all_that_belongs_to_them(
    file: LbryFile, run: Importer
) -> None:
    file.add("Joe@Example.com")
    file.add_wallet("Joe@Example.com", 23, encrypted_wallet="50% — \u0000", hmac="mac")
    file.add(ANN)

    report = run()

    assert report == {
        "dryRun": False,
        "accounts": 2,
        "wallets": 1,
        "registrations": 0,
        "thereAlready": 0,
        "unverified": [],
        "leftOut": [],
        "fileChanged": False,
    }
    query = (
        "SELECT email, client_salt_seed, kdf_n, kdf_r, kdf_p, password_n, password_r, password_p, "
        "verified, disabled, created_at FROM accounts ORDER BY id"
    )
    scrypt = (2**20, 8, 1, 2**15, 8, 1)
    assert run.rows(query) == [
        (JOE, make_seed("Joe@Example.com"), *scrypt, 1, 0, 1662035696789),
        (ANN, make_seed(ANN), *scrypt, 1, 0, 1662035696789),
    ]
    query = "SELECT sequence, slot, hmac, encrypted_wallet, updated_at FROM versions"
    assert run.rows(query) == [(23, 3, b"mac", "50% — \u0000".encode(), 1672628645000)]


def test_it_is_said_what_was_taken_over_and_what_was_not(file: LbryFile, run: Importer) -> None:
    file.add(JOE)
    file.add_wallet(JOE)
    file.add("no address")
    [shown] = [
        block.text
        for block in blocks(ROOT / "docs/how-to/come-from-lbry.md")
        if block.text.startswith("accounts taken over")
    ]

    assert run.say() == shown


def test_a_second_run_changes_nothing(file: LbryFile, run: Importer) -> None:
    file.add(JOE)
    file.add_wallet(JOE)
    file.add(ANN, verify_token="token", verify_expiration=FUTURE)
    run()
    everything = "SELECT * FROM accounts, versions, registrations"
    before = run.rows(everything)

    report = run()

    assert (report["accounts"], report["registrations"], report["thereAlready"]) == (0, 0, 2)
    assert report["leftOut"] == []
    assert run.rows(everything) == before


def test_a_dry_run_says_the_same_and_changes_nothing(file: LbryFile, run: Importer) -> None:
    file.add(JOE)
    file.add_wallet(JOE)
    file.add("no address")

    told = run("--dry-run")

    assert not run.database.exists()
    assert {**told, "dryRun": False} == run()
    file.add(ANN)
    told = run("--dry-run")
    assert (told["accounts"], told["thereAlready"]) == (1, 1)
    assert run.rows("SELECT count(*) FROM accounts") == [(1,)]
    assert "accounts would be taken over: 1, 0 of them" in run.say("--dry-run")


def test_an_import_that_was_cut_short_is_run_again(
    file: LbryFile, run: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 2)
    for number in range(5):
        file.add(f"user{number}@example.com")
        file.add_wallet(f"user{number}@example.com")
    take_over, taken = imports.take_over, []

    def take_two(connection: Any, one: Any) -> Any:
        taken.append(one)
        if len(taken) > 3:
            raise KeyboardInterrupt
        return take_over(connection, one)

    monkeypatch.setattr(importing, "take_over", take_two)
    invoke(*("import", "lbry", str(file.path), f"--database-url=sqlite:///{run.database}"), code=1)
    monkeypatch.setattr(importing, "take_over", take_over)
    # What was committed is whole; of what was not, there is nothing.
    assert run.rows("SELECT count(*) FROM accounts") == [(2,)]
    assert run.rows("SELECT count(*) FROM versions") == [(2,)]

    report = run()

    assert (report["accounts"], report["thereAlready"]) == (3, 2)


def test_addresses_that_are_the_same_here_are_told_and_left_out(
    file: LbryFile, run: Importer
) -> None:
    file.add("Joe@example.com", normalized_email="one")
    file.add("joe@Example.com", normalized_email="another")
    file.add(ANN)

    report = run()

    assert report["accounts"] == 1
    assert report["leftOut"] == [
        {"email": email, "reason": "another account of the file has the same address here"}
        for email in ("Joe@example.com", "joe@Example.com")
    ]


async def test_an_address_that_has_another_account_here_is_told_and_left_out(
    file: LbryFile, served: Served
) -> None:
    await served.open_account(JOE)
    file.add(JOE)
    run = Importer(file, served.database)

    report = await asyncio.to_thread(run)

    assert report["leftOut"] == [
        {
            "email": JOE,
            "reason": "its address has an account here already, with other keys",
        }
    ]
    assert run.rows("SELECT client_salt_seed FROM accounts") == [(SEED,)]


def test_a_wallet_that_is_newer_in_the_file_is_told_and_left_as_it_is_here(
    file: LbryFile, run: Importer
) -> None:
    file.add(JOE)
    file.add_wallet(JOE, 7)
    run()
    file.execute("UPDATE wallets SET sequence = 8")

    report = run()

    reason = "it was taken over before, and the file has a newer wallet"
    assert report["leftOut"] == [{"email": JOE, "reason": reason}]
    assert run.rows("SELECT sequence FROM versions") == [(7,)]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"key": "ab"}, "its key is not 64 hex digits"),
        ({"key": "xy" * 32}, "its key is not 64 hex digits"),
        ({"server_salt": "ab" * 15}, "its server_salt is not 32 hex digits or more"),
        ({"client_salt_seed": "ab"}, "its client_salt_seed is not 64 hex digits"),
        ({"verify_token": "x", "verify_expiration": PAST}, "it was not verified in time"),
        ({"verify_token": "x", "verify_expiration": None}, "it was not verified in time"),
    ],
)
def test_an_account_that_can_not_be_kept_is_told_and_left_out(
    file: LbryFile, run: Importer, columns: dict[str, Any], reason: str
) -> None:
    file.add(JOE, **columns)
    file.add(ANN)

    report = run()

    assert report["leftOut"] == [{"email": JOE, "reason": reason}]
    assert run.rows("SELECT email FROM accounts") == [(ANN,)]
    assert run.rows("SELECT email FROM registrations") == []


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"sequence": 0}, "its wallet has the sequence 0"),
        ({"sequence": "x"}, "its wallet has the sequence 'x'"),
        ({"encrypted_wallet": ""}, "its wallet is empty"),
        ({"hmac": ""}, "the hmac of its wallet is not 1 to 256 bytes"),
        ({"hmac": "x" * 257}, "the hmac of its wallet is not 1 to 256 bytes"),
        ({"encrypted_wallet": b"\xff"}, "it has text that is not UTF-8"),
    ],
)
def test_an_account_whose_wallet_can_not_be_kept_is_told_and_left_out(
    file: LbryFile, run: Importer, columns: dict[str, Any], reason: str
) -> None:
    file.add(JOE)
    file.add_wallet(JOE, **columns)

    report = run()

    assert report["leftOut"] == [{"email": JOE, "reason": reason}]
    assert run.rows("SELECT email FROM accounts") == []


def test_what_a_terminal_would_take_for_an_order_is_shown_as_text(
    file: LbryFile, run: Importer
) -> None:
    file.add("\x1b[2J")

    assert "  \\x1b[2J: its address" in run.say()


def test_text_that_is_no_utf8_is_told(file: LbryFile, run: Importer) -> None:
    file.add(JOE)
    file.execute("UPDATE accounts SET email = CAST(x'ff4065782e636f6d' AS TEXT)")

    assert run()["leftOut"] == [
        {"email": "\\udcff@ex.com", "reason": "it has text that is not UTF-8"}
    ]


def test_times_that_can_not_be_read_cost_nobody_an_account(file: LbryFile, run: Importer) -> None:
    file.add(JOE, created="one day", updated="x")
    file.add_wallet(JOE, updated="2023-01-02 03:04:05")
    file.add(ANN, created=None)

    assert run()["accounts"] == 2
    assert run.rows("SELECT updated_at FROM versions") == [(1672628645000,)]


# Verification.


async def test_a_registration_goes_on_waiting_and_its_old_link_still_works(
    file: LbryFile, open_gateway: OpenGateway
) -> None:
    gateway = await open_gateway()
    file.add(JOE, PASSWORD, verify_token="an-old-token", verify_expiration=FUTURE)
    run = Importer(file, gateway.served.database)

    report = await asyncio.to_thread(run)

    assert (report["accounts"], report["registrations"]) == (0, 1)
    body = {"email": JOE, "password": PASSWORD, "deviceId": "laptop"}
    assert (await gateway.http.post("/auth/full", body))[0] == 401
    response = await gateway.http.send("GET", f"{API}/verify?verifyToken=an-old-token")
    assert response.status_code == 200
    assert (await gateway.http.post("/auth/full", body))[0] == 200


def test_an_account_with_a_wallet_that_was_never_verified_is_for_the_operator_to_judge(
    file: LbryFile, run: Importer
) -> None:
    file.add(JOE, verify_token="token", verify_expiration=PAST)
    file.add_wallet(JOE)

    said = run.say()

    assert f"wsserver account verify {JOE}" in said
    assert run.rows("SELECT verified FROM accounts") == [(0,)]
    invoke("account", "verify", JOE, f"--database-url=sqlite:///{run.database}")
    assert run.rows("SELECT verified FROM accounts") == [(1,)]


# Guards.


def test_what_is_no_such_file_is_refused(file: LbryFile, run: Importer, tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database " * 100)
    other = tmp_path / "other.db"
    invoke("migrate", f"--database-url=sqlite:///{other}")
    empty = tmp_path / "empty.db"
    empty.touch()
    for path, reason in (
        (tmp_path / "none.db", "there is no file"),
        (text, "can't be read: SQLITE_NOTADB"),
        (other, "is no database of lbryio's wallet-sync-server: its table accounts lacks"),
        (empty, "is no database of lbryio's wallet-sync-server: its table accounts lacks"),
    ):
        run.file.path = path
        assert reason in run.say(code=1)
    assert not run.database.exists()


def test_a_damaged_file_is_refused(file: LbryFile, run: Importer) -> None:
    file.execute(
        """
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 200)
        INSERT INTO accounts (normalized_email, email, key, client_salt_seed, server_salt, updated)
        SELECT n || '@example.com', n || '@example.com', ?, ?, ?, '' FROM numbers
        """,
        *("ab" * 32, "cd" * 32, "ef" * 16),
    )
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[: 4096 * 4] + bytes(4096) + whole[4096 * 5 :])

    assert f"{file.path} " in run.say(code=1)
    assert not run.database.exists()


def test_a_database_of_another_schema_is_refused(file: LbryFile, run: Importer) -> None:
    file.add(JOE)
    run()
    with sqlite3.connect(run.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")

    assert "wsserver migrate" in run.say(code=1)


def test_a_file_that_is_written_to_meanwhile_is_told(
    file: LbryFile, run: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.execute("PRAGMA journal_mode=WAL")
    file.add(JOE)
    take_over = imports.take_over

    def take_while_it_is_written_to(connection: Any, one: Any) -> Any:
        file.add(ANN)
        return take_over(connection, one)

    monkeypatch.setattr(importing, "take_over", take_while_it_is_written_to)

    report = run()

    assert report["fileChanged"]
    assert report["accounts"] == 1
    monkeypatch.setattr(importing, "take_over", take_over)
    assert not run()["fileChanged"]


async def test_an_import_beside_a_running_server_takes_effect_at_once(
    file: LbryFile, served: Served
) -> None:
    client = await served.open_account("eve@example.com")
    file.add(JOE, PASSWORD)
    file.add_wallet(JOE, 3)

    await asyncio.to_thread(Importer(file, served.database))

    await client.push(1)
    joe, opened = await served.open_device(JOE)
    assert opened["sequence"] == 3
    await joe.push(4)
    assert (await joe.call("wallet.get"))["sequence"] == 4


# Its users.


async def test_an_imported_user_logs_in_over_the_gateway_and_over_v1(
    file: LbryFile, serve_at_full_cost: Serve, tmp_path: Path
) -> None:
    """With real keys: n = 2^20, as that server's clients derive them."""
    password, hmac_key = derive(JOE, "123abc2", make_seed(JOE), 2**20)
    file.add(JOE, password)
    device = LbryClient("")
    device.hmac_key = hmac_key
    state = device.sign(7, "a sealed wallet")
    file.add_wallet(JOE, 7, encrypted_wallet="a sealed wallet", hmac=state["hmac"])
    port = find_free_port()
    served = await serve_at_full_cost(lbry_port=port)
    await asyncio.to_thread(Importer(file, served.database))

    gateway = Gateway(served, port)
    try:
        theirs = gateway.client(JOE, "123abc2")
        theirs.n = 2**20
        await theirs.get_auth_token()
        await theirs.get_wallet()
        assert theirs.synced == WalletState(7, "a sealed wallet")
    finally:
        await gateway.close()

    async with Session(served.url) as session:
        keys = await log_in(session, JOE, "123abc2", device_id="phone")
        assert keys.kdf == Kdf.scrypt(2**20)
        found = await session.call(GetWallet())
        crypto.check_hmac(keys.hmac_key, found.sequence, found.encrypted_wallet, found.hmac)
        assert found.encrypted_wallet == "a sealed wallet"
        await session.push(8, "another")


TYPED = "Joe@Example.com"


@pytest.fixture
def cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys at no cost, that differ by password, salt and parameters as real ones do."""

    def stretch(root_password: str, salt: bytes, kdf: Kdf, length_bytes: int) -> bytes:
        named = f"{root_password} {kdf}".encode()
        return hashlib.scrypt(named, salt=salt, n=2, r=1, p=1, dklen=length_bytes)

    monkeypatch.setattr(crypto, "stretch", stretch)


@pytest.fixture
async def typed(cheap_keys: None, file: LbryFile, served: Served) -> Served:
    """A server with an imported account, whose keys are of the address as it was typed."""
    keys = crypto.derive_keys(TYPED, "123abc2", make_seed(TYPED), crypto.LBRY_KDF, as_typed=True)
    file.add(TYPED, keys.password)
    await asyncio.to_thread(Importer(file, served.database))
    return served


async def test_where_the_address_as_normalised_fails_the_one_that_was_typed_is_tried(
    typed: Served,
) -> None:
    async with Session(typed.url) as session:
        keys = await log_in(session, TYPED, "123abc2", device_id="phone")
        assert keys.email == JOE
    async with Session(typed.url) as session:
        # As it was typed, and not in any other way.
        for email in ("JOE@example.com", JOE):
            with pytest.raises(BadCredentials):
                await log_in(session, email, "123abc2", device_id="phone")
        with pytest.raises(BadCredentials):
            await log_in(session, TYPED, "a wrong password", device_id="phone")


async def test_only_an_account_with_the_kdf_of_those_clients_is_tried_twice(
    cheap_keys: None, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    login = Session.login

    async def note(session: Session, keys: Any, **options: Any) -> Any:
        tried.append(keys)
        return await login(session, keys, **options)

    monkeypatch.setattr(Session, "login", note)
    for kdf, times in ((crypto.DEFAULT_KDF, 1), (crypto.LBRY_KDF, 2)):
        tried.clear()
        async with Session(served.url) as session:
            await register(session, f"{times}{TYPED}", "123abc2", kdf=kdf)
            with pytest.raises(BadCredentials):
                await log_in(session, f"{times}{TYPED}", "a wrong password", device_id="phone")
        assert len(tried) == times


async def test_a_synced_wallet_finds_an_imported_account_and_leaves_it_normalised(
    typed: Served, tmp_path: Path
) -> None:
    folder = tmp_path / "laptop"
    async with SyncedWallet(typed.url, TYPED, "123abc2", folder, JsonMerge()) as wallet:
        await wallet.change(b'{"coins": 3}')
        await wallet.sync()
        await wallet.change_password("another root password")

    async with Session(typed.url) as session:
        keys = await derive_keys(session, JOE, "another root password")
        await session.login(keys, device_id="phone")


async def test_the_client_at_the_prompt_finds_an_imported_account(
    typed: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    def log_in_at_the_prompt() -> None:
        client = Client(typed.url)
        client.set_account(TYPED, "123abc2")
        client.get_auth_token()
        client.close()

    await asyncio.to_thread(log_in_at_the_prompt)

    assert "Got auth token" in capsys.readouterr().out


async def test_a_hash_that_is_weaker_than_todays_is_upgraded_at_the_next_login(
    file: LbryFile, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (operations, passwords):
        monkeypatch.setattr(module, "SCRYPT_N", 2**16)
    file.add(JOE, PASSWORD)
    run = Importer(file, served.database)
    await asyncio.to_thread(run)
    assert run.rows("SELECT password_n FROM accounts") == [(2**15,)]

    await served.open_device(JOE)

    assert run.rows("SELECT password_n FROM accounts") == [(2**16,)]
    await served.open_device(JOE, "phone")
