"""A connection beside websockets' own core: two readers of one stream of frames."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as Core
from websockets.protocol import Side, State

from tests.wire.harness import Loop, Wire
from wsserver.connection import Connection
from wsserver.transport import Listener, TransportLimits

ANONYMOUS_BYTES_MAX: Final = 150
BYTES_MAX: Final = 300

AUTHENTICATE: Final = b"authenticate"
"""A message after which longer ones may come."""


class Listening:
    """A connection on a wire to nowhere, and its application; each `holds` is for one message."""

    def __init__(self, holds: Iterable[bool] = (), **limits: int) -> None:
        self.heard: list[bytes] = []
        self.holds = iter(holds)
        self.wire = Wire()
        listener = Listener(
            limits=TransportLimits(
                **{
                    "message_bytes_max": BYTES_MAX,
                    "anonymous_message_bytes_max": ANONYMOUS_BYTES_MAX,
                }
                | limits
            ),
            application=lambda connection: self,
            respond=lambda request: None,
        )
        self.loop = Loop()
        listener.loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.connection = Connection(listener, self.wire, "")
        self.connection.start(b"")

    def message_received(self, payload: bytes | bytearray) -> None:
        self.heard.append(bytes(payload))
        if payload == AUTHENTICATE:
            self.connection.authenticated()
        if next(self.holds, False):
            self.connection.hold()

    def writable(self) -> None: ...

    def connection_lost(self) -> None: ...

    def receive(self, *parts: bytes) -> None:
        for part in parts:
            self.connection.data_received(part)

    def let_go(self) -> None:
        """Releases the connection for as long as a message holds it up anew."""
        while self.connection._held:
            self.connection.release()
            self.loop.turn()

    def tell(self) -> tuple[list[bytes], bytes, str]:
        return self.heard, self.wire.written, self.wire.end


def tell_of_the_core(stream: bytes) -> tuple[list[bytes], bytes, str]:
    """What is heard, written, and how it ends, where the core reads every byte.

    One at a time: so each frame is dealt with before the next is read.
    """
    core = Core(Side.SERVER, max_size=ANONYMOUS_BYTES_MAX)
    heard: list[bytes] = []
    message = b""

    def receive(received: Frame) -> None:
        nonlocal message
        if received.opcode is Opcode.BINARY:
            core.send_close(1003, "text messages only")
        elif received.opcode in (Opcode.TEXT, Opcode.CONT):
            message += received.data
            if received.fin:
                complete, message = message, b""
                try:
                    complete.decode()
                except UnicodeDecodeError:
                    core.send_close(1007, "a text message must be UTF-8")
                    return
                heard.append(complete)
                if complete == AUTHENTICATE:
                    core.max_message_size = BYTES_MAX

    for position in range(len(stream)):
        core.receive_data(stream[position : position + 1])
        for event in core.events_received():
            if core.state is State.OPEN:
                receive(cast(Frame, event))
        if core.eof_sent:
            break
    end = "" if not core.eof_sent else "lingers" if core.parser_exc is not None else "closed"
    return heard, b"".join(core.data_to_send()), end
