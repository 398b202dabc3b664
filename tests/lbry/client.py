"""A client of lbryio's HTTP interface, as small as that server's own test client: standard library,
httpx and websockets, and nothing of the project."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import json
import secrets
import uuid
from dataclasses import dataclass
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.e2e.rawclient import WAIT_S

API = "/api/3"
CHEAP_N = 2**10
"""What clients of tests derive their keys with, where the cost is not the claim."""


class Http:
    """Bare requests: status and answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=WAIT_S)

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self._client.request(method, path, **options)

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """As that server's client posts: no Content-Type, the JSON as it is."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self.send("POST", API + path, content=content)
        return response.status_code, response.json()

    async def get(self, path: str, **query: str) -> tuple[int, Any]:
        response = await self.send("GET", API + path, params=query)
        return response.status_code, response.json()

    async def close(self) -> None:
        await self._client.aclose()


@dataclass
class WalletState:
    sequence: int
    encrypted_wallet: str


class Refused(Exception):
    """The interface answered with an error."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(f"{status} {error}")
        self.status, self.error = status, error


class LbryClient:
    """A device. Its wallet is a line of segments between colons, as in that client's README."""

    def __init__(self, url: str, n: int = CHEAP_N) -> None:
        self.http = Http(url)
        self.device_id = str(uuid.uuid4())
        self.n = n
        self.auth: dict[str, Any] = {}
        self.synced: WalletState | None = None
        self.local_changes = ""
        self.printed: list[str] = []
        self._sockets: list[ClientConnection] = []

    def set_account(self, email: str, root_password: str) -> None:
        self.email, self.root_password = email, root_password

    @property
    def token(self) -> str:
        return str(self.auth["token"])

    async def register(self) -> bool:
        self.derive(secrets.token_hex(32))
        answer = await self._post(
            "/signup",
            {"email": self.email, "password": self.password, "clientSaltSeed": self.seed},
            status=201,
        )
        self.printed.append("Registered")
        return bool(answer["verified"])

    async def get_auth_token(self) -> None:
        self.derive(await self.get_salt_seed())
        self.auth = await self._post(
            "/auth/full",
            {"email": self.email, "password": self.password, "deviceId": self.device_id},
        )
        self.printed.append("Got auth token")

    async def get_salt_seed(self) -> str:
        # With the line breaks that Python's own encoder puts in.
        encoded = base64.encodebytes(self.email.encode()).decode()
        answer = await self._get("/client-salt-seed", email=encoded)
        return str(answer["clientSaltSeed"])

    def derive(self, seed: str) -> None:
        self.seed = seed
        self.password, self.hmac_key = derive(self.email, self.root_password, seed, self.n)

    def new_wallet_state(self) -> None:
        self.synced, self.local_changes = WalletState(0, "-"), ""

    def cur_encrypted_wallet(self) -> str:
        assert self.synced is not None
        return self.synced.encrypted_wallet + self.local_changes

    def change_encrypted_wallet(self) -> None:
        self.local_changes += f":{secrets.token_hex(2)}"

    async def get_wallet(self) -> None:
        answer = await self._get("/wallet", token=self.token)
        sequence, wallet = answer["sequence"], answer["encryptedWallet"]
        assert answer["hmac"] == self.compute_hmac(sequence, wallet)
        self.synced = WalletState(sequence, wallet)
        self.printed.append(f"Got latest {self.synced}")

    async def update_wallet(self) -> bool:
        assert self.synced is not None
        sequence, wallet = self.synced.sequence + 1, self.cur_encrypted_wallet()
        try:
            await self._post("/wallet", {"token": self.token, **self.sign(sequence, wallet)})
        except Refused as refusal:
            assert (refusal.status, refusal.error) == (409, "Conflict: Bad sequence number")
            self.printed.append("Wallet state out of date")
            await self.get_wallet()
            return False
        self.synced, self.local_changes = WalletState(sequence, wallet), ""
        self.printed.append(f"Successfully updated: {self.synced}")
        return True

    async def change_password(self, root_password: str) -> None:
        old_password, self.root_password = self.password, root_password
        self.derive(secrets.token_hex(32))
        body = {
            "email": self.email,
            "oldPassword": old_password,
            "newPassword": self.password,
            "clientSaltSeed": self.seed,
        }
        if self.synced is not None:
            sequence, wallet = self.synced.sequence + 1, self.cur_encrypted_wallet()
            body |= self.sign(sequence, wallet)
            await self._post("/password", body)
            self.synced, self.local_changes = WalletState(sequence, wallet), ""
        else:
            await self._post("/password", body)

    def sign(self, sequence: int, wallet: str) -> dict[str, Any]:
        mac = self.compute_hmac(sequence, wallet)
        return {"sequence": sequence, "encryptedWallet": wallet, "hmac": mac}

    def compute_hmac(self, sequence: int, wallet: str) -> str:
        return hmac.digest(self.hmac_key, f"{sequence}:{wallet}".encode(), "sha256").hex()

    async def listen(self, **options: Any) -> ClientConnection:
        """The interface's WebSocket."""
        socket = await open_socket(self.http.url, f"?token={self.token}", **options)
        self._sockets.append(socket)
        return socket

    async def close(self) -> None:
        for socket in self._sockets:
            await socket.close()
        await self.http.close()

    async def _post(self, path: str, body: Any, status: int = 200) -> Any:
        return _check(*await self.http.post(path, body), status)

    async def _get(self, path: str, **query: str) -> Any:
        return _check(*await self.http.get(path, **query), 200)


@functools.cache
def derive(email: str, root_password: str, seed: str, n: int) -> tuple[str, bytes]:
    """The login password and the HMAC key; once, for with n = 2^20 it takes seconds."""
    salt = hashlib.sha256(f"{email}:{seed}".encode()).hexdigest()[:32].encode()
    keys = hashlib.scrypt(
        root_password.encode(), salt=salt, n=n, r=8, p=1, maxmem=2**31 - 1, dklen=64
    )
    return base64.b64encode(keys[:32]).decode(), keys[32:]


async def open_socket(url: str, query: str = "", **options: Any) -> ClientConnection:
    where = f"{url.replace('http', 'ws', 1)}{API}/websocket{query}"
    return await connect(
        where, **{"proxy": None, "ping_interval": None, "close_timeout": 1, **options}
    )


async def hear(socket: ClientConnection, count: int = 1) -> list[str]:
    """The next messages."""
    async with asyncio.timeout(WAIT_S):
        return [str(await socket.recv()) for _ in range(count)]


def _check(status: int, answer: Any, expected: int) -> Any:
    if status != expected:
        raise Refused(status, answer["error"])
    return answer
