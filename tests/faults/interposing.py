"""A disk and a clock with faults to order: a library between the server and its C library."""

from __future__ import annotations

import atexit
import contextlib
import functools
import mmap
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.serving import ServerProcess

SOURCE = Path(__file__).with_name("interposed.c")
NAMES = (
    "write_errno",
    "sync_errno",
    "open_errno",
    "sync_delay_ms",
    "clock_offset_s",
    "failed",
    "synced",
)
"""The numbers in their order: what is to happen, and how often it did."""


class Interposed:
    """What stands between a server process and its disk and clock; orders take effect at once."""

    def __init__(self, server: ServerProcess) -> None:
        path = server.folder / "faults"
        path.write_bytes(bytes(8 * len(NAMES)))
        with path.open("r+b") as file:
            self._numbers = mmap.mmap(file.fileno(), 0)
        server.environment |= {
            "LD_PRELOAD": str(build_library()),
            "FAULTS_CONTROL": str(path),
        }

    @property
    def failed(self) -> int:
        """Calls that have failed to order."""
        return self._get("failed")

    @property
    def synced(self) -> int:
        """Calls that were delayed to order."""
        return self._get("synced")

    @contextlib.contextmanager
    def ordered(self, **numbers: int) -> Iterator[None]:
        """The faults are there until it is left."""
        try:
            for name, number in numbers.items():
                self._set(name, number)
            yield
        finally:
            for name in numbers:
                self._set(name, 0)

    def _get(self, name: str) -> int:
        number: int = struct.unpack_from("q", self._numbers, 8 * NAMES.index(name))[0]
        return number

    def _set(self, name: str, number: int) -> None:
        struct.pack_into("q", self._numbers, 8 * NAMES.index(name), number)


@functools.cache
def build_library() -> Path:
    """The library, compiled once a run; skips the test where it can't be."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("faults are interposed with LD_PRELOAD: that takes Linux and gcc")
    folder = Path(tempfile.mkdtemp(prefix="wallet-sync-faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / "interposed.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"],
        check=True,
        timeout=60,
    )
    return library
