"""What all commands share: options that are made from the settings, and how a command ends."""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from wsserver import logs
from wsserver.config import ConfigurationError, Settings, load_settings
from wsserver.throttle import Rate

EXIT_FAILURE: Final = 1
EXIT_CONFIGURATION: Final = 2

config_option = click.option(
    "--config", metavar="FILE", help="TOML file with settings (also WSSERVER_CONFIG)."
)


def setting_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A flag for each setting of these names; all settings where none is named."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(Settings.model_fields.items()):
            if not names or name in names:
                command = _setting_option(name, field)(command)
        return command

    return decorate


def describe_flags(flags: Mapping[str, Any]) -> list[str]:
    """The flags that are not None, as they are given to a command."""
    return [
        f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value is not None
    ]


def _setting_option(
    name: str, field: FieldInfo
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = field.get_default(call_default_factory=False)
    shown = (
        "" if default in (None, frozenset(), (), PydanticUndefined) else f"  [default: {default}]"
    )
    return click.option(
        f"--{name.replace('_', '-')}",
        metavar=_describe_type(field),
        help=f"{field.description}{shown}",
    )


def _describe_type(field: FieldInfo) -> str:
    kind = field.annotation
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(typing.get_args(kind))
    if typing.get_origin(kind) is types.UnionType:
        kind = typing.get_args(kind)[0]
    return {int: "N", float: "SECONDS", Rate: "RATE"}.get(typing.cast(Any, kind), "TEXT")


def load_or_exit(flags: dict[str, Any], *, serves: bool = False) -> Settings:
    """The settings in force, and the log set up; a sentence and exit 2 where they are wrong."""
    try:
        settings = load_settings(flags)
    except ConfigurationError as error:
        refuse(error)
    logs.set_up(settings.log_level, settings.log_format, in_background=serves)
    return settings


def refuse(error: ConfigurationError) -> typing.NoReturn:
    """Say what is wrong with the settings, and exit with 2."""
    click.echo(f"wsserver can't run with these settings:\n{error}", err=True)
    sys.exit(EXIT_CONFIGURATION)


def fail(text: str, *, code: int = EXIT_FAILURE) -> typing.NoReturn:
    """Say why a command could not be done, and exit."""
    click.echo(f"wsserver: {text}", err=True)
    sys.exit(code)


def print_json(document: dict[str, Any]) -> None:
    """The one document that a command with --json prints."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns, each as wide as what is in it."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
