"""The pages for operators: of one mind with the code and with deploy/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.pages import ROOT, blocks
from wsschema.close_codes import CloseCode, may_reconnect
from wsserver.cli import main
from wsserver.config import PREFIX, Settings

PAGES = sorted((ROOT / "docs/how-to").glob("*.md"))
TROUBLES = (ROOT / "docs/how-to/troubleshoot.md").read_text()


def test_every_close_code_is_a_symptom_and_says_whether_devices_come_back() -> None:
    rows = {
        int(code): "stays away" in cause
        for codes, cause in re.findall(r"^\| ([\d, ]+) \| (.*?) \|", TROUBLES, re.MULTILINE)
        for code in codes.split(", ")
    }

    assert set(rows) == {*CloseCode, 1006}
    assert all(stays_away != may_reconnect(code) for code, stays_away in rows.items())


def test_every_alert_leads_to_a_part_that_names_it() -> None:
    headings = re.split(r"^## ", TROUBLES, flags=re.MULTILINE)[1:]
    parts = {part.partition("\n")[0].lower().replace(" ", "-"): part for part in headings}
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert rules
    for rule in rules:
        page, _, part = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/how-to/troubleshoot.md"
        assert f"`{rule['alert']}`" in parts[part.replace("'", "")], rule["alert"]


def test_every_line_of_the_log_that_is_explained_is_one_that_is_written() -> None:
    written = " ".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in (ROOT / "wsserver").rglob("*.py")
    )
    table = TROUBLES.partition("## Lines of the log")[2]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    pieces = [
        piece.strip(" :;()")
        for cell in cells
        for line in re.findall(r"`(.*?)`", cell)
        for piece in line.split("...")
    ]

    assert len(pieces) > 10
    assert [piece for piece in pieces if piece not in written] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_variable_in_a_block_exists(page: Path) -> None:
    text = "\n".join(block.text for block in blocks(page) if block.info in ("sh", "ini", "yaml"))

    for name in re.findall(r"\bwsserver ([a-z]+)", text):
        assert name in main.commands, name
    client = {"ALLOW_PLAINTEXT", "CA"}
    for name in re.findall(rf"\b{PREFIX}([A-Z_]+)=", text):
        assert name.lower() in Settings.model_fields or name in client | {"CONFIG"}, name
