"""Bytes as what another device sealed, and as what this one kept: opened, or refused as documented;
what was opened can be kept and sealed again."""

from __future__ import annotations

import base64
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.client.fake_server import KEYS
from tests.fuzz import grammar
from tests.fuzz.choices import Choices
from tests.fuzz.inside import require
from wsclient import crypto
from wsclient.crypto import NONCE_BYTES, Contents
from wsclient.errors import StateRefused
from wsclient.local_state import (
    LocalState,
    PasswordChange,
    Sealed,
    Version,
    decode_state,
    encode_state,
)

SEQUENCE: Final = 7
LINEAGE: Final = {"v": 1, "previous": "hmac", "devices": {"laptop": 6, "phone": 7}}
_VERSION: Final = Version(SEQUENCE, "hmac", b"wallet", None, {"laptop": 7})
_SEALED: Final = Sealed(_VERSION, "sealed")
KEPT: Final = orjson.loads(
    encode_state(
        LocalState(
            "laptop",
            value=b"wallet",
            base=_VERSION,
            pushed=_SEALED,
            epoch="e1",
            sequence=SEQUENCE,
            hmac="hmac",
            token="token",
            keys=KEYS,
            password_change=PasswordChange(KEYS, "a" * 64, _SEALED),
        )
    )
)

TOKENS: Final = (
    *(b'{"v":1,"previous":null,"devices":{}}\n', b'"previous":"', b'"devices":{"laptop":7}'),
    *(b'{"v":1,"device_id":"laptop","value":null,"base":null,"pushed":null,"epoch":null,',),
    *(b'"sequence":0,"hmac":null,"token":null,"keys":null,"password_change":null}',),
    *(b"\\ud800", b"[[[[[[[[", b"1e400", b"NaN", b"9007199254740993", b"18446744073709551616"),
    *(b'"base":{"sequence":1,"hmac":"","wallet":"","previous":null,"devices":{}}', b"\n"),
    *(b'{"email":"","password":"","hmac_key":"","seal_key":"","kdf":{"n":16384}}', b'"v":1,'),
)


def run(data: bytes) -> None:
    """The first byte says as what the rest is read."""
    choices = Choices(data)
    match choices.below(6):
        case 0:
            _open(seal_raw(choices.rest()))
        case 1:
            _open(choices.rest().decode(errors="replace"))
        case 2:
            header = choices.pick([b"[", b'{"a":', b"9", b" "]) * choices.pick([10, 1000, 20_000])
            _open(seal_raw(header + choices.rest()))
        case 3:
            _open(seal_raw(_changed(choices, LINEAGE) + b"\n" + choices.rest()))
        case 4:
            _load(_changed(choices, KEPT))
        case _:
            _load(choices.rest())


def _changed(choices: Choices, value: Any) -> bytes:
    for _ in range(1 + choices.below(3)):
        value = grammar.change(choices, value)
    return grammar.spoil(choices, grammar.write(choices, value))


def seal_raw(plaintext: bytes) -> str:
    """What opens to these bytes, whether the protocol has them so or not."""
    nonce = bytes(NONCE_BYTES)
    about = crypto._associated_data(KEYS, SEQUENCE)
    return base64.b64encode(nonce + AESGCM(KEYS.seal_key).encrypt(nonce, plaintext, about)).decode()


def _open(encrypted_wallet: str) -> None:
    try:
        contents = crypto.open_sealed(KEYS, SEQUENCE, encrypted_wallet)
    except StateRefused as refused:
        require(len(str(refused)) < 300, "a short reason", str(refused))
        return
    require(len(contents.devices) <= crypto.LINEAGE_DEVICES_MAX, "devices are bounded")
    again = crypto.seal(KEYS, SEQUENCE, contents)
    require(crypto.open_sealed(KEYS, SEQUENCE, again) == contents, "it can be sealed again")
    _keep(contents)


def _keep(contents: Contents) -> None:
    version = Version(SEQUENCE, "hmac", contents.wallet, contents.previous, dict(contents.devices))
    kept = LocalState("laptop", value=contents.wallet, base=version)
    require(decode_state(encode_state(kept)) == kept, "it can be kept", kept)


def _load(payload: bytes) -> None:
    try:
        state = decode_state(payload)
    except ValueError:
        return
    require(decode_state(encode_state(state)) == state, "what was kept can be kept again", state)
