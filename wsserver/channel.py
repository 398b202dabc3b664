"""A channel: one session on one connection. It carries out what the pure session decides.

State: the two it joins. Everything here runs on the event loop.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, assert_never, cast

from wsschema.close_codes import CloseCode
from wsschema.messages import Device
from wsserver import logbook
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
from wsserver.failures import report_failure
from wsserver.operations import DeviceRecord, Published, PushState
from wsserver.session import Session

if TYPE_CHECKING:
    from wsserver.engine import Engine

CALLS_IN_FLIGHT_MAX: Final = 32
"""Calls of one connection that may wait for something; its next messages wait unread meanwhile."""


class Connection(Protocol):
    """What a channel needs of its connection: see `wsserver.connection.Connection`."""

    @property
    def remote_address(self) -> str:
        """IP address of the peer."""
        ...

    @property
    def congested(self) -> bool:
        """Whether the peer reads more slowly than it is sent to."""
        ...

    @property
    def closing(self) -> bool:
        """Whether it is over, or about to be: `send` does nothing then."""
        ...

    def send(self, payload: bytes) -> None:
        """Send one text message."""
        ...

    def send_frame(self, frame: bytes) -> None:
        """Send what `wsserver.frames.encode_text_frame` made of one."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Close it after all that was sent."""
        ...

    def hold(self) -> None:
        """Deliver no messages until `release`."""
        ...

    def release(self) -> None:
        """Take up delivery again."""
        ...

    def authenticated(self) -> None:
        """Stop the authentication clock for good, and take larger messages."""
        ...

    def restart_authentication_clock(self) -> None:
        """Give the peer its whole time once more."""
        ...

    def stop_authentication_clock(self) -> None:
        """Let the clock stand still until it is restarted."""
        ...


Entry = TypeVar("Entry", bound=Callable[..., None])


def _closing_on_failure(entry: Entry) -> Entry:
    """Has a failure of our own end this connection (1011), and reach nobody else's."""

    @functools.wraps(entry)
    def enter(channel: Channel, *args: Any, **kwargs: Any) -> None:
        try:
            entry(channel, *args, **kwargs)
        except Exception as error:
            report_failure("a session failed, and its connection is closed", error)
            channel.fail()

    return cast(Entry, enter)


class Channel:
    """The application on a connection, and the hub's listener for its account."""

    __slots__ = (
        "_connection",
        "_engine",
        "_session",
        "account_id",
        "anonymous",
        "connection_id",
    )

    def __init__(
        self, engine: Engine, connection: Connection, connection_id: int, address: str
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._session = Session(engine.facts, connection_id, address)
        self.connection_id = connection_id
        self.account_id: int | None = None
        """The account that it was logged in to, also once that is over."""
        self.anonymous = False
        """Whether the gate counts this connection among those that are not authenticated."""

    # What the transport tells.

    def message_received(self, payload: bytes | bytearray) -> None:
        """A text message came. If it fails, the connection that told of it closes itself."""
        self._carry_out(self._session.receive(payload))

    @_closing_on_failure
    def writable(self) -> None:
        """The peer has caught up with what it was sent."""
        self._carry_out(self._session.writable())

    @_closing_on_failure
    def connection_lost(self) -> None:
        """The connection is gone."""
        self._engine.forget(self)
        self._carry_out(self._session.lost())

    # What the engine asks, and tells.

    @property
    def address(self) -> str:
        """What counts as one peer."""
        return self._session.address

    @property
    def idle_since_s(self) -> float:
        """About when its last message came."""
        return self._session.idle_since_s

    @_closing_on_failure
    def crowd_out(self) -> None:
        """The account has more sessions than it may have."""
        self._carry_out(self._session.crowd_out())

    # What the hub tells, and what it asks.

    @property
    def device_id(self) -> str:
        """The session's device."""
        return self._session.device_id

    @property
    def token_hash(self) -> bytes | None:
        """The session's token, once it has one."""
        return self._session.token_hash

    @property
    def known_sequence(self) -> int:
        """The newest sequence that the session was told of, or is about to be."""
        return self._session.known_sequence

    @property
    def presence(self) -> bool:
        """Whether the session hears of the account's other devices."""
        return self._session.presence

    @property
    def device(self) -> DeviceRecord | None:
        """The session's device, once the session is open."""
        return self._session.device

    @device.setter
    def device(self, device: DeviceRecord) -> None:
        self._session.device = device

    @_closing_on_failure
    def wallet_updated(self, update: Published) -> None:
        """Another connection of the account pushed."""
        congested = self._connection.congested
        self._carry_out(self._session.wallet_updated(update, congested=congested))

    @_closing_on_failure
    def device_updated(self, device: Device) -> None:
        """Another device of the account came, went or acknowledged."""
        congested = self._connection.congested
        self._carry_out(self._session.device_updated(device, congested=congested))

    @_closing_on_failure
    def revoked(self, reason: str) -> None:
        """The session's token is gone."""
        self._carry_out(self._session.revoked(reason))

    # What the server tells.

    @_closing_on_failure
    def drain(self, retry_after_ms: int) -> None:
        """The server is about to stop."""
        self._carry_out(self._session.drain(retry_after_ms))

    def send_away(self) -> None:
        """The time for calls in flight is up."""
        self._connection.close(CloseCode.SERVICE_RESTART, "the server stops")

    @property
    def live(self) -> bool:
        """Whether the session is authenticated and not over."""
        return self._session.live

    # Carrying out.

    def _carry_out(self, effects: list[Effect]) -> None:
        connection, engine = self._connection, self._engine
        for effect in effects:
            match effect:
                case Perform():
                    self._perform(effect)
                case Answered():
                    engine.metrics.count_call(effect.method, effect.outcome)
                    if effect.outcome != "ok":
                        self._note_refusal(effect)
                    if effect.payload is not None:
                        connection.send(effect.payload)
                case Notify():
                    connection.send_frame(engine.frame_update(effect.update, effect.with_wallet))
                    engine.metrics.count_notification("wallet.updated")
                case Send():
                    connection.send(effect.payload)
                    if effect.notification is not None:
                        engine.metrics.count_notification(effect.notification)
                case Superseded():
                    engine.metrics.superseded[effect.notification] += 1
                case Join():
                    engine.hub.join(effect.account_id, self)
                case Leave():
                    engine.leave(effect.account_id, self)
                case Opened():
                    connection.authenticated()
                    self.account_id = effect.opened.account_id
                    engine.announce(effect.opened, self)
                    logbook.SESSION_OPENED.log(
                        account_id=self.account_id,
                        device_id=self.device_id,
                        peer=connection.remote_address,
                    )
                case RestartClock():
                    connection.restart_authentication_clock()
                case StopClock():
                    connection.stop_authentication_clock()
                case Close():
                    connection.close(effect.code, effect.reason)
                case _:
                    assert_never(effect)
        in_flight = self._session.in_flight
        if in_flight >= CALLS_IN_FLIGHT_MAX:
            connection.hold()
        elif in_flight <= CALLS_IN_FLIGHT_MAX // 2:
            connection.release()

    def _note_refusal(self, effect: Answered) -> None:
        logbook.CALL_REFUSED.log(
            # What is no method has no name: it may be anything.
            method=effect.method or "a call",
            outcome=effect.outcome,
            peer=self._connection.remote_address,
            account_id=self.account_id,
            device_id=self.device_id or None,
        )

    def _perform(self, effect: Perform) -> None:
        if type(effect.operation) is PushState:
            done = functools.partial(self._complete_push, effect.ticket, time.monotonic())
        else:
            done = functools.partial(self._complete, effect.ticket)
        self._engine.perform(effect.operation, done, self._is_wanted)

    def fail(self) -> None:
        """Close the connection: its session is in no state to go on."""
        self._connection.close(CloseCode.INTERNAL_ERROR, "internal error")

    def _is_wanted(self) -> bool:
        return not self._connection.closing

    @_closing_on_failure
    def _complete(self, ticket: int, answer: Any) -> None:
        self._carry_out(self._session.complete(ticket, answer))

    def _complete_push(self, ticket: int, started_s: float, answer: Any) -> None:
        self._engine.metrics.push_seconds.observe(time.monotonic() - started_s)
        self._complete(ticket, answer)
