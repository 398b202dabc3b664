"""Mode email from outside: a server, the relay that it hands its mails to, and who reads them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.e2e.conftest import Serve
from tests.e2e.rawclient import KDF, SEED, WAIT_S, RawClient
from tests.e2e.serving import Served
from tests.mail.relays import Inbox, serve_smtp

PUBLIC_URL = "https://sync.example.com/wallets"
"""Where the links lead; tests ask the server itself for the page, as a proxy would."""


@dataclass(frozen=True)
class Link:
    """The link of a mail."""

    url: str

    @property
    def page(self) -> str:
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def token(self) -> str:
        [token] = parse_qs(urlsplit(self.url).query)["token"]
        return token


@dataclass
class Town:
    """A server in mode email, and the inbox of all who have an address."""

    served: Served
    inbox: Inbox = field(default_factory=Inbox)

    async def mails(self, email: str, count: int) -> list[EmailMessage]:
        """The mails that the address has got, once they are so many; in the order they came."""
        async with asyncio.timeout(WAIT_S):
            while len(found := self.mails_now(email)) < count:
                await asyncio.sleep(0.005)
        return found

    def mails_now(self, email: str) -> list[EmailMessage]:
        """The mails that the address has got so far."""
        return [mail for mail in self.inbox.messages if mail["To"] == email]

    async def link(self, email: str, count: int = 1) -> Link:
        """The link of the address's mail of that number."""
        return read_link((await self.mails(email, count))[-1])

    async def register(self, client: RawClient, email: str, **params: Any) -> Link:
        """Registers, and gives the link that comes by mail."""
        before = len(self.mails_now(email))
        assert await client.register(email, **params) == {"verified": False}
        return await self.link(email, before + 1)

    async def open_account(self, email: str, **params: Any) -> RawClient:
        """A client that is logged in to a new account."""
        client = await self.served.open()
        link = await self.register(client, email)
        assert await client.call("account.verify", token=link.token) == {}
        await client.login(email, **params)
        return client

    async def request_reset(self, email: str) -> Link:
        """Asks for a reset, and gives the link that comes by mail."""
        before = len(self.mails_now(email))
        client = await self.served.open()
        assert await client.call("account.requestReset", email=email) == {}
        await client.close()
        return await self.link(email, before + 1)


@contextlib.asynccontextmanager
async def open_town(serve: Serve, **settings: Any) -> AsyncIterator[Town]:
    """A server whose mails arrive at once."""
    inbox = Inbox()
    async with serve_smtp(inbox) as port:
        chosen = {**mail_settings(f"smtp://127.0.0.1:{port}?starttls=never"), **settings}
        served = await serve(**chosen)
        yield Town(served, inbox)
        # Before the relay goes: what is being delivered would fail.
        await served.stop()


def mail_settings(smtp_url: str) -> dict[str, Any]:
    """What mode email takes."""
    return {"verification": "email", "smtp_url": smtp_url, "public_url": PUBLIC_URL}


def read_text(mail: EmailMessage) -> str:
    """The plain part of a mail."""
    part = mail.get_body(("plain",))
    assert part is not None
    text: str = part.get_content()
    return text


def read_link(mail: EmailMessage) -> Link:
    """The one link of a mail: the same in both of its parts."""
    [url] = re.findall(r"https?://\S+\?token=\S+", read_text(mail))
    html = mail.get_body(("html",))
    assert html is not None
    assert f'href="{url}"' in html.get_content()
    return Link(url)


def new_credentials(password: str, seed: str = SEED) -> dict[str, Any]:
    """What sets a password, but for what says whose."""
    return {"password": password, "clientSaltSeed": seed, "kdf": KDF}


async def until(holds: Callable[[], bool]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.005)
