"""Times on the wire are RFC 3339 in UTC, exact to the millisecond."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsschema.times import format_time, ms_from_time, parse_time, time_from_ms

MS_OF_YEAR_9999_END = 253_402_300_799_999


class Berlin(tzinfo):
    """Berlin in the night in which its clocks go back."""

    def utcoffset(self, time: datetime | None) -> timedelta:
        return timedelta(hours=1 if time is not None and time.fold else 2)

    def dst(self, time: datetime | None) -> timedelta:
        return self.utcoffset(time) - timedelta(hours=1)

    def tzname(self, time: datetime | None) -> str:
        return "Berlin"


def test_a_time_is_written_with_milliseconds_and_z() -> None:
    assert format_time(time_from_ms(1_767_323_045_678)) == "2026-01-02T03:04:05.678Z"
    assert format_time(time_from_ms(0)) == "1970-01-01T00:00:00.000Z"


def test_a_time_of_another_zone_is_written_in_utc() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert format_time(datetime(2026, 1, 2, 5, 30, tzinfo=east)) == "2026-01-02T00:00:00.000Z"


def test_the_hour_that_an_autumn_night_has_twice_is_two_times() -> None:
    """They are equal in Python, and have one hash: a cache by the local time confuses them."""
    first = datetime(2026, 10, 25, 2, 30, tzinfo=Berlin())
    second = first.replace(fold=1)
    assert first == second
    assert format_time(first) == "2026-10-25T00:30:00.000Z"
    assert format_time(second) == "2026-10-25T01:30:00.000Z"


def test_what_is_finer_than_a_millisecond_is_cut_off() -> None:
    time = datetime(2026, 1, 2, 3, 4, 5, 678_999, tzinfo=UTC)
    assert format_time(time) == "2026-01-02T03:04:05.678Z"
    assert ms_from_time(time) == 1_767_323_045_678


@given(st.integers(0, MS_OF_YEAR_9999_END))
def test_every_time_comes_back_from_the_wire(time_ms: int) -> None:
    time = time_from_ms(time_ms)
    assert parse_time(format_time(time)) == time
    assert ms_from_time(time) == time_ms


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2026-01-02T03:04:05Z", 1_767_323_045_000),
        ("2026-01-02T03:04:05.6Z", 1_767_323_045_600),
        ("2026-01-02T03:04:05.678999999Z", 1_767_323_045_678),
        ("2026-01-02T05:04:05+02:00", 1_767_323_045_000),
    ],
)
def test_other_precisions_and_zones_are_read(text: str, time_ms: int) -> None:
    assert ms_from_time(parse_time(text)) == time_ms
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-02",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05z",
        "2026-13-02T03:04:05Z",
        "2026-02-30T03:04:05Z",
        "2026-01-02T03:04:61Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.0123456789Z",
        " 2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05Z\n",
        "\u0662026-01-02T03:04:05Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(text)


@given(st.text())
def test_no_text_makes_the_reading_of_times_fail_otherwise(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_time(text)
