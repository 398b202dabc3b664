"""What the benchmarks share: a database with accounts in it, servers, bare WebSockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import re
import secrets
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import orjson
from sqlalchemy import Connection, func, insert, select

from wsserver.operations import SCRYPT_N, SCRYPT_P, SCRYPT_R
from wsserver.passwords import DIGEST_BYTES, SALT_BYTES, hash_password
from wsserver.store.databases import open_database, parse_url
from wsserver.store.tables import accounts, devices, versions

START_TIMEOUT_S = 120
ACCOUNTS_AT_ONCE = 5000
"""Made in one transaction."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def make_token(number: int, device: int = 1, *, seed: str = "benchmark") -> str:
    """The token of a device of an account that `provision` made, both numbered from 1."""
    return hashlib.sha256(f"{seed} {number} {device}".encode()).hexdigest()


def make_email(number: int) -> str:
    """The address of that account."""
    return f"user{number}@example.com"


def make_device_id(device: int) -> str:
    """The name that it gave its device."""
    return f"device {device}"


def provision(
    url: str,
    count: int,
    *,
    devices_each: int = 1,
    password: str | None = None,
    wallet_bytes: int = 0,
    seed: str = "benchmark",
    tell: Callable[[range], None] = lambda numbers: None,
) -> None:
    """Adds accounts to a database, whose devices are logged in.

    In an empty one they are numbered from 1; ``tell`` is told the numbers, some thousands at once.
    Without a password nobody can log in; with ``wallet_bytes`` each has pushed its first state.
    """
    stored = bytes(DIGEST_BYTES), bytes(SALT_BYTES)
    if password is not None:
        hashed = hash_password(password)
        stored = hashed.digest, hashed.salt
    for done in range(0, count, ACCOUNTS_AT_ONCE):
        # Not in one transaction: a server on this database has to write, too.
        with open_database(parse_url(url)) as connection:
            newest = connection.execute(select(func.max(accounts.c.id))).scalar_one() or 0
            numbers = range(newest + 1, newest + 1 + min(count - done, ACCOUNTS_AT_ONCE))
            _insert_accounts(connection, numbers, stored)
            made = connection.execute(
                select(accounts.c.email, accounts.c.id).where(accounts.c.id > newest)
            )
            ids = {row.email: row.id for row in made}
            account_ids = {number: ids[make_email(number)] for number in numbers}
            _insert_devices(connection, account_ids, devices_each, seed)
            if wallet_bytes:
                _insert_wallets(connection, account_ids, wallet_bytes)
        tell(numbers)


def _insert_accounts(connection: Connection, numbers: range, stored: tuple[bytes, bytes]) -> None:
    same = {
        "password_digest": stored[0],
        "password_salt": stored[1],
        "password_n": SCRYPT_N,
        "password_r": SCRYPT_R,
        "password_p": SCRYPT_P,
        "client_salt_seed": "0" * 64,
        "kdf_n": 2**17,
        "kdf_r": 8,
        "kdf_p": 1,
        "sequence": 0,
        "verified": True,
        "disabled": False,
        "created_at": _now_ms(),
    }
    connection.execute(
        insert(accounts),
        [
            {"email": make_email(number), "epoch": secrets.token_hex(16), **same}
            for number in numbers
        ],
    )


def _insert_devices(
    connection: Connection, account_ids: dict[int, int], devices_each: int, seed: str
) -> None:
    now_ms = _now_ms()
    connection.execute(
        insert(devices),
        [
            {
                "account_id": account_id,
                "device_id": make_device_id(device),
                "name": None,
                "token_hash": hashlib.sha256(
                    make_token(number, device, seed=seed).encode()
                ).digest(),
                "token_used_at": now_ms,
                "created_at": now_ms,
                "last_seen_at": now_ms,
                "applied_sequence": 0,
            }
            for number, account_id in account_ids.items()
            for device in range(1, devices_each + 1)
        ],
    )


def _insert_wallets(connection: Connection, account_ids: dict[int, int], size_bytes: int) -> None:
    now_ms = _now_ms()
    wallet = make_wallet(size_bytes).encode()
    connection.execute(
        insert(versions),
        [
            {
                "account_id": account_id,
                "slot": 1,
                "sequence": 1,
                "device_id": make_device_id(1),
                "updated_at": now_ms,
                "hmac": make_hmac(1).encode(),
                "encrypted_wallet": wallet,
            }
            for account_id in account_ids.values()
        ],
    )


def make_wallet(size_bytes: int) -> str:
    """An encrypted wallet, as far as anyone can tell."""
    return base64.b64encode(os.urandom(size_bytes))[:size_bytes].decode()


def make_hmac(sequence: int) -> str:
    """What stands for the HMAC of a state."""
    return f"{sequence:064x}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class BenchmarkServer:
    """A server in a process of its own, listening on loopback."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self._process = process

    def count_descriptors(self) -> int:
        """Its open files and sockets (Linux)."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def read_cpu_s(self) -> float:
        """The processor time that it and its children have used (Linux)."""
        return sum(map(_read_cpu_s, self._find_family()))

    def read_rss_bytes(self) -> int:
        """The resident memory of it and its children (Linux)."""
        return self._read_bytes("VmRSS")

    def read_peak_bytes(self) -> int:
        """The most resident memory that they have had, each (Linux)."""
        return self._read_bytes("VmHWM")

    def _read_bytes(self, name: str) -> int:
        total_bytes = 0
        for pid in self._find_family():
            found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            assert found is not None
            total_bytes += int(found[1]) * 1024
        return total_bytes

    def _find_family(self) -> list[int]:
        """The process and those that it has started."""
        family = [self._process.pid]
        for pid in family:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                family += map(int, children.read_text().split())
        return family


def _read_cpu_s(pid: int) -> float:
    # The name in parentheses, which may hold spaces, is the second field.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextlib.contextmanager
def start_process(folder: Path, name: str, *command: str) -> Iterator[BenchmarkServer]:
    """A Python module that says on which port it is "listening on ws://..."; ended at the end."""
    log_path = folder / f"{name}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  # the program is our own
            [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (
            found := re.search(r"listening on wss?://127\.0\.0\.1:(\d+)", log_path.read_text())
        ):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the server did not start: {log_path.read_text()}")
            time.sleep(0.05)
        yield BenchmarkServer(process, int(found[1]))
    finally:
        process.terminate()
        process.wait()


def start_server(
    folder: Path, url: str, *flags: str
) -> contextlib.AbstractContextManager[BenchmarkServer]:
    """The command `wsserver serve` in mode open on a free port, without rate limits."""
    command = ["wsserver.cli", "serve", "--port=0", "--admin-port=0", "--verification=open"]
    return start_process(
        folder, "server", *command, "--rate-limits=off", f"--database-url={url}", *flags
    )


def start_echo(folder: Path) -> contextlib.AbstractContextManager[BenchmarkServer]:
    """The reference: a server of the bare websockets library that echoes."""
    return start_process(folder, "echo", "benchmarks.echo")


class BareSocket(asyncio.Protocol):
    """A WebSocket with next to nothing around it: thousands of them cost the measuring little.

    As cheap as a client of the package picows once it is open, and a third of it to open: what
    is left is the kernel's.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._upgraded = asyncio.get_running_loop().create_future()
        self._parts: list[bytes] = []
        self._missing = 0
        self.is_lost = False

    async def connect(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Open the connection; once."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(
            lambda: self, "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
        )
        await self._upgraded

    def receive(self, payload: bytes) -> None:
        """Take a message; for those who extend this."""
        raise NotImplementedError

    def lose(self) -> None:
        """The connection is gone; for those who extend this."""

    def write_text(self, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.write(encode_masked_text(payload))

    def abort(self) -> None:
        """Drop the connection, as a device does that loses its network."""
        assert self._transport is not None
        self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        if not self._upgraded.done():
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._keep(data, 1)
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._upgraded.set_result(None)
            data = rest
        start, count = 0, len(data)
        while start < count:
            payload_start, end = measure_frame(data, start)
            if end > count:
                self._keep(data[start:], end - count)
                return
            opcode = data[start]
            if opcode == TEXT:
                self.receive(data[payload_start:end])
            elif opcode == PING and self._transport is not None:
                self._transport.write(PONG)
            start = end

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if not self._upgraded.done():
            self._upgraded.set_exception(ConnectionError("the server has closed the connection"))
        self.lose()

    def _keep(self, data: bytes, missing: int) -> None:
        self._parts.append(data)
        self._missing = missing


class BareClient(BareSocket):
    """Calls by JSON-RPC, each awaited."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    @classmethod
    async def open(cls, port: int) -> Self:
        client = cls()
        await client.connect(port)
        return client

    async def call(self, method: str, **params: Any) -> Any:
        """The answer to a call; one at a time."""
        self.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return await self.hear(1)

    def hear(self, call_id: int) -> asyncio.Future[Any]:
        """The answer to the call with that id."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = answered
        return answered

    def send(self, message: Any) -> None:
        self.write_text(orjson.dumps(message))

    def receive(self, payload: bytes) -> None:
        message = orjson.loads(payload)
        answered = self._waiting.pop(message.get("id", 0), None)
        if answered is not None and not answered.done():
            answered.set_result(message)

    def lose(self) -> None:
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(ConnectionError("the server has closed the connection"))


TEXT, PING = 0x81, 0x89
PONG = b"\x8a\x80" + bytes(4)


def encode_masked_text(payload: bytes) -> bytes:
    """A text frame of a client; its mask is zero, which changes nothing (RFC 6455, section 5.3)."""
    length = len(payload)
    if length < 126:
        return bytes((TEXT, 0x80 | length)) + bytes(4) + payload
    if length < 65_536:
        return struct.pack("!BBH", TEXT, 0x80 | 126, length) + bytes(4) + payload
    return struct.pack("!BBQ", TEXT, 0x80 | 127, length) + bytes(4) + payload


def measure_frame(data: bytes, start: int) -> tuple[int, int]:
    """Where the payload of a server's frame starts and ends; the end may be yet to come."""
    if len(data) < start + 2:
        return start, start + 2
    length, head_end = data[start + 1], start + 2
    if length == 126:
        head_end += 2
        length = int.from_bytes(data[start + 2 : head_end], "big")
    elif length == 127:
        head_end += 8
        length = int.from_bytes(data[start + 2 : head_end], "big")
    # A length that is cut off reads as less than it is: the end is then not too far off.
    return head_end, head_end + length


def take_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame of a server's bytes, and the rest; None while it is not complete."""
    if len(data) < 2:
        return None
    length, start = data[1], 2
    if length == 126:
        length, start = int.from_bytes(data[2:4], "big"), 4
    elif length == 127:
        length, start = int.from_bytes(data[2:10], "big"), 10
    end = start + length
    return (
        (data[0], data[start:end], data[end:]) if len(data) >= end and start <= len(data) else None
    )


async def gather_bounded(count: int, at_once: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of ``work(1)`` to ``work(count)``, so many at once."""
    room = asyncio.Semaphore(at_once)

    async def do(number: int) -> Any:
        async with room:
            return await work(number)

    return await asyncio.gather(*(do(number) for number in range(1, count + 1)))
