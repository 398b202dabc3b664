"""The tree on the screen: its cursor, what is folded, and what glows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

from textual.app import App, ComposeResult
from textual.pilot import Pilot

from tests.live.stage import lines_of
from wsclient.live.reading import read
from wsclient.live.themes import DARK
from wsclient.live.tree import FOLLOW_AFTER_S, GLOW_S, ROWS_OPEN_MAX, WalletTree
from wsclient.merge.json_document import Json

HEIGHT = 10


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Host(App[None]):
    """The tree alone."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.register_theme(DARK)
        self.theme = DARK.name
        self.clock = clock
        self.wallet_tree = WalletTree(clock=clock)

    def compose(self) -> ComposeResult:
        yield self.wallet_tree

    def show(self, value: Json, *, here: bool = False) -> None:
        self.wallet_tree.show(read(json.dumps(value).encode()), here=here)

    @property
    def lines(self) -> list[str]:
        return [line for line in lines_of(self) if line]

    @property
    def marked(self) -> list[str]:
        """The lines that glow."""
        return [line[1:] for line in self.lines if line.startswith("▌")]

    @property
    def selected(self) -> str:
        row = self.wallet_tree.cursor - self.wallet_tree.scroll_offset.y
        return lines_of(self)[row].lstrip(" ▌")


@contextlib.asynccontextmanager
async def open_tree(value: Json) -> AsyncIterator[tuple[Host, Pilot[None]]]:
    host = Host(Clock())
    async with host.run_test(size=(60, HEIGHT)) as pilot:
        host.show(value)
        await pilot.pause()
        yield host, pilot


async def test_the_first_wallet_does_not_glow() -> None:
    async with open_tree({"a": 1}) as (host, _):
        assert host.lines == [" wallet {1}", " └─╴ a: 1"]


async def test_what_changed_glows_ever_fainter_and_then_no_more() -> None:
    async with open_tree({"a": 1, "b": {"c": 1}}) as (host, pilot):
        host.show({"a": 2, "b": {"c": 1}})
        await pilot.pause()
        assert host.marked == ["├─╴ a: 2"]
        first = _background(host, 1)

        host.clock.now_s += GLOW_S / 2
        host.wallet_tree._fade()
        await pilot.pause()
        assert host.marked == ["├─╴ a: 2"]
        second = _background(host, 1)

        host.clock.now_s += GLOW_S
        host.wallet_tree._fade()
        await pilot.pause()
        assert host.marked == []
        assert len({first, second, _background(host, 1)}) == 3


async def test_the_glow_tells_here_from_elsewhere() -> None:
    async with open_tree([1]) as (host, pilot):
        host.show([2], here=False)
        await pilot.pause()
        elsewhere = _background(host, 1)
        host.show([3], here=True)
        await pilot.pause()
        assert _background(host, 1) != elsewhere


async def test_what_is_new_glows_with_all_that_is_in_it_and_a_removal_where_it_was() -> None:
    async with open_tree({"list": [1, 2]}) as (host, pilot):
        host.show({"list": [1, 2, {"x": 1, "y": 2}]})
        await pilot.pause()
        assert [line.split()[-2:] for line in host.marked] == [
            ["2", "{2}"],
            ["x:", "1"],
            ["y:", "2"],
        ]

        host.clock.now_s += 2 * GLOW_S
        host.wallet_tree._fade()
        host.show({"list": [1, 2]})
        await pilot.pause()
        assert host.marked == ["└─▾ list: [2]"]


async def test_a_change_in_a_folded_container_glows_on_its_row() -> None:
    async with open_tree({"list": [1, 2]}) as (host, pilot):
        await pilot.press("down", "space")
        host.show({"list": [1, 3]})
        await pilot.pause()
        assert host.marked == ["└─▸ list: [2] 1, 3"]


async def test_a_glow_goes_where_its_entry_goes() -> None:
    async with open_tree(["a", "b"]) as (host, pilot):
        host.show(["a", "B"])
        host.clock.now_s += GLOW_S / 2
        host.show(["new", "a", "B"])
        await pilot.pause()
        assert host.marked == ['├─╴ 0 "new"', '└─╴ 2 "B"']


async def test_the_cursor_stays_with_its_value() -> None:
    async with open_tree(["a", "b"]) as (host, pilot):
        await pilot.press("down", "down")
        assert host.selected == '└─╴ 1 "b"'
        host.show(["new", "a", "b"])
        await pilot.pause()
        assert host.selected == '└─╴ 2 "b"'


async def test_the_cursor_of_a_value_that_is_gone_is_on_what_it_was_in() -> None:
    async with open_tree({"x": {"a": 1, "b": 2}}) as (host, pilot):
        await pilot.press("end")
        host.show({"x": {"a": 1}})
        await pilot.pause()
        assert host.selected == "└─▾ x: {1}"


async def test_what_is_folded_stays_so_where_its_list_has_moved() -> None:
    async with open_tree([{"a": 1}, {"b": 1}]) as (host, pilot):
        await pilot.press("down", "down", "down", "space")
        assert host.selected == "└─▸ 1 {1} b: 1"
        host.show([{"new": 1}, {"a": 1}, {"b": 1}])
        await pilot.pause()
        assert host.selected == "└─▸ 2 {1} b: 1"


async def test_the_arrows_open_close_and_go_in_and_out() -> None:
    async with open_tree({"x": {"a": 1}}) as (host, pilot):
        await pilot.press("down", "right")
        assert host.selected == "└─╴ a: 1"
        await pilot.press("left")
        assert host.selected == "└─▾ x: {1}"
        await pilot.press("left")
        assert host.selected == "└─▸ x: {1} a: 1"
        await pilot.press("right")
        assert host.selected == "└─▾ x: {1}"
        await pilot.press("left", "left")
        assert host.selected == "wallet {1}"
        await pilot.press("up", "left", "pageup")
        assert host.selected == "wallet {1}"
        await pilot.press("end", "pagedown", "down")
        assert host.selected == "└─▸ x: {1} a: 1"


async def test_a_click_selects_and_another_opens() -> None:
    async with open_tree({"x": {"a": 1}}) as (host, pilot):
        await pilot.click(offset=(10, 1))
        assert host.selected == "└─▾ x: {1}"
        await pilot.click(offset=(10, 1))
        assert host.selected == "└─▸ x: {1} a: 1"


async def test_the_cursor_is_never_out_of_sight() -> None:
    async with open_tree(list(range(100))) as (host, pilot):
        await pilot.press("end")
        assert host.selected == "└─╴ 99 99"
        await pilot.press("home")
        assert host.selected == "wallet [100]"
        await pilot.press("pagedown")
        assert host.selected == "├─╴ 8 8"


async def test_a_change_out_of_sight_is_scrolled_to_unless_somebody_is_busy() -> None:
    value: list[Json] = list(range(100))
    async with open_tree(value) as (host, pilot):
        await pilot.press("down")
        value[70] = "busy"
        host.show(value)
        await pilot.pause()
        assert host.marked == []

        host.clock.now_s += FOLLOW_AFTER_S
        value[80] = "idle"
        host.show(value)
        await pilot.pause()
        assert host.marked == ['├─╴ 80 "idle"']
        assert host.wallet_tree.cursor == 1, "the cursor stays"


async def test_of_a_large_wallet_only_the_outer_containers_are_open() -> None:
    async with open_tree({"entries": [{"n": n} for n in range(ROWS_OPEN_MAX)]}) as (host, _):
        assert host.lines[1].startswith(" └─▸ entries: [200] {…}, {…}")
        assert len(host.wallet_tree.rows) == 2


async def test_a_long_value_ends_in_an_ellipsis_and_wide_characters_are_counted() -> None:
    async with open_tree({"a": "寿司" * 40}) as (host, _):
        (line,) = host.lines[1:]
        assert line.startswith(' └─╴ a: "寿司寿司')
        assert line.endswith("…")


def _background(host: Host, row: int) -> str:
    strip = host.screen._compositor.render_strips()[row]
    (colour,) = {
        segment.style.bgcolor.name
        for segment in strip
        if segment.style is not None and segment.style.bgcolor is not None
    }
    return colour
