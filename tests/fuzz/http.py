"""Bytes as HTTP, on the public and the admin port: one well-formed answer, or none yet."""

from __future__ import annotations

from typing import Final

from tests.fuzz.choices import Choices
from tests.fuzz.inside import SEGMENT_BYTES_MAX, TRANSPORT_LIMITS, Inside, Line, require
from tests.fuzz.inside import run as run_inside
from tests.wire.harness import UPGRADE

STATUSES: Final = frozenset({101, 200, 400, 403, 404, 405, 426, 431, 505})
"""All that there is an occasion for here: 500 and 503 would be failures of ours."""

TOKENS: Final = (
    *(b"GET /v1 HTTP/1.1\r\n", b"HEAD /", b"POST ", b" HTTP/1.0\r\n", b"\r\n\r\n", b"\n\n"),
    *(b"/verify?token=", b"/reset?token=", b"/healthz", b"/readyz", b"/metrics", b"http://x/v1"),
    *(b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Sec-WebSocket-Version: 13\r\n"),
    *(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"Host: localhost\r\n"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"X-Forwarded-For: ::1, "),
    *(b"Sec-WebSocket-Protocol: wallet-sync.v1\r\n", b"Expect: 100-continue\r\n", b"\x16\x03\x01"),
    *(b"Sec-WebSocket-Extensions: permessage-deflate\r\n", b"Origin: null\r\n", b"%00%ff%zz"),
)
PATHS: Final = (
    *(b"/v1", b"/verify?token=" + b"a" * 64, b"/reset?token=" + b"0" * 64, b"/verify?token=<fuzz>"),
    *(b"/healthz", b"/readyz", b"/metrics", b"/", b"//v1", b"/v1?x=1", b"/v1/", b"*", b""),
    *(b"http://localhost/v1", b"/verify?token=a;token=b", b"/verify?" + b"&" * 3000, b"/\xff"),
)
METHODS: Final = (
    *(b"GET", b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"CONNECT", b"get", b""),
    *(b"PRI", b"G\x00T", b"TRACE"),
)


def run(data: bytes) -> None:
    """Decisions: which port, what is sent, and where it is cut."""
    run_inside(lambda: _converse(Choices(data)))


async def _converse(choices: Choices) -> None:
    inside = Inside("email")
    listener = inside.listen_admin() if choices.one_in(3) else inside.public
    line, other = Line(listener), Line(listener)
    pipelined = 1 + choices.one_in(6)
    stream = b"".join(_request(choices) for _ in range(pipelined))
    cut = choices.cut(stream)
    shuts = choices.one_in(5)
    for number, part in enumerate(cut):
        line.send(part)
        at_most = TRANSPORT_LIMITS.request_bytes_max + SEGMENT_BYTES_MAX
        require(line.held_bytes <= at_most, "what is held is bounded", line.held_bytes)
        if number % 50 == 0:
            await inside.settle(line)
    if shuts:
        line.shut()
    await inside.settle(line)
    _check_answer(line, stream)
    await _check_other(inside, other, is_public=listener is inside.public)
    inside.close(line, other)


def _request(choices: Choices) -> bytes:
    if choices.one_in(4):
        return choices.take(choices.below(300))
    if choices.one_in(6):
        return UPGRADE + b"".join(choices.pick(TOKENS) for _ in range(choices.below(4))) + b"\r\n"
    end = b"\r\n" if not choices.one_in(16) else choices.pick([b"\n", b"\r", b"\n\r", b"\r\n "])
    version = choices.pick([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/2", b"http/1.1", b""])
    request = choices.pick(METHODS) + b" " + choices.pick(PATHS) + b" " + version + end
    for _ in range(choices.below(8)):
        request += _field(choices) + end
    return request + (end if not choices.one_in(8) else b"")


def _field(choices: Choices) -> bytes:
    match choices.below(8):
        case 0:
            name = choices.pick([b"X", b"Host", b"", b"X ", b"Sec-WebSocket-Key", b"\xc3\xa4"])
            return name + choices.pick([b": ", b":", b" : ", b""]) + choices.take(choices.below(30))
        case 1:
            return b"X: " + b"x" * choices.pick([100, 2000, 5000, 9000])
        case 2:
            return b"X-Forwarded-For: " + choices.pick(
                [b"::1", b"192.0.2.9, 203.0.113.1", b"fe80::1%eth0", b"1.2.3.4:5", b",,,", b"\xff"]
            )
        case 3:
            return b"Content-Length: " + choices.pick([b"0", b"5", b"-1", b"1e9", b"9" * 400, b""])
        case _:
            return choices.pick(TOKENS).removesuffix(b"\r\n")


def _check_answer(line: Line, stream: bytes) -> None:
    if not line.written:
        require(line.reading or line.over, "it waits for more, and reads")
        return
    head, separator, body = line.written.partition(b"\r\n\r\n")
    require(separator, "a head is whole", line.written)
    status_line, *fields = head.decode("ascii").split("\r\n")
    require(status_line.startswith("HTTP/1.1 "), "a status line", status_line)
    status = int(status_line[9:12])
    require(status in STATUSES, "a documented status", status_line)
    require(all(": " in each for each in fields), "fields are well-formed", fields)
    named = dict(each.split(": ", 1) for each in fields)
    if status == 101:
        require(named["Upgrade"] == "websocket", "an upgrade", named)
        return
    require(named["Connection"] == "close", "each answer is the last", named)
    lengths = {int(named["Content-Length"])} | ({0} if stream.startswith(b"HEAD ") else set())
    require(len(body) in lengths, "a body of the length that it says", named)
    require(b"<fuzz>" not in body, "nothing of a request is in a page", body)
    require(line.end, "and the connection ends", line.end)


async def _check_other(inside: Inside, other: Line, *, is_public: bool) -> None:
    other.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await inside.settle(other)
    status = b"404" if is_public else b"200"
    require(other.written.startswith(b"HTTP/1.1 " + status), "the other is served", other.written)
