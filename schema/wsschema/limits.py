"""Every bound of the protocol, in one place.

Source of the figures: ``docs/protocol.md``, section Limits. Sizes are in bytes of UTF-8 where the
name ends in ``bytes``, in characters (Unicode code points) where it ends in ``chars``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROTOCOL_VERSION: Final = 1
PATH: Final = "/v1"
SUBPROTOCOL: Final = "wallet-sync.v1"

INTEGER_MAX: Final = 2**53 - 1
"""Largest integer on the wire: what a JavaScript number holds exactly (RFC 8259, section 6)."""

EMAIL_CHARS_MAX: Final = 254
"""RFC 3696 erratum 1690: what fits into the path of an SMTP command."""
PASSWORD_CHARS_MIN: Final = 8
PASSWORD_CHARS_MAX: Final = 1024
CLIENT_SALT_SEED_HEX_DIGITS: Final = 64
DEVICE_ID_CHARS_MAX: Final = 64
DEVICE_NAME_CHARS_MAX: Final = 128
EPOCH_CHARS_MAX: Final = 64
TOKEN_CHARS_MAX: Final = 256
"""Room for any token a future version may make; today's are 64 hex digits."""
HMAC_BYTES_MAX: Final = 256
HISTORY_LIMIT_MAX: Final = 100
HISTORY_LIMIT_DEFAULT: Final = 20

KDF_NAME: Final = "scrypt"
KDF_N_MIN: Final = 2**14
KDF_N_MAX: Final = 2**20
KDF_R: Final = 8
KDF_P_MIN: Final = 1
KDF_P_MAX: Final = 4

JSON_ESCAPE_FACTOR: Final = 6
"""A JSON string may take six bytes for one (``\\u0001``); a message must be allowed that much."""
MESSAGE_OVERHEAD_BYTES: Final = 16 * 1024
"""Room in a message for what stands around the wallet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits a server announces in ``server.info``; the defaults are the protocol's.

    ``wallet_bytes``: largest ``encryptedWallet``. ``message_bytes``: largest message of an
    authenticated connection, at least six times ``wallet_bytes``. ``anonymous_message_bytes``:
    largest message before that. ``history_depth``: states kept readable, the latest included.
    ``batch``: calls in one batch. ``devices``: devices of one account.
    """

    wallet_bytes: int = 256 * 1024
    message_bytes: int = JSON_ESCAPE_FACTOR * 256 * 1024 + MESSAGE_OVERHEAD_BYTES
    anonymous_message_bytes: int = 16 * 1024
    history_depth: int = 10
    batch: int = 20
    devices: int = 64
