"""What holds however calls of many connections fall together in time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.e2e.rawclient import PASSWORD, CallFailed, RawClient, state
from tests.e2e.serving import Served

DEVICES = 4
SEQUENCES = 200
RESUMES = 1_000
LOGINS = 200
ACCOUNTS = 4
"""Accounts that race at once, each on its own."""


@pytest.fixture
def chance() -> random.Random:
    """Random moments; pytest shows the seed when a test fails."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


async def settle(future: Awaitable[Any]) -> Any:
    """The result, or the error."""
    try:
        return await future
    except CallFailed as error:
        return error


async def test_of_four_devices_that_race_one_wins_each_sequence_and_all_converge(
    served: Served, chance: random.Random
) -> None:
    first = await served.open_account("joe@example.com", device_id="device 0")
    devices = [first]
    for number in range(1, DEVICES):
        devices.append((await served.open_device("joe@example.com", f"device {number}"))[0])

    for sequence in range(1, SEQUENCES + 1):
        order = chance.sample(range(DEVICES), DEVICES)
        calls = [
            await devices[number].submit("wallet.push", **state(sequence, f"{sequence} {number}"))
            for number in order
        ]
        outcomes = [await settle(call) for call in calls]
        won = [outcome for outcome in outcomes if not isinstance(outcome, CallFailed)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, CallFailed)]
        assert len(won) == 1
        assert won[0]["sequence"] == sequence
        for error in lost:
            assert error.reason == "conflict"
            assert error.data["wallet"] == won[0], "the loser has the winner's state in-band"
            assert error.data["landed"] is False

    states = [await device.call("wallet.get") for device in devices]
    assert all(found == states[0] for found in states)
    assert states[0]["sequence"] == SEQUENCES
    for device in devices:
        told = [update["sequence"] for update in device.heard("wallet.updated")]
        assert told == sorted(set(told)), "each once, and never an older after a newer"


async def test_devices_that_merge_and_push_again_all_get_their_changes_in(
    served: Served, chance: random.Random
) -> None:
    changes_each = 25
    await served.open_account("joe@example.com")

    async def work(number: int) -> None:
        device, _ = await served.open_device("joe@example.com", f"device {number}")
        # From nothing: the first push tells what the others have made of it meanwhile.
        sequence, wallet = 0, ""
        for change in range(changes_each):
            while True:
                await asyncio.sleep(chance.random() / 500)
                merged = f"{wallet} {number}.{change}".strip()
                answer = await settle(
                    await device.submit("wallet.push", **state(sequence + 1, merged))
                )
                if not isinstance(answer, CallFailed):
                    sequence, wallet = answer["sequence"], answer["encryptedWallet"]
                    break
                sequence = answer.data["wallet"]["sequence"]
                wallet = answer.data["wallet"]["encryptedWallet"]

    await asyncio.gather(*(work(number) for number in range(DEVICES)))

    reader, _ = await served.open_device("joe@example.com", "reader")
    found = await reader.call("wallet.get")
    assert found["sequence"] == DEVICES * changes_each
    changes = found["encryptedWallet"].split()
    assert len(changes) == DEVICES * changes_each
    assert set(changes) == {f"{n}.{c}" for n in range(DEVICES) for c in range(changes_each)}


async def test_pushes_pipelined_on_one_connection_apply_in_order(served: Served) -> None:
    joe = await served.open_account()
    listener, _ = await served.open_device("joe@example.com", "phone")

    calls = [
        await joe.submit("wallet.push", **state(sequence)) for sequence in range(1, SEQUENCES + 1)
    ]
    answers = [await call for call in calls]

    assert [answer["sequence"] for answer in answers] == [*range(1, SEQUENCES + 1)]
    assert [answer["encryptedWallet"] for answer in answers] == [
        f"wallet {sequence}" for sequence in range(1, SEQUENCES + 1)
    ]
    await listener.hear_sequence(SEQUENCES)


async def test_pushes_without_an_id_land_in_order_and_are_not_answered(served: Served) -> None:
    joe = await served.open_account()
    before = len(joe.received)
    for sequence in range(1, 21):
        await joe.send({"jsonrpc": "2.0", "method": "wallet.push", "params": state(sequence)})

    assert (await joe.push(21))["sequence"] == 21
    assert len(joe.received) == before + 1


async def test_the_pushes_of_a_batch_apply_in_array_order(served: Served) -> None:
    joe = await served.open_account()
    batch = [
        {"jsonrpc": "2.0", "id": sequence, "method": "wallet.push", "params": state(sequence)}
        for sequence in range(1, 20)
    ]
    ping = {"jsonrpc": "2.0", "method": "server.ping"}

    answers = await joe.ask([*batch, ping])

    assert {answer["id"]: answer["result"]["sequence"] for answer in answers} == {
        sequence: sequence for sequence in range(1, 20)
    }


async def test_a_batch_of_21_calls_is_one_invalid_request(served: Served) -> None:
    client = await served.open()
    ping = {"jsonrpc": "2.0", "id": 1, "method": "server.ping"}

    assert len(await client.ask([ping] * 20)) == 20
    for batch in ([ping] * 21, []):
        answer = await client.ask(batch)
        assert (answer["id"], answer["error"]["code"]) == (None, -32600)


Opening = Callable[[RawClient, int, str], Awaitable[asyncio.Future[Any]]]


class OpeningRace:
    """Opens a session while another device of the account pushes, again and again.

    The moment of the push moves to where it is as likely to be in the answer as in a notification.
    """

    def __init__(self, served: Served, chance: random.Random) -> None:
        self._served = served
        self._chance = chance
        self.in_answer = 0
        self.in_notification = 0

    async def run(self, email: str, rounds: int, opening: Opening) -> None:
        author, _ = await self._served.open_device(email, "author")
        head_start_s = 0.0
        for sequence in range(1, rounds + 1):
            client = await self._served.open()
            deliver = self._chance.choice(["state", "sequence"])
            delay_s = head_start_s + self._chance.uniform(-0.0005, 0.0005)
            if delay_s > 0:
                opened = await opening(client, sequence - 1, deliver)
                await asyncio.sleep(delay_s)
                pushed = await author.submit("wallet.push", **state(sequence))
            else:
                pushed = await author.submit("wallet.push", **state(sequence))
                await asyncio.sleep(-delay_s)
                opened = await opening(client, sequence - 1, deliver)
            answer = await opened
            await pushed
            if answer["sequence"] >= sequence:
                self.in_answer += 1
                head_start_s += 0.0002
                assert answer["wallet"]["encryptedWallet"] == f"wallet {sequence}"
                await client.call("server.ping")
                assert client.heard("wallet.updated") == [], "what was answered is not told again"
            else:
                self.in_notification += 1
                head_start_s -= 0.0002
                assert answer["sequence"] == sequence - 1
                (told,) = await client.hear("wallet.updated")
                assert told["sequence"] == sequence
                assert ("wallet" in told) == (deliver == "state")
            assert "id" in client.received[0], "no notification comes before the answer"
            await client.close()

    def check(self, rounds: int) -> None:
        print(f"{self.in_answer} in the answer, {self.in_notification} by notification")
        assert self.in_answer + self.in_notification == rounds
        assert min(self.in_answer, self.in_notification) > rounds // 50, "it did race"


async def test_a_resume_that_races_a_push_never_misses_it(
    served: Served, chance: random.Random
) -> None:
    race = OpeningRace(served, chance)

    async def run(email: str) -> None:
        await served.open_account(email)
        _, phone = await served.open_device(email, "phone")

        async def resume(client: RawClient, since: int, deliver: str) -> asyncio.Future[Any]:
            token = phone["token"]
            return await client.submit("session.resume", token=token, since=since, deliver=deliver)

        await race.run(email, RESUMES // ACCOUNTS, resume)

    await asyncio.gather(*(run(f"joe{number}@example.com") for number in range(ACCOUNTS)))

    race.check(RESUMES)


async def test_a_login_that_races_a_push_never_misses_it(
    served: Served, chance: random.Random
) -> None:
    race = OpeningRace(served, chance)

    async def run(email: str) -> None:
        await served.open_account(email)

        async def login(client: RawClient, since: int, deliver: str) -> asyncio.Future[Any]:
            params = {"email": email, "password": PASSWORD, "deviceId": "phone"}
            return await client.submit("session.login", **params, since=since, deliver=deliver)

        await race.run(email, LOGINS // ACCOUNTS, login)

    await asyncio.gather(*(run(f"joe{number}@example.com") for number in range(ACCOUNTS)))

    race.check(LOGINS)


async def test_wallet_get_never_answers_with_less_than_was_notified(
    served: Served, chance: random.Random
) -> None:
    author = await served.open_account("joe@example.com", device_id="author")
    reader, _ = await served.open_device("joe@example.com", "reader")
    await author.push(1)

    async def read() -> None:
        while not any(told["sequence"] == 300 for told in reader.heard("wallet.updated")):
            await reader.call("wallet.get")
            await asyncio.sleep(chance.choice([0, 0, 0.001]))

    reading = asyncio.create_task(read())
    for sequence in range(2, 301):
        await author.push(sequence)
    async with asyncio.timeout(30):
        await reading

    told = 0
    answers = 0
    for message in reader.received:
        if message.get("method") == "wallet.updated":
            assert message["params"]["sequence"] > told
            told = message["params"]["sequence"]
        elif "encryptedWallet" in message.get("result", {}):
            answers += 1
            assert message["result"]["sequence"] >= told
    assert answers > 10
