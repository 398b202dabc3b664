"""The network between the devices and a server, in memory, and what a test may do to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from wsclient.connection import Connection
from wsclient.errors import CannotConnect
from wsclient.testing.line import DeviceEnd, Line
from wsschema.codec import ABSENT, Batch, Request, parse_message
from wsschema.limits import Limits
from wsschema.messages import METHODS
from wsserver.channel import Channel

CALLS_MAX: Final = 10_000
"""Calls that are kept in mind; past that the oldest is forgotten."""
UNTIL_TIMEOUT_S: Final = 10.0
UNTIL_INTERVAL_S: Final = 0.005
"""How often `Network.until` looks while no message passes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as the server got it: nothing that is secret.

    ``device_id``: None before the device has logged in. ``sequence``: the one that it names.
    """

    method: str
    device_id: str | None = None
    sequence: int | None = None


class Network:
    """Connections in memory. Where a ``device_id`` may be given, None means every connection.

    ``sleep`` takes the time of `delay`. A connection that is held for ``silence_timeout_s`` is
    lost, as pings would have found it dead.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        authentication_timeout_s: float,
        silence_timeout_s: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.limits = limits
        self.authentication_timeout_s = authentication_timeout_s
        self.held = 0
        """How many messages wait at a `hold`: of each connection the next one, each way."""
        self.interceptors: list[Callable[[Line, Request], bool]] = []
        """Asked about each call before the server gets it; true: the server does not."""
        self.rewriters: list[Callable[[str, dict[str, Any]], None]] = []
        """Given each answer and notification to change, as JSON, with the name of its method."""
        self._silence_timeout_s = silence_timeout_s
        self._sleep = sleep
        self._lines: dict[Line, None] = {}
        self._calls: deque[Asked] = deque(maxlen=CALLS_MAX)
        self._is_down = True
        self._is_refusing = False
        self._holds: dict[str | None, asyncio.TimerHandle] = {}
        self._delay_s: Callable[[], float] | None = None
        self._to_lose: list[tuple[str, str | None]] = []
        self._bell = asyncio.Event()

    # What a test sees.

    @property
    def calls(self) -> tuple[Asked, ...]:
        """What the server was asked, the oldest first."""
        return tuple(self._calls)

    @property
    def connections(self) -> tuple[str | None, ...]:
        """The device of each open connection, None for one that has not logged in."""
        return tuple(line.device_id for line in self._lines if not line.closing)

    async def until(
        self, condition: Callable[[], object], timeout_s: float = UNTIL_TIMEOUT_S
    ) -> None:
        """Returns once the condition holds; raises TimeoutError.

        ::

            await server.until(lambda: wallet.value == b"theirs")

        It is looked at whenever a message passes, and now and then besides.
        """
        async with asyncio.timeout(timeout_s):
            while not condition():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(UNTIL_INTERVAL_S):
                        await self._bell.wait()

    # What a test does.

    async def connect(self, url: str) -> Connection:
        """A new connection, for `wsclient.Session`; raises CannotConnect when it is refused."""
        await asyncio.sleep(0)
        if not self._is_reachable:
            raise CannotConnect(url, "nothing listens there (connection refused)")
        line = Line(self)
        line.channel = self.mount(line)
        self._lines[line] = None
        self.ring()
        return DeviceEnd(self, line)

    def drop_connections(self, device_id: str | None = None) -> None:
        """Cuts them: both ends lose the connection, and what is on its way is gone."""
        for line in self._find(device_id):
            line.drop()

    def refuse_connections(self) -> None:
        """From now on nobody can connect; who is connected stays."""
        self._is_refusing = True

    def accept_connections(self) -> None:
        """From now on devices can connect again; those of `make_session` do so at once."""
        self._is_refusing = False
        self.ring()

    def lose_next_answer(self, method: str, device_id: str | None = None) -> None:
        """Has the next call of the method (``wallet.push``) carried out and not answered.

        In place of the answer the connection is lost. Each call of this counts for one answer.
        """
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}")
        self._to_lose.append((method, device_id))

    def delay(self, seconds: float | Callable[[], float]) -> None:
        """Has each message take so long, one after the other in its direction; 0: no time.

        A function is asked anew for each message.
        """
        if callable(seconds):
            self._delay_s = seconds
        else:
            self._delay_s = (lambda: seconds) if seconds else None

    def hold(self, device_id: str | None = None) -> None:
        """Lets nothing pass, either way, until `release`; see `held` for what waits."""
        if device_id not in self._holds:
            loop = asyncio.get_running_loop()
            self._holds[device_id] = loop.call_later(
                self._silence_timeout_s, self.drop_connections, device_id
            )

    def release(self, device_id: str | None = None) -> None:
        """Ends the `hold` of the device, or that of all; what waits passes in the order it came."""
        timer = self._holds.pop(device_id, None)
        if timer is not None:
            timer.cancel()
        self.ring()

    # What is to be filled in, and what lines call.

    def mount(self, line: Line) -> Channel:
        """The server's channel for a new connection."""
        raise NotImplementedError

    def ring(self) -> None:
        """Something happened: whoever waits looks again."""
        self._bell.set()
        self._bell.clear()

    async def wait(self, condition: Callable[[], object]) -> None:
        """Returns once the condition holds."""
        while not condition():
            await self._bell.wait()

    async def let_pass(self, line: Line) -> None:
        """Returns when the next message may pass, or the connection is lost."""
        if self._is_held(line):
            self.held += 1
            self.ring()
            try:
                await self.wait(lambda: line.dropped or not self._is_held(line))
            finally:
                self.held -= 1
        if self._delay_s is not None and not line.dropped:
            await self._sleep(self._delay_s())

    def pass_up(self, line: Line, payload: bytes) -> bool:
        """Takes note of what is asked; true: the server is not to get it."""
        message = parse_message(payload, batch_max=self.limits.batch)
        intercepted = False
        for request in message.items if isinstance(message, Batch) else (message,):
            if not isinstance(request, Request):
                continue
            if request.id is not ABSENT:
                line.asked[request.id] = request.method
            params = request.params if isinstance(request.params, dict) else {}
            login_id = params.get("deviceId") if request.method == "session.login" else None
            self._calls.append(
                Asked(request.method, line.device_id or login_id, params.get("sequence"))
            )
            for interceptor in tuple(self.interceptors):
                intercepted = interceptor(line, request) or intercepted
        return intercepted

    def pass_down(self, line: Line, payload: bytes) -> bytes | None:
        """What the device is sent in place of this message; None: the connection is lost."""
        message = orjson.loads(payload)
        for one in message if isinstance(message, list) else (message,):
            is_notification = "method" in one
            method = one["method"] if is_notification else line.asked.pop(one["id"], "")
            if not is_notification and self._is_to_be_lost(method, line):
                return None
            for rewriter in self.rewriters:
                rewriter(method, one)
        return orjson.dumps(message) if self.rewriters else payload

    def forget(self, line: Line) -> None:
        """It is gone."""
        self._lines.pop(line, None)

    @property
    def _is_reachable(self) -> bool:
        return not (self._is_down or self._is_refusing)

    def _find(self, device_id: str | None) -> list[Line]:
        return [line for line in self._lines if device_id in (None, line.device_id)]

    def _is_held(self, line: Line) -> bool:
        return None in self._holds or line.device_id in self._holds

    def _is_to_be_lost(self, method: str, line: Line) -> bool:
        for wanted in ((method, None), (method, line.device_id)):
            if wanted in self._to_lose:
                self._to_lose.remove(wanted)
                return True
        return False
