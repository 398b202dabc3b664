"""Makes inputs for one target until its time is up: by atheris, which goes by what they cover, or
where that is not installed by mutation alone. A process of its own: atheris ends the one it is in.

It prints lines that `tests.fuzz.__main__` reads: `fuzz: executions seconds` (of the processor),
those of libFuzzer with `cov:`, and `finding: ...`.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

TOLD_INTERVAL_S: Final = 1.0
OWN: Final = ("wsschema", "wsserver", "wsclient", "websockets")
"""What is instrumented: our code, and the core that it leans on."""


def mutations(target: Target, seed: int) -> Iterator[bytes]:
    """Inputs without end: some made of nothing, most of one that is kept, changed."""
    rng = random.Random(seed)
    corpus = target.load_corpus()
    while True:
        if not corpus or rng.random() < 0.3:
            yield rng.randbytes(rng.randrange(target.bytes_max))
            continue
        data = bytearray(rng.choice(corpus))
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(data))
            match rng.randrange(6 if target.tokens else 5):
                case 0:
                    data[at : at + 1] = rng.randbytes(1)
                case 1:
                    data[at:at] = rng.randbytes(rng.randint(1, 8))
                case 2:
                    del data[at : at + rng.randint(1, 16)]
                case 3:
                    other = rng.choice(corpus)
                    data[at:] = other[rng.randint(0, len(other)) :]
                case 4:
                    data[at:at] = data[at : at + rng.randint(1, 64)]
                case 5:
                    data[at:at] = rng.choice(target.tokens)
        yield bytes(data[: target.bytes_max])


class Told:
    """Counts executions, and tells of them each second."""

    def __init__(self, check: Callable[[bytes], None]) -> None:
        self._check = check
        self._executions = 0
        self._told_s = time.monotonic()

    def __call__(self, data: bytes) -> None:
        self._check(data)
        self._executions += 1
        now_s = time.monotonic()
        if now_s - self._told_s >= TOLD_INTERVAL_S:
            self.tell(now_s)

    def tell(self, now_s: float) -> None:
        self._told_s = now_s
        print(f"fuzz: {self._executions} {time.process_time():.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--inputs", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.inputs.mkdir(parents=True, exist_ok=True)
    if find_spec("atheris") is None:
        _mutate(arguments)
    else:
        _run_atheris(arguments)


def _load(name: str) -> tuple[Target, Told]:
    targets = importlib.import_module("tests.fuzz.targets")
    findings = importlib.import_module("tests.fuzz.findings")
    target = targets.TARGETS[name]
    return target, Told(findings.Findings(target).check)


def _mutate(arguments: argparse.Namespace) -> None:
    target, told = _load(arguments.target)
    ends_s = time.monotonic() + arguments.seconds
    for data in mutations(target, arguments.seed):
        told(data)
        if time.monotonic() >= ends_s:
            break
    told.tell(time.monotonic())


def _run_atheris(arguments: argparse.Namespace) -> None:
    import atheris

    with atheris.instrument_imports(include=[*OWN]):
        for name in OWN:
            importlib.import_module(name)
        target, told = _load(arguments.target)
    # Some of full length among them, or it would take its time to come to long ones.
    rng = random.Random(arguments.seed)
    seeds = [*target.load_corpus(), *(rng.randbytes(target.bytes_max) for _ in range(20))]
    for number, data in enumerate(seeds):
        (arguments.inputs / f"seed-{number}").write_bytes(data)
    options = [
        f"-max_total_time={int(arguments.seconds)}",
        f"-max_len={target.bytes_max}",
        f"-seed={arguments.seed}",
        "-len_control=0",
        "-timeout=60",
        "-rss_limit_mb=2048",
    ]
    if target.tokens:
        dictionary = arguments.inputs.with_suffix(".dict")
        dictionary.write_text("".join(f'"{_escape(token)}"\n' for token in target.tokens))
        options.append(f"-dict={dictionary}")
    atheris.Setup([sys.argv[0], *options, str(arguments.inputs)], told)
    atheris.Fuzz()


def _escape(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    main()
