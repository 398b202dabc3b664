"""Many deaths under load: `python -m tests.faults.kills --kills 200`."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.e2e.serving import ServerProcess
from tests.faults.load import Load

ACCOUNTS, DEVICES_EACH = 5, 10
PAUSE_S = 0.05
DELAY_MAX_S = 0.5
"""How long after every device was served the server lives at most."""


async def kill_under_load(
    server: ServerProcess, kills: int, seed: int, tell: Callable[[], None] = lambda: None
) -> Load:
    """So many SIGKILLs at random moments, with 50 devices at work; then their history is checked.

    Raises AssertionError if anything acknowledged was lost, changed or doubled.
    """
    chance = random.Random(seed)
    load = Load(server, accounts=ACCOUNTS, devices=DEVICES_EACH, seed=seed, pause_s=PAUSE_S)
    async with load.running():
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0, DELAY_MAX_S))
            server.signal(signal.SIGKILL)
            assert await server.wait() == -signal.SIGKILL
            killed_s = time.monotonic()
            await load.until(lambda: not load.connected)
            load.end_unanswered(killed_s)
            await server.start()
            await load.serves_again()
            tell()
    return load


async def run(kills: int, seed: int) -> None:
    started_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        tempfile.TemporaryDirectory(prefix="wallet-sync-kills-") as folder,
        Progress(*columns, TimeRemainingColumn(), disable=not sys.stderr.isatty()) as progress,
    ):
        task = progress.add_task(f"seed {seed}", total=kills)
        server = ServerProcess(Path(folder))
        try:
            load = await kill_under_load(server, kills, seed, lambda: progress.advance(task))
        finally:
            server.end()
    print(f"{kills} kills survived in {time.monotonic() - started_s:.0f} s: {load.summary()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.kills, arguments.seed))


if __name__ == "__main__":
    main()
