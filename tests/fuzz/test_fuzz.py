"""A short run of each target: what is kept, and some made anew. `make fuzz` runs them for long."""

from __future__ import annotations

import itertools

import pytest

from tests.fuzz.engine import mutations
from tests.fuzz.targets import TARGETS, Target

RUNS = {
    "codec": 10_000,
    "frames": 12_000,
    "wire": 1500,
    "session": 1000,
    "http": 2500,
    "client": 3000,
    "sealed": 20_000,
}
"""About 17 s of one core in all; always the same inputs."""
SEED = 1


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_bytes_make_it_fail(target: Target) -> None:
    corpus = target.load_corpus()
    assert corpus, "what was reached once is reached each time"
    for data in itertools.chain(
        corpus, itertools.islice(mutations(target, SEED), RUNS[target.name])
    ):
        try:
            target.run(data)
        except Exception as error:
            error.add_note(f"{target.name}: {data.hex()}")
            raise
