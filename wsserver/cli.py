"""The command ``wsserver``."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from wsserver.config import PREFIX, ConfigurationError, Settings, load_settings
from wsserver.server import Server, describe_url
from wsserver.store.schema import SchemaTooNew
from wsserver.store.sql import StoreError, open_database, parse_url

logger = logging.getLogger(__name__)

EXIT_CONFIGURATION = 2
EXIT_FAILURE = 1

EPILOG = (
    "Each setting is a flag here, a variable (--admin-port is WSSERVER_ADMIN_PORT) and a key of "
    "the TOML file; a flag wins over a variable, and a variable over the file."
)


@click.group(epilog="Start with: wsserver serve --verification open")
@click.version_option(package_name="wallet-sync")
def main() -> None:
    """Keeps end-to-end encrypted wallets in sync between the devices of an account."""


_config_option = click.option(
    "--config", metavar="FILE", help="TOML file with settings (also WSSERVER_CONFIG)."
)


def _setting_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A flag for each setting of these names; all settings where none is named."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(Settings.model_fields.items()):
            if not names or name in names:
                command = _setting_option(name, field)(command)
        return command

    return decorate


def _setting_option(
    name: str, field: FieldInfo
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = field.get_default(call_default_factory=False)
    shown = "" if default in (None, frozenset(), PydanticUndefined) else f"  [default: {default}]"
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
    return {int: "N", float: "SECONDS"}.get(typing.cast(Any, kind), "TEXT")


def _load(flags: dict[str, Any]) -> Settings:
    try:
        settings = load_settings(
            {name: value for name, value in flags.items() if value is not None}
        )
    except ConfigurationError as error:
        click.echo(f"wsserver can't start with these settings:\n{error}", err=True)
        sys.exit(EXIT_CONFIGURATION)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return settings


@main.command(epilog=EPILOG)
@_config_option
@_setting_options()
def serve(**flags: Any) -> None:
    """Serve until SIGTERM or Ctrl-C; both let calls in flight finish.

    The database is a SQLite file unless --database-url says otherwise; it is made and migrated at
    the start. Who may register is --verification: nobody, until you fill --allowlist, or say open.
    """
    settings = _load(flags)
    _warn_of_open(settings)
    server = Server(settings)

    def tell_started() -> None:
        logger.info("listening on %s", describe_url(settings.host, server.port))
        if server.admin_port:
            admin = describe_url(settings.admin_host, server.admin_port)
            logger.info("health and figures on http%s", admin[2:].replace("/v1", "/readyz"))
        logger.info(
            "registration: %s; database: %s",
            settings.verification,
            parse_url(settings.database_url).render_as_string(hide_password=True),
        )

    try:
        _run(server.run(tell_started))
    except (StoreError, SchemaTooNew) as error:
        _fail(str(error))
    except OSError as error:
        where = describe_url(settings.host, settings.port)
        _fail(
            f"can't listen on {where} (admin port {settings.admin_port}): {error.strerror or error}"
        )


@main.command()
@_config_option
@_setting_options("database_url", "log_level")
def migrate(**flags: Any) -> None:
    """Bring the database's schema up to date, and exit. ``serve`` does the same at its start."""
    settings = _load(flags)
    try:
        with open_database(parse_url(settings.database_url)):
            pass
    except (StoreError, SchemaTooNew) as error:
        _fail(str(error))
    click.echo("the schema is up to date")


def _warn_of_open(settings: Settings) -> None:
    if settings.verification != "open":
        if settings.verification == "allowlist" and not settings.allowlist:
            logger.warning("nobody can register: the allowlist is empty (%sALLOWLIST)", PREFIX)
        return
    if _is_loopback(settings.host):
        logger.info(
            "registration is open to everyone who can reach this machine's loopback address"
        )
    else:
        logger.warning(
            "registration is OPEN to everyone who can reach %s: this mode is for development",
            settings.host,
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _run(serving: Any) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


def _fail(text: str) -> typing.NoReturn:
    click.echo(f"wsserver: {text}", err=True)
    sys.exit(EXIT_FAILURE)


if __name__ == "__main__":
    main()
