"""The command ``wsserver``."""

from __future__ import annotations

import ipaddress
from typing import Any

import click

from wsserver import logbook
from wsserver.commands import account, allowlist
from wsserver.config import Settings
from wsserver.database_commands import back_up, copy, drill, epoch, restore, take_over
from wsserver.doctor.command import doctor
from wsserver.inspecting import config
from wsserver.options import config_option, fail, load_or_exit, setting_options
from wsserver.origins import find_unknown_variables, hide_passwords
from wsserver.server import Server, describe_url
from wsserver.starting import START_FAILURES, become_supervisor, explain, run_in_loop
from wsserver.status.command import status
from wsserver.store.databases import open_database, parse_url
from wsserver.store.errors import StoreError
from wsserver.store.schema import SchemaTooNew
from wsserver.systemd import SocketsWrong, take_sockets
from wsserver.throttle import RATE_EXAMPLE

EPILOG = (
    "Each setting is a flag here, a variable (--admin-port is WSSERVER_ADMIN_PORT) and a key of "
    "the TOML file; a flag wins over a variable, and a variable over the file. "
    f"A RATE is written {RATE_EXAMPLE!r}: 200 at once, and 20 a second (s, min or h) in the long "
    "run."
)


@click.group(epilog="Start with: wsserver serve --verification open")
@click.version_option(package_name="wallet-sync")
def main() -> None:
    """Keeps end-to-end encrypted wallets in sync between the devices of an account."""


for command in (
    account,
    allowlist,
    back_up,
    config,
    copy,
    doctor,
    drill,
    epoch,
    restore,
    status,
    take_over,
):
    main.add_command(command)


@main.command(epilog=EPILOG)
@config_option
@setting_options()
def serve(**flags: Any) -> None:
    """Serve until SIGTERM or Ctrl-C; both let calls in flight finish.

    The database is a SQLite file unless --database-url says otherwise; it is made and migrated at
    the start. Who may register is --verification: nobody, until you fill --allowlist or
    use `wsserver allowlist add`, or say open.
    """
    settings = load_or_exit(flags, serves=True)
    for name, reason in find_unknown_variables():
        logbook.UNKNOWN_VARIABLE.log(name=name, reason=reason)
    _warn_of_open(settings)
    try:
        if settings.workers > 1:
            become_supervisor(settings, flags)
        server = Server(settings, sockets=take_sockets())
    except (SocketsWrong, StoreError, SchemaTooNew) as error:
        fail(str(error))
    scheme = "ws" if settings.tls_cert is None else "wss"

    def tell_started() -> None:
        logbook.LISTENING.log(address=describe_url(settings.host, server.port, scheme=scheme))
        if server.admin_port:
            admin = describe_url(
                settings.admin_host, server.admin_port, scheme="http", path="/readyz"
            )
            logbook.ADMIN_LISTENING.log(address=admin)
        if settings.lbry_port:
            http = "http" if settings.tls_cert is None else "https"
            gateway = describe_url(settings.host, settings.lbry_port, scheme=http, path="/api/3")
            logbook.GATEWAY_LISTENING.log(address=gateway)
        logbook.SERVING.log(
            verification=settings.verification, database=hide_passwords(settings.database_url)
        )

    try:
        run_in_loop(server.run(tell_started))
    except START_FAILURES as error:
        fail(explain(error, settings))


@main.command()
@config_option
@setting_options("database_url", "log_level")
def migrate(**flags: Any) -> None:
    """Bring the database's schema up to date, and exit.

    ``serve`` does the same at its start.

    \b
    wsserver migrate
    """
    settings = load_or_exit(flags)
    try:
        with open_database(parse_url(settings.database_url)):
            pass
    except (StoreError, SchemaTooNew) as error:
        fail(str(error))
    click.echo("the schema is up to date")


def _warn_of_open(settings: Settings) -> None:
    if settings.verification != "open":
        if settings.verification == "allowlist" and not settings.allowlist:
            logbook.NOBODY_MAY_REGISTER.log()
        return
    if _is_loopback(settings.host):
        logbook.OPEN_HERE.log()
    else:
        logbook.OPEN_TO_ALL.log(host=settings.host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
