"""Key derivation, HMAC and sealing: so that the server sees no root password and no wallet.

Source: ``docs/protocol.md``, section "Key derivation and sealing". Pure, and slow on purpose:
`derive_keys` takes about half a second with the default parameters, so asynchronous code calls it
in a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

import orjson
import scrypt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wsclient.errors import StateRefused, WeakKdf
from wsschema.fields import lower_email
from wsschema.limits import INTEGER_MAX
from wsschema.messages import Kdf

DEFAULT_KDF: Final = Kdf.scrypt(2**17)
"""OWASP Password Storage Cheat Sheet: scrypt with N=2^17, r=8, p=1."""

LBRY_KDF: Final = Kdf.scrypt(2**20)
"""What lbryio's own client derives keys with, from the address as it was typed: an account that
comes from there has it until its next password change."""

NONCE_BYTES: Final = 12
"""NIST SP 800-38D, section 5.2.1.1: the length GCM is made for."""
LINEAGE_DEVICES_MAX: Final = 64
LINEAGE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Keys:
    """What an account's root password becomes; ``password`` alone is ever sent to the server."""

    email: str = field(repr=False)
    """The address with A to Z lowered."""
    password: str = field(repr=False)
    hmac_key: bytes = field(repr=False)
    seal_key: bytes = field(repr=False)
    kdf: Kdf


@dataclass(frozen=True, slots=True)
class Contents:
    """What a sealed wallet holds: the application's bytes, and the lineage that convicts a liar.

    ``previous`` is the hmac of the state that this one replaces, None for the first; ``devices``
    the newest sequence that each device has pushed.
    """

    wallet: bytes = field(repr=False)
    previous: str | None = field(repr=False)
    devices: Mapping[str, int]


def derive_keys(
    email: str, root_password: str, client_salt_seed: str, kdf: Kdf, *, as_typed: bool = False
) -> Keys:
    """The keys of an account; ``as_typed`` as lbryio's own client derives them: see `LBRY_KDF`."""
    salt = make_salt(email, client_salt_seed, as_typed=as_typed)
    okm = stretch(root_password, salt, kdf, 96)
    return Keys(
        email=lower_email(email),
        password=base64.b64encode(okm[:32]).decode(),
        hmac_key=okm[32:64],
        seal_key=okm[64:],
        kdf=kdf,
    )


def stretch(root_password: str, salt: bytes, kdf: Kdf, length_bytes: int) -> bytes:
    """``length_bytes`` of keys, by scrypt (RFC 7914). Takes 128 * n * r bytes of memory."""
    password = unicodedata.normalize("NFC", root_password).encode()
    keys: bytes = scrypt.hash(password, salt, N=kdf.n, r=kdf.r, p=kdf.p, buflen=length_bytes)
    return keys


def make_salt(email: str, client_salt_seed: str, *, as_typed: bool = False) -> bytes:
    """The salt of an account: 32 hex digits as ASCII; ``as_typed`` leaves the address as it is."""
    address = email if as_typed else lower_email(email)
    digest = hashlib.sha256(f"{address}:{client_salt_seed}".encode())
    return digest.hexdigest()[:32].encode("ascii")


def is_weaker(kdf: Kdf, than: Kdf) -> bool:
    """Whether a guess at the root password costs less memory or less work under ``kdf``."""
    return kdf.n * kdf.r < than.n * than.r or kdf.n * kdf.r * kdf.p < than.n * than.r * than.p


def check_kdf(kdf: Kdf, *, minimum_kdf: Kdf = DEFAULT_KDF, last_used: Kdf | None = None) -> None:
    """Raises WeakKdf for parameters that a server may be talking this client down to.

    ``last_used`` is what this client last used for the account; ``minimum_kdf`` counts on first
    contact.
    """
    floor = minimum_kdf if last_used is None else last_used
    if is_weaker(kdf, floor):
        raise WeakKdf(kdf, floor)


def compute_hmac(hmac_key: bytes, sequence: int, encrypted_wallet: str) -> str:
    """The hex HMAC-SHA256 that binds a wallet to its sequence and its account."""
    message = f"{sequence}:{encrypted_wallet}".encode()
    return hmac.digest(hmac_key, message, "sha256").hex()


def check_hmac(hmac_key: bytes, sequence: int, encrypted_wallet: str, received: str) -> None:
    """Raises StateRefused when ``received`` is not the HMAC of this state under this key."""
    expected = compute_hmac(hmac_key, sequence, encrypted_wallet)
    if not hmac.compare_digest(expected.encode(), received.encode()):
        raise StateRefused(
            "bad_hmac",
            sequence,
            "its HMAC is wrong, so it was not made with this account's root password",
        )


def seal(keys: Keys, sequence: int, contents: Contents, *, nonce: bytes | None = None) -> str:
    """The ``encryptedWallet`` of a state: AES-256-GCM, bound to account and sequence.

    ``nonce`` is for test vectors; it must never occur twice under one key (NIST SP 800-38D, section
    8). ValueError for a lineage of more than 64 devices.
    """
    if len(contents.devices) > LINEAGE_DEVICES_MAX:
        raise ValueError(
            f"the lineage names {len(contents.devices)} devices; the limit is {LINEAGE_DEVICES_MAX}"
        )
    lineage = {
        "v": LINEAGE_VERSION,
        "previous": contents.previous,
        "devices": dict(contents.devices),
    }
    header = json.dumps(lineage, ensure_ascii=False, separators=(",", ":")).encode()
    nonce = os.urandom(NONCE_BYTES) if nonce is None else nonce
    plaintext = header + b"\n" + contents.wallet
    ciphertext = AESGCM(keys.seal_key).encrypt(nonce, plaintext, _associated_data(keys, sequence))
    return base64.b64encode(nonce + ciphertext).decode()


def open_sealed(keys: Keys, sequence: int, encrypted_wallet: str) -> Contents:
    """What `seal` sealed; StateRefused when it was sealed by another key, account or sequence."""
    try:
        sealed = base64.b64decode(encrypted_wallet.encode(), validate=True)
        plaintext = AESGCM(keys.seal_key).decrypt(
            sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _associated_data(keys, sequence)
        )
    except (binascii.Error, ValueError, InvalidTag):
        raise _cannot_open(sequence, "it does not open with this account's key") from None
    header, newline, wallet = plaintext.partition(b"\n")
    try:
        # Of JSON no more than what can be sealed and kept again: no lone surrogate, nothing too
        # deep, no number beyond 64 bits. Another device of the account may have written anything.
        lineage = orjson.loads(header)
    except orjson.JSONDecodeError:
        lineage = None
    if not newline or not isinstance(lineage, dict):
        raise _cannot_open(sequence, "what it seals is not in this protocol's form")
    if lineage.get("v") != LINEAGE_VERSION:
        raise _cannot_open(sequence, "it was sealed by a newer version of this protocol")
    previous, devices = lineage.get("previous"), lineage.get("devices")
    if not (previous is None or isinstance(previous, str)) or not _is_device_map(devices):
        raise _cannot_open(sequence, "its lineage is malformed")
    return Contents(wallet, previous, devices)


def _associated_data(keys: Keys, sequence: int) -> bytes:
    return f"wallet-sync.v1:{keys.email}:{sequence}".encode()


def _is_device_map(devices: Any) -> TypeGuard[dict[str, int]]:
    return (
        isinstance(devices, dict)
        and len(devices) <= LINEAGE_DEVICES_MAX
        and all(
            type(sequence) is int and 1 <= sequence <= INTEGER_MAX for sequence in devices.values()
        )
    )


def _cannot_open(sequence: int, text: str) -> StateRefused:
    return StateRefused("cannot_open", sequence, text)
