"""Throttles: how often a key may do a thing. Pure; time is handed in.

Each key costs one number: the generic cell rate algorithm (ITU-T I.371, annex A), which is a token
bucket that stores when it will be full again instead of how full it is.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

ADDRESSES_CACHED: Final = 4096
"""Addresses whose key is kept in mind: to parse one takes longer than to count it."""

RATE_EXAMPLE: Final = "20/s, burst 200"
RATE_NUMBER_MAX: Final = 1_000_000
"""The largest number in a rate's text: more than one process ever passes."""

_UNITS_S: Final = {"s": 1, "min": 60, "h": 3600}
_RATE: Final = re.compile(r"([0-9]{1,9})/(s|min|h), burst ([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once after a rest, then ``per_s`` a second.

    Its text is what `parse_rate` reads, where a whole number a second, minute or hour makes it.
    """

    per_s: float
    burst: int

    def __str__(self) -> str:
        for unit, unit_s in _UNITS_S.items():
            count = round(self.per_s * unit_s, 6)
            if count >= 1 and count % 1 == 0:
                return f"{count:.0f}/{unit}, burst {self.burst}"
        return f"{self.per_s:g}/s, burst {self.burst}"


def parse_rate(text: str) -> Rate:
    """The rate of ``20/s, burst 200``: whole numbers; by the second (s), minute (min) or hour (h).

    Raises ValueError with a sentence that shows how a rate is written.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no rate; it looks like {RATE_EXAMPLE} (by s, min or h)")
    count, burst = int(found[1]), int(found[3])
    if not (1 <= count <= RATE_NUMBER_MAX and 1 <= burst <= RATE_NUMBER_MAX):
        raise ValueError(f"the numbers of {text!r} must be from 1 to {RATE_NUMBER_MAX:,}")
    return Rate(count / _UNITS_S[found[2]], burst)


class Throttle:
    """One bucket a key, for ``keys_max`` keys; past that the key unseen longest starts anew."""

    __slots__ = ("_full_at_s", "_interval_s", "_keys_max", "_tolerance_s")

    def __init__(self, rate: Rate, *, keys_max: int) -> None:
        self._interval_s = 1 / rate.per_s
        self._tolerance_s = rate.burst * self._interval_s
        self._keys_max = keys_max
        self._full_at_s: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(self, key: Hashable, now_s: float) -> int:
        """Take one from the key's bucket: 0, or the milliseconds until there is one to take."""
        wait_ms = self.find_wait_ms(key, now_s)
        if not wait_ms:
            self.charge(key, now_s)
        return wait_ms

    def charge(self, key: Hashable, now_s: float) -> None:
        """Take one, be there one or not: the bucket may come to owe some."""
        self._full_at_s[key] = self._full_at(key, now_s) + self._interval_s
        self._full_at_s.move_to_end(key)
        self._forget_rested(now_s)

    def give_back(self, key: Hashable) -> None:
        """Undo a take, as far as the key is remembered: what it was for cost nothing after all."""
        if key in self._full_at_s:
            self._full_at_s[key] -= self._interval_s

    def find_wait_ms(self, key: Hashable, now_s: float) -> int:
        """How long until there is one to take; nothing is taken."""
        after_s = self._full_at(key, now_s) + self._interval_s
        wait_s = after_s - self._tolerance_s - now_s
        return max(1, round(wait_s * 1000)) if wait_s > 1e-9 else 0

    def _full_at(self, key: Hashable, now_s: float) -> float:
        return max(self._full_at_s.get(key, now_s), now_s)

    def _forget_rested(self, now_s: float) -> None:
        """Let go of the two keys unseen longest if they are full again: more than come in."""
        for _ in range(2):
            key, full_at_s = next(iter(self._full_at_s.items()))
            if full_at_s > now_s and len(self._full_at_s) <= self._keys_max:
                return
            del self._full_at_s[key]


@functools.lru_cache(ADDRESSES_CACHED)
def address_key(address: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 of an IPv6 one (RFC 6177)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
