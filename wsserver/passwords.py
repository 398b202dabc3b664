"""Passwords: scrypt in a small pool of threads, off the event loop, with a bound on what may wait.

The pool's size is a bound on memory: each hash under way takes 128 * N * r bytes (RFC 7914, section
5), 32 MiB with today's parameters. Its threads yield to the event loop's (nice): logins cost pushes
little.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import scrypt

from wsschema.errors import RateLimited
from wsserver.failures import report_failure
from wsserver.operations import (
    SCRYPT_N,
    SCRYPT_P,
    SCRYPT_R,
    CheckPassword,
    HashPassword,
    PasswordHash,
)

DIGEST_BYTES: Final = 32
SALT_BYTES: Final = 16
NICENESS: Final = 10
WAITING_MAX: Final = 128
"""Passwords that may wait to be hashed. A hash takes about a tenth of a second, so that on one core
the last of them is 13 s away: less than the 30 s that a connection has to log in, and that a client
waits for its answer."""

_NOBODY: Final = PasswordHash(bytes(DIGEST_BYTES), bytes(SALT_BYTES), SCRYPT_N, SCRYPT_R, SCRYPT_P)
"""What an unknown account's password is checked against, so that it takes as long."""


class PasswordPool:
    """Hashes and checks passwords. ``submit`` and ``waiting`` belong to the event loop."""

    def __init__(self, *, workers: int, waiting_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.waiting_max = waiting_max
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "password", initializer=_be_nice)
        self._unfinished = 0
        self._hash_s = 0.1

    @property
    def waiting(self) -> int:
        """Operations that no thread has taken up yet."""
        return max(0, self._unfinished - self._workers)

    def submit(
        self,
        operation: HashPassword | CheckPassword,
        done: Callable[[Any], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        """Perform the operation; ``done`` gets the answer on the event loop, never at once.

        When ``waiting_max`` operations wait it gets RateLimited. An operation that is not wanted
        any more when its turn comes (its connection is gone) costs nothing.
        """
        if self.waiting >= self.waiting_max:
            retry_after_ms = int(1000 * self._hash_s * self.waiting_max / self._workers)
            text = f"{self.waiting_max} logins are waiting already; wait before the next"
            self._loop.call_soon(done, RateLimited(text, retry_after_ms=retry_after_ms))
            return
        self._unfinished += 1
        self._pool.submit(self._work, operation, done, is_wanted)

    def close(self) -> None:
        """Drop what waits; what is under way ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(
        self,
        operation: HashPassword | CheckPassword,
        done: Callable[[Any], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        answer: Any = None
        started_s = time.monotonic()
        try:
            if is_wanted():
                answer = (
                    hash_password(operation.password)
                    if isinstance(operation, HashPassword)
                    else check_password(operation.password, operation.stored)
                )
        except Exception as error:
            answer = report_failure("hashing a password failed", error)
        taken_s = time.monotonic() - started_s
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits for an answer.
            self._loop.call_soon_threadsafe(self._finish, done, answer, taken_s)

    def _finish(self, done: Callable[[Any], None], answer: Any, taken_s: float) -> None:
        self._unfinished -= 1
        if answer is not None:
            self._hash_s += (taken_s - self._hash_s) / 8
            done(answer)


def hash_password(password: str) -> PasswordHash:
    """The password under a fresh salt and today's parameters."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = _scrypt(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    return PasswordHash(digest, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)


def check_password(password: str, stored: PasswordHash | None) -> bool:
    """Whether the password is the stored one, compared in constant time; None is never matched."""
    against = _NOBODY if stored is None else stored
    digest = _scrypt(password, against.salt, against.n, against.r, against.p)
    return hmac.compare_digest(digest, against.digest) and stored is not None


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    digest: bytes = scrypt.hash(password.encode(), salt, N=n, r=r, p=p, buflen=DIGEST_BYTES)
    return digest


def _be_nice() -> None:
    if sys.platform == "linux":
        # Linux alone keeps a niceness for each thread.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
