"""A worker without a store: it answers each line with its number and its process.

A file `reason` in the folder that it is started in keeps it from starting. What was asked of it is
its counter; a connection is answered to its end before it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from pathlib import Path

from tests.status.snapshots import make_snapshot
from wsserver.workers.control import Question, SupervisorLine

FIGURES = """\
# HELP wsserver_calls_total Calls.
# TYPE wsserver_calls_total counter
wsserver_calls_total{{method="ask"}} {asked}
# HELP wsserver_connections Connections.
# TYPE wsserver_connections gauge
wsserver_connections {connected}
# HELP process_cpu_seconds_total CPU.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.5
# HELP wsserver_push_seconds Pushes.
# TYPE wsserver_push_seconds histogram
wsserver_push_seconds_bucket{{le="0.1"}} {asked}
wsserver_push_seconds_bucket{{le="+Inf"}} {asked}
wsserver_push_seconds_count {asked}
wsserver_push_seconds_sum {asked}
"""


class Worker:
    def __init__(self, number: int) -> None:
        self.asked = 0
        self.open: set[asyncio.Task[None]] = set()
        self.drains = asyncio.Event()
        self._number = number

    async def find_figures(self) -> str:
        return FIGURES.format(asked=self.asked, connected=len(self.open))

    async def probe(self) -> str | None:
        return None

    async def find_snapshot(self) -> str:
        return json.dumps(make_snapshot())

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        try:
            while await reader.readline():
                self.asked += 1
                writer.write(f"{self._number} {os.getpid()}\n".encode())
        finally:
            self.open.discard(task)
            writer.close()


async def serve(worker: Worker, line: SupervisorLine, listening: socket.socket) -> None:
    answers = {
        Question.FIGURES: worker.find_figures,
        Question.PROBE: worker.probe,
        Question.SNAPSHOT: worker.find_snapshot,
    }
    await line.open(answers, worker.drains.set)
    server = await asyncio.start_server(worker.answer, sock=listening)
    line.tell_ready("serving")
    while not worker.drains.is_set():
        line.beat()
        await asyncio.wait([asyncio.ensure_future(worker.drains.wait())], timeout=0.05)
    server.close()
    # What was just accepted is in a turn of the loop or two.
    await asyncio.sleep(0.1)
    while worker.open:
        await asyncio.wait(worker.open)
    await line.close(await worker.find_figures())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int)
    parser.add_argument("--control", type=int)
    parser.add_argument("--socket")
    told = parser.parse_args()
    line = SupervisorLine(socket.socket(fileno=told.control), beat_interval_s=1)
    reason = Path("reason")
    if reason.exists():
        line.tell_failed(reason.read_text())
        sys.exit(1)
    name, _, descriptor = told.socket.partition("=")
    assert name == "wsserver"
    asyncio.run(serve(Worker(told.number), line, socket.socket(fileno=int(descriptor))))


if __name__ == "__main__":
    main()
