"""A node: the server's own engine, channels, sessions and hub, on simulated time and a database."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

from tests.simulation.audit import Violation
from tests.simulation.bus import Bus
from tests.simulation.database import Database, Store
from tests.simulation.links import Link
from tests.simulation.timeline import Timeline, Timer
from wsserver.channel import Channel
from wsserver.engine import Engine, Member
from wsserver.hub import Listener
from wsserver.metrics import Metrics
from wsserver.operations import (
    SCRYPT_N,
    SCRYPT_P,
    SCRYPT_R,
    CheckPassword,
    HashPassword,
    OpenedSession,
    Operation,
    PasswordHash,
    Pushed,
    PushState,
    events_of,
)
from wsserver.session import ServerFacts
from wsserver.store.context import Done

HASHING_MS = 150.0

_METRICS = Metrics()
"""Of all nodes together: nobody reads them."""


class Node(Engine):
    """One server process, from its start to its end; ``alive`` until then."""

    def __init__(
        self,
        facts: ServerFacts,
        timeline: Timeline,
        database: Database,
        bus: Bus,
        random: Random,
        make_store: Callable[..., Store] = Store,
    ) -> None:
        self.alive = True
        self.timeline = timeline
        self.database = database
        self.links: list[Link] = []
        self._published = 0
        """The newest sequence that was published here."""
        self._bus = bus
        store = make_store(database, timeline, self, random, self.take_answer)
        super().__init__(
            facts=facts,
            store=store,
            passwords=Passwords(timeline, self, random),
            send_letter=lambda letter: None,
            metrics=_METRICS,
            loop=cast(Any, Loop(timeline, self)),
            now_ms=lambda: timeline.unix_ms,
        )

    def take_answer(self, operation: Operation[Any], answer: Any, done: Done) -> None:
        if operation.writes:
            for event in events_of(operation, answer):
                self._bus.send(self, event)
        super().take_answer(operation, answer, done)
        if isinstance(answer, Pushed) and answer.fresh:
            assert isinstance(operation, PushState)
            self._published = answer.state.sequence
            for channel in self.hub.listeners_of(operation.account_id):
                if channel.connection_id != operation.author:
                    self._check_told(channel)

    def announce(self, opened: OpenedSession, member: Member) -> None:
        super().announce(opened, member)
        self._check_told(member)
        self._bus.look(self, opened.account_id)

    def _check_told(self, listener: Listener) -> None:
        """A session that is live has been told of what was published, or is about to be."""
        assert isinstance(listener, Channel)
        session = listener._session
        slot = session._wallet_slot
        known = max(session.newest, 0 if slot is None else slot.state.sequence)
        if session.live and session._revoked is None and known < self._published:
            raise Violation("missed", f"{session.device_id} is not told of {self._published}")

    def accept(self, link: Link) -> None:
        """Take a connection in."""
        self.links.append(link)
        link.application = self.mount(link)

    def die(self) -> None:
        """Be gone, with all that was not committed."""
        self.alive = False


class Loop:
    """What the engine asks of an event loop; nothing comes of it once the process has died."""

    def __init__(self, timeline: Timeline, process: Node) -> None:
        self._timeline, self._process = timeline, process

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self._timeline.after(0, self._process, callback, *args)

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = Timer()

        def fire() -> None:
            if timer.alive:
                callback(*args)

        self._timeline.after(delay_s * 1000, self._process, fire)
        return timer


class Passwords:
    """The password pool without the work: a hash that tells its password."""

    def __init__(self, timeline: Timeline, process: Node, random: Random) -> None:
        self._timeline, self._process, self._random = timeline, process, random

    def submit(
        self,
        operation: HashPassword | CheckPassword,
        done: Callable[[Any], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        delay_ms = HASHING_MS * self._random.random()
        self._timeline.after(delay_ms, self._process, self._work, operation, done, is_wanted)

    def _work(
        self,
        operation: HashPassword | CheckPassword,
        done: Callable[[Any], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        if not is_wanted():
            return
        if isinstance(operation, HashPassword):
            done(hash_of(operation.password))
        else:
            done(operation.stored == hash_of(operation.password))


def hash_of(password: str) -> PasswordHash:
    """A stored password that costs nothing."""
    return PasswordHash(password.encode(), b"", SCRYPT_N, SCRYPT_R, SCRYPT_P)
