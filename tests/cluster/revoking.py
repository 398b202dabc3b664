"""Sessions of one device at every node, and how soon after the answer its revocation ends them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from benchmarks.common import make_device_id, make_token
from tests.cluster.nodes import Nodes
from tests.e2e.rawclient import CallFailed, RawClient, open_socket
from tests.faults.load import LOST

LIMIT_S = 1.0
PATIENCE_S = 30.0
REVOKED_CODE = 4401


@dataclass
class Revocations:
    """Revokes one device after another, of accounts whose devices are numbered from 1."""

    nodes: Nodes
    accounts: range
    devices_each: int
    seconds: list[float] = field(default_factory=list)
    """From the answer to the close of each session."""
    done: int = 0
    stopping: bool = False

    async def run(self, pause_s: float = 0.2) -> None:
        """Until it is told to stop, or no device is left."""
        for account in self.accounts:
            for number in range(2, self.devices_each + 1):
                if self.stopping:
                    return
                with contextlib.suppress(*LOST, CallFailed):
                    await self._revoke(account, number)
                await asyncio.sleep(pause_s)

    async def _revoke(self, account: int, number: int) -> None:
        async with contextlib.AsyncExitStack() as opened:

            async def open_session(url: str, device: int) -> RawClient:
                client = RawClient(await open_socket(url))
                opened.callback(client.abort)
                await client.call("session.resume", token=make_token(account, device))
                return client

            victims = [await open_session(node.url, number) for node in self.nodes.live]
            revoker = await open_session(self.nodes.url, 1)
            ends = [asyncio.create_task(_note_end(victim)) for victim in victims]
            try:
                await revoker.call("device.revoke", deviceId=make_device_id(number))
                answered_s = time.monotonic()
                async with asyncio.timeout(PATIENCE_S):
                    found = await asyncio.gather(*ends)
            finally:
                for task in ends:
                    task.cancel()
        self.done += 1
        # A session whose node has died was not ended by the revocation.
        self.seconds += [ended_s - answered_s for code, ended_s in found if code == REVOKED_CODE]

    @property
    def late(self) -> int:
        """Sessions that ended later than they must."""
        return sum(seconds > LIMIT_S for seconds in self.seconds)

    def summary(self) -> str:
        slowest = ", ".join(f"{seconds:.2f}" for seconds in sorted(self.seconds)[-3:])
        return (
            f"{self.done:,} revocations ended {len(self.seconds):,} sessions at all nodes, "
            f"{self.late:,} of them later than {LIMIT_S:g} s; the slowest {slowest} s after the "
            "answer"
        )


async def _note_end(client: RawClient) -> tuple[int, float]:
    code = await client.closed()
    return code, time.monotonic()
