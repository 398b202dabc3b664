"""Peers that never read, and peers whose link is dead."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from benchmarks.common import make_token, provision
from tests.chaos.proxy import Proxy
from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import RawClient, open_client, open_socket
from tests.e2e.serving import ServerProcess
from tests.faults.load import PATIENCE_S
from tests.faults.namespace import linked
from tests.faults.processes import linux_only, measure_memory

WARM_UP = 300
UPDATES = 2500
WALLET = "x" * 20_000
DEAF = 5
MEMORY_BYTES_MAX = 16 * 2**20
"""A queue of all updates would be three times as much for one deaf peer."""
PING_S, PONG_S, SWEEP_S = 1.0, 1.5, 1.0
LATE_S = 4.0
"""What a machine that is busy with others may add."""


async def open_device(server: ServerProcess, device: int, **params: Any) -> RawClient:
    client = RawClient(await open_socket(server.url))
    await client.call("session.resume", token=make_token(1, device), **params)
    return client


async def push(author: RawClient, sequences: range) -> None:
    waiting: list[asyncio.Future[Any]] = []
    for sequence in sequences:
        state = {"sequence": sequence, "encryptedWallet": WALLET, "hmac": f"{sequence}"}
        waiting.append(await author.submit("wallet.push", **state, receipt=True))
        if len(waiting) == 8:
            await waiting.pop(0)
    await asyncio.gather(*waiting)
    author.received.clear()


@linux_only
async def test_peers_that_never_read_cost_a_slot_each_however_much_they_miss(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    await asyncio.to_thread(provision, server.settings["database_url"], 1, devices_each=DEAF + 1)
    await server.start()
    author = await open_device(server, 1)
    deaf = [await open_device(server, device + 2, deliver="state") for device in range(DEAF)]
    for client in deaf:
        client.socket.transport.pause_reading()
    # The kernel's buffers fill up, and the server's caches.
    await push(author, range(1, WARM_UP + 1))
    before = measure_memory(server.pid)

    await push(author, range(WARM_UP + 1, UPDATES + 1))

    grown = measure_memory(server.pid) - before
    print(f"{DEAF * UPDATES * len(WALLET):,} bytes were not read; memory grew by {grown:,}")
    assert grown < MEMORY_BYTES_MAX
    for client in deaf:
        client.socket.transport.resume_reading()
        await client.hear_sequence(UPDATES)
        told = [update["sequence"] for update in client.heard("wallet.updated")]
        assert told == sorted(set(told))
        assert len(told) < UPDATES
        client.abort()
        await client.closed()
    await author.close()


async def check_dead_link(
    server: ServerProcess, lost: RawClient, cut_s: float, watching: RawClient
) -> None:
    """The lost device is found and shown offline within the keepalive."""
    await watching.until(lambda: is_offline(watching))
    took_s = time.monotonic() - cut_s
    print(f"found after {took_s:.1f} s")
    # It may have been heard a moment before the cut; the sweep looks once a second.
    assert took_s < PING_S + PONG_S + 2 * SWEEP_S + LATE_S
    listed = (await watching.call("device.list"))["devices"]
    assert {device["deviceId"]: device["online"] for device in listed} == {
        "device 1": True,
        "device 2": False,
    }
    lost.abort()
    await lost.closed()


def is_offline(watching: RawClient) -> bool:
    told = watching.heard("device.updated")
    return bool(told) and told[-1]["deviceId"] == "device 2" and not told[-1]["online"]


async def start(server: ServerProcess) -> None:
    await asyncio.to_thread(provision, server.settings["database_url"], 1, devices_each=2)
    await server.start()


async def test_a_device_whose_packets_are_dropped_shows_offline_within_the_keepalive(
    make_process: MakeProcess,
) -> None:
    with linked() as link:
        host = "0.0.0.0"  # noqa: S104  # loopback, and the link
        server = make_process(host=host, ping_interval_s=PING_S, pong_timeout_s=PONG_S)
        await start(server)
        url = f"ws://{link.address}:{server.port}/v1"
        async with open_client(url) as watching:
            await watching.call("session.resume", token=make_token(1, 1), presence=True)
            lost = RawClient(await open_socket(url, sock=await link.connect(server.port)))
            await lost.call("session.resume", token=make_token(1, 2))
            await watching.hear("device.updated")

            link.cut()
            await check_dead_link(server, lost, time.monotonic(), watching)

            link.mend()
            async with asyncio.timeout(PATIENCE_S):
                back = RawClient(await open_socket(url, sock=await link.connect(server.port)))
            await back.call("session.resume", token=make_token(1, 2))
            await watching.until(lambda: watching.heard("device.updated")[-1]["online"])
            await back.close()


@pytest.mark.parametrize("pushing", [False, True])
async def test_a_device_whose_line_swallows_everything_shows_offline_within_the_keepalive(
    make_process: MakeProcess, pushing: bool
) -> None:
    server = make_process(ping_interval_s=PING_S, pong_timeout_s=PONG_S)
    await start(server)
    async with Proxy(random.Random(1)) as proxy, open_client(server.url) as watching:
        proxy.server_port = server.port
        await watching.call("session.resume", token=make_token(1, 1), presence=True)
        lost = RawClient(await open_socket(f"ws://127.0.0.1:{proxy.port}/v1"))
        await lost.call("session.resume", token=make_token(1, 2))
        await watching.hear("device.updated")

        # It gets no ping, so it sends no pong.
        proxy.swallow_answers()
        cut_s = time.monotonic()
        if pushing:
            # What it is sent meanwhile is not taken for a sign of life.
            await push(watching, range(1, 50))
        await check_dead_link(server, lost, cut_s, watching)
