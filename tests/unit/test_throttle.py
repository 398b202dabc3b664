from hypothesis import given, settings
from hypothesis import strategies as st

from wsserver.throttle import Rate, Throttle, address_key


def test_a_burst_passes_and_the_next_is_told_how_long_to_wait() -> None:
    throttle = Throttle(Rate(per_s=2, burst=3), keys_max=10)

    assert [throttle.take("joe", 0.0) for _ in range(4)] == [0, 0, 0, 500]


def test_after_the_wait_that_was_told_it_passes() -> None:
    throttle = Throttle(Rate(per_s=2, burst=1), keys_max=10)
    throttle.take("joe", 0.0)

    wait_ms = throttle.take("joe", 0.1)

    assert wait_ms == 400
    assert throttle.take("joe", 0.1 + wait_ms / 1000) == 0


def test_a_refused_try_costs_nothing() -> None:
    throttle = Throttle(Rate(per_s=1, burst=1), keys_max=10)
    throttle.take("joe", 0.0)

    for _ in range(100):
        throttle.take("joe", 0.5)

    assert throttle.take("joe", 1.0) == 0


def test_what_is_given_back_can_be_taken_again_and_no_more_than_that() -> None:
    throttle = Throttle(Rate(per_s=1, burst=2), keys_max=10)
    throttle.take("joe", 0.0)
    throttle.give_back("joe")
    throttle.give_back("joe")
    throttle.give_back("ann")

    assert [throttle.take("joe", 0.0) for _ in range(3)] == [0, 0, 1000]
    assert len(throttle) == 1


def test_keys_do_not_share_a_bucket() -> None:
    throttle = Throttle(Rate(per_s=1, burst=1), keys_max=10)
    throttle.take("joe", 0.0)

    assert throttle.take("ann", 0.0) == 0


def test_keys_that_have_rested_are_forgotten() -> None:
    throttle = Throttle(Rate(per_s=10, burst=5), keys_max=1000)
    for number in range(500):
        throttle.take(number, 0.0)

    for number in range(500):
        throttle.take(f"later {number}", 100.0 + number)

    assert len(throttle) <= 2


def test_there_are_never_more_keys_than_may_be() -> None:
    throttle = Throttle(Rate(per_s=0.001, burst=5), keys_max=10)

    for number in range(100):
        throttle.take(number, 0.0)

    assert len(throttle) == 10


@given(
    per_s=st.sampled_from([0.5, 1, 7, 100]),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 3), max_size=100),
)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_no_more_pass_than_the_burst_and_the_rate_allow(
    per_s: float, burst: int, gaps: list[float]
) -> None:
    throttle = Throttle(Rate(per_s=per_s, burst=burst), keys_max=5)
    now_s = 0.0
    passed = 0
    for gap in gaps:
        now_s += gap
        passed += throttle.take("joe", now_s) == 0

    assert passed <= burst + per_s * now_s + 1e-6


def test_an_ipv6_peer_is_its_64() -> None:
    assert address_key("2001:db8:1:2:3:4:5:6") == address_key("2001:db8:1:2::9")
    assert address_key("2001:db8:1:2::1") != address_key("2001:db8:1:3::1")
    assert address_key("fe80::1%eth0") == "fe80::"


def test_an_ipv4_peer_is_itself_however_it_is_written() -> None:
    assert address_key("192.0.2.7") == address_key("::ffff:192.0.2.7") == "192.0.2.7"


def test_a_peer_without_an_ip_address_is_what_it_is_called() -> None:
    assert address_key("a unix socket") == "a unix socket"
