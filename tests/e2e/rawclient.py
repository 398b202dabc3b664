"""A small JSON-RPC client for tests: it shares no code with the project and knows only the wire."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

WAIT_S = 30.0
"""How long a test waits for what must come: long, for the machine may be busy with others."""

PASSWORD = "correct horse battery staple"
SEED = "0123456789abcdef" * 4
KDF = {"name": "scrypt", "n": 2**14, "r": 8, "p": 1}


class CallFailed(Exception):
    """A call was answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']} {error['message']}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: dict[str, Any] = error.get("data", {})

    @property
    def reason(self) -> str:
        return str(self.data.get("reason", ""))


class RawClient:
    """One connection. What comes in is kept in its order: `received`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.received: list[Any] = []
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()
        self._ended = False
        self._reading = asyncio.create_task(self._read())

    # Calls.

    async def submit(self, method: str, **params: Any) -> asyncio.Future[Any]:
        """Sends a call; the future gets its result, or CallFailed."""
        call_id = next(self._ids)
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting for it when the connection ends.
        answered.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._pending[call_id] = answered
        await self.send({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params})
        return answered

    async def call(self, method: str, **params: Any) -> Any:
        """The result of a call; raises CallFailed, or ConnectionError when no answer comes."""
        async with asyncio.timeout(WAIT_S):
            return await (await self.submit(method, **params))

    async def fail(self, method: str, **params: Any) -> CallFailed:
        """The error that a call must be answered with."""
        try:
            result = await self.call(method, **params)
        except CallFailed as error:
            return error
        raise AssertionError(f"{method} should have failed, and gave {result}")

    async def send(self, message: Any) -> None:
        """Sends any JSON value, or text as it is."""
        await self.socket.send(message if isinstance(message, str) else json.dumps(message))

    async def ask(self, message: Any) -> Any:
        """Sends any message, and gives the next one that comes."""
        before = len(self.received)
        await self.send(message)
        await self.until(lambda: len(self.received) > before)
        return self.received[before]

    # What the project's clients do all the time.

    async def register(self, email: str, password: str = PASSWORD) -> Any:
        return await self.call(
            "account.register", email=email, password=password, clientSaltSeed=SEED, kdf=KDF
        )

    async def login(
        self, email: str, device_id: str = "laptop", password: str = PASSWORD, **params: Any
    ) -> Any:
        return await self.call(
            "session.login", email=email, password=password, deviceId=device_id, **params
        )

    async def push(self, sequence: int, wallet: str = "", **params: Any) -> Any:
        return await self.call("wallet.push", **state(sequence, wallet), **params)

    async def change_password(self, old: str, new: str, sequence: int, wallet: str = "") -> int:
        """Changes it, with the wallet, however often others push meanwhile: gives its sequence."""
        while True:
            try:
                await self.call(
                    "account.changePassword",
                    oldPassword=old,
                    newPassword=new,
                    clientSaltSeed=SEED,
                    kdf=KDF,
                    wallet=state(sequence, wallet),
                )
            except CallFailed as error:
                assert error.reason == "conflict"
                sequence = error.data["wallet"]["sequence"] + 1
            else:
                return sequence

    # What comes unasked.

    async def until(self, holds: Callable[[], Any]) -> None:
        """Waits until it holds; looked at anew whenever something has come."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                if self._ended:
                    raise AssertionError(f"closed ({self.close_code}) before it held")
                self._news.clear()
                await self._news.wait()

    def heard(self, method: str) -> list[Any]:
        """The params of the notifications that have come, in their order."""
        return [
            message["params"]
            for message in self.received
            if isinstance(message, dict) and message.get("method") == method
        ]

    async def hear(self, method: str, count: int = 1) -> list[Any]:
        """The params of the notifications, once there are so many."""
        await self.until(lambda: len(self.heard(method)) >= count)
        return self.heard(method)

    async def hear_sequence(self, sequence: int) -> None:
        """Waits until `wallet.updated` has told of that sequence, or of a newer one."""
        await self.until(
            lambda: any(told["sequence"] >= sequence for told in self.heard("wallet.updated"))
        )

    # Its end.

    async def closed(self) -> int:
        """The close code, once the connection has ended."""
        async with asyncio.timeout(WAIT_S):
            await self._reading
        return self.close_code

    @property
    def close_code(self) -> int:
        code = self.socket.close_code
        return 1006 if code is None else code

    async def stop_reading(self) -> ClientConnection:
        """The bare WebSocket, that nobody reads from any more; `RawClient` of it reads on."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        return self.socket

    def abort(self) -> None:
        """Ends the TCP connection with no word."""
        self.socket.transport.abort()

    async def close(self) -> None:
        await self.socket.close()
        await self._reading

    async def _read(self) -> None:
        try:
            while True:
                self._take(json.loads(await self.socket.recv()))
                self._news.set()
        except ConnectionClosed:
            pass
        finally:
            self._ended = True
            self._news.set()
            for answered in self._pending.values():
                if not answered.done():
                    answered.set_exception(ConnectionError("closed before the answer"))

    def _take(self, message: Any) -> None:
        self.received.append(message)
        if isinstance(message, dict) and "method" not in message:
            answered = self._pending.pop(message["id"], None) if message["id"] else None
            if answered is not None and not answered.done():
                if "error" in message:
                    answered.set_exception(CallFailed(message["error"]))
                else:
                    answered.set_result(message["result"])


def state(sequence: int, wallet: str = "") -> dict[str, Any]:
    """A state as it is pushed: any wallet text, and an hmac that goes with it."""
    text = wallet or f"wallet {sequence}"
    return {"sequence": sequence, "encryptedWallet": text, "hmac": f"hmac {sequence} {text[:40]}"}


@asynccontextmanager
async def open_client(url: str, **options: Any) -> AsyncIterator[RawClient]:
    """A connection that is closed at the end, if it is not yet."""
    client = RawClient(await open_socket(url, **options))
    try:
        yield client
    finally:
        await client.close()


async def open_socket(url: str, **options: Any) -> ClientConnection:
    """A bare WebSocket, that nobody reads from."""
    defaults = {
        "max_size": None,
        "proxy": None,
        "ping_interval": None,
        "open_timeout": WAIT_S,
        "close_timeout": 1,
    }
    return await connect(url, **{**defaults, **options})
