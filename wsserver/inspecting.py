"""The command ``wsserver config``: what is in force and from where, and whether it would work."""

from __future__ import annotations

import sys
from typing import Any

import click

from wsserver.config import ConfigurationError, examine
from wsserver.options import (
    EXIT_FAILURE,
    config_option,
    print_json,
    print_table,
    refuse,
    setting_options,
)
from wsserver.origins import Setting, find_origins, render_toml
from wsserver.preflight import Finding, find_all


@click.command("config")
@click.option("--check", is_flag=True, help="Say all that is wrong, at once; exit 1 if it is.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--toml", "as_toml", is_flag=True, help="Print a file for --config.")
@config_option
@setting_options()
def config(check: bool, as_json: bool, as_toml: bool, **flags: Any) -> None:
    """Show the settings in force, and where each comes from.

    Passwords are not shown, those in URLs neither. Give the flags that serve gets: they count here
    as they do there.

    With --check it also says what else a start would find: files that can't be read, a database
    that can't be written, ports that are taken, extras that are missing, too few descriptors. What
    a server could live with is a warning, so are variables that look like settings and are none.

    \b
    wsserver config
    wsserver config --check && systemctl restart wsserver
    wsserver config --toml > wsserver.toml
    """
    if as_toml and (as_json or check):
        raise click.UsageError("--toml goes with neither --json nor --check")
    try:
        examined = examine(flags)
    except ConfigurationError as error:
        if not check:
            refuse(error)
        _tell([Finding(str(error))], as_json)
        return
    if check:
        _tell(find_all(examined), as_json)
        return
    if examined.faults:
        refuse(ConfigurationError("\n".join(examined.faults)))
    settings = find_origins(flags, examined)
    if as_toml:
        click.echo(render_toml(settings), nl=False)
    elif as_json:
        print_json({"settings": {each.name: _render(each) for each in settings}})
    else:
        rows = [(each.name, each.text, each.where or "default") for each in settings]
        print_table(("SETTING", "VALUE", "FROM"), rows)


def _tell(found: list[Finding], as_json: bool) -> None:
    """Say what was found; exit 1 where the server would not start."""
    faults = [each.text for each in found if not each.is_warning]
    warnings = [each.text for each in found if each.is_warning]
    if as_json:
        print_json({"faults": faults, "warnings": warnings})
    else:
        for text in faults:
            click.echo(f"wrong: {text}")
        for text in warnings:
            click.echo(f"warning: {text}")
        if not faults:
            click.echo("the server would start with these settings")
    sys.exit(EXIT_FAILURE if faults else 0)


def _render(setting: Setting) -> dict[str, Any]:
    return {"value": setting.shown, "source": setting.source, "where": setting.where or None}
