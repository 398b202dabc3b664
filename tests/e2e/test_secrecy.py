"""What people entrust to the server is in no log line, passwords and tokens in no file either."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from pathlib import Path

from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import KDF, SEED, CallFailed, RawClient, open_client, open_socket, state
from tests.e2e.serving import ServerProcess, fetch, find_free_port, open_database

EMAIL = "marked.address@secrets.example"
PASSWORD = "marked password 3f9a"
NEW_PASSWORD = "marked new password 77c1"
WALLET = "marked wallet b04e"
NAME = "marked device name 5d21"


async def test_no_secret_is_in_the_log_and_no_password_or_token_in_the_database_file(
    make_process: MakeProcess,
) -> None:
    server = make_process(
        log_level="debug", wallet_bytes=2048, admin_port=find_free_port(), auth_timeout_s=2
    )
    await server.start()
    tokens = await use_everything(server)
    in_the_file = read_database(server)
    server.signal(signal.SIGTERM)
    assert await server.wait() == 0

    log = server.log
    # As it was written, and as a program reads it, with its escapes undone.
    documents = [json.loads(line) for line in log.splitlines()]
    log += "".join(str(document) for document in documents)
    events = {document["event"] for document in documents}
    assert events >= {"session.opened", "call.refused", "connection.ended", "database.failed"}
    assert log.count("error id") >= 2, "the failures that were brought about are told"
    assert "Traceback" in log
    for secret in (EMAIL, PASSWORD, NEW_PASSWORD, WALLET, NAME, *tokens):
        assert secret not in log
        assert secret.upper() not in log
        assert secret.encode().hex() not in log
        assert repr(secret.encode())[2:-1] not in log
    in_the_file += read_database(server)
    assert WALLET.encode() in in_the_file, "the files that were looked at are the right ones"
    for secret in (PASSWORD, NEW_PASSWORD, *tokens):
        assert secret.encode() not in in_the_file
    for token in tokens:
        assert bytes.fromhex(token) not in in_the_file


def read_database(server: ServerProcess) -> bytes:
    files: list[Path] = [*server.folder.glob("wallets.db*")]
    assert files
    return b"".join(file.read_bytes() for file in files)


async def use_everything(server: ServerProcess) -> list[str]:
    """Has the secrets pass through all that the server does; gives the tokens."""
    tokens = []
    login = {"email": EMAIL, "password": PASSWORD, "deviceId": "laptop", "deviceName": NAME}
    credentials = {"clientSaltSeed": SEED, "kdf": KDF}
    async with open_client(server.url) as client:
        await client.call("account.register", email=EMAIL, password=PASSWORD, **credentials)
        await client.fail("account.register", email=EMAIL, password=PASSWORD, **credentials)
        await client.call("account.prelogin", email=EMAIL)
        await client.fail("session.login", **{**login, "password": NEW_PASSWORD})
        tokens.append((await client.call("session.login", **login))["token"])
        await client.push(1, WALLET)
        await client.fail("wallet.push", **state(7, WALLET))
        await client.fail("wallet.push", **state(2, WALLET * 200))
        await client.fail("account.delete", password=NEW_PASSWORD)
        await ask_wrongly(client, tokens[0])
        await fail_inside(client, server)
        await meet_a_locked_database(client, server)
    async with open_client(server.url) as client:
        await client.call("session.resume", token=tokens[0], since=0, deliver="state")
        async with open_client(server.url) as other:
            tokens.append(
                (await other.call("session.login", **{**login, "deviceId": "b"}))["token"]
            )
            await other.push(2, WALLET)
            await client.hear_sequence(2)
            # Gone in the middle of things: a push under way, and half a message.
            await other.submit("wallet.push", **state(3, WALLET))
            other.abort()
        await client.change_password(PASSWORD, NEW_PASSWORD, 3, WALLET)
        await client.closed()
    for token in tokens:
        async with open_client(server.url) as client:
            await client.fail("session.resume", token=token)
    await speak_wrongly(server, tokens[0])
    async with open_client(server.url) as client:
        login["password"] = NEW_PASSWORD
        tokens.append((await client.call("session.login", **login))["token"])
        await client.call("session.logout")
        await client.closed()
    return tokens


async def ask_wrongly(client: RawClient, token: str) -> None:
    """Calls with the secrets where they do not belong."""
    for secret in (EMAIL, PASSWORD, WALLET, NAME, token):
        for message in (
            secret,
            "{" + secret,
            {"jsonrpc": secret, "id": secret, "method": secret},
            {"jsonrpc": "2.0", "id": 1, "method": secret, "params": {secret: secret}},
            {"jsonrpc": "2.0", "id": secret, "method": "session.resume", "params": {secret: 1}},
            {"jsonrpc": "2.0", "id": secret, "method": "wallet.ack", "params": [secret]},
            {"jsonrpc": "2.0", "id": 2, "method": "wallet.ack", "params": {"sequence": secret}},
            [secret, {"jsonrpc": "2.0", "id": 3, "method": "wallet.get", "params": secret}],
        ):
            await client.ask(message)


async def fail_inside(client: RawClient, server: ServerProcess) -> None:
    """Failures of the server's own, with the secrets at hand: reading a row, and storing one."""
    with open_database(server.database) as database:
        database.execute("UPDATE versions SET hmac = x'ff'")
    assert (await client.fail("wallet.get")).code == -32603
    with open_database(server.database) as database:
        database.execute("UPDATE versions SET hmac = x'68'")
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON versions WHEN new.sequence = 2"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    assert (await client.fail("wallet.push", **state(2, WALLET))).code == -32603
    with open_database(server.database) as database:
        database.execute("DROP TRIGGER refuse")


async def meet_a_locked_database(client: RawClient, server: ServerProcess) -> None:
    with open_database(server.database) as database:
        database.execute("BEGIN IMMEDIATE")
        assert (await client.fail("wallet.push", **state(2, WALLET))).code == 503
        database.execute("ROLLBACK")


async def speak_wrongly(server: ServerProcess, token: str) -> None:
    """What is no JSON-RPC, no WebSocket, no HTTP."""
    for secret in (EMAIL, PASSWORD, WALLET, token):
        for message in (secret.encode(), secret * 2000):  # binary; too large
            bare = await open_socket(server.url)
            with contextlib.suppress(Exception):
                await bare.send(message)
            await bare.wait_closed()
        bare = await open_socket(server.url)
        await bare.send(secret.encode() + b"\xff", text=True)  # no UTF-8
        await bare.wait_closed()
        address = server.url.removeprefix("ws://").removesuffix("/v1")
        await fetch(f"http://{address}/verify?token={secret.replace(' ', '%20')}")
        await fetch(f"http://{address}/v1?{secret.replace(' ', '%20')}")
        admin = f"http://127.0.0.1:{server.settings['admin_port']}"
        await fetch(f"{admin}/metrics?{secret.replace(' ', '%20')}")
        figures = (await fetch(f"{admin}/metrics"))[2]
        assert secret not in figures
        for words in (secret.encode(), f"GET /v1 HTTP/1.1\r\nX: {secret}\r\nY".encode()):
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                raw.sendall(words)
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(f"{secret} /v1 HTTP/1.1\r\n\r\n".encode())
            raw.recv(4096)


def test_a_failed_call_shows_in_its_text_only_what_the_server_said() -> None:
    """The tests' own client gives no more away than it was told, or this file would be blind."""
    assert str(CallFailed({"code": 401, "message": "no"})) == "401 no"
