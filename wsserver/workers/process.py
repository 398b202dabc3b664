"""A worker as its supervisor has it: a process, started by exec with the ports handed over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import Final

from wsserver.systemd import Sockets
from wsserver.workers.control import Question, Told, WorkerLine

OURS: Final = ("NOTIFY_", "WATCHDOG_", "LISTEN_")
"""Variables that the service manager means for the supervisor alone."""

LAST_WORD_TIMEOUT_S: Final = 1.0
"""How long what an ended worker has told may take to be read."""


class WorkerFailed(Exception):
    """A worker can't start; the text says why."""


class WorkerProcess:
    """One worker, from its start to its end. ``number``: which it is, from 1."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.started_at_s = time.monotonic()
        self.silent_beats = 0
        """How often it should have said that all is well, and has not."""
        self.figures = ""
        """What it counted when it was last heard."""
        self.ended = asyncio.Event()
        self._reason = ""
        self._ready = asyncio.Event()
        self._line = WorkerLine(self._take)
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def start(self, command: Sequence[str], sockets: Sockets, timeout_s: float) -> None:
        """Start it; returns once it serves. Raises WorkerFailed, and then it is gone."""
        ours, theirs = socket.socketpair()
        inherited = {
            f"{name}={listening.fileno()}": listening.fileno()
            for name, several in sockets.items()
            for listening in several
        }
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                f"--number={self.number}",
                f"--control={theirs.fileno()}",
                *(f"--socket={described}" for described in inherited),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *inherited.values()),
                env={
                    name: value for name, value in os.environ.items() if not name.startswith(OURS)
                },
                # Ctrl-C is for the supervisor, which lets the workers drain.
                process_group=0,
            )
        await self._line.open(ours)
        self._waiting = asyncio.create_task(self._wait())
        try:
            async with asyncio.timeout(timeout_s):
                await self._until_ready_or_ended()
        except BaseException as error:
            await self.kill()
            if isinstance(error, TimeoutError):
                raise WorkerFailed(
                    f"worker {self.number} was not ready within {timeout_s:g} s"
                ) from None
            raise
        if not self._ready.is_set():
            reason = self._reason or f"it {self.describe_end()}, and the log may say why"
            raise WorkerFailed(f"worker {self.number} can't start: {reason}")

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def describe_end(self) -> str:
        """How it ended."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return "has not ended"
        if code >= 0:
            return f"exited with {code}"
        return f"was ended by {signal.Signals(-code).name}"

    async def ask(self, question: Question, timeout_s: float) -> str | None:
        """Its answer; raises TimeoutError where it gives none."""
        answer = await self._line.ask(question, timeout_s)
        if question is Question.FIGURES:
            self.figures = answer or ""
        return answer

    async def drain(self, timeout_s: float) -> bool:
        """Have it finish what it is at and end; one that takes longer than that is killed."""
        self._line.ask_to_drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()
                return True
        await self.kill()
        return False

    async def kill(self) -> None:
        """End it at once."""
        if self._process is not None and not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self.ended.wait()

    async def _until_ready_or_ended(self) -> None:
        waiting = [asyncio.create_task(event.wait()) for event in (self._ready, self.ended)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _wait(self) -> None:
        """Hear it to the end, so that its last word is heard before it counts as gone."""
        assert self._process is not None
        listening = asyncio.create_task(self._line.listen())
        await self._process.wait()
        # Its end of the line is closed with it, unless a process that it started has it too.
        await asyncio.wait([listening], timeout=LAST_WORD_TIMEOUT_S)
        listening.cancel()
        self.ended.set()

    def _take(self, what: Told, value: str | None) -> None:
        self.silent_beats = 0
        match what:
            case Told.READY:
                self._ready.set()
            case Told.FAILED:
                self._reason = value or ""
            case Told.FAREWELL:
                self.figures = value or ""
            case _:
                pass
