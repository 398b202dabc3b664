"""A folder of backups that a timer fills: each is named by its time, and the newest are kept.

What goes is known by three marks together: its name is one that this module gives, it is a plain
file, and the database in it is of the same installation as the backup just made. All else in the
folder stays: what people put there, and what another installation keeps in the same place.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from wsserver.store.backups import Backup, Progress, back_up, open_file, sync_path
from wsserver.store.errors import StoreError
from wsserver.store.guard import fcntl

NAME_FORMAT: Final = "wallet-sync-%Y-%m-%dT%H-%M-%SZ.db"
"""Sorts by time, and is a file's name on every system."""
LOCK_NAME: Final = ".wallet-sync-backups.lock"
POLL_INTERVAL_S: Final = 0.1

_STAMP: Final = r"wallet-sync-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ\.db"
_NAME: Final = re.compile(_STAMP)
_UNFINISHED: Final = re.compile(rf"\.{_STAMP}-\w+(-journal|-wal|-shm)?")


class FolderBusy(StoreError):
    """Another run is making a backup in this folder."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a run did: the backup made, those removed, and those that it could not remove.

    ``kept`` counts this installation's backups in the folder, the new one among them.
    """

    backup: Backup
    removed: list[Path]
    stuck: list[Path]
    kept: int


def back_up_into(
    url: URL,
    folder: Path,
    *,
    keep: int | None,
    progress: Progress,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Turn:
    """Make a backup in the folder; then remove all but the newest ``keep`` of this installation.

    Without ``keep`` all stay. Nothing is removed before the new one is whole, checked and on the
    disk. Those named later than the new one are left and not counted: some clock was wrong. Raises
    StoreError, and FolderBusy where another run is at it.
    """
    if not folder.is_dir():
        raise StoreError(f"there is no folder {folder}")
    with _lock(folder):
        # Whoever left them was killed: this run alone makes any now.
        for path in [*folder.iterdir()]:
            if _UNFINISHED.fullmatch(path.name) and _is_plain(path):
                with contextlib.suppress(OSError):
                    path.unlink()
        made = back_up(url, _find_name(folder, now), overwrite=False, progress=progress)
        removed, stuck, kept = [], [], 0
        for path in _find_kin(made.file):
            kept += 1
            if keep is None or kept <= keep:
                continue
            try:
                path.unlink()
            except OSError:
                stuck.append(path)
            else:
                removed.append(path)
                kept -= 1
        sync_path(folder)
    return Turn(made, removed, stuck, kept)


def find_newest(folder: Path) -> Path:
    """The backup with the latest name; raises StoreError where there is none."""
    found = _list_backups(folder) if folder.is_dir() else []
    if not found:
        raise StoreError(f"there is no backup in the folder {folder}")
    return found[0]


def _list_backups(folder: Path) -> list[Path]:
    """What is named as a backup, newest first."""
    named = (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and _is_plain(path))
    return sorted(named, key=lambda path: path.name, reverse=True)


def _find_kin(made: Path) -> Iterator[Path]:
    """The backup just made, then the older ones of its installation, newest first."""
    yield made
    own = _identify(made)
    for path in _list_backups(made.parent):
        if path.name < made.name and own is not None and _identify(path) == own:
            yield path


def _identify(backup: Path) -> bytes | None:
    """The installation's own secret, in each of its backups; None where there is none to read."""
    try:
        with open_file(backup, reading=True) as connection:
            rows = connection.execute("SELECT decoy_key FROM installation").fetchall()
    except sqlite3.Error:
        return None
    return rows[0][0] if rows else None


def _find_name(folder: Path, now: Callable[[], datetime]) -> Path:
    # The one before may be of this second: names are true, and in their order.
    while (path := folder / now().strftime(NAME_FORMAT)).exists():
        time.sleep(POLL_INTERVAL_S)
    return path


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One run at a time in a folder; it ends with its process."""
    if fcntl is None:
        yield
        return
    path = folder / LOCK_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{folder} can't be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderBusy(f"another backup into {folder} is being made") from None
        yield
    finally:
        os.close(descriptor)
