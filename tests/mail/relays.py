"""Real SMTP servers for tests: aiosmtpd on a free port of this loop, and sockets that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import email
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.mail.secrets import PASSWORD, USER


@dataclass
class Inbox:
    """What a relay has taken, and how it answers: each list is used up first, then comes 250."""

    recipient_answers: list[str] = field(default_factory=list)
    mail_answers: list[str] = field(default_factory=list)
    before_mail: Callable[[SMTP], Awaitable[None]] | None = None
    envelopes: list[Envelope] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    helo_names: list[str] = field(default_factory=list)

    @property
    def messages(self) -> list[EmailMessage]:
        """The mails as a mail program reads them."""
        messages = []
        for envelope in self.envelopes:
            assert isinstance(envelope.content, bytes)
            messages.append(email.message_from_bytes(envelope.content, policy=policy.SMTPUTF8))
        return messages

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name for it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.recipient_answers:
            return self.recipient_answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(  # noqa: N802  # aiosmtpd's name for it
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.before_mail is not None:
            await self.before_mail(server)
        if self.mail_answers:
            return self.mail_answers.pop(0)
        self.envelopes.append(envelope)
        self.encrypted.append(session.ssl is not None)
        self.helo_names.append(session.host_name or "")
        return "250 2.0.0 taken"


@contextlib.asynccontextmanager
async def serve_smtp(
    inbox: Inbox,
    *,
    listener: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
    starttls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[int]:
    """A relay that puts into the inbox what it takes, on ``listener`` if given; gives its port."""
    loop = asyncio.get_running_loop()
    serving = []

    # aiosmtpd reads all properties of its handler for each connection: the inbox's parse all mails.
    handler = SimpleNamespace(handle_RCPT=inbox.handle_RCPT, handle_DATA=inbox.handle_DATA)

    def make() -> SMTP:
        server = SMTP(handler, hostname="relay.test", tls_context=starttls, loop=loop, **options)
        serving.append(server)
        return server

    place: dict[str, Any] = {"sock": listener} if listener else {"host": "127.0.0.1", "port": 0}
    running = await loop.create_server(make, ssl=tls, **place)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()
        for server in serving:
            if server.transport is not None:
                cut(server)
            if server._handler_coroutine is not None:
                # It may wait for a handshake that the client broke off, or stall on purpose.
                server._handler_coroutine.cancel()
                await asyncio.wait({server._handler_coroutine})


def cut(server: SMTP) -> None:
    """Have the relay drop the connection without a word."""
    assert isinstance(server.transport, asyncio.WriteTransport)
    server.transport.abort()


def check_login(
    server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
) -> AuthResult:
    """aiosmtpd's authenticator: USER with PASSWORD."""
    expected = LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=data == expected, handled=False)


@contextlib.asynccontextmanager
async def serve_silence() -> AsyncIterator[tuple[int, asyncio.Queue[bytes]]]:
    """A relay that takes connections and says nothing; gives its port, and who hung up."""
    gone: asyncio.Queue[bytes] = asyncio.Queue()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone.put_nowait(await reader.read())
        writer.close()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], gone


class Authority:
    """A certificate authority of its own."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    @property
    def pem(self) -> bytes:
        """What SSL_CERT_FILE names."""
        return self._authority.cert_pem.bytes()

    def server_context(self, *names: str) -> ssl.SSLContext:
        """The side of a server of these names; of this machine's where none is given."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
        return context
