"""What a dishonest server does, one method a lie: for tests that an app's wallet catches it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from wsclient.testing.backend import Backend
from wsclient.testing.line import Line
from wsschema.codec import ABSENT, Request, encode_result
from wsschema.fields import encode
from wsschema.messages import Kdf, PushWallet, Receipt, WalletState
from wsserver.operations import FindToken, Published

if TYPE_CHECKING:
    from wsclient.testing.server import TestServer


class Lies:
    """Lies of a `TestServer`; each holds until `stop`. A rollback is `TestServer.go_back`."""

    def __init__(self, server: TestServer) -> None:
        self._server = server
        self._forked: list[str] = []

    def stop(self) -> None:
        """Honest from now on. A forked device is cut, and finds what the others have."""
        self._server.interceptors.clear()
        self._server.rewriters.clear()
        for device_id in self._forked:
            self._server.drop_connections(device_id)
        self._forked.clear()

    def tamper(self, member: Literal["encryptedWallet", "hmac"] = "encryptedWallet") -> None:
        """One character of every wallet, or of every hmac, that the server shows is another."""

        def rewrite(method: str, message: dict[str, Any]) -> None:
            if method != "wallet.push" or "error" in message:  # not of one's own push
                _change(message, member)

        self._server.rewriters.append(rewrite)

    def downgrade_kdf(self, kdf: Kdf) -> None:
        """Devices are asked to derive their keys with these parameters."""

        def rewrite(method: str, message: dict[str, Any]) -> None:
            if method == "account.prelogin" and "result" in message:
                message["result"]["kdf"] = encode(kdf)

        self._server.rewriters.append(rewrite)

    def replay(self, email: str, sequence: int) -> None:
        """A kept state, as it is, becomes the next one; every device is told."""
        backend = self._server.backend
        account_id = self._server.find_account(email)
        account = backend.memory.accounts[account_id]
        state = replace(account.versions[sequence], sequence=account.sequence + 1)
        account.versions[state.sequence] = state
        backend.engine.hub.publish(Published(account_id, state, author=0))

    def overwrite_next_push(self, device_id: str) -> None:
        """The next push of the device is answered as if stored; nobody else ever sees it.

        So the next push of another device, on the same base, takes its place.
        """

        def intercept(line: Line, request: Request) -> bool:
            if request.method != "wallet.push" or line.device_id != device_id:
                return False
            call = request.read_params(request.find_method())
            assert isinstance(call, PushWallet)
            if not self._is_next(line, call.sequence):
                return False  # a conflict, which the honest answer is good enough for
            self._server.interceptors.remove(intercept)
            now = datetime.now(UTC)
            state = WalletState(call.sequence, call.encrypted_wallet, call.hmac, device_id, now)
            receipt = Receipt(call.sequence, call.hmac, now)
            if request.id is not ABSENT:
                line.send(encode_result(request.id, receipt if call.receipt else state))
            return True

        self._server.interceptors.append(intercept)

    async def fork(self, device_id: str) -> None:
        """From now on the device is alone with a copy of what is stored: a history of its own.

        It is cut, and finds the copy when it comes back.
        """
        branch = Backend(self._server.limits)
        await branch.start()
        branch.replace_memory(self._server.backend.memory, announced=False)

        def intercept(line: Line, request: Request) -> bool:
            if _find_device(branch, request) == device_id:
                line.channel.connection_lost()
                line.channel = branch.engine.mount(line)
            return False

        self._forked.append(device_id)
        self._server.interceptors.append(intercept)
        self._server.drop_connections(device_id)

    def _is_next(self, line: Line, sequence: int) -> bool:
        memory, token_hash = self._server.backend.memory, line.channel.token_hash
        owner = None if token_hash is None else memory.perform(FindToken(token_hash))
        return owner is not None and memory.accounts[owner.account_id].sequence + 1 == sequence


def _find_device(backend: Backend, request: Request) -> Any:
    """The device that the call opens a session for; None for another call, or a token unknown."""
    params = request.params if isinstance(request.params, dict) else {}
    if request.method == "session.login":
        return params.get("deviceId")
    if request.method == "session.resume":
        token_hash = hashlib.sha256(str(params.get("token")).encode()).digest()
        owner = backend.memory.perform(FindToken(token_hash))
        return None if owner is None else owner.device_id
    return None


def _change(value: Any, member: str) -> None:
    """Changes a character of the member, wherever it is in a JSON value."""
    if isinstance(value, dict):
        text = value.get(member)
        if isinstance(text, str):
            middle = len(text) // 2
            other = "1" if text[middle] == "0" else "0"
            value[member] = text[:middle] + other + text[middle + 1 :]
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, dict | list):
            _change(one, member)
