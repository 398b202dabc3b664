"""One request's place in the server: what its flows see of who asks, and who performs them."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from wsschema.errors import RpcError
from wsschema.messages import Login, Resume
from wsserver.engine import Engine
from wsserver.operations import Flow, OpenedSession, Operation, TokenOwner

R = TypeVar("R")


class Visit:
    """A `wsserver.methods.Caller` that asks once: it listens to nothing, and hears of nothing."""

    connection_id = 0
    """Nobody's: what it pushes is told to every connection of the account."""
    newest = 0
    is_revoked = False

    def __init__(self, engine: Engine, address: str) -> None:
        self.facts = engine.facts
        self.address = address
        self.account_id = 0
        self.device_id = ""
        self.opened: OpenedSession | None = None

    @property
    def token(self) -> bytes:
        """The hash of the session's token."""
        assert self.opened is not None, "called before a login"
        return self.opened.token_hash

    def join(self, owner: TokenOwner, token_hash: bytes | None, call: Login | Resume) -> None:
        """It does not listen."""

    def leave(self) -> None:
        """It did not listen."""

    def open(self, opened: OpenedSession) -> None:
        """A login succeeded."""
        self.opened = opened
        self.account_id = opened.account_id
        self.device_id = opened.device.device_id


async def carry_out(engine: Engine, flow: Flow[R]) -> R:
    """What the flow returns, once all that it waits for is done; raises what it raises."""
    answer: Any = None
    while True:
        try:
            failed = isinstance(answer, RpcError)
            operation = flow.throw(answer) if failed else flow.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result
        answer = await _perform(engine, operation)


async def _perform(engine: Engine, operation: Operation[Any]) -> Any:
    """The answer, or the RpcError that it is."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def settle(answer: Any) -> None:
        if not answered.done():
            answered.set_result(answer)

    engine.perform(operation, settle, lambda: not answered.done())
    return await answered
