"""JSON-RPC 2.0 on orjson: bytes to calls and answers, and back.

A server parses with `parse_message`, looks at each `Request`, and answers with `encode_result` and
`encode_error`; a client writes with `encode_call` and reads with `parse_incoming`. Nothing here
does I/O. Envelope members that the specification does not name are ignored, as it forbids none.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import field
from types import NoneType
from typing import Any, Final

import orjson

from wsschema.errors import (
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    ParseError,
    RpcError,
    error_from_wire,
)
from wsschema.fields import FieldError, decode, encode
from wsschema.frozen import frozen
from wsschema.messages import (
    METHOD_OF,
    METHODS,
    NOTIFICATION_NAMES,
    NOTIFICATIONS,
    Call,
    Method,
    Notification,
)

Id = str | int | float | None


class Absent(enum.Enum):
    """The id of a call that wants no answer (a notification: JSON-RPC 2.0, section 4.1)."""

    ABSENT = enum.auto()


ABSENT: Final = Absent.ABSENT
_ID_TYPES: Final = frozenset({str, int, float, NoneType, Absent})


@frozen
class Request:
    """One call as it came: its envelope is sound, its params are not looked at yet."""

    id: Id | Absent
    method: str
    params: Any = field(repr=False)

    def find_method(self) -> Method:
        """The method it calls; raises MethodNotFound."""
        method = METHODS.get(self.method)
        if method is None:
            raise MethodNotFound(f"Method not found: {self.method[:64]}")
        return method

    def read_params(self, method: Method) -> Call[Any]:
        """Its params, checked to the last member; raises InvalidParams."""
        params = {} if self.params == [] else self.params
        try:
            return decode(method.params, params)
        except FieldError as error:
            raise InvalidParams.from_field(error) from None


@frozen
class Malformed:
    """One call whose envelope is unsound, and the answer it gets."""

    id: Id
    error: RpcError


@frozen
class Batch:
    """The calls of one array, to be answered in one array."""

    items: tuple[Request | Malformed, ...]


def parse_message(payload: bytes | bytearray, *, batch_max: int) -> Request | Malformed | Batch:
    """What a client's message asks; raises nothing but MemoryError.

    ``batch_max``: calls a batch may hold; an empty or a larger one is answered with one -32600.
    """
    try:
        value = _load(payload)
    except orjson.JSONDecodeError:
        return Malformed(None, ParseError())
    if type(value) is not list:
        return _parse_request(value)
    if not 1 <= len(value) <= batch_max:
        text = f"Invalid Request: a batch holds 1 to {batch_max} calls; this one has {len(value)}"
        return Malformed(None, InvalidRequest(text))
    return Batch(tuple(_parse_request(item) for item in value))


def _load(payload: bytes | bytearray | str) -> Any:
    """The value; raises JSONDecodeError, or MemoryError, which orjson calls the same."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("Not enough memory"):
            # The peer's message may be well-formed: it must not be told that it is not.
            raise MemoryError from None
        raise


def _parse_request(value: Any) -> Request | Malformed:
    if type(value) is not dict:
        return Malformed(None, InvalidRequest("Invalid Request: a call is an object"))
    call_id = value.get("id", ABSENT)
    if type(call_id) not in _ID_TYPES:
        return Malformed(
            None, InvalidRequest("Invalid Request: id must be a string, a number or null")
        )
    answer_id = None if call_id is ABSENT else call_id
    if value.get("jsonrpc") != "2.0":
        return Malformed(answer_id, InvalidRequest('Invalid Request: jsonrpc must be "2.0"'))
    method = value.get("method")
    if type(method) is not str:
        return Malformed(answer_id, InvalidRequest("Invalid Request: method must be a string"))
    return Request(call_id, method, value.get("params", {}))


def encode_result(call_id: Id, result: Any) -> bytes:
    """The answer to a call that succeeded: a message's dataclass, or a JSON object as it is."""
    wire = result if type(result) is dict else encode(result)
    return orjson.dumps({"jsonrpc": "2.0", "id": call_id, "result": wire})


def encode_error(call_id: Id, error: RpcError) -> bytes:
    """The answer to a call that failed."""
    return orjson.dumps({"jsonrpc": "2.0", "id": call_id, "error": error.to_wire()})


def encode_batch(answers: Iterable[bytes]) -> bytes:
    """The one array of the answers to a batch."""
    return b"[" + b",".join(answers) + b"]"


def encode_notification(message: Notification) -> bytes:
    """A notification from the server."""
    name = NOTIFICATION_NAMES[type(message)]
    return orjson.dumps({"jsonrpc": "2.0", "method": name, "params": encode(message)})


# The client's side.


def encode_call(call_id: Id, call: Call[Any]) -> bytes:
    """A call for the wire."""
    envelope: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": call_id,
        "method": METHOD_OF[type(call)].name,
    }
    params = encode(call)
    if params:
        envelope["params"] = params
    return orjson.dumps(envelope)


@frozen
class Answer:
    """The answer to the call ``id``: ``result`` as JSON, or ``error``."""

    id: Id
    result: Any = field(default=None, repr=False)
    error: RpcError | None = None


@frozen
class UnknownNotification:
    """A notification that this version does not know; a client ignores it."""

    method: str


def parse_incoming(payload: bytes | str) -> Answer | Notification | UnknownNotification:
    """What a server's message says; raises ParseError or InvalidRequest when it is malformed."""
    try:
        value = _load(payload)
    except orjson.JSONDecodeError:
        raise ParseError from None
    if type(value) is not dict or value.get("jsonrpc") != "2.0":
        raise InvalidRequest("the server sent something that is not JSON-RPC 2.0")
    try:
        if "method" in value:
            method = value["method"]
            if type(method) is not str:
                raise InvalidRequest("the server sent a method that is not a string")
            kind = NOTIFICATIONS.get(method)
            if kind is None:
                return UnknownNotification(method)
            message: Notification = decode(kind, value.get("params"), lenient=True)
            return message
        if "error" in value:
            error = value["error"]
            if type(error) is not dict:
                raise InvalidRequest("the server sent an error that is not an object")
            return Answer(_answer_id(value), error=error_from_wire(error))
    except FieldError as error:
        raise InvalidRequest(f"the server sent a malformed message: {error}") from None
    if "result" not in value:
        raise InvalidRequest("the server sent neither a result nor an error")
    return Answer(_answer_id(value), result=value["result"])


def _answer_id(answer: dict[str, Any]) -> Id:
    answer_id: Id = answer.get("id")
    if type(answer_id) not in _ID_TYPES:
        raise InvalidRequest("the server sent an answer whose id is no string and no number")
    return answer_id


def decode_result(call: Call[Any], result: Any) -> Any:
    """The result of a call as its dataclass; raises InvalidRequest when it is not of that form."""
    kinds = METHOD_OF[type(call)].results
    if not kinds:
        return result
    failure: FieldError | None = None
    for kind in kinds:
        try:
            return decode(kind, result, lenient=True)
        except FieldError as error:
            failure = failure or error
    raise InvalidRequest(f"the server sent a malformed result: {failure}")
