"""The database, which is the store's rules in memory, and the lanes of each node that lead to it.

As in the real store a lane takes all that waits as one transaction, and the answers come some time
after the commit, in commit order. A process that dies in between loses the answers alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from random import Random
from typing import Any

from tests.simulation.audit import Audit
from tests.simulation.timeline import Owner, Timeline
from wsschema.errors import Unavailable
from wsserver.operations import FindToken, LoadSession, Operation, PushState, ReplacePassword
from wsserver.store.context import Answer, Context, Done
from wsserver.store.lanes import RETRY_AFTER_MS
from wsserver.store.memory import Memory

TOKEN_LIFETIME_MS = 14 * 86_400_000

Backup = dict[int, Any]


class Database:
    """What is durable, for all nodes."""

    def __init__(
        self, timeline: Timeline, audit: Audit, history_depth: int, transaction_ms: float
    ) -> None:
        self.transaction_ms = transaction_ms
        """What a transaction takes at most, while nothing is wrong."""
        self._timeline = timeline
        self._audit = audit
        self._hex_made = 0
        context = Context(
            now_ms=lambda: timeline.unix_ms,
            history_depth=history_depth,
            token_lifetime_ms=TOKEN_LIFETIME_MS,
        )
        self.memory = Memory(context, self._make_hex)
        self.trap: Callable[[Owner], None] | None = None
        """What is to happen, once, to the process that commits next."""
        self.fails_until_ms = 0.0
        """Until then no transaction succeeds."""
        self.slow_until_ms = 0.0
        """Until then none is committed."""

    def _make_hex(self, size: int) -> str:
        self._hex_made += 1
        return f"{self._hex_made:0{2 * size}x}"

    def transact(self, operations: list[Operation[Any]]) -> list[Any]:
        """The answers of one transaction: committed when this returns, or all refused."""
        if self._timeline.now_ms < self.fails_until_ms:
            return [Unavailable(retry_after_ms=RETRY_AFTER_MS) for _ in operations]
        answers = []
        for operation in operations:
            answer = self.memory.perform(operation)
            answers.append(answer)
            if operation.writes:
                self._audit.note_committed(operation, answer)
        self._audit.check_store(self.memory)
        return answers

    def back_up(self) -> Backup:
        """A copy of what is committed now."""
        return copy_accounts(self.memory.accounts)

    def restore(self, backup: Backup, *, keep_tokens: bool) -> None:
        """Be as when the backup was made, under a new epoch; no node may be serving."""
        self.memory.accounts = copy_accounts(backup)
        for account in self.memory.accounts.values():
            account.epoch = self._make_hex(16)
            if not keep_tokens:
                for device in account.devices.values():
                    device.token_hash = None
        self._audit.note_restored(self.memory)


def copy_accounts(accounts: Backup) -> Backup:
    return {
        account_id: dataclasses.replace(
            account,
            devices={name: dataclasses.replace(it) for name, it in account.devices.items()},
            versions=dict(account.versions),
        )
        for account_id, account in accounts.items()
    }


class Lane:
    """One transaction after another, each with all that waits when it is committed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.waiting: list[tuple[Operation[Any], Done]] = []
        self._busy = False
        self._answered_ms = 0.0

    def submit(self, operation: Operation[Any], done: Done) -> None:
        self.waiting.append((operation, done))
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        self._busy = True
        store = self.store
        commits_ms = max(store.timeline.now_ms, store.database.slow_until_ms) + store.draw_ms()
        store.timeline.at(commits_ms, store.process, self._end)

    def _end(self) -> None:
        batch, self.waiting = self.waiting, []
        self.commit(batch)
        self._busy = False
        if self.waiting:
            self._begin()

    def commit(self, batch: list[tuple[Operation[Any], Done]]) -> None:
        store = self.store
        answers = store.database.transact([operation for operation, _ in batch])
        self.hand_over(batch, answers)
        if store.database.trap is not None and isinstance(batch[0][0], ReplacePassword | PushState):
            trap, store.database.trap = store.database.trap, None
            trap(store.process)

    def hand_over(self, batch: list[tuple[Operation[Any], Done]], answers: list[Any]) -> None:
        """Have the answers of a transaction reach the event loop, by and by."""
        store = self.store
        self._answered_ms = max(self._answered_ms, store.timeline.now_ms + store.draw_ms())
        store.timeline.at(self._answered_ms, store.process, self._answer, batch, answers)

    def _answer(self, batch: list[tuple[Operation[Any], Done]], answers: list[Any]) -> None:
        for (operation, done), answer in zip(batch, answers, strict=True):
            self.store.answer(operation, answer, done)


class Store:
    """A node's way to the database, with the face of a store on the event loop."""

    def __init__(
        self, database: Database, timeline: Timeline, process: Owner, random: Random, answer: Answer
    ) -> None:
        self.database = database
        self.timeline = timeline
        self.process = process
        self.answer = answer
        self._random = random
        self._writing, self._resuming, self._reading = Lane(self), Lane(self), Lane(self)

    def draw_ms(self) -> float:
        """How long the next thing takes."""
        return self.database.transaction_ms * self._random.random()

    def submit(self, operation: Operation[Any], done: Done) -> None:
        if operation.writes:
            self._writing.submit(operation, done)
        elif type(operation) in (FindToken, LoadSession):
            self._resuming.submit(operation, done)
        else:
            self._reading.submit(operation, done)
