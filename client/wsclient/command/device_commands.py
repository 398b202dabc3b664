"""The commands about the account's devices."""

from __future__ import annotations

import click

from wsclient.command.console import tabulate
from wsclient.command.failures import CommandFailed, ExitCode
from wsclient.command.opening import open_profile
from wsclient.command.running import Invocation, command
from wsclient.command.telling import SHORT_ID_CHARS, show_time
from wsschema.fields import encode
from wsschema.messages import Device


@command("devices", "devices")
async def list_devices(invocation: Invocation) -> None:
    """List the account's devices.

    Who is online, and which version of the wallet each has applied.

    \b
    wsclient devices
    """
    async with open_profile(invocation.load_profile(), invocation.timeout_s) as opened:
        await opened.finish(opened.wallet.ping())  # else it lists those that were seen last
        listed = await opened.finish(opened.wallet.devices())
    rows = [
        (
            device.device_id[:SHORT_ID_CHARS],
            f"{device.name or '-'}{' (this one)' if device.current else ''}",
            "yes" if device.online else "no",
            str(device.applied_sequence),
            show_time(device.last_seen_at),
        )
        for device in listed
    ]
    invocation.console.show(
        {"devices": [encode(device) for device in listed]},
        tabulate(("DEVICE", "NAME", "ONLINE", "SEQUENCE", "LAST SEEN"), rows),
    )


@command("revoke", "revoked")
@click.argument("device")
async def revoke(invocation: Invocation, device: str) -> None:
    """End a lost device's session, and take it off the list.

    DEVICE is its id, as of `wsclient devices`, or as much of its beginning as no other one has. If
    the device is in wrong hands, change the root password too: until then what it keeps lets it log
    in again.

    \b
    wsclient revoke 3f9c
    wsclient passwd
    """
    async with open_profile(invocation.load_profile(), invocation.timeout_s) as opened:
        await opened.finish(opened.wallet.ping())
        listed = await opened.finish(opened.wallet.devices())
        found = _find_device(listed, device)
        await opened.finish(opened.wallet.revoke_device(found.device_id))
    invocation.console.show({"revoked": encode(found)}, f"revoked: {found.name or found.device_id}")


def _find_device(listed: tuple[Device, ...], prefix: str) -> Device:
    found = [device for device in listed if device.device_id.startswith(prefix)]
    if not prefix or len(found) != 1:
        many = "more than one device's id" if found else "no device's id"
        raise CommandFailed(
            "no_such_device",
            f"{many} begins with {prefix!r}",
            "wsclient devices lists them",
            ExitCode.MISUSED,
        )
    if found[0].current:
        raise CommandFailed(
            "this_device", "that is this device", "wsclient logout", ExitCode.MISUSED
        )
    return found[0]
