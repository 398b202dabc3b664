"""The codec: bytes to calls and answers, and back; nothing that arrives makes it fail otherwise."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
    encode_result,
    parse_incoming,
    parse_message,
)
from wsschema.errors import (
    BadToken,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    ParseError,
    RpcError,
)
from wsschema.fields import encode
from wsschema.messages import (
    METHOD_OF,
    METHODS,
    NOTIFICATIONS,
    Call,
    Discover,
    GetWallet,
    Ping,
    PushWallet,
    Receipt,
    WalletState,
)
from wsschema.samples import HMAC, SAMPLE_CALLS, SAMPLE_NOTIFICATIONS, SAMPLE_RESULTS, STATE, THEN


def parse(payload: bytes | str) -> Request | Malformed | Batch:
    return parse_message(payload.encode() if isinstance(payload, str) else payload, batch_max=20)


def request(payload: bytes | str) -> Request:
    message = parse(payload)
    assert isinstance(message, Request)
    return message


def malformed(payload: bytes | str) -> Malformed:
    message = parse(payload)
    assert isinstance(message, Malformed)
    return message


def answer(payload: bytes | str) -> Answer:
    message = parse_incoming(payload)
    assert isinstance(message, Answer)
    return message


# A server's side.


@pytest.mark.parametrize("call", SAMPLE_CALLS, ids=lambda call: type(call).__name__)
def test_every_call_comes_back_from_the_wire(call: Call[Any]) -> None:
    arrived = request(encode_call("a", call))
    assert arrived.id == "a"
    assert arrived.find_method() is METHOD_OF[type(call)]
    assert arrived.read_params(arrived.find_method()) == call


@pytest.mark.parametrize("call_id", ["a", "", "\u00e9", 0, -1, 7, 1.5, 2**53 - 1, 2**64 - 1, None])
def test_an_id_of_every_kind_is_echoed(call_id: Any) -> None:
    arrived = request(encode_call(call_id, Ping()))
    assert arrived.id == call_id
    assert arrived.id is not ABSENT
    assert type(arrived.id) is type(call_id)
    for payload in (encode_result(call_id, {}), encode_error(call_id, BadToken())):
        assert json.loads(payload)["id"] == call_id
        assert answer(payload).id == call_id


def test_without_an_id_it_is_a_notification() -> None:
    assert request('{"jsonrpc":"2.0","method":"server.ping"}').id is ABSENT


@pytest.mark.parametrize("call_id", ["true", "false", "[]", "[1]", "{}"])
def test_an_id_of_another_kind_is_refused_and_not_echoed(call_id: str) -> None:
    refused = malformed(f'{{"jsonrpc":"2.0","id":{call_id},"method":"server.ping"}}')
    assert refused.id is None
    assert type(refused.error) is InvalidRequest
    assert "id must be a string, a number or null" in refused.error.message


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        ({"id": "a", "method": "server.ping"}, "jsonrpc"),
        ({"id": "a", "method": "server.ping", "jsonrpc": ["2.0"]}, "jsonrpc"),
        ({"id": "a", "jsonrpc": "2.0"}, "method"),
        ({"id": "a", "jsonrpc": "2.0", "method": None}, "method"),
    ],
)
def test_a_malformed_call_with_a_readable_id_is_answered_under_it(
    envelope: dict[str, Any], why: str
) -> None:
    refused = malformed(json.dumps(envelope))
    assert refused.id == "a"
    assert why in refused.error.message


def test_unknown_members_of_the_envelope_are_ignored() -> None:
    arrived = request('{"jsonrpc":"2.0","id":1,"method":"server.ping","trace":{"a":[1]}}')
    assert arrived == Request(1, "server.ping", {})


@pytest.mark.parametrize("params", ["", ',"params":{}', ',"params":[]'])
def test_no_params_an_empty_object_and_an_empty_array_are_the_same(params: str) -> None:
    arrived = request(f'{{"jsonrpc":"2.0","id":1,"method":"wallet.get"{params}}}')
    assert arrived.read_params(arrived.find_method()) == GetWallet()


@pytest.mark.parametrize("params", ["[1]", "[{}]", "[null]", "null", '"x"', "1", "true"])
def test_params_of_another_type_are_refused_as_params(params: str) -> None:
    arrived = request(f'{{"jsonrpc":"2.0","id":1,"method":"wallet.get","params":{params}}}')
    with pytest.raises(InvalidParams) as caught:
        arrived.read_params(arrived.find_method())
    assert caught.value.data() == {"path": "params", "reason": "wrong_type"}
    assert caught.value.message.startswith("Invalid params: params must be an object, not ")


def test_an_unknown_method_is_named_cut_short() -> None:
    with pytest.raises(MethodNotFound) as caught:
        Request(1, "x" * 1000, {}).find_method()
    assert caught.value.message == "Method not found: " + "x" * 64


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"jsonrpc":"2.0","id":"\xed\xa0\x80"}',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b"NaN",
        b"1e400",
        b"[" * 100_000,
        b"[" * 1100 + b"]" * 1100,
        b'{"a":' * 1100 + b"1" + b"}" * 1100,
    ],
    ids=repr,
)
def test_what_is_no_json_is_a_parse_error(payload: bytes) -> None:
    refused = malformed(payload)
    assert refused.id is None
    assert type(refused.error) is ParseError


@pytest.mark.parametrize("count", [0, 21, 1000])
def test_a_batch_that_is_empty_or_too_large_gets_one_error_that_says_the_limit(count: int) -> None:
    refused = malformed(orjson.dumps([1] * count))
    assert refused.id is None
    assert type(refused.error) is InvalidRequest
    assert f"1 to 20 calls; this one has {count}" in refused.error.message


@pytest.mark.parametrize("count", [1, 20])
def test_a_batch_within_the_limit_is_read_call_by_call(count: int) -> None:
    message = parse(b"[" + b",".join([encode_call(1, Ping())] * count) + b"]")
    assert message == Batch((Request(1, "server.ping", {}),) * count)


def test_two_calls_may_have_the_same_id() -> None:
    message = parse(b"[" + b",".join([encode_call(1, Ping()), encode_call(1, Discover())]) + b"]")
    assert isinstance(message, Batch)
    assert [item.id for item in message.items] == [1, 1]


def test_the_last_of_two_members_of_one_name_counts() -> None:
    assert request('{"jsonrpc":"2.0","id":1,"id":2,"method":"server.ping"}').id == 2


def test_a_message_may_come_in_a_buffer() -> None:
    buffer = bytearray(encode_call(1, Ping()))
    assert parse_message(buffer, batch_max=20) == Request(1, "server.ping", {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "id": st.integers() | st.text() | JSON,
        "method": st.sampled_from([*METHODS, *NOTIFICATIONS]) | JSON,
        "params": JSON,
        "result": JSON,
        "error": JSON | st.fixed_dictionaries({"code": st.integers(), "data": JSON}),
    },
)
DOCUMENTS = (ENVELOPES | st.lists(ENVELOPES | JSON, max_size=25) | JSON).map(json.dumps)


def read_all(message: Request | Malformed | Batch) -> None:
    """What a server does with a message; raises what it may not."""
    for item in message.items if isinstance(message, Batch) else (message,):
        if isinstance(item, Malformed):
            assert isinstance(item.error, ParseError | InvalidRequest)
            encode_error(item.id, item.error)
            continue
        try:
            item.read_params(item.find_method())
        except (MethodNotFound, InvalidParams) as error:
            assert isinstance(item.id, str | int | float | None) or item.id is ABSENT
            encode_error(None if item.id is ABSENT else item.id, error)


@given(DOCUMENTS)
@example('{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"server.ping"}')
def test_no_json_makes_a_server_fail(document: str) -> None:
    read_all(parse(document))


@given(st.binary())
def test_no_bytes_make_a_server_fail(payload: bytes) -> None:
    read_all(parse(payload))


@given(st.sampled_from([*METHODS.values()]), st.data())
def test_no_params_make_a_server_fail(method: Any, data: st.DataObject) -> None:
    sample = next(encode(call) for call in SAMPLE_CALLS if type(call) is method.params)
    changed = {name: data.draw(st.just(value) | JSON) for name, value in sample.items()}
    with contextlib.suppress(InvalidParams):
        Request(1, method.name, changed).read_params(method)


# A client's side.


@pytest.mark.parametrize(("call", "result"), SAMPLE_RESULTS, ids=lambda each: type(each).__name__)
def test_every_result_comes_back_from_the_wire(call: Call[Any], result: Any) -> None:
    assert decode_result(call, answer(encode_result(1, result)).result) == result


@pytest.mark.parametrize("message", SAMPLE_NOTIFICATIONS, ids=lambda each: type(each).__name__)
def test_every_notification_comes_back_from_the_wire(message: Any) -> None:
    payload = encode_notification(message)
    assert "id" not in json.loads(payload)
    assert parse_incoming(payload) == message
    assert parse_incoming(payload.decode()) == message


def test_an_error_comes_back_as_itself() -> None:
    arrived = answer(encode_error(1, BadToken()))
    assert type(arrived.error) is BadToken
    assert arrived.result is None


def test_a_call_without_params_sends_none() -> None:
    assert "params" not in json.loads(encode_call(1, Ping()))


def test_a_push_with_a_receipt_is_answered_with_less() -> None:
    push = PushWallet(7, "-", HMAC, receipt=True)
    assert isinstance(decode_result(push, encode(STATE)), WalletState)
    assert isinstance(decode_result(push, encode(Receipt(7, HMAC, THEN))), Receipt)


def test_a_malformed_result_is_refused_by_its_path() -> None:
    with pytest.raises(InvalidRequest, match=r"malformed result: encryptedWallet is required"):
        decode_result(GetWallet(), {"sequence": 1})


def test_a_notification_that_is_not_known_is_told_as_such() -> None:
    assert parse_incoming('{"jsonrpc":"2.0","method":"new"}') == UnknownNotification("new")


def test_a_message_that_there_is_no_memory_for_is_not_called_malformed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(payload: bytes) -> None:
        raise orjson.JSONDecodeError("Not enough memory to allocate buffer for parsing", "", 0)

    monkeypatch.setattr(orjson, "loads", fail)

    with pytest.raises(MemoryError):
        parse_message(b"{}", batch_max=1)
    with pytest.raises(MemoryError):
        parse_incoming(b"{}")


@pytest.mark.parametrize("payload", ["", "hello", b"\xff"])
def test_a_server_that_sends_no_json_is_refused(payload: str | bytes) -> None:
    with pytest.raises(ParseError):
        parse_incoming(payload)


@pytest.mark.parametrize("wire_id", ["true", "[]", "{}"])
@pytest.mark.parametrize("rest", ['"result":{}', '"error":{"code":401,"message":""}'])
def test_an_answer_under_an_id_that_is_none_is_refused(wire_id: str, rest: str) -> None:
    with pytest.raises(InvalidRequest, match="id"):
        parse_incoming(f'{{"jsonrpc":"2.0","id":{wire_id},{rest}}}')


def test_an_answer_without_an_id_is_one_to_what_could_not_be_read() -> None:
    assert answer('{"jsonrpc":"2.0","error":{"code":-32700,"message":""}}').id is None


DEEP = "[" * 1000 + "]" * 1000
"""JSON still takes it, and Python's repr no more."""


@pytest.mark.parametrize(
    "error",
    [
        f'{{"code":401,"message":{DEEP}}}',
        f'{{"code":401,"message":"","data":{{"reason":{DEEP}}}}}',
        f'{{"code":-32602,"message":"","data":{{"path":{DEEP},"reason":{DEEP}}}}}',
        f'{{"code":-32603,"message":"","data":{{"errorId":{DEEP}}}}}',
    ],
    ids=["message", "reason", "path", "errorId"],
)
def test_a_text_of_an_error_that_is_none_counts_as_absent(error: str) -> None:
    arrived = answer(f'{{"jsonrpc":"2.0","id":1,"error":{error}}}').error
    assert arrived is not None
    assert arrived.message == ""
    assert DEEP not in str(arrived.data())


@pytest.mark.parametrize("method", ["1", "null", "{}", DEEP], ids=["1", "null", "{}", "deep"])
def test_a_notification_whose_method_is_no_string_is_refused(method: str) -> None:
    with pytest.raises(InvalidRequest, match="a method that is not a string"):
        parse_incoming(f'{{"jsonrpc":"2.0","method":{method}}}')


@given(DOCUMENTS)
def test_no_json_makes_a_client_fail(document: str) -> None:
    with contextlib.suppress(ParseError, InvalidRequest):
        message = parse_incoming(document)
        if isinstance(message, Answer) and message.error is None:
            decode_result(GetWallet(), message.result)


@given(st.binary())
def test_no_bytes_make_a_client_fail(payload: bytes) -> None:
    with contextlib.suppress(ParseError, InvalidRequest):
        parse_incoming(payload)


@given(st.dictionaries(st.sampled_from(["code", "message", "data"]), JSON))
def test_no_error_object_makes_a_client_fail(wire: dict[str, Any]) -> None:
    document = json.dumps({"jsonrpc": "2.0", "id": 1, "error": wire})
    with contextlib.suppress(ParseError, InvalidRequest):
        assert isinstance(answer(document).error, RpcError)
