import contextlib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from wsschema.errors import RateLimited
from wsserver.gate import Gate, GateLimits
from wsserver.throttle import Rate

LIMITS = GateLimits()
"""Those that a server has unless it is told others."""


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(LIMITS, enabled=True, clock=clock)


def test_a_connection_may_send_a_burst_and_is_then_told_when_the_next_may_come(gate: Gate) -> None:
    full_at_s, waits = 0.0, []
    for _ in range(LIMITS.message_rate.burst + 1):
        full_at_s, wait_ms = gate.pass_message(full_at_s)
        waits.append(wait_ms)

    assert waits[:-1] == [0] * LIMITS.message_rate.burst
    assert waits[-1] == round(1000 / LIMITS.message_rate.per_s)


def test_a_connection_that_waits_as_told_may_go_on(gate: Gate, clock: Clock) -> None:
    full_at_s = 0.0
    for _ in range(LIMITS.message_rate.burst):
        full_at_s, wait_ms = gate.pass_message(full_at_s)
    full_at_s, wait_ms = gate.pass_message(full_at_s)
    clock.now_s += wait_ms / 1000

    assert gate.pass_message(full_at_s)[1] == 0


def test_a_token_has_as_many_requests_as_a_connection_has_messages(gate: Gate) -> None:
    for _ in range(LIMITS.message_rate.burst):
        gate.pass_request(b"token")

    with pytest.raises(RateLimited) as refusal:
        gate.pass_request(b"token")
    assert refusal.value.retry_after_ms == round(1000 / LIMITS.message_rate.per_s)
    gate.pass_request(b"another")


def test_wrong_passwords_slow_down_that_account_for_that_address(gate: Gate) -> None:
    for _ in range(LIMITS.wrong_password_rate.burst):
        gate.pass_credential_call("192.0.2.1", "joe@example.com")
        gate.note_failure("192.0.2.1", "joe@example.com")

    with pytest.raises(RateLimited) as refusal:
        gate.pass_credential_call("192.0.2.1", "joe@example.com")

    assert refusal.value.retry_after_ms == round(1000 / LIMITS.wrong_password_rate.per_s)


def test_wrong_passwords_that_were_tried_at_once_count_each(gate: Gate) -> None:
    """Or who sends a hundred together would have them all for the price of thirty."""
    tried = LIMITS.wrong_password_rate.burst + 70
    for _ in range(tried):
        gate.pass_credential_call("192.0.2.1", "joe@example.com")
    for _ in range(tried):
        gate.note_failure("192.0.2.1", "joe@example.com")

    with pytest.raises(RateLimited) as refusal:
        gate.pass_credential_call("192.0.2.1", "joe@example.com")

    assert refusal.value.retry_after_ms == round(1000 * 71 / LIMITS.wrong_password_rate.per_s)


def test_wrong_passwords_never_lock_the_owner_out(gate: Gate) -> None:
    for _ in range(LIMITS.wrong_password_rate.burst):
        gate.note_failure("192.0.2.1", "joe@example.com")

    gate.pass_credential_call("198.51.100.7", "joe@example.com")
    gate.pass_credential_call("192.0.2.1", "ann@example.com")


def test_right_passwords_slow_nobody_down(gate: Gate) -> None:
    for _ in range(5 * LIMITS.wrong_password_rate.burst):
        gate.pass_credential_call("192.0.2.1", "joe@example.com")


def test_an_address_may_not_have_passwords_hashed_without_end(gate: Gate) -> None:
    for number in range(LIMITS.credential_call_rate.burst):
        gate.pass_credential_call("192.0.2.1", f"joe{number}@example.com")

    with pytest.raises(RateLimited):
        gate.pass_credential_call("192.0.2.1")

    gate.pass_credential_call("192.0.2.2")


def test_preludes_to_a_login_are_counted_apart(gate: Gate) -> None:
    for _ in range(LIMITS.prelogin_rate.burst):
        gate.pass_prelogin("192.0.2.1")

    with pytest.raises(RateLimited):
        gate.pass_prelogin("192.0.2.1")

    gate.pass_credential_call("192.0.2.1")


def test_nobodys_mailbox_is_flooded(gate: Gate, clock: Clock) -> None:
    sent = [gate.may_write_to("joe@example.com") for _ in range(LIMITS.letter_rate.burst + 3)]

    assert sent == [True] * LIMITS.letter_rate.burst + [False] * 3
    assert gate.may_write_to("ann@example.com")
    clock.now_s += 1 / LIMITS.letter_rate.per_s
    assert gate.may_write_to("joe@example.com")


def test_one_address_cannot_fill_the_place_of_the_anonymous(gate: Gate) -> None:
    entered = [gate.enter("192.0.2.1") for _ in range(LIMITS.anonymous_by_address_max + 1)]

    assert entered == [True] * LIMITS.anonymous_by_address_max + [False]
    assert gate.enter("192.0.2.2")


def test_the_anonymous_have_a_bound_in_all(gate: Gate) -> None:
    for number in range(LIMITS.anonymous_max):
        assert gate.enter(f"address {number}")

    assert not gate.enter("one more")


def test_who_authenticates_or_goes_makes_room(gate: Gate) -> None:
    for _ in range(LIMITS.anonymous_by_address_max):
        gate.enter("192.0.2.1")

    gate.leave("192.0.2.1")

    assert gate.enter("192.0.2.1")


def test_an_account_has_a_bound_of_sessions(gate: Gate) -> None:
    assert not gate.has_too_many_sessions(LIMITS.sessions_by_account_max)
    assert gate.has_too_many_sessions(LIMITS.sessions_by_account_max + 1)


def test_without_limits_everything_passes(clock: Clock) -> None:
    gate = Gate(LIMITS, enabled=False, clock=clock)
    assert connect_until_refused(gate, "192.0.2.1", 1000) == 1000
    for _ in range(LIMITS.message_rate.burst + 1):
        assert gate.pass_message(0.0) == (0.0, 0)
    for _ in range(LIMITS.prelogin_rate.burst + 1):
        gate.pass_credential_call("192.0.2.1", "joe@example.com")
        gate.note_failure("192.0.2.1", "joe@example.com")
        gate.pass_prelogin("192.0.2.1")
        assert gate.may_write_to("joe@example.com")
    for _ in range(LIMITS.anonymous_by_address_max + 1):
        assert gate.enter("192.0.2.1")

    assert not gate.has_too_many_sessions(10_000)
    assert not gate.has_too_many_refusals(10_000)


def connect_until_refused(gate: Gate, address: str, at_most: int = 10_000) -> int:
    """How many TCP connections of an address are let in, one after another."""
    return next((number for number in range(at_most) if not gate.may_connect(address)), at_most)


def test_an_address_may_connect_in_a_burst_and_then_at_a_rate(gate: Gate, clock: Clock) -> None:
    assert connect_until_refused(gate, "192.0.2.1") == LIMITS.connect_rate.burst
    assert gate.may_connect("192.0.2.2")

    clock.now_s += 10
    assert connect_until_refused(gate, "192.0.2.1") == 10 * LIMITS.connect_rate.per_s


def test_connections_that_log_in_count_for_nothing(gate: Gate) -> None:
    for _ in range(10 * LIMITS.connect_rate.burst):
        assert gate.may_connect("192.0.2.1")
        gate.note_login("192.0.2.1")

    assert connect_until_refused(gate, "192.0.2.1") == LIMITS.connect_rate.burst


def test_logins_by_a_proxy_give_an_address_no_more_than_it_had(gate: Gate) -> None:
    for _ in range(100):
        gate.note_login("192.0.2.1")

    assert connect_until_refused(gate, "192.0.2.1") == LIMITS.connect_rate.burst


def test_strangers_get_half_of_a_small_process_at_most(clock: Clock) -> None:
    gate = Gate(LIMITS, enabled=True, clock=clock, connections_max=100)
    entered = [gate.enter(f"192.0.2.{number}") for number in range(60)]

    assert entered == [True] * 50 + [False] * 10


# Each limit is the one that was set.


def count_passing(passes: Callable[[int], object]) -> int:
    """How many tries pass, numbered from 0, before one is refused."""
    for number in range(10_000):
        try:
            if not passes(number):
                return number
        except RateLimited:
            return number
    raise AssertionError("nothing stops it")


def count_messages(gate: Gate) -> int:
    full_at_s = 0.0

    def send(number: int) -> bool:
        nonlocal full_at_s
        full_at_s, wait_ms = gate.pass_message(full_at_s)
        return not wait_ms

    return count_passing(send)


def count_wrong_passwords(gate: Gate) -> int:
    def guess(number: int) -> bool:
        gate.pass_credential_call("192.0.2.1", "joe@example.com")
        gate.note_failure("192.0.2.1", "joe@example.com")
        return True

    return count_passing(guess)


def count_calls(call: Callable[[str], object]) -> int:
    return count_passing(lambda number: call("192.0.2.1") is None)


COUNTS: dict[str, Callable[[Gate], int]] = {
    "message_rate": count_messages,
    "refusals_max": lambda gate: count_passing(lambda n: not gate.has_too_many_refusals(n)),
    "credential_call_rate": lambda gate: count_calls(gate.pass_credential_call),
    "prelogin_rate": lambda gate: count_calls(gate.pass_prelogin),
    "wrong_password_rate": count_wrong_passwords,
    "letter_rate": lambda gate: count_passing(lambda n: gate.may_write_to("joe@example.com")),
    "connect_rate": lambda gate: connect_until_refused(gate, "192.0.2.1"),
    "anonymous_max": lambda gate: count_passing(lambda n: gate.enter(f"address {n}")),
    "anonymous_by_address_max": lambda gate: count_passing(lambda n: gate.enter("192.0.2.1")),
    "sessions_by_account_max": lambda gate: count_passing(
        lambda n: not gate.has_too_many_sessions(n + 1)
    ),
}
"""How many of what a limit bounds pass at once."""


def test_every_limit_is_among_those_that_are_tried() -> None:
    assert list(COUNTS) == [field.name for field in fields(GateLimits)]


@pytest.mark.parametrize("name", COUNTS)
def test_a_limit_is_the_one_that_was_set(name: str, clock: Clock) -> None:
    chosen: dict[str, Any] = {name: Rate(per_s=1, burst=7) if name.endswith("_rate") else 7}
    gate = Gate(GateLimits(**chosen), enabled=True, clock=clock)

    assert COUNTS[name](gate) == 7


@pytest.mark.parametrize(
    "name", [name for name in COUNTS if name.endswith("_rate") and name != "message_rate"]
)
def test_a_rate_is_the_one_that_was_set(name: str, clock: Clock) -> None:
    chosen: dict[str, Any] = {name: Rate(per_s=0.5, burst=7)}
    gate = Gate(GateLimits(**chosen), enabled=True, clock=clock)
    COUNTS[name](gate)

    clock.now_s += 10

    assert COUNTS[name](gate) == 5


def test_the_rate_of_messages_is_the_one_that_was_set(clock: Clock) -> None:
    limits = GateLimits(message_rate=Rate(per_s=0.5, burst=1))
    gate = Gate(limits, enabled=True, clock=clock)
    full_at_s, _ = gate.pass_message(0.0)

    assert gate.pass_message(full_at_s) == (full_at_s, 2000)


def test_each_refusal_is_counted_by_the_limit_that_was_met() -> None:
    rate = Rate(per_s=1, burst=1)
    names = [field.name for field in fields(GateLimits)]
    tight: dict[str, Any] = {name: rate if name.endswith("_rate") else 1 for name in names}
    limits = GateLimits(**tight)
    gate = Gate(limits, enabled=True, clock=Clock())
    assert set(gate.refusals.values()) == {0}

    for _ in range(2):
        gate.pass_message(1000.0)
        gate.may_write_to("joe@example.com")
        gate.may_connect("192.0.2.1")
        gate.enter("192.0.2.1")
        for let_pass in (gate.pass_credential_call, gate.pass_prelogin):
            with contextlib.suppress(RateLimited):
                let_pass("192.0.2.1")
    gate.pass_message(1002.0)
    gate.has_too_many_refusals(1)
    gate.has_too_many_sessions(2)
    gate.note_failure("192.0.2.2", "joe@example.com")
    with pytest.raises(RateLimited):
        gate.pass_credential_call("192.0.2.2", "joe@example.com")
    gate.leave("192.0.2.1")
    by_address = GateLimits(anonymous_by_address_max=1)
    other = Gate(by_address, enabled=True, clock=Clock())
    assert [other.enter("192.0.2.1"), other.enter("192.0.2.1")] == [True, False]

    assert gate.anonymous == 0
    assert gate.refusals.pop("anonymous_by_address_max") == 0
    assert other.refusals["anonymous_by_address_max"] == 1
    assert set(gate.refusals.values()) == {1}
