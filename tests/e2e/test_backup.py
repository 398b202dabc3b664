"""Backups made beside a running server, and put back: what is in them, and what devices do then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.device import merge_marks, read_marks
from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import open_client, state
from tests.e2e.serving import COMMAND, ServerProcess, clean_environment, run_command
from wsclient import Session, SyncedWallet, register
from wsclient.wallet_events import Restored
from wsschema.messages import Kdf

JOE, ROOT_PASSWORD = "joe@example.com", "correct horse"
KDF = Kdf.scrypt(2**14)
PATIENCE_S = 60.0


class Hand:
    """The operator's, on the database of a server."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.backup = server.folder / "wallets.bak"

    async def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        url = f"sqlite:///{self.server.database}"
        done = await asyncio.to_thread(
            run_command, arguments, self.server.folder, WSSERVER_DATABASE_URL=url
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    async def read_json(self, *arguments: str) -> Any:
        return json.loads((await self.run(*arguments, "--json")).stdout)

    async def refuse(self, *arguments: str) -> str:
        return (await self.run(*arguments, code=1)).stderr


@pytest.fixture
async def hand(make_process: MakeProcess) -> Hand:
    server = make_process()
    await server.start()
    return Hand(server)


async def make_joe(hand: Hand) -> str:
    """An account with a wallet, and a token of it."""
    async with open_client(hand.server.url) as client:
        await client.register(JOE)
        token: str = (await client.login(JOE))["token"]
        await client.call("wallet.push", **state(1))
        return token


def count_accounts(database: Path) -> int:
    connection = sqlite3.connect(database)
    try:
        ((count,),) = connection.execute("SELECT count(*) FROM accounts").fetchall()
        return int(count)
    finally:
        connection.close()


async def test_a_backup_made_under_load_has_all_that_was_answered_before_it_began(
    hand: Hand,
) -> None:
    await make_joe(hand)
    async with open_client(hand.server.url) as client:
        await client.login(JOE)
        answered = 1

        async def push_on() -> None:
            nonlocal answered
            while True:
                await client.call("wallet.push", **state(answered + 1), receipt=True)
                answered += 1

        pushing = asyncio.create_task(push_on())
        while answered < 50:
            await asyncio.sleep(0.01)
        before = answered
        told = await hand.read_json("backup", str(hand.backup))
        after = answered
        pushing.cancel()
    assert told["file"] == str(hand.backup)
    assert told["bytes"] == hand.backup.stat().st_size
    assert (told["rows"]["accounts"], told["rows"]["versions"]) == (1, 10)
    assert stat.S_IMODE(hand.backup.stat().st_mode) == 0o600
    backup = sqlite3.connect(hand.backup)
    assert backup.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    kept = [row[0] for row in backup.execute("SELECT sequence FROM versions ORDER BY sequence")]
    backup.close()
    assert before <= kept[-1] <= after + 1
    assert kept == [*range(kept[0], kept[-1] + 1)]
    assert sorted(path.name for path in hand.backup.parent.glob("*wallets.bak*")) == ["wallets.bak"]


async def test_a_backup_does_not_replace_another_unless_it_is_told_to(hand: Hand) -> None:
    await make_joe(hand)
    await hand.run("backup", str(hand.backup))
    first = hand.backup.read_bytes()
    assert "exists already" in await hand.refuse("backup", str(hand.backup))
    assert hand.backup.read_bytes() == first
    await hand.run("backup", "--overwrite", str(hand.backup))


async def test_a_backup_that_can_not_be_written_is_told_in_a_sentence(hand: Hand) -> None:
    await make_joe(hand)
    assert "can't be written" in await hand.refuse("backup", "/nowhere/wallets.bak")


@pytest.mark.parametrize("keep_tokens", [True, False])
async def test_devices_ahead_of_what_was_restored_bring_back_what_is_theirs(
    hand: Hand, tmp_path: Path, keep_tokens: bool
) -> None:
    url = hand.server.url

    def open_device(name: str) -> SyncedWallet:
        return SyncedWallet(
            lambda witness: Session(url, witness=witness, deliver="state", random=lambda: 0.05),
            JOE,
            ROOT_PASSWORD,
            tmp_path / name,
            merge_marks,
            minimum_kdf=KDF,
            debounce_s=0,
        )

    async def add(wallet: SyncedWallet, mark: str) -> None:
        await wallet.change(lambda value: json.dumps([*read_marks(value), mark]).encode())

    async with Session(url) as session:
        await register(session, JOE, ROOT_PASSWORD, kdf=KDF)
    async with open_device("laptop") as laptop, open_device("phone") as phone:
        events = laptop.events()
        await add(laptop, "in the backup")
        await laptop.sync(PATIENCE_S)
        await phone.pull(PATIENCE_S)
        await hand.run("backup", str(hand.backup))
        await add(laptop, "after the backup")
        await laptop.sync(PATIENCE_S)
        await phone.pull(PATIENCE_S)
        hand.server.end()
        await add(phone, "while it was down")
        flags = ["--keep-tokens"] if keep_tokens else []
        told = await hand.read_json("restore", "--replace", *flags, str(hand.backup))
        assert told == {"accounts": 1, "tokensKept": keep_tokens}
        await hand.server.start()
        everything = {"in the backup", "after the backup", "while it was down"}
        async with asyncio.timeout(PATIENCE_S):
            while not read_marks(laptop.value) == read_marks(phone.value) == everything:
                await asyncio.gather(laptop.pull(PATIENCE_S), phone.pull(PATIENCE_S))
            async for event in events:
                if isinstance(event, Restored):
                    break


async def test_a_device_that_was_revoked_after_the_backup_stays_out(hand: Hand) -> None:
    token = await make_joe(hand)
    await hand.run("backup", str(hand.backup))
    await hand.run("account", "revoke", JOE)
    hand.server.end()
    said = await hand.run("restore", "--replace", str(hand.backup))
    assert said.stdout == "accounts restored: 1; all devices are logged out\n"
    await hand.server.start()
    async with open_client(hand.server.url) as client:
        answered = await client.submit("session.resume", token=token)
        await asyncio.wait([answered])
        assert "bad_token" in str(getattr(answered.exception(), "data", ""))
        assert (await client.login(JOE))["sequence"] == 1


async def test_a_backup_moves_to_another_machine(hand: Hand, make_process: MakeProcess) -> None:
    await make_joe(hand)
    await hand.run("backup", str(hand.backup))
    hand.server.end()
    other = Hand(make_process(database_url=f"sqlite:///{hand.server.folder}/other.db"))
    other.server.database = hand.server.folder / "other.db"
    await other.run("restore", str(hand.backup))
    await other.server.start()
    async with open_client(other.server.url) as client:
        assert (await client.login(JOE))["sequence"] == 1


# What is refused, and changes nothing.


async def test_nothing_is_restored_under_a_running_server_or_over_accounts(hand: Hand) -> None:
    await make_joe(hand)
    await hand.run("backup", str(hand.backup))
    refusal = await hand.refuse("restore", "--replace", str(hand.backup))
    assert f"(process {hand.server.pid})" in refusal
    hand.server.end()
    refusal = await hand.refuse("restore", str(hand.backup))
    assert "has 1 accounts already; --replace" in refusal


async def test_a_backup_of_a_later_version_is_refused(hand: Hand) -> None:
    await make_joe(hand)
    await hand.run("backup", str(hand.backup))
    hand.server.end()
    backup = sqlite3.connect(hand.backup)
    backup.execute("UPDATE alembic_version SET version_num = 'later'")
    backup.commit()
    backup.close()
    assert "newer version" in await hand.refuse("restore", "--replace", str(hand.backup))


async def test_a_restore_that_is_killed_leaves_what_was_or_what_was_to_be(hand: Hand) -> None:
    await make_joe(hand)
    await hand.run("backup", str(hand.backup))
    async with open_client(hand.server.url) as client:
        await client.register("ann@example.com")
    hand.server.end()
    for delay_s in (0.3, 0.5, 0.7, 0.9):
        process = await asyncio.create_subprocess_exec(
            *(*COMMAND, "restore", "--replace", str(hand.backup)),
            cwd=hand.server.folder,
            env=clean_environment(WSSERVER_DATABASE_URL=f"sqlite:///{hand.server.database}"),
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        await asyncio.sleep(delay_s)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        assert count_accounts(hand.server.database) in (1, 2)
    await hand.run("restore", "--replace", str(hand.backup))
    assert count_accounts(hand.server.database) == 1
