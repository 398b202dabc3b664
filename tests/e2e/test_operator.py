"""The operator's commands, run as they are beside a live server: what they do, say and refuse."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.e2e.conftest import MakeProcess, Serve
from tests.e2e.rawclient import PASSWORD, WAIT_S, CallFailed, RawClient, open_client
from tests.e2e.serving import COMMAND, Served, clean_environment
from wsserver.cli import main
from wsserver.store import operator
from wsserver.store.databases import open_live_database, parse_url

JOE = "joe@example.com"
ANN = "ann@example.com"


@dataclass
class Said:
    """What a command printed."""

    stdout: str
    stderr: str


def invoke(*arguments: str, code: int = 0, **variables: str) -> Said:
    """What the command says, inside this process."""
    unset = {name: None for name in os.environ if name.startswith("WSSERVER_")}
    done = CliRunner().invoke(main, arguments, env={**unset, **variables})
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return Said(done.stdout, done.stderr)


class Operator:
    """Runs commands on a server's database, and leaves the event loop to the server."""

    def __init__(self, database: Path) -> None:
        self.database = database

    async def run(self, *arguments: str, typed: str = "", code: int = 0) -> Said:
        """What `wsserver` says, run as an operator runs it."""
        done = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, *arguments],
            cwd=self.database.parent,
            env=clean_environment(WSSERVER_DATABASE_URL=f"sqlite:///{self.database}"),
            input=typed,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return Said(done.stdout, done.stderr)

    async def say(self, *arguments: str, code: int = 0) -> Said:
        """The same inside this process, which saves it the start."""
        url = f"--database-url=sqlite:///{self.database}"
        return await asyncio.to_thread(invoke, *arguments, url, code=code)

    async def read_json(self, *arguments: str) -> Any:
        return json.loads((await self.say(*arguments, "--json")).stdout)

    async def refuse(self, *arguments: str) -> str:
        """What a command says that can't be done."""
        said = await self.say(*arguments, code=1)
        assert said.stdout == ""
        return said.stderr


@pytest.fixture
def hand(served: Served) -> Operator:
    return Operator(served.database)


async def ended_as(client: RawClient) -> str:
    """Why the session was revoked; nothing came after it but the close."""
    assert await client.closed() == 4401
    assert client.received[-1]["method"] == "session.revoked"
    return str(client.received[-1]["params"]["reason"])


# What a live session sees of it.


async def test_disabling_ends_the_sessions_and_refuses_new_ones(
    served: Served, hand: Operator
) -> None:
    phone = await served.open_account(JOE, device_id="phone")
    laptop, opened = await served.open_device(JOE, "laptop")
    ann = await served.open_account(ANN)

    said = await hand.run("account", "disable", "JOE@example.com")

    assert said.stdout == f"{JOE} is disabled\n"
    assert [await ended_as(phone), await ended_as(laptop)] == ["account_disabled"] * 2
    late = await served.open()
    refusals = [
        await late.fail("session.login", email=JOE, password=PASSWORD, deviceId="phone"),
        await late.fail("session.resume", token=opened["token"]),
    ]
    assert [(it.code, it.reason) for it in refusals] == [(403, "account_disabled")] * 2
    assert await ann.call("server.ping") == {}

    await hand.run("account", "enable", JOE)
    resumed = await late.call("session.resume", token=opened["token"])
    assert resumed["deviceId"] == "laptop"
    await late.push(1)


async def test_what_an_operator_does_takes_effect_within_a_second(served: Served) -> None:
    phone = await served.open_account(JOE, device_id="phone")
    url = parse_url(f"sqlite:///{served.database}")
    took_s = []
    for _ in range(5):
        with open_live_database(url) as connection:
            operator.disable_account(connection, JOE, now_ms=0)
        started_s = time.monotonic()
        assert await ended_as(phone) == "account_disabled"
        took_s.append(time.monotonic() - started_s)
        with open_live_database(url) as connection:
            operator.enable_account(connection, JOE, now_ms=0)
        phone, _ = await served.open_device(JOE, "phone")
    # Of five, for the machine may be busy with others in one of them.
    assert statistics.median(took_s) < 1


async def test_one_device_is_logged_out_and_the_others_stay(served: Served, hand: Operator) -> None:
    phone = await served.open_account(JOE, device_id="phone")
    laptop, opened = await served.open_device(JOE, "laptop")

    said = await hand.run("account", "revoke", JOE, "--device", "laptop")

    assert said.stdout == "logged out: laptop\n"
    assert await ended_as(laptop) == "device_revoked"
    late = await served.open()
    assert (await late.fail("session.resume", token=opened["token"])).reason == "bad_token"
    await phone.push(1)
    listed = (await phone.call("device.list"))["devices"]
    assert [device["deviceId"] for device in listed] == ["phone", "laptop"]

    await hand.say("account", "revoke", JOE, "--device", "laptop", "--forget")
    listed = (await phone.call("device.list"))["devices"]
    assert [device["deviceId"] for device in listed] == ["phone"]


async def test_all_devices_are_logged_out_and_may_log_in_again(
    served: Served, hand: Operator
) -> None:
    phone = await served.open_account(JOE, device_id="phone")
    laptop, _ = await served.open_device(JOE, "laptop")

    await hand.say("account", "revoke", JOE)

    assert [await ended_as(phone), await ended_as(laptop)] == ["device_revoked"] * 2
    again, _ = await served.open_device(JOE, "phone")
    await again.push(1)


async def test_a_device_that_logs_in_right_after_its_revocation_stays(served: Served) -> None:
    phone = await served.open_account(JOE, device_id="phone")
    url = parse_url(f"sqlite:///{served.database}")
    for _ in range(3):
        with open_live_database(url) as connection:
            operator.revoke_devices(connection, JOE, device_id=None, forget=False, now_ms=0)
        again, _ = await served.open_device(JOE, "phone")
        # By the revocation, or, where the login was faster than that, by the login.
        assert await ended_as(phone) in ("device_revoked", "replaced")
        phone = again
    # Two rounds of looking for notices have passed: the last is not about this session.
    await asyncio.sleep(1.1)
    await phone.push(1)


async def test_a_deleted_account_is_gone_and_its_address_is_free(
    served: Served, hand: Operator
) -> None:
    phone = await served.open_account(JOE)
    await phone.push(1)

    said = await hand.run("account", "delete", JOE, typed="n\n", code=1)
    assert f"Delete {JOE} (active, devices: 1, sequence: 1)" in said.stderr
    await phone.push(2)
    said = await hand.run("account", "delete", JOE, typed="y\n")

    assert said.stdout == f"{JOE} is deleted\n"
    assert await ended_as(phone) == "account_deleted"
    late = await served.open()
    refused = await late.fail("session.login", email=JOE, password=PASSWORD, deviceId="phone")
    assert refused.reason == "bad_credentials"
    assert await late.register(JOE) == {"verified": True}


async def test_the_allowlist_is_heeded_at_once(serve: Serve) -> None:
    served = await serve(verification="allowlist", allowlist="eve@example.com")
    hand = Operator(served.database)
    client = await served.open()
    with pytest.raises(CallFailed, match="403"):
        await client.register(JOE)

    said = await hand.run("allowlist", "add", "Joe@Example.com", ANN)
    assert said.stdout == f"added: {JOE}, {ANN}\n"
    assert await client.register(JOE) == {"verified": True}

    assert (await hand.say("allowlist", "remove", JOE, ANN)).stdout == f"removed: {JOE}, {ANN}\n"
    with pytest.raises(CallFailed, match="403"):
        await client.register(ANN)
    assert (await client.login(JOE))["sequence"] == 0


async def test_a_registration_is_verified_where_the_mail_does_not_arrive(serve: Serve) -> None:
    served = await serve(
        verification="email", smtp_url="console:", public_url="https://sync.example.com"
    )
    hand = Operator(served.database)
    client = await served.open()
    assert await client.register(JOE) == {"verified": False}
    (waiting,) = (await hand.read_json("account", "list"))["accounts"]
    assert (waiting["state"], waiting["accountId"]) == ("unverified", None)
    assert waiting["expiresAt"].endswith("Z")

    assert (await hand.run("account", "verify", JOE)).stdout == f"{JOE} is verified\n"

    assert (await client.login(JOE))["sequence"] == 0
    assert (await hand.say("account", "verify", JOE)).stdout == f"{JOE} was already verified\n"


# What the commands print.


async def test_accounts_are_listed_as_a_table_and_as_json(served: Served, hand: Operator) -> None:
    for number in (1, 2, 3):
        client = await served.open_account(f"user{number}@example.com")
    await client.push(1)
    await hand.say("account", "disable", "user2@example.com")

    table = (await hand.say("account", "list")).stdout.splitlines()
    assert table[0].split() == ["ID", "ADDRESS", "STATE", "SEQUENCE", "DEVICES", "CREATED"]
    assert [line.split()[1:5] for line in table[1:]] == [
        ["user1@example.com", "active", "0", "1"],
        ["user2@example.com", "disabled", "0", "1"],
        ["user3@example.com", "active", "1", "1"],
    ]
    # Apart from the server, which may have something to log meanwhile.
    page = await hand.run("account", "list", "--limit", "2")
    assert len(page.stdout.splitlines()) == 3
    assert page.stderr == "there are more: --after user2@example.com\n"

    first = await hand.read_json("account", "list", "--limit=2")
    assert first["next"] == "user2@example.com"
    second = await hand.read_json("account", "list", "--limit=2", "--after", first["next"])
    assert [each["email"] for each in second["accounts"]] == ["user3@example.com"]
    assert second["next"] is None
    found = await hand.read_json("account", "list", "--filter", "USER1@")
    assert [each["email"] for each in found["accounts"]] == ["user1@example.com"]


async def test_an_account_is_shown_with_its_devices(served: Served, hand: Operator) -> None:
    client = await served.open_account(JOE, device_id="phone", deviceName="Joe's phone")
    await client.push(1)
    laptop, _ = await served.open_device(JOE, "laptop")
    await laptop.call("session.logout")

    shown = await hand.read_json("account", "show", JOE)

    assert shown["account"]["state"] == "active"
    assert (shown["account"]["sequence"], shown["account"]["devices"]) == (1, 2)
    told = [
        (it["deviceId"], it["name"], it["loggedIn"], it["appliedSequence"])
        for it in shown["devices"]
    ]
    assert told == [("phone", "Joe's phone", True, 1), ("laptop", None, False, 0)]
    assert all(it["lastSeenAt"].endswith("Z") for it in shown["devices"])
    lines = (await hand.say("account", "show", JOE)).stdout.splitlines()
    assert lines[0].split() == ["address", JOE]
    assert ["phone", "Joe's", "phone", "yes", "1"] in [line.split()[:5] for line in lines]
    assert ["laptop", "-", "no", "0"] in [line.split()[:4] for line in lines]


async def test_nothing_that_a_login_could_be_made_of_is_printed(
    served: Served, hand: Operator
) -> None:
    client = await served.open_account(JOE)
    await client.push(1, "the wallet itself")
    shown = (await hand.say("account", "show", JOE, "--json")).stdout
    listed = (await hand.say("account", "list", "--json")).stdout
    names = {
        name
        for each in (json.loads(shown)["account"], *json.loads(listed)["accounts"])
        for name in each
    } | {name for each in json.loads(shown)["devices"] for name in each}
    assert names == {
        "accountId",
        "appliedSequence",
        "createdAt",
        "deviceId",
        "devices",
        "email",
        "expiresAt",
        "lastSeenAt",
        "loggedIn",
        "name",
        "sequence",
        "state",
    }
    assert "the wallet itself" not in shown + listed


async def test_every_change_tells_as_json_what_it_changed(served: Served, hand: Operator) -> None:
    await served.open_account(JOE, device_id="phone")
    for command, changed, state in (
        ("verify", False, "active"),
        ("disable", True, "disabled"),
        ("disable", False, "disabled"),
        ("enable", True, "active"),
    ):
        told = await hand.read_json("account", command, JOE)
        assert (told["changed"], told["account"]["state"]) == (changed, state)
    for devices in (["phone"], []):
        told = await hand.read_json("account", "revoke", JOE)
        assert (told["changed"], told["devices"]) == (bool(devices), devices)
    told = await hand.read_json("account", "delete", JOE, "--yes")
    assert (told["changed"], told["account"]["email"]) == (True, JOE)

    assert await hand.read_json("allowlist", "add", JOE, ANN) == {"added": [JOE, ANN]}
    assert await hand.read_json("allowlist", "add", JOE) == {"added": []}
    listed = (await hand.read_json("allowlist", "list"))["addresses"]
    assert [entry["email"] for entry in listed] == [ANN, JOE]
    assert [line.split()[0] for line in (await hand.say("allowlist", "list")).stdout.splitlines()]
    assert await hand.read_json("allowlist", "remove", JOE) == {"removed": [JOE]}


# Epochs.


async def test_epochs_are_renewed_while_no_server_is_running(make_process: MakeProcess) -> None:
    process = make_process()
    hand = Operator(process.database)
    await process.start()
    before, token = await open_and_tell(process.url)
    assert f"(process {process.pid})" in await hand.refuse("epoch", "renew")
    assert await epoch_of(process.url, token) == before

    process.end()
    kept = await hand.read_json("epoch", "renew", "--keep-tokens")
    assert kept == {"accounts": 1, "tokensKept": True}
    await process.start()
    assert await epoch_of(process.url, token) not in (before, None)

    process.end()
    said = await hand.run("epoch", "renew")
    assert said.stdout == "accounts with a new epoch: 1; all devices are logged out\n"
    await process.start()
    assert await epoch_of(process.url, token) is None


async def open_and_tell(url: str) -> tuple[str, str]:
    """The epoch of a new account, and a token of it."""
    async with open_client(url) as client:
        await client.register(JOE)
        opened = await client.login(JOE)
        return opened["epoch"], opened["token"]


async def epoch_of(url: str, token: str) -> str | None:
    """What a resume tells; None where the token is no good any more."""
    async with open_client(url) as client:
        try:
            return str((await client.call("session.resume", token=token))["epoch"])
        except CallFailed as error:
            assert error.reason == "bad_token"
            return None


# What the commands refuse, and how they help.

COMMANDS = [
    ["account", "list"],
    ["account", "show", JOE],
    ["account", "verify", JOE],
    ["account", "disable", JOE],
    ["account", "enable", JOE],
    ["account", "revoke", JOE],
    ["account", "delete", JOE, "--yes"],
    ["allowlist", "add", JOE],
    ["allowlist", "remove", JOE],
    ["allowlist", "list"],
    ["epoch", "renew"],
    ["backup", "wallets.bak"],
    ["restore", "wallets.bak"],
]
ids = [" ".join(command[:2]) for command in COMMANDS]


async def test_what_is_not_there_is_told_in_a_sentence(hand: Operator) -> None:
    for command in COMMANDS[1:7]:
        said = await hand.refuse(*command)
        assert said == f"wsserver: no account has the address {JOE}\n"
    assert JOE in await hand.refuse("allowlist", "remove", JOE)


async def test_a_device_that_is_not_there_is_told(served: Served, hand: Operator) -> None:
    await served.open_account(JOE)
    assert "no device tablet" in await hand.refuse("account", "revoke", JOE, "--device", "tablet")


@pytest.mark.parametrize("command", COMMANDS[:-1], ids=ids[:-1])
def test_a_database_that_does_not_exist_is_not_made(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "missing.db"
    said = invoke(*command, f"--database-url=sqlite:///{path}", code=1)
    assert said.stderr == f"wsserver: there is no database {path}\n"
    assert [*tmp_path.iterdir()] == []


def test_the_database_is_the_one_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "wsserver.toml"
    file.write_text('database_url = "sqlite:///missing.db"\n')
    for arguments, variables in (
        ([f"--config={file}"], {}),
        ([], {"WSSERVER_CONFIG": str(file)}),
        ([], {"WSSERVER_DATABASE_URL": "sqlite:///missing.db"}),
    ):
        said = invoke("account", "list", *arguments, code=1, **variables)
        assert "missing.db" in said.stderr
    assert "WSSERVER_PORT" in invoke("account", "list", code=2, WSSERVER_PORT="many").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["account", "show"],
        ["account", "disable", JOE, ANN],
        ["account", "list", "--limit=0"],
        ["allowlist", "add"],
        ["allowlist", "add", JOE, "no address"],
        ["account", "rename"],
    ],
)
def test_misuse_exits_with_2(arguments: list[str]) -> None:
    assert "Usage: " in invoke(*arguments, code=2).stderr


@pytest.mark.parametrize("command", COMMANDS, ids=ids)
def test_every_command_teaches_by_example(command: list[str]) -> None:
    named = [part for part in command[:2] if not part.endswith(".bak")]
    text = invoke(*named, "--help").stdout
    assert f"\n  wsserver {' '.join(named)}" in text
    for flag in ("--json", "--database-url", "--config"):
        assert flag in text
    assert "Exit codes" in text


@pytest.mark.parametrize("group", ["account", "allowlist", "epoch"])
def test_a_group_s_help_says_what_each_command_does(group: str) -> None:
    text = invoke(group, "--help").stdout
    listed = text.partition("Commands:")[2]
    for name in (command[1] for command in COMMANDS if command[0] == group):
        assert f"\n  {name} " in listed
    assert "..." not in listed
