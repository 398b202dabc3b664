"""kill -9 under load: what was acknowledged is there, what was not is there once or not at all."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Any

import pytest

from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import CallFailed, RawClient, open_client, state
from tests.e2e.serving import ServerProcess

KILLS = 20
DEVICES = 3
PIPELINED = 8


class Pusher:
    """A device with an account of its own that pushes on and on, some pushes ahead of answers."""

    def __init__(self, server: ServerProcess, number: int) -> None:
        self.email = f"joe{number}@example.com"
        self.token = ""
        self.sent = 0
        self.acknowledged = 0
        self.retried = 0
        self.pushing = False
        self._server = server

    async def register(self) -> None:
        async with open_client(self._server.url) as client:
            await client.register(self.email)
            self.token = (await client.login(self.email))["token"]

    async def push_until_killed(self) -> None:
        """Pushes until the connection breaks; `acknowledged` and `sent` say how far it came."""
        async with open_client(self._server.url) as client:
            opened = await client.call("session.resume", token=self.token)
            await self.check(client, opened["sequence"])
            self.pushing = True
            waiting: list[asyncio.Future[Any]] = []
            try:
                while True:
                    while len(waiting) < PIPELINED:
                        waiting.append(
                            await client.submit("wallet.push", **state(self.sent + 1), receipt=True)
                        )
                        self.sent += 1
                    self.acknowledged = (await waiting.pop(0))["sequence"]
            except (ConnectionError, OSError):
                pass
            except Exception as error:  # websockets' own, when the send finds the end first
                assert "close" in type(error).__name__.lower() + str(error).lower(), error
            for left in waiting:
                if left.done() and not left.exception():
                    self.acknowledged = max(self.acknowledged, left.result()["sequence"])

    async def check(self, client: RawClient, stored: int) -> None:
        """After the restart: nothing acknowledged is lost, nothing is there that was not sent."""
        assert self.acknowledged <= stored <= self.sent
        if stored:
            history = (await client.call("wallet.history", limit=100))["versions"]
            newest = [version["sequence"] for version in history]
            assert newest == [*range(stored, stored - len(newest), -1)], "each once, none left out"
            for version in history:
                assert version["hmac"] == state(version["sequence"])["hmac"]
        # An unanswered push is repeated as it was: it lands, or it is told that it has landed.
        for sequence in range(self.acknowledged + 1, self.sent + 1):
            try:
                answer = await client.call("wallet.push", **state(sequence))
                assert answer["sequence"] == sequence
            except CallFailed as error:
                assert sequence < stored
                assert error.data["landed"] is True
            self.retried += 1
        self.acknowledged = self.sent
        if self.sent:
            assert (await client.call("wallet.get"))["sequence"] == self.sent


@pytest.mark.timeout(400)  # twenty starts, on a machine that may be busy with others
async def test_every_acknowledged_push_is_there_after_kill_9(make_process: MakeProcess) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    server = make_process(history_depth=100)
    await server.start()
    pushers = [Pusher(server, number) for number in range(DEVICES)]
    for pusher in pushers:
        await pusher.register()

    for _ in range(KILLS):
        before = [pusher.sent for pusher in pushers]
        for pusher in pushers:
            pusher.pushing = False
        tasks = [asyncio.create_task(pusher.push_until_killed()) for pusher in pushers]
        async with asyncio.timeout(60):
            while not all(
                pusher.pushing and pusher.acknowledged > sent
                for pusher, sent in zip(pushers, before, strict=True)
            ):
                assert not any(task.done() and task.exception() for task in tasks)
                await asyncio.sleep(0.01)
        await asyncio.sleep(chance.uniform(0, 0.2))
        server.signal(signal.SIGKILL)
        assert await server.wait() == -signal.SIGKILL
        await asyncio.gather(*tasks)
        await server.start()

    for pusher in pushers:
        async with open_client(server.url) as client:
            opened = await client.call("session.resume", token=pusher.token)
            await pusher.check(client, opened["sequence"])
    retried = sum(pusher.retried for pusher in pushers)
    print(f"{sum(pusher.sent for pusher in pushers)} pushes, {retried} of them unanswered")
    assert retried, "it was killed under load"
