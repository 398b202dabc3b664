"""Keys at no cost: a test opens folders and logs in by the dozen, and scrypt is slow on purpose."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import scrypt

from wsclient import crypto
from wsschema.messages import Kdf


@contextlib.contextmanager
def cheap_keys() -> Iterator[None]:
    """Has the client in this process derive its keys at no cost, whatever parameters are named.

    They are not the keys that are derived elsewhere: a folder that was sealed inside does not open
    outside. May be nested, and end in any order.
    """
    global _uses
    _uses += 1
    if _uses == 1:
        _patch.start()
    try:
        yield
    finally:
        _uses -= 1
        if _uses == 0:
            _patch.stop()


def _stretch(root_password: str, salt: bytes, kdf: Kdf, length_bytes: int) -> bytes:
    named = f"{root_password} {kdf}"  # under other parameters, other keys
    keys: bytes = scrypt.hash(named.encode(), salt, N=2, r=1, p=1, buflen=length_bytes)
    return keys


_uses = 0
_patch = mock.patch.object(crypto, "stretch", _stretch)
