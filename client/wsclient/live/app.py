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
from textual.widgets import Footer

from wsclient.errors import StateRefused, WalletSyncError
from wsclient.live.asking import Conflict, HandMerge, PasswordOnScreen, Side
from wsclient.live.dialogs import Dialog, Entry, PasswordDialog, QuestionDialog
from wsclient.live.difference import Difference
from wsclient.live.editing import (
    ask_for_addition,
    ask_for_deletion,
    ask_for_value,
    begin_sentence,
    name_place,
    relocate,
    shorten,
)
from wsclient.live.merge_dialog import MergeDialog
from wsclient.live.panes import DeviceList, EventLog, Standing, StatusBar, name_device
from wsclient.live.reading import (
    Form,
    Path,
    Reading,
    find,
    insert,
    read,
    remove,
    replace,
    show_json,
)
from wsclient.live.themes import DARK, LIGHT
from wsclient.live.tree import WalletTree
from wsclient.merge.json_document import Json, is_same
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

GONE: Final = "It was removed on another device meanwhile, so nothing was changed."
PASSWORD_TEXTS: Final = {
    "changed_elsewhere": (
        "The root password was changed on another device, or it was not right. "
        "Your wallet here is untouched."
    ),
    "sealed_before": "What is on this device's disk was sealed under an earlier root password.",
}
RECOVERY_TEXT: Final = (
    "{error}.\n\n"
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
                self.notify(str(event.error), severity="error", markup=False)
            case DeviceUpdated():
                self._take_in_device(event.device)
            case Restored():
                self._tell("the server was restored from a backup: merged anew", "$text-warning")
            case PasswordNeeded():
                self._tell("the root password is asked for", "$text-warning")
            case Stopped():
                self._cause = str(event.error)
                self._tell(f"stopped: {event.error}", "$text-error")
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
            self._edit(self.wallet_tree.reading, self.wallet_tree.selected)

    @work
    async def _edit(self, reading: Reading, path: Path) -> None:
        entry: Entry | None = None
        remark = ""
        while True:
            typed = None if entry is None else entry.typed
            entry = await self._question(ask_for_value(reading, path, typed, remark))
            if entry is None:
                return
            now = read(self.wallet.value)
            place = relocate(reading, path, now)
            if place is None:
                self.notify(GONE, severity="warning")
                return
            value = find(now.value, place)
            if is_same(value, find(reading.value, path)):
                await self._change(now, replace(now.value, place, entry.value))
                return
            reading, path = now, place
            remark = f"Changed on another device meanwhile, to {shorten(show_json(value))}"

    def action_add(self) -> None:
        """Asks for an entry or a member, for the selected container or the one around."""
        tree = self.wallet_tree
        path, index = tree.selected, None
        if not isinstance(find(tree.reading.value, path), (dict, list)):
            if not path:
                self.notify("Nothing can be added to a single value.", severity="warning")
                return
            *outer, step = path
            path, index = tuple(outer), step + 1 if isinstance(step, int) else None
        self._add(tree.reading, path, index)

    @work
    async def _add(self, reading: Reading, path: Path, index: int | None) -> None:
        entry: Entry | None = None
        remark = ""
        while True:
            entry = await self._question(ask_for_addition(reading, path, entry, remark))
            if entry is None:
                return
            now = read(self.wallet.value)
            place = relocate(reading, path, now)
            container = None if place is None else find(now.value, place)
            if place is None or type(container) is not type(find(reading.value, path)):
                self.notify(GONE, severity="warning")
                return
            if isinstance(container, list):
                at = len(container) if index is None else min(index, len(container))
                await self._change(now, insert(now.value, (*place, at), entry.value))
                return
            assert isinstance(container, dict)
            if entry.name not in container:
                await self._change(now, replace(now.value, (*place, entry.name), entry.value))
                return
            reading, path = now, place
            remark = "Another device has added a member of that name meanwhile."

    def action_delete(self) -> None:
        """Asks whether the selected value is to go."""
        if self.wallet_tree.selected:
            self._delete(self.wallet_tree.reading, self.wallet_tree.selected)

    @work
    async def _delete(self, reading: Reading, path: Path) -> None:
        if not await self._question(ask_for_deletion(reading, path)):
            return
        now = read(self.wallet.value)
        place = relocate(reading, path, now)
        if place is not None:
            await self._change(now, remove(now.value, place))

    async def _change(self, reading: Reading, value: Json) -> None:
        """Changes the wallet, which ``reading`` was read from in this turn of the event loop."""
        try:
            await self.wallet.change(reading.write(value))
        except OSError as error:
            self.notify(f"not kept on this device: {error}", severity="error", markup=False)
            return
        self._show_value()
        # A person has finished something: it is not held back to be gathered with more.
        self._sync(self.wallet.sync, "")

    def action_push(self) -> None:
        """Brings what is here to the server now."""
        self._sync(self.wallet.sync, "Everything is on the server.")

    def action_pull(self) -> None:
        """Brings what the server has here now."""
        self._sync(self.wallet.pull, "What the server has is here.")

    @work(exclusive=True, group="sync")
    async def _sync(self, sync: Callable[[float], Awaitable[None]], done: str) -> None:
        try:
            await sync(SYNC_TIMEOUT_S)
        except TimeoutError:
            if done:
                self.notify("Not yet: it goes on by itself once the server answers.")
        except Exception as error:  # a sync may stop with whatever a merge raised
            if done:
                self.notify(str(error), severity="error", markup=False)
        else:
            if done:
                self.notify(done)
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
                RECOVERY_TEXT.format(error=begin_sentence(str(error))),
                yes="Believe the server",
                no="Stay stopped",
            )
            if not await self._question(question):
                return
        await self.wallet.recover()
        self._show_standing()

    def action_theme(self) -> None:
        """Turns light into dark, or dark into light."""
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name

    async def _question(self, dialog: Dialog[T]) -> T | None:
        """What is answered; for workers of the app."""
        async with self._desk:
            return await self.push_screen_wait(dialog)

    # What the sync asks, in tasks of its own.

    async def _ask_sides(self, conflicts: Sequence[Conflict]) -> Sequence[Side] | None:
        return await self._ask(MergeDialog(conflicts))

    async def _ask_root_password(self, needed: PasswordNeeded) -> str | None:
        return await self._ask(PasswordDialog("Root password", PASSWORD_TEXTS[needed.reason]))

    async def _ask(self, dialog: Dialog[T]) -> T | None:
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
                if answer.cancelled():  # the sync has no use for it any more
                    self.call_later(withdraw)
