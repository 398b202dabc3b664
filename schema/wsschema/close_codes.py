"""Close codes and what a client does after each: the code is the policy."""

from __future__ import annotations

import enum


class CloseCode(enum.IntEnum):
    """Codes this protocol closes with: those of RFC 6455 (section 7.4.1), and private ones."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    SESSION_REVOKED = 4401
    AUTHENTICATION_TIMEOUT = 4408
    TOO_MANY = 4429


STAY_AWAY: frozenset[int] = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_DATA,
        CloseCode.SESSION_REVOKED,
    }
)


def may_reconnect(code: int) -> bool:
    """Whether a client comes back, with backoff, after a close with this code.

    Unknown codes count as passing faults. After 1009 it comes back without the message that was too
    large.
    """
    return code not in STAY_AWAY
