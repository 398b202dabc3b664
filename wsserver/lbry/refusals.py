"""What the gateway answers when it does not do what was asked: status, and the words for it. Pure.

The words are that server's own; clients compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wsschema.errors import (
    AccountDisabled,
    AccountExists,
    BadCredentials,
    BadToken,
    Conflict,
    InternalError,
    NotAllowed,
    NotVerified,
    NoWallet,
    RateLimited,
    RpcError,
    TooManyDevices,
    Unavailable,
    WalletExists,
    WalletTooLarge,
)

STATUS_TEXTS: Final[Mapping[int, str]] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Refusal(Exception):
    """The answer to a request that is not done; ``reason`` is what the figures call it."""

    def __init__(
        self, status: int, detail: str = "", *, reason: str = "", retry_after_ms: int | None = None
    ) -> None:
        self.status = status
        self.detail = detail
        self.reason = reason or str(status)
        self.retry_after_ms = retry_after_ms
        super().__init__(self.text)

    @property
    def text(self) -> str:
        """What stands in the member ``error``."""
        text = STATUS_TEXTS[self.status]
        return f"{text}: {self.detail}" if self.detail else text


_REFUSALS: Final[Mapping[type[RpcError], tuple[int, str]]] = {
    BadCredentials: (401, "No match for email and/or password"),
    NotVerified: (401, "Account is not verified"),
    BadToken: (401, "Token Not Found"),
    NotAllowed: (403, "Account not whitelisted"),
    AccountDisabled: (403, "Account is disabled"),
    TooManyDevices: (403, "Too many devices"),
    NoWallet: (404, "No wallet"),
    AccountExists: (409, "Error registering"),
    Conflict: (409, "Bad sequence number"),
    WalletExists: (409, "Wallet exists; need an updated wallet when changing password"),
    WalletTooLarge: (413, ""),
    RateLimited: (429, ""),
    Unavailable: (503, ""),
}
"""Those that a request may come to; what is not among them is a failure of our own."""


def refuse(error: RpcError) -> Refusal:
    """That error as the interface has it."""
    status, detail = _REFUSALS.get(type(error), (500, ""))
    if isinstance(error, InternalError):
        detail = f"error id {error.error_id}"
    return Refusal(
        status,
        detail,
        reason=error.reason or str(error.code),
        retry_after_ms=getattr(error, "retry_after_ms", None),
    )
