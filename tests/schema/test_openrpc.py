"""The OpenRPC document: valid, complete, and the committed copy is not stale."""

from __future__ import annotations

import copy
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from wsschema import openrpc
from wsschema.codec import encode_call
from wsschema.errors import JSON_RPC_ERRORS, PROTOCOL_ERRORS, InvalidParams, NotAuthenticated
from wsschema.fields import encode, members
from wsschema.messages import METHODS, NOTIFICATIONS
from wsschema.openrpc import errors_of, main, openrpc_document, render
from wsschema.samples import SAMPLE_CALLS, SAMPLE_ERRORS, SAMPLE_NOTIFICATIONS, SAMPLE_RESULTS

ROOT = Path(__file__).parents[2]
META_SCHEMA = json.loads((Path(__file__).parent / "openrpc-meta-schema.json").read_text())

# The meta-schema names https://meta.json-schema.tools/ for what a JSON Schema is: draft 7, and one
# pointer into its definitions.
_JSON_SCHEMA_TOOLS = Resource.from_contents(
    {
        "allOf": [{"$ref": "http://json-schema.org/draft-07/schema#"}],
        "definitions": {
            "JSONSchemaObject": {
                "properties": {"$ref": {"type": "string", "format": "uri-reference"}}
            }
        },
    },
    DRAFT7,
)
_DRAFT_7 = Resource.from_contents(jsonschema.Draft7Validator.META_SCHEMA, DRAFT7)
REGISTRY: Registry[Any] = Registry().with_resources(
    [
        ("https://meta.json-schema.tools", _JSON_SCHEMA_TOOLS),
        ("https://meta.json-schema.tools/", _JSON_SCHEMA_TOOLS),
        ("http://json-schema.org/draft-07/schema", _DRAFT_7),
    ]
)
VALIDATOR = jsonschema.Draft7Validator(META_SCHEMA, registry=REGISTRY)
DOCUMENT = openrpc_document()


def _is_valid(schema: dict[str, Any], value: Any) -> bool:
    """Whether the value satisfies a schema of the document, its components in reach."""
    whole = schema | {"components": DOCUMENT["components"]}
    return bool(jsonschema.Draft7Validator(whole).is_valid(value))


def _params_schema(descriptors: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {param["name"]: param["schema"] for param in descriptors},
        "required": [param["name"] for param in descriptors if param["required"]],
        "additionalProperties": False,
    }


def _method(name: str) -> dict[str, Any]:
    (method,) = (method for method in DOCUMENT["methods"] if method["name"] == name)
    assert isinstance(method, dict)
    return method


def test_the_document_satisfies_the_meta_schema_of_openrpc() -> None:
    VALIDATOR.validate(DOCUMENT)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("openrpc",), "3.0.0"),
        (("methods", 3, "paramStructure"), "by-mood"),
        (("methods", 3, "params", 0, "schema", "type"), "text"),
        (("methods", 3, "errors", 0), {"message": "no code"}),
        (("components", "schemas", "Kdf", "type"), "map"),
    ],
)
def test_the_meta_schema_refuses_a_broken_document(path: tuple[Any, ...], value: Any) -> None:
    broken = copy.deepcopy(DOCUMENT)
    place: Any = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    assert not VALIDATOR.is_valid(broken)


def test_the_committed_copy_is_not_stale() -> None:
    assert (ROOT / openrpc.COPY).read_bytes() == render(), "run: python -m wsschema.openrpc --write"


def test_the_document_says_whose_it_is() -> None:
    assert openrpc_document(title="mine", version="1.2.3")["info"]["title"] == "mine"
    assert openrpc_document(title="mine", version="1.2.3")["info"]["version"] == "1.2.3"
    assert DOCUMENT["info"]["version"] == "1"


def test_every_method_is_there_with_its_params_by_name() -> None:
    assert [method["name"] for method in DOCUMENT["methods"]] == list(METHODS)
    for method in METHODS.values():
        described = _method(method.name)
        assert described["paramStructure"] == "by-name"
        assert [(param["name"], param["required"]) for param in described["params"]] == [
            (member.name, member.required) for member in members(method.params)
        ]


def test_required_params_come_before_the_others() -> None:
    for described in [*DOCUMENT["methods"], *DOCUMENT["x-notifications"]]:
        flags = [param["required"] for param in described["params"]]
        assert flags == sorted(flags, reverse=True), described["name"]


def test_methods_say_whether_they_need_a_session() -> None:
    for method in METHODS.values():
        described = _method(method.name)
        assert described.get("x-authenticated", False) is method.authenticated
        assert (NotAuthenticated in errors_of(method)) is method.authenticated


def test_every_notification_is_described() -> None:
    assert [each["name"] for each in DOCUMENT["x-notifications"]] == list(NOTIFICATIONS)


def test_every_summary_is_a_sentence() -> None:
    for described in [*DOCUMENT["methods"], *DOCUMENT["x-notifications"]]:
        assert len(described["summary"]) > 10, described["name"]


def test_every_error_of_a_method_is_a_component_and_every_protocol_error_is_of_some_method() -> (
    None
):
    used = {kind for method in METHODS.values() for kind in errors_of(method)}
    assert set(PROTOCOL_ERRORS) <= used
    assert [*DOCUMENT["components"]["errors"]] == [
        kind.__name__ for kind in JSON_RPC_ERRORS + PROTOCOL_ERRORS
    ]
    for method in METHODS.values():
        kinds = errors_of(method)
        assert InvalidParams in kinds
        assert len(set(kinds)) == len(kinds), method.name
        assert _method(method.name)["errors"] == [
            {"$ref": f"#/components/errors/{kind.__name__}"} for kind in kinds
        ]


def test_errors_are_told_of_existing_methods_only() -> None:
    assert set(openrpc._OWN) <= set(METHODS)


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    text = json.dumps(DOCUMENT)
    referenced = set(text.split('"#/components/schemas/')[1:])
    names = {piece.split('"')[0] for piece in referenced}
    assert names == set(DOCUMENT["components"]["schemas"])


@pytest.mark.parametrize("call", SAMPLE_CALLS, ids=lambda call: type(call).__name__)
def test_the_schema_of_a_method_accepts_its_calls(call: Any) -> None:
    envelope = json.loads(encode_call(1, call))
    schema = _params_schema(_method(envelope["method"])["params"])
    assert _is_valid(schema, envelope.get("params", {}))
    assert not _is_valid(schema, {**envelope.get("params", {}), "unknown": 1})


@pytest.mark.parametrize(("call", "result"), SAMPLE_RESULTS, ids=lambda each: type(each).__name__)
def test_the_schema_of_a_result_accepts_it_and_lets_it_grow(call: Any, result: Any) -> None:
    schema = _method(json.loads(encode_call(1, call))["method"])["result"]["schema"]
    wire = result if isinstance(result, dict) else encode(result)
    assert _is_valid(schema, wire)
    assert _is_valid(schema, {**wire, "unknown": 1})
    assert not _is_valid(schema, [])


@pytest.mark.parametrize("message", SAMPLE_NOTIFICATIONS, ids=lambda each: type(each).__name__)
def test_the_schema_of_a_notification_accepts_it(message: Any) -> None:
    (described,) = (
        each for each in DOCUMENT["x-notifications"] if NOTIFICATIONS[each["name"]] is type(message)
    )
    assert _is_valid(_params_schema(described["params"]), encode(message))


@pytest.mark.parametrize("error", SAMPLE_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_described_as_it_goes_on_the_wire(error: Any) -> None:
    described = DOCUMENT["components"]["errors"][type(error).__name__]
    wire = error.to_wire()
    assert described["code"] == wire["code"]
    assert described["message"] == error.text
    assert ("data" in described) == ("data" in wire)
    if "data" in wire:
        assert _is_valid(described["data"], wire["data"])
        for name in wire["data"]:
            assert not _is_valid(
                described["data"], {key: wire["data"][key] for key in wire["data"] if key != name}
            )


def test_the_command_prints_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT


def test_the_command_renews_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "schema").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["--write"]) == 0
    assert (tmp_path / "schema/openrpc.json").read_bytes() == render()


def test_the_command_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wirte"]) == 2
    assert "--write" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("module", ["wsschema.openrpc", "wsschema.vectors"])
def test_the_modules_run_as_commands(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("{")
