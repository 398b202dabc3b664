"""What becomes of a failure of our own: a line in the log, and its id to the peer."""

from __future__ import annotations

import secrets

from wsschema.errors import InternalError
from wsserver import logbook


def make_error_id() -> str:
    """What finds the line of a failure in the log."""
    return secrets.token_hex(8)


def report_failure(what: str, error: Exception) -> InternalError:
    """Log the failure under an id; gives the InternalError that carries it."""
    error_id = make_error_id()
    logbook.FAILURE.log(what=what, error_id=error_id, error=error)
    return InternalError(error_id=error_id)
