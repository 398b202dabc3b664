import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsserver.throttle import RATE_EXAMPLE, RATE_NUMBER_MAX, Rate, Throttle, address_key, parse_rate


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


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        (RATE_EXAMPLE, Rate(per_s=20, burst=200)),
        ("12/min, burst 30", Rate(per_s=0.2, burst=30)),
        ("6/h, burst 5", Rate(per_s=1 / 600, burst=5)),
        ("1/h, burst 1", Rate(per_s=1 / 3600, burst=1)),
        (" 90/min, burst 1\n", Rate(per_s=1.5, burst=1)),
        ("1000000/s, burst 1000000", Rate(per_s=1_000_000, burst=1_000_000)),
    ],
)
def test_a_rate_is_read_from_its_text(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20",
        "20/s",
        "burst 200",
        "20/s burst 200",
        "20/s, 200",
        "20/s, burst 200, burst 300",
        "20/m, burst 200",  # a minute, or a month?
        "20/S, burst 200",
        "20/day, burst 200",
        "-20/s, burst 200",
        "0.5/s, burst 200",
        "1,000/s, burst 2,000",
        "1e3/s, burst 200",
        "٢٠/s, burst 200",
        f"{'9' * 5000}/s, burst 200",
    ],
)
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=f"is no rate; it looks like {RATE_EXAMPLE}"):
        parse_rate(text)


@pytest.mark.parametrize(
    "text", ["0/s, burst 5", "5/s, burst 0", "1000001/h, burst 5", "5/min, burst 1000001"]
)
def test_a_rate_has_bounds_and_its_refusal_names_them(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} must be from 1 to 1,000,000")):
        parse_rate(text)


@given(
    count=st.integers(1, RATE_NUMBER_MAX),
    unit=st.sampled_from(["s", "min", "h"]),
    burst=st.integers(1, RATE_NUMBER_MAX),
)
def test_a_rate_is_written_as_it_is_read(count: int, unit: str, burst: int) -> None:
    rate = parse_rate(f"{count}/{unit}, burst {burst}")

    assert parse_rate(str(rate)) == rate


def test_a_rate_is_written_with_a_whole_number_where_there_is_one() -> None:
    written = [str(Rate(per_s=per_s, burst=5)) for per_s in (500, 0.2, 1 / 600, 0.001)]

    assert written == [
        "500/s, burst 5",
        "12/min, burst 5",
        "6/h, burst 5",
        "0.001/s, burst 5",
    ]
