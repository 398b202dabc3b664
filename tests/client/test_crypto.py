"""Key derivation, HMAC and sealing, against the golden vectors that other languages use too."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from wsclient import crypto
from wsclient.crypto import DEFAULT_KDF, Contents, Keys
from wsclient.errors import StateRefused, WeakKdf
from wsschema.fields import decode, lower_email
from wsschema.messages import Kdf

VECTORS = Path(__file__).parents[2] / "schema" / "vectors"
KEYS = Keys("joe@example.com", "secret", b"h" * 32, b"s" * 32, DEFAULT_KDF)


def load(name: str, group: str = "cases") -> list[Any]:
    cases = json.loads((VECTORS / name).read_text())[group]
    return [pytest.param(case, id=case["name"]) for case in cases]


@pytest.mark.parametrize("case", load("key-derivation.json"))
def test_keys_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    email, seed = case["email"], case["clientSaltSeed"]

    keys = crypto.derive_keys(email, case["rootPassword"], seed, decode(Kdf, case["kdf"]))

    assert crypto.make_salt(email, seed) == case["salt"].encode("ascii")
    assert keys.password == case["password"]
    assert keys.hmac_key.hex() == case["hmacKey"]
    assert keys.seal_key.hex() == case["sealKey"]


@pytest.mark.parametrize("case", load("hmac.json"))
def test_hmacs_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    key = bytes.fromhex(case["hmacKey"])
    sequence, wallet = case["sequence"], case["encryptedWallet"]

    assert crypto.compute_hmac(key, sequence, wallet) == case["hmac"]
    crypto.check_hmac(key, sequence, wallet, case["hmac"])


def test_every_hmac_of_the_vectors_differs() -> None:
    hmacs = [case.values[0]["hmac"] for case in load("hmac.json")]
    assert len(set(hmacs)) == len(hmacs)


def keys_of(case: dict[str, Any]) -> Keys:
    return Keys(lower_email(case["email"]), "", b"", bytes.fromhex(case["sealKey"]), DEFAULT_KDF)


@pytest.mark.parametrize("case", load("sealing.json"))
def test_seals_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    contents = Contents(bytes.fromhex(case["wallet"]), case["previous"], case["devices"])
    keys, sequence = keys_of(case), case["sequence"]

    sealed = crypto.seal(keys, sequence, contents, nonce=bytes.fromhex(case["nonce"]))

    assert sealed == case["encryptedWallet"]
    assert crypto.open_sealed(keys, sequence, sealed) == contents


@pytest.mark.parametrize("case", load("sealing.json", "refused"))
def test_a_seal_that_is_not_right_does_not_open(case: dict[str, Any]) -> None:
    with pytest.raises(StateRefused) as refused:
        crypto.open_sealed(keys_of(case), case["sequence"], case["encryptedWallet"])
    assert refused.value.reason == "cannot_open"


@given(wallet=st.binary(max_size=200), sequence=st.integers(1, 2**53 - 1))
def test_whatever_is_sealed_opens_again(wallet: bytes, sequence: int) -> None:
    contents = Contents(wallet, "previous", {"laptop": sequence})
    assert crypto.open_sealed(KEYS, sequence, crypto.seal(KEYS, sequence, contents)) == contents


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"v":1,"previous":"\\ud800","devices":{}}',
        b'{"v":1,"previous":null,"devices":{"\\ud800":1}}',
        b'{"v":1,"previous":null,"devices":{"phone":9007199254740992}}',
        b'{"v":1,"previous":null,"devices":{"phone":%s}}' % (b"9" * 400),
        '{"v":1,"previous":null,"devices":{}}'.encode("utf-16-le"),
    ],
    ids=["array", "object", "previous", "device", "sequence", "long_sequence", "utf_16"],
)
def test_a_lineage_that_could_not_be_sealed_or_kept_again_does_not_open(header: bytes) -> None:
    """Another device of the account has the key, and may have sealed anything."""
    nonce, about = bytes(12), f"wallet-sync.v1:{KEYS.email}:7".encode()
    ciphertext = AESGCM(KEYS.seal_key).encrypt(nonce, header + b"\nwallet", about)

    with pytest.raises(StateRefused) as caught:
        crypto.open_sealed(KEYS, 7, base64.b64encode(nonce + ciphertext).decode())
    assert caught.value.reason == "cannot_open"


def test_two_seals_of_the_same_contents_share_no_nonce() -> None:
    contents = Contents(b"-", None, {})
    assert crypto.seal(KEYS, 1, contents)[:16] != crypto.seal(KEYS, 1, contents)[:16]


def test_a_lineage_of_too_many_devices_is_not_sealed() -> None:
    devices = {f"device-{number}": 1 for number in range(65)}
    with pytest.raises(ValueError, match="names 65 devices; the limit is 64"):
        crypto.seal(KEYS, 1, Contents(b"-", None, devices))


@pytest.mark.parametrize("received", ["", "00" * 32, "grüß"])
def test_another_hmac_is_refused(received: str) -> None:
    with pytest.raises(StateRefused) as refused:
        crypto.check_hmac(KEYS.hmac_key, 3, "-", received)
    assert (refused.value.reason, refused.value.sequence) == ("bad_hmac", 3)


@pytest.mark.parametrize(
    ("kdf", "floor", "weaker"),
    [
        (Kdf.scrypt(2**17), Kdf.scrypt(2**17), False),
        (Kdf.scrypt(2**18), Kdf.scrypt(2**17), False),
        (Kdf.scrypt(2**16), Kdf.scrypt(2**17), True),
        (Kdf.scrypt(2**17, p=1), Kdf.scrypt(2**17, p=2), True),
        (Kdf.scrypt(2**16, p=4), Kdf.scrypt(2**17), True),  # more work, less memory
        (Kdf.scrypt(2**18, p=1), Kdf.scrypt(2**17, p=2), False),  # as much work, more memory
        (Kdf.scrypt(2**18, p=1), Kdf.scrypt(2**17, p=4), True),  # more memory, less work
    ],
)
def test_weaker_means_less_memory_or_less_work(kdf: Kdf, floor: Kdf, weaker: bool) -> None:
    assert crypto.is_weaker(kdf, floor) is weaker


def test_on_first_contact_less_than_the_minimum_is_refused() -> None:
    with pytest.raises(WeakKdf, match=r"n=65536, r=8, p=1, which is weaker than n=131072"):
        crypto.check_kdf(Kdf.scrypt(2**16))
    crypto.check_kdf(Kdf.scrypt(2**14), minimum_kdf=Kdf.scrypt(2**14))


def test_later_less_than_what_was_last_used_is_refused() -> None:
    crypto.check_kdf(Kdf.scrypt(2**15), last_used=Kdf.scrypt(2**15))
    with pytest.raises(WeakKdf):
        crypto.check_kdf(Kdf.scrypt(2**18), last_used=Kdf.scrypt(2**20))


def test_keys_and_contents_hide_their_secrets_from_repr() -> None:
    keys = crypto.derive_keys("joe@example.com", "root", "a" * 64, Kdf.scrypt(2**14))
    shown = f"{keys!r} {Contents(b'coins', 'previous', {'laptop': 1})!r}"
    for secret in ("joe@", keys.password, repr(keys.hmac_key), repr(keys.seal_key), "coins"):
        assert secret not in shown
