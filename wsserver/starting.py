"""How a process that serves begins, and how it says that it can't: alone, or one of many."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine, Mapping
from typing import Any, Final, NoReturn

from wsserver.bus.transports import BusError
from wsserver.config import Settings
from wsserver.options import describe_flags
from wsserver.server import ExtraMissing, describe_url
from wsserver.store.databases import open_database, parse_url
from wsserver.store.errors import StoreError
from wsserver.store.schema import SchemaTooNew
from wsserver.tls import CertificateError

START_FAILURES: Final = (
    BusError,
    CertificateError,
    ExtraMissing,
    StoreError,
    SchemaTooNew,
    OSError,
)
"""What a server's start raises when something stands in its way."""


def run_in_loop(serving: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, by uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


def explain(error: Exception, settings: Settings) -> str:
    """Why the server could not start, in a sentence."""
    if isinstance(error, CertificateError):
        return f"can't serve TLS: {error}"
    if not isinstance(error, OSError):
        return str(error)
    scheme = "ws" if settings.tls_cert is None else "wss"
    where = describe_url(settings.host, settings.port, scheme=scheme)
    others = f"admin port {settings.admin_port}"
    if settings.lbry_port:
        others += f", lbry port {settings.lbry_port}"
    return f"can't listen on {where} ({others}): {error.strerror or error}"


def become_supervisor(settings: Settings, flags: Mapping[str, Any]) -> NoReturn:
    """Migrate, then have this process be the supervisor, with nothing loaded but what that needs.

    It stays the same process, which the service manager watches and handed its sockets to. Raises
    StoreError and SchemaTooNew.
    """
    with open_database(parse_url(settings.database_url)):
        pass
    # What was logged is written first: nothing of this process but its number goes on.
    logging.shutdown()
    # -P: a module that lies in the folder that it is started in is none of ours.
    command = [sys.executable, "-P", "-m", "wsserver.workers", *describe_flags(flags)]
    os.execv(sys.executable, command)  # noqa: S606
