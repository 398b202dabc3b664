"""What is real of the server: its sessions, hub and engine, on its store in memory.

That store passes the same contract tests as the one on a database; it needs no file, no thread and
no migration, is copied in a moment, and answers in the same turn of the loop on every run.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import hmac
import secrets
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import scrypt

from wsschema.limits import Limits
from wsschema.openrpc import openrpc_document
from wsserver.config import Settings
from wsserver.engine import Engine
from wsserver.gate import Gate, GateLimits
from wsserver.metrics import Metrics
from wsserver.operations import (
    SCRYPT_N,
    SCRYPT_P,
    SCRYPT_R,
    CheckPassword,
    HashPassword,
    Operation,
    PasswordHash,
    SendLetter,
)
from wsserver.server import NAME, make_info
from wsserver.session import ServerFacts
from wsserver.store.memory import Memory, MemoryStore

TOKEN_LIFETIME_S: Final = 14 * 86_400


class Backend:
    """A server process, without its ports: the store outlives it, `begin` is its next life."""

    engine: Engine

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._store = MemoryStore(
            history_depth=limits.history_depth,
            token_lifetime_s=TOKEN_LIFETIME_S,
            answer=self._take_answer,
            now_ms=lambda: time.time_ns() // 1_000_000,
        )
        self._decoy_key = b""

    @property
    def memory(self) -> Memory:
        """All that is stored."""
        return self._store.memory

    async def start(self) -> None:
        """Opens the store, and begins."""
        self._decoy_key = (await self._store.open()).decoy_key
        self.begin()

    def begin(self) -> None:
        """A new process on what is stored: no session, no memory of any."""
        # Constructed as it is: the settings of this process's environment are another server's.
        settings = Settings.model_construct(verification="open")
        self.engine = Engine(
            facts=ServerFacts(
                info=make_info(settings, self._limits),
                document=_describe(),
                limits=self._limits,
                allowlist=frozenset(),
                decoy_key=self._decoy_key,
                gate=Gate(GateLimits(), enabled=False, clock=time.monotonic),
            ),
            store=self._store,
            passwords=_Passwords(),
            send_letter=_send_no_letter,
            metrics=Metrics(),
        )

    async def stop(self, *, abrupt: bool) -> None:
        """Ends the process: closes every connection with 1012, unless they were cut before."""
        if not abrupt:
            self.engine.drain(lambda: 0)
        await self.engine.wait_until_empty()
        self.engine.note_all_seen()

    def copy_memory(self) -> Memory:
        """All that is stored now, for good."""
        return copy.deepcopy(self.memory)

    def replace_memory(self, memory: Memory, *, announced: bool) -> None:
        """Goes back; announced as a restore is: each account under a new epoch, no token left."""
        self._store.memory = copy.deepcopy(memory)
        if announced:
            for account in self.memory.accounts.values():
                account.epoch = secrets.token_hex(16)
                for device in account.devices.values():
                    device.token_hash = None

    def _take_answer(
        self, operation: Operation[Any], answer: Any, done: Callable[[Any], None]
    ) -> None:
        self.engine.take_answer(operation, answer, done)


class _Passwords:
    """Stored passwords are hashed with scrypt, at a cost that needs no thread."""

    def submit(
        self,
        operation: HashPassword | CheckPassword,
        done: Callable[[Any], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        """Perform the operation; ``done`` gets the answer on the event loop, never at once."""
        asyncio.get_running_loop().call_soon(done, self._perform(operation))

    def _perform(self, operation: HashPassword | CheckPassword) -> PasswordHash | bool:
        if isinstance(operation, HashPassword):
            salt = secrets.token_bytes(16)
            digest = _hash(operation.password, salt)
            # Said to be as costly as today's, or each login would store a better one.
            return PasswordHash(digest, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
        stored = operation.stored
        return stored is not None and hmac.compare_digest(
            _hash(operation.password, stored.salt), stored.digest
        )


def _hash(password: str, salt: bytes) -> bytes:
    digest: bytes = scrypt.hash(password.encode(), salt, N=2, r=1, p=1, buflen=32)
    return digest


@functools.cache
def _describe() -> dict[str, Any]:
    return openrpc_document(version=version(NAME))


def _send_no_letter(operation: SendLetter) -> None:
    raise AssertionError("only mode email sends mail")
