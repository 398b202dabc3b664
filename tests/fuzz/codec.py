"""Bytes as a message: a result or a documented error, soon, and what was read can be said again."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.fuzz.choices import Choices
from tests.fuzz.grammar import Known, message
from tests.fuzz.inside import require
from wsschema.codec import (
    ABSENT,
    Answer,
    Batch,
    Malformed,
    Request,
    UnknownNotification,
    decode_result,
    encode_call,
    encode_error,
    encode_notification,
    parse_incoming,
    parse_message,
)
from wsschema.errors import InvalidParams, InvalidRequest, MethodNotFound, ParseError, RpcError
from wsschema.messages import METHODS
from wsschema.samples import SAMPLE_CALLS

SECONDS_MAX: Final = 2.0
"""Of the processor, for some kilobytes that take microseconds."""

TOKENS: Final = (
    *(b'{"jsonrpc":"2.0","id":1,"method":"', b'","params":{', b'"result":', b'"error":{"code":'),
    *(b'"data":{"reason":"', b'"wallet":{"sequence":', b'"retryAfterMs":', b"[[[[[[[[", b"\\ud800"),
    *(f'"{name}"'.encode() for name in METHODS),
    *(b'"kdf":{"name":"scrypt","n":16384,"r":8,"p":1}', b"2026-01-02T03:04:05.678Z", b"1e400"),
)


def run(data: bytes) -> None:
    """The bytes themselves, or where they begin with a 0, a message that they decide."""
    payload = message(Choices(data[1:]), Known()) if data[:1] == b"\x00" else data
    started_s = time.process_time()
    _serve(payload)
    _hear(payload)
    require(time.process_time() - started_s < SECONDS_MAX, "it takes long", len(payload))


def _serve(payload: bytes) -> None:
    read = parse_message(payload, batch_max=20)
    again = parse_message(bytearray(payload), batch_max=20)
    require(repr(again) == repr(read), "a buffer is read the same", again, read)
    items = read.items if isinstance(read, Batch) else (read,)
    require(1 <= len(items) <= 20, "a batch is bounded", len(items))
    for item in items:
        if isinstance(item, Malformed):
            require(type(item.error) in (ParseError, InvalidRequest), "documented", item.error)
            _answer_with(item.id, item.error)
        else:
            _call(item)


def _call(request: Request) -> None:
    try:
        call = request.read_params(request.find_method())
    except (MethodNotFound, InvalidParams) as error:
        _answer_with(None if request.id is ABSENT else request.id, error)
        return
    said = encode_call(None if request.id is ABSENT else request.id, call)
    again = parse_message(said, batch_max=1)
    assert isinstance(again, Request)
    require(again.id is None or again.id == request.id, "its id comes back", again.id)
    require(again.read_params(again.find_method()) == call, "it is the same call", said)


def _answer_with(call_id: Any, error: RpcError) -> None:
    said = encode_error(call_id, error)
    require(len(said) < 3000 + 12 * len(str(call_id)), "no error is long", len(said))
    heard = parse_incoming(said)
    assert isinstance(heard, Answer)
    require(heard.id == call_id, "it is answered under its id", heard.id)
    assert heard.error is not None
    require((type(heard.error), heard.error.data()) == (type(error), error.data()), "same error")


def _hear(payload: bytes) -> None:
    try:
        heard = parse_incoming(payload)
    except (ParseError, InvalidRequest):
        return
    if isinstance(heard, UnknownNotification):
        return
    if not isinstance(heard, Answer):
        again = parse_incoming(encode_notification(heard))
        require(type(again) is type(heard), "it is the same notification", again)
    elif heard.error is not None:
        encode_error(heard.id, heard.error)
    else:
        for call in SAMPLE_CALLS:
            try:
                decode_result(call, heard.result)
            except InvalidRequest as error:
                require(len(str(error)) < 3000, "no error is long", len(str(error)))
