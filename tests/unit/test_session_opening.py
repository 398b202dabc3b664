"""Login and resume: from the join to the first notification, and what may come between."""

from __future__ import annotations

import pytest

from tests.unit.world import EMAIL, NOW_MS, PASSWORD, TOKEN_LIFETIME_MS, Peer, World
from wsschema.errors import Unavailable
from wsschema.times import format_time, time_from_ms
from wsserver.effects import Answered, Join, Leave, Opened, Perform, RestartClock, StopClock
from wsserver.operations import (
    FindOnline,
    FindToken,
    LoadCredentials,
    LoadSession,
    OpenSession,
    PushState,
)

UNKNOWN_TOKEN = "0" * 64


@pytest.fixture
def world() -> World:
    world = World()
    world.store.add_account()
    return world


@pytest.fixture
def token(world: World) -> str:
    """That of a device which is not connected."""
    peer = world.log_in("laptop")
    peer.drop()
    return peer.token


def begin_resume(world: World, token: str, **params: object) -> tuple[Peer, int]:
    """A peer whose resume has joined, and waits for the session to be loaded."""
    peer = world.connect()
    call = peer.call("session.resume", token=token, **params)
    world.do(FindToken)
    return peer, call


# What they answer.


def test_login_answers_with_the_session_and_a_token(world: World) -> None:
    peer = world.connect()
    answer = peer.ask("session.login", email=EMAIL, password=PASSWORD, deviceId="phone")
    assert len(answer.pop("token")) == 64
    assert answer == {
        "deviceId": "phone",
        "expiresAt": format_time(time_from_ms(NOW_MS + TOKEN_LIFETIME_MS)),
        "epoch": "epoch-1",
        "sequence": 0,
        "hmac": None,
        "wallet": None,
    }


def test_resume_answers_with_the_session_of_the_tokens_device(world: World, token: str) -> None:
    world.store.accounts[EMAIL].push(1, "phone", "wallet 1", "hmac 1")
    answer = world.connect().ask("session.resume", token=token)
    assert answer["deviceId"] == "laptop"
    assert (answer["sequence"], answer["hmac"], answer["wallet"]) == (1, "hmac 1", None)
    assert "token" not in answer


@pytest.mark.parametrize(
    ("stored", "params", "moved"),
    [
        (0, {}, False),
        (0, {"since": 0}, False),
        (0, {"since": 3}, False),  # the state that it is moved to is none
        (0, {"since": 0, "epoch": "another"}, False),
        (2, {}, False),
        (2, {"since": 2}, False),
        (2, {"since": 1}, True),
        (2, {"since": 0}, True),
        (2, {"since": 3}, True),
        (2, {"since": 2, "epoch": "epoch-1"}, False),
        (2, {"since": 2, "epoch": "another"}, True),
        (2, {"since": 1, "epoch": "epoch-1"}, True),
        (2, {"epoch": "another"}, False),
    ],
)
@pytest.mark.parametrize("method", ["session.login", "session.resume"])
def test_the_wallet_comes_with_the_answer_when_it_is_another_than_the_peer_has(
    world: World, token: str, method: str, stored: int, params: dict[str, object], moved: bool
) -> None:
    for sequence in range(1, stored + 1):
        world.store.accounts[EMAIL].push(sequence, "phone", f"wallet {sequence}", "h")
    credentials = (
        {"token": token}
        if method == "session.resume"
        else {"email": EMAIL, "password": PASSWORD, "deviceId": "laptop"}
    )
    answer = world.connect().ask(method, **credentials, **params)
    assert answer["sequence"] == stored
    assert (answer["wallet"] is not None) == moved
    if moved:
        assert answer["wallet"]["encryptedWallet"] == f"wallet {stored}"


def test_an_unknown_token_is_refused_before_anything_is_joined(world: World) -> None:
    peer = world.connect()
    error = peer.ask("session.resume", token=UNKNOWN_TOKEN)
    assert (error["code"], error["data"]["reason"]) == (401, "bad_token")
    assert [type(effect) for effect in peer.effects] == [
        StopClock,
        Perform,
        Answered,
        RestartClock,
    ]


# The order of things.


def test_resume_joins_before_it_loads_and_is_live_after_its_answer(
    world: World, token: str
) -> None:
    peer = world.connect()
    peer.call("session.resume", token=token)
    world.settle()
    assert [type(effect) for effect in peer.effects] == [
        StopClock,
        Perform,
        Join,
        Perform,
        Answered,
        Opened,
    ]
    assert peer.session.live


def test_login_joins_before_its_session_is_stored(world: World) -> None:
    peer = world.connect()
    peer.call("session.login", email=EMAIL, password=PASSWORD, deviceId="phone")
    world.settle()
    kinds = [type(effect) for effect in peer.effects]
    assert kinds[-4:] == [Join, Perform, Answered, Opened]


@pytest.mark.parametrize("read_first", [True, False])
@pytest.mark.parametrize("heard_first", [True, False])
def test_a_push_while_resume_loads_is_in_the_answer_or_told_right_after_it(
    world: World, token: str, read_first: bool, heard_first: bool
) -> None:
    phone = world.log_in("phone")
    phone.push(1)
    laptop, call = begin_resume(world, token, since=0)
    load, push = world.take(LoadSession), world.take(PushState)
    for job in (load, push) if read_first else (push, load):
        job.perform()
    for job in (push, load) if heard_first else (load, push):
        job.answer()
    answered = laptop.answer(call)["sequence"]
    assert [answered, *laptop.sequences] == ([0, 1] if read_first else [1])
    assert laptop.names[0] == str(call)


def test_only_the_newest_of_the_pushes_while_resume_loads_is_told(world: World, token: str) -> None:
    phone = world.log_in("phone")
    laptop, _ = begin_resume(world, token, deliver="state")
    load = world.take(LoadSession).perform()
    for sequence in (1, 2, 3):
        phone.push(sequence)
    world.settle()
    assert laptop.inbox == []
    load.answer()
    assert laptop.sequences == [3]
    assert laptop.notifications[0][1]["wallet"]["encryptedWallet"] == "wallet 3"


def test_presence_while_resume_loads_is_told_after_its_answer(world: World, token: str) -> None:
    laptop, call = begin_resume(world, token, presence=True)
    load = world.take(LoadSession).perform()
    phone = world.log_in("phone")
    world.log_in("tablet")
    phone.drop()
    assert laptop.inbox == []
    load.answer()
    assert laptop.names == [str(call), "device.updated", "device.updated"]
    assert [(params["deviceId"], params["online"]) for _, params in laptop.notifications] == [
        ("phone", False),
        ("tablet", True),
    ]


def test_a_session_without_presence_hears_of_no_device(world: World, token: str) -> None:
    laptop, call = begin_resume(world, token)
    load = world.take(LoadSession).perform()
    world.log_in("phone")
    load.answer()
    assert laptop.names == [str(call)]


def test_a_notification_of_an_opening_without_id_still_comes_after_it_is_live(
    world: World, token: str
) -> None:
    laptop = world.connect()
    laptop.send({"jsonrpc": "2.0", "method": "session.resume", "params": {"token": token}})
    world.do(FindToken)
    load = world.take(LoadSession).perform()
    phone = world.log_in("phone")
    phone.push(1)
    world.settle()
    assert laptop.inbox == []
    load.answer()
    assert laptop.names == ["wallet.updated"]


# Other calls meanwhile.


@pytest.mark.parametrize("method", ["session.login", "session.resume"])
def test_a_second_opening_is_refused_while_the_first_is_under_way(
    world: World, token: str, method: str
) -> None:
    laptop, call = begin_resume(world, token)
    second = laptop.call(method)
    assert laptop.answer(second)["data"]["reason"] == "already_authenticated"
    world.settle()
    assert laptop.answer(call)["deviceId"] == "laptop"
    assert laptop.session.live


def test_a_call_sent_before_the_answer_is_not_authenticated(world: World, token: str) -> None:
    laptop, _ = begin_resume(world, token)
    early = laptop.push(1)
    assert laptop.answer(early)["data"]["reason"] == "not_authenticated"
    world.settle()
    late = laptop.push(1)
    world.settle()
    assert laptop.answer(late)["sequence"] == 1


def test_calls_after_a_login_in_the_same_batch_are_not_authenticated(world: World) -> None:
    peer = world.connect()
    ids = peer.batch(
        ("session.login", {"email": EMAIL, "password": PASSWORD, "deviceId": "phone"}),
        ("wallet.get", {}),
        ("session.login", {}),
        ("session.logout", {}),
    )
    world.settle()
    assert "token" in peer.answer(ids[0])
    assert [peer.answer(call)["data"]["reason"] for call in ids[1:]] == [
        "not_authenticated",
        "already_authenticated",
        "not_authenticated",
    ]
    assert peer.session.live


def test_a_login_in_a_batch_is_live_only_once_the_batch_is_answered(world: World) -> None:
    phone, laptop = world.log_in("phone"), world.connect()
    laptop.batch(
        ("account.prelogin", {"email": EMAIL}),
        ("session.login", {"email": EMAIL, "password": PASSWORD, "deviceId": "laptop"}),
    )
    prelogin = world.jobs.pop(0)
    world.settle()
    assert laptop.session.in_flight == 1
    phone.push(1)
    world.settle()
    early = laptop.call("wallet.get")
    assert laptop.answer(early)["data"]["reason"] == "not_authenticated"
    assert laptop.sequences == []
    assert not any(isinstance(effect, Opened) for effect in laptop.effects)
    prelogin.perform().answer()
    assert any(isinstance(effect, Opened) for effect in laptop.effects)
    assert isinstance(laptop.inbox[-2], list)
    assert laptop.sequences == [1]


# Openings that fail.


def test_an_opening_that_fails_leaves_the_hub_and_forgets_what_it_heard(
    world: World, token: str
) -> None:
    phone = world.log_in("phone")
    laptop, call = begin_resume(world, token, presence=True)
    phone.push(1)
    world.do(PushState)
    assert len(world.hub) == 2
    world.take(LoadSession).fail(Unavailable()).answer()
    assert laptop.answer(call)["data"]["reason"] == "unavailable"
    assert (len(world.hub), laptop.token_hash) == (1, None)
    assert [type(effect) for effect in laptop.effects[-3:]] == [Leave, Answered, RestartClock]
    assert laptop.ask("session.resume", token=token)["sequence"] == 1
    assert laptop.sequences == []


def test_an_opening_that_fails_in_a_batch_is_over_once_the_batch_is_answered(
    world: World,
) -> None:
    peer = world.connect()
    peer.batch(
        ("session.login", {"email": EMAIL, "password": "wrong password", "deviceId": "phone"}),
        ("account.prelogin", {"email": EMAIL}),
    )
    prelogin = world.jobs.pop(1)
    world.settle()
    assert peer.answer(peer.call("session.login"))["data"]["reason"] == "already_authenticated"
    prelogin.perform().answer()
    assert isinstance(peer.effects[-1], RestartClock)
    assert peer.answer(peer.call("session.login"))["code"] == -32602


# Revocations meanwhile.


def test_a_token_that_is_replaced_while_its_resume_loads_is_answered_then_revoked(
    world: World, token: str
) -> None:
    laptop, call = begin_resume(world, token)
    load = world.take(LoadSession).perform()
    world.log_in("laptop")
    assert laptop.inbox == []
    load.answer()
    assert laptop.names == [str(call), "session.revoked"]
    assert laptop.closed == (4401, "replaced")
    assert len(world.hub) == 1


def test_a_token_that_is_replaced_before_its_resume_loads_is_refused(
    world: World, token: str
) -> None:
    laptop, call = begin_resume(world, token)
    load = world.take(LoadSession)
    world.log_in("laptop")
    load.perform().answer()
    assert laptop.answer(call)["data"]["reason"] == "bad_token"
    assert laptop.closed is None
    assert "token" in laptop.ask("session.login", email=EMAIL, password=PASSWORD, deviceId="tablet")
    assert laptop.closed is None, "the revocation of the other token does not concern this one"


def test_a_revocation_in_a_batch_with_its_resume_waits_for_the_batch(
    world: World, token: str
) -> None:
    laptop = world.connect()
    laptop.batch(("session.resume", {"token": token}), ("account.prelogin", {"email": EMAIL}))
    prelogin = world.jobs.pop(1)
    world.settle()
    phone = world.log_in("phone")
    phone.ask("device.revoke", deviceId="laptop")
    phone.push(1)
    world.settle()
    assert laptop.inbox == []
    prelogin.perform().answer()
    assert laptop.names == ["[1, 2]", "session.revoked"]
    assert laptop.closed == (4401, "device_revoked")


def test_a_revocation_while_a_login_runs_does_not_concern_it(world: World) -> None:
    old, new = world.log_in("phone"), world.connect()
    call = new.call("session.login", email=EMAIL, password=PASSWORD, deviceId="phone")
    world.do(LoadCredentials)
    world.do(type(world.jobs[0].operation))
    world.do(FindOnline)
    login = world.take(OpenSession)
    old.call("session.logout")
    world.settle()
    login.perform().answer()
    assert old.closed == (4401, "logged_out")
    assert "token" in new.answer(call)
    assert new.closed is None


def test_a_login_replaces_the_devices_other_sessions_and_not_itself(world: World) -> None:
    old, laptop = world.log_in("phone"), world.log_in("laptop")
    twin = world.resume(old.token)
    new = world.log_in("phone")
    for peer in (old, twin):
        assert peer.notifications == [("session.revoked", {"reason": "replaced"})]
        assert peer.closed == (4401, "replaced")
    assert new.session.live
    assert laptop.session.live


# Losses meanwhile.


@pytest.mark.parametrize("steps", range(5))
def test_a_connection_lost_at_any_moment_of_a_login_leaves_nothing_behind(
    world: World, steps: int
) -> None:
    peer = world.connect()
    peer.call("session.login", email=EMAIL, password=PASSWORD, deviceId="phone")
    for _ in range(min(steps, 4)):
        world.do(type(world.jobs[0].operation))
    peer.drop()
    world.settle()
    assert len(world.hub) == 0
    assert peer.session.in_flight == 0
    assert peer.closed is None
    assert peer.session.receive(b"{") == []
    assert peer.session.lost() == []


def test_a_device_that_is_lost_while_it_opens_never_came_and_never_went(
    world: World, token: str
) -> None:
    phone = world.log_in("phone", presence=True)
    laptop = world.connect()
    laptop.batch(("session.resume", {"token": token}), ("account.prelogin", {"email": EMAIL}))
    world.jobs.pop(1)
    world.settle()
    laptop.drop()
    assert phone.inbox == []
    assert len(world.hub) == 1


# Drains meanwhile.


def test_a_drain_while_resume_loads_is_told_after_its_answer(world: World, token: str) -> None:
    laptop, call = begin_resume(world, token)
    laptop.drain(250)
    assert (laptop.inbox, laptop.closed) == ([], None)
    world.settle()
    assert laptop.names == [str(call), "server.closing"]
    assert laptop.notifications == [("server.closing", {"retryAfterMs": 250})]
    assert laptop.close_code == 1012
    assert len(world.hub) == 0


def test_an_opening_that_fails_while_the_server_drains_is_answered_then_closed(
    world: World,
) -> None:
    peer = world.connect()
    call = peer.call("session.resume", token=UNKNOWN_TOKEN)
    peer.drain()
    world.settle()
    assert peer.names == [str(call)]
    assert peer.close_code == 1012


def test_a_session_that_is_revoked_and_drained_while_it_opens_is_revoked(
    world: World, token: str
) -> None:
    laptop, call = begin_resume(world, token)
    load = world.take(LoadSession).perform()
    world.log_in("laptop")
    laptop.drain()
    load.answer()
    assert laptop.names == [str(call), "session.revoked"]
    assert laptop.closed == (4401, "replaced")
