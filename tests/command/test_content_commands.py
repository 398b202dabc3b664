"""What is in the wallet: pushed, pulled, put together, put back."""

from __future__ import annotations

import asyncio
import json
import signal
import stat

import pytest

from tests.command.conftest import MakeUser, User
from tests.e2e.serving import ServerProcess
from wsclient.command import content_commands


def test_what_one_device_pushes_another_one_pulls(joe: User, joes_phone: User) -> None:
    said = joe.push('{"theme": "dark"}')

    assert said.stdout == "pushed, sequence 1\n"
    assert joes_phone.pull() == '{"theme": "dark"}'


def test_a_pulled_file_is_as_it_was_pushed_and_nobody_elses_to_read(
    joe: User, joes_phone: User
) -> None:
    value = bytes(range(256))
    (joe.folder / "wallet").write_bytes(value)
    joe.run("push", "wallet")

    said = joes_phone.run("pull", "copy")

    copy = joes_phone.folder / "copy"
    assert said.stdout == "copy: 256 bytes, sequence 1\n"
    assert copy.read_bytes() == value
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_what_is_no_text_is_base64_in_a_document(joe: User) -> None:
    joe.run("push", "-", typed=b"\xff\x00")

    assert joe.run_json("pull") == {"sequence": 1, "wallet": "/wA=", "encoding": "base64"}


def test_a_wallet_is_pushed_from_standard_input(joe: User) -> None:
    document = joe.run_json("push", "-", typed="hello")

    assert document == {"changed": True, "merged": False, "sequence": 1}
    assert joe.pull() == "hello"


def test_what_is_there_already_is_not_pushed_again(joe: User) -> None:
    joe.push("one")

    assert joe.push("one").stdout == "nothing new, sequence 1\n"


def test_an_account_without_a_wallet_says_so(joe: User) -> None:
    said = joe.run("pull", "--json", code=1)

    assert said.document["error"]["reason"] == "no_wallet"


def test_a_push_keeps_what_others_changed_since_the_pull(joe: User, joes_phone: User) -> None:
    joe.push('{"a": 1, "b": 1}')
    joe.run("pull", "wallet.json")
    joes_phone.push('{"a": 1, "b": 1}')
    joes_phone.push('{"a": 2, "b": 1}')
    joe.run("devices")  # this brings the phone's change here, and not into the file
    joe.write("wallet.json", '{"a": 1, "b": 3}')

    said = joe.run("push", "wallet.json")

    assert json.loads(joe.pull()) == {"a": 2, "b": 3}
    assert "wsclient pull brings it into FILE" in said.stderr


def test_what_a_file_removed_since_the_pull_stays_removed(joe: User) -> None:
    joe.push('{"a": 1, "b": 1}')
    joe.run("pull", "wallet.json")
    joe.write("wallet.json", '{"a": 1}')

    joe.run("push", "wallet.json")

    assert json.loads(joe.pull()) == {"a": 1}


def test_a_pipe_from_a_pull_to_a_push_keeps_what_others_changed(
    joe: User, joes_phone: User
) -> None:
    joe.push('{"a": 1, "b": 1}')
    pulled = joe.pull()
    joes_phone.run("pull", "wallet")
    joes_phone.push('{"a": 2, "b": 1}')

    joe.run("push", "-", typed=pulled.replace('"b": 1', '"b": 3'))

    assert json.loads(joe.pull()) == {"a": 2, "b": 3}


def test_what_both_sides_changed_is_for_a_person_to_decide(joe: User, joes_phone: User) -> None:
    joe.push('{"a": 1, "b": 1}')
    joes_phone.run("pull", "wallet")
    joe.push('{"a": 2, "b": 1}')

    said = joes_phone.push('{"a": 3, "b": 1}', "--json", code=5)

    assert said.document["error"]["reason"] == "conflict"
    assert "/a" in said.document["error"]["message"]
    assert json.loads(joe.pull()) == {"a": 2, "b": 1}
    joes_phone.push('{"a": 3, "b": 1}', "--prefer", "theirs")
    assert json.loads(joe.pull()) == {"a": 2, "b": 1}
    joes_phone.push('{"a": 4, "b": 1}', "--prefer", "mine")
    assert json.loads(joe.pull()) == {"a": 4, "b": 1}


def test_replacing_merges_nothing(joe: User, joes_phone: User) -> None:
    joe.push('{"a": 1}')

    joes_phone.push('{"b": 1}', "--replace")

    assert json.loads(joe.pull()) == {"b": 1}


def test_a_first_push_to_a_wallet_that_is_there_drops_nothing_of_it(
    joe: User, joes_phone: User
) -> None:
    joe.push('{"a": 1}')

    joes_phone.push('{"b": 1}')

    assert json.loads(joe.pull()) == {"a": 1, "b": 1}


def test_a_profile_of_json_takes_nothing_else(make_user: MakeUser, email: str) -> None:
    user = make_user()
    user.register(email, "--merge", "json")

    said = user.push("{", "--json", code=1)

    assert said.document["error"]["reason"] == "not_json"


def test_a_list_is_merged_by_the_member_that_tells_its_elements_apart(
    make_user: MakeUser, email: str
) -> None:
    laptop, phone = make_user("laptop"), make_user("phone")
    laptop.register(email, "--identity", "/entries=id")
    laptop.push('{"entries": [{"id": 1, "a": 1, "b": 1}]}')
    phone.login(email, "--identity", "/entries=id")
    phone.run("pull", "wallet")
    laptop.push('{"entries": [{"id": 1, "a": 2, "b": 1}]}')

    phone.push('{"entries": [{"id": 1, "a": 1, "b": 2}]}')

    assert json.loads(phone.pull()) == {"entries": [{"id": 1, "a": 2, "b": 2}]}


def test_a_wallet_that_the_server_refuses_is_taken_back(joe: User) -> None:
    joe.push("small")

    said = joe.push("x" * 300_000, "--json", code=1)

    assert said.document["error"]["reason"] == "wallet_too_large"
    assert joe.pull() == "small"
    joe.push("smaller")
    assert joe.pull() == "smaller"


def test_without_a_connection_a_push_is_kept_and_goes_out_later(
    make_user: MakeUser, own_server: ServerProcess, email: str
) -> None:
    user = make_user(url=own_server.url)
    user.register(email)
    user.push("one")
    own_server.end()

    assert user.push("two", "--json", code=3).document["error"]["reason"] == "kept_here"
    assert user.run("pull", code=3).stdout == ""
    assert user.run("pull", "--offline").stdout == "two"
    status = user.run_json("status")
    assert (status["online"], status["unsynced"]) == (False, True)

    asyncio.run(own_server.start())
    status = user.run_json("status")
    assert (status["online"], status["unsynced"], status["sequence"]) == (True, False, 2)


def test_the_history_tells_who_pushed_what(joe: User, joes_phone: User) -> None:
    joe.push("one")
    joes_phone.run("pull", "wallet")
    joes_phone.push("two")

    table = joe.run("history").stdout.splitlines()
    versions = joe.run_json("history", "--limit", "1")["versions"]

    assert [line.split()[0] for line in table] == ["SEQUENCE", "2", "1"]
    assert "phone" in table[1]
    assert [version["sequence"] for version in versions] == [2]


def test_an_older_version_is_brought_back_as_the_next_one(joe: User, joes_phone: User) -> None:
    joe.push("one")
    joe.push("two")

    document = joe.run_json("restore", "1")

    assert document == {"restored": 1, "changed": True, "sequence": 3}
    assert joes_phone.pull() == "one"
    assert joe.run_json("restore", "1")["changed"] is False


def test_a_version_that_is_not_kept_cannot_be_restored(joe: User) -> None:
    joe.push("one")

    said = joe.run("restore", "7", "--json", code=1)

    assert said.document["error"]["reason"] == "no_such_version"


def test_a_server_that_went_back_in_time_is_caught_until_it_is_believed(
    make_user: MakeUser, own_server: ServerProcess, email: str
) -> None:
    user = make_user(url=own_server.url)
    user.register(email)
    user.push("one")
    _stop(own_server)
    kept = own_server.database.read_bytes()
    asyncio.run(own_server.start())
    user.push("two")
    _stop(own_server)
    own_server.database.write_bytes(kept)
    asyncio.run(own_server.start())

    said = user.run("pull", "--json", code=6)
    assert said.document["error"]["reason"] == "state_refused"
    assert user.run("pull", "--offline").stdout == "two"
    assert "--yes" in user.run("recover", code=2).stderr
    assert user.run_json("recover", "--yes") == {"recovered": True, "sequence": 2}
    assert user.pull() == "one\ntwo"
    assert user.run_json("recover")["recovered"] is False


def _stop(server: ServerProcess) -> None:
    """Ends it so that all is in the one file."""
    server.signal(signal.SIGTERM)
    assert asyncio.run(server.wait()) == 0


def test_a_first_wallet_that_the_server_refuses_makes_room_for_the_next(joe: User) -> None:
    joe.push("x" * 300_000, code=1)

    joe.run("devices")
    joe.push("small", "--replace")

    assert joe.pull() == "small"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"b":1,"a":"\u00e4"}', '{\n  "b": 1,\n  "a": "\u00e4"\n}\n'),
        ('{\n"a":1}\n', '{\n"a":1}\n'),
        ('{"amount":0.1000000000000000055}', '{"amount":0.1000000000000000055}'),
    ],
)
def test_json_is_laid_out_for_the_editor_and_loses_nothing(text: str, shown: str) -> None:
    assert content_commands._lay_out(text.encode()).decode() == shown
