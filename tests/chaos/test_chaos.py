"""A few rounds of chaos; `python -m tests.chaos` runs many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.rounds import Chaos

ROUNDS = 10


@pytest.mark.parametrize("seed", [1, 2])
async def test_devices_agree_and_lose_nothing_however_they_the_line_and_the_server_are_cut_short(
    tmp_path: Path, seed: int
) -> None:
    async with Chaos(tmp_path, seed).running() as chaos:
        for _ in range(ROUNDS):
            await chaos.run_round()
        assert chaos.faults
