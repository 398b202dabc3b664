"""A wallet's events, as a line for people and as a document for programs."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any, Final, assert_never

from wsclient.command.failures import describe_failure
from wsclient.wallet_events import (
    ConflictMerged,
    DeviceUpdated,
    PasswordNeeded,
    Pushed,
    PushRefused,
    Restored,
    StatusChanged,
    Stopped,
    ValueChanged,
    WalletEvent,
)
from wsschema.fields import encode
from wsschema.messages import Device

SHORT_ID_CHARS: Final = 8
"""Of a device's id: enough to tell a person's devices apart."""


def describe_event(event: WalletEvent, own_device_id: str) -> str:
    """What has happened, in a line that tells nothing of what is in the wallet."""
    match event:
        case StatusChanged():
            cause = "" if event.cause is None else f": {event.cause}"
            retry = "" if event.retry_s is None else f"; next attempt in {event.retry_s:.0f} s"
            return f"{event.status}{cause}{retry}"
        case ValueChanged():
            by = (
                "here"
                if event.device_id == own_device_id
                else f"by {event.device_id[:SHORT_ID_CHARS]}"
            )
            return f"changed {by}, {len(event.value):,} bytes, sequence {event.sequence}"
        case ConflictMerged():
            return f"merged with what was changed here, sequence {event.sequence}"
        case Pushed():
            return f"pushed as sequence {event.sequence}"
        case PushRefused():
            return f"the server refused a push: {event.error}"
        case DeviceUpdated():
            device = event.device
            state = "online" if device.online else "offline"
            return f"{name_device(device)} is {state}, at sequence {device.applied_sequence}"
        case Restored():
            return "the server was restored from a backup; merged with what it has"
        case PasswordNeeded():
            return "the root password was changed on another device"
        case Stopped():
            return f"stopped: {event.error}"
    assert_never(event)


def encode_event(event: WalletEvent, *, values: bool = False) -> dict[str, Any]:
    """The event as a document; ``values`` puts the wallet into it, too."""
    match event:
        case StatusChanged():
            return {
                "event": "status",
                "status": str(event.status),
                "cause": event.cause,
                "retryS": event.retry_s,
            }
        case ValueChanged():
            return {
                "event": "changed",
                "sequence": event.sequence,
                "deviceId": event.device_id,
                "bytes": len(event.value),
                **(encode_wallet(event.value) if values else {}),
            }
        case ConflictMerged():
            return {"event": "merged", "sequence": event.sequence}
        case Pushed():
            return {"event": "pushed", "sequence": event.sequence}
        case PushRefused():
            return {"event": "refused", **_encode_error(event.error)}
        case DeviceUpdated():
            return {"event": "device", **encode(event.device)}
        case Restored():
            return {"event": "restored", "epoch": event.epoch}
        case PasswordNeeded():
            return {"event": "passwordNeeded", "reason": event.reason}
        case Stopped():
            return {"event": "stopped", **_encode_error(event.error)}
    assert_never(event)


def encode_wallet(value: bytes | None) -> dict[str, str | None]:
    """A wallet in a document: its text, or where it is no UTF-8, base64."""
    if value is None:
        return {"wallet": None, "encoding": None}
    try:
        return {"wallet": value.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"wallet": base64.b64encode(value).decode(), "encoding": "base64"}


def name_device(device: Device) -> str:
    """What people call it."""
    return device.name or device.device_id[:SHORT_ID_CHARS]


def show_time(time: datetime) -> str:
    """In this machine's time zone, to the second."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def _encode_error(error: Exception) -> dict[str, Any]:
    failure = describe_failure(error)
    reason = "unforeseen" if failure is None else failure.reason
    return {"reason": reason, "message": str(error)}
