"""The command as an operator meets it: what it refuses, and in what words."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import open_client
from tests.e2e.serving import run_command
from wsserver.cli import main
from wsserver.config import Settings


@dataclass
class Done:
    """What a command said, and its exit code."""

    code: int
    text: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process, for its start takes a second in one of its own."""
    monkeypatch.chdir(tmp_path)
    environment = {name: value for name, value in os.environ.items() if "WSSERVER_" not in name}

    def invoke(*arguments: str, **variables: str) -> Done:
        # Whole, so that nothing that a run sets is left for the next one.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "environ", {**environment, **variables})
            done = CliRunner().invoke(main, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return Done(done.exit_code, done.output)

    return invoke


@pytest.mark.parametrize("command", [[], ["serve"], ["migrate"]])
def test_every_command_helps(run: Run, command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.code == 0
    assert "Usage: " in done.text
    assert "Undefined" not in done.text


def test_the_help_of_serve_names_every_setting(run: Run) -> None:
    text = run("serve", "--help").text
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in text


def test_the_help_of_serve_shows_a_rate_and_how_it_is_written(run: Run) -> None:
    text = " ".join(run("serve", "--help").text.split())
    assert "--message-rate RATE Messages of one connection; more get 429. [default: 500/s" in text
    assert "A RATE is written '20/s, burst 200'" in text


def test_the_command_tells_its_version(run: Run) -> None:
    done = run("--version")
    assert done.code == 0
    assert re.search(r"\d+\.\d+", done.text)


def refuse(run: Run, *arguments: str, **variables: str) -> str:
    """What the server says when it refuses its settings."""
    done = run("serve", *arguments, **variables)
    assert done.code == 2, done
    return done.text


def test_a_refusal_of_the_real_command_goes_to_stderr_with_exit_code_2(tmp_path: Path) -> None:
    done = run_command(["serve", "--port=70000"], tmp_path)
    assert done.returncode == 2
    assert "WSSERVER_PORT" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_mode_email_without_what_it_needs_is_refused_in_a_clear_sentence(run: Run) -> None:
    said = refuse(run, "--verification=email")
    assert "verification 'email' needs WSSERVER_SMTP_URL" in said
    assert "WSSERVER_PUBLIC_URL" in said
    assert "--settings" not in said


def test_all_wrong_settings_are_told_at_once(run: Run) -> None:
    said = refuse(
        run,
        "--port=70000",
        "--wallet-bytes=many",
        "--drain-timeout-s=0",
        "--message-rate=20",
        "--connect-rate=0/s, burst 5",
        "--refusals-max=0",
        WSSERVER_VERIFICATION="everyone",
        WSSERVER_ALLOWLIST="jane@secret.example, no address",
    )
    for name in (
        "port",
        "wallet_bytes",
        "drain_timeout_s",
        "message_rate",
        "connect_rate",
        "refusals_max",
        "verification",
        "allowlist",
    ):
        assert f"WSSERVER_{name.upper()}" in said
    assert "'20' is no rate; it looks like 20/s, burst 200" in said
    assert "jane" not in said


def test_an_unknown_key_of_the_file_is_refused_by_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "wsserver.toml").write_text("prot = 8090\n")
    assert "prot" in refuse(run, "--config=wsserver.toml")


def test_a_file_that_is_no_toml_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "wsserver.toml").write_text("port: 8090\n")
    assert "configuration file" in refuse(run, "--config=wsserver.toml")


def test_a_file_that_is_not_there_is_told(run: Run) -> None:
    for arguments, variables in (
        (["--config=missing.toml"], {}),
        ([], {"WSSERVER_CONFIG": "missing.toml"}),
    ):
        assert "missing.toml does not exist" in refuse(run, *arguments, **variables)


def test_an_unknown_flag_is_refused(run: Run) -> None:
    assert "--prot" in refuse(run, "--prot=8090")


def fail(run: Run, *arguments: str, command: str = "serve") -> str:
    """What the server says when it can't start with settings that are right by themselves."""
    done = run(command, *arguments)
    assert done.code == 1, done
    return done.text


def test_a_busy_port_is_told(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = fail(run, f"--port={port}", "--admin-port=0")
        assert f"127.0.0.1:{port}" in said
        assert "in use" in said.lower()
        said = fail(run, "--port=0", f"--admin-port={port}")
        assert str(port) in said


def test_an_address_that_is_not_this_machine_s_is_told(run: Run) -> None:
    assert "192.0.2.1" in fail(run, "--host=192.0.2.1", "--admin-port=0")


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_database_that_can_not_be_is_told(run: Run, tmp_path: Path, command: str) -> None:
    said = fail(run, "--database-url=sqlite:///no/such/folder/w.db", command=command)
    assert "does not exist" in said
    assert "no/such/folder" in said
    said = fail(run, "--database-url=mysql://joe:secret@localhost/w", command=command)
    assert "mysql" in said
    assert "secret" not in said
    said = fail(run, "--database-url=nothing", command=command)
    assert "sqlite:///" in said
    (tmp_path / "text.db").write_text("this is no database" * 100)
    fail(run, "--database-url=sqlite:///text.db", command=command)


def test_migrate_makes_the_schema_and_says_so(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        done = run("migrate", "--database-url=sqlite:///w.db")
        assert done.code == 0
        assert "up to date" in done.text
    with sqlite3.connect(tmp_path / "w.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    assert {"accounts", "devices", "versions"} <= tables


def test_a_database_of_a_later_version_is_refused(run: Run, tmp_path: Path) -> None:
    run("migrate", "--database-url=sqlite:///w.db")
    with sqlite3.connect(tmp_path / "w.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    for command in ("serve", "migrate"):
        assert "9999" in fail(run, "--database-url=sqlite:///w.db", command=command)


async def test_mode_open_warns_on_every_address_but_loopback(make_process: MakeProcess) -> None:
    for host, warns in (("0.0.0.0", True), ("127.0.0.1", False)):  # noqa: S104
        server = make_process(host=host)
        server.launch()
        await server.wait_for_log("registration:")
        assert ('"level": "warning"' in server.log) == warns
        assert ("OPEN to everyone" in server.log) == warns
        server.signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_an_empty_allowlist_warns_that_nobody_can_register(
    make_process: MakeProcess,
) -> None:
    server = make_process(verification="allowlist")
    await server.start()
    assert "nobody can register" in server.log


async def test_a_second_server_on_the_same_database_is_refused(make_process: MakeProcess) -> None:
    server = make_process()
    await server.start()
    arguments = ["--port=0", "--admin-port=0", "--database-url=sqlite:///wallets.db"]
    done = await asyncio.to_thread(run_command, ["serve", *arguments], server.folder)
    assert done.returncode == 1
    assert "another server" in done.stderr
    async with open_client(server.url) as client:
        assert await client.call("server.ping") == {}


def test_many_workers_on_a_sqlite_file_are_refused(run: Run) -> None:
    said = refuse(run, "--workers=2")
    assert "WSSERVER_WORKERS is 2, and one process serves a SQLite file" in said
    assert "PostgreSQL" in said


def test_many_workers_without_a_bus_are_refused(run: Run) -> None:
    url = "postgresql+psycopg://joe:secret@localhost/w"
    said = refuse(run, "--workers=2", "--bus-url=none", f"--database-url={url}")
    assert "WSSERVER_BUS_URL is none: without a bus" in said
