"""What the commands on a database share: the one that the settings name, and how they fail."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from sqlalchemy import URL, Connection

from wsserver.options import config_option, fail, load_or_exit, setting_options
from wsserver.store.backups import Progress
from wsserver.store.databases import open_live_database, parse_url
from wsserver.store.errors import NotFound, SchemaTooNew, StoreError

EPILOG = (
    "The database is --database-url, WSSERVER_DATABASE_URL or the key database_url of the TOML "
    "file, as for serve. Exit codes: 0 done, 1 failed (a sentence says why), 2 misused."
)
Command = Callable[..., Any]


def database_command(group: click.Group | None, name: str) -> Callable[[Command], click.Command]:
    """A command on a database, of a group or of its own; takes ``as_json`` and settings' flags."""

    def decorate(command: Command) -> click.Command:
        command = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(
            command
        )
        command = setting_options("database_url")(config_option(command))
        return (click if group is None else group).command(name, epilog=EPILOG)(command)

    return decorate


@contextlib.contextmanager
def open_named(flags: dict[str, Any], *, reading: bool = False) -> Iterator[Connection]:
    """The database that the settings name, in a transaction; a sentence and exit 1 on failure."""
    with telling_failure(), open_live_database(find_url(flags), reading=reading) as connection:
        yield connection


@contextlib.contextmanager
def telling_failure() -> Iterator[None]:
    """What keeps the command from its work is a sentence, and exit 1."""
    try:
        yield
    except (StoreError, NotFound, SchemaTooNew) as error:
        fail(str(error))


def find_url(flags: dict[str, Any]) -> URL:
    """The database that the settings name."""
    settings = load_or_exit(flags)
    with telling_failure():
        return parse_url(settings.database_url)


@contextlib.contextmanager
def show_progress(label: str) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere nothing."""
    with click.progressbar(
        length=1000, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        yield lambda done, total: bar.update(1000 * done // max(1, total) - bar.pos)
