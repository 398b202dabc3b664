"""A server of this project on a free port, with a database that is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from wsserver.processes import end_process

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
POLL_INTERVAL_S = 0.02

_LISTENING = re.compile(r"listening on (ws://[^\s\"]+)")


@contextlib.contextmanager
def run_server(**settings: str) -> Iterator[str]:
    """The address of a server that lasts as long as the context; ``settings`` by their names."""
    with tempfile.TemporaryDirectory(prefix="wallet-sync-") as folder:
        database = Path(folder, "wallet-sync.db")
        settings = {
            "host": "127.0.0.1",
            "port": "0",
            "admin_port": "0",
            "database_url": f"sqlite:///{database}",
            "verification": "open",
        } | settings
        # The settings of whoever runs this are theirs; this server has its own.
        inherited = {name: value for name, value in os.environ.items() if "WSSERVER" not in name}
        variables = {f"WSSERVER_{name.upper()}": value for name, value in settings.items()}
        with open(Path(folder, "log"), "w+") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "wsserver.cli", "serve"],
                env=inherited | variables,
                stderr=log,
                # A Ctrl-C is for the program that runs the server; that one ends it.
                start_new_session=True,
            )
            try:
                yield _wait_for_address(process, Path(log.name))
            finally:
                end_process(process, timeout_s=STOP_TIMEOUT_S)


def _wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        found = _LISTENING.search(log.read_text())
        if found is not None:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(POLL_INTERVAL_S)
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")
