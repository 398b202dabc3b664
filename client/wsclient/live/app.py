"""The live view of a wallet that is in sync: what it shows, and what its keys do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace as replace_fields
from typing import Any, ClassVar, Final, TypeVar, assert_never

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.notifications import SeverityLevel
from textual.widgets import Footer

from wsclient.errors import StateRefused, WalletSyncError
from wsclient.live.asking import Conflict, HandMerge, PasswordOnScreen, Side
from wsclient.live.dialogs import Dialog, PasswordDialog, QuestionDialog
from wsclient.live.difference import Difference
from wsclient.live.editing import Editor
from wsclient.live.merge_dialog import MergeDialog
from wsclient.live.panes import (
    DeviceList,
    EventLog,
    Standing,
    StatusBar,
    name_device,
    tell_error,
)
from wsclient.live.reading import Form, Path, Reading, name_place, printable, read
from wsclient.live.themes import DARK, LIGHT
from wsclient.live.tree import WalletTree
from wsclient.wallet import SyncedWallet
from wsclient.wallet_events import (
    ConflictMerged,
    DeviceUpdated,
    PasswordNeeded,
    Pushed,
    PushRefused,
    Restored,
    Status,
    StatusChanged,
    Stopped,
    ValueChanged,
    WalletEvent,
)
from wsschema.messages import Device

T = TypeVar("T")

TICK_S: Final = 1.0
"""How often the countdown to the next attempt goes on."""
PING_INTERVAL_S: Final = 5.0
"""How often the round trip is measured."""
SYNC_TIMEOUT_S: Final = 10.0
"""How long a key waits for the server; past that the sync goes on by itself."""
WIDTHS: Final = [(110, "-wide")]
"""The class of the screen from so many columns on."""

PASSWORD_TEXTS: Final = {
    "changed_elsewhere": (
        "The root password was changed on another device, or it was not right. "
        "Your wallet here is untouched."
    ),
    "sealed_before": "What is on this device's disk was sealed under an earlier root password.",
}
RECOVERY_TEXT: Final = (
    "The server was not believed: {error}.\n\n"
    "A server that was set back in time, or that lies, looks like this. Nothing here was changed, "
    "and nothing is sent.\n\n"
    "If you go on, what the server has now is believed, and merged with what is here as if they "
    "shared nothing: what was deleted may come back."
)


class LiveApp(App[None]):
    """The screen around one wallet. `run_live` runs it."""

    TITLE = "wsclient live"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = WIDTHS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "edit", "Edit"),
        Binding("a", "add", "Add"),
        Binding("d,delete", "delete", "Delete"),
        Binding("p", "push", "Push"),
        Binding("l", "pull", "Pull"),
        Binding("m", "by_hand", "By hand"),
        Binding("r", "recover", "Go on"),
        Binding("t", "theme", "Theme"),
        Binding("q,ctrl+c", "quit", "Quit"),
    ]
    CSS = """
    #panes { layout: grid; grid-size: 2 2; grid-columns: 1fr 1fr; grid-rows: 1fr 8; }
    #wallet { column-span: 2; }
    #wallet, #devices, #events {
        border: round $foreground 30%;
        border-title-color: $foreground;
        border-title-style: bold;
        border-subtitle-color: $quiet;
        &:focus { border: round $primary; }
    }
    #devices, #events { padding: 0 1; }
    .-wide #panes { grid-columns: 3fr 2fr; grid-rows: auto 1fr; }
    .-wide #wallet { column-span: 1; row-span: 2; }
    .-wide #devices { height: auto; max-height: 16; }
    """

    def __init__(
        self,
        wallet: SyncedWallet,
        *,
        merge: HandMerge | None = None,
        ask_password: PasswordOnScreen | None = None,
        profile: str = "",
        address: str = "",
        clock: Callable[[], str] = lambda: time.strftime("%H:%M:%S"),
    ) -> None:
        super().__init__()
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name
        self.wallet = wallet
        self.wallet_tree = WalletTree(id="wallet")
        self.device_list = DeviceList(id="devices")
        self.event_log = EventLog(id="events")
        self.status_bar = StatusBar((profile, wallet.email, address), id="status")
        self._editor = Editor(wallet, self._ask, self._say)
        self._task_factory = asyncio.get_running_loop().get_task_factory()
        self._hand_merge = merge
        self._ask_password = ask_password
        self._clock = clock
        self._shown: bytes | None = None
        self._devices: dict[str, Device] = {}
        self._is_online = False
        self._cause: str | None = None
        """Why it is offline, or has stopped; stays until it is online again."""
        self._retry_at_s: float | None = None
        self._enabled: tuple[bool, bool] | None = None
        """What the keys that can be used hang on, as of the last time that they were shown."""
        self._desk = asyncio.Lock()
        """One question at a time: what is typed is for the one that it was begun for."""
        self._answers: set[asyncio.Future[Any]] = set()

    def compose(self) -> ComposeResult:
        yield self.status_bar
        with Container(id="panes"):
            yield self.wallet_tree
            yield self.device_list
            yield self.event_log
        yield Footer()

    def on_load(self) -> None:
        # From Python 3.12 on, Textual has every task of the loop begin at once, the wallet's too.
        asyncio.get_running_loop().set_task_factory(self._task_factory)

    def on_mount(self) -> None:
        self.wallet_tree.border_title = "Wallet"
        self.device_list.border_title = "Devices"
        self.event_log.border_title = "Events"
        if self._hand_merge is not None:
            self._hand_merge.ask = self._ask_sides
        if self._ask_password is not None:
            self._ask_password.ask = self._ask_root_password
        # The reader first: what changes from here on is told.
        self.run_worker(self._follow(self.wallet.events()), group="events")
        self._show_value()
        self._fetch_devices()
        self.set_interval(TICK_S, self._show_standing)
        self.set_interval(PING_INTERVAL_S, self._ping)
        if self.wallet.stopped is not None:
            self._take_in(Stopped(self.wallet.stopped))

    def on_unmount(self) -> None:
        if self._hand_merge is not None:
            self._hand_merge.ask = None
        if self._ask_password is not None:
            self._ask_password.ask = None
        for answer in self._answers:
            if not answer.done():
                answer.set_result(None)

    # What is heard.

    async def _follow(self, events: AsyncIterator[WalletEvent]) -> None:
        async for event in events:
            self._take_in(event)

    def _take_in(self, event: WalletEvent) -> None:
        match event:
            case StatusChanged():
                self._take_in_status(event)
            case ValueChanged():
                self._note_applied(event.device_id, event.sequence)
                self._show_value(event.device_id)
            case ConflictMerged():
                self._tell(f"merged with sequence {event.sequence:,}", "$text-accent")
            case Pushed():
                self._tell(f"sequence {event.sequence:,} is on the server", "$text-success")
                self._show_devices()
            case PushRefused():
                self._tell(f"not taken by the server: {event.error}", "$text-error")
                self._say(tell_error(event.error), is_bad=True)
            case DeviceUpdated():
                self._take_in_device(event.device)
            case Restored():
                self._tell("the server was restored from a backup: merged anew", "$text-warning")
            case PasswordNeeded():
                self._tell("the root password is asked for", "$text-warning")
            case Stopped():
                self._cause = tell_error(event.error)
                self._tell(f"stopped: {self._cause}", "$text-error")
                if isinstance(event.error, StateRefused):
                    self.action_recover()
            case _:
                assert_never(event)
        self._show_standing()

    def _take_in_status(self, event: StatusChanged) -> None:
        self._retry_at_s = None if event.retry_s is None else time.monotonic() + event.retry_s
        is_online = event.status in (Status.SYNCING, Status.SYNCED)
        if event.status is Status.OFFLINE and event.cause not in (None, self._cause):
            self._tell(f"offline: {event.cause}", "$text-warning")
        if is_online or event.cause is not None:
            self._cause = event.cause
        if is_online is not self._is_online:
            self._is_online = is_online
            if is_online:
                self._tell("online", "$text-success")
            self._fetch_devices()

    def _take_in_device(self, device: Device) -> None:
        before = self._devices.get(device.device_id)
        self._devices[device.device_id] = device
        name = name_device(device)
        if before is None or before.online != device.online:
            self._tell(f"{name} {'came' if device.online else 'went'}")
        elif device.applied_sequence > before.applied_sequence:
            self._tell(f"{name} has sequence {device.applied_sequence:,}", "$quiet")
        self._show_devices()

    def _note_applied(self, device_id: str, sequence: int) -> None:
        device = self._devices.get(device_id)
        if device is not None and device.applied_sequence < sequence:
            self._devices[device_id] = replace_fields(device, applied_sequence=sequence)
            self._show_devices()

    # What is shown.

    def _say(self, text: str, *, is_bad: bool = False) -> None:
        severity: SeverityLevel = "error" if is_bad else "information"
        self.notify(printable(text), severity=severity, markup=False)

    def _tell(self, text: str, style: str = "") -> None:
        self.event_log.add(self._clock(), text, style)

    def _show_value(self, author_id: str | None = None) -> None:
        """Shows the wallet as it is now; ``author_id`` names the device that made it so."""
        value = self.wallet.value
        if value == self._shown:
            return
        here = author_id in (None, self.wallet.device_id)
        difference = self.wallet_tree.show(read(value), here=here)
        first, self._shown = self._shown is None, value
        if not first or author_id is not None:
            self._tell(
                f"{self._name_device(author_id)} changed {self._sum_up(difference)}",
                "" if here else "$text-accent",
            )
        self._show_keys()

    def _sum_up(self, difference: Difference) -> str:
        changed = difference.changed or difference.thinned
        places = [name_place(self.wallet_tree.reading, path) for path in changed[:2]]
        more = f" and {len(changed) - 2:,} more" if len(changed) > 2 else ""
        return f"{', '.join(places)}{more}"

    def _name_device(self, device_id: str | None) -> str:
        if device_id in (None, self.wallet.device_id):
            return "you"
        device = self._devices.get(device_id or "")
        return name_device(device) if device is not None else f"{device_id}"[:8]

    def _show_keys(self) -> None:
        """Shows the keys anew where others can be used than before."""
        enabled = (self.wallet_tree.reading.form is Form.BINARY, self.wallet.stopped is None)
        if enabled != self._enabled:
            self._enabled = enabled
            self.refresh_bindings()

    def _show_standing(self) -> None:
        wallet = self.wallet
        retry_s = None
        if self._retry_at_s is not None:
            retry_s = max(0, round(self._retry_at_s - time.monotonic()))
        self._show_keys()
        self.status_bar.show(
            Standing(
                wallet.status,
                wallet.sequence,
                wallet.unsynced,
                wallet.round_trip_s if self._is_online else None,
                self._hand_merge is not None and self._hand_merge.by_hand,
                self._cause,
                retry_s,
            )
        )

    def _show_devices(self) -> None:
        wallet, devices = self.wallet, dict(self._devices)
        own = devices.get(wallet.device_id)
        if own is not None:
            devices[own.device_id] = replace_fields(
                own, online=self._is_online, applied_sequence=wallet.sequence
            )
        self.device_list.show(devices.values(), wallet.device_id, wallet.sequence)

    @work(exclusive=True, group="devices")
    async def _fetch_devices(self) -> None:
        with contextlib.suppress(WalletSyncError):
            devices = await self.wallet.devices()
            self._devices = {device.device_id: device for device in devices}
            self._show_devices()

    @work(exclusive=True, group="ping")
    async def _ping(self) -> None:
        if self.wallet.status is Status.SYNCED:
            with contextlib.suppress(WalletSyncError):
                await self.wallet.ping()
                self._show_standing()

    # What the keys do.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key does something now: True, False (it is hidden) or None (it is dimmed)."""
        match action:
            case "edit" | "add" | "delete" if self.wallet_tree.reading.form is Form.BINARY:
                return None
            case "by_hand":
                return self._hand_merge is not None
            case "recover":
                return self.wallet.stopped is not None
        return True

    @on(WalletTree.Entered)
    def action_edit(self) -> None:
        """Asks for another value in place of the selected one."""
        if self.wallet_tree.reading.form is not Form.BINARY:
            self._edit(self._editor.edit)

    def action_add(self) -> None:
        """Asks for an entry or a member, for the selected container or the one around."""
        self._edit(self._editor.add)

    def action_delete(self) -> None:
        """Asks whether the selected value is to go."""
        self._edit(self._editor.delete)

    @work
    async def _edit(self, edit: Callable[[Reading, Path], Awaitable[bool]]) -> None:
        if await edit(self.wallet_tree.reading, self.wallet_tree.selected):
            self._show_value()
            # A person has finished something: it is not held back to be gathered with more.
            self._sync(self.wallet.sync)

    def action_push(self) -> None:
        """Brings what is here to the server now."""
        self._sync(self.wallet.sync, "Everything is on the server.")

    def action_pull(self) -> None:
        """Brings what the server has here now."""
        self._sync(self.wallet.pull, "What the server has is here.")

    @work(exclusive=True, group="sync")
    async def _sync(self, sync: Callable[[float], Awaitable[None]], done: str = "") -> None:
        """Waits for a sync; says how it went where there is something to say when it is done."""
        try:
            await sync(SYNC_TIMEOUT_S)
        except TimeoutError:
            said, is_bad = "Not yet: it goes on by itself once the server answers.", False
        except Exception as error:  # a sync may stop with whatever a merge raised
            said, is_bad = tell_error(error), True
        else:
            said, is_bad = done, False
        if done:
            self._say(said, is_bad=is_bad)
            self._fetch_devices()
        self._show_standing()

    def action_by_hand(self) -> None:
        """From now on conflicts are merged by hand, or no more."""
        assert self._hand_merge is not None, "else the key does nothing"
        self._hand_merge.by_hand = not self._hand_merge.by_hand
        self._show_standing()

    @work(exclusive=True, group="recovery")
    async def action_recover(self) -> None:
        """Goes on after a stop; where the server may lie, only if that is wanted."""
        error = self.wallet.stopped
        if error is None:
            return
        if isinstance(error, StateRefused):
            question = QuestionDialog(
                "The sync has stopped",
                RECOVERY_TEXT.format(error=tell_error(error)),
                yes="Believe the server",
                no="Stay stopped",
            )
            if not await self._ask(question):
                return
        try:
            await self.wallet.recover()
        except OSError as error:
            self._say(tell_error(error), is_bad=True)
        self._show_standing()

    def action_theme(self) -> None:
        """Turns light into dark, or dark into light."""
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name

    # What is asked.

    async def _ask_sides(self, conflicts: Sequence[Conflict]) -> Sequence[Side] | None:
        return await self._ask(MergeDialog(conflicts))

    async def _ask_root_password(self, needed: PasswordNeeded) -> str | None:
        return await self._ask(PasswordDialog("Root password", PASSWORD_TEXTS[needed.reason]))

    async def _ask(self, dialog: Dialog[T]) -> T | None:
        """What is answered; for any task, also one that is none of the app's."""
        answer: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()

        def take(given: T | None) -> None:
            if not answer.done():
                answer.set_result(given)

        def withdraw() -> None:
            if dialog.is_current:
                dialog.dismiss(None)

        async with self._desk:
            if not self.is_running:
                return None
            self._answers.add(answer)
            # Not here: a screen belongs to the app's own task.
            self.call_later(self.push_screen, dialog, take)
            try:
                return await answer
            finally:
                self._answers.discard(answer)
                if answer.cancelled():  # nobody has a use for it any more
                    self.call_later(withdraw)
