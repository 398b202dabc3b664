"""Golden vectors: every message of the protocol on the wire, beside what it says.

A client or a server in any language tests itself with ``schema/vectors/messages.json``; how, says
``schema/README.md``. ``python -m wsschema.vectors`` prints the vectors; with ``--write``, run at
the top of a checkout, it renews the file. What a wrong value is follows from the kind of each
member, so that a new one brings its vectors along.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from wsschema import errors, limits
from wsschema.codec import encode_call, encode_error, encode_notification
from wsschema.errors import RpcError
from wsschema.fields import (
    Boolean,
    Email,
    HexDigits,
    Integer,
    Kind,
    Member,
    Object,
    OneOf,
    Opaque,
    PowerOfTwo,
    Text,
    encode,
    members,
)
from wsschema.messages import (
    METHOD_OF,
    METHODS,
    NOTIFICATION_NAMES,
    Call,
    GetWallet,
    LoggedIn,
    Login,
    Ping,
    Prelogin,
    PushWallet,
    Receipt,
)
from wsschema.samples import (
    EMAIL,
    EPOCH,
    HMAC,
    LATER,
    PASSWORD,
    SAMPLE_CALLS,
    SAMPLE_ERRORS,
    SAMPLE_NOTIFICATIONS,
    SAMPLE_RESULTS,
    SEED,
    STATE,
    TOKEN,
)
from wsschema.times import ms_from_time, parse_time

FILE: Final = Path("schema/vectors/messages.json")

_ABOUT = (
    "Every message of the wallet-sync protocol, version 1; schema/README.md tells how to use them. "
    "`wire` is the text of a WebSocket message, the rest what it says. A `value` has every member "
    "of the message: one that was left out has its default, or null; a time is in milliseconds of "
    "the Unix epoch. A call without an `id` is a notification. `answer` is what a server with the "
    "default limits answers on an authenticated connection before it looks at anything but the "
    "message (null: nothing). `mayAccept`: a parser that cannot tell 1.0 from 1 accepts it."
)


def vectors() -> dict[str, Any]:
    """All vectors, ready for JSON; in its section, the name of each is its own."""
    sections = {
        "calls": [*_calls()],
        "badCalls": [*_bad_envelopes(), *_bad_params()],
        "batches": [*_batches()],
        "results": [*_results()],
        "notifications": [*_notifications()],
        "errors": [*_errors()],
        "badIncoming": [*_bad_incoming()],
    }
    for section in sections.values():
        seen: Counter[str] = Counter()
        for vector in section:
            name = vector["name"]
            seen[name] += 1
            if seen[name] > 1:
                vector["name"] = f"{name} ({seen[name]})"
    return {"about": _ABOUT, **sections}


def describe(message: Any) -> dict[str, Any]:
    """What a message says: every member by its name on the wire, times in Unix milliseconds."""
    return {
        member.name: _describe_value(getattr(message, member.attribute))
        for member in members(type(message))
    }


def _describe_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return ms_from_time(value)
    if isinstance(value, tuple):
        return [_describe_value(item) for item in value]
    return describe(value) if hasattr(value, "__dataclass_fields__") else value


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _wire(method: str, params: Any) -> str:
    return _text({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


# What a client sends.

_PING = '{"jsonrpc":"2.0","id":1,"method":"server.ping"}'
_SILENT_PING = '{"jsonrpc":"2.0","method":"server.ping"}'


def _calls() -> Iterator[dict[str, Any]]:
    for call in SAMPLE_CALLS:
        name = f"{METHOD_OF[type(call)].name}: {', '.join(encode(call)) or 'no params'}"
        yield _call(name, encode_call(1, call).decode(), call)
    for call_id in (2, "a", "", None, -3, 1.5, limits.INTEGER_MAX):
        wire = encode_call(call_id, Ping()).decode()
        yield _call(f"id {_text(call_id)}", wire, Ping(), call_id=call_id)
    yield _silent("no id: a notification, not answered", _SILENT_PING, Ping())
    ping = '"method":"server.ping"'
    for name, wire in (
        ("empty params", f'{{"jsonrpc":"2.0","id":1,{ping},"params":{{}}}}'),
        ("an empty array counts as no params", f'{{"jsonrpc":"2.0","id":1,{ping},"params":[]}}'),
        ("white space", f'\t{{ "jsonrpc" : "2.0",\r\n"id":1 , {ping} }}\n'),
        ("escapes in names", '{"jsonrpc":"2.0","\\u0069d":1,"method":"server\\u002eping"}'),
        ("unknown envelope members are ignored", f'{{"jsonrpc":"2.0","id":1,{ping},"x":{{}}}}'),
    ):
        yield _call(name, wire, Ping())
    for method, params, path, member in _every_member():
        for name, value in _good_values(member.kind):
            changed = _with(params, path, value)
            yield {
                "name": f"{method}: {path} {name}",
                "wire": _wire(method, changed),
                "id": 1,
                "method": method,
                "value": changed,
            }


def _call(name: str, wire: str, call: Call[Any], *, call_id: Any = 1) -> dict[str, Any]:
    method = METHOD_OF[type(call)].name
    return {"name": name, "wire": wire, "id": call_id, "method": method, "value": describe(call)}


def _silent(name: str, wire: str, call: Call[Any]) -> dict[str, Any]:
    vector = _call(name, wire, call)
    del vector["id"]
    return vector


def _bad_envelopes() -> Iterator[dict[str, Any]]:
    nested = "[" * 1100 + "]" * 1100
    ping = '"method":"server.ping"'
    for name, wire in (
        ("cut off", '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]'),
        ("nothing", ""),
        ("white space only", " \n"),
        ("a trailing comma", f'{{"jsonrpc":"2.0","id":1,{ping},}}'),
        ("a comment", f"{_PING} // hello"),
        ("two messages", f"{_PING}{{}}"),
        ("no JSON number: NaN", f'{{"jsonrpc":"2.0","id":NaN,{ping}}}'),
        ("a lone surrogate", f'{{"jsonrpc":"2.0","id":"\\ud800",{ping}}}'),
        ("a control character in a string", f'{{"jsonrpc":"2.0","id":"\n",{ping}}}'),
        ("nested too deep", f'{{"jsonrpc":"2.0","id":1,{ping},"params":{{"a":{nested}}}}}'),
        ("a batch that is cut off", f"[{_PING},"),
    ):
        yield _bad(name, wire, errors.ParseError, None)
    for name, wire, answer_id in (
        ("no object: 1", "1", None),
        ("no object: null", "null", None),
        ("no object: a string", '"server.ping"', None),
        ("an empty batch", "[]", None),
        ("a batch of one too many", _batch_of([_PING] * (limits.Limits().batch + 1)), None),
        ("no jsonrpc", f'{{"id":1,{ping}}}', 1),
        ("another jsonrpc", f'{{"jsonrpc":"1.0","id":1,{ping}}}', 1),
        ("jsonrpc as a number", f'{{"jsonrpc":2.0,"id":"a",{ping}}}', "a"),
        ("no jsonrpc and no id: answered all the same", f"{{{ping}}}", None),
        ("no method", '{"jsonrpc":"2.0","id":1}', 1),
        ("method as a number", '{"jsonrpc":"2.0","method":1,"params":"bar"}', None),
        ("method null", '{"jsonrpc":"2.0","id":1,"method":null}', 1),
        ("id true", f'{{"jsonrpc":"2.0","id":true,{ping}}}', None),
        ("id an array", f'{{"jsonrpc":"2.0","id":[1],{ping}}}', None),
        ("id an object", f'{{"jsonrpc":"2.0","id":{{}},{ping}}}', None),
    ):
        yield _bad(name, wire, errors.InvalidRequest, answer_id)
    for name, method, params in (
        ("unknown method", "foobar", {}),
        ("methods are case-sensitive", "Server.Ping", {}),
        ("an empty method", "", {}),
        ("a notification is no method", "wallet.updated", {}),
        ("the method is looked at before the params", "foobar", [1]),
    ):
        yield _bad(name, _wire(method, params), errors.MethodNotFound, 1)
    for name, wire in (
        ("an unknown method without an id is not answered", '{"jsonrpc":"2.0","method":"foobar"}'),
        ("bad params without an id are not answered", f'{{"jsonrpc":"2.0",{ping},"params":[1]}}'),
    ):
        yield {"name": name, "wire": wire, "answer": None}


def _bad(name: str, wire: str, kind: type[RpcError], answer_id: Any, **data: str) -> dict[str, Any]:
    return {"name": name, "wire": wire, "answer": {"id": answer_id, "code": kind.code, **data}}


def _bad_params() -> Iterator[dict[str, Any]]:
    no_params: tuple[Any, ...] = ([1], None, "bar", 0, False)
    for method in METHODS:
        for params in no_params:
            yield _bad_member(method, f"as {_text(params)}", params, "params", "wrong_type")
        with_unknown = {**_full_params(method), "colour": "red"}
        yield _bad_member(method, "is unknown", with_unknown, "colour", "unknown")
    for method, params, path, member in _every_member():
        if member.required:
            yield _bad_member(method, "missing", _without(params, path), path, "missing")
        if isinstance(member.kind, Object):
            inner = f"{path}.colour"
            with_unknown = _with(params, inner, "red")
            yield _bad_member(method, "is unknown", with_unknown, inner, "unknown")
        for name, value, reason in _bad_values(member.kind):
            yield _bad_member(method, name, _with(params, path, value), path, reason)


def _bad_member(method: str, name: str, params: Any, path: str, reason: str) -> dict[str, Any]:
    data = {"path": path, "reason": reason}
    full_name = f"{method}: {path} {name}"
    vector = _bad(full_name, _wire(method, params), errors.InvalidParams, 1, **data)
    return vector | {"mayAccept": True} if name == _WHOLE_FLOAT else vector


def _every_member() -> Iterator[tuple[str, dict[str, Any], str, Member]]:
    """Every member of every method, at any depth: method, its full params, dotted path, member."""
    for name, method in METHODS.items():
        params = _full_params(name)
        waiting: list[tuple[str, type[Any]]] = [("", method.params)]
        while waiting:
            prefix, cls = waiting.pop()
            for member in members(cls):
                yield name, params, prefix + member.name, member
                if isinstance(member.kind, Object):
                    waiting.append((f"{prefix}{member.name}.", member.kind.cls))


def _full_params(method: str) -> dict[str, Any]:
    """The params of the method's longest sample: every member is there."""
    samples = [encode(call) for call in SAMPLE_CALLS if METHOD_OF[type(call)].name == method]
    return max(samples, key=len)


def _with(params: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    return {**params, name: _with(params[name], rest, value) if rest else value}


def _without(params: dict[str, Any], path: str) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    if rest:
        return {**params, name: _without(params[name], rest)}
    return {other: value for other, value in params.items() if other != name}


_WHOLE_FLOAT = "a whole number written as 1.0"


def _good_values(kind: Kind) -> Iterator[tuple[str, Any]]:
    """Values at the very bounds of a kind."""
    match kind:
        case Integer():
            yield "least", kind.minimum
            yield "most", kind.maximum
        case PowerOfTwo():
            yield "least", kind.minimum
            yield "most", kind.maximum
        case Boolean():
            yield "true", True
            yield "false", False
        case Text():
            yield "shortest", "x" * kind.chars_min
            yield "longest, in code points", "\U0001f511" * kind.chars_max
            yield "white space at the ends", " \u00a0x\u00ad " + "x" * kind.chars_min
        case Email():
            yield "longest", "x" * (limits.EMAIL_CHARS_MAX - len("@example.com")) + "@example.com"
            yield "shortest", "a@b"
            yield "in capitals, given on as it is", "Joe+tag@Example.COM"
            yield "quoted, with an at sign", '"joe@home"@example.com'
            yield "in Unicode", "j\u00f6@ex\u00e4mple.com"
        case HexDigits():
            yield "in capitals", "0123456789ABCDEF" * (kind.digits // 16)
        case Opaque():
            yield "any Unicode", '\u0000\u001f\u007f\u2028\ufffe\U0010ffff "\\'
            if kind.bytes_max is not None:
                yield "longest", "x" * kind.bytes_max
                yield "longest, in two bytes a character", "\u00e9" * (kind.bytes_max // 2)
        case OneOf():
            for value in kind.values:
                yield str(value), value


def _bad_values(kind: Kind) -> Iterator[tuple[str, Any, str]]:
    """Values that a kind refuses, each with the reason."""
    yield "null", None, "wrong_type"
    yield "an array", [], "wrong_type"
    match kind:
        case Integer() | PowerOfTwo():
            yield "a string", "1", "wrong_type"
            yield "true", True, "wrong_type"
            yield _WHOLE_FLOAT, float(kind.minimum), "wrong_type"
            yield "one below the least", kind.minimum - 1, "out_of_bounds"
            yield "one above the most", kind.maximum + 1, "out_of_bounds"
            if isinstance(kind, PowerOfTwo):
                yield "no power of two", kind.minimum + 1, "out_of_bounds"
                yield "the next power above the most", kind.maximum * 2, "out_of_bounds"
        case Boolean():
            yield "1", 1, "wrong_type"
            yield "a string", "true", "wrong_type"
        case Text():
            yield "a number", 1, "wrong_type"
            if kind.chars_min:
                yield "too short", "x" * (kind.chars_min - 1), "out_of_bounds"
            yield "too long", "x" * (kind.chars_max + 1), "out_of_bounds"
            for control in ("\u0000", "\n", "\u007f", "\u0085"):
                yield f"with U+{ord(control):04X}", control + "x" * kind.chars_min, "malformed"
        case Email():
            yield "a number", 1, "wrong_type"
            too_long = "x" * (limits.EMAIL_CHARS_MAX + 1 - len("@example.com")) + "@example.com"
            yield "too long", too_long, "out_of_bounds"
            for text in (
                "", "joe", "joe@", "@example.com", "joe@example.com ", " joe@example.com",
                "joe@example.com\n", "joe @example.com", "a@b@c", "joe..x@example.com",
                "Joe <joe@example.com>", "joe@example.com,x@example.com", "joe@example\u00a0.com",
            ):  # fmt: skip
                yield _text(text), text, "malformed"
        case HexDigits():
            yield "a number", 1, "wrong_type"
            yield "one digit too few", "a" * (kind.digits - 1), "malformed"
            yield "one digit too many", "a" * (kind.digits + 1), "malformed"
            yield "no hex digit", "g" * kind.digits, "malformed"
            yield "digits of another script", "\u0661" * kind.digits, "malformed"
        case Opaque():
            yield "a number", 1, "wrong_type"
            yield "empty", "", "out_of_bounds"
            if kind.bytes_max is not None:
                yield "too long", "x" * (kind.bytes_max + 1), "out_of_bounds"
                too_long = "\u00e9" * (kind.bytes_max // 2) + "x"
                yield "too long, in two bytes a character", too_long, "out_of_bounds"
        case OneOf():
            if isinstance(kind.values[0], str):
                yield "a number", 1, "wrong_type"
                yield "another", "other", "out_of_bounds"
                yield "in capitals", kind.values[0].upper(), "out_of_bounds"
            else:
                yield "a string", str(kind.values[0]), "wrong_type"
                yield "another", kind.values[0] + 1, "out_of_bounds"
        case _:  # an object
            yield "a string", "{}", "wrong_type"


def _batch_of(wires: Sequence[str]) -> str:
    return f"[{','.join(wires)}]"


def _batches() -> Iterator[dict[str, Any]]:
    ping = _call("", _PING, Ping())
    silent = _silent("", _SILENT_PING, Ping())
    push_call = PushWallet(7, "-", HMAC)
    push = _call("", encode_call("b", push_call).decode(), push_call, call_id="b")
    unknown = _bad("", _wire("foobar", {}), errors.MethodNotFound, 1)
    malformed = _bad("", '{"foo":"boo"}', errors.InvalidRequest, None)
    number = _bad("", "1", errors.InvalidRequest, None)
    nested = _bad("", "[]", errors.InvalidRequest, None)
    for name, items in (
        ("one call", [ping]),
        ("two calls with the same id, each answered", [ping, ping]),
        ("notifications only: nothing is answered", [silent, silent]),
        ("no call at all", [number]),
        ("three times no call", [number, number, number]),
        ("a batch in a batch", [nested]),
        ("good and bad, each answered by itself", [ping, silent, malformed, push, unknown, number]),
        ("as many as a batch may hold", [ping] * limits.Limits().batch),
    ):
        yield {
            "name": name,
            "wire": _batch_of([item["wire"] for item in items]),
            "items": [_without(_without(item, "name"), "wire") for item in items],
        }


# What a server sends.


def _results() -> Iterator[dict[str, Any]]:
    for call, result in SAMPLE_RESULTS:
        wire, value = result, result
        if not isinstance(result, dict):
            wire, value = encode(result), describe(result)
        yield _result(type(result).__name__, call, wire, value)
    opened = LoggedIn(TOKEN, "laptop", LATER, EPOCH, 7, HMAC, STATE)
    grown = {**encode(opened), "wallet": {**encode(STATE), "colour": "red"}, "colour": {"red": 1}}
    login = Login(EMAIL, PASSWORD, "laptop")
    yield _result("unknown members are ignored", login, grown, describe(opened))
    push = PushWallet(7, "-", HMAC, receipt=True)
    for text in ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.6Z", "2026-01-02T03:04:05.678123Z"):
        receipt = Receipt(7, HMAC, parse_time(text))
        grown = encode(receipt) | {"updatedAt": text}
        yield _result(f"a time of another precision, {text}", push, grown, describe(receipt))


def _result(name: str, call: Call[Any], wire: Any, value: Any) -> dict[str, Any]:
    method = METHOD_OF[type(call)].name
    return {
        "name": f"{method}: {name}",
        "wire": _text({"jsonrpc": "2.0", "id": 1, "result": wire}),
        "id": 1,
        "method": method,
        "value": value,
    }


def _notifications() -> Iterator[dict[str, Any]]:
    for message in SAMPLE_NOTIFICATIONS:
        method = NOTIFICATION_NAMES[type(message)]
        yield {
            "name": f"{method}: {', '.join(encode(message))}",
            "wire": encode_notification(message).decode(),
            "method": method,
            "value": describe(message),
        }
    yield {
        "name": "session.revoked: an unknown reason passes, and so does an unknown member",
        "wire": '{"jsonrpc":"2.0","method":"session.revoked","params":{"reason":"new","x":1}}',
        "method": "session.revoked",
        "value": {"reason": "new"},
    }
    yield {
        "name": "an unknown notification is ignored",
        "wire": '{"jsonrpc":"2.0","method":"wallet.admired","params":{"by":"all"}}',
        "method": "wallet.admired",
        "ignored": True,
    }


def _errors() -> Iterator[dict[str, Any]]:
    for error in SAMPLE_ERRORS:
        described = {"code": error.code, "message": error.message, **(error.data() or {})}
        if isinstance(error, errors.Conflict) and error.wallet is not None:
            described["wallet"] = describe(error.wallet)
        answer_id = None if isinstance(error, errors.ParseError) else 1
        yield {
            "name": f"{error.code} {error.reason or type(error).__name__}",
            "wire": encode_error(answer_id, error).decode(),
            "id": answer_id,
            "error": described,
        }
    for code in (*sorted({kind.code for kind in errors.PROTOCOL_ERRORS}), 499):
        wire = {"code": code, "message": "new", "data": {"reason": "new", "retryAfterMs": 7}}
        yield {
            "name": f"{code} with an unknown reason goes by its code",
            "wire": _text({"jsonrpc": "2.0", "id": 1, "error": wire}),
            "id": 1,
            "error": {"code": code, "message": "new", "reason": "new", "retryAfterMs": 7},
            "known": False,
        }


def _bad_incoming() -> Iterator[dict[str, Any]]:
    for name, wire in (
        ("not JSON", "hello"),
        ("no object", "[]"),
        ("no jsonrpc", '{"id":1,"result":{}}'),
        ("neither result nor error", '{"jsonrpc":"2.0","id":1}'),
        ("an id that is none", '{"jsonrpc":"2.0","id":[],"result":{}}'),
        ("an error that is no object", '{"jsonrpc":"2.0","id":1,"error":"no"}'),
        (
            "a conflict with half a wallet",
            '{"jsonrpc":"2.0","id":1,"error":{"code":409,"message":"","data":'
            '{"reason":"conflict","wallet":{"sequence":1},"landed":false}}}',
        ),
        ("a notification without params", '{"jsonrpc":"2.0","method":"server.closing"}'),
        ("an empty notification", '{"jsonrpc":"2.0","method":"server.closing","params":{}}'),
    ):
        yield {"name": name, "wire": wire}
    state = encode(STATE)
    for name, result in (
        ("no object", [state]),
        ("without a member", _without(state, "hmac")),
        ("with a null", state | {"hmac": None}),
        ("a sequence below 1", state | {"sequence": 0}),
        ("a sequence beyond JavaScript's integers", state | {"sequence": limits.INTEGER_MAX + 1}),
        ("no time", state | {"updatedAt": "yesterday"}),
        ("a time without its zone", state | {"updatedAt": "2026-01-02T03:04:05"}),
        ("a time outside the calendar", state | {"updatedAt": "0001-01-01T00:00:00+01:00"}),
    ):
        yield _bad_result(name, GetWallet(), result)
    for name, kdf in (
        ("an unknown derivation", {"name": "argon2id", "n": 2**14, "r": 8, "p": 1}),
        ("another block size", {"name": "scrypt", "n": 2**14, "r": 1, "p": 1}),
        ("too low a cost", {"name": "scrypt", "n": 2**13, "r": 8, "p": 1}),
    ):
        yield _bad_result(name, Prelogin(EMAIL), {"clientSaltSeed": SEED, "kdf": kdf})


def _bad_result(name: str, call: Call[Any], result: Any) -> dict[str, Any]:
    return _without(_result(name, call, result, None), "value")


def render() -> bytes:
    """The vectors as the file has them: one a line, so that a diff shows which ones changed."""
    sections = []
    for name, content in vectors().items():
        text = _text(content)
        if isinstance(content, list):
            text = "[\n" + ",\n".join(_text(vector) for vector in content) + "\n]"
        sections.append(f'"{name}": {text}')
    return ("{\n" + ",\n".join(sections) + "\n}\n").encode()


def main(arguments: Sequence[str]) -> int:
    """Print the vectors or, with ``--write``, renew their file in the checkout."""
    if [*arguments] == ["--write"]:
        FILE.write_bytes(render())
    elif arguments:
        print("usage: python -m wsschema.vectors [--write]", file=sys.stderr)
        return 2
    else:
        sys.stdout.write(render().decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
