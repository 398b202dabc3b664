"""The service manager's side: sockets that it opened for us, and how we tell it how we are.

Both are systemd's protocols (sd_listen_fds(3), sd_notify(3)), which other service managers speak
too; without one, there are no sockets, and what is told goes nowhere. The packages that speak them
know a part of this, or need a compiler.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final, Protocol

SOCKET_NAMES: Final = ("wsserver", "admin", "lbry")
"""What the ports are called: the server's own, the admin port, the gateway."""
FIRST_DESCRIPTOR: Final = 3
BEATS: Final = 3
"""How often it is told in the time that it waits to be told that all is well."""

Sockets = Mapping[str, Sequence[socket.socket]]
"""Listening sockets that somebody else opened, by the name of the port."""


class SocketsWrong(Exception):
    """The sockets that were handed over can't be served on; the text says why."""


class Overseer(Protocol):
    """Who started the server and looks after it: systemd, or the supervisor of many workers."""

    @property
    def present(self) -> bool:
        """Whether there is one, who may signal the server to reload."""
        ...

    @property
    def beat_interval_s(self) -> float | None:
        """How often it wants to be told that all is well; None: it does not wait for that."""
        ...

    def tell_ready(self, status: str) -> None:
        """The server serves; or has reloaded."""
        ...

    def tell_reloading(self) -> None:
        """The server reloads; `tell_ready` is to follow."""
        ...

    def tell_stopping(self) -> None:
        """The server drains."""
        ...

    def beat(self) -> None:
        """All is well."""
        ...


class Systemd:
    """The service manager that is named in the environment; perhaps none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An @ stands for the zero byte that names outside the file system begin with.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.beat_interval_s: float | None = None
        timeout_us = environment.get("WATCHDOG_USEC", "")
        if address and timeout_us.isdigit() and _is_ours(environment.get("WATCHDOG_PID")):
            self.beat_interval_s = int(timeout_us) / 1e6 / BEATS

    @property
    def present(self) -> bool:
        return bool(self._address)

    def tell_ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def tell_status(self, status: str) -> None:
        """One line for people."""
        self._tell(f"STATUS={status}")

    def tell_reloading(self) -> None:
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def tell_stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=draining")

    def beat(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # Nobody waits for the service manager: one that is gone, or reads nothing, is told nothing.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending,
        ):
            sending.setblocking(False)
            sending.sendto("\n".join(lines).encode(), self._address)


def take_sockets(environment: MutableMapping[str, str] = os.environ) -> Sockets:
    """The listening sockets that this process was started with, by name; none where there are none.

    To be called once: the environment tells nobody else of them afterwards. A socket without a name
    is the server's own. Raises SocketsWrong.
    """
    told = [environment.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES")]
    pid, count, names = told
    if not count.isdigit() or not pid or not _is_ours(pid):
        return {}
    named = names.split(":") if names else [SOCKET_NAMES[0]] * int(count)
    if len(named) != int(count):
        raise SocketsWrong(f"LISTEN_FDS says {count} sockets, LISTEN_FDNAMES names {len(named)}")
    taken: dict[str, list[socket.socket]] = {}
    for descriptor, name in enumerate(named, FIRST_DESCRIPTOR):
        # Where its unit names none, systemd gives a socket the name of the unit.
        name = name.removesuffix(".socket")
        taken.setdefault(name, []).append(adopt_socket(name, descriptor))
    return taken


def adopt_socket(name: str, descriptor: int) -> socket.socket:
    """The listening socket that a descriptor is, of the port of that name; raises SocketsWrong."""
    if name not in SOCKET_NAMES:
        raise SocketsWrong(
            f"a socket was handed over under the name {name!r}; the server knows "
            f"{', '.join(SOCKET_NAMES)} (FileDescriptorName= in the socket's unit)"
        )
    try:
        adopted = socket.socket(fileno=descriptor)
        listens = bool(adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise SocketsWrong(
            f"the socket {name!r} (descriptor {descriptor}) can't be used: {error.strerror}"
        ) from None
    if not listens or adopted.family not in (socket.AF_INET, socket.AF_INET6):
        adopted.close()
        raise SocketsWrong(
            f"the socket {name!r} is not one that listens for TCP connections "
            "(ListenStream= with a port, Accept=no)"
        )
    adopted.set_inheritable(False)
    return adopted


def _is_ours(pid: str | None) -> bool:
    return pid is None or pid == str(os.getpid())
