"""The requests of the interface: what their bodies and queries may hold, read and checked. Pure.

Where several things are wrong the first is told, in that server's order and in its words.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from wsschema.fields import Email, FieldError, HexDigits, Kind, Opaque, Text
from wsschema.limits import (
    CLIENT_SALT_SEED_HEX_DIGITS,
    HMAC_BYTES_MAX,
    PASSWORD_CHARS_MAX,
    PASSWORD_CHARS_MIN,
)
from wsschema.messages import SealedWallet
from wsserver.lbry.refusals import Refusal

BODY_BYTES_MAX: Final = 100_000
"""Largest body of a request to the gateway: that server's own limit."""
SEQUENCE_MAX: Final = 2**32 - 1
"""Largest sequence that the gateway reads: that server's integer."""

_EMAIL: Final = Email()
_PASSWORD: Final = Text(PASSWORD_CHARS_MIN, PASSWORD_CHARS_MAX)
_SEED: Final = HexDigits(CLIENT_SALT_SEED_HEX_DIGITS)
_HMAC: Final = Opaque(HMAC_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Signup:
    """``POST /signup``."""

    email: str = field(repr=False)
    password: str = field(repr=False)
    client_salt_seed: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthFull:
    """``POST /auth/full``; ``device_id`` is any text that is not empty."""

    email: str = field(repr=False)
    password: str = field(repr=False)
    device_id: str


@dataclass(frozen=True, slots=True)
class PostWallet:
    """``POST /wallet``."""

    token: str = field(repr=False)
    wallet: SealedWallet


@dataclass(frozen=True, slots=True)
class PostPassword:
    """``POST /password``."""

    email: str = field(repr=False)
    old_password: str = field(repr=False)
    new_password: str = field(repr=False)
    client_salt_seed: str = field(repr=False)
    wallet: SealedWallet | None


def read_signup(body: bytes) -> Signup:
    """The request of that body; raises Refusal."""
    values = _parse(body, {"email": str, "password": str, "clientSaltSeed": str})
    _check_email(values)
    _check(values, "password", _PASSWORD)
    _check(values, "clientSaltSeed", _SEED)
    return Signup(values["email"], values["password"], values["clientSaltSeed"])


def read_auth_full(body: bytes) -> AuthFull:
    """The request of that body; raises Refusal."""
    values = _parse(body, {"deviceId": str, "email": str, "password": str})
    _check_email(values, "Invalid 'email'")
    _check(values, "password", _PASSWORD)
    _need(values, "deviceId")
    return AuthFull(values["email"], values["password"], values["deviceId"])


def read_post_wallet(body: bytes) -> PostWallet:
    """The request of that body; raises Refusal."""
    values = _parse(body, {"token": str, "encryptedWallet": str, "sequence": int, "hmac": str})
    for name in ("token", "encryptedWallet", "hmac"):
        _need(values, name)
    if not values["sequence"]:
        raise _invalid("Missing or zero-value 'sequence'")
    _check(values, "hmac", _HMAC, "Invalid 'hmac'")
    return PostWallet(values["token"], _wallet(values))


def read_post_password(body: bytes) -> PostPassword:
    """The request of that body; raises Refusal."""
    values = _parse(
        body,
        {
            "email": str,
            "oldPassword": str,
            "newPassword": str,
            "clientSaltSeed": str,
            "encryptedWallet": str,
            "sequence": int,
            "hmac": str,
        },
    )
    _check_email(values)
    _check(values, "oldPassword", _PASSWORD)
    _check(values, "newPassword", _PASSWORD)
    _check(values, "clientSaltSeed", _SEED)
    if values["oldPassword"] == values["newPassword"]:
        raise _invalid("'oldPassword' and 'newPassword' should not be the same")
    given = [bool(values[name]) for name in ("encryptedWallet", "sequence", "hmac")]
    if any(given) and not all(given):
        raise _invalid(
            "Fields 'encryptedWallet', 'sequence', and 'hmac' should be all non-empty and "
            "non-zero, or all omitted"
        )
    if any(given):
        _check(values, "hmac", _HMAC, "Invalid 'hmac'")
    return PostPassword(
        values["email"],
        values["oldPassword"],
        values["newPassword"],
        values["clientSaltSeed"],
        _wallet(values) if any(given) else None,
    )


def read_verify_resend(body: bytes) -> str:
    """The address; raises Refusal."""
    values = _parse(body, {"email": str})
    _check_email(values)
    return str(values["email"])


def read_seed_query(query: Mapping[str, str]) -> str:
    """The address of ``?email=``, which is in base64; raises Refusal."""
    # Who does not escape it sends pluses, which stand for spaces in a query.
    text = query.get("email", "").replace(" ", "+").replace("\r", "").replace("\n", "")
    try:
        return _EMAIL.read(base64.b64decode(text, validate=True).decode(), "", lenient=False)
    except (binascii.Error, ValueError, FieldError):
        raise Refusal(400, "Invalid email") from None


def read_token_query(query: Mapping[str, str]) -> str:
    """The token of ``?token=``; raises Refusal."""
    token = query.get("token", "")
    if not token:
        raise Refusal(400, "Missing token parameter")
    return token


# Parsing. That server is written in Go, whose decoder takes names in any case, null for what is not
# there, and what is not there for what is empty.


def _parse(body: bytes, kinds: Mapping[str, type]) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _unreadable() from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise _unreadable()
    names = {name.lower(): name for name in kinds}
    values: dict[str, Any] = {name: kind() for name, kind in kinds.items()}
    for key, value in document.items():
        name = key if key in kinds else names.get(key.lower())
        if name is None:
            raise Refusal(400, f"json: unknown field {orjson.dumps(key).decode()}")
        if value is None:
            continue
        if type(value) is not kinds[name]:
            raise _unreadable()
        if isinstance(value, int) and not 0 <= value <= SEQUENCE_MAX:
            raise _unreadable()
        values[name] = value
    return values


def _unreadable() -> Refusal:
    return Refusal(400, "Error parsing JSON")


def _invalid(what: str) -> Refusal:
    return Refusal(400, f"Request failed validation: {what}")


def _check_email(values: dict[str, Any], what: str = "Invalid or missing 'email'") -> None:
    _check(values, "email", _EMAIL, what)


def _check(values: dict[str, Any], name: str, kind: Kind, what: str | None = None) -> None:
    try:
        kind.read(values[name], name, lenient=False)
    except FieldError:
        raise _invalid(what or f"Invalid or missing '{name}'") from None


def _need(values: dict[str, Any], name: str) -> None:
    if not values[name]:
        raise _invalid(f"Missing '{name}'")


def _wallet(values: dict[str, Any]) -> SealedWallet:
    return SealedWallet(values["sequence"], values["encryptedWallet"], values["hmac"])
