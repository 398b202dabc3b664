"""The server stops: newcomers are refused, what is in flight is answered, clients are sent away."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from typing import Any

import pytest

from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import CallFailed, RawClient, open_client, open_socket, state
from tests.e2e.serving import ServerProcess, open_database, run_command

CLIENTS = 12
ACCOUNTS = 3
LOGIN = {"email": "joe@example.com", "password": "a password", "deviceId": "laptop"}


async def open_clients(server: ServerProcess) -> list[RawClient]:
    """Sessions of three accounts; the first three are of an account each."""
    clients: list[RawClient] = []
    tokens = []
    for number in range(CLIENTS):
        client = RawClient(await open_socket(server.url))
        clients.append(client)
        if number < ACCOUNTS:
            email = f"joe{number}@example.com"
            await client.register(email)
            tokens.append((await client.login(email))["token"])
        else:
            await client.call("session.resume", token=tokens[number % ACCOUNTS])
    return clients


async def push_until_closed(client: RawClient) -> tuple[int, int]:
    """The newest sequence that was acknowledged, and how many pushes were refused."""
    acknowledged = refused = sequence = 0
    waiting: list[asyncio.Future[Any]] = []
    try:
        while True:
            while len(waiting) < 4:
                sequence += 1
                waiting.append(await client.submit("wallet.push", **state(sequence), receipt=True))
            acknowledged = (await waiting.pop(0))["sequence"]
    except CallFailed as error:
        assert (error.code, error.reason) == (503, "unavailable")
        assert error.data["retryAfterMs"] > 0
        refused += 1
    except Exception:
        assert await client.closed() == 1012
    await client.closed()
    for left in waiting:
        if left.done() and not left.exception():
            acknowledged = max(acknowledged, left.result()["sequence"])
    return acknowledged, refused


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_server_under_load(
    make_process: MakeProcess, number: signal.Signals
) -> None:
    server = make_process(drain_timeout_s=5)
    await server.start()
    clients = await open_clients(server)
    anonymous = RawClient(await open_socket(server.url))
    pushing = [asyncio.create_task(push_until_closed(client)) for client in clients[:ACCOUNTS]]
    await clients[0].until(lambda: len(clients[0].received) > 50)

    server.signal(number)
    signalled_s = time.monotonic()
    codes = await asyncio.gather(*(client.closed() for client in clients))
    assert await server.wait() == 0
    assert time.monotonic() - signalled_s < 5 + 2, "drain_timeout_s, and what a busy machine adds"

    assert set(codes) == {1012}
    assert await anonymous.closed() == 1012
    told = [(await client.hear("server.closing"))[0]["retryAfterMs"] for client in clients]
    assert all(isinstance(retry_after_ms, int) and retry_after_ms > 0 for retry_after_ms in told)
    assert len(set(told)) > 1, "they do not all come back at once"
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await open_socket(server.url)
    with open_database(server.database) as database:
        rows = database.execute(
            "SELECT email, max(versions.sequence) FROM accounts"
            " JOIN versions ON account_id = id GROUP BY email ORDER BY email"
        ).fetchall()
    for (_, stored), done in zip(rows, pushing, strict=True):
        acknowledged, _ = await done
        assert stored == acknowledged, "what was stored has been answered"
    assert "Traceback" not in server.log


async def test_newcomers_are_refused_while_logins_in_flight_are_answered(
    make_process: MakeProcess,
) -> None:
    server = make_process(password_workers=1, drain_timeout_s=60)
    await server.start()
    clients = [RawClient(await open_socket(server.url)) for _ in range(4)]
    answers = [await client.submit("session.login", **LOGIN) for client in clients]
    for client in clients:
        await client.call("server.ping")  # Its login has been read.

    server.signal(signal.SIGTERM)
    await server.wait_for_log("draining")
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await open_socket(server.url)

    for answer in answers:
        with pytest.raises(CallFailed, match="401"):
            await answer
    assert [await client.closed() for client in clients] == [1012] * len(clients)
    assert await server.wait() == 0


async def test_what_takes_longer_than_the_drain_is_cut_off(make_process: MakeProcess) -> None:
    server = make_process(password_workers=1, drain_timeout_s=0.5)
    await server.start()
    clients = [RawClient(await open_socket(server.url)) for _ in range(20)]
    for client in clients:
        await client.submit("session.login", **LOGIN)
        await client.call("server.ping")

    server.signal(signal.SIGTERM)

    assert {await client.closed() for client in clients} == {1012}
    assert await server.wait() == 0


async def test_a_second_signal_ends_the_server_at_once(make_process: MakeProcess) -> None:
    server = make_process(drain_timeout_s=60)
    await server.start()
    async with open_client(server.url) as client:
        client.socket.transport.pause_reading()  # It will never answer the close.
        server.signal(signal.SIGTERM)
        await server.wait_for_log("draining")
        server.signal(signal.SIGTERM)
        assert await server.wait() == -signal.SIGKILL
        client.abort()
    assert "second signal" in server.log


async def test_a_peer_that_never_closes_does_not_hold_the_server_up(
    make_process: MakeProcess,
) -> None:
    server = make_process(drain_timeout_s=1)
    await server.start()
    async with open_client(server.url) as client:
        client.socket.transport.pause_reading()
        server.signal(signal.SIGTERM)
        assert await server.wait(1 + 5) == 0
        client.abort()


async def test_sigterm_at_any_moment_of_the_start_ends_the_server(
    make_process: MakeProcess,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    server = make_process()
    for _ in range(8):
        server.launch()
        await asyncio.sleep(chance.uniform(0, 1.5))
        server.signal(signal.SIGTERM)
        assert await server.wait(15) in (0, -signal.SIGTERM)
    assert "Traceback" not in server.log
    await server.start()


async def test_sigterm_while_the_start_waits_for_the_database_ends_the_server(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    run_command(["migrate", f"--database-url={server.settings['database_url']}"], server.folder)
    with open_database(server.database) as database:
        database.execute("BEGIN EXCLUSIVE")
        server.launch()
        await server.wait_for_log("starts")
        server.signal(signal.SIGTERM)
        database.execute("ROLLBACK")
        assert await server.wait() == 0
    assert "Traceback" not in server.log
    assert "listening" not in server.log


async def test_when_each_device_was_last_there_survives_the_stop(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    await server.start()
    clients = await open_clients(server)
    with open_database(server.database) as database:
        before = dict(database.execute("SELECT token_hash, last_seen_at FROM devices").fetchall())

    server.signal(signal.SIGTERM)
    await asyncio.gather(*(client.closed() for client in clients))
    assert await server.wait() == 0

    with open_database(server.database) as database:
        after = dict(database.execute("SELECT token_hash, last_seen_at FROM devices").fetchall())
    assert len(after) == ACCOUNTS
    assert all(after[token] > before[token] for token in before)
