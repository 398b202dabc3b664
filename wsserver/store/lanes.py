"""Lanes: threads with a connection and a queue each, that run what waits as one transaction.

Group commit: while a lane commits, its queue fills; it takes all of that at once, so that one fsync
covers it. Answers are delivered on the event loop in commit order, after the commit.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from wsschema.errors import InternalError, RpcError, Unavailable
from wsserver.operations import Operation

logger = logging.getLogger(__name__)

RETRY_AFTER_MS: Final = 1000
"""When a client may try again what the store could not do."""

Done = Callable[[Any], None]
"""Takes the answer, or the RpcError, on the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """``queue_operations``, ``queue_bytes``: what may wait; more is refused with 503.

    ``batch_operations``, ``batch_bytes``: what one transaction takes. ``wait_s``: what waited longer than
    that is refused with 503, so that a client is not kept in the dark while the database is locked.
    """

    queue_operations: int = 50_000
    queue_bytes: int = 256 * 2**20
    batch_operations: int = 512
    batch_bytes: int = 8 * 2**20
    wait_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An operation in a lane's queue, since when, and who waits for its answer."""

    operation: Operation[Any]
    size_bytes: int
    since_s: float
    done: Done


Run = Callable[[Connection, Sequence[Operation[Any]]], list[Any]]
"""Gives an answer or an RpcError for each operation; whatever else it raises sinks the transaction."""

Deliver = Callable[[list[tuple[Waiting, Any]]], None]
"""Hands the answers of one transaction over to the event loop; called on the lane's thread."""


class Lane:
    """One thread, one connection, one queue. ``submit`` and ``waiting`` are for the event loop's thread."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        run: Run,
        deliver: Deliver,
        *,
        limits: LaneLimits,
        clock: Callable[[], float],
        observe_batch: Callable[[int], None],
    ) -> None:
        self.name = name
        self._engine = engine
        self._run = run
        self._deliver = deliver
        self._limits = limits
        self._clock = clock
        self._observe_batch = observe_batch
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._bytes_lock = threading.Lock()
        self._bytes = 0
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Operations in the queue."""
        return self._queue.qsize()

    def submit(self, operation: Operation[Any], done: Done, *, size_bytes: int = 0) -> None:
        """Queue the operation; raises Unavailable when the queue is full."""
        limits = self._limits
        if self._queue.qsize() >= limits.queue_operations or self._bytes > limits.queue_bytes:
            raise Unavailable(
                "the server has more to do than it can", retry_after_ms=RETRY_AFTER_MS
            )
        if size_bytes:
            with self._bytes_lock:
                self._bytes += size_bytes
        self._queue.put(Waiting(operation, size_bytes, self._clock(), done))

    def close(self) -> None:
        """Finish what waits, then end the thread and its connection. Blocks until it is done."""
        self._queue.put(None)
        self._thread.join()

    # On the lane's thread.

    def _work(self) -> None:
        going_on = True
        while going_on:
            batch, going_on = self._take()
            if batch:
                self._commit(batch)
        self._disconnect()

    def _take(self) -> tuple[list[Waiting], bool]:
        """All that waits, within the limits of a batch; and False once the lane is to end."""
        batch: list[Waiting] = []
        batch_bytes = 0
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            batch_bytes += item.size_bytes
            full = (
                len(batch) >= self._limits.batch_operations
                or batch_bytes >= self._limits.batch_bytes
            )
            if full or self._queue.empty():
                if batch_bytes:
                    with self._bytes_lock:
                        self._bytes -= batch_bytes
                return batch, True
            item = self._queue.get()
        return batch, False

    def _commit(self, batch: list[Waiting]) -> None:
        oldest_s = self._clock() - self._limits.wait_s
        late = [(waiting, _unavailable()) for waiting in batch if waiting.since_s < oldest_s]
        if late:
            self._deliver(late)
            batch = [waiting for waiting in batch if waiting.since_s >= oldest_s]
        if batch:
            self._observe_batch(len(batch))
            self._deliver(list(zip(batch, self._attempt(batch), strict=True)))

    def _attempt(self, batch: list[Waiting]) -> list[Any]:
        operations = [waiting.operation for waiting in batch]
        try:
            return self._transact(operations)
        except DBAPIError as error:
            if _is_database_at_fault(error):
                return self._fail(error, len(batch))
        except Exception:
            # Told below, by the one operation that raises it.
            logger.debug("a batch of %d failed; trying its operations one by one", len(batch))
        # One bad item must not sink its batch: each in a transaction of its own.
        return [self._attempt_one(operation) for operation in operations]

    def _attempt_one(self, operation: Operation[Any]) -> Any:
        try:
            return self._transact([operation])[0]
        except Exception as error:
            if isinstance(error, DBAPIError) and _is_database_at_fault(error):
                return self._fail(error, 1)[0]
            return report_failure(f"{type(operation).__name__} failed", error)

    def _transact(self, operations: list[Operation[Any]]) -> list[Any]:
        if self._connection is None:
            self._connection = self._engine.connect()
        with self._connection.begin():
            return self._run(self._connection, operations)

    def _fail(self, error: DBAPIError, count: int) -> list[RpcError]:
        logger.error("%s: %d operations failed: %s", self.name, count, error.orig)
        self._disconnect()
        return [_unavailable() for _ in range(count)]

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception:
                logger.exception("%s: closing the connection failed", self.name)


def report_failure(what: str, error: Exception) -> InternalError:
    """Log a failure of our own under an id, and give the error that tells the peer this id alone."""
    error_id = secrets.token_hex(8)
    # Not the exception's text: a driver may put parameters (tokens, wallets) into it.
    logger.error(
        "%s (error id %s): %s",
        what,
        error_id,
        type(error).__name__,
        exc_info=_without_values(error),
    )
    return InternalError(error_id=error_id)


def _without_values(error: Exception) -> tuple[type[BaseException], BaseException, Any]:
    """The traceback, with a text that can't hold what a user entrusted to us."""
    return (RuntimeError, RuntimeError(type(error).__name__), error.__traceback__)


def _unavailable() -> Unavailable:
    return Unavailable(retry_after_ms=RETRY_AFTER_MS)


def _is_database_at_fault(error: DBAPIError) -> bool:
    """Locked, full, read-only, gone: whatever is true of all operations and may pass.

    SQLAlchemy's OperationalError and InternalError (PEP 249); an IntegrityError or DataError is one
    operation's.
    """
    return error.connection_invalidated or type(error).__name__ in (
        "OperationalError",
        "InternalError",
        "InterfaceError",
    )
