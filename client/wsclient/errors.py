"""What can go wrong for a client: the protocol's errors, and those of the client's own.

::

    WalletSyncError                 whatever this project raises on purpose
    ├── RpcError                    an error answer; its tree is drawn in `wsschema.errors`
    ├── CannotConnect               the server cannot be reached
    ├── SessionEnded                the session is over, and for what reason
    ├── CallTimedOut                no answer in time; the call may have been carried out
    ├── AnswerLost                  the connection was lost before the answer to a call that
    │                               must not be repeated blindly
    ├── MessageTooLarge             the server takes no message as large as this
    ├── StateRefused                the server showed a state that contradicts what is known
    ├── CannotMerge                 a wallet is nothing that the merge takes
    ├── WeakKdf                     the server asks for a weaker key derivation than accepted
    ├── FolderInUse                 another process has the folder of this wallet open
    ├── WrongPassword               neither root password nor local key opens the local state
    └── LocalStateDamaged           the local state is not what was saved
"""

from __future__ import annotations

import os

from wsschema.errors import (
    AccountDisabled,
    AccountExists,
    AlreadyAuthenticated,
    BadCredentials,
    BadResetToken,
    BadToken,
    BadVerificationToken,
    Conflict,
    ConflictError,
    Forbidden,
    InternalError,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    NoSuchDevice,
    NoSuchVersion,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotVerified,
    NoWallet,
    ParseError,
    RateLimited,
    RpcError,
    ServiceUnavailable,
    TooLarge,
    TooManyDevices,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnknownError,
    WalletExists,
    WalletSyncError,
    WalletTooLarge,
)
from wsschema.messages import Kdf

__all__ = [
    "AccountDisabled",
    "AccountExists",
    "AlreadyAuthenticated",
    "AnswerLost",
    "BadCredentials",
    "BadResetToken",
    "BadToken",
    "BadVerificationToken",
    "CallTimedOut",
    "CannotConnect",
    "CannotMerge",
    "Conflict",
    "ConflictError",
    "FolderInUse",
    "Forbidden",
    "InternalError",
    "InvalidParams",
    "InvalidRequest",
    "LocalStateDamaged",
    "MessageTooLarge",
    "MethodNotFound",
    "NoSuchDevice",
    "NoSuchVersion",
    "NoWallet",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "NotVerified",
    "ParseError",
    "RateLimited",
    "RpcError",
    "ServiceUnavailable",
    "SessionEnded",
    "StateRefused",
    "TooLarge",
    "TooManyDevices",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "UnknownError",
    "WalletExists",
    "WalletSyncError",
    "WalletTooLarge",
    "WeakKdf",
    "WrongPassword",
]


class CannotConnect(WalletSyncError):
    """The server at ``url`` cannot be reached, or what answers there is no wallet-sync server."""

    def __init__(self, url: str, cause: str) -> None:
        self.url, self.cause = url, cause
        super().__init__(f"cannot connect to {url}: {cause}")


class SessionEnded(WalletSyncError):
    """The session is over and does not come back by itself.

    ``reason`` is the server's (``replaced``, ``password_changed``, ``bad_token``, ...), ``closed``
    after the caller's own `Session.close`, or ``close_1003`` and the like after a close code that
    says to stay away.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the session has ended: {_ENDINGS.get(reason, reason)}")


_ENDINGS = {
    "closed": "it was closed here",
    "password_changed": "the password of the account was changed",
    "password_reset": "the password of the account was reset, and its wallet deleted",
    "device_revoked": "this device was revoked",
    "logged_out": "this device logged out",
    "account_deleted": "the account was deleted",
    "account_disabled": "the operator of the server disabled the account",
    "replaced": "another login with this device's id replaced it",
    "expired": "its token expired",
    "bad_token": "the server does not know its token any more",
}


class CallTimedOut(WalletSyncError, TimeoutError):
    """No answer within ``timeout_s``: the call may have been carried out.

    A push may be repeated to the letter; it lands once.
    """

    def __init__(self, method: str, timeout_s: float) -> None:
        self.method, self.timeout_s = method, timeout_s
        super().__init__(f"{method} was not answered within {timeout_s:g} s")


class AnswerLost(WalletSyncError):
    """The connection was lost before the answer to a call that must not be repeated blindly."""

    def __init__(self, method: str) -> None:
        self.method = method
        super().__init__(
            f"the connection was lost before {method} was answered: it may have been done or not"
        )


class MessageTooLarge(WalletSyncError):
    """The call makes a message of ``message_bytes``, which the server does not take."""

    def __init__(self, method: str, message_bytes: int, limit_bytes: int | None = None) -> None:
        self.method, self.message_bytes, self.limit_bytes = method, message_bytes, limit_bytes
        limit = "" if limit_bytes is None else f"; the limit is {limit_bytes:,}"
        super().__init__(f"{method} makes a message of {message_bytes:,} bytes{limit}")


class StateRefused(WalletSyncError):
    """The server showed a state that cannot be; nothing local was changed.

    ``reason``: ``bad_hmac`` (not made with this account's key), ``went_back`` (an older sequence
    under the same epoch), ``changed`` (another state under a sequence already seen), ``mismatched``
    (not the state that was asked for), ``cannot_open`` (its seal does not open), ``overwritten``
    (it does not come from what this device pushed), ``forked`` (nor from what another one did).
    """

    def __init__(self, reason: str, sequence: int, text: str) -> None:
        self.reason, self.sequence = reason, sequence
        super().__init__(f"refused state {sequence} from the server: {text}")


class CannotMerge(WalletSyncError):
    """``what`` ("mine", "theirs" or "the merged wallet") is nothing that the merge takes, or gives.

    ``cause`` says why, and tells nothing of what is in the wallet. An application's own merge may
    raise it too, as where theirs is of a later version than it reads.
    """

    def __init__(self, what: str, cause: str) -> None:
        self.what, self.cause = what, cause
        super().__init__(f"cannot merge: {what} {cause}")


class WeakKdf(WalletSyncError):
    """The server asks for ``kdf``, weaker than ``minimum``: it may be after the root password."""

    def __init__(self, kdf: Kdf, minimum: Kdf) -> None:
        self.kdf, self.minimum = kdf, minimum
        super().__init__(
            f"the server asks for scrypt with n={kdf.n}, r={kdf.r}, p={kdf.p}, which is weaker "
            f"than n={minimum.n}, r={minimum.r}, p={minimum.p}; no password was sent"
        )


class FolderInUse(WalletSyncError):
    """Another process has ``folder`` open: ``pid``, where it is known."""

    def __init__(self, folder: str | os.PathLike[str], pid: int | None) -> None:
        self.folder, self.pid = folder, pid
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"the folder {folder} is in use by {holder}: end that one first, or use a folder of "
            "your own"
        )


class WrongPassword(WalletSyncError):
    """What was ``tried`` (the root password or the local key) does not open ``folder``."""

    def __init__(self, folder: str | os.PathLike[str], tried: str = "root password") -> None:
        self.folder, self.tried = folder, tried
        advice = {
            "root password": "try the one of before, if it was changed elsewhere",
            "local key": "the root password may",
        }
        super().__init__(f"the {tried} does not open the folder {folder}; {advice[tried]}")


class LocalStateDamaged(WalletSyncError):
    """The local state ``path`` can't be read, and was left as it is."""

    def __init__(self, path: str | os.PathLike[str], cause: str, advice: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"the local state {path} {cause}; {advice}")
