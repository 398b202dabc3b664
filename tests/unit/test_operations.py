"""What operations show of themselves, which of them write, and what a write means to others."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from wsschema.errors import BadResetToken, BadToken
from wsschema.messages import Kdf, SealedWallet, WalletState
from wsschema.times import time_from_ms
from wsserver import operations
from wsserver.operations import (
    SCRYPT_N,
    SCRYPT_P,
    SCRYPT_R,
    Acknowledged,
    AcknowledgeState,
    ActivateRegistration,
    Applied,
    CheckPassword,
    CreateAccount,
    Credentials,
    DeviceRecord,
    EndSession,
    FindAllowed,
    FindMoved,
    FindNewestNotice,
    FindOnline,
    FindToken,
    FinishReset,
    HashPassword,
    LoadAccountCredentials,
    LoadCredentials,
    LoadDevices,
    LoadHistory,
    LoadKeyDerivation,
    LoadNotices,
    LoadPendingPassword,
    LoadSession,
    LoadWallet,
    MarkSeen,
    Moved,
    Notice,
    OpenedSession,
    OpenSession,
    Operation,
    PasswordHash,
    ProbeWrite,
    Published,
    Pushed,
    PushState,
    RemoveAccount,
    RemoveDevice,
    RenewRegistration,
    ReplacePassword,
    Revoked,
    SendLetter,
    Standing,
    StartRegistration,
    StartReset,
    events_of,
    perform,
)

ACCOUNT = 7
SECRET = "secret"
SECRET_BYTES = b"secret"
HASH = PasswordHash(SECRET_BYTES, SECRET_BYTES, SCRYPT_N, SCRYPT_R, SCRYPT_P)
KDF = Kdf.scrypt(2**14)
STATE = WalletState(3, SECRET, SECRET, "phone", time_from_ms(0))
DEVICE = DeviceRecord("phone", SECRET, 0, 0, 3)
OPENED = OpenedSession(ACCOUNT, DEVICE, "epoch", STATE, SECRET_BYTES, 0, 0, SECRET)
STANDING = Standing(ACCOUNT, 3, (("phone", SECRET_BYTES),))

OPERATIONS: list[Operation[Any]] = [
    HashPassword(SECRET),
    CheckPassword(SECRET, HASH),
    FindOnline(ACCOUNT),
    LoadCredentials(SECRET),
    LoadAccountCredentials(ACCOUNT),
    LoadKeyDerivation(SECRET),
    FindToken(SECRET_BYTES),
    LoadSession(SECRET_BYTES),
    LoadWallet(ACCOUNT, None),
    LoadHistory(ACCOUNT, 20, None),
    LoadDevices(ACCOUNT),
    CreateAccount(SECRET, HASH, SECRET, KDF, True),
    OpenSession(ACCOUNT, HASH, HASH, "phone", SECRET, 64, frozenset()),
    PushState(SECRET_BYTES, ACCOUNT, 1, 3, SECRET, SECRET),
    AcknowledgeState(SECRET_BYTES, ACCOUNT, 3),
    ReplacePassword(
        SECRET_BYTES, ACCOUNT, HASH, HASH, SECRET, KDF, SealedWallet(1, SECRET, SECRET)
    ),
    RemoveAccount(SECRET_BYTES, ACCOUNT, HASH),
    EndSession(SECRET_BYTES, ACCOUNT),
    RemoveDevice(SECRET_BYTES, ACCOUNT, "phone"),
    MarkSeen(SECRET_BYTES, 0),
    ProbeWrite(),
    FindNewestNotice(),
    LoadNotices(0, 100),
    FindMoved((STANDING,), 64),
    FindAllowed(SECRET),
    LoadPendingPassword(SECRET),
    StartRegistration(SECRET, HASH, SECRET, KDF),
    RenewRegistration(SECRET),
    ActivateRegistration(SECRET_BYTES),
    StartReset(SECRET),
    FinishReset(SECRET_BYTES, HASH, SECRET, KDF),
    SendLetter("reset", SECRET, SECRET),
]
NOTICE = Notice(1, ACCOUNT, "replaced", "phone", SECRET_BYTES)
ANSWERS: list[Any] = [
    NOTICE,
    STANDING,
    Moved(ACCOUNT, 3, STATE, ((SECRET_BYTES, "account_deleted"),)),
    HASH,
    OPENED,
    Pushed(STATE, fresh=True),
    Acknowledged(DEVICE, changed=True),
    Credentials(ACCOUNT, HASH, True, False),
    Published(ACCOUNT, STATE, 1),
    Revoked(ACCOUNT, "replaced", "phone", SECRET_BYTES, SECRET_BYTES),
]


def test_every_operation_is_listed_here() -> None:
    kinds = {
        kind
        for kind in vars(operations).values()
        if isinstance(kind, type) and issubclass(kind, Operation) and kind is not Operation
    }
    assert {type(operation) for operation in OPERATIONS} == kinds


@pytest.mark.parametrize("value", [*OPERATIONS, *ANSWERS], ids=lambda value: type(value).__name__)
def test_nothing_that_a_user_entrusted_to_us_is_shown(value: Any) -> None:
    assert SECRET not in repr(value)


@pytest.mark.parametrize("value", [*OPERATIONS, *ANSWERS], ids=lambda value: type(value).__name__)
def test_what_crosses_threads_cannot_be_changed(value: Any) -> None:
    name = next((member.name for member in dataclasses.fields(value)), "new_member")
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        setattr(value, name, 8)


def test_operations_that_change_the_store_say_so() -> None:
    assert {type(operation).__name__ for operation in OPERATIONS if operation.writes} == {
        "AcknowledgeState",
        "ActivateRegistration",
        "CreateAccount",
        "EndSession",
        "FinishReset",
        "LoadNotices",  # in the order of the writes
        "MarkSeen",
        "OpenSession",
        "ProbeWrite",
        "PushState",
        "RemoveAccount",
        "RemoveDevice",
        "RenewRegistration",
        "ReplacePassword",
        "StartRegistration",
        "StartReset",
    }


# Passwords.


@pytest.mark.parametrize(
    ("n", "r", "p", "outdated"),
    [
        (SCRYPT_N, SCRYPT_R, SCRYPT_P, False),
        (SCRYPT_N // 2, SCRYPT_R, SCRYPT_P, True),
        (SCRYPT_N * 2, SCRYPT_R, SCRYPT_P, False),
        (SCRYPT_N // 2, SCRYPT_R, SCRYPT_P * 2, False),
    ],
)
def test_a_hash_is_outdated_when_it_cost_less_than_one_of_today(
    n: int, r: int, p: int, outdated: bool
) -> None:
    assert PasswordHash(b"", b"", n, r, p).outdated is outdated


def test_a_password_costs_what_the_protocol_says() -> None:
    assert (SCRYPT_N, SCRYPT_R, SCRYPT_P) == (2**15, 8, 1)


# Flows.


def test_a_flow_yields_the_operation_and_returns_its_answer() -> None:
    flow = perform(FindOnline(ACCOUNT))
    assert next(flow) == FindOnline(ACCOUNT)
    with pytest.raises(StopIteration) as ended:
        flow.send(frozenset({"phone"}))
    assert ended.value.value == frozenset({"phone"})


# What a write means to others.

PUSH = PushState(b"t", ACCOUNT, 1, 3, "w", "h")


@pytest.mark.parametrize(
    ("operation", "answer", "events"),
    [
        (
            PUSH,
            Pushed(STATE, fresh=True),
            (Published(ACCOUNT, STATE, 1),),
        ),
        (PUSH, Pushed(STATE, fresh=False), ()),
        (PUSH, BadToken(), ()),
        (
            AcknowledgeState(b"t", ACCOUNT, 3),
            Acknowledged(DEVICE, changed=True),
            (Applied(ACCOUNT, "phone", 3),),
        ),
        (AcknowledgeState(b"t", ACCOUNT, 3), Acknowledged(DEVICE, changed=False), ()),
        (
            OpenSession(ACCOUNT, HASH, None, "phone", None, 64, frozenset()),
            OPENED,
            (Revoked(ACCOUNT, "replaced", "phone", kept_token_hash=SECRET_BYTES),),
        ),
        (
            OpenSession(ACCOUNT, HASH, None, "phone", None, 64, frozenset()),
            dataclasses.replace(OPENED, dropped_device_id="tablet"),
            (
                Revoked(ACCOUNT, "replaced", "phone", kept_token_hash=SECRET_BYTES),
                Revoked(ACCOUNT, "device_revoked", "tablet"),
            ),
        ),
        (
            ReplacePassword(b"t", ACCOUNT, HASH, HASH, "s", KDF, None),
            None,
            (Revoked(ACCOUNT, "password_changed"),),
        ),
        (RemoveAccount(b"t", ACCOUNT, HASH), None, (Revoked(ACCOUNT, "account_deleted"),)),
        (EndSession(b"t", ACCOUNT), None, (Revoked(ACCOUNT, "logged_out", token_hash=b"t"),)),
        (EndSession(b"t", ACCOUNT), BadToken(), ()),
        (
            RemoveDevice(b"t", ACCOUNT, "tablet"),
            None,
            (Revoked(ACCOUNT, "device_revoked", "tablet"),),
        ),
        (FinishReset(b"t", HASH, "s", KDF), ACCOUNT, (Revoked(ACCOUNT, "password_reset"),)),
        (FinishReset(b"t", HASH, "s", KDF), BadResetToken(), ()),
        (
            LoadNotices(0, 100),
            (Notice(1, ACCOUNT, "account_disabled"), NOTICE),
            (
                Revoked(ACCOUNT, "account_disabled"),
                Revoked(ACCOUNT, "replaced", "phone", kept_token_hash=SECRET_BYTES),
            ),
        ),
        (LoadNotices(0, 100), (), ()),
        (MarkSeen(b"t", 0), None, ()),
        (LoadSession(b"t"), OPENED, ()),
    ],
)
def test_what_a_committed_write_means_to_others(
    operation: Operation[Any], answer: Any, events: tuple[Any, ...]
) -> None:
    assert events_of(operation, answer) == events
