"""The questions that the live view puts over the screen, and what each gives."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalGroup
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static, TextArea

from wsclient.live.reading import printable
from wsclient.merge.json_document import Json

T = TypeVar("T")


class Dialog(ModalScreen[T]):
    """A box over the screen. Escape gives None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel", priority=True)]
    DEFAULT_CSS = """
    Dialog {
        align: center middle;
        & > .box {
            width: 76;
            max-width: 96%;
            max-height: 96%;
            padding: 1 2;
            background: $surface;
            border: round $primary;
            border-title-color: $foreground;
            border-title-style: bold;
            border-subtitle-color: $quiet;
        }
        & Label { width: 1fr; }
        & .remark { margin: 0 0 1 0; color: $text-warning; }
        & .verdict { padding: 0 1; color: $quiet; }
        & .verdict.-bad { color: $text-error; }
        & Input, & TextArea { border: round $foreground 30%; background: $surface; }
        & Input:focus, & TextArea:focus { border: round $primary; }
        & Input > .input--placeholder { color: $quiet; }
        & TextArea { height: 12; }
        & TextArea > .text-area--gutter { color: $quiet; }
        & TextArea > .text-area--cursor-gutter { color: $foreground; }
    }
    """

    def action_leave(self) -> None:
        self.dismiss(None)


@dataclass(frozen=True, slots=True)
class Entry:
    """What was typed in: a value, and the name of a new member."""

    value: Json = field(repr=False)
    typed: str = field(repr=False)
    """What the value was typed as."""
    name: str = ""


class ValueDialog(Dialog[Entry | None]):
    """Asks for a value, and first for a name where it is to be a member.

    ``parse`` gives the value of what was typed, or raises ValueError with what is wrong with it.
    ``names_taken``: those the new member cannot have; None where it needs none. ``remark``: what is
    to be known first.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s", "save", "Save", priority=True)]

    def __init__(
        self,
        title: str,
        text: str,
        parse: Callable[[str], Json],
        *,
        lines: bool = False,
        name: str = "",
        names_taken: Container[str] | None = None,
        remark: str = "",
    ) -> None:
        super().__init__()
        self._heading, self._text, self._parse, self._has_lines = title, text, parse, lines
        self._new_name, self._names_taken, self._remark = name, names_taken, remark

    def compose(self) -> ComposeResult:
        box = VerticalGroup(classes="box")
        box.border_title = printable(self._heading).replace("[", r"\[")
        with box:
            if self._remark:
                yield Label(self._remark, classes="remark", markup=False)
            if self._names_taken is not None:
                yield Input(self._new_name, placeholder="name", id="name")
            if self._has_lines:
                box.border_subtitle = "ctrl+s saves · esc leaves it"
                yield TextArea(self._text, id="value", show_line_numbers=True)
            else:
                box.border_subtitle = "enter saves · esc leaves it"
                yield Input(self._text, id="value", select_on_focus=False)
            yield Static(id="verdict", classes="verdict", markup=False)

    def on_mount(self) -> None:
        if self._names_taken is None:
            self.query_one("#value").focus()
        field = self.query_one("#value")
        if isinstance(field, Input) and self._text.endswith('"'):
            field.cursor_position = len(self._text) - 1
        self._judge()

    @property
    def _typed(self) -> str:
        field = self.query_one("#value")
        assert isinstance(field, Input | TextArea)
        return field.value if isinstance(field, Input) else field.text

    @on(Input.Changed)
    @on(TextArea.Changed)
    def _judge(self) -> None:
        verdict = self.query_one("#verdict", Static)
        try:
            said, bad = _describe(self._read().value), False
        except ValueError as error:
            said, bad = printable(str(error)), True
        verdict.update(said)
        verdict.set_class(bad, "-bad")

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        if event.input.id == "name":
            self.query_one("#value").focus()
        else:
            self.action_save()

    def action_save(self) -> None:
        """Gives what was typed, once nothing is wrong with it."""
        try:
            self.dismiss(self._read())
        except ValueError:
            self.app.bell()

    def _read(self) -> Entry:
        name = ""
        if self._names_taken is not None:
            name = self.query_one("#name", Input).value
            if name in self._names_taken:
                raise ValueError(f"there is a member {printable(name)} already")
        return Entry(self._parse(self._typed), self._typed, name)


class PasswordDialog(Dialog[str | None]):
    """Asks for a root password."""

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._heading, self._text = title, text

    def compose(self) -> ComposeResult:
        box = VerticalGroup(classes="box")
        box.border_title = self._heading
        box.border_subtitle = "enter goes on · esc stops the sync"
        with box:
            yield Label(self._text, classes="remark", markup=False)
            yield Input(password=True, placeholder="root password")

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        if event.value:
            self.dismiss(event.value)
        else:
            self.app.bell()


class QuestionDialog(Dialog[bool | None]):
    """Asks whether to do something; ``yes`` and ``no`` say what each answer does."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n", "answer(False)", "No"),
        Binding("left,right", "app.focus_next", show=False),
    ]
    DEFAULT_CSS = """
    QuestionDialog {
        & .buttons { height: auto; margin: 1 0 0 0; align-horizontal: right; }
        & Button { margin: 0 0 0 2; }
    }
    """

    def __init__(self, title: str, text: str, *, yes: str, no: str) -> None:
        super().__init__()
        self._heading, self._text, self._yes, self._no = title, text, yes, no

    def compose(self) -> ComposeResult:
        box = VerticalGroup(classes="box")
        box.border_title = self._heading
        box.border_subtitle = "y yes · n no"
        with box:
            yield Label(self._text, markup=False)
            with Horizontal(classes="buttons"):
                yield Button(self._no, id="no")
                yield Button(self._yes, id="yes", variant="primary")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)

    @on(Button.Pressed)
    def _press(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


def _describe(value: Json) -> str:
    """What kind of value it is, in a word or two."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return f"a text of {len(value):,} characters"
        case list():
            return f"a list of {len(value):,}"
        case dict():
            return f"an object of {len(value):,}"
        case _:
            return "a number"
