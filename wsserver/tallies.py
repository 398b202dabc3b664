"""What a listener counts: how its connections end, and whom it lets not in. Plain numbers."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from websockets.protocol import Protocol as Core

from wsschema.close_codes import CloseCode

NO_STATUS: Final = 1005
"""A close frame without a code (RFC 6455, section 7.1.5)."""
ABNORMAL: Final = 1006
"""No close frame at all."""

_CODES: Final = frozenset({*CloseCode, NO_STATUS, ABNORMAL})


class Tallies:
    """One listener's. Everything here belongs to the event loop."""

    __slots__ = ("closes", "refusals", "stalled")

    def __init__(self) -> None:
        self.closes: defaultdict[tuple[str, str], int] = defaultdict(int)
        """WebSockets that are over, by the code of the first close frame and whose it was."""
        self.refusals = {"connections_max": 0, "openings_max": 0}
        """Newcomers that found no room, by the limit that there is on it."""
        self.stalled = 0
        """Connections that were cut off because their peer took nothing."""

    def count_close(self, core: Core | None) -> None:
        """A WebSocket is over; ``core`` knows of the close frames, if there were any."""
        sent = None if core is None else core.close_sent
        received = None if core is None else core.close_rcvd
        if received is not None and (sent is None or core is None or core.close_rcvd_then_sent):
            self.closes[_name_code(received.code), "client"] += 1
        elif sent is not None:
            self.closes[_name_code(sent.code), "server"] += 1
        else:
            self.closes[str(ABNORMAL), "none"] += 1


def _name_code(code: int) -> str:
    # A peer may close with any code: what is not the protocol's must not make a series of its own.
    return str(int(code)) if code in _CODES else "other"
