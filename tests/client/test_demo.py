"""The demonstration runs to its end, tells no password, and stops when told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "tools" / "demo.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))}
TIMEOUT_S = 90


def test_the_demonstration_shows_a_live_change_a_conflict_and_a_merge(tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    finished = subprocess.run(
        [sys.executable, DEMO, "--svg", picture],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert (finished.returncode, finished.stderr) == (0, "")
    story = [
        r"phone  heard of sequence 1 in [\d.]+ ms",
        r"laptop heard of sequence 2 in [\d.]+ ms",
        r"(laptop|phone) +conflict: sequence 3 was taken",
        r"(laptop|phone) +merged, and pushing again",
        r"(laptop|phone) +pushed sequence 4, it is on disk",
        r"Both have: coffee, salary, (books, rent|rent, books)\.",
    ]
    assert re.search(".*".join(story), finished.stdout, re.DOTALL)
    drawn = picture.read_text()
    assert drawn.startswith("<svg")
    assert re.findall(r"https?://(?!www\.w3\.org/|www\.textualize\.io)", drawn) == []


def test_an_interrupt_ends_it_without_a_traceback() -> None:
    demo = subprocess.Popen(
        [sys.executable, DEMO],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stdout is not None
        assert demo.stdout.readline() == "\n"  # it is under way
        demo.send_signal(signal.SIGINT)
        output, errors = demo.communicate(timeout=TIMEOUT_S)
    assert (demo.returncode, errors) == (130, "")
    assert output.endswith("stopped\n")
