import os
import subprocess
import sys
from pathlib import Path

from tools.local_server import run_server

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_two_devices_hear_each_other() -> None:
    with run_server() as url:
        example = subprocess.run(
            [sys.executable, EXAMPLES / "two_devices.py"],
            env={**os.environ, "WSSERVER_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    assert example.stdout.splitlines() == [
        "laptop pushed sequence 1",
        "phone heard coins: 3",
        "phone pushed sequence 2",
        "laptop got coins: 5",
    ]
