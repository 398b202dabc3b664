"""Every method answers as the server's own OpenRPC document says, and every error can be met."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.e2e.conftest import Serve
from tests.e2e.rawclient import KDF, PASSWORD, SEED, CallFailed, RawClient, state
from tests.e2e.serving import Served, open_database


class Contract:
    """The document that a server gave, as the judge of what the server sends."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.methods = {method["name"]: method for method in document["methods"]}
        self.unused = set(self.methods)

    def check_result(self, method: str, result: Any) -> None:
        self._check(self.methods[method]["result"]["schema"], result)
        self.unused.discard(method)

    def check_error(self, method: str, error: CallFailed) -> None:
        """The method may fail so, and the error's data is of the form that is told."""
        for reference in self.methods[method]["errors"]:
            told = self.document["components"]["errors"][reference["$ref"].rsplit("/", 1)[1]]
            reason = told.get("data", {}).get("properties", {}).get("reason", {}).get("const")
            if told["code"] == error.code and reason in (None, error.reason):
                self._check(told["data"], error.data)
                return
        raise AssertionError(f"{method} is not said to fail with {error.code} {error.reason}")

    def check_notification(self, method: str, params: dict[str, Any]) -> None:
        (told,) = (item for item in self.document["x-notifications"] if item["name"] == method)
        members = {member["name"]: member for member in told["params"]}
        assert set(params) <= set(members)
        assert {name for name, member in members.items() if member["required"]} <= set(params)
        for name, value in params.items():
            self._check(members[name]["schema"], value)

    def _check(self, schema: dict[str, Any], value: Any) -> None:
        Draft7Validator({**schema, "components": self.document["components"]}).validate(value)


async def discover(client: RawClient) -> Contract:
    return Contract(await client.call("rpc.discover"))


async def test_every_method_answers_as_rpc_discover_says(served: Served) -> None:
    client = await served.open()
    contract = await discover(client)
    contract.check_result("rpc.discover", contract.document)

    async def call(method: str, **params: Any) -> Any:
        result = await client.call(method, **params)
        contract.check_result(method, result)
        return result

    info = await call("server.info")
    assert (info["name"], info["protocol"], info["verification"]) == ("wallet-sync", 1, "open")
    assert info["limits"]["messageBytes"] >= 6 * info["limits"]["walletBytes"]
    assert await call("server.ping") == {}
    credentials = {"password": PASSWORD, "clientSaltSeed": SEED, "kdf": KDF}
    assert await call("account.register", email="joe@example.com", **credentials) == {
        "verified": True
    }
    assert await call("account.prelogin", email="JOE@example.com") == {
        "clientSaltSeed": SEED,
        "kdf": KDF,
    }
    opened = await call(
        "session.login", email="Joe@Example.com", password=PASSWORD, deviceId="laptop", since=0
    )
    assert (opened["sequence"], opened["hmac"], opened["wallet"]) == (0, None, None)

    pushed = await call("wallet.push", **state(1))
    assert (pushed["encryptedWallet"], pushed["deviceId"]) == ("wallet 1", "laptop")
    receipt = await call("wallet.push", **state(2), receipt=True)
    assert set(receipt) == {"sequence", "hmac", "updatedAt"}
    assert (await call("wallet.get"))["sequence"] == 2
    assert await call("wallet.get", sequence=1) == pushed
    history = await call("wallet.history")
    assert [version["sequence"] for version in history["versions"]] == [2, 1]
    assert history["versions"][0]["bytes"] == len("wallet 2")
    assert await call("wallet.history", limit=1, before=2) == {"versions": history["versions"][1:]}
    assert await call("wallet.ack", sequence=2) == {}

    phone, _ = await served.open_device("joe@example.com", "phone", deviceName="Joe's phone")
    devices = (await call("device.list"))["devices"]
    assert [(device["deviceId"], device["name"]) for device in devices] == [
        ("laptop", None),
        ("phone", "Joe's phone"),
    ]
    assert [device["current"] for device in devices] == [True, False]
    assert [device["appliedSequence"] for device in devices] == [2, 0]
    assert await call("device.revoke", deviceId="phone") == {}
    assert await phone.closed() == 4401

    client = await served.open()
    resumed = await call("session.resume", token=opened["token"], since=1, epoch=opened["epoch"])
    assert resumed["wallet"]["encryptedWallet"] == "wallet 2"
    assert "token" not in resumed
    change = {"oldPassword": PASSWORD, "newPassword": "a new password"}
    assert (
        await call(
            "account.changePassword", **change, clientSaltSeed=SEED, kdf=KDF, wallet=state(3)
        )
        == {}
    )
    client, again = await served.open_device("joe@example.com", password="a new password", since=2)
    assert again["wallet"]["encryptedWallet"] == "wallet 3"
    assert await call("session.logout") == {}
    client, _ = await served.open_device("joe@example.com", password="a new password")
    assert await call("account.delete", password="a new password") == {}
    assert await client.closed() == 4401

    # What needs mail answers in this mode with an error only.
    assert contract.unused == {
        "account.verify",
        "account.resendVerification",
        "account.requestReset",
        "account.reset",
    }


async def test_every_reason_that_can_be_met_in_mode_open_is_met(serve: Serve) -> None:
    served = await serve(wallet_bytes=1024, devices_max=2, history_depth=2)
    stranger = await served.open()
    contract = await discover(stranger)
    met: set[tuple[int, str]] = set()

    async def fail(client: RawClient, method: str, **params: Any) -> CallFailed:
        error = await client.fail(method, **params)
        contract.check_error(method, error)
        met.add((error.code, error.reason))
        return error

    joe = await served.open_account()
    credentials = {"password": PASSWORD, "clientSaltSeed": SEED, "kdf": KDF}
    login = {"email": "joe@example.com", "password": PASSWORD, "deviceId": "phone"}

    await fail(stranger, "session.login", **{**login, "password": "something else"})
    await fail(stranger, "session.login", **{**login, "email": "nobody@example.com"})
    await fail(stranger, "session.resume", token="f" * 64)
    await fail(stranger, "wallet.get")
    await fail(stranger, "account.register", email="JOE@EXAMPLE.COM", **credentials)
    await fail(stranger, "account.verify", token="f" * 64)
    await fail(stranger, "account.reset", token="f" * 64, **credentials)
    await fail(stranger, "account.resendVerification", email="joe@example.com")
    await fail(stranger, "account.requestReset", email="joe@example.com")

    await fail(joe, "session.login", **login)
    await fail(joe, "session.resume", token="f" * 64)
    await fail(joe, "wallet.get")
    await fail(joe, "wallet.get", sequence=1)
    await fail(joe, "wallet.ack", sequence=1)
    await fail(joe, "device.revoke", deviceId="a device that there is not")
    await fail(joe, "account.delete", password="something else")
    change = {"oldPassword": PASSWORD, "newPassword": "a new password", "clientSaltSeed": SEED}
    await fail(joe, "account.changePassword", **{**change, "oldPassword": "wrong one"}, kdf=KDF)

    first = await fail(joe, "wallet.push", **state(2))
    assert first.data == {"reason": "conflict", "wallet": None, "landed": False}
    for sequence in (1, 2, 3):
        await joe.push(sequence)
    stale = await fail(joe, "wallet.push", **state(2, "another wallet"))
    assert (stale.data["wallet"]["encryptedWallet"], stale.data["landed"]) == ("wallet 3", False)
    landed = await fail(joe, "wallet.push", **state(2))
    assert (landed.data["wallet"]["encryptedWallet"], landed.data["landed"]) == ("wallet 3", True)
    await fail(joe, "wallet.get", sequence=1)
    await fail(joe, "account.changePassword", **change, kdf=KDF)
    missed = await fail(joe, "account.changePassword", **change, kdf=KDF, wallet=state(9))
    assert missed.data["wallet"]["sequence"] == 3
    large = await fail(joe, "wallet.push", **state(4, "w" * 1025))
    assert large.data["maxBytes"] == 1024
    await fail(joe, "account.changePassword", **change, kdf=KDF, wallet=state(4, "w" * 1025))

    await served.open_device("joe@example.com", "phone")
    await fail(stranger, "session.login", **{**login, "deviceId": "tablet"})

    token = (await served.open_device("joe@example.com", "phone"))[1]["token"]
    with open_database(served.database) as database:
        database.execute("UPDATE accounts SET disabled = 1")
    await fail(joe, "wallet.push", **state(4))
    await fail(stranger, "session.login", **login)
    await fail(stranger, "session.resume", token=token)
    with open_database(served.database) as database:
        database.execute("UPDATE accounts SET disabled = 0, verified = 0")
    await fail(stranger, "session.login", **login)
    wrong = await fail(stranger, "session.login", **{**login, "password": "something else"})
    assert wrong.reason == "bad_credentials", "not_verified is told after the right one only"

    assert met == {
        (401, "bad_credentials"),
        (401, "bad_token"),
        (401, "not_authenticated"),
        (403, "not_verified"),
        (403, "not_allowed"),
        (403, "already_authenticated"),
        (403, "account_disabled"),
        (403, "too_many_devices"),
        (404, "no_wallet"),
        (404, "no_such_version"),
        (404, "no_such_device"),
        (404, "bad_verification_token"),
        (404, "bad_reset_token"),
        (409, "conflict"),
        (409, "wallet_exists"),
        (409, "account_exists"),
        (413, "wallet_too_large"),
    }


async def test_logins_beyond_the_queue_get_429_and_when_to_come_back(
    serve_at_full_cost: Serve,
) -> None:
    served = await serve_at_full_cost(password_workers=1, password_waiting_max=1)
    client = await served.open()
    contract = await discover(client)
    login = {"email": "joe@example.com", "password": PASSWORD, "deviceId": "laptop"}

    others = [await served.open() for _ in range(4)]
    errors = await asyncio.gather(*(other.fail("session.login", **login) for other in others))

    refused = [error for error in errors if error.code == 429]
    assert refused, "one is hashed, one waits, and of the rest at least one is turned away"
    assert any(error.code == 401 for error in errors)
    for error in refused:
        contract.check_error("session.login", error)
        assert error.data["retryAfterMs"] > 0


async def test_a_locked_database_is_answered_with_503_and_nothing_is_changed(
    served: Served,
) -> None:
    joe = await served.open_account()
    contract = await discover(joe)

    with open_database(served.database) as database:
        database.execute("BEGIN IMMEDIATE")
        error = await joe.fail("wallet.push", **state(1))
        assert (await joe.fail("wallet.get")).reason == "no_wallet", "reading goes on"
        database.execute("ROLLBACK")

    contract.check_error("wallet.push", error)
    assert (error.code, error.reason) == (503, "unavailable")
    assert error.data["retryAfterMs"] > 0
    assert (await joe.push(1))["sequence"] == 1


async def test_a_failure_of_the_servers_own_gives_an_id_and_nothing_else(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    joe = await served.open_account()
    contract = await discover(joe)
    await joe.push(1)
    with open_database(served.database) as database:
        database.execute("UPDATE versions SET encrypted_wallet = x'ff'")  # no UTF-8

    error = await joe.fail("wallet.get")

    contract.check_error("wallet.get", error)
    assert (error.code, error.message) == (-32603, "Internal error")
    assert set(error.data) == {"errorId"}
    assert error.data["errorId"] in caplog.text
    assert await joe.call("server.ping") == {}, "the connection goes on"


@pytest.mark.parametrize(
    ("params", "path", "reason"),
    [
        ({}, "email", "missing"),
        ({"email": None}, "email", "wrong_type"),
        ({"email": "joe@example.com", "more": 1}, "more", "unknown"),
        ({"email": "Joe <joe@example.com>"}, "email", "malformed"),
        ({"email": "j" * 250 + "@example.com"}, "email", "out_of_bounds"),
        ([1], "params", "wrong_type"),
    ],
)
async def test_wrong_params_are_told_by_member_and_reason(
    served: Served, params: Any, path: str, reason: str
) -> None:
    client = await served.open()
    answer = await client.ask(
        {"jsonrpc": "2.0", "id": 1, "method": "account.prelogin", "params": params}
    )
    assert answer["error"]["code"] == -32602
    assert answer["error"]["data"] == {"path": path, "reason": reason}


async def test_checks_go_envelope_method_authentication_parameters(served: Served) -> None:
    client = await served.open()

    async def code(**members: Any) -> int:
        return int((await client.ask({"jsonrpc": "2.0", "id": 1, **members}))["error"]["code"])

    assert await code(jsonrpc="1.0", method="no.such") == -32600
    assert await code(method="no.such", params=[1]) == -32601
    assert await code(method="wallet.push", params=[1]) == 401
    await client.register("joe@example.com")
    await client.login("joe@example.com")
    assert await code(method="wallet.push", params=[1]) == -32602
    assert (await client.ask("{"))["error"]["code"] == -32700


async def test_an_empty_array_counts_as_no_params(served: Served) -> None:
    client = await served.open()
    answer = await client.ask({"jsonrpc": "2.0", "id": 7, "method": "server.ping", "params": []})
    assert answer == {"jsonrpc": "2.0", "id": 7, "result": {}}


@pytest.mark.parametrize("call_id", ["a", "", 0, -1, 1.5, None, 2**53, "ü\u0000"])
async def test_an_answer_has_the_id_of_its_call(served: Served, call_id: Any) -> None:
    client = await served.open()
    answer = await client.ask({"jsonrpc": "2.0", "id": call_id, "method": "server.ping"})
    assert answer == {"jsonrpc": "2.0", "id": call_id, "result": {}}


@pytest.mark.parametrize("call_id", [True, [], {}])
async def test_an_id_of_another_kind_is_an_invalid_request(served: Served, call_id: Any) -> None:
    client = await served.open()
    answer = await client.ask({"jsonrpc": "2.0", "id": call_id, "method": "server.ping"})
    assert (answer["id"], answer["error"]["code"]) == (None, -32600)


async def test_only_the_allowlist_may_register(serve: Serve) -> None:
    served = await serve(verification="allowlist", allowlist="joe@example.com,Ann@Example.com")
    client = await served.open()

    assert (await client.call("server.info"))["verification"] == "allowlist"
    assert await client.register("JOE@example.com") == {"verified": True}
    assert await client.register("ann@example.com") == {"verified": True}
    for email in ("eve@example.com", "joe@example.org"):
        error = await client.fail(
            "account.register", email=email, password=PASSWORD, clientSaltSeed=SEED, kdf=KDF
        )
        assert (error.code, error.reason) == (403, "not_allowed")
    assert (await client.login("joe@example.com"))["sequence"] == 0


async def test_an_unknown_address_gets_the_same_decoy_after_a_restart(served: Served) -> None:
    client = await served.open()
    decoy = await client.call("account.prelogin", email="nobody@example.com")
    assert decoy == await client.call("account.prelogin", email="NOBODY@example.com")
    assert decoy != await client.call("account.prelogin", email="someone@example.com")
    await served.stop()

    again = await Served.start(served.database.parent)
    try:
        client = await again.open()
        assert await client.call("account.prelogin", email="nobody@example.com") == decoy
    finally:
        await again.stop()
