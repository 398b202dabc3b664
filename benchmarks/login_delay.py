"""How long a `server.ping` takes on a connection on which a login is in scrypt, all workers busy.

    python -m benchmarks.login_delay [--rounds 50]

The server runs in a process of its own, with a worker for each core, at a password's full cost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.common import BareClient, BenchmarkServer, start_server

LOGIN = {"email": "joe@example.com", "password": "a password", "deviceId": "laptop"}


async def measure(server: BenchmarkServer, rounds: int) -> None:
    """Prints the delays without a login under way, and with more than the workers can take."""
    workers = 2 * (os.cpu_count() or 1)
    others = [await BareClient.open(server.port) for _ in range(workers)]
    client = await BareClient.open(server.port)
    call = {"jsonrpc": "2.0", "id": 2, "method": "session.login", "params": LOGIN}

    async def time_pings() -> list[float]:
        delays = []
        for _ in range(rounds):
            started_s = time.perf_counter()
            await client.call("server.ping")
            delays.append(time.perf_counter() - started_s)
            await asyncio.sleep(0.01)
        return delays

    idle = await time_pings()
    delays = []
    for _ in range(rounds):
        for other in others:
            other.send(call)
        logging_in = client.hear(2)
        client.send(call)
        while not logging_in.done():
            started_s = time.perf_counter()
            await client.call("server.ping")
            delays.append(time.perf_counter() - started_s)
            await asyncio.sleep(0.01)
    for name, values in (("idle", idle), ("during a login", delays)):
        print(
            f"{name:16}{len(values):>6} pings: median {1000 * statistics.median(values):.2f} ms, "
            f"99 of 100 within {1000 * statistics.quantiles(values, n=100)[-1]:.2f} ms, "
            f"worst {1000 * max(values):.2f} ms"
        )


def main() -> None:
    """Start a server and measure it."""
    parser = argparse.ArgumentParser(description="Delay of a ping by a login.")
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with start_server(folder, f"sqlite:///{folder / 'wallets.db'}") as server:
            asyncio.run(measure(server, rounds))


if __name__ == "__main__":
    main()
