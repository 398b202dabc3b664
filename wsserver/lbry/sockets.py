"""A WebSocket of the interface: the hub's listener for its account, that is told sequences alone.

State: what waits to be sent, bounded. Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from wsschema.close_codes import CloseCode
from wsschema.messages import Device, Login, Resume
from wsserver import methods
from wsserver.departures import GoneSocket
from wsserver.engine import Engine
from wsserver.lbry.visits import carry_out
from wsserver.operations import DeviceRecord, OpenedSession, Published, TokenOwner

UPDATES_WAITING_MAX: Final = 64
"""Updates that wait for a peer of the gateway that reads slowly; of more, it gets the newest."""

# What uvicorn tells of a peer that closed without a code, and of one that broke off.
NO_CODE: Final = 1005

GONE: Final = (OSError, RuntimeError, WebSocketDisconnect)
"""What sending raises, in Starlette and in uvicorn, where the peer has closed meanwhile."""


class Socket:
    """Opens a session by a token, and tells of every push of the account until either side ends.

    It is a `wsserver.methods.Caller` while it opens, and a `wsserver.engine.Member` all along.
    """

    newest = 0
    presence = False

    def __init__(self, engine: Engine, websocket: WebSocket, address: str) -> None:
        self._engine = engine
        self._websocket = websocket
        self._opened: OpenedSession | None = None
        self._updates: deque[int] = deque(maxlen=UPDATES_WAITING_MAX)
        self._ending: tuple[CloseCode, str] | None = None
        self._news = asyncio.Event()
        self.facts = engine.facts
        self.address = address
        self.connection_id = engine.number_connection()
        self.anonymous = False
        self.account_id = 0
        self.device_id = ""
        self.device: DeviceRecord | None = None
        self.token_hash: bytes | None = None
        self.known_sequence = 0
        self.idle_since_s = time.monotonic()
        self.accepted_at_s: float | None = None
        """When the handshake was accepted, on the monotonic clock."""
        self._peer_close_code = NO_CODE

    async def resume(self, token: str) -> None:
        """Join the account's listeners; raises RpcError. `serve` may follow, `close` must."""
        await carry_out(self._engine, methods.resume(self, Resume(token)))

    async def serve(self) -> None:
        """Accept the handshake, and send until the session or the connection is over."""
        opened = self._opened
        assert opened is not None, "resume it first"
        await self._websocket.accept()
        self.accepted_at_s = time.monotonic()
        self.device, self.device_id = opened.device, opened.device.device_id
        self._engine.announce(opened, self)
        tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._read())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for failure in ended:
            if isinstance(failure, Exception) and not isinstance(failure, GONE):
                raise failure

    def close(self) -> None:
        """Leave the account's listeners."""
        if self.account_id:
            self._engine.leave(self.account_id, self)
            self.account_id = 0

    def describe_end(self) -> GoneSocket:
        """What there is to tell of it once it was accepted, and is over."""
        assert self.accepted_at_s is not None, "only what was accepted has a line"
        assert self._opened is not None, "what was accepted is open"
        code, reason = self._ending or (self._peer_close_code, "")
        return GoneSocket(
            self.address,
            self._opened.account_id,
            self.device_id,
            time.monotonic() - self.accepted_at_s,
            code,
            reason,
        )

    async def _send(self) -> None:
        while True:
            while self._updates and self._ending is None:
                await self._websocket.send_text(f"wallet-update:{self._updates.popleft()}")
                self._engine.metrics.count_notification("wallet-update")
            if self._ending is not None:
                code, reason = self._ending
                await self._websocket.close(code, reason)
                return
            self._news.clear()
            await self._news.wait()

    async def _read(self) -> None:
        # A client has nothing to say; what it says all the same is let go.
        while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
            pass
        self._peer_close_code = message["code"]

    def _end(self, code: CloseCode, reason: str) -> None:
        if self._ending is None:
            self._ending = (code, reason)
            self._news.set()

    # What the opening asks: see `wsserver.methods.Caller`.

    @property
    def token(self) -> bytes:
        """The hash of the session's token."""
        assert self.token_hash is not None, "called before it was opened"
        return self.token_hash

    @property
    def is_revoked(self) -> bool:
        """Whether the session's token is gone already."""
        return self._ending is not None

    def join(self, owner: TokenOwner, token_hash: bytes | None, call: Login | Resume) -> None:
        """From now on hear what concerns the account."""
        self.account_id, self.device_id = owner.account_id, owner.device_id
        self.token_hash = token_hash
        self._engine.hub.join(owner.account_id, self)

    def leave(self) -> None:
        """The session could not be opened."""
        self.close()

    def open(self, opened: OpenedSession) -> None:
        """The session is open; it is live once the handshake is accepted."""
        self.token_hash, self._opened = opened.token_hash, opened
        sequence = 0 if opened.head is None else opened.head.sequence
        self.known_sequence = max(self.known_sequence, sequence)

    # What the hub tells.

    def wallet_updated(self, update: Published) -> None:
        """Someone pushed, this device too."""
        if update.state.sequence > self.known_sequence:
            self.known_sequence = update.state.sequence
            self._updates.append(update.state.sequence)
            self._news.set()

    def device_updated(self, device: Device) -> None:
        """It has not asked for it."""

    def revoked(self, reason: str) -> None:
        """The token is gone."""
        self._end(CloseCode.SESSION_REVOKED, reason)

    def crowd_out(self) -> None:
        """The account has more sessions than it may have."""
        self._end(CloseCode.TOO_MANY, "too many sessions of this account")

    # What the server tells.

    def drain(self, retry_after_ms: int) -> None:
        """The server is about to stop; there is no way to say when to come back."""
        self._end(CloseCode.SERVICE_RESTART, "the server is about to stop")

    def send_away(self) -> None:
        """There is no call in flight on it."""
