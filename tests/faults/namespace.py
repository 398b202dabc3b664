"""A network of its own, joined to this machine's by one link that can be cut. Linux, root."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

CLONE_NEWNET = 0x4000_0000


class Namespace:
    """The other end of a link."""

    def __init__(self, name: str, near: str, far: str, address: str) -> None:
        self.name = name
        self.near, self.far = near, far
        self.address = address
        """This machine's, on the link."""

    def cut(self) -> None:
        """From now on the link drops what either side sends, and tells neither."""
        run("ip", "-n", self.name, "link", "set", self.far, "down")

    def mend(self) -> None:
        run("ip", "-n", self.name, "link", "set", self.far, "up")

    async def connect(self, port: int) -> socket.socket:
        """A connection from over there to a port of this machine."""
        connected = await asyncio.to_thread(self._connect, port)
        connected.setblocking(False)
        return connected

    def _connect(self, port: int) -> socket.socket:
        # A thread moves over for good, so it is one of its own; a socket stays where it was made.
        made: list[socket.socket | OSError] = []

        def work() -> None:
            try:
                with Path(f"/run/netns/{self.name}").open() as namespace:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.create_connection((self.address, port), timeout=30))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def linked() -> Iterator[Namespace]:
    """A namespace and its link, gone afterwards; skips the test where there can be none."""
    number = os.getpid() % 16_000
    # 198.18.0.0/15 is for tests of network devices (RFC 2544).
    third, fourth = divmod(number * 4, 256)
    ours, theirs = f"198.18.{third}.{fourth + 1}", f"198.18.{third}.{fourth + 2}"
    namespace = Namespace(f"wsync{number}", f"wsa{number}", f"wsb{number}", ours)
    name, near, far = namespace.name, namespace.near, namespace.far
    if sys.platform != "linux":
        pytest.skip("network namespaces are Linux's")
    try:
        run("ip", "netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a network namespace can't be made here: that takes root and iproute2")
    try:
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        run("ip", "address", "add", f"{ours}/30", "dev", near)
        run("ip", "link", "set", near, "up")
        run("ip", "-n", name, "address", "add", f"{theirs}/30", "dev", far)
        run("ip", "-n", name, "link", "set", far, "up")
        yield namespace
    finally:
        run("ip", "netns", "delete", name)
