"""What a hostile crowd costs a user who is logged in: the time of a push, alone and beside it.

    python -m benchmarks.crowd [--pushes 500] [--silent 2000] [--dropping 200] [--guessing 50]

The crowd's parts, each from loopback addresses of its own (Linux gives all of 127.0.0.0/8 away):

- silent: connections that say nothing, and come again when they are closed;
- dropping: peers that open connections and drop them, as fast as they can;
- guessing: connections that log in with wrong passwords, without a pause, whatever they are told.

The server runs with its limits, in a process of its own, and so does each part of the crowd. The
crowd is niced, for its machines are not the server's: without that its own work would be measured,
on a machine of few cores. What it came to all the same is told by its counts. The user is not
niced; it pushes 2 KB, waits for the answer, pauses, and pushes again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import resource
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.common import (
    TEXT,
    BareClient,
    BenchmarkServer,
    encode_masked_text,
    make_token,
    provision,
    start_server,
    take_frame,
)

WALLET = "w" * 2048
WARM_UP = 50
PAUSE_S = 0.015
"""Between two pushes, on the average."""
GATHER_S = 10.0
"""How long the crowd gathers before it is measured beside."""
NICENESS = 19
RATIO_MAX = 3.0
P99_MAX_MS = 15.0
MEMORY_MAX_MIB = 128 + 32 * (os.cpu_count() or 1)
"""A server with nothing to do takes 74 MiB, 2,000 connections some 20, each password at work 32."""
GUESSED_ACCOUNTS = 1000
OPENING_TIMEOUT_S = 10.0
RETRY_PAUSE_S = 0.1
"""Before a connection that was refused is tried again, by those who mean to stay."""
CHANCE = random.Random()  # noqa: S311  # nothing secret comes from it
REQUEST = (
    b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


# The crowd.


class Member(asyncio.Protocol):
    """One connection of the crowd."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed = asyncio.Event()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self._input = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.opened.cancel()
        self.closed.set()
        self.answers.put_nowait(None)

    def data_received(self, data: bytes) -> None:
        self._input += data
        if not self.opened.done():
            head, found, rest = self._input.partition(b"\r\n\r\n")
            if not found or not head.startswith(b"HTTP/1.1 101"):
                return
            self._input = rest
            self.opened.set_result(None)
        while (frame := take_frame(self._input)) is not None:
            opcode, payload, self._input = frame
            if opcode == TEXT:
                self.answers.put_nowait(orjson.loads(payload))

    def drop(self) -> None:
        """End the connection without a word: RST, which leaves no port waiting."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self.transport.abort()


class Part:
    """What the members of one part share."""

    def __init__(self, port: int, network: int, addresses: int) -> None:
        self.counts: Counter[str] = Counter()
        self._port = port
        self._network = network
        self._addresses = addresses

    async def connect(self, number: int) -> Member | None:
        """A TCP connection of the member of that number."""
        loop = asyncio.get_running_loop()
        source = (f"127.0.{self._network}.{1 + number % self._addresses}", 0)
        with contextlib.suppress(OSError):
            _, member = await loop.create_connection(
                Member, "127.0.0.1", self._port, local_addr=source
            )
            self.counts["connected"] += 1
            return member
        self.counts["refused"] += 1
        return None

    async def open(self, number: int) -> Member | None:
        """A WebSocket of that member."""
        member = await self.connect(number)
        if member is None:
            return None
        member.transport.write(REQUEST)
        try:
            async with asyncio.timeout(OPENING_TIMEOUT_S):
                await member.opened
        except (asyncio.CancelledError, TimeoutError):
            if member.opened.cancelled():
                self.counts["dropped by the server"] += 1
                return None
            member.drop()
            raise
        self.counts["opened"] += 1
        return member


async def stay_silent(part: Part, number: int) -> None:
    """Be there, and be there again."""
    while True:
        member = await part.open(number)
        if member is not None:
            part.counts["there"] += 1
            await member.closed.wait()
            part.counts["there"] -= 1
        await asyncio.sleep(RETRY_PAUSE_S * CHANCE.uniform(0.5, 1.5))


async def drop_connections(part: Part, number: int) -> None:
    """Come and go, at three stages of an opening."""
    while True:
        match CHANCE.randrange(3):
            case 0:
                member = await part.connect(number)
            case 1:
                member = await part.connect(number)
                if member is not None:
                    member.transport.write(REQUEST[: len(REQUEST) // 2])
            case _:
                member = await part.open(number)
        if member is None:
            await asyncio.sleep(0)
        elif not member.closed.is_set():
            member.drop()
            await member.closed.wait()


async def guess_passwords(part: Part, number: int) -> None:
    """Log in as one after another, and heed nothing."""
    while True:
        member = await part.open(number)
        if member is None:
            await asyncio.sleep(RETRY_PAUSE_S)
            continue
        while not member.closed.is_set():
            who = f"user{CHANCE.randrange(GUESSED_ACCOUNTS)}@example.com"
            login = {"email": who, "password": "a wrong password", "deviceId": "laptop"}
            call = {"jsonrpc": "2.0", "id": 1, "method": "session.login", "params": login}
            member.transport.write(encode_masked_text(orjson.dumps(call)))
            answer = await member.answers.get()
            if answer is not None:
                part.counts[f"answered {answer['error']['code']}"] += 1
        part.counts["closed"] += 1


Play = Callable[[Part, int], Coroutine[Any, Any, None]]
PARTS: dict[str, tuple[int, Play]] = {
    "silent": (1, stay_silent),
    "dropping": (2, drop_connections),
    "guessing": (3, guess_passwords),
}


def run_part(
    name: str, port: int, count: int, addresses: int, niceness: int, parent: Connection
) -> None:
    """Plays a part until the parent says something; answers with what was counted since it did."""
    os.nice(niceness)

    async def play() -> None:
        network, member = PARTS[name]
        part = Part(port, network, addresses)
        loop = asyncio.get_running_loop()
        asked: asyncio.Queue[None] = asyncio.Queue()
        loop.add_reader(parent.fileno(), lambda: asked.put_nowait(parent.recv()))
        playing = [loop.create_task(member(part, number)) for number in range(count)]
        await asked.get()
        for key in part.counts:
            if key != "there":
                part.counts[key] = 0
        parent.send(None)
        await asked.get()
        parent.send(dict(part.counts))
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)

    uvloop.run(play())


@contextlib.contextmanager
def gather_crowd(
    port: int, counts: dict[str, int], addresses: int, niceness: int
) -> Iterator[dict[str, Connection]]:
    """Processes that play their parts; gives the way to ask each."""
    context = multiprocessing.get_context("spawn")
    started, ways = [], {}
    try:
        for name, count in counts.items():
            if count:
                ways[name], theirs = context.Pipe()
                args = (name, port, count, min(addresses, count), niceness, theirs)
                process = context.Process(target=run_part, args=args, daemon=True)
                process.start()
                started.append(process)
        yield ways
    finally:
        for process in started:
            process.terminate()
            process.join()


# The user.


async def time_pushes(client: BareClient, first: int, count: int) -> list[float]:
    """Milliseconds of each push, from its sending to its answer."""
    times = []
    for sequence in range(first, first + count):
        started_s = time.perf_counter()
        answer = await client.call(
            "wallet.push",
            sequence=sequence,
            encryptedWallet=WALLET,
            hmac=f"hmac {sequence}",
            receipt=True,
        )
        times.append(1000 * (time.perf_counter() - started_s))
        assert "result" in answer, answer
        await asyncio.sleep(PAUSE_S * CHANCE.uniform(0.5, 1.5))
    return times


def describe(name: str, times: list[float], server: BenchmarkServer) -> float:
    """Prints a line of the table; gives the p99."""
    cuts = statistics.quantiles(times, n=100)
    print(
        f"{name:12}{len(times):>7}{cuts[49]:>10.2f} ms{cuts[98]:>10.2f} ms{max(times):>10.2f} ms"
        f"{server.read_rss_bytes() / 2**20:>9.0f} MiB{server.count_descriptors():>13}",
        flush=True,
    )
    return cuts[98]


async def measure(server: BenchmarkServer, arguments: argparse.Namespace) -> bool:
    """Prints the table; gives whether the targets are met."""
    client = await BareClient.open(server.port)
    answer = await client.call("session.resume", token=make_token(1))
    assert "result" in answer, answer
    pushes = arguments.pushes
    await time_pushes(client, 1, WARM_UP)
    print(
        f"{'':12}{'pushes':>7}{'p50':>13}{'p99':>13}{'worst':>13}{'memory':>13}{'descriptors':>13}"
    )
    alone = describe("alone", await time_pushes(client, 1 + WARM_UP, pushes), server)
    counts = {name: getattr(arguments, name) for name in PARTS}
    crowd = gather_crowd(server.port, counts, arguments.addresses, arguments.niceness)
    with crowd as ways:
        await asyncio.sleep(GATHER_S)
        for way in ways.values():
            way.send(None)
            await asyncio.to_thread(way.recv)
        started_s = time.monotonic()
        times = await time_pushes(client, 1 + WARM_UP + pushes, pushes)
        lasted_s = time.monotonic() - started_s
        beside = describe("beside", times, server)
        for name, way in ways.items():
            way.send(None)
            told = await asyncio.to_thread(way.recv)
            done = ", ".join(
                f"{count:,.0f} {key}" if key == "there" else f"{count / lasted_s:,.1f} {key}/s"
                for key, count in sorted(told.items())
            )
            print(f"{name:12}{done}")
    is_fast = beside <= RATIO_MAX * alone or beside <= P99_MAX_MS
    print(f"p99 beside is {beside / alone:.1f} times that alone: {judge(is_fast)}")
    peak = server.read_peak_bytes() / 2**20
    print(f"memory peaked at {peak:.0f} MiB of {MEMORY_MAX_MIB}: {judge(peak <= MEMORY_MAX_MIB)}")
    return is_fast and peak <= MEMORY_MAX_MIB


def judge(is_met: bool) -> str:
    """A word on a target."""
    return "good" if is_met else "TOO MUCH"


def main() -> None:
    """Start a server, and measure; exits with 1 if the crowd costs its user too much."""
    parser = argparse.ArgumentParser(description="What a hostile crowd costs a user.")
    for name, count in (("pushes", 500), ("silent", 2000), ("dropping", 200), ("guessing", 50)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--addresses", type=int, default=8, help="of each part")
    parser.add_argument("--niceness", type=int, default=NICENESS, help="of the crowd")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'wallets.db'}"
        provision(url, GUESSED_ACCOUNTS)
        with start_server(folder, url, "--rate-limits=on") as server:
            sys.exit(not uvloop.run(measure(server, arguments)))


if __name__ == "__main__":
    main()
