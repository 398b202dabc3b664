"""What the server counts: plain numbers, which cost the way of a push next to nothing.

Prometheus' own counters take a lock at each step, and a push counts four times. Each number here
has one thread that writes it: the event loop, a lane for its batches, the checkpointer for its
checkpoints. `wsserver.figures` says what they are called outside.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, Protocol

PUSH_BUCKETS_S: Final = (
    *(0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1, 2, 5, 10),
)
BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 512)
BATCH_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1, 2, 5),
)
LAG_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
CHECKPOINT_BUCKETS_S: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class Level:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """One more."""
        self.value += 1

    def dec(self) -> None:
        """One less."""
        self.value -= 1


class Distribution:
    """How many values lie where: at most the first of the bounds, the second, or beyond the last.

    Read on another thread than its writer's, the sum may be ahead of the counts.
    """

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float) -> None:
        """Count the value in."""
        self.total += value
        self._counts[bisect_left(self.bounds, value)] += 1

    @property
    def counts(self) -> list[int]:
        """How many lie in each part, one more than there are bounds: a copy."""
        return self._counts.copy()


class BusFigures(Protocol):
    """What a node's bus tells of itself: see `wsserver.bus.node`."""

    messages: dict[str, int]
    gaps: int
    resyncs: int

    @property
    def connected(self) -> bool:
        """Whether it carries messages."""
        ...

    @property
    def nodes(self) -> int:
        """How many other nodes are heard."""
        ...


class Metrics:
    """All that one server counts."""

    def __init__(self) -> None:
        self.sessions = Level()
        self.bus: BusFigures | None = None
        """The bus, where there is one."""
        self.push_seconds = Distribution(PUSH_BUCKETS_S)
        self.loop_lag_seconds = Distribution(LAG_BUCKETS_S)
        self.checkpoint_seconds = Distribution(CHECKPOINT_BUCKETS_S)
        self.calls: defaultdict[tuple[str, str], int] = defaultdict(int)
        """By method and outcome."""
        self.notifications: defaultdict[str, int] = defaultdict(int)
        """Those that were sent, by method."""
        self.superseded = {"wallet.updated": 0, "device.updated": 0}
        """Those that gave way to a newer one, by method."""
        self.letters: defaultdict[str, int] = defaultdict(int)
        """By outcome."""
        self.batch_operations: dict[str, Distribution] = {}
        self.batch_seconds: dict[str, Distribution] = {}
        self.database_errors: defaultdict[str, int] = defaultdict(int)
        """Batches that the database failed, by lane."""

    def count_call(self, method: str, outcome: str) -> None:
        """A call was answered; a method that there is not has no name."""
        self.calls[method or "unknown", outcome] += 1

    def count_notification(self, method: str) -> None:
        """A notification was sent."""
        self.notifications[method] += 1

    def count_letter(self, outcome: str) -> None:
        """A mail was delivered, or not."""
        self.letters[outcome] += 1

    def observe_batch(self, lane: str, operations: int, seconds: float) -> None:
        """A lane did that many operations in one transaction. Called on the lane's thread."""
        if lane not in self.batch_operations:
            self.batch_seconds[lane] = Distribution(BATCH_BUCKETS_S)
            self.batch_operations[lane] = Distribution(BATCH_BUCKETS)
        self.batch_operations[lane].observe(operations)
        self.batch_seconds[lane].observe(seconds)

    def count_database_error(self, lane: str) -> None:
        """The database failed a batch. Called on the lane's thread."""
        self.database_errors[lane] += 1
