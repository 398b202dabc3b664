"""What the store's functions share besides a connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """``now_ms``: milliseconds since 1970. ``history_depth``: slots of a wallet's ring of versions.

    ``token_lifetime_ms``: how long a token lives from its last use.
    """

    now_ms: Callable[[], int]
    history_depth: int
    token_lifetime_ms: int
