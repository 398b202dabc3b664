"""The bus on NATS, for when PostgreSQL's own has become too narrow.

A subject an account, which a node subscribes to while it has a connection of the account, and one
that all nodes hear. State: a connection, which connects itself anew, and its subscriptions. Runs on
the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from wsserver import logbook
from wsserver.bus.transports import QUEUE_MESSAGES_MAX, BusError, Receive

ALL: Final = "wallet-sync.nodes"
ACCOUNT: Final = "wallet-sync.account."
CONNECT_TIMEOUT_S: Final = 3
RETRY_S: Final = 0.2
PING_INTERVAL_S: Final = 1
PINGS_MAX: Final = 2
"""So many pings may be without an answer; then it connects anew."""
PATIENCE_S: Final = 2.0
CLOSE_TIMEOUT_S: Final = 1.0


class NatsBus:
    """The transport.

    ``urls``: nats:// or tls://, servers of one cluster separated by commas, with a user's name and
    password if need be. ``credentials``: a file of NATS's own. ``authorities``: a PEM file with
    those whose certificates count, for tls://.
    """

    by_account = True

    def __init__(
        self, urls: str, *, credentials: Path | None = None, authorities: Path | None = None
    ) -> None:
        self._urls = [url.strip() for url in urls.split(",")]
        self._credentials = credentials
        self._authorities = authorities
        self._client: Any = None
        self._error: Exception | None = None
        self._outgoing: deque[tuple[str, bytes]] = deque()
        self._changes: dict[int, Callable[[int], object] | None] = {}
        """Accounts that are to be followed, with who wants to know, or not to be any more."""
        self._following: dict[int, Any] = {}
        self._news = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()
        self._task: asyncio.Task[None] | None = None
        self._lost: Callable[[], object] = lambda: None
        self._receive: Receive = lambda payload: None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None and self._client.is_connected

    async def open(self, receive: Receive, lost: Callable[[], object]) -> None:
        """Connect; raises BusError."""
        import nats

        self._receive, self._lost = receive, lost
        options: dict[str, Any] = {}
        if self._credentials is not None:
            options["user_credentials"] = str(self._credentials)
        if any(url.startswith("tls://") for url in self._urls):
            options["tls"] = ssl.create_default_context(cafile=self._authorities)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._client = await nats.connect(
                    self._urls,
                    name="wallet-sync",
                    connect_timeout=CONNECT_TIMEOUT_S,
                    reconnect_time_wait=RETRY_S,
                    max_reconnect_attempts=-1,
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=PINGS_MAX,
                    error_cb=self._note_error,
                    disconnected_cb=self._note_cut,
                    reconnected_cb=self._note_return,
                    **options,
                )
                await self._client.subscribe(ALL, cb=self._take)
                await self._client.flush()
        except Exception as error:
            why = _describe(self._error or error)
            raise BusError(f"the bus, NATS, can't be used: {why}") from None
        self._task = asyncio.create_task(self._work())

    def send(self, payload: str, account_id: int | None = None) -> bool:
        """Send to all nodes, or to those that follow the account."""
        if not self.connected or len(self._outgoing) >= QUEUE_MESSAGES_MAX:
            return False
        subject = ALL if account_id is None else f"{ACCOUNT}{account_id}"
        self._outgoing.append((subject, payload.encode()))
        self._sent.clear()
        self._news.set()
        return True

    def follow(self, account_id: int, followed: Callable[[int], object]) -> None:
        """Subscribe to the account's subject."""
        self._changes[account_id] = followed
        self._news.set()

    def unfollow(self, account_id: int) -> None:
        """Subscribe to it no more."""
        self._changes[account_id] = None
        self._news.set()

    async def close(self) -> None:
        """Send what waits, and disconnect."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._sent.wait()
                if self.connected:
                    await self._client.flush()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._client is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._client.close()

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._change()
                while self._outgoing:
                    subject, payload = self._outgoing.popleft()
                    async with asyncio.timeout(PATIENCE_S):
                        await self._client.publish(subject, payload)
                self._sent.set()
            except Exception as error:
                logbook.BUS_FAILED.log(failure=_describe(error))
                self._lost()
                await asyncio.sleep(RETRY_S)

    async def _change(self) -> None:
        """Subscribe and unsubscribe; who follows an account is told once NATS has confirmed it."""
        followed: list[tuple[int, Callable[[int], object]]] = []
        while self._changes:
            account_id, tell = self._changes.popitem()
            subscription = self._following.get(account_id)
            if tell is not None and subscription is None:
                self._following[account_id] = await self._client.subscribe(
                    f"{ACCOUNT}{account_id}", cb=self._take
                )
            elif tell is None and subscription is not None:
                del self._following[account_id]
                await subscription.unsubscribe()
            if tell is not None:
                followed.append((account_id, tell))
        if followed and self.connected:
            await self._client.flush()
            for account_id, tell in followed:
                tell(account_id)

    async def _take(self, message: Any) -> None:
        self._receive(message.data)

    async def _note_error(self, error: Exception) -> None:
        # A slow consumer's, among others: something may not have come.
        self._error = error
        self._lost()

    async def _note_cut(self) -> None:
        logbook.BUS_CUT.log(bus="NATS", failure="the connection is gone")

    async def _note_return(self) -> None:
        logbook.BUS_BACK.log(bus="NATS")
        self._lost()


def _describe(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
