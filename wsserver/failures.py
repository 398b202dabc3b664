"""What becomes of a failure of our own: a line in the log, and its id to the peer."""

from __future__ import annotations

import logging
import secrets

from wsschema.errors import InternalError

logger = logging.getLogger(__name__)


def report_failure(what: str, error: Exception) -> InternalError:
    """Log the failure under an id; gives the InternalError that carries it."""
    error_id = secrets.token_hex(8)
    # The class and where, not the text: a driver may put tokens and wallets into that.
    hidden = RuntimeError(type(error).__name__)
    logger.error(
        "%s (error id %s)", what, error_id, exc_info=(type(hidden), hidden, error.__traceback__)
    )
    return InternalError(error_id=error_id)
