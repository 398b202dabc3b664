"""The supervisor: workers that end, hang, can't start and are replaced, while clients come."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.e2e.rawclient import WAIT_S
from tests.e2e.serving import fetch, fetch_json
from wsserver.systemd import Systemd
from wsserver.workers.process import WorkerFailed
from wsserver.workers.supervisor import Patience, Supervisor

PATIENCE = Patience(
    start_s=WAIT_S,
    drain_s=WAIT_S,
    answer_s=1,
    beat_interval_s=0.5,
    silent_beats_max=1000,
    pause_min_s=0.01,
    pause_max_s=0.1,
)
Start = Callable[..., Awaitable[Supervisor]]


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts a supervisor of two stand-ins; stops it at the end."""
    monkeypatch.chdir(tmp_path)
    started: list[Supervisor] = []

    async def start(patience: Patience = PATIENCE) -> Supervisor:
        supervisor = Supervisor(
            2,
            command=[sys.executable, "-m", "tests.workers.stand_in"],
            sockets={
                name: [socket.create_server(("127.0.0.1", 0))] for name in ("wsserver", "admin")
            },
            systemd=Systemd({}),
            patience=patience,
        )
        await supervisor.start()
        started.append(supervisor)
        return supervisor

    yield start
    for supervisor in started:
        await supervisor.stop()


async def ask(supervisor: Supervisor) -> tuple[int, int]:
    """The number and the process of the worker that answers a newcomer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", supervisor.port)
    writer.write(b"who\n")
    async with asyncio.timeout(WAIT_S):
        number, pid = map(int, (await reader.readline()).split())
    writer.close()
    await writer.wait_closed()
    return number, pid


def find_pids(supervisor: Supervisor) -> dict[int, int]:
    return {number: worker.pid for number, worker in supervisor._serving.items()}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def fetch_figures(supervisor: Supervisor) -> dict[str, float]:
    _, _, text = await fetch(f"http://127.0.0.1:{supervisor.admin_port}/metrics")
    found = re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)
    figures = {name: float(value) for name, value in found}
    assert len(figures) == len(found), "each once"
    return figures


async def fetch_readiness(supervisor: Supervisor) -> tuple[int, str]:
    status, told = await fetch_json(f"http://127.0.0.1:{supervisor.admin_port}/readyz")
    return status, told.get("reason", "")


CALLS = 'wsserver_calls_total{method="ask"}'


async def test_the_figures_of_the_workers_are_those_of_one_server(start: Start) -> None:
    supervisor = await start()
    for _ in range(20):
        await ask(supervisor)

    figures = await fetch_figures(supervisor)

    assert figures[CALLS] == 20
    assert figures['wsserver_push_seconds_bucket{le="+Inf"}'] == 20
    assert figures["wsserver_push_seconds_count"] == 20
    for number in (1, 2):
        assert figures[f'wsserver_connections{{worker="{number}"}}'] == 0
        assert figures[f'process_cpu_seconds_total{{worker="{number}"}}'] == 1.5
        assert figures[f'wsserver_worker_up{{worker="{number}"}}'] == 1
    assert figures['process_cpu_seconds_total{worker="supervisor"}'] > 0
    assert await fetch_readiness(supervisor) == (200, "")


async def test_a_worker_that_is_killed_is_started_anew_and_what_it_counted_stays(
    start: Start,
) -> None:
    supervisor = await start()
    for _ in range(10):
        await ask(supervisor)
    await fetch_figures(supervisor)
    pids = find_pids(supervisor)

    os.kill(pids[1], signal.SIGKILL)
    for _ in range(10):
        assert (await ask(supervisor))[1] != 0
    await until(lambda: find_pids(supervisor).get(1, pids[1]) != pids[1])

    figures = await fetch_figures(supervisor)
    assert figures[CALLS] == 20
    assert figures['wsserver_worker_starts_total{worker="1"}'] == 2
    assert find_pids(supervisor)[2] == pids[2]


async def test_a_reload_replaces_each_worker_and_nobody_is_refused(start: Start) -> None:
    supervisor = await start()
    pids = find_pids(supervisor)
    reader, writer = await asyncio.open_connection("127.0.0.1", supervisor.port)
    answered: list[tuple[int, int]] = []
    done = False

    async def come_and_go() -> None:
        while not done:
            answered.append(await ask(supervisor))

    coming = [asyncio.create_task(come_and_go()) for _ in range(4)]
    supervisor.reload()
    supervisor.reload()
    await until(lambda: len({*find_pids(supervisor).values()} & {*pids.values()}) < 2)
    # Who was there before is served to the end.
    writer.write(b"who\n")
    async with asyncio.timeout(WAIT_S):
        assert int((await reader.readline()).split()[1]) in pids.values()
    writer.close()
    await until(lambda: sum(supervisor._starts.values()) == 6 and supervisor._rolling is None)
    done = True
    await asyncio.gather(*coming)

    assert not {*find_pids(supervisor).values()} & {*pids.values()}
    assert (await fetch_figures(supervisor))[CALLS] == len(answered) + 1
    last = [await ask(supervisor) for _ in range(20)]
    assert {pid for _, pid in last} <= {*find_pids(supervisor).values()}


async def test_where_a_new_worker_can_not_start_the_old_ones_go_on(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = await start()
    pids = find_pids(supervisor)
    (tmp_path / "reason").write_text("the moon is full")

    supervisor.reload()
    await until(lambda: supervisor._rolling is None)

    assert "worker 1 can't start: the moon is full; those that serve go on" in caplog.text
    assert find_pids(supervisor) == pids
    await ask(supervisor)


async def test_a_worker_that_can_not_start_ends_the_start_with_its_reason(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "reason").write_text("the moon is full")
    with pytest.raises(WorkerFailed, match=r"worker \d can't start: the moon is full"):
        await start()


async def test_once_none_serves_and_none_can_start_the_service_ends_with_the_reason(
    start: Start, tmp_path: Path
) -> None:
    supervisor = await start()
    (tmp_path / "reason").write_text("the moon is full")
    os.kill(find_pids(supervisor)[1], signal.SIGKILL)
    await until(lambda: supervisor._starts[1] > 3)
    assert not supervisor._ending.is_set(), "the other one serves"
    assert await fetch_readiness(supervisor) == (200, "")

    os.kill(find_pids(supervisor)[2], signal.SIGKILL)
    await until(supervisor._ending.is_set)
    assert "the moon is full" in str(supervisor._failure)
    assert (await fetch_readiness(supervisor))[0] == 503


async def test_a_worker_that_hangs_holds_nobody_up_and_is_told_apart(start: Start) -> None:
    supervisor = await start()
    await ask(supervisor)
    before = await fetch_figures(supervisor)
    pids = find_pids(supervisor)
    for number in (1, 2):
        os.kill(pids[number], signal.SIGSTOP)

        figures = await fetch_figures(supervisor)
        assert figures[f'wsserver_worker_up{{worker="{number}"}}'] == 0
        assert figures[CALLS] == before[CALLS]
        status, reason = await fetch_readiness(supervisor)
        assert status == (200 if number == 1 else 503)
    assert reason == (
        "0 of 2 workers are ready; worker 1: does not answer; worker 2: does not answer"
    )
    for pid in pids.values():
        os.kill(pid, signal.SIGCONT)
    await until(lambda: all(w.silent_beats == 0 for w in supervisor._serving.values()))
    assert (await fetch_readiness(supervisor))[0] == 200


async def test_a_worker_that_hangs_for_long_is_killed_and_started_anew(start: Start) -> None:
    patience = Patience(beat_interval_s=0.5, silent_beats_max=4, start_s=WAIT_S)
    supervisor = await start(patience)
    pids = find_pids(supervisor)
    os.kill(pids[2], signal.SIGSTOP)

    await until(lambda: find_pids(supervisor).get(2, pids[2]) != pids[2])
    await ask(supervisor)


async def test_a_stop_lets_the_workers_finish(start: Start) -> None:
    supervisor = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", supervisor.port)
    writer.write(b"who\n")
    await reader.readline()

    stopping = asyncio.create_task(supervisor.stop())
    refused = False
    while not refused:
        try:
            await ask(supervisor)
        except ConnectionRefusedError:
            refused = True
        except (ConnectionError, ValueError):
            pass  # It came in between, and is cut off.
    writer.write(b"who\n")
    assert await reader.readline()
    assert not stopping.done()
    writer.close()
    await stopping


async def test_the_page_shows_the_workers_as_one_server(start: Start) -> None:
    supervisor = await start()
    logging.getLogger("wsserver.workers").error("worker 3 was killed")

    status, shown = await fetch_json(f"http://127.0.0.1:{supervisor.admin_port}/status.json")

    assert status == 200
    assert (shown["ready"], shown["processes"]) == (True, 2)
    assert shown["connections"]["authenticated"] == 20
    assert [point["pushes"] for point in shown["points"]] == [0, 20, 40]
    assert shown["failures"][0]["text"] == "worker 3 was killed"


async def test_where_no_worker_answers_the_status_is_503(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = await start()
    monkeypatch.setattr(supervisor, "_serving", {})

    status, _, _ = await fetch(f"http://127.0.0.1:{supervisor.admin_port}/status.json")
    monkeypatch.undo()

    assert status == 503
