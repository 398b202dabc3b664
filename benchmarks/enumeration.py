"""Whether the time of an answer tells if an address has an account.

    python -m benchmarks.enumeration [--tries 100]

Each line is a call that is made by turns for addresses of two kinds, which a stranger must not be
able to tell apart; and for a second set of the first kind, whose difference is what chance does.
"ping after ..." is the time that a ping takes which is sent once the call is answered: by that the
server's work for a mail could be seen. The server runs in a process of its own, in mode
email, without limits; its mails go to a relay in another process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import random
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from benchmarks.common import BareClient, BenchmarkServer, provision, start_server
from wsserver.store.databases import open_database, parse_url
from wsserver.store.tables import registrations

ACCOUNTS = 400
CHEAP_FACTOR = 4
"""Calls that cost no password hash are made so many times more often."""
START_TIMEOUT_S = 30
TARGET_PERCENT = 5.0

CREDENTIALS = {
    "password": "a wrong password",
    "clientSaltSeed": "0" * 64,
    "kdf": {"name": "scrypt", "n": 2**17, "r": 8, "p": 1},
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A call, and two kinds of addresses, of which there is no end."""

    name: str
    method: str
    one: tuple[str, Callable[[], str]]
    other: tuple[str, Callable[[], str]]
    params: dict[str, Any]
    hashes: bool = False
    then_ping: bool = False


def number_addresses(pattern: str, count: int) -> Callable[[], str]:
    """Gives addresses by that pattern, numbered from 1, over and over."""
    numbers = itertools.cycle(range(1, count + 1))
    return lambda: pattern.format(next(numbers))


def list_comparisons() -> list[Comparison]:
    """All of them, in their order."""
    login = {"password": CREDENTIALS["password"], "deviceId": "laptop"}
    endless = 10**9
    unknown = ("unknown", number_addresses("nobody{}@example.com", endless))
    known = ("known", number_addresses("user{}@example.com", ACCOUNTS))
    waiting = ("waiting", number_addresses("waiting{}@example.com", ACCOUNTS))
    repeated = ("new", number_addresses("new{}@example.com", endless))
    letters = ("account.resendVerification", "account.requestReset")
    return [
        Comparison("login", "session.login", unknown, known, login, hashes=True),
        Comparison("login", "session.login", unknown, waiting, login, hashes=True),
        Comparison("prelogin", "account.prelogin", unknown, known, {}),
        Comparison("register", "account.register", repeated, known, CREDENTIALS, hashes=True),
        Comparison("resend", letters[0], unknown, waiting, {}),
        Comparison("resend", letters[0], unknown, known, {}),
        Comparison("request reset", letters[1], unknown, known, {}),
        Comparison("ping after resend", letters[0], unknown, waiting, {}, then_ping=True),
        Comparison("ping after request reset", letters[1], unknown, known, {}, then_ping=True),
    ]


def provision_registrations(url: str) -> None:
    """Makes registrations that wait for their address to be verified."""
    expires_at = int(time.time() * 1000) + 86_400_000
    with open_database(parse_url(url)) as connection:
        connection.execute(
            insert(registrations),
            [
                {
                    "email": f"waiting{number}@example.com",
                    "token_hash": secrets.token_bytes(32),
                    "password_digest": bytes(32),
                    "password_salt": bytes(16),
                    "password_n": 2**15,
                    "password_r": 8,
                    "password_p": 1,
                    "client_salt_seed": "0" * 64,
                    "kdf_n": 2**17,
                    "kdf_r": 8,
                    "kdf_p": 1,
                    "expires_at": expires_at,
                }
                for number in range(1, ACCOUNTS + 1)
            ],
        )


async def time_call(client: BareClient, comparison: Comparison, email: str) -> float:
    """Seconds until the answer that is looked at."""
    params = {"email": email, **comparison.params}
    call = {"jsonrpc": "2.0", "id": 1, "method": comparison.method, "params": params}
    answered, ponged = client.hear(1), client.hear(2)
    started_s = time.perf_counter()
    client.send(call)
    await answered
    answered_s = time.perf_counter()
    client.send({"jsonrpc": "2.0", "id": 2, "method": "server.ping"})
    await ponged
    return time.perf_counter() - answered_s if comparison.then_ping else answered_s - started_s


async def measure(server: BenchmarkServer, tries: int) -> bool:
    """Prints the table; gives whether the logins are as close as they should be."""
    client = await BareClient.open(server.port)
    print(f"{'call':28}{'of':>22}{'median':>11}{'median':>11}{'apart':>9}{'by chance':>11}")
    logins_are_close = True
    for comparison in list_comparisons():
        count = tries * (1 if comparison.hashes else CHEAP_FACTOR)
        one, other, again = await time_by_turns(client, comparison, count)
        apart = 100 * (other / one - 1)
        chance = 100 * (again / one - 1)
        kinds = f"{comparison.one[0]}, {comparison.other[0]}"
        print(
            f"{comparison.name:28}{kinds:>22}{1000 * one:>8.2f} ms{1000 * other:>8.2f} ms"
            f"{apart:>+7.1f} %{chance:>+9.1f} %",
            flush=True,
        )
        if comparison.method == "session.login":
            logins_are_close &= abs(apart) < TARGET_PERCENT
    return logins_are_close


async def time_by_turns(
    client: BareClient, comparison: Comparison, count: int
) -> tuple[float, float, float]:
    """The medians of the first kind, of the second, and of the first once more."""
    kinds = [comparison.one[1], comparison.other[1], comparison.one[1]]
    times: list[list[float]] = [[], [], []]
    order = [0, 1, 2]
    for _ in range(count):
        # Drawn anew each time: what comes after what must not matter.
        random.shuffle(order)
        for which in order:
            times[which].append(await time_call(client, comparison, kinds[which]()))
    first, second, third = map(statistics.median, times)
    return first, second, third


@contextlib.contextmanager
def start_relay() -> Iterator[int]:
    """A real SMTP server that keeps nothing, in a process of its own; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    command = [sys.executable, "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{port}"]
    with subprocess.Popen(  # noqa: S603  # the program is our own
        [*command, "-c", "aiosmtpd.handlers.Sink"], stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError("the relay did not start")
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def main() -> None:
    """Start a relay and a server, and measure; exits with 1 if logins are too far apart."""
    parser = argparse.ArgumentParser(description="Whether answer times tell who has an account.")
    parser.add_argument("--tries", type=int, default=100)
    tries = parser.parse_args().tries
    with tempfile.TemporaryDirectory() as name, start_relay() as relay_port:
        folder = Path(name)
        url = f"sqlite:///{folder / 'wallets.db'}"
        provision(url, ACCOUNTS)
        provision_registrations(url)
        flags = (
            "--verification=email",
            f"--smtp-url=smtp://127.0.0.1:{relay_port}?starttls=never",
            "--public-url=https://sync.example.com",
            "--auth-timeout-s=3600",
        )
        with start_server(folder, url, *flags) as server:
            sys.exit(not asyncio.run(measure(server, tries)))


if __name__ == "__main__":
    main()
