"""A session with a server: calls, notifications, and coming back when the connection is lost.

This is the shell. What to do after which close and what to send again is decided in
`wsclient.reconnection`, what a server may show in `wsclient.witness`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random as random_module
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, cast

from wsclient import crypto
from wsclient.connection import Connection, ConnectionLost, open_websocket
from wsclient.crypto import Keys
from wsclient.errors import (
    CallTimedOut,
    CannotConnect,
    MessageTooLarge,
    SessionEnded,
    StateRefused,
)
from wsclient.events import Event, EventSlots, Offline, Online
from wsclient.reconnection import ComeBack, Outbox, Reconnection, StayAway, Unanswered
from wsclient.witness import Witness
from wsschema.codec import Answer, UnknownNotification, decode_result, parse_incoming
from wsschema.errors import (
    InvalidRequest,
    NotAuthenticated,
    ParseError,
    RpcError,
    ServiceUnavailable,
    TooManyRequests,
)
from wsschema.messages import (
    METHOD_OF,
    Call,
    ChangePassword,
    Device,
    Empty,
    GetServerInfo,
    GetWallet,
    LoggedIn,
    Login,
    Logout,
    PushWallet,
    Resume,
    ServerClosing,
    ServerInfo,
    SessionOpened,
    SessionRevoked,
    WalletState,
    WalletUpdated,
)

R = TypeVar("R")

CALL_TIMEOUT_S: Final = 30.0
LOGIN_TIMEOUT_S: Final = 60.0
"""Longer: a server hashes few passwords at a time, and logins wait for each other."""
OPENING_CALLS_TIMEOUT_S: Final = 20.0
IN_FLIGHT_MAX: Final = 64
"""Calls without an answer; more wait for their turn."""
RECEIVED_BYTES_MAX: Final = 64 * 2**20
"""Largest message taken from a server, whatever it announces: a bound on this device's memory."""
RECEIVED_OVERHEAD_BYTES: Final = 64 * 1024
"""What an answer may have around the wallet, beyond what the call that pushed it had."""


class Session:
    """One device's session, over as many connections as it takes.

    ::

        async with Session("ws://127.0.0.1:8090/v1") as session:
            keys = await derive_keys(session, "joe@example.com", "correct horse")
            await session.login(keys, device_id="laptop")
            state = await session.get()
            await session.push(state.sequence + 1, "...")

    Entering connects, and raises CannotConnect when it cannot; from then on a lost connection is
    made again, with backoff, until the session ends. Calls without an answer are sent again where
    that is safe: a push lands once. Every state that the server shows is checked; one that cannot
    be ends the session with StateRefused.

    ``witness``: what earlier sessions of this account and device have seen. ``deliver``: ``state``
    has notifications bring the wallet along. ``presence``: tell of the account's other devices.
    ``ca``: PEM file of a private authority that vouches for the server, else ``WSSERVER_CA``.
    ``allow_plaintext``: take ``ws://`` to other machines too, else ``WSSERVER_ALLOW_PLAINTEXT=1``.
    ``connect``, ``random``, ``sleep`` and ``clock`` are handed in by tests.
    """

    def __init__(
        self,
        url: str,
        *,
        witness: Witness | None = None,
        deliver: Literal["sequence", "state"] = "sequence",
        presence: bool = False,
        call_timeout_s: float = CALL_TIMEOUT_S,
        in_flight_max: int = IN_FLIGHT_MAX,
        ca: str | os.PathLike[str] | None = None,
        allow_plaintext: bool = False,
        connect: Callable[[str], Awaitable[Connection]] | None = None,
        random: Callable[[], float] = random_module.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.witness = Witness() if witness is None else witness
        self.token: str | None = None
        """What `resume` takes; None before login."""
        self.device_id: str | None = None
        self._keys: Keys | None = None
        self._info: ServerInfo | None = None
        self._deliver, self._presence = deliver, presence
        self._call_timeout_s = call_timeout_s
        self._connect = connect or functools.partial(
            open_websocket, ca=ca, allow_plaintext=allow_plaintext
        )
        self._sleep, self._clock = sleep, clock
        self._reconnection = Reconnection(random)
        self._outbox = Outbox()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._in_flight = asyncio.Semaphore(in_flight_max)
        self._events = EventSlots()
        self._has_event = asyncio.Event()
        self._has_call = asyncio.Event()
        self._ended: Exception | None = None
        self._runner: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "ended" if self._ended else "logged in" if self.token else "not logged in"
        return f"<Session with {self.url}: {state}, sequence {self.witness.sequence}>"

    async def __aenter__(self) -> Self:
        try:
            connection = await self._open()
        except ConnectionLost as lost:
            raise CannotConnect(self.url, lost.cause) from None
        self._runner = asyncio.create_task(self._run(connection))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the session here; its token stays good for `resume`."""
        if self._runner is not None and self._ended is None:
            self._runner.cancel()
        self._end(SessionEnded("closed"))
        if self._runner is not None:
            # One that had ended before may still be closing its connection: let it.
            await asyncio.wait([self._runner])

    @property
    def info(self) -> ServerInfo:
        """Who the server is and what it allows, as the present connection was told."""
        assert self._info is not None, "enter the session first"
        return self._info

    @property
    def ended(self) -> Exception | None:
        """Why the session is over; None while it is not."""
        return self._ended

    # Calls.

    async def call(self, call: Call[R], *, timeout_s: float | None = None) -> R:
        """The result of any method but login and resume.

        Raises the RpcError that the server answered, CallTimedOut, AnswerLost, MessageTooLarge,
        StateRefused, and SessionEnded once the session is over.
        """
        if isinstance(call, Login | Resume):
            raise TypeError("use Session.login and Session.resume, which can come back")
        return await self._call(call, self._call_timeout_s if timeout_s is None else timeout_s)

    async def login(
        self, keys: Keys, *, device_id: str, device_name: str | None = None
    ) -> LoggedIn:
        """Begins with a password; the token it gives is good for `resume`.

        When ``witness`` knew an older state, or another epoch, the answer brings the latest.
        """
        self._keys, self.witness.hmac_key = keys, keys.hmac_key
        since, epoch = self._since()
        call = Login(
            email=keys.email,
            password=keys.password,
            device_id=device_id,
            device_name=device_name,
            since=since,
            epoch=epoch,
            deliver=self._deliver,
            presence=self._presence,
        )
        return await self._call(call, LOGIN_TIMEOUT_S)

    async def resume(self, token: str, keys: Keys) -> SessionOpened:
        """Begins with the token of an earlier session; BadToken when it is good no more."""
        self._keys, self.witness.hmac_key = keys, keys.hmac_key
        return await self._call(self._resume_call(token), self._call_timeout_s)

    async def get(self, sequence: int | None = None) -> WalletState:
        """The latest state, or a kept older one; NoWallet, NoSuchVersion."""
        return await self.call(GetWallet(sequence))

    async def push(self, sequence: int, encrypted_wallet: str) -> WalletState:
        """Stores the next state, and gives it back once it is durable.

        Conflict carries the latest state, for merging; where ``landed`` is True the push was stored
        and others have followed. After CallTimedOut, Unavailable or RateLimited push the same
        again: it lands once.
        """
        if self._keys is None:
            raise NotAuthenticated("log in before pushing")
        hmac = crypto.compute_hmac(self._keys.hmac_key, sequence, encrypted_wallet)
        return cast(WalletState, await self.call(PushWallet(sequence, encrypted_wallet, hmac)))

    async def logout(self) -> None:
        """Ends the session here and its token on the server."""
        await self.call(Logout())
        await self.close()

    async def notifications(self) -> AsyncIterator[Event]:
        """What is heard, for one reader: the newest of each kind, however slowly it reads.

        `WalletUpdated` when another connection of the account pushed (also while this one was
        away), `Device` with ``presence``, `Offline` and `Online`. Ends after `close`, else raises
        what the session ended with.
        """
        while True:
            event = self._events.take()
            if event is not None:
                yield event
            elif self._ended is not None:
                if isinstance(self._ended, SessionEnded) and self._ended.reason == "closed":
                    return
                raise self._ended
            else:
                self._has_event.clear()
                await self._has_event.wait()

    async def _call(self, call: Call[R], timeout_s: float) -> R:
        try:
            async with asyncio.timeout(timeout_s), self._in_flight:
                if self._ended is not None:
                    raise self._ended
                return cast(R, await self._exchange(call))
        except TimeoutError:
            raise CallTimedOut(METHOD_OF[type(call)].name, timeout_s) from None

    async def _exchange(self, call: Call[Any]) -> Any:
        entry = self._outbox.add(call)
        answer = self._answers[entry.id] = asyncio.get_running_loop().create_future()
        try:
            self._check_size(entry)
            self._has_call.set()
            return await answer
        finally:
            self._outbox.remove(entry.id)
            del self._answers[entry.id]

    def _check_size(self, entry: Unanswered) -> None:
        # Checked here too, for a message that is too large costs the connection.
        limits = self.info.limits
        limit = limits.anonymous_message_bytes if self.token is None else limits.message_bytes
        if len(entry.payload) > limit:
            raise MessageTooLarge(entry.method, len(entry.payload), limit)

    # The connection.

    async def _run(self, connection: Connection) -> None:
        try:
            while True:
                lost = await self._serve(connection)
                for entry, error in self._outbox.lose_connection(lost.code):
                    self._settle(entry, error)
                verdict = self._reconnection.after_close(lost.code, self._clock())
                reopened = await self._reopen(verdict, lost.cause)
                if reopened is None:
                    return
                connection = reopened
        except Exception as error:  # whatever it is, nobody may wait for ever
            self._end(error)
            if not isinstance(error, StateRefused):
                raise

    async def _serve(self, connection: Connection) -> ConnectionLost:
        """Sends and receives until the connection is lost, and tells how."""
        self._reconnection.note_up(self._clock())
        writer = asyncio.create_task(self._write(connection))
        try:
            while True:
                self._take_in(await connection.receive())
        except ConnectionLost as lost:
            return lost
        except StateRefused as refused:
            self._end(refused)
            raise
        finally:
            writer.cancel()
            await asyncio.wait([writer])
            await connection.close()

    async def _write(self, connection: Connection) -> None:
        try:
            while True:
                entry = self._outbox.next_unsent()
                if entry is None:
                    self._has_call.clear()
                    await self._has_call.wait()
                    continue
                entry.sent, entry.known_sequence = True, self.witness.sequence
                await connection.send(entry.payload)
        except ConnectionLost:
            pass  # the reader finds out too, and why

    async def _reopen(self, verdict: ComeBack | StayAway, cause: str) -> Connection | None:
        """The next connection, however long it takes; None when the session ended instead."""
        while isinstance(verdict, ComeBack):
            if self.token is not None:
                self._put(Offline(cause, verdict.after_s))
            await self._sleep(verdict.after_s)
            if self.token is None and not len(self._outbox):
                # A session that is nobody's yet has nothing to hear: it connects when asked.
                self._has_call.clear()
                await self._has_call.wait()
            try:
                connection = await self._open()
            except CannotConnect as error:
                cause = error.cause
                verdict = self._reconnection.after_failed_opening(self._clock())
            except ConnectionLost as lost:
                cause = lost.cause
                verdict = self._reconnection.after_close(lost.code, self._clock())
            except RpcError as error:
                cause = error.message
                verdict = self._reconnection.after_refusal(error, self._clock())
            else:
                return connection
        self._end(SessionEnded(verdict.reason))
        return None

    async def _open(self) -> Connection:
        """A connection whose limits are known, with the session, if any, resumed on it."""
        connection = await self._connect(self.url)
        try:
            async with asyncio.timeout(OPENING_CALLS_TIMEOUT_S):
                self._info = cast(ServerInfo, await self._ask(connection, GetServerInfo()))
                announced_bytes = self._info.limits.message_bytes + RECEIVED_OVERHEAD_BYTES
                connection.allow_messages_of(min(announced_bytes, RECEIVED_BYTES_MAX))
                if self.token is not None:
                    await self._come_back(connection, self._resume_call(self.token))
        except TimeoutError:
            await connection.close()
            raise CannotConnect(
                self.url, f"no answer within {OPENING_CALLS_TIMEOUT_S:g} s"
            ) from None
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _come_back(self, connection: Connection, call: Resume) -> None:
        opened = cast(SessionOpened, await self._ask(connection, call))
        if self.witness.see_opened(opened):
            self._events.drop_wallet()
            # One that lands on restored data would overwrite what others have merged into it.
            for entry, error in self._outbox.drop_outdated():
                self._settle(entry, error)
        self._put(Online(opened.epoch))
        if opened.wallet is not None:
            self._put_state(opened.wallet)

    def _put_state(self, wallet: WalletState) -> None:
        # One's own push whose answer was lost is no news; it is about to be answered.
        if not self._outbox.holds_push(wallet.sequence, wallet.hmac):
            self._put(
                WalletUpdated(
                    wallet.sequence, wallet.hmac, wallet.device_id, wallet.updated_at, wallet
                )
            )

    async def _ask(self, connection: Connection, call: Call[Any]) -> Any:
        """The result of one call, on a connection that nobody else uses yet."""
        entry = self._outbox.number(call)
        await connection.send(entry.payload)
        while True:
            message = _parse(await connection.receive())
            match message:
                case Answer() if message.id == entry.id:
                    if message.error is not None:
                        raise message.error
                    try:
                        return decode_result(call, message.result)
                    except InvalidRequest as error:
                        raise _not_this_protocol(error) from None
                case SessionRevoked() | ServerClosing():
                    self._take_note(message)

    def _since(self) -> tuple[int | None, str | None]:
        if self.witness.epoch is None:
            return None, None
        return self.witness.sequence, self.witness.epoch

    def _resume_call(self, token: str) -> Resume:
        since, epoch = self._since()
        return Resume(token, since, epoch, self._deliver, self._presence)

    # What comes in.

    def _take_in(self, payload: bytes | str) -> None:
        message = _parse(payload)
        match message:
            case Answer():
                entry = self._outbox.remove(message.id)
                if entry is not None:
                    self._take_in_answer(entry, message)
            case WalletUpdated():
                if self.token is not None and self.witness.see_updated(message):
                    self._put(message)
            case Device():
                if self.token is not None:
                    self._put(message)
            case SessionRevoked() | ServerClosing():
                self._take_note(message)
            case UnknownNotification():
                pass  # a later server's

    def _take_note(self, message: SessionRevoked | ServerClosing) -> None:
        match message:
            case SessionRevoked():
                self._reconnection.note_revoked(message.reason)
            case ServerClosing():
                self._reconnection.note_retry_after(message.retry_after_ms, self._clock())

    def _take_in_answer(self, entry: Unanswered, answer: Answer) -> None:
        # Here, in the order of arrival, and not where it is awaited: later messages build on it.
        call = entry.call
        try:
            outcome = answer.error or decode_result(call, answer.result)
        except InvalidRequest as error:
            outcome = error
        known_sequence = self.witness.sequence
        self.witness.see_answer(call, outcome, known_sequence=entry.known_sequence)
        match call, outcome:
            case GetWallet(), WalletState() if self.witness.sequence > known_sequence:
                # What is to tell of it may be on its way, and will be no news any more.
                self._put_state(outcome)
            case Login(), LoggedIn():
                self.token, self.device_id = outcome.token, outcome.device_id
            case Resume(), SessionOpened():
                self.token, self.device_id = call.token, outcome.device_id
            case ChangePassword(), Empty():
                # Its token has ended. One that a restore brings back is the former password's.
                self._reconnection.note_revoked("password_changed")
            case _, TooManyRequests() | ServiceUnavailable():
                self._reconnection.note_retry_after(outcome.retry_after_ms, self._clock())
        self._settle(entry, outcome)

    def _settle(self, entry: Unanswered, outcome: Any) -> None:
        answer = self._answers.get(entry.id)
        if answer is None or answer.done():
            return  # its caller went away
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _put(self, event: Event) -> None:
        self._events.put(event)
        self._has_event.set()

    def _end(self, error: Exception) -> None:
        if self._ended is not None:
            return
        self._ended = error
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        self._has_event.set()


def _parse(payload: bytes | str) -> Any:
    try:
        return parse_incoming(payload)
    except (ParseError, InvalidRequest) as error:
        raise _not_this_protocol(error) from None


def _not_this_protocol(error: RpcError) -> ConnectionLost:
    return ConnectionLost(None, f"what answers there is no wallet-sync server: {error}")
