"""A bus between nodes that loses, doubles and delays, and what makes up for that.

It stands in for the server's own. What comes over it is a question, not an answer: that something
of an account has moved. The node that hears of it asks the database, in one read, where the wallet
stands and which tokens are live; it ends the sessions whose tokens are not, and tells the others of
the state. So nothing depends on the order in which things come: a device that a password change has
left behind hears of no state that it has no key for, and a revocation that comes late ends no
session that the device has begun meanwhile. It asks the same

- before it tells of a push of its own, for it may have missed that a token has ended,
- when a session becomes live, for that may have been missed while it was about to be,
- for all accounts, when it may have missed something.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from tests.simulation.database import Database
from tests.simulation.timeline import Timeline
from wsserver.hub import Hub, Listener, concerns
from wsserver.operations import Applied, Event, Published, Revoked

DELAY_MS = 40.0
READ_MS = 10.0
HEARTBEAT_MS = 3000.0
"""So long after a loss a node knows of it: by a gap in the numbers, or a heartbeat that is late."""
UNKNOWN_REASON = "expired"
NOBODY = 0
"""The author of what comes over the bus. Ids of connections begin at 1, on each node anew."""


class Node(Protocol):
    """A node, as the bus sees it."""

    alive: bool
    hub: Hub


class Bus:
    """``loses`` and ``doubles``: how many of the messages, from 0 to 1."""

    def __init__(
        self,
        timeline: Timeline,
        database: Database,
        random: Random,
        *,
        loses: float,
        doubles: float,
    ) -> None:
        self.nodes: Sequence[Node] = ()
        self.loses, self.doubles = loses, doubles
        self._timeline = timeline
        self._database = database
        self._random = random

    def send(self, sender: Node, event: Event) -> None:
        """A node has committed what the event tells, and is about to tell its own sessions."""
        if isinstance(event, Published):
            for listener in self._find_dead(sender, event.account_id):
                listener.revoked(UNKNOWN_REASON)
        for node in self.nodes:
            if node is sender or not node.alive:
                continue
            drawn = self._random.random()
            if drawn < self.loses:
                self.tell_of_gap(node)
                continue
            for _ in range(2 if drawn > 1 - self.doubles else 1):
                delay_ms = DELAY_MS * self._random.random()
                self._timeline.after(delay_ms, node, self._receive, node, event)

    def tell_of_gap(self, node: Node) -> None:
        """The node may have missed something, and will know."""
        for account_id in self._database.memory.accounts:
            delay_ms = HEARTBEAT_MS * self._random.random()
            self._timeline.after(delay_ms, node, self.look, node, account_id)

    def _receive(self, node: Node, event: Event) -> None:
        match event:
            case Published(account_id):
                self.look(node, account_id)
            case Revoked(account_id):
                self.look(node, account_id, event)
            case Applied():
                node.hub.publish(event)

    def look(self, node: Node, account_id: int, revoked: Revoked | None = None) -> None:
        """Read where the account stands, and tell it some time later.

        ``revoked``: why some of its sessions may be over.
        """
        head = self._database.memory.accounts[account_id].head
        dead = self._find_dead(node, account_id)
        live = [
            one for one in node.hub.listeners_of(account_id) if one.token_hash and one not in dead
        ]

        def tell() -> None:
            for listener in dead:
                if revoked is not None and concerns(revoked, listener):
                    listener.revoked(revoked.reason)
                else:
                    listener.revoked(UNKNOWN_REASON)
            if head is not None:
                for listener in live:
                    listener.wallet_updated(Published(account_id, head, NOBODY))

        if dead or (head is not None and live):
            self._timeline.after(READ_MS * self._random.random(), node, tell)

    def _find_dead(self, node: Node, account_id: int) -> list[Listener]:
        """The account's sessions at this node whose tokens have ended."""
        account = self._database.memory.accounts[account_id]
        live = {device.token_hash for device in account.devices.values()}
        listeners = node.hub.listeners_of(account_id)
        return [one for one in listeners if one.token_hash and one.token_hash not in live]
