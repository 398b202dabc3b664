"""Messages as a client or a server sends them, and as they must not be: made from the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fuzz.choices import Choices
from wsschema.fields import (
    Boolean,
    Email,
    HexDigits,
    Integer,
    Object,
    OneOf,
    Opaque,
    PowerOfTwo,
    Text,
    members,
)
from wsschema.messages import METHODS, NOTIFICATIONS

EMAILS: Final = ("joe@example.com", "ann@example.com", "Joe@Example.COM", "eve@example.com")
PASSWORDS: Final = ("correct horse", "battery staple", "wrong but long")
DEVICES: Final = ("laptop", "phone", "tablet", "\U0001f511")

IDS: Final[tuple[Any, ...]] = (
    *(1, 2, 3, "a", "", None, 0, -1, 1.5, -0.0, 1e300, 2**53, 2**63, 2**64 - 1, 10**30),
    *("x" * 5000, "\u00e9\U0001f511\x00", [1], {}, True, "\ud800"),
)
SCALARS: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 1.0, 1e308, -0.0, 2**53 - 1, 2**53, 2**63, 2**64, 10**30),
    *("", "x", "\x00", "\x7f", "\u2028", "\ud800", "\udfff\ud800", "e\u0301", "\U0010ffff"),
    *("x" * 65, "x" * 257, "x" * 1025, "\u00e9" * 129, "2026-01-02T03:04:05.678Z"),
    *("9999-12-31T23:59:59-23:59", "2026-02-30T00:00:00Z", float("nan"), float("inf")),
)


@dataclass
class Known:
    """What a conversation has brought up so far, to be used again: a name's values, newest last."""

    values: dict[str, list[Any]] = field(default_factory=dict)
    at_most: int = 8

    def learn(self, name: str, value: Any) -> None:
        kept = self.values.setdefault(name, [])
        kept.append(value)
        del kept[: -self.at_most]

    def learn_all(self, wire: Any) -> None:
        """Every member of a JSON value whose name a parameter may have."""
        if isinstance(wire, dict):
            for name, value in wire.items():
                if isinstance(value, str | int) and len(str(value)) <= 1000:
                    self.learn(name, value)
                self.learn_all(value)
        elif isinstance(wire, list):
            for item in wire[:3]:
                self.learn_all(item)

    def recall(self, choices: Choices, name: str) -> Any:
        kept = self.values.get(name)
        return choices.pick(kept[::-1]) if kept else None


def any_json(choices: Choices, depth: int = 0) -> Any:
    """A JSON value, or what Python makes of what is none."""
    kind = choices.below(12)
    if depth < 3 and kind == 10:
        return [any_json(choices, depth + 1) for _ in range(choices.below(4))]
    if depth < 3 and kind == 11:
        names = ("id", "sequence", "wallet", "", "reason", "\ud800", "x" * 100)
        return {choices.pick(names): any_json(choices, depth + 1) for _ in range(choices.below(4))}
    return choices.pick(SCALARS)


def plausible(choices: Choices, name: str, kind: Any, known: Known) -> Any:
    """A value that a parameter may have."""
    if not choices.one_in(4):
        recalled = known.recall(choices, name)
        if recalled is not None:
            if name == "sequence" and type(recalled) is int:
                return max(1, recalled + choices.pick([1, 0, 1, -1, 2]))
            return recalled
    match kind:
        case Email():
            return choices.pick(EMAILS)
        case HexDigits(digits=digits):
            return choices.pick(["a", "0", "F"]) * digits
        case Integer(minimum=minimum, maximum=maximum):
            return min(maximum, minimum + choices.below(4)) if choices.below(4) else maximum
        case PowerOfTwo(minimum=minimum):
            return minimum << choices.below(3)
        case Boolean():
            return bool(choices.below(2))
        case OneOf(values=values):
            return choices.pick(values)
        case Object(cls=cls):
            return params_of(choices, cls, known)
        case Opaque():
            size = choices.pick([1, 2, 250, 3000])
            return choices.pick(["w", "\u00e9", '"\\', "\x00", "\U0001f511"]) * size
        case Text(chars_min=least, chars_max=most):
            if "assword" in name:
                return choices.pick(PASSWORDS)
            if name == "deviceId":
                return choices.pick(DEVICES)
            return choices.pick(["x", "\u00e9"]) * choices.pick([least, least + 1, most])
        case _:
            return choices.pick(SCALARS)


def params_of(choices: Choices, cls: type[Any], known: Known) -> dict[str, Any]:
    """The JSON object of a call's params, or of what is in them; mostly as it may be."""
    wire: dict[str, Any] = {}
    for member in members(cls):
        if not member.required and choices.below(3) == 0:
            continue
        if choices.one_in(24):
            fault = choices.below(3)
            if fault == 0:
                continue
            wire[member.name] = any_json(choices) if fault == 1 else beyond(choices, member.kind)
        else:
            wire[member.name] = plausible(choices, member.name, member.kind, known)
    if choices.one_in(24):
        wire[choices.pick(["extra", "", "\ud800", "x" * 1000, "Sequence"])] = any_json(choices)
    return wire


def beyond(choices: Choices, kind: Any) -> Any:
    """A value that is just out of bounds."""
    match kind:
        case Integer(minimum=minimum, maximum=maximum):
            return choices.pick([minimum - 1, maximum + 1, float(minimum), str(minimum)])
        case PowerOfTwo(minimum=minimum, maximum=maximum):
            return choices.pick([minimum // 2, maximum * 2, minimum + 1])
        case Text(chars_min=least, chars_max=most):
            return choices.pick(["x" * (most + 1), "x" * max(0, least - 1), "x" * least + "\x9f"])
        case Email():
            return choices.pick(["@", "a@b@c", " a@b.c", "x" * 250 + "@b.c", "a@b.c\n", "a@[::1]"])
        case Opaque():
            return choices.pick(["", "x" * 262_145])
        case _:
            return any_json(choices)


def change(choices: Choices, value: Any) -> Any:
    """The JSON value with one member changed, at some depth."""
    if not isinstance(value, dict) or not value or choices.one_in(12):
        return any_json(choices)
    name = choices.pick([*value])
    changed = dict(value)
    if isinstance(value[name], dict) and choices.below(3):
        changed[name] = change(choices, value[name])
    elif choices.one_in(6):
        del changed[name]
    else:
        changed[name] = any_json(choices)
    return changed


def call(choices: Choices, known: Known, methods: Sequence[str] = tuple(METHODS)) -> Any:
    """One call, mostly well-formed."""
    if choices.one_in(32):
        return any_json(choices)
    name: Any = choices.pick(methods)
    method = METHODS[name]
    wire: dict[str, Any] = {"jsonrpc": "2.0", "id": choices.below(200), "method": name}
    params: Any = params_of(choices, method.params, known)
    if params or choices.below(2):
        wire["params"] = params
    if not choices.one_in(6):
        return wire
    match choices.below(7):
        case 0:
            del wire["id"]
        case 1:
            wire["id"] = choices.pick(IDS)
        case 2:
            wire["method"] = choices.pick(
                [*NOTIFICATIONS, "", "x" * 500, "server.Ping", "rpc.", "\ud800", 1, None, ["a"]]
            )
        case 3:
            wire["params"] = choices.pick([[], [params], None, "x", 1, True, {}])
        case 4:
            wire["jsonrpc"] = choices.pick(["1.0", 2.0, None, "2.0 ", ["2.0"]])
        case 5:
            del wire[choices.pick(["jsonrpc", "method", "id"])]
        case 6:
            wire[choices.pick(["result", "error", "trace"])] = any_json(choices)
    return wire


def message(choices: Choices, known: Known, methods: Sequence[str] = tuple(METHODS)) -> bytes:
    """What one text frame carries: a call, a batch, or what only looks like one."""
    value: Any = call(choices, known, methods)
    if choices.one_in(8):
        size = choices.pick([2, 1, 3, 0, 20, 21, 5])
        value = [value, *(call(choices, known, methods) for _ in range(size - 1))][:size]
    return spoil(choices, write(choices, value))


def write(choices: Choices, value: Any) -> bytes:
    """JSON, escaped in one way or the other; a lone surrogate is always escaped."""
    escaped = json.dumps(value, separators=(",", ":")).encode()
    if not choices.one_in(4):
        return escaped
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return escaped


def spoil(choices: Choices, payload: bytes) -> bytes:
    """The payload as it is, mostly; else cut short, changed somewhere, or with something put in."""
    if not choices.one_in(12):
        return payload
    at = choices.below(len(payload) + 1)
    match choices.below(5):
        case 0:
            return payload[:at]
        case 1:
            return payload[:at] + choices.take(4) + payload[at + 1 :]
        case 2:
            return payload[:at] + choices.pick(ODDITIES) + payload[at:]
        case 3:
            return payload[at:] + payload[:at]
        case _:
            # A value somewhere in the middle becomes another.
            colon = payload.find(b":", at)
            end = payload.find(b",", colon)
            if colon < 0 or end < 0:
                return payload
            return payload[: colon + 1] + choices.pick(ODDITIES) + payload[end:]


ODDITIES: Final = (
    *(b"[" * 1000 + b"]" * 1000, b"[" * 1100 + b"]" * 1100, b'{"a":' * 1000 + b"1" + b"}" * 1000),
    *(b"NaN", b"1e400", b"-", b'"\\ud800"', b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00"),
    *(b"9" * 400, b"0." + b"1" * 400, b"null", b"[]", b"{}", b"true", b'""', b"-0", b"1.0"),
)
