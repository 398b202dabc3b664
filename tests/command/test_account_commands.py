"""An account and a device's part in it: made, entered, left, and who is told what."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import keyring
import pytest
from keyring.errors import KeyringLocked

from tests.command.conftest import PASSWORD, WEAK_KDF, MakeUser, MemoryKeyring, User
from tests.e2e.serving import ServerProcess
from wsclient.command import opening
from wsclient.crypto import DEFAULT_KDF


@pytest.fixture
def system_keyring(plain_machine: None) -> MemoryKeyring:
    """The machine has a keyring."""
    ring = MemoryKeyring()
    keyring.set_keyring(ring)
    return ring


def files_of(user: User) -> list[Path]:
    """All that a user's device keeps."""
    return [path for path in user.home.rglob("*") if path.is_file()]


def test_who_registers_is_logged_in(make_user: MakeUser, email: str) -> None:
    user = make_user()

    document = user.run_json(
        "register", email, "--password-stdin", "--device-name", "laptop", typed=f"{PASSWORD}\n"
    )

    assert document.pop("deviceId")
    assert document == {
        "profile": "default",
        "server": user.url,
        "email": email,
        "deviceName": "laptop",
        "verified": True,
        "sequence": 0,
        "keyIn": "file",
    }
    assert user.run_json("status")["online"] is True


def test_an_address_that_is_taken_cannot_be_registered_again(
    joe: User, make_user: MakeUser
) -> None:
    stranger = make_user("stranger")

    said = stranger.run(
        *("register", joe.email, "--password-stdin", "--json"), typed="another one\n", code=1
    )

    assert said.document["error"]["reason"] == "account_exists"
    assert files_of(stranger) == []


def test_where_addresses_are_verified_a_registration_waits_for_its_mail(
    make_user: MakeUser, email: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mailing server"
    folder.mkdir()
    server = ServerProcess(
        folder,
        verification="email",
        smtp_url="smtp://127.0.0.1:9",
        mail_from="wallets@example.com",
        public_url="https://sync.example.com",
    )
    asyncio.run(server.start())
    try:
        user = make_user(url=server.url)
        typed = f"{PASSWORD}\n"
        document = user.run_json("register", email, "--password-stdin", typed=typed)
        said = user.run("login", "--password-stdin", "--json", typed=typed, code=4)
    finally:
        server.end()

    assert document["verified"] is False
    assert said.document["error"]["reason"] in ("bad_credentials", "not_verified")


@pytest.mark.parametrize("email", ["nobody", "Joe <joe@example.com>", "a@b@c"])
def test_what_is_no_address_is_refused_before_a_password_is_asked_for(
    make_user: MakeUser, email: str
) -> None:
    make_user().run("register", email, code=2)


def test_a_wrong_password_leaves_nothing_behind(joe: User, make_user: MakeUser) -> None:
    stranger = make_user("stranger")

    said = stranger.run(
        *("login", joe.email, "--password-stdin", "--json"), typed="a guess\n", code=4
    )

    assert said.document["error"]["reason"] == "bad_credentials"
    assert files_of(stranger) == []


def test_no_file_of_a_device_has_the_root_password_or_the_wallet(
    joe: User, capfd: pytest.CaptureFixture[str]
) -> None:
    joe.push("what only joe knows")
    os.unlink(joe.folder / "wallet")

    for path in files_of(joe):
        content = path.read_bytes()
        assert PASSWORD.encode() not in content
        assert b"only joe" not in content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_key_is_kept_in_the_keyring_where_there_is_one(
    system_keyring: MemoryKeyring, joe: User
) -> None:
    assert joe.run_json("status")["keyIn"] == "keyring"
    assert len(system_keyring.kept) == 1
    assert not any(path.name == "local-key" for path in files_of(joe))

    system_keyring.error = KeyringLocked("it is locked")
    assert joe.run("pull", "--json", code=4).document["error"]["reason"] == "keyring_failed"
    joe.run("logout", code=4)
    system_keyring.error = None
    joe.run("logout")
    assert system_keyring.kept == {}


def test_a_device_that_logged_out_opens_nothing_until_it_logs_in(joe: User) -> None:
    joe.push("one")

    assert joe.run_json("logout") == {"loggedOut": True, "forgotten": False}

    assert joe.run("pull", "--json", code=4).document["error"]["reason"] == "not_logged_in"
    joe.run("pull", "--offline", code=4)
    assert joe.run_json("logout") == {"loggedOut": True, "forgotten": False}
    joe.login(joe.email)
    assert joe.pull() == "one"


def test_logging_out_ends_the_devices_session_on_the_server(joe: User, joes_phone: User) -> None:
    joe.run("logout")

    listed = joes_phone.run_json("devices")["devices"]

    assert [device["online"] for device in listed if not device["current"]] == [False]


def test_what_was_not_sent_survives_a_logout(
    make_user: MakeUser, own_server: ServerProcess, email: str
) -> None:
    user = make_user(url=own_server.url)
    user.register(email)
    own_server.end()
    user.push("one", code=3)

    said = user.run("logout", "--json", code=3)
    asyncio.run(own_server.start())
    user.login(email)

    assert said.document["error"]["reason"] == "server_not_told"
    assert user.run_json("status")["sequence"] == 1
    assert user.pull() == "one"


def test_a_device_can_forget_the_wallet(joe: User) -> None:
    joe.push("one")
    (joe.folder / "wallet").unlink()

    joe.run("logout", "--forget", "--yes")

    assert files_of(joe) == []


def test_a_profile_belongs_to_one_account(joe: User) -> None:
    said = joe.run("login", "ann@example.com", "--json", code=2)

    assert said.document["error"]["reason"] == "profile_taken"


def test_each_profile_is_a_device_of_its_own(joe: User) -> None:
    joe.push("one")
    typed = f"{PASSWORD}\n"

    joe.run("login", joe.email, "--profile", "second", "--password-stdin", typed=typed)

    assert joe.run("pull", "--profile", "second").stdout == "one"
    assert len(joe.run_json("devices")["devices"]) == 2


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b", "x" * 65])
def test_a_profiles_name_is_no_path(make_user: MakeUser, name: str) -> None:
    said = make_user().run("status", "--profile", name, "--json", code=2)

    assert said.document["error"]["reason"] == "bad_profile_name"


def test_a_profile_that_is_not_there_is_a_misuse(make_user: MakeUser) -> None:
    said = make_user().run("pull", "--json", code=2)

    assert said.document["error"]["reason"] == "no_profile"


def test_a_damaged_profile_is_told(joe: User) -> None:
    (joe.home / "default/profile.json").write_text('{"server": 1')

    said = joe.run("pull", "--json", code=1)

    assert said.document["error"]["reason"] == "profile_damaged"


def test_another_address_of_the_server_is_taken_from_a_login(joe: User, server_url: str) -> None:
    moved = server_url.replace("127.0.0.1", "localhost")

    joe.login(joe.email, "--server", moved)

    assert joe.run_json("status")["server"] == moved


def test_a_changed_root_password_is_the_one_that_counts(joe: User, make_user: MakeUser) -> None:
    joe.push("one")

    assert joe.run_json("passwd", "--password-stdin", typed=f"{PASSWORD}\nnew one\n") == {
        "changed": True
    }

    assert joe.pull() == "one"
    other = make_user("other")
    other.run("login", joe.email, "--password-stdin", typed=f"{PASSWORD}\n", code=4)
    other.run("login", joe.email, "--password-stdin", typed="new one\n")
    assert other.pull() == "one"


def test_nobody_changes_the_root_password_without_the_present_one(joe: User) -> None:
    said = joe.run("passwd", "--password-stdin", "--json", typed="a guess\nmine now\n", code=4)

    assert said.document["error"]["reason"] == "wrong_password"
    joe.login(joe.email)


def test_a_password_that_was_changed_elsewhere_is_asked_for(joe: User, joes_phone: User) -> None:
    joe.push("one")
    joe.run("passwd", "--password-stdin", typed=f"{PASSWORD}\nnew one\n")

    said = joes_phone.run("pull", "--json", code=4)

    assert said.document["error"]["reason"] == "bad_credentials"


def test_a_password_file_must_be_ones_own(joe: User) -> None:
    joe.write("secret", f"{PASSWORD}\n")
    secret = joe.folder / "secret"
    secret.chmod(0o640)

    said = joe.run("login", "--password-file", "secret", "--json", code=1)
    secret.chmod(0o600)
    joe.run("login", "--password-file", "secret")

    assert said.document["error"]["reason"] == "password_file_open"


def test_an_empty_password_is_no_password(make_user: MakeUser, email: str) -> None:
    said = make_user().run("register", email, "--password-stdin", "--json", typed="\n", code=2)

    assert said.document["error"]["reason"] == "no_password"


def test_without_a_terminal_nothing_is_asked(make_user: MakeUser, email: str) -> None:
    said = make_user().run("register", email, "--json", code=2)

    assert said.document["error"]["reason"] == "no_terminal"


def test_a_server_that_asks_for_a_weak_derivation_gets_no_password(
    joe: User, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_user("other")
    monkeypatch.setattr(opening, "MINIMUM_KDF", DEFAULT_KDF)
    assert WEAK_KDF.n < DEFAULT_KDF.n

    said = other.run(
        *("login", joe.email, "--password-stdin", "--json"), typed=f"{PASSWORD}\n", code=6
    )

    assert said.document["error"]["reason"] == "weak_kdf"


def test_a_deleted_account_is_gone_from_everywhere(joe: User, joes_phone: User) -> None:
    assert "--yes" in joe.run("delete", code=2).stderr

    joe.run("delete", "--yes")

    assert files_of(joe) == []
    joes_phone.run("pull", code=4)


def test_devices_tells_who_is_here_and_what_each_has(joe: User, joes_phone: User) -> None:
    joe.push("one")

    table = joe.run("devices").stdout.splitlines()
    listed = joe.run_json("devices")["devices"]

    assert table[0].split() == ["DEVICE", "NAME", "ONLINE", "SEQUENCE", "LAST", "SEEN"]
    assert {device["name"]: device["appliedSequence"] for device in listed}["phone"] == 0
    assert [device["current"] for device in listed].count(True) == 1


def test_a_revoked_device_is_off_the_list_and_out_once_the_password_is_another(
    joe: User, joes_phone: User
) -> None:
    listed = joe.run_json("devices")["devices"]
    [phone] = [device["deviceId"] for device in listed if not device["current"]]

    document = joe.run_json("revoke", phone[:6])
    left = joe.run_json("devices")["devices"]
    joe.run("passwd", "--password-stdin", typed=f"{PASSWORD}\nnew one\n")

    assert document["revoked"]["deviceId"] == phone
    assert [device["current"] for device in left] == [True]
    joes_phone.run("pull", code=4)


@pytest.mark.parametrize(("prefix", "reason"), [("zz", "no_such_device"), ("", "no_such_device")])
def test_a_device_that_is_not_named_for_sure_is_not_revoked(
    joe: User, joes_phone: User, prefix: str, reason: str
) -> None:
    said = joe.run("revoke", prefix, "--json", code=2)

    assert said.document["error"]["reason"] == reason


def test_this_device_is_not_revoked_by_itself(joe: User) -> None:
    own = joe.run_json("status")["deviceId"]

    said = joe.run("revoke", own, "--json", code=2)

    assert said.document["error"]["reason"] == "this_device"


def test_the_profiles_settings_are_for_people_to_read(joe: User) -> None:
    settings = json.loads((joe.home / "default/profile.json").read_text())

    assert settings["email"] == joe.email
    assert settings["server"] == joe.url
