"""Writes the figures of docs/explanation/performance.md, and draws its plots: `make bench-report`.

    python -m benchmarks.report [--results FOLDER] [--page FILE] [--again]

The text between two markers of the page is written from the last run's JSON; the rest is by hand.
What was measured is kept beside the plots, so that the page can be written `--again` from it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from benchmarks.plots import PLOTS, draw_all
from benchmarks.scenario import RESULTS, ROOT
from benchmarks.table import HEADINGS, list_lines, show_figure

PAGE = ROOT / "docs" / "explanation" / "performance.md"
ORDER = ("push", "notify", "idle", "storm", "login", "conflict", "growth", "soak")
ALTERNATIVE_TEXTS = {
    "push": "What share of the echo's rate durable pushes reach, and the time of pushes at a rate",
    "notify": "The time from a push to its notifications, by the number of listeners",
    "idle": "Memory of an idle session, with and without TLS",
    "storm": "Sessions that come back, and the time of pushes meanwhile",
    "login": "Logins a second against bare scrypt, and the time of pushes beside them",
    "growth": "Pushes a second by the number of accounts that are stored",
    "soak": "Memory of the server over time",
}

Found = Mapping[str, Any]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Writes the page on performance.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the last run wrote")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--again", action="store_true", help="from what the page was written from")
    arguments = parser.parse_args()
    page: Path = arguments.page
    folder = page.with_suffix("")
    kept = folder / "results.json"
    if arguments.again:
        found = orjson.loads(kept.read_bytes())
    else:
        found = read_results(arguments.results)
        if not found:
            sys.exit(f"nothing was measured into {arguments.results} yet: `make bench` does it")
    draw_all(found, list_lines(found.values()), folder)
    kept.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    page.write_text(render(page.read_text(), found, folder.name))
    print(f"written: {page}, and plots in {folder}")


def read_results(folder: Path) -> dict[str, Found]:
    """What each scenario has found, of those that were measured."""
    paths = {name: folder / f"{name}.json" for name in ORDER}
    return {name: orjson.loads(path.read_bytes()) for name, path in paths.items() if path.is_file()}


def render(page: str, found: Mapping[str, Found], folder: str) -> str:
    """The page with the text between its markers written anew."""

    def write(match: re.Match[str]) -> str:
        name = match["name"]
        if name == "machine":
            lines = render_machine(found)
        elif name == "targets":
            lines = render_targets(found, folder)
        else:
            lines = render_scenario(name, found.get(name), folder)
        return "\n".join([match["begin"], "", *lines, "", match["end"]])

    return re.sub(
        r"(?P<begin><!-- begin (?P<name>\w+)[^>]*-->)\n.*?(?P<end><!-- end (?P=name) -->)",
        write,
        page,
        flags=re.DOTALL,
    )


def render_machine(found: Mapping[str, Found]) -> Iterator[str]:
    """What it was measured on, and when."""
    newest = max(found.values(), key=lambda one: str(one["finished_at"]))
    machine = {"measured": newest["finished_at"], **newest["machine"]}
    yield from render_table(["", ""], [[name, value] for name, value in machine.items()])


def render_targets(found: Mapping[str, Found], folder: str) -> Iterator[str]:
    """The table of the targets, and its plot."""
    cells = [line.figures for line in list_lines(found.values())]
    rows = [
        [*rest, f"**{verdict}**" if verdict == "MISSED" else verdict] for *rest, verdict in cells
    ]
    yield from render_table(HEADINGS, rows)
    yield ""
    yield f"![Each target's measure, as a factor of the target]({folder}/targets.svg)"


def render_scenario(name: str, found: Found | None, folder: str) -> Iterator[str]:
    """The tables of a scenario, and its plot."""
    if found is None:
        yield "Not measured in this run."
        return
    if name in PLOTS:
        yield f"![{ALTERNATIVE_TEXTS[name]}]({folder}/{name}.svg)"
        yield ""
    for title, rows in found["tables"].items():
        yield f"{title[0].upper()}{title[1:]}:"
        yield ""
        yield from render_table(
            [*rows[0]],
            [[show_figure(figure) for figure in row.values()] for row in rows],
            numbers=[not isinstance(figure, str) for figure in rows[0].values()],
        )
        yield ""
    faults = ", ".join(f"{fault} ({count:,})" for fault, count in found["faults"].items())
    yield f"Errors: {faults or 'none'}. It took {found['took_s']:.0f} s."


def render_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool] = ()
) -> Iterator[str]:
    """A table in Markdown; columns of numbers stand to the right."""
    right = [*numbers] or [False] * len(headings)
    yield f"| {' | '.join(headings)} |"
    yield f"|{'|'.join('---:' if is_right else '---' for is_right in right)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
