"""The messages: samples are complete, round trips are exact, and no repr shows a secret."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsschema import codec, errors, messages
from wsschema.fields import (
    Array,
    Boolean,
    Email,
    HexDigits,
    Integer,
    Kind,
    Nullable,
    Object,
    OneOf,
    Opaque,
    PowerOfTwo,
    Text,
    Time,
    decode,
    encode,
    members,
)
from wsschema.limits import INTEGER_MAX, Limits
from wsschema.messages import METHOD_OF, METHODS, NOTIFICATION_NAMES, NOTIFICATIONS, Call, Kdf
from wsschema.samples import (
    EMAIL,
    HMAC,
    NEW_PASSWORD,
    PASSWORD,
    SAMPLE_CALLS,
    SAMPLE_NOTIFICATIONS,
    SAMPLE_RESULTS,
    SEED,
    STATE,
    TOKEN,
)
from wsschema.times import time_from_ms

SECRETS = {
    "email", "password", "old_password", "new_password", "token", "client_salt_seed",
    "encrypted_wallet", "hmac", "device_name",
}  # fmt: skip
CLASSES = [
    cls
    for cls in vars(messages).values()
    if dataclasses.is_dataclass(cls)
    and isinstance(cls, type)
    and cls.__module__ == messages.__name__
    and cls is not messages.Method
]


def values_of(kind: Kind) -> st.SearchStrategy[Any]:
    """Every value that a kind may hold, as the program has it."""
    match kind:
        case Integer():
            return st.integers(kind.minimum, kind.maximum)
        case PowerOfTwo():
            exponents = st.integers(kind.minimum.bit_length() - 1, kind.maximum.bit_length() - 1)
            return exponents.map(lambda exponent: 2**exponent)
        case Boolean():
            return st.booleans()
        case Text():
            letters = st.characters(exclude_categories=["Cc", "Cs"])
            return st.text(letters, min_size=kind.chars_min, max_size=kind.chars_max)
        case Email():
            return st.emails().filter(lambda email: len(email) <= 254)
        case HexDigits():
            size = kind.digits
            return st.text("0123456789abcdefABCDEF", min_size=size, max_size=size)
        case Opaque():
            return st.text(min_size=1, max_size=64)
        case OneOf():
            return st.sampled_from(kind.values)
        case Time():
            return st.integers(0, 253_402_300_799_999).map(time_from_ms)
        case Array():
            return st.lists(values_of(kind.item), max_size=3).map(tuple)
        case Nullable():
            return st.none() | values_of(kind.kind)
        case Object():
            return messages_of(kind.cls)
    raise AssertionError(kind)


def messages_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Every message of a class; a member that may be absent is so at times."""
    arguments = {}
    for member in members(cls):
        values = values_of(member.kind)
        if not member.required and member.default is None:
            values = st.none() | values
        arguments[member.attribute] = values
    return st.builds(cls, **arguments)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_every_message_comes_back_from_the_wire(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(messages_of(cls))
    wire = json.loads(json.dumps(encode(message)))
    assert decode(cls, wire) == message
    assert decode(cls, {**wire, "unknown member": 1}, lenient=True) == message


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_members_that_hold_secrets_are_hidden_from_repr(cls: type[Any]) -> None:
    names = {field.name for field in dataclasses.fields(cls)}
    secrets = names & SECRETS | ({"name"} if cls is messages.Device else set())
    assert {field.name for field in dataclasses.fields(cls) if not field.repr} == secrets


@pytest.mark.parametrize(
    "message",
    [*SAMPLE_CALLS, *(result for _, result in SAMPLE_RESULTS), *SAMPLE_NOTIFICATIONS],
    ids=lambda message: type(message).__name__,
)
def test_no_repr_shows_a_secret(message: Any) -> None:
    shown = repr(message)
    for secret in (EMAIL, PASSWORD, NEW_PASSWORD, TOKEN, SEED, HMAC, STATE.encrypted_wallet):
        assert secret not in shown
        assert repr(secret) not in shown


def test_messages_are_frozen_and_slotted() -> None:
    for cls in CLASSES:
        assert vars(cls)["__dataclass_params__"].frozen, cls
        assert not hasattr(object.__new__(cls), "__dict__"), cls


def test_a_request_and_an_answer_hide_what_they_carry() -> None:
    assert "hunter22" not in repr(codec.Request(1, "session.login", {"password": "hunter22"}))
    assert "hunter22" not in repr(codec.Answer(1, {"token": "hunter22"}))
    wallet = messages.WalletState(1, "hunter22", "hunter22", "laptop", time_from_ms(0))
    assert "hunter22" not in repr(codec.Answer(1, error=errors.Conflict(wallet=wallet)))


def test_there_is_a_sample_of_every_message_with_and_without_its_members() -> None:
    assert {type(call) for call in SAMPLE_CALLS} == {method.params for method in METHODS.values()}
    assert {type(each) for each in SAMPLE_NOTIFICATIONS} == set(NOTIFICATION_NAMES)
    for method in METHODS.values():
        results = {
            type(result) for call, result in SAMPLE_RESULTS if METHOD_OF[type(call)] is method
        }
        assert results == set(method.results or {dict}), method.name
        samples = [call for call in SAMPLE_CALLS if type(call) is method.params]
        optional = {member.name for member in members(method.params) if not member.required}
        names = {member.name for member in members(method.params)}
        assert any(set(encode(sample)) == names for sample in samples), method.name
        if optional:
            assert len(samples) > 1, method.name


def test_the_registry_and_the_types_tell_the_same_results() -> None:
    for method in METHODS.values():
        (base,) = typing.cast(Any, method.params).__orig_bases__
        (declared,) = typing.get_args(base)
        if isinstance(declared, typing.ForwardRef):
            declared = eval(declared.__forward_arg__, vars(messages))  # noqa: S307  # our own source
        kinds = set(typing.get_args(declared)) or {declared}
        if declared == dict[str, Any]:
            kinds = set()
        assert kinds == set(method.results), method.name
        assert issubclass(method.params, Call)
        assert METHOD_OF[method.params] is method


def test_the_registries_name_what_they_hold() -> None:
    assert all(method.name == name for name, method in METHODS.items())
    assert {NOTIFICATION_NAMES[cls]: cls for cls in NOTIFICATIONS.values()} == NOTIFICATIONS


def test_no_message_but_answers_and_notifications_has_a_null() -> None:
    for method in METHODS.values():
        for member in members(method.params):
            assert not isinstance(member.kind, Nullable), (method.name, member.name)


def test_scrypt_parameters_are_made_by_their_names() -> None:
    assert Kdf.scrypt(2**17) == Kdf(n=2**17, r=8, p=1, name="scrypt")
    assert encode(Kdf.scrypt(2**14, 8, 4)) == {"n": 16384, "r": 8, "p": 4, "name": "scrypt"}


def test_the_limits_keep_what_the_protocol_promises() -> None:
    limits = Limits()
    assert limits.message_bytes >= 6 * limits.wallet_bytes
    announced = {member.attribute for member in members(messages.AnnouncedLimits)}
    assert announced == {field.name for field in dataclasses.fields(Limits)}
    assert INTEGER_MAX == 2**53 - 1
