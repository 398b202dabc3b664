"""One serving process a SQLite file: a lock beside it, which ends with its process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from wsserver.store.errors import StoreError

# Windows has no such module: there, nothing keeps a second server off.
fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None


class ServingGuard:
    """The lock on ``<database>.lock``, held until `release`; a no-op where there is no flock.

    A second server would tell half of the devices only, and might have a ring of another depth.
    Commands of the operator don't take it. Raises StoreError when another process holds it.
    """

    def __init__(self, database: str | Path) -> None:
        # Resolved, so that two names of one file are one lock.
        path = f"{Path(database).resolve()}.lock"
        self._descriptor = -1
        if fcntl is None:
            return
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"the lock file {path} can't be opened: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreError(
                f"another server serves the database {database} (process {holder}); stop that one "
                "first, or give this one a database of its own"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                f"the file {path} can't be locked: {error.strerror}; the database must be on a "
                "disk of this machine"
            ) from None
        self._descriptor = descriptor
        # The number is a courtesy: a full disk must not keep the server from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let go. The file stays: a server that has just opened it would lock a removed one."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
