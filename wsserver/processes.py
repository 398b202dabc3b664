"""The end of a server that was started as a process of its own."""

from __future__ import annotations

import subprocess


def end_process(process: subprocess.Popen[bytes], *, timeout_s: float) -> None:
    """End it in good order, or by force once that took too long. Returns when it is gone."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
