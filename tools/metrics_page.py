"""Writes docs/reference/metrics.md from the figures themselves, or checks that it is true."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.written_page import write_or_check
from wsserver.figures import FIGURES

PAGE = Path(__file__).parent.parent / "docs/reference/metrics.md"

HEAD = """# Metrics of the server

What `/metrics` on the admin port shows to [Prometheus](https://prometheus.io). How to collect it,
a dashboard and alerts: [monitor a server](../how-to/monitor.md). What the limits are is told on
[a page of their own](limits.md). Times are in seconds, sizes in bytes. A histogram `x` is stored as
`x_bucket`, `x_sum` and `x_count`. No figure tells of an account.

This page is written by `tools/metrics_page.py`.

| metric | kind | labels | what |
|---|---|---|---|
"""

PROCESS = """
Of the process, on Linux, by Prometheus' own client for Python: `process_resident_memory_bytes`,
`process_virtual_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`, `process_max_fds`,
`process_start_time_seconds`; and of its Python everywhere: `python_info`,
`python_gc_collections_total`, `python_gc_objects_collected_total`,
`python_gc_objects_uncollectable_total`.

With [several workers](../how-to/use-all-cores.md) there are `wsserver_worker_up` and
`wsserver_worker_starts_total` besides, by `worker`.
"""


def render() -> str:
    """The page."""
    rows = []
    for figure in FIGURES:
        labels = ", ".join(f"`{label}`" for label in figure.labels)
        rows.append(f"| `{figure.name}` | {figure.kind} | {labels} | {figure.meaning} |\n")
    return HEAD + "".join(rows) + PROCESS


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render))
