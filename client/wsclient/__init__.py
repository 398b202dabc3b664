"""The client library: a wallet that stays in sync, sealed before it leaves the device.

`SyncedWallet` is what an application takes; `Session` is what it stands on, for those who merge by
themselves; `Client` is for a Python prompt.
"""

from wsclient.account import change_password, derive_keys, log_in, register
from wsclient.crypto import DEFAULT_KDF, Contents, Keys, open_sealed, seal
from wsclient.events import Event, Offline, Online
from wsclient.interactive import Client
from wsclient.session import Session
from wsclient.wallet import SyncedWallet
from wsclient.wallet_events import Status, WalletEvent
from wsclient.witness import Witness

__all__ = [
    "DEFAULT_KDF",
    "Client",
    "Contents",
    "Event",
    "Keys",
    "Offline",
    "Online",
    "Session",
    "Status",
    "SyncedWallet",
    "WalletEvent",
    "Witness",
    "change_password",
    "derive_keys",
    "log_in",
    "open_sealed",
    "register",
    "seal",
]
