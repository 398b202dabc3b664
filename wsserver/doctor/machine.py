"""The machine: its clock, its descriptors, and the disk that a SQLite file is on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wsserver.config import Settings
from wsserver.doctor.findings import Finding, fail, ok, warn
from wsserver.preflight import CONNECTIONS_EXPECTED
from wsserver.server import DESCRIPTORS_RESERVED, find_connections_max

CLOCK_STEP_TOLERANCE_S: Final = 0.5
DISK_FREE_WANTED_BYTES: Final = 2**30
DISK_FREE_LEAST_BYTES: Final = 2**28
"""More than the write-ahead log may take under a load that never ceases (128 MiB), twice."""
INODES_LEAST: Final = 1000
SYNCS: Final = 20
SYNC_SLOW_S: Final = 0.02
SYNC_BYTES: Final = 4096
_TIME_ERROR: Final = 5
"""What adjtimex(2) answers while the kernel's clock is not synchronised."""
_TIMEX_BYTES: Final = 512
"""More than a ``struct timex`` takes anywhere."""

NETWORK_KINDS: Final = frozenset(
    {
        *("9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
        *("glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "vboxsf"),
    }
)
PASSING_KINDS: Final = {
    "tmpfs": "in memory: it is gone when the machine restarts",
    "ramfs": "in memory: it is gone when the machine restarts",
    "overlay": "a container's own layer: it is gone with the container",
}


class Clock:
    """Both clocks as they were when the examination began, to be compared at its end."""

    def __init__(self) -> None:
        self._began = time.time() - time.monotonic()

    def check(self) -> Iterator[Finding]:
        """Whether the clock is kept right, and stood still relative to the monotonic one."""
        stepped_s = time.time() - time.monotonic() - self._began
        advice = (
            "have it set by the network (systemd-timesyncd, chrony): tokens and reset links live "
            "by it, and a clock that goes back puts the times in histories out of order"
        )
        if abs(stepped_s) > CLOCK_STEP_TOLERANCE_S:
            yield warn("clock", f"it stepped by {stepped_s:+.1f} s while it was looked at", advice)
            return
        match _find_synchronised():
            case True:
                yield ok("clock", "set by the network, says the kernel")
            case False:
                yield warn("clock", "nothing sets it by the network, says the kernel", advice)
            case None:
                yield ok("clock", "it runs evenly; whether the network sets it can't be told here")


def _find_synchronised() -> bool | None:
    """Whether the kernel's clock is set by the network; None where it does not tell."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, AttributeError):
        # No mode is set in the zeros: it only reads, which everyone may.
        answer = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
        return None if answer < 0 else answer != _TIME_ERROR
    return None


def check_descriptors(settings: Settings) -> Iterator[Finding]:
    """Whether there are enough for the connections that are expected."""
    room = find_connections_max()
    wanted = settings.connections_max or CONNECTIONS_EXPECTED
    text = f"{room + DESCRIPTORS_RESERVED:,}, room for {room:,} connections"
    if room >= wanted:
        yield ok("descriptors", text)
        return
    advice = "raise the limit: ulimit -Hn, LimitNOFILE= of systemd, ulimits of compose"
    text += f"; {wanted:,} are {'set' if settings.connections_max else 'not many for a server'}"
    yield (fail if settings.connections_max else warn)("descriptors", text, advice)


def check_disk(folder: Path, database_bytes: int) -> Iterator[Finding]:
    """Room, the price of a commit, and the kind of filesystem, where a SQLite file is."""
    yield _check_filesystem(folder)
    yield _check_room(folder, database_bytes)
    try:
        took_s = measure_sync(folder)
    except OSError as error:
        yield fail(
            "fsync",
            f"a file in {folder} can't be written and synced: {error.strerror}",
            "the server's user must own the folder, and the disk must not be full or read-only",
        )
        return
    text = f"{took_s * 1000:.2f} ms, the median of {SYNCS}: what a commit waits for the disk"
    if took_s <= SYNC_SLOW_S:
        yield ok("fsync", text)
    else:
        yield warn(
            "fsync",
            text,
            "every push waits so long at least; a local SSD takes 0.1 to 5 ms",
        )


def measure_sync(folder: Path) -> float:
    """The median of some writes to a file there with their fsync, in seconds."""
    took_s = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            begun_s = time.perf_counter()
            file.write(bytes(SYNC_BYTES))
            file.flush()
            os.fsync(file.fileno())
            took_s.append(time.perf_counter() - begun_s)
    return statistics.median(took_s)


def _check_room(folder: Path, database_bytes: int) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{_show_bytes(free)} free in {folder}; the database takes {_show_bytes(database_bytes)}"
    advice = "make room before a push is answered 503: history_depth and wallet_bytes bound growth"
    inodes = os.statvfs(folder).f_favail if hasattr(os, "statvfs") else INODES_LEAST
    if free < DISK_FREE_LEAST_BYTES or 0 < inodes < INODES_LEAST:
        return fail("disk", text, advice)
    if free < max(DISK_FREE_WANTED_BYTES, 2 * database_bytes):
        return warn("disk", text, f"a backup beside it would not be safe; {advice}")
    return ok("disk", text)


def _check_filesystem(folder: Path) -> Finding:
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return ok("filesystem", "its kind can't be told here; it must be a disk of this machine")
    kind = find_filesystem(folder, mounts)
    if kind in NETWORK_KINDS:
        return fail(
            "filesystem",
            f"{folder} is on {kind}, another machine's: SQLite's write-ahead log is not safe there",
            "keep the database on a disk of this machine, or use PostgreSQL",
        )
    if kind in PASSING_KINDS:
        return warn(
            "filesystem",
            f"{folder} is on {kind}, {PASSING_KINDS[kind]}",
            "keep the database on a disk (in a container: on a volume)",
        )
    return ok("filesystem", f"{kind or 'of unknown kind'}, on this machine")


def find_filesystem(folder: Path, mounts: str) -> str | None:
    """The kind of filesystem that a folder is on, by a text like /proc/self/mountinfo (proc(5))."""
    kinds = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        # A space in a path stands there as \\040.
        path = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        kinds[Path(path)] = after.split()[0]
    resolved = folder.resolve()
    return next((kinds[path] for path in (resolved, *resolved.parents) if path in kinds), None)


def _show_bytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
