"""What one connection may do: from a message to its answer, as pure state. No I/O, no clock.

The shell feeds a `Session` with what happened (`receive`, `complete`, `wallet_updated`, ...) and
carries out the `wsserver.effects` that it gets back, in their order. A call is a flow of
`wsserver.methods`. One connection belongs to one account for its life:

    anonymous -> opening (a login or a resume is under way) -> live -> closed

An opening that fails leads back to anonymous. A live session whose token is gone hears no news and
begins no calls; it is closed once the calls are answered that may have ended the token.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from wsschema.close_codes import CloseCode
from wsschema.codec import (
    ABSENT,
    Absent,
    Batch,
    Id,
    Malformed,
    Request,
    encode_batch,
    encode_error,
    encode_notification,
    encode_result,
    parse_message,
)
from wsschema.errors import (
    AlreadyAuthenticated,
    BadToken,
    Conflict,
    NotAuthenticated,
    RateLimited,
    RpcError,
    Unavailable,
)
from wsschema.messages import (
    NOTIFICATION_NAMES,
    Call,
    Device,
    Login,
    Method,
    Receipt,
    Resume,
    ServerClosing,
    SessionRevoked,
    WalletState,
)
from wsserver.effects import (
    Answered,
    Close,
    Effect,
    Join,
    Leave,
    Notify,
    Opened,
    Perform,
    RestartClock,
    Send,
    StopClock,
    Superseded,
)
from wsserver.methods import ANSWERS, FLOWS, ServerFacts
from wsserver.operations import DeviceRecord, Flow, OpenedSession, Published, TokenOwner

__all__ = ["ServerFacts", "Session"]

_OPENING: Final = frozenset({"session.login", "session.resume"})
_ENDING: Final = frozenset(
    {"session.logout", "account.delete", "account.changePassword", "device.revoke"}
)
"""Calls that are answered before the revocation that they may bring about."""
_GIVING: Final = frozenset({"wallet.get", "wallet.push"})
"""Calls whose answers say where the wallet stands: no notification overtakes one that is made."""
_GIVEN: Final = (WalletState, Receipt)


class _Phase(enum.Enum):
    ANONYMOUS = enum.auto()
    OPENING = enum.auto()
    LIVE = enum.auto()
    CLOSED = enum.auto()


class _BatchAnswer:
    """The answers of a batch so far, and its calls that have ended."""

    __slots__ = ("answers", "ended", "giving", "missing")

    def __init__(self, calls: int) -> None:
        self.missing = calls
        self.answers: list[bytes] = []
        self.ended: list[_Running] = []
        self.giving = False


class _Running:
    """A call under way."""

    __slots__ = ("batch", "flow", "id", "method", "succeeded")

    def __init__(self, call_id: Id | Absent, batch: _BatchAnswer | None) -> None:
        self.id = call_id
        self.method = ""
        self.batch = batch
        self.flow: Flow[Any] | None = None
        self.succeeded = False


class Session:
    """One connection's state. Every event returns the effects to carry out, in their order."""

    # Thousands of idle sessions are the usual case: what is empty is None.
    __slots__ = (
        "_deliver_state",
        "_device_slots",
        "_draining_ms",
        "_effects",
        "_endings",
        "_full_at_s",
        "_held",
        "_opened",
        "_pending",
        "_phase",
        "_refusals",
        "_revoked",
        "_ticket",
        "_told",
        "_wallet_slot",
        "account_id",
        "address",
        "connection_id",
        "device",
        "device_id",
        "facts",
        "newest",
        "presence",
        "token_hash",
    )

    def __init__(self, facts: ServerFacts, connection_id: int, address: str) -> None:
        self.facts = facts
        self.connection_id = connection_id
        self.address = address
        self._full_at_s = 0.0
        """When the gate's bucket of this connection's messages is full again."""
        self._refusals = 0
        """Calls in a row that were answered with 429."""
        self._phase = _Phase.ANONYMOUS
        self._effects: list[Effect] | None = None
        self._draining_ms: int | None = None

        # Whose the connection is: from the join on.
        self.account_id = 0
        self.device_id = ""
        self.token_hash: bytes | None = None
        self.device: DeviceRecord | None = None
        self._opened: OpenedSession | None = None
        self._revoked: str | None = None

        # Calls under way: those that wait, by ticket, and how many of them may end the session.
        self._pending: dict[int, _Running] | None = None
        self._ticket = 0
        self._endings = 0

        # What the peer knows, what it asked to hear of, and what waits to be told.
        self.newest = 0
        """The newest sequence that the peer was told of or given."""
        self._told = 0
        """The newest sequence that it was told of."""
        self._deliver_state = False
        self.presence = False
        """Whether it hears of the account's other devices."""
        self._held = 0
        """Batches in which a giving call has ended, and which are not answered yet."""
        self._wallet_slot: Published | None = None
        self._device_slots: dict[str, Device] | None = None

    @property
    def in_flight(self) -> int:
        """Calls that wait for something."""
        return 0 if self._pending is None else len(self._pending)

    @property
    def idle_since_s(self) -> float:
        """About when the last message came, on the gate's clock.

        Too late by what the bucket of messages takes to fill: 4 s at most, with the usual rate.
        """
        return self._full_at_s

    @property
    def known_sequence(self) -> int:
        """The newest sequence that the peer was told of, or is about to be."""
        slot = self._wallet_slot
        return self._told if slot is None else max(self._told, slot.state.sequence)

    @property
    def live(self) -> bool:
        """Whether login or resume has been answered, and the session is not over."""
        return self._phase is _Phase.LIVE

    # What happens.

    def receive(self, payload: bytes | bytearray) -> list[Effect]:
        """A text message came."""
        if self._phase is _Phase.CLOSED:
            return []
        message = parse_message(payload, batch_max=self.facts.limits.batch)
        if isinstance(message, Batch):
            batch = _BatchAnswer(len(message.items))
            for item in message.items:
                if not self._is_closed():  # the gate may have closed it
                    self._start(item, batch)
        else:
            self._start(message, None)
        return self._take_effects()

    def complete(self, ticket: int, answer: Any) -> list[Effect]:
        """An operation was performed; its answer may be an RpcError."""
        running = None if self._pending is None else self._pending.pop(ticket, None)
        if running is not None:
            if not self._pending:
                self._pending = None
            self._advance(running, answer)
        return self._take_effects()

    def wallet_updated(self, update: Published, *, congested: bool) -> list[Effect]:
        """Another connection pushed.

        ``congested``: the peer reads too slowly to be sent it now; `writable` must follow.
        """
        if self._is_deaf():
            return []
        if self._may_notify() and not congested:
            self._notify(update, with_wallet=self._deliver_state)
        elif self._wallet_slot is None:
            self._wallet_slot = update
        elif update.state.sequence > self._wallet_slot.state.sequence:
            self._wallet_slot = update
            self._emit(Superseded("wallet.updated"))
        return self._take_effects()

    def device_updated(self, device: Device, *, congested: bool) -> list[Effect]:
        """Another device came, went or acknowledged; told to those alone who asked for it."""
        if self._is_deaf():
            return []
        # What waits already goes first, or it would come after what is newer.
        if self._may_notify() and not congested and self._device_slots is None:
            self._tell(device)
        else:
            slots = self._device_slots or {}
            if device.device_id in slots:
                self._emit(Superseded("device.updated"))
            self._device_slots = {**slots, device.device_id: device}
        return self._take_effects()

    def writable(self) -> list[Effect]:
        """The peer has read what it was sent: what waits goes out, without the wallet."""
        self._flush_slots(with_wallet=False)
        return self._take_effects()

    def revoked(self, reason: str) -> list[Effect]:
        """The session's token is gone. What was called to bring that about is answered first."""
        if not self._is_deaf():
            self._revoked = reason
            self._wallet_slot = self._device_slots = None
            self._end_if_revoked()
        return self._take_effects()

    def drain(self, retry_after_ms: int) -> list[Effect]:
        """The server is about to stop: calls in flight are answered, new ones refused."""
        if self._phase is _Phase.CLOSED:
            return []
        self._draining_ms = retry_after_ms
        if self._phase is _Phase.LIVE and self._revoked is None:
            self._tell(ServerClosing(retry_after_ms))
        self._close_if_drained()
        return self._take_effects()

    def crowd_out(self) -> list[Effect]:
        """The account has more sessions than it may have, and this one is idle longest."""
        if self._phase is not _Phase.CLOSED:
            self._emit(Close(CloseCode.TOO_MANY, "too many sessions of this account"))
            self._end()
        return self._take_effects()

    def lost(self) -> list[Effect]:
        """The connection is gone, however it ended."""
        self._end()
        return self._take_effects()

    # What its methods call: see `wsserver.methods.Caller`.

    @property
    def token(self) -> bytes:
        """The hash of the session's token."""
        assert self.token_hash is not None, "called before login or resume"
        return self.token_hash

    def join(self, owner: TokenOwner, token_hash: bytes | None, call: Login | Resume) -> None:
        """Hear what concerns the account, to be told once the opening is answered."""
        self.account_id = owner.account_id
        self.device_id = owner.device_id
        self.token_hash = token_hash
        self._deliver_state = call.deliver == "state"
        self.presence = call.presence
        self._emit(Join(owner.account_id))

    def leave(self) -> None:
        """Forget the account: the opening failed."""
        self._emit(Leave(self.account_id))
        self.account_id = 0
        self.device_id = ""
        self.token_hash = None
        self._revoked = None
        self._wallet_slot = self._device_slots = None

    def open(self, opened: OpenedSession) -> None:
        """The session is open; it is live once that is answered."""
        self.token_hash = opened.token_hash
        self._opened = opened

    # Calls.

    def _start(self, item: Request | Malformed, batch: _BatchAnswer | None) -> None:
        running = _Running(item.id, batch)
        outcome: Any
        self._full_at_s, wait_ms = self.facts.gate.pass_message(self._full_at_s)
        if wait_ms:
            text = f"too many messages on this connection; the next may come in {wait_ms} ms"
            self._settle(running, RateLimited(text, retry_after_ms=wait_ms))
            return
        if isinstance(item, Malformed):
            outcome = item.error
        else:
            try:
                method = item.find_method()
                running.method = method.name
                self._admit(method)
                call = item.read_params(method)
                answer = ANSWERS.get(type(call))
                if answer is None:
                    self._begin(running, call)
                    return
                outcome = answer(self.facts, call)
            except RpcError as error:
                outcome = error
        self._settle(running, outcome)

    def _admit(self, method: Method) -> None:
        if self._draining_ms is not None:
            raise Unavailable("the server is about to stop", retry_after_ms=self._draining_ms)
        if method.authenticated and self._phase is not _Phase.LIVE:
            raise NotAuthenticated
        if method.authenticated and self._revoked is not None:
            raise BadToken
        if method.name in _OPENING and self._phase is not _Phase.ANONYMOUS:
            raise AlreadyAuthenticated

    def _begin(self, running: _Running, call: Call[Any]) -> None:
        if running.method in _OPENING:
            self._phase = _Phase.OPENING
            self._emit(StopClock())
        elif running.method in _ENDING:
            self._endings += 1
        elif running.method == "account.prelogin" and self._phase is _Phase.ANONYMOUS:
            self._emit(RestartClock())
        running.flow = FLOWS[type(call)](self, call)
        self._advance(running, None)

    def _advance(self, running: _Running, answer: Any) -> None:
        assert running.flow is not None
        try:
            if isinstance(answer, RpcError):
                operation = running.flow.throw(answer)
            else:
                operation = running.flow.send(answer)
        except StopIteration as stop:
            self._settle(running, stop.value)
        except RpcError as error:
            self._settle(running, error)
        else:
            self._ticket += 1
            if self._pending is None:
                self._pending = {}
            self._pending[self._ticket] = running
            self._emit(Perform(self._ticket, operation))

    def _settle(self, running: _Running, outcome: Any) -> None:
        """The call has its outcome: answer it, and close on who goes on after so many 429."""
        self._answer(running, outcome)
        if not isinstance(outcome, RateLimited):
            self._refusals = 0
            return
        self._refusals += 1
        if self.facts.gate.has_too_many_refusals(self._refusals) and not self._is_closed():
            self._emit(Close(CloseCode.TOO_MANY, "it goes on after 429"))
            self._end()

    def _answer(self, running: _Running, outcome: Any) -> None:
        """Answer the call, or put its answer to those of its batch."""
        told, payload = "ok", None
        if isinstance(outcome, RpcError):
            told = outcome.reason or str(outcome.code)
            if running.id is not ABSENT:
                payload = encode_error(running.id, outcome)
        else:
            running.succeeded = True
            if running.id is not ABSENT:
                payload = encode_result(running.id, outcome)
        if running.method in _GIVING:
            given = _given_sequence(outcome)
            self.newest = max(self.newest, given)
            if running.succeeded and running.method == "wallet.push":
                self._told = max(self._told, given)  # It need not be told of its own.
        batch = running.batch
        if batch is None:
            self._emit(Answered(running.method, told, payload))
            self._conclude(running)
            self._close_if_drained()
            return
        self._emit(Answered(running.method, told, None))
        if payload is not None:
            batch.answers.append(payload)
        batch.ended.append(running)
        if running.method in _GIVING and not batch.giving:
            batch.giving = True
            self._held += 1
        batch.missing -= 1
        if not batch.missing:
            self._answer_batch(batch)

    def _answer_batch(self, batch: _BatchAnswer) -> None:
        if batch.answers:
            self._emit(Send(encode_batch(batch.answers)))
        if batch.giving:
            self._held -= 1
            self._flush_slots(with_wallet=self._deliver_state)
        for running in batch.ended:
            self._conclude(running)
        self._close_if_drained()

    def _conclude(self, running: _Running) -> None:
        """The answer is on its way: only now comes what must not be before it."""
        if running.flow is None:
            return  # refused before it began
        if running.method in _ENDING:
            self._endings -= 1
            self._end_if_revoked()
        elif running.method in _OPENING and running.succeeded:
            self._go_live()
        elif running.method in _OPENING:
            self._phase = _Phase.ANONYMOUS
            self._emit(RestartClock())

    def _go_live(self) -> None:
        opened, self._opened = self._opened, None
        assert opened is not None
        self._phase = _Phase.LIVE
        self.device = opened.device
        self.device_id = opened.device.device_id
        self.newest = self._told = 0 if opened.head is None else opened.head.sequence
        self._emit(Opened(opened))
        if self._revoked is not None:
            self._end_if_revoked()
            return
        self._flush_slots(with_wallet=self._deliver_state)
        if self._draining_ms is not None:
            self._tell(ServerClosing(self._draining_ms))

    # Notifications.

    def _is_closed(self) -> bool:
        return self._phase is _Phase.CLOSED

    def _is_deaf(self) -> bool:
        return self.account_id == 0 or self._revoked is not None

    def _may_notify(self) -> bool:
        """Whether no answer that must come first is yet to be sent."""
        return self._phase is _Phase.LIVE and not self._held

    def _notify(self, update: Published, *, with_wallet: bool) -> None:
        sequence = update.state.sequence
        # Of what an answer gave, another's push is still told, but of nothing older than that.
        if sequence > self._told and sequence >= self.newest:
            self.newest = self._told = sequence
            self._emit(Notify(update, with_wallet))

    def _flush_slots(self, *, with_wallet: bool) -> None:
        if not self._may_notify():
            return
        update, self._wallet_slot = self._wallet_slot, None
        if update is not None:
            self._notify(update, with_wallet=with_wallet)
        devices, self._device_slots = self._device_slots, None
        if devices is not None:
            for device in devices.values():
                self._tell(device)

    # The end.

    def _end_if_revoked(self) -> None:
        if self._revoked is not None and self._phase is _Phase.LIVE and not self._endings:
            self._tell(SessionRevoked(self._revoked))
            self._emit(Close(CloseCode.SESSION_REVOKED, self._revoked))
            self._end()

    def _close_if_drained(self) -> None:
        if (
            self._draining_ms is not None
            and self._pending is None
            and self._phase is not _Phase.CLOSED
        ):
            self._emit(Close(CloseCode.SERVICE_RESTART, "the server is about to stop"))
            self._end()

    def _end(self) -> None:
        if self.account_id:
            self._emit(Leave(self.account_id))
            self.account_id = 0
        self._phase = _Phase.CLOSED
        self._pending = self._opened = self._wallet_slot = self._device_slots = None

    def _tell(self, message: Device | ServerClosing | SessionRevoked) -> None:
        self._emit(Send(encode_notification(message), NOTIFICATION_NAMES[type(message)]))

    def _emit(self, effect: Effect) -> None:
        if self._effects is None:
            self._effects = [effect]
        else:
            self._effects.append(effect)

    def _take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, None
        return [] if effects is None else effects


def _given_sequence(outcome: Any) -> int:
    """The sequence of the wallet's state that an answer gives; 0 where it gives none."""
    state = outcome.wallet if isinstance(outcome, Conflict) else outcome
    return state.sequence if isinstance(state, _GIVEN) else 0
