"""Every line of the interface, over real HTTP: what is answered, to the letter."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.rawclient import PASSWORD, SEED
from tests.e2e.serving import open_database
from tests.lbry.client import API
from tests.lbry.conftest import Gateway, OpenGateway
from wsserver.lbry.requests import BODY_BYTES_MAX

JOE = "joe@example.com"
SIGNUP = {"email": JOE, "password": PASSWORD, "clientSaltSeed": SEED}
AUTH = {"email": JOE, "password": PASSWORD, "deviceId": "laptop"}
WALLET = {"token": "token", "encryptedWallet": "wallet 1", "sequence": 1, "hmac": "mac 1"}
CHANGE = {
    "email": JOE,
    "oldPassword": PASSWORD,
    "newPassword": "another password",
    "clientSaltSeed": "ab" * 32,
}
TRIO = {"encryptedWallet": "resealed", "sequence": 2, "hmac": "mac 2"}
UNKNOWN_TOKEN = (401, {"error": "Unauthorized: Token Not Found"})
BAD_CREDENTIALS = (401, {"error": "Unauthorized: No match for email and/or password"})


def bad(detail: str) -> tuple[int, Any]:
    return 400, {"error": f"Bad Request: {detail}"}


def invalid(detail: str) -> tuple[int, Any]:
    return bad(f"Request failed validation: {detail}")


async def sign_up(gateway: Gateway, **members: Any) -> str:
    """A new account; gives the token of its laptop."""
    status, answer = await gateway.http.post("/signup", {**SIGNUP, **members})
    assert (status, answer) == (201, {"verified": True})
    return await log_in(gateway, **members)


async def log_in(gateway: Gateway, **members: Any) -> str:
    body = {**AUTH, **{name: value for name, value in members.items() if name in AUTH}}
    status, answer = await gateway.http.post("/auth/full", body)
    assert status == 200, answer
    return str(answer["token"])


async def push(gateway: Gateway, token: str, sequence: int = 1, **members: Any) -> tuple[int, Any]:
    state = {"encryptedWallet": f"wallet {sequence}", "hmac": f"mac {sequence}"}
    body = {**state, "token": token, "sequence": sequence, **members}
    return await gateway.http.post("/wallet", body)


def encode(email: str) -> str:
    return base64.b64encode(email.encode()).decode()


# POST /signup


async def test_signup_makes_an_account_with_the_kdf_of_those_clients(gateway: Gateway) -> None:
    assert await gateway.http.post("/signup", SIGNUP) == (201, {"verified": True})

    client = await gateway.served.open()
    assert await client.call("account.prelogin", email=JOE) == {
        "clientSaltSeed": SEED,
        "kdf": {"name": "scrypt", "n": 2**20, "r": 8, "p": 1},
    }


async def test_signup_of_a_taken_address_is_409(gateway: Gateway) -> None:
    await sign_up(gateway)

    answer = await gateway.http.post("/signup", {**SIGNUP, "email": "Joe@Example.com"})

    assert answer == (409, {"error": "Conflict: Error registering"})


async def test_signup_is_held_to_the_allowlist(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(verification="allowlist", allowlist=frozenset({JOE}))

    refused = await gateway.http.post("/signup", {**SIGNUP, "email": "ann@example.com"})

    assert refused == (403, {"error": "Forbidden: Account not whitelisted"})
    assert await gateway.http.post("/signup", SIGNUP) == (201, {"verified": True})


# POST /auth/full


async def test_auth_full_gives_a_token_and_when_it_ends(gateway: Gateway) -> None:
    await sign_up(gateway)

    status, answer = await gateway.http.post("/auth/full", AUTH)

    assert status == 200
    assert re.fullmatch("[0-9a-f]{64}", answer["token"])
    with open_database(gateway.served.database) as database:
        ((account_id,),) = database.execute("SELECT id FROM accounts").fetchall()
    assert (answer["deviceId"], answer["scope"], answer["userId"]) == ("laptop", "*", account_id)
    left = datetime.fromisoformat(answer["expiration"]) - datetime.now(UTC)
    assert timedelta(days=13) < left < timedelta(days=14)
    assert set(answer) == {"token", "deviceId", "scope", "userId", "expiration"}


async def test_auth_full_compares_the_address_in_lower_case(gateway: Gateway) -> None:
    await sign_up(gateway)

    await log_in(gateway, email="JOE@EXAMPLE.COM")


async def test_a_wrong_password_and_an_unknown_address_are_the_same_401(gateway: Gateway) -> None:
    await sign_up(gateway)

    for wrong in ({"password": "wrong password"}, {"email": "ann@example.com"}):
        assert await gateway.http.post("/auth/full", {**AUTH, **wrong}) == BAD_CREDENTIALS


async def test_a_device_id_of_any_length_is_given_back_and_is_one_device(gateway: Gateway) -> None:
    await sign_up(gateway)
    long_id = "an id with\na line break, that is longer than any of ours may be, by far"

    for _ in range(2):
        _, answer = await gateway.http.post("/auth/full", {**AUTH, "deviceId": long_id})
        assert answer["deviceId"] == long_id

    client, _ = await gateway.served.open_device(JOE, "phone")
    devices = (await client.call("device.list"))["devices"]
    assert len(devices) == 3
    assert await push(gateway, answer["token"]) == (200, {})
    assert len((await client.call("wallet.get"))["deviceId"]) == 64


# GET and POST /wallet


async def test_a_wallet_is_given_back_as_it_was_posted(gateway: Gateway) -> None:
    token = await sign_up(gateway)
    wallet = '100% "mixed" — %d%s \u0000'

    assert await push(gateway, token, encryptedWallet=wallet, hmac="50%") == (200, {})

    assert await gateway.http.get("/wallet", token=token) == (
        200,
        {"encryptedWallet": wallet, "sequence": 1, "hmac": "50%"},
    )


async def test_an_account_without_a_wallet_has_none_to_give(gateway: Gateway) -> None:
    token = await sign_up(gateway)

    assert await gateway.http.get("/wallet", token=token) == (
        404,
        {"error": "Not Found: No wallet"},
    )


@pytest.mark.parametrize("sequence", [1, 2, 4])
async def test_any_sequence_but_the_next_is_409_a_repeated_one_too(
    gateway: Gateway, sequence: int
) -> None:
    token = await sign_up(gateway)
    await push(gateway, token)
    assert await push(gateway, token, 2) == (200, {})

    answer = await push(gateway, token, sequence)

    assert answer == (409, {"error": "Conflict: Bad sequence number"})
    assert (await gateway.http.get("/wallet", token=token))[1]["encryptedWallet"] == "wallet 2"


async def test_a_wallet_larger_than_the_setting_is_413(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(wallet_bytes=1024)
    token = await sign_up(gateway)

    answer = await push(gateway, token, encryptedWallet="x" * 1025)

    assert answer == (413, {"error": "Request Entity Too Large"})
    assert await push(gateway, token, encryptedWallet="x" * 1024) == (200, {})


async def test_a_database_that_is_locked_for_a_while_costs_no_request(gateway: Gateway) -> None:
    token = await sign_up(gateway)
    with open_database(gateway.served.database) as database:
        database.execute("BEGIN IMMEDIATE")
        pushing = asyncio.create_task(push(gateway, token))
        # What only reads waits for nothing.
        assert (await gateway.http.get("/wallet", token=token))[0] == 404
        assert not pushing.done()
        database.execute("ROLLBACK")

    assert await pushing == (200, {})


# POST /password


async def test_a_password_change_takes_the_wallet_along_and_ends_every_token(
    gateway: Gateway,
) -> None:
    token = await sign_up(gateway)
    phone = await log_in(gateway, deviceId="phone")
    await push(gateway, token)

    assert await gateway.http.post("/password", {**CHANGE, **TRIO}) == (200, {})

    for ended in (token, phone):
        assert await gateway.http.get("/wallet", token=ended) == UNKNOWN_TOKEN
    assert await gateway.http.post("/auth/full", AUTH) == BAD_CREDENTIALS
    token = await log_in(gateway, password="another password")
    assert await gateway.http.get("/wallet", token=token) == (200, TRIO)
    assert await gateway.http.get("/client-salt-seed", email=encode(JOE)) == (
        200,
        {"clientSaltSeed": "ab" * 32},
    )


async def test_an_account_that_is_re_keyed_here_has_the_kdf_of_those_clients(
    gateway: Gateway,
) -> None:
    client = await gateway.served.open()
    await client.register(JOE)

    assert await gateway.http.post("/password", CHANGE) == (200, {})

    answer = await client.call("account.prelogin", email=JOE)
    assert (answer["kdf"]["n"], answer["clientSaltSeed"]) == (2**20, "ab" * 32)


async def test_a_password_change_needs_the_old_password(gateway: Gateway) -> None:
    await sign_up(gateway)

    for wrong in ({"oldPassword": "wrong password"}, {"email": "ann@example.com"}):
        assert await gateway.http.post("/password", {**CHANGE, **wrong}) == BAD_CREDENTIALS


async def test_a_password_change_needs_the_wallet_where_there_is_one(gateway: Gateway) -> None:
    await push(gateway, await sign_up(gateway))

    assert await gateway.http.post("/password", CHANGE) == (
        409,
        {"error": "Conflict: Wallet exists; need an updated wallet when changing password"},
    )


@pytest.mark.parametrize("pushed", [0, 1, 2])
async def test_a_password_change_with_a_wallet_that_is_not_the_next_is_409(
    gateway: Gateway, pushed: int
) -> None:
    token = await sign_up(gateway)
    for sequence in range(1, pushed + 1):
        await push(gateway, token, sequence)

    for sequence in {1, 2, 3} - {pushed + 1 if pushed else 0}:
        answer = await gateway.http.post("/password", {**CHANGE, **TRIO, "sequence": sequence})
        assert answer == (
            409,
            {"error": "Conflict: Bad sequence number or wallet does not exist"},
        )

    await log_in(gateway)


# GET /client-salt-seed


async def test_the_salt_seed_is_told_for_an_address_in_base64(gateway: Gateway) -> None:
    await sign_up(gateway)

    for email in (encode("Joe@example.com"), f"{encode(JOE)[:7]}\n{encode(JOE)[7:]}\r\n"):
        assert await gateway.http.get("/client-salt-seed", email=email) == (
            200,
            {"clientSaltSeed": SEED},
        )


async def test_a_plus_in_base64_may_come_unescaped(gateway: Gateway) -> None:
    email = "jo~~e@example.com"
    assert "+" in encode(email)
    await sign_up(gateway, email=email)

    response = await gateway.http.send("GET", f"{API}/client-salt-seed?email={encode(email)}")

    assert (response.status_code, response.json()) == (200, {"clientSaltSeed": SEED})


async def test_an_unknown_address_has_no_salt_seed(gateway: Gateway) -> None:
    answer = await gateway.http.get("/client-salt-seed", email=encode(JOE))

    assert answer == (404, {"error": "Not Found: No match for email"})


@pytest.mark.parametrize("email", ["", "%%%", encode("Joe <joe@example.com>"), "/w==", "am9l"])
async def test_what_is_no_address_in_base64_is_400(gateway: Gateway, email: str) -> None:
    assert await gateway.http.get("/client-salt-seed", email=email) == bad("Invalid email")


# Verification, where no mail is sent; where it is: test_mail.py.


async def test_there_is_nothing_to_resend_where_no_mail_is_sent(gateway: Gateway) -> None:
    assert await gateway.http.post("/verify/resend", {"email": JOE}) == (
        403,
        {"error": "Forbidden: Account verification mode is not set to EmailVerify"},
    )


async def test_a_verification_link_is_answered_for_people(gateway: Gateway) -> None:
    missing = await gateway.http.send("GET", f"{API}/verify")
    unknown = await gateway.http.send("GET", f"{API}/verify?verifyToken=unknown")

    assert (missing.status_code, missing.text) == (
        400,
        "There seems to be a problem with this URL: Missing verifyToken parameter",
    )
    assert unknown.status_code == 403
    assert re.search("not found.*used.*expired", unknown.text)
    for response in (missing, unknown):
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


# Tokens.


async def test_a_request_needs_a_token_that_lives(gateway: Gateway) -> None:
    assert await gateway.http.get("/wallet") == bad("Missing token parameter")
    assert await gateway.http.get("/wallet", token="unknown") == UNKNOWN_TOKEN
    assert await push(gateway, "unknown") == UNKNOWN_TOKEN


async def test_a_token_that_was_replaced_is_not_found(gateway: Gateway) -> None:
    token = await sign_up(gateway)
    await log_in(gateway)

    assert await gateway.http.get("/wallet", token=token) == UNKNOWN_TOKEN
    assert await push(gateway, token) == UNKNOWN_TOKEN


async def test_a_token_that_was_not_used_for_its_lifetime_is_not_found(
    gateway: Gateway,
) -> None:
    token = await sign_up(gateway)
    with open_database(gateway.served.database) as database:
        database.execute("UPDATE devices SET token_used_at = 0")

    assert await gateway.http.get("/wallet", token=token) == UNKNOWN_TOKEN
    assert await push(gateway, token) == UNKNOWN_TOKEN


async def test_using_a_token_keeps_it_alive(gateway: Gateway) -> None:
    token = await sign_up(gateway)
    with open_database(gateway.served.database) as database:
        (used_at_ms,) = database.execute("SELECT token_used_at FROM devices").fetchone()
        database.execute("UPDATE devices SET token_used_at = token_used_at - 86400000")

        await push(gateway, token)

        while True:
            (again_ms,) = database.execute("SELECT token_used_at FROM devices").fetchone()
            if again_ms >= used_at_ms:
                break
            assert (await gateway.http.get("/wallet", token=token))[0] == 200


async def test_a_disabled_account_is_kept_out(gateway: Gateway) -> None:
    token = await sign_up(gateway)
    with open_database(gateway.served.database) as database:
        database.execute("UPDATE accounts SET disabled = 1")

    disabled = (403, {"error": "Forbidden: Account is disabled"})
    assert await gateway.http.get("/wallet", token=token) == disabled
    assert await gateway.http.post("/auth/full", AUTH) == disabled
    assert await gateway.http.post("/password", CHANGE) == disabled


# What does not exist.


async def test_an_unknown_endpoint_says_so(gateway: Gateway) -> None:
    for path in ("/", "/nothing", "/api", "/api/3/nothing", "/api/3", "/api/3/", "/api/3/signup/"):
        for method in ("GET", "POST"):
            response = await gateway.http.send(method, path)
            assert (response.status_code, response.json()) == (
                404,
                {"error": "Not Found: Unknown Endpoint"},
            ), path


async def test_another_version_says_which_one_this_is(gateway: Gateway) -> None:
    for path in ("/api/", "/api/2/wallet", "/api/4/signup", "/api/33/wallet"):
        response = await gateway.http.send("GET", path)
        assert (response.status_code, response.json()) == (
            404,
            {"error": "Not Found: Wrong API version. Current version is 3."},
        ), path


async def test_another_method_is_405(gateway: Gateway) -> None:
    others = {
        "GET": ("/signup", "/auth/full", "/password", "/verify/resend"),
        "POST": ("/client-salt-seed", "/verify", "/websocket"),
        **dict.fromkeys(("PUT", "DELETE", "PATCH"), ("/wallet", "/signup")),
    }
    for method, paths in others.items():
        for path in paths:
            response = await gateway.http.send(method, API + path)
            assert (response.status_code, response.json()) == (
                405,
                {"error": "Method Not Allowed"},
            ), (method, path)


# Bodies.

BODIES: dict[str, dict[str, Any]] = {
    "/signup": SIGNUP,
    "/auth/full": AUTH,
    "/wallet": WALLET,
    "/password": {**CHANGE, **TRIO},
    "/verify/resend": {"email": JOE},
}


async def test_a_body_over_the_limit_is_413(gateway: Gateway) -> None:
    too_large = (413, {"error": "Request Entity Too Large"})

    for path in BODIES:
        assert await gateway.http.post(path, b" " * (BODY_BYTES_MAX + 1)) == too_large
        assert await gateway.http.post(path, b" " * 1_000_000) == too_large
        assert await gateway.http.post(path, b" " * BODY_BYTES_MAX) == bad("Error parsing JSON")


async def test_a_wallet_may_be_as_large_as_a_body(gateway: Gateway) -> None:
    token = await sign_up(gateway)
    room = BODY_BYTES_MAX - len(f'{{"encryptedWallet": "", "hmac": "mac 1", "token": "{token}", ')
    wallet = "x" * (room - len('"sequence": 1}'))

    assert await push(gateway, token, encryptedWallet=wallet) == (200, {})
    assert (await push(gateway, token, 2, encryptedWallet=wallet + "x"))[0] == 413


async def test_an_unknown_member_is_named(gateway: Gateway) -> None:
    for path, body in BODIES.items():
        answer = await gateway.http.post(path, {**body, "extra": 1})
        assert answer == bad('json: unknown field "extra"'), path


async def test_a_body_is_json_whatever_its_content_type(gateway: Gateway) -> None:
    token = await sign_up(gateway)
    for sequence, kind in enumerate(("text/plain", "application/x-www-form-urlencoded", "x"), 1):
        body = {**WALLET, "token": token, "sequence": sequence}
        response = await gateway.http.send(
            "POST",
            f"{API}/wallet",
            content=json.dumps(body).encode(),
            headers={"Content-Type": kind},
        )
        assert (response.status_code, response.json()) == (200, {}), kind


async def test_what_is_no_json_object_is_told(gateway: Gateway) -> None:
    for path in BODIES:
        for body in (b"", b"{", b"[]", b'"text"', b"\xff", b"NaN"):
            assert await gateway.http.post(path, body) == bad("Error parsing JSON"), (path, body)


@pytest.mark.parametrize("path", BODIES)
async def test_a_member_of_a_wrong_type_is_told(gateway: Gateway, path: str) -> None:
    for name in BODIES[path]:
        values: list[Any] = [True, [], {}, 1.5]
        for value in values:
            answer = await gateway.http.post(path, {**BODIES[path], name: value})
            assert answer == bad("Error parsing JSON"), (name, value)


async def test_a_sequence_is_a_whole_number_of_32_bits(gateway: Gateway) -> None:
    for path in ("/wallet", "/password"):
        for sequence in (2**32, 2**64, -1, 1.0, "1"):
            answer = await gateway.http.post(path, {**BODIES[path], "sequence": sequence})
            assert answer == bad("Error parsing JSON"), (path, sequence)


async def test_the_largest_sequence_is_read(gateway: Gateway) -> None:
    token = await sign_up(gateway)

    assert (await push(gateway, token, 2**32 - 1))[0] == 409


async def test_names_count_in_any_case_and_null_is_what_is_not_there(gateway: Gateway) -> None:
    body = {"EMAIL": JOE, "Password": PASSWORD, "clientsaltseed": SEED}
    assert await gateway.http.post("/signup", body) == (201, {"verified": True})

    absent = dict.fromkeys(TRIO)
    assert await gateway.http.post("/password", {**CHANGE, **absent}) == (200, {})
    assert await gateway.http.post("/signup", b"null") == invalid("Invalid or missing 'email'")


NO_ADDRESSES = ["", "joe", "Joe <joe@example.com>", " joe@example.com", "joe@example.com "]
BAD_EMAIL, BAD_SEED = "Invalid or missing 'email'", "Invalid or missing 'clientSaltSeed'"
SHORT, NO_SEEDS = "1234567", ["", "ab" * 31, "ab" * 33, "xy" * 32]
TOGETHER = (
    "Fields 'encryptedWallet', 'sequence', and 'hmac' should be all non-empty and non-zero, or all "
    "omitted"
)
VALIDATIONS: list[tuple[str, dict[str, Any], str]] = [
    *(("/signup", {"email": email}, BAD_EMAIL) for email in NO_ADDRESSES),
    ("/signup", {"password": SHORT}, "Invalid or missing 'password'"),
    *(("/signup", {"clientSaltSeed": seed}, BAD_SEED) for seed in NO_SEEDS),
    *(("/auth/full", {"email": email}, "Invalid 'email'") for email in NO_ADDRESSES),
    ("/auth/full", {"password": SHORT}, "Invalid or missing 'password'"),
    ("/auth/full", {"deviceId": ""}, "Missing 'deviceId'"),
    ("/wallet", {"token": ""}, "Missing 'token'"),
    ("/wallet", {"encryptedWallet": ""}, "Missing 'encryptedWallet'"),
    ("/wallet", {"hmac": ""}, "Missing 'hmac'"),
    ("/wallet", {"sequence": 0}, "Missing or zero-value 'sequence'"),
    ("/wallet", {"hmac": "x" * 257}, "Invalid 'hmac'"),
    *(("/password", {"email": email}, BAD_EMAIL) for email in NO_ADDRESSES),
    ("/password", {"oldPassword": SHORT}, "Invalid or missing 'oldPassword'"),
    ("/password", {"newPassword": SHORT}, "Invalid or missing 'newPassword'"),
    *(("/password", {"clientSaltSeed": seed}, BAD_SEED) for seed in NO_SEEDS),
    (
        "/password",
        {"newPassword": PASSWORD},
        "'oldPassword' and 'newPassword' should not be the same",
    ),
    ("/password", {"encryptedWallet": ""}, TOGETHER),
    ("/password", {"sequence": 0}, TOGETHER),
    ("/password", {"hmac": ""}, TOGETHER),
    ("/password", {"hmac": "x" * 257}, "Invalid 'hmac'"),
    *(("/verify/resend", {"email": email}, BAD_EMAIL) for email in NO_ADDRESSES),
]


@pytest.mark.parametrize("path", BODIES)
async def test_a_bad_value_is_told(gateway: Gateway, path: str) -> None:
    for its_path, wrong, told in VALIDATIONS:
        if its_path == path:
            answer = await gateway.http.post(path, {**BODIES[path], **wrong})
            assert answer == invalid(told), wrong


@pytest.mark.parametrize(
    ("path", "order"),
    [
        ("/signup", [BAD_EMAIL, "Invalid or missing 'password'", BAD_SEED]),
        ("/auth/full", ["Invalid 'email'", "Invalid or missing 'password'", "Missing 'deviceId'"]),
        (
            "/wallet",
            [
                "Missing 'token'",
                "Missing 'encryptedWallet'",
                "Missing 'hmac'",
                "Missing or zero-value 'sequence'",
            ],
        ),
        (
            "/password",
            [
                BAD_EMAIL,
                "Invalid or missing 'oldPassword'",
                "Invalid or missing 'newPassword'",
                BAD_SEED,
            ],
        ),
    ],
)
async def test_the_first_that_is_wrong_is_told(
    gateway: Gateway, path: str, order: list[str]
) -> None:
    names = [re.findall("'(.*?)'", told)[0] for told in order]
    body: dict[str, Any] = {}
    for name, told in zip(names, order, strict=True):
        assert await gateway.http.post(path, body) == invalid(told)
        body[name] = BODIES[path][name]


async def test_a_password_change_is_checked_as_a_whole_last(gateway: Gateway) -> None:
    wrong = {**CHANGE, "newPassword": PASSWORD, "clientSaltSeed": "", "sequence": 1}

    for repaired, told in (
        ({}, BAD_SEED),
        (
            {"clientSaltSeed": SEED},
            "'oldPassword' and 'newPassword' should not be the same",
        ),
        ({"newPassword": "another password"}, TOGETHER),
    ):
        wrong |= repaired
        assert await gateway.http.post("/password", wrong) == invalid(told)
