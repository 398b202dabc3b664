"""Three nodes under load with every kind of fault: `python -m tests.cluster --minutes 10`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.cluster.load import CONVERGES_S
from tests.cluster.rounds import run_rounds

NODE_FAULT_S = 15
"""How far apart about the nodes' own ends are."""
TIMES = 5
"""How often PostgreSQL is restarted, and the bus killed and cut off."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--bus", choices=("postgresql", "nats"), nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    late = False
    for bus in arguments.bus or ("postgresql", "nats"):
        faults = ["restart_postgresql", "kill_bus", "cut_off_bus"] * TIMES
        count = max(TIMES, int(seconds / NODE_FAULT_S) - len(faults))
        faults += ["kill_node" if number % 3 else "stop_node" for number in range(count)]
        random.Random(arguments.seed).shuffle(faults)
        with tempfile.TemporaryDirectory(prefix="wallet-sync-cluster-") as folder:
            figures = asyncio.run(run_rounds(Path(folder), bus=bus, seconds=seconds, faults=faults))
        print(figures.text, flush=True)
        late = late or figures.converged_s > CONVERGES_S or figures.late > 0
    if late:
        sys.exit("a device or a session was later than it may be")


if __name__ == "__main__":
    main()
