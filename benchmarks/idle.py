"""What an idle, authenticated session costs the server in memory.

    python -m benchmarks.idle [--sessions 5000]

The server runs in a process of its own; what is told is the growth of its resident memory. The
kernel's socket buffers are not in it. Linux only. Each session takes a descriptor here and one
there: see `ulimit -n`.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
from pathlib import Path

from benchmarks.common import (
    BareClient,
    BenchmarkServer,
    gather_bounded,
    make_token,
    provision,
    start_server,
)

WARM_UP = 200
"""Sessions that come and go first, so that what the first ones cost is not counted."""
AT_ONCE = 50
SETTLE_S = 2.0


async def measure(server: BenchmarkServer, sessions: int) -> None:
    """Prints the server's memory without the sessions, with them, and after they are gone."""

    async def open_session(number: int) -> BareClient:
        client = await BareClient.open(server.port)
        answer = await client.call("session.resume", token=make_token(number), since=0)
        assert "result" in answer, answer
        return client

    for client in await gather_bounded(min(WARM_UP, sessions), AT_ONCE, open_session):
        client.abort()
    await asyncio.sleep(SETTLE_S)
    before = server.read_rss_bytes()
    clients = await gather_bounded(sessions, AT_ONCE, open_session)
    await asyncio.sleep(SETTLE_S)
    after = server.read_rss_bytes()
    each = (after - before) / sessions
    print(f"sessions            {sessions:>12,}")
    print(f"memory before       {before / 2**20:>12.1f} MiB")
    print(f"memory with them    {after / 2**20:>12.1f} MiB")
    print(f"each session        {each:>12,.0f} bytes")
    for client in clients:
        client.abort()
    await asyncio.sleep(SETTLE_S)
    print(f"memory afterwards   {server.read_rss_bytes() / 2**20:>12.1f} MiB")


def main() -> None:
    """Make a database, start a server on it, and measure it."""
    parser = argparse.ArgumentParser(description="Memory of idle sessions.")
    parser.add_argument("--sessions", type=int, default=5_000)
    sessions = parser.parse_args().sessions
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'wallets.db'}"
        provision(url, sessions)
        with start_server(folder, url) as server:
            asyncio.run(measure(server, sessions))


if __name__ == "__main__":
    main()
