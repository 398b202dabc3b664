"""The figures of a real server, as its admin port gives them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from tests.e2e.serving import Served, fetch, fetch_json, open_database
from wsserver.status.snapshot import SAMPLE_INTERVAL_S, add_up, describe

EMAIL = "joe@example.com"
WAIT_S = 30


async def test_a_sample_has_what_has_happened_since_the_one_before(served: Served) -> None:
    board = served.server._board
    joe = await served.open_account(EMAIL)
    phone, _ = await served.open_device(EMAIL, "phone")
    board.take_sample()
    for sequence in (1, 2, 3):
        await joe.push(sequence)
    await phone.hear_sequence(3)
    board.take_sample()

    status, shown = await fetch_json(f"{served.admin_url}/status.json")

    before, after = shown["points"][-2:]
    assert status == 200
    assert before["pushes"] == 0
    assert after["pushes"] > 0
    assert after["p50"] > 0
    assert after["sessions"] == after["connections"] == 2
    assert after["memory"] > 2**20
    assert after["batch"] >= 1
    assert shown["ready"] is True
    assert shown["totals"]["pushes"] == 3
    assert shown["connections"]["authenticated"] == 2
    assert shown["databaseBytes"]["database"] > 0
    assert {queue["name"] for queue in shown["queues"]} >= {"writing lane", "passwords"}


async def test_later_points_are_asked_for_by_their_second(served: Served) -> None:
    served.server._board.take_sample()
    _, shown = await fetch_json(f"{served.admin_url}/status.json")
    last = shown["points"][-1]["at"]

    _, later = await fetch_json(f"{served.admin_url}/status.json?since={last + 3600}")

    assert later["points"] == []
    for since in ("x", "-1", "1" * 16):
        assert (await fetch(f"{served.admin_url}/status.json?since={since}"))[0] == 400


async def test_a_snapshot_is_what_is_added_up(served: Served) -> None:
    served.server._board.take_sample()
    _, snapshot = await fetch_json(f"{served.admin_url}/snapshot.json")

    shown = describe(add_up([snapshot, snapshot]))

    assert shown["processes"] == 2
    assert shown["connectionsMax"] == 2 * snapshot["connections_max"]


async def test_samples_are_taken_by_themselves_one_a_second_of_theirs(served: Served) -> None:
    points: list[Any] = []
    async with asyncio.timeout(WAIT_S):
        while len(points) < 3:
            await asyncio.sleep(0.1)
            points = (await fetch_json(f"{served.admin_url}/status.json"))[1]["points"]

    seconds = [point["at"] for point in points]
    assert all(second % SAMPLE_INTERVAL_S == 0 for second in seconds)
    assert sorted(set(seconds)) == seconds


async def test_why_a_server_is_not_ready_is_told_with_what_has_failed(served: Served) -> None:
    with open_database(served.database) as database:
        database.execute("BEGIN IMMEDIATE")
        _, shown = await fetch_json(f"{served.admin_url}/status.json")
        database.execute("ROLLBACK")
    logging.getLogger("wsserver.somewhere").error("the disk is full")

    assert shown["ready"] is False
    assert "store" in shown["reasons"][0]
    later: Any = {"ready": False}
    async with asyncio.timeout(WAIT_S):
        while not later["ready"]:
            _, later = await fetch_json(f"{served.admin_url}/status.json")
    [newest, *_] = later["failures"]
    assert (newest["text"], newest["level"]) == ("the disk is full", "error")


async def test_nothing_tells_of_an_account(served: Served) -> None:
    joe = await served.open_account(EMAIL)
    await joe.push(1, "a secret wallet")
    served.server._board.take_sample()

    for path in ("", "status.json", "snapshot.json", "metrics"):
        status, _, text = await fetch(f"{served.admin_url}/{path}")
        assert status == 200
        for secret in ("joe", "example.com", "a secret wallet"):
            assert secret not in text
