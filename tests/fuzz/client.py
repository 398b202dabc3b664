"""Decisions as a hostile server: whatever it says, a client's calls end, and only in errors of the
project's own; nothing that it did not check gets in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tests.client.fake_server import KEYS, NOW, make_state
from tests.fuzz import grammar
from tests.fuzz.choices import Choices
from tests.fuzz.inside import Finding, require
from tests.fuzz.inside import run as run_inside
from wsclient import crypto
from wsclient.connection import ConnectionLost
from wsclient.errors import CannotConnect, WalletSyncError
from wsclient.events import Offline, Online
from wsclient.session import Session
from wsclient.witness import Witness
from wsschema.codec import Request, encode_error, encode_notification, parse_message
from wsschema.fields import encode
from wsschema.messages import (
    METHODS,
    Acknowledge,
    Call,
    Device,
    GetHistory,
    ListDevices,
    LoggedIn,
    Receipt,
    RevokeDevice,
    SessionOpened,
    WalletState,
    WalletUpdated,
)
from wsschema.samples import SAMPLE_ERRORS, SAMPLE_NOTIFICATIONS, SAMPLE_RESULTS

CONNECTIONS_MAX: Final = 5
MESSAGES_MAX: Final = 60
"""What one connection is sent before it is closed for good."""
PATIENCE_S: Final = 1000.0
"""Of a time that passes by itself: more than all calls may take."""


class Hostile:
    """One connection to a server that decides by the bytes."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._asked: asyncio.Queue[bytes] = asyncio.Queue()
        self._unasked = 0
        self.message_bytes_max = 0
        self.closed = False
        self._said = 0

    async def send(self, payload: bytes) -> None:
        if self.closed:
            raise ConnectionLost(None, "gone")
        self._asked.put_nowait(payload)

    async def receive(self) -> bytes | str:
        self._said += 1
        if self.closed or self._said > MESSAGES_MAX:
            raise ConnectionLost(4401, "enough")
        if self._choices.one_in(16):
            self.closed = True
            code = self._choices.pick([None, 1000, 1001, 1002, 1006, 1009, 1012, 4401, 4429, 4999])
            raise ConnectionLost(code, "the server closed")
        if self._choices and self._choices.one_in(4):
            await asyncio.sleep(0)
            return _unasked(self._choices)
        if not self._choices and self._asked.empty():
            raise ConnectionLost(4401, "nothing is left to say")
        return _answer(self._choices, await self._asked.get())

    async def close(self) -> None:
        self.closed = True

    def allow_messages_of(self, message_bytes: int) -> None:
        require(0 <= message_bytes <= 64 * 2**20, "what is taken is bounded", message_bytes)
        self.message_bytes_max = message_bytes


def run(data: bytes) -> None:
    """Decisions: what the server answers, says unasked, and when it hangs up."""
    run_inside(lambda: _converse(Choices(data)))


async def _converse(choices: Choices) -> None:
    opened = 0

    async def connect(url: str) -> Hostile:
        nonlocal opened
        opened += 1
        if opened > 1 and choices.one_in(8):
            raise CannotConnect(url, "refused")
        return Hostile(choices if opened <= CONNECTIONS_MAX else Choices(b""))

    async def sleep(seconds: float) -> None:
        require(0 <= seconds < 2**64, "a wait is a time", seconds)
        await asyncio.sleep(0)

    witness = Witness()
    session = Session(
        "ws://127.0.0.1/v1",
        witness=witness,
        deliver=choices.pick(["sequence", "state"]),
        presence=True,
        connect=connect,
        random=lambda: 0.5,
        sleep=sleep,
        clock=lambda: 1000.0,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            async with session:
                listening = asyncio.create_task(_listen(session))
                await _use(session, choices)
                await session.close()
                await listening
    except WalletSyncError:
        pass
    except TimeoutError:
        raise Finding("a call never ends") from None
    runner = session._runner
    if runner is not None and runner.done() and not runner.cancelled():
        failure = runner.exception()
        require(failure is None or isinstance(failure, WalletSyncError), "ended by", failure)
    require(type(witness.sequence) is int, "the witness keeps a sequence", witness.sequence)


async def _use(session: Session, choices: Choices) -> None:
    """What an app does; each call has its own end."""
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: session.login(KEYS, device_id="laptop"),
        session.get,
        lambda: session.push(choices.pick([1, 2, 7]), "-"),
        lambda: session.call(GetHistory()),
        lambda: session.get(choices.pick([1, 6])),
        lambda: session.call(ListDevices()),
        lambda: session.call(Acknowledge(1)),
        lambda: session.call(RevokeDevice("phone")),
    ]
    for call in calls:
        try:
            result = await call()
        except WalletSyncError:
            continue
        if isinstance(result, WalletState):
            _check_state(result)


async def _listen(session: Session) -> None:
    try:
        async for event in session.notifications():
            require(isinstance(event, WalletUpdated | Device | Offline | Online), "event", event)
            if isinstance(event, WalletUpdated) and event.wallet is not None:
                _check_state(event.wallet)
    except WalletSyncError:
        pass


def _check_state(state: WalletState) -> None:
    expected = crypto.compute_hmac(KEYS.hmac_key, state.sequence, state.encrypted_wallet)
    require(state.hmac == expected, "no state gets in whose HMAC is wrong", state.sequence)


def _answer(choices: Choices, payload: bytes) -> bytes | str:
    """The answer to a call: right, wrong, to another, or none at all."""
    request = parse_message(payload, batch_max=1)
    assert isinstance(request, Request)
    kind = choices.below(12)
    if kind == 11:
        return _unasked(choices)
    if kind == 10:
        error = encode_error(request.id, choices.pick(SAMPLE_ERRORS))  # type: ignore[arg-type] # ours have ids
        return grammar.spoil(choices, error)
    result = _result(choices, request)
    if kind >= 7:
        result = grammar.change(choices, result)
    call_id: Any = request.id
    if choices.one_in(12):
        call_id = choices.pick([None, "1", 1.0, 0, 10**30, call_id])
    wire = {"jsonrpc": "2.0", "id": call_id, "result": result}
    return grammar.spoil(choices, grammar.write(choices, wire))


def _result(choices: Choices, request: Request) -> Any:
    method = request.find_method()
    call: Call[Any] = request.read_params(method)
    head = make_state(choices.pick([1, 2, 7]), choices.pick(["-", "other"]))
    hmac, wallet = head.hmac, choices.pick([None, head])
    match method.name:
        case "session.login":
            login = LoggedIn("token", "laptop", NOW, "e1", head.sequence, hmac, wallet)
            return encode(login)
        case "session.resume":
            epoch = choices.pick(["e1", "e1", "e2"])
            return encode(SessionOpened("laptop", NOW, epoch, head.sequence, hmac, wallet))
        case "wallet.get":
            return encode(head)
        case "wallet.push" if choices.below(2):
            return encode(make_state(getattr(call, "sequence", 1), "-"))
        case "wallet.push":
            return encode(Receipt(head.sequence, hmac, NOW))
    samples = [result for sample, result in SAMPLE_RESULTS if type(sample) is method.params]
    sample = choices.pick(samples)
    return sample if isinstance(sample, dict) else encode(sample)


def _unasked(choices: Choices) -> bytes | str:
    match choices.below(6):
        case 0:
            return choices.take(choices.below(60))
        case 1:
            state = make_state(choices.pick([1, 3, 7, 8]), choices.pick(["-", "other"]))
            wallet = choices.pick([None, state])
            update = WalletUpdated(state.sequence, state.hmac, "phone", NOW, wallet)
            return encode_notification(update)
        case 2:
            return choices.pick(["", "\ud800", "[]", '{"jsonrpc":"2.0"}', "null"])
        case 3:
            known = grammar.Known()
            return grammar.message(choices, known, tuple(METHODS))
        case _:
            notification = encode_notification(choices.pick(SAMPLE_NOTIFICATIONS))
            return grammar.spoil(choices, notification)
