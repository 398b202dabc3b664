"""A few thousand seeds of the whole system, and the mutants that they must find."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.plans import draw_plan
from tests.simulation.running import RANGE_SEEDS, run_seeds
from tests.simulation.shrinking import find_failure, shrink
from tests.simulation.tracing import trace

SEEDS = 1500
EVENTS_MIN = 200
STEPS_MAX = 12
"""What a failure is to be shrunk to, of thirty steps."""

BROKE_A_PROMISE_ONCE = (8862, 99528)
"""Found among a hundred thousand."""

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@pytest.mark.parametrize("first", range(0, SEEDS, RANGE_SEEDS))
def test_nothing_breaks_a_promise_in_any_seed(first: int) -> None:
    report = run_seeds(first, first + RANGE_SEEDS - 1)
    assert report.failures == {}
    assert report.events_min >= EVENTS_MIN
    assert report.pushes > RANGE_SEEDS


@pytest.mark.parametrize("seed", BROKE_A_PROMISE_ONCE)
def test_what_broke_a_promise_once_keeps_it(seed: int) -> None:
    assert find_failure(draw_plan(seed)) is None


def test_a_seed_does_the_same_each_time() -> None:
    assert trace(draw_plan(7)) == trace(draw_plan(7))
    assert trace(draw_plan(7)) != trace(draw_plan(8))


@each_mutant
def test_a_mutant_is_found(mutant: Mutant) -> None:
    plan = draw_plan(mutant.found_by)
    with mutant.mutate():
        assert find_failure(plan) == mutant.rule
    assert find_failure(plan) is None


def test_a_failure_is_shrunk_to_what_it_takes() -> None:
    mutant = next(one for one in MUTANTS if one.name == "the oldest wins")
    with mutant.mutate():
        smallest = shrink(draw_plan(mutant.found_by))
        assert len(smallest.steps) <= STEPS_MAX
        assert find_failure(smallest) == mutant.rule
