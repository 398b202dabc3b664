"""The database: reachable, of this version's schema, and of a SQLite without known faults."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, select, text

from wsserver.config import Settings
from wsserver.doctor.findings import Finding, fail, ok, warn
from wsserver.doctor.machine import check_disk
from wsserver.store.databases import database_exists, is_sqlite, open_live_database, parse_url
from wsserver.store.errors import SchemaTooOld, StoreError
from wsserver.store.sqlite import find_folder
from wsserver.store.tables import installation

CLOCK_TOLERANCE_S: Final = 60
WAL_RESET_FIXED: Final = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""From the first on, and in later releases of the two branches, https://sqlite.org/wal.html#bug."""


def check_database(settings: Settings) -> Iterator[Finding]:
    """All about the database that the settings name."""
    try:
        url = parse_url(settings.database_url)
        if is_sqlite(url):
            yield from _check_file(url)
        yield from _check_contents(url)
    except SchemaTooOld as error:
        yield warn("database", str(error), "the next start does that by itself; back up before")
    except StoreError as error:
        yield fail("database", str(error), "the server can't start before that is mended")


def _check_file(url: URL) -> Iterator[Finding]:
    yield judge_sqlite(sqlite3.sqlite_version_info)
    folder = find_folder(url)
    file = folder / Path(str(url.database)).name
    beside = [file, file.with_name(f"{file.name}-wal")]
    yield from check_disk(folder, sum(path.stat().st_size for path in beside if path.is_file()))


def judge_sqlite(version: tuple[int, int, int]) -> Finding:
    """Whether that SQLite may lose commits where two connections checkpoint at once."""
    shown = ".".join(map(str, version))
    newest, *branches = WAL_RESET_FIXED
    if version >= newest or any(fixed <= version < (*fixed[:2], 99) for fixed in branches):
        return ok("sqlite", f"{shown}, with no fault that is known to lose commits")
    return warn(
        "sqlite",
        f"{shown} has the WAL-reset bug (mended in "
        f"{', '.join('.'.join(map(str, fixed)) for fixed in WAL_RESET_FIXED)}): this server's "
        "connections keep clear of it, those of other programs might not",
        "let nothing but wsserver write to the file, or take a Python with a newer SQLite",
    )


def _check_contents(url: URL) -> Iterator[Finding]:
    if not database_exists(url):
        yield ok("database", f"there is none yet; the first start makes {url.database}")
        return
    begun_s = time.perf_counter()
    with open_live_database(url, reading=True) as connection:
        probed_at_ms = connection.execute(select(installation.c.probed_at)).scalar_one_or_none()
        took_ms = (time.perf_counter() - begun_s) * 1000
        found = [] if is_sqlite(url) else [*_check_postgresql(connection)]
    shown = url.render_as_string(hide_password=True)
    yield ok("database", f"{shown} answers in {took_ms:.0f} ms, with this version's schema")
    yield from found
    ahead_s = (probed_at_ms or 0) / 1000 - time.time()
    if ahead_s > CLOCK_TOLERANCE_S:
        yield warn(
            "database clock",
            f"something was written {ahead_s:,.0f} s in the future: this machine's clock went back",
            "set the clock by the network; times in histories are out of order for so long",
        )


def _check_postgresql(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(
        text(
            "SELECT current_setting('server_version'), current_setting('fsync'), "
            "pg_is_in_recovery(), extract(epoch FROM clock_timestamp())"
        )
    ).one()
    version, fsync, is_standby, now_s = row
    if is_standby:
        yield fail(
            "postgresql",
            f"{version}, a standby: nothing can be written to it",
            "name the primary, or several hosts with ?target_session_attrs=read-write",
        )
    elif fsync != "on":
        yield fail(
            "postgresql",
            f"{version} with fsync = {fsync}: what is acknowledged is lost when its machine fails",
            "set fsync = on in postgresql.conf, and reload it",
        )
    else:
        yield ok("postgresql", f"{version}, which can be written to")
    ahead_s = float(now_s) - time.time()
    if abs(ahead_s) > CLOCK_TOLERANCE_S:
        yield warn(
            "database clock",
            f"PostgreSQL's is {ahead_s:+,.0f} s from this machine's",
            "set both by the network (systemd-timesyncd, chrony)",
        )
