"""`wsserver backup --to` beside a running server, as cron runs it, and drills with what it made."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.e2e.rawclient import state
from tests.e2e.serving import Served
from wsserver.cli import main
from wsserver.store.backup_folder import LOCK_NAME

EMAILS = ("joe@example.com", "ann@example.com")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


@pytest.fixture
async def database_url(tmp_path: Path) -> AsyncIterator[str]:
    """The database of a running server, with two accounts that have wallets."""
    served = await Served.start(tmp_path)
    for email in EMAILS:
        client = await served.open_account(email)
        for sequence in (1, 2):
            await client.call("wallet.push", **state(sequence))
    await served.close_clients()
    yield f"sqlite:///{served.database}"
    await served.stop()


def run(url: str, *arguments: str, code: int = 0) -> str:
    """What is printed: on stdout where it works, on stderr where not. In this process: quicker."""
    done = CliRunner().invoke(main, [*arguments], env={"WSSERVER_DATABASE_URL": url})
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def back_up(folder: Path, url: str, *arguments: str) -> Any:
    return json.loads(run(url, "backup", "--to", str(folder), "--json", *arguments))


def test_runs_one_after_another_keep_the_newest(folder: Path, database_url: str) -> None:
    made = [back_up(folder, database_url, "--keep", "2") for _ in range(3)]
    assert [turn["kept"] for turn in made] == [1, 2, 2]
    assert made[2]["removed"] == [made[0]["file"]]
    assert made[2]["stuck"] == []
    assert made[2]["rows"]["accounts"] == 2
    assert sorted(map(str, folder.glob("*.db"))) == [made[1]["file"], made[2]["file"]]
    said = run(database_url, "backup", "--to", str(folder), "--keep", "1")
    assert "bytes, accounts: 2\n" in said
    assert f"removed: {made[1]['file']}\n" in said


def test_a_second_run_at_once_says_so_by_its_exit_code(folder: Path, database_url: str) -> None:
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    said = run(database_url, "backup", "--to", str(folder), code=3)
    os.close(descriptor)
    assert "another backup into" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either FILE or --to DIR"),
        (["x.db", "--to", "."], "give either FILE or --to DIR"),
        (["x.db", "--keep", "1"], "--keep goes with --to DIR"),
        (["--to", ".", "--overwrite"], "--overwrite goes with FILE"),
        (["--to", ".", "--keep", "0"], "0 is not in the range"),
    ],
)
def test_what_does_not_go_together_is_refused(
    folder: Path, arguments: list[str], said: str
) -> None:
    assert said in run("sqlite:///missing.db", "backup", *arguments, code=2)
    assert [*folder.iterdir()] == []


def test_a_drill_restores_the_newest_backup_and_reads_the_wallets_from_a_server(
    folder: Path, database_url: str, tmp_path: Path
) -> None:
    back_up(folder, database_url)
    newest = back_up(folder, database_url)["file"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    flags = ["--scratch", str(scratch)]
    report = json.loads(run(database_url, "drill", str(folder), *flags, "--json"))
    assert report["file"] == newest
    assert (report["rows"]["accounts"], report["walletsRead"]) == (2, 2)
    assert sum(report["seconds"].values()) == pytest.approx(report["totalSeconds"], abs=0.01)
    said = run(database_url, "drill", newest, *flags)
    assert "accounts: 2, devices: 2, versions: 4" in said
    assert "PASSED in" in said
    assert [*scratch.iterdir()] == []


def test_a_drill_with_what_is_no_backup_fails(folder: Path, database_url: str) -> None:
    assert "there is no backup in the folder" in run(database_url, "drill", str(folder), code=1)
    assert "there is no folder" in run(database_url, "drill", "x.db", "--scratch", "none", code=1)
    newest = Path(back_up(folder, database_url)["file"])
    newest.write_bytes(newest.read_bytes()[:8192])
    assert "is no backup that can be read" in run(database_url, "drill", str(folder), code=1)


def test_a_drill_tells_when_the_server_has_other_wallets(folder: Path, database_url: str) -> None:
    newest = back_up(folder, database_url)["file"]
    backup = sqlite3.connect(newest)
    # As a fault of the server's would: under the newest sequence it reads what was not pushed.
    backup.execute(
        "CREATE TRIGGER lie AFTER INSERT ON devices BEGIN "
        "UPDATE versions SET hmac = x'78' WHERE account_id = NEW.account_id; END"
    )
    backup.commit()
    backup.close()
    said = run(database_url, "drill", newest, code=1)
    assert "has another wallet of account" in said


def test_a_drill_tells_when_no_server_starts(
    folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = back_up(folder, database_url)["file"]
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    said = run(database_url, "drill", newest, code=1)
    assert "no server starts on the restored database; it said: nothing" in said


def test_a_database_that_was_never_served_from_passes_its_drill_too(
    folder: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    run(url, "migrate")
    back_up(folder, url)
    assert back_up(folder, url, "--keep", "1")["kept"] == 1
    assert json.loads(run(url, "drill", str(folder), "--json"))["walletsRead"] == 0
