"""Logins and password changes: what they hold up, and what outlives them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.e2e.conftest import PasswordGate, Serve
from tests.e2e.rawclient import KDF, PASSWORD, SEED, CallFailed, state
from tests.e2e.serving import Served, open_database

ROUNDS = 100


@pytest.fixture
def chance() -> random.Random:
    """Random moments; pytest shows the seed when a test fails."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


async def test_a_login_in_progress_does_not_hold_up_a_ping(
    serve: Serve, password_gate: PasswordGate
) -> None:
    served = await serve(password_workers=1)
    client = await served.open()
    login = {"email": "joe@example.com", "password": PASSWORD, "deviceId": "laptop"}
    password_gate.hold_next()

    for message in (
        {"jsonrpc": "2.0", "id": "login", "method": "session.login", "params": login},
        {"jsonrpc": "2.0", "id": "ping", "method": "server.ping"},
        {"jsonrpc": "2.0", "id": "get", "method": "wallet.get"},
    ):
        await client.send(message)
    await client.until(lambda: len(client.received) == 2)
    await password_gate.wait_until_held()
    password_gate.release()
    await client.until(lambda: len(client.received) == 3)

    assert [answer["id"] for answer in client.received] == ["ping", "get", "login"]
    assert client.received[1]["error"]["code"] == 401, "not authenticated before the login's answer"


async def test_many_logins_at_full_cost_do_not_hold_up_a_ping(serve_at_full_cost: Serve) -> None:
    served = await serve_at_full_cost(password_workers=1)
    client = await served.open()
    login = {"email": "joe@example.com", "password": PASSWORD, "deviceId": "laptop"}
    logins = [await (await served.open()).submit("session.login", **login) for _ in range(2)]
    logins.append(await client.submit("session.login", **login))

    assert await client.call("server.ping") == {}

    assert not logins[-1].done(), "the ping was answered first"
    for answered in logins:
        with pytest.raises(CallFailed, match="401"):
            await answered


async def test_no_push_under_an_old_token_lands_after_a_password_change_was_answered(
    served: Served, chance: random.Random
) -> None:
    await served.open_account("joe@example.com")
    sequence, password = 0, PASSWORD
    landed = refused = unanswered = 0
    for number in range(ROUNDS):
        changer, _ = await served.open_device("joe@example.com", "changer", password=password)
        pusher, _ = await served.open_device("joe@example.com", "pusher", password=password)
        if sequence == 0:
            sequence = (await changer.push(1))["sequence"]
        changed_to = f"password number {number}"

        changing = asyncio.create_task(
            changer.change_password(password, changed_to, sequence + 1, f"under {changed_to}")
        )
        await asyncio.sleep(chance.uniform(0, 0.004))
        pushes = []
        try:
            for ahead in range(1, 7):
                pushes.append(await pusher.submit("wallet.push", **state(sequence + ahead)))
                await asyncio.sleep(chance.uniform(0, 0.001))
        except Exception as error:
            assert pusher.close_code == 4401, error
        changed_at = await changing
        assert await changer.closed() == await pusher.closed() == 4401
        outcomes = await asyncio.gather(*pushes, return_exceptions=True)

        for outcome in outcomes:
            if isinstance(outcome, dict):
                landed += 1
                assert outcome["sequence"] < changed_at
            elif isinstance(outcome, CallFailed):
                refused += 1
                assert outcome.reason in ("bad_token", "conflict")
            else:
                unanswered += 1
                assert isinstance(outcome, ConnectionError)
        password = changed_to
        after, opened = await served.open_device(
            "joe@example.com", "reader", password=password, since=0
        )
        assert opened["sequence"] == changed_at
        assert opened["wallet"]["encryptedWallet"] == f"under {changed_to}"
        assert (await after.call("wallet.history"))["versions"][-1]["sequence"] == changed_at
        sequence = changed_at
        for client in (changer, pusher, after):
            await client.close()

    print(f"pushes: {landed} landed before the change, {refused} refused, {unanswered} unanswered")
    assert landed, "it did race"
    assert refused + unanswered, "on both sides"


async def test_a_login_that_was_in_scrypt_while_the_password_changed_gets_no_token(
    serve: Serve, password_gate: PasswordGate
) -> None:
    served = await serve(password_workers=2)
    await served.open_account("joe@example.com")
    password = PASSWORD
    for number in range(ROUNDS):
        changed_to = f"password number {number}"
        changer, _ = await served.open_device("joe@example.com", "changer", password=password)
        latecomer = await served.open()

        password_gate.hold_next()
        login = asyncio.create_task(
            latecomer.fail(
                "session.login", email="joe@example.com", password=password, deviceId="late"
            )
        )
        await password_gate.wait_until_held()
        await changer.call(
            "account.changePassword",
            oldPassword=password,
            newPassword=changed_to,
            clientSaltSeed=SEED,
            kdf=KDF,
        )
        password_gate.release()

        assert (await login).reason == "bad_credentials"
        password = changed_to
        for client in (changer, latecomer):
            await client.close()
    reader, _ = await served.open_device("joe@example.com", "reader", password=password)
    devices = (await reader.call("device.list"))["devices"]
    assert "late" not in [device["deviceId"] for device in devices]


async def test_a_login_that_races_a_password_change_keeps_no_token_of_the_old_one(
    serve: Serve, chance: random.Random
) -> None:
    served = await serve(password_workers=2)
    await served.open_account("joe@example.com")
    password = PASSWORD
    won = lost = 0
    head_start_s = 0.001
    for number in range(ROUNDS):
        changed_to = f"password number {number}"
        changer, _ = await served.open_device("joe@example.com", "changer", password=password)
        rival = await served.open()

        login = await rival.submit(
            "session.login", email="joe@example.com", password=password, deviceId="rival"
        )
        await asyncio.sleep(max(0.0, head_start_s + chance.uniform(-0.001, 0.001)))
        await changer.call(
            "account.changePassword",
            oldPassword=password,
            newPassword=changed_to,
            clientSaltSeed=SEED,
            kdf=KDF,
        )
        try:
            token = (await login)["token"]
        except CallFailed as error:
            assert error.reason == "bad_credentials"
            lost += 1
            head_start_s += 0.0003
        else:
            won += 1
            head_start_s -= 0.0003
            assert await rival.hear("session.revoked") == [{"reason": "password_changed"}]
            assert await rival.closed() == 4401
            again = await served.open()
            assert (await again.fail("session.resume", token=token)).reason == "bad_token"
            await again.close()
        password = changed_to
        for client in (changer, rival):
            await client.close()
    print(f"the login was first {won} times, the change {lost} times")


async def test_a_login_upgrades_a_password_stored_under_weaker_parameters(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve()
    await served.open_account("joe@example.com")
    monkeypatch.setattr("wsserver.operations.SCRYPT_N", 64)
    monkeypatch.setattr("wsserver.passwords.SCRYPT_N", 64)

    for _ in range(2):
        await served.open_device("joe@example.com")

    assert read_parameters(served) == [(64, 8, 1)]


def read_parameters(served: Served) -> list[Any]:
    with open_database(served.database) as database:
        rows = database.execute("SELECT password_n, password_r, password_p FROM accounts")
        return list(rows.fetchall())
