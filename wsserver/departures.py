"""One line of the log for each connection, when it is over; in a storm, for some of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from wsserver import logbook
from wsserver.channel import Channel
from wsserver.connection import Connection

LINES_PER_S: Final = 20
LINES_AT_ONCE: Final = 200
"""How many after a rest: a restart of everybody's network is thousands, and none of them news."""
LEFT_OUT_INTERVAL_S: Final = 10.0
"""How often the log tells how many there were beyond that."""


@dataclass(frozen=True, slots=True)
class GoneSocket:
    """A WebSocket of the gateway that is over."""

    peer: str
    account_id: int
    device_id: str
    duration_s: float
    close_code: int
    close_reason: str


class Departures:
    """Writes the lines. Called on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._full_at_s = 0.0
        """When there may be as many lines at once again as after a rest."""
        self._left_out = 0

    def note(self, connection: Connection, channel: Channel) -> None:
        """The connection is over."""
        if not self._may_tell():
            return
        code, reason = connection.find_close()
        logbook.CONNECTION_ENDED.log(
            peer=connection.remote_address,
            account_id=channel.account_id,
            device_id=channel.device_id if channel.account_id else None,
            duration_s=round(connection.find_age_s(), 3),
            messages=connection.messages,
            bytes_received=connection.bytes_received,
            bytes_sent=connection.bytes_sent,
            close_code=code,
            close_reason=reason,
        )

    def note_gateway(self, gone: GoneSocket) -> None:
        """The WebSocket of the gateway is over."""
        if self._may_tell():
            logbook.GATEWAY_SOCKET_ENDED.log(
                peer=gone.peer,
                account_id=gone.account_id,
                device_id=gone.device_id,
                duration_s=round(gone.duration_s, 3),
                close_code=gone.close_code,
                close_reason=gone.close_reason,
            )

    def _may_tell(self) -> bool:
        if not logbook.logger.isEnabledFor(logbook.CONNECTION_ENDED.level):
            return False
        now_s = self._loop.time()
        full_at_s = max(self._full_at_s, now_s) + 1 / LINES_PER_S
        if full_at_s - now_s > LINES_AT_ONCE / LINES_PER_S:
            if not self._left_out:
                self._loop.call_later(LEFT_OUT_INTERVAL_S, self._tell_left_out)
            self._left_out += 1
            return False
        self._full_at_s = full_at_s
        return True

    def _tell_left_out(self) -> None:
        count, self._left_out = self._left_out, 0
        logbook.CONNECTIONS_LEFT_OUT.log(count=count)
