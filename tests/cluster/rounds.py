"""Faults of all kinds under load, one after another, and what must hold all the while."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import provision
from tests.cluster.load import SpreadLoad
from tests.cluster.nodes import Nodes
from tests.cluster.revoking import Revocations

DEVICES_EACH = 3
VICTIM_ACCOUNTS, VICTIM_DEVICES = 30, 60


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it. ``converged_s``: from the end of the last fault.

    ``late``: sessions that ended more than a second after their revocation was answered.
    """

    text: str
    converged_s: float
    late: int


async def run_rounds(
    folder: Path,
    *,
    bus: str,
    seconds: float,
    faults: list[str],
    tell: Callable[[str], None] = print,
    accounts: int = 20,
    pause_s: float = 1.0,
) -> Figures:
    """The faults, spread over the time; gives the figures. Raises AssertionError if one is wrong.

    A fault is the name of a method of `Nodes`.
    """
    done: Counter[str] = Counter()
    async with Nodes(folder, bus=bus).standing() as nodes:
        load = SpreadLoad(nodes, accounts=accounts, devices=DEVICES_EACH, pause_s=pause_s)
        load.fails_loudly = True
        await load.provision()
        url = nodes.settings["database_url"]
        await asyncio.to_thread(provision, url, VICTIM_ACCOUNTS, devices_each=VICTIM_DEVICES)
        await nodes.start()
        victims = range(accounts + 1, accounts + VICTIM_ACCOUNTS + 1)
        revocations = Revocations(nodes, victims, VICTIM_DEVICES)
        load.start()
        await load.served()
        revoking = asyncio.create_task(revocations.run())
        began_s = time.monotonic()
        for number, fault in enumerate(faults):
            due_s = began_s + seconds * number / len(faults)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await getattr(nodes, fault)()
            done[fault] += 1
            tell(f"{time.monotonic() - began_s:.0f} s: {fault}")
        took_s = await load.converge()
        ran_s = time.monotonic() - began_s
        revocations.stopping = True
        await revoking
        await load.stop()
        await load.check()
    text = (
        f"bus: {bus}; {ran_s:.0f} s; {', '.join(f'{name} {n}' for name, n in done.items())}\n"
        f"{load.summary()}\n"
        f"every device knew the newest state {took_s:.2f} s after the last fault\n"
        f"{revocations.summary()}"
    )
    return Figures(text, took_s, revocations.late)
