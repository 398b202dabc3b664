"""``docs/protocol.md`` and the code name the same things, both ways; its examples are real."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wsschema import limits
from wsschema.close_codes import CloseCode, may_reconnect
from wsschema.codec import (
    Answer,
    Request,
    UnknownNotification,
    decode_result,
    parse_incoming,
    parse_message,
)
from wsschema.errors import JSON_RPC_ERRORS, PROTOCOL_ERRORS, BadToken, NotAuthenticated
from wsschema.fields import (
    FIELD_REASONS,
    Boolean,
    Email,
    HexDigits,
    Integer,
    Kind,
    Object,
    OneOf,
    Opaque,
    PowerOfTwo,
    Text,
    camel_case,
    members,
)
from wsschema.messages import (
    METHODS,
    NOTIFICATIONS,
    REVOCATION_REASONS,
    Device,
    Kdf,
    SessionOpened,
    WalletState,
    WalletVersion,
)
from wsschema.openrpc import errors_of
from wsschema.samples import SAMPLE_ERRORS

PAGE = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")


def table(*header: str) -> list[list[str]]:
    """The rows of the one table with this header, cell by cell."""
    line = f"| {' | '.join(header)} |\n|{'---|' * len(header)}\n"
    assert PAGE.count(line) == 1, header
    rows = PAGE.split(line)[1].split("\n\n")[0].strip().split("\n")
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]
    assert all(len(row) == len(header) for row in cells)
    return [[cell.strip() for cell in row] for row in cells]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def sentence_after(start: str) -> list[str]:
    """The names in backticks from the start of a sentence to its full stop."""
    assert PAGE.count(start) == 1, start
    return quoted(PAGE.split(start)[1].split(".\n")[0])


def params_of(cls: type[Any]) -> list[str]:
    return [member.name + ("" if member.required else "?") for member in members(cls)]


def test_every_method_is_in_the_table_with_its_params() -> None:
    rows = table("method", "params", "result")
    assert [quoted(row[0]) for row in rows] == [[name] for name in METHODS]
    for method, (name, params, _) in zip(METHODS.values(), rows, strict=True):
        assert name.endswith(r"\*") is method.authenticated, name
        assert quoted(params) == params_of(method.params), name


def test_every_notification_is_in_the_table_with_its_params() -> None:
    rows = table("method", "params", "when")
    assert [quoted(row[0]) for row in rows] == [[name] for name in NOTIFICATIONS]
    for cls, (name, params, _) in zip(NOTIFICATIONS.values(), rows, strict=True):
        assert quoted(params) == params_of(cls), name


def test_every_reason_of_a_revocation_is_named() -> None:
    assert sentence_after("The `reason` of `session.revoked` is one of") == [*REVOCATION_REASONS]


def test_every_error_is_in_the_table_with_its_data() -> None:
    rows = table("code", "`data.reason`", "when", "also in `data`")
    assert [(int(row[0]), quoted(row[1])) for row in rows] == [
        (kind.code, [kind.reason]) for kind in PROTOCOL_ERRORS
    ]
    data = {error.reason: error.data() or {} for error in SAMPLE_ERRORS}
    for row in rows:
        (reason,) = quoted(row[1])
        assert ["reason", *quoted(row[3])] == [*data[reason]]


def test_the_errors_of_json_rpc_are_in_their_table_with_their_data() -> None:
    rows = table("code", "when", "in `data`")
    assert [int(row[0]) for row in rows] == [kind.code for kind in JSON_RPC_ERRORS]
    assert [quoted(row[2]) for row in rows] == [
        [*(error.data() or {})] for error in SAMPLE_ERRORS if error.code < 0
    ]
    assert sentence_after("The `reason` of a -32602 is one of\n") == [*FIELD_REASONS]


def test_every_method_is_told_with_the_errors_of_its_own() -> None:
    common = {
        authenticated: {*errors_of(METHODS[name])}
        for authenticated, name in ((False, "server.info"), (True, "wallet.history"))
    }
    assert common[True] - common[False] == {NotAuthenticated, BadToken}
    own = {
        name: [
            kind.reason for kind in errors_of(method) if kind not in common[method.authenticated]
        ]
        for name, method in METHODS.items()
    }
    rows = table("method", "may answer")
    assert {quoted(row[0])[0]: quoted(row[1]) for row in rows} == {
        name: reasons for name, reasons in own.items() if reasons
    }


def test_every_close_code_is_in_the_table_with_what_a_client_does() -> None:
    rows = table("code", "when", "come back?")
    assert [int(row[0]) for row in rows] == [*CloseCode]
    for code, _, come_back in rows:
        assert re.split("[,;]", come_back)[0] == ("yes" if may_reconnect(int(code)) else "no"), code


def test_the_limits_that_a_server_announces_are_told_with_their_defaults() -> None:
    announced = limits.Limits()
    assert {quoted(row[0])[0]: int(row[1].replace(",", "")) for row in table(
        "limit", "default", "what it bounds"
    )} == {
        camel_case(field.name): getattr(announced, field.name)
        for field in dataclasses.fields(announced)
    }  # fmt: skip


def bound_of(kind: Kind) -> str:
    """How the page tells the bound of a kind."""
    match kind:
        case Integer(maximum=limits.INTEGER_MAX):
            return f"{kind.minimum} to 2^53 - 1"
        case Integer():
            return f"{kind.minimum} to {kind.maximum}"
        case PowerOfTwo():
            least, most = kind.minimum.bit_length() - 1, kind.maximum.bit_length() - 1
            return f"a power of two from 2^{least} to 2^{most}"
        case Text():
            return f"{kind.chars_min} to {kind.chars_max:,} characters"
        case Email():
            return f"at most {limits.EMAIL_CHARS_MAX} characters"
        case HexDigits():
            return f"{kind.digits} hex digits"
        case Opaque(bytes_max=None):
            return "1 to `walletBytes` bytes in UTF-8"
        case Opaque():
            return f"1 to {kind.bytes_max} bytes in UTF-8"
        case OneOf():
            return "one of " + ", ".join(f"`{json.dumps(value)}`" for value in kind.values)
    raise AssertionError(kind)


def bounded_members() -> Iterator[tuple[str, Kind]]:
    for method in METHODS.values():
        for member in members(method.params):
            if isinstance(member.kind, Object):
                for inner in members(member.kind.cls):
                    yield f"{member.name}.{inner.name}", inner.kind
            elif not isinstance(member.kind, Boolean):
                yield member.name, member.kind


def test_every_bound_of_what_a_client_sends_is_told() -> None:
    told: dict[str, str] = {}
    for names, bound in table("member", "bound"):
        assert not told.keys() & set(quoted(names))
        told |= dict.fromkeys(quoted(names), bound)
    for name, kind in bounded_members():
        assert re.split("[:;(]", told[name])[0].strip() == bound_of(kind), name
    assert set(told) == {name for name, _ in bounded_members()}
    assert f"; {limits.HISTORY_LIMIT_DEFAULT} unless given" in told["limit"]


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("WalletState", WalletState),
        ("Kdf", Kdf),
        ("Session", SessionOpened),
        ("Device", Device),
        ("WalletVersion", WalletVersion),
    ],
)
def test_the_types_have_the_members_of_the_code(name: str, cls: type[Any]) -> None:
    (body,) = re.findall(rf"^{name} +{{(.*?)}}", PAGE, re.MULTILINE | re.DOTALL)
    told = re.findall(r"(?:^|, |,\n +)(\w+): ", body)
    assert sorted(told) == sorted(member.name for member in members(cls))


@pytest.mark.parametrize(
    "fact",
    [
        f"version {limits.PROTOCOL_VERSION}\n",
        f"path `{limits.PATH}`",
        f"sub-protocol `{limits.SUBPROTOCOL}`",
        f"A batch holds 1 to {limits.Limits().batch} calls",
        f"at least {limits.JSON_ESCAPE_FACTOR} times `walletBytes`",
        f"protocol: {limits.PROTOCOL_VERSION}",
    ],
)
def test_the_page_tells_the_facts_that_the_code_has(fact: str) -> None:
    assert fact in PAGE


def test_everything_in_backticks_that_looks_like_a_name_of_the_contract_is_one() -> None:
    prose = quoted(re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
    methods = {name for name in prose if re.fullmatch(r"[a-z]+\.[a-z][A-Za-z]+", name)}
    members_of_results = {
        "server.info.features",
        "data.landed",
        "data.reason",
        "kdf.n",
        "openrpc.json",
    }
    bounds = {name for name, _ in bounded_members()}
    assert methods - members_of_results - bounds == {*METHODS, *NOTIFICATIONS}
    snakes = {name for name in prose if re.fullmatch(r"[a-z]+(_[a-z]+)+", name)}
    assert snakes <= {kind.reason for kind in PROTOCOL_ERRORS} | {
        *REVOCATION_REASONS,
        *FIELD_REASONS,
    }


def test_the_examples_are_messages_of_the_protocol() -> None:
    calls: dict[Any, Any] = {}
    said = re.findall(r"```json (client|server)\n(.*?)```", PAGE, re.DOTALL)
    assert len(said) == PAGE.count("```json")
    assert {side for side, _ in said} == {"client", "server"}
    for side, text in said:
        if side == "client":
            request = parse_message(text.encode(), batch_max=20)
            assert isinstance(request, Request)
            calls[request.id] = request
            continue
        message = parse_incoming(text)
        assert not isinstance(message, UnknownNotification)
        if isinstance(message, Answer):
            request = calls[message.id]
            method = request.find_method()
            if message.error is None:
                decode_result(request.read_params(method), message.result)
            else:
                assert type(message.error) in errors_of(method)
                assert json.loads(text)["error"] == message.error.to_wire()


def test_the_refused_example_is_refused_as_the_page_says() -> None:
    (text,) = [
        text
        for text in re.findall(r"```json client\n(.*?)```", PAGE, re.DOTALL)
        if '"id": 5' in text
    ]
    request = parse_message(text.encode(), batch_max=20)
    assert isinstance(request, Request)
    with pytest.raises(Exception, match=r"sequence is 0; it must be from 1 to 9007199254740991"):
        request.read_params(request.find_method())
