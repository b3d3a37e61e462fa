"""When the schedules come, over changes of the clock: real triggers, real time zones."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from mautic_sync.cron import Cron, weekdays

BERLIN = "Europe/Berlin"
USUAL = "8-59/15 * * * *"


def at(text: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def shown(cron: Cron, begin: str, end: str) -> list[str]:
    """The times as a clock on the wall shows them, with the offset."""
    zone = ZoneInfo(cron.time_zone)
    return [
        f"{datetime.fromtimestamp(one, zone):%d %H:%M %z}"
        for one in cron.times(at(begin, cron.time_zone), at(end, cron.time_zone))
    ]


@pytest.mark.parametrize("begin", ["2026-03-28T20:00", "2026-10-24T20:00", "2027-03-27T20:00", "2027-10-30T20:00"])
def test_a_quarter_of_an_hour_stays_one_when_the_clock_changes(begin):
    times = list(Cron(USUAL, BERLIN).times(at(begin), at(begin) + 12 * 3600))
    assert len(times) == 48
    assert {later - earlier for earlier, later in pairwise(times)} == {900}


def test_what_is_fixed_to_an_hour_that_comes_twice_takes_place_once():
    assert shown(Cron("20 2 * * *", BERLIN), "2026-10-24T12:00", "2026-10-26T12:00") == [
        "25 02:20 +0200",
        "26 02:20 +0100",
    ]


def test_what_is_fixed_to_an_hour_that_does_not_come_takes_place_all_the_same():
    assert shown(Cron("20 2 * * *", BERLIN), "2026-03-28T12:00", "2026-03-30T12:00") == [
        "29 03:20 +0200",
        "30 02:20 +0200",
    ]


def test_the_full_run_of_the_night_keeps_its_hour():
    for begin, end in (("2026-03-27T12:00", "2026-03-30T12:00"), ("2026-10-23T12:00", "2026-10-26T12:00")):
        assert [one[3:8] for one in shown(Cron("20 3 * * *", BERLIN), begin, end)] == ["03:20"] * 3


def test_started_in_the_middle_of_the_hour_that_comes_twice():
    second = datetime(2026, 10, 25, 1, 5, tzinfo=UTC).timestamp()  # 02:05 for the second time
    assert Cron(USUAL, BERLIN).next_after(second) - second == 180
    assert datetime.fromtimestamp(Cron("20 2 * * *", BERLIN).next_after(second), UTC).day == 26


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("0", "sun"),
        ("7", "sun"),
        ("1-5", "mon,tue,wed,thu,fri"),
        ("mon-fri", "mon,tue,wed,thu,fri"),
        ("5-7", "sun,fri,sat"),
        ("fri-mon", "sun,mon,fri,sat"),
        ("*/2", "sun,tue,thu,sat"),
        ("1,3", "mon,wed"),
        ("*", "*"),
    ],
)
def test_weekdays_count_as_in_cron(field, days):
    assert weekdays(field) == days


def test_sunday_is_a_sunday():
    assert datetime.fromtimestamp(Cron("0 4 * * 0").next_after(0), UTC).strftime("%A %H:%M") == "Sunday 04:00"


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("0 0 31 2 *", "no such day"),
        ("0 0 1 * 1", "days of the month and of the week"),
        ("61 * * * *", "61"),
        ("* * * *", "five fields"),
        ("@daily", "five fields"),
        ("0 0 * * 8", "no weekday"),
        ("0 0 * * */0", "no weekday"),
        ("0 0 * * son", "no weekday"),
        ("a * * * *", "minute"),
    ],
)
def test_what_is_no_cron_expression_is_refused(expression, told):
    with pytest.raises(ValueError, match=told):
        Cron(expression)


@settings(deadline=None, max_examples=60)
@given(
    expression=st.sampled_from([USUAL, "20 3 * * *", "20 2 * * *", "0 */6 * * *", "30 1-3 * * 0,6", "* * * * *"]),
    zone=st.sampled_from([BERLIN, "UTC", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    begin=st.integers(1_700_000_000, 1_900_000_000),
)
def test_the_next_time_is_later_and_none_lies_between(expression, zone, begin):
    """A time is the next of every moment since the one before it."""
    cron = Cron(expression, zone)
    first = cron.next_after(begin)
    assert first > begin
    assert cron.next_after((begin + first) // 2) == first
    assert cron.next_after(first - 1) == first
    assert cron.next_after(first) > first
