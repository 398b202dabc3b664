"""The log of the real server, as a program reads it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import MakeProcess
from tests.e2e.mailing import until
from tests.e2e.rawclient import open_client, open_socket
from tests.e2e.serving import Served, ServerProcess, open_database
from wsserver import logbook


def read_events(server: ServerProcess, name: str) -> list[dict[str, Any]]:
    documents = [json.loads(line) for line in server.log.splitlines()]
    return [document for document in documents if document["event"] == name]


async def test_a_server_tells_of_its_connections_and_takes_signals(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    server.environment["WSSERVER_PROT"] = "8090"
    await server.start()
    async with open_client(server.url) as client:
        await client.register("jane@a.example")
        await client.login("jane@a.example", "laptop")
        await client.push(1, "a wallet")
        server.signal(signal.SIGUSR2)
        await server.wait_for_log("server.figures")
        server.signal(signal.SIGUSR1)
        await server.wait_for_log("log level: debug")
        await client.fail("wallet.push", encryptedWallet="b", hmac="c", sequence=7)
    await server.wait_for_log("connection.ended")
    server.signal(signal.SIGUSR1)
    await server.wait_for_log("log level: info")
    async with open_client(server.url) as client:
        await client.call("server.info")
    await server.wait_for_log('"account_id": null')
    server.signal(signal.SIGTERM)
    assert await server.wait() == 0

    (warning,) = read_events(server, "settings.unknown_variable")
    assert warning["name"] == "WSSERVER_PROT"
    (figures,) = read_events(server, "server.figures")
    assert (figures["connections"], figures["sessions"]) == (1, 1)
    assert figures["queues"]["writing lane"] == 0
    (refused,) = read_events(server, "call.refused")
    assert (refused["method"], refused["outcome"]) == ("wallet.push", "conflict")
    first, second = read_events(server, "connection.ended")
    assert (first["peer"], first["account_id"], first["device_id"]) == ("127.0.0.1", 1, "laptop")
    assert (first["close_code"], first["messages"], second["messages"]) == (1000, 4, 1)
    assert 0 < first["bytes_received"] < 10_000
    assert first["bytes_sent"] > second["bytes_sent"] > 0
    assert first["duration_s"] > 0
    assert (second["account_id"], second["device_id"]) == (None, None)
    assert read_events(server, "server.stopped")


async def find_ending(served: Served, caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The fields of the one connection's line."""
    await served.stop()
    (found,) = find_endings(caplog)
    return dict(found)


def find_endings(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        vars(record)["fields"]
        for record in caplog.records
        if vars(record).get("entry") is logbook.CONNECTION_ENDED
    ]


async def test_a_line_has_the_servers_reason_and_never_the_peers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    served = await Served.start(tmp_path)
    bare = await open_socket(served.url)
    await bare.close(4000, "a secret of its own")
    ending = await find_ending(served, caplog)
    assert (ending["close_code"], ending["close_reason"]) == (4000, "")


async def test_a_session_that_is_ended_is_told_with_its_account(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    served = await Served.start(tmp_path)
    client = await served.open_account()
    await client.call("session.logout")
    await client.closed()
    ending = await find_ending(served, caplog)
    assert (ending["close_code"], ending["close_reason"]) == (4401, "logged_out")
    assert (ending["account_id"], ending["device_id"]) == (1, "laptop")


async def test_who_breaks_off_is_told_as_1006(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    served = await Served.start(tmp_path)
    client = await served.open()
    await client.call("server.info")
    client.abort()
    await until(lambda: bool(find_endings(caplog)))
    assert (await find_ending(served, caplog))["close_code"] == 1006


async def test_a_503_of_a_failing_database_has_the_id_of_its_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = await Served.start(tmp_path)
    client = await served.open_account()
    with open_database(served.database) as database:
        database.execute("BEGIN IMMEDIATE")
        answers = [
            await client.fail("wallet.push", encryptedWallet="b", hmac="c", sequence=1)
            for _ in range(2)
        ]
        database.execute("ROLLBACK")
    await served.stop()
    assert [answer.code for answer in answers] == [503, 503]
    (told,) = [
        vars(record)["fields"]
        for record in caplog.records
        if vars(record).get("entry") is logbook.DATABASE_FAILED
        and vars(record)["fields"]["lane"] == "writing lane"
    ]
    assert {answer.data["errorId"] for answer in answers} == {told["error_id"]}
