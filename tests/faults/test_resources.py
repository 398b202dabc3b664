"""Descriptors used up, memory short, the clock set back, while all devices are at work."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import RawClient, open_socket
from tests.e2e.serving import ServerProcess
from tests.faults.interposing import Interposed
from tests.faults.load import LOST, Load
from tests.faults.processes import (
    count_descriptors,
    limited,
    linux_only,
    measure_address_space,
)

DESCRIPTORS = 160
CROWD = 200
HOUR_S, YEAR_S = 3600, 365 * 86_400
ROOM_BYTES = 2 * 2**20
WALLET_BYTES = 100_000


@linux_only
async def test_a_process_without_descriptors_serves_those_who_are_in_and_then_newcomers(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    async with Load(server).running() as load:
        with limited(server.pid, resource.RLIMIT_NOFILE, count_descriptors(server.pid)):
            with pytest.raises(LOST):
                await open_socket(server.url, open_timeout=2)
            await load.served()
        await load.read()
        await load.serves_again()
        assert all(device.connected == 1 for device in load.devices), "nobody was cut off"


@linux_only
async def test_a_crowd_that_takes_all_descriptors_keeps_nobody_from_pushing(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    server.command = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *server.command]
    async with Load(server).running() as load:
        opening = (open_socket(server.url, open_timeout=30) for _ in range(CROWD))
        crowd = await asyncio.gather(*opening, return_exceptions=True)
        inside = [RawClient(one) for one in crowd if not isinstance(one, BaseException)]
        refused = [one for one in crowd if isinstance(one, BaseException)]
        assert refused
        assert all(isinstance(one, LOST) for one in refused), refused[:3]
        await load.served()

        for one in inside:
            one.abort()
        await asyncio.gather(*(one.closed() for one in inside))
        await load.read()
        await load.serves_again()


@linux_only
async def test_a_process_without_memory_loses_nothing_and_blames_nobody(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    async with Load(server, wallet_bytes=WALLET_BYTES).running() as load:
        load.fails_loudly = True
        limit = measure_address_space(server.pid) + ROOM_BYTES
        with limited(server.pid, resource.RLIMIT_AS, limit):
            # It closes connections whose messages it has no room for, until it has. A library that
            # can't live without memory may end the process instead, and a supervisor starts it.
            await load.until(lambda: "MemoryError" in server.log or server.exit_code is not None)
        if server.exit_code is not None or not await is_alive(server):
            load.end_unanswered(time.monotonic())
            await server.start()
        await load.serves_again()


async def is_alive(server: ServerProcess) -> bool:
    """Whether it is there yet when what had begun before is over."""
    with contextlib.suppress(*LOST):
        await (await open_socket(server.url)).close()
    return server.exit_code is None


@pytest.mark.parametrize("back_s", [HOUR_S, YEAR_S])
async def test_a_clock_that_is_set_back_ends_no_session_and_loses_nothing(
    make_process: MakeProcess, back_s: int
) -> None:
    server = make_process()
    clock = Interposed(server)
    async with Load(server).running() as load:
        with clock.ordered(clock_offset_s=-back_s):
            await load.served()
            reader = await load.open_reader(1)
            stored = await reader.call("wallet.get")
            await reader.close()
            updated_at = datetime.fromisoformat(stored["updatedAt"])
            assert updated_at < datetime.now(UTC) - timedelta(seconds=back_s / 2)
            await load.read()
        await load.serves_again()
        assert all(device.connected == 1 for device in load.devices), "nobody was cut off"
