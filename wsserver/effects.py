"""What a session has the shell do, in the order in which it says so. Pure data.

The shell carries out one list of effects to its end before it tells the session anything else.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from wsschema.close_codes import CloseCode
from wsschema.frozen import frozen
from wsserver.operations import OpenedSession, Operation, Published


@frozen
class Perform:
    """Perform the operation; ``Session.complete`` takes its answer, or its RpcError, later."""

    ticket: int
    operation: Operation[Any]


@frozen
class Answered:
    """A call ended with ``outcome``: ``ok``, or the reason or the code of its error.

    ``method`` is empty where the call named none that there is. ``payload`` is to be sent; None for
    a call that wants no answer, or that is answered with its batch.
    """

    method: str
    outcome: str
    payload: bytes | None = field(repr=False)


@frozen
class Send:
    """Send this message; ``notification`` is its method, where it is one."""

    payload: bytes = field(repr=False)
    notification: str | None = None


@frozen
class Notify:
    """Send the update, with its state or without: the same bytes for every listener."""

    update: Published
    with_wallet: bool


@frozen
class Superseded:
    """A notification of that method, which waited for a slow reader, gave way to a newer one."""

    notification: str


@frozen
class Join:
    """Join the account's listeners."""

    account_id: int


@frozen
class Leave:
    """Leave the account's listeners."""

    account_id: int


@frozen
class Opened:
    """The session is live: the authentication clock ends, the others learn of the device."""

    opened: OpenedSession


@frozen
class RestartClock:
    """The authentication clock starts anew."""


@frozen
class StopClock:
    """The authentication clock stands still."""


@frozen
class Close:
    """Close the connection after all that was sent. Nothing but a `Leave` follows."""

    code: CloseCode
    reason: str


Effect = (
    Perform
    | Answered
    | Send
    | Notify
    | Superseded
    | Join
    | Leave
    | Opened
    | RestartClock
    | StopClock
    | Close
)
