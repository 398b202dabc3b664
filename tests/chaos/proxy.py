"""A line between devices and a server that is cut, that swallows answers, and that dawdles."""

from __future__ import annotations

import asyncio
import contextlib
import random
from types import TracebackType
from typing import Self

DAWDLE_MAX_S = 0.02


class Line:
    """One connection through the proxy."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near, self.far = near, far
        self.swallows = False
        """Whether what the server says is lost from now on."""

    def cut(self) -> None:
        for side in (self.near, self.far):
            side.transport.abort()


class Proxy:
    """Listens on a port of its own, whatever becomes of the server."""

    def __init__(self, choices: random.Random) -> None:
        self.port = 0
        self.server_port = 0
        self.lines: list[Line] = []
        self._choices = choices
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut_all()
        while self.lines:
            await asyncio.sleep(0.001)

    def cut_all(self) -> None:
        for line in self.lines:
            line.cut()

    def swallow_answers(self) -> None:
        """From now on no line brings anything from the server, until it is cut."""
        for line in self.lines:
            line.swallows = True

    async def _carry(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            answers, far = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            near.transport.abort()
            return
        line = Line(near, far)
        self.lines.append(line)
        try:
            await asyncio.gather(
                self._pump(reader, far, line, to_server=True),
                self._pump(answers, near, line, to_server=False),
            )
        finally:
            line.cut()
            self.lines.remove(line)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        line: Line,
        *,
        to_server: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                if self._choices.random() < 0.1:
                    await asyncio.sleep(self._choices.random() * DAWDLE_MAX_S)
                if to_server or not line.swallows:
                    writer.write(data)
                    await writer.drain()
        line.cut()
