"""A real headless Chromium, driven over the DevTools protocol with nothing but a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

NAMES = (
    "chromium",
    "chromium-headless-shell",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
START_TIMEOUT_S = 60.0
WAIT_S = 30.0


def find_browser() -> str | None:
    """The program, of the environment's CHROMIUM or on the path; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page of the browser. ``complaints`` are its console's errors and refused loads."""

    def __init__(self, connection: ClientConnection, session_id: str, context_id: str) -> None:
        self.context_id = context_id
        self._connection = connection
        self._session_id = session_id
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        self.requests: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a DevTools command."""
        number = len(self._answers) + 100
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(
            json.dumps(
                {"id": number, "method": method, "params": params, "sessionId": self._session_id}
            )
        )
        answer = await asyncio.wait_for(self._answers[number], WAIT_S)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        """Load a page, and wait until it is there."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), WAIT_S)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited if it is a promise."""
        result = await self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def read(self, selector: str = "main") -> str:
        """The text that can be seen there, in one line."""
        text = await self.evaluate(f"document.querySelector({selector!r}).innerText")
        return " ".join(str(text).split())

    async def press(self, name: str) -> None:
        """Press the visible button of that name as a mouse does."""
        box = await self.evaluate(
            f"(() => {{ const b = [...document.querySelectorAll('button')]"
            f".find(b => b.innerText === {name!r}); b.scrollIntoView();"
            " const r = b.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2, r.width]; })()"
        )
        assert box[2] > 0, f"the button {name!r} can't be seen"
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )

    async def press_key(self, key: str) -> None:
        """Press a key, of those whose code is their name."""
        text = "\r" if key == "Enter" else ""
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    async def until(self, text: str, selector: str = "main") -> str:
        """Wait until the text can be seen there; gives all that is seen."""
        seen = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while text not in (seen := await self.read(selector)):
                    await asyncio.sleep(0.02)
        assert text in seen
        return seen

    async def listen(self) -> None:
        """Take what the browser says, until the connection ends."""
        async for text in self._connection:
            message = json.loads(text)
            params = message.get("params", {})
            match message.get("method"):
                case None:
                    if (answer := self._answers.get(message["id"])) is not None:
                        answer.set_result(message)
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Network.requestWillBeSent":
                    self.requests.append(params["request"]["url"])
                case "Log.entryAdded":
                    self.complaints.append(params["entry"]["text"])
                case "Runtime.exceptionThrown":
                    self.complaints.append(str(params["exceptionDetails"]))


@contextlib.asynccontextmanager
async def run_browser(program: str, profile: Path) -> AsyncIterator[str]:
    """A browser with an empty profile in that directory; gives the address to drive it by."""
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless=new",
        "--no-sandbox",  # Containers and root have none; the pages are our own.
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--ignore-certificate-errors",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            address = await _read_address(process.stderr)
        reading = asyncio.create_task(process.stderr.read())  # Or its pipe would fill up.
        yield address
        async with connect(address, proxy=None) as connection:
            await connection.send(json.dumps({"id": 1, "method": "Browser.close"}))
            await asyncio.wait_for(process.wait(), WAIT_S)
            await reading
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def open_tab(address: str) -> AsyncIterator[Tab]:
    """A tab of the browser at that address, which shares nothing with the others."""
    async with connect(address, max_size=None, proxy=None) as connection:
        context = await _call(connection, "Target.createBrowserContext", disposeOnDetach=True)
        target = await _call(connection, "Target.createTarget", url="about:blank", **context)
        session = await _call(connection, "Target.attachToTarget", flatten=True, **target)
        tab = Tab(connection, session["sessionId"], context["browserContextId"])
        listener = asyncio.create_task(tab.listen())
        for domain in ("Page", "Runtime", "Network", "Log"):
            await tab.call(f"{domain}.enable")
        yield tab
    await listener


async def _read_address(stderr: asyncio.StreamReader) -> str:
    while line := (await stderr.readline()).decode():
        if line.startswith("DevTools listening on "):
            return line.removeprefix("DevTools listening on ").strip()
    raise RuntimeError("the browser ended before it listened")


async def _call(connection: ClientConnection, method: str, **params: Any) -> dict[str, Any]:
    await connection.send(json.dumps({"id": 1, "method": method, "params": params}))
    async for text in connection:
        message = json.loads(text)
        if message.get("id") == 1:
            assert "error" not in message, message
            result: dict[str, Any] = message["result"]
            return result
    raise RuntimeError("the browser hung up")
