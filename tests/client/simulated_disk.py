"""A simulated disk: what is on it after a crash of the process, and after a power cut.

What the process did is there at once (`process_killed`). After a power cut (`power_cuts`) there is
what was synced, and of the rest anything: each name that was made, changed or removed since its
folder was synced may have stayed or not, apart from the others; the content of a file that was not
synced may be lost, torn, or have reached the disk in another order.

`fail_at` makes one call of the store fail, before it does anything, halfway, or once it is done.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wsclient.errors import FolderInUse

MOMENTS = ("before", "halfway", "after")


class Crash(BaseException):
    """The process or the machine has stopped: nothing that the store does counts any more."""


@dataclass(eq=False)
class File:
    content: bytes
    synced: bytes | None
    """What a power cut leaves; None: not known, as it was never synced."""

    def after_power_cut(self) -> set[bytes]:
        if self.synced == self.content:
            return {self.content}
        written, third = self.content, len(self.content) // 3
        return {
            self.synced or b"",
            written,
            written[: 2 * third],
            bytes(len(written)),  # The length went ahead of the content.
            bytes(third) + written[third:],  # The first block was to come last.
        }


FOLDER = File(b"", b"")
Names = Mapping[Path, File]


@dataclass
class HeldLock:
    disk: SimulatedDisk
    path: Path

    def release(self) -> None:
        self.disk.locked.discard(self.path)


@dataclass
class SimulatedDisk:
    """`Files`, in memory. ``root`` is there and durable."""

    root: Path
    names: dict[Path, File] = field(default_factory=dict)
    durable: dict[Path, File] = field(default_factory=dict)
    pending: list[tuple[Path, File | None]] = field(default_factory=list)
    """Names that were set (None: removed) since their folder was synced."""
    locked: set[Path] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names.setdefault(self.root, FOLDER)
        self.durable.setdefault(self.root, FOLDER)
        self._open: dict[int, File] = {}
        self._failure: BaseException | None = None

    # What a test does with it

    def fail_at(
        self, call: int, moment: str, failure: BaseException, *, lasting: bool = False
    ) -> None:
        """Raise ``failure`` at that call from now, counted from 1; if ``lasting``, ever after."""
        self.calls.clear()
        self._failing_call, self._failing_moment = call, moment
        self._failure, self._lasting, self.failed = failure, lasting, False

    def heal(self) -> None:
        self._failure = None

    def process_killed(self) -> SimulatedDisk:
        """The disk as the next process finds it."""
        copies = {file: File(file.content, file.synced) for file in self._all_files()}
        copies[FOLDER] = FOLDER
        return SimulatedDisk(
            self.root,
            {path: copies[file] for path, file in self.names.items()},
            {path: copies[file] for path, file in self.durable.items()},
            [(path, None if file is None else copies[file]) for path, file in self.pending],
        )

    def power_cuts(self) -> Iterator[SimulatedDisk]:
        """Every disk that the next start of the machine may find, each different."""
        seen = set()
        for staying in itertools.product((False, True), repeat=len(self.pending)):
            names = dict(self.durable)
            for path, file in itertools.compress(self.pending, staying):
                _set(names, path, file)
            names = {path: file for path, file in names.items() if self._is_reachable(path, names)}
            for contents in itertools.product(
                *(sorted(file.after_power_cut()) for file in names.values())
            ):
                after: dict[Path, File] = {}
                for (path, file), content in zip(names.items(), contents, strict=True):
                    after[path] = FOLDER if file is FOLDER else File(content, content)
                disk = SimulatedDisk(self.root, after, dict(after))
                if disk.fingerprint() not in seen:
                    seen.add(disk.fingerprint())
                    yield disk

    def crashes(self) -> Iterator[SimulatedDisk]:
        """The disk after a crash at this moment, of the process and of the machine."""
        yield self.process_killed()
        yield from self.power_cuts()

    def fingerprint(self) -> object:
        """Equal for disks between which no store can tell, crashes included."""
        return (
            _fingerprint(self.names),
            _fingerprint(self.durable),
            tuple((path, file and (file.content, file.synced)) for path, file in self.pending),
        )

    # Files

    def exists(self, path: Path) -> bool:
        with self._call("exists"):
            return path in self.names

    def make_folder(self, path: Path) -> None:
        with self._call("make_folder"):
            if path not in self.names:
                self._set(path, FOLDER)

    def lock(self, path: Path) -> HeldLock:
        with self._call("lock"):
            if path not in self.names:
                self._set(path, File(b"", None))
            if path in self.locked:
                raise FolderInUse(path.parent, None)
            held = HeldLock(self, path)
        # Taken only where the call came back: where it failed, there is nobody to release it.
        self.locked.add(path)
        return held

    def read(self, path: Path) -> bytes:
        with self._call("read"):
            if path not in self.names:
                raise FileNotFoundError(path)
            return self.names[path].content

    def create(self, path: Path) -> int:
        with self._call("create"):
            if path in self.names:
                raise FileExistsError(path)
            file = File(b"", None)
            self._set(path, file)
            descriptor = len(self._open) + 1
            self._open[descriptor] = file
            return descriptor

    def write(self, descriptor: int, content: bytes) -> None:
        with self._call("write"):
            file = self._open[descriptor]
            file.content += content[: len(content) // 2]
            self._fail_if_due("halfway")
            file.content += content[len(content) // 2 :]

    def fsync(self, descriptor: int) -> None:
        with self._call("fsync"):
            file = self._open[descriptor]
            file.synced = file.content

    def close(self, descriptor: int) -> None:
        with self._call("close"):
            del self._open[descriptor]

    def rename(self, path: Path, onto: Path) -> None:
        with self._call("rename"):
            self._set(onto, self.names[path])
            self._set(path, None)

    def unlink(self, path: Path) -> None:
        with self._call("unlink"):
            if path in self.names:
                self._set(path, None)

    def fsync_folder(self, path: Path) -> None:
        with self._call("fsync_folder"):
            for name, file in self.pending:
                if name.parent == path:
                    _set(self.durable, name, file)
            self.pending = [change for change in self.pending if change[0].parent != path]

    def _set(self, path: Path, file: File | None) -> None:
        if self.names.get(path.parent) is not FOLDER:
            raise FileNotFoundError(path)
        _set(self.names, path, file)
        self.pending.append((path, file))

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        self.calls.append(name)
        self._fail_if_due("before")
        yield
        self._fail_if_due("after")

    def _fail_if_due(self, moment: str) -> None:
        if self._failure is None:
            return
        due = (len(self.calls), moment) == (self._failing_call, self._failing_moment)
        if due or (self.failed and self._lasting):
            self.failed = True
            raise type(self._failure)(*self._failure.args)

    def _all_files(self) -> set[File]:
        changed = {file for _, file in self.pending if file is not None}
        return {*self.names.values(), *self.durable.values(), *changed}

    def _is_reachable(self, path: Path, names: Names) -> bool:
        return path == self.root or (
            names.get(path.parent) is FOLDER and self._is_reachable(path.parent, names)
        )


def _set(names: dict[Path, File], path: Path, file: File | None) -> None:
    if file is None:
        names.pop(path, None)
    else:
        names[path] = file


def _fingerprint(names: Names) -> object:
    return frozenset((path, file.content, file.synced) for path, file in names.items())
