"""What the doctor finds, on ways to a server that each have something wrong."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tests.certificates import Authority, Files
from tests.command.conftest import MakeUser, User
from tests.e2e.serving import ServerProcess, find_free_port
from wsclient.command.doctor import Examination, Finding, Verdict
from wsschema.fields import encode
from wsschema.messages import GetServerInfo, ServerInfo
from wsschema.samples import SAMPLE_RESULTS


async def examine(url: str, **options: Any) -> dict[str, Finding]:
    """What is found at each step, in their order."""
    return {finding.step: finding async for finding in Examination(url, **options).findings()}


async def find_bad(url: str, **options: Any) -> Finding:
    """The step at which the examination ended."""
    *before, last = (await examine(url, **options)).values()
    assert last.verdict is Verdict.BAD
    assert all(finding.verdict is not Verdict.BAD for finding in before)
    return last


INFO = next(
    result
    for call, result in SAMPLE_RESULTS
    if isinstance(call, GetServerInfo) and isinstance(result, ServerInfo)
)


@contextlib.asynccontextmanager
async def pretend_server(
    *, info: ServerInfo = INFO, date: str | None = None, answers: bool = True
) -> AsyncIterator[str]:
    """The address of a server that tells what it is, and the time, as a test wants it."""

    async def answer(connection: ServerConnection) -> None:
        async for message in connection:
            call = json.loads(message)
            result = encode(info) if call["method"] == "server.info" else {}
            text = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result})
            await connection.send(text if answers else "hello")

    def set_date(_: ServerConnection, __: Request, response: Response) -> None:
        del response.headers["Date"]
        if date is not None:
            response.headers["Date"] = date

    async with serve(answer, "127.0.0.1", 0, process_response=set_date) as server:
        [listening] = server.sockets
        yield f"ws://127.0.0.1:{listening.getsockname()[1]}/v1"


@contextlib.asynccontextmanager
async def listen(answer: bytes, files: Files | None = None) -> AsyncIterator[int]:
    """The port of something that answers everybody with the same, over TLS if it has files."""
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.chain, files.key)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.write(answer)
        await writer.drain()

    async with take_connections(take, context) as port:
        yield port


Take = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def take_connections(take: Take, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port on which each connection is taken, and closed at the latest at the end."""
    taken: set[asyncio.Task[Any]] = set()

    async def take_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        taken.add(task)
        try:
            with contextlib.suppress(OSError, EOFError):
                await take(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(take_one, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for task in taken:
        task.cancel()
    if taken:
        await asyncio.wait(taken)


def http(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()


async def test_all_is_well_with_a_server_on_this_machine(server_url: str) -> None:
    findings = await examine(server_url)

    steps = ["address", "proxy", "dns", "tcp", "tls", "websocket", "protocol", "clock", "limits"]
    assert list(findings) == [*steps, "round trip"]
    assert findings.pop("tls").verdict is Verdict.SKIPPED
    assert {finding.verdict for finding in findings.values()} == {Verdict.GOOD}
    assert "262,144" in findings["limits"].text


async def test_tls_by_an_authority_of_ones_own_is_well_while_it_lasts(
    tmp_path: Path, own_server: ServerProcess
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("server", days=100)
    own_server.end()
    own_server.settings |= {"tls_cert": files.chain, "tls_key": files.key}
    await own_server.start()

    findings = await examine(own_server.url, ca=str(authority.path))

    assert findings["tls"].verdict is Verdict.GOOD
    assert "test authority" in findings["tls"].text
    assert "99 more days" in findings["tls"].text
    assert findings["round trip"].verdict is Verdict.GOOD


async def test_a_certificate_that_expires_soon_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with listen(b"", authority.issue("server", days=3)) as port:
        findings = await examine(f"wss://127.0.0.1:{port}/v1", ca=str(authority.path))

    assert findings["tls"].verdict is Verdict.DOUBTFUL


async def test_an_authority_that_nobody_knows_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "Joe's own")
    async with listen(b"", authority.issue("server")) as port:
        found = await find_bad(f"wss://127.0.0.1:{port}/v1")

    assert found.step == "tls"
    assert found.advice is not None
    assert "Joe's own" in found.advice
    assert "--ca" in found.advice


async def test_an_expired_certificate_is_told_with_its_day(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with listen(b"", authority.issue("server", days=-1)) as port:
        found = await find_bad(f"wss://127.0.0.1:{port}/v1", ca=str(authority.path))

    assert found.advice is not None
    assert time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86400)) in found.advice


async def test_a_certificate_for_another_name_tells_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    resolve_to(monkeypatch, "127.0.0.1")
    async with listen(b"", authority.issue("server")) as port:
        found = await find_bad(f"wss://sync.example.com:{port}/v1", ca=str(authority.path))

    assert found.advice is not None
    assert "127.0.0.1, localhost" in found.advice


async def test_an_authoritys_file_that_is_none_is_a_misuse(tmp_path: Path) -> None:
    async with listen(b"") as port:
        found = await find_bad(f"wss://127.0.0.1:{port}/v1", ca=str(tmp_path / "none"))

    assert (found.step, found.exit_code) == ("tls", 2)


async def test_a_server_without_tls_is_told_from_one_with(server_url: str) -> None:
    found = await find_bad(server_url.replace("ws://", "wss://"))

    assert found.step == "tls"
    assert "does not speak TLS" in found.text


@pytest.mark.parametrize("url", ["sync.example.com", "https://sync.example.com/v1", "ws://:1/v1"])
async def test_what_is_no_address_is_a_misuse(url: str) -> None:
    found = await find_bad(url)

    assert (found.step, found.exit_code) == ("address", 2)


async def test_a_name_that_nobody_has_is_told() -> None:
    found = await find_bad("wss://nowhere.invalid/v1")

    assert (found.step, found.exit_code) == ("dns", 3)
    assert "nowhere.invalid" in found.text


async def test_a_port_on_which_nothing_listens_is_told() -> None:
    found = await find_bad(f"ws://127.0.0.1:{find_free_port()}/v1")

    assert (found.step, found.exit_code) == ("tcp", 3)


async def test_an_address_that_leads_nowhere_beside_one_that_does_is_told(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.9")
    monkeypatch.setenv("no_proxy", "*")

    findings = await examine(
        server_url.replace("127.0.0.1", "sync.example.com"), allow_plaintext=True
    )

    # The server listens on the first one alone.
    assert findings["tcp"].verdict is Verdict.DOUBTFUL
    assert "127.0.0.9: nothing listens there" in findings["tcp"].text


async def test_plaintext_to_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1")
    async with listen(b"") as port:
        findings = await examine(f"ws://sync.example.com:{port}/v1")

    assert findings["address"].verdict is Verdict.DOUBTFUL
    assert findings["websocket"].verdict is Verdict.BAD
    assert "wss://" in str(findings["websocket"].advice)


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (http("404 Not Found"), "the path may be wrong"),
        (http("502 Bad Gateway"), "does not reach it"),
        (http("400 Bad Request"), "Upgrade"),
        (http("200 OK"), "Upgrade"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is this the address"),
    ],
)
async def test_what_answers_in_place_of_the_server_is_told(answer: bytes, advice: str) -> None:
    async with listen(answer) as port:
        found = await find_bad(f"ws://127.0.0.1:{port}/v1")

    assert found.step == "websocket"
    assert advice in str(found.advice)


async def test_another_path_than_the_servers_is_doubtful(server_url: str) -> None:
    findings = await examine(server_url.replace("/v1", "/v2"))

    assert findings["address"].verdict is Verdict.DOUBTFUL
    assert findings["websocket"].verdict is Verdict.BAD


@pytest.mark.parametrize(("ahead_s", "said"), [(3600, "behind"), (-3600, "ahead of")])
async def test_a_clock_that_is_wrong_is_told(ahead_s: int, said: str) -> None:
    date = email.utils.formatdate(time.time() + ahead_s, usegmt=True)
    async with pretend_server(date=date) as url:
        findings = await examine(url)

    assert findings["clock"].verdict is Verdict.DOUBTFUL
    assert said in findings["clock"].text
    assert findings["round trip"].verdict is Verdict.GOOD


@pytest.mark.parametrize("date", [None, "yesterday"])
async def test_a_server_that_does_not_tell_its_time_is_no_fault(date: str | None) -> None:
    async with pretend_server(date=date) as url:
        findings = await examine(url)

    assert findings["clock"].verdict is Verdict.SKIPPED


async def test_a_newer_protocol_is_told() -> None:
    async with pretend_server(info=replace(INFO, protocol=2)) as url:
        found = await find_bad(url)

    assert (found.step, found.exit_code) == ("protocol", 1)


async def test_a_websocket_server_of_another_kind_is_told() -> None:
    async with pretend_server(answers=False) as url:
        found = await find_bad(url)

    assert found.step == "protocol"
    assert "no wallet-sync server" in found.text


async def test_a_proxy_is_gone_through_and_its_password_not_shown(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(server_url.split(":")[2].split("/")[0])
    async with forward(port) as proxy_port:
        monkeypatch.setenv("ws_proxy", f"http://joe:secret@127.0.0.1:{proxy_port}")
        findings = await examine(f"ws://sync.example.com:{port}/v1", allow_plaintext=True)

    assert findings["proxy"].text.startswith(f"by way of http://127.0.0.1:{proxy_port}")
    assert findings["round trip"].verdict is Verdict.GOOD
    assert not any("secret" in finding.text for finding in findings.values())


async def test_a_proxy_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listen(http("407 Proxy Authentication Required")) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        findings = await examine("wss://sync.example.com/v1")

    assert findings["tls"].verdict is Verdict.SKIPPED
    assert findings["websocket"].verdict is Verdict.BAD
    assert "no_proxy" in str(findings["websocket"].advice)


async def test_a_proxy_of_an_unknown_kind_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "gopher://joe:secret@127.0.0.1")

    found = await find_bad("wss://sync.example.com/v1")

    assert found.step == "proxy"
    assert "secret" not in f"{found.text} {found.advice}"


def test_the_login_is_examined_where_there_is_a_profile(joe: User) -> None:
    joe.push("one")

    steps = {step["step"]: step for step in joe.run("doctor", "--json").lines}

    assert steps["login"] == {
        "step": "login",
        "verdict": "good",
        "text": f"{joe.email}, the wallet is at 1",
        "advice": None,
    }


def test_who_is_not_logged_in_is_told(joe: User) -> None:
    joe.run("logout")

    assert "wsclient login" in joe.run("doctor", code=4).stdout


def test_without_a_profile_the_way_to_the_server_is_examined(make_user: MakeUser) -> None:
    steps = {step["step"]: step for step in make_user().run("doctor", "--json").lines}

    assert steps["round trip"]["verdict"] == "good"
    assert steps["login"]["verdict"] == "skipped"


def test_another_server_is_examined_without_the_login(joe: User) -> None:
    moved = joe.url.replace("127.0.0.1", "localhost")

    steps = {step["step"]: step for step in joe.run("doctor", "--server", moved, "--json").lines}

    assert steps["login"]["verdict"] == "skipped"


def test_what_is_wrong_is_the_exit_code(make_user: MakeUser) -> None:
    url = f"ws://127.0.0.1:{find_free_port()}/v1"

    said = make_user().run("doctor", "--server", url, code=3)

    assert "\N{BALLOT X} tcp" in said.stdout
    make_user("other").run("doctor", "--server", "nonsense", code=2)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name is that of these addresses."""

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@contextlib.asynccontextmanager
async def forward(port: int) -> AsyncIterator[int]:
    """The port of a proxy that leads everybody to the same port of this machine."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))
        finally:
            there_writer.close()

    async with take_connections(take) as proxy_port:
        yield proxy_port


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while read := await reader.read(65536):
        writer.write(read)
        await writer.drain()
    writer.close()
