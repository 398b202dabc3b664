"""The pages in a real browser, against a scripted server on the same origin."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.mail.browser import Tab, find_browser, open_tab, run_browser
from tests.mail.relays import Authority
from tests.mail.secrets import TOKEN
from wsschema.errors import BadVerificationToken, InternalError, RateLimited, RpcError
from wsserver.pages import Page, reset_page, verify_page

BROWSER = find_browser()
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path (CHROMIUM may name one)"),
    pytest.mark.asyncio(loop_scope="module"),  # One browser serves them all.
]

PREFIX = "/wallets"
PAGES: dict[str, Callable[[str | None], Page]] = {
    f"{PREFIX}/verify": verify_page,
    f"{PREFIX}/reset": reset_page,
}


@dataclass
class Site:
    """A server under a path prefix that answers each call with the next of its script."""

    script: list[RpcError | None] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    openings: list[tuple[str, str | None]] = field(default_factory=list)
    origin: str = ""

    def link(self, page: str, token: str = TOKEN) -> str:
        return f"{self.origin}{PREFIX}/{page}?token={token}"

    def answer_get(self, connection: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        if parts.path == f"{PREFIX}/v1":
            return None
        if parts.path not in PAGES:
            return connection.respond(HTTPStatus.NOT_FOUND, "Not found.\n")
        page = PAGES[parts.path](parse_qs(parts.query).get("token", [None])[0])
        headers = Headers({**page.headers, "Content-Length": str(len(page.body))})
        return Response(page.status, HTTPStatus(page.status).phrase, headers, page.body)

    async def serve_calls(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.openings.append((connection.request.path, connection.request.headers.get("Origin")))
        async for text in connection:
            call = json.loads(text)
            self.calls.append(call)
            if not self.script:
                return  # Hangs up without an answer.
            error = self.script.pop(0)
            outcome = {"result": {}} if error is None else {"error": error.to_wire()}
            await connection.send(json.dumps({"jsonrpc": "2.0", "id": call["id"], **outcome}))


@contextlib.asynccontextmanager
async def serve_site(context: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    site = Site()
    async with serve(
        site.serve_calls,
        "127.0.0.1",
        0,
        ssl=context,
        process_request=site.answer_get,
        subprotocols=[Subprotocol("wallet-sync.v1")],
        close_timeout=1,  # A browser keeps what it has open under TLS.
    ) as server:
        port = server.sockets[0].getsockname()[1]
        site.origin = f"{'https' if context else 'http'}://127.0.0.1:{port}"
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with serve_site() as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    assert BROWSER is not None
    async with run_browser(BROWSER, tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: str) -> AsyncIterator[Tab]:
    async with open_tab(browser) as tab:
        yield tab


async def test_the_button_confirms_the_address(site: Site, tab: Tab) -> None:
    site.script = [None]
    await tab.open(site.link("verify"))
    assert site.calls == []

    await tab.press("Confirm my address")
    seen = await tab.until("Your address is confirmed. Go back to the app and log in.")

    assert site.calls == [
        {"jsonrpc": "2.0", "id": 1, "method": "account.verify", "params": {"token": TOKEN}}
    ]
    assert site.openings == [(f"{PREFIX}/v1", site.origin)]
    assert "Press the button" not in seen
    assert await tab.evaluate("document.querySelector('button').hidden")
    assert tab.complaints == []
    # Nothing was loaded but the page itself.
    assert [url for url in tab.requests if not url.startswith("data:")] == [site.link("verify")]


async def test_the_button_works_over_tls(tab: Tab) -> None:
    async with serve_site(Authority().server_context()) as site:
        site.script = [None]
        await tab.open(site.link("verify"))
        await tab.press("Confirm my address")
        await tab.until("Your address is confirmed.")

    assert len(site.calls) == 1


async def test_the_button_works_from_the_keyboard(site: Site, tab: Tab) -> None:
    site.script = [None]
    await tab.open(site.link("verify"))

    await tab.press_key("Tab")
    assert await tab.evaluate("document.activeElement.id") == "confirm"
    await tab.press_key("Enter")

    await tab.until("Your address is confirmed.")


async def test_a_used_link_says_what_to_do(site: Site, tab: Tab) -> None:
    site.script = [BadVerificationToken()]
    await tab.open(site.link("verify"))

    await tab.press("Confirm my address")
    seen = await tab.until("This link was used already", "[role=status]")

    assert "try to log in" in seen
    assert "new mail" in seen
    assert await tab.evaluate("document.querySelector('button').hidden")


async def test_a_busy_server_can_be_asked_again(site: Site, tab: Tab) -> None:
    site.script = [RateLimited(retry_after_ms=2500), None]
    await tab.open(site.link("verify"))

    await tab.press("Confirm my address")
    await tab.until("Wait for 3 seconds, then press the button again.")
    await tab.press("Confirm my address")

    await tab.until("Your address is confirmed.")


async def test_a_server_that_hangs_up_can_be_asked_again(site: Site, tab: Tab) -> None:
    await tab.open(site.link("verify"))

    await tab.press("Confirm my address")
    await tab.until("The server did not answer.")
    site.script = [None]
    await tab.press("Confirm my address")

    await tab.until("Your address is confirmed.")


async def test_what_a_server_says_is_shown_as_text(site: Site, tab: Tab) -> None:
    site.script = [InternalError("<img src=x onerror=alert(1)> & more", error_id="ab12")]
    await tab.open(site.link("verify"))

    await tab.press("Confirm my address")

    await tab.until(
        "could not confirm the address: <img src=x onerror=alert(1)> & more (error ab12)"
    )
    assert await tab.evaluate("document.querySelector('img')") is None


async def test_without_javascript_the_page_says_so(site: Site, tab: Tab) -> None:
    await tab.call("Emulation.setScriptExecutionDisabled", value=True)
    await tab.open(site.link("verify"))

    seen = await tab.read()

    assert "Confirming needs JavaScript" in seen
    assert "Confirm my address" not in seen


async def test_the_reset_page_shows_and_copies_its_code(site: Site, tab: Tab) -> None:
    await tab.open(site.link("reset"))
    seen = await tab.read()
    await tab.call(
        "Browser.grantPermissions",
        origin=site.origin,
        browserContextId=tab.context_id,
        permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
    )

    await tab.press("Copy the code")
    await tab.until("The code is copied.")

    assert seen.startswith("Reset your account A reset deletes the wallet")
    assert TOKEN in seen
    assert await tab.evaluate("navigator.clipboard.readText()") == TOKEN
    assert site.calls == []
    assert tab.complaints == []


async def test_a_refused_clipboard_leaves_the_code_selected(site: Site, tab: Tab) -> None:
    await tab.open(site.link("reset"))
    await tab.evaluate("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")

    await tab.press("Copy the code")
    await tab.until("The code is selected")

    assert await tab.evaluate("getSelection().toString().trim()") == TOKEN


async def test_the_reset_page_needs_no_javascript_to_show_its_code(site: Site, tab: Tab) -> None:
    await tab.call("Emulation.setScriptExecutionDisabled", value=True)
    await tab.open(site.link("reset"))

    seen = await tab.read()

    assert TOKEN in seen
    assert "Copy the code" not in seen


async def test_a_script_that_is_not_the_page_s_own_does_not_run(site: Site, tab: Tab) -> None:
    await tab.open(site.link("verify"))

    await tab.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.evil = 1';"
        " document.body.append(s); })()"
    )

    assert await tab.evaluate("window.evil") is None
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)


@pytest.mark.parametrize("page", ["verify", "reset"])
async def test_a_page_fits_a_phone(site: Site, tab: Tab, page: str) -> None:
    await tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=320,
        height=640,
        deviceScaleFactor=2,
        mobile=True,
    )
    await tab.open(site.link(page))

    widths = await tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    heights = await tab.evaluate(
        "[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect().height)"
    )

    assert widths == [320, 320]
    assert heights
    assert min(heights) >= 44
