"""The engine: what all sessions of a server share, and who performs their operations.

State: the hub, and the frame of the newest update. Everything here runs on the event loop; the
store's lanes and the password pool hand their answers over to it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from wsschema.close_codes import CloseCode
from wsschema.codec import encode_notification
from wsschema.errors import RpcError, Unavailable
from wsschema.messages import WalletUpdated
from wsserver import logbook
from wsserver.channel import Channel, Connection
from wsserver.frames import encode_text_frame
from wsserver.hub import Hub, Listener
from wsserver.metrics import Metrics
from wsserver.operations import (
    CheckPassword,
    Event,
    FindNewestNotice,
    FindOnline,
    FindToken,
    HashPassword,
    LoadNotices,
    MarkSeen,
    OpenedSession,
    Operation,
    Published,
    SendLetter,
    TokenOwner,
    events_of,
)
from wsserver.session import ServerFacts
from wsserver.throttle import address_key

RENEWAL_INTERVAL_S: Final = 3600
"""How stale the stored last use of a token may be: an open connection counts as use."""
SEEN_AT_ONCE: Final = 64
SEEN_INTERVAL_S: Final = 0.02
"""So many devices that were seen are noted at a time, so long after those before. When thousands
are lost at once, the pushes of the others wait for a few of them, and not for all."""
LOST_MAX: Final = 20_000
"""Sessions that were lost and are kept in mind, at a quarter of a KiB each: when a network comes
back, thousands of devices resume at once, and whose token theirs is need not be read."""
NOTICE_INTERVAL_S: Final = 0.5
"""How often the database is asked for what the operator's commands did to live sessions."""
NOTICE_RETRY_INTERVAL_S: Final = 30
"""The same after a failure of our own, which is logged each time."""
NOTICE_ANSWER_TIMEOUT_S: Final = 30
"""Longer than anything waits in a lane."""
NOTICES_MAX: Final = 500
"""Notices that are read at once."""

R = TypeVar("R")
Done = Callable[[Any], None]


class Store(Protocol):
    """What keeps accounts, tokens and wallets."""

    def submit(self, operation: Operation[Any], done: Done) -> None:
        """Perform it; its answer goes to `Engine.take_answer` with ``done``, never at once."""
        ...


class Passwords(Protocol):
    """What hashes and checks passwords."""

    def submit(
        self,
        operation: HashPassword | CheckPassword,
        done: Done,
        is_wanted: Callable[[], bool],
    ) -> None:
        """Perform it, if still wanted in its turn; ``done`` gets the answer, never at once."""
        ...


class Bus(Protocol):
    """What tells the other nodes, and has this one look at what they tell: `wsserver.bus.node`."""

    def publish(self, event: Event) -> None:
        """It was committed here."""
        ...

    def look(self, account_id: int) -> None:
        """A session of the account has opened."""
        ...

    def find_online(self, account_id: int, done: Done) -> None:
        """The ids of the account's devices that are online at any node; ``done`` gets them."""
        ...


class Member(Listener, Protocol):
    """A connection that the server counts, and sends away when it stops: a `Channel` is one."""

    anonymous: bool
    """Whether the gate counts it among those that are not authenticated."""

    @property
    def address(self) -> str:
        """What counts as one peer."""

    def drain(self, retry_after_ms: int) -> None:
        """The server is about to stop."""
        ...

    def send_away(self) -> None:
        """The time for calls in flight is up."""
        ...


class Engine:
    """Mounts a channel on each connection, performs operations, publishes what they changed.

    ``loop`` (the running one, unless given) and ``now_ms`` (milliseconds since 1970) are handed in
    by simulations.
    """

    def __init__(
        self,
        *,
        facts: ServerFacts,
        store: Store,
        passwords: Passwords,
        send_letter: Callable[[SendLetter], None],
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.facts = facts
        self.metrics = metrics
        self.hub = Hub()
        self.bus: Bus | None = None
        """Where there are other nodes: set before anyone is connected."""
        self._send_letter = send_letter
        self._store = store
        self._passwords = passwords
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._now_ms = now_ms
        self._members: set[Member] = set()
        self._emptied = asyncio.Event()
        self._connection_id = 0
        self._framed: tuple[Published, bool, bytes] | None = None
        self._seen_ms: dict[bytes, int] = {}
        """When devices were seen that is not noted yet, by their token's hash."""
        self._noting: asyncio.TimerHandle | None = None
        self._lost: dict[bytes, TokenOwner] = {}
        """Whose the tokens of sessions were that are over, the one lost longest first."""

    # What a listener and a channel call.

    def mount(self, connection: Connection) -> Channel:
        """A session for a connection that was opened."""
        address = address_key(connection.remote_address)
        channel = Channel(self, connection, self.number_connection(), address)
        logbook.CONNECTION_OPENED.log(peer=connection.remote_address)
        if not self.enter(channel):
            connection.close(CloseCode.TOO_MANY, "too many connections")
        return channel

    def number_connection(self) -> int:
        """An id for a connection that listens; a push whose author is 0 is told to all of them."""
        self._connection_id += 1
        return self._connection_id

    def enter(self, member: Member) -> bool:
        """A connection came; False where there are too many. `forget` must follow once it is gone.

        It is anonymous until it is announced.
        """
        self._members.add(member)
        member.anonymous = self.facts.gate.enter(member.address)
        return member.anonymous

    def forget(self, member: Member) -> None:
        """Its connection is gone."""
        self._stop_counting(member)
        self._members.discard(member)
        if not self._members:
            self._emptied.set()

    def perform(self, operation: Operation[Any], done: Done, is_wanted: Callable[[], bool]) -> None:
        """Have the operation performed; ``done`` gets its answer or RpcError, never at once."""
        match operation:
            case FindToken(token_hash=token_hash) if token_hash in self._lost:
                # Whoever ended it meanwhile, it was theirs; whether it is live is read next.
                self._loop.call_soon(done, self._lost[token_hash])
            case HashPassword() | CheckPassword():
                self._passwords.submit(operation, done, is_wanted)
            case FindOnline(account_id=account_id) if self.bus is not None:
                self.bus.find_online(account_id, done)
            case FindOnline(account_id=account_id):
                self._loop.call_soon(done, self.hub.find_online(account_id))
            case SendLetter():
                # The answer first: a letter takes time to write, and only some get one.
                self._loop.call_soon(done, None)
                self._loop.call_soon(self._send_letter, operation)
            case _:
                self._store.submit(operation, done)

    def announce(self, opened: OpenedSession, member: Member) -> None:
        """The member's session is live."""
        self.metrics.sessions.inc()
        self._stop_counting(member)
        self._lost.pop(opened.token_hash, None)
        self.hub.announce(opened.account_id, member)
        if self.bus is not None:
            self.bus.look(opened.account_id)
        self._make_room(opened.account_id)
        self.note_use(opened, member.address)

    def note_use(self, opened: OpenedSession, address: str) -> None:
        """A token was used from that address, which comes to something: keep both in mind."""
        self.facts.gate.note_login(address)
        now_ms = self._now_ms()
        if opened.token_used_at_ms + RENEWAL_INTERVAL_S * 1000 < now_ms:
            self._note_seen(opened.token_hash, now_ms)

    def leave(self, account_id: int, member: Member) -> None:
        """The member's session is over, or could not be opened."""
        now_ms = self._now_ms()
        self.hub.leave(account_id, member, now_ms=now_ms)
        if member.device is not None and member.token_hash is not None:
            self.metrics.sessions.dec()
            self._note_seen(member.token_hash, now_ms)
            self._lost[member.token_hash] = TokenOwner(account_id, member.device_id)
            if len(self._lost) > LOST_MAX:
                del self._lost[next(iter(self._lost))]

    def _note_seen(self, token_hash: bytes, now_ms: int) -> None:
        self._seen_ms[token_hash] = now_ms
        if self._noting is None:
            self._noting = self._loop.call_later(SEEN_INTERVAL_S, self._mark_seen)

    def _mark_seen(self) -> None:
        seen = [*itertools.islice(self._seen_ms.items(), SEEN_AT_ONCE)]
        done: Done = self._mark_others
        for token_hash, at_ms in seen:
            del self._seen_ms[token_hash]
            self._store.submit(MarkSeen(token_hash, at_ms), done)
            done = _ignore

    def _mark_others(self, answer: Any) -> None:
        """The first of them is noted, or could not be: the others are, after a while."""
        self._noting = None
        if self._seen_ms:
            self._noting = self._loop.call_later(SEEN_INTERVAL_S, self._mark_seen)

    def _make_room(self, account_id: int) -> None:
        """Close the session that is idle longest where an account has more than it may have."""
        sessions = [one for one in self.hub.listeners_of(account_id) if one.device is not None]
        if self.facts.gate.has_too_many_sessions(len(sessions)):
            min(sessions, key=lambda one: one.idle_since_s).crowd_out()

    def _stop_counting(self, member: Member) -> None:
        """The member is not one of the anonymous ones any more."""
        if member.anonymous:
            member.anonymous = False
            self.facts.gate.leave(member.address)

    def frame_update(self, update: Published, with_wallet: bool) -> bytes:
        """The frame that tells of an update: made once for all listeners."""
        framed = self._framed
        if framed is not None and framed[0] is update and framed[1] is with_wallet:
            return framed[2]
        state = update.state
        message = WalletUpdated(
            state.sequence,
            state.hmac,
            state.device_id,
            state.updated_at,
            state if with_wallet else None,
        )
        frame = encode_text_frame(encode_notification(message))
        self._framed = (update, with_wallet, frame)
        return frame

    # What the store calls.

    def take_answer(self, operation: Operation[Any], answer: Any, done: Done) -> None:
        """An operation was performed: publish what it changed, then tell who waits for it.

        Publishing hangs on the commit, not on the author: one that is gone loses its answer, and
        nobody loses the update.
        """
        if operation.writes:
            # Notices every node reads by itself.
            bus = None if type(operation) is LoadNotices else self.bus
            for event in events_of(operation, answer):
                if bus is None:
                    self.hub.publish(event)
                else:
                    bus.publish(event)
        done(answer)

    # What the server calls.

    def drain(self, retry_after_ms: Callable[[], int]) -> None:
        """Have every session finish what it is at; each is told a time of its own to come back."""
        for member in tuple(self._members):
            member.drain(retry_after_ms())

    async def wait_until_empty(self) -> None:
        """Return once no connection is left."""
        while self._members:
            self._emptied.clear()
            await self._emptied.wait()

    def send_away(self) -> None:
        """Close what is still open: the time for calls in flight is up."""
        for member in tuple(self._members):
            member.send_away()

    def note_all_seen(self) -> None:
        """Note at once what was to be noted by and by: the store is about to be closed."""
        if self._noting is not None:
            self._noting.cancel()
        for token_hash, at_ms in self._seen_ms.items():
            self._store.submit(MarkSeen(token_hash, at_ms), _ignore)
        self._seen_ms.clear()

    async def renew_tokens(self) -> None:
        """Keep the tokens of open connections alive, until it is cancelled."""
        while True:
            await asyncio.sleep(RENEWAL_INTERVAL_S)
            now_ms = self._now_ms()
            for listener in self.hub:
                if listener.token_hash is not None:
                    self._note_seen(listener.token_hash, now_ms)

    async def watch_notices(self) -> None:
        """End the sessions that the operator's commands put an end to, until it is cancelled."""
        after = 0
        while True:
            interval_s: float = NOTICE_INTERVAL_S
            try:
                after = await self._catch_up_with_notices(after)
            except Unavailable:
                pass  # It will pass; a lane whose database is at fault has said so, once.
            except (RpcError, TimeoutError) as error:
                logbook.NOTICES_UNREAD.log(failure=type(error).__name__)
                interval_s = NOTICE_RETRY_INTERVAL_S
            await asyncio.sleep(interval_s)

    async def _catch_up_with_notices(self, after: int) -> int:
        """Have what came after a notice published; gives the newest."""
        newest = await self._ask(FindNewestNotice())
        while after < newest:
            notices = await self._ask(LoadNotices(after, NOTICES_MAX))
            after = notices[-1].notice_id if notices else newest
        return after

    async def _ask(self, operation: Operation[R]) -> R:
        """The store's answer; raises the RpcError that it is, or TimeoutError."""
        answered: asyncio.Future[R] = self._loop.create_future()

        def settle(answer: Any) -> None:
            if answered.done():
                return
            if isinstance(answer, RpcError):
                answered.set_exception(answer)
            else:
                answered.set_result(answer)

        self._store.submit(operation, settle)
        async with asyncio.timeout(NOTICE_ANSWER_TIMEOUT_S):
            return await answered


def _ignore(answer: Any) -> None:
    """Nobody waits for it."""
