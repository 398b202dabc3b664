"""When to come back after a lost connection, and what to send again: decisions only, pure.

Source: ``docs/protocol.md``, the close codes ("the code is the policy") and rule 3 of the wallet.
Times are seconds of any clock that only goes forward; randomness is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from wsclient.errors import AnswerLost, MessageTooLarge, WalletSyncError
from wsschema.close_codes import CloseCode, may_reconnect
from wsschema.codec import encode_call
from wsschema.errors import (
    Forbidden,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    ParseError,
    RpcError,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
)
from wsschema.messages import (
    METHOD_OF,
    Acknowledge,
    Call,
    ChangePassword,
    Discover,
    GetHistory,
    GetServerInfo,
    GetWallet,
    ListDevices,
    Login,
    Ping,
    Prelogin,
    PushWallet,
    Resume,
)

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 60.0
"""Full jitter ("Exponential Backoff and Jitter", AWS Architecture Blog, 2015): anything from 0 to a
bound that doubles from the first of these to the last."""

STABLE_AFTER_S: Final = 10.0
"""A connection that lived this long counts as a success, and backoff begins anew."""

REPEATABLE: Final[frozenset[type[Call[Any]]]] = frozenset(
    {
        Acknowledge,
        Discover,
        GetHistory,
        GetServerInfo,
        GetWallet,
        ListDevices,
        Login,  # the second token replaces the first, which nobody has
        Ping,
        Prelogin,
        PushWallet,  # to the letter: the server knows it again
        Resume,
    }
)
"""What may be sent a second time when its answer was lost."""


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Connect again after ``after_s`` seconds."""

    after_s: float


@dataclass(frozen=True, slots=True)
class StayAway:
    """Do not connect again; ``reason`` says why."""

    reason: str


class Reconnection:
    """Decides what follows a close, a failed opening and a refused resume."""

    __slots__ = ("_attempt", "_not_before_s", "_random", "_revoked", "_up_since_s")

    def __init__(self, random: Callable[[], float]) -> None:
        """``random`` gives numbers from 0 to 1."""
        self._random = random
        self._attempt = 0
        self._not_before_s = 0.0
        self._up_since_s: float | None = None
        self._revoked: str | None = None

    def note_up(self, now_s: float) -> None:
        """The connection is open, and the session on it resumed if there was one."""
        self._up_since_s = now_s

    def note_revoked(self, reason: str) -> None:
        """The server said why it is about to close with 4401."""
        self._revoked = reason

    def note_retry_after(self, retry_after_ms: int, now_s: float) -> None:
        """The server asked not to be bothered before that time."""
        self._not_before_s = max(self._not_before_s, now_s + retry_after_ms / 1000)

    def after_close(self, code: int | None, now_s: float) -> ComeBack | StayAway:
        """After the server closed with ``code``; None when the connection just went."""
        up_since_s, self._up_since_s = self._up_since_s, None
        if up_since_s is not None and now_s - up_since_s >= STABLE_AFTER_S:
            self._attempt = 0
        if self._revoked is not None:
            return StayAway(self._revoked)
        if code == CloseCode.SESSION_REVOKED:
            return StayAway("revoked")
        if code is not None and not may_reconnect(code):
            return StayAway(f"close_{code}")
        return self._come_back(now_s)

    def after_failed_opening(self, now_s: float) -> ComeBack:
        """After an opening that did not get as far as a session."""
        return self._come_back(now_s)

    def after_refusal(self, error: RpcError, now_s: float) -> ComeBack | StayAway:
        """After the server answered the opening calls of a new connection with an error."""
        match error:
            case TooManyRequests() | ServiceUnavailable():
                self.note_retry_after(error.retry_after_ms, now_s)
            case Unauthorized() | Forbidden():
                return StayAway(error.reason or f"error_{error.code}")
            case ParseError() | InvalidRequest() | MethodNotFound() | InvalidParams():
                return StayAway(f"error_{error.code}")
        return self._come_back(now_s)

    def _come_back(self, now_s: float) -> ComeBack:
        bound_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(self._attempt, 16))
        self._attempt += 1
        return ComeBack(max(0.0, self._not_before_s - now_s) + self._random() * bound_s)


@dataclass(slots=True, eq=False)
class Unanswered:
    """A call that waits for its answer."""

    id: int
    call: Call[Any]
    payload: bytes = field(repr=False)
    sent: bool = False
    """Whether it was sent on the present connection."""
    known_sequence: int = 0
    """The newest sequence that was known when it was last sent."""

    @property
    def method(self) -> str:
        """Its name on the wire."""
        return METHOD_OF[type(self.call)].name


class Outbox:
    """The calls without an answer, in the order in which they were made."""

    __slots__ = ("_next_id", "_unanswered")

    def __init__(self) -> None:
        self._next_id = 1
        self._unanswered: dict[int, Unanswered] = {}

    def __len__(self) -> int:
        return len(self._unanswered)

    def add(self, call: Call[Any]) -> Unanswered:
        """Takes a call in, to be sent when its turn comes."""
        entry = self.number(call)
        self._unanswered[entry.id] = entry
        return entry

    def number(self, call: Call[Any]) -> Unanswered:
        """A call with an id of its own that is not kept: it lives and dies with its connection."""
        call_id, self._next_id = self._next_id, self._next_id + 1
        return Unanswered(call_id, call, encode_call(call_id, call))

    def next_unsent(self) -> Unanswered | None:
        """The first call that this connection has not seen."""
        return next((entry for entry in self._unanswered.values() if not entry.sent), None)

    def remove(self, call_id: object) -> Unanswered | None:
        """Takes a call out, answered or given up; None for an id that is not waiting."""
        return self._unanswered.pop(call_id, None) if type(call_id) is int else None

    def holds_push(self, sequence: int, hmac: str) -> bool:
        """Whether a push of just that state waits for its answer."""
        return any(
            isinstance(entry.call, PushWallet)
            and (entry.call.sequence, entry.call.hmac) == (sequence, hmac)
            for entry in self._unanswered.values()
        )

    def drop_outdated(self) -> list[tuple[Unanswered, WalletSyncError]]:
        """Takes out what rests on states that the server, which was restored, has no more."""
        outdated = [
            entry
            for entry in self._unanswered.values()
            if isinstance(entry.call, Acknowledge | ChangePassword | PushWallet)
        ]
        for entry in outdated:
            del self._unanswered[entry.id]
        return [(entry, AnswerLost(entry.method)) for entry in outdated]

    def lose_connection(self, code: int | None) -> list[tuple[Unanswered, WalletSyncError]]:
        """Readies what may be repeated for the next connection; gives what fails instead, and why.

        After 1009 the largest call that was sent is the one that was too large.
        """
        sent = [entry for entry in self._unanswered.values() if entry.sent]
        failed: list[tuple[Unanswered, WalletSyncError]] = []
        if code == CloseCode.MESSAGE_TOO_BIG and sent:
            largest = max(sent, key=lambda entry: len(entry.payload))
            failed.append((largest, MessageTooLarge(largest.method, len(largest.payload))))
            sent.remove(largest)
        for entry in sent:
            entry.sent = False
            if type(entry.call) not in REPEATABLE:
                failed.append((entry, AnswerLost(entry.method)))
        for entry, _ in failed:
            del self._unanswered[entry.id]
        return failed
