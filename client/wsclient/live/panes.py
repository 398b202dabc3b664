"""What is around the tree: how the sync stands, who has what, and what has happened."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from wsclient.live.reading import printable
from wsclient.live.themes import QUIET
from wsclient.wallet_events import Status
from wsschema.messages import Device

EVENTS_MAX: Final = 200
"""Events that stay to be read."""

STATUS_STYLES: Final = {
    Status.CONNECTING: "$text-warning",
    Status.SYNCING: "$text-primary",
    Status.SYNCED: "$text-success",
    Status.OFFLINE: "$text-warning",
    Status.STOPPED: "$text-error",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How the sync of a wallet stands, at a moment."""

    status: Status
    sequence: int
    unsynced: bool
    round_trip_s: float | None = None
    by_hand: bool = False
    cause: str | None = None
    """Why it is offline, or has stopped."""
    retry_s: int | None = None
    """When the next attempt is made."""


class StatusBar(Static):
    """Whose wallet it is, how its sync stands, and what is wrong where something is."""

    DEFAULT_CSS = """
    StatusBar { padding: 0 1; background: $panel; }
    """

    def __init__(self, names: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._names = [printable(name) for name in names if name]
        self._standing: Standing | None = None

    def show(self, standing: Standing) -> None:
        """Shows how it stands now."""
        if standing == self._standing:
            return
        self._standing = standing
        style = STATUS_STYLES[standing.status]
        again = "" if standing.retry_s is None else f", next try in {standing.retry_s:,} s"
        parts = [
            Content.assemble(
                ("● ", style), (standing.status.value, f"bold {style}"), (again, style)
            )
        ]
        parts.append(
            Content.assemble(("sequence ", QUIET), f"{standing.sequence:,}")
            if standing.sequence
            else Content.styled("nothing on the server", QUIET)
        )
        if standing.unsynced:
            parts.append(Content.styled("✎ unsynced changes", "$text-warning"))
        if standing.round_trip_s is not None:
            parts.append(Content.styled(f"⇄ {standing.round_trip_s * 1000:,.1f} ms", QUIET))
        if standing.by_hand:
            parts.append(Content.styled("merging by hand", "$text-accent"))
        lines = [
            Content.styled(" · ", QUIET).join(
                Content.styled(name, "bold" if number == 0 else QUIET)
                for number, name in enumerate(self._names)
            ),
            Content("   ").join(parts),
        ]
        if standing.cause is not None:
            lines.append(Content.styled(printable(standing.cause), style))
        self.update(Content("\n").join(lines))


class EventLog(VerticalScroll):
    """What has happened, the newest first."""

    DEFAULT_CSS = """
    EventLog { scrollbar-size-vertical: 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: deque[Content] = deque(maxlen=EVENTS_MAX)
        self._text = Static()

    def on_mount(self) -> None:
        self.mount(self._text)

    @property
    def plain_lines(self) -> list[str]:
        """What is in it, the newest first."""
        return [line.plain for line in self._lines]

    def add(self, time_text: str, text: str, style: str = "") -> None:
        """Adds an event with its time."""
        self._lines.appendleft(Content.assemble((f"{time_text} ", QUIET), (printable(text), style)))
        self._text.update(Content("\n").join(self._lines))


class DeviceList(VerticalScroll):
    """The devices of the account: who is online, and what each has applied."""

    DEFAULT_CSS = """
    DeviceList { scrollbar-size-vertical: 1; }
    DeviceList Static { text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text = Static()

    def on_mount(self) -> None:
        self.mount(self._text)

    def show(self, devices: Iterable[Device], own_id: str, sequence: int) -> None:
        """Shows the devices; ``sequence`` is the newest known state."""
        ordered = sorted(
            devices,
            key=lambda device: (device.device_id != own_id, not device.online, name_device(device)),
        )
        name_cells = max(
            (Content(name_device(device)).cell_length for device in ordered), default=0
        )
        lines = [_draw_device(device, own_id, sequence, name_cells) for device in ordered]
        self._text.update(Content("\n").join(lines) if lines else Content("none known yet"))


def tell_error(error: Exception) -> str:
    """What the error says, or else what it is."""
    return printable(str(error)) or type(error).__name__


def name_device(device: Device) -> str:
    """What to call a device: its name, else the beginning of its id."""
    return printable(device.name or device.device_id[:8])


def _draw_device(device: Device, own_id: str, sequence: int, name_cells: int) -> Content:
    name = Content.styled(name_device(device), "bold" if device.online else QUIET)
    if device.device_id == own_id:
        remark = "this one"
    else:
        remark = "" if device.online else tell_ago(device.last_seen_at)
    return Content.assemble(
        ("● ", "$text-success") if device.online else ("○ ", QUIET),
        name.pad_right(name_cells - name.cell_length),
        "  ",
        *_draw_applied(device.applied_sequence, sequence),
        (f"  {remark}", QUIET),
    )


def _draw_applied(applied: int, sequence: int) -> list[tuple[str, str]]:
    if not applied:
        return [("nothing yet", QUIET)]
    if applied >= sequence:
        return [(f"✓ {applied:,}", "$text-success")]
    return [(f"{applied:,}", "$text-warning"), (f" {sequence - applied:,} behind", QUIET)]


def tell_ago(time: datetime) -> str:
    """How long ago that was, in the largest unit."""
    seconds = max(0, int((datetime.now(UTC) - time).total_seconds()))
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= unit_s:
            return f"{seconds // unit_s:,} {unit} ago"
    return "just now"
