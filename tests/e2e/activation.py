"""A service manager, as far as the server knows one: it opens its sockets and hears how it is."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from tests.e2e.rawclient import WAIT_S
from tests.e2e.serving import COMMAND, ServerProcess

# What systemd does between its fork and its exec.
LAUNCH = """
import fcntl, os, sys
names, descriptors, *command = sys.argv[1:]
aside = [fcntl.fcntl(int(descriptor), fcntl.F_DUPFD, 100) for descriptor in descriptors.split(",")]
for number, descriptor in enumerate(aside, 3):
    os.dup2(descriptor, number, inheritable=True)
    os.close(descriptor)
os.environ.update(
    LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(number - 2), LISTEN_FDNAMES=names
)
os.execv(command[0], command)
"""


class Manager:
    """Listening sockets that outlive the servers that serve on them; and what those tell."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self._sockets: dict[str, socket.socket] = {}
        self._address = str(folder / "notify")
        self._hearing = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._hearing.bind(self._address)
        self._hearing.setblocking(False)

    def listen(self, name: str) -> int:
        """Opens a socket of that name; gives its port."""
        self._sockets[name] = socket.create_server(("127.0.0.1", 0))
        return int(self._sockets[name].getsockname()[1])

    def adopt(self, server: ServerProcess) -> None:
        """Has the server be started with the sockets."""
        names = ":".join(self._sockets)
        numbers = [listening.fileno() for listening in self._sockets.values()]
        listed = ",".join(map(str, numbers))
        server.descriptors = numbers
        server.command = [sys.executable, "-c", LAUNCH, names, listed, *COMMAND]
        server.environment |= {"NOTIFY_SOCKET": self._address}

    async def hear(self, line: str, times: int = 1) -> None:
        """Returns once that line has been told so many times."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WAIT_S):
            while self.told.count(line) < times:
                self.told += (await loop.sock_recv(self._hearing, 4096)).decode().splitlines()

    def close(self) -> None:
        for opened in (self._hearing, *self._sockets.values()):
            opened.close()
