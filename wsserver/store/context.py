"""What the functions of a store share besides its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from wsschema.messages import WalletState
from wsschema.times import ms_from_time
from wsserver.operations import Operation

REGISTRATION_LIFETIME_MS: Final = 2 * 86_400_000
"""How long the link of a verification mail works."""
RESET_LIFETIME_MS: Final = 3_600_000
"""How long the link of a reset mail works."""

Done = Callable[[Any], None]
"""Takes the answer of an operation, or its RpcError, on the event loop."""

Answer = Callable[[Operation[Any], Any, Done], None]
"""Called on the event loop for each operation, in commit order, with its answer or RpcError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """``now_ms``: milliseconds since 1970. ``history_depth``: slots of a wallet's ring of versions.

    ``token_lifetime_ms``: how long a token lives from its last use.
    """

    now_ms: Callable[[], int]
    history_depth: int
    token_lifetime_ms: int


@dataclass(frozen=True, slots=True)
class Installation:
    """What all processes on a database share."""

    decoy_key: bytes = field(repr=False)
    history_depth: int


def find_creation_ms(device_id: str, head: WalletState | None, now_ms: int) -> int:
    """Now, or a millisecond later: after all that a device of that name pushed before it."""
    if head is None or head.device_id != device_id or ms_from_time(head.updated_at) != now_ms:
        return now_ms
    return now_ms + 1
