"""The largest messages that a peer may send, made to cost the most: bounded in memory and time."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from wsschema.codec import Batch, Malformed, Request, parse_incoming, parse_message
from wsschema.errors import InvalidParams, InvalidRequest, ParseError, RpcError
from wsschema.limits import Limits

MESSAGE_BYTES = Limits().message_bytes
TIMES_ITS_SIZE_MAX = 45
"""The worst is `{}` over and over: 3 bytes on the wire, 72 in Python, and a list that grows."""
SECONDS_MAX = 3.0
"""Of the processor; it takes some 50 ms."""


def fill(head: bytes, unit: bytes, tail: bytes) -> bytes:
    """As many units as fit, with commas in between."""
    count = (MESSAGE_BYTES - len(head) - len(tail)) // (len(unit) + 1)
    return head + b",".join([unit] * count) + tail


def members(head: bytes, tail: bytes) -> bytes:
    """As many members of different names as fit."""
    count = (MESSAGE_BYTES - len(head) - len(tail)) // 13
    return head + b",".join(b'"%08x":1' % number for number in range(count)) + tail


CALL = b'{"jsonrpc":"2.0","id":1,"method":"wallet.push","params":'
HOSTILE = {
    "a batch of nothing": fill(b"[", b"0", b"]"),
    "a batch of arrays": fill(b"[", b"[]", b"]"),
    "a batch of objects": fill(b"[", b"{}", b"]"),
    "params of objects": fill(CALL + b"[", b"{}", b"]}"),
    "members": members(CALL + b"{", b"}}"),
    "a long number": CALL + b"1" * (MESSAGE_BYTES - 100) + b"}",
    "a long id": b'{"jsonrpc":"2.0","method":"x","id":"' + b"\\u0000" * 200_000 + b'"}',
    "a long method": b'{"jsonrpc":"2.0","id":1,"method":"' + b"\xf0\x9f\x94\x91" * 300_000 + b'"}',
    "a long name": CALL + b'{"' + b"x" * 1_400_000 + b'":1}}',
    "depth": b"[" * MESSAGE_BYTES,
    "not JSON": b'"' + b"\\u12" * 300_000,
}


def read_as_server(payload: bytes) -> None:
    message = parse_message(payload, batch_max=20)
    for item in message.items if isinstance(message, Batch) else (message,):
        match item:
            case Request():
                with pytest.raises(RpcError) as caught:
                    item.read_params(item.find_method())
                assert len(str(caught.value)) < 1000
            case Malformed():
                assert len(str(item.error)) < 1000


def read_as_client(payload: bytes) -> None:
    try:
        parse_incoming(payload)
    except (ParseError, InvalidRequest, InvalidParams) as error:
        assert len(str(error)) < 1000


@pytest.mark.parametrize("read", [read_as_server, read_as_client])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_message_costs_more_than_so_many_times_its_size(
    name: str, read: Callable[[bytes], Any]
) -> None:
    payload = HOSTILE[name]
    assert len(payload) <= MESSAGE_BYTES
    started_s = time.process_time()
    read(payload)
    assert time.process_time() - started_s < SECONDS_MAX

    tracemalloc.start()
    try:
        read(payload)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < TIMES_ITS_SIZE_MAX * len(payload)
