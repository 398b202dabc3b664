"""The command ``wsserver doctor``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from wsserver.config import Examined, Settings, examine
from wsserver.doctor.bus import check_bus
from wsserver.doctor.certificate import check_certificate
from wsserver.doctor.database import check_database
from wsserver.doctor.exposure import check_exposure
from wsserver.doctor.findings import Finding, Verdict, fail, ok, warn
from wsserver.doctor.machine import Clock, check_descriptors
from wsserver.doctor.mail import check_relay
from wsserver.doctor.ports import check_ports
from wsserver.options import EXIT_FAILURE, config_option, print_json, setting_options
from wsserver.origins import find_unknown_variables
from wsserver.preflight import check_extras

CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    check_descriptors,
    check_database,
    check_bus,
    check_certificate,
    check_relay,
    check_exposure,
    check_ports,
)
_WIDTH: Final = 15
_COLOURS: Final = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@config_option
@setting_options()
def doctor(as_json: bool, **flags: Any) -> None:
    """Find out what is wrong with a server, its machine, and what it needs.

    Give it the settings that serve gets, beside a running server or before the first start. It
    looks at the settings, descriptors, the database and its disk, the bus, the certificate, the
    mail relay, what strangers can reach, the ports, and the clock. It writes nothing but a file of
    80 KB beside a SQLite database, for a moment, and sends no mail. The exit code is 1 where
    something fails.

    \b
    wsserver doctor
    wsserver doctor --config /etc/wallet-sync/wsserver.toml
    wsserver doctor --json | jq -r '.findings[] | select(.verdict != "ok") | .text'
    """
    found = []
    for finding in find_all(examine(flags)):
        found.append(finding)
        if not as_json:
            _show(finding)
    counts = Counter(finding.verdict for finding in found)
    if as_json:
        print_json({"findings": [_render(each) for each in found]})
    else:
        click.echo(f"{len(found)} findings: " + ", ".join(f"{counts[v]} {v}" for v in Verdict))
    sys.exit(EXIT_FAILURE if counts[Verdict.FAIL] else 0)


def find_all(examined: Examined) -> Iterator[Finding]:
    """Each check's findings as soon as they are there. Wrong settings are the last that is told."""
    if examined.faults:
        for fault in examined.faults:
            yield fail("settings", fault, "mend the settings first: nothing else was looked at")
        return
    clock = Clock()
    yield from _check_settings(examined)
    for check in CHECKS:
        yield from check(examined.settings)
    yield from clock.check()


def _check_settings(examined: Examined) -> Iterator[Finding]:
    unknown = [text for _, text in find_unknown_variables()]
    for text in unknown:
        yield warn("settings", text, "correct its name, or take it away")
    missing = [found.text for found in check_extras(examined.settings)]
    for text in missing:
        yield fail("settings", text, "install it into the environment of wsserver")
    if not unknown and not missing:
        yield ok("settings", "they can be read, and fit together; `wsserver config` shows them")


def _show(finding: Finding) -> None:
    verdict = click.style(f"{finding.verdict:4}", fg=_COLOURS[finding.verdict])
    click.echo(f"{verdict}  {finding.check:{_WIDTH}}{finding.text}")
    if finding.advice is not None:
        click.echo(f"{'':{_WIDTH + 6}}{finding.advice}")


def _render(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "verdict": finding.verdict,
        "text": finding.text,
        "advice": finding.advice,
    }
