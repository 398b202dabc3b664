"""The gate: limits that users never meet, on what strangers and single peers may ask. Pure.

Three kinds, as the protocol's rules of the account have it: by address, by account and address
together (so that nobody can lock an owner out), and by connection. What is refused is told when to
come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wsschema.errors import RateLimited
from wsserver.throttle import Rate, Throttle

MESSAGES: Final = Rate(per_s=500, burst=2000)
"""Messages of one connection. A wallet sends a few a minute; a first sync may pipeline."""
REFUSALS_MAX: Final = 100
"""Calls answered with 429 in a row after which a connection is closed: its client does not wait."""

CREDENTIAL_CALLS: Final = Rate(per_s=5, burst=600)
"""Calls that cost a password hash or a mail, by address. Devices stay logged in for weeks, so that
even a large office behind one address stays below; 5 a second is half of one core's hashing."""
PRELOGINS: Final = Rate(per_s=10, burst=300)
"""Preludes to a login, by address: cheap, but each restarts the authentication clock."""
FAILURES: Final = Rate(per_s=0.2, burst=30)
"""Wrong passwords, by account and address together: a person mistypes, and a device that was left
behind by a password change tries the old one; 30 at once and 12 a minute after that are 17,310
guesses a day, against a password that was derived by scrypt."""
LETTERS: Final = Rate(per_s=1 / 600, burst=5)
"""Mails to one address, whoever asks for them: nobody's mailbox is flooded through this server."""
KEYS_MAX: Final = 100_000
"""Keys a throttle remembers: about 20 MB when all are in use."""

CONNECTS: Final = Rate(per_s=20, burst=200)
"""New connections by address that have not logged in. Who logs in is given back, so devices that
work never hold each other up, however many share an address; and two hundred may be at their
passwords at once. To drop a connection costs a seventh of what it does to open it (65 microseconds
against 460, measured side by side on a busy machine), and no TLS."""

ANONYMOUS_MAX: Final = 5_000
"""Connections that are not authenticated, in all; there is always room for those who are."""
ANONYMOUS_BY_ADDRESS_MAX: Final = 500
"""Connections that are not authenticated, by address: a carrier's NAT stays below."""
SESSIONS_BY_ACCOUNT_MAX: Final = 256
"""Sessions of one account: four for each of the devices that it may have."""


class Gate:
    """All throttles of one process. ``clock`` gives seconds that never go back.

    ``connections_max``: what the process has room for; strangers get no more than half of it.
    """

    def __init__(
        self, *, enabled: bool, clock: Callable[[], float], connections_max: int = 2 * ANONYMOUS_MAX
    ) -> None:
        self._enabled = enabled
        self._clock = clock
        self._messages_interval_s = 1 / MESSAGES.per_s
        self._messages_tolerance_s = MESSAGES.burst / MESSAGES.per_s
        self._credential_calls = Throttle(CREDENTIAL_CALLS, keys_max=KEYS_MAX)
        self._prelogins = Throttle(PRELOGINS, keys_max=KEYS_MAX)
        self._failures = Throttle(FAILURES, keys_max=KEYS_MAX)
        self._letters = Throttle(LETTERS, keys_max=KEYS_MAX)
        self._connects = Throttle(CONNECTS, keys_max=KEYS_MAX)
        self._anonymous_max = min(ANONYMOUS_MAX, max(1, connections_max // 2))
        self._anonymous: dict[str, int] = {}
        self._anonymous_total = 0

    # By connection.

    def pass_message(self, full_at_s: float) -> tuple[float, int]:
        """Count a message of a connection, which keeps its one number itself: the next, and a wait.

        The wait is 0, or the milliseconds until its next message may pass.
        """
        if not self._enabled:
            return full_at_s, 0
        now_s = self._clock()
        after_s = max(full_at_s, now_s) + self._messages_interval_s
        wait_s = after_s - self._messages_tolerance_s - now_s
        if wait_s > 0:
            return full_at_s, max(1, round(wait_s * 1000))
        return after_s, 0

    # By address, and by account and address.

    def pass_credential_call(self, address: str, account: str | int | None = None) -> None:
        """Let a call that costs a password hash or a mail pass; raises RateLimited.

        ``account`` is whose password it tries, where it tries one: see `note_failure`.
        """
        if not self._enabled:
            return
        now_s = self._clock()
        wait_ms = self._failures.find_wait_ms((address, account), now_s) if account else 0
        _refuse(wait_ms or self._credential_calls.take(address, now_s))

    def note_failure(self, address: str, account: str | int) -> None:
        """A wrong password was tried: slows down that account for that address, and nobody else.

        Each counts: those that were let pass together, before the first was known to be wrong, too.
        """
        if self._enabled:
            self._failures.charge((address, account), self._clock())

    def pass_prelogin(self, address: str) -> None:
        """Let a prelogin pass; raises RateLimited."""
        if self._enabled:
            _refuse(self._prelogins.take(address, self._clock()))

    def may_write_to(self, email: str) -> bool:
        """Whether one more mail may go to that address; who asked is not told, lest it tell."""
        return not self._enabled or self._letters.take(email, self._clock()) == 0

    # Connections and sessions.

    def may_connect(self, address: str) -> bool:
        """Whether one more TCP connection of that address is let in."""
        return not self._enabled or self._connects.take(address, self._clock()) == 0

    def note_login(self, address: str) -> None:
        """A connection of that address came to something: it counts no more."""
        if self._enabled:
            self._connects.give_back(address)

    def has_too_many_sessions(self, sessions: int) -> bool:
        """Whether an account with that many sessions has to let one go."""
        return self._enabled and sessions > SESSIONS_BY_ACCOUNT_MAX

    def enter(self, address: str) -> bool:
        """Count a connection that came; False, and nothing counted, when there are too many."""
        if self._enabled and (
            self._anonymous_total >= self._anonymous_max
            or self._anonymous.get(address, 0) >= ANONYMOUS_BY_ADDRESS_MAX
        ):
            return False
        self._anonymous[address] = self._anonymous.get(address, 0) + 1
        self._anonymous_total += 1
        return True

    def leave(self, address: str) -> None:
        """A counted connection authenticated, or is gone."""
        self._anonymous_total -= 1
        self._anonymous[address] -= 1
        if not self._anonymous[address]:
            del self._anonymous[address]


def _refuse(wait_ms: int) -> None:
    if wait_ms:
        raise RateLimited(retry_after_ms=wait_ms)
