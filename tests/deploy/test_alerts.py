"""The alerts: each fires at what it is for and not on a healthy server, and leads to what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import ROOT

PROMETHEUS = ROOT / "deploy/prometheus"
ALERTS = PROMETHEUS / "alerts.yaml"
INSTANCE = "127.0.0.1:8091"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool on the path (Debian: prometheus)"
)


def read_rules() -> dict[str, Any]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


RULES = read_rules()


@dataclass(frozen=True)
class Trouble:
    """Series that an alert fires at, as promtool writes them, and what it says of the value."""

    alert: str
    series: dict[str, str]
    value: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def histogram(name: str, rising: dict[str, int]) -> dict[str, str]:
    """By bound, how many more values below it there are each minute."""
    return {f'{name}_bucket{{le="{le}"}}': f"0+{rise}x180" for le, rise in rising.items()}


PUSHES = "wsserver_push_seconds"
LAG = "wsserver_loop_lag_seconds"
CALLS = 'wsserver_calls_total{method="wallet.push",outcome="%s"}'
UP = 'up{job="wallet-sync"}'
STARTED = 'process_start_time_seconds{job="wallet-sync"}'
GUESSES = 'wsserver_authentication_failures_total{reason="bad_credentials"}'
OPEN_FDS = 'process_open_fds{job="wallet-sync"}'
MAX_FDS = 'process_max_fds{job="wallet-sync"}'
REFUSED = 'wsserver_refusals_total{limit="connect_rate"}'

HEALTHY = {
    UP: "1x180",
    STARTED: "1000x180",
    'wsserver_database_errors_total{lane="writing lane"}': "0x180",
    "wsserver_disk_free_bytes": "20000000000x180",
    'wsserver_database_bytes{file="wal"}': "134217728x180",
    **histogram(PUSHES, {"0.008": 1000, "0.5": 1000, "1.0": 1000, "+Inf": 1000}),
    CALLS % "ok": "0+1000x180",
    CALLS % "conflict": "0+200x180",
    CALLS % "unavailable": "0+1x180",
    'wsserver_queue_operations{queue="writing lane"}': "100x180",
    'wsserver_queue_operations_max{queue="writing lane"}': "50000x180",
    **histogram(LAG, {"0.005": 118, "0.1": 120, "0.2": 120, "+Inf": 120}),
    'wsserver_connections{state="authenticated"}': "8000x180",
    'wsserver_connections{state="gateway"}': "5000x180",
    "wsserver_connections_max": "10000x180",
    OPEN_FDS: "8000x180",
    MAX_FDS: "20000x180",
    REFUSED: "0+10x180",
    GUESSES: "0+5x180",
    'wsserver_letters_total{outcome="delivered"}': "0+9x180",
    'wsserver_letters_total{outcome="refused"}': "0x180",
    "wsserver_certificate_expiry_timestamp_seconds": "2592000x180",
    'wsserver_log_records_total{level="error"}': "0x180",
    'wsserver_log_records_total{level="warning"}': "0+1x180",
}

TROUBLES = [
    Trouble("WalletSyncDown", {UP: "0x180"}, labels={"job": "wallet-sync"}),
    Trouble("WalletSyncRestarts", {STARTED: "0+60x180"}, "30", labels={"job": "wallet-sync"}),
    Trouble(
        "WalletSyncDatabaseErrors",
        {'wsserver_database_errors_total{lane="writing lane"}': "0+1x180"},
    ),
    Trouble("WalletSyncDiskAlmostFull", {"wsserver_disk_free_bytes": "536870912x180"}, "512Mi"),
    Trouble(
        "WalletSyncLogGrows",
        {'wsserver_database_bytes{file="wal"}': "1073741824x180"},
        "1Gi",
        labels={"file": "wal"},
    ),
    Trouble(
        "WalletSyncPushesSlow",
        histogram(PUSHES, {"0.008": 900, "0.5": 900}),
        "950ms",
    ),
    Trouble("WalletSyncCallsFail", {CALLS % "unavailable": "0+300x180"}, "20%"),
    Trouble(
        "WalletSyncQueueFills",
        {'wsserver_queue_operations{queue="writing lane"}': "30000x180"},
        "60%",
        labels={"queue": "writing lane"},
    ),
    Trouble(
        "WalletSyncLoopLags",
        histogram(LAG, {"0.005": 60, "0.1": 60}),
        "180ms",
    ),
    Trouble(
        "WalletSyncConnectionsFull",
        {'wsserver_connections{state="authenticated"}': "9500x180"},
        "95%",
    ),
    Trouble("WalletSyncDescriptorsRunOut", {OPEN_FDS: "19000x180"}, "95%", {"job": "wallet-sync"}),
    Trouble("WalletSyncNewcomersRefused", {REFUSED: "0+600x180"}, "10", {"limit": "connect_rate"}),
    Trouble("WalletSyncPasswordsGuessed", {GUESSES: "0+120x180"}, "2"),
    Trouble("WalletSyncMailFails", {'wsserver_letters_total{outcome="refused"}': "0+1x180"}, "60"),
    Trouble(
        "WalletSyncCertificateEnds",
        {"wsserver_certificate_expiry_timestamp_seconds": "93600x180"},
        "1d 0h 0m 0s",
    ),
    Trouble("WalletSyncFailures", {'wsserver_log_records_total{level="error"}': "0+1x180"}, "15"),
]


def expect(trouble: Trouble) -> dict[str, Any]:
    """The alert as promtool wants it: labels and filled-in texts."""
    rule = RULES[trouble.alert]
    labels = {"instance": INSTANCE, **trouble.labels}

    def fill_in(text: str) -> str:
        text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
        return re.sub(r"\{\{ \$value.*?\}\}", trouble.value, text)

    annotations = {name: fill_in(text) for name, text in rule["annotations"].items()}
    return {"exp_labels": {**rule["labels"], **labels}, "exp_annotations": annotations}


def make_test(series: dict[str, str], expected: dict[str, list[Any]], *, at: int) -> dict[str, Any]:
    """A test of promtool: which alerts there are at that minute."""
    return {
        "interval": "1m",
        "input_series": [
            {"series": _add_instance(name), "values": values} for name, values in series.items()
        ],
        "alert_rule_test": [
            {"eval_time": f"{at}m", "alertname": alert, "exp_alerts": alerts}
            for alert, alerts in expected.items()
        ],
    }


def _add_instance(name: str) -> str:
    label = f'instance="{INSTANCE}"'
    return f"{name[:-1]},{label}}}" if name.endswith("}") else f"{name}{{{label}}}"


def run_promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    run_promtool("check", "config", PROMETHEUS / "prometheus.yml")
    run_promtool("check", "rules", ALERTS)


@needs_promtool
def test_each_alert_fires_at_its_trouble_and_none_on_a_healthy_server(tmp_path: Path) -> None:
    tests = [make_test(HEALTHY, {alert: [] for alert in RULES}, at=120)]
    for trouble in TROUBLES:
        series = {**HEALTHY, **trouble.series}
        tests.append(make_test(series, {trouble.alert: [expect(trouble)]}, at=120))
    # JSON is YAML.
    script = tmp_path / "alerts.test.yaml"
    script.write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": tests}))

    run_promtool("test", "rules", script)


def test_each_alert_has_a_trouble_to_be_tested_with() -> None:
    assert [trouble.alert for trouble in TROUBLES] == [*RULES]


def list_runbooks() -> Iterator[tuple[str, str]]:
    for alert, rule in RULES.items():
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, alert
        assert rule["labels"]["severity"] in ("critical", "warning"), alert
        page, _, part = rule["annotations"]["runbook"].partition("#")
        yield page, part


def test_each_alert_leads_to_a_part_of_a_page() -> None:
    for page, part in list_runbooks():
        titles = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
        assert part in anchors
