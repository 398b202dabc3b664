"""Ways to break the system, each of which the simulation must find.

A mutant is a mistake that somebody could make: in the server, in its store, on the bus, or in the
client. It is made while its context is entered, by replacing one function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast
from unittest import mock

from tests.simulation import bus, database, devices
from tests.simulation.nodes import Node
from wsclient.errors import AnswerLost
from wsclient.local_state import LocalState, encode_state
from wsclient.reconnection import Outbox
from wsclient.sync import SyncCore
from wsschema.errors import BadCredentials, BadToken, NoSuchVersion, NoWallet
from wsschema.messages import GetWallet, PushWallet, WalletState
from wsserver import methods
from wsserver.engine import Engine
from wsserver.operations import (
    LoadWallet,
    Operation,
    Published,
    PushState,
    ReplacePassword,
    events_of,
    perform,
)
from wsserver.session import Session
from wsserver.store.memory import Memory

Mutation = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake, the first of all seeds that finds it, and the rule that it is found to break."""

    name: str
    mutate: Mutation
    found_by: int
    rule: str


def replacing(owner: Any, name: str, make: Callable[[Any], Any]) -> Mutation:
    """The function of that name replaced by what is made of it."""
    return lambda: mock.patch.object(owner, name, make(getattr(owner, name)))


# The server.


def join_after_reading(_: Any) -> Any:
    def opened(caller: Any, owner: Any, token_hash: Any, call: Any, operation: Any) -> Any:
        opened = yield from perform(operation)
        caller.join(owner, token_hash, call)
        caller.open(opened)
        return opened

    return opened


def read_once(_: Any) -> Any:
    def get_wallet(caller: Any, call: Any) -> Any:
        state = yield from perform(LoadWallet(caller.account_id, call.sequence, caller.token))
        if state is not None:
            return state
        raise NoWallet if call.sequence is None else NoSuchVersion

    return get_wallet


def replacing_get() -> contextlib.AbstractContextManager[Any]:
    flows = {**methods.FLOWS, GetWallet: read_once(None)}
    return mock.patch("wsserver.session.FLOWS", flows)


def publish_for_authors_that_are_there(original: Any) -> Any:
    def take_answer(self: Engine, operation: Any, answer: Any, done: Any) -> None:
        if isinstance(operation, PushState):
            present = self.hub.listeners_of(operation.account_id)
            if operation.author not in {one.connection_id for one in present}:
                done(answer)
                return
        original(self, operation, answer, done)

    return take_answer


class _Queue(list[Published]):
    @property
    def state(self) -> WalletState:
        return self[-1].state


def keep_a_queue(_: Any) -> Any:
    def wallet_updated(self: Any, update: Published, *, congested: bool) -> Any:
        if self._is_deaf():
            return []
        if self._may_notify() and not congested:
            self._notify(update, with_wallet=self._deliver_state)
        else:
            self._wallet_slot = _Queue([*(self._wallet_slot or []), update])
        return self._take_effects()

    return wallet_updated


@contextlib.contextmanager
def queue_of_updates() -> Iterator[None]:
    notify = Session._notify

    def notify_all(self: Any, update: Any, *, with_wallet: bool) -> None:
        for one in update if isinstance(update, _Queue) else [update]:
            notify(self, one, with_wallet=with_wallet)

    with (
        mock.patch.object(Session, "wallet_updated", keep_a_queue(None)),
        mock.patch.object(Session, "_notify", notify_all),
    ):
        yield


def keep_the_oldest(_: Any) -> Any:
    def wallet_updated(self: Any, update: Published, *, congested: bool) -> Any:
        if self._is_deaf():
            return []
        if self._may_notify() and not congested:
            self._notify(update, with_wallet=self._deliver_state)
        elif self._wallet_slot is None:
            self._wallet_slot = update
        return self._take_effects()

    return wallet_updated


# The store.


class EarlyLane(database.Lane):
    """Tells what pushes come to before they are committed; to whom, is for subclasses to say."""

    def commit(self, batch: list[Any]) -> None:
        memory, timeline = self.store.database.memory, self.store.timeline
        if not all(isinstance(operation, PushState) for operation, _ in batch):
            super().commit(batch)
            return
        before, memory.accounts = memory.accounts, database.copy_accounts(memory.accounts)
        answers = [memory.perform(operation) for operation, _ in batch]
        memory.accounts = before
        self.tell(batch, answers)
        timeline.after(2 * self.store.draw_ms(), self.store.process, self.commit_late, batch)

    def tell(self, batch: list[Any], answers: list[Any]) -> None:
        raise NotImplementedError

    def commit_late(self, batch: list[Any]) -> None:
        raise NotImplementedError


class AnsweringLane(EarlyLane):
    def tell(self, batch: list[Any], answers: list[Any]) -> None:
        self.hand_over(batch, answers)

    def commit_late(self, batch: list[Any]) -> None:
        self.store.database.transact([operation for operation, _ in batch])


class PublishingLane(EarlyLane):
    def tell(self, batch: list[Any], answers: list[Any]) -> None:
        for (operation, _), answer in zip(batch, answers, strict=True):
            for event in events_of(operation, answer):
                cast(Node, self.store.process).hub.publish(event)

    def commit_late(self, batch: list[Any]) -> None:
        super(EarlyLane, self).commit(batch)


@contextlib.contextmanager
def forgotten_tokens() -> Iterator[None]:
    """A push is not checked against its token where it is stored, but where it is received."""
    devices_of: dict[bytes, str] = {}
    tell_session, find_session = Memory._tell_session, Memory._find_session
    push_state = Memory._push_state

    def tell(self: Any, account: Any, device: Any) -> Any:
        devices_of[device.token_hash] = device.record.device_id
        return tell_session(self, account, device)

    def push(self: Any, operation: PushState) -> Any:
        with mock.patch.object(Memory, "_find_session", find):
            return push_state(self, operation)

    def find(self: Any, token_hash: bytes, account_id: int) -> Any:
        try:
            return find_session(self, token_hash, account_id)
        except BadToken:
            account = self.accounts[account_id]
            device = account.devices.get(devices_of.get(token_hash, ""))
            if device is None:
                raise
            return account, device

    with (
        mock.patch.object(Memory, "_tell_session", tell),
        mock.patch.object(Memory, "_push_state", push),
    ):
        yield


def store_retries_anew(original: Any) -> Any:
    def push_state(self: Any, operation: PushState) -> Any:
        pushed = original(self, operation)
        if pushed.fresh:
            return pushed
        following = replace(operation, sequence=operation.sequence + 1)
        return replace(original(self, following), state=pushed.state)

    return push_state


def keep_one_version_less(original: Any) -> Any:
    def keep(self: Any, account: Any, device: Any, wallet: Any) -> Any:
        state = original(self, account, device, wallet)
        account.versions.pop(state.sequence - self._context.history_depth + 1, None)
        return state

    return keep


def leave_tokens_alive(original: Any) -> Any:
    def replace_password(self: Any, operation: ReplacePassword) -> None:
        kept = {
            device.record.device_id: device.token_hash
            for device in self.accounts[operation.account_id].devices.values()
        }
        original(self, operation)
        for device in self.accounts[operation.account_id].devices.values():
            device.token_hash = kept[device.record.device_id]

    return replace_password


def give_wallets_to_anybody(original: Any) -> Any:
    def do(self: Any, operation: Operation[Any]) -> Any:
        if isinstance(operation, LoadWallet):
            operation = LoadWallet(operation.account_id, operation.sequence)
        return original(self, operation)

    return do


def restore_under_the_same_epoch(original: Any) -> Any:
    def restore(self: Any, backup: Any, *, keep_tokens: bool) -> None:
        epochs = {account_id: account.epoch for account_id, account in backup.items()}
        original(self, backup, keep_tokens=keep_tokens)
        for account_id, epoch in epochs.items():
            self.memory.accounts[account_id].epoch = epoch

    return restore


# The bus.


def never_catch_up(_: Any) -> Any:
    return lambda self, node: None


# The client.


def forget_what_was_pushed(_: Any) -> Any:
    def encode(state: LocalState) -> bytes:
        pushed, state.pushed = state.pushed, None
        try:
            return encode_state(state)
        finally:
            state.pushed = pushed

    return encode


def send_before_saving(_: Any) -> Any:
    def save_first(self: devices.App) -> Any:
        if self.core.dirty:
            self._save_for(lambda outcome: None)
        yield from ()
        return False

    return save_first


def merge_what_has_landed(original: Any) -> Any:
    def accept(self: SyncCore, latest: Any, *, landed: bool = False) -> None:
        if self.state.pushed is not None:
            self._settle_pushed()
        original(self, latest)

    return accept


def ignore_epochs(original: Any) -> Any:
    def read_witness(self: SyncCore) -> None:
        if self.witness.epoch is not None and self.state.epoch is not None:
            self.state.epoch = self.witness.epoch
        original(self)

    return read_witness


def repeat_everything(_: Any) -> Any:
    return lambda self: []


# Mistakes that were made, and that the simulation has found.


def take_bad_credentials_for_a_refusal(original: Any) -> Any:
    def take_password_error(self: SyncCore, error: Any) -> bool:
        if isinstance(error, BadCredentials):
            self.drop_password_change()
            return False
        return bool(original(self, error))

    return take_password_error


def repeat_password_changes(_: Any) -> Any:
    def drop_outdated(self: Outbox) -> Any:
        pushes = [it for it in self._unanswered.values() if isinstance(it.call, PushWallet)]
        for entry in pushes:
            del self._unanswered[entry.id]
        return [(entry, AnswerLost(entry.method)) for entry in pushes]

    return drop_outdated


def take_any_wallet_for_landed(original: Any) -> Any:
    return lambda self, *, answered: original(self, answered=True)


def forget_lost_password_changes(_: Any) -> Any:
    return SyncCore.drop_password_change


MUTANTS = (
    Mutant("join after reading", replacing(methods, "_open", join_after_reading), 324, "missed"),
    Mutant("read once, though overtaken", replacing_get, 88, "order"),
    Mutant(
        "publish for authors that are still there",
        replacing(Engine, "take_answer", publish_for_authors_that_are_there),
        14,
        "missed",
    ),
    Mutant("a queue for slow readers", queue_of_updates, 251, "limit"),
    Mutant("the oldest wins", replacing(Session, "wallet_updated", keep_the_oldest), 6, "missed"),
    Mutant(
        "answer before the commit",
        lambda: mock.patch.object(database, "Lane", AnsweringLane),
        1,
        "not durable",
    ),
    Mutant(
        "publish before the commit",
        lambda: mock.patch.object(database, "Lane", PublishingLane),
        1,
        "not durable",
    ),
    Mutant("no token check where a push is stored", forgotten_tokens, 25, "refused"),
    Mutant(
        "a retry is stored twice",
        replacing(Memory, "_push_state", store_retries_anew),
        1,
        "sequence",
    ),
    Mutant(
        "one version less is kept", replacing(Memory, "_keep", keep_one_version_less), 1, "stored"
    ),
    Mutant(
        "a password change leaves tokens alive",
        replacing(Memory, "_replace_password", leave_tokens_alive),
        1,
        "refused",
    ),
    Mutant(
        "a restore that nobody announces",
        replacing(database.Database, "restore", restore_under_the_same_epoch),
        3,
        "refused",
    ),
    Mutant(
        "nodes never catch up", replacing(bus.Bus, "tell_of_gap", never_catch_up), 121, "converge"
    ),
    Mutant(
        "the client forgets what it pushed",
        replacing(devices, "encode_state", forget_what_was_pushed),
        1,
        "refused",
    ),
    Mutant(
        "the client sends before it saves",
        replacing(devices.App, "_save_first", send_before_saving),
        93,
        "refused",
    ),
    Mutant(
        "the client merges what has landed",
        replacing(SyncCore, "accept", merge_what_has_landed),
        1,
        "refused",
    ),
    Mutant(
        "the client ignores epochs", replacing(SyncCore, "_read_witness", ignore_epochs), 3, "rest"
    ),
    Mutant(
        "the client repeats what a restore outdated",
        replacing(Outbox, "drop_outdated", repeat_everything),
        198,
        "refused",
    ),
    Mutant(
        "a wallet for dead tokens",
        replacing(Memory, "_perform", give_wallets_to_anybody),
        641,
        "refused",
    ),
    Mutant(
        "bad credentials taken for a refusal",
        replacing(SyncCore, "take_password_error", take_bad_credentials_for_a_refusal),
        887,
        "refused",
    ),
    Mutant(
        "a password change repeated after a restore",
        replacing(Outbox, "drop_outdated", repeat_password_changes),
        1390,
        "refused",
    ),
    Mutant(
        "a login taken for the answer to a password change",
        replacing(SyncCore, "finish_password_change", take_any_wallet_for_landed),
        782,
        "lost",
    ),
    Mutant(
        "a password change that another followed is forgotten",
        replacing(SyncCore, "lose_password_change", forget_lost_password_changes),
        214,
        "refused",
    ),
)
