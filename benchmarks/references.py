"""What figures are compared with: the disk, bare SQLite, bare scrypt."""

from __future__ import annotations

import os
import secrets
import sqlite3
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import scrypt

from wsserver.operations import SCRYPT_N, SCRYPT_P, SCRYPT_R
from wsserver.passwords import DIGEST_BYTES, SALT_BYTES

PAGE_BYTES = 4096
PAGES = 256


def measure_fdatasync_ms(folder: Path, *, count: int) -> float:
    """The median time to write a page into a file of a settled size, and to have it on the disk."""
    path = folder / "fdatasync"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(descriptor, bytes(PAGES * PAGE_BYTES), 0)
        os.fsync(descriptor)
        times_ms = []
        for number in range(count):
            os.pwrite(descriptor, secrets.token_bytes(PAGE_BYTES), number % PAGES * PAGE_BYTES)
            started_s = time.perf_counter()
            os.fdatasync(descriptor)
            times_ms.append(1000 * (time.perf_counter() - started_s))
        return statistics.median(times_ms)
    finally:
        os.close(descriptor)
        path.unlink()


def measure_group_commit(
    folder: Path, *, batch: int, value_bytes: int, seconds: float
) -> tuple[float, float]:
    """Rows a second that bare SQLite makes durable (WAL, FULL), so many a commit; and its p50, ms.

    200 rows are replaced over and over.
    """
    connection = sqlite3.connect(folder / "commits.db", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS states (id INTEGER PRIMARY KEY, state BLOB)")
        value = os.urandom(value_bytes)
        count, times_ms = 0, []
        started_s = time.perf_counter()
        while (began_s := time.perf_counter()) < started_s + seconds:
            rows = [((count + number) % 200, value) for number in range(batch)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("REPLACE INTO states VALUES (?, ?)", rows)
            connection.execute("COMMIT")
            times_ms.append(1000 * (time.perf_counter() - began_s))
            count += batch
        return count / (time.perf_counter() - started_s), statistics.median(times_ms)
    finally:
        connection.close()


def measure_scrypt_per_s(*, seconds: float) -> float:
    """Passwords a second that all cores hash, with the server's parameters and nothing beside."""
    workers = os.cpu_count() or 1
    ends_s = time.perf_counter() + seconds

    def hash_passwords() -> float:
        count, started_s = 0, time.perf_counter()
        while time.perf_counter() < ends_s:
            salt = secrets.token_bytes(SALT_BYTES)
            scrypt.hash(b"password", salt, N=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, buflen=DIGEST_BYTES)
            count += 1
        return count / (time.perf_counter() - started_s)

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(lambda _: hash_passwords(), range(workers)))
