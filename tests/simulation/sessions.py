"""A device's session: what `wsclient.session.Session` does, with callbacks on simulated time.

It is put together from the same parts in the same way (`Outbox`, `Reconnection`, `Witness`, the
codec); where that class awaits, this one is called back.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from tests.simulation.audit import Audit, Violation
from tests.simulation.links import Link
from tests.simulation.timeline import Timeline, Timer
from wsclient.errors import CallTimedOut, CannotConnect, SessionEnded, StateRefused, WalletSyncError
from wsclient.events import Event, EventSlots, Offline, Online
from wsclient.reconnection import ComeBack, Outbox, Reconnection, StayAway, Unanswered
from wsclient.session import CALL_TIMEOUT_S, LOGIN_TIMEOUT_S, OPENING_CALLS_TIMEOUT_S
from wsclient.witness import Witness
from wsschema.codec import Answer, UnknownNotification, decode_result, parse_incoming
from wsschema.errors import ServiceUnavailable, TooManyRequests
from wsschema.messages import (
    Call,
    ChangePassword,
    Device,
    Empty,
    GetWallet,
    LoggedIn,
    Login,
    PushWallet,
    Receipt,
    Resume,
    ServerClosing,
    SessionOpened,
    SessionRevoked,
    WalletState,
    WalletUpdated,
)

URL = "wss://simulated/v1"

Done = Callable[[Any], None]
"""Takes the result of a call, or its error."""


class Holder(Protocol):
    """Whose session it is: one run of a device's app."""

    alive: bool

    def entered(self, error: WalletSyncError | None) -> None:
        """The first connection is there, or cannot be had."""

    def has_pushed(self, call: Call[Any]) -> None:
        """Something was sent that is to be stored."""

    def has_event(self) -> None:
        """Something is to be heard."""

    def ended(self, session: Session, error: SessionEnded) -> None:
        """The session is over, and does not come back by itself."""


class Session:
    """One device's session, over as many connections as it takes."""

    def __init__(
        self,
        holder: Holder,
        witness: Witness,
        *,
        timeline: Timeline,
        audit: Audit,
        random: Random,
        connect: Callable[[Session], None],
        deliver: str,
        presence: bool,
    ) -> None:
        self.witness = witness
        self.token: str | None = None
        self.link: Link | None = None
        self.over = False
        self.events = EventSlots()
        self.online: dict[str, bool] = {}
        """What this connection was told of the presence of other devices."""
        self._holder = holder
        self._timeline = timeline
        self._audit = audit
        self._connect = connect
        self._deliver, self._presence = deliver, presence
        self._reconnection = Reconnection(random.random)
        self._outbox = Outbox()
        self._waiting: dict[int, tuple[Done, Timer]] = {}
        self._entered = False
        self._resuming: Unanswered | None = None
        self._opening_timer = Timer()
        self._idle = False
        """Whether nothing is to be connected for before something is called."""
        self._is_open = False
        """Whether the present connection was answered that the session is open on it."""
        self._told = 0
        """The newest sequence that the present connection was told of."""

    def __len__(self) -> int:
        """Calls without an answer."""
        return len(self._outbox)

    @property
    def live(self) -> bool:
        """Whether it is connected, and logged in on this connection."""
        return self._is_open and self.link is not None

    def start(self) -> None:
        """Connect for the first time."""
        self._connect(self)

    def close(self) -> None:
        """End it here; the token stays good."""
        self.over = True
        self._drop_link(hang_up=True)

    # Calls.

    def call(self, call: Call[Any], done: Done) -> None:
        """Send it, now or on the next connection; ``done`` takes what comes of it."""
        entry = self._outbox.add(call)
        timer = Timer()
        self._waiting[entry.id] = (done, timer)
        timeout_s = LOGIN_TIMEOUT_S if isinstance(call, Login) else CALL_TIMEOUT_S
        self._timeline.after(timeout_s * 1000, timer, self._give_up, entry, timeout_s)
        if self.link is not None and self._resuming is None:
            self._send_unsent()
        elif self._idle:
            self._idle = False
            self._connect(self)

    def log_in(self, email: str, password: str, device_id: str, done: Done) -> None:
        since, epoch = self._since()
        call = Login(email, password, device_id, None, since, epoch, self._deliver, self._presence)
        self.call(call, done)

    def resume(self, token: str, done: Done) -> None:
        self.call(self._resume_call(token), done)

    def _since(self) -> tuple[int | None, str | None]:
        if self.witness.epoch is None:
            return None, None
        return self.witness.sequence, self.witness.epoch

    def _resume_call(self, token: str) -> Resume:
        return Resume(token, *self._since(), self._deliver, self._presence)

    def _send_unsent(self) -> None:
        assert self.link is not None, "sent on a connection"
        while (entry := self._outbox.next_unsent()) is not None:
            entry.sent, entry.known_sequence = True, self.witness.sequence
            self.link.send_up(entry.payload)
            if isinstance(entry.call, ChangePassword | PushWallet):
                self._holder.has_pushed(entry.call)

    def _give_up(self, entry: Unanswered, timeout_s: float) -> None:
        if self._outbox.remove(entry.id) is not None:
            self._settle(entry, CallTimedOut(entry.method, timeout_s))

    def _settle(self, entry: Unanswered, outcome: Any) -> None:
        done, timer = self._waiting.pop(entry.id)
        timer.cancel()
        # Not at once: whoever waits goes on some time later, and more may have come in by then.
        self._timeline.after(0, self._holder, done, outcome)

    # The connection.

    def connected(self, link: Link) -> None:
        """The connection that was asked for is there."""
        if self.over:
            link.hang_up()
            return
        self.link = link
        self._is_open = False
        self.online = {}
        if self.token is None:
            self._come_up()
            return
        self._resuming = self._outbox.number(self._resume_call(self.token))
        self._resuming.known_sequence = self.witness.sequence
        self._opening_timer = Timer()
        self._timeline.after(
            OPENING_CALLS_TIMEOUT_S * 1000, self._opening_timer, self._give_up_opening
        )
        link.send_up(self._resuming.payload)

    def refused(self) -> None:
        """The connection that was asked for cannot be had."""
        if self.over:
            return
        if not self._entered:
            self.over = True
            self._holder.entered(CannotConnect(URL, "refused"))
        else:
            self._reopen(self._reconnection.after_failed_opening(self._timeline.now_s))

    def lose(self, link: Link, code: int | None) -> None:
        """The connection is gone."""
        if link is not self.link:
            return
        self._drop_link(hang_up=False)
        now_s = self._timeline.now_s
        for entry, error in self._outbox.lose_connection(code):
            self._settle(entry, error)
        self._reopen(self._reconnection.after_close(code, now_s))

    def _come_up(self) -> None:
        self._reconnection.note_up(self._timeline.now_s)
        if not self._entered:
            self._entered = True
            self._holder.entered(None)
        self._send_unsent()

    def _drop_link(self, *, hang_up: bool) -> None:
        link, self.link = self.link, None
        self._resuming = None
        self._opening_timer.cancel()
        self._is_open = False
        if link is not None and hang_up:
            link.hang_up()

    def _give_up_opening(self) -> None:
        self._drop_link(hang_up=True)
        self._reopen(self._reconnection.after_failed_opening(self._timeline.now_s))

    def _reopen(self, verdict: ComeBack | StayAway) -> None:
        if isinstance(verdict, StayAway):
            self._end(SessionEnded(verdict.reason))
            return
        if self.token is not None:
            self._put(Offline("lost", verdict.after_s))
        self._timeline.after(verdict.after_s * 1000, self._holder, self._try_again)

    def _try_again(self) -> None:
        if self.over:
            return
        if self.token is None and not len(self._outbox):
            self._idle = True
        else:
            self._connect(self)

    def _end(self, error: SessionEnded) -> None:
        self.over = True
        for _, timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._timeline.after(0, self._holder, self._holder.ended, self, error)

    # What comes in.

    def receive(self, link: Link, payload: bytes) -> None:
        """A message came."""
        if link is self.link:
            try:
                self._take_in(payload)
            except StateRefused as refused:
                raise Violation("refused", str(refused)) from refused

    def _take_in(self, payload: bytes) -> None:
        match parse_incoming(payload):
            case Answer() as answer if self._resuming is not None:
                self._take_in_resumed(self._resuming, answer)
            case Answer() as answer:
                entry = self._outbox.remove(answer.id)
                if entry is not None:
                    self._take_in_answer(entry, answer)
            case WalletUpdated() as update:
                self._check_told(update)
                if self.token is not None and self.witness.see_updated(update):
                    self._put(update)
            case Device() as device:
                self.online[device.device_id] = device.online
                if self.token is not None:
                    self._put(device)
            case SessionRevoked(reason):
                self._reconnection.note_revoked(reason)
            case ServerClosing(retry_after_ms):
                self._reconnection.note_retry_after(retry_after_ms, self._timeline.now_s)
            case UnknownNotification() as unknown:
                raise Violation("undocumented", f"the notification {unknown.method}")

    def _check_told(self, update: WalletUpdated) -> None:
        self._audit.note_told(update.sequence, update.hmac)
        if not self._is_open:
            raise Violation("order", "a notification came before the session was open")
        if update.sequence <= self._told:
            raise Violation("order", f"{update.sequence} was told after {self._told}")
        self._told = update.sequence

    def _take_in_resumed(self, entry: Unanswered, answer: Answer) -> None:
        now_s = self._timeline.now_s
        self._resuming = None
        self._opening_timer.cancel()
        if answer.error is not None:
            self._audit.note_error(entry.call, answer.error)
            self._drop_link(hang_up=True)
            self._reopen(self._reconnection.after_refusal(answer.error, now_s))
            return
        opened: SessionOpened = decode_result(entry.call, answer.result)
        self._note_opened(opened)
        if self.witness.see_opened(opened):
            self.events.drop_wallet()
            for dropped, error in self._outbox.drop_outdated():
                self._settle(dropped, error)
        self._put(Online(opened.epoch))
        if opened.wallet is not None:
            self._put_state(opened.wallet)
        self._come_up()

    def _put_state(self, wallet: WalletState) -> None:
        if not self._outbox.holds_push(wallet.sequence, wallet.hmac):
            self._put(
                WalletUpdated(
                    wallet.sequence, wallet.hmac, wallet.device_id, wallet.updated_at, wallet
                )
            )

    def _note_opened(self, opened: SessionOpened | LoggedIn) -> None:
        self._is_open = True
        self._told = opened.sequence
        if opened.hmac is not None:
            self._audit.note_told(opened.sequence, opened.hmac)

    def _take_in_answer(self, entry: Unanswered, answer: Answer) -> None:
        call = entry.call
        outcome: Any
        if answer.error is not None:
            outcome = answer.error
            self._audit.note_error(call, outcome)
        else:
            outcome = decode_result(call, answer.result)
        if isinstance(outcome, LoggedIn | SessionOpened):
            self._note_opened(outcome)
        known_sequence = self.witness.sequence
        self.witness.see_answer(call, outcome, known_sequence=entry.known_sequence)
        if isinstance(call, GetWallet) and self.witness.sequence > known_sequence:
            self._put_state(outcome)
        match call, outcome:
            case PushWallet(), WalletState() | Receipt():
                self._audit.note_acknowledged(outcome.sequence, outcome.hmac)
            case GetWallet(sequence), WalletState():
                self._audit.note_told(outcome.sequence, outcome.hmac)
                if sequence is None and outcome.sequence < self._told:
                    text = f"{outcome.sequence} was given after {self._told} was told"
                    raise Violation("order", text)
            case Login(), LoggedIn():
                self.token = outcome.token
            case Resume(), SessionOpened():
                self.token = call.token
            case ChangePassword(), Empty():
                self._reconnection.note_revoked("password_changed")
            case _, TooManyRequests() | ServiceUnavailable():
                self._reconnection.note_retry_after(outcome.retry_after_ms, self._timeline.now_s)
        self._settle(entry, outcome)

    def _put(self, event: Event) -> None:
        self.events.put(event)
        self._timeline.after(0, self._holder, self._holder.has_event)
