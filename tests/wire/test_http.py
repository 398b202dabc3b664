import asyncio
import logging
from email.utils import parsedate_to_datetime

import pytest

from tests.wire.harness import TEXT, UPGRADE, Echo, Server, Wire, eventually, frame, serving
from wsserver.transport import Request, Response, build_response


async def ask(server: Server, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields and body of the answer."""
    client = await server.connect()
    client.send(request)
    head, _, body = (await client.read_to_end()).partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return int(status_line.split()[1]), fields, body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def respond(request: Request) -> Response | None:
    if request.path == "/v1":
        return None
    if request.path == "/page":
        return build_response(200, "<p>ü", content_type="text/html; charset=utf-8")
    return build_response(404, "Not found.\n")


async def test_a_plain_get_of_the_websocket_path_is_told_to_upgrade() -> None:
    async with serving(respond=respond) as server:
        status, fields, _ = await ask(server, get("/v1"))

    assert status == 426
    assert fields["Upgrade"] == "websocket"


@pytest.mark.parametrize("upgrade", [False, True], ids=["plain", "upgrade"])
async def test_head_of_the_websocket_path_is_answered_as_a_plain_get_is(upgrade: bool) -> None:
    async with serving(respond=respond) as server:
        request = (UPGRADE + b"\r\n").replace(b"GET", b"HEAD") if upgrade else get("/v1", "HEAD")
        status, fields, body = await ask(server, request)
        _, fields_of_get, body_of_get = await ask(server, get("/v1"))

    assert (status, body) == (426, b"")
    assert fields["Upgrade"] == "websocket"
    assert fields["Content-Length"] == fields_of_get["Content-Length"] == str(len(body_of_get))


async def test_a_response_says_length_date_and_type_and_ends_the_connection() -> None:
    async with serving(respond=respond) as server:
        status, fields, body = await ask(server, get("/page"))

    assert (status, body) == (200, "<p>ü".encode())
    assert fields["Content-Length"] == "5"
    assert fields["Content-Type"] == "text/html; charset=utf-8"
    assert fields["Connection"] == "close"
    assert parsedate_to_datetime(fields["Date"]).tzinfo is not None


async def test_an_unknown_path_is_404() -> None:
    async with serving(respond=respond) as server:
        assert (await ask(server, get("/else")))[0] == 404


async def test_head_is_answered_like_get_without_the_body() -> None:
    async with serving(respond=respond) as server:
        status, fields, body = await ask(server, get("/page", "HEAD"))

    assert (status, fields["Content-Length"], body) == (200, "5", b"")


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("/page", "DELETE"),
        get("/page", "BREW"),
        b"POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["delete", "unknown", "post_with_a_body"],
)
async def test_another_method_is_405(request_bytes: bytes) -> None:
    async with serving(respond=respond) as server:
        status, fields, _ = await ask(server, request_bytes)

    assert status == 405
    assert fields["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /page HTTP/1.1\n\n",
        b"GET /page HTTP/3\r\n\r\n",
        b"GET /page HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /p\xc3\xa4ge HTTP/1.1\r\n\r\n",
        b"GET /page HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        UPGRADE.replace(b"Version: 13", b"Version: 8") + b"\r\n",
        UPGRADE.replace(b"Key: ", b"Key: x") + b"\r\n",
    ],
    ids=["line", "tls", "bare_lf", "protocol", "field", "path", "body", "version", "key"],
)
async def test_a_malformed_request_is_400(request_bytes: bytes) -> None:
    async with serving(respond=lambda request: None) as server:
        assert (await ask(server, request_bytes))[0] == 400
        assert server.applications == []


async def test_a_request_beyond_the_limit_is_431_before_it_ends() -> None:
    async with serving(respond=respond, request_bytes_max=1000) as server:
        endless = b"GET /page HTTP/1.1\r\nX: " + b"x" * 2000

        assert (await ask(server, endless))[0] == 431


async def test_a_request_may_come_one_byte_at_a_time() -> None:
    async with serving(respond=respond) as server:
        client = await server.connect(limit=2**20)
        for byte in get("/page"):
            client.send(bytes([byte]))
            await asyncio.sleep(0)

        assert b" 200 OK\r\n" in await client.read_to_end()


async def test_the_response_arrives_though_the_client_is_still_sending() -> None:
    async with serving(respond=respond) as server:
        body = bytes(300_000)
        request = b"POST /page HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + body

        assert (await ask(server, request))[0] == 405


async def test_an_answer_may_be_awaited() -> None:
    async def ready() -> Response:
        await asyncio.sleep(0)
        return build_response(200, "ready\n")

    async with serving(None, respond=lambda request: ready()) as server:
        status, _, body = await ask(server, get("/readyz"))

    assert (status, body) == (200, b"ready\n")


async def test_who_half_closes_before_its_turn_gets_the_awaited_answer_too() -> None:
    async def ready() -> Response:
        await asyncio.sleep(0)
        return build_response(200, "ready\n")

    async with serving(None, respond=lambda request: ready()) as server:
        wire, opening = Wire(), server.listener.take_in("192.0.2.1")
        assert opening is not None
        opening.connection_made(wire)
        opening.data_received(get("/readyz"))
        if not opening.eof_received():
            wire.close()
        await eventually(lambda: wire.end)
        opening.connection_lost(None)

    assert wire.written.endswith(b"\r\n\r\nready\n")


@pytest.mark.parametrize("behind", [get("/page"), UPGRADE + b"\r\n", b"\x00" * 300_000])
async def test_one_request_is_answered_whatever_is_behind_it(behind: bytes) -> None:
    async with serving(respond=respond) as server:
        client = await server.connect()
        client.send(get("/page") + behind)
        answer = await client.read_to_end()

        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert server.applications == []


@pytest.mark.parametrize("application", [Echo, None], ids=["public", "admin"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("X: 1\r\n" * 100, 200),
        ("X: 1\r\n" * 200, 400),
        ("X: " + "x" * 8000 + "\r\n", 200),
        ("X: " + "x" * 9000 + "\r\n", 400),
        (("X: " + "x" * 4000 + "\r\n") * 5, 431),
        ("X\x00: 1\r\n", 400),
        (": 1\r\n", 400),
        ("X: \x7f\r\n", 400),
        ("X: a\rb\r\n", 400),
    ],
    ids=["many", "too_many", "long", "too_long", "huge", "nul", "nameless", "control", "cr"],
)
async def test_fields_that_are_too_much_or_malformed_are_refused_on_either_port(
    application: type[Echo] | None, fields: str, status: int
) -> None:
    async with serving(application, respond=respond) as server:
        request = f"GET /page HTTP/1.1\r\n{fields}\r\n".encode()
        assert (await ask(server, request))[0] == status
        assert (await ask(server, get("/page")))[0] == 200


async def test_an_upgrade_may_be_awaited_and_frames_behind_the_request_wait_for_it() -> None:
    asked, let_in = asyncio.Event(), asyncio.Event()

    async def ask_elsewhere() -> None:
        asked.set()
        await let_in.wait()

    async with serving(respond=lambda request: ask_elsewhere()) as server:
        client = await server.connect()
        client.send(UPGRADE + b"\r\n" + frame(TEXT, b"early"))
        await asked.wait()
        client.send(frame(TEXT, b"later"))
        assert len(server.listener.connections) == 0

        let_in.set()
        await client.read_head()
        assert [await client.read_text(), await client.read_text()] == [b"early", b"later"]


async def test_an_awaited_answer_that_takes_too_long_is_503() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async with serving(None, respond=lambda request: never(), response_timeout_s=0.01) as server:
        assert (await ask(server, get("/readyz")))[0] == 503


async def test_a_client_that_leaves_while_its_answer_is_awaited_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def slow() -> Response:
        asked.set()
        await gone.wait()
        return build_response(200, "late\n")

    async with serving(respond=lambda request: slow()) as server:
        client = await server.connect()
        client.send(get("/readyz"))
        await asked.wait()
        client.drop()
        gone.set()

        assert (await ask(server, get("/readyz")))[0] == 200
    assert caplog.records == []


async def test_a_responder_that_fails_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def later() -> Response:
        raise LookupError("awaited")

    def fail(request: Request) -> Response:
        raise LookupError("at once")

    async with serving(respond=fail) as server:
        assert (await ask(server, get("/page")))[0] == 500
    async with serving(respond=lambda request: later()) as server:
        assert (await ask(server, get("/page")))[0] == 500

    assert [(r.levelno, r.exc_info is not None) for r in caplog.records] == [
        (logging.ERROR, True)
    ] * 2


async def test_a_port_without_an_application_speaks_http_alone() -> None:
    async with serving(None, respond=respond) as server:
        assert (await ask(server, UPGRADE + b"\r\n"))[0] == 404
        assert (await ask(server, get("/page")))[0] == 200


async def test_our_subprotocol_is_selected_when_it_is_offered() -> None:
    async with serving() as server:
        offered = await server.connect()
        head = await offered.upgrade("Sec-WebSocket-Protocol: other, wallet-sync.v1")

    assert "Sec-WebSocket-Protocol: wallet-sync.v1\r\n" in head


@pytest.mark.parametrize("fields", [[], ["Sec-WebSocket-Protocol: other"]], ids=["none", "other"])
async def test_a_client_without_our_subprotocol_is_served_all_the_same(fields: list[str]) -> None:
    async with serving() as server:
        client = await server.connect()
        head = await client.upgrade(*fields)

    assert "Sec-WebSocket-Protocol" not in head


async def test_compression_is_never_agreed_upon() -> None:
    async with serving() as server:
        client = await server.connect()
        head = await client.upgrade("Sec-WebSocket-Extensions: permessage-deflate")

    assert "Sec-WebSocket-Extensions" not in head


async def test_one_connection_too_many_is_503_and_served_once_there_is_room() -> None:
    async with serving(connections_max=1) as server:
        first = await server.open()

        status, fields, _ = await ask(server, UPGRADE + b"\r\n")
        assert (status, fields["Retry-After"]) == (503, "5")

        first.drop()
        await eventually(lambda: not server.listener.connections)
        await server.open()
