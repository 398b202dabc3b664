"""What a session's life costs a node and PostgreSQL: the figures that tools/capacity.py goes by.

    python -m benchmarks.costs [--accounts 300] [--seconds 3]

Processor time, in microseconds, of the server's process and of all of PostgreSQL's: of a resume, of
a push whose answer is short, of the notification of another device of the same node, and of the
ping that keeps an idle session. And bytes: what an account adds to the database, and a push to its
write-ahead log. What two nodes cost more is measured by `benchmarks.workers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.common import BenchmarkServer, make_token, provision, start_server
from benchmarks.load import Session, drop_all, open_pushers, push_in_a_loop
from benchmarks.scenario import Bench, Row, Scenario, run_alone
from benchmarks.workers import read_family_cpu_s, start_database
from tests.servers.postgresql import PostgreSQL

AT_ONCE = 50


@dataclass(frozen=True)
class Plan:
    """``accounts`` of ``listeners`` devices besides the one that pushes ``kib`` KiB."""

    accounts: int = 300
    listeners: int = 2
    kib: int = 2
    seconds: float = 3.0


SMOKE = Plan(accounts=4, seconds=1.2)


async def measure(plan: Plan, bench: Bench) -> None:
    """One server, that pings every second; each kind of load by itself."""
    with start_database() as database:
        url = database.create_database()
        name = url.rpartition("/")[2]
        provision(url, 1)
        empty = read_size(database, name)
        provision(url, plan.accounts, devices_each=1 + plan.listeners, wallet_bytes=plan.kib * 1024)
        numbers = range(2, plan.accounts + 2)
        stored = (read_size(database, name) - empty) / plan.accounts
        bench.add_row("bytes", {"what": "an account, its devices, one version", "each": stored})
        with start_server(bench.folder, url, "--ping-interval-s=1") as server:
            meter = Meter(server, database, bench)
            listeners = await open_listeners(meter, numbers, plan.listeners)
            pings = len(listeners) * plan.seconds
            async with meter.measuring("ping of an idle session", lambda: pings):
                await asyncio.sleep(plan.seconds)
            await drop_all(listeners)
            pushers = await open_pushers(server, numbers, plan.kib * 1024, receipt=True)

            def pushed() -> int:
                return sum(pusher.sequence for pusher in pushers)

            before, log_before = pushed(), read_log(database)
            async with meter.measuring("push", lambda: pushed() - before):
                load = await push_in_a_loop(pushers, server, seconds=plan.seconds)
            log_bytes = (read_log(database) - log_before) / (pushed() - before)
            bench.add_row("bytes", {"what": "a push, in the write-ahead log", "each": log_bytes})
            alone_us = meter.last_us
            listeners = await open_listeners(meter, numbers, plan.listeners)
            before_heard = pushed()
            async with meter.measuring("push that is heard", lambda: pushed() - before_heard):
                heard = await push_in_a_loop(pushers, server, seconds=plan.seconds)
            told_us = (meter.last_us - alone_us) / plan.listeners
            bench.add_row("processor time", {"what": "notification", "node us": told_us})
            bench.faults += load.faults + heard.faults
            await drop_all([*pushers, *listeners])


class Meter:
    """Reads what both have used before and after a load."""

    def __init__(self, server: BenchmarkServer, database: PostgreSQL, bench: Bench) -> None:
        self.server = server
        self._database = database
        self._bench = bench
        self.last_us = 0.0
        """What the last one cost the node, each."""

    @asynccontextmanager
    async def measuring(self, what: str, count: Callable[[], float]) -> AsyncIterator[None]:
        """While a load runs; ``count`` tells afterwards how many of it there were."""
        self._bench.tell(what)
        server_s, database_s = self.server.read_cpu_s(), read_family_cpu_s(self._database)
        yield
        each = 1e6 / max(1, count())
        self.last_us = (self.server.read_cpu_s() - server_s) * each
        database_us = (read_family_cpu_s(self._database) - database_s) * each
        row: Row = {"what": what, "node us": self.last_us, "PostgreSQL us": database_us}
        self._bench.add_row("processor time", row)


async def open_listeners(meter: Meter, numbers: range, each: int) -> list[Session]:
    """Sessions of each account's further devices; what their resumes cost is measured."""
    waiting = [(number, device) for number in numbers for device in range(2, 2 + each)]
    opened: list[Session] = []

    async def open_one(number: int, device: int) -> Session:
        session = Session()
        await session.connect(meter.server.port)
        await session.resume(make_token(number, device))
        return session

    async with meter.measuring("resume, with its connection", lambda: len(opened)):
        for at in range(0, len(waiting), AT_ONCE):
            some = (open_one(*one) for one in waiting[at : at + AT_ONCE])
            opened += await asyncio.gather(*some)
    return opened


def read_size(database: PostgreSQL, name: str) -> int:
    """The bytes of a database."""
    with database.connect(name) as connection:
        connection.execute("VACUUM")
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])


def read_log(database: PostgreSQL) -> int:
    """How many bytes were ever written to the write-ahead log."""
    with database.connect() as connection:
        row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
    assert row is not None
    return int(row[0])


SCENARIO = Scenario(
    "costs",
    "What a session, a push, a notification and a resume cost a node and PostgreSQL.",
    measure,
    Plan(),
    SMOKE,
    60,
)

if __name__ == "__main__":
    run_alone(SCENARIO)
