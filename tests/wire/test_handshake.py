"""A request is judged as websockets' core judges it, known or not."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from wsserver import handshake
from wsserver.handshake import KNOWN_HEAD_BYTES_MAX, Handshake, read_request

UPGRADE_FIELDS = [
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: {key}",
    "Sec-WebSocket-Version: 13",
]

OTHER_FIELDS = [
    "Host: other",
    "upgrade: WebSocket",
    "Upgrade: h2c",
    "Upgrade: websocket, h2c",
    "Connection: keep-alive, Upgrade",
    "connection:close",
    "Connection: ,",
    "SEC-WEBSOCKET-KEY: {key}",
    "Sec-WebSocket-Key: short",
    "Sec-WebSocket-Key:{key}",
    "Sec-WebSocket-Version: 8",
    "Sec-WebSocket-Protocol: wallet-sync.v1",
    "Sec-WebSocket-Protocol: other, wallet-sync.v1",
    "Sec-WebSocket-Protocol: other",
    "Sec-WebSocket-Protocol: ,,",
    "Sec-WebSocket-Protocol: a b",
    "Sec-WebSocket-Extensions: permessage-deflate",
    "Sec-WebSocket-Extensions: ;",
    "Origin: https://wallet.example",
    "Origin: null",
    "Content-Length: 0",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "X-Forwarded-For: 192.0.2.1",
    "no colon",
    " folded: line",
    "X: \x00",
    "X: \xfc",
    "X: Sec-WebSocket-Key: {key}",
    "X: a\nSec-WebSocket-Key: {key}",
    "X: a\rb",
    "X: {key}",
    "X: {key}",
]

keys = st.one_of(
    st.binary(min_size=16, max_size=16).map(base64.b64encode),
    st.binary(min_size=14, max_size=18).map(base64.b64encode),
    st.sampled_from([b"A" * 21 + b"B==", b"", b"A" * 22, b"=" * 24, b"A" * 20 + b"!A=="]),
)


def select_ours(core: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((name for name in offered if name == "wallet-sync.v1"), None)


def judge(head: bytes) -> tuple[Request | None, bytes | int]:
    """What the core makes of a head: its request, and the upgrade or the status of a refusal."""
    core = ServerProtocol(select_subprotocol=select_ours)
    core.receive_data(head)
    match core.events_received():
        case [Request() as request]:
            if request.method == "HEAD":
                return request, 426
            if request.method != "GET":
                return request, 405
            response = core.accept(request)
            return request, response.serialize() if response.status_code == 101 else (
                response.status_code
            )
    assert core.state is State.CONNECTING
    return None, 405 if head.startswith(b"POST ") else 400


def undated(answer: bytes) -> bytes:
    return re.sub(rb"\r\nDate: [^\r]+ GMT\r\n", b"\r\nDate:\r\n", answer)


def without_key(request: Request) -> list[tuple[str, str]]:
    fields = request.headers.raw_items()
    return [field for field in fields if field[0].lower() != "sec-websocket-key"]


@settings(max_examples=500, deadline=None)
@given(
    first_line=st.sampled_from(
        ["GET /v1 HTTP/1.1"] * 6
        + ["GET /verify?token=x HTTP/1.1", "HEAD /v1 HTTP/1.1", "POST /v1 HTTP/1.1"]
        + ["GET /v1 HTTP/1.0", "GET /v1 HTTP/2", "BREW /v1 HTTP/1.1", "GET  HTTP/1.1", "nonsense"]
    ),
    dropped=st.sets(st.integers(0, 20), max_size=2),
    added=st.lists(st.sampled_from(OTHER_FIELDS), max_size=3),
    order=st.randoms(use_true_random=False),
    shuffled=st.booleans(),
    end=st.sampled_from(["\r\n"] * 9 + ["\n"]),
    keys=st.lists(keys, min_size=1, max_size=3),
)
def test_every_request_gets_the_answer_that_the_core_gives(
    first_line: str,
    dropped: set[int],
    added: list[str],
    order: random.Random,
    shuffled: bool,
    end: str,
    keys: list[bytes],
) -> None:
    fields = [field for i, field in enumerate(UPGRADE_FIELDS) if i not in dropped] + added
    if shuffled:
        order.shuffle(fields)
    template = end.join([first_line, *fields, "", ""]).encode("iso-8859-1")
    for key in keys:
        head = template.replace(b"{key}", key)
        request, expected = judge(head)
        answer = read_request(head)
        if not isinstance(answer, Handshake):
            assert answer.status_code == expected
            continue
        assert request is not None
        assert (answer.request.method, answer.request.path) == (request.method, request.path)
        assert without_key(answer.request) == without_key(request)
        accepted = answer.accept()
        if isinstance(accepted, bytes):
            assert isinstance(expected, bytes)
            assert undated(accepted) == undated(expected)
        else:
            assert accepted.status_code == expected


def ask(*fields: str, key: bytes = b"A" * 22 + b"==") -> bytes:
    lines = ["GET /v1 HTTP/1.1", *UPGRADE_FIELDS, *fields, "", ""]
    return "\r\n".join(lines).encode().replace(b"{key}", key)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The heads that are parsed from here on, none of which is known."""
    heads: list[bytes] = []
    parse = handshake._parse

    def keep(head: bytes) -> Request | None:
        heads.append(head)
        return parse(head)

    handshake._read_upgrade.cache_clear()
    monkeypatch.setattr(handshake, "_parse", keep)
    return heads


def test_a_request_that_differs_in_its_key_alone_is_not_parsed_again(parsed: list[bytes]) -> None:
    first, second = base64.b64encode(bytes(16)), base64.b64encode(b"x" * 16)
    answers = [read_request(ask(key=key)) for key in (first, second, first)]

    assert len(parsed) == 1
    accepted = [answer.accept() for answer in answers if isinstance(answer, Handshake)]
    assert accepted[0] == accepted[2] != accepted[1]


@pytest.mark.parametrize(
    "fields",
    [["X-Forwarded-For: 192.0.2.{}"], ["X: " + "x" * KNOWN_HEAD_BYTES_MAX]],
    ids=["another", "long"],
)
def test_what_differs_elsewhere_or_is_long_is_parsed_each_time(
    fields: list[str], parsed: list[bytes]
) -> None:
    for number in range(3):
        read_request(ask(*(field.format(number) for field in fields)))

    assert len(parsed) == 3


def test_what_is_known_is_bounded(parsed: list[bytes]) -> None:
    for number in range(2 * handshake.KNOWN_REQUESTS_MAX):
        read_request(ask(f"X: {number}"))

    assert handshake._read_upgrade.cache_info().currsize == handshake.KNOWN_REQUESTS_MAX


def test_the_date_is_that_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = read_request(ask())
    assert isinstance(answer, Handshake)
    for second, date in [(0, b"Thu, 01 Jan 1970 00:00:00 GMT"), (61, b"00:01:01 GMT")]:
        clock = SimpleNamespace(time=iter([second + 0.9]).__next__)
        monkeypatch.setattr("wsserver.handshake.time", clock)
        accepted = answer.accept()
        assert isinstance(accepted, bytes)
        assert date in accepted
