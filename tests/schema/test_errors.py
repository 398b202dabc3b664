"""The error tree: every error keeps what it says on its way over the wire."""

from __future__ import annotations

from typing import Any

import pytest

from wsschema import errors
from wsschema.errors import (
    JSON_RPC_ERRORS,
    PROTOCOL_ERRORS,
    Conflict,
    ConflictError,
    Forbidden,
    InternalError,
    InvalidParams,
    NotFound,
    RateLimited,
    RpcError,
    ServiceUnavailable,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    UnknownError,
    WalletSyncError,
    WalletTooLarge,
    error_from_wire,
)
from wsschema.fields import FieldError
from wsschema.samples import SAMPLE_ERRORS, STATE


def _leaves(kind: type[RpcError]) -> set[type[RpcError]]:
    below = kind.__subclasses__()
    return set().union(*map(_leaves, below)) if below else {kind}


@pytest.mark.parametrize("error", SAMPLE_ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_comes_back_from_the_wire(error: RpcError) -> None:
    back = error_from_wire(error.to_wire())
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert str(back) == error.message


def test_there_is_a_sample_of_every_error_and_each_is_listed_once() -> None:
    listed = JSON_RPC_ERRORS + PROTOCOL_ERRORS
    assert len(set(listed)) == len(listed)
    assert {type(error) for error in SAMPLE_ERRORS} == set(listed)
    assert _leaves(RpcError) == {*listed, UnknownError}


def test_reasons_are_stable_lower_snake_and_one_for_each_error() -> None:
    reasons = [kind.reason for kind in PROTOCOL_ERRORS]
    assert len(set(reasons)) == len(reasons)
    for reason in reasons:
        assert reason == reason.lower()
        assert reason.replace("_", "").isalpha()


def test_errors_of_the_protocol_have_positive_codes_and_a_sentence() -> None:
    for kind in PROTOCOL_ERRORS:
        assert kind.code > 0
        assert kind().message == kind.text != RpcError.text
        assert issubclass(kind, WalletSyncError)


def test_an_error_says_the_text_it_is_raised_with() -> None:
    error = WalletTooLarge("wallet is 300,000 bytes; the limit is 262,144", max_bytes=262_144)
    assert error.to_wire() == {
        "code": 413,
        "message": "wallet is 300,000 bytes; the limit is 262,144",
        "data": {"reason": "wallet_too_large", "maxBytes": 262_144},
    }


def test_errors_of_json_rpc_carry_no_data_but_their_own() -> None:
    assert errors.ParseError().to_wire().keys() == {"code", "message"}
    assert InvalidParams(path="kdf.n", reason="missing").data() == {
        "path": "kdf.n",
        "reason": "missing",
    }
    assert InternalError(error_id="f00d").data() == {"errorId": "f00d"}


@pytest.mark.parametrize(
    ("code", "branch"),
    [
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, ConflictError),
        (413, TooLarge),
        (429, TooManyRequests),
        (503, ServiceUnavailable),
    ],
)
@pytest.mark.parametrize("data", [{"reason": "brand_new"}, {"reason": None}, {}, None, "text", []])
def test_an_unknown_reason_falls_back_to_the_branch_of_its_code(
    code: int, branch: type[RpcError], data: Any
) -> None:
    error = error_from_wire({"code": code, "message": "new", "data": data})
    assert type(error) is branch
    assert (error.code, error.message) == (code, "new")


def test_a_known_reason_under_another_code_goes_by_the_code() -> None:
    wire = {"code": 404, "message": "", "data": {"reason": "bad_token"}}
    assert type(error_from_wire(wire)) is NotFound


def test_a_branch_that_is_retried_later_knows_when() -> None:
    wire = {"code": 429, "message": "", "data": {"reason": "new", "retryAfterMs": 7}}
    error = error_from_wire(wire)
    assert isinstance(error, TooManyRequests)
    assert error.retry_after_ms == 7


@pytest.mark.parametrize("value", [-1, "7", 7.0, True, None])
def test_a_retry_time_that_is_none_counts_as_the_default(value: Any) -> None:
    wire = {"code": 429, "message": "", "data": {"reason": "rate_limited", "retryAfterMs": value}}
    error = error_from_wire(wire)
    assert isinstance(error, RateLimited)
    assert error.retry_after_ms == 1000


def test_an_unknown_code_is_kept() -> None:
    error = error_from_wire({"code": 499, "message": "new"})
    assert type(error) is UnknownError
    assert (error.code, error.message) == (499, "new")
    assert RpcError.code == -32000


@pytest.mark.parametrize("wire", [{}, {"code": "401"}, {"code": True}, {"code": 401.0}])
def test_an_error_without_a_code_is_unknown(wire: dict[str, Any]) -> None:
    error = error_from_wire(wire)
    assert type(error) is UnknownError
    assert error.code == -32000


def test_a_conflict_brings_the_latest_state() -> None:
    error = error_from_wire(Conflict(wallet=STATE, landed=True).to_wire())
    assert isinstance(error, Conflict)
    assert error.wallet == STATE
    assert error.landed


def test_a_conflict_where_there_is_no_wallet_says_so() -> None:
    assert Conflict().data() == {"reason": "conflict", "wallet": None, "landed": False}


def test_a_conflict_with_a_malformed_wallet_is_refused_by_its_path() -> None:
    wire = {"code": 409, "message": "", "data": {"reason": "conflict", "wallet": {"sequence": 0}}}
    with pytest.raises(FieldError) as caught:
        error_from_wire(wire)
    assert caught.value.path == "wallet.sequence"


def test_what_a_server_adds_to_an_error_is_ignored() -> None:
    wire = Conflict(wallet=STATE).to_wire()
    wire["data"]["colour"] = wire["data"]["wallet"]["colour"] = "red"
    error = error_from_wire(wire)
    assert isinstance(error, Conflict)
    assert error.wallet == STATE


def test_an_error_shows_no_wallet() -> None:
    shown = repr(Conflict(wallet=STATE)) + str(Conflict(wallet=STATE))
    assert STATE.encrypted_wallet not in shown
    assert STATE.hmac not in shown
