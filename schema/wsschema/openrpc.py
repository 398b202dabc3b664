"""The OpenRPC 1.3 document of a server, built from the messages themselves.

``rpc.discover`` answers with it. ``python -m wsschema.openrpc`` prints it; with ``--write``, run at
the top of a checkout, it renews the copy that is kept in ``schema/openrpc.json``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from wsschema import errors, limits
from wsschema.errors import RpcError
from wsschema.fields import (
    FIELD_REASONS,
    Array,
    Integer,
    Kind,
    Nullable,
    Object,
    members,
    object_schema,
)
from wsschema.messages import METHODS, NOTIFICATIONS, Method, WalletState

OPENRPC_VERSION: Final = "1.3.2"
COPY: Final = Path("schema/openrpc.json")

_ANY_METHOD = (
    errors.InvalidParams,
    errors.InternalError,
    errors.RateLimited,
    errors.Unavailable,
)
_AUTHENTICATED = (
    errors.NotAuthenticated,
    # The token may have ended a moment ago: what changes something, or gives a wallet, is checked
    # against it once more where that is done.
    errors.BadToken,
)
_OWN: dict[str, tuple[type[RpcError], ...]] = {
    "account.register": (errors.NotAllowed, errors.AccountExists),
    "account.verify": (errors.BadVerificationToken,),
    "account.resendVerification": (errors.NotAllowed,),
    "account.requestReset": (errors.NotAllowed,),
    "account.reset": (errors.BadResetToken,),
    "account.changePassword": (
        errors.BadCredentials,
        errors.Conflict,
        errors.WalletExists,
        errors.WalletTooLarge,
    ),
    "account.delete": (errors.BadCredentials,),
    "session.login": (
        errors.BadCredentials,
        errors.NotVerified,
        errors.AlreadyAuthenticated,
        errors.AccountDisabled,
        errors.TooManyDevices,
    ),
    "session.resume": (errors.BadToken, errors.AlreadyAuthenticated, errors.AccountDisabled),
    "wallet.get": (errors.NoWallet, errors.NoSuchVersion),
    "wallet.push": (errors.AccountDisabled, errors.Conflict, errors.WalletTooLarge),
    "wallet.ack": (errors.NoSuchVersion,),
    "device.revoke": (errors.NoSuchDevice,),
}

_DESCRIPTION = """\
Keeps a wallet in sync between the devices of an account: JSON-RPC 2.0 over a WebSocket at `/v1`, \
parameters by name. Methods with `x-authenticated` need `session.login` or `session.resume` on the \
same connection first. `x-notifications` are what the server sends unasked. The `data` of an error \
is the JSON Schema of what comes in its place. Objects that a server sends may grow members; a \
client ignores those that it does not know."""


def errors_of(method: Method) -> tuple[type[RpcError], ...]:
    """Every error that the method itself may answer with; those of the envelope come before it."""
    authentication = _AUTHENTICATED if method.authenticated else ()
    return _ANY_METHOD + authentication + _OWN.get(method.name, ())


def openrpc_document(
    *, title: str = "wallet-sync", version: str = str(limits.PROTOCOL_VERSION)
) -> dict[str, Any]:
    """The OpenRPC document: every method with params, result and errors, and the notifications.

    ``version`` is that of the server, or of the protocol when the document stands for itself.
    """
    sent_by_client = _referenced(method.params for method in METHODS.values())
    results = [kind for method in METHODS.values() for kind in method.results]
    components = {**dict.fromkeys(results), **_referenced(results), **sent_by_client}
    components |= _referenced(NOTIFICATIONS.values())
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": title,
            "description": _DESCRIPTION,
            "version": version,
            "license": {"name": "MIT"},
        },
        "methods": [_method(method) for method in METHODS.values()],
        "components": {
            "schemas": {
                # What a client sends is checked to the last member, what a server sends may grow.
                cls.__name__: object_schema(cls, closed=cls in sent_by_client)
                for cls in sorted(components, key=lambda cls: cls.__name__)
            },
            "errors": {
                kind.__name__: _error(kind)
                for kind in errors.JSON_RPC_ERRORS + errors.PROTOCOL_ERRORS
            },
        },
        "x-notifications": [
            {
                "name": name,
                "summary": _summary(cls),
                "paramStructure": "by-name",
                "params": _descriptors(cls),
            }
            for name, cls in NOTIFICATIONS.items()
        ],
    }


def _method(method: Method) -> dict[str, Any]:
    document = {
        "name": method.name,
        "summary": _summary(method.params),
        "tags": [{"name": method.name.split(".")[0]}],
        "paramStructure": "by-name",
        "params": _descriptors(method.params),
        "result": _result(method),
        "errors": [{"$ref": f"#/components/errors/{kind.__name__}"} for kind in errors_of(method)],
    }
    return document | {"x-authenticated": True} if method.authenticated else document


def _summary(cls: type[Any]) -> str:
    return str(cls.__doc__).strip().split("\n")[0]


def _descriptors(cls: type[Any]) -> list[dict[str, Any]]:
    properties = object_schema(cls, closed=True)["properties"]
    return [
        {"name": member.name, "required": member.required, "schema": properties[member.name]}
        for member in members(cls)
    ]


def _result(method: Method) -> dict[str, Any]:
    if not method.results:
        document = {"type": "object", "required": ["openrpc", "info", "methods"]}
        return {"name": "OpenRPC", "schema": document}
    schemas = [Object(cls).schema() for cls in method.results]
    name = "Or".join(cls.__name__ for cls in method.results)
    return {"name": name, "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}


def _error(kind: type[RpcError]) -> dict[str, Any]:
    document: dict[str, Any] = {"code": kind.code, "message": kind.text}
    data = _data_members(kind)
    if data:
        required = [name for name in data if not (kind is errors.Unavailable and name == "errorId")]
        document["data"] = {"type": "object", "properties": data, "required": required}
    return document


def _data_members(kind: type[RpcError]) -> dict[str, Any]:
    """The schema of each member of the error's ``data``; empty where it has none."""
    if kind is errors.InvalidParams:
        return {"path": {"type": "string"}, "reason": {"type": "string", "enum": [*FIELD_REASONS]}}
    if kind is errors.InternalError:
        return {"errorId": {"type": "string"}}
    if not kind.reason:
        return {}
    schemas: dict[str, Any] = {"reason": {"type": "string", "const": kind.reason}}
    if kind is errors.Conflict:
        schemas["wallet"] = Nullable(Object(WalletState)).schema()
        schemas["landed"] = {"type": "boolean"}
    elif kind is errors.WalletTooLarge:
        schemas["maxBytes"] = Integer().schema()
    elif kind in (errors.RateLimited, errors.Unavailable):
        schemas["retryAfterMs"] = Integer().schema()
    if kind is errors.Unavailable:
        schemas["errorId"] = {"type": "string"}
    return schemas


def _referenced(classes: Any) -> dict[type[Any], None]:
    """The classes of the objects inside these, at any depth; a dict for its order."""
    found: dict[type[Any], None] = {}
    waiting: list[Kind] = [member.kind for cls in classes for member in members(cls)]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, Array):
            waiting.append(kind.item)
        elif isinstance(kind, Nullable):
            waiting.append(kind.kind)
        elif isinstance(kind, Object):
            found[kind.cls] = None
            waiting += [member.kind for member in members(kind.cls)]
    return found


def render() -> bytes:
    """The document as the file has it."""
    return orjson.dumps(openrpc_document(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def main(arguments: Sequence[str]) -> int:
    """Print the document or, with ``--write``, renew its copy in the checkout."""
    if [*arguments] == ["--write"]:
        COPY.write_bytes(render())
    elif arguments:
        print("usage: python -m wsschema.openrpc [--write]", file=sys.stderr)
        return 2
    else:
        sys.stdout.write(render().decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
