"""Who hears of what, when, and at whose cost."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.e2e.rawclient import RawClient, open_socket, state
from tests.e2e.serving import Served
from wsserver.session import Session

LARGE = "w" * 200_000
PUSHES = 60


async def open_slow_device(served: Served, **params: Any) -> ClientConnection:
    """A session that nobody reads from after its login, and that takes little meanwhile."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    narrow.setblocking(False)
    address = ("127.0.0.1", served.server.port)
    await asyncio.get_running_loop().sock_connect(narrow, address)
    client = RawClient(await open_socket(served.url, sock=narrow, max_queue=1))
    await client.login("joe@example.com", "slow", **params)
    return await client.stop_reading()


@pytest.mark.parametrize("deliver", ["state", "sequence"])
async def test_a_slow_reader_gets_the_newest_and_nothing_older_after_it(
    served: Served, deliver: str
) -> None:
    author = await served.open_account("joe@example.com", device_id="author")
    swift, _ = await served.open_device("joe@example.com", "swift", deliver="state")
    slow = await open_slow_device(served, deliver=deliver)

    for sequence in range(1, PUSHES + 1):
        # What others pay for it is nothing: the push is answered, the next one hears of it.
        await author.push(sequence, LARGE, receipt=True)
        await swift.hear_sequence(sequence)
    client = RawClient(slow)
    await client.hear_sequence(PUSHES)

    told = [update["sequence"] for update in client.heard("wallet.updated")]
    assert told == sorted(set(told)), "each once, and never an older after a newer"
    assert told[-1] == PUSHES
    assert len(swift.heard("wallet.updated")) == PUSHES
    if deliver == "state":
        assert len(told) < PUSHES, "no queue was kept for it"
        assert "wallet" not in client.heard("wallet.updated")[-1]
        assert (await client.call("wallet.get"))["sequence"] == PUSHES
    await client.close()


async def test_one_who_never_reads_costs_others_nothing(served: Served) -> None:
    author = await served.open_account("joe@example.com", device_id="author")
    slow = await open_slow_device(served, deliver="state")
    for sequence in range(1, PUSHES + 1):
        await author.push(sequence, LARGE, receipt=True)
    # Its calls wait, unread; another's are answered.
    ping = '{"jsonrpc": "2.0", "id": 1, "method": "server.ping"}'
    for _ in range(100):
        await slow.send(ping)

    other, _ = await served.open_device("joe@example.com", "other")

    assert (await other.call("wallet.get"))["sequence"] == PUSHES
    slow.transport.abort()


async def test_every_other_connection_hears_of_a_push_and_its_author_does_not(
    served: Served,
) -> None:
    author = await served.open_account("joe@example.com", device_id="author")
    same, _ = await served.open_device("joe@example.com", "phone")
    with_state, _ = await served.open_device("joe@example.com", "tablet", deliver="state")
    stranger = await served.open_account("ann@example.com")

    pushed = await author.push(1)

    (told,) = await same.hear("wallet.updated")
    assert told == {name: pushed[name] for name in ("sequence", "hmac", "deviceId", "updatedAt")}
    (told,) = await with_state.hear("wallet.updated")
    assert told["wallet"] == pushed
    assert (await author.push(1)) == pushed, "a retry succeeds"
    for client in (author, same, with_state, stranger):
        await client.call("server.ping")
    assert [len(client.heard("wallet.updated")) for client in (author, same, stranger)] == [0, 1, 0]


async def test_a_push_whose_author_is_gone_at_once_is_heard_of_all_the_same(
    served: Served,
) -> None:
    await served.open_account("joe@example.com")
    listener, _ = await served.open_device("joe@example.com", "listener")
    for number in range(30):
        author, opened = await served.open_device("joe@example.com", "author")
        await author.submit("wallet.push", **state(opened["sequence"] + 1, f"push {number}"))
        await asyncio.sleep(0)
        author.abort()
        await author.closed()

    # By the same lane as the pushes, so after them.
    _, opened = await served.open_device("joe@example.com", "reader")
    assert opened["sequence"] > 0, "a push that was read lands, whoever is gone"
    await listener.hear_sequence(opened["sequence"])
    told = [update["sequence"] for update in listener.heard("wallet.updated")]
    assert told == [*range(1, len(told) + 1)], "each that landed was told, once"


async def test_presence_tells_of_the_first_coming_the_last_going_and_acknowledgements(
    served: Served,
) -> None:
    watcher = await served.open_account("joe@example.com", device_id="watcher", presence=True)
    indifferent, _ = await served.open_device("joe@example.com", "indifferent")

    (came,) = await watcher.hear("device.updated")
    assert (came["deviceId"], came["online"], came["current"]) == ("indifferent", True, False)

    phone, opened = await served.open_device("joe@example.com", "phone", deviceName="Joe's")
    again = await served.open()
    await again.call("session.resume", token=opened["token"])
    assert [device["name"] for device in await watcher.hear("device.updated", 2)] == [None, "Joe's"]

    await phone.push(1)
    assert (await watcher.hear("device.updated", 3))[-1]["appliedSequence"] == 1
    await watcher.call("wallet.ack", sequence=1)
    await indifferent.call("wallet.ack", sequence=1)
    (*_, acknowledged) = await watcher.hear("device.updated", 4)
    assert (acknowledged["deviceId"], acknowledged["appliedSequence"]) == ("indifferent", 1)

    await phone.close()
    await watcher.call("server.ping")
    online = {d["deviceId"]: d["online"] for d in (await watcher.call("device.list"))["devices"]}
    assert online == {"watcher": True, "indifferent": True, "phone": True}
    await again.close()
    (*_, went) = await watcher.hear("device.updated", 5)
    assert (went["deviceId"], went["online"]) == ("phone", False)
    await watcher.call("server.ping")
    assert len(watcher.heard("device.updated")) == 5
    assert indifferent.heard("device.updated") == []


async def test_an_acknowledgement_does_not_go_back(served: Served) -> None:
    joe = await served.open_account()
    for sequence in (1, 2):
        await joe.push(sequence)
    await joe.call("wallet.ack", sequence=1)
    (device,) = (await joe.call("device.list"))["devices"]
    assert device["appliedSequence"] == 2


async def test_a_failure_in_one_session_closes_it_and_reaches_no_other(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    author = await served.open_account("joe@example.com", device_id="author")
    before, _ = await served.open_device("joe@example.com", "before")
    broken, _ = await served.open_device("joe@example.com", "broken")
    after, _ = await served.open_device("joe@example.com", "after")
    tell = Session.wallet_updated

    def fail(session: Session, *args: Any, **kwargs: Any) -> Any:
        assert session.device is not None
        if session.device.device_id == "broken":
            raise ValueError(LARGE)
        return tell(session, *args, **kwargs)

    monkeypatch.setattr(Session, "wallet_updated", fail)

    assert (await author.push(1))["sequence"] == 1
    await before.hear_sequence(1)
    await after.hear_sequence(1)
    assert await broken.closed() == 1011
    assert "ValueError" in caplog.text
    assert LARGE not in caplog.text


async def test_answers_that_nobody_reads_hold_up_no_one_and_come_in_the_end(
    served: Served,
) -> None:
    joe = await served.open_account("joe@example.com")
    await joe.push(1, LARGE)
    slow = await open_slow_device(served)
    for number in range(1, 101):
        await slow.send(f'{{"jsonrpc": "2.0", "id": -{number}, "method": "wallet.get"}}')

    assert (await joe.push(2))["sequence"] == 2

    client = RawClient(slow)
    await client.until(lambda: sum("result" in message for message in client.received) == 100)
    assert {message["id"] for message in client.received if "result" in message} == {
        -number for number in range(1, 101)
    }
    await client.close()
