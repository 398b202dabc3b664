"""Times on the wire: RFC 3339 in UTC, with ``Z``; inside, milliseconds since the Unix epoch."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def time_from_ms(time_ms: int) -> datetime:
    """The aware time in UTC, exact to the millisecond."""
    return _EPOCH + timedelta(milliseconds=time_ms)


def ms_from_time(time: datetime) -> int:
    """Milliseconds since the Unix epoch, a fraction of one cut off."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def format_time(time: datetime) -> str:
    """RFC 3339 with milliseconds and ``Z``: ``2026-01-02T03:04:05.678Z``."""
    # In UTC first: times of one zone are equal however often its clocks went back, and share a key.
    return _format_utc(time.astimezone(UTC))


@functools.lru_cache(maxsize=256)
def _format_utc(time: datetime) -> str:
    """Kept for a while: every push of a transaction has the same time, and each tells it often."""
    return time.isoformat("T", "milliseconds")[:-6] + "Z"


def parse_time(text: str) -> datetime:
    """The aware time in UTC that an RFC 3339 text names; ValueError when it names none."""
    try:
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (OverflowError, ValueError):
        pass  # no such day, or its like; or in UTC outside the years 1 to 9999
    raise ValueError(f"not an RFC 3339 time: {text[:40]!r}")
