"""The bus on PostgreSQL's own LISTEN and NOTIFY: no further service.

State: two connections, one that listens and one that notifies, each with a task that connects it
anew when it fails. Every node hears every message. Runs on the event loop.

Each is outside any transaction of the store: within one, NOTIFY takes a lock over the whole server
at the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from wsserver import logbook
from wsserver.bus.transports import QUEUE_MESSAGES_MAX, BusError, Receive

CHANNEL: Final = "wallet_sync"
AT_ONCE: Final = 64
"""Messages of one statement."""
PATIENCE_S: Final = 2.0
"""How long a notification may take to be sent; and since a node hears its own heartbeats, how long
it may hear nothing: then it connects anew."""
CONNECT_TIMEOUT_S: Final = 5
RETRY_S: Final = 0.2
"""How long about it waits before it connects anew."""
CLOSE_TIMEOUT_S: Final = 1.0

_NOTIFY: Final = "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload"


class PostgreSQLBus:
    """The transport. ``url`` as SQLAlchemy or libpq have it."""

    by_account = False

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        self._url = f"{scheme.partition('+')[0]}://{rest}"
        self._waiting: deque[str] = deque()
        self._news = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()
        self._listening = self._sending = False
        self._tasks: list[asyncio.Task[None]] = []
        self._lost: Callable[[], object] = lambda: None
        self._receive: Receive = lambda payload: None

    @property
    def connected(self) -> bool:
        """Whether both connections are open."""
        return self._listening and self._sending

    async def open(self, receive: Receive, lost: Callable[[], object]) -> None:
        """Connect; raises BusError."""
        self._receive, self._lost = receive, lost
        try:
            listener, sender = await self._connect(), await self._connect()
            await listener.execute(f"LISTEN {CHANNEL}")
        except Exception as error:
            raise BusError(f"the bus, PostgreSQL, can't be used: {_describe(error)}") from None
        self._listening = self._sending = True
        self._tasks = [
            asyncio.create_task(self._go_on(self._listen, listener)),
            asyncio.create_task(self._go_on(self._send, sender)),
        ]

    def send(self, payload: str, account_id: int | None = None) -> bool:
        """Send to all nodes."""
        if not self._sending or len(self._waiting) >= QUEUE_MESSAGES_MAX:
            return False
        self._waiting.append(payload)
        self._sent.clear()
        self._news.set()
        return True

    def follow(self, account_id: int, followed: Callable[[int], object]) -> None:
        """It hears everything."""

    def unfollow(self, account_id: int) -> None:
        """It hears everything."""

    async def close(self) -> None:
        """Send what waits, and disconnect."""
        await asyncio.sleep(0)  # a task that has not begun would leave its connection open
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._sent.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self) -> Any:
        import psycopg

        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="wallet-sync bus",
        )

    async def _go_on(self, work: Callable[[Any], Awaitable[None]], connection: Any) -> None:
        """Work on one connection after another."""
        failed: str | None = None
        while True:
            try:
                if connection is None:
                    connection = await self._connect()
                    if failed is not None:
                        logbook.BUS_BACK.log(bus="PostgreSQL")
                        failed = None
                await work(connection)
            except Exception as error:
                if failed is None:
                    failed = _describe(error)
                    logbook.BUS_CUT.log(bus="PostgreSQL", failure=failed)
                # Not all nodes at once.
                await asyncio.sleep(RETRY_S * (0.5 + random.random()))  # noqa: S311
            finally:
                if connection is not None:
                    with contextlib.suppress(Exception):
                        async with asyncio.timeout(CLOSE_TIMEOUT_S):
                            await connection.close()
                    connection = None

    async def _listen(self, connection: Any) -> None:
        try:
            if not self._listening:
                async with asyncio.timeout(PATIENCE_S):
                    await connection.execute(f"LISTEN {CHANNEL}")
                self._listening = True
                self._lost()
            heard = True
            while heard:
                heard = False
                async for notification in connection.notifies(timeout=PATIENCE_S, stop_after=1):
                    heard = True
                    self._receive(notification.payload)
            raise TimeoutError(f"nothing was heard for {PATIENCE_S:g} s")
        finally:
            self._listening = False

    async def _send(self, connection: Any) -> None:
        if not self._sending:
            self._sending = True
            self._lost()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._waiting:
                    count = min(AT_ONCE, len(self._waiting))
                    payloads = [self._waiting.popleft() for _ in range(count)]
                    async with asyncio.timeout(PATIENCE_S):
                        await connection.execute(_NOTIFY, (CHANNEL, payloads))
                self._sent.set()
        finally:
            self._sending = False
            self._waiting.clear()
            self._sent.set()


def _describe(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
