"""The command as an operator meets it: what it refuses, and in what words."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import open_client
from tests.e2e.serving import run_command
from wsserver.config import Settings


@pytest.mark.parametrize("command", [[], ["serve"], ["migrate"]])
def test_every_command_helps(tmp_path: Path, command: list[str]) -> None:
    done = run_command([*command, "--help"], tmp_path)
    assert done.returncode == 0
    assert "Usage: " in done.stdout
    assert "Undefined" not in done.stdout


def test_the_help_of_serve_names_every_setting(tmp_path: Path) -> None:
    text = run_command(["serve", "--help"], tmp_path).stdout
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in text


def test_the_command_tells_its_version(tmp_path: Path) -> None:
    done = run_command(["--version"], tmp_path)
    assert done.returncode == 0
    assert re.search(r"\d+\.\d+", done.stdout)


def refuse(folder: Path, *arguments: str, **variables: str) -> str:
    """What the server says when it refuses its settings."""
    done = run_command(["serve", *arguments], folder, **variables)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_mode_email_is_refused_in_a_clear_sentence(tmp_path: Path) -> None:
    said = refuse(tmp_path, "--verification=email")
    assert "registration by mail is not available in this version" in said
    assert "--verification" in said
    assert "WSSERVER_VERIFICATION" in said


def test_all_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    said = refuse(
        tmp_path,
        "--port=70000",
        "--wallet-bytes=many",
        "--drain-timeout-s=0",
        WSSERVER_VERIFICATION="everyone",
        WSSERVER_ALLOWLIST="jane@secret.example, no address",
    )
    for name in ("port", "wallet_bytes", "drain_timeout_s", "verification", "allowlist"):
        assert f"WSSERVER_{name.upper()}" in said
    assert "jane" not in said


def test_an_unknown_key_of_the_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "wsserver.toml").write_text("prot = 8090\n")
    assert "prot" in refuse(tmp_path, "--config=wsserver.toml")


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wsserver.toml").write_text("port: 8090\n")
    assert "configuration file" in refuse(tmp_path, "--config=wsserver.toml")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for arguments, variables in (
        (["--config=missing.toml"], {}),
        ([], {"WSSERVER_CONFIG": "missing.toml"}),
    ):
        assert "missing.toml does not exist" in refuse(tmp_path, *arguments, **variables)


def test_an_unknown_flag_is_refused(tmp_path: Path) -> None:
    assert "--prot" in refuse(tmp_path, "--prot=8090")


def fail(folder: Path, *arguments: str, command: str = "serve") -> str:
    """What the server says when it can't start with settings that are right by themselves."""
    done = run_command([command, *arguments], folder)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_busy_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = fail(tmp_path, f"--port={port}", "--admin-port=0")
        assert f"127.0.0.1:{port}" in said
        assert "in use" in said.lower()
        said = fail(tmp_path, "--port=0", f"--admin-port={port}")
        assert str(port) in said


def test_an_address_that_is_not_this_machine_s_is_told(tmp_path: Path) -> None:
    assert "192.0.2.1" in fail(tmp_path, "--host=192.0.2.1", "--admin-port=0")


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_database_that_can_not_be_is_told(tmp_path: Path, command: str) -> None:
    said = fail(tmp_path, "--database-url=sqlite:///no/such/folder/w.db", command=command)
    assert "does not exist" in said
    assert "no/such/folder" in said
    said = fail(tmp_path, "--database-url=mysql://joe:secret@localhost/w", command=command)
    assert "mysql" in said
    assert "secret" not in said
    said = fail(tmp_path, "--database-url=nothing", command=command)
    assert "sqlite:///" in said
    (tmp_path / "text.db").write_text("this is no database" * 100)
    fail(tmp_path, "--database-url=sqlite:///text.db", command=command)


def test_migrate_makes_the_schema_and_says_so(tmp_path: Path) -> None:
    for _ in range(2):
        done = run_command(["migrate", "--database-url=sqlite:///w.db"], tmp_path)
        assert done.returncode == 0
        assert "up to date" in done.stdout
    with sqlite3.connect(tmp_path / "w.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    assert {"accounts", "devices", "versions"} <= tables


def test_a_database_of_a_later_version_is_refused(tmp_path: Path) -> None:
    run_command(["migrate", "--database-url=sqlite:///w.db"], tmp_path)
    with sqlite3.connect(tmp_path / "w.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    for command in ("serve", "migrate"):
        assert "9999" in fail(tmp_path, "--database-url=sqlite:///w.db", command=command)


async def test_mode_open_warns_on_every_address_but_loopback(make_process: MakeProcess) -> None:
    for host, warns in (("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)):  # noqa: S104
        server = make_process(host=host)
        server.launch()
        await server.wait_for_log("registration:")
        assert ("WARNING" in server.log) == warns
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
    said = fail(server.folder, "--port=0", "--admin-port=0", "--database-url=sqlite:///wallets.db")
    assert "another server" in said
    async with open_client(server.url) as client:
        assert await client.call("server.ping") == {}
