"""The other nodes: who is there, and whether something of what they said was missed. Pure.

A node says every `HEARTBEAT_S` how many messages it has sent, and hears itself too. It has missed
something of another where a number is left out, where the other is new to it, and where the other
falls silent: it may have died between a commit and its message.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from wsserver.bus.messages import Message

HEARTBEAT_S: Final = 0.15
SILENCE_S: Final = 0.5
"""Who was not heard for so long is cut off, or dead."""
GONE_S: Final = 3.0
"""Whose heartbeat has stopped for so long has no devices any more."""
FORGOTTEN_S: Final = 60.0
"""So long it may yet be alive, cut off, and commit what nobody is told of."""
PEERS_MAX: Final = 1000
"""Nodes that are kept in mind."""


class Heard(enum.Enum):
    """What a message is to its hearer."""

    NEWS = enum.auto()
    GAP = enum.auto()
    """News, and something before it was missed."""
    DOUBLE = enum.auto()
    """It was heard before."""


@dataclass(slots=True)
class _Peer:
    number: int
    heard_s: float
    silent: bool = False
    gone: bool = False


class Peers:
    """The nodes that one of them hears; ``now_s`` of all methods is of one clock."""

    def __init__(self, node: str, now_s: float) -> None:
        self._node = node
        self._peers: dict[str, _Peer] = {}
        self._own_heard_s = now_s

    def __len__(self) -> int:
        """How many are there, and heard."""
        return sum(not peer.silent for peer in self._peers.values())

    @property
    def alone(self) -> bool:
        """Whether there is no other node, nor one that may be cut off."""
        return not self._peers

    @property
    def live(self) -> frozenset[str]:
        """The nodes that are heard."""
        return frozenset(node for node, peer in self._peers.items() if not peer.silent)

    def hear(self, message: Message, now_s: float) -> Heard:
        """A message came; those of the node itself are doubles."""
        if message.node == self._node:
            self._own_heard_s = now_s
            return Heard.DOUBLE
        peer = self._peers.get(message.node)
        if peer is None:
            if len(self._peers) < PEERS_MAX:
                self._peers[message.node] = _Peer(message.number, now_s)
            return Heard.GAP
        returned = peer.silent
        peer.heard_s, peer.silent, peer.gone = now_s, False, False
        if message.number == 0:
            return Heard.GAP if returned else Heard.NEWS
        following = peer.number + 1 if message.entries or not message.understood else peer.number
        if message.number < following:
            return Heard.DOUBLE
        peer.number = message.number
        return Heard.GAP if returned or message.number > following else Heard.NEWS

    def dismiss(self, node: str) -> None:
        """It has taken leave."""
        self._peers.pop(node, None)

    def is_deaf(self, now_s: float) -> bool:
        """Whether the node does not even hear itself."""
        return now_s - self._own_heard_s > SILENCE_S

    def find_silent(self, now_s: float) -> bool:
        """Whether another has fallen silent since this was asked last."""
        fallen = False
        for node, peer in [*self._peers.items()]:
            silence_s = now_s - peer.heard_s
            if silence_s > FORGOTTEN_S:
                del self._peers[node]
            elif silence_s > SILENCE_S and not peer.silent:
                peer.silent = fallen = True
        return fallen

    def find_gone(self, now_s: float) -> list[str]:
        """Those whose devices are offline from now on."""
        gone = [
            node
            for node, peer in self._peers.items()
            if now_s - peer.heard_s > GONE_S and not peer.gone
        ]
        for node in gone:
            self._peers[node].gone = True
        return gone

    def may_miss(self, now_s: float) -> bool:
        """Whether others may be saying what does not come here: nothing is sure but the store."""
        return self.is_deaf(now_s) or any(peer.silent for peer in self._peers.values())
