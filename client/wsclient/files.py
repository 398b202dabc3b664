"""How local state touches the disk: through `Files`, so that a test can fail or cut any call."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import weakref
from pathlib import Path
from typing import Final, Protocol

from wsclient.errors import FolderInUse

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class Lock(Protocol):
    """A lock that is held."""

    def release(self) -> None:
        """Let go; once more is no harm."""


class Files(Protocol):
    """How the store touches the disk. Each raises OSError where the disk refuses."""

    def exists(self, path: Path) -> bool: ...
    def make_folder(self, path: Path) -> None:
        """Make a folder (0700), unless it is there."""

    def lock(self, path: Path) -> Lock:
        """The lock on the file ``path``, which is made; FolderInUse when it is taken."""

    def read(self, path: Path) -> bytes: ...
    def create(self, path: Path) -> int:
        """The descriptor of a new file (0600) to write to."""

    def write(self, descriptor: int, content: bytes) -> None:
        """Write all of it."""

    def fsync(self, descriptor: int) -> None:
        """Return once the file's content survives a power cut."""

    def close(self, descriptor: int) -> None: ...
    def rename(self, path: Path, onto: Path) -> None:
        """Replace ``onto``, if it is there."""

    def unlink(self, path: Path) -> None:
        """Remove a file, if it is there."""

    def fsync_folder(self, path: Path) -> None:
        """Return once the names in the folder survive a power cut."""


class Disk:
    """`Files`, of the system."""

    def exists(self, path: Path) -> bool:
        return path.exists()

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)

    def lock(self, path: Path) -> Lock:
        return FileLock(path)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def create(self, path: Path) -> int:
        binary = getattr(os, "O_BINARY", 0)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o600)

    def write(self, descriptor: int, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]

    def fsync(self, descriptor: int) -> None:
        if sys.platform == "darwin":
            # There, fsync leaves it in the disk's own cache.
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
                return
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, path: Path, onto: Path) -> None:
        path.replace(onto)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def fsync_folder(self, path: Path) -> None:
        # On Windows a folder can't be opened, and NTFS keeps a journal of names.
        if sys.platform != "win32":
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self.fsync(descriptor)
            except OSError as error:
                # Some network file systems have no such thing: there, the server has the names.
                if error.errno != errno.EINVAL:
                    raise
            finally:
                os.close(descriptor)


DISK: Final = Disk()


class FileLock:
    """A lock on a file that names its holder; the process's end, however it comes, ends it too."""

    def __init__(self, path: Path) -> None:
        # The file is never removed: who has just opened it would lock one that nobody else sees.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            if not _try_lock(descriptor):
                raise FolderInUse(path.parent, _read_pid(descriptor))
        except BaseException:
            self._file.close()
            raise
        _HELD.add(self)
        # The number is a courtesy: it is not worth a failure.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, b"%d\n" % os.getpid())

    def release(self) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._file.truncate(0)
            self._file.close()

    def let_go_in_child(self) -> None:
        """A forked process shares the lock, and would keep it when the one that took it is dead."""
        self._file.close()


_HELD: Final[weakref.WeakSet[FileLock]] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_HELD):
        lock.let_go_in_child()


if sys.platform == "win32":
    # A byte that is locked there can't be read, so it is one behind the number.
    _LOCKED_BYTE = 1024

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
else:
    os.register_at_fork(after_in_child=_let_go_in_child)

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _read_pid(descriptor: int) -> int | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    digits = os.read(descriptor, 20).strip()
    return int(digits) if digits.isdigit() else None
