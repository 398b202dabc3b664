"""What leaves a device: neither the root password nor anything that is in the wallet."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from wsclient import Session, SyncedWallet, Witness, register
from wsclient.connection import Connection
from wsclient.testing import TestServer

EMAIL = "joe@example.com"
ROOT_PASSWORD = "marked password 3f9a"
NEW_ROOT_PASSWORD = "marked new password 77c1"
WALLET = b"marked wallet b04e"


class Tapped:
    """A connection that keeps what is sent."""

    def __init__(self, connection: Connection, sent: list[bytes]) -> None:
        self._connection, self._sent = connection, sent
        self.receive, self.close = connection.receive, connection.close
        self.allow_messages_of = connection.allow_messages_of

    async def send(self, payload: bytes) -> None:
        self._sent.append(payload)
        await self._connection.send(payload)


async def test_neither_the_root_password_nor_the_wallet_is_in_what_is_sent(tmp_path: Path) -> None:
    sent: list[bytes] = []

    async with TestServer() as server:

        async def connect(url: str) -> Connection:
            return Tapped(await server.connect(url), sent)

        def make_session(witness: Witness | None = None) -> Session:
            return Session(server.url, witness=witness, connect=connect)

        async with make_session() as session:
            await register(session, EMAIL, ROOT_PASSWORD)
        async with SyncedWallet(
            make_session, EMAIL, ROOT_PASSWORD, tmp_path / "laptop", lambda base, mine, theirs: mine
        ) as wallet:
            await wallet.change(WALLET)
            await wallet.sync()
            await wallet.change_password(NEW_ROOT_PASSWORD)
            await wallet.change(WALLET * 2)
            await wallet.sync()

    said = b"\n".join(sent)
    sealed = re.findall(rb'"encryptedWallet":"([^"]+)"', said)
    assert len(sealed) == 3
    everything = b"\n".join([said, *map(base64.b64decode, sealed)])
    for secret in (ROOT_PASSWORD.encode(), NEW_ROOT_PASSWORD.encode(), WALLET):
        assert secret not in everything
        assert base64.b64encode(secret).rstrip(b"=")[:-1] not in everything
        assert secret.hex().encode() not in everything
