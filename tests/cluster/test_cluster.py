"""The short form of `python -m tests.cluster`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.rounds import run_rounds
from tests.faults.processes import linux_only

pytestmark = [linux_only, pytest.mark.timeout(300)]


@pytest.mark.parametrize("bus", ["postgresql", "nats"])
async def test_nothing_is_lost_or_missed_whatever_fails(tmp_path: Path, bus: str) -> None:
    faults = ["kill_node", "restart_postgresql", "kill_bus", "cut_off_bus", "stop_node"]
    figures = await run_rounds(
        tmp_path, bus=bus, seconds=10, faults=faults, accounts=6, pause_s=0.3
    )
    print(figures.text)
