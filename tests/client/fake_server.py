"""A scripted server: a test reads each call as it comes, and answers, refuses, notifies, closes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from wsclient.crypto import Keys, compute_hmac
from wsschema import codec
from wsschema.errors import RpcError
from wsschema.limits import SUBPROTOCOL, Limits
from wsschema.messages import (
    AnnouncedLimits,
    Call,
    GetServerInfo,
    Kdf,
    LoggedIn,
    Login,
    Notification,
    Resume,
    ServerInfo,
    SessionOpened,
    SessionRevoked,
    WalletState,
    WalletUpdated,
)

C = TypeVar("C", bound=Call[Any])

PATIENCE_S = 30.0
"""How long a script waits for what must come; nothing passes by running into it."""
NOW = datetime(2026, 1, 2, tzinfo=UTC)
KEYS = Keys("joe@example.com", "secret password", b"h" * 32, b"s" * 32, Kdf.scrypt(2**14))


def make_state(sequence: int, wallet: str = "-", device_id: str = "phone") -> WalletState:
    hmac = compute_hmac(KEYS.hmac_key, sequence, wallet)
    return WalletState(sequence, wallet, hmac, device_id, NOW)


def make_update(state: WalletState, *, bring_wallet: bool = False) -> WalletUpdated:
    wallet = state if bring_wallet else None
    return WalletUpdated(state.sequence, state.hmac, state.device_id, NOW, wallet)


class Peer:
    """One connection of the client, from the server's side."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.calls: list[codec.Request] = []
        """Every call that was read, as it came."""

    async def expect(self, kind: type[C]) -> tuple[codec.Request, C]:
        """The next call, which must be of this kind."""
        async with asyncio.timeout(PATIENCE_S):
            payload = await self.socket.recv(decode=False)
        request = codec.parse_message(payload, batch_max=1)
        assert isinstance(request, codec.Request)
        self.calls.append(request)
        call = request.read_params(request.find_method())
        assert isinstance(call, kind), f"{kind.__name__} was expected, not {call}"
        return request, call

    async def answer(self, request: codec.Request, result: Any) -> None:
        await self.send(codec.encode_result(call_id(request), result))

    async def refuse(self, request: codec.Request, error: RpcError) -> None:
        await self.send(codec.encode_error(call_id(request), error))

    async def notify(self, message: Notification) -> None:
        await self.send(codec.encode_notification(message))

    async def send(self, payload: bytes) -> None:
        await self.socket.send(payload, text=True)

    async def close(self, code: int = 1000) -> None:
        await self.socket.close(code)

    async def revoke(self, reason: str) -> None:
        await self.notify(SessionRevoked(reason))
        await self.close(4401)

    def cut(self) -> None:
        """Drops the connection without a close frame, as a cable that is pulled."""
        self.socket.transport.abort()

    async def wait_closed(self) -> int | None:
        async with asyncio.timeout(PATIENCE_S):
            await self.socket.wait_closed()
        return self.socket.close_code

    async def let_log_in(
        self,
        latest: WalletState | None = None,
        *,
        epoch: str = "e1",
        bring_wallet: bool = False,
    ) -> Login:
        request, login = await self.expect(Login)
        sequence, hmac = (0, None) if latest is None else (latest.sequence, latest.hmac)
        wallet = latest if bring_wallet else None
        result = LoggedIn("token", login.device_id, NOW, epoch, sequence, hmac, wallet)
        await self.answer(request, result)
        return login

    async def let_resume(
        self,
        latest: WalletState | None = None,
        *,
        epoch: str = "e1",
        bring_wallet: bool = False,
    ) -> Resume:
        request, resume = await self.expect(Resume)
        sequence, hmac = (0, None) if latest is None else (latest.sequence, latest.hmac)
        wallet = latest if bring_wallet else None
        await self.answer(request, SessionOpened("laptop", NOW, epoch, sequence, hmac, wallet))
        return resume


class FakeServer:
    """Listens on a free port; each connection waits to be accepted by the script."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = Limits() if limits is None else limits
        self.info = ServerInfo(
            name="fake",
            version="0",
            protocol=1,
            features=(),
            verification="open",
            limits=AnnouncedLimits(
                limits.wallet_bytes,
                limits.message_bytes,
                limits.anonymous_message_bytes,
                limits.history_depth,
                limits.batch,
                limits.devices,
            ),
        )
        self._sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._take,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            max_size=2**24,
            close_timeout=1,
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def accept(self) -> Peer:
        """The next connection, which has been told who the server is."""
        peer = await self.accept_silently()
        request, _ = await peer.expect(GetServerInfo)
        await peer.answer(request, self.info)
        return peer

    async def accept_silently(self) -> Peer:
        """The next connection, which has been told nothing."""
        async with asyncio.timeout(PATIENCE_S):
            return Peer(await self._sockets.get())

    @property
    def is_idle(self) -> bool:
        """Whether no connection waits to be accepted."""
        return self._sockets.empty()

    async def _take(self, socket: ServerConnection) -> None:
        self._sockets.put_nowait(socket)
        await socket.wait_closed()


def call_id(request: codec.Request) -> int:
    assert isinstance(request.id, int)
    return request.id
