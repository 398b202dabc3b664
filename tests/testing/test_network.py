"""What a test may do to the connections of a `TestServer`, and what they keep of real ones."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests.testing.devices import EMAIL, PASSWORD, log_in
from wsclient import Offline
from wsclient.connection import Connection, ConnectionLost
from wsclient.errors import CannotConnect, Conflict
from wsclient.testing import Asked, TestServer
from wsclient.testing.line import UNREAD_BYTES_MAX
from wsschema.messages import Device, Ping, WalletUpdated
from wsserver.session import Session as ServerSession


def encode(method: str, **params: object) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


async def expect_close(connection: Connection) -> int | None:
    with pytest.raises(ConnectionLost) as lost:
        await connection.receive()
    return lost.value.code


async def test_devices_of_an_account_hear_each_other(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        await laptop.push(1)

        update = await anext(phone.session.notifications())
        assert isinstance(update, WalletUpdated)
        assert update.wallet == await phone.session.get()


async def test_what_is_asked_is_seen_without_its_secrets(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop:
        await laptop.push(1)

    assert server.calls[-3:] == (
        Asked("account.prelogin", None, None),
        Asked("session.login", "laptop", None),
        Asked("wallet.push", "laptop", 1),
    )


async def test_a_dropped_connection_is_lost_at_both_ends(server: TestServer) -> None:
    async with log_in(server, "phone") as phone, log_in(server, "laptop") as laptop:
        server.refuse_connections()
        server.drop_connections("laptop")

        assert server.connections == ("phone",)
        offline = await anext(laptop.session.notifications())
        assert offline == Offline("the connection was lost", 0.0)
        async for event in phone.session.notifications():
            if isinstance(event, Device) and not event.online:
                assert event.device_id == "laptop"
                break


async def test_every_connection_can_be_dropped(server: TestServer) -> None:
    async with log_in(server, "laptop"), log_in(server, "phone"):
        server.refuse_connections()
        server.drop_connections()

        assert server.connections == ()


async def test_a_dropped_device_comes_back_and_misses_nothing(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        server.refuse_connections()
        server.drop_connections("phone")
        await laptop.push(1)
        server.accept_connections()
        await server.until(lambda: set(server.connections) == {"laptop", "phone"})

        await server.until(lambda: phone.session.witness.sequence == 1)


async def test_what_is_on_its_way_is_lost_with_the_connection(server: TestServer) -> None:
    connection = await server.connect(server.url)
    await connection.send(encode("server.ping"))
    server.drop_connections()

    assert await expect_close(connection) is None
    with pytest.raises(ConnectionLost):
        await connection.send(encode("server.ping"))


async def test_a_refused_connection_says_so(server: TestServer) -> None:
    server.refuse_connections()

    with pytest.raises(CannotConnect, match="connection refused"):
        async with server.make_session():
            pass


async def test_an_answer_is_lost_after_the_call_was_carried_out(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop:
        server.lose_next_answer("wallet.push")
        await laptop.push(1)  # sent again when the session is back

        pushes = [call for call in server.calls if call.method == "wallet.push"]
        assert pushes == [Asked("wallet.push", "laptop", 1)] * 2
        assert server.stored(EMAIL).sequence == 1


async def test_the_answer_of_one_device_is_lost_and_no_others(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        server.lose_next_answer("wallet.push", "phone")
        await laptop.push(1)
        assert set(server.connections) == {"laptop", "phone"}

        await phone.push(2)

    assert [call.device_id for call in server.calls if call.method == "session.resume"] == [None]


def test_only_the_answer_of_a_method_that_there_is_can_be_lost() -> None:
    with pytest.raises(ValueError, match=r"no method 'wallet\.psuh'"):
        TestServer().lose_next_answer("wallet.psuh")


async def test_each_message_is_delayed_each_way() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with TestServer(sleep=sleep) as server, server.make_session() as session:
        server.delay(0.5)
        await session.call(Ping())
        assert slept == [0.5, 0.5]

        delays = iter((1.0, 2.0))
        server.delay(lambda: next(delays))
        await session.call(Ping())
        assert slept == [0.5, 0.5, 1.0, 2.0]

        server.delay(0)
        await session.call(Ping())
        assert len(slept) == 4


@pytest.mark.parametrize("first", ["laptop", "phone"])
async def test_what_is_held_passes_in_the_order_in_which_it_is_released(
    server: TestServer, first: str
) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        server.hold("laptop")
        server.hold("phone")
        pushes = {
            "laptop": asyncio.create_task(laptop.push(1, b"laptop's")),
            "phone": asyncio.create_task(phone.push(1, b"phone's")),
        }
        await server.until(lambda: server.held >= 2)
        assert server.stored(EMAIL).sequence == 0

        server.release(first)
        await pushes.pop(first)
        server.release()  # which holds nobody
        [(second, late)] = pushes.items()
        assert not late.done()
        server.release(second)
        with pytest.raises(Conflict):
            await late


async def test_answers_are_held_too(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        server.hold("phone")
        await laptop.push(1)
        await server.until(lambda: server.held == 1)
        assert phone.session.witness.sequence == 0

        server.release("phone")
        await server.until(lambda: phone.session.witness.sequence == 1)


async def test_a_connection_that_is_held_for_too_long_is_found_dead() -> None:
    async with TestServer(silence_timeout_s=0.01) as server:
        connection = await server.connect(server.url)
        server.hold()

        assert await expect_close(connection) is None


async def test_a_connection_that_was_released_in_time_lives_on() -> None:
    async with TestServer(silence_timeout_s=0.01) as server:
        connection = await server.connect(server.url)
        server.hold()
        server.release()
        await asyncio.sleep(0.03)

        await connection.send(encode("server.ping"))


async def test_a_stranger_is_cut_off_who_does_not_log_in() -> None:
    async with TestServer(authentication_timeout_s=0.01) as server:
        connection = await server.connect(server.url)
        assert server.connections == (None,)

        assert await expect_close(connection) == 4408
        await server.until(lambda: not server.connections)


async def test_a_device_that_has_logged_in_may_take_its_time() -> None:
    async with TestServer(authentication_timeout_s=0.05) as server:
        await server.register(EMAIL, PASSWORD)
        async with log_in(server, "laptop") as laptop:
            await asyncio.sleep(0.1)
            assert server.connections == ("laptop",)
            await laptop.push(1)


async def test_a_message_that_is_too_large_closes_the_connection(server: TestServer) -> None:
    connection = await server.connect(server.url)
    await connection.send(b" " * (server.limits.anonymous_message_bytes + 1))

    assert await expect_close(connection) == 1009


async def test_a_device_may_send_more_once_it_has_logged_in(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop:
        await laptop.push(1, b"-" * server.limits.anonymous_message_bytes)


async def test_a_device_takes_no_message_that_is_larger_than_it_allows(server: TestServer) -> None:
    connection = await server.connect(server.url)
    connection.allow_messages_of(10)
    await connection.send(encode("server.info"))

    assert await expect_close(connection) is None


async def test_what_was_sent_before_a_close_can_be_read(server: TestServer) -> None:
    connection = await server.connect(server.url)
    await connection.send(encode("server.ping"))
    await connection.send(b" " * (server.limits.anonymous_message_bytes + 1))

    assert orjson.loads(await connection.receive())["result"] == {}
    assert await expect_close(connection) == 1009
    with pytest.raises(ConnectionLost):
        await connection.send(encode("server.ping"))


async def test_a_server_whose_device_does_not_read_does_not_read_either(
    server: TestServer,
) -> None:
    connection = await server.connect(server.url)

    async def ask_on() -> None:
        while True:
            await connection.send(encode("rpc.discover"))

    await connection.send(encode("rpc.discover"))
    answer_bytes = len(await connection.receive())
    before = len(server.calls)
    asking = asyncio.create_task(ask_on())
    unread = UNREAD_BYTES_MAX // answer_bytes + 1
    await server.until(lambda: len(server.calls) == before + unread)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(server.calls) == before + unread

    for _ in range(unread):
        await connection.receive()
    await server.until(lambda: len(server.calls) > before + unread)
    asking.cancel()


async def test_a_device_that_read_slowly_is_told_of_the_newest_state(server: TestServer) -> None:
    async with log_in(server, "laptop") as laptop, log_in(server, "phone") as phone:
        server.hold("phone")
        for sequence in range(1, 5):
            await laptop.push(sequence, b"-" * (UNREAD_BYTES_MAX // 2))
        server.release("phone")
        await server.until(lambda: phone.session.witness.sequence == 4)


async def test_a_batch_is_answered_as_one(server: TestServer) -> None:
    connection = await server.connect(server.url)
    await connection.send(b"[" + encode("server.ping") + b"," + encode("no.such") + b"]")

    answers = orjson.loads(await connection.receive())
    assert [answer.get("result") for answer in answers] == [{}, None]


async def test_a_failure_of_the_servers_own_closes_the_connection(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: ServerSession, payload: bytes) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(ServerSession, "receive", fail)
    connection = await server.connect(server.url)
    await connection.send(encode("server.ping"))

    assert await expect_close(connection) == 1011


async def test_waiting_for_what_does_not_come_ends() -> None:
    async with TestServer() as server:
        with pytest.raises(TimeoutError):
            await server.until(lambda: False, timeout_s=0.01)


async def test_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket")

    monkeypatch.setattr("socket.socket", refuse)
    async with TestServer() as server:
        await server.register(EMAIL, PASSWORD)
        async with log_in(server, "laptop") as laptop:
            await laptop.push(1)
