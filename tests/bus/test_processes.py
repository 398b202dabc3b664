"""Two real servers on one real PostgreSQL, with each bus."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rawclient import PASSWORD, CallFailed, RawClient, open_socket
from tests.e2e.serving import ServerProcess, fetch, find_free_port
from tests.faults.processes import linux_only
from tests.servers.nats import Nats
from tests.servers.postgresql import PostgreSQL

pytestmark = [linux_only, pytest.mark.timeout(240)]

START_S = 120.0
EMAIL = "joe@example.com"


class Pair:
    """Two nodes, and clients of them that are closed with them."""

    def __init__(self, nodes: list[ServerProcess], server: PostgreSQL | Nats) -> None:
        self.nodes = nodes
        self.server = server
        self._clients: list[RawClient] = []

    async def open(self, node: int) -> RawClient:
        client = RawClient(await open_socket(self.nodes[node].url))
        self._clients.append(client)
        return client

    async def log_in(
        self, node: int, device_id: str, *, email: str = EMAIL, **params: Any
    ) -> RawClient:
        client = await self.open(node)
        await client.login(email, device_id, **params)
        return client

    async def close(self) -> None:
        for client in self._clients:
            client.abort()
        for node in self.nodes:
            node.end()


@pytest.fixture(params=["postgresql", "nats"])
async def pair(
    request: pytest.FixtureRequest, tmp_path: Path, postgresql: PostgreSQL
) -> AsyncIterator[Pair]:
    settings = {"database_url": await asyncio.to_thread(postgresql.create_database)}
    server: PostgreSQL | Nats = postgresql
    if request.param == "nats":
        server = request.getfixturevalue("nats_server")
        assert isinstance(server, Nats)
        settings["bus_url"] = server.url
    nodes = []
    for number in (1, 2):
        folder = tmp_path / f"node-{number}"
        folder.mkdir()
        nodes.append(ServerProcess(folder, admin_port=find_free_port(), **settings))
    pair = Pair(nodes, server)
    try:
        await asyncio.gather(*(node.start(START_S) for node in nodes))
        client = await pair.open(0)
        await client.register(EMAIL)
        yield pair
    finally:
        await pair.close()


async def test_devices_at_two_nodes_are_as_those_at_one(pair: Pair) -> None:
    phone = await pair.log_in(0, "phone", presence=True)
    laptop = await pair.log_in(1, "laptop")
    await phone.until(lambda: any(it["online"] for it in phone.heard("device.updated")))
    for sequence in (1, 2, 3):
        pusher, other = (phone, laptop) if sequence % 2 else (laptop, phone)
        await pusher.push(sequence)
        await other.hear_sequence(sequence)
    await laptop.call("wallet.ack", sequence=3)
    await phone.until(lambda: phone.heard("device.updated")[-1]["appliedSequence"] == 3)
    for client in (phone, laptop):
        listed = (await client.call("device.list"))["devices"]
        assert {it["deviceId"]: it["online"] for it in listed} == {"phone": True, "laptop": True}
    await laptop.close()
    await phone.until(lambda: not phone.heard("device.updated")[-1]["online"])


async def test_a_revocation_is_done_at_every_node_soon_after_its_answer(pair: Pair) -> None:
    phone = await pair.log_in(0, "phone")
    twins = [await pair.log_in(1, device) for device in ("laptop", "tablet")]
    await phone.call("device.revoke", deviceId="laptop")
    assert await twins[0].closed() == 4401
    assert twins[0].heard("session.revoked")[-1] == {"reason": "device_revoked"}
    await phone.change_password(PASSWORD, "another one altogether", 1)
    answered_s = time.monotonic()
    assert await twins[1].closed() == 4401
    print(f"{time.monotonic() - answered_s:.3f} s")
    assert twins[1].heard("session.revoked")[-1] == {"reason": "password_changed"}
    with pytest.raises(CallFailed):
        await pair.log_in(1, "laptop")


async def test_what_was_committed_before_a_death_is_not_missed(pair: Pair) -> None:
    laptop = await pair.log_in(1, "laptop", presence=True)
    phone = await pair.log_in(0, "phone")
    await laptop.until(lambda: bool(laptop.heard("device.updated")))
    answers = [
        await phone.submit("wallet.push", sequence=n, encryptedWallet="w", hmac="h")
        for n in range(1, 20)
    ]
    await answers[0]
    pair.nodes[0].signal(signal.SIGKILL)  # Between a commit and its message, as likely as not.
    await phone.closed()
    found = await laptop.call("wallet.get")
    await laptop.hear_sequence(found["sequence"])
    await laptop.until(lambda: not laptop.heard("device.updated")[-1]["online"])


async def test_nothing_is_missed_while_the_bus_is_dead_and_a_node_stays_ready(pair: Pair) -> None:
    if isinstance(pair.server, PostgreSQL):
        pytest.skip("there, the bus is the database")
    phone, laptop = await pair.log_in(0, "phone"), await pair.log_in(1, "laptop")
    tablet = await pair.log_in(1, "tablet")
    await asyncio.to_thread(pair.server.kill)
    try:
        await phone.push(1)
        await laptop.hear_sequence(1)
        await phone.call("device.revoke", deviceId="tablet")
        assert await tablet.closed() == 4401
        for node in pair.nodes:
            status, _, _ = await fetch(f"http://127.0.0.1:{node.settings['admin_port']}/readyz")
            assert status == 200
        await until_figure(pair.nodes[0], "wsserver_bus_connected 0.0")
    finally:
        await asyncio.to_thread(pair.server.start)
    await until_figure(pair.nodes[0], "wsserver_bus_connected 1.0")
    await laptop.push(2)
    await phone.hear_sequence(2)


async def test_connections_that_a_failover_ends_are_made_anew(pair: Pair) -> None:
    if not isinstance(pair.server, PostgreSQL):
        pytest.skip("once is enough")
    phone, laptop = await pair.log_in(0, "phone"), await pair.log_in(1, "laptop")
    await phone.push(1)
    await laptop.hear_sequence(1)
    for sequence in (2, 3):
        await asyncio.to_thread(pair.server.cut_connections)
        while True:
            with contextlib.suppress(CallFailed):
                await phone.push(sequence)
                break
        await laptop.hear_sequence(sequence)
    assert all("Traceback" not in node.log for node in pair.nodes)


async def until_figure(node: ServerProcess, line: str) -> None:
    async with asyncio.timeout(60):
        while (
            line not in (await fetch(f"http://127.0.0.1:{node.settings['admin_port']}/metrics"))[2]
        ):
            await asyncio.sleep(0.1)


async def test_a_second_process_without_a_bus_is_refused(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    url = await asyncio.to_thread(postgresql.create_database)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first = ServerProcess(folders[0], database_url=url, bus_url="none")
    try:
        await first.start(START_S)
        assert "another server" in await refuse(folders[1], database_url=url)
    finally:
        first.end()


async def test_sqlite_takes_no_bus(tmp_path: Path) -> None:
    assert "needs no bus" in await refuse(tmp_path, bus_url="nats://127.0.0.1:1")


async def refuse(folder: Path, **settings: str) -> str:
    """What the log of a server says that does not start."""
    process = ServerProcess(folder, **settings)
    process.launch()
    try:
        assert await process.wait(START_S) == 1
    finally:
        process.end()
    return process.log
