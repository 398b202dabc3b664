"""Each lie of `TestServer.lies`, as a bare session meets it."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.testing.devices import EMAIL, PASSWORD, Device, log_in
from wsclient import derive_keys
from wsclient.errors import Conflict, StateRefused, WeakKdf
from wsclient.testing import TestServer
from wsschema.messages import Kdf


async def expect_refusal(device: Device) -> str:
    with pytest.raises(StateRefused) as refused:
        async for _ in device.session.notifications():
            pass
    return refused.value.reason


@pytest.mark.parametrize("member", ["encryptedWallet", "hmac"])
async def test_what_was_tampered_with_has_a_wrong_hmac(
    server: TestServer, member: Literal["encryptedWallet", "hmac"]
) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        server.lies.tamper(member)
        await laptop.push(1)

        assert await expect_refusal(phone) == "bad_hmac"


async def test_a_weaker_key_derivation_is_asked_for(server: TestServer) -> None:
    server.lies.downgrade_kdf(Kdf.scrypt(2**14))
    async with server.make_session() as session:
        with pytest.raises(WeakKdf, match="n=16384"):
            await derive_keys(session, EMAIL, PASSWORD)


async def test_an_older_state_is_replayed_under_a_new_sequence(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop:
        await laptop.push(1, b"first")
        await laptop.push(2, b"second")
        server.lies.replay(EMAIL, 1)

        assert server.stored(EMAIL).sequence == 3
        assert await expect_refusal(laptop) == "bad_hmac"


async def test_a_push_is_overwritten_by_another_on_the_same_base(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        await laptop.push(1)
        server.lies.overwrite_next_push("laptop")
        await laptop.push(2, b"laptop's")
        assert server.stored(EMAIL).sequence == 1
        await phone.push(2, b"phone's")
        assert server.stored(EMAIL).sequence == 2

        assert await expect_refusal(laptop) == "changed"


async def test_one_push_is_overwritten_and_only_one_that_would_be_stored(
    server: TestServer,
) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        server.lies.overwrite_next_push("laptop")
        await phone.push(1)
        with pytest.raises(Conflict):
            await laptop.push(1)
        assert server.interceptors
        await laptop.push(2)

        assert server.stored(EMAIL).sequence == 1
        assert not server.interceptors


async def test_a_forked_device_is_alone_until_the_lie_ends(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        await laptop.push(1)
        await server.lies.fork("phone")
        await server.until(lambda: "phone" in server.connections)
        await laptop.push(2, b"laptop's")
        await phone.push(2, b"phone's")
        assert (await laptop.session.get()) != (await phone.session.get())

        server.lies.stop()
        assert await expect_refusal(phone) == "changed"


async def test_a_forked_device_that_logs_in_again_stays_in_its_fork(server: TestServer) -> None:
    await server.lies.fork("phone")
    async with log_in(server, "phone") as phone, log_in(server, "laptop") as laptop:
        await phone.push(1, b"phone's")
        await laptop.push(1, b"laptop's")


async def test_who_stops_lying_is_believed(server: TestServer) -> None:
    server.lies.tamper()
    server.lies.overwrite_next_push("laptop")
    server.lies.downgrade_kdf(Kdf.scrypt(2**14))
    server.lies.stop()

    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        await laptop.push(1)
        assert (await phone.session.get()).sequence == 1
