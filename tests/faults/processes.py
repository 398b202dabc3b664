"""A server process as the kernel sees it: its children, memory, descriptors and limits. Linux."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def find_family(pid: int) -> list[int]:
    """The process and all that it has started."""
    family = [pid]
    for member in family:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            family += map(int, children.read_text().split())
    return family


def measure_memory(pid: int) -> int:
    """The bytes that the process and its children have of their own in memory."""
    return sum(_read_status(member, "RssAnon") for member in find_family(pid))


def measure_address_space(pid: int) -> int:
    """The bytes of addresses that the process has taken."""
    return _read_status(pid, "VmSize")


def count_descriptors(pid: int) -> int:
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


@contextlib.contextmanager
def limited(pid: int, kind: int, limit: int) -> Iterator[None]:
    """The running process may have no more of that resource, until it is left."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (limit, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, kind, before)


def _read_status(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) * 1024 if found else 0
