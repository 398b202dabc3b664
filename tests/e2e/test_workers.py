"""`wsserver serve --workers 2` on PostgreSQL: two processes, one port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from websockets.exceptions import ConnectionClosed

from tests.certificates import Authority
from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import WAIT_S, CallFailed, RawClient, open_client, open_socket
from tests.e2e.serving import ServerProcess, fetch, fetch_json, find_free_port

if TYPE_CHECKING:
    from tests.servers.postgresql import PostgreSQL

# A start is four processes, one after the other.
START_S = 4 * WAIT_S
pytestmark = pytest.mark.timeout(400)
CONNECTIONS = 12
PUSHERS = 4


@pytest.fixture
def workers(make_process: MakeProcess, postgresql: PostgreSQL) -> ServerProcess:
    """Two of them, yet to be started."""
    url = postgresql.create_database()
    return make_process(database_url=url, workers=2, admin_port=find_free_port())


def shown_serial_number(client: RawClient) -> int:
    shown = client.socket.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number


def find_pids(server: ServerProcess, number: int) -> list[int]:
    """The processes that have been the worker of that number, the newest last."""
    found = re.findall(rf"worker {number} serves \(process (\d+)\)", server.log)
    return [int(pid) for pid in found]


async def fetch_sessions(server: ServerProcess) -> dict[str, float]:
    """The authenticated connections by worker."""
    _, _, text = await fetch(f"http://127.0.0.1:{server.settings['admin_port']}/metrics")
    found = re.findall(r"^wsserver_connections\{([^}]*)\} (\S+)$", text, re.MULTILINE)
    return {
        labels.partition('worker="')[2].partition('"')[0]: float(value)
        for labels, value in found
        if 'state="authenticated"' in labels
    }


@pytest.fixture
async def opened() -> AsyncIterator[list[RawClient]]:
    """Connections that end with the test."""
    clients: list[RawClient] = []
    yield clients
    for client in clients:
        await client.close()


async def open_sessions(
    server: ServerProcess, token: str, opened: list[RawClient]
) -> list[RawClient]:
    """Sessions of one account, on both workers."""
    clients: list[RawClient] = []
    async with asyncio.timeout(WAIT_S):
        while len(clients) < CONNECTIONS or min((await fetch_sessions(server)).values()) == 0:
            client = RawClient(await open_socket(server.url))
            await client.call("session.resume", token=token)
            clients.append(client)
            opened.append(client)
    return clients


async def test_all_devices_hear_of_a_push_and_a_killed_worker_loses_nothing(
    workers: ServerProcess, opened: list[RawClient]
) -> None:
    await workers.start(START_S)
    async with open_client(workers.url) as client:
        await client.register("joe@example.com")
        token = (await client.login("joe@example.com"))["token"]
    clients = await open_sessions(workers, token, opened)

    await clients[0].push(1)
    for client in clients[1:]:
        await client.hear_sequence(1)

    [pid] = find_pids(workers, 1)
    os.kill(pid, signal.SIGKILL)
    await workers.wait_for_log("worker 1 was ended by SIGKILL; a new one follows")
    left: list[RawClient] = []
    async with asyncio.timeout(WAIT_S):
        while len(left) in (0, len(clients)):
            left = [client for client in clients if not client._reading.done()]
            await asyncio.sleep(0.01)
    await left[0].push(2)
    for client in left[1:]:
        await client.hear_sequence(2)
    async with asyncio.timeout(START_S):
        while len(find_pids(workers, 1)) < 2:
            await asyncio.sleep(0.01)
    for client in await open_sessions(workers, token, opened):
        assert (await client.call("wallet.get"))["sequence"] == 2
    status, _ = await fetch_json(f"http://127.0.0.1:{workers.settings['admin_port']}/readyz")
    assert status == 200

    workers.signal(signal.SIGTERM)
    for client in left:
        assert await client.closed() == 1012
    assert await workers.wait() == 0
    assert "Traceback" not in workers.log


async def make_token(server: ServerProcess, email: str) -> str:
    """The token of a device of a new account."""
    async with open_client(server.url) as client:
        await client.register(email)
        return str((await client.login(email))["token"])


async def push_on(server: ServerProcess, token: str, stopping: asyncio.Event) -> int:
    """Pushes one state after the other, over one connection after the other; gives how many."""
    acknowledged = 0
    while not stopping.is_set():
        # Nobody is refused: a failure to connect fails the test.
        client = RawClient(await open_socket(server.url))
        with contextlib.suppress(CallFailed, ConnectionClosed, ConnectionError):
            resumed = await client.call("session.resume", token=token)
            assert resumed["sequence"] >= acknowledged, "what was acknowledged is there"
            acknowledged = resumed["sequence"]
            for _ in range(3):
                await client.push(acknowledged + 1)
                acknowledged += 1
        await client.close()
    return acknowledged


async def test_workers_are_replaced_under_load_and_nobody_is_refused(
    workers: ServerProcess,
) -> None:
    await workers.start(START_S)
    stopping = asyncio.Event()
    emails = [f"joe{number}@example.com" for number in range(PUSHERS)]
    tokens = await asyncio.gather(*(make_token(workers, email) for email in emails))
    pushing = [asyncio.create_task(push_on(workers, token, stopping)) for token in tokens]
    first = [*find_pids(workers, 1), *find_pids(workers, 2)]

    workers.signal(signal.SIGHUP)
    await workers.wait_for_log("every worker is new", START_S)
    stopping.set()
    assert min(await asyncio.gather(*pushing)) > 0

    last = [find_pids(workers, number)[-1] for number in (1, 2)]
    assert len({*first, *last}) == 4
    for pid in first:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    workers.signal(signal.SIGTERM)
    assert await workers.wait() == 0
    assert "Traceback" not in workers.log


async def test_workers_end_with_a_supervisor_that_is_killed_and_renew_a_certificate(
    workers: ServerProcess, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("server")
    workers.settings |= {"tls_cert": files.chain, "tls_key": files.key}
    await workers.start(START_S)
    context = ssl.create_default_context(cafile=str(authority.path))
    async with open_client(workers.url, ssl=context) as client:
        before = shown_serial_number(client)
    authority.issue("server")
    workers.signal(signal.SIGHUP)
    await workers.wait_for_log("every worker is new", START_S)
    async with open_client(workers.url, ssl=context) as client:
        assert shown_serial_number(client) != before

        workers.signal(signal.SIGKILL)
        assert await client.closed() == 1012
    async with asyncio.timeout(WAIT_S):
        for number in (1, 2):
            with contextlib.suppress(ProcessLookupError):
                while True:
                    os.kill(find_pids(workers, number)[-1], 0)
                    await asyncio.sleep(0.01)


async def test_a_database_that_is_not_there_ends_the_start_with_the_reason(
    make_process: MakeProcess,
) -> None:
    server = make_process(
        database_url=f"postgresql+psycopg://joe:secret@127.0.0.1:{find_free_port()}/w", workers=2
    )
    server.launch()
    assert await server.wait() == 1
    assert "can't be used" in server.log.splitlines()[-1]
    assert "secret" not in server.log
    assert "Traceback" not in server.log
