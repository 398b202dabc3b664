"""A listener whose application keeps what it hears, and a client that may break every rule."""

from __future__ import annotations

import asyncio
import base64
import functools
import ipaddress
import ssl as tls
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

from wsserver.transport import Connection, Listener, Respond, TransportLimits

PATIENCE_S: Final = 10.0
"""How long a test waits for what must come."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

UPGRADE: Final = (
    b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\nSec-WebSocket-Version: 13\r\n"
)


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Echo:
    """Sends back what it hears, and keeps it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.heard: list[bytes] = []
        self.times_writable = 0
        self.times_lost = 0

    def message_received(self, payload: bytes | bytearray) -> None:
        self.heard.append(bytes(payload))
        self.connection.send(bytes(payload))

    def writable(self) -> None:
        self.times_writable += 1

    def connection_lost(self) -> None:
        self.times_lost += 1


@dataclass
class Server:
    listener: Listener
    port: int
    clock: Clock
    applications: list[Echo] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    @property
    def application(self) -> Echo:
        """The only one there is."""
        (application,) = self.applications
        return application

    @property
    def connection(self) -> Connection:
        return self.application.connection

    async def pass_time(self, seconds: int) -> None:
        """Lets time go by as it does for a server that is awake: a sweep each second."""
        for _ in range(seconds):
            self.clock.now_s += 1
            self.listener.sweep()
            await asyncio.sleep(0)

    async def connect(self, **options: Any) -> Client:
        """A client that has yet to say something; `options` are those of its stream."""
        client = await Client.connect(self.port, **options)
        self.clients.append(client)
        return client

    async def open(self, *fields: str, **options: Any) -> Client:
        """A client whose handshake is done."""
        client = await self.connect(**options)
        await client.upgrade(*fields)
        return client


class Wire(asyncio.Transport):
    """A transport to nowhere, which keeps what becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.end = ""
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.written += b"".join(list_of_data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.end = "lingers"

    def close(self) -> None:
        self.end = "closed"

    def is_closing(self) -> bool:
        return self.end in ("closed", "aborted")

    def abort(self) -> None:
        self.end = "aborted"

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Loop:
    """As much of an event loop as connections need."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self.soon.append(functools.partial(callback, *args))

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


@asynccontextmanager
async def serving(
    application: Callable[[Connection], Echo] | None = Echo,
    *,
    respond: Respond = lambda request: None,
    admit_peer: Callable[[str], bool] | None = None,
    trusted_proxies: Sequence[str] = (),
    ssl: tls.SSLContext | None = None,
    **limits: Any,
) -> AsyncIterator[Server]:
    """A listener on a free port, its clock standing still."""
    clock = Clock()

    def mount(connection: Connection) -> Echo:
        assert application is not None
        mounted = application(connection)
        server.applications.append(mounted)
        return mounted

    listener = Listener(
        limits=TransportLimits(**{"message_bytes_max": 1_000_000} | limits),
        application=mount if application else None,
        respond=respond,
        admit_peer=admit_peer,
        trusted_proxies=[ipaddress.ip_network(network) for network in trusted_proxies],
        clock=clock,
    )
    server = Server(listener, await listener.start("127.0.0.1", 0, ssl=ssl), clock)
    try:
        yield server
    finally:
        for client in server.clients:
            client.drop()
        await listener.close(timeout_s=0)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, mask: bool = True
) -> bytes:
    """A frame as a client sends it, or as it must not."""
    first = fin << 7 | reserved << 4 | opcode
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first, mask << 7 | length)
    elif length < 65_536:
        head = struct.pack("!BBH", first, mask << 7 | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask << 7 | 127, length)
    if not mask:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def close_frame(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, **options: Any) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    async def upgrade(self, *fields: str) -> str:
        self.send(UPGRADE + "".join(f"{line}\r\n" for line in fields).encode() + b"\r\n")
        head = await self.read_head()
        assert head.startswith("HTTP/1.1 101 "), head
        return head

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read_head(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def read_frame(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload."""
        async with asyncio.timeout(PATIENCE_S):
            first, second = await self.reader.readexactly(2)
            assert first & 0x80, "the server does not fragment"
            assert not second & 0x80, "the server does not mask"
            length = second
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(length)

    async def read_text(self) -> bytes:
        opcode, payload = await self.read_frame()
        assert opcode == TEXT, (opcode, payload[:100])
        return payload

    async def read_close(self) -> int:
        """The code of the close frame that comes next."""
        opcode, payload = await self.read_frame()
        assert opcode == CLOSE, (opcode, payload[:100])
        return int(struct.unpack("!H", payload[:2])[0])

    async def read_to_end(self) -> bytes:
        """Everything up to the end of the stream."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def is_cut_off(self) -> bool:
        """Whether the connection ends, orderly or by a reset, with nothing more to read."""
        try:
            return await self.read_to_end() == b""
        except ConnectionError:
            return True

    def drop(self) -> None:
        self.writer.transport.abort()


async def eventually(condition: Callable[[], object]) -> None:
    """Returns once the condition holds; fails if it never does."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)
