"""Every message of the protocol, as frozen dataclasses, and the registry of methods.

Calls are verbs, results and notifications nouns. What people entrust to the server (passwords,
tokens, wallets, addresses) is hidden from ``repr``, so that no log line shows it.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from wsschema import limits
from wsschema.fields import (
    Boolean,
    Email,
    HexDigits,
    Integer,
    OneOf,
    Opaque,
    PowerOfTwo,
    Text,
    Time,
)
from wsschema.frozen import frozen

R_co = TypeVar("R_co", covariant=True)

EmailAddress = Annotated[str, Email()]
Password = Annotated[str, Text(limits.PASSWORD_CHARS_MIN, limits.PASSWORD_CHARS_MAX)]
SaltSeed = Annotated[str, HexDigits(limits.CLIENT_SALT_SEED_HEX_DIGITS)]
Token = Annotated[str, Text(1, limits.TOKEN_CHARS_MAX)]
DeviceId = Annotated[str, Text(1, limits.DEVICE_ID_CHARS_MAX)]
DeviceName = Annotated[str, Text(0, limits.DEVICE_NAME_CHARS_MAX)]
Epoch = Annotated[str, Text(1, limits.EPOCH_CHARS_MAX)]
Sequence = Annotated[int, Integer(1)]
SequenceOrZero = Annotated[int, Integer(0)]
Count = Annotated[int, Integer(0)]
EncryptedWallet = Annotated[str, Opaque()]
Hmac = Annotated[str, Opaque(limits.HMAC_BYTES_MAX)]
Timestamp = Annotated[datetime, Time()]
Flag = Annotated[bool, Boolean()]
Deliver = Annotated[str, OneOf(("sequence", "state"))]
VerificationMode = Annotated[str, OneOf(("open", "allowlist", "email"), grows=True)]
Name = Annotated[str, Text(0, 256)]

REVOCATION_REASONS = (
    "password_changed", "password_reset", "device_revoked", "logged_out", "account_deleted",
    "account_disabled", "replaced", "expired",
)  # fmt: skip


class Call(Generic[R_co]):
    """The parameters of a method whose result is ``R_co``."""

    __slots__ = ()


# What is in the messages.


@frozen
class Kdf:
    """How a client derives its keys: scrypt (RFC 7914) with these parameters."""

    n: Annotated[int, PowerOfTwo(limits.KDF_N_MIN, limits.KDF_N_MAX)]
    r: Annotated[int, OneOf((limits.KDF_R,))]
    p: Annotated[int, Integer(limits.KDF_P_MIN, limits.KDF_P_MAX)]
    name: Annotated[str, OneOf((limits.KDF_NAME,))]

    @classmethod
    def scrypt(cls, n: int, r: int = limits.KDF_R, p: int = limits.KDF_P_MIN) -> Kdf:
        """scrypt with cost ``n``, block size ``r`` and parallelisation ``p``."""
        return cls(n, r, p, limits.KDF_NAME)


@frozen
class WalletState:
    """One version of a wallet, as the server keeps it: ciphertext and HMAC, opaque to it."""

    sequence: Sequence
    encrypted_wallet: EncryptedWallet = field(repr=False)
    hmac: Hmac = field(repr=False)
    device_id: DeviceId
    updated_at: Timestamp


@frozen
class SealedWallet:
    """The re-encrypted wallet that a password change brings."""

    sequence: Sequence
    encrypted_wallet: EncryptedWallet = field(repr=False)
    hmac: Hmac = field(repr=False)


@frozen
class WalletVersion:
    """A kept version; ``bytes`` is the size of its ``encryptedWallet`` in UTF-8."""

    sequence: Sequence
    hmac: Hmac = field(repr=False)
    device_id: DeviceId
    updated_at: Timestamp
    bytes: Count


@frozen
class Device:
    """A device of the account; ``appliedSequence``: the newest state it acknowledged (0: none)."""

    device_id: DeviceId
    name: DeviceName | None = field(repr=False)
    created_at: Timestamp
    last_seen_at: Timestamp
    online: Flag
    current: Flag
    applied_sequence: SequenceOrZero


@frozen
class AnnouncedLimits:
    """What ``server.info`` says of its limits; see `wsschema.limits.Limits`."""

    wallet_bytes: Count
    message_bytes: Count
    anonymous_message_bytes: Count
    history_depth: Count
    batch: Count
    devices: Count


# Results.


@frozen
class Empty:
    """A result with nothing to tell."""


@frozen
class ServerInfo:
    """Who the server is and what it allows."""

    name: Name
    version: Name
    protocol: Annotated[int, Integer(1)]
    features: tuple[Name, ...]
    verification: VerificationMode
    limits: AnnouncedLimits


@frozen
class Registered:
    """Whether the account can log in at once."""

    verified: Flag


@frozen
class KeyDerivation:
    """What a client needs to derive its keys from the root password."""

    client_salt_seed: SaltSeed = field(repr=False)
    kdf: Kdf


@frozen
class SessionOpened:
    """What a device is told when its session begins (``Session`` in the protocol's types)."""

    device_id: DeviceId
    expires_at: Timestamp
    epoch: Epoch
    sequence: SequenceOrZero
    hmac: Hmac | None = field(repr=False)
    wallet: WalletState | None


@frozen
class LoggedIn:
    """``SessionOpened`` and the token to resume with."""

    token: Token = field(repr=False)
    device_id: DeviceId
    expires_at: Timestamp
    epoch: Epoch
    sequence: SequenceOrZero
    hmac: Hmac | None = field(repr=False)
    wallet: WalletState | None


@frozen
class Receipt:
    """The answer to a push that asked for no more."""

    sequence: Sequence
    hmac: Hmac = field(repr=False)
    updated_at: Timestamp


@frozen
class History:
    """Kept versions, newest first."""

    versions: tuple[WalletVersion, ...]


@frozen
class DeviceList:
    """The devices of the account."""

    devices: tuple[Device, ...]


# Calls.


@frozen
class GetServerInfo(Call[ServerInfo]):
    """Who the server is, its protocol version, features and limits."""


@frozen
class Ping(Call[Empty]):
    """A heartbeat for browsers, which cannot send pings."""


@frozen
class Discover(Call[dict[str, Any]]):
    """The OpenRPC document of this server."""


@frozen
class Register(Call[Registered]):
    """Make an account."""

    email: EmailAddress = field(repr=False)
    password: Password = field(repr=False)
    client_salt_seed: SaltSeed = field(repr=False)
    kdf: Kdf


@frozen
class Verify(Call[Empty]):
    """Show that the address is one's own, with the token from the mail."""

    token: Token = field(repr=False)


@frozen
class ResendVerification(Call[Empty]):
    """Have the verification mail sent again."""

    email: EmailAddress = field(repr=False)


@frozen
class RequestReset(Call[Empty]):
    """Have a mail sent with which a forgotten root password is got over."""

    email: EmailAddress = field(repr=False)


@frozen
class Reset(Call[Empty]):
    """Set new credentials with the token from the mail; the wallet is deleted."""

    token: Token = field(repr=False)
    password: Password = field(repr=False)
    client_salt_seed: SaltSeed = field(repr=False)
    kdf: Kdf


@frozen
class Prelogin(Call[KeyDerivation]):
    """What is needed to derive the keys of an account."""

    email: EmailAddress = field(repr=False)


@frozen
class ChangePassword(Call[Empty]):
    """Change the password and store the re-encrypted wallet, in one transaction."""

    old_password: Password = field(repr=False)
    new_password: Password = field(repr=False)
    client_salt_seed: SaltSeed = field(repr=False)
    kdf: Kdf
    wallet: SealedWallet | None = None


@frozen
class DeleteAccount(Call[Empty]):
    """Delete the account, its wallet and its history."""

    password: Password = field(repr=False)


@frozen
class Login(Call[LoggedIn]):
    """Begin a session with a password; the device gets a new token."""

    email: EmailAddress = field(repr=False)
    password: Password = field(repr=False)
    device_id: DeviceId
    device_name: DeviceName | None = field(default=None, repr=False)
    since: SequenceOrZero | None = None
    epoch: Epoch | None = None
    deliver: Deliver = "sequence"
    presence: Flag = False


@frozen
class Resume(Call[SessionOpened]):
    """Begin a session with a token."""

    token: Token = field(repr=False)
    since: SequenceOrZero | None = None
    epoch: Epoch | None = None
    deliver: Deliver = "sequence"
    presence: Flag = False


@frozen
class Logout(Call[Empty]):
    """End this device's token and session."""


@frozen
class GetWallet(Call[WalletState]):
    """The latest state, or a kept older one by its sequence."""

    sequence: Sequence | None = None


@frozen
class PushWallet(Call["WalletState | Receipt"]):
    """Store the next state; answered once it is durable."""

    sequence: Sequence
    encrypted_wallet: EncryptedWallet = field(repr=False)
    hmac: Hmac = field(repr=False)
    receipt: Flag = False


@frozen
class GetHistory(Call[History]):
    """What is kept of the wallet's past; ``before`` is exclusive."""

    limit: Annotated[int, Integer(1, limits.HISTORY_LIMIT_MAX)] = limits.HISTORY_LIMIT_DEFAULT
    before: Sequence | None = None


@frozen
class Acknowledge(Call[Empty]):
    """This device has applied that state."""

    sequence: Sequence


@frozen
class ListDevices(Call[DeviceList]):
    """The devices of the account, who of them is online, and what each has applied."""


@frozen
class RevokeDevice(Call[Empty]):
    """End a device's token and sessions and take it off the list."""

    device_id: DeviceId


# Notifications.


@frozen
class WalletUpdated:
    """Another connection of the account pushed."""

    sequence: Sequence
    hmac: Hmac = field(repr=False)
    device_id: DeviceId
    updated_at: Timestamp
    wallet: WalletState | None = None


@frozen
class SessionRevoked:
    """The session is over; close 4401 follows."""

    reason: Annotated[str, OneOf(REVOCATION_REASONS, grows=True)]


@frozen
class ServerClosing:
    """The server drains; close 1012 follows, and the client comes back after this time."""

    retry_after_ms: Count


Notification = WalletUpdated | Device | SessionRevoked | ServerClosing


@frozen
class Method:
    """A method: its name, the classes of its params and its results, and who may call it."""

    name: str
    params: type[Call[Any]]
    results: tuple[type[Any], ...]
    """Empty where the result is a document that is passed on as it is."""
    authenticated: bool = False
    """True: only after login or resume."""


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("server.info", GetServerInfo, (ServerInfo,)),
        Method("server.ping", Ping, (Empty,)),
        Method("rpc.discover", Discover, ()),
        Method("account.register", Register, (Registered,)),
        Method("account.verify", Verify, (Empty,)),
        Method("account.resendVerification", ResendVerification, (Empty,)),
        Method("account.requestReset", RequestReset, (Empty,)),
        Method("account.reset", Reset, (Empty,)),
        Method("account.prelogin", Prelogin, (KeyDerivation,)),
        Method("account.changePassword", ChangePassword, (Empty,), authenticated=True),
        Method("account.delete", DeleteAccount, (Empty,), authenticated=True),
        Method("session.login", Login, (LoggedIn,)),
        Method("session.resume", Resume, (SessionOpened,)),
        Method("session.logout", Logout, (Empty,), authenticated=True),
        Method("wallet.get", GetWallet, (WalletState,), authenticated=True),
        Method("wallet.push", PushWallet, (WalletState, Receipt), authenticated=True),
        Method("wallet.history", GetHistory, (History,), authenticated=True),
        Method("wallet.ack", Acknowledge, (Empty,), authenticated=True),
        Method("device.list", ListDevices, (DeviceList,), authenticated=True),
        Method("device.revoke", RevokeDevice, (Empty,), authenticated=True),
    )
}

METHOD_OF: dict[type[Call[Any]], Method] = {method.params: method for method in METHODS.values()}

NOTIFICATIONS: dict[str, type[Any]] = {
    "wallet.updated": WalletUpdated,
    "device.updated": Device,
    "session.revoked": SessionRevoked,
    "server.closing": ServerClosing,
}

NOTIFICATION_NAMES: dict[type[Any], str] = {cls: name for name, cls in NOTIFICATIONS.items()}
