"""Draws two live views of one account, side by side: a change made in one is seen in the other.

A real server in a process of its own, two devices, and the keys that a person would press.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from textual.pilot import Pilot

from tools.local_server import run_server
from wsclient import Session, Status, SyncedWallet, register
from wsclient.live.app import LiveApp
from wsclient.live.asking import HandMerge
from wsclient.merge import JsonMerge

COLUMNS: Final = 74
ROWS: Final = 24
GAP_PX: Final = 12
TIMEOUT_S: Final = 30.0
LOOK_INTERVAL_S: Final = 0.2

EMAIL: Final = "joe@example.com"
ROOT_PASSWORD: Final = "correct horse battery staple"
ADDRESS: Final = "wss://sync.example.com/v1"
"""What a picture shows in place of a free port of this machine."""
CLOCK: Final = "09:41:07"
WALLET: Final = b"""{
    "owner": "Joe",
    "accounts": [
        {"name": "Checking", "balance": 1250.75, "active": true},
        {"name": "Savings", "balance": 18000, "active": false}
    ],
    "tags": ["home", "work"]
}"""
DOWN_TO_BALANCE: Final = 5
NEW_BALANCE: Final = ("1", "1", "8", "0")


class Device:
    """A device of the account, and the picture of its live view."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name = name
        self.picture = ""
        self._merge = HandMerge(JsonMerge())
        self.wallet = SyncedWallet(
            url, EMAIL, ROOT_PASSWORD, folder / name, self._merge, device_name=name
        )

    async def show(self, other: Device, *, edits: bool) -> None:
        """Runs its live view until the change has arrived in both, and draws it."""
        async with self.wallet:
            app = LiveApp(
                self.wallet,
                merge=self._merge,
                profile="home",
                address=ADDRESS,
                clock=lambda: CLOCK,
            )

            async def act(pilot: Pilot[object]) -> None:
                if edits:
                    await self.wallet.change(WALLET)
                await until(pilot, lambda: self.is_settled(1) and other.is_settled(1))
                await until(pilot, lambda: not app.wallet_tree.glowing)
                if edits:
                    await pilot.press(*["down"] * DOWN_TO_BALANCE, "e")
                    await until(pilot, lambda: len(app.screen_stack) == 2)
                    await pilot.press("ctrl+u", *NEW_BALANCE, "enter")
                await until(pilot, lambda: self.is_settled(2) and other.is_settled(2))
                await until(pilot, lambda: bool(app.wallet_tree.glowing))
                self.picture = app.export_screenshot(title=f"wsclient live, on the {self.name}")
                await until(pilot, lambda: bool(other.picture))
                app.exit()

            await app.run_async(headless=True, size=(COLUMNS, ROWS), auto_pilot=act)

    def is_settled(self, sequence: int) -> bool:
        """Whether it has that state, and nothing is on its way."""
        return self.wallet.status is Status.SYNCED and self.wallet.sequence == sequence


async def until(pilot: Pilot[object], holds: Callable[[], bool]) -> None:
    """Returns once it holds; TimeoutError when it takes too long."""
    async with asyncio.timeout(TIMEOUT_S):
        while not holds():
            await pilot.pause(LOOK_INTERVAL_S)


async def draw(url: str, folder: Path) -> str:
    """Both pictures in one, an SVG that needs nothing from elsewhere."""
    async with Session(url) as session:
        await register(session, EMAIL, ROOT_PASSWORD)
    laptop, phone = (Device(name, url, folder) for name in ("laptop", "phone"))
    async with asyncio.TaskGroup() as group:
        group.create_task(laptop.show(phone, edits=True))
        group.create_task(phone.show(laptop, edits=False))
    return put_side_by_side(laptop.picture, phone.picture)


def put_side_by_side(*pictures: str) -> str:
    """The pictures in one, from left to right."""
    drawn, x_px, height_px = [], 0.0, 0.0
    for picture in pictures:
        size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture)
        assert size is not None, "Rich gives every picture its size"
        placed = f'<svg x="{x_px:g}" width="{size[1]}" height="{size[2]}"'
        drawn.append(picture.strip().replace("<svg", placed, 1))
        x_px += float(size[1]) + GAP_PX
        height_px = max(height_px, float(size[2]))
    whole = "\n".join(re.sub(r"\s*@font-face \{.*?\}", "", one, flags=re.DOTALL) for one in drawn)
    size_px = f"{x_px - GAP_PX:g} {height_px:g}"
    return f'<svg viewBox="0 0 {size_px}" xmlns="http://www.w3.org/2000/svg">\n{whole}\n</svg>\n'


def main() -> None:
    """Writes the picture that the README shows, or another file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = Path(__file__).parents[1] / "docs" / "live.svg"
    parser.add_argument("file", type=Path, nargs="?", default=default, help="docs/live.svg")
    arguments = parser.parse_args()
    with run_server() as url, tempfile.TemporaryDirectory() as folder:
        arguments.file.write_text(asyncio.run(draw(url, Path(folder))))


if __name__ == "__main__":
    main()
