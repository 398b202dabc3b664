"""What is fuzzed: each target takes any bytes, and raises where something is that must not be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz import client, codec, http, sealed, session, wire

CORPUS: Final = Path(__file__).with_name("corpus")


@dataclass(frozen=True, slots=True)
class Target:
    """One surface that bytes of strangers reach.

    ``bytes_max``: length of an input. ``tokens``: what a mutation may put into one.
    """

    name: str
    run: Callable[[bytes], None]
    bytes_max: int
    tokens: tuple[bytes, ...] = ()

    def load_corpus(self) -> list[bytes]:
        """The inputs that are kept: together they reach all that was ever reached."""
        lines = (CORPUS / f"{self.name}.hex").read_text().splitlines()
        return [bytes.fromhex(line) for line in lines]

    def save_corpus(self, inputs: list[bytes]) -> None:
        """Keeps these inputs, each in a line."""
        lines = sorted({data.hex() for data in inputs}, key=lambda line: (len(line), line))
        (CORPUS / f"{self.name}.hex").write_text("".join(f"{line}\n" for line in lines))


TARGETS: Final = {
    target.name: target
    for target in (
        Target("codec", codec.run, 4096, codec.TOKENS),
        Target("frames", wire.run_frames, 600, wire.TOKENS),
        Target("wire", wire.run_wire, 600, wire.TOKENS),
        Target("session", session.run, 800),
        Target("http", http.run, 600, http.TOKENS),
        Target("client", client.run, 600),
        Target("sealed", sealed.run, 600, sealed.TOKENS),
    )
}
