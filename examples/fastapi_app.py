"""A web service that holds a wallet: its entries over HTTP, what changes over a WebSocket.

For one account, on the machine of its owner. FastAPI and a server for it (uvicorn, say) are not
among what the client needs::

    pip install fastapi uvicorn
    export WALLET_EMAIL=joe@example.com WALLET_ROOT_PASSWORD=... WALLET_FOLDER=service
    export WALLET_API_TOKEN=$(openssl rand -hex 16)
    uvicorn --factory examples.fastapi_app:create_app

    curl -H "Authorization: Bearer $WALLET_API_TOKEN" -H "Content-Type: application/json" \
        -X PUT http://127.0.0.1:8000/entries/example.org -d '{"user": "joe", "password": "..."}'
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from starlette.requests import HTTPConnection

from wsclient import SyncedWallet, WalletEvent
from wsclient.merge import JsonMerge
from wsclient.wallet_events import ValueChanged


def read_entries(wallet: bytes | None) -> dict[str, Any]:
    """The entries by their names."""
    entries: dict[str, Any] = {} if wallet is None else json.loads(wallet)["entries"]
    return entries


def get_wallet(connection: HTTPConnection) -> SyncedWallet:
    """The service's wallet, for who has the token: any page of a browser can reach this machine."""
    token = f"Bearer {os.environ['WALLET_API_TOKEN']}"
    given = connection.headers.get("Authorization", "")
    if not secrets.compare_digest(given.encode(), token.encode()):
        raise HTTPException(401, "the token is missing or wrong")
    wallet: SyncedWallet = connection.app.state.wallet
    return wallet


Wallet = Annotated[SyncedWallet, Depends(get_wallet)]


def create_app() -> FastAPI:
    """The service, with what is in the environment."""

    @contextlib.asynccontextmanager
    async def hold_wallet(app: FastAPI) -> AsyncIterator[None]:
        async with SyncedWallet(
            os.environ.get("WSSERVER_URL", "ws://127.0.0.1:8090/v1"),
            os.environ["WALLET_EMAIL"],
            os.environ["WALLET_ROOT_PASSWORD"],
            os.environ["WALLET_FOLDER"],
            JsonMerge(),
        ) as app.state.wallet:
            yield

    app = FastAPI(title="A wallet", lifespan=hold_wallet)

    @app.get("/status")
    async def show_status(wallet: Wallet) -> dict[str, Any]:
        return {
            "status": wallet.status,
            "sequence": wallet.sequence,
            "unsynced": wallet.unsynced,
            "stopped": None if wallet.stopped is None else str(wallet.stopped),
        }

    @app.get("/entries/{name}")
    async def show_entry(name: str, wallet: Wallet) -> dict[str, Any]:
        entries = read_entries(wallet.value)
        if name not in entries:
            raise HTTPException(404, f"there is no entry {name}")
        entry: dict[str, Any] = entries[name]
        return entry

    @app.put("/entries/{name}", status_code=202)
    async def put_entry(name: str, entry: dict[str, Any], wallet: Wallet) -> dict[str, Any]:
        """Answers once the entry is kept here; it goes to the other devices by itself."""
        await wallet.change(
            lambda value: json.dumps({"entries": read_entries(value) | {name: entry}}).encode()
        )
        return entry

    @app.websocket("/changes")
    async def stream_changes(socket: WebSocket, wallet: Wallet) -> None:
        events = wallet.events()  # Before the caller is told that it will hear of all.
        await socket.accept()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send_changes(socket, events))
                while True:
                    await socket.receive_text()
        except* WebSocketDisconnect:
            pass

    return app


async def send_changes(socket: WebSocket, events: AsyncIterator[WalletEvent]) -> None:
    """Tells who changed the wallet, and what it holds since then."""
    async for event in events:
        if isinstance(event, ValueChanged):
            names = sorted(read_entries(event.value))
            await socket.send_json({"deviceId": event.device_id, "entries": names})
