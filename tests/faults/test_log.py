"""The tail of SQLite's write-ahead log is damaged: what comes back, exactly.

SQLite promises: a commit is there again if all bytes of the log up to its end are as they were
written. From the first damaged frame on nothing is, whatever follows. A push is answered once the
disk has synced the log beyond its commit, so a crash or a power cut can damage nothing before it.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.common import make_token, provision
from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import open_client, state
from tests.e2e.serving import ServerProcess

PUSHES = 40
FRAME_BYTES = 24 + 4096


class Killed:
    """A server that was killed after some pushes, and how long its log was after each."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.log = Path(f"{server.database}-wal")
        self.ends = [0]
        """The length of the log once the push of that sequence had been answered."""

    async def run(self) -> None:
        await asyncio.to_thread(provision, self.server.settings["database_url"], 1)
        await self.server.start()
        async with open_client(self.server.url) as client:
            await client.call("session.resume", token=make_token(1))
            for sequence in range(1, PUSHES + 1):
                await client.push(sequence)
                self.ends.append(self.log.stat().st_size)
            self.server.signal(signal.SIGKILL)
            await self.server.wait()

    async def check(self, sequence: int) -> None:
        """It serves again, with exactly the pushes up to that one, and goes on from there."""
        await self.server.start()
        async with open_client(self.server.url) as client:
            opened = await client.call("session.resume", token=make_token(1))
            assert opened["sequence"] == sequence
            kept = (await client.call("wallet.history"))["versions"]
            expected = [*range(sequence, max(0, sequence - 10), -1)]
            assert [version["sequence"] for version in kept] == expected
            for version in kept:
                stored = await client.call("wallet.get", sequence=version["sequence"])
                assert stored["encryptedWallet"] == state(stored["sequence"])["encryptedWallet"]
            assert (await client.push(sequence + 1))["sequence"] == sequence + 1
        self.server.signal(signal.SIGTERM)
        assert await self.server.wait() == 0
        with sqlite3.connect(self.server.database) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()


@pytest.fixture
async def killed(make_process: MakeProcess) -> Killed:
    killed = Killed(make_process())
    await killed.run()
    return killed


def cut(log: bytearray, at: int, chance: random.Random) -> None:
    del log[at:]


def flip_a_bit(log: bytearray, at: int, chance: random.Random) -> None:
    log[at] ^= 1 << chance.randrange(8)


def overwrite(log: bytearray, at: int, chance: random.Random) -> None:
    log[at:] = chance.randbytes(len(log) - at)


def zero(log: bytearray, at: int, chance: random.Random) -> None:
    """What a file system shows of blocks that it has allocated and never written."""
    log[at:] = bytes(len(log) - at)


@pytest.mark.parametrize("damage", [cut, flip_a_bit, overwrite, zero])
async def test_a_damaged_log_gives_back_every_commit_before_the_damage_and_none_after_it(
    killed: Killed, damage: Callable[[bytearray, int, random.Random], None]
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    log = bytearray(killed.log.read_bytes())
    sequence = chance.randrange(1, PUSHES)
    # Anywhere in the first page that the next push wrote.
    at = killed.ends[sequence] + 24 + chance.randrange(4096)
    if damage is zero:
        at = killed.ends[sequence]

    damage(log, at, chance)
    killed.log.write_bytes(log)

    await killed.check(sequence)


async def test_whatever_a_power_cut_leaves_behind_the_last_synced_commit_costs_nothing(
    killed: Killed,
) -> None:
    log = killed.log.read_bytes()
    # A frame that looks like one of this log, cut short, and then what was on the disk before.
    torn = log[-FRAME_BYTES : -FRAME_BYTES // 2] + bytes(100) + random.Random(1).randbytes(5000)

    killed.log.write_bytes(log + torn)

    await killed.check(PUSHES)
