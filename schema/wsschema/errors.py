"""The errors of the protocol. One tree; every leaf has its code and its stable reason.

::

    WalletSyncError                     whatever this project raises on purpose
    └── RpcError                        an error answer: code, message, data
        ├── ParseError                  -32700
        ├── InvalidRequest              -32600
        ├── MethodNotFound              -32601
        ├── InvalidParams               -32602  data.path, data.reason
        ├── InternalError               -32603  data.errorId
        ├── Unauthorized                401
        │   ├── BadCredentials          bad_credentials
        │   ├── BadToken                bad_token
        │   └── NotAuthenticated        not_authenticated
        ├── Forbidden                   403
        │   ├── NotVerified             not_verified
        │   ├── NotAllowed              not_allowed
        │   ├── AlreadyAuthenticated    already_authenticated
        │   ├── AccountDisabled         account_disabled
        │   └── TooManyDevices          too_many_devices
        ├── NotFound                    404
        │   ├── NoWallet                no_wallet
        │   ├── NoSuchVersion           no_such_version
        │   ├── NoSuchDevice            no_such_device
        │   ├── BadVerificationToken    bad_verification_token
        │   └── BadResetToken           bad_reset_token
        ├── ConflictError               409
        │   ├── Conflict                conflict  data.wallet, data.landed
        │   ├── WalletExists            wallet_exists
        │   └── AccountExists           account_exists
        ├── TooLarge                    413
        │   └── WalletTooLarge          wallet_too_large  data.maxBytes
        ├── TooManyRequests             429
        │   └── RateLimited             rate_limited  data.retryAfterMs
        └── ServiceUnavailable          503
            └── Unavailable             unavailable  data.retryAfterMs, data.errorId?

A leaf is raised with the text that gives the fact and the limit; without one it says its default.
An error that a client does not know is treated by its code: ``error_from_wire`` falls back to the
branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from wsschema.fields import FieldError, decode, encode
from wsschema.messages import WalletState


class WalletSyncError(Exception):
    """Whatever this project raises on purpose."""


class RpcError(WalletSyncError):
    """An error answer: JSON-RPC 2.0, section 5.1.

    ``code`` is an integer, ``message`` a sentence for people, ``data`` what a program may need.
    """

    code: ClassVar[int] = -32000
    reason: ClassVar[str] = ""
    text: ClassVar[str] = "the call failed"

    def __init__(self, message: str | None = None) -> None:
        self.message = self.text if message is None else message
        super().__init__(self.message)

    def data(self) -> dict[str, Any] | None:
        """What goes into the ``data`` member; None leaves it out."""
        return {"reason": self.reason} if self.reason else None

    def to_wire(self) -> dict[str, Any]:
        """The JSON-RPC error object."""
        wire: dict[str, Any] = {"code": self.code, "message": self.message}
        data = self.data()
        if data is not None:
            wire["data"] = data
        return wire

    @classmethod
    def from_data(cls, message: str, data: Mapping[str, Any]) -> RpcError:
        """The error again from its wire form; unknown members of ``data`` are ignored."""
        return cls(message)


class ParseError(RpcError):
    """The message is not JSON."""

    code = -32700
    text = "Parse error: the message is not JSON"


class InvalidRequest(RpcError):
    """The message is JSON, but no JSON-RPC 2.0 call."""

    code = -32600
    text = "Invalid Request"


class MethodNotFound(RpcError):
    """The protocol has no such method."""

    code = -32601
    text = "Method not found"


class InvalidParams(RpcError):
    """A parameter is missing, unknown, of the wrong type or out of its bounds."""

    code = -32602
    text = "Invalid params"

    def __init__(
        self, message: str | None = None, *, path: str = "params", reason: str = ""
    ) -> None:
        super().__init__(message)
        self.path = path
        self.field_reason = reason

    def data(self) -> dict[str, Any]:
        return {"path": self.path, "reason": self.field_reason}

    @classmethod
    def from_field(cls, error: FieldError) -> InvalidParams:
        path = error.path or "params"
        return cls(f"Invalid params: {path} {error.text}", path=path, reason=error.reason)

    @classmethod
    def from_data(cls, message: str, data: Mapping[str, Any]) -> InvalidParams:
        return cls(message, path=_text(data, "path", "params"), reason=_text(data, "reason"))


class InternalError(RpcError):
    """A failure of the server's own. Nothing of it is told but an id that is also in the log."""

    code = -32603
    text = "Internal error"

    def __init__(self, message: str | None = None, *, error_id: str = "") -> None:
        super().__init__(message)
        self.error_id = error_id

    def data(self) -> dict[str, Any]:
        return {"errorId": self.error_id}

    @classmethod
    def from_data(cls, message: str, data: Mapping[str, Any]) -> InternalError:
        return cls(message, error_id=_text(data, "errorId"))


class Unauthorized(RpcError):
    """Who calls is not known, or not believed."""

    code = 401


class BadCredentials(Unauthorized):
    """The email or the password is wrong; which of the two is not told."""

    reason = "bad_credentials"
    text = "the email or the password is wrong"


class BadToken(Unauthorized):
    """The token is unknown, replaced, revoked or expired: log in again."""

    reason = "bad_token"
    text = "the token is unknown, replaced, revoked or expired; log in again"


class NotAuthenticated(Unauthorized):
    """The method needs a session, and this connection has none."""

    reason = "not_authenticated"
    text = "this method needs session.login or session.resume first"


class Forbidden(RpcError):
    """The call is understood and refused."""

    code = 403


class NotVerified(Forbidden):
    """The password is right, but the address is not verified yet."""

    reason = "not_verified"
    text = "the account's email address has not been verified yet"


class NotAllowed(Forbidden):
    """The server's verification mode does not allow it."""

    reason = "not_allowed"
    text = "this server does not allow that"


class AlreadyAuthenticated(Forbidden):
    """The connection has its session already; log in on a new one."""

    reason = "already_authenticated"
    text = (
        "this connection is authenticated, or about to be; it belongs to one account for its life"
    )


class AccountDisabled(Forbidden):
    """The operator has disabled the account."""

    reason = "account_disabled"
    text = "the account has been disabled by the operator of this server"


class TooManyDevices(Forbidden):
    """No device could be dropped to make room for this one: all are online."""

    reason = "too_many_devices"
    text = "the account has as many devices as it may have, and all are online"


class NotFound(RpcError):
    """What the call names is not there."""

    code = 404


class NoWallet(NotFound):
    """The account has no wallet yet."""

    reason = "no_wallet"
    text = "the account has no wallet yet; push one with sequence 1"


class NoSuchVersion(NotFound):
    """The sequence is too old to be kept, or was never pushed."""

    reason = "no_such_version"
    text = "that sequence is not stored: it is too old, or was never pushed"


class NoSuchDevice(NotFound):
    """The account has no such device."""

    reason = "no_such_device"
    text = "the account has no such device"


class BadVerificationToken(NotFound):
    """The token from the verification mail is unknown, used or expired."""

    reason = "bad_verification_token"
    text = "the verification token is unknown, used or expired"


class BadResetToken(NotFound):
    """The token from the reset mail is unknown, used or expired."""

    reason = "bad_reset_token"
    text = "the reset token is unknown, used or expired"


class ConflictError(RpcError):
    """What is stored stands against the call."""

    code = 409


class Conflict(ConflictError):
    """The push came too late; ``wallet`` is the latest state, None where there is none.

    ``landed`` is True when the pushed state is a kept older version: it was stored, and others
    followed, so the client must not merge its own change a second time.
    """

    reason = "conflict"
    text = "the sequence is not the stored one plus 1; merge the latest state and push again"

    def __init__(
        self, message: str | None = None, *, wallet: WalletState | None = None, landed: bool = False
    ) -> None:
        super().__init__(message)
        self.wallet = wallet
        self.landed = landed

    def data(self) -> dict[str, Any]:
        wallet = None if self.wallet is None else encode(self.wallet)
        return {"reason": self.reason, "wallet": wallet, "landed": self.landed}

    @classmethod
    def from_data(cls, message: str, data: Mapping[str, Any]) -> Conflict:
        wallet = data.get("wallet")
        state = None if wallet is None else decode(WalletState, wallet, path="wallet", lenient=True)
        return cls(message, wallet=state, landed=data.get("landed") is True)


class WalletExists(ConflictError):
    """A password change without the wallet, where a wallet is stored."""

    reason = "wallet_exists"
    text = "a wallet is stored: a password change must bring it re-encrypted"


class AccountExists(ConflictError):
    """The address has an account already."""

    reason = "account_exists"
    text = "there is an account with that email already"


class TooLarge(RpcError):
    """More than the server takes."""

    code = 413


class WalletTooLarge(TooLarge):
    """The wallet is larger than ``max_bytes`` in UTF-8."""

    reason = "wallet_too_large"
    text = "the wallet is too large"

    def __init__(self, message: str | None = None, *, max_bytes: int = 0) -> None:
        super().__init__(message)
        self.max_bytes = max_bytes

    def data(self) -> dict[str, Any]:
        return {"reason": self.reason, "maxBytes": self.max_bytes}

    @classmethod
    def from_data(cls, message: str, data: Mapping[str, Any]) -> WalletTooLarge:
        return cls(message, max_bytes=_integer(data, "maxBytes"))


class _RetryLater(RpcError):
    """An error that tells when to come back."""

    def __init__(self, message: str | None = None, *, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms

    def data(self) -> dict[str, Any]:
        return {"reason": self.reason, "retryAfterMs": self.retry_after_ms}

    @classmethod
    def from_data(cls, message: str, data: Mapping[str, Any]) -> _RetryLater:
        return cls(message, retry_after_ms=_integer(data, "retryAfterMs", 1000))


class TooManyRequests(_RetryLater):
    """More, or faster, than the server takes."""

    code = 429


class RateLimited(TooManyRequests):
    """Come back after ``retry_after_ms``."""

    reason = "rate_limited"
    text = "too many requests; wait before the next"


class ServiceUnavailable(_RetryLater):
    """The server cannot serve at the moment."""

    code = 503


class Unavailable(ServiceUnavailable):
    """Nothing was changed; come back after ``retry_after_ms``.

    ``error_id`` is also in the server's log where a failure of its own is behind it; else empty.
    """

    reason = "unavailable"
    text = "the server cannot serve this at the moment; nothing was changed"

    def __init__(
        self, message: str | None = None, *, retry_after_ms: int = 1000, error_id: str = ""
    ) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.error_id = error_id

    def data(self) -> dict[str, Any]:
        return super().data() | ({"errorId": self.error_id} if self.error_id else {})

    @classmethod
    def from_data(cls, message: str, data: Mapping[str, Any]) -> Unavailable:
        return cls(
            message,
            retry_after_ms=_integer(data, "retryAfterMs", 1000),
            error_id=_text(data, "errorId"),
        )


class UnknownError(RpcError):
    """An error whose code this version does not know; client side only."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # the one class whose code is not the class's own


PROTOCOL_ERRORS: tuple[type[RpcError], ...] = (
    BadCredentials, BadToken, NotAuthenticated,
    NotVerified, NotAllowed, AlreadyAuthenticated, AccountDisabled, TooManyDevices,
    NoWallet, NoSuchVersion, NoSuchDevice, BadVerificationToken, BadResetToken,
    Conflict, WalletExists, AccountExists, WalletTooLarge, RateLimited, Unavailable,
)  # fmt: skip
"""The leaves with positive codes."""

JSON_RPC_ERRORS: tuple[type[RpcError], ...] = (
    ParseError, InvalidRequest, MethodNotFound, InvalidParams, InternalError,
)  # fmt: skip

_BY_REASON = {(leaf.code, leaf.reason): leaf for leaf in PROTOCOL_ERRORS}
_BY_CODE: dict[int, type[RpcError]] = {leaf.code: leaf for leaf in JSON_RPC_ERRORS} | {
    branch.code: branch
    for branch in (
        Unauthorized, Forbidden, NotFound, ConflictError, TooLarge, TooManyRequests,
        ServiceUnavailable,
    )
}  # fmt: skip


def error_from_wire(wire: Mapping[str, Any]) -> RpcError:
    """The error that a JSON-RPC error object stands for.

    An unknown reason becomes its code's branch. Raises FieldError when the wallet of a conflict is
    malformed.
    """
    code, message, data = wire.get("code"), _text(wire, "message"), wire.get("data")
    if type(code) is not int:
        return UnknownError(RpcError.code, message)
    members = data if isinstance(data, dict) else {}
    kind = _BY_REASON.get((code, _text(members, "reason"))) or _BY_CODE.get(code)
    return UnknownError(code, message) if kind is None else kind.from_data(message, members)


def _text(data: Mapping[str, Any], name: str, default: str = "") -> str:
    # Never str(): what is nested deep enough to come as JSON can be too deep to be shown.
    value = data.get(name)
    return value if type(value) is str else default


def _integer(data: Mapping[str, Any], name: str, default: int = 0) -> int:
    value = data.get(name)
    return value if type(value) is int and value >= 0 else default
