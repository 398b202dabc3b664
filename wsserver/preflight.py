"""What only a start would find of the settings, found without one: `wsserver config --check`."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from wsserver.bus.choosing import choose_transport
from wsserver.bus.transports import BusError
from wsserver.config import Examined, Settings
from wsserver.origins import find_unknown_variables
from wsserver.server import DESCRIPTORS_RESERVED, find_connections_max
from wsserver.store.databases import parse_url
from wsserver.store.errors import StoreError
from wsserver.store.guard import ServingGuard
from wsserver.store.sqlite import find_folder
from wsserver.tls import Certificate, CertificateError

CONNECTIONS_EXPECTED: Final = 1000
"""With fewer descriptors than this many connections take, somebody forgot to raise their limit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence; unless it is only a warning, the server would not start, or not work."""

    text: str
    is_warning: bool = False


Check = Callable[[Settings], Iterator[Finding]]


def find_all(examined: Examined) -> list[Finding]:
    """All that is wrong: with the settings, with what they name, and with the variables around."""
    found = [Finding(text) for text in examined.faults]
    for names, check in CHECKS:
        if not examined.wrong & names:
            found += check(examined.settings)
    found += [Finding(text, is_warning=True) for _, text in find_unknown_variables()]
    return found


def check_extras(settings: Settings) -> Iterator[Finding]:
    """What is asked for and not installed."""
    for wanted, modules, extra in (
        (settings.lbry_port != 0, ("starlette", "uvicorn"), "lbry"),
        (settings.database_url.startswith("postgresql"), ("psycopg",), "postgresql"),
    ):
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if wanted and missing:
            yield Finding(
                f"{' and '.join(missing)} is not installed; the extra {extra} brings it: "
                f"pip install 'wallet-sync[server,{extra}]'"
            )


def _check_bus(settings: Settings) -> Iterator[Finding]:
    try:
        choose_transport(
            None if settings.bus_url is None else settings.bus_url.get_secret_value(),
            settings.database_url,
        )
    except BusError as error:
        yield Finding(str(error))


def _check_certificate(settings: Settings) -> Iterator[Finding]:
    if settings.tls_cert is not None and settings.tls_key is not None:
        try:
            Certificate(settings.tls_cert, settings.tls_key)
        except CertificateError as error:
            yield Finding(f"can't serve TLS: {error}")


def _check_database(settings: Settings) -> Iterator[Finding]:
    try:
        url = parse_url(settings.database_url)
        if url.drivername.startswith("sqlite"):
            yield from _check_file(url)
    except StoreError as error:
        yield Finding(str(error))


def _check_file(url: URL) -> Iterator[Finding]:
    folder = find_folder(url)
    # The log and the lock are made beside the file.
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(f"the folder of the database, {folder}, can't be written to")
    file = folder / Path(str(url.database)).name
    if file.exists() and not os.access(file, os.R_OK | os.W_OK):
        yield Finding(f"the database, {file}, can't be read and written")


def _check_ports(settings: Settings) -> Iterator[Finding]:
    wanted = [("port", settings.host, settings.port)]
    if settings.admin_port:
        wanted.append(("admin_port", settings.admin_host, settings.admin_port))
    if settings.lbry_port:
        wanted.append(("lbry_port", settings.host, settings.lbry_port))
    served = _is_served(settings)
    with ExitStack() as listening:
        # All at once, so that two of them that are one port are found.
        for name, host, port in wanted:
            try:
                for bound in _bind(host, port):
                    listening.enter_context(bound)
            except OSError as error:
                text = f"{name}: can't listen on {host} port {port}: {error.strerror or error}"
                if served and error.errno == errno.EADDRINUSE:
                    yield Finding(f"{text}; a server runs on this database", is_warning=True)
                else:
                    yield Finding(text)


def _bind(host: str, port: int) -> Iterator[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            yield socket.create_server((str(address[0]), port), family=family)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or len(found) == 1:
                raise


def _is_served(settings: Settings) -> bool:
    """Whether a server runs on the database: then it may well have the ports."""
    try:
        file = str(parse_url(settings.database_url).database)
        if Path(f"{Path(file).resolve()}.lock").is_file():
            ServingGuard(file).release()
    except StoreError:
        return True
    return False


def _check_descriptors(settings: Settings) -> Iterator[Finding]:
    room = find_connections_max()
    wanted = settings.connections_max or CONNECTIONS_EXPECTED
    if room < wanted:
        yield Finding(
            f"the limit of descriptors, {room + DESCRIPTORS_RESERVED:,}, leaves room for fewer "
            f"than {wanted:,} connections; raise it (ulimit -Hn, LimitNOFILE= of systemd)",
            is_warning=settings.connections_max is None,
        )


CHECKS: Final[tuple[tuple[frozenset[str], Check], ...]] = (
    (frozenset({"lbry_port", "database_url"}), check_extras),
    (frozenset({"bus_url", "database_url"}), _check_bus),
    (frozenset({"tls_cert", "tls_key"}), _check_certificate),
    (frozenset({"database_url"}), _check_database),
    (
        frozenset({"host", "port", "admin_host", "admin_port", "lbry_port", "database_url"}),
        _check_ports,
    ),
    (frozenset({"connections_max"}), _check_descriptors),
)
"""Each with the settings that it looks at: where one of those is wrong, it would mislead."""
