"""Lanes: threads with a connection and a queue each, that run what waits as one transaction.

Group commit: while a lane commits, its queue fills; it takes all of that at once, so that one fsync
covers it. Answers are handed over in commit order, after the commit.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
)

from wsschema.errors import RpcError, Unavailable
from wsschema.frozen import frozen
from wsserver import logbook
from wsserver.failures import make_error_id, report_failure
from wsserver.operations import Operation
from wsserver.store.context import Done

RETRY_AFTER_MS: Final = 1000
"""When a client may try again what the store could not do."""
_PAUSES_S: Final = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Before a transaction is tried again: at once after a deadlock, which another one has survived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """``queue_operations``, ``queue_bytes``: what may wait in a lane; more is refused with 503.

    ``batch_operations``, ``batch_bytes``: what one transaction takes. ``wait_s``: what waited
    longer is refused with 503, lest a client be kept in the dark while the database is locked.
    """

    queue_operations: int = 50_000
    queue_bytes: int = 256 * 2**20
    batch_operations: int = 512
    batch_bytes: int = 8 * 2**20
    wait_s: float = 10.0


@frozen
class Waiting:
    """An operation in a lane's queue, since when, and who waits for its answer."""

    operation: Operation[Any]
    size_bytes: int
    since_s: float
    done: Done


Run = Callable[[Connection, Sequence[Operation[Any]]], list[Any]]
"""Gives an answer or an RpcError for each operation; what else it raises sinks the transaction."""

Doubt = Callable[[Sequence[Operation[Any]]], None]
"""Told of operations of which nobody knows whether they were committed, on the lane's thread."""

Begin = Callable[[Connection, Sequence[Waiting]], AbstractContextManager[Any]]
"""Begins the transaction of a batch; leaving it commits, or rolls back what has failed."""

Answers = list[tuple[Waiting, Any]]
"""Those of one transaction, in the order in which it was done."""

Deliver = Callable[[Answers], None]
"""Hands the answers of one transaction over to the event loop; called on the lane's thread."""


class InDoubt(Exception):
    """The connection was lost while a transaction was being committed: it may have been, or not."""


class Lane:
    """One thread, one connection, one queue. ``submit`` and ``waiting`` are for the event loop.

    ``begin`` gives the transaction that a batch is done in. ``observe_batch`` is called on the
    lane's thread, after a batch was answered, with its size and the seconds until its commit;
    ``count_fault`` when the database failed one. ``tries_again``: a database at fault is tried for
    as long as the operations may wait, for it is another machine's and may come back; and a
    connection that is lost in a commit leaves it in ``doubt``.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        run: Run,
        deliver: Deliver,
        *,
        limits: LaneLimits,
        clock: Callable[[], float],
        observe_batch: Callable[[int, float], None],
        count_fault: Callable[[], None],
        begin: Begin = lambda connection, batch: connection.begin(),
        tries_again: bool = False,
        doubt: Doubt = lambda operations: None,
    ) -> None:
        self.name = name
        self._engine = engine
        self._run = run
        self._deliver = deliver
        self._limits = limits
        self._clock = clock
        self._observe_batch = observe_batch
        self._count_fault = count_fault
        self._begin = begin
        self._tries_again = tries_again
        self._doubt = doubt
        self._ending = threading.Event()
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        # Each has one writer: the event loop, and the lane's thread.
        self._submitted_bytes = 0
        self._taken_bytes = 0
        self._connection: Connection | None = None
        self._fault: str | None = None
        self._fault_id = ""
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
        waiting_bytes = self._submitted_bytes - self._taken_bytes
        if self._queue.qsize() >= limits.queue_operations or waiting_bytes >= limits.queue_bytes:
            raise Unavailable(
                "the server has more to do than it can", retry_after_ms=RETRY_AFTER_MS
            )
        self.submit_anyway(operation, done, size_bytes=size_bytes)

    def submit_anyway(self, operation: Operation[Any], done: Done, *, size_bytes: int = 0) -> None:
        """Queue it, however full the queue is."""
        self._submitted_bytes += size_bytes
        self._queue.put(Waiting(operation, size_bytes, self._clock(), done))

    def close(self, timeout_s: float) -> bool:
        """Finish what waits, then end the thread and its connection. Blocks until it is done.

        Gives False when ``timeout_s`` was too short: then the thread ends with the process. The
        caller submits nothing from here on: it would never be answered.
        """
        self._ending.set()
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # On the lane's thread.

    def _work(self) -> None:
        going_on = True
        while going_on:
            batch: list[Waiting] = []
            try:
                going_on = self._take(batch)
                self._commit(batch)
            except Exception as error:
                # Without its thread the lane would keep everyone waiting for ever.
                logbook.LANE_FAILED.log(lane=self.name, count=len(batch), error=error)
        self._disconnect()

    def _take(self, batch: list[Waiting]) -> bool:
        """Adds all that waits, within the limits of a batch; False once the lane is to end."""
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
                break
            item = self._queue.get()
        self._taken_bytes += batch_bytes
        return item is not None

    def _commit(self, batch: list[Waiting]) -> None:
        oldest_s = self._clock() - self._limits.wait_s
        late = [(waiting, _unavailable()) for waiting in batch if waiting.since_s < oldest_s]
        if late:
            self._deliver(late)
            batch = [waiting for waiting in batch if waiting.since_s >= oldest_s]
        if batch:
            began_s = self._clock()
            answers = self._attempt(batch)
            taken_s = self._clock() - began_s
            self._deliver(list(zip(batch, answers, strict=True)))
            self._observe_batch(len(batch), taken_s)

    def _attempt(self, batch: list[Waiting]) -> list[Any]:
        """An answer for each: from one transaction, or from smaller ones where an operation fails.

        One bad item must not sink its batch: the batch is halved until the bad one stands alone.
        """
        answers: list[Any] = []
        parts = [batch]
        pauses_s = iter(_PAUSES_S)
        while parts:
            part = parts.pop()
            try:
                answers += self._transact(part)
            except Exception as error:
                if _is_database_at_fault(error):
                    if self._may_try_again(error, part, next(pauses_s, _PAUSES_S[-1])):
                        parts.append(part)
                        continue
                    # The rest is not tried: each part might wait for the same lock.
                    left = len(batch) - len(answers)
                    error_id = self._report_fault(error, left)
                    answers += [_unavailable(error_id) for _ in range(left)]
                    return answers
                if len(part) == 1:
                    answers.append(_report(part[0].operation, error))
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
        self._report_recovery()
        return answers

    def _may_try_again(self, error: Exception, batch: list[Waiting], pause_s: float) -> bool:
        """Whether the batch surely did nothing, and has the time; after a pause, if so."""
        if not self._tries_again or isinstance(error, InDoubt):
            return False
        ends_at_s = min(waiting.since_s for waiting in batch) + self._limits.wait_s
        if self._clock() + pause_s >= ends_at_s or self._ending.is_set():
            return False
        if pause_s:
            self._report_fault(error, len(batch), "trying again, then answering 503,")
        self._ending.wait(pause_s)
        return True

    def _transact(self, batch: list[Waiting]) -> list[Any]:
        operations = [waiting.operation for waiting in batch]
        answers: list[Any] | None = None
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            with self._begin(self._connection, batch):
                answers = self._run(self._connection, operations)
        except BaseException as error:
            # Whatever state it is in: a new one is cheap, and rolls back what this one left.
            self._disconnect()
            if answers is not None and self._tries_again and not _is_refusal(error):
                self._doubt(operations)
                raise InDoubt(describe(error)) from error
            raise
        return answers

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:
                logbook.LANE_NOT_CLOSED.log(lane=self.name, failure=describe(error))

    def _report_fault(self, error: Exception, count: int, what: str = "answering 503") -> str:
        """One line when the database begins to fail, not one for each batch until it recovers.

        Gives the id of that line.
        """
        self._count_fault()
        fault = describe(error)
        if fault != self._fault:
            self._fault, self._fault_id = fault, make_error_id()
            logbook.DATABASE_FAILED.log(
                lane=self.name, count=count, failure=fault, what=what, error_id=self._fault_id
            )
        return self._fault_id

    def _report_recovery(self) -> None:
        if self._fault is not None:
            self._fault = None
            logbook.DATABASE_RECOVERED.log(lane=self.name)


def _report(operation: Operation[Any], error: Exception) -> RpcError:
    return report_failure(f"{type(operation).__name__} failed: {describe(error)}", error)


def describe(error: BaseException) -> str:
    """What an operator may know: classes, the driver's code, and such text as holds no values."""
    if isinstance(error, InDoubt):
        return f"a commit is in doubt: {error}"
    if not isinstance(error, DBAPIError):
        return type(error).__name__
    # After some failures SQLite ends the transaction by itself, and the savepoint's end fails too:
    # it is the first failure that tells something.
    first, earlier = error, error.__context__
    while earlier is not None:
        if isinstance(earlier, DBAPIError):
            first = earlier
        earlier = earlier.__context__
    code = getattr(first.orig, "sqlite_errorname", None) or _find_state(first)
    known = f"{type(first).__name__} ({code})" if code else type(first).__name__
    # The text of the others may quote the row that was refused.
    return f"{known}: {_first_line(first.orig)}" if _is_database_at_fault(first) else known


def _first_line(error: object) -> str:
    """The text without the lines in which PostgreSQL goes into details."""
    return str(error).strip().partition("\n")[0]


def _find_state(error: DBAPIError) -> str | None:
    """The SQLSTATE that PostgreSQL gave, if it gave any."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _is_refusal(error: BaseException) -> bool:
    """Whether the database said that it did not commit: a constraint, or another transaction."""
    state = _find_state(error) if isinstance(error, DBAPIError) else None
    return state is not None and state.startswith(("23", "40"))


def _unavailable(error_id: str = "") -> Unavailable:
    return Unavailable(retry_after_ms=RETRY_AFTER_MS, error_id=error_id)


def _is_database_at_fault(error: Exception) -> bool:
    """Locked, full, read-only, damaged, gone: whatever is true of all operations and may pass.

    Memory that is short is no operation's fault either (SQLITE_NOMEM is MemoryError in Python).
    By SQLAlchemy's classes (PEP 249): what is not one operation's fault by name is the database's.
    """
    if isinstance(error, MemoryError | InDoubt):
        return True
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated
        or not isinstance(error, IntegrityError | DataError | ProgrammingError | NotSupportedError)
    )
