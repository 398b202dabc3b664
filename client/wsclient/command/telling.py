"""Events of a wallet, for people and for programs."""

from __future__ import annotations

from typing import Any, assert_never

from wsclient.wallet_events import (
    ConflictMerged,
    DeviceUpdated,
    PasswordNeeded,
    PushRefused,
    Pushed,
    Restored,
    StatusChanged,
    Stopped,
    ValueChanged,
    WalletEvent,
)
from wsschema.fields import encode
from wsschema.messages import Device

from wsclient.command.failures import describe_failure
