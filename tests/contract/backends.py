"""The stores that the contract holds for, behind the same few methods, and what is sent to them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from sqlalchemy import Engine, insert, update

from wsschema.errors import RpcError
from wsschema.messages import Kdf, SealedWallet, WalletState
from wsserver.operations import (
    AcknowledgeState,
    CreateAccount,
    Credentials,
    EndSession,
    LoadCredentials,
    LoadDevices,
    LoadWallet,
    OpenedSession,
    OpenSession,
    Operation,
    PasswordHash,
    ProbeWrite,
    PushState,
    RemoveAccount,
    RemoveDevice,
    ReplacePassword,
)
from wsserver.store.context import Done
from wsserver.store.databases import create_store_engine, parse_url
from wsserver.store.memory import MemoryStore
from wsserver.store.sql import SqlStore
from wsserver.store.tables import accounts, allowlist

R = TypeVar("R")

HISTORY_DEPTH = 10
TOKEN_LIFETIME_S = 14 * 24 * 3600
START_MS = 1_800_000_000_000
KDF = Kdf.scrypt(2**17)
SEED = "ab" * 32
PATIENCE_S = 30


@dataclass(slots=True)
class Hold:
    """Stops a lane where it asks for the time: in the midst of an operation."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Clock:
    """Milliseconds since 1970, moved by the test."""

    now_ms: int = START_MS
    hold: Hold | None = None

    def __call__(self) -> int:
        hold = self.hold
        if hold is not None and threading.current_thread().name == "writing lane":
            self.hold = None
            hold.reached.set()
            hold.released.wait(PATIENCE_S)
        return self.now_ms


class Store(Protocol):
    """What every store does for the event loop."""

    @property
    def waiting(self) -> dict[str, int]: ...

    def submit(self, operation: Operation[Any], done: Done) -> None: ...

    async def close(self, timeout_s: float = 60.0) -> None: ...


@dataclass(slots=True)
class Backend:
    """An open store under test. ``answered``: what its ``answer`` was called with, in order."""

    store: Store
    clock: Clock
    answered: list[tuple[Operation[Any], Any]] = field(default_factory=list)

    async def perform(self, operation: Operation[R]) -> R:
        """The answer; raises the RpcError that the operation fails with."""
        (answer,) = await self.perform_all([operation])
        if isinstance(answer, RpcError):
            raise answer
        result: R = answer
        return result

    async def perform_all(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """The answers and RpcErrors of operations that are submitted in one go."""
        return await gather_answers(self.submit_all(operations))

    def submit_all(self, operations: Sequence[Operation[Any]]) -> list[asyncio.Future[Any]]:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in operations]
        for operation, future in zip(operations, futures, strict=True):
            self.store.submit(operation, future.set_result)
        return futures

    async def perform_batch(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """The answers of operations that wait together, so that a store which batches takes all."""
        return await self.perform_all(operations)

    async def disable(self, account_id: int) -> None:
        """Do as an operator who disables the account."""
        raise NotImplementedError

    async def allow(self, email: str) -> None:
        """Do as an operator who puts the address on the allowlist."""
        raise NotImplementedError


class MemoryBackend(Backend):
    async def allow(self, email: str) -> None:
        assert isinstance(self.store, MemoryStore)
        self.store.memory.allowlist.add(email)

    async def disable(self, account_id: int) -> None:
        assert isinstance(self.store, MemoryStore)
        self.store.memory.accounts[account_id].disabled = True


@dataclass(slots=True)
class SqlBackend(Backend):
    """A SqlStore, and a connection of another process's kind to its database.

    ``path``: its file, on SQLite.
    """

    engine: Engine = field(kw_only=True)
    path: Path = field(kw_only=True)
    batches: list[tuple[str, int]] = field(kw_only=True)

    @property
    def written(self) -> list[int]:
        """The sizes of the writing lane's batches; complete once the store is closed."""
        return [size for lane, size in self.batches if lane == "writing lane"]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While another connection has the database's write lock."""
        with self.engine.begin():
            yield

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[asyncio.Future[Any]]:
        """While the writing lane is busy: what is submitted waits together. Gives what it is at."""
        hold = self.clock.hold = Hold()
        (probe,) = self.submit_all([ProbeWrite()])
        assert await asyncio.to_thread(hold.reached.wait, PATIENCE_S)
        try:
            yield probe
        finally:
            hold.released.set()

    async def perform_batch(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        async with self.held():
            futures = self.submit_all(operations)
        return await gather_answers(futures)

    async def allow(self, email: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(insert(allowlist).values(email=email, created_at=START_MS))

    async def disable(self, account_id: int) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                update(accounts).where(accounts.c.id == account_id).values(disabled=True)
            )


async def gather_answers(futures: Sequence[asyncio.Future[Any]]) -> list[Any]:
    async with asyncio.timeout(PATIENCE_S):
        return [await future for future in futures]


@contextlib.asynccontextmanager
async def open_memory(
    *, history_depth: int = HISTORY_DEPTH, token_lifetime_s: int = TOKEN_LIFETIME_S
) -> AsyncIterator[MemoryBackend]:
    clock = Clock()
    answered: list[tuple[Operation[Any], Any]] = []

    def answer(operation: Operation[Any], answer: Any, done: Done) -> None:
        answered.append((operation, answer))
        done(answer)

    store = MemoryStore(
        history_depth=history_depth, token_lifetime_s=token_lifetime_s, answer=answer, now_ms=clock
    )
    await store.open()
    try:
        yield MemoryBackend(store, clock, answered)
    finally:
        await store.close()


def open_sqlite(path: Path, **options: Any) -> AbstractAsyncContextManager[SqlBackend]:
    return open_sql(f"sqlite:///{path}", path=path, **options)


@contextlib.asynccontextmanager
async def open_sql(
    url: str,
    *,
    path: Path = Path(),
    history_depth: int = HISTORY_DEPTH,
    token_lifetime_s: int = TOKEN_LIFETIME_S,
    opening: Mapping[str, bool] = MappingProxyType({}),
    **options: Any,
) -> AsyncIterator[SqlBackend]:
    clock = Clock()
    answered: list[tuple[Operation[Any], Any]] = []
    batches: list[tuple[str, int]] = []

    def answer(operation: Operation[Any], answer: Any, done: Done) -> None:
        answered.append((operation, answer))
        done(answer)

    store = SqlStore(
        url,
        **{
            "history_depth": history_depth,
            "token_lifetime_s": token_lifetime_s,
            "answer": answer,
            "now_ms": clock,
            "observe_batch": lambda lane, operations, _: batches.append((lane, operations)),
            **options,
        },
    )
    await store.open(**opening)
    try:
        engine = create_store_engine(parse_url(url))
        yield SqlBackend(store, clock, answered, engine=engine, path=path, batches=batches)
    finally:
        await store.close()


# What tests send.


def make_password(name: str = "first", *, n: int = 2**15) -> PasswordHash:
    """A stored password, as far as a store can tell."""
    digest, salt = (hashlib.sha256(f"{part} {name}".encode()).digest() for part in ("of", "salt"))
    return PasswordHash(digest, salt, n, 8, 1)


@dataclass(slots=True)
class Account:
    """An account of a test, and its sessions by device."""

    backend: Backend
    account_id: int
    email: str
    password: PasswordHash

    async def log_in(self, device_id: str = "phone", **members: Any) -> Login:
        opened = await self.backend.perform(self.opening(device_id, **members))
        return Login(self, device_id, opened)

    def opening(self, device_id: str = "phone", **members: Any) -> OpenSession:
        return OpenSession(
            **{
                "account_id": self.account_id,
                "checked": self.password,
                "upgraded": None,
                "device_id": device_id,
                "device_name": None,
                "devices_max": 64,
                "online": frozenset[str](),
                **members,
            }
        )

    async def credentials(self) -> Credentials | None:
        return await self.backend.perform(LoadCredentials(self.email))

    async def wallet(self, sequence: int | None = None) -> WalletState | None:
        return await self.backend.perform(LoadWallet(self.account_id, sequence))

    async def device_ids(self) -> list[str]:
        stored = await self.backend.perform(LoadDevices(self.account_id))
        return [device.device_id for device in stored.devices]


@dataclass(slots=True)
class Login:
    """A device's session."""

    account: Account
    device_id: str
    opened: OpenedSession

    @property
    def token_hash(self) -> bytes:
        return self.opened.token_hash

    def pushing(self, sequence: int, text: str = "wallet", hmac: str = "hmac") -> PushState:
        return PushState(self.token_hash, self.account.account_id, 7, sequence, text, hmac)

    async def push(self, sequence: int, text: str = "wallet", hmac: str = "hmac") -> WalletState:
        pushed = await self.account.backend.perform(self.pushing(sequence, text, hmac))
        assert pushed.fresh
        return pushed.state

    async def push_many(self, sequences: Sequence[int]) -> None:
        """Push the wallets ``wallet N`` with the hmacs ``hmac N``."""
        operations = [self.pushing(n, f"wallet {n}", f"hmac {n}") for n in sequences]
        for answer in await self.account.backend.perform_all(operations):
            assert answer.fresh

    def acknowledging(self, sequence: int) -> AcknowledgeState:
        return AcknowledgeState(self.token_hash, self.account.account_id, sequence)

    def replacing(
        self, wallet: SealedWallet | None, *, checked: PasswordHash | None = None, name: str = "new"
    ) -> ReplacePassword:
        return ReplacePassword(
            self.token_hash,
            self.account.account_id,
            checked or self.account.password,
            make_password(name),
            "cd" * 32,
            Kdf.scrypt(2**18),
            wallet,
        )

    def ending(self) -> EndSession:
        return EndSession(self.token_hash, self.account.account_id)

    def removing_device(self, device_id: str) -> RemoveDevice:
        return RemoveDevice(self.token_hash, self.account.account_id, device_id)

    def removing_account(self, *, checked: PasswordHash | None = None) -> RemoveAccount:
        return RemoveAccount(
            self.token_hash, self.account.account_id, checked or self.account.password
        )


def creating(email: str, password: PasswordHash | None = None, **members: Any) -> CreateAccount:
    return CreateAccount(
        **{
            "email": email,
            "password": password or make_password(),
            "client_salt_seed": SEED,
            "kdf": KDF,
            "verified": True,
            **members,
        }
    )


async def register(backend: Backend, email: str = "joe@example.com", **members: Any) -> Account:
    """A new account."""
    operation = creating(email, **members)
    await backend.perform(operation)
    credentials = await backend.perform(LoadCredentials(email))
    assert credentials is not None
    return Account(backend, credentials.account_id, email, operation.password)
