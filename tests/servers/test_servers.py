from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.servers.nats import Nats
from tests.servers.postgresql import PostgreSQL
from tests.servers.processes import wait_until


@pytest.fixture(scope="module")
def durable() -> Iterator[PostgreSQL]:
    server = PostgreSQL(durable=True)
    server.start()
    yield server
    server.close()


def is_gone(path: Path) -> bool:
    return not path.exists()


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def test_what_postgresql_has_committed_survives_that_it_is_killed(durable: PostgreSQL) -> None:
    database = name_of(durable.create_database())
    with durable.connect(database) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (7)")
    port = durable.port
    durable.kill()
    with pytest.raises(psycopg.OperationalError):
        durable.connect()
    durable.start()
    with durable.connect(database) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
    assert durable.port == port


def test_postgresql_restarts_whoever_is_connected(durable: PostgreSQL) -> None:
    connection = durable.connect()
    durable.restart()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    durable.connect().close()


def test_connections_to_postgresql_can_be_cut(durable: PostgreSQL) -> None:
    connection = durable.connect()
    durable.cut_connections()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")


def test_a_database_can_be_made_of_another(durable: PostgreSQL) -> None:
    first = durable.create_database()
    with durable.connect(name_of(first)) as connection:
        connection.execute("CREATE TABLE kept (number int)")
    second = durable.create_database(first)
    with durable.connect(name_of(second)) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    durable.drop_database(second)


async def test_nats_is_killed_and_comes_back_on_its_port() -> None:
    server = Nats()
    try:
        server.start()
        server.kill()
        with pytest.raises(OSError, match="failed"):
            await asyncio.open_connection("127.0.0.1", server.port)
        server.start()
        server.restart()
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.close()
    finally:
        server.close()


def test_no_server_outlives_the_process_that_started_it() -> None:
    program = textwrap.dedent("""
        import os
        from tests.servers.nats import Nats
        from tests.servers.postgresql import PostgreSQL
        for server in (PostgreSQL(), Nats()):
            server.start()
            print(server.pid, server.folder, flush=True)
        os.kill(os.getpid(), 9)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    started = [line.split() for line in done.stdout.splitlines()]
    assert len(started) == 2, done.stderr
    for pid, folder in started:
        for path in (f"/proc/{pid}", folder):
            wait_until(functools.partial(is_gone, Path(path)))
