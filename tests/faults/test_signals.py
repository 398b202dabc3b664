"""The server is killed, halted and sent away while all its devices are at work."""

from __future__ import annotations

import asyncio
import random
import signal
import time

import pytest

from tests.e2e.conftest import MakeProcess
from tests.faults.kills import kill_under_load
from tests.faults.load import BUSY_S, Load

KILLS = 4
HALT_S = 4.0


@pytest.mark.timeout(300)
async def test_kill_9_loses_nothing_acknowledged_and_doubles_nothing(
    make_process: MakeProcess,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")

    load = await kill_under_load(make_process(), KILLS, seed)

    unanswered = [call for calls in load.calls.values() for call in calls if not call.answered]
    assert unanswered, "it was killed under load"


async def test_a_halted_server_goes_on_with_the_same_connections(
    make_process: MakeProcess,
) -> None:
    server = make_process(ping_interval_s=0.5, pong_timeout_s=1)
    async with Load(server).running() as load:
        connected = [device.connected for device in load.devices]

        server.signal(signal.SIGSTOP)
        # Longer than the keepalive, and than a sweep may be late: that is the fault.
        await asyncio.sleep(HALT_S)
        server.signal(signal.SIGCONT)

        await load.serves_again()
        assert [device.connected for device in load.devices] == connected, "nobody was cut off"


async def test_devices_that_gave_up_on_a_halted_server_find_their_pushes_once(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    async with Load(server, call_s=1).running() as load:
        server.signal(signal.SIGSTOP)
        # Each gives up its connection, and waits for another: the kernel takes it.
        await load.until(lambda: load.unanswered >= len(load.devices) / 2)
        load.call_s = 20
        server.signal(signal.SIGCONT)

        await load.serves_again()


async def test_sigterm_in_full_load_answers_or_leaves_for_a_retry(
    make_process: MakeProcess,
) -> None:
    server = make_process(drain_timeout_s=5)
    async with Load(server, pause_s=0).running() as load:
        server.signal(signal.SIGTERM)
        signalled_s = time.monotonic()
        assert await server.wait() == 0
        took_s = time.monotonic() - signalled_s
        assert took_s < 5 + BUSY_S, "drain_timeout_s, and what a busy machine adds"

        await load.until(lambda: not load.connected)
        # Stopped, and not dead: what is unanswered now has no effect any more.
        load.end_unanswered(time.monotonic())
        await server.start()
        await load.serves_again()
