"""The checker of histories accepts what a wallet may do, and finds what it may not."""

from __future__ import annotations

import math
import random
import time

import pytest

from tests.faults.register import (
    NO_WALLET,
    Call,
    NotLinearizableError,
    Version,
    check_heard,
    check_history,
)


def push(start_s: float, end_s: float, sequence: int, tag: str) -> Call:
    version = (sequence, tag)
    return Call(who=tag, start_s=start_s, end_s=end_s, pushed=version, answer=version)


def unanswered(start_s: float, sequence: int, tag: str, end_s: float = math.inf) -> Call:
    return Call(who=tag, start_s=start_s, end_s=end_s, pushed=(sequence, tag))


def refused(start_s: float, sequence: int, tag: str) -> Call:
    return Call(who=tag, start_s=start_s, pushed=(sequence, tag), refused=True)


def get(start_s: float, end_s: float, sequence: int, tag: str) -> Call:
    return Call(who="reader", start_s=start_s, end_s=end_s, answer=(sequence, tag))


def conflict(
    start_s: float, end_s: float, pushed: Version, stored: Version, *, landed: bool = False
) -> Call:
    return Call(
        who=pushed[1],
        start_s=start_s,
        end_s=end_s,
        pushed=pushed,
        answer=stored,
        conflict=True,
        landed=landed,
    )


def reject(*calls: Call) -> None:
    with pytest.raises(NotLinearizableError):
        check_history(calls)


def test_calls_one_after_another_are_explained() -> None:
    calls = [
        get(0, 1, *NO_WALLET),
        push(2, 3, 1, "a"),
        get(4, 5, 1, "a"),
        push(6, 7, 2, "b"),
        conflict(8, 9, (2, "c"), (2, "b")),
        push(10, 11, 3, "c"),
    ]

    assert check_history(calls) == ["a", "b", "c"]


def test_calls_at_once_may_take_effect_in_any_order() -> None:
    calls = [push(0, 10, 2, "b"), push(0, 10, 1, "a"), get(1, 9, 1, "a"), get(1, 9, *NO_WALLET)]

    assert check_history(calls) == ["a", "b"]


def test_a_push_without_an_answer_may_have_landed_at_any_later_moment() -> None:
    calls = [
        unanswered(0, 1, "a"),
        get(1, 2, *NO_WALLET),
        get(3, 4, 1, "a"),
        push(5, 6, 2, "b"),
    ]

    assert check_history(calls) == ["a", "b"]


def test_a_push_without_an_answer_may_never_have_landed() -> None:
    assert check_history([unanswered(0, 1, "a"), push(1, 2, 1, "b")]) == ["b"]


def test_of_many_pushes_without_an_answer_the_one_that_was_seen_has_landed() -> None:
    calls = [unanswered(0, 1, f"lost {number}") for number in range(9)]
    calls += [
        push(2, 3, 2, "b"),
        get(4, 5, 2, "b"),
        conflict(6, 7, (1, "lost 4"), (2, "b"), landed=True),
    ]

    assert check_history(calls)[0] == "lost 4"


def test_a_retry_lands_once() -> None:
    calls = [unanswered(0, 1, "a"), push(2, 3, 1, "a"), push(4, 5, 2, "b")]
    calls.append(conflict(6, 7, (1, "a"), (2, "b"), landed=True))

    assert check_history(calls) == ["a", "b"]


def test_a_version_that_is_no_longer_kept_need_not_be_known_to_have_landed() -> None:
    pushes = [push(2 * n, 2 * n + 1, n, f"{n}") for n in range(1, 5)]
    late = conflict(10, 11, (1, "1"), (4, "4"))

    assert check_history([*pushes, late], history_depth=3)
    with pytest.raises(NotLinearizableError):
        check_history([*pushes, late], history_depth=4)


def test_a_lost_push_is_found() -> None:
    reject(push(0, 1, 1, "a"), get(2, 3, *NO_WALLET))
    reject(push(0, 1, 1, "a"), push(2, 3, 2, "b"), get(4, 5, 1, "a"))
    # Lost, and its sequence given to another.
    reject(push(0, 1, 1, "a"), push(2, 3, 1, "b"))


def test_a_stale_read_is_found() -> None:
    reject(push(0, 1, 1, "a"), push(2, 3, 2, "b"), get(4, 5, 1, "a"))
    # Newer, then older, though the push was at work all the time.
    reject(push(0, 1, 1, "a"), push(2, 9, 2, "b"), get(3, 4, 2, "b"), get(5, 6, 1, "a"))


def test_a_stale_conflict_is_found() -> None:
    reject(push(0, 1, 1, "a"), push(2, 3, 2, "b"), conflict(4, 5, (1, "c"), (1, "a")))


def test_a_doubled_push_is_found() -> None:
    reject(push(0, 1, 1, "a"), get(2, 3, 2, "a"))
    reject(unanswered(0, 1, "a"), push(1, 2, 1, "a"), get(3, 4, 2, "a"))


def test_an_invented_state_is_found() -> None:
    reject(push(0, 1, 1, "a"), get(2, 3, 1, "never pushed"))
    reject(get(0, 1, 7, "never pushed"))


def test_two_winners_of_a_sequence_are_found() -> None:
    reject(push(0, 10, 1, "a"), push(0, 10, 1, "b"))


def test_a_gap_in_the_sequences_is_found() -> None:
    reject(push(0, 1, 1, "a"), push(2, 3, 3, "c"))


def test_a_refused_push_that_landed_is_found() -> None:
    reject(refused(0, 1, "a"), get(1, 2, 1, "a"))


def test_a_push_that_lands_after_the_death_of_its_server_is_found() -> None:
    reject(unanswered(0, 1, "a", end_s=1), get(2, 3, *NO_WALLET), get(4, 5, 1, "a"))


def test_a_read_of_the_future_is_found() -> None:
    reject(get(0, 1, 1, "a"), push(2, 3, 1, "a"))


def test_a_conflict_without_a_reason_is_found() -> None:
    reject(push(0, 1, 1, "a"), conflict(2, 3, (2, "b"), (1, "a")))


def test_an_answer_that_is_wrong_about_what_landed_is_found() -> None:
    stored = [push(0, 1, 1, "a"), push(2, 3, 2, "b")]
    reject(*stored, conflict(4, 5, (1, "a"), (2, "b"), landed=False))
    reject(*stored, conflict(4, 5, (1, "c"), (2, "b"), landed=True))


def test_what_is_told_of_rises_and_was_stored() -> None:
    check_heard([[(1, "a"), (3, "c")], []], ["a", "b", "c"])
    for told in ([(2, "b"), (1, "a")], [(1, "a"), (1, "a")], [(1, "b")], [(4, "d")]):
        with pytest.raises(AssertionError):
            check_heard([told], ["a", "b", "c"])


class Wallet:
    """A register with faults to order, called by clients that overlap."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.chain: list[str] = []
        self.calls: list[Call] = []
        self.now_s = 0.0

    def play(self, count: int) -> list[Call]:
        """So many calls of four clients, each with its moment at random between start and end."""
        for number in range(count):
            self.now_s += 1
            self._call(f"tag {number}", self.now_s - self.chance.uniform(0, 4))
        return self.calls

    def _call(self, tag: str, start_s: float) -> None:
        end_s = self.now_s + self.chance.uniform(0, 4)
        stored = (len(self.chain), self.chain[-1]) if self.chain else NO_WALLET
        following = (len(self.chain) + 1, tag)
        kind = self.chance.random()
        if kind < 0.3:
            self.calls.append(get(start_s, end_s, *stored))
        elif kind < 0.5 and self.chain:
            self.calls.append(conflict(start_s, end_s, (len(self.chain), tag), stored))
        elif kind < 0.7:
            self.calls.append(unanswered(start_s, *following))
            if self.chance.random() < 0.5:
                self.chain.append(tag)
        else:
            self.chain.append(tag)
            self.calls.append(push(start_s, end_s, *following))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_sound_wallet_does_is_explained(seed: int) -> None:
    # Not always by the same states: an unanswered push that nobody saw may stand for another.
    assert check_history(Wallet(random.Random(seed)).play(300))


@pytest.mark.parametrize("seed", range(20))
def test_one_lost_push_among_many_calls_is_found(seed: int) -> None:
    chance = random.Random(seed)
    wallet = Wallet(chance)
    wallet.play(150)
    while (
        not wallet.calls[-1].answered
        or wallet.calls[-1].pushed is None
        or wallet.calls[-1].conflict
    ):
        wallet.play(1)
    wallet.chain.pop()
    wallet.now_s += 10
    wallet.calls.append(push(wallet.now_s, wallet.now_s, len(wallet.chain) + 1, "the next"))
    wallet.chain.append("the next")
    wallet.now_s += 10
    wallet.play(150)

    reject(*wallet.calls)


def test_a_long_history_is_checked_in_seconds() -> None:
    wallet = Wallet(random.Random(1))
    calls = wallet.play(20_000)

    started_s = time.process_time()
    check_history(calls)

    assert time.process_time() - started_s < 20
