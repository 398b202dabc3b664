"""How many nodes, and what database and bus, so many devices take: a model, a table and a plot.

    python tools/capacity.py --devices 250000
    python tools/capacity.py --devices 1000000 --pushes 40 --push-us 150 --utilisation 0.4
    python tools/capacity.py --plot scale.svg

The costs are those that `python -m benchmarks.costs` and `benchmarks.workers` have measured on one
machine: measure on yours, and give them as flags. docs/explanation/scale.md tells what is modelled.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/explanation/scale.md"
PLOT = ROOT / "docs/explanation/scale.svg"
BEGIN, END = "<!-- begin table (written by tools/capacity.py --write) -->", "<!-- end table -->"
STEPS = (10_000, 1_000_000, 100_000_000)
DAY_S = 86_400
NODES_ON_POSTGRESQL_MAX = 4
"""With more, each of which hears all that is told, the bus is NATS."""
ROUNDS_MAX = 100
DATABASE_CORES_MIN = 4
"""What a database server has, however little it does."""


def option(default: float, help_text: str) -> Any:
    """A field that is a flag of the command, too."""
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Demand:
    """What the devices do."""

    devices: float = option(0, "devices in all; unless given, three sizes are shown")
    devices_each: float = option(3, "devices of an account")
    online: float = option(0.5, "share of the devices that are online at the peak")
    pushes: float = option(10, "pushes of a device a day")
    reconnects: float = option(20, "times that a device loses its connection a day")
    peak: float = option(4, "the busiest hour, of the average")
    wallet_kib: float = option(2, "KiB of a sealed wallet")
    history: float = option(10, "versions that are kept (history_depth)")


@dataclass(frozen=True)
class Costs:
    """Processor time in microseconds, on a node and in the database; bytes."""

    push_us: float = option(264, "node: a push")
    notification_us: float = option(43, "node: telling another device of a push")
    resume_us: float = option(425, "node: a connection that comes back")
    ping_us: float = option(28, "node: the ping of an idle session")
    crossing_us: float = option(52, "node: a push told over the bus to one more node, both sides")
    push_database_us: float = option(253, "database: a push")
    resume_database_us: float = option(158, "database: a connection that comes back")
    crossing_database_us: float = option(29, "database: a push told by LISTEN/NOTIFY")
    session_bytes: float = option(12_000, "node: a session, with its socket's buffers")
    node_bytes: float = option(120e6, "node: a process that serves nobody yet")
    account_bytes: float = option(4_342, "database: an account, its devices, its first version")
    log_bytes: float = option(2_804, "database: a push of 2 KiB, in the write-ahead log")


@dataclass(frozen=True)
class Machines:
    """What is run on. A node is one process, which has one core's worth of Python."""

    utilisation: float = option(0.5, "share of a core that is planned with")
    sessions_max: float = option(50_000, "sessions of a node at most, whatever its core could do")
    ping_interval_s: float = option(25, "seconds between two pings of a session")
    database_cores: float = option(32, "cores of one PostgreSQL server at most")
    spread_s: float = option(60, "seconds over which devices are asked to come back")


@dataclass(frozen=True)
class Need:
    """What it takes."""

    devices: float
    sessions: float
    pushes_per_s: float
    resumes_per_s: float
    bus: str
    bus_messages_per_s: float
    nodes: int
    node_gb: float
    database_cores: float
    partitions: int
    stored_gb: float
    log_mb_per_s: float
    storm_s: float
    deploy_minutes: float


def estimate(demand: Demand, costs: Costs, machines: Machines) -> Need:
    """The nodes, and the rest for them; a node more does not change how many there must be."""
    sessions = demand.devices * demand.online
    per_s = demand.devices * demand.peak / DAY_S
    pushes, resumes = per_s * demand.pushes, per_s * demand.reconnects
    listeners = max(0.0, demand.devices_each * demand.online - demand.online)
    own_us = (
        pushes * (costs.push_us + listeners * costs.notification_us)
        + resumes * costs.resume_us
        + sessions / machines.ping_interval_s * costs.ping_us
    )
    nodes = 2  # One may be lost.
    for _ in range(ROUNDS_MAX):
        bus, hearing = _choose_bus(nodes, listeners)
        work_us = own_us + pushes * hearing * costs.crossing_us
        by_core = math.ceil(work_us / 1e6 / machines.utilisation)
        wanted = max(by_core, math.ceil(sessions / machines.sessions_max)) + 1
        if wanted <= nodes:
            break
        nodes = wanted
    told = costs.crossing_database_us * hearing if bus == "PostgreSQL" else 0
    database_us = pushes * (costs.push_database_us + told) + resumes * costs.resume_database_us
    cores = database_us / 1e6 / machines.utilisation
    accounts = demand.devices / demand.devices_each
    wallet_bytes = demand.wallet_kib * 1024
    versions_bytes = wallet_bytes * demand.history + (costs.account_bytes - 2048)
    log_bytes = costs.log_bytes + max(0.0, wallet_bytes - 2048)
    # All of them at once, when a network comes back: nodes or the database are waited for.
    storm_node_s = sessions * costs.resume_us / 1e6 / nodes
    partitions = max(1, math.ceil(cores / machines.database_cores))
    installed = max(cores, DATABASE_CORES_MIN)
    storm_database_s = sessions * costs.resume_database_us / 1e6 / installed
    return Need(
        devices=demand.devices,
        sessions=sessions,
        pushes_per_s=pushes,
        resumes_per_s=resumes,
        bus=bus,
        bus_messages_per_s=pushes * hearing,
        nodes=nodes,
        node_gb=(costs.node_bytes + sessions / nodes * costs.session_bytes) / 1e9,
        database_cores=cores,
        partitions=partitions,
        stored_gb=accounts * versions_bytes / 1e9,
        log_mb_per_s=pushes * log_bytes / 1e6,
        storm_s=max(storm_node_s, storm_database_s),
        # A tenth of the nodes at a time, whose devices are spread over the others.
        deploy_minutes=math.ceil(nodes / max(1, nodes // 10)) * machines.spread_s / 60,
    )


def _choose_bus(nodes: int, listeners: float) -> tuple[str, float]:
    """The bus, and how many other nodes hear of a push."""
    if nodes <= NODES_ON_POSTGRESQL_MAX:
        return "PostgreSQL", nodes - 1
    # Only the nodes that have a device of the account.
    return "NATS", min(listeners, nodes - 1)


# What is shown.


def render(needs: Sequence[Need]) -> str:
    """A table in Markdown: a column for each number of devices."""
    lines = {
        "devices": [f"{need.devices:,.0f}" for need in needs],
        "sessions at the peak": [f"{need.sessions:,.0f}" for need in needs],
        "pushes/s at the peak": [_show(need.pushes_per_s) for need in needs],
        "resumes/s at the peak": [_show(need.resumes_per_s) for need in needs],
        "nodes, one of them spare": [f"{need.nodes:,}" for need in needs],
        "memory of a node": [f"{need.node_gb:.1f} GB" for need in needs],
        "bus": [need.bus for need in needs],
        "messages/s on the bus": [_show(need.bus_messages_per_s) for need in needs],
        "cores of the database": [_show(need.database_cores) for need in needs],
        "servers that share the accounts": [f"{need.partitions:,}" for need in needs],
        "stored": [f"{need.stored_gb:,.0f} GB" for need in needs],
        "write-ahead log": [f"{_show(need.log_mb_per_s)} MB/s" for need in needs],
        "all come back at once": [f"{_show(need.storm_s)} s" for need in needs],
        "a deploy, a tenth of the nodes at a time": [
            f"{_show(need.deploy_minutes)} min" for need in needs
        ],
    }
    head, *rows = (f"| {name} | {' | '.join(cells)} |\n" for name, cells in lines.items())
    return f"{head}|---|{'---:|' * len(needs)}\n{''.join(rows)}"


def _show(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def plot(demand: Demand, costs: Costs, machines: Machines, path: Path) -> None:
    """Nodes and cores of the database by the number of devices."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "wallet-sync"
    from matplotlib import pyplot

    sizes = [10 ** (3 + step / 10) for step in range(51)]
    needs = [estimate(dataclasses.replace(demand, devices=size), costs, machines) for size in sizes]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    axes.loglog(sizes, [need.nodes for need in needs], color="#1f5fa8", label="nodes")
    axes.loglog(
        sizes, [need.database_cores for need in needs], color="#c2571a", label="database cores"
    )
    axes.axhline(machines.database_cores, color="#888888", linestyle=":", linewidth=1)
    label = "cores of one database server at most"
    axes.text(1_100, machines.database_cores * 1.2, label, color="#666666")
    axes.set(xlabel="devices", ylabel="how many", xlim=(1e3, 1e8), ylim=(0.01, None))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,g}")
    for size in STEPS:
        axes.axvline(size, color="#dddddd", linewidth=1, zorder=0)
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def splice(page: str, table: str) -> str:
    """The page with this table."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="capacity.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for kind in (Demand, Costs, Machines):
        group = parser.add_argument_group(kind.__name__.lower(), kind.__doc__)
        for each in dataclasses.fields(kind):
            group.add_argument(
                f"--{each.name.replace('_', '-')}",
                type=_positive,
                metavar="N",
                default=each.default,
                help=f"{each.metadata['help']} [{each.default:g}]",
            )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it: .svg or .png")
    parser.add_argument("--write", action="store_true", help="write the project's page anew")
    given = vars(parser.parse_args(arguments))
    demand, costs, machines = (
        kind(**{each.name: given[each.name] for each in dataclasses.fields(kind)})
        for kind in (Demand, Costs, Machines)
    )
    assert isinstance(demand, Demand)
    assert isinstance(costs, Costs)
    assert isinstance(machines, Machines)
    if demand.online > 1 or machines.utilisation > 1:
        parser.error("--online and --utilisation are shares: 1 at most")
    sizes = [demand.devices] if demand.devices else STEPS
    needs = [estimate(dataclasses.replace(demand, devices=size), costs, machines) for size in sizes]
    if given["write"]:
        PAGE.write_text(splice(PAGE.read_text(), render(needs)))
        plot(demand, costs, machines, PLOT)
    if given["plot"]:
        plot(demand, costs, machines, given["plot"])
    if given["json"]:
        print(json.dumps([dataclasses.asdict(need) for need in needs], indent=2))
    else:
        print(render(needs), end="")
    return 0


def _positive(text: str) -> float:
    number = float(text)
    if not (0 < number < math.inf):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
