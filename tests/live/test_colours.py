"""What is on the screen can be read, in the dark and in the light."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator

import pytest
from rich.color_triplet import ColorTriplet

from tests.live.fake_wallet import FakeWallet, make_device
from tests.live.stage import Stage, open_stage
from wsclient.errors import StateRefused
from wsclient.live.dialogs import PasswordDialog, QuestionDialog, ValueDialog
from wsclient.live.merge_dialog import MergeDialog
from wsclient.wallet_events import Status

CONTRAST_MIN = 4.5
"""WCAG 2.2, success criterion 1.4.3."""
WALLET = b'{"name":"Joe","list":[1,true,null],"closed":{"a":[]},"more":{}}'


async def show_offline(stage: Stage) -> None:
    await stage.press("down", "down", "down", "down", "down", "down", "space", "up")
    stage.wallet.unsynced = True
    stage.wallet.arrive(WALLET.replace(b"Joe", b"Ann").replace(b"true", b"false"))
    stage.wallet.set_status(Status.OFFLINE, "connection refused", 5.0)
    await stage.until_shown('"Ann"')


async def show_own_change(stage: Stage) -> None:
    await stage.press("down", "e")
    await stage.until_asked(ValueDialog)
    await stage.enter('"Ann"')
    await stage.press("enter")
    await stage.until_shown('name: "Ann"')


async def ask_for_value(stage: Stage) -> None:
    await stage.press("a")
    await stage.until_asked(ValueDialog)
    await stage.press("tab", "x")


async def ask_for_lines(stage: Stage) -> None:
    await stage.press("e")
    await stage.until_asked(ValueDialog)


async def ask_to_recover(stage: Stage) -> None:
    stage.wallet.stop(StateRefused("went_back", 3, "it was at 4"))
    await stage.until_asked(QuestionDialog)


async def ask_for_sides(stage: Stage) -> None:
    await stage.press("m")
    stage.begin(stage.wallet.conflict(b'{"a":1}', b'{"a":2}', b"{}"))
    await stage.until_asked(MergeDialog)


async def ask_for_password(stage: Stage) -> None:
    stage.begin(stage.wallet.need_password())
    await stage.until_asked(PasswordDialog)


def add_devices(wallet: FakeWallet) -> None:
    wallet.sequence = 7
    wallet.account["t"] = make_device("t", "tablet", online=False, applied_sequence=3)
    wallet.account["n"] = make_device("n", "new", applied_sequence=0)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize(
    "scene",
    [
        show_offline,
        show_own_change,
        ask_for_value,
        ask_for_lines,
        ask_to_recover,
        ask_for_sides,
        ask_for_password,
    ],
)
async def test_every_text_can_be_read(
    theme: str, scene: Callable[[Stage], Coroutine[None, None, None]]
) -> None:
    async with open_stage(WALLET, size=(110, 40), prepare=add_devices) as stage:
        if theme == "light":
            await stage.press("t")
        await scene(stage)
        await stage.pause()

        faint = {
            f"{text!r}: {_contrast(colour, background):.1f}"
            for text, colour, background in _list_texts(stage)
            if _contrast(colour, background) < CONTRAST_MIN
        }
        assert faint == set()


def _list_texts(stage: Stage) -> Iterator[tuple[str, ColorTriplet, ColorTriplet]]:
    """What is read on the screen, or in the box over it, with its two colours."""
    screen = stage.app.screen
    boxes = list(screen.query(".box"))
    region = boxes[0].region if boxes else screen.region
    for strip in screen._compositor.render_strips()[region.y : region.bottom]:
        for segment in strip.crop(region.x, region.right):
            if any(character.isalnum() for character in segment.text):
                style = segment.style
                assert style is not None
                assert style.color is not None
                assert style.bgcolor is not None
                yield (
                    segment.text.strip(),
                    style.color.get_truecolor(),
                    style.bgcolor.get_truecolor(foreground=False),
                )


def _contrast(one: ColorTriplet, other: ColorTriplet) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: ColorTriplet) -> float:
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in colour.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
