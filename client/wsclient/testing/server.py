"""`TestServer`: a real server in this process, and everything that a test may do to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from wsclient import account
from wsclient.crypto import DEFAULT_KDF
from wsclient.session import Session
from wsclient.testing import keys
from wsclient.testing.backend import Backend
from wsclient.testing.lies import Lies
from wsclient.testing.line import Line
from wsclient.testing.network import Network
from wsclient.witness import Witness
from wsschema.fields import lower_email
from wsschema.limits import Limits
from wsschema.messages import Kdf
from wsserver.channel import Channel
from wsserver.operations import LoadCredentials, LoadWallet
from wsserver.store.memory import Memory


class Stored(NamedTuple):
    """Where the wallet of an account stands on the server; sequence 0: there is none."""

    sequence: int
    hmac: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a server had stored at a moment, to go back to."""

    memory: Memory = field(repr=False)


class TestServer(Network):
    """A real server in this process, reached over connections in memory.

    ::

        async with TestServer() as server:
            await server.register("joe@example.com", "correct horse")
            wallet = SyncedWallet(
                server.make_session, "joe@example.com", "correct horse", folder, merge
            )

    Sessions, hub and engine are those that serve, on the app's event loop. Everyone may register
    and nothing is rate-limited. Keys and stored passwords cost nothing to derive; ``cheap_keys``
    False: the client's cost what they cost. What is stored is gone with the server.

    ``limits``: what the server announces and holds. ``authentication_timeout_s``: for a connection
    to log in. See `Network` for the rest.
    """

    __test__ = False  # pytest: no class of tests

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        cheap_keys: bool = True,
        authentication_timeout_s: float = 30.0,
        silence_timeout_s: float = 45.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        limits = limits or Limits()
        super().__init__(
            limits=limits,
            authentication_timeout_s=authentication_timeout_s,
            silence_timeout_s=silence_timeout_s,
            sleep=sleep,
        )
        self.url = "wss://wallet-sync.test/v1"
        """For `Session`; it leads nowhere without ``connect``."""
        self._cheap_keys = keys.cheap_keys() if cheap_keys else contextlib.nullcontext()
        self.backend = Backend(limits)
        self.lies = Lies(self)
        """What a dishonest server does."""

    async def __aenter__(self) -> Self:
        await self.backend.start()
        self._cheap_keys.__enter__()
        self._is_down = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.lies.stop()
        for held in tuple(self._holds):
            self.release(held)
        self._is_down = True
        self.drop_connections()
        self._cheap_keys.__exit__(None, None, None)
        await self.backend.stop(abrupt=True)

    # Accounts and sessions.

    async def register(self, email: str, root_password: str, *, kdf: Kdf = DEFAULT_KDF) -> None:
        """Makes an account that can log in at once; AccountExists."""
        async with self.make_session() as session:
            await account.register(session, email, root_password, kdf=kdf)

    def make_session(self, witness: Witness | None = None) -> Session:
        """A session with this server, to be entered; what `SyncedWallet` takes for an address.

        It comes back as soon as it can, without waiting.
        """
        return Session(
            self.url,
            witness=witness,
            deliver="state",
            presence=True,
            connect=self.connect,
            random=lambda: 0.0,
            sleep=self._wait_for_server,
        )

    def stored(self, email: str) -> Stored:
        """Where the wallet of an account stands; LookupError where there is no such account."""
        state = self.backend.memory.perform(LoadWallet(self.find_account(email), None))
        return Stored(0, None) if state is None else Stored(state.sequence, state.hmac)

    # What happens to servers.

    async def restart(self, *, abrupt: bool = False) -> None:
        """A new life of the process on what is stored; sessions have to come back.

        Calls under way are answered and connections closed with 1012; ``abrupt``: all are cut.
        """
        async with self._stopped(abrupt=abrupt):
            pass

    def snapshot(self) -> Snapshot:
        """A backup: all that is stored now."""
        return Snapshot(self.backend.copy_memory())

    async def go_back(self, snapshot: Snapshot, *, announced: bool) -> None:
        """Puts a backup in place of all that is stored, and cuts every connection.

        ``announced``: as ``wsserver restore`` does it: each account has a new epoch, every token
        has ended. Not announced, the server claims that this is all there ever was: a rollback.
        """
        async with self._stopped(abrupt=True):
            self.backend.replace_memory(snapshot.memory, announced=announced)

    # What its parts call.

    def mount(self, line: Line) -> Channel:
        """The server's channel for a new connection."""
        return self.backend.engine.mount(line)

    def find_account(self, email: str) -> int:
        """The id of an account; LookupError where there is no such account."""
        credentials = self.backend.memory.perform(LoadCredentials(lower_email(email)))
        if credentials is None:
            raise LookupError("there is no account with that email")
        account_id: int = credentials.account_id
        return account_id

    @contextlib.asynccontextmanager
    async def _stopped(self, *, abrupt: bool) -> AsyncIterator[None]:
        self._is_down = True
        if abrupt:
            self.drop_connections()
        await self.backend.stop(abrupt=abrupt)
        yield
        self.backend.begin()
        self._is_down = False
        self.ring()

    async def _wait_for_server(self, after_s: float) -> None:
        await asyncio.sleep(0)
        await self.wait(lambda: self._is_reachable)
