"""What is read off a running server's parts when somebody asks, rather than counted."""

from __future__ import annotations

import contextlib
import platform
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from wsserver.gate import Gate
from wsserver.passwords import PasswordPool
from wsserver.post import PostOffice
from wsserver.recent import RecentRecords
from wsserver.store.databases import parse_url
from wsserver.store.schema import find_newest_revision
from wsserver.store.sql import SqlStore
from wsserver.tls import Certificate
from wsserver.transport import Listener


@dataclass(frozen=True, slots=True)
class Queue:
    """How many wait, and how many may."""

    waiting: int
    waiting_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Taken at one moment. What there is not (a log, a certificate) is missing, or None."""

    versions: tuple[str, str, str, str]
    """Of the server, of Python, of SQLite, and of websockets."""
    schema_revision: str
    draining: bool
    connections: Mapping[str, int]
    """By state."""
    connections_max: int
    queues: Mapping[str, Queue]
    refusals: Mapping[str, int]
    """How often each limit was met."""
    closes: Mapping[tuple[str, str], int]
    """WebSockets that are over, by code and whose close it was."""
    stalled: int
    """Connections that were cut off because their peer took nothing."""
    database_bytes: Mapping[str, int]
    """By file."""
    disk_free_bytes: int | None
    log_records: Mapping[str, int]
    """By level."""
    certificate_expires_at_s: float | None


def find_file(database_url: str) -> Path | None:
    """The database's file, where it is one."""
    url = parse_url(database_url)
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


@dataclass(slots=True, kw_only=True)
class Instruments:
    """The parts of one server that are read. ``read`` belongs to the event loop."""

    store: SqlStore
    passwords: PasswordPool
    gate: Gate
    public: Listener
    records: RecentRecords
    post: PostOffice | None
    certificate: Certificate | None
    database: Path | None
    count_gateway: Callable[[], int]
    is_draining: Callable[[], bool]
    # To find these reads files; they don't change while the server runs.
    _versions: tuple[str, str, str, str] = field(init=False)
    _schema_revision: str = field(init=False)

    def __post_init__(self) -> None:
        self._versions = (
            version("wallet-sync"),
            platform.python_version(),
            sqlite3.sqlite_version,
            version("websockets"),
        )
        self._schema_revision = find_newest_revision()

    def read(self) -> Reading:
        """How it stands now."""
        public, anonymous = self.public, self.gate.anonymous
        return Reading(
            versions=self._versions,
            schema_revision=self._schema_revision,
            draining=self.is_draining(),
            connections={
                "opening": public.openings,
                "anonymous": anonymous,
                "authenticated": max(0, len(public.connections) - anonymous),
                "gateway": self.count_gateway(),
            },
            connections_max=public.limits.connections_max,
            queues=self._read_queues(),
            refusals={**self.gate.refusals, **public.tallies.refusals},
            closes=public.tallies.closes,
            stalled=public.tallies.stalled,
            database_bytes=self._measure_database(),
            disk_free_bytes=self._measure_disk(),
            log_records=self.records.counts,
            certificate_expires_at_s=(
                None if self.certificate is None else self.certificate.expires_at.timestamp()
            ),
        )

    def _read_queues(self) -> dict[str, Queue]:
        waiting_max = self.store.waiting_max
        queues = {lane: Queue(count, waiting_max) for lane, count in self.store.waiting.items()}
        queues["passwords"] = Queue(self.passwords.waiting, self.passwords.waiting_max)
        if self.post is not None:
            queues["letters"] = Queue(self.post.waiting, self.post.waiting_max)
        return queues

    def _measure_database(self) -> dict[str, int]:
        sizes = {}
        if self.database is not None:
            for name, path in (("database", self.database), ("wal", f"{self.database}-wal")):
                with contextlib.suppress(OSError):
                    sizes[name] = Path(path).stat().st_size
        return sizes

    def _measure_disk(self) -> int | None:
        if self.database is not None:
            with contextlib.suppress(OSError):
                return shutil.disk_usage(self.database.parent).free
        return None
