"""The operator's commands: accounts, the allowlist and epochs of a database, served from or not."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from sqlalchemy import URL, Connection

from wsschema.fields import Email, FieldError, lower_email
from wsschema.times import format_time, time_from_ms
from wsserver.lbry.importing import take_over_file
from wsserver.options import (
    config_option,
    fail,
    load_or_exit,
    print_json,
    print_table,
    setting_options,
)
from wsserver.store import backups, operator
from wsserver.store.context import Context
from wsserver.store.databases import open_live_database, parse_url, refusing_beside_servers
from wsserver.store.errors import NotFound, StoreError
from wsserver.store.operator import AccountRecord, OperatorDevice
from wsserver.store.schema import SchemaTooNew

EPILOG = (
    "The database is --database-url, WSSERVER_DATABASE_URL or the key database_url of the TOML "
    "file, as for serve. Exit codes: 0 done, 1 failed (a sentence says why), 2 misused."
)
Command = Callable[..., Any]


def _command(group: click.Group | None, name: str) -> Callable[[Command], click.Command]:
    """A command on a database, of a group or of its own; takes ``as_json`` and settings' flags."""

    def decorate(command: Command) -> click.Command:
        command = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(
            command
        )
        command = setting_options("database_url")(config_option(command))
        return (click if group is None else group).command(name, epilog=EPILOG)(command)

    return decorate


_address_argument = click.argument("address", callback=lambda _, __, text: lower_email(text))


@click.group(epilog=EPILOG)
def account() -> None:
    """See accounts, let them in, keep them out.

    Every command works beside a running server: what it does to open sessions takes effect within
    a second.

    \b
    wsserver account list --filter example.com
    wsserver account show joe@example.com
    wsserver account disable joe@example.com
    """


@_command(account, "list")
@click.option("--filter", "part", metavar="TEXT", default="", help="Part of the address.")
@click.option("--after", metavar="ADDRESS", default="", help="Go on after this address.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
def list_accounts(part: str, after: str, limit: int, as_json: bool, **flags: Any) -> None:
    """List accounts by address, a page at a time.

    The state is active, disabled, or unverified: a registration whose link in the mail has not
    been followed. The JSON's "next" is the --after of the next page, null on the last.

    \b
    wsserver account list
    wsserver account list --filter @example.com --limit 500
    wsserver account list --json | jq -r '.accounts[].email'
    """
    with _open(flags, reading=True) as connection:
        found = operator.list_accounts(
            connection,
            part=lower_email(part),
            after=lower_email(after),
            limit=limit + 1,
            now_ms=_now_ms(),
        )
    shown = found[:limit]
    following = shown[-1].email if len(found) > limit else None
    if as_json:
        print_json({"accounts": [_account_json(each) for each in shown], "next": following})
        return
    print_table(
        ("ID", "ADDRESS", "STATE", "SEQUENCE", "DEVICES", "CREATED"),
        [
            (
                str(each.account_id or "-"),
                each.email,
                each.state,
                str(each.sequence),
                str(each.devices),
                _show_time(each.created_at_ms),
            )
            for each in shown
        ],
    )
    if following is not None:
        click.echo(f"there are more: --after {following}", err=True)


@_command(account, "show")
@_address_argument
def show_account(address: str, as_json: bool, **flags: Any) -> None:
    """Show an account and its devices.

    A device that is logged in has a token: it can come back without a password.

    \b
    wsserver account show joe@example.com
    """
    with _open(flags, reading=True) as connection:
        record = operator.find_account(connection, address, now_ms=_now_ms())
        owned = (
            []
            if record.account_id is None
            else operator.list_devices(connection, record.account_id)
        )
    if as_json:
        print_json({"account": _account_json(record), "devices": [*map(_device_json, owned)]})
        return
    lines = [
        ("address", record.email),
        ("id", str(record.account_id or "-")),
        ("state", record.state),
        ("sequence", str(record.sequence)),
        ("created", _show_time(record.created_at_ms)),
    ]
    if record.expires_at_ms is not None:
        lines.append(("expires", _show_time(record.expires_at_ms)))
    for name, text in lines:
        click.echo(f"{name:10}{text}")
    if owned:
        click.echo()
        print_table(
            ("DEVICE", "NAME", "LOGGED IN", "APPLIED", "LAST SEEN"),
            [
                (
                    each.record.device_id,
                    each.record.name or "-",
                    "yes" if each.logged_in else "no",
                    str(each.record.applied_sequence),
                    _show_time(each.record.last_seen_at_ms),
                )
                for each in owned
            ],
        )


@_command(account, "verify")
@_address_argument
def verify_account(address: str, as_json: bool, **flags: Any) -> None:
    """Activate a registration, as the link in its mail would.

    For a user whom the mail does not reach. Be sure that the address is the user's: whoever
    registered gets the account.

    \b
    wsserver account verify joe@example.com
    """
    with _open(flags) as connection:
        now_ms = _now_ms()
        context = Context(now_ms=lambda: now_ms, history_depth=1, token_lifetime_ms=0)
        changed = operator.verify_account(connection, context, address)
        record = operator.find_account(connection, address, now_ms=now_ms)
    _tell(record, changed, as_json, f"{address} {'is' if changed else 'was already'} verified")


@_command(account, "disable")
@_address_argument
def disable_account(address: str, as_json: bool, **flags: Any) -> None:
    """Keep an account out until it is enabled.

    Its sessions end within a second. The wallet and the devices stay as they are.

    \b
    wsserver account disable joe@example.com
    """
    with _open(flags) as connection:
        changed = operator.disable_account(connection, address, now_ms=_now_ms())
        record = operator.find_account(connection, address, now_ms=_now_ms())
    _tell(record, changed, as_json, f"{address} {'is' if changed else 'was already'} disabled")


@_command(account, "enable")
@_address_argument
def enable_account(address: str, as_json: bool, **flags: Any) -> None:
    """Let a disabled account in again.

    Its devices come back with the tokens that they had.

    \b
    wsserver account enable joe@example.com
    """
    with _open(flags) as connection:
        changed = operator.enable_account(connection, address, now_ms=_now_ms())
        record = operator.find_account(connection, address, now_ms=_now_ms())
    _tell(record, changed, as_json, f"{address} {'is' if changed else 'was already'} enabled")


@_command(account, "revoke")
@_address_argument
@click.option("--device", "device_id", metavar="ID", help="This device only.")
@click.option("--forget", is_flag=True, help="Take the devices off the account's list too.")
def revoke_devices(
    address: str, device_id: str | None, forget: bool, as_json: bool, **flags: Any
) -> None:
    """Log out an account's devices, or one.

    Their sessions end within a second, and they need the password to come back. Someone who knows
    that is not kept out by this: see disable.

    \b
    wsserver account revoke joe@example.com
    wsserver account revoke joe@example.com --device lost-phone --forget
    """
    with _open(flags) as connection:
        ended = operator.revoke_devices(
            connection, address, device_id=device_id, forget=forget, now_ms=_now_ms()
        )
        record = operator.find_account(connection, address, now_ms=_now_ms())
    done = "forgotten" if forget else "logged out"
    said = f"{done}: {', '.join(ended)}" if ended else f"{address} has no device that is logged in"
    _tell(record, bool(ended), as_json, said, devices=ended)


@_command(account, "delete")
@_address_argument
@click.option("--yes", is_flag=True, help="Don't ask.")
def delete_account(address: str, yes: bool, as_json: bool, **flags: Any) -> None:
    """Delete an account and its wallet for good.

    Sessions end within a second. The address may register anew, if the mode of verification lets
    it. Deletes a registration that waits to be verified, too.

    \b
    wsserver account delete joe@example.com
    wsserver account delete joe@example.com --yes --json
    """
    with _open(flags, reading=True) as connection:
        record = operator.find_account(connection, address, now_ms=_now_ms())
    if not yes:
        described = f"{record.state}, devices: {record.devices}, sequence: {record.sequence}"
        click.confirm(f"Delete {address} ({described}) for good?", abort=True, err=True)
    with _open(flags) as connection:
        operator.delete_account(connection, address, now_ms=_now_ms())
    _tell(record, True, as_json, f"{address} is deleted")


@click.group(epilog=EPILOG)
def allowlist() -> None:
    """Say who may register, in verification mode allowlist.

    A running server heeds it at once. The addresses in WSSERVER_ALLOWLIST may register besides.
    An account that was registered stays when its address is taken off the list.

    \b
    wsserver allowlist add joe@example.com ann@example.com
    wsserver allowlist list
    """


def _read_addresses(
    context: click.Context, parameter: click.Parameter, texts: Sequence[str]
) -> list[str]:
    for text in texts:
        try:
            Email().read(text, "", lenient=False)
        except FieldError as error:
            raise click.BadParameter(f"{text!r} {error.text}") from None
    return [lower_email(text) for text in texts]


_addresses_argument = click.argument(
    "addresses", nargs=-1, required=True, metavar="ADDRESS...", callback=_read_addresses
)


@_command(allowlist, "add")
@_addresses_argument
def add_allowed(addresses: list[str], as_json: bool, **flags: Any) -> None:
    """Let addresses register, from now on.

    \b
    wsserver allowlist add joe@example.com ann@example.com
    """
    with _open(flags) as connection:
        added = operator.allow(connection, addresses, now_ms=_now_ms())
    if as_json:
        print_json({"added": added})
    else:
        click.echo(f"added: {', '.join(added)}" if added else "on the list already")


@_command(allowlist, "remove")
@_addresses_argument
def remove_allowed(addresses: list[str], as_json: bool, **flags: Any) -> None:
    """Let addresses register no more.

    All of them are removed, or none where one is not on the list.

    \b
    wsserver allowlist remove joe@example.com
    """
    with _open(flags) as connection:
        operator.disallow(connection, addresses)
    if as_json:
        print_json({"removed": addresses})
    else:
        click.echo(f"removed: {', '.join(addresses)}")


@_command(allowlist, "list")
def list_allowed(as_json: bool, **flags: Any) -> None:
    """List the addresses that may register.

    Those in WSSERVER_ALLOWLIST are not in the database, and not listed.

    \b
    wsserver allowlist list
    """
    with _open(flags, reading=True) as connection:
        allowed = operator.list_allowed(connection)
    if as_json:
        entries = [{"email": email, "addedAt": _time_json(at_ms)} for email, at_ms in allowed]
        print_json({"addresses": entries})
    else:
        print_table(("ADDRESS", "ADDED"), [(email, _show_time(at_ms)) for email, at_ms in allowed])


@click.group(epilog=EPILOG)
def epoch() -> None:
    """Tell clients that a database's data have begun a new life."""


@_command(epoch, "renew")
@click.option("--keep-tokens", is_flag=True, help="Leave devices logged in, revoked ones too.")
def renew_epochs(keep_tokens: bool, as_json: bool, **flags: Any) -> None:
    """Give every account a new epoch.

    For a database that was restored from a backup with other tools. Clients take a sequence that
    went back for an attack, and stop; under a new epoch they merge with what is stored, and go on.
    All devices are logged out, for one that was revoked since the backup was made would be back;
    --keep-tokens leaves them in.

    The server must be stopped meanwhile. It is done for all accounts, or, when it fails, for none.

    \b
    wsserver epoch renew
    """
    renewed = 0
    # The guard is let go last: a server that starts must find the new epochs committed.
    with contextlib.ExitStack() as after_commit, _open(flags) as connection:
        after_commit.enter_context(refusing_beside_servers(connection))
        with click.progressbar(
            length=operator.count_accounts(connection),
            label="renewing epochs",
            file=sys.stderr,
            hidden=not sys.stderr.isatty(),
        ) as bar:
            for done in operator.renew_epochs(connection, keep_tokens=keep_tokens):
                bar.update(done)
                renewed += done
    if as_json:
        print_json({"accounts": renewed, "tokensKept": keep_tokens})
    else:
        ended = "devices stay logged in" if keep_tokens else "all devices are logged out"
        click.echo(f"accounts with a new epoch: {renewed:,}; {ended}")


@_command(None, "backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace FILE where it is there already.")
def back_up(file: Path, overwrite: bool, as_json: bool, **flags: Any) -> None:
    """Copy the database to FILE, served from or not.

    The copy is whole and as of one moment: every push that was answered before the command began is
    in it. FILE is there once it is complete, checked and on the disk, and for nobody but its owner
    to read. Take it elsewhere, and put it back with `wsserver restore`.

    \b
    wsserver backup /var/backups/wallet-sync-$(date +%F).db
    """
    url = _find_url(flags)
    with _progress("copying") as progress, _telling_failure():
        size_bytes = backups.back_up(url, file, overwrite=overwrite, progress=progress)
    if as_json:
        print_json({"file": str(file), "bytes": size_bytes})
    else:
        click.echo(f"{file}: {size_bytes:,} bytes")


@_command(None, "restore")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--keep-tokens", is_flag=True, help="Leave devices logged in, revoked ones too.")
@click.option("--replace", is_flag=True, help="Also where the database has accounts.")
def restore(file: Path, keep_tokens: bool, replace: bool, as_json: bool, **flags: Any) -> None:
    """Put a backup in the place of the data there are.

    FILE is what `wsserver backup` made. Every account gets a new epoch, which tells its devices
    that the data went back: they merge what they have with what is stored, and push, so that what
    was pushed since the backup comes back from them. All devices are logged out, for one that was
    revoked since would be back; --keep-tokens leaves them in.

    The server must be stopped meanwhile. It is done whole, or, when it fails, not at all.

    \b
    wsserver restore /var/backups/wallet-sync-2026-11-25.db
    """
    url = _find_url(flags)
    with _progress("restoring") as progress, _telling_failure():
        count = backups.restore(
            url, file, keep_tokens=keep_tokens, replace=replace, progress=progress
        )
    if as_json:
        print_json({"accounts": count, "tokensKept": keep_tokens})
    else:
        ended = "devices stay logged in" if keep_tokens else "all devices are logged out"
        click.echo(f"accounts restored: {count:,}; {ended}")


@click.group("import", epilog=EPILOG)
def take_over() -> None:
    """Take over what another server kept."""


@_command(take_over, "lbry")
@setting_options("history_depth")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be taken over, and change nothing.")
def import_lbry(file: Path, dry_run: bool, as_json: bool, **flags: Any) -> None:
    """Take over accounts from the SQLite FILE of lbryio's wallet-sync-server.

    Users log in with the passwords that they had, and find their wallets; devices have to log in
    anew. Stop that server first: what it takes later is not here. This one may run meanwhile.

    What is here already stays as it is, so that the command may be run again, after it was cut
    short too. The database is made where there is none. --history-depth is for that case; give it
    if you give it to serve.

    \b
    wsserver import lbry sql.db --dry-run
    wsserver import lbry sql.db
    """
    settings = load_or_exit(flags)
    with _progress("importing") as progress, _telling_failure():
        report = take_over_file(
            parse_url(settings.database_url),
            file,
            history_depth=settings.history_depth,
            dry_run=dry_run,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "dryRun": dry_run,
                "accounts": report.accounts,
                "wallets": report.wallets,
                "registrations": report.registrations,
                "thereAlready": report.there,
                "unverified": report.unverified,
                "leftOut": [{"email": it.email, "reason": it.reason} for it in report.left_out],
                "fileChanged": report.source_changed,
            }
        )
        return
    done = "would be taken over" if dry_run else "taken over"
    click.echo(f"accounts {done}: {report.accounts:,}, {report.wallets:,} of them with a wallet")
    click.echo(f"registrations that wait to be verified: {report.registrations:,}")
    click.echo(f"there already: {report.there:,}")
    click.echo(f"left out: {len(report.left_out):,}")
    for each in report.left_out:
        click.echo(f"  {each.email}: {each.reason}")
    for email in report.unverified:
        click.echo(f"{email} was never verified, but has a wallet: wsserver account verify {email}")
    if report.source_changed:
        click.echo(
            f"{file} was written to meanwhile: is that server running? What it takes from now on "
            "is not here",
            err=True,
        )


# What they share.


@contextlib.contextmanager
def _open(flags: dict[str, Any], *, reading: bool = False) -> Iterator[Connection]:
    """The database that the settings name, in a transaction; a sentence and exit 1 on failure."""
    with _telling_failure(), open_live_database(_find_url(flags), reading=reading) as connection:
        yield connection


@contextlib.contextmanager
def _telling_failure() -> Iterator[None]:
    try:
        yield
    except (StoreError, NotFound, SchemaTooNew) as error:
        fail(str(error))


def _find_url(flags: dict[str, Any]) -> URL:
    settings = load_or_exit(flags)
    with _telling_failure():
        return parse_url(settings.database_url)


@contextlib.contextmanager
def _progress(label: str) -> Iterator[backups.Progress]:
    """A bar on a terminal; elsewhere nothing."""
    with click.progressbar(
        length=1000, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        yield lambda done, total: bar.update(1000 * done // max(1, total) - bar.pos)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _tell(record: AccountRecord, changed: bool, as_json: bool, said: str, **members: Any) -> None:
    if as_json:
        print_json({"changed": changed, "account": _account_json(record), **members})
    else:
        click.echo(said)


def _show_time(time_ms: int | None) -> str:
    return "-" if time_ms is None else f"{time_from_ms(time_ms):%Y-%m-%d %H:%M:%SZ}"


def _time_json(time_ms: int | None) -> str | None:
    return None if time_ms is None else format_time(time_from_ms(time_ms))


def _account_json(record: AccountRecord) -> dict[str, Any]:
    return {
        "accountId": record.account_id,
        "email": record.email,
        "state": record.state,
        "sequence": record.sequence,
        "devices": record.devices,
        "createdAt": _time_json(record.created_at_ms),
        "expiresAt": _time_json(record.expires_at_ms),
    }


def _device_json(device: OperatorDevice) -> dict[str, Any]:
    record = device.record
    return {
        "deviceId": record.device_id,
        "name": record.name,
        "loggedIn": device.logged_in,
        "appliedSequence": record.applied_sequence,
        "createdAt": _time_json(record.created_at_ms),
        "lastSeenAt": _time_json(record.last_seen_at_ms),
    }
