"""Fixtures: servers in this process with their gateways, and clients of the interface."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.e2e.conftest import (
    MakeProcess,
    Serve,
    cheap_passwords,
    make_process,
    password_gate,
    prompt_mail,
    serve,
    serve_at_full_cost,
    served,
)
from tests.e2e.serving import Served, find_free_port
from tests.lbry.client import Http, LbryClient

__all__ = [
    "MakeProcess",
    "cheap_passwords",
    "make_process",
    "password_gate",
    "prompt_mail",
    "serve",
    "serve_at_full_cost",
    "served",
]


class Gateway:
    """A server, and its gateway as clients see it."""

    def __init__(self, served: Served, port: int) -> None:
        self.served = served
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.http = Http(self.url)
        self._clients: list[LbryClient] = []

    def client(self, email: str = "joe@example.com", password: str = "123abc2") -> LbryClient:
        """A client that has done nothing yet."""
        client = LbryClient(self.url)
        client.set_account(email, password)
        self._clients.append(client)
        return client

    async def account(self, email: str = "joe@example.com") -> LbryClient:
        """A client that is logged in to a new account."""
        client = self.client(email)
        await client.register()
        await client.get_auth_token()
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        await self.http.close()


OpenGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def open_gateway(serve: Serve) -> AsyncIterator[OpenGateway]:
    """Starts servers with a gateway, with any settings."""
    opened: list[Gateway] = []

    async def start(**settings: Any) -> Gateway:
        port = find_free_port()
        opened.append(Gateway(await serve(lbry_port=port, **settings), port))
        return opened[-1]

    yield start
    for gateway in opened:
        await gateway.close()


@pytest.fixture
async def gateway(open_gateway: OpenGateway) -> Gateway:
    """A server in mode open, with its gateway."""
    return await open_gateway()
