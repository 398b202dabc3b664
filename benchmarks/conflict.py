"""The devices of one account all push at once: all but one of each turn are told what it missed.

python -m benchmarks.conflict [--devices 8] [--seconds 5]
"""

from __future__ import annotations

import asyncio
import time
from array import array
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.common import make_hmac, make_token, make_wallet, provision, start_server
from benchmarks.load import Session, drop_all, find_quantile
from benchmarks.scenario import Bench, Scenario, run_alone

SETTLE_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Plan:
    """How many devices, their wallet, and how long."""

    devices: int = 8
    kib: int = 2
    seconds: float = 5.0


SMOKE = Plan(seconds=0.3)


class Rival(Session):
    """A device that pushes what it has merged with the newest state that it knows, at once."""

    def __init__(self, device: int, wallet: str) -> None:
        super().__init__()
        self.landed = 0
        self.conflicts = 0
        self.times_ms = array("d")
        self.is_repeating = True
        self.is_waiting = False
        self._device = device
        self._wallet = wallet
        self._started_s = 0.0

    def change(self) -> None:
        """Begin to push a change, and go on until it has landed."""
        self._started_s = time.perf_counter()
        self._push()

    def _push(self) -> None:
        self.is_waiting = True
        sequence = self.sequence + 1
        # The hmac of each device is another: a repetition would be no conflict.
        params = {
            "sequence": sequence,
            "encryptedWallet": self._wallet,
            "hmac": make_hmac(sequence * 1000 + self._device),
        }
        call = {"jsonrpc": "2.0", "id": sequence, "method": "wallet.push", "params": params}
        self.write_text(orjson.dumps(call))

    def take_answer(self, message: dict[str, Any]) -> None:
        self.is_waiting = False
        error = message.get("error")
        if error is None:
            self._learn(message["result"]["sequence"])
            self.landed += 1
            self.times_ms.append(1000 * (time.perf_counter() - self._started_s))
            if self.is_repeating:
                self.change()
        elif error["code"] == 409 and not error["data"]["landed"]:
            self._learn(error["data"]["wallet"]["sequence"])
            self.conflicts += 1
            if self.is_repeating:
                self._push()
        else:
            self.faults[f"error {error['code']}"] += 1

    def _learn(self, sequence: int) -> None:
        if sequence < self.told:
            self.faults["older state than told before"] += 1
        self.told = max(self.told, sequence)
        self.sequence = max(self.sequence, sequence)


async def measure(plan: Plan, bench: Bench) -> None:
    """All push for some seconds; in the end all must know the newest state."""
    url = bench.make_database("conflict")
    provision(url, 1, devices_each=plan.devices)
    with start_server(bench.folder, url) as server:
        bench.tell(f"{plan.devices} devices")
        rivals = []
        for device in range(1, plan.devices + 1):
            rival = Rival(device, make_wallet(plan.kib * 1024))
            await rival.connect(server.port)
            await rival.resume(make_token(1, device))
            rivals.append(rival)
        started_s, client_s, server_s = (
            time.perf_counter(),
            time.process_time(),
            server.read_cpu_s(),
        )
        for rival in rivals:
            rival.change()
        await asyncio.sleep(plan.seconds)
        lasted_s = time.perf_counter() - started_s
        client_cpu = (time.process_time() - client_s) / lasted_s
        server_cpu = (server.read_cpu_s() - server_s) / lasted_s
        times_ms = sorted(time_ms for rival in rivals for time_ms in rival.times_ms)
        landed = [rival.landed for rival in rivals]
        conflicts = sum(rival.conflicts for rival in rivals)
        await settle(rivals)
        for rival in rivals:
            bench.faults += rival.faults
        await drop_all(rivals)
    bench.add_row(
        "devices of one account",
        {
            "devices": plan.devices,
            "changes/s": sum(landed) / lasted_s,
            "conflicts a change": conflicts / max(1, sum(landed)),
            "p50 ms of a change": find_quantile(times_ms, 0.5),
            "p99 ms of a change": find_quantile(times_ms, 0.99),
            "fewest of a device": min(landed),
            "most": max(landed),
            "client CPU": client_cpu,
            "server CPU": server_cpu,
        },
    )


async def settle(rivals: list[Rival]) -> None:
    """Let all be answered and told; each change that landed has a sequence of its own."""
    for rival in rivals:
        rival.is_repeating = False
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        newest = sum(rival.landed for rival in rivals)
        if all(not rival.is_waiting and rival.sequence == newest for rival in rivals):
            return
        await asyncio.sleep(0.01)
    rivals[0].faults["newest state not known to all"] += 1


SCENARIO = Scenario(
    "conflict", "The devices of one account all push.", measure, Plan(), SMOKE, expected_s=10
)

if __name__ == "__main__":
    run_alone(SCENARIO)
