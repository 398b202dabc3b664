"""PostgreSQL is killed and restarted under load: what was acknowledged is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.contract.backends import Login, SqlBackend, open_sql, register
from tests.servers.postgresql import PostgreSQL
from wsschema.errors import Unavailable
from wsserver.operations import Pushed

ACCOUNTS = 3
PATIENCE_S = 60


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """A server of the test's own, which waits for the disk."""
    server = PostgreSQL(durable=True)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def nodes(server: PostgreSQL) -> AsyncIterator[list[SqlBackend]]:
    url = server.create_database()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_sql(url, lanes=2, opening={"shared": True}))
            for _ in range(2)
        ]


class Device:
    """Pushes one wallet after another, and the same again where it was told 503."""

    def __init__(self, node: SqlBackend, login: Login) -> None:
        self._node, self._login = node, login
        self.acknowledged = 0
        self.refused = 0
        self._ending = False

    async def push_on(self) -> None:
        while not self._ending:
            sequence = self.acknowledged + 1
            push = self._login.pushing(sequence, f"wallet {sequence}", f"hmac {sequence}")
            (answer,) = await self._node.perform_all([push])
            if isinstance(answer, Pushed):
                assert answer.state.sequence == sequence
                self.acknowledged = sequence
            else:
                assert isinstance(answer, Unavailable), answer
                self.refused += 1

    async def wait_for_more(self, pushes: int) -> None:
        wanted = self.acknowledged + pushes
        async with asyncio.timeout(PATIENCE_S):
            while self.acknowledged < wanted:
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        self._ending = True


async def test_nothing_acknowledged_is_lost_when_the_database_is_killed(
    server: PostgreSQL, nodes: list[SqlBackend]
) -> None:
    accounts = [await register(nodes[0], f"user{n}@example.com") for n in range(ACCOUNTS)]
    devices = [Device(nodes[n % 2], await account.log_in()) for n, account in enumerate(accounts)]
    async with asyncio.TaskGroup() as group:
        for device in devices:
            group.create_task(device.push_on())
        for end in (server.kill, server.stop, server.kill):
            await asyncio.gather(*(device.wait_for_more(5) for device in devices))
            await asyncio.to_thread(end)
            told = [device.acknowledged for device in devices]
            await asyncio.to_thread(server.start)
            with server.connect("test_1") as connection:
                stored = connection.execute(
                    "SELECT max(sequence) FROM versions GROUP BY account_id ORDER BY account_id"
                ).fetchall()
            assert all(row[0] >= one for row, one in zip(stored, told, strict=True))
        await asyncio.gather(*(device.wait_for_more(5) for device in devices))
        for device in devices:
            device.stop()
    for account, device in zip(accounts, devices, strict=True):
        head = await account.wallet()
        assert head is not None
        assert head.sequence == device.acknowledged
        assert head.encrypted_wallet == f"wallet {head.sequence}"
