"""The newest warnings and failures of the log, kept for who looks at the server; and how many.

No log line holds a wallet, token, password or address, so neither does this.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from wsserver import logbook

RECORDS_MAX: Final = 50
"""Records that are kept; the oldest goes first."""
TEXT_CHARS_MAX: Final = 300
"""What is kept of a record's text."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the log. ``at_s``: seconds since 1970."""

    at_s: float
    level: str
    text: str


class RecentRecords(logging.Handler):
    """Takes what the server's modules log, from warnings on, between `attach` and `detach`.

    Records come from any thread; a handler has its lock.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter(warning=0, error=0)
        """How many there were, by level."""
        self._records: deque[Record] = deque(maxlen=RECORDS_MAX)

    @property
    def newest(self) -> list[Record]:
        """Those that are kept, the newest first."""
        return [*reversed(self._records.copy())]

    def attach(self) -> None:
        """Begin."""
        logbook.logger.addHandler(self)

    def detach(self) -> None:
        """End; what was taken stays."""
        logbook.logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take it."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        self.counts[level] += 1
        text = record.getMessage()
        if len(text) > TEXT_CHARS_MAX:
            text = f"{text[: TEXT_CHARS_MAX - 1]}…"
        self._records.append(Record(time.time(), level, text))
