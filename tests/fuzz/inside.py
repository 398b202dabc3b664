"""A server inside the process: real listener, connections, channels, engine; no sockets, no disk.

The store is the one in memory, passwords cost nothing, and the clock stands still.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import selectors
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from websockets.speedups import apply_mask

from tests.status.snapshots import make_snapshot
from tests.unit.world import make_facts
from tests.wire.harness import CLOSE, TEXT, UPGRADE, Clock, Echo, Wire
from wsschema.close_codes import CloseCode
from wsschema.limits import Limits
from wsschema.messages import Kdf
from wsserver.connection import Connection
from wsserver.engine import Engine
from wsserver.gate import Gate, GateLimits
from wsserver.http import AdminPages, PublicPages
from wsserver.metrics import Metrics
from wsserver.opening import Opening
from wsserver.operations import (
    CheckPassword,
    CreateAccount,
    HashPassword,
    Operation,
    PasswordHash,
    SendLetter,
)
from wsserver.peer import ENDING
from wsserver.session import ServerFacts
from wsserver.status.snapshot import Snapshot
from wsserver.store.memory import MemoryStore
from wsserver.throttle import Rate
from wsserver.transport import ApplicationFactory, Listener, Respond, TransportLimits

LIMITS: Final = Limits(wallet_bytes=2048, message_bytes=16_384, history_depth=3, devices=4)
TRANSPORT_LIMITS: Final = TransportLimits(
    message_bytes_max=LIMITS.message_bytes,
    anonymous_message_bytes_max=4096,
    request_bytes_max=4096,
)
SEGMENT_BYTES_MAX: Final = 256 * 1024
"""What an event loop reads at once (asyncio's own figure)."""
SEED: Final = "a" * 64
IDLE_TURNS: Final = 4
"""Turns of the loop without a byte or an operation after which nothing more will come."""
TURNS_MAX: Final = 2000


class Finding(AssertionError):
    """Something that must not be, whatever the input."""


def require(holds: object, what: str, *seen: object) -> None:
    """Raises Finding unless it holds."""
    if not holds:
        raise Finding(f"{what}: {', '.join(repr(each)[:300] for each in seen)}")


class _NeverWaiting(selectors.DefaultSelector):
    """Nothing comes from outside: who waits for a time has it at once, who waits for more hangs."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Finding("it waits for what will never come")
        self.now_s += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes when there is nothing else to do."""

    def __init__(self) -> None:
        self._waiting = _NeverWaiting()
        super().__init__(self._waiting)

    def time(self) -> float:
        return self._waiting.now_s


_loop: Final = _Loop()
_metrics: Final = Metrics()


class Complaints(logging.Handler):
    """What was logged as a failure, and what the event loop could not give to anybody."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def raise_first(self) -> None:
        """Raises what was logged first, as itself where it is known."""
        if not self.records:
            return
        record, self.records = self.records[0], []
        cause = record.exc_info[1] if record.exc_info else None
        raise Finding(f"logged: {record.getMessage()}") from cause


def run(conversation: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs it on the loop; raises Finding where it complained, or left a traceback in the log."""
    complaints = Complaints()
    logger = logging.getLogger()
    logger.addHandler(complaints)
    _loop.set_exception_handler(_complain)
    try:
        _loop.run_until_complete(conversation())
        complaints.raise_first()
    finally:
        logger.removeHandler(complaints)


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    cause = context.get("exception")
    logging.getLogger(__name__).error(
        context["message"], exc_info=cause if isinstance(cause, Exception) else None
    )


class Line(Wire):
    """One peer's connection: what it sends goes in by `send`; what it got is in `written`."""

    def __init__(self, listener: Listener, address: str = "192.0.2.1") -> None:
        super().__init__()
        self.lost = False
        self.choked = False
        opening = listener.take_in(address)
        if opening is None:
            self.abort()
        else:
            self.protocol = opening
            opening.connection_made(self)

    @property
    def over(self) -> bool:
        """Whether what is sent goes nowhere."""
        return self.lost or self.is_closing()

    @property
    def current(self) -> Any:
        """The protocol as it is now: the opening, then the connection."""
        return self.protocol

    def send(self, *parts: bytes) -> None:
        """The peer sends; what it sends while its reading is paused waits in the kernel."""
        for part in parts:
            for start in range(0, len(part), SEGMENT_BYTES_MAX):
                if not self.over and self.reading:
                    self.current.data_received(part[start : start + SEGMENT_BYTES_MAX])

    def shut(self) -> None:
        """The peer half-closes."""
        if not self.over and self.reading and not self.current.eof_received():
            self.close()

    def lose(self) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = True
            self.current.connection_lost(None)

    def choke(self, choked: bool) -> None:
        """The peer stops reading, or goes on."""
        if choked != self.choked and isinstance(self.current, Connection) and not self.over:
            self.choked = choked
            if choked:
                self.current.pause_writing()
            else:
                self.current.resume_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self.choked else 0

    @property
    def held_bytes(self) -> int:
        """What the server keeps of this peer's input."""
        current = self.current
        if isinstance(current, Opening):
            return len(current._received) + len(current._head)
        held = len(current._unparsed) + len(current._fragments or b"")
        if current._core is not None:
            held += len(current._core.reader.buffer)
        return held


def masked(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """A client's frame, under the one key that changes nothing."""
    first, size = fin << 7 | opcode, len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + bytes(4) + payload


def masked_by(key: bytes, payload: bytes) -> bytes:
    """The payload as it is under a key."""
    return bytes(apply_mask(payload, key))


def read_frames(written: bytes) -> Iterator[tuple[int, bytes]]:
    """The frames that a server wrote, each checked for the form that they all have."""
    position = 0
    while position < len(written):
        first, size = written[position], written[position + 1]
        require(first & 0xF0 == 0x80, "the server neither fragments nor reserves", first)
        require(size < 128, "the server does not mask", size)
        position += 2
        if size == 126:
            (size,) = struct.unpack_from("!H", written, position)
            position += 2
        elif size == 127:
            (size,) = struct.unpack_from("!Q", written, position)
            position += 8
        require(position + size <= len(written), "a frame is whole", size)
        yield first & 0x0F, written[position : position + size]
        position += size


def close_code_of(written: bytes) -> int | None:
    """The code that a server closed with; None where it did not close, or without a code."""
    for opcode, payload in read_frames(written):
        if opcode == CLOSE and payload:
            return int.from_bytes(payload[:2], "big")
    return None


PEER_MAY_SEND: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""What the peer's own close may be answered with: the codes that may be sent (RFC 6455, section
7.4, and those registered since)."""
OURS: Final = frozenset(int(code) for code in CloseCode)


class InsidePasswords:
    """No scrypt: a hash that tells its password."""

    def submit(
        self,
        operation: HashPassword | CheckPassword,
        done: Callable[[Any], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        password = operation.password.encode()
        answer: Any
        if isinstance(operation, HashPassword):
            answer = hash_of(operation.password)
        else:
            stored = operation.stored
            answer = stored is not None and hmac.compare_digest(stored.digest, password)
        asyncio.get_running_loop().call_soon(done, answer)


def hash_of(password: str) -> PasswordHash:
    return PasswordHash(password.encode(), b"salt", 2**15, 8, 1)


class Inside:
    """The server, with two accounts."""

    def __init__(self, mode: str = "open", *, limited: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Clock()
        self.letters: list[SendLetter] = []
        self.store = MemoryStore(
            history_depth=LIMITS.history_depth,
            token_lifetime_s=1_209_600,
            answer=self._take_answer,
            now_ms=lambda: 1_767_323_045_678,
        )
        self.store._loop = loop  # as `open` does
        gate = Gate(
            GateLimits(message_rate=Rate(per_s=1, burst=30), refusals_max=5),
            enabled=limited,
            clock=self.clock,
        )
        self.engine = Engine(
            facts=_facts(mode, gate),
            store=self.store,
            passwords=InsidePasswords(),
            send_letter=self.letters.append,
            metrics=_metrics,
        )
        for email in ("joe@example.com", "ann@example.com"):
            self.store.memory.perform(
                CreateAccount(
                    email, hash_of("correct horse"), SEED, Kdf.scrypt(2**14), verified=True
                )
            )
        pages = PublicPages(sends_mail=mode == "email")
        self.public = self.listen(self.engine.mount, pages.answer)

    def listen(self, application: ApplicationFactory | None, respond: Respond) -> Listener:
        """One more port, which is none."""
        listener = Listener(
            limits=TRANSPORT_LIMITS,
            application=application,
            respond=respond,
            trusted_proxies=[ipaddress.ip_network("192.0.2.0/24")],
            clock=self.clock,
        )
        listener.loop = asyncio.get_running_loop()
        return listener

    def listen_admin(self) -> Listener:
        """The admin port."""

        async def probe() -> str | None:
            await asyncio.sleep(0)
            return None

        async def expose() -> bytes:
            await asyncio.sleep(0)
            return b""

        async def snapshot() -> Snapshot:
            await asyncio.sleep(0)
            return make_snapshot()

        return self.listen(None, AdminPages(probe=probe, metrics=expose, snapshot=snapshot).answer)

    def listen_echo(self) -> tuple[Listener, list[Echo]]:
        """A port with an echo behind it, and what is mounted there."""
        mounted: list[Echo] = []

        def mount(connection: Connection) -> Echo:
            mounted.append(Echo(connection))
            return mounted[-1]

        return self.listen(mount, lambda request: None), mounted

    async def settle(self, *lines: Line) -> None:
        """Lets the loop turn until nothing more comes of what was sent."""
        seen, idle = -1, 0
        for _ in range(TURNS_MAX):
            await asyncio.sleep(0)
            now = sum(len(line.written) for line in lines) + self._answered
            idle = idle + 1 if now == seen else 0
            if idle >= IDLE_TURNS:
                return
            seen = now
        raise Finding("it never comes to rest")

    async def open(self, listener: Listener) -> Line:
        """A connection whose upgrade is done; nothing it was sent is kept."""
        line = Line(listener)
        line.send(UPGRADE + b"\r\n")
        await self.settle(line)
        require(line.written.startswith(b"HTTP/1.1 101 "), "an honest peer is let in", line.written)
        line.written = b""
        return line

    def close(self, *lines: Line) -> None:
        """Ends it all, as a server's end would."""
        for line in lines:
            line.lose()
        if self.engine._noting is not None:
            self.engine._noting.cancel()
        for line in lines:
            line.current._phase = ENDING

    _answered = 0

    def _take_answer(self, operation: Operation[Any], answer: Any, done: Any) -> None:
        self._answered += 1
        self.engine.take_answer(operation, answer, done)


def _facts(mode: str, gate: Gate) -> ServerFacts:
    facts = make_facts(limits=LIMITS, gate=gate)
    values = {name: getattr(facts.info, name) for name in ("name", "version", "protocol")}
    info = type(facts.info)(**values, features=(), verification=mode, limits=facts.info.limits)
    return ServerFacts(
        info=info,
        document=facts.document,
        limits=LIMITS,
        allowlist=frozenset({"eve@example.com"}) if mode == "allowlist" else frozenset(),
        decoy_key=hashlib.sha256(b"decoy").digest(),
        gate=gate,
    )
