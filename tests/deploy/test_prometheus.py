"""A real Prometheus scrapes a real server; the dashboard and the alerts ask for what there is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_alerts import PROMETHEUS, RULES
from tests.e2e.serving import Served, fetch_json, find_free_port
from tests.pages import ROOT
from wsserver.figures import FIGURES

DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OF_THE_PROCESS = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
}
WAIT_S = 60.0


def list_names() -> set[str]:
    """What the series are called that the server shows."""
    names = set(OF_THE_PROCESS)
    for figure in FIGURES:
        ends = ("_bucket", "_sum", "_count") if figure.kind == "histogram" else ("",)
        names.update(f"{figure.name}{end}" for end in ends)
    return names


def list_expressions() -> list[str]:
    """Each of the dashboard's and of the alerts'."""
    expressions = [target["expr"] for panel in PANELS for target in panel["targets"]]
    expressions += [rule["expr"] for rule in RULES.values()]
    expressions += [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    return expressions + [
        variable["query"]["query"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]


@pytest.mark.parametrize("expression", list_expressions())
def test_an_expression_asks_for_what_the_server_shows(expression: str) -> None:
    named = set(re.findall(r"\b(?:wsserver|process)_\w+", expression))

    assert named <= list_names()
    assert named or "up{" in expression


def test_every_figure_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = " ".join(list_expressions())

    unasked = {figure.name for figure in FIGURES if figure.name not in asked}

    assert unasked == {"wsserver_schema_info", "wsserver_draining"}


def test_each_panel_says_what_it_shows_and_in_which_unit() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24


# A real one.


@contextlib.asynccontextmanager
async def run_prometheus(folder: Path, target: str) -> AsyncIterator[str]:
    """Prometheus with the configuration that is shipped, but for target and intervals; its URL."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{find_free_port()}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        await process.wait()


async def ask(prometheus: str, expression: str) -> list[Any]:
    """What there is now; fails where Prometheus refuses the expression."""
    query = urllib.parse.urlencode({"query": expression})
    status, answer = await fetch_json(f"{prometheus}/api/v1/query?{query}")
    assert status == 200, answer
    result: list[Any] = answer["data"]["result"]
    return result


async def until_shown(prometheus: str, expression: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(OSError, AssertionError):
                if await ask(prometheus, expression):
                    return
            await asyncio.sleep(0.2)


def fill_in(expression: str) -> str:
    """The expression with Grafana's variables replaced, as for all servers."""
    for variable, value in (("job", ".+"), ("instance", ".+"), ("__rate_interval", "30s")):
        expression = expression.replace(f"${variable}", value)
    return expression


@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus on the path (Debian: prometheus)"
)
async def test_a_real_prometheus_fills_the_dashboard(tmp_path: Path) -> None:
    served = await Served.start(tmp_path, admin_port=find_free_port())
    async with run_prometheus(tmp_path, f"127.0.0.1:{served.server.admin_port}") as prometheus:
        joe = await served.open_account()
        phone, _ = await served.open_device("joe@example.com", "phone")
        await until_shown(prometheus, "wsserver_push_seconds_count == 0")
        # Some figures begin with their first value: they rise with the next.
        for sequence in (1, 2):
            await joe.push(sequence)
            await phone.hear_sequence(sequence)
            await joe.fail("wallet.push", sequence=99, encryptedWallet="w", hmac="h")
            await until_shown(prometheus, f"wsserver_push_seconds_count == {2 * sequence}")
        unfilled = {
            panel["title"]
            for panel in PANELS
            for target in panel["targets"]
            if not await ask(prometheus, fill_in(target["expr"]))
        }
        status, rules = await fetch_json(f"{prometheus}/api/v1/rules")
    await served.stop()

    # Nobody was refused or has left yet, no mail is sent, the log was short, and one process has
    # no bus.
    buses = {"Bus messages", "Bus nodes", "Bus gaps"}
    assert unfilled == {"Mails", "Refused", "Ended connections"} | buses
    assert status == 200
    [group] = rules["data"]["groups"]
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == dict.fromkeys(RULES, "ok")
