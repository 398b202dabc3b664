"""Plain HTTP: the public port has next to nothing, the admin port tells how the server is."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import MakeProcess, Serve
from tests.e2e.rawclient import PASSWORD, WAIT_S, open_client, state
from tests.e2e.serving import (
    Served,
    clean_environment,
    fetch,
    fetch_json,
    find_free_port,
    open_database,
)


@pytest.fixture
async def served_with_admin(serve: Serve) -> Served:
    """A server in this process with an admin port of its own."""
    while True:
        try:
            return await serve(admin_port=find_free_port())
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


async def test_the_public_port_answers_plain_http(served_with_admin: Served) -> None:
    public = f"http://127.0.0.1:{served_with_admin.server.port}"
    status, headers, _ = await fetch(f"{public}/v1")
    assert status == 426
    assert headers["Upgrade"].lower() == "websocket"
    for path in ("/", "/metrics", "/healthz", "/readyz", "/v2", "/v1/"):
        assert (await fetch(public + path))[0] == 404


async def test_the_admin_port_tells_health_and_serves_no_wallets(
    served_with_admin: Served,
) -> None:
    admin = served_with_admin.admin_url
    assert await fetch_json(f"{admin}/healthz") == (200, {"status": "ok"})
    assert await fetch_json(f"{admin}/readyz") == (200, {"status": "ready"})
    for path in ("/v1", "/verify"):
        assert (await fetch(admin + path))[0] == 404


async def test_readyz_says_503_while_another_process_locks_the_database_and_recovers(
    served_with_admin: Served,
) -> None:
    admin = served_with_admin.admin_url
    with open_database(served_with_admin.database) as database:
        database.execute("BEGIN IMMEDIATE")
        status, answer = await fetch_json(f"{admin}/readyz")
        assert status == 503
        assert answer["status"] == "unavailable"
        assert "store" in answer["reason"]
        assert (await fetch(f"{admin}/healthz"))[0] == 200
        database.execute("ROLLBACK")
    async with asyncio.timeout(WAIT_S):
        while (await fetch(f"{admin}/readyz"))[0] != 200:
            await asyncio.sleep(0.1)


async def read_figures(served: Served) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    status, headers, text = await fetch(f"{served.admin_url}/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_what_was_done(served_with_admin: Served) -> None:
    served = served_with_admin
    joe = await served.open_account("joe@example.com")
    phone, _ = await served.open_device("joe@example.com", "phone")
    stranger = await served.open()
    await joe.push(1)
    await joe.push(2)
    await joe.fail("wallet.push", **state(9))
    await stranger.fail("wallet.get")
    await stranger.fail("no.such.method")
    await stranger.ask("no json")
    await phone.hear_sequence(2)

    figures = await read_figures(served)

    def figure(name: str, **labels: str) -> float | None:
        return figures.get((name, tuple(sorted(labels.items()))))

    def calls(method: str, outcome: str) -> Any:
        return figure("wsserver_calls_total", method=method, outcome=outcome)

    assert figure("wsserver_connections", state="anonymous") == 1
    assert figure("wsserver_connections", state="authenticated") == 2
    assert figure("wsserver_sessions") == 2
    assert calls("wallet.push", "ok") == 2
    assert calls("wallet.push", "conflict") == 1
    assert calls("wallet.get", "not_authenticated") == 1
    assert calls("session.login", "ok") == 2
    assert calls("unknown", "-32601") == 1
    assert calls("unknown", "-32700") == 1
    assert figure("wsserver_push_seconds_count") == 3
    assert figure("wsserver_notifications_total", method="wallet.updated") == 2
    queues = [dict(labels)["queue"] for name, labels in figures if "queue_operations" in name]
    assert {"passwords", "writing lane"} <= set(queues)
    assert "process_resident_memory_bytes" in {name for name, _ in figures}

    await phone.close()
    await joe.call("session.logout")
    await joe.closed()
    async with asyncio.timeout(WAIT_S):
        while (await read_figures(served))["wsserver_sessions", ()] != 0:
            await asyncio.sleep(0.05)
    assert PASSWORD not in (await fetch(f"{served.admin_url}/metrics"))[2]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the server's sockets in /proc")
@pytest.mark.parametrize(("admin", "listening"), [(False, 1), (True, 2)])
async def test_admin_port_0_is_off(make_process: MakeProcess, admin: bool, listening: int) -> None:
    server = make_process(admin_port=find_free_port() if admin else 0)
    await server.start()
    assert count_listening_sockets(server.pid) == listening
    assert ("health and figures" in server.log) == admin


def count_listening_sockets(pid: int) -> int:
    table = Path("/proc/net/tcp").read_text().splitlines()
    listening = {f"socket:[{row.split()[9]}]" for row in table if row.split()[3] == "0A"}
    return sum(
        os.readlink(descriptor) in listening for descriptor in Path(f"/proc/{pid}/fd").iterdir()
    )


async def test_the_environment_and_the_file_configure_a_server_that_serves(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    (server.folder / "wsserver.toml").write_text("history_depth = 3\nwallet_bytes = 2048\n")
    server.settings["config"] = "wsserver.toml"
    server.environment = clean_environment(
        WSSERVER_HISTORY_DEPTH="4", WSSERVER_DEVICES_MAX="5", WSSERVER_WALLET_BYTES="4096"
    )
    server.settings["wallet_bytes"] = 8192
    await server.start()
    async with open_client(server.url) as client:
        limits = (await client.call("server.info"))["limits"]
    assert limits["walletBytes"] == 8192, "the flag wins"
    assert limits["historyDepth"] == 4, "the variable is before the file"
    assert limits["devices"] == 5
    assert limits["messageBytes"] >= 6 * 8192
