"""When a health check says yes: by the age of the last success, or by a run that moves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mautic_sync.pipeline.health import LATE_SECONDS, SUCCEEDED, health, judge, succeeded
from mautic_sync.settings import Settings
from mautic_sync.store import notes

NOON = int(datetime(2026, 11, 2, 12, 0, tzinfo=UTC).timestamp())  # a Monday
MINUTE, HOUR = 60, 3600
USUAL = Settings()


def beat(**facts):
    return {"started_at": NOON - 5 * HOUR, "stopped_at": None, "seen_at": NOON, "active_at": NOON, "run": None, **facts}


@pytest.mark.parametrize(
    ("last", "worker", "ok"),
    [
        (NOON - MINUTE, None, True),
        (NOON - 30 * MINUTE, beat(), True),
        (NOON - 60 * MINUTE, beat(), False),
        (None, None, False),
        (None, beat(), False),
        (None, beat(started_at=NOON - MINUTE), True),
        (None, beat(run="x"), True),
        (NOON - 9 * HOUR, beat(run="x"), True),
        (NOON - 9 * HOUR, beat(run="x", active_at=NOON - HOUR), False),
        (NOON - 9 * HOUR, beat(run="x", seen_at=NOON - 10 * MINUTE), False),
        (NOON - 9 * HOUR, beat(run="x", stopped_at=NOON - MINUTE), False),
    ],
)
def test_healthy_is_a_late_success_or_a_run_that_moves(last, worker, ok):
    assert judge(USUAL, NOON, last, worker).ok is ok


def test_the_bound_is_the_second_time_after_the_last_success_and_some_minutes():
    last = NOON + 8 * MINUTE
    bound = NOON + 38 * MINUTE + LATE_SECONDS
    assert judge(USUAL, bound, last, None).ok
    assert not judge(USUAL, bound + 1, last, None).ok


def test_a_schedule_that_rests_at_the_weekend_is_no_fault():
    office = Settings(schedule={"sync": "0 9 * * 1-5"})
    friday = NOON - 3 * 24 * HOUR
    assert judge(office, NOON, friday, None).ok
    assert not judge(office, NOON + 5 * 24 * HOUR, friday, None).ok


def test_a_success_that_lies_ahead_by_a_wrong_clock_tells_nothing(make_worker):
    worker = make_worker()
    with worker.run("look") as run, run.engine.begin() as connection:
        notes.put_json(connection, SUCCEEDED, {"sync": NOON + 24 * HOUR, "full_sync": NOON})
        assert succeeded(connection, NOON) == {"full_sync": NOON}
        assert not health(connection, worker.settings, NOON).ok
        assert health(connection, worker.settings, NOON + 24 * HOUR).ok
