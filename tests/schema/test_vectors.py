"""The golden vectors: the committed file is not stale, and the codec agrees with every vector."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from wsschema import vectors
from wsschema.codec import (
    ABSENT,
    Answer,
    Batch,
    Malformed,
    Request,
    UnknownNotification,
    decode_result,
    encode_batch,
    encode_error,
    encode_result,
    parse_incoming,
    parse_message,
)
from wsschema.errors import Conflict, InvalidParams, InvalidRequest, ParseError, RpcError
from wsschema.fields import FIELD_REASONS, members
from wsschema.limits import Limits
from wsschema.messages import METHODS, NOTIFICATION_NAMES, NOTIFICATIONS
from wsschema.samples import SAMPLE_CALLS
from wsschema.vectors import describe, main, render

FILE = Path(__file__).parents[2] / vectors.FILE
VECTORS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
BATCH_MAX = Limits().batch
CALL_OF = {type(call): call for call in SAMPLE_CALLS}


def parse(wire: str) -> Request | Malformed | Batch:
    return parse_message(wire.encode(), batch_max=BATCH_MAX)


def read(item: Request | Malformed) -> dict[str, Any]:
    """What a server makes of one call, in the words of the vectors."""
    if isinstance(item, Malformed):
        return {"answer": answer_of(item.id, item.error)}
    try:
        method = item.find_method()
        call = item.read_params(method)
    except RpcError as error:
        return {"answer": None if item.id is ABSENT else answer_of(item.id, error)}
    said = {"method": method.name, "value": describe(call)}
    return said if item.id is ABSENT else {"id": item.id, **said}


def answer_of(call_id: Any, error: RpcError) -> dict[str, Any]:
    wire = json.loads(encode_error(call_id, error))
    assert wire["jsonrpc"] == "2.0"
    data = wire["error"].get("data", {})
    return {"id": wire["id"], "code": wire["error"]["code"], **data}


def without(vector: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in vector.items() if name not in names}


def named(section: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", VECTORS[section], ids=lambda vector: vector["name"])


def test_the_committed_file_is_not_stale() -> None:
    assert FILE.read_bytes() == render(), "run: python -m wsschema.vectors --write"


def test_no_two_vectors_of_a_section_have_the_same_name() -> None:
    for section in without(VECTORS, "about").values():
        names = [vector["name"] for vector in section]
        assert len(set(names)) == len(names)


def test_the_readme_explains_every_section() -> None:
    readme = (FILE.parents[1] / "README.md").read_text(encoding="utf-8")
    table = readme.split("| section |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [*without(VECTORS, "about")]


@named("calls")
def test_a_call_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    item = parse(vector["wire"])
    assert not isinstance(item, Batch)
    assert read(item) == without(vector, "name", "wire")


@named("badCalls")
def test_a_bad_call_is_answered_as_the_vector_says(vector: dict[str, Any]) -> None:
    item = parse(vector["wire"])
    assert not isinstance(item, Batch)
    assert read(item) == {"answer": vector["answer"]}


@pytest.mark.parametrize(
    "vector",
    [each for each in VECTORS["badCalls"] if each["answer"] and "path" in each["answer"]],
    ids=lambda vector: vector["name"],
)
def test_the_error_names_the_member_and_says_why(vector: dict[str, Any]) -> None:
    item = parse(vector["wire"])
    assert isinstance(item, Request)
    with pytest.raises(InvalidParams) as caught:
        item.read_params(item.find_method())
    text, (path, reason) = (
        caught.value.message,
        (vector["answer"]["path"], vector["answer"]["reason"]),
    )
    prefix = f"Invalid params: {path} "
    assert text.startswith(prefix)
    why = text.removeprefix(prefix)
    assert {
        "missing": why == "is required",
        "unknown": why == "is not a member of this method's params",
        "wrong_type": why.startswith("must be a") and ", not " in why,
        "out_of_bounds": "must have" in why or "must be" in why or why == "must not be empty",
        "malformed": why.startswith("must"),
    }[reason], text


@named("batches")
def test_a_batch_is_read_call_by_call(vector: dict[str, Any]) -> None:
    batch = parse(vector["wire"])
    assert isinstance(batch, Batch)
    assert [read(item) for item in batch.items] == vector["items"]


@named("results")
def test_a_result_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    answer = parse_incoming(vector["wire"])
    assert isinstance(answer, Answer)
    assert answer.error is None
    result = decode_result(CALL_OF[METHODS[vector["method"]].params], answer.result)
    assert answer.id == vector["id"]
    assert (result if isinstance(result, dict) else describe(result)) == vector["value"]
    assert json.loads(encode_result(answer.id, result))["id"] == vector["id"]


@named("notifications")
def test_a_notification_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    message = parse_incoming(vector["wire"])
    if vector.get("ignored"):
        assert message == UnknownNotification(vector["method"])
        return
    assert not isinstance(message, Answer | UnknownNotification)
    assert NOTIFICATION_NAMES[type(message)] == vector["method"]
    assert describe(message) == vector["value"]


@named("errors")
def test_an_error_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    answer = parse_incoming(vector["wire"])
    assert isinstance(answer, Answer)
    assert answer.error is not None
    error, said = answer.error, vector["error"]
    assert (answer.id, error.code, error.message) == (vector["id"], said["code"], said["message"])
    if vector.get("known", True):
        data = dict(error.data() or {})
        if isinstance(error, Conflict):
            data["wallet"] = None if error.wallet is None else describe(error.wallet)
        assert data == without(said, "code", "message")
    else:
        assert error.reason == ""


@named("badIncoming")
def test_a_malformed_message_of_a_server_is_refused(vector: dict[str, Any]) -> None:
    def receive() -> None:
        answer = parse_incoming(vector["wire"])
        assert isinstance(answer, Answer)
        decode_result(CALL_OF[METHODS[vector["method"]].params], answer.result)

    with pytest.raises((ParseError, InvalidRequest)):
        receive()


def test_every_method_notification_and_error_has_its_vectors() -> None:
    def methods(section: str) -> set[str]:
        return {vector["method"] for vector in VECTORS[section]}

    assert methods("calls") == methods("results") == set(METHODS)
    assert methods("notifications") - {"wallet.admired"} == set(NOTIFICATIONS)
    refused = {vector["name"].split(":")[0] for vector in VECTORS["badCalls"]}
    assert refused >= set(METHODS)


def test_every_member_of_every_call_is_refused_in_every_way_it_can_be() -> None:
    seen: dict[tuple[str, str], set[str]] = {}
    for vector in VECTORS["badCalls"]:
        answer = vector["answer"] or {}
        if "path" in answer:
            method = vector["name"].split(":")[0]
            seen.setdefault((method, answer["path"]), set()).add(answer["reason"])
    for name, method in METHODS.items():
        assert seen[name, "params"] == {"wrong_type"}
        assert seen[name, "colour"] == {"unknown"}
        for member in members(method.params):
            assert "wrong_type" in seen[name, member.name]
            assert ("missing" in seen[name, member.name]) is member.required
    assert seen["account.register", "kdf.colour"] == {"unknown"}
    assert seen["account.changePassword", "wallet.hmac"] == {
        "missing",
        "wrong_type",
        "out_of_bounds",
    }
    assert set().union(*seen.values()) == set(FIELD_REASONS)


def test_answers_of_a_batch_come_in_one_array() -> None:
    answers = [encode_error(None, ParseError()), encode_error("a", ParseError())]
    assert [answer["id"] for answer in json.loads(encode_batch(answers))] == [None, "a"]


def test_the_command_prints_the_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.encode() == render()


def test_the_command_renews_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "schema/vectors").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert main(["--write"]) == 0
    assert (tmp_path / vectors.FILE).read_bytes() == render()


def test_the_command_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wirte"]) == 2
    assert "--write" in capsys.readouterr().err
