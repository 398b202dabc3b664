"""The operator's commands on accounts and the allowlist of a database, served from or not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from wsschema.fields import Email, FieldError, lower_email
from wsschema.times import format_time, time_from_ms
from wsserver.command_parts import EPILOG, database_command, open_named
from wsserver.options import print_json, print_table
from wsserver.store import operator
from wsserver.store.context import Context
from wsserver.store.operator import AccountRecord, OperatorDevice

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


@database_command(account, "list")
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
    with open_named(flags, reading=True) as connection:
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


@database_command(account, "show")
@_address_argument
def show_account(address: str, as_json: bool, **flags: Any) -> None:
    """Show an account and its devices.

    A device that is logged in has a token: it can come back without a password.

    \b
    wsserver account show joe@example.com
    """
    with open_named(flags, reading=True) as connection:
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


@database_command(account, "verify")
@_address_argument
def verify_account(address: str, as_json: bool, **flags: Any) -> None:
    """Activate a registration, as the link in its mail would.

    For a user whom the mail does not reach. Be sure that the address is the user's: whoever
    registered gets the account.

    \b
    wsserver account verify joe@example.com
    """
    with open_named(flags) as connection:
        now_ms = _now_ms()
        context = Context(now_ms=lambda: now_ms, history_depth=1, token_lifetime_ms=0)
        changed = operator.verify_account(connection, context, address)
        record = operator.find_account(connection, address, now_ms=now_ms)
    _tell(record, changed, as_json, f"{address} {'is' if changed else 'was already'} verified")


@database_command(account, "disable")
@_address_argument
def disable_account(address: str, as_json: bool, **flags: Any) -> None:
    """Keep an account out until it is enabled.

    Its sessions end within a second. The wallet and the devices stay as they are.

    \b
    wsserver account disable joe@example.com
    """
    with open_named(flags) as connection:
        changed = operator.disable_account(connection, address, now_ms=_now_ms())
        record = operator.find_account(connection, address, now_ms=_now_ms())
    _tell(record, changed, as_json, f"{address} {'is' if changed else 'was already'} disabled")


@database_command(account, "enable")
@_address_argument
def enable_account(address: str, as_json: bool, **flags: Any) -> None:
    """Let a disabled account in again.

    Its devices come back with the tokens that they had.

    \b
    wsserver account enable joe@example.com
    """
    with open_named(flags) as connection:
        changed = operator.enable_account(connection, address, now_ms=_now_ms())
        record = operator.find_account(connection, address, now_ms=_now_ms())
    _tell(record, changed, as_json, f"{address} {'is' if changed else 'was already'} enabled")


@database_command(account, "revoke")
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
    with open_named(flags) as connection:
        ended = operator.revoke_devices(
            connection, address, device_id=device_id, forget=forget, now_ms=_now_ms()
        )
        record = operator.find_account(connection, address, now_ms=_now_ms())
    done = "forgotten" if forget else "logged out"
    said = f"{done}: {', '.join(ended)}" if ended else f"{address} has no device that is logged in"
    _tell(record, bool(ended), as_json, said, devices=ended)


@database_command(account, "delete")
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
    with open_named(flags, reading=True) as connection:
        record = operator.find_account(connection, address, now_ms=_now_ms())
    if not yes:
        described = f"{record.state}, devices: {record.devices}, sequence: {record.sequence}"
        click.confirm(f"Delete {address} ({described}) for good?", abort=True, err=True)
    with open_named(flags) as connection:
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


@database_command(allowlist, "add")
@_addresses_argument
def add_allowed(addresses: list[str], as_json: bool, **flags: Any) -> None:
    """Let addresses register, from now on.

    \b
    wsserver allowlist add joe@example.com ann@example.com
    """
    with open_named(flags) as connection:
        added = operator.allow(connection, addresses, now_ms=_now_ms())
    if as_json:
        print_json({"added": added})
    else:
        click.echo(f"added: {', '.join(added)}" if added else "on the list already")


@database_command(allowlist, "remove")
@_addresses_argument
def remove_allowed(addresses: list[str], as_json: bool, **flags: Any) -> None:
    """Let addresses register no more.

    All of them are removed, or none where one is not on the list.

    \b
    wsserver allowlist remove joe@example.com
    """
    with open_named(flags) as connection:
        operator.disallow(connection, addresses)
    if as_json:
        print_json({"removed": addresses})
    else:
        click.echo(f"removed: {', '.join(addresses)}")


@database_command(allowlist, "list")
def list_allowed(as_json: bool, **flags: Any) -> None:
    """List the addresses that may register.

    Those in WSSERVER_ALLOWLIST are not in the database, and not listed.

    \b
    wsserver allowlist list
    """
    with open_named(flags, reading=True) as connection:
        allowed = operator.list_allowed(connection)
    if as_json:
        entries = [{"email": email, "addedAt": _time_json(at_ms)} for email, at_ms in allowed]
        print_json({"addresses": entries})
    else:
        print_table(("ADDRESS", "ADDED"), [(email, _show_time(at_ms)) for email, at_ms in allowed])


# What they share.


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
