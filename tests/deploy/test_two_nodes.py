"""Two nodes on one PostgreSQL behind a real nginx: killed and drained, while devices push."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from tests.certificates import Authority
from tests.chaos.device import KDF, ROOT_PASSWORD, merge_marks, read_marks
from tests.deploy.conftest import MakeNginx
from tests.e2e.conftest import MakeProcess
from tests.servers.postgresql import PostgreSQL
from wsclient import Session, SyncedWallet, Witness, register

ACCOUNTS = ("joe@example.com", "ann@example.com")
DEVICES = ("laptop", "phone")
WAIT_S = 60
START_S = 90
PAUSE_S = 0.1
PUSHES_BETWEEN = 6
"""Acknowledged pushes of each account between one fault and the next."""


class Fleet:
    """Devices of some accounts, that each push mark after mark until told to stop."""

    def __init__(self, url: str, authority: Authority, folder: Path) -> None:
        self._url = url
        self._authority = authority
        self._folder = folder
        self._stop = asyncio.Event()
        self.acknowledged: dict[str, set[str]] = {email: set() for email in ACCOUNTS}
        self.wallets: dict[str, list[SyncedWallet]] = {email: [] for email in ACCOUNTS}

    @contextlib.asynccontextmanager
    async def open(self, email: str, name: str) -> AsyncIterator[SyncedWallet]:
        """A device of the account."""

        def make_session(witness: Witness) -> Session:
            # Backoff is for servers that are overloaded; these were killed.
            return Session(
                self._url,
                ca=self._authority.path,
                witness=witness,
                deliver="state",
                call_timeout_s=5,
                random=lambda: random.random() * 0.1,
            )

        async with SyncedWallet(
            make_session,
            email,
            ROOT_PASSWORD,
            self._folder / f"{name} of {email}",
            merge_marks,
            device_name=name,
            minimum_kdf=KDF,
            debounce_s=0.005,
        ) as wallet:
            yield wallet

    async def push(self, email: str, name: str) -> None:
        """Be one device, from beginning to end."""
        async with self.open(email, name) as wallet:
            self.wallets[email].append(wallet)
            for number in range(100_000):
                if self._stop.is_set():
                    break
                mark = f"{name} {number}"

                def add(value: bytes | None, mark: str = mark) -> bytes:
                    return orjson.dumps(sorted({*read_marks(value), mark}))

                await wallet.change(add)
                await wallet.sync(WAIT_S)
                self.acknowledged[email].add(mark)
                # Nodes that start beside them have the machine's time, too.
                await asyncio.sleep(PAUSE_S)
            await wait_until(lambda: self.agree(email))

    def agree(self, email: str) -> bool:
        """Whether all devices of the account have all that was acknowledged to any of them."""
        wallets = self.wallets[email]
        states = {(wallet.sequence, wallet.value) for wallet in wallets}
        return (
            self._stop.is_set()
            and len(wallets) == len(DEVICES)
            and len(states) == 1
            and self.acknowledged[email] <= read_marks(wallets[0].value)
        )

    async def push_some(self) -> None:
        """Returns once some more pushes have been acknowledged, of each account."""
        wanted = {email: len(marks) + PUSHES_BETWEEN for email, marks in self.of_accounts()}
        await wait_until(
            lambda: all(len(marks) >= wanted[email] for email, marks in self.of_accounts())
        )

    def of_accounts(self) -> list[tuple[str, set[str]]]:
        return [*self.acknowledged.items()]

    def stop(self) -> None:
        self._stop.set()


async def wait_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.02)


@pytest.mark.timeout(300)
async def test_nothing_acknowledged_is_lost_while_one_node_is_killed_and_one_drained(
    make_process: MakeProcess,
    make_nginx: MakeNginx,
    authority: Authority,
    postgresql: PostgreSQL,
    tmp_path: Path,
) -> None:
    database_url = postgresql.create_database()
    killed, drained = (
        make_process(database_url=database_url, trusted_proxies="127.0.0.1", drain_timeout_s=5)
        for _ in range(2)
    )
    await asyncio.gather(killed.start(START_S), drained.start(START_S))
    nginx = make_nginx([killed.port, drained.port])
    nginx.start()
    for email in ACCOUNTS:
        async with Session(nginx.url, ca=authority.path) as session:
            await register(session, email, ROOT_PASSWORD, kdf=KDF)

    fleet = Fleet(nginx.url, authority, tmp_path)
    async with asyncio.TaskGroup() as devices:
        for email in ACCOUNTS:
            for name in DEVICES:
                devices.create_task(fleet.push(email, name))
        await fleet.push_some()
        killed.signal(signal.SIGKILL)
        assert await killed.wait() == -signal.SIGKILL
        await fleet.push_some()
        await killed.start(START_S)
        await fleet.push_some()
        drained.signal(signal.SIGTERM)
        await fleet.push_some()
        assert await drained.wait() == 0
        await drained.start(START_S)
        await fleet.push_some()
        fleet.stop()

    for email, marks in fleet.of_accounts():
        async with fleet.open(email, "a new one") as wallet:
            await wallet.pull(WAIT_S)
            assert marks <= read_marks(wallet.value)
    served = nginx.access_log.read_text()
    assert all(f"127.0.0.1:{node.port}" in served for node in (killed, drained))
