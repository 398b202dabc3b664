"""The worked examples of the JSON-RPC 2.0 specification, section 7, message for message.

The methods of the examples (``subtract``, ``update``, ...) are mounted on a dispatcher that is
written here on top of the codec, the way a server is. Parameters of this protocol are by name, so
the examples with positional ones are answered -32602; the specification's own server accepts them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from wsschema.codec import (
    ABSENT,
    Batch,
    Malformed,
    Request,
    encode_batch,
    encode_error,
    encode_result,
    parse_message,
)
from wsschema.errors import RpcError
from wsschema.fields import Integer
from wsschema.messages import METHODS, Call, Empty, Method


@dataclass(frozen=True, slots=True)
class Subtract(Call[Any]):
    minuend: Annotated[int, Integer()]
    subtrahend: Annotated[int, Integer()]


@dataclass(frozen=True, slots=True)
class Difference:
    difference: Annotated[int, Integer(-(2**53))]


@dataclass(frozen=True, slots=True)
class NoParams(Call[Any]):
    pass


METHODS_OF_THE_EXAMPLES: dict[str, tuple[type[Call[Any]], Callable[[Any], Any]]] = {
    "subtract": (Subtract, lambda call: Difference(call.minuend - call.subtrahend)),
    "update": (NoParams, lambda call: Empty()),
    "notify_hello": (NoParams, lambda call: Empty()),
    "notify_sum": (NoParams, lambda call: Empty()),
    "get_data": (NoParams, lambda call: {"data": ["hello", 5]}),
}


@pytest.fixture(autouse=True)
def _methods_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (params, _) in METHODS_OF_THE_EXAMPLES.items():
        monkeypatch.setitem(METHODS, name, Method(name, params, ()))


def serve(wire: str) -> Any:
    """What goes back for a message; None where nothing does."""
    message = parse_message(wire.encode(), batch_max=20)
    if isinstance(message, Batch):
        answers = [answer for item in message.items if (answer := answer_to(item)) is not None]
        return json.loads(encode_batch(answers)) if answers else None
    answer = answer_to(message)
    return None if answer is None else json.loads(answer)


def answer_to(item: Request | Malformed) -> bytes | None:
    if isinstance(item, Malformed):
        return encode_error(item.id, item.error)
    try:
        method = item.find_method()
        result = METHODS_OF_THE_EXAMPLES[method.name][1](item.read_params(method))
    except RpcError as error:
        return None if item.id is ABSENT else encode_error(item.id, error)
    return None if item.id is ABSENT else encode_result(item.id, result)


def error_of(answer: dict[str, Any]) -> tuple[Any, int]:
    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert answer["jsonrpc"] == "2.0"
    assert isinstance(answer["error"]["message"], str)
    return answer["id"], answer["error"]["code"]


@pytest.mark.parametrize(
    ("call_id", "params"), [(1, "[42, 23]"), (2, "[23, 42]")], ids=["42-23", "23-42"]
)
def test_a_call_with_positional_parameters_is_refused_here(call_id: int, params: str) -> None:
    wire = f'{{"jsonrpc": "2.0", "method": "subtract", "params": {params}, "id": {call_id}}}'
    answer = serve(wire)
    assert error_of(answer) == (call_id, -32602)
    assert answer["error"]["data"] == {"path": "params", "reason": "wrong_type"}


@pytest.mark.parametrize(
    ("call_id", "params"),
    [(3, '{"subtrahend": 23, "minuend": 42}'), (4, '{"minuend": 42, "subtrahend": 23}')],
)
def test_a_call_with_named_parameters(call_id: int, params: str) -> None:
    wire = f'{{"jsonrpc": "2.0", "method": "subtract", "params": {params}, "id": {call_id}}}'
    assert serve(wire) == {"jsonrpc": "2.0", "result": {"difference": 19}, "id": call_id}


@pytest.mark.parametrize(
    "wire",
    [
        '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}',
        '{"jsonrpc": "2.0", "method": "update"}',
        '{"jsonrpc": "2.0", "method": "foobar"}',
    ],
)
def test_a_notification_is_not_answered(wire: str) -> None:
    assert serve(wire) is None


def test_a_call_of_a_method_that_does_not_exist() -> None:
    assert error_of(serve('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}')) == ("1", -32601)


def test_a_call_with_invalid_json() -> None:
    wire = '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]'
    assert error_of(serve(wire)) == (None, -32700)


def test_a_call_with_an_invalid_request_object() -> None:
    wire = '{"jsonrpc": "2.0", "method": 1, "params": "bar"}'
    assert error_of(serve(wire)) == (None, -32600)


def test_a_batch_with_invalid_json() -> None:
    wire = """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method"
    ]"""
    assert error_of(serve(wire)) == (None, -32700)


def test_an_empty_array() -> None:
    assert error_of(serve("[]")) == (None, -32600)


def test_an_invalid_batch_that_is_not_empty() -> None:
    assert [error_of(answer) for answer in serve("[1]")] == [(None, -32600)]


def test_an_invalid_batch() -> None:
    assert [error_of(answer) for answer in serve("[1,2,3]")] == [(None, -32600)] * 3


def test_a_batch_of_everything() -> None:
    answers = serve(
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]"""
    )
    # "sum" is not mounted: it takes any number of positional parameters, which cannot be named.
    assert [error_of(answer) for answer in answers[:-1]] == [
        ("1", -32601),
        ("2", -32602),
        (None, -32600),
        ("5", -32601),
    ]
    assert answers[-1] == {"jsonrpc": "2.0", "result": {"data": ["hello", 5]}, "id": "9"}


def test_a_batch_of_notifications_only_is_not_answered() -> None:
    wire = """[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
    ]"""
    assert serve(wire) is None
