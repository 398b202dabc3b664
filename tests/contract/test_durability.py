"""What was acknowledged survives ``kill -9``."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.backends import HISTORY_DEPTH, Account, open_sqlite, register
from tests.contract.pusher import ACCOUNTS
from wsserver.operations import LoadCredentials, LoadHistory

ROUNDS = 4


@pytest.mark.parametrize("seed", [1])
async def test_an_acknowledged_push_survives_a_kill(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "wallet-sync.db"
    async with open_sqlite(path) as backend:
        for number in range(ACCOUNTS):
            await register(backend, f"user{number}@example.com")

    acknowledged = dict.fromkeys(range(ACCOUNTS), 0)
    for _ in range(ROUNDS):
        before = sum(acknowledged.values())
        push_until_killed(path, chance.randrange(1, 300), acknowledged)
        assert sum(acknowledged.values()) > before

        async with open_sqlite(path) as backend:
            for number, sequence in acknowledged.items():
                email = f"user{number}@example.com"
                credentials = await backend.perform(LoadCredentials(email))
                assert credentials is not None
                account = Account(backend, credentials.account_id, email, credentials.password)
                head = await account.wallet()
                assert (0 if head is None else head.sequence) >= sequence
                history = await backend.perform(LoadHistory(account.account_id, 100, None))
                kept = [version.sequence for version in history]
                assert kept == [*range(kept[0], max(0, kept[0] - HISTORY_DEPTH), -1)]
                for version in kept:
                    state = await account.wallet(version)
                    assert state is not None
                    assert state.encrypted_wallet.startswith(f"wallet {version} ")


def push_until_killed(path: Path, lines: int, acknowledged: dict[int, int]) -> None:
    """Kill the pusher after so many acknowledgements, and note all that it printed."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.contract.pusher", str(path)],
        stdout=subprocess.PIPE,
        text=True,
    ) as pusher:
        assert pusher.stdout is not None
        for count, line in enumerate(pusher.stdout, start=1):
            number, sequence = map(int, line.split())
            acknowledged[number] = sequence
            if count == lines:
                pusher.kill()
