"""The smallest plan that still fails in the same way: found by leaving steps out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from tests.simulation.audit import Violation
from tests.simulation.plans import Plan
from tests.simulation.world import run

CALMEST: dict[str, Any] = {
    "one_node": True,
    "bus_loses": 0.0,
    "bus_doubles": 0.0,
    "merge_ms": 0.0,
    "debounce_ms": 0.0,
    "tight_gate": False,
    "latency_ms": 2.0,
    "store_ms": 2.0,
    "save_ms": 2.0,
    "history_depth": 5,
    "window": 6,
}
"""Settings that are tried in place of what was drawn."""


def find_failure(plan: Plan) -> str | None:
    """What the plan fails with: a rule's name, or an error's class; None when it does not."""
    try:
        run(plan)
    except Violation as violation:
        return violation.rule
    except Exception as error:  # a fault of the code under test
        return type(error).__name__
    return None


def shrink(plan: Plan, find: Callable[[Plan], str | None] = find_failure) -> Plan:
    """A plan that fails as this one does, with nothing in it that can be left out."""
    failure = find(plan)
    assert failure is not None, "only what fails is shrunk"
    while True:
        smaller = next((one for one in _smaller(plan) if find(one) == failure), None)
        if smaller is None:
            return plan
        plan = smaller


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans that are a little smaller, those first that are much smaller."""
    size = len(plan.steps)
    while size:
        for start in range(0, len(plan.steps), size):
            steps = plan.steps[:start] + plan.steps[start + size :]
            yield dataclasses.replace(plan, steps=steps)
        size //= 2
    for name, calm in CALMEST.items():
        if getattr(plan.setting, name) != calm:
            setting = dataclasses.replace(plan.setting, **{name: calm})
            yield dataclasses.replace(plan, setting=setting)
