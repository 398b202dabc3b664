"""What a device keeps of its wallet between two runs, to and from bytes. Pure.

It is written before what it speaks of is done: a push before it is sent, so that after a crash it
is repeated to the letter and lands once. `wsclient.storage` seals it.
"""

from __future__ import annotations

import base64
import dataclasses
import secrets
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Final

import orjson

from wsclient.crypto import Keys
from wsschema.fields import FieldError, decode
from wsschema.messages import Kdf

FORMAT: Final = 1
DEVICE_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Version:
    """A state of the server's, opened: its bytes, and its lineage (`wsclient.crypto.Contents`)."""

    sequence: int
    hmac: str = field(repr=False)
    wallet: bytes = field(repr=False)
    previous: str | None = field(repr=False)
    devices: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A state that this device made: as it is sent, and what it is once it has landed."""

    version: Version
    encrypted_wallet: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """A change of the root password that was begun: the keys to come, and what they derive from.

    ``sealed``: the wallet under these keys, once it was made; None too where there is no wallet.
    """

    keys: Keys
    client_salt_seed: str = field(repr=False)
    sealed: Sealed | None = None


@dataclass(slots=True)
class LocalState:
    """All that a device keeps.

    ``value``: the wallet as it is here; None before there is one. ``base``: the newest state that
    is merged into it, which both sides of the next merge share. ``pushed``: a state on its way, of
    which nobody knows yet whether it landed. ``epoch``, ``sequence`` and ``hmac``: the newest state
    that was seen, as of `wsclient.witness`.
    """

    device_id: str
    value: bytes | None = field(default=None, repr=False)
    base: Version | None = None
    pushed: Sealed | None = None
    epoch: str | None = None
    sequence: int = 0
    hmac: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    keys: Keys | None = None
    password_change: PasswordChange | None = None

    @classmethod
    def new(cls) -> LocalState:
        """That of a device which nobody knows yet."""
        return cls(secrets.token_hex(DEVICE_ID_BYTES))


def encode_state(state: LocalState) -> bytes:
    """The state as JSON."""
    members = {name.name: getattr(state, name.name) for name in dataclasses.fields(state)}
    return orjson.dumps({"v": FORMAT, **members}, default=_encode_bytes)


def decode_state(payload: bytes) -> LocalState:
    """The state that `encode_state` wrote; ValueError for what another version wrote."""
    try:
        members = orjson.loads(payload)
        if members.pop("v") != FORMAT:
            raise ValueError("a later version")
        return LocalState(
            device_id=_typed(members["device_id"], str),
            value=_decode_bytes(members["value"]),
            base=_decode_version(members["base"]),
            pushed=_decode_sealed(members["pushed"]),
            epoch=_typed(members["epoch"], str, NoneType),
            sequence=_typed(members["sequence"], int),
            hmac=_typed(members["hmac"], str, NoneType),
            token=_typed(members["token"], str, NoneType),
            keys=_decode_keys(members["keys"]),
            password_change=_decode_password_change(members["password_change"]),
        )
    except (KeyError, TypeError, AttributeError, FieldError) as error:
        raise ValueError("not in the form of this version") from error


def _typed(value: Any, *kinds: type[Any]) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"{type(value).__name__} is not kept here")
    return value


def _encode_bytes(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not kept")


def _decode_bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


def _decode_keys(members: dict[str, Any] | None) -> Keys | None:
    if members is None:
        return None
    return Keys(
        email=_typed(members["email"], str),
        password=_typed(members["password"], str),
        hmac_key=base64.b64decode(members["hmac_key"], validate=True),
        seal_key=base64.b64decode(members["seal_key"], validate=True),
        kdf=decode(Kdf, members["kdf"]),
    )


def _decode_version(members: dict[str, Any] | None) -> Version | None:
    if members is None:
        return None
    devices = _typed(members["devices"], dict)
    return Version(
        sequence=_typed(members["sequence"], int),
        hmac=_typed(members["hmac"], str),
        wallet=base64.b64decode(members["wallet"], validate=True),
        previous=_typed(members["previous"], str, NoneType),
        devices={device_id: _typed(newest, int) for device_id, newest in devices.items()},
    )


def _decode_sealed(members: dict[str, Any] | None) -> Sealed | None:
    if members is None:
        return None
    version = _decode_version(members["version"])
    if version is None:
        raise ValueError("a state without its contents")
    return Sealed(version, _typed(members["encrypted_wallet"], str))


def _decode_password_change(members: dict[str, Any] | None) -> PasswordChange | None:
    if members is None:
        return None
    keys = _decode_keys(members["keys"])
    if keys is None:
        raise ValueError("a change without its keys")
    client_salt_seed = _typed(members["client_salt_seed"], str)
    return PasswordChange(keys, client_salt_seed, _decode_sealed(members["sealed"]))
