"""The live page in a real browser, served by a real server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import Served, fetch
from tests.mail.browser import Tab, find_browser, open_tab, run_browser

BROWSER = find_browser()
WAIT_S = 60
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on the path (CHROMIUM may name one)"
)


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    assert BROWSER is not None
    async with run_browser(BROWSER, tmp_path / "profile") as address, open_tab(address) as tab:
        yield tab


async def until(tab: Tab, expression: str, holds: Callable[[Any], bool]) -> Any:
    """The value of a JavaScript expression once it is as it should be."""
    async with asyncio.timeout(WAIT_S):
        while not holds(value := await tab.evaluate(expression)):
            await asyncio.sleep(0.1)
    return value


def figure(title: str) -> str:
    """The figure of a tile."""
    return (
        "[...document.querySelectorAll('.tile')]"
        f".find((tile) => tile.firstChild.innerText === {title!r}).children[1].innerText"
    )


@needs_browser
async def test_the_page_shows_what_the_server_does_as_it_does_it(served: Served, tab: Tab) -> None:
    joe = await served.open_account("joe@example.com")
    board = served.server._board
    board.take_sample()
    for sequence in range(1, 6):
        await joe.push(sequence)
    board.take_sample()

    await tab.open(served.admin_url)
    await tab.until("Ready")
    assert await until(tab, figure("Sessions"), lambda text: text == "1")
    assert await until(tab, figure("Push latency, p99"), lambda text: text.endswith("s"))
    lines = "[...document.querySelectorAll('.plot path.line')].map((p) => p.getAttribute('d'))"
    assert all(line.startswith("M") for line in await tab.evaluate(lines))
    assert "joe" not in await tab.read()

    # It goes on by itself.
    await served.open_device("joe@example.com", "phone")
    await until(tab, figure("Sessions"), lambda text: text == "2")
    logging.getLogger("wsserver.somewhere").error("the <b>disk</b> is full")
    await tab.until("the <b>disk</b> is full")

    assert tab.complaints == []
    own = f"{served.admin_url}/"
    assert all(address.startswith((own, "data:")) for address in tab.requests)


@needs_browser
async def test_the_page_says_when_the_server_is_not_ready_or_gone(served: Served, tab: Tab) -> None:
    await tab.open(served.admin_url)
    await tab.until("Ready")
    served.server._draining = True
    served.server._board._ready_until_s = 0.0
    await tab.until("Not ready: the server is stopping")
    served.server._draining = False
    assert served.server._admin is not None
    await served.server._admin.close()
    await tab.until("No answer from the server")


@needs_browser
@pytest.mark.parametrize("width", [360, 1200])
async def test_the_page_needs_no_sideways_scrolling(served: Served, tab: Tab, width: int) -> None:
    await tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=800,
        deviceScaleFactor=1,
        mobile=width < 600,
    )
    await tab.open(served.admin_url)
    await tab.until("Ready")

    wide = "[...document.querySelectorAll('body *')].filter((e) => e.scrollWidth > innerWidth)"
    assert await tab.evaluate(f"{wide}.length") == 0
    assert await tab.evaluate("document.documentElement.scrollWidth") <= width


async def test_the_page_may_load_nothing_but_itself(served: Served) -> None:
    status, headers, text = await fetch(f"{served.admin_url}/")

    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy
    assert " src=" not in text
    assert " style=" not in text
