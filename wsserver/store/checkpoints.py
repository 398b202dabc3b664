"""Copies SQLite's write-ahead log back into its file, beside the lane that writes it.

State: how much was written since the last. Threads: one of its own. A checkpoint in the writing
lane held up every push for 15 to 100 ms. Here the log is copied while the lane goes on; only where
it has grown long, because pushes never cease, the lane waits while the rest is copied, which is
little, so that the log begins anew.

SQLite before 3.51.3 (3.50.7 and 3.44.6 have the repair too) can lose commits where a checkpoint
starts while there is nothing to copy, and a commit begins the log anew under it (the "WAL-reset
bug"). So no other connection checkpoints, and none starts here before something was committed since
the last: until that is copied the log can't begin anew.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from wsserver import logbook
from wsserver.store.lanes import Waiting, describe
from wsserver.store.rows import execute_text

CHECKPOINT_BYTES: Final = 32 * 2**20
"""Written since the last checkpoint, about. What is written over and over is copied once."""
LOG_BYTES_MAX: Final = 128 * 2**20
"""A log this long has to begin anew."""
COMMIT_BYTES: Final = 8192
"""What an operation writes besides its wallet: two pages, about."""
PAGE_BYTES: Final = 4096
"""SQLite's own size of a page."""


class Checkpointer:
    """``engine`` gives connections that do not checkpoint by themselves.

    ``observe_checkpoint`` is called on the thread, with the seconds that one took.
    """

    def __init__(
        self, engine: Engine, *, after_bytes: int, observe_checkpoint: Callable[[float], None]
    ) -> None:
        self._engine = engine
        self._observe_checkpoint = observe_checkpoint
        self._after_bytes = after_bytes
        self._exclusion = threading.Lock()
        """Held during each transaction of the lane, and while the rest is copied."""
        self._uncopied_bytes = 0
        self._changes = 0
        self._due = threading.Event()
        self._ending = False
        self.name = "checkpointer"
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @contextlib.contextmanager
    def begin(self, connection: Connection, batch: Sequence[Waiting]) -> Iterator[None]:
        """The transaction of a batch, on the lane's thread."""
        with self._exclusion:
            with connection.begin():
                yield
            # One that changed no row has written nothing to the log.
            changes: int = connection.connection.driver_connection.total_changes  # type: ignore[union-attr]  # sqlite3's
            if changes != self._changes:
                self._changes = changes
                self._uncopied_bytes += sum(COMMIT_BYTES + waiting.size_bytes for waiting in batch)
                if self._uncopied_bytes >= self._after_bytes:
                    self._due.set()

    def close(self, timeout_s: float) -> bool:
        """End the thread; False when ``timeout_s`` was too short."""
        self._ending = True
        self._due.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._ending:
            try:
                self._checkpoint()
            except DBAPIError as error:
                # The next commit tries again; the lane says what is wrong with the database.
                self._due.clear()
                logbook.LOG_NOT_COPIED.log(failure=describe(error))

    def _checkpoint(self) -> None:
        self._due.wait()
        if self._ending:
            return
        began_s = time.monotonic()
        with self._engine.connect() as connection:
            is_long = _copy(connection)
            with self._exclusion:
                if is_long:
                    _copy(connection)
                self._uncopied_bytes = 0
                self._due.clear()
        self._observe_checkpoint(time.monotonic() - began_s)


def _copy(connection: Connection) -> bool:
    """Copy what can be; whether there is more in a log that is too long already."""
    ((_, pages, copied),) = execute_text(connection, "PRAGMA wal_checkpoint(PASSIVE)")
    return bool(copied < pages and pages * PAGE_BYTES >= LOG_BYTES_MAX)
