"""Which bus the settings ask for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from wsserver.bus.nats import NatsBus
from wsserver.bus.postgresql import PostgreSQLBus
from wsserver.bus.transports import BusError, Transport

NONE: Final = "none"
"""The URL that turns the bus off."""


def is_bus_url(url: str) -> bool:
    """Whether the URL has the form of one, or turns the bus off."""
    urls = [one.strip() for one in url.split(",")]
    return (
        url == NONE
        or is_postgresql(url)
        or all(one.startswith(("nats://", "tls://")) for one in urls)
    )


def is_postgresql(url: str) -> bool:
    """Whether the URL is PostgreSQL's."""
    return url.partition(":")[0].partition("+")[0] == "postgresql"


def choose_transport(
    bus_url: str | None,
    database_url: str,
    *,
    credentials: Path | None = None,
    authorities: Path | None = None,
) -> Transport | None:
    """The transport; None where the process is to be the only one. Raises BusError."""
    if bus_url == NONE:
        return None
    if not is_postgresql(database_url):
        if bus_url is None:
            return None
        raise BusError(
            "a SQLite database is one process's, which needs no bus; nodes share one on PostgreSQL "
            "(WSSERVER_DATABASE_URL=postgresql+psycopg://...)"
        )
    url = database_url if bus_url is None else bus_url
    if is_postgresql(url):
        return PostgreSQLBus(url)
    if importlib.util.find_spec("nats") is None:
        raise BusError(
            "a bus on NATS needs nats-py, which the extra nats brings: "
            "pip install 'wallet-sync[server,postgresql,nats]'"
        )
    return NatsBus(url, credentials=credentials, authorities=authorities)
