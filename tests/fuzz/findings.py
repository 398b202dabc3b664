"""What fuzzing found: told apart by where it was raised, made small, and kept as a reproducer."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

from tests.fuzz.targets import Target

FOLDER: Final = Path("build/fuzz/findings")
SHRINK_RUNS_MAX: Final = 3000


def run_and_tell(target: Target, data: bytes) -> tuple[str, str] | None:
    """None where all is well; else what is wrong, briefly and with its traceback."""
    try:
        target.run(data)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f"{Path(it.filename).stem}:{it.lineno}" for it in frames if "/ws" in it.filename]
        what = str(error).partition(":")[0]
        where = own[-1] if own else f"{Path(frames[-2].filename).stem}:{frames[-2].lineno}"
        return f"{type(error).__name__} at {where}: {what}", traceback.format_exc()
    return None


def shrink(target: Target, data: bytes, what: str) -> bytes:
    """A shorter input that shows the same, by leaving out ever smaller pieces."""
    runs, size = 0, len(data) // 2
    while size and runs < SHRINK_RUNS_MAX:
        position = 0
        while position < len(data) and runs < SHRINK_RUNS_MAX:
            shorter = data[:position] + data[position + size :]
            told = run_and_tell(target, shorter)
            runs += 1
            if told is not None and told[0] == what:
                data = shorter
            else:
                position += size
        size //= 2
    return data


class Findings:
    """Those of one run: each kind once."""

    def __init__(self, target: Target, folder: Path = FOLDER) -> None:
        self.kinds: set[str] = set()
        self._target = target
        self._folder = folder

    def check(self, data: bytes) -> None:
        """Runs the target on an input, and keeps what is new of what it shows."""
        told = run_and_tell(self._target, data)
        if told is None or told[0] in self.kinds:
            return
        what, where = told
        self.kinds.add(what)
        small = shrink(self._target, data, what)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._target.name}-{len(self.kinds)}.txt"
        path.write_text(f"{small.hex()}\n\n{what}\n\n{where}")
        print(f"finding: {what}: {path}", flush=True)
