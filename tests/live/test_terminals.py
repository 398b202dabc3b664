"""Two live views in terminals of their own, as a person starts them; and the picture of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
ENVIRONMENT = os.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))}
TIMEOUT_S = 90


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_key_in_one_terminal_is_seen_in_the_other_and_q_ends_both() -> None:
    measured = subprocess.run(
        [sys.executable, TOOLS / "live_latency.py", "--rounds", "2"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert (measured.returncode, measured.stderr) == (0, "")
    assert re.fullmatch(
        r"from the key to the other screen, 2 times: median \d+ ms, .*\n", measured.stdout
    )


def test_the_picture_shows_the_change_on_both_sides(tmp_path: Path) -> None:
    picture = tmp_path / "live.svg"
    drawing = subprocess.run(
        [sys.executable, TOOLS / "live_picture.py", picture],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert (drawing.returncode, drawing.stderr) == (0, "")
    drawn = picture.read_text().replace("&#160;", " ")
    for text in ("on the laptop", "on the phone", "you changed", "laptop changed"):
        assert text in drawn
    assert drawn.count(">1180<") == 1  # on the laptop it is under the cursor, with its name
    assert drawn.count("balance: 1180") == 1
    assert re.findall(r"https?://(?!www\.w3\.org/|www\.textualize\.io)", drawn) == []
