"""Whether a recorded history of an account's calls is one that a single wallet could have given.

A wallet is a register: a sequence, and the state under it. A push is a compare-and-set, a get or a
resume a read. A history is linearizable (Herlihy and Wing, 1990) if each call can be given one
moment between its start and its answer so that, in the order of these moments, every answer is
right. The search is Wing and Gong's (1993) with Lowe's memory of what was tried (2017). It is fast
here, for the sequence never goes back: a read is placed as soon as it fits, and only pushes to the
same sequence that were at work at once are a choice.

What was not answered may have happened at any moment after its start, or never. What was refused
(503) must not have happened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Version = tuple[int, str]
"""A sequence, and the tag of the state that has it: no two pushes have the same."""

NO_WALLET: Version = (0, "")


class NotLinearizableError(AssertionError):
    """No order of the calls explains their answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call and what came of it; its times are of one clock."""

    who: str
    start_s: float
    end_s: float = math.inf
    """When its answer came; of one without an answer, until when it may have had an effect."""
    pushed: Version | None = None
    """What it was to store; None if it only read."""
    answer: Version | None = None
    """What was stored by it, or was found stored; None: it was not answered."""
    conflict: bool = False
    landed: bool = False
    """Whether the answer to a conflict said that the same push had been stored earlier."""
    refused: bool = False

    @property
    def answered(self) -> bool:
        return self.answer is not None


@dataclass(slots=True)
class _Position:
    """How far a search has come."""

    index: int = 0
    """Of the first answered call that has not begun yet."""
    open: set[int] = field(default_factory=set)
    """Answered calls that have begun, and have no moment yet."""
    length: int = 0
    clock_s: float = -math.inf
    """No moment to come is earlier than this."""
    choices: list[tuple[str, int | None, float]] = field(default_factory=list)


def check_history(calls: Iterable[Call], *, history_depth: int = 10) -> list[str]:
    """The tags of all states, in the order of their sequences, from the first on.

    Raises NotLinearizableError, which tells where the furthest explanation ends.
    """
    return _Search(calls, history_depth).run()


class _Search:
    def __init__(self, calls: Iterable[Call], history_depth: int) -> None:
        known = sorted((call for call in calls if not call.refused), key=lambda call: call.start_s)
        self._answered = [call for call in known if call.answered]
        self._unanswered: dict[int, list[Call]] = {}
        for call in known:
            if not call.answered and call.pushed is not None:
                self._unanswered.setdefault(call.pushed[0], []).append(call)
        self._depth = history_depth
        self._chain: list[str] = []
        self._hashes: list[int] = [0]

    def run(self) -> list[str]:
        at = _Position()
        turns: list[_Position] = []
        """Where another choice is left."""
        tried: set[tuple[int, frozenset[int], int]] = set()
        furthest, stuck = -1, ""
        while True:
            self._place_reads(at)
            if not at.open and at.index == len(self._answered):
                return self._chain
            key = (at.index, frozenset(at.open), self._hashes[-1])
            at.choices = [] if key in tried else self._find_choices(at)
            tried.add(key)
            if not at.choices and at.index - len(at.open) > furthest:
                furthest, stuck = at.index - len(at.open), self._describe(at)
            while not at.choices:
                if not turns:
                    raise NotLinearizableError(stuck)
                at = turns.pop()
            tag, placed, clock_s = at.choices.pop()
            if at.choices:
                turns.append(_Position(at.index, set(at.open), at.length, at.clock_s, at.choices))
            self._chain[at.length :] = [tag]
            self._hashes[at.length + 1 :] = [hash((self._hashes[at.length], tag))]
            at.length += 1
            at.clock_s = max(at.clock_s, clock_s)
            at.open.discard(-1 if placed is None else placed)

    def _place_reads(self, at: _Position) -> None:
        """Give their moment to all calls that change nothing and fit what is stored now."""
        del self._chain[at.length :], self._hashes[at.length + 1 :]
        while True:
            self._begin(at)
            fitting = [index for index in at.open if self._fits(self._answered[index])]
            if not fitting:
                return
            at.open.difference_update(fitting)
            at.clock_s = max(at.clock_s, *(self._answered[index].start_s for index in fitting))

    def _begin(self, at: _Position) -> None:
        """Let all calls begin that had begun before the first of the open ones was answered."""
        end_s = min((self._answered[index].end_s for index in at.open), default=math.inf)
        while at.index < len(self._answered) and self._answered[at.index].start_s < end_s:
            end_s = min(end_s, self._answered[at.index].end_s)
            at.open.add(at.index)
            at.index += 1

    def _fits(self, call: Call) -> bool:
        stored = (len(self._chain), self._chain[-1]) if self._chain else NO_WALLET
        if call.answer != stored:
            return False
        if call.pushed is None or not call.conflict:
            return True  # A push that fits is a retry of what is stored.
        sequence, tag = call.pushed
        if call.pushed == stored or sequence == stored[0] + 1:
            return False
        landed = 1 <= sequence < stored[0] and self._chain[sequence - 1] == tag
        return landed == call.landed or (landed and stored[0] - sequence >= self._depth)

    def _find_choices(self, at: _Position) -> list[tuple[str, int | None, float]]:
        following = at.length + 1
        end_s = min((self._answered[index].end_s for index in at.open), default=math.inf)
        choices: list[tuple[str, int | None, float]] = [
            (call.pushed[1], None, call.start_s)
            for call in self._unanswered.get(following, ())
            if call.pushed is not None and call.start_s < end_s and call.end_s > at.clock_s
        ]
        for index in at.open:
            call = self._answered[index]
            if call.pushed is not None and not call.conflict and call.answer == call.pushed:
                sequence, tag = call.pushed
                if sequence == following:
                    choices.append((tag, index, call.start_s))
        return choices

    def _describe(self, at: _Position) -> str:
        stored = (at.length, self._chain[at.length - 1]) if at.length else NO_WALLET
        calls = sorted((self._answered[index] for index in at.open), key=lambda call: call.end_s)
        lines = "\n".join(f"  {_tell(call)}" for call in calls[:8])
        return f"with {stored} stored, none of these can be next:\n{lines}"


def _tell(call: Call) -> str:
    what = "get" if call.pushed is None else f"push {call.pushed}"
    gave = f"conflict (landed: {call.landed}) with" if call.conflict else "gave"
    return f"{call.start_s:.6f} to {call.end_s:.6f} {call.who}: {what} {gave} {call.answer}"


def check_heard(heard: Iterable[Sequence[Version]], chain: Sequence[str]) -> None:
    """What each connection was notified of was stored, and rises."""
    for told in heard:
        sequences = [sequence for sequence, _ in told]
        assert sequences == sorted(set(sequences)), f"not rising: {sequences}"
        for sequence, tag in told:
            assert sequence <= len(chain), f"{sequence} was told of, and never stored"
            assert chain[sequence - 1] == tag, f"{tag} was told of, {chain[sequence - 1]} stored"
