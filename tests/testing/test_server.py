"""What a `TestServer` is, and what happens to it as it happens to servers."""

from __future__ import annotations

import asyncio

import pytest

from tests.testing.devices import EMAIL, PASSWORD, log_in
from wsclient import Witness, crypto, derive_keys
from wsclient.connection import ConnectionLost
from wsclient.errors import (
    AccountExists,
    BadCredentials,
    CannotConnect,
    NoSuchVersion,
    SessionEnded,
    StateRefused,
)
from wsclient.testing import Stored, TestServer
from wsschema.limits import Limits
from wsschema.messages import Kdf, Prelogin


async def test_where_a_wallet_stands_can_be_seen(server: TestServer) -> None:
    assert server.stored(EMAIL) == Stored(0, None)
    async with log_in(server, "laptop") as laptop:
        await laptop.push(1)

        assert server.stored("Joe@Example.com") == Stored(1, laptop.session.witness.hmac)
    with pytest.raises(LookupError, match="no account"):
        server.stored("nobody@example.com")


async def test_an_address_registers_once(server: TestServer) -> None:
    with pytest.raises(AccountExists):
        await server.register(EMAIL, PASSWORD)


async def test_a_wrong_password_is_refused(server: TestServer) -> None:
    async with server.make_session() as session:
        for email, password in ((EMAIL, "wrong"), ("nobody@example.com", PASSWORD)):
            keys = await derive_keys(session, email, password)
            with pytest.raises(BadCredentials):
                await session.login(keys, device_id="laptop")


async def test_two_logins_at_once_both_succeed(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop, server.make_session() as session:
        logins = (
            session.login(laptop.keys, device_id="tablet"),
            _log_in_and_out(server, "phone"),
        )
        await asyncio.gather(*logins)


async def test_the_servers_limits_can_be_chosen() -> None:
    async with TestServer(limits=Limits(history_depth=1)) as server:
        await server.register(EMAIL, PASSWORD)
        async with log_in(server, "laptop") as laptop:
            assert laptop.session.info.limits.history_depth == 1
            await laptop.push(1)
            await laptop.push(2)
            with pytest.raises(NoSuchVersion):
                await laptop.session.get(1)


async def test_two_servers_know_nothing_of_each_other(server: TestServer) -> None:
    async with TestServer() as other:
        await other.register(EMAIL, PASSWORD)
        async with log_in(other, "laptop") as laptop:
            await laptop.push(1)

    assert server.stored(EMAIL).sequence == 0


# Keys.


async def test_keys_cost_nothing_while_a_server_runs() -> None:
    def derive() -> crypto.Keys:
        return crypto.derive_keys(EMAIL, PASSWORD, "a" * 64, Kdf.scrypt(2**14))

    real = derive()
    first, second = TestServer(), TestServer()
    await first.__aenter__()
    await second.__aenter__()
    cheap = derive()
    await first.__aexit__(None, None, None)

    assert derive() == cheap != real
    await second.__aexit__(None, None, None)
    assert derive() == real


async def test_cheap_keys_still_depend_on_all_that_they_are_derived_from(
    server: TestServer,
) -> None:
    seed, kdf = "a" * 64, Kdf.scrypt(2**17)
    passwords = {
        crypto.derive_keys(*arguments).password
        for arguments in (
            (EMAIL, PASSWORD, seed, kdf),
            ("jane@example.com", PASSWORD, seed, kdf),
            (EMAIL, "wrong horse", seed, kdf),
            (EMAIL, PASSWORD, "b" * 64, kdf),
            (EMAIL, PASSWORD, seed, Kdf.scrypt(2**15)),
        )
    }

    assert len(passwords) == 5


async def test_keys_cost_what_they_cost_where_that_is_wanted() -> None:
    async with TestServer(cheap_keys=False) as server:
        await server.register(EMAIL, PASSWORD, kdf=Kdf.scrypt(2**14))
        async with server.make_session() as session:
            derivation = await session.call(Prelogin(EMAIL))
            keys = await derive_keys(session, EMAIL, PASSWORD, minimum_kdf=Kdf.scrypt(2**14))

    assert keys == crypto.derive_keys(
        EMAIL, PASSWORD, derivation.client_salt_seed, Kdf.scrypt(2**14)
    )


# Restarts and restores.


@pytest.mark.parametrize("abrupt", [False, True])
async def test_devices_come_back_after_a_restart(server: TestServer, abrupt: bool) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone"):
        await laptop.push(1)
        await server.restart(abrupt=abrupt)
        await server.until(lambda: set(server.connections) == {"laptop", "phone"})

        await laptop.push(2)
        assert server.stored(EMAIL).sequence == 2


async def test_a_restart_closes_with_1012(server: TestServer) -> None:
    connection = await server.connect(server.url)
    await server.restart()

    with pytest.raises(ConnectionLost, match="the server closed with 1012") as lost:
        await connection.receive()
    assert lost.value.code == 1012


@pytest.mark.parametrize(("abrupt", "logins"), [(False, 1), (True, 2)])
async def test_a_restart_answers_what_is_under_way_unless_it_is_abrupt(
    server: TestServer, abrupt: bool, logins: int
) -> None:
    def count_logins() -> int:
        return [call.method for call in server.calls].count("session.login")

    async with server.make_session() as session:
        keys = await derive_keys(session, EMAIL, PASSWORD)
        login = asyncio.create_task(session.login(keys, device_id="laptop"))
        await server.until(count_logins)
        await server.restart(abrupt=abrupt)
        await login

        assert count_logins() == logins


async def test_who_may_not_connect_may_not_after_a_restart_either(server: TestServer) -> None:
    async with log_in(server, "laptop"):
        server.refuse_connections()
        await server.restart()

        assert server.connections == ()


async def test_an_announced_restore_ends_tokens_and_renews_the_epoch(server: TestServer) -> None:
    witness = Witness()
    async with log_in(server, "laptop", witness) as laptop:
        snapshot = server.snapshot()
        await laptop.push(1)
        epoch = witness.epoch
        await server.go_back(snapshot, announced=True)

        with pytest.raises(SessionEnded, match="does not know its token"):
            async for _ in laptop.session.notifications():
                pass
    async with log_in(server, "laptop", witness):
        assert witness.epoch != epoch
        assert (witness.sequence, server.stored(EMAIL).sequence) == (0, 0)


async def test_a_restore_that_is_not_announced_is_a_rollback(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop:
        await laptop.push(1)
        snapshot = server.snapshot()
        await laptop.push(2)
        await server.go_back(snapshot, announced=False)

        with pytest.raises(StateRefused, match="sequence 2 was there already"):
            async for _ in laptop.session.notifications():
                pass


async def test_a_snapshot_can_be_gone_back_to_again(server: TestServer) -> None:
    snapshot = server.snapshot()
    for _ in range(2):
        async with log_in(server, "laptop") as laptop:
            await laptop.push(1)
        await server.go_back(snapshot, announced=True)

        assert server.stored(EMAIL).sequence == 0


async def test_a_server_that_has_ended_can_not_be_reached() -> None:
    async with TestServer() as server:
        session = server.make_session()
        await session.__aenter__()
    assert server.connections == ()
    await session.close()

    with pytest.raises(CannotConnect):
        await server.connect(server.url)


async def _log_in_and_out(server: TestServer, device_id: str) -> None:
    async with log_in(server, device_id):
        pass
