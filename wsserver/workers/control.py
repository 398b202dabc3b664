"""What a worker and its supervisor tell each other: lines of JSON over a pair of sockets.

The supervisor asks (`Question`), the worker answers, and tells by itself that it is ready, that
all is well, or why it can't start. Where the supervisor ends, the line does, and the worker drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import orjson

LINE_BYTES_MAX: Final = 16 * 2**20
"""Longest line: the figures of a worker, some 100 KiB."""


class Question(enum.StrEnum):
    """What a supervisor wants: an answer, or for `DRAIN` the worker's end."""

    FIGURES = "figures"
    PROBE = "probe"
    SNAPSHOT = "snapshot"
    DRAIN = "drain"


class Told(enum.StrEnum):
    """What a worker tells."""

    READY = "ready"
    BEAT = "beat"
    FAILED = "failed"
    ANSWER = "answer"
    FAREWELL = "farewell"


Answers = Mapping[Question, Callable[[], Awaitable[str | None]]]


class SupervisorLine:
    """The worker's end: the overseer of its server."""

    present = True
    """SIGHUP is the supervisor's affair; a worker that gets one must not end of it."""

    def __init__(self, connection: socket.socket, *, beat_interval_s: float) -> None:
        self.beat_interval_s: float | None = beat_interval_s
        self._connection = connection
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None

    async def open(self, answers: Answers, drain: Callable[[], None]) -> None:
        """Answer from now on, each question at once; ``drain`` is called when it is time to."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._connection)
        self._listening = asyncio.create_task(self._listen(reader, answers, drain))

    async def close(self, farewell: str) -> None:
        """Say what is left to be said."""
        self._tell(Told.FAREWELL, farewell)
        if self._listening is not None:
            self._listening.cancel()
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def tell_failed(self, reason: str) -> None:
        """Say why the server can't start."""
        self._tell(Told.FAILED, reason)

    # What its server calls.

    def tell_ready(self, status: str) -> None:
        """The server serves."""
        self._tell(Told.READY)

    def tell_reloading(self) -> None:
        """The supervisor need not know."""

    def tell_stopping(self) -> None:
        """The supervisor need not know."""

    def beat(self) -> None:
        """All is well."""
        self._tell(Told.BEAT)

    # Its own affairs.

    def _tell(self, what: Told, value: str | None = None, number: int = 0) -> None:
        line = orjson.dumps([what, number, value]) + b"\n"
        if self._writer is not None:
            self._writer.write(line)
        else:
            with contextlib.suppress(OSError):
                self._connection.sendall(line)

    async def _listen(
        self, reader: asyncio.StreamReader, answers: Answers, drain: Callable[[], None]
    ) -> None:
        answering: set[asyncio.Task[None]] = set()
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                question, number = orjson.loads(line)
                if question == Question.DRAIN:
                    drain()
                    continue
                task = asyncio.create_task(self._answer(answers[Question(question)], number))
                answering.add(task)
                task.add_done_callback(answering.discard)
        drain()

    async def _answer(self, find: Callable[[], Awaitable[str | None]], number: int) -> None:
        self._tell(Told.ANSWER, await find(), number)


class WorkerLine:
    """The supervisor's end. ``take`` is called with what the worker tells by itself."""

    def __init__(self, take: Callable[[Told, str | None], None]) -> None:
        self._take = take
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._count = 0
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, connection: socket.socket) -> None:
        """Use that socket."""
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=connection, limit=LINE_BYTES_MAX
        )

    async def listen(self) -> None:
        """Take what comes, until the worker's end is closed."""
        assert self._writer is not None, "it has been opened"
        try:
            with contextlib.suppress(OSError):
                while line := await self._reader.readline():
                    what, number, value = orjson.loads(line)
                    if what != Told.ANSWER:
                        self._take(Told(what), value)
                    elif (asked := self._asked.pop(number, None)) and not asked.done():
                        asked.set_result(value)
        finally:
            self._writer.close()

    async def ask(self, question: Question, timeout_s: float) -> str | None:
        """The answer; raises TimeoutError where none comes in time."""
        self._count += 1
        number = self._count
        asked: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked
        self._send(question, number)
        try:
            async with asyncio.timeout(timeout_s):
                return await asked
        finally:
            self._asked.pop(number, None)

    def ask_to_drain(self) -> None:
        """Have the worker finish what it is at, and end."""
        self._send(Question.DRAIN, 0)

    def _send(self, question: Question, number: int) -> None:
        if self._writer is not None:
            self._writer.write(orjson.dumps([question, number]) + b"\n")
