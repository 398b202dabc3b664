"""Takes over the file of lbryio's wallet-sync-server: a few accounts a transaction, any time again.

What is here already is passed over, so that an import which was cut short is simply run anew. A
server may serve from the database meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, select

from wsserver.lbry.source import LeftOut, Source
from wsserver.store.databases import database_exists, open_database, open_live_database
from wsserver.store.imports import (
    ImportedAccount,
    ImportedRegistration,
    Outcome,
    find_outcome,
    take_over,
)
from wsserver.store.schema import install
from wsserver.store.tables import installation

CHUNK: Final = 200
"""Accounts in one transaction: a server beside it waits for no more than these."""

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""

_REASONS: Final = {
    Outcome.ADDRESS_TAKEN: "its address has an account here already, with other keys",
    Outcome.BEHIND: "it was taken over before, and the file has a newer wallet",
}


@dataclass(slots=True)
class Report:
    """What was taken over, or would be.

    ``unverified``: taken over with a wallet, and not verified: the operator has to. ``there``:
    taken over before. ``left_out``: those that were not taken, or are not as the file has them.
    """

    accounts: int = 0
    wallets: int = 0
    registrations: int = 0
    there: int = 0
    unverified: list[str] = field(default_factory=list, repr=False)
    left_out: list[LeftOut] = field(default_factory=list, repr=False)
    source_changed: bool = False


def take_over_file(
    url: URL, file: Path, *, history_depth: int, dry_run: bool, progress: Progress
) -> Report:
    """Take over what is in the file; the database is made where there is none.

    ``history_depth``: for a database that is new. ``dry_run`` only tells. Raises StoreError.
    """
    now_ms = time.time_ns() // 1_000_000
    with contextlib.closing(Source(file)) as source:
        report = Report()
        if not dry_run:
            _prepare(url, history_depth, now_ms)
        done = 0
        progress(0, source.count)
        accounts = source.read(now_ms)
        while chunk := [*itertools.islice(accounts, CHUNK)]:
            with _open(url, dry_run=dry_run) as connection:
                outcomes = [_take(connection, one, dry_run=dry_run) for one in chunk]
            # Only now are they taken over.
            for one, outcome in zip(chunk, outcomes, strict=True):
                _note(report, one, outcome)
            done += len(chunk)
            progress(done, source.count)
        report.source_changed = source.has_changed()
    return report


def _prepare(url: URL, history_depth: int, now_ms: int) -> None:
    """Make the database where there is none; one that a server has made is left as it is."""
    opened = open_live_database(url) if database_exists(url) else open_database(url)
    with opened as connection:
        if connection.execute(select(installation.c.id)).one_or_none() is None:
            install(connection, history_depth=history_depth, now_ms=now_ms)


@contextlib.contextmanager
def _open(url: URL, *, dry_run: bool) -> Iterator[Connection | None]:
    """A transaction; None where there is no database to look into."""
    if dry_run and not database_exists(url):
        yield None
    else:
        with open_live_database(url, reading=dry_run) as connection:
            yield connection


def _take(
    connection: Connection | None,
    one: ImportedAccount | ImportedRegistration | LeftOut,
    *,
    dry_run: bool,
) -> Outcome | None:
    if isinstance(one, LeftOut):
        return None
    if connection is None:
        return Outcome.TAKEN_OVER
    return find_outcome(connection, one) if dry_run else take_over(connection, one)


def _note(
    report: Report, one: ImportedAccount | ImportedRegistration | LeftOut, outcome: Outcome | None
) -> None:
    match one, outcome:
        case LeftOut(), _:
            report.left_out.append(one)
        case ImportedAccount(), Outcome.TAKEN_OVER:
            report.accounts += 1
            report.wallets += one.wallet is not None
            if not one.verified:
                report.unverified.append(one.email)
        case ImportedRegistration(), Outcome.TAKEN_OVER:
            report.registrations += 1
        case _, Outcome.THERE:
            report.there += 1
        case _, Outcome():
            report.left_out.append(LeftOut(one.email, _REASONS[outcome]))
