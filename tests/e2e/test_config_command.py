"""`wsserver config`: what is in force and from where, and all that is wrong with it at once."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.e2e.serving import find_free_port
from wsserver import preflight
from wsserver.cli import main
from wsserver.config import Settings
from wsserver.origins import hide_passwords
from wsserver.store.guard import ServingGuard

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in an empty folder, with these variables of the server's alone."""
    monkeypatch.chdir(tmp_path)
    unset: dict[str, str | None] = {name: None for name in os.environ if "WSSERVER_" in name}

    def invoke(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(main, ["config", *arguments], env={**unset, **variables})

    return invoke


def show(run: Run, *arguments: str, **variables: str) -> dict[str, dict[str, Any]]:
    done = run("--json", *arguments, **variables)
    assert done.exit_code == 0, done.output
    shown: dict[str, dict[str, Any]] = json.loads(done.stdout)["settings"]
    return shown


def check(run: Run, *arguments: str, **variables: str) -> tuple[int, list[str], list[str]]:
    """The exit code, what is wrong, and the warnings; on ports that are free unless told."""
    ports = [f"--port={find_free_port()}", f"--admin-port={find_free_port()}"]
    done = run("--check", "--json", *ports, *arguments, **variables)
    told = json.loads(done.stdout)
    return done.exit_code, told["faults"], told["warnings"]


def test_every_setting_is_told_with_where_it_comes_from(run: Run) -> None:
    Path("wsserver.toml").write_text('port = 1\nadmin_port = 1\nlog_level = "error"\n')
    shown = show(
        run, "--config=wsserver.toml", "--port=3", WSSERVER_PORT="2", WSSERVER_ADMIN_PORT="2"
    )
    assert shown["port"] == {"value": 3, "source": "flag", "where": "--port"}
    assert shown["admin_port"] == {
        "value": 2,
        "source": "environment",
        "where": "WSSERVER_ADMIN_PORT",
    }
    assert shown["log_level"] == {
        "value": "error",
        "source": "file",
        "where": "wsserver.toml: log_level",
    }
    assert shown["host"] == {"value": "127.0.0.1", "source": "default", "where": None}
    assert [*shown] == [*Settings.model_fields]


def test_the_table_has_a_line_a_setting_in_columns(run: Run) -> None:
    lines = run("--allowlist=jane@a.example joe@a.example").stdout.splitlines()
    assert len(lines) == 1 + len(Settings.model_fields)
    column = lines[0].index("FROM")
    assert all(line[column - 1] == " " != line[column] for line in lines)
    (allowlist,) = [line for line in lines if line.startswith("allowlist ")]
    assert allowlist.split() == ["allowlist", "jane@a.example,", "joe@a.example", "--allowlist"]


def test_what_is_given_as_toml_is_a_file_that_gives_the_same(run: Run) -> None:
    arguments = [
        "--verification=open",
        "--allowlist=jane@a.example",
        "--trusted-proxies=10.0.0.0/8,::1",
        "--message-rate=3/s, burst 5",
        "--auth-timeout-s=2.5",
        "--tls-cert=a.pem",
        '--tls-key=b "quoted"\\.pem',
    ]
    text = run("--toml", *arguments).stdout
    Path("wsserver.toml").write_text(text)
    before, after = show(run, *arguments), show(run, "--config=wsserver.toml")
    assert {name: each["value"] for name, each in before.items()} == {
        name: each["value"] for name, each in after.items()
    }
    assert tomllib.loads(text).keys() == {
        name for name, each in before.items() if each["source"] == "flag"
    }


@pytest.mark.parametrize("form", [(), ("--json",), ("--toml",)])
def test_no_password_is_shown(run: Run, form: tuple[str, ...]) -> None:
    shown = run(
        *form,
        "--database-url=postgresql://joe:hunter2@db.example/wallets?sslpassword=hunter2",
        WSSERVER_VERIFICATION="email",
        WSSERVER_SMTP_URL="smtp://joe:hunter2@mail.example",
        WSSERVER_PUBLIC_URL="https://sync.example",
    ).output
    assert "hunter2" not in shown
    if form == ("--toml",):
        assert "WSSERVER_SMTP_URL" in shown
        assert "smtp_url" not in tomllib.loads(shown)
    else:
        assert "smtp://joe:***@mail.example" in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("smtp://joe:p@ss/w:rd@mail.example:25", "smtp://joe:***@mail.example:25"),
        ("nats://t0ken@a.example", "nats://***@a.example"),
        ("postgresql://db/x?user=joe&password=s", "postgresql://db/x?user=joe&password=***"),
        ("sqlite:////var/lib/wallet-sync/wallets.db", "sqlite:////var/lib/wallet-sync/wallets.db"),
        ("https://sync.example.com:8443/wallet", "https://sync.example.com:8443/wallet"),
    ],
)
def test_what_may_be_a_secret_in_a_url_is_hidden(url: str, shown: str) -> None:
    assert hide_passwords(url) == shown


def test_wrong_settings_are_refused_as_at_the_start(run: Run) -> None:
    done = run("--port=70000", "--verification=email", "--json")
    assert done.exit_code == 2
    for name in ("PORT", "SMTP_URL", "PUBLIC_URL"):
        assert f"WSSERVER_{name}" in done.stderr
    assert done.stdout == ""


def test_settings_that_work_pass_the_check(run: Run) -> None:
    code, faults, _ = check(run)
    assert (code, faults) == (0, [])


def test_all_that_is_wrong_is_said_at_once(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, faults, warnings = check(
            run,
            "--wallet-bytes=1",
            "--verification=email",
            "--tls-cert=missing.pem",
            "--tls-key=missing.pem",
            f"--port={port}",
            "--database-url=sqlite:///missing/wallets.db",
            WSSERVER_PROT="8090",
            WSSERVER_CONFIG="wsserver.toml",
            **_write_file("wallet_byte = 1\n"),
        )
    assert code == 1
    told = "\n".join(faults)
    for part in (
        "wallet_bytes (--wallet-bytes, WSSERVER_WALLET_BYTES): ",
        "wallet_byte: there is no such setting; did you mean wallet_bytes?",
        "needs WSSERVER_SMTP_URL",
        "needs WSSERVER_PUBLIC_URL",
        "can't serve TLS: missing.pem does not exist",
        f"the folder of the database, {tmp_path}/missing, does not exist",
        f"port: can't listen on 127.0.0.1 port {port}: ",
    ):
        assert part in told
    assert "WSSERVER_PROT is no setting, and is ignored; did you mean WSSERVER_PORT?" in warnings


def _write_file(text: str) -> dict[str, str]:
    Path("wsserver.toml").write_text(text)
    return {}


def test_what_depends_on_a_wrong_setting_is_not_looked_at(run: Run) -> None:
    # The default's folder, or port, is none that anybody asked for.
    _, faults, _ = check(run, "--smtp-url=nonsense", "--verification=email", "--port=70000")
    assert [fault.split()[0] for fault in faults] == ["port", "smtp_url", "verification"]


def test_two_ports_that_are_one_are_found(run: Run) -> None:
    port = find_free_port()
    _, (fault,), _ = check(run, f"--port={port}", f"--admin-port={port}")
    assert fault.startswith(f"admin_port: can't listen on 127.0.0.1 port {port}")


def test_ports_of_the_server_that_runs_are_a_warning(run: Run, tmp_path: Path) -> None:
    guard = ServingGuard(tmp_path / "wallet-sync.db")
    with ExitStack() as ending, socket.create_server(("127.0.0.1", 0)) as taken:
        ending.callback(guard.release)
        code, faults, warnings = check(run, f"--port={taken.getsockname()[1]}")
    assert (code, faults) == (0, [])
    assert any(text.endswith("a server runs on this database") for text in warnings)


def test_a_database_that_cannot_be_written_is_found(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To root every file is writable.
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    (tmp_path / "wallet-sync.db").touch()
    _, faults, _ = check(run)
    assert faults == [
        f"the folder of the database, {tmp_path}, can't be written to",
        f"the database, {tmp_path}/wallet-sync.db, can't be read and written",
    ]


def test_an_extra_that_is_missing_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _, (fault,), _ = check(run, f"--lbry-port={find_free_port()}")
    assert fault.endswith("pip install 'wallet-sync[server,lbry]'")


def test_too_few_descriptors_are_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_connections_max", lambda: 200)
    code, faults, (warning,) = check(run)
    assert (code, faults) == (0, [])
    assert warning.startswith("the limit of descriptors, 264, leaves room for fewer")
    code, (fault,), warnings = check(run, "--connections-max=500")
    assert (code, warnings) == (1, [])
    assert "fewer than 500 connections" in fault


def test_a_file_that_is_not_there_is_a_finding(run: Run) -> None:
    code, faults, _ = check(run, "--config=missing.toml")
    assert (code, faults) == (1, ["the configuration file missing.toml does not exist"])


def test_variables_of_the_client_are_no_mistake(run: Run) -> None:
    _, _, warnings = check(run, WSSERVER_URL="wss://sync.example", WSSERVER_CA="ca.pem")
    assert not any("is no setting" in text for text in warnings)
