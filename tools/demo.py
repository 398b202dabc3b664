"""Half a minute with wallet-sync: two devices of one account, side by side.

A server on a free port, a change heard live, two devices that push at once, a conflict, a merge.
Then it ends by itself and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import re
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import wsclient
from tools.local_server import run_server
from wsclient import Contents, Keys, Session
from wsclient.errors import Conflict
from wsclient.merge.append_log import SEPARATOR, append_segment, merge_append_logs
from wsschema.messages import WalletState, WalletUpdated

STEP_S: Final = 3.2
"""How long a reader gets for a step."""
LOG_LINES: Final = 7
WIDTH: Final = 96
"""Columns of the picture; a terminal has its own."""
EMAIL: Final = "joe@example.com"


class Stage:
    """What the audience sees: a sentence, two devices, and what the server holds."""

    def __init__(self, show: Callable[[Stage, str], None], step_s: float) -> None:
        self._show, self._step_s = show, step_s
        self.sentence = ""
        self.devices: list[Device] = []
        self.stored: WalletState | None = None
        self.address = ""

    async def tell(self, sentence: str) -> None:
        """Says what comes next, and gives time to read it."""
        self.sentence = sentence
        self.refresh(f"\n{sentence}")
        await asyncio.sleep(self._step_s)

    def refresh(self, news: str = "") -> None:
        """Shows the stage as it is now; ``news`` is the line that a plain output gets."""
        self._show(self, news)

    def render(self) -> RenderableType:
        """The stage as a picture of 22 lines."""
        devices = Table.grid(expand=True, padding=(0, 1))
        for _ in range(2):
            devices.add_column(ratio=1)
        devices.add_row(*(device.render() for device in self.devices))
        sentence = Panel(Text(self.sentence, style="bold"), title="wallet-sync", height=4)
        return Group(sentence, devices, self._render_server())

    def _render_server(self) -> Panel:
        text = Text(no_wrap=True, overflow="ellipsis")
        if self.stored is None:
            text.append("no wallet yet", style="dim")
        else:
            text.append(f"sequence {self.stored.sequence}  ", style="bold yellow")
            text.append(self.stored.encrypted_wallet, style="dim yellow")
        title = f"what the server at {self.address} sees"
        return Panel(text, title=title, border_style="yellow", height=3)


class Device:
    """One device: a session, its wallet, and what happened to it."""

    def __init__(self, stage: Stage, name: str, colour: str, session: Session) -> None:
        self.name, self.colour = name, colour
        self.pushed_at_s = 0.0
        self._stage, self._session = stage, session
        self._keys: Keys | None = None
        self._wallet = self._base = "wallet"
        self._previous: str | None = None
        self._lineage: dict[str, int] = {}
        self._sequence = 0
        self._log: deque[tuple[str, str]] = deque(maxlen=LOG_LINES)
        self._colours = {self._wallet: "white"}
        self._turn = asyncio.Lock()
        self._moved = asyncio.Condition()

    async def log_in(self, root_password: str) -> None:
        """Derives the keys and begins the session."""
        self._keys = await wsclient.derive_keys(self._session, EMAIL, root_password)
        await self._session.login(self._keys, device_id=self.name, device_name=self.name)
        self._note("logged in with a derived password", "green")

    async def listen(self, author: Device) -> None:
        """Takes in what the other device pushes, as it is heard."""
        async for event in self._session.notifications():
            if isinstance(event, WalletUpdated):
                heard_ms = (time.perf_counter() - author.pushed_at_s) * 1000
                async with self._turn:
                    if event.sequence <= self._sequence:
                        continue
                    self._note(f"heard of sequence {event.sequence} in {heard_ms:.1f} ms", "cyan")
                    await self._take(event.wallet or await self._session.get(), author)

    async def change(self, entry: str) -> None:
        """Adds an entry to the wallet here."""
        self._wallet = append_segment(self._wallet, entry)
        self._colours[entry] = self.colour
        self._note(f"added “{entry}”, not pushed yet", "white")

    async def push(self, other: Device) -> None:
        """Pushes the wallet; where the other was first, merges and pushes again."""
        async with self._turn:
            while True:
                try:
                    await self._push_once()
                    return
                except Conflict as conflict:
                    if conflict.wallet is None:
                        raise  # the other device pushed one, so there is one
                    taken = conflict.wallet.sequence
                    self._note(f"conflict: sequence {taken} was taken", "bold red")
                    await self._take(conflict.wallet, other)
                    self._note("merged, and pushing again", "bold green")

    async def wait_for(self, sequence: int) -> None:
        """Returns once this device has that sequence."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._sequence >= sequence)

    async def _push_once(self) -> None:
        assert self._keys is not None, "logged in before"
        sequence = self._sequence + 1
        lineage = self._lineage | {self.name: sequence}
        contents = Contents(self._wallet.encode(), self._previous, lineage)
        sealed = wsclient.seal(self._keys, sequence, contents)
        pushed, self.pushed_at_s = self._wallet, time.perf_counter()
        state = await self._session.push(sequence, sealed)
        self._base = pushed
        await self._move_to(state, lineage)
        self._note(f"pushed sequence {sequence}, it is on disk", "green")

    async def _take(self, state: WalletState, author: Device) -> None:
        assert self._keys is not None, "logged in before"
        contents = wsclient.open_sealed(self._keys, state.sequence, state.encrypted_wallet)
        theirs = contents.wallet.decode()
        self._colours = author._colours | self._colours
        self._wallet = merge_append_logs(self._base, self._wallet, theirs)
        self._base = theirs
        await self._move_to(state, dict(contents.devices))

    async def _move_to(self, state: WalletState, lineage: dict[str, int]) -> None:
        self._lineage, self._previous = lineage, state.hmac
        if self._stage.stored is None or state.sequence > self._stage.stored.sequence:
            self._stage.stored = state
        async with self._moved:
            self._sequence = state.sequence
            self._moved.notify_all()
        self._stage.refresh()

    def _note(self, line: str, style: str) -> None:
        self._log.append((line, style))
        self._stage.refresh(f"  {self.name:<7}{line}")

    def describe_wallet(self) -> str:
        """The entries of the wallet, in plain text."""
        return ", ".join(self._wallet.split(SEPARATOR)[1:])

    def render(self) -> Panel:
        """The device as a panel: its entries, and what happened last."""
        wallet = Text("", no_wrap=False)
        pushed = len(self._base.split(SEPARATOR))
        for number, entry in enumerate(self._wallet.split(SEPARATOR)[1:], start=1):
            colour = self._colours.get(entry, "white")
            wallet.append(entry, style=f"bold {colour}" if number < pushed else f"italic {colour}")
            wallet.append("  " if number < pushed else "*  ", style=colour)
        log = Text("\n").join(Text(f"· {line}", style=style) for line, style in self._log)
        return Panel(
            Group(wallet, Text(""), log),
            title=f"[bold]{self.name}[/]",
            subtitle=f"sequence {self._sequence}" if self._sequence else None,
            border_style=self.colour,
            height=LOG_LINES + 5,
        )


async def play(stage: Stage, url: str) -> None:
    """The whole demonstration, against the server at ``url``."""
    stage.address = url.removeprefix("ws://").removesuffix("/v1")
    async with contextlib.AsyncExitStack() as stack:
        laptop, phone = stage.devices = [
            Device(
                stage,
                name,
                colour,
                await stack.enter_async_context(Session(url, deliver="state")),
            )
            for name, colour in (("laptop", "blue"), ("phone", "magenta"))
        ]
        registrar = await stack.enter_async_context(Session(url))
        await stage.tell("A server on a free port, and two devices of one account.")

        await asyncio.gather(
            stage.tell(
                "They register and log in with a root password. It never leaves them: the server "
                "gets a password derived from it."
            ),
            begin(registrar, laptop, phone),
        )
        async with asyncio.TaskGroup() as group:
            listeners = [
                group.create_task(laptop.listen(phone)),
                group.create_task(phone.listen(laptop)),
            ]
            await play_wallets(stage, laptop, phone)
            for listener in listeners:
                listener.cancel()


async def begin(registrar: Session, laptop: Device, phone: Device) -> None:
    """An account, and both devices logged in to it."""
    root_password = secrets.token_urlsafe(12)
    await wsclient.register(registrar, EMAIL, root_password)
    await asyncio.gather(laptop.log_in(root_password), phone.log_in(root_password))


async def play_wallets(stage: Stage, laptop: Device, phone: Device) -> None:
    """What happens to the wallets, once both devices are logged in."""
    await stage.tell("The laptop seals its first wallet and pushes it. The phone hears at once.")
    await laptop.change("coffee")
    await laptop.push(phone)
    await phone.wait_for(1)

    await stage.tell("The phone adds something, and now the laptop hears.")
    await phone.change("salary")
    await phone.push(laptop)
    await laptop.wait_for(2)

    await stage.tell("Both change their wallet, and neither has seen the other's change.")
    await laptop.change("books")
    await phone.change("rent")

    await stage.tell(
        "Both push at once. One comes too late, gets the latest wallet in the same answer, merges, "
        "and pushes again."
    )
    await asyncio.gather(laptop.push(phone), phone.push(laptop))
    await asyncio.gather(laptop.wait_for(4), phone.wait_for(4))

    assert laptop.describe_wallet() == phone.describe_wallet(), "they converge"
    await stage.tell(
        "Both have the same wallet, and no change was lost. The server keeps it, "
        "and cannot read it."
    )
    await stage.tell(
        f"Both have: {laptop.describe_wallet()}. Now be two devices yourself: `make run`, then "
        "client/README.md."
    )


def show_plainly(stage: Stage, news: str) -> None:
    """Prints what is new, for an output that is no terminal."""
    if news:
        print(news, flush=True)


def perform(console: Console, url: str) -> Stage:
    """Plays on a terminal's second screen, or plainly and without pauses; gives the last scene."""
    if not console.is_terminal:
        stage = Stage(show_plainly, step_s=0)
        asyncio.run(play(stage, url))
        return stage
    with Live(console=console, screen=True, refresh_per_second=12) as live:
        stage = Stage(lambda stage, news: live.update(stage.render()), STEP_S)
        asyncio.run(play(stage, url))
    return stage


def save_picture(stage: Stage, path: Path) -> None:
    """Writes the stage as an SVG that needs nothing from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(stage.render())
    picture = console.export_svg(title="make demo")
    path.write_text(re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL))


def main() -> int:
    """The exit code: 0 after the whole demonstration, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also save the end as a picture")
    arguments = parser.parse_args()
    console = Console()
    # A shell that starts it in the background has it ignore Ctrl-C; it can still be told.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with console.status("starting a server"), contextlib.ExitStack() as running:
            url = running.enter_context(run_server())
            running = running.pop_all()
        with running:
            stage = perform(console, url)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    if console.is_terminal:
        console.print(stage.render())
    if arguments.svg is not None:
        save_picture(stage, arguments.svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
