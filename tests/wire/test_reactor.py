"""The reactor: who is in is served at once; who comes, goes or sends much has its turns."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.wire.harness import TEXT, eventually, frame, serving
from wsserver import reactor as module
from wsserver import transport
from wsserver.reactor import READ_BYTES_MAX, READS_MAX, Reactor, Stream

pytestmark = pytest.mark.skipif(not module.HAS_EPOLL, reason="Linux alone has epoll")

BIG = bytes(range(256)) * 40_000
"""More than the buffers of a connection take."""


class Heard(asyncio.Protocol):
    """Keeps what it hears, and tells the test's journal of it."""

    def __init__(self, journal: list[str], name: str) -> None:
        self.received = b""
        self.largest = 0
        self.calls: list[str] = []
        self.stream: Stream
        self.fails = False
        self.cost_s = 0.0
        self._journal = journal
        self._name = name

    def connection_made(self, transport: Any) -> None:
        self.stream = transport

    def data_received(self, data: bytes) -> None:
        time.sleep(self.cost_s)
        self.received += data
        self.largest = max(self.largest, len(data))
        self._journal.append(f"{self._name} heard")
        if self.fails:
            raise LookupError("it fails")

    def eof_received(self) -> bool:
        time.sleep(self.cost_s)
        self._journal.append(f"{self._name} ended")
        return False

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")


class Ground:
    """A reactor on a free port, and who has connected to it."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.protocols: list[Heard] = []
        self.peers: list[socket.socket] = []
        self.refuses = False
        self.reactor = Reactor(asyncio.get_running_loop(), self._take)
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.address = listening.getsockname()
        self.reactor.listen(listening)

    def _take(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        if self.refuses:
            accepted.close()
            raise LookupError("it fails")
        protocol = Heard(self.journal, f"{len(self.protocols)}")
        self.protocols.append(protocol)
        self.reactor.adopt(accepted, protocol)

    async def connect(self, *, established: bool = True) -> tuple[socket.socket, Heard]:
        number = len(self.protocols)
        self.peers.append(socket.create_connection(self.address))
        self.peers[-1].setblocking(False)
        await eventually(lambda: len(self.protocols) > number)
        self.protocols[-1].stream.established = established
        return self.peers[-1], self.protocols[-1]


@asynccontextmanager
async def standing() -> AsyncIterator[Ground]:
    ground = Ground()
    try:
        yield ground
    finally:
        for peer in ground.peers:
            peer.close()
        for protocol in ground.protocols:
            protocol.stream.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ground.reactor.close()


async def read_all(peer: socket.socket) -> bytes:
    """What comes up to the end."""
    loop = asyncio.get_running_loop()
    received = b""
    async with asyncio.timeout(10):
        while part := await loop.sock_recv(peer, 100_000):
            received += part
    return received


@pytest.mark.parametrize("established", [True, False])
async def test_what_was_sent_before_a_hang_up_is_heard_whole(established: bool) -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect(established=established)
        await asyncio.get_running_loop().sock_sendall(peer, BIG)
        peer.close()

        await eventually(lambda: protocol.calls)
        assert protocol.received == BIG
        assert (protocol.calls, ground.journal[-1]) == (["lost"], "0 ended")


async def test_a_reset_ends_it() -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        peer.close()

        await eventually(lambda: protocol.calls)
        assert (protocol.received, protocol.calls) == (b"", ["lost"])


async def test_who_is_in_is_heard_before_a_crowd_that_has_hung_up() -> None:
    async with standing() as ground:
        there, _ = await ground.connect()
        for _ in range(20):
            await ground.connect()
        for protocol in ground.protocols:
            protocol.cost_s = 4 * module.SLICE_S  # a turn is over after one
        for peer in ground.peers[1:]:
            peer.close()
        there.send(b"here")

        await eventually(lambda: len(ground.journal) == 21)
        assert ground.journal.index("0 heard") <= 1


async def test_a_crowd_that_hangs_up_leaves_turns_to_the_others() -> None:
    """While it is ended, what comes is heard; not behind it."""
    async with standing() as ground:
        there, protocol = await ground.connect()
        for _ in range(20):
            await ground.connect()
        for gone in ground.protocols[1:]:
            gone.cost_s = 4 * module.SLICE_S
        for peer in ground.peers[1:]:
            peer.close()
        await eventually(lambda: ground.journal)
        there.send(b"here")

        await eventually(lambda: protocol.received)
        assert len(ground.journal) < 20


async def test_who_is_in_is_heard_before_newcomers_that_wait() -> None:
    async with standing() as ground:
        there, _ = await ground.connect()
        for _ in range(20):
            await ground.connect(established=False)
        for newcomer in ground.protocols[1:]:
            newcomer.cost_s = 4 * module.SLICE_S
        for peer in ground.peers[:0:-1]:
            peer.send(b"I, too")
        there.send(b"here")

        await eventually(lambda: len(ground.journal) == 21)
        assert ground.journal.index("0 heard") <= 1


async def test_a_newcomer_that_sends_bit_by_bit_waits_once() -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect(established=False)
        waiting = ground.reactor._waiting
        for _ in range(5):
            ground.reactor.read_soon(protocol.stream)
        assert len(waiting) == 1

        peer.send(b"here")
        await eventually(lambda: protocol.received)
        assert not waiting


async def test_a_turn_reads_so_much_of_one_and_no_more() -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect()
        await asyncio.get_running_loop().sock_sendall(peer, BIG)

        await eventually(lambda: len(protocol.received) == len(BIG))
        assert protocol.received == BIG
        assert READ_BYTES_MAX < protocol.largest <= READS_MAX * READ_BYTES_MAX


async def test_one_whose_reading_is_paused_is_read_from_when_it_goes_on() -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect()
        protocol.stream.pause_reading()
        peer.send(b"here")
        peer.close()
        await asyncio.sleep(0.05)
        assert ground.journal == []

        protocol.stream.resume_reading()
        assert ground.journal == [], "not inside the call"
        await eventually(lambda: protocol.calls)
        assert ground.journal == ["0 heard", "0 ended"]


async def test_a_failure_costs_the_one_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with standing() as ground:
        (one, failing), (two, other), (three, late) = [
            await ground.connect(established=established) for established in (True, True, False)
        ]
        failing.fails = late.fails = True
        for peer in (one, three, two):
            peer.send(b"here")

        await eventually(lambda: failing.calls and late.calls and other.received)
        assert (failing.calls, other.calls, late.calls) == (["lost"], [], ["lost"])
    assert len(caplog.records) == 2


async def test_a_newcomer_that_can_not_be_taken_costs_the_port_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with standing() as ground:
        ground.refuses = True
        with socket.create_connection(ground.address) as peer:
            peer.setblocking(False)
            with contextlib.suppress(ConnectionResetError):
                assert await read_all(peer) == b""
        ground.refuses = False
        await ground.connect()
    assert len(caplog.records) == 1


async def test_who_has_connected_before_the_port_is_closed_is_in() -> None:
    async with standing() as ground:
        ground.peers += [socket.create_connection(ground.address) for _ in range(50)]
        assert ground.protocols == []
        ground.reactor.stop_listening()

        assert len(ground.protocols) == 50
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(ground.address)


async def test_all_that_is_written_arrives_in_order_before_the_end() -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect()
        for start in range(0, len(BIG), 300_000):
            protocol.stream.write(BIG[start : start + 300_000])
        assert protocol.calls == ["pause"]
        assert protocol.stream.get_write_buffer_size() > 0
        protocol.stream.close()
        protocol.stream.write(b"too late")

        assert await read_all(peer) == BIG
        await eventually(lambda: protocol.calls[-1] == "lost")
        assert protocol.calls == ["pause", "resume", "lost"]


async def test_a_half_close_comes_behind_what_is_written_and_leaves_the_other_half() -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect()
        protocol.stream.write(BIG)
        protocol.stream.write_eof()

        assert await read_all(peer) == BIG
        peer.send(b"here")
        await eventually(lambda: protocol.received == b"here")


async def test_who_half_closes_gets_what_was_written_before_it_ends() -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect()
        protocol.stream.write(BIG)
        peer.shutdown(socket.SHUT_WR)
        await eventually(lambda: ground.journal)

        assert await read_all(peer) == BIG
        await eventually(lambda: "lost" in protocol.calls)


@pytest.mark.parametrize("closing", [False, True])
async def test_who_goes_away_with_something_unread_is_lost_once(closing: bool) -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect()
        protocol.stream.write(BIG)
        if closing:
            protocol.stream.close()
        peer.close()

        await eventually(lambda: "lost" in protocol.calls)
        protocol.stream.write(b"more")
        protocol.stream.abort()
        await asyncio.sleep(0.02)
        assert protocol.calls.count("lost") == 1


async def test_an_abort_drops_what_is_unsent() -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect()
        protocol.stream.write(BIG)
        protocol.stream.abort()
        assert protocol.calls == ["pause"], "not inside the call"

        await eventually(lambda: protocol.calls[-1] == "lost")
        with contextlib.suppress(ConnectionResetError):
            assert len(await read_all(peer)) < len(BIG)


async def test_a_write_to_who_has_reset_ends_it() -> None:
    async with standing() as ground:
        peer, protocol = await ground.connect()
        protocol.stream.pause_reading()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        peer.close()
        await asyncio.sleep(0.02)
        assert protocol.calls == []

        protocol.stream.write(b"news")
        await eventually(lambda: protocol.calls == ["lost"])


@pytest.mark.parametrize("has_epoll", [True, False])
async def test_the_port_is_served_without_epoll_too(
    monkeypatch: pytest.MonkeyPatch, has_epoll: bool
) -> None:
    monkeypatch.setattr(transport, "HAS_EPOLL", has_epoll)
    async with serving() as server:
        client = await server.open()
        assert isinstance(server.connection._transport, Stream) is has_epoll
        client.send(frame(TEXT, b"hello"))
        assert await client.read_text() == b"hello"


async def test_a_connection_that_can_not_be_adopted_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no more watches")

    async with serving() as server:
        with monkeypatch.context() as patching:
            patching.setattr(Reactor, "adopt", fail)
            client = await server.connect()
            assert await client.is_cut_off()
        assert server.listener.openings == 0
        await server.open()
    assert len(caplog.records) == 1
