"""A connection before it is a WebSocket: one HTTP request, answered or upgraded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from wsserver.connection import Connection
from wsserver.handshake import (
    HEAD_END,
    Handshake,
    Response,
    build_response,
    encode_response,
    read_request,
)
from wsserver.peer import ENDING, NEVER, OPEN, Peer

if TYPE_CHECKING:
    from wsserver.transport import Listener

_TLS_HANDSHAKE: Final = b"\x16\x03"
"""How a TLS record of a handshake begins (RFC 8446, section 5.1)."""


class Opening(Peer):
    """One peer up to the upgrade; then a `Connection` takes its transport over."""

    __slots__ = ("_asked", "_awaits_answer", "_head", "_received", "opened_at_s")

    def __init__(self, listener: Listener, remote_address: str) -> None:
        super().__init__(listener, remote_address)
        self._received = bytearray()
        """The request's head as far as it has come; once it is whole, what came after it."""
        self._asked = False
        self._head = b""
        """The whole head, while it waits for its turn."""
        self._awaits_answer = False
        self.opened_at_s = listener.clock()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Has time for its request from now on, over TLS after its handshake."""
        self._transport = cast(asyncio.Transport, transport)  # a stream: TCP or TLS over it
        limits = self._listener.limits
        # Both marks: uvloop's own low-water mark is 16 bytes.
        self._transport.set_write_buffer_limits(
            limits.write_buffer_bytes_max, limits.write_buffer_bytes_max // 4
        )
        self._set_deadline(limits.opening_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Takes what the peer sent; after the request, which is the first frames of a WebSocket."""
        if self._phase == ENDING:
            return
        searched = max(0, len(self._received) - 2)
        self._received += data
        if not self._asked:
            self._read_head(searched)
        elif len(self._received) > self._listener.limits.request_bytes_max:
            self._pause_reading(True)

    def eof_received(self) -> bool:
        """Ends the connection; a request that has come whole is answered first."""
        self.ask()
        transport = self._transport
        if self._awaits_answer and transport is not None and transport.can_write_eof():
            return True  # It has its own timeout. TLS has no half of a connection to keep open.
        return super().eof_received()

    # What the listener calls.

    def ask(self) -> None:
        """Has the request answered that waits for its turn, unless its peer is gone."""
        head, self._head = self._head, b""
        if not head:
            return
        handshake = read_request(head)
        if isinstance(handshake, Response):
            self._refuse(handshake)
            return
        self.remote_address = self._listener.find_client(self, handshake)
        answer = self._listener.ask(handshake)
        if answer is None or isinstance(answer, Response):
            self.answer(handshake, answer)
        else:
            # The awaited answer has its own timeout.
            self._deadline_s = NEVER
            self._awaits_answer = True
            self._pause_reading(True)
            self._listener.answer_later(self, handshake, answer)

    def answer(self, handshake: Handshake, response: Response | None) -> None:
        """Answers the request; `None` stands for the upgrade."""
        if self._phase != OPEN:
            return  # gone while the answer was awaited
        answer = self._listener.admit(handshake) if response is None else response
        if isinstance(answer, bytes):
            self._upgrade(answer)
        else:
            self._refuse(answer, with_body=handshake.request.method != "HEAD")

    def shut(self) -> None:
        """Ends the connection without an answer."""
        self._end(linger=False)

    # Its own affairs.

    def _read_head(self, searched: int) -> None:
        received, limit = self._received, self._listener.limits.request_bytes_max
        found = HEAD_END.search(received, searched)
        end = len(received) if found is None else found.end()
        if received.startswith(_TLS_HANDSHAKE):
            # Its sender waits for an answer in kind; any other tells it what is wrong.
            self._refuse(build_response(400, "No TLS is spoken here.\n"))
        elif end > limit:
            self._refuse(build_response(431, f"The limit of a request is {limit:,} bytes.\n"))
        elif found is not None:
            self._asked = True
            self._head, self._received = bytes(received[:end]), received[end:]
            self._listener.ask_soon(self)

    def _refuse(self, response: Response, *, with_body: bool = True) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(encode_response(response, with_body=with_body))
        self._end(linger=True)

    def _upgrade(self, answer: bytes) -> None:
        transport = self._transport
        assert transport is not None
        if transport.is_closing():
            return
        transport.write(answer)
        self._pause_reading(False)
        first, self._received = bytes(self._received), bytearray()
        # From here on the transport is another's; the wheel may hold this object a little longer.
        self._transport = None
        connection = Connection(self._listener, transport, self.remote_address)
        transport.set_protocol(connection)
        self._listener.detach(self)
        connection.start(first)

    def _forget_input(self) -> None:
        self._head, self._received = b"", bytearray()
