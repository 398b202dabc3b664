"""A session against a scripted server: what it sends, hears and survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest

from tests.client.fake_server import (
    KEYS,
    NOW,
    PATIENCE_S,
    FakeServer,
    Peer,
    make_state,
    make_update,
)
from wsclient import connection
from wsclient import session as session_module
from wsclient.connection import Connection, open_websocket
from wsclient.crypto import compute_hmac
from wsclient.errors import (
    AnswerLost,
    BadToken,
    CallTimedOut,
    CannotConnect,
    Conflict,
    InvalidRequest,
    MessageTooLarge,
    NotAuthenticated,
    NoWallet,
    RateLimited,
    SessionEnded,
    StateRefused,
    Unavailable,
)
from wsclient.events import Event, Offline, Online
from wsclient.session import RECEIVED_OVERHEAD_BYTES, Session
from wsclient.witness import Witness
from wsschema.limits import Limits
from wsschema.messages import (
    ChangePassword,
    Device,
    Empty,
    GetHistory,
    GetServerInfo,
    GetWallet,
    History,
    ListDevices,
    Login,
    Logout,
    Ping,
    PushWallet,
    Resume,
    RevokeDevice,
    SealedWallet,
    ServerClosing,
    SessionRevoked,
    WalletState,
    WalletUpdated,
)


class Sleeps:
    """Time that passes at once, and remembers how long it was."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def __call__(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        await asyncio.sleep(0)


async def soon(coroutine: Awaitable[Any]) -> Any:
    """The result of what must not take long."""
    async with asyncio.timeout(PATIENCE_S):
        return await coroutine


@asynccontextmanager
async def started(coroutine: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """The coroutine running in the background; awaited at the end."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
        await soon(asyncio.wait([task]))
    finally:
        task.cancel()


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        yield server


def make_session(server: FakeServer, **options: Any) -> Session:
    defaults: dict[str, Any] = {"sleep": Sleeps(), "random": lambda: 0.5}
    return Session(server.url, **(defaults | options))


@asynccontextmanager
async def entered(server: FakeServer, **options: Any) -> AsyncIterator[tuple[Session, Peer]]:
    """A session that is connected, and its peer."""
    session = make_session(server, **options)
    async with started(session.__aenter__()):
        peer = await server.accept()
    try:
        yield session, peer
    finally:
        await soon(session.close())


@asynccontextmanager
async def logged_in(
    server: FakeServer, latest: WalletState | None = None, **options: Any
) -> AsyncIterator[tuple[Session, Peer]]:
    """A session that is logged in, and its peer."""
    async with entered(server, **options) as (session, peer):
        async with started(session.login(KEYS, device_id="laptop")):
            await peer.let_log_in(latest)
        yield session, peer


async def next_event(session: Session) -> Event:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(session.notifications())


async def hear_out(session: Session) -> None:
    """Reads what is heard until the session is over."""
    async with asyncio.timeout(PATIENCE_S):
        async for _ in session.notifications():
            pass


# Connecting.


async def test_entering_asks_who_the_server_is(server: FakeServer) -> None:
    async with entered(server) as (session, peer):
        assert session.info == server.info
        assert peer.socket.subprotocol == "wallet-sync.v1"
        assert peer.socket.request is not None
        assert peer.socket.request.headers["User-Agent"].startswith("wallet-sync-client/")
        assert "Sec-WebSocket-Extensions" not in peer.socket.request.headers


async def test_a_server_that_is_not_there_is_named(server: FakeServer) -> None:
    async with FakeServer() as gone:
        url = gone.url
    with pytest.raises(CannotConnect, match=rf"cannot connect to {url}: nothing listens there"):
        await Session(url).__aenter__()


@pytest.mark.parametrize("url", ["http://127.0.0.1/v1", "no address"])
async def test_an_address_that_is_none_is_said_to_be(url: str) -> None:
    with pytest.raises(CannotConnect, match="no address of a WebSocket server"):
        await Session(url).__aenter__()


@pytest.mark.parametrize(
    ("greeting", "cause"),
    [
        (b"SSH-2.0-hello\r\n", "what answers there does not speak WebSocket"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "it answered with HTTP 404"),
        (b"", "no answer within 0.2 s"),
    ],
)
async def test_something_else_that_listens_is_no_websocket_server(
    greeting: bytes, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "OPENING_TIMEOUT_S", 0.2 if not greeting else 10)

    served = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(greeting)
        if greeting:
            writer.write_eof()
        with suppress(ConnectionError):  # it may hang up without a goodbye
            await reader.read()
            writer.close()
            await writer.wait_closed()
        served.set()

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(CannotConnect, match=cause):
            await Session(f"ws://127.0.0.1:{port}/v1").__aenter__()
        await soon(served.wait())


async def test_a_server_that_never_says_who_it_is_cannot_be_connected_to(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "OPENING_CALLS_TIMEOUT_S", 0.05)
    with pytest.raises(CannotConnect, match=r"no answer within 0\.05 s"):
        await make_session(server).__aenter__()


@pytest.mark.parametrize("reply", [b"hello", b'{"jsonrpc": "2.0", "id": 1, "result": {}}', b"[]"])
async def test_a_websocket_server_of_another_kind_is_none_of_ours(
    server: FakeServer, reply: bytes
) -> None:
    async with started(make_session(server).__aenter__()) as entering:
        peer = await server.accept_silently()
        await peer.expect(GetServerInfo)
        await peer.send(reply)
    assert isinstance(entering.exception(), CannotConnect)
    assert "no wallet-sync server" in str(entering.exception())


async def test_a_server_that_refuses_the_first_call_says_why(server: FakeServer) -> None:
    async with started(make_session(server).__aenter__()) as entering:
        peer = await server.accept_silently()
        request, _ = await peer.expect(GetServerInfo)
        await peer.refuse(request, Unavailable())
    assert isinstance(entering.exception(), Unavailable)


async def test_a_server_that_closes_at_once_cannot_be_connected_to(server: FakeServer) -> None:
    async with started(make_session(server).__aenter__()) as entering:
        peer = await server.accept_silently()
        await peer.close(4429)
    assert "the server closed with 4429" in str(entering.exception())


# Calls.


async def test_login_makes_the_token_known_and_says_who_this_is(server: FakeServer) -> None:
    async with entered(server, deliver="state", presence=True) as (session, peer):
        async with started(
            session.login(KEYS, device_id="laptop", device_name="Joe's laptop")
        ) as result:
            login = await peer.let_log_in()
        assert login == Login(
            email="joe@example.com",
            password="secret password",
            device_id="laptop",
            device_name="Joe's laptop",
            deliver="state",
            presence=True,
        )
        assert result.result().token == session.token == "token"
        assert session.device_id == "laptop"


async def test_login_tells_what_an_earlier_session_knew(server: FakeServer) -> None:
    known = make_state(4)
    witness = Witness(epoch="e1", sequence=4, hmac=known.hmac)
    async with entered(server, witness=witness) as (session, peer):
        async with started(session.login(KEYS, device_id="laptop")) as result:
            login = await peer.let_log_in(make_state(5), bring_wallet=True)
        assert (login.since, login.epoch) == (4, "e1")
        assert result.result().wallet == make_state(5)


async def test_a_push_is_sealed_with_its_hmac_and_gives_the_state_back(
    server: FakeServer,
) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.push(1, "grüß")) as pushing:
            request, push = await peer.expect(PushWallet)
            await peer.answer(request, make_state(1, "grüß", "laptop"))
        assert push.hmac == compute_hmac(KEYS.hmac_key, 1, "grüß")
        assert pushing.result() == make_state(1, "grüß", "laptop")


async def test_a_push_needs_a_login(server: FakeServer) -> None:
    async with entered(server) as (session, _):
        with pytest.raises(NotAuthenticated):
            await session.push(1, "-")


async def test_login_and_resume_are_not_called_by_hand(server: FakeServer) -> None:
    async with entered(server) as (session, _):
        with pytest.raises(TypeError, match=r"use Session\.login"):
            await session.call(Resume("token"))


async def test_a_conflict_carries_the_latest_state(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.push(1, "mine")) as pushing:
            request, _ = await peer.expect(PushWallet)
            await peer.refuse(request, Conflict(wallet=make_state(2, "theirs")))
        conflict = pushing.exception()
        assert isinstance(conflict, Conflict)
        assert (conflict.wallet, conflict.landed) == (make_state(2, "theirs"), False)
        assert session.witness.sequence == 2


async def test_answers_find_their_calls_in_any_order(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.get(3)) as third, started(session.call(Ping())) as ping:
            get_request, get = await peer.expect(GetWallet)
            ping_request, _ = await peer.expect(Ping)
            await peer.answer(ping_request, Empty())
            assert await soon(ping) == Empty()
            await peer.answer(get_request, make_state(3))
        assert get == GetWallet(3)
        assert third.result() == make_state(3)


async def test_no_more_calls_are_in_flight_than_may_be(server: FakeServer) -> None:
    async with logged_in(server, in_flight_max=2) as (session, peer):
        calls = [asyncio.create_task(session.get(sequence)) for sequence in (1, 2, 3)]
        first, _ = await peer.expect(GetWallet)
        await peer.expect(GetWallet)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await peer.socket.recv()
        await peer.answer(first, make_state(1))
        _, third = await peer.expect(GetWallet)
        assert third == GetWallet(3)
        for call in calls[1:]:
            call.cancel()


async def test_a_call_that_is_not_answered_in_time_fails_and_is_forgotten(
    server: FakeServer,
) -> None:
    async with logged_in(server) as (session, peer):
        with pytest.raises(CallTimedOut, match=r"device\.list was not answered within 0\.01 s"):
            await session.call(ListDevices(), timeout_s=0.01)
        late, _ = await peer.expect(ListDevices)
        await peer.answer(late, History(()))  # malformed, and of no interest
        async with started(session.call(Ping())) as ping:
            request, _ = await peer.expect(Ping)
            await peer.answer(request, Empty())
        assert ping.result() == Empty()


async def test_a_result_of_another_form_is_an_error_of_that_call_alone(
    server: FakeServer,
) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.call(GetHistory())) as asking:
            request, _ = await peer.expect(GetHistory)
            await peer.answer(request, {"versions": 3})
        assert isinstance(asking.exception(), InvalidRequest)
        assert session.ended is None


async def test_a_message_that_is_too_large_is_not_sent() -> None:
    limits = Limits(wallet_bytes=100, message_bytes=1000, anonymous_message_bytes=900)
    async with FakeServer(limits) as server, logged_in(server) as (session, _):
        with pytest.raises(
            MessageTooLarge,
            match=r"wallet\.push makes a message of 2,\d\d\d bytes; the limit is 1,000",
        ):
            await session.push(1, "x" * 2000)


async def test_a_larger_state_is_taken_from_a_server_that_announces_it() -> None:
    limits = Limits(wallet_bytes=4_000_000, message_bytes=24_100_000)
    large = make_state(1, "x" * 3_000_000)
    async with FakeServer(limits) as server, logged_in(server) as (session, peer):
        async with started(session.get()) as getting:
            request, _ = await peer.expect(GetWallet)
            await peer.answer(request, large)
        assert getting.result() == large


async def test_no_more_is_taken_than_was_announced() -> None:
    limits = Limits(wallet_bytes=1000, message_bytes=10_000)
    async with FakeServer(limits) as server, logged_in(server) as (session, peer):
        async with started(session.get()) as getting:
            await peer.expect(GetWallet)
            await peer.send(b" " * (10_001 + RECEIVED_OVERHEAD_BYTES))
            assert await peer.wait_closed() == 1009
            again = await server.accept()
            await again.let_resume()
            request, _ = await again.expect(GetWallet)
            await again.answer(request, make_state(1))
        assert getting.result() == make_state(1)


# Coming back.


async def test_a_lost_connection_is_made_again_and_the_session_resumed(
    server: FakeServer,
) -> None:
    async with logged_in(server, make_state(4)) as (session, peer):
        peer.cut()
        again = await server.accept()
        resume = await again.let_resume(make_state(4))
        assert resume == Resume("token", since=4, epoch="e1")
        offline = await next_event(session)
        if isinstance(offline, Offline):
            assert offline == Offline("the connection was lost", 0.5)
            assert await next_event(session) == Online("e1")
        else:
            assert offline == Online("e1")


async def test_what_changed_meanwhile_is_told_after_coming_back(server: FakeServer) -> None:
    async with logged_in(server, make_state(4)) as (session, peer):
        peer.cut()
        again = await server.accept()
        await again.let_resume(make_state(6), bring_wallet=True)
        events = [await next_event(session)]
        while not isinstance(events[-1], WalletUpdated):
            events.append(await next_event(session))
        assert events[-2] == Online("e1")
        assert events[-1] == make_update(make_state(6), bring_wallet=True)
        assert session.witness.sequence == 6


async def test_an_announced_restore_is_told_and_older_news_dropped(server: FakeServer) -> None:
    async with logged_in(server, make_state(4)) as (session, peer):
        await peer.notify(make_update(make_state(5)))
        await peer.close(1012)
        again = await server.accept()
        await again.let_resume(make_state(2), epoch="e2", bring_wallet=True)
        async with started(session.get()) as getting:
            request, _ = await again.expect(GetWallet)
            await again.answer(request, make_state(2))
        assert getting.result() == make_state(2)
        assert await next_event(session) == Online("e2")
        assert await next_event(session) == make_update(make_state(2), bring_wallet=True)


async def test_a_reset_that_left_no_wallet_leaves_no_news_of_one(server: FakeServer) -> None:
    async with logged_in(server, make_state(4)) as (session, peer):
        await peer.notify(make_update(make_state(5)))
        await peer.close(1012)
        again = await server.accept()
        await again.let_resume(epoch="e2")
        async with started(session.call(Ping())):
            request, _ = await again.expect(Ping)
            await again.answer(request, Empty())
        assert await next_event(session) == Online("e2")
        assert len(session._events) == 0


async def test_it_waits_as_long_as_the_server_said(server: FakeServer) -> None:
    sleeps = Sleeps()
    async with logged_in(server, sleep=sleeps, clock=lambda: 100.0) as (_, peer):
        await peer.notify(ServerClosing(retry_after_ms=7000))
        await peer.close(1012)
        await server.accept()
    assert sleeps.slept_s == [7.5]


async def test_it_waits_as_long_as_an_answer_said(server: FakeServer) -> None:
    sleeps = Sleeps()
    async with logged_in(server, sleep=sleeps, clock=lambda: 100.0) as (session, peer):
        async with started(session.get()) as getting:
            request, _ = await peer.expect(GetWallet)
            await peer.refuse(request, RateLimited(retry_after_ms=9000))
        assert isinstance(getting.exception(), RateLimited)
        await peer.close(4429)
        await server.accept()
    assert sleeps.slept_s == [9.5]


async def test_waits_grow_while_the_server_stays_away(server: FakeServer) -> None:
    sleeps = Sleeps()
    openings = 0

    async def fail_three_times(url: str) -> Connection:
        nonlocal openings
        openings += 1
        if 1 < openings < 5:
            raise CannotConnect(url, "nothing listens there")
        return await open_websocket(url)

    async with logged_in(server, sleep=sleeps, connect=fail_three_times) as (_, peer):
        peer.cut()
        again = await server.accept()
        await again.let_resume()
    assert sleeps.slept_s == [0.5, 1.0, 2.0, 4.0]


async def test_a_connection_lost_while_resuming_is_made_again(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        peer.cut()
        halfway = await server.accept()
        await halfway.expect(Resume)
        await halfway.close(4408)
        again = await server.accept()
        await again.let_resume()
        async with started(session.call(Ping())):
            request, _ = await again.expect(Ping)
            await again.answer(request, Empty())
        assert session.ended is None


async def test_a_busy_server_is_asked_again_when_it_said(server: FakeServer) -> None:
    sleeps = Sleeps()
    async with logged_in(server, sleep=sleeps, clock=lambda: 0.0) as (_, peer):
        peer.cut()
        busy = await server.accept()
        request, _ = await busy.expect(Resume)
        await busy.refuse(request, RateLimited(retry_after_ms=3000))
        again = await server.accept()
        await again.let_resume()
    assert sleeps.slept_s == [0.5, 4.0]


async def test_a_session_of_nobody_comes_back_only_when_asked(server: FakeServer) -> None:
    slept = asyncio.Event()
    openings = 0

    async def fall_asleep(delay_s: float) -> None:
        slept.set()

    async def count(url: str) -> Connection:
        nonlocal openings
        openings += 1
        return await open_websocket(url)

    async with entered(server, sleep=fall_asleep, connect=count) as (session, peer):
        await peer.close(4408)
        await soon(slept.wait())
        await asyncio.sleep(0)
        assert openings == 1
        async with started(session.call(Ping())) as ping:
            again = await server.accept()
            request, _ = await again.expect(Ping)
            await again.answer(request, Empty())
        assert ping.result() == Empty()


async def test_a_login_whose_answer_was_lost_is_repeated(server: FakeServer) -> None:
    async with entered(server) as (session, peer):
        async with started(session.login(KEYS, device_id="laptop")) as login:
            await peer.expect(Login)
            peer.cut()
            again = await server.accept()
            await again.let_log_in()
        assert login.result().token == "token"


async def test_unanswered_pushes_are_repeated_to_the_letter_after_the_resume(
    server: FakeServer,
) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.push(1, "a")) as first, started(session.push(2, "b")) as second:
            await peer.expect(PushWallet)
            await peer.expect(PushWallet)
            peer.cut()
            again = await server.accept()
            await again.let_resume(make_state(1, "a", "laptop"), bring_wallet=True)
            for sequence, wallet in ((1, "a"), (2, "b")):
                request, _ = await again.expect(PushWallet)
                await again.answer(request, make_state(sequence, wallet, "laptop"))
        assert again.calls[-2:] == peer.calls[-2:]
        assert (first.result().sequence, second.result().sequence) == (1, 2)


async def test_the_push_that_had_landed_is_no_news_to_its_author(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.push(1, "a")):
            await peer.expect(PushWallet)
            await peer.close(1011)
            again = await server.accept()
            await again.let_resume(make_state(1, "a", "laptop"), bring_wallet=True)
            request, _ = await again.expect(PushWallet)
            await again.answer(request, make_state(1, "a", "laptop"))
        await again.notify(make_update(make_state(2)))
        events: list[Event] = []
        while make_update(make_state(2)) not in events:
            events.append(await next_event(session))
        assert [event for event in events if isinstance(event, WalletUpdated)] == [events[-1]]


async def test_a_push_that_landed_and_was_followed_is_told_to_have_landed(
    server: FakeServer,
) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.push(1, "a")) as pushing:
            await peer.expect(PushWallet)
            peer.cut()
            again = await server.accept()
            await again.let_resume(make_state(2, "b"), bring_wallet=True)
            request, _ = await again.expect(PushWallet)
            await again.refuse(request, Conflict(wallet=make_state(2, "b"), landed=True))
        conflict = pushing.exception()
        assert isinstance(conflict, Conflict)
        assert conflict.landed is True
        assert conflict.wallet == make_state(2, "b")


async def test_a_call_made_while_away_goes_out_after_the_resume(server: FakeServer) -> None:
    gate = asyncio.Event()

    async def wait_for_gate(delay_s: float) -> None:
        await gate.wait()

    async with logged_in(server, sleep=wait_for_gate) as (session, peer):
        peer.cut()
        assert isinstance(await next_event(session), Offline)
        async with started(session.call(RevokeDevice("phone"))) as revoking:
            gate.set()
            again = await server.accept()
            await again.let_resume()
            request, _ = await again.expect(RevokeDevice)
            await again.answer(request, Empty())
        assert revoking.result() == Empty()


async def test_a_call_that_must_not_be_repeated_fails_with_the_connection(
    server: FakeServer,
) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.call(RevokeDevice("phone"))) as revoking:
            await peer.expect(RevokeDevice)
            peer.cut()
        assert isinstance(revoking.exception(), AnswerLost)


async def test_the_message_that_was_too_large_is_left_behind(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.push(1, "x" * 500)) as large, started(session.get()) as small:
            await peer.expect(PushWallet)
            await peer.expect(GetWallet)
            await peer.close(1009)
            again = await server.accept()
            await again.let_resume()
            request, _ = await again.expect(GetWallet)
            await again.refuse(request, NoWallet())
        assert isinstance(large.exception(), MessageTooLarge)
        assert isinstance(small.exception(), NoWallet)


async def test_garbage_from_the_server_costs_it_the_connection(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        await peer.send(b"garbage")
        again = await server.accept()
        await again.let_resume()
        assert session.ended is None


async def test_frames_that_are_none_cost_the_server_the_connection_and_no_more(
    server: FakeServer,
) -> None:
    async with logged_in(server) as (session, peer):
        peer.socket.transport.write(b"\xf1\x00")  # reserved bits: the client closes with 1002
        again = await server.accept()
        await again.let_resume()
        assert session.ended is None


# The end.


@pytest.mark.parametrize("code", [1002, 1003, 1007, 4401])
async def test_after_these_codes_the_session_is_over(server: FakeServer, code: int) -> None:
    sleeps = Sleeps()
    async with logged_in(server, sleep=sleeps) as (session, peer):
        async with started(session.call(Ping())) as ping:
            await peer.expect(Ping)
            await peer.close(code)
        assert isinstance(ping.exception(), SessionEnded)
        with pytest.raises(SessionEnded):
            await session.get()
        assert sleeps.slept_s == []
        assert server.is_idle


async def test_a_replaced_session_stays_away(server: FakeServer) -> None:
    sleeps = Sleeps()
    async with logged_in(server, sleep=sleeps) as (session, peer):
        await peer.revoke("replaced")
        with pytest.raises(SessionEnded, match="another login with this device's id replaced it"):
            await next_event(session)
        assert isinstance(session.ended, SessionEnded)
        assert session.ended.reason == "replaced"
        assert sleeps.slept_s == []


async def test_a_token_that_died_while_away_ends_the_session(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.get()) as getting:
            await peer.expect(GetWallet)
            peer.cut()
            again = await server.accept()
            request, _ = await again.expect(Resume)
            await again.refuse(request, BadToken())
        ended = getting.exception()
        assert isinstance(ended, SessionEnded)
        assert ended.reason == "bad_token"


async def test_a_session_revoked_while_resuming_is_over(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        peer.cut()
        again = await server.accept()
        await again.expect(Resume)
        await again.notify(SessionRevoked("device_revoked"))
        await again.close(4401)
        with pytest.raises(SessionEnded, match="this device was revoked"):
            await hear_out(session)


async def test_closing_ends_calls_and_notifications_and_the_connection(
    server: FakeServer,
) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.get()) as getting:
            await peer.expect(GetWallet)
            async with started(session.close()):
                assert await peer.wait_closed() == 1000
        ended = getting.exception()
        assert isinstance(ended, SessionEnded)
        assert ended.reason == "closed"
        assert [event async for event in session.notifications()] == []
        await session.close()


async def test_closing_while_away_ends_the_wait(server: FakeServer) -> None:
    never = asyncio.Event()

    async def wait_for_ever(delay_s: float) -> None:
        await never.wait()

    async with logged_in(server, sleep=wait_for_ever) as (session, peer):
        peer.cut()
        assert isinstance(await next_event(session), Offline)
        await soon(session.close())
    assert server.is_idle


async def test_logging_out_waits_for_the_answer_and_closes(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.logout()) as leaving:
            request, _ = await peer.expect(Logout)
            await peer.answer(request, Empty())
            await peer.revoke("logged_out")
        assert leaving.exception() is None
        with pytest.raises(SessionEnded):
            await session.get()


async def test_a_failure_of_our_own_leaves_nobody_waiting(server: FakeServer) -> None:
    def fail() -> float:
        raise ZeroDivisionError

    async with logged_in(server, random=fail) as (session, peer):
        async with started(session.get()) as getting:
            await peer.expect(GetWallet)
            peer.cut()
        assert isinstance(getting.exception(), ZeroDivisionError)
        runner = session._runner
        assert runner is not None
        assert isinstance(runner.exception(), ZeroDivisionError)


# Notifications.


async def test_a_slow_reader_hears_the_newest_only(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        for sequence in range(1, 101):
            await peer.notify(make_update(make_state(sequence)))
        async with started(session.get()) as getting:
            request, _ = await peer.expect(GetWallet)
            await peer.answer(request, make_state(100))
        assert getting.result().sequence == 100
        assert await next_event(session) == make_update(make_state(100))
        assert len(session._events) == 0


async def test_a_state_that_was_asked_for_is_told_if_it_is_news(server: FakeServer) -> None:
    async with logged_in(server, make_state(4)) as (session, peer):
        async with started(session.get()):
            request, _ = await peer.expect(GetWallet)
            await peer.answer(request, make_state(5))
            await peer.notify(make_update(make_state(5)))
        assert await next_event(session) == make_update(make_state(5), bring_wallet=True)
        async with started(session.get()):
            request, _ = await peer.expect(GetWallet)
            await peer.answer(request, make_state(5))
        assert len(session._events) == 0


async def test_what_is_known_already_is_not_told_again(server: FakeServer) -> None:
    async with logged_in(server, make_state(5)) as (session, peer):
        for state in (make_state(4), make_state(5), make_state(6)):
            await peer.notify(make_update(state))
        assert await next_event(session) == make_update(make_state(6))


async def test_devices_and_what_is_not_known_yet(server: FakeServer) -> None:
    phone = Device("phone", "Joe's phone", NOW, NOW, True, False, 3)
    async with logged_in(server, presence=True) as (session, peer):
        await peer.send(b'{"jsonrpc":"2.0","method":"weather.changed","params":{"rain":true}}')
        await peer.notify(phone)
        assert await next_event(session) == phone


async def test_before_login_nothing_is_heard(server: FakeServer) -> None:
    async with entered(server) as (session, peer):
        await peer.notify(make_update(make_state(5), bring_wallet=True))
        await peer.notify(Device("phone", None, NOW, NOW, True, False, 0))
        async with started(session.login(KEYS, device_id="laptop")):
            await peer.let_log_in(make_state(1))
        assert len(session._events) == 0
        assert session.witness.sequence == 1


# A server that lies.


Lie = Callable[[Peer, Session], Awaitable[None]]
FORGED = WalletState(6, "theirs", "00" * 32, "phone", NOW)


async def forge_a_state(peer: Peer, session: Session) -> None:
    async with started(session.get()) as getting:
        request, _ = await peer.expect(GetWallet)
        await peer.answer(request, FORGED)
    raise getting.exception() or AssertionError("it was let in")


async def forge_a_conflict(peer: Peer, session: Session) -> None:
    async with started(session.push(6, "mine")) as pushing:
        request, _ = await peer.expect(PushWallet)
        await peer.refuse(request, Conflict(wallet=FORGED))
    raise pushing.exception() or AssertionError("it was let in")


async def forge_a_notification(peer: Peer, session: Session) -> None:
    await peer.notify(make_update(FORGED, bring_wallet=True))
    await next_event(session)


async def go_back(peer: Peer, session: Session) -> None:
    async with started(session.get()) as getting:
        request, _ = await peer.expect(GetWallet)
        await peer.answer(request, make_state(4))
    raise getting.exception() or AssertionError("it was let in")


async def deny_the_wallet(peer: Peer, session: Session) -> None:
    async with started(session.get()) as getting:
        request, _ = await peer.expect(GetWallet)
        await peer.refuse(request, NoWallet())
    raise getting.exception() or AssertionError("it was let in")


async def change_the_past(peer: Peer, session: Session) -> None:
    await peer.notify(make_update(make_state(5, "another")))
    await next_event(session)


async def show_another_version(peer: Peer, session: Session) -> None:
    async with started(session.get(3)) as getting:
        request, _ = await peer.expect(GetWallet)
        await peer.answer(request, make_state(2))
    raise getting.exception() or AssertionError("it was let in")


async def confirm_another_push(peer: Peer, session: Session) -> None:
    async with started(session.push(6, "mine")) as pushing:
        request, _ = await peer.expect(PushWallet)
        await peer.answer(request, make_state(6, "theirs"))
    raise pushing.exception() or AssertionError("it was let in")


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (forge_a_state, "bad_hmac"),
        (forge_a_conflict, "bad_hmac"),
        (forge_a_notification, "bad_hmac"),
        (go_back, "went_back"),
        (deny_the_wallet, "went_back"),
        (change_the_past, "changed"),
        (show_another_version, "mismatched"),
        (confirm_another_push, "mismatched"),
    ],
)
async def test_a_lie_ends_the_session_and_changes_nothing(
    server: FakeServer, lie: Lie, reason: str
) -> None:
    async with logged_in(server, make_state(5)) as (session, peer):
        with pytest.raises(StateRefused) as refused:
            await lie(peer, session)
        assert refused.value.reason == reason
        assert session.witness.sequence == 5
        assert session.witness.hmac == make_state(5).hmac
        assert session.ended is refused.value
        await peer.wait_closed()
        with pytest.raises(StateRefused):
            await session.get()
    assert server.is_idle


async def test_a_lie_after_a_reconnect_ends_the_session_too(server: FakeServer) -> None:
    async with logged_in(server, make_state(5)) as (session, peer):
        peer.cut()
        again = await server.accept()
        await again.let_resume(make_state(4), bring_wallet=True)
        with pytest.raises(StateRefused, match="no restore was announced"):
            await hear_out(session)


async def test_a_lie_at_login_is_refused(server: FakeServer) -> None:
    witness = Witness(epoch="e1", sequence=5, hmac=make_state(5).hmac)
    async with entered(server, witness=witness) as (session, peer):
        async with started(session.login(KEYS, device_id="laptop")) as entering:
            await peer.let_log_in(make_state(4), bring_wallet=True)
        assert isinstance(entering.exception(), StateRefused)
        assert session.token is None


async def test_resume_takes_up_what_was_kept_on_disk(server: FakeServer) -> None:
    witness = Witness(epoch="e1", sequence=5, hmac=make_state(5).hmac)
    async with entered(server, witness=witness) as (session, peer):
        async with started(session.resume("kept token", KEYS)):
            resume = await peer.let_resume(make_state(5))
        assert resume == Resume("kept token", since=5, epoch="e1")
        assert session.token == "kept token"


async def test_a_token_that_is_dead_leaves_the_session_to_log_in(server: FakeServer) -> None:
    async with entered(server) as (session, peer):
        async with started(session.resume("dead token", KEYS)) as resuming:
            request, _ = await peer.expect(Resume)
            await peer.refuse(request, BadToken())
        assert isinstance(resuming.exception(), BadToken)
        async with started(session.login(KEYS, device_id="laptop")):
            await peer.let_log_in()
        assert session.token == "token"


async def test_a_password_change_moves_the_known_state_on(server: FakeServer) -> None:
    call = ChangePassword(
        "old password", "new password", "a" * 64, KEYS.kdf, SealedWallet(6, "-", "new hmac")
    )
    async with logged_in(server, make_state(5)) as (session, peer):
        async with started(session.call(call)) as changing:
            request, _ = await peer.expect(ChangePassword)
            await peer.answer(request, Empty())
        assert changing.result() == Empty()
        assert (session.witness.sequence, session.witness.hmac) == (6, "new hmac")


async def test_a_session_that_changed_the_password_never_comes_back(server: FakeServer) -> None:
    # A restore may bring its token back to life, with wallets under the former password.
    call = ChangePassword("old password", "new password", "a" * 64, KEYS.kdf)
    async with logged_in(server) as (session, peer):
        async with started(session.call(call)):
            request, _ = await peer.expect(ChangePassword)
            await peer.answer(request, Empty())
        peer.cut()
        with pytest.raises(SessionEnded) as ended:
            await hear_out(session)
        assert ended.value.reason == "password_changed"


async def test_repr_hides_who_and_what(server: FakeServer) -> None:
    async with logged_in(server, make_state(5)) as (session, _):
        assert repr(session) == f"<Session with {server.url}: logged in, sequence 5>"


async def test_ids_are_never_used_twice(server: FakeServer) -> None:
    async with logged_in(server) as (session, peer):
        async with started(session.get()) as getting:
            await peer.expect(GetWallet)
            peer.cut()
            again = await server.accept()
            await again.let_resume()
            request, _ = await again.expect(GetWallet)
            await again.answer(request, make_state(1))
        assert getting.result() == make_state(1)
        distinct = {orjson.dumps([call.id, call.method]) for call in peer.calls + again.calls}
        assert len({call.id for call in peer.calls + again.calls}) == len(distinct)
