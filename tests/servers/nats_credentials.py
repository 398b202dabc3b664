"""An operator of NATS with one account: what `nsc` would make, for a server and its clients.

Source: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys

HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


class Operator:
    """Vouches for one account, whose users `add_user` names."""

    def __init__(self) -> None:
        self._key = _make_key(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = _make_key(nkeys.PREFIX_BYTE_ACCOUNT)

    def write_configuration(self, path: Path) -> None:
        """Write what a server is to be started with."""
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn"), -1)
        account = _sign(
            self._key, self._account, {"type": "account", "version": 2, "limits": limits}
        )
        operator = _sign(self._key, self._key, {"type": "operator", "version": 2})
        path.write_text(
            f"operator: {operator}\nresolver: MEMORY\n"
            f"resolver_preload: {{ {_public(self._account)}: {account} }}\n"
        )
        path.chmod(0o644)

    def add_user(self, path: Path) -> None:
        """Write the credentials of a new user of the account."""
        user = _make_key(nkeys.PREFIX_BYTE_USER)
        limits = dict.fromkeys(("subs", "data", "payload"), -1)
        token = _sign(self._account, user, {"type": "user", "version": 2, **limits})
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n"
            "------END USER NKEY SEED------\n"
        )


def _make_key(prefix: int) -> Any:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def _public(key: Any) -> str:
    return str(key.public_key.decode())


def _sign(issuer: Any, subject: Any, what: dict[str, Any]) -> str:
    claims: dict[str, Any] = {
        "iat": int(time.time()),
        "iss": _public(issuer),
        "name": "test",
        "nats": what,
        "sub": _public(subject),
    }
    digest = hashlib.new("sha512_256", json.dumps(claims).encode()).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_encode(HEADER)}.{_encode(claims)}"
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def _encode(part: dict[str, Any]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
