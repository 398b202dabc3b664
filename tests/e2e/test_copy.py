"""`wsserver copy`: devices notice nothing of the move, and kills cost nothing."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from sqlalchemy import insert

from tests.conftest import Databases
from tests.e2e.conftest import Serve
from tests.e2e.rawclient import WAIT_S, state
from tests.e2e.serving import COMMAND, clean_environment
from tests.store.test_copying import NOW_MS, credentials, read
from wsserver.cli import main
from wsserver.store.databases import open_database, parse_url
from wsserver.store.schema import install
from wsserver.store.tables import accounts, devices

JOE = "joe@example.com"
ACCOUNTS = 4_000


def run(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(main, ["copy", *arguments])
    assert done.exit_code == code, done.output
    return done


async def test_a_device_reconnects_with_its_token_and_sees_its_history(
    serve: Serve, databases: Databases, tmp_path: Path
) -> None:
    first = await serve()
    client = await first.open()
    await client.register(JOE)
    opened = await client.login(JOE)
    for sequence in range(1, 13):
        await client.call("wallet.push", **state(sequence))
    await first.stop()
    urls = (
        f"sqlite:///{first.database}",
        databases.create(),
        databases.create(),
        f"sqlite:///{tmp_path / 'back.db'}",
    )
    for sequence, (source, target) in enumerate(itertools.pairwise(urls), 13):
        assert "the checksums of both sides are the same" in run(source, target).stdout
        served = await serve(database_url=target)
        device = await served.open()
        resumed = await device.call(
            "session.resume", token=opened["token"], since=sequence - 1, epoch=opened["epoch"]
        )
        assert (resumed["deviceId"], resumed["epoch"]) == (opened["deviceId"], opened["epoch"])
        assert (resumed["sequence"], resumed["wallet"]) == (sequence - 1, None)
        history = (await device.call("wallet.history"))["versions"]
        assert [version["sequence"] for version in history] == [
            *range(sequence - 1, sequence - 11, -1)
        ]
        await device.call("wallet.push", **state(sequence))
        await served.stop()


def make_installation(url: str) -> None:
    with open_database(parse_url(url)) as connection:
        install(connection, history_depth=10, now_ms=NOW_MS)
        numbers = range(1, ACCOUNTS + 1)
        hashed = credentials("joe")
        connection.execute(
            insert(accounts),
            [
                {
                    "id": number,
                    "email": f"user{number}@example.com",
                    **hashed,
                    "epoch": f"{number:032x}",
                    "sequence": 0,
                    "verified": True,
                    "disabled": False,
                    "created_at": NOW_MS,
                }
                for number in numbers
            ],
        )
        connection.execute(
            insert(devices),
            [
                {
                    "account_id": number,
                    "device_id": "phone",
                    "token_hash": number.to_bytes(32, "big"),
                    "token_used_at": NOW_MS,
                    "created_at": NOW_MS,
                    "last_seen_at": NOW_MS,
                    "applied_sequence": 0,
                }
                for number in numbers
            ],
        )


def test_a_copy_that_is_killed_twice_goes_on(databases: Databases, tmp_path: Path) -> None:
    source, target = f"sqlite:///{tmp_path / 'source.db'}", databases.create()
    make_installation(source)
    for at in ("accounts", "devices"):
        process = subprocess.Popen(
            [*COMMAND, "copy", source, target],
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        with process, process.stderr:
            assert any(line.startswith(at) for line in process.stderr)
            process.kill()
            process.wait(WAIT_S)
    tables = json.loads(run(source, target, "--json").stdout)["tables"]
    assert read(parse_url(target)) == read(parse_url(source))
    assert (tables["accounts"]["rows"], tables["devices"]["rows"]) == (ACCOUNTS, ACCOUNTS)
    # What was there before the second kill was found there.
    assert tables["accounts"]["written"] == 0


def test_what_can_not_be_copied_is_told_in_a_sentence(tmp_path: Path) -> None:
    missing = f"sqlite:///{tmp_path / 'missing.db'}"
    assert "there is no database" in run(missing, f"sqlite:///{tmp_path / 'x.db'}", code=1).stderr
    assert "not supported" in run(missing, "mysql://joe:secret@db/wallets", code=1).stderr
    assert "secret" not in run(missing, "mysql://joe:secret@db/wallets", code=1).output
