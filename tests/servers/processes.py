"""What the real servers that tests start have in common: a folder, a port, and an end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

WAIT_S = 60.0
"""How long a server may take to start, to stop, or to answer."""
_BURY = 'cat; kill -9 $(head -n 1 "$1"); rm -rf "$2"'


class ServerProgram(ABC):
    """A program that listens on a port of loopback, in a folder of its own.

    It keeps its port and its folder when it is started again. Whatever becomes of the tests'
    process, the program ends and the folder goes: another process sees to it.
    """

    def __init__(self, name: str, pid_file: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.port = find_port()
        self.log_path = self.folder / "log"
        self._pid_path = self.folder / pid_file
        self._process: subprocess.Popen[bytes] | None = None
        # Its standard input ends when this process does.
        self._undertaker = subprocess.Popen(
            ["sh", "-c", _BURY, "sh", str(self._pid_path), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Start it; returns once it answers."""

    @property
    def pid(self) -> int:
        assert self._process is not None, "it has been started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it at once, with all its children, as `kill -9` and the machine's end do."""
        pids = find_family(self.pid)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))

    def freeze(self) -> None:
        """It does nothing from now on, and connections to it stay open: as one cut off."""
        for pid in find_family(self.pid):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in find_family(self.pid):
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        if self.running:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert self._undertaker.stdin is not None
        self._undertaker.stdin.close()
        self._undertaker.wait(WAIT_S)

    def _launch(self, command: Sequence[str], **options: Any) -> None:
        assert not self.running
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **options,
            )

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _wait(self) -> None:
        assert self._process is not None
        self._process.wait(WAIT_S)

    def _fail(self, what: str) -> AssertionError:
        return AssertionError(f"{what}: {self.log_path.read_text()[-2000:]}")


def find_family(pid: int) -> list[int]:
    """The process and its children, which are all that a PostgreSQL server has."""
    family = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # The name in parentheses may hold anything; the state and the parent follow it.
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                family.append(int(stat.parent.name))
    return family


def find_port() -> int:
    """A free port outside the range of outgoing connections, so that it is free later on too."""
    while True:
        port = random.randrange(18_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def wait_until(is_so: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < ends_at_s, "waited in vain"
        time.sleep(0.01)
