"""A real nginx with the project's deploy/nginx.conf, in which only addresses and paths differ."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.certificates import Files
from tests.servers.processes import WAIT_S, ServerProgram, find_port

CONFIGURATION = Path(__file__).parents[2] / "deploy/nginx.conf"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""What nginx makes a folder for at its start, among the distribution's paths: they are root's."""


class Nginx(ServerProgram):
    """nginx with TLS on one port, before the nodes at ``ports``."""

    def __init__(self, certificate: Files, ports: Sequence[int]) -> None:
        self._program = find_program()
        super().__init__("nginx", "nginx.pid")
        self.access_log = self.folder / "access.log"
        self._configuration = self.folder / "nginx.conf"
        self._configuration.write_text(self._adapt(CONFIGURATION.read_text(), certificate, ports))

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.port}/v1"

    def check(self) -> str:
        """What `nginx -t` says of the configuration; nothing where it is well."""
        done = subprocess.run(
            [*self._command, "-q", "-t"],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert (done.returncode == 0) == (not done.stderr)
        return done.stderr

    def start(self) -> None:
        """Start it; returns once it listens."""
        self._launch([*self._command, "-g", "daemon off;"])
        ends_at_s = time.monotonic() + WAIT_S
        while not self._listens():
            if not self.running or time.monotonic() > ends_at_s:
                raise self._fail("nginx did not start")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, whoever is connected."""
        self._signal(signal.SIGTERM)
        self._wait()

    @property
    def _command(self) -> list[str]:
        error_log = str(self.folder / "error.log")
        return [self._program, "-e", error_log, "-p", str(self.folder), "-c", "nginx.conf"]

    def _adapt(self, text: str, certificate: Files, ports: Sequence[int]) -> str:
        nodes = [f"server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;" for port in ports]
        temporary = [f"{name}_temp_path {self.folder / name};" for name in TEMPORARY]
        changes = {
            r"/run/nginx\.pid": str(self._pid_path),
            r"/var/log/nginx": str(self.folder),
            r"/etc/letsencrypt/live/sync\.example\.com/fullchain\.pem": str(certificate.chain),
            r"/etc/letsencrypt/live/sync\.example\.com/privkey\.pem": str(certificate.key),
            r"listen \[::\]:\d+[^;]*;": "",
            r"listen 80;": f"listen 127.0.0.1:{find_port()};",
            r"listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            r"(server 127\.0\.0\.1:\d+ max_fails=1 fail_timeout=2s;\s+)+": "\n".join([*nodes, ""]),
            r"^http {": "\n".join(["http {", *temporary]),
        }
        if os.geteuid() != 0:
            # Who is not root has a limit of descriptors that can't be raised.
            changes |= {r"worker_rlimit_nofile \d+;": "", r"worker_connections \d+;": ""}
        for old, new in changes.items():
            text, count = re.subn(old, new, text, flags=re.MULTILINE)
            assert count, f"deploy/nginx.conf has no more {old}"
        return text

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S).close()
        except OSError:
            return False
        return True


def find_program() -> str:
    """nginx's program; skips the test where it is not installed."""
    # It is root's, and may not be on the path of others.
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/usr/local/sbin"
    program = shutil.which("nginx", path=path)
    if program is None:
        pytest.skip("nginx is not installed")
    return program
