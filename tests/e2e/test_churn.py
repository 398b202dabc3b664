"""Sessions come and go by the thousand and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.e2e.rawclient import WAIT_S, RawClient, open_socket
from tests.e2e.serving import Served

SESSIONS = int(os.environ.get("CHURN_SESSIONS", "400"))
"""How many come and go in each test. Set the variable to 10000 for a thorough run."""
WARM_UP = 100
AT_ONCE = 20
BYTES_LEFT_MAX = 500
"""What a session may leave behind: noise, for one that leaks leaves a connection of thousands."""

Visit = Callable[[str, int], Awaitable[None]]


def count_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()]) if sys.platform == "linux" else 0


async def churn(visit: Visit, url: str, count: int) -> None:
    async def come_and_go(first: int) -> None:
        for number in range(first, count, AT_ONCE):
            await visit(url, number)

    await asyncio.gather(*(come_and_go(first) for first in range(AT_ONCE)))


async def settle(served: Served) -> None:
    """Waits until the server has noticed that all are gone."""
    server = served.server
    async with asyncio.timeout(WAIT_S):
        while server._public.connections or server._public._openings:
            await asyncio.sleep(0.05)
        while any(queue.waiting for queue in server._instruments.read().queues.values()):
            await asyncio.sleep(0.05)
    # What the sweep still remembers of them, it forgets when their deadlines come up.
    server._public.wheel._buckets.clear()
    gc.collect()


async def check(served: Served, visit: Visit) -> None:
    await churn(visit, served.url, WARM_UP)
    # A lane has its connection from its first operation on: let each of them have had one.
    client = RawClient(await open_socket(served.url))
    for _ in range(8):
        await client.call("account.prelogin", email="nobody@example.com")
    await client.close()
    assert await served.server._probe_store() is None
    await settle(served)
    tasks, descriptors = len(asyncio.all_tasks()), count_descriptors()
    tracemalloc.start()
    try:
        await churn(visit, served.url, AT_ONCE)
        await settle(served)
        before = tracemalloc.get_traced_memory()[0]
        await churn(visit, served.url, SESSIONS)
        await settle(served)
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert len(served.server._engine.hub) == 0
    assert served.server._engine._members == set()
    assert len(asyncio.all_tasks()) == tasks
    assert count_descriptors() <= descriptors
    assert left / SESSIONS < BYTES_LEFT_MAX, f"{left:,} bytes are left of {SESSIONS:,} sessions"


async def test_sessions_that_close_leave_nothing_behind(served: Served) -> None:
    joe = await served.open_account()
    token = (await served.open_device("joe@example.com", "phone"))[1]["token"]
    await joe.push(1)
    await served.close_clients()

    async def visit(url: str, number: int) -> None:
        client = RawClient(await open_socket(url))
        await client.call("session.resume", token=token, since=0, presence=True)
        await client.call("wallet.get")
        await client.close()

    await check(served, visit)


async def test_connections_that_break_off_leave_nothing_behind(served: Served) -> None:
    await served.open_account()
    token = (await served.open_device("joe@example.com", "phone"))[1]["token"]
    await served.close_clients()

    async def visit(url: str, number: int) -> None:
        client = RawClient(await open_socket(url))
        calls = number % 4
        if calls >= 1:
            await client.submit("session.resume", token=token)
        if calls >= 2:
            await client.submit("wallet.get")
        if calls >= 3:
            await client.submit("session.login", email="joe", password="x" * 8, deviceId="x")
            await asyncio.sleep(0)
        client.abort()
        await client.closed()

    await check(served, visit)


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
async def test_connections_that_never_become_websockets_leave_nothing_behind(
    served: Served,
) -> None:
    async def visit(url: str, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write([b"GET /v1 HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"GET /v1"][number % 3])
        if number % 3 < 2:
            await reader.read()
        writer.transport.abort()

    await check(served, visit)
