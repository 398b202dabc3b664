"""All benchmarks but the soak, and the table of the targets: `make bench`.

    python -m benchmarks [--smoke] [--results FOLDER] [SCENARIO ...]

It takes some ten minutes, best on a machine that does nothing else. A target that is missed is no
failure of the command; a scenario that could not be measured is.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import conflict, growth, idle, login, notify, push, soak, storm
from benchmarks.scenario import RESULTS, SMOKE_RESULTS, print_found, run_scenario, show_progress
from benchmarks.table import judge_all

SCENARIOS = {
    module.SCENARIO.name: module.SCENARIO
    for module in (push, notify, idle, storm, login, conflict, growth)
}
BY_HAND = {soak.SCENARIO.name: soak.SCENARIO}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="All benchmarks, and the table of the targets."
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all unless named")
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes, the soak too: does it all run?"
    )
    parser.add_argument("--results", type=Path, help="folder for the JSON files")
    arguments = parser.parse_args()
    known = SCENARIOS | BY_HAND
    if unknown := {*arguments.scenarios} - {*known}:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    names = arguments.scenarios or [*(known if arguments.smoke else SCENARIOS)]
    results = arguments.results or (SMOKE_RESULTS if arguments.smoke else RESULTS)
    console = Console()
    found: list[dict[str, Any]] = []
    failed = []
    with show_progress(console, {name: known[name].expected_s for name in names}) as tellers:
        for name in names:
            scenario = known[name]
            plan = scenario.smoke if arguments.smoke else scenario.plan
            try:
                found.append(run_scenario(scenario, plan, results, tellers[name]))
                print_found(console, found[-1])
            except Exception:
                # The others are worth having all the same.
                failed.append(name)
                console.print(f"[red]{name} could not be measured[/red]")
                traceback.print_exc()
    console.print(judge_all(found))
    console.print(f"written to {results}", soft_wrap=True)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
