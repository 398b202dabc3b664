"""What is to happen in a run: drawn from a seed, or written down to be run again.

A plan says who does what when, and what goes wrong; how long each message takes is drawn anew in
each run, from the same seed. So a plan with steps left out is a plan, and the rest of it goes much
as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

DEVICES = 3
NODES = 2

AFTER_A_PUSH = 16
"""In the ``choice`` of what goes wrong: not now, but just after the next push was sent."""
IN_A_PASSWORD_CHANGE = 32
"""With that: a password change is begun, and it is just after that was sent."""


class Step(NamedTuple):
    """At a time, something happens to a device or a node; ``ms`` and ``choice`` say how."""

    at_ms: int
    kind: str
    who: int
    ms: int = 0
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What stays the same in a run."""

    history_depth: int
    latency_ms: float
    store_ms: float
    """What a transaction takes at most, and as long again its answers' way back."""
    save_ms: float
    """What a save to a device's disk takes at most."""
    window: int
    """Messages that a device may leave unread before its connection is congested."""
    one_node: bool
    """Whether all connect to the first node while it is there."""
    bus_loses: float
    bus_doubles: float
    debounce_ms: float
    merge_ms: float
    tight_gate: bool
    """Whether the server's limits on messages and passwords are met often."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, as far as it is not chance."""

    seed: int
    setting: Setting
    steps: tuple[Step, ...]


FAULTS = {
    "cut": 6,
    "slow reader": 3,
    "crash app": 3,
    "close app": 2,
    "crash node": 2,
    "drain node": 1,
    "store fails": 2,
    "store hangs": 1,
    "change password": 3,
    "revoke": 2,
    "log out": 1,
    "lose disk": 1,
    "back up": 2,
    "restore": 2,
    "ask": 2,
}
"""What may go wrong, or not go on as usual, and how often. A seed has some of them."""


def draw_plan(seed: int) -> Plan:
    """The plan of a seed."""
    random = Random(seed)
    draw = random.random
    setting = Setting(
        history_depth=2 + int(draw() * 4),
        latency_ms=(2.0, 20.0, 200.0)[int(draw() * 3)],
        store_ms=(2.0, 10.0, 100.0)[int(draw() * 3)],
        save_ms=(2.0, 50.0, 1000.0)[int(draw() * 3)],
        window=1 + int(draw() * 6),
        one_node=draw() < 0.4,
        bus_loses=(0.0, 0.1, 0.5)[int(draw() * 3)],
        bus_doubles=(0.0, 0.3)[int(draw() * 2)],
        debounce_ms=(0.0, 200.0)[int(draw() * 2)],
        merge_ms=(0.0, 100.0)[int(draw() * 2)],
        tight_gate=draw() < 0.1,
    )
    faults = [kind for kind, weight in FAULTS.items() for _ in range(weight) if draw() < 0.5]
    pace_ms = (200.0, 800.0, 3000.0)[int(draw() * 3)]
    faulty = 0.1 + 0.6 * draw()
    steps = []
    at_ms = 0.0
    for _ in range(STEPS):
        if draw() < 0.5:  # else at about the same time as what was before
            at_ms += pace_ms * draw() * 2
        else:
            at_ms += setting.latency_ms * 2 * draw()
        kind = faults[int(draw() * len(faults))] if faults and draw() < faulty else "edit"
        who = int(draw() * DEVICES)
        # Mostly short, at times as long as it takes to be found dead.
        ms = int(50_000 * draw() ** 5)
        steps.append(Step(int(at_ms), kind, who, ms, int(draw() * 64)))
    return Plan(seed, setting, tuple(steps))


STEPS = 30
