"""Merging by hand: one conflict after the other, its sides next to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, get_args

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Label, Static

from wsclient.live.asking import Conflict, Side
from wsclient.live.dialogs import Dialog

SIDES: Final[tuple[Side, ...]] = get_args(Side)
TITLES: Final = {"base": "before", "mine": "mine, here", "theirs": "theirs, elsewhere"}
NO_BASE: Final = "(nothing that both share)"


class MergeDialog(Dialog[Sequence[Side] | None]):
    """Asks for the side to take of each conflict. Escape leaves all to the wallet's own merge."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "choose(-1)", "Left"),
        Binding("right", "choose(1)", "Right"),
        Binding("up,backspace", "back", "Back"),
        Binding("enter", "take", "Take"),
        Binding("pageup", "scroll(-1)", show=False),
        Binding("pagedown", "scroll(1)", show=False),
    ]
    DEFAULT_CSS = """
    MergeDialog {
        & > .box { width: 96%; max-width: 130; height: 80%; }
        & #place { margin: 0 0 1 0; height: auto; }
        & .side {
            width: 1fr;
            height: 1fr;
            padding: 0 1;
            border: round $foreground 30%;
            border-title-color: $quiet;
            scrollbar-size-vertical: 1;
            &.-chosen {
                border: heavy $success;
                border-title-color: $text-success;
                border-title-style: bold;
            }
        }
    }
    """

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        super().__init__()
        self._conflicts = conflicts
        self._sides: list[Side] = ["mine"] * len(conflicts)
        self._number = 0

    def compose(self) -> ComposeResult:
        box = Vertical(classes="box")
        box.border_title = "Changed here and elsewhere"
        box.border_subtitle = "← → choose · enter takes it · ↑ back · esc the wallet's own rule"
        with box:
            yield Label(id="place")
            with Horizontal():
                for side in SIDES:
                    with VerticalScroll(id=side, classes="side", can_focus=False) as pane:
                        pane.border_title = TITLES[side]
                        yield Static()

    def on_mount(self) -> None:
        self._show()

    def action_choose(self, steps: int) -> None:
        """Chooses the side that is as many steps to the right."""
        conflict = self._conflicts[self._number]
        choices = SIDES if conflict.base is not None else SIDES[1:]
        index = choices.index(self._sides[self._number]) + steps
        self._sides[self._number] = choices[max(0, min(len(choices) - 1, index))]
        self._mark()

    def action_back(self) -> None:
        """Goes back to the conflict before."""
        self._number = max(0, self._number - 1)
        self._show()

    def action_take(self) -> None:
        """Takes the chosen side and goes on to the next conflict; after the last, gives them."""
        self._number += 1
        if self._number < len(self._conflicts):
            self._show()
        else:
            self.dismiss(self._sides)

    def action_scroll(self, pages: int) -> None:
        """Scrolls all sides, so that they stay next to each other."""
        for pane in self.query(VerticalScroll):
            pane.scroll_relative(y=pages * max(1, pane.size.height - 1), animate=False)

    def on_click(self, event: events.Click) -> None:
        for pane in self.query(VerticalScroll):
            if pane.region.contains(*event.screen_offset):
                choice = SIDES[SIDES.index(pane.id)]
                if choice != "base" or self._conflicts[self._number].base is not None:
                    self._sides[self._number] = choice
                    self._mark()

    def _show(self) -> None:
        conflict = self._conflicts[self._number]
        count = f"{self._number + 1} of {len(self._conflicts)}  "
        self.query_one("#place", Label).update(
            Content.assemble((count, "$quiet"), (conflict.place, "bold"))
        )
        base_lines = set((conflict.base or "").split("\n"))
        for side in SIDES:
            text = getattr(conflict, side)
            shown = [
                Content.styled(line, "" if line in base_lines else "$text-warning")
                for line in (text or "").split("\n")
            ]
            pane = self.query_one(f"#{side} Static", Static)
            pane.update(NO_BASE if text is None else Content("\n").join(shown))
        self._mark()

    def _mark(self) -> None:
        for side in SIDES:
            chosen = side == self._sides[self._number]
            self.query_one(f"#{side}").set_class(chosen, "-chosen")
