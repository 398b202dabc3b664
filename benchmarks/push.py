"""Durable pushes by many accounts at once, against an echo of the same messages.

python -m benchmarks.push [--accounts 200] [--kib 2 20] [--seconds 3] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.common import BenchmarkServer, make_token, provision, start_echo, start_server
from benchmarks.load import Echoed, Load, Pusher, make_wallet, push_in_a_loop


async def open_pushers(
    server: BenchmarkServer, count: int, size_bytes: int, *, receipt: bool = False
) -> list[Pusher]:
    """Devices of as many accounts, with open sessions."""
    wallet = make_wallet(size_bytes)
    pushers = [Pusher(wallet, receipt=receipt) for _ in range(count)]
    for number, pusher in enumerate(pushers, 1):
        await pusher.connect(server.port)
        await pusher.resume(make_token(number))
    return pushers


async def open_echoed(server: BenchmarkServer, count: int, size_bytes: int) -> list[Pusher]:
    """As many connections to the reference."""
    wallet = make_wallet(size_bytes)
    pushers: list[Pusher] = [Echoed(wallet) for _ in range(count)]
    for pusher in pushers:
        await pusher.connect(server.port)
    return pushers


async def measure_pair(
    server: BenchmarkServer,
    echo: BenchmarkServer,
    count: int,
    size_bytes: int,
    *,
    rounds: int,
    seconds: float,
    receipt: bool = False,
) -> list[tuple[Load, Load]]:
    """The echo and the pushes, by turns."""
    results = []
    for _ in range(rounds):
        echoed = await open_echoed(echo, count, size_bytes)
        reference = await push_in_a_loop(echoed, echo, seconds=seconds)
        for pusher in echoed:
            pusher.abort()
        await asyncio.sleep(0.1)
        pushers = await open_pushers(server, count, size_bytes, receipt=receipt)
        load = await push_in_a_loop(pushers, server, seconds=seconds)
        for pusher in pushers:
            pusher.abort()
        await asyncio.sleep(0.1)
        results.append((reference, load))
    return results


async def measure(
    server: BenchmarkServer, echo: BenchmarkServer, arguments: argparse.Namespace
) -> None:
    """Prints the table."""
    table = Table()
    for name in (
        "accounts",
        "KiB",
        "answer",
        "echo/s",
        "CPU c+s",
        "push/s",
        "CPU c+s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "fairness",
        "faults",
    ):
        table.add_column(name, justify="right")
    for count in arguments.accounts:
        for kib in arguments.kib:
            for receipt in (False, True):
                pairs = await measure_pair(
                    server,
                    echo,
                    count,
                    kib * 1024,
                    rounds=arguments.rounds,
                    seconds=arguments.seconds,
                    receipt=receipt,
                )
                by_ratio = sorted(pairs, key=lambda pair: pair[1].per_s / pair[0].per_s)
                reference, load = by_ratio[len(by_ratio) // 2]
                ratios = [push.per_s / echoed.per_s for echoed, push in pairs]
                table.add_row(
                    str(count),
                    str(kib),
                    "receipt" if receipt else "state",
                    f"{reference.per_s:,.0f}",
                    f"{reference.client_cpu:.0%} {reference.server_cpu:.0%}",
                    f"{load.per_s:,.0f}",
                    f"{load.client_cpu:.0%} {load.server_cpu:.0%}",
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    f"{load.p50_ms:.2f}",
                    f"{load.p99_ms:.2f}",
                    f"{load.fairness:.2f}",
                    str({**reference.faults, **load.faults} or 0),
                )
    Console().print(table)


def main() -> None:
    """Start the servers and measure them."""
    parser = argparse.ArgumentParser(description="Durable pushes against an echo.")
    parser.add_argument("--accounts", type=int, nargs="+", default=[200])
    parser.add_argument("--kib", type=int, nargs="+", default=[2, 20])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'wallets.db'}"
        provision(url, max(arguments.accounts))
        with start_server(folder, url) as server, start_echo(folder) as echo:
            uvloop.run(measure(server, echo, arguments))


if __name__ == "__main__":
    main()
