"""The server under test: inside the test's own process, or as the real command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.rawclient import WAIT_S, RawClient, open_socket
from wsserver.config import Settings
from wsserver.server import Server
from wsserver.systemd import Overseer


class Served:
    """A running server, in this process, and the clients that a test opened to it."""

    def __init__(self, server: Server, database: Path) -> None:
        self.server = server
        self.database = database
        self._clients: list[RawClient] = []

    @classmethod
    async def start(
        cls, folder: Path, *, overseer: Overseer | None = None, **settings: Any
    ) -> Served:
        database = folder / "wallets.db"
        chosen = {
            "verification": "open",
            "port": 0,
            "admin_port": 0,
            "database_url": f"sqlite:///{database}",
            "drain_timeout_s": 2,
            "rate_limits": "off",
            **settings,
        }
        server = Server(Settings(**chosen), overseer=overseer)
        await server.start()
        return cls(server, database)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/v1"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.server.admin_port}"

    async def open(self, **options: Any) -> RawClient:
        """A client that is closed with the server."""
        client = RawClient(await open_socket(self.url, **options))
        self._clients.append(client)
        return client

    async def open_device(
        self, email: str, device_id: str = "laptop", **params: Any
    ) -> tuple[RawClient, Any]:
        """A client that has logged in, and the answer to that."""
        client = await self.open()
        return client, await client.login(email, device_id, **params)

    async def open_account(self, email: str = "joe@example.com", **params: Any) -> RawClient:
        """A client of a new account."""
        client = await self.open()
        await client.register(email)
        await client.login(email, **params)
        return client

    async def close_clients(self) -> None:
        for client in self._clients:
            await client.close()
        self._clients.clear()

    async def stop(self) -> None:
        await self.close_clients()
        await self.server.stop()


class ServerProcess:
    """The command `wsserver serve`, its log in a file."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.database = folder / "wallets.db"
        self.log_path = folder / "server.log"
        self.port = 0
        self.settings = {
            "verification": "open",
            "port": 0,
            "admin_port": 0,
            "database_url": f"sqlite:///{self.database}",
            "rate_limits": "off",
            **settings,
        }
        self.environment = clean_environment()
        self.command = COMMAND
        self.descriptors: Sequence[int] = ()
        """What it is started with beside the usual three."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        scheme = "wss" if "tls_cert" in self.settings else "ws"
        return f"{scheme}://127.0.0.1:{self.port}/v1"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def launch(self) -> None:
        """Starts it, and waits for nothing."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.command, "serve", *make_flags(self.settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                pass_fds=self.descriptors,
            )

    async def start(self, wait_s: float = WAIT_S) -> None:
        """Starts it; returns once it listens. It takes the same port each time."""
        before = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.launch()
        async with asyncio.timeout(wait_s):
            while True:
                found = re.search(r"listening on wss?://127\.0\.0\.1:(\d+)/v1", self.log[before:])
                if found:
                    break
                if self._process is not None and self._process.poll() is not None:
                    raise AssertionError(f"the server did not start: {self.log[before:]}")
                await asyncio.sleep(0.02)
        self.port = self.settings["port"] = int(found[1])

    async def wait_for_log(self, text: str, wait_s: float = WAIT_S) -> None:
        """Returns once the log has that text."""
        async with asyncio.timeout(wait_s):
            while text not in self.log:
                await asyncio.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self, timeout_s: float = WAIT_S) -> int:
        """The exit code, once it has ended."""
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            while (code := self._process.poll()) is None:
                await asyncio.sleep(0.01)
        return code

    def end(self) -> None:
        """Ends it however it is."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()


def find_command() -> list[str]:
    """The installed command, of the interpreter that runs the tests."""
    script = Path(sys.executable).with_name("wsserver")
    return [str(script)] if script.exists() else [sys.executable, "-m", "wsserver.cli"]


COMMAND = find_command()


def clean_environment(**variables: str) -> dict[str, str]:
    """This environment without the server's own variables, but for these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WSSERVER_")}
    return {**kept, **variables}


def run_command(
    arguments: Sequence[str], folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs `wsserver` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def make_flags(settings: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


def find_free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def fetch(url: str) -> tuple[int, dict[str, str], str]:
    """Status, header fields and text of a plain GET."""
    return await asyncio.to_thread(_fetch, url)


async def fetch_json(url: str) -> tuple[int, Any]:
    status, _, text = await fetch(url)
    return status, json.loads(text)


def _fetch(url: str) -> tuple[int, dict[str, str], str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=WAIT_S) as response:
            return response.status, dict(response.headers), response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


@contextlib.contextmanager
def open_database(path: Path) -> Any:
    """The server's database file, as another process sees it."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=WAIT_S)
    try:
        yield connection
    finally:
        connection.close()
