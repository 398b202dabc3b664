"""The wallet as a tree on the screen, in which what just changed glows for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from wsclient.live.difference import Difference, compare
from wsclient.live.outline import Row, close_at_first, lay_out, preview
from wsclient.live.reading import (
    Form,
    Path,
    Reading,
    find,
    has_members,
    list_members,
    name_place,
    printable,
    read,
    show_json,
)
from wsclient.merge.json_document import Json

GLOW_S: Final = 2.0
"""How long a change glows, ever fainter."""
GLOW_STEP_S: Final = 0.1
GLOW_SHARE: Final = 0.3
"""How much of the background is the glow's colour at first; more, and the text is hard to read."""
FOLLOW_AFTER_S: Final = 5.0
"""A change that is out of sight is scrolled to, unless somebody was busy here as lately."""
ROWS_OPEN_MAX: Final = 200
"""Inner containers are closed at first in a wallet that has more rows."""


@dataclass(frozen=True, slots=True)
class Glow:
    """How a change shows: the class of its colour, when it ends, and whether on inner rows too."""

    component: str
    ends_at_s: float
    inner: bool


class WalletTree(ScrollView, can_focus=True):
    """Rows that are laid out when the wallet changes, and drawn when they are in sight."""

    class Entered(Message):
        """Enter was pressed on a value that holds no others."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "move_page(-1)", show=False),
        Binding("pagedown", "move_page(1)", show=False),
        Binding("home", "move_to(0)", show=False),
        Binding("end", "move_to(-1)", show=False),
        Binding("left", "close", show=False),
        Binding("right", "open", show=False),
        Binding("space", "fold", show=False),
        Binding("enter", "enter", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "wallet-tree--name",
        "wallet-tree--quiet",
        "wallet-tree--string",
        "wallet-tree--number",
        "wallet-tree--constant",
        "wallet-tree--cursor",
        "wallet-tree--here",
        "wallet-tree--elsewhere",
    }
    DEFAULT_CSS = """
    WalletTree {
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        & > .wallet-tree--name { color: $foreground; text-style: bold; }
        & > .wallet-tree--quiet { color: $quiet; }
        & > .wallet-tree--string { color: $text-success; }
        & > .wallet-tree--number { color: $text-warning; }
        & > .wallet-tree--constant { color: $text-primary; text-style: italic; }
        & > .wallet-tree--cursor {
            color: $block-cursor-blurred-foreground;
            background: $block-cursor-blurred-background;
        }
        &:focus > .wallet-tree--cursor {
            color: $block-cursor-foreground;
            background: $block-cursor-background;
        }
        & > .wallet-tree--here { color: $success; }
        & > .wallet-tree--elsewhere { color: $accent; }
    }
    """

    cursor = reactive(0)
    """The number of the selected row."""

    def __init__(
        self, *, id: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(id=id)
        self.reading = read(None)
        self.rows = lay_out(self.reading.value, frozenset())
        self._clock = clock
        self._folded: set[Path] = set()
        self._row_numbers: dict[Path, int] = {(): 0}
        self._glows: dict[Path, Glow] = {}
        self._glowing_rows: dict[int, Glow] = {}
        self._busy_at_s = -FOLLOW_AFTER_S

    def on_mount(self) -> None:
        self._fading = self.set_interval(GLOW_STEP_S, self._fade, pause=True)

    # What is shown.

    @property
    def selected(self) -> Path:
        """Where the value under the cursor is."""
        return self.rows[self.cursor].path

    @property
    def glowing(self) -> frozenset[Path]:
        """What changed a moment ago."""
        return frozenset(self._glows)

    def show(self, reading: Reading, *, here: bool) -> Difference:
        """Shows another wallet, lets what is another in it glow, and gives the difference.

        ``here`` tells whether it was changed on this device. The cursor, and what is closed, stay
        with the values where they were.
        """
        before, selected = self.reading, self.selected
        self.reading = reading
        difference = compare(before.value, reading.value)
        if before.form is not reading.form:
            self._folded = close_at_first(reading.value, ROWS_OPEN_MAX)
            self._glows.clear()
            self._lay_out()
            self._select(())
            return difference
        if difference.shifts:
            self._move(difference)
        ends_at_s = self._clock() + GLOW_S
        colour = "wallet-tree--here" if here else "wallet-tree--elsewhere"
        self._glows |= dict.fromkeys(difference.thinned, Glow(colour, ends_at_s, inner=False))
        self._glows |= dict.fromkeys(difference.changed, Glow(colour, ends_at_s, inner=True))
        if difference.same_shape:
            self._place_glows()
            self.refresh()
        else:
            self._lay_out()
            self._select(difference.follow(selected) or selected)
        self._fading.resume()
        if not here and self._clock() - self._busy_at_s >= FOLLOW_AFTER_S:
            self._follow(difference)
        return difference

    def _move(self, difference: Difference) -> None:
        """Takes what is closed, and what glows, to where it is now."""
        self._folded = {
            moved for path in self._folded if (moved := difference.follow(path)) is not None
        }
        self._glows = {
            moved: glow
            for path, glow in self._glows.items()
            if (moved := difference.follow(path)) is not None
        }

    def _get_value(self, path: Path) -> Json:
        return find(self.reading.value, path)

    def _lay_out(self) -> None:
        self.rows = lay_out(self.reading.value, self._folded)
        self._row_numbers = {row.path: number for number, row in enumerate(self.rows)}
        self.virtual_size = Size(0, len(self.rows))
        self._place_glows()
        self.refresh()

    def _place_glows(self) -> None:
        self._glowing_rows = {}
        for path, glow in self._glows.items():
            number = self._find_row(path)
            self._glowing_rows[number] = glow
            while glow.inner and number + 1 < len(self.rows):
                number += 1
                if self.rows[number].path[: len(path)] != path:
                    break
                self._glowing_rows[number] = glow

    def _select(self, path: Path) -> None:
        """Puts the cursor on the path, or on what is around it where it cannot be seen."""
        self.cursor = self._find_row(path)
        self._reveal(self.cursor)
        self._show_place()

    def _find_row(self, path: Path) -> int:
        while path not in self._row_numbers:
            path = path[:-1]
        return self._row_numbers[path]

    def _follow(self, difference: Difference) -> None:
        changed = difference.changed or difference.thinned
        numbers = [self._find_row(path) for path in changed]
        first, end = self.scroll_offset.y, self.scroll_offset.y + self.size.height
        if numbers and not any(first <= number < end for number in numbers):
            self.scroll_to(y=min(numbers) - self.size.height // 3, animate=False)

    def _fade(self) -> None:
        now_s = self._clock()
        first = self.scroll_offset.y
        for number in range(first, first + self.size.height):
            if number in self._glowing_rows:
                self.refresh_line(number)
        self._glows = {path: glow for path, glow in self._glows.items() if glow.ends_at_s > now_s}
        self._place_glows()
        if not self._glows:
            self._fading.pause()

    # What the keys and the mouse do.

    def watch_cursor(self, old: int, new: int) -> None:
        self.refresh_line(old)
        self.refresh_line(new)
        self._show_place()

    def _show_place(self) -> None:
        self.border_subtitle = name_place(self.reading, self.selected).replace("[", r"\[")

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent):
            self._busy_at_s = self._clock()
        await super().on_event(event)

    def action_move(self, rows: int) -> None:
        """Moves the cursor down by that many rows."""
        self.cursor = max(0, min(len(self.rows) - 1, self.cursor + rows))
        self._reveal(self.cursor)

    def action_move_page(self, pages: int) -> None:
        """Moves the cursor down by that many screens."""
        self.action_move(pages * max(1, self.size.height - 1))

    def action_move_to(self, number: int) -> None:
        """Moves the cursor to the first row, or the last."""
        self.cursor = number % len(self.rows)
        self._reveal(self.cursor)

    def action_open(self) -> None:
        """Opens the selected container; goes into one that is open."""
        if self.selected in self._folded:
            self.action_fold()
        elif has_members(self._get_value(self.selected)):
            self.action_move(1)

    def action_close(self) -> None:
        """Closes the selected container; goes out of what is none, or is closed."""
        if self.selected and self.rows[self.cursor].open:
            self.action_fold()
        else:
            self._select(self.selected[:-1])

    def action_fold(self) -> None:
        """Opens the selected container, or closes it."""
        if self.selected and has_members(self._get_value(self.selected)):
            self._folded ^= {self.selected}
            self._lay_out()

    def action_enter(self) -> None:
        """Opens or closes a container; tells of anything else."""
        if has_members(self._get_value(self.selected)):
            self.action_fold()
        else:
            self.post_message(self.Entered())

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        number = len(self.rows) if offset is None else offset.y + self.scroll_offset.y
        if number < len(self.rows):
            again = number == self.cursor
            self.cursor = number
            if again:
                self.action_enter()

    def _reveal(self, number: int) -> None:
        height = self.size.height
        if number < self.scroll_offset.y:
            self.scroll_to(y=number, animate=False)
        elif number >= self.scroll_offset.y + height:
            self.scroll_to(y=number - height + 1, animate=False)

    # How it is drawn.

    def render_line(self, y: int) -> Strip:
        """Draws the row that is at line ``y`` of what is in sight."""
        width, number = self.size.width, y + self.scroll_offset.y
        background = Style.from_color(bgcolor=self.background_colors[1].rich_color)
        if number >= len(self.rows):
            return Strip.blank(width, background)
        row = self.rows[number]
        segments = [Segment(" "), *self._draw_label(row)]
        glow = self._glowing_rows.get(number)
        if glow is not None:
            segments[0] = Segment("▌", self._style(glow.component))
            background = self._blend(glow)
        strip = Strip(segments)
        if strip.cell_length > width:
            ellipsis = Segment("…", self._style("wallet-tree--quiet"))
            strip = Strip([*strip.crop(0, width - 1), ellipsis])
        strip = strip.extend_cell_length(width).simplify()
        if number == self.cursor:
            cursor = self.get_component_rich_style("wallet-tree--cursor")
            strip = Strip([segments[0], Segment(strip.text[1:], cursor)])
        return strip.apply_style(background)

    def _blend(self, glow: Glow) -> Style:
        left = max(0.0, glow.ends_at_s - self._clock()) / GLOW_S
        colour = self.get_component_styles(glow.component).color
        blended = self.background_colors[1].blend(colour, GLOW_SHARE * left)
        return Style.from_color(bgcolor=blended.rich_color)

    def _draw_label(self, row: Row) -> list[Segment]:
        quiet = self._style("wallet-tree--quiet")
        if not row.path:
            return self._draw_root()
        step, value = row.path[-1], self._get_value(row.path)
        if self.reading.form in (Form.TEXT, Form.BINARY):
            text = printable(str(value).expandtabs(4))
            return [Segment(f"{int(step) + 1:>5} ", quiet), Segment(text)]
        segments = [Segment(row.branches, quiet)]
        segments.append(Segment("▾ " if row.open else "▸ " if has_members(value) else "╴ ", quiet))
        if isinstance(step, str):
            segments.append(Segment(printable(step), self._style("wallet-tree--name")))
            segments.append(Segment(": ", quiet))
        else:
            segments.append(Segment(f"{step} ", quiet))
        return segments + self._draw_value(value, is_open=row.open)

    def _draw_root(self) -> list[Segment]:
        name, quiet = self._style("wallet-tree--name"), self._style("wallet-tree--quiet")
        match self.reading.form:
            case Form.EMPTY:
                return [Segment("no wallet yet", name), Segment("  a adds its first entry", quiet)]
            case Form.JSON:
                return [
                    Segment("wallet ", name),
                    *self._draw_value(self.reading.value, is_open=True),
                ]
            case Form.TEXT | Form.BINARY:
                lines = f"{len(list_members(self.reading.value)):,} lines"
                return [Segment(f"{self.reading.form.value} ", name), Segment(lines, quiet)]

    def _draw_value(self, value: Json, *, is_open: bool) -> list[Segment]:
        quiet = self._style("wallet-tree--quiet")
        if isinstance(value, (dict, list)):
            marks = "{}" if isinstance(value, dict) else "[]"
            if not value:
                return [Segment(marks, quiet)]
            count = f"{marks[0]}{len(value):,}{marks[1]}"
            return [Segment(count if is_open else f"{count} {preview(value)}", quiet)]
        return [Segment(show_json(value), self._style(f"wallet-tree--{_name_type(value)}"))]

    def _style(self, component: str) -> Style:
        return self.get_component_rich_style(component, partial=True)


def _name_type(value: Json) -> str:
    if isinstance(value, str):
        return "string"
    return "constant" if value is None or isinstance(value, bool) else "number"
