"""Which accounts are to be looked at, in the database, and what this node's sessions learn of it.

Pure: the shell puts the question to the store, and hands the answer back. An account is looked at

- when another node has told that something of it moved, or may have (`move`, `move_all`),
- before this node tells of a push of its own: it may have missed that a token has ended, and who
  has no key for a state would take it for a forgery (`publish_later`),
- when a session has opened: what ended its token may have come while it was about to (`move`).

State: at most an entry for each account that has a listener here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from wsserver.hub import Hub, Listener, concerns
from wsserver.operations import Applied, FindMoved, Moved, Published, Revoked, Standing

ACCOUNTS_AT_ONCE: Final = 1000
"""Accounts of one question."""
STATES_AT_ONCE: Final = 32
"""Wallets of one answer: 8 MiB of the largest that are usual."""
REASONS_MAX: Final = 64
"""Revocations of one account that are kept until it has been looked at: as many as devices."""
UNKNOWN_REASON: Final = "expired"
NOBODY: Final = 0
"""The author of what another node stored: everyone here is told."""


@dataclass(slots=True)
class _Mark:
    """What is known of an account that is to be looked at."""

    revoked: list[Revoked] = field(default_factory=list)
    published: Published | None = None
    applied: dict[str, Applied] = field(default_factory=dict)

    def add(self, newer: _Mark) -> None:
        self.revoked = [*self.revoked, *newer.revoked][-REASONS_MAX:]
        if newer.published is not None:
            self.publish(newer.published)
        self.applied.update(newer.applied)

    def publish(self, event: Published) -> None:
        # Of two states of this node's own the newer one is told; of the other that it was applied.
        earlier, self.published = self.published, event
        if earlier is not None:
            state = earlier.state
            applied = Applied(event.account_id, state.device_id, state.sequence)
            self.applied[state.device_id] = applied


class Looking:
    """Marks accounts, makes questions of the marks, and tells the hub what the answers say."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._marks: dict[int, _Mark] = {}
        self._others: dict[int, None] = {}
        """Accounts that may have moved: after those of which it is known."""
        self._asked: dict[int, tuple[_Mark, tuple[Listener, ...]]] = {}

    @property
    def waiting(self) -> bool:
        """Whether there is something to ask, and no question under way."""
        return not self._asked and bool(self._marks or self._others)

    @property
    def looks_at_all(self) -> bool:
        """Whether what was marked by `move_all` has not all been asked about."""
        return bool(self._others)

    def move(self, account_id: int, sequence: int | None = None) -> None:
        """Something of the account has moved: its wallet, to that sequence, or whatever it is."""
        listeners = self._hub.listeners_of(account_id)
        if sequence is None:
            is_news = bool(listeners)
        else:
            is_news = any(one.known_sequence < sequence for one in listeners)
        if is_news:
            self._mark(account_id)

    def revoke(self, event: Revoked) -> None:
        """Sessions of the account are over, another node says."""
        if self._hub.listeners_of(event.account_id):
            mark = self._mark(event.account_id)
            mark.revoked = [*mark.revoked, event][-REASONS_MAX:]

    def move_all(self) -> None:
        """Something may have been missed."""
        self._others = dict.fromkeys(self._hub.account_ids)

    def publish_later(self, event: Published) -> None:
        """Tell of this node's own push once it is sure whom to tell."""
        if self._hub.listeners_of(event.account_id):
            self._mark(event.account_id).publish(event)

    def ask(self) -> FindMoved | None:
        """The next question; its answer goes to `tell`, or `put_off` puts it off."""
        assert not self._asked, "one question at a time"
        standings = []
        for account_id in self._take():
            listeners = self._hub.listeners_of(account_id)
            if listeners:
                mark = self._marks.pop(account_id, None) or _Mark()
                judged = tuple(one for one in listeners if one.token_hash is not None)
                self._asked[account_id] = (mark, judged)
                standings.append(_standing(account_id, mark, judged))
            else:
                self._marks.pop(account_id, None)
        return FindMoved(tuple(standings), STATES_AT_ONCE) if standings else None

    def put_off(self) -> None:
        """The question could not be answered: it is to be put again."""
        asked, self._asked = self._asked, {}
        for account_id, (mark, _) in asked.items():
            newer = self._marks.get(account_id)
            if newer is not None:
                mark.add(newer)
            self._marks[account_id] = mark

    def tell(self, moved: Iterable[Moved]) -> list[Applied]:
        """Tell the sessions what the answer says; gives what devices elsewhere have applied."""
        asked, self._asked = self._asked, {}
        found = {one.account_id: one for one in moved}
        applied_elsewhere = []
        for account_id, (mark, judged) in asked.items():
            one = found.get(account_id)
            if one is not None:
                _end(one, mark, judged)
            for applied in mark.applied.values():
                self._hub.publish(applied)
            if mark.published is not None:
                self._hub.publish(mark.published)
            if one is not None and one.state is not None:
                state = one.state
                self._hub.publish(Published(account_id, state, NOBODY))
                applied_elsewhere.append(Applied(account_id, state.device_id, state.sequence))
            elif one is not None and one.sequence > _known(mark, judged):
                self._mark(account_id)  # It is newer, and was too much for one answer.
        return applied_elsewhere

    def _mark(self, account_id: int) -> _Mark:
        return self._marks.setdefault(account_id, _Mark())

    def _take(self) -> list[int]:
        taken = [*itertools.islice(self._marks, ACCOUNTS_AT_ONCE)]
        for account_id in taken:
            self._others.pop(account_id, None)
        for account_id in [*itertools.islice(self._others, ACCOUNTS_AT_ONCE - len(taken))]:
            del self._others[account_id]
            taken.append(account_id)
        return taken


def _standing(account_id: int, mark: _Mark, judged: tuple[Listener, ...]) -> Standing:
    sessions = {(one.device_id, one.token_hash) for one in judged if one.token_hash is not None}
    return Standing(account_id, _known(mark, judged), tuple(sessions))


def _known(mark: _Mark, judged: tuple[Listener, ...]) -> int:
    """How far all sessions have been told, once they are told what this node itself stored."""
    told = min((one.known_sequence for one in judged if one.device is not None), default=0)
    return told if mark.published is None else max(told, mark.published.state.sequence)


def _end(moved: Moved, mark: _Mark, judged: tuple[Listener, ...]) -> None:
    ended: dict[bytes | None, str | None] = dict(moved.ended)
    for listener in judged:
        if listener.token_hash in ended:
            told = (event.reason for event in mark.revoked if concerns(event, listener))
            listener.revoked(next(told, ended[listener.token_hash] or UNKNOWN_REASON))
