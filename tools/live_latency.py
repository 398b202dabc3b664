"""How long a change takes from one screen to the other: from the key to the other terminal's bytes.

A real server and two devices of one account, each `wsclient live` in a process and a terminal of
its own (a pseudo-terminal, as wide as a window). In one, a value is edited as a person would; the
time runs from the Enter that commits it until the other terminal has been sent the new value.
In between: the change is on the disk of the one device, sealed, pushed, on the disk of the server,
heard, opened, on the disk of the other device, and painted. All of it runs on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Final

from tools.local_server import run_server
from wsclient import Session, SyncedWallet, register
from wsclient.live import HandMerge, run_live
from wsclient.merge import JsonMerge

ROUNDS: Final = 50
ROWS: Final = 40
COLUMNS: Final = 120
TIMEOUT_S: Final = 20.0
READ_BYTES: Final = 65_536
STOP_TIMEOUT_S: Final = 10.0

EMAIL: Final = "joe@example.com"
ROOT_PASSWORD: Final = "correct horse battery staple"
FIRST_VALUE: Final = 10_000
FIRST_SEQUENCE: Final = 1
CLEAR_LINE: Final = b"\x15"
DOWN: Final = b"\x1b[B"


class Terminal:
    """A live view in a terminal: keys go in, and what it draws comes out."""

    def __init__(self, url: str, folder: Path, name: str) -> None:
        self._drawn = b""
        self._has_drawn = asyncio.Event()
        self._file, its_side = pty.openpty()
        fcntl.ioctl(its_side, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--device", url, str(folder), name],
            stdin=its_side,
            stdout=its_side,
            stderr=its_side,
            env=os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
            start_new_session=True,
        )
        os.close(its_side)
        asyncio.get_running_loop().add_reader(self._file, self._read)

    def press(self, keys: bytes) -> None:
        """Sends keys, and forgets what was drawn before."""
        self._drawn = b""
        os.write(self._file, keys)

    async def until_drawn(self, text: str) -> float:
        """When that was drawn, after the last key here; a monotonic time in seconds."""
        async with asyncio.timeout(TIMEOUT_S):
            while text.encode() not in self._drawn:
                self._has_drawn.clear()
                await self._has_drawn.wait()
        return time.monotonic()

    async def close(self) -> None:
        """Ends it by its key; RuntimeError, and by force, where that does not end it well."""
        self.press(b"q")
        try:
            # In a thread: what it draws last has to be read for it to end.
            code = await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)
        if code:
            raise RuntimeError(f"a live view ended with {code}")

    def _read(self) -> None:
        try:
            self._drawn += os.read(self._file, READ_BYTES)
        except OSError:  # it has ended
            asyncio.get_running_loop().remove_reader(self._file)
        self._has_drawn.set()


async def measure(url: str, folder: Path, rounds: int) -> list[float]:
    """Seconds from the key in one terminal to the new value in the other, ``rounds`` times."""
    async with Session(url) as session:
        await register(session, EMAIL, ROOT_PASSWORD)
    async with contextlib.AsyncExitStack() as stack:
        terminals = [Terminal(url, folder / name, name) for name in ("laptop", "phone")]
        for terminal in terminals:
            stack.push_async_callback(terminal.close)
        for terminal in terminals:
            await terminal.until_drawn(str(FIRST_VALUE))
        here, there = terminals
        here.press(DOWN)
        sequences = range(FIRST_SEQUENCE + 1, FIRST_SEQUENCE + 1 + rounds)
        return [await _measure_once(here, there, sequence) for sequence in sequences]


async def _measure_once(here: Terminal, there: Terminal, sequence: int) -> float:
    value = str(FIRST_VALUE + sequence)
    here.press(b"e")
    await here.until_drawn("enter saves")
    here.press(CLEAR_LINE)
    await here.until_drawn("no JSON")
    here.press(value.encode())
    await here.until_drawn(value)
    pressed_s = time.monotonic()
    here.press(b"\r")
    shown_s = await there.until_drawn(value)
    # What the push sets off, as the acknowledgement, belongs to this round.
    await here.until_drawn(_tell_applied(sequence))
    return shown_s - pressed_s


def _tell_applied(sequence: int) -> str:
    return f"phone has sequence {sequence}"


async def run_device(url: str, folder: Path, name: str) -> None:
    """The live view of one device, in this terminal."""
    merge = HandMerge(JsonMerge())
    async with SyncedWallet(url, EMAIL, ROOT_PASSWORD, folder, merge, device_name=name) as wallet:
        if name == "laptop":
            await wallet.change(b'{"value":%d}' % FIRST_VALUE)
        await run_live(wallet, merge=merge, profile=name, address=url)


def main() -> None:
    """Measures, and prints what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"{ROUNDS} unless given")
    parser.add_argument("--device", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device is not None:
        url, folder, name = arguments.device
        asyncio.run(run_device(url, Path(folder), name))
        return
    with run_server() as url, tempfile.TemporaryDirectory() as folder:
        took_ms = sorted(
            second * 1000 for second in asyncio.run(measure(url, Path(folder), arguments.rounds))
        )
    print(
        f"from the key to the other screen, {len(took_ms)} times: "
        f"median {statistics.median(took_ms):.0f} ms, "
        f"nine of ten within {took_ms[int(len(took_ms) * 0.9)]:.0f} ms, "
        f"fastest {took_ms[0]:.0f} ms, slowest {took_ms[-1]:.0f} ms"
    )


if __name__ == "__main__":
    main()
