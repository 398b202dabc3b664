"""`wsserver doctor`: what is wrong with a server, its machine and what it needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.certificates import Authority
from tests.e2e.conftest import Serve
from tests.e2e.serving import find_free_port, run_command
from tests.mail.relays import Inbox, check_login, serve_smtp
from tests.mail.secrets import PASSWORD, QUOTED_PASSWORD, USER
from tests.servers.nats import Nats
from tests.servers.postgresql import PostgreSQL
from wsserver.cli import main
from wsserver.config import examine
from wsserver.doctor import certificate, command, machine
from wsserver.doctor.database import judge_sqlite
from wsserver.doctor.findings import Finding, Verdict

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
Look = Callable[..., dict[str, Finding]]


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """What each check finds, by its name; on ports that are free unless told."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if "WSSERVER_" in name]:
        monkeypatch.delenv(name)

    def find(**flags: Any) -> dict[str, Finding]:
        ports = {"port": find_free_port(), "admin_port": find_free_port()}
        found = command.find_all(examine({**ports, **flags}))
        return {finding.check: finding for finding in found}

    return find


def bad(found: dict[str, Finding]) -> set[str]:
    return {finding.check for finding in found.values() if finding.verdict is FAIL}


# The whole.


def test_before_the_first_start_nothing_fails_and_nothing_is_made(look: Look) -> None:
    found = look()

    assert not bad(found)
    assert found["database"].text == "there is none yet; the first start makes wallet-sync.db"
    assert "is free" in found["port"].text
    assert not [*Path.cwd().iterdir()]


async def test_beside_a_running_server_it_says_what_that_says_of_itself(
    serve: Serve, look: Look
) -> None:
    served = await serve(admin_port=find_free_port())
    await served.open_account()
    port, admin_port = served.server.port, served.server.admin_port
    settings = {"database_url": f"sqlite:///{served.database}", "port": port}

    found = await asyncio.to_thread(look, **settings, admin_port=admin_port)

    assert not bad(found)
    assert f"ws://127.0.0.1:{port}/v1 is served by wallet-sync" in found["port"].text
    assert "a write was just committed" in found["ready"].text
    assert "with this version's schema" in found["database"].text


def test_the_command_tells_people_and_programs_and_exits_by_what_it_found(tmp_path: Path) -> None:
    ports = [f"--port={find_free_port()}", f"--admin-port={find_free_port()}"]
    well = run_command(["doctor", *ports], tmp_path)
    ill = run_command(
        ["doctor", "--json", *ports, "--verification=open", "--host=0.0.0.0"], tmp_path
    )

    assert well.returncode == 0, well.stdout
    assert "\nok    registration   allowlist, on 127.0.0.1\n" in well.stdout
    assert well.stdout.splitlines()[-1].endswith(" 0 fail")
    assert ill.returncode == 1
    [failed] = [each for each in json.loads(ill.stdout)["findings"] if each["verdict"] == "fail"]
    assert failed["check"] == "registration"
    assert "for development" in failed["advice"]


def test_wrong_settings_are_all_told_and_nothing_else_is_looked_at(look: Look) -> None:
    [finding] = look(port=70_000).values()

    assert (finding.check, finding.verdict) == ("settings", FAIL)
    assert "--port" in finding.text


def test_a_variable_that_is_no_setting_is_told(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSSERVER_ALOWLIST", "joe@example.com")

    assert look()["settings"].verdict is WARN


def test_every_bad_finding_says_what_to_do(look: Look) -> None:
    found = look(
        host="0.0.0.0",  # noqa: S104
        admin_host="8.8.8.8",
        verification="open",
        rate_limits="off",
        trusted_proxies="0.0.0.0/0",
        database_url="sqlite:////nowhere/wallets.db",
        tls_cert="missing.pem",
        tls_key="missing.key",
    )

    for check in ("admin port", "certificate", "database", "limits", "proxies", "registration"):
        assert found[check].verdict is FAIL, found[check]
    for finding in found.values():
        assert (finding.advice is None) == (finding.verdict is OK)


# The machine.


def test_a_clock_that_steps_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = machine.Clock()
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 3600)

    [finding] = clock.check()

    assert finding.verdict is WARN
    assert "it stepped by +3" in finding.text


@pytest.mark.parametrize(("told", "verdict"), [(True, OK), (False, WARN), (None, OK)])
def test_whether_the_network_sets_the_clock_is_told_as_the_kernel_does(
    told: bool | None, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_find_synchronised", lambda: told)

    [finding] = machine.Clock().check()

    assert finding.verdict is verdict


@pytest.mark.skipif(sys.platform != "linux", reason="adjtimex is Linux's")
def test_the_kernel_can_be_asked_about_the_clock() -> None:
    assert machine._find_synchronised() in (True, False, None)


@pytest.mark.parametrize(
    ("kind", "verdict"), [("nfs4", FAIL), ("overlay", WARN), ("tmpfs", WARN), ("ext4", OK)]
)
def test_a_disk_that_is_another_machines_or_passing_is_told(
    kind: str, verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "find_filesystem", lambda folder, mounts: kind)

    found = {finding.check: finding for finding in machine.check_disk(tmp_path, 0)}

    assert found["filesystem"].verdict is verdict


def test_the_kind_of_filesystem_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    (tmp_path / "a disk" / "wallets").mkdir(parents=True)
    spelled = str(tmp_path / "a disk").replace(" ", r"\040")
    mounts = (
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"2 1 0:5 / {spelled} rw - nfs4 server:/export rw\n"
        "3 1 0:6 / /elsewhere rw - tmpfs tmpfs rw\n"
    )

    assert machine.find_filesystem(tmp_path / "a disk" / "wallets", mounts) == "nfs4"
    assert machine.find_filesystem(tmp_path, mounts) == "ext4"


def test_a_full_disk_and_a_slow_one_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "measure_sync", lambda folder: 0.2)
    for free, verdict in ((2**20, FAIL), (2**29, WARN), (2**40, OK)):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, usage=usage: usage)
        found = {finding.check: finding for finding in machine.check_disk(tmp_path, 0)}
        assert (found["disk"].verdict, found["fsync"].verdict) == (verdict, WARN)


def test_too_few_descriptors_fail_where_more_connections_are_set(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "find_connections_max", lambda: 100)

    assert look()["descriptors"].verdict is WARN
    assert look(connections_max=5000)["descriptors"].verdict is FAIL


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((3, 40, 1), WARN),
        ((3, 44, 5), WARN),
        ((3, 44, 6), OK),
        ((3, 45, 0), WARN),
        ((3, 50, 7), OK),
        ((3, 51, 2), WARN),
        ((3, 51, 3), OK),
        ((3, 52, 0), OK),
    ],
)
def test_a_sqlite_that_may_lose_commits_is_told(
    version: tuple[int, int, int], verdict: Verdict
) -> None:
    assert judge_sqlite(version).verdict is verdict


def test_a_clock_that_went_back_shows_in_the_database(look: Look, tmp_path: Path) -> None:
    assert run_command(["migrate"], tmp_path).returncode == 0
    with sqlite3.connect("wallet-sync.db") as connection:
        connection.execute(
            "INSERT INTO installation (id, decoy_key, history_depth, probed_at) "
            "VALUES (1, zeroblob(32), 10, 99999999999999)"
        )
    connection.close()

    assert "clock went back" in look()["database clock"].text


def test_a_schema_of_another_version_is_told(look: Look, tmp_path: Path) -> None:
    sqlite3.connect("wallet-sync.db").close()
    assert look()["database"].verdict is WARN
    assert run_command(["migrate"], tmp_path).returncode == 0
    with sqlite3.connect("wallet-sync.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
    connection.close()

    assert look()["database"].verdict is FAIL


# Many nodes.


def test_postgresql_and_its_bus_are_looked_at(
    look: Look, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    url = postgresql.create_database()
    empty = look(database_url=url)
    assert "there is none yet" in empty["database"].text
    assert run_command(["migrate", f"--database-url={url}"], tmp_path).returncode == 0

    found = look(database_url=url)

    assert found["database"].verdict is OK
    # The tests' own server does not wait for the disk.
    assert "with fsync = off" in found["postgresql"].text
    assert found["bus"].text == "PostgreSQL, which lets this node in"
    assert "sqlite" not in found


def test_a_bus_on_nats_is_reached_or_told(look: Look, postgresql: PostgreSQL, nats: Nats) -> None:
    url = postgresql.create_database()

    assert look(database_url=url, bus_url=nats.url)["bus"].verdict is OK
    away = look(database_url=url, bus_url=f"nats://127.0.0.1:{find_free_port()}")
    assert away["bus"].verdict is FAIL


def test_a_database_that_is_away_fails(look: Look) -> None:
    found = look(database_url=f"postgresql://127.0.0.1:{find_free_port()}/wallets")

    assert {"database", "bus"} <= bad(found)


# The certificate.


def test_a_certificate_is_told_by_what_is_left_of_it(look: Look, authority: Authority) -> None:
    verdicts = {}
    for days in (-1, 1, 90):
        files = authority.issue("server", days=days)
        found = look(tls_cert=files.chain, tls_key=files.key)
        verdicts[days] = found["certificate"]

    assert verdicts[-1].verdict is FAIL
    assert "it expired" in verdicts[-1].text
    assert verdicts[1].verdict is WARN
    assert "stands alone" in verdicts[90].text
    between = authority.issue("between", days=90).chain
    files.chain.write_bytes(files.chain.read_bytes() + between.read_bytes())
    whole = look(tls_cert=files.chain, tls_key=files.key, public_url="https://localhost")
    assert whole["certificate"].verdict is OK
    other = look(tls_cert=files.chain, tls_key=files.key, public_url="https://sync.example.com")
    assert "not for sync.example.com" in other["certificate"].text


def test_a_certificate_that_is_not_in_force_yet_asks_about_the_clock(
    look: Look, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Early(certificate.datetime):  # type: ignore[name-defined, misc]  # as imported there
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return cls(2000, 1, 1, tzinfo=zone)

    files = authority.issue("server")
    monkeypatch.setattr(certificate, "datetime", Early)

    assert "clock" in str(look(tls_cert=files.chain, tls_key=files.key)["certificate"].advice)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


# The network.


@contextlib.contextmanager
def hang_up() -> Iterator[int]:
    """A port where whoever connects is hung up on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        serving.join()


def test_a_port_of_another_program_fails(look: Look) -> None:
    with hang_up() as port:
        found = look(port=port, admin_port=port)

    assert bad(found) == {"port", "ready"}
    assert "another program" in found["port"].text


async def test_a_server_that_is_not_ready_says_why(serve: Serve, look: Look) -> None:
    served = await serve(admin_port=find_free_port())
    served.server._draining = True

    found = await asyncio.to_thread(look, admin_port=served.server.admin_port)

    assert "the server is stopping" in found["ready"].text
    served.server._draining = False


def test_who_is_reached_through_a_proxy_that_nobody_trusts_is_told(look: Look) -> None:
    found = look(public_url="https://sync.example.com", verification="open")

    assert found["proxies"].verdict is WARN
    assert look(trusted_proxies="127.0.0.1")["proxies"].verdict is OK
    assert look(verification="open")["registration"].verdict is OK
    proxied = look(verification="open", trusted_proxies="127.0.0.1")
    assert proxied["registration"].verdict is WARN
    plain = look(host="0.0.0.0", admin_host="0.0.0.0")  # noqa: S104
    assert [plain[check].verdict for check in ("encryption", "admin port")] == [WARN, WARN]
    assert look(admin_port=0)["admin port"].verdict is WARN


# The relay.


def mailing(url: str) -> dict[str, str]:
    return {
        "verification": "email",
        "smtp_url": url,
        "public_url": "https://sync.example.com",
    }


async def test_a_relay_is_greeted_and_logged_in_to_and_gets_no_mail(look: Look) -> None:
    inbox = Inbox()
    options: dict[str, Any] = {"authenticator": check_login, "auth_require_tls": False}
    async with serve_smtp(inbox, **options) as port:
        right = f"smtp://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{port}?starttls=never"
        well = await asyncio.to_thread(look, **mailing(right))
        wrong = f"smtp://{USER}:wrong@127.0.0.1:{port}?starttls=never"
        ill = await asyncio.to_thread(look, **mailing(wrong))
    away = await asyncio.to_thread(look, **mailing(f"smtp://127.0.0.1:{find_free_port()}"))

    assert well["mail"].verdict is OK
    assert "takes the credentials" in well["mail"].text
    assert ill["mail"].verdict is FAIL
    assert "the credentials" in ill["mail"].text
    assert "can't be reached" in away["mail"].text
    assert not inbox.envelopes
    assert all(PASSWORD not in found["mail"].text for found in (well, ill, away))


def test_mails_that_are_printed_are_told(look: Look) -> None:
    assert look(**mailing("console:"))["mail"].verdict is WARN


def test_colours_go_to_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(main, ["doctor", "--port=0", "--admin-port=0"], color=True)

    assert "\x1b[33mwarn\x1b[0m" in shown.output
