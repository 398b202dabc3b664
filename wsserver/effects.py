"""What a session has the shell do, in the order in which it says so. Pure data.

The shell carries out one list of effects to its end before it tells the session anything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wsschema.close_codes import CloseCode
from wsserver.operations import OpenedSession, Operation, Published


@dataclass(frozen=True, slots=True)
class Perform:
    """Perform the operation; ``Session.complete`` takes its answer, or its RpcError, later."""

    ticket: int
    operation: Operation[Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """A call ended with ``outcome``: ``ok``, or the reason or the code of its error.

    ``method`` is empty where the call named none that there is. ``payload`` is to be sent; None for
    a call that wants no answer, or that is answered with its batch.
    """

    method: str
    outcome: str
    payload: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message; ``notification`` is its method, where it is one."""

    payload: bytes = field(repr=False)
    notification: str | None = None


@dataclass(frozen=True, slots=True)
class Notify:
    """Send the update, with its state or without: the same bytes for every listener."""

    update: Published
    with_wallet: bool


@dataclass(frozen=True, slots=True)
class Join:
    """Join the account's listeners."""

    account_id: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Leave the account's listeners."""

    account_id: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The session is live: the authentication clock ends, the others learn of the device."""

    opened: OpenedSession


@dataclass(frozen=True, slots=True)
class RestartClock:
    """The authentication clock starts anew."""


@dataclass(frozen=True, slots=True)
class StopClock:
    """The authentication clock stands still."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection after all that was sent. Nothing but a `Leave` follows."""

    code: CloseCode
    reason: str


Effect = (
    Perform | Answered | Send | Notify | Join | Leave | Opened | RestartClock | StopClock | Close
)
