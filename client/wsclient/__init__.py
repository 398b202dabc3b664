"""The client library: a wallet that stays in sync, sealed before it leaves the device.

`Session` is for applications, on asyncio; `Client` for a Python prompt.
"""

from wsclient.account import change_password, derive_keys, register
from wsclient.crypto import DEFAULT_KDF, Contents, Keys, open_sealed, seal
from wsclient.events import Event, Offline, Online
from wsclient.interactive import Client
from wsclient.session import Session
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
    "Witness",
    "change_password",
    "derive_keys",
    "open_sealed",
    "register",
    "seal",
]
