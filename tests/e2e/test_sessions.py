"""How sessions begin and end: revocation, devices, limits, clocks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.e2e.conftest import PasswordGate, Serve
from tests.e2e.rawclient import KDF, PASSWORD, SEED, CallFailed, RawClient, state
from tests.e2e.serving import Served


async def revoked(client: RawClient) -> str:
    """The reason of the revocation, which is the last thing said before close 4401."""
    assert await client.closed() == 4401
    last = client.received[-1]
    assert last["method"] == "session.revoked"
    return str(last["params"]["reason"])


async def open_two(served: Served) -> tuple[RawClient, RawClient, str]:
    """The laptop and the phone of an account, and the phone's token."""
    laptop = await served.open_account("joe@example.com")
    phone, opened = await served.open_device("joe@example.com", "phone")
    return laptop, phone, opened["token"]


async def refused(served: Served, token: str) -> bool:
    stranger = await served.open()
    return (await stranger.fail("session.resume", token=token)).reason == "bad_token"


async def answered_first(client: RawClient, method: str, **params: Any) -> None:
    """The call's answer comes, then the revocation of the one that called."""
    assert await client.call(method, **params) == {}
    answer = client.received.index(
        next(m for m in reversed(client.received) if m.get("result") == {})
    )
    await client.closed()
    assert [m.get("method") for m in client.received[answer:]] == [None, "session.revoked"]


async def test_a_password_change_revokes_every_session_after_its_answer(served: Served) -> None:
    laptop, phone, token = await open_two(served)
    await answered_first(
        laptop,
        "account.changePassword",
        oldPassword=PASSWORD,
        newPassword="a new password",
        clientSaltSeed=SEED,
        kdf=KDF,
    )
    assert await revoked(laptop) == await revoked(phone) == "password_changed"
    assert await refused(served, token)


async def test_a_logout_ends_one_device_and_leaves_it_on_the_list(served: Served) -> None:
    laptop, phone, token = await open_two(served)
    twin = await served.open()
    await twin.call("session.resume", token=token)

    await answered_first(phone, "session.logout")

    assert await revoked(phone) == await revoked(twin) == "logged_out"
    assert await refused(served, token)
    devices = (await laptop.call("device.list"))["devices"]
    assert {device["deviceId"]: device["online"] for device in devices} == {
        "laptop": True,
        "phone": False,
    }


async def test_a_deletion_takes_the_account_and_all_its_sessions(served: Served) -> None:
    laptop, phone, token = await open_two(served)
    await laptop.push(1)

    await answered_first(laptop, "account.delete", password=PASSWORD)

    assert await revoked(laptop) == await revoked(phone) == "account_deleted"
    assert await refused(served, token)
    again = await served.open_account("joe@example.com")
    assert (await again.fail("wallet.get")).reason == "no_wallet"


async def test_a_revoked_device_leaves_the_list(served: Served) -> None:
    laptop, phone, token = await open_two(served)

    assert await laptop.call("device.revoke", deviceId="phone") == {}

    assert await revoked(phone) == "device_revoked"
    assert await refused(served, token)
    assert len((await laptop.call("device.list"))["devices"]) == 1
    assert (await laptop.fail("device.revoke", deviceId="phone")).reason == "no_such_device"


async def test_a_device_that_revokes_itself_is_answered_first(served: Served) -> None:
    laptop, _, _ = await open_two(served)
    await answered_first(laptop, "device.revoke", deviceId="laptop")
    assert await revoked(laptop) == "device_revoked"


async def test_a_new_login_replaces_the_device_s_last(served: Served) -> None:
    _, phone, token = await open_two(served)
    again, opened = await served.open_device("joe@example.com", "phone")

    assert await revoked(phone) == "replaced"
    assert await refused(served, token)
    assert (await again.push(1))["deviceId"] == "phone"
    assert opened["token"] != token


async def test_a_batch_with_a_logout_is_answered_whole_before_the_session_ends(
    served: Served,
) -> None:
    joe = await served.open_account()
    logout = {"jsonrpc": "2.0", "id": 1, "method": "session.logout"}
    push = {"jsonrpc": "2.0", "id": 2, "method": "wallet.push", "params": state(1)}
    ping = {"jsonrpc": "2.0", "id": 3, "method": "server.ping"}

    answers = {answer["id"]: answer for answer in await joe.ask([logout, push, ping])}

    assert answers[1]["result"] == answers[3]["result"] == {}
    assert answers[2]["error"]["code"] == 401, "the logout came before it"
    assert await revoked(joe) == "logged_out"


async def test_calls_after_a_logout_do_nothing(served: Served) -> None:
    laptop, phone, _ = await open_two(served)
    await phone.send({"jsonrpc": "2.0", "id": -1, "method": "session.logout"})
    await phone.send({"jsonrpc": "2.0", "id": -2, "method": "wallet.push", "params": state(1)})
    assert await revoked(phone) == "logged_out"
    assert (await laptop.fail("wallet.get")).reason == "no_wallet"


async def test_one_device_too_many_drops_the_one_seen_longest_ago(serve: Serve) -> None:
    served = await serve(devices_max=3)
    laptop = await served.open_account("joe@example.com")
    tokens = {}
    for name in ("first", "second"):
        device, opened = await served.open_device("joe@example.com", name)
        tokens[name] = opened["token"]
        await device.close()
        await asyncio.sleep(0.01)  # Last seen is told in milliseconds.

    await served.open_device("joe@example.com", "third")

    devices = (await laptop.call("device.list"))["devices"]
    assert {device["deviceId"] for device in devices} == {"laptop", "second", "third"}
    assert await refused(served, tokens["first"])


async def test_a_token_outlives_a_restart_and_many_connections_may_share_it(
    served: Served,
) -> None:
    _, _, token = await open_two(served)
    for _ in range(3):
        twin = await served.open()
        assert (await twin.call("session.resume", token=token))["deviceId"] == "phone"
    await served.stop()

    again = await Served.start(served.database.parent)
    try:
        client = await again.open()
        assert (await client.call("session.resume", token=token))["deviceId"] == "phone"
    finally:
        await again.stop()


async def test_since_and_epoch_decide_whether_the_wallet_comes_with_the_answer(
    served: Served,
) -> None:
    joe = await served.open_account()
    await joe.push(1)
    _, opened = await served.open_device("joe@example.com", "phone")

    async def resume(**params: Any) -> Any:
        client = await served.open()
        return (await client.call("session.resume", token=opened["token"], **params))["wallet"]

    assert opened["wallet"] is None
    assert await resume() is None
    assert await resume(since=1) is None
    assert await resume(since=1, epoch=opened["epoch"]) is None
    assert (await resume(since=0))["sequence"] == 1
    assert (await resume(since=7))["sequence"] == 1
    assert (await resume(since=1, epoch="another life"))["sequence"] == 1


async def test_a_stranger_may_send_16_kib_a_message_and_a_member_much_more(
    served: Served,
) -> None:
    ping = '{"jsonrpc": "2.0", "id": -1, "method": "server.ping", "more": "'
    stranger = await served.open()
    announced = (await stranger.call("server.info"))["limits"]
    limit = announced["anonymousMessageBytes"]
    assert limit == 16 * 1024

    assert (await stranger.ask(ping + "x" * (limit - len(ping) - 2) + '"}'))["result"] == {}
    await stranger.send(ping + "x" * (limit - len(ping) - 1) + '"}')
    assert await stranger.closed() == 1009

    member = await served.open_account()
    size = announced["messageBytes"]
    assert (await member.ask(ping + "x" * (size - len(ping) - 2) + '"}'))["result"] == {}
    await member.send(ping + "x" * (size - len(ping) - 1) + '"}')
    assert await member.closed() == 1009


@pytest.mark.parametrize("text", ["\u0001", "w", "€", "😀"])
async def test_a_wallet_of_just_the_limit_works_and_one_byte_more_does_not(
    served: Served, text: str
) -> None:
    joe = await served.open_account()
    limit = (await joe.call("server.info"))["limits"]["walletBytes"]
    size = len(text.encode())
    wallet = text * (limit // size) + "x" * (limit % size)
    assert len(wallet.encode()) == limit

    # json.dumps writes U+0001 in six bytes, and this client writes the others so, too.
    pushed = await joe.call("wallet.push", sequence=1, encryptedWallet=wallet, hmac="h")
    assert pushed["encryptedWallet"] == wallet
    assert (await joe.call("wallet.get"))["encryptedWallet"] == wallet
    assert (await joe.call("wallet.history"))["versions"][0]["bytes"] == limit

    error = await joe.fail("wallet.push", sequence=2, encryptedWallet=wallet + "x", hmac="h")
    assert (error.code, error.reason, error.data["maxBytes"]) == (413, "wallet_too_large", limit)


async def test_any_text_comes_back_to_the_letter(served: Served) -> None:
    joe = await served.open_account()
    text = "".join(map(chr, [*range(0x300), 0xFEFF, 0xFFFF, 0x1F600, 0x10FFFF])) + "e\u0301\u00e9"
    hmac = "\u0000é😀" * 30
    await joe.call("wallet.push", sequence=1, encryptedWallet=text, hmac=hmac)
    _, opened = await served.open_device("joe@example.com", "phone", since=0)
    assert (opened["wallet"]["encryptedWallet"], opened["hmac"]) == (text, hmac)


async def test_who_does_not_authenticate_in_time_is_closed_with_4408(serve: Serve) -> None:
    served = await serve(auth_timeout_s=1.5)
    stranger = await served.open()
    await stranger.call("server.ping")
    member = await served.open_account()

    assert await stranger.closed() == 4408
    assert await member.call("server.ping") == {}


async def test_the_authentication_clock_restarts_at_prelogin(serve: Serve) -> None:
    served = await serve(auth_timeout_s=2)
    loop = asyncio.get_running_loop()
    patient = await served.open()
    opened_s = loop.time()
    while loop.time() < opened_s + 5:
        await patient.call("account.prelogin", email="joe@example.com")
        await asyncio.sleep(0.1)
    assert await patient.call("server.ping") == {}
    assert await patient.closed() == 4408


async def test_the_authentication_clock_stands_still_during_a_login(
    serve: Serve, password_gate: PasswordGate
) -> None:
    served = await serve(auth_timeout_s=0.5)
    client = await served.open()
    password_gate.hold_next()
    login = await client.submit(
        "session.login", email="joe@example.com", password=PASSWORD, deviceId="laptop"
    )
    await password_gate.wait_until_held()
    await asyncio.sleep(3)
    assert await client.call("server.ping") == {}, "its time was up long ago"
    password_gate.release()

    with pytest.raises(CallFailed, match="401"):
        await login
    assert await client.closed() == 4408


async def test_a_binary_frame_is_closed_with_1003(served: Served) -> None:
    client = await served.open()
    await client.socket.send(b"{}")
    assert await client.closed() == 1003


async def test_the_subprotocol_is_selected_when_offered_and_not_needed(served: Served) -> None:
    for offered, selected in (
        (["wallet-sync.v1"], "wallet-sync.v1"),
        (["soap", "wallet-sync.v1"], "wallet-sync.v1"),
        (["soap"], None),
        (None, None),
    ):
        client = await served.open(subprotocols=offered)
        assert client.socket.subprotocol == selected
        assert client.socket.protocol.extensions == [], "compression is off, though offered"
        assert await client.call("server.ping") == {}
