"""Devices of one account, for the tests of the test server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from wsclient import Contents, Session, Witness, derive_keys, seal
from wsclient.crypto import Keys
from wsclient.testing import TestServer

EMAIL = "joe@example.com"
PASSWORD = "correct horse"


class Device:
    """A session that has logged in, and the keys of its account."""

    def __init__(self, session: Session, keys: Keys) -> None:
        self.session, self.keys = session, keys

    async def push(self, sequence: int, wallet: bytes = b"-") -> None:
        contents = Contents(wallet, previous=None, devices={})
        await self.session.push(sequence, seal(self.keys, sequence, contents))


@contextlib.asynccontextmanager
async def log_in(
    server: TestServer, device_id: str, witness: Witness | None = None
) -> AsyncIterator[Device]:
    async with server.make_session(witness) as session:
        keys = await derive_keys(session, EMAIL, PASSWORD)
        await session.login(keys, device_id=device_id)
        yield Device(session, keys)
