"""The capacity model: what must hold of it whatever the figures are, and that its page is true."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools import capacity
from tools.capacity import Costs, Demand, Machines, Need, estimate


def need(devices: float, **demand: float) -> Need:
    return estimate(Demand(devices=devices, **demand), Costs(), Machines())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.capacity", *arguments],
        cwd=capacity.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_more_devices_never_need_less() -> None:
    needs = [need(10 ** (step / 10)) for step in range(10, 90)]
    for fewer, more in itertools.pairwise(needs):
        assert fewer.nodes <= more.nodes
        assert fewer.database_cores < more.database_cores
        assert fewer.partitions <= more.partitions


def test_the_nodes_have_room_for_the_work_and_one_may_be_lost() -> None:
    costs, machines = Costs(), Machines()
    for devices in (10_000, 300_000, 1_000_000, 100_000_000):
        found = need(devices)
        assert found.nodes >= 2
        assert found.sessions / (found.nodes - 1) <= machines.sessions_max
        least_us = (
            found.pushes_per_s * costs.push_us
            + found.resumes_per_s * costs.resume_us
            + found.sessions / machines.ping_interval_s * costs.ping_us
        )
        assert least_us / 1e6 <= machines.utilisation * (found.nodes - 1)


def test_a_push_costs_what_its_parts_do() -> None:
    busy = Demand(devices=1_000_000, pushes=1000)
    one = estimate(busy, Costs(), Machines())
    assert one.pushes_per_s == pytest.approx(1_000_000 * 1000 * 4 / 86_400)
    dearer = estimate(busy, replace(Costs(), push_us=2 * Costs().push_us), Machines())
    added_us = one.pushes_per_s * Costs().push_us
    assert dearer.nodes - one.nodes == pytest.approx(added_us / 1e6 / 0.5, abs=1)


def test_with_many_nodes_the_bus_is_nats_and_costs_the_database_nothing() -> None:
    assert need(10_000).bus == "PostgreSQL"
    large = need(10_000_000)
    assert large.bus == "NATS"
    dearer = replace(Costs(), crossing_database_us=10_000)
    found = estimate(Demand(devices=10_000_000), dearer, Machines())
    assert found.database_cores == large.database_cores


def test_the_page_has_what_the_model_says() -> None:
    page = capacity.PAGE.read_text()
    needs = [need(size) for size in capacity.STEPS]
    assert capacity.splice(page, capacity.render(needs)) == page


def test_the_page_names_the_costs_that_the_model_goes_by() -> None:
    page = capacity.PAGE.read_text()
    for cost in (Costs.push_us, Costs.push_database_us, Costs.notification_us, Costs.ping_us):
        assert f"| {cost} |" in page
    for size in (Costs.account_bytes, Costs.log_bytes):
        assert f"{size:,} bytes" in page


def test_the_command_takes_an_operators_own_figures(tmp_path: Path) -> None:
    drawn = tmp_path / "scale.svg"
    done = run("--devices=250000", "--push-us=100", "--json", f"--plot={drawn}")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["devices"] == 250_000
    assert "<svg" in drawn.read_text()


def test_what_is_no_share_or_no_number_is_refused() -> None:
    assert "are shares" in run("--online=2").stderr
    assert "is not above 0" in run("--devices=-1").stderr
