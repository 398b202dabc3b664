"""What the wallets of the simulation hold: marks, each made once, on one device.

A wallet is the sorted list of its marks, and merging adds up what both sides changed, as counters
do: a change that is lost leaves its mark out, one that is merged a second time leaves it twice.
"""

from __future__ import annotations

from collections import Counter

Wallet = bytes


def write(marks: Counter[bytes] | list[bytes]) -> Wallet:
    return b" ".join(sorted(marks.elements() if isinstance(marks, Counter) else marks))


def read(wallet: Wallet | None) -> list[bytes]:
    return wallet.split() if wallet else []


def add(wallet: Wallet | None, mark: bytes) -> Wallet:
    return write([*read(wallet), mark])


def merge(base: Wallet | None, mine: Wallet, theirs: Wallet) -> Wallet:
    """Theirs and what is new in mine; without a base, whatever either has."""
    ours, others = Counter(read(mine)), Counter(read(theirs))
    if base is None:
        return write(ours | others)
    return write(others + (ours - Counter(read(base))))


def merge_sets(base: Wallet | None, mine: Wallet, theirs: Wallet) -> Wallet:
    """The same where a mark may have reached both sides by more than one way: after a restore."""
    return write([*set(read(merge(base, mine, theirs)))])
