"""Why a database can't be used: sentences for the operator."""

from __future__ import annotations


class StoreError(Exception):
    """The database can't be used as it is; the text says why and what to do."""


class NotFound(Exception):
    """What a command of the operator is about is not there; the text says what."""


class SchemaTooOld(StoreError):
    """The database's schema is an earlier version's, or there is none yet."""


class SchemaTooNew(StoreError):
    """The database was migrated by a later version of the server than this one."""
