"""A node on the bus: tells the others what was committed here, and has looked at what they tell.

State: the other nodes, devices elsewhere, accounts to look at, and what is to be said at the end of
this turn of the event loop. Everything here runs on the loop, which simulations hand in.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wsschema.errors import RpcError, Unavailable
from wsserver import logbook
from wsserver.bus import messages
from wsserver.bus.looking import Looking
from wsserver.bus.messages import (
    Asks,
    Came,
    Counted,
    Counts,
    Ended,
    Entry,
    Farewell,
    Message,
    Stands,
    Unreadable,
    Went,
)
from wsserver.bus.peers import HEARTBEAT_S, Heard, Peers
from wsserver.bus.presence import Device, Elsewhere
from wsserver.bus.transports import Transport
from wsserver.hub import Hub
from wsserver.operations import (
    Applied,
    DeviceRecord,
    Event,
    LoadDevices,
    Operation,
    Published,
    Revoked,
    StoredDevices,
)

RESYNC_MIN_S: Final = 0.3
"""How far apart questions for all accounts are, however much is missed."""
RESYNC_MAX_S: Final = 30.0
"""How far apart about, at most, where numbers don't tell of what was missed."""
SWEEP_S: Final = 2.0
"""How long nodes may take to say anew which devices they have."""
COUNT_S: Final = 0.5
"""How long a count of devices waits for nodes that don't answer."""
COUNTS_MAX: Final = 1000
"""Counts under way; one more is answered with what is known."""

Done = Callable[[Any], None]
Submit = Callable[[Operation[Any], Done], None]


@dataclass(slots=True)
class _Count:
    account_id: int
    done: Done
    found: set[str]
    missing: set[str]
    ends_s: float


@dataclass(slots=True)
class _Said:
    """What is to be said: to those who follow the account, and to all."""

    of_accounts: list[tuple[int, Entry]] = field(default_factory=list)
    to_all: list[Entry] = field(default_factory=list)


class Bus:
    """Stands between the engine and its hub. ``submit`` takes operations for the store.

    ``clock``: seconds. ``jitter``: a number from 0 to 1, anew each time.
    """

    def __init__(
        self,
        hub: Hub,
        transport: Transport,
        submit: Submit,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        node: str | None = None,
        jitter: Callable[[], float] = lambda: secrets.randbelow(1000) / 1000,
    ) -> None:
        self.node = node or secrets.token_hex(8)
        self.messages = {"sent": 0, "received": 0, "dropped": 0}
        """By what became of them: dropped, where the bus was cut off or its queue full."""
        self.gaps = self.resyncs = 0
        """How often something may have been missed, and all accounts here were looked at."""
        self._hub = hub
        self._transport = transport
        self._submit = submit
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._clock = clock
        self._now_ms = now_ms
        self._jitter = jitter
        now_s = clock()
        self._peers = Peers(self.node, now_s)
        self._looking = Looking(hub)
        self._elsewhere = Elsewhere()
        self._number = 0
        self._said = _Said()
        self._changed: dict[int, None] = {}
        self._told: dict[int, frozenset[str]] = {}
        """The devices that the others know to be here."""
        self._following: set[int] = set()
        self._to_tell: defaultdict[int, set[str]] = defaultdict(set)
        """Devices of other nodes of which sessions here are to hear."""
        self._records: defaultdict[int, dict[str, DeviceRecord]] = defaultdict(dict)
        """Devices of other nodes that sessions here know to be online: for when they are gone."""
        self._counts: dict[int, _Count] = {}
        self._count_number = 0
        self._flushing = False
        self._missed = False
        self._deaf = self._late = False
        self._tick: asyncio.TimerHandle | None = None
        self._ticked_s = self._resynced_s = now_s
        self._resync_at_s = now_s
        self._sweep_at_s: float | None = None
        self._stopped = False
        hub.changed = self._note_changed
        hub.find_elsewhere = self._elsewhere.find

    # What the server asks.

    async def open(self) -> None:
        """Be heard from now on. Raises BusError."""
        await self._transport.open(self.receive, self.lose)
        self.begin()

    def begin(self) -> None:
        """The transport is open."""
        self._ticked_s = self._clock()
        self._peers = Peers(self.node, self._ticked_s)
        self._beat()

    async def close(self) -> None:
        """Take leave, once the sessions are over."""
        if self._tick is not None:
            self._flush()
            self._say_to_all([Farewell()])
            self._tick.cancel()
        self._stopped = True
        await self._transport.close()

    @property
    def connected(self) -> bool:
        """Whether the node hears itself."""
        return self._transport.connected and not self._deaf

    @property
    def nodes(self) -> int:
        """How many other nodes are heard."""
        return len(self._peers)

    # What the engine tells.

    def publish(self, event: Event) -> None:
        """It was committed here: tell the sessions of this node, and the others."""
        account_id = event.account_id
        match event:
            case Published(state=state, author=author):
                self._say(account_id, Stands(account_id, state.sequence))
                listeners = self._hub.listeners_of(account_id)
                if self._peers.alone or all(one.connection_id == author for one in listeners):
                    self._hub.publish(event)
                else:
                    self._looking.publish_later(event)
            case Applied():
                self._say(account_id, event)
                self._hub.publish(event)
            case Revoked():
                self._say(account_id, Ended(account_id, event.reason, event.device_id))
                self._hub.publish(event)
        self._flush_soon()

    def doubt(self, account_id: int, sequence: int) -> None:
        """Nobody knows whether a push of it was committed here: all nodes look."""
        self._say(account_id, Stands(account_id, sequence))
        self._looking.move(account_id)
        self._flush_soon()

    def look(self, account_id: int) -> None:
        """A session of the account has opened: what ended its token may have come meanwhile."""
        if not self._peers.alone:
            self._looking.move(account_id)
            self._flush_soon()

    def find_online(self, account_id: int, done: Done) -> None:
        """The ids of the account's devices that are online, at whatever node; never at once."""
        online = self._hub.find_online(account_id)
        live = self._peers.live
        if not live or len(self._counts) >= COUNTS_MAX:
            self._loop.call_soon(done, online | self._elsewhere.find(account_id))
            return
        self._count_number += 1
        ends_s = self._clock() + COUNT_S
        count = _Count(account_id, done, set(online), set(live), ends_s)
        self._counts[self._count_number] = count
        self._said.to_all.append(Counts(account_id, self._count_number))
        self._flush_soon()

    # What the transport tells.

    def receive(self, payload: str | bytes) -> None:
        """A message came."""
        try:
            message = messages.decode(payload)
        except Unreadable:
            self._miss()
            return
        heard = self._peers.hear(message, self._clock())
        if heard is Heard.DOUBLE:
            return
        self.messages["received"] += 1
        if heard is Heard.GAP or not message.understood:
            self._miss()
        for entry in message.entries:
            self._take(message, entry)
        self._flush_soon()

    def lose(self) -> None:
        """The transport was cut off: something may have come to nobody, either way."""
        self._number += 1
        self._miss()

    def _take(self, message: Message, entry: Entry) -> None:
        node = message.node
        match entry:
            case Stands(account_id, sequence):
                self._looking.move(account_id, sequence)
            case Ended(account_id, reason, device_id):
                self._looking.revoke(Revoked(account_id, reason, device_id))
            case Applied():
                self._tell_applied(entry)
            case Came(account_id, device_id):
                if self._hub.listeners_of(account_id):
                    device = (account_id, device_id)
                    if self._elsewhere.come(node, device):
                        self._tell_devices([device])
            case Went(account_id, device_id):
                if self._elsewhere.go(node, (account_id, device_id)):
                    self._tell_devices([(account_id, device_id)])
            case Asks(account_id):
                for device_id in self._told.get(account_id, ()):
                    self._say(account_id, Came(account_id, device_id))
            case Counts(account_id, number):
                found = tuple(self._hub.find_online(account_id))
                self._said.to_all.append(Counted(node, number, found))
            case Counted(asker, number, device_ids):
                if asker == self.node and number in self._counts:
                    self._count(number, node, device_ids)
            case Farewell():
                self._peers.dismiss(node)
                self._tell_devices(self._elsewhere.lose(node))

    # Saying.

    def _say(self, account_id: int, entry: Entry) -> None:
        self._said.of_accounts.append((account_id, entry))

    def _note_changed(self, account_id: int) -> None:
        self._changed[account_id] = None
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Say all that this turn of the loop has brought, and ask for all that is to be asked."""
        self._flushing = False
        if self._stopped:
            return
        changed, self._changed = self._changed, {}
        for account_id in changed:
            self._compare(account_id)
        said, self._said = self._said, _Said()
        if self._transport.by_account:
            self._say_to_all(said.to_all)
            by_account: defaultdict[int, list[Entry]] = defaultdict(list)
            for account_id, entry in said.of_accounts:
                by_account[account_id].append(entry)
            for account_id, entries in by_account.items():
                for packed in messages.pack(entries):
                    # A message that nobody could be sent is a gap in the numbers.
                    if not self._send(messages.encode(self.node, 0, packed), account_id):
                        self._number += 1
        else:
            self._say_to_all([*said.to_all, *(entry for _, entry in said.of_accounts)])
        self._ask()
        self._ask_devices()

    def _say_to_all(self, entries: Iterable[Entry]) -> None:
        for packed in messages.pack(entries):
            self._number += 1
            self._send(messages.encode(self.node, self._number, packed))

    def _send(self, payload: str, account_id: int | None = None) -> bool:
        if self._peers.alone:
            return False  # Who comes now sees by the numbers that there was something.
        sent = self._transport.send(payload, account_id)
        self.messages["sent" if sent else "dropped"] += 1
        return sent

    def _compare(self, account_id: int) -> None:
        """Tell the others which devices have come and gone here, and follow whom we serve."""
        served = bool(self._hub.listeners_of(account_id))
        if served and account_id not in self._following:
            self._following.add(account_id)
            self._transport.follow(account_id, self.look)
        elif not served and account_id in self._following:
            self._following.discard(account_id)
            self._transport.unfollow(account_id)
            self._elsewhere.forget(account_id)
            self._records.pop(account_id, None)
        here, told = self._hub.find_online(account_id), self._told.pop(account_id, frozenset())
        if here:
            self._told[account_id] = here
        for device_id in here - told:
            self._say(account_id, Came(account_id, device_id))
        for device_id in told - here:
            self._say(account_id, Went(account_id, device_id))
        if here and not told:
            self._say(account_id, Asks(account_id))

    # Asking the database.

    def _ask(self) -> None:
        if self._looking.waiting:
            question = self._looking.ask()
            if question is not None:
                self._submit(question, self._take_answer)

    def _take_answer(self, answer: Any) -> None:
        if self._stopped:
            return
        if isinstance(answer, RpcError):
            if not isinstance(answer, Unavailable):
                logbook.MOVED_UNREAD.log(failure=type(answer).__name__)
            self._looking.put_off()  # The next heartbeat puts it again.
            return
        for applied in self._looking.tell(answer):
            self._tell_applied(applied, locally=False)
        self._flush_soon()

    def _miss(self) -> None:
        if not self._missed:
            self._missed = True
            self.gaps += 1
        self._resync_if_due()

    def _resync_if_due(self) -> None:
        now_s = self._clock()
        overdue = self._transport.by_account and now_s >= self._resync_at_s
        if now_s - self._resynced_s < RESYNC_MIN_S or self._looking.looks_at_all:
            return
        may_miss = self._peers.may_miss(now_s)
        if not (self._missed or overdue or may_miss):
            return
        self._resynced_s = now_s
        self._resync_at_s = now_s + RESYNC_MAX_S * (0.75 + self._jitter() / 2)
        self.resyncs += 1
        self._looking.move_all()
        if self._missed and self._sweep_at_s is None:
            self._sweep_at_s = now_s + SWEEP_S
            self._elsewhere.begin_round()
            for account_id in self._told:
                self._say(account_id, Asks(account_id))
        self._missed = False
        self._flush_soon()

    def _beat(self) -> None:
        """What is done at every heartbeat."""
        now_s = self._clock()
        was_late, self._late = self._late, now_s - self._ticked_s > 2 * HEARTBEAT_S
        self._ticked_s = now_s
        self._tick = self._loop.call_later(HEARTBEAT_S, self._beat)
        self._transport.send(messages.encode(self.node, self._number))
        # After a stall of our own, what the others said may lie unread.
        if was_late or not self._late:
            if self._peers.find_silent(now_s):
                self._miss()
            for node in self._peers.find_gone(now_s):
                self._tell_devices(self._elsewhere.lose(node))
            self._note_deafness(self._peers.is_deaf(now_s))
        if self._sweep_at_s is not None and now_s >= self._sweep_at_s:
            self._sweep_at_s = None
            self._tell_devices(self._elsewhere.sweep())
        self._resync_if_due()
        for number in [number for number, it in self._counts.items() if it.ends_s <= now_s]:
            self._end_count(number)
        self._flush_soon()

    def _note_deafness(self, deaf: bool) -> None:
        if deaf and not self._deaf:
            logbook.BUS_DEAF.log(pause_s=RESYNC_MIN_S)
            self._miss()
        elif self._deaf and not deaf:
            logbook.BUS_HEARS.log()
            self._miss()
        self._deaf = deaf

    # Presence.

    def _tell_applied(self, event: Applied, *, locally: bool = True) -> None:
        if event.device_id in self._hub.find_online(event.account_id):
            if locally:
                self._hub.publish(event)
        else:
            self._tell_devices([(event.account_id, event.device_id)])

    def _tell_devices(self, devices: Iterable[Device]) -> None:
        """Have sessions here that hear of devices hear of these; not of what is online here too."""
        for account_id, device_id in devices:
            listeners = self._hub.listeners_of(account_id)
            here = any(one.device_id == device_id and one.device for one in listeners)
            if not here and any(listener.presence for listener in listeners):
                self._to_tell[account_id].add(device_id)
                self._flush_soon()

    def _ask_devices(self) -> None:
        to_tell, self._to_tell = self._to_tell, defaultdict(set)
        for account_id, device_ids in to_tell.items():
            self._load_devices(account_id, device_ids)

    def _load_devices(self, account_id: int, device_ids: set[str]) -> None:
        def tell(answer: StoredDevices | RpcError) -> None:
            if isinstance(answer, RpcError):
                self._to_tell[account_id] |= device_ids
                return
            if not self._hub.listeners_of(account_id):
                return
            stored = {record.device_id: record for record in answer.devices}
            known = self._records[account_id]
            for device_id in device_ids:
                record = stored.get(device_id) or known.get(device_id)
                online = self._hub.is_online(account_id, device_id)
                if online and record is not None:
                    known[device_id] = record
                    self._hub.tell_device(account_id, record, online=True)
                elif record is not None:
                    known.pop(device_id, None)
                    seen = replace(record, last_seen_at_ms=self._now_ms())
                    self._hub.tell_device(account_id, seen, online=False)

        self._submit(LoadDevices(account_id), tell)

    def _count(self, number: int, node: str, device_ids: tuple[str, ...]) -> None:
        count = self._counts[number]
        count.found.update(device_ids)
        count.missing.discard(node)
        if not count.missing:
            self._end_count(number)

    def _end_count(self, number: int) -> None:
        count = self._counts.pop(number)
        silent = self._elsewhere.find_at(count.account_id, frozenset(count.missing))
        count.done(frozenset(count.found) | silent)
