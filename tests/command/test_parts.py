"""The command's parts by themselves: keys, copies, merges, and what is told how."""

from __future__ import annotations

import importlib.util
import stat
import tomllib
import typing
from dataclasses import replace
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.chainer import ChainerBackend
from keyring.backends.fail import Keyring as FailKeyring
from keyring.errors import KeyringLocked
from packaging.requirements import Requirement

from tests.command.conftest import MemoryKeyring
from wsclient import command
from wsclient.command.console import printable, tabulate
from wsclient.command.failures import CommandFailed, ExitCode, describe_failure
from wsclient.command.local_keys import FILE, LocalKeys, find_keyring
from wsclient.command.merging import find_form, make_merge, merge_copy
from wsclient.command.private_files import write_private
from wsclient.command.telling import describe_event, encode_event
from wsclient.command.working_copies import FILES_MAX, WorkingCopies
from wsclient.crypto import DEFAULT_KDF
from wsclient.errors import (
    AccountDisabled,
    AnswerLost,
    BadCredentials,
    BadToken,
    CannotConnect,
    CannotMerge,
    Conflict,
    FolderInUse,
    LocalStateDamaged,
    RateLimited,
    SessionEnded,
    StateRefused,
    Unavailable,
    WalletSyncError,
    WalletTooLarge,
    WeakKdf,
    WrongPassword,
)
from wsclient.wallet_events import (
    ConflictMerged,
    DeviceUpdated,
    PasswordNeeded,
    Pushed,
    PushRefused,
    Restored,
    Status,
    StatusChanged,
    Stopped,
    ValueChanged,
    WalletEvent,
)
from wsschema.messages import Device
from wsschema.samples import THEN

ROOT = Path(__file__).parents[2]
KEY = bytes(range(32))


class PlaintextKeyring(MemoryKeyring):
    """One that keyring does not recommend."""

    priority = 0.5


# Keys.


@pytest.mark.parametrize(
    "ring",
    [
        FailKeyring(),  # type: ignore[no-untyped-call]  # the library's own
        PlaintextKeyring(),
        MemoryKeyring(KeyringLocked("it is locked")),
    ],
)
def test_a_keyring_that_protects_nothing_gets_no_key(tmp_path: Path, ring: KeyringBackend) -> None:
    keyring.set_keyring(ring)
    keys = LocalKeys(tmp_path)

    assert keys.keep(KEY) == "file"

    assert keys.find() == KEY
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert not getattr(ring, "kept", None)


def test_a_chain_of_keyrings_is_trusted_as_its_weakest(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = ChainerBackend()  # type: ignore[no-untyped-call]  # the library's own
    keyring.set_keyring(chain)

    for links, trusted in (
        ([MemoryKeyring()], True),
        ([MemoryKeyring(), PlaintextKeyring()], False),
        ([], False),
    ):
        monkeypatch.setattr(ChainerBackend, "backends", links)
        assert (find_keyring() is chain) is trusted


def test_a_key_in_a_file_is_forgotten(tmp_path: Path) -> None:
    keys = LocalKeys(tmp_path)
    keys.keep(KEY)

    keys.forget()

    assert keys.find() is None


def test_a_key_that_moves_to_the_keyring_leaves_no_file(tmp_path: Path) -> None:
    keys = LocalKeys(tmp_path)
    keys.keep(KEY)
    ring = MemoryKeyring()
    keyring.set_keyring(ring)

    assert keys.keep(KEY) == "keyring"

    assert not (tmp_path / FILE).exists()
    assert keys.find() == KEY
    keys.forget()
    assert ring.kept == {}


def test_each_folders_key_is_another(tmp_path: Path) -> None:
    keyring.set_keyring(MemoryKeyring())
    LocalKeys(tmp_path / "a").keep(KEY)

    assert LocalKeys(tmp_path / "b").find() is None


def test_what_is_no_key_is_none(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("damaged")

    assert LocalKeys(tmp_path).find() is None


# Files.


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_private(path, b"before")

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_private(path, b"after")

    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"before"]


def test_a_copy_is_recalled_by_its_file_and_its_key(tmp_path: Path) -> None:
    copies = WorkingCopies(tmp_path, KEY)
    copies.remember("a", b"what only joe knows")
    copies.remember("b", b"two")

    assert WorkingCopies(tmp_path, KEY).recall("a") == b"what only joe knows"
    assert WorkingCopies(tmp_path, bytes(32)).recall("a") is None
    assert copies.recall("c") is None
    assert not any(b"only joe" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_copy_is_forgotten_when_asked_or_when_there_are_many(tmp_path: Path) -> None:
    copies = WorkingCopies(tmp_path, KEY)
    for number in range(FILES_MAX + 1):
        copies.remember(str(number), b"copy")
    copies.remember("2", None)

    kept = [number for number in range(FILES_MAX + 1) if copies.recall(str(number)) is not None]
    assert kept == [1, *range(3, FILES_MAX + 1)]


# Merging.


@pytest.mark.parametrize(
    ("wallets", "form"),
    [
        ([b"{}", b"[]"], "json"),
        ([b"{}", b"a line"], "text"),
        (["ä".encode()], "text"),
        ([b"{}", b"\xff"], "newest"),
    ],
)
def test_a_wallet_is_merged_as_what_it_is(wallets: list[bytes], form: str) -> None:
    assert find_form("auto", *wallets) == form
    assert find_form("text", *wallets) == "text"


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        (b'{"a":1}', b'{"a":1,"b":1}', b'{"a":1,"c":1}', b'{"a":1,"b":1,"c":1}'),
        (b"a\nb\nc", b"a\nb\nd", b"e\nb\nc", b"e\nb\nd"),
        (b"\x80", b"\x81", b"\x82", b"\x81"),
    ],
)
def test_a_wallet_merges_by_itself(base: bytes, mine: bytes, theirs: bytes, merged: bytes) -> None:
    assert make_merge("auto", {})(base, mine, theirs) == merged


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "where"),
    [
        (b'{"a":{"b":1}}', b'{"a":{"b":2}}', b'{"a":{"b":3}}', "/a/b"),
        (b"a", b"b", b"c", "1 lines"),
        (b"\x80", b"\x81", b"\x82", "as a whole"),
        (None, b'{"a":1}', b'{"a":2}', "/a"),
    ],
)
def test_a_copys_conflict_is_named_and_settled_by_who_is_preferred(
    base: bytes | None, mine: bytes, theirs: bytes, where: str
) -> None:
    with pytest.raises(CommandFailed, match=where) as caught:
        merge_copy("auto", {}, base, mine, theirs)

    assert caught.value.failure.exit_code is ExitCode.CONFLICT
    assert merge_copy("auto", {}, base, mine, theirs, "mine") == mine
    assert merge_copy("auto", {}, base, mine, theirs, "theirs") == theirs


def test_of_many_conflicts_some_are_named() -> None:
    def wallet(value: int) -> bytes:
        return ("{" + ",".join(f'"{name}":{value}' for name in "abcdefg") + "}").encode()

    with pytest.raises(CommandFailed, match="/a, /b, /c, /d, /e and 2 more"):
        merge_copy("json", {}, wallet(0), wallet(1), wallet(2))


# What is told.

DEVICE = Device("3f9c1a2b3f9c1a2b", "Joe's phone", THEN, THEN, True, False, 7)
EVENTS: list[WalletEvent] = [
    StatusChanged(Status.OFFLINE, "the cable is out", 3.0),
    ValueChanged(b"secret", 7, DEVICE.device_id),
    ConflictMerged(b"secret", b"secret", b"secret", b"secret", 7),
    Pushed(7),
    PushRefused(WalletTooLarge("too large")),
    DeviceUpdated(DEVICE),
    Restored("epoch"),
    PasswordNeeded("changed_elsewhere"),
    Stopped(SessionEnded("device_revoked")),
]


def test_every_event_has_a_line_and_a_document_and_neither_has_the_wallet() -> None:
    assert {type(event) for event in EVENTS} == set(typing.get_args(WalletEvent))
    for event in EVENTS:
        line, document = describe_event(event, "laptop"), encode_event(event)

        assert line
        assert "\n" not in line
        assert "secret" not in f"{line} {document}"
    assert len({encode_event(event)["event"] for event in EVENTS}) == len(EVENTS)


def test_ones_own_change_is_told_from_anothers() -> None:
    event = ValueChanged(b"secret", 7, "laptop")

    assert "here" in describe_event(event, "laptop")
    assert "laptop" in describe_event(event, "phone")
    assert "3f9c1a2b " in describe_event(DeviceUpdated(replace(DEVICE, name=None)), "laptop")


ERRORS = [
    (CannotConnect("wss://x/v1", "no answer"), ExitCode.CANNOT_CONNECT, "cannot_connect"),
    (TimeoutError("too late"), ExitCode.CANNOT_CONNECT, "timeout_error"),
    (AnswerLost("wallet.push"), ExitCode.CANNOT_CONNECT, "answer_lost"),
    (Unavailable(retry_after_ms=10), ExitCode.CANNOT_CONNECT, "unavailable"),
    (BadCredentials(), ExitCode.NOT_LOGGED_IN, "bad_credentials"),
    (BadToken(), ExitCode.NOT_LOGGED_IN, "bad_token"),
    (WrongPassword("folder"), ExitCode.NOT_LOGGED_IN, "wrong_password"),
    (SessionEnded("device_revoked"), ExitCode.NOT_LOGGED_IN, "session_ended"),
    (AccountDisabled(), ExitCode.NOT_LOGGED_IN, "account_disabled"),
    (Conflict(None), ExitCode.CONFLICT, "conflict"),
    (CannotMerge("theirs", "is no JSON"), ExitCode.CONFLICT, "cannot_merge"),
    (StateRefused("went_back", 3, "it went back"), ExitCode.SERVER_LIED, "state_refused"),
    (WeakKdf(DEFAULT_KDF, DEFAULT_KDF), ExitCode.SERVER_LIED, "weak_kdf"),
    (FolderInUse("folder", 7), ExitCode.IN_USE, "folder_in_use"),
    (LocalStateDamaged("path", "is damaged", "-"), ExitCode.FAILED, "local_state_damaged"),
    (RateLimited(retry_after_ms=2000), ExitCode.FAILED, "rate_limited"),
    (WalletSyncError("whatever"), ExitCode.FAILED, "wallet_sync_error"),
    (FileNotFoundError(2, "no such file", "wallet"), ExitCode.FAILED, "os_error"),
]


@pytest.mark.parametrize(("error", "code", "reason"), ERRORS)
def test_every_error_has_its_exit_code_and_its_reason(
    error: Exception, code: ExitCode, reason: str
) -> None:
    failure = describe_failure(error)

    assert failure is not None
    assert (failure.exit_code, failure.reason) == (code, reason)


def test_a_fault_of_our_own_is_no_failure_to_be_told() -> None:
    assert describe_failure(ZeroDivisionError()) is None


def test_what_others_wrote_does_not_steer_the_terminal() -> None:
    assert (
        printable("a\x1b[2Jb\x9bc\u202ed\n")
        == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}d\n"
    )


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    assert tabulate(("A", "B"), [("long", "x")]) == "A     B\nlong  x"


# The extra.


def test_without_its_packages_the_command_says_what_brings_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "rich" else found(name)
    )

    assert command.main() == 1

    said = capsys.readouterr()
    assert said.out == ""
    assert "needs rich: pip install 'wallet-sync[cli]'" in said.err
    assert said.err.count("\n") == 1


def test_the_packages_that_the_command_asks_for_are_those_of_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = [Requirement(line).name for line in project["optional-dependencies"]["cli"]]

    assert list(command.PACKAGES) == extra
