"""One of each message, and of those with members that may be absent or null, one without them.

For tests and golden vectors, here and in a client's or a server's own: nobody's data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wsschema import errors, limits
from wsschema.errors import RpcError
from wsschema.fields import members
from wsschema.messages import (
    REVOCATION_REASONS,
    Acknowledge,
    AnnouncedLimits,
    Call,
    ChangePassword,
    DeleteAccount,
    Device,
    DeviceList,
    Discover,
    Empty,
    GetHistory,
    GetServerInfo,
    GetWallet,
    History,
    Kdf,
    KeyDerivation,
    ListDevices,
    LoggedIn,
    Login,
    Logout,
    Notification,
    Ping,
    Prelogin,
    PushWallet,
    Receipt,
    Register,
    Registered,
    RequestReset,
    ResendVerification,
    Reset,
    Resume,
    RevokeDevice,
    SealedWallet,
    ServerClosing,
    ServerInfo,
    SessionOpened,
    SessionRevoked,
    Verify,
    WalletState,
    WalletUpdated,
    WalletVersion,
)
from wsschema.openrpc import OPENRPC_VERSION
from wsschema.times import parse_time

EMAIL = "joe@example.com"
PASSWORD = "t5fCF/yFHzvD4hPStMKl/tfDL/mekQg9mKxVnsYjb3o="  # noqa: S105  # the protocol's own example
NEW_PASSWORD = "correct horse battery staple"  # noqa: S105  # made up
SEED = "a" * 64
TOKEN = "b646a357038d394ef7b70f350c666aeb29e24072c7eeaaad4fb6759c1fca281a"  # noqa: S105  # made up
HMAC = "a4591afaa75d4c875f4b9a07cc89b128e43f785459e0b87fd83fa5f61625403e"
EPOCH = "5d6c7a52"
KDF = Kdf.scrypt(2**17)
THEN = parse_time("2026-01-02T03:04:05.678Z")
LATER = parse_time("2026-01-16T03:04:05.678Z")
VERSIONS = (
    WalletVersion(7, HMAC, "laptop", LATER, 26),
    WalletVersion(6, "-", "phone", THEN, 1),
)
STATE = WalletState(7, 'LTphNzc2 "\\/\u00e9\u2028\U0001f511', HMAC, "laptop", THEN)
DEVICE = Device("laptop", "Joe's laptop", THEN, LATER, True, True, 7)
NAMELESS = Device("phone", None, THEN, THEN, False, False, 0)

SAMPLE_CALLS: tuple[Call[Any], ...] = (
    GetServerInfo(),
    Ping(),
    Discover(),
    Register(EMAIL, PASSWORD, SEED, KDF),
    Verify(TOKEN),
    ResendVerification(EMAIL),
    RequestReset(EMAIL),
    Reset(TOKEN, PASSWORD, SEED, KDF),
    Prelogin(EMAIL),
    ChangePassword(PASSWORD, NEW_PASSWORD, SEED, KDF),
    ChangePassword(PASSWORD, NEW_PASSWORD, SEED, KDF, SealedWallet(8, "LTphNzc2", HMAC)),
    DeleteAccount(PASSWORD),
    Login(EMAIL, PASSWORD, "laptop"),
    Login(EMAIL, PASSWORD, "laptop", "Joe's laptop", 7, EPOCH, "state", True),
    Resume(TOKEN),
    Resume(TOKEN, 0, EPOCH, "state", True),
    Logout(),
    GetWallet(),
    GetWallet(3),
    PushWallet(7, STATE.encrypted_wallet, HMAC),
    PushWallet(7, STATE.encrypted_wallet, HMAC, receipt=True),
    GetHistory(),
    GetHistory(5, 7),
    Acknowledge(7),
    ListDevices(),
    RevokeDevice("phone"),
)

_LIMITS = AnnouncedLimits(
    *(getattr(limits.Limits(), m.attribute) for m in members(AnnouncedLimits))
)
_NO_WALLET_YET = SessionOpened("laptop", LATER, EPOCH, 0, None, None)

SAMPLE_RESULTS: tuple[tuple[Call[Any], Any], ...] = (
    (GetServerInfo(), ServerInfo("wallet-sync", "1.0.0", 1, (), "allowlist", _LIMITS)),
    (GetServerInfo(), ServerInfo("other", "2", 1, ("a", "b"), "email", replace(_LIMITS, batch=5))),
    (Ping(), Empty()),
    (
        Discover(),
        {"openrpc": OPENRPC_VERSION, "info": {"title": "", "version": ""}, "methods": []},
    ),
    (Register(EMAIL, PASSWORD, SEED, KDF), Registered(True)),
    (Verify(TOKEN), Empty()),
    (ResendVerification(EMAIL), Empty()),
    (RequestReset(EMAIL), Empty()),
    (Reset(TOKEN, PASSWORD, SEED, KDF), Empty()),
    (Prelogin(EMAIL), KeyDerivation(SEED, KDF)),
    (ChangePassword(PASSWORD, NEW_PASSWORD, SEED, KDF), Empty()),
    (DeleteAccount(PASSWORD), Empty()),
    (
        Login(EMAIL, PASSWORD, "laptop"),
        LoggedIn(TOKEN, "laptop", LATER, EPOCH, 0, None, None),
    ),
    (
        Login(EMAIL, PASSWORD, "laptop", since=6, epoch=EPOCH),
        LoggedIn(TOKEN, "laptop", LATER, EPOCH, 7, HMAC, STATE),
    ),
    (Resume(TOKEN), _NO_WALLET_YET),
    (Resume(TOKEN, since=7), replace(_NO_WALLET_YET, sequence=7, hmac=HMAC)),
    (Resume(TOKEN, since=6), replace(_NO_WALLET_YET, sequence=7, hmac=HMAC, wallet=STATE)),
    (Logout(), Empty()),
    (GetWallet(), STATE),
    (PushWallet(7, STATE.encrypted_wallet, HMAC), STATE),
    (PushWallet(7, STATE.encrypted_wallet, HMAC, receipt=True), Receipt(7, HMAC, THEN)),
    (GetHistory(), History(())),
    (GetHistory(), History(VERSIONS)),
    (Acknowledge(7), Empty()),
    (ListDevices(), DeviceList((DEVICE, NAMELESS))),
    (RevokeDevice("phone"), Empty()),
)

SAMPLE_NOTIFICATIONS: tuple[Notification, ...] = (
    WalletUpdated(7, HMAC, "laptop", THEN),
    WalletUpdated(7, HMAC, "laptop", THEN, STATE),
    DEVICE,
    NAMELESS,
    *(SessionRevoked(reason) for reason in REVOCATION_REASONS),
    ServerClosing(1500),
)

SAMPLE_ERRORS: tuple[RpcError, ...] = (
    errors.ParseError(),
    errors.InvalidRequest(),
    errors.MethodNotFound(),
    errors.InvalidParams("Invalid params: kdf.n is required", path="kdf.n", reason="missing"),
    errors.InternalError(error_id="f00d"),
    *(
        kind()
        for kind in errors.PROTOCOL_ERRORS
        if kind not in (errors.WalletTooLarge, errors.RateLimited, errors.Unavailable)
    ),
    errors.Conflict(wallet=STATE),
    errors.Conflict(wallet=STATE, landed=True),
    errors.WalletTooLarge(max_bytes=262_144),
    errors.RateLimited(retry_after_ms=2500),
    errors.Unavailable(retry_after_ms=0),
)
