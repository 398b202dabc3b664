"""The gate: limits that users never meet, on what strangers and single peers may ask. Pure.

Three kinds, as the protocol's rules of the account have it: by address, by account and address
together (so that nobody can lock an owner out), and by connection. What is refused is told when to
come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

from wsschema.errors import RateLimited
from wsserver.throttle import Rate, Throttle

KEYS_MAX: Final = 100_000
"""Keys a throttle remembers: about 20 MB when all are in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """What the gate holds peers to. Each is a setting of the same name, with the default here."""

    message_rate: Rate = Rate(per_s=500, burst=2000)
    """Messages of one connection. A wallet sends a few a minute; a first sync may pipeline."""
    refusals_max: int = 100
    """Calls answered with 429 in a row after which a connection is closed: its client does not
    wait."""

    credential_call_rate: Rate = Rate(per_s=5, burst=600)
    """Calls that cost a password hash or a mail, by address. Devices stay logged in for weeks, so
    that even a large office behind one address stays below; 5 a second is half of one core's
    hashing."""
    prelogin_rate: Rate = Rate(per_s=10, burst=300)
    """Preludes to a login, by address: cheap, but each restarts the authentication clock."""
    wrong_password_rate: Rate = Rate(per_s=0.2, burst=30)
    """Wrong passwords, by account and address together: a person mistypes, and a device that was
    left behind by a password change tries the old one; 30 at once and 12 a minute after that are
    17,310 guesses a day, against a password that was derived by scrypt."""
    letter_rate: Rate = Rate(per_s=1 / 600, burst=5)
    """Mails to one address, whoever asks for them: nobody's mailbox is flooded through this
    server."""

    connect_rate: Rate = Rate(per_s=20, burst=200)
    """New connections by address that have not logged in. Who logs in is given back, so devices
    that work never hold each other up, however many share an address; and two hundred may be at
    their passwords at once. To drop a connection costs a seventh of what it does to open it (65
    microseconds against 460, measured side by side on a busy machine), and no TLS."""
    anonymous_max: int = 5_000
    """Connections that are not authenticated, in all: ten addresses at their bound, and half of the
    10,000 sessions that a server is measured with. Whatever is set, they get no more than half of
    what the process has room for: there is always room for those who are."""
    anonymous_by_address_max: int = 500
    """Connections that are not authenticated, by address: a carrier's NAT stays below."""
    sessions_by_account_max: int = 256
    """Sessions of one account: four for each of the 64 devices that it may have by default."""


class Gate:
    """All throttles of one process. ``clock`` gives seconds that never go back.

    ``connections_max``: what the process has room for; strangers get no more than half of it.
    """

    def __init__(
        self,
        limits: GateLimits,
        *,
        enabled: bool,
        clock: Callable[[], float],
        connections_max: int | None = None,
    ) -> None:
        self._limits = limits
        self._enabled = enabled
        self._clock = clock
        self._messages_interval_s = 1 / limits.message_rate.per_s
        self._messages_tolerance_s = limits.message_rate.burst / limits.message_rate.per_s
        self._credential_calls = Throttle(limits.credential_call_rate, keys_max=KEYS_MAX)
        self._prelogins = Throttle(limits.prelogin_rate, keys_max=KEYS_MAX)
        self._failures = Throttle(limits.wrong_password_rate, keys_max=KEYS_MAX)
        self._requests = Throttle(limits.message_rate, keys_max=KEYS_MAX)
        self._letters = Throttle(limits.letter_rate, keys_max=KEYS_MAX)
        self._connects = Throttle(limits.connect_rate, keys_max=KEYS_MAX)
        self._anonymous_max = limits.anonymous_max
        if connections_max is not None:
            self._anonymous_max = min(limits.anonymous_max, max(1, connections_max // 2))
        self._anonymous: dict[str, int] = {}
        self.anonymous = 0
        """Connections that are counted: those that have not authenticated."""
        self.refusals = {field.name: 0 for field in fields(limits)}
        """How often each limit, by the name of its setting, was met."""

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
            self.refusals["message_rate"] += 1
            return full_at_s, max(1, round(wait_s * 1000))
        return after_s, 0

    def has_too_many_refusals(self, refusals: int) -> bool:
        """Whether a connection with that many calls refused in a row is to be closed."""
        return self._note(self._enabled and refusals >= self._limits.refusals_max, "refusals_max")

    # By address, and by account and address.

    def pass_credential_call(self, address: str, account: str | int | None = None) -> None:
        """Let a call that costs a password hash or a mail pass; raises RateLimited.

        ``account`` is whose password it tries, where it tries one: see `note_failure`.
        """
        if not self._enabled:
            return
        now_s = self._clock()
        wait_ms = self._failures.find_wait_ms((address, account), now_s) if account else 0
        self._refuse(wait_ms, "wrong_password_rate")
        self._refuse(self._credential_calls.take(address, now_s), "credential_call_rate")

    def note_failure(self, address: str, account: str | int) -> None:
        """A wrong password was tried: slows down that account for that address, and nobody else.

        Each counts: those that were let pass together, before the first was known to be wrong, too.
        """
        if self._enabled:
            self._failures.charge((address, account), self._clock())

    def pass_prelogin(self, address: str) -> None:
        """Let a prelogin pass; raises RateLimited."""
        if self._enabled:
            self._refuse(self._prelogins.take(address, self._clock()), "prelogin_rate")

    def pass_request(self, token_hash: bytes) -> None:
        """Let a request pass that brings its token along: as many as messages; raises RateLimited.

        What has a connection to count on asks `pass_message`.
        """
        if self._enabled:
            self._refuse(self._requests.take(token_hash, self._clock()), "message_rate")

    def may_write_to(self, email: str) -> bool:
        """Whether one more mail may go to that address; who asked is not told, lest it tell."""
        wait_ms = self._letters.take(email, self._clock()) if self._enabled else 0
        return not self._note(wait_ms > 0, "letter_rate")

    # Connections and sessions.

    def may_connect(self, address: str) -> bool:
        """Whether one more TCP connection of that address is let in."""
        wait_ms = self._connects.take(address, self._clock()) if self._enabled else 0
        return not self._note(wait_ms > 0, "connect_rate")

    def note_login(self, address: str) -> None:
        """A connection of that address came to something: it counts no more."""
        if self._enabled:
            self._connects.give_back(address)

    def has_too_many_sessions(self, sessions: int) -> bool:
        """Whether an account with that many sessions has to let one go."""
        crowded = self._enabled and sessions > self._limits.sessions_by_account_max
        return self._note(crowded, "sessions_by_account_max")

    def enter(self, address: str) -> bool:
        """Count a connection that came; False, and nothing counted, when there are too many."""
        here = self._anonymous.get(address, 0)
        if self._enabled and (
            self._note(self.anonymous >= self._anonymous_max, "anonymous_max")
            or self._note(here >= self._limits.anonymous_by_address_max, "anonymous_by_address_max")
        ):
            return False
        self._anonymous[address] = here + 1
        self.anonymous += 1
        return True

    def leave(self, address: str) -> None:
        """A counted connection authenticated, or is gone."""
        self.anonymous -= 1
        self._anonymous[address] -= 1
        if not self._anonymous[address]:
            del self._anonymous[address]

    def _refuse(self, wait_ms: int, limit: str) -> None:
        if self._note(wait_ms > 0, limit):
            raise RateLimited(retry_after_ms=wait_ms)

    def _note(self, met: bool, limit: str) -> bool:
        """Count it where the limit is met; gives whether it is."""
        if met:
            self.refusals[limit] += 1
        return met
