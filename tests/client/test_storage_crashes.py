"""The local store on a simulated disk: a crash, or a failure, at every call that it makes."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.client.simulated_disk import MOMENTS, Crash, SimulatedDisk
from wsclient import crypto
from wsclient.errors import WrongPassword
from wsclient.storage import LocalStore
from wsschema.messages import Kdf

HOME = Path("/simulated/home")
FOLDER = HOME / "wallets" / "joe"
PASSWORDS = ("before", "after")
KDF = Kdf.scrypt(2**14)


class State(NamedTuple):
    """What an opening finds."""

    payload: bytes | None
    passwords: frozenset[str]


def state(payload: bytes | None, *passwords: str) -> State:
    return State(payload, frozenset(passwords))


class Step(NamedTuple):
    act: Callable[[LocalStore], None]
    leaves: State


NOTHING = state(None, *PASSWORDS)
"""In a new folder, any password will do."""

STEPS = {
    "open": Step(lambda store: None, state(None, "before")),
    "save": Step(lambda store: store.save(b"first" * 100), state(b"first" * 100, "before")),
    "save again": Step(lambda store: store.save(b"second" * 9), state(b"second" * 9, "before")),
    "add password": Step(
        lambda store: store.add_password("after"), state(b"second" * 9, "before", "after")
    ),
    "save for both": Step(lambda store: store.save(b"3rd" * 50), state(b"3rd" * 50, *PASSWORDS)),
    "keep only password": Step(
        lambda store: store.keep_only_password("after"), state(b"3rd" * 50, "after")
    ),
    "save nothing": Step(lambda store: store.save(b""), state(b"", "after")),
    "add another": Step(lambda store: store.add_password("before"), state(b"", *PASSWORDS)),
    "drop newest password": Step(lambda store: store.drop_newest_password(), state(b"", "after")),
    "drop no only password": Step(lambda store: store.drop_newest_password(), state(b"", "after")),
    "add it again": Step(lambda store: store.add_password("before"), state(b"", *PASSWORDS)),
    "keep newest password": Step(lambda store: store.keep_newest_password(), state(b"", "before")),
}
each_step = pytest.mark.parametrize("name", STEPS)


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is crashed here is not the cryptography."""

    def stretch(root_password: str, salt: bytes, kdf: Kdf, length_bytes: int) -> bytes:
        return hashlib.blake2b(salt + root_password.encode(), digest_size=length_bytes).digest()

    monkeypatch.setattr(crypto, "stretch", stretch)


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal runs leave equal disks, so that none is examined twice."""
    monkeypatch.setattr(os, "urandom", lambda size: random.Random(size).randbytes(size))


def open_store(disk: SimulatedDisk, password: str) -> LocalStore:
    return LocalStore.open(FOLDER, root_password=password, kdf=KDF, files=disk)


def find(disk: SimulatedDisk) -> State:
    """What openings with all passwords find, each on a disk of its own."""
    found = {}
    for password in PASSWORDS:
        try:
            found[password] = open_store(disk.process_killed(), password).load()
        except WrongPassword:
            continue
    (payload,) = set(found.values())
    return State(payload, frozenset(found))


@dataclass
class Trial:
    """A step that is about to be taken, and what is there before it."""

    disk: SimulatedDisk
    there: State
    store: LocalStore | None
    act: Callable[[], object]
    failed: tuple[str, str] = ("", "")


def trial(name: str) -> Trial:
    """The step of that name; all steps before it are done, and returned."""
    disk, there = SimulatedDisk(HOME), NOTHING
    store: LocalStore | None = None
    for earlier, step in STEPS.items():
        if earlier == name:
            break
        store = store or open_store(disk, "before")
        step.act(store)
        there = step.leaves
    if store is None:
        return Trial(disk, there, None, lambda: open_store(disk, "before"))
    return Trial(disk, there, store, partial(STEPS[name].act, store))


def fail_each_call(
    prepare: Callable[[], Trial], failure: BaseException, *, lasting: bool
) -> Iterator[Trial]:
    """The step, failed at each of its calls: before, halfway and after."""
    for call in itertools.count(1):
        for moment in MOMENTS:
            attempt = prepare()
            attempt.disk.fail_at(call, moment, failure, lasting=lasting)
            try:
                attempt.act()
            except type(failure):
                attempt.failed = (attempt.disk.calls[call - 1], moment)
                yield attempt
            else:
                if moment == "before":
                    assert len(attempt.disk.calls) == call - 1
                    return


def crash_each_call(prepare: Callable[[], Trial]) -> Iterator[SimulatedDisk]:
    """The disks after a crash at each call of the step, of the process or of the machine."""
    for attempt in fail_each_call(prepare, Crash(), lasting=True):
        yield from attempt.disk.crashes()


class Examination:
    """Opens disks after a crash, and those after a crash of that opening; each disk once."""

    def __init__(self) -> None:
        self.found: dict[object, State] = {}

    def examine(self, disk: SimulatedDisk, allowed: set[State], *, crashes_more: int) -> None:
        key = disk.fingerprint(), crashes_more
        if key in self.found:
            assert self.found[key] in allowed
            return
        found = self.found[key] = find(disk)
        assert found in allowed
        for password in found.passwords:
            self._open(disk, found, password)
            if crashes_more:

                def prepare(password: str = password) -> Trial:
                    copy = disk.process_killed()
                    return Trial(copy, found, None, lambda: open_store(copy, password))

                opened = open_one(found, password)
                for again in crash_each_call(prepare):
                    self.examine(again, allowed | {opened}, crashes_more=crashes_more - 1)

    def _open(self, disk: SimulatedDisk, found: State, password: str) -> None:
        disk = disk.process_killed()
        store = open_store(disk, password)
        assert leftovers(disk) == set()
        # What has been read once is there for good,
        there = open_one(found, password)
        assert {find(later) for later in disk.crashes()} == {there}
        # and so is what is saved now.
        store.save(b"goes on")
        assert {find(later) for later in disk.crashes()} == {there._replace(payload=b"goes on")}


def open_one(found: State, password: str) -> State:
    """What is there after an opening with that password."""
    return state(None, password) if found == NOTHING else found


def leftovers(disk: SimulatedDisk) -> set[str]:
    names = {path.name for path in disk.names if path.parent == FOLDER}
    return names - {"wallet.sealed", "lock"}


@each_step
def test_a_crash_at_any_call_leaves_what_was_there_or_what_was_to_be(name: str) -> None:
    there, leaves = trial(name).there, STEPS[name].leaves
    examination = Examination()

    for disk in crash_each_call(lambda: trial(name)):
        examination.examine(disk, {there, leaves}, crashes_more=2)

    assert set(examination.found.values()) >= {there, leaves}


@each_step
def test_what_a_returned_step_did_survives_a_power_cut(name: str) -> None:
    done = trial(name)
    done.act()

    assert {find(disk) for disk in done.disk.crashes()} == {STEPS[name].leaves}


@each_step
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_step_that_fails_at_any_call_says_so_and_the_store_goes_on(
    name: str, lasting: bool
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    failed = set()
    for attempt in fail_each_call(lambda: trial(name), full, lasting=lasting):
        disk, store = attempt.disk, attempt.store
        disk.heal()
        failed.add(attempt.failed)

        assert lasting or leftovers(disk) == set()
        if store is None:
            assert not disk.locked
            store = open_store(disk, "before")
        else:
            assert disk.locked
            renamed = attempt.failed == ("rename", "after") or attempt.failed[0] == "fsync_folder"
            assert find(disk) == (STEPS[name].leaves if renamed else attempt.there)
            assert store.load() == find(disk).payload
        store.save(b"goes on")

        (there,) = {find(later) for later in disk.crashes()}
        assert there.payload == b"goes on"
        assert there.passwords in (attempt.there.passwords, STEPS[name].leaves.passwords)
        assert leftovers(disk) == set()
    assert {("create", "before"), ("write", "halfway"), ("fsync_folder", "after")} <= failed
