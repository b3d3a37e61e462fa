"""What things cost: measured, and foretold from counts."""

from __future__ import annotations

import pytest

from mautic_sync.doctor.addresses import judge_credits
from mautic_sync.doctor.finding import spoken
from mautic_sync.doctor.speed import Pull, judge_call, judge_index, seconds_of_pull, seconds_of_push


@pytest.mark.parametrize(
    ("seconds", "oauth", "state"), [(0.05, True, "ok"), (0.6, False, "warning"), (0.6, True, "warning")]
)
def test_a_slow_call_is_told_with_its_likely_cause(seconds, oauth, state):
    found = judge_call(seconds, oauth=oauth)
    assert found.state == state
    assert ("OAuth" in found.fix) == (state == "warning" and not oauth)


@pytest.mark.parametrize(
    ("by_id", "by_address", "state"),
    [(0.03, 0.03, "ok"), (0.03, 0.06, "ok"), (0.03, 0.13, "warning"), (0.5, 0.7, "ok")],
)
def test_a_missing_index_shows_by_the_time_that_it_takes_to_find_nobody(by_id, by_address, state):
    """Measured: 100 ms more with 200,000 contacts."""
    found = judge_index(by_id, by_address, 200_000)
    assert found.state == state
    assert ("CREATE INDEX" in found.fix) == (state == "warning")


def test_a_pull_is_foretold_from_what_a_page_and_a_row_take():
    measured = Pull(contact=0.001, row=0.00005, call=0.05)
    one = seconds_of_pull(measured, 100_000, 1_000_000, 500, 1)
    assert 80 < one < 170
    assert seconds_of_pull(measured, 100_000, 1_000_000, 500, 2) == pytest.approx(one / 2)
    assert seconds_of_pull(measured, 200_000, 2_000_000, 500, 1) == pytest.approx(2 * one)


def test_a_push_is_foretold_from_the_reference_and_how_much_slower_this_mautic_is():
    assert seconds_of_push(1000, 1, 1) == pytest.approx(40)
    assert seconds_of_push(1000, 3, 2) == pytest.approx(60)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.04, "40 ms"), (3.2, "3 s"), (700, "12 min"), (18_000, "5 h"), (1_000_000, "12 days")]
)
def test_durations_are_told_as_people_say_them(seconds, told):
    assert spoken(seconds) == told


def test_a_first_push_is_told_until_it_has_happened(doctor):
    examined = doctor(contacts=30)
    worker = examined.worker
    partners = worker.box.stats()["stages"].get("Partner", 0)
    found = examined()
    assert found["speed.pull"].facts["contacts"] == 30
    assert found["speed.pull"].facts["activities"] > 30
    assert found["speed.push"].facts["contacts"] == 30 - partners
    worker.init()
    planned = worker.plan()["contacts"]
    assert examined()["speed.push"].facts["contacts"] == planned
    worker.sync()
    assert examined()["speed.push"].state == "skipped"


def test_a_first_push_that_waits_for_a_person_says_so(doctor):
    found = doctor(contacts=30, push={"first_run_max": 5, "max_seconds": 0.1})()["speed.push"]
    assert "--accept PLAN" in found.told
    assert "push.max_seconds" in found.told


# -- ZeroBounce


def test_no_key_means_an_open_gate(doctor):
    found = doctor(zerobounce={"api_key": None})()
    assert found["zerobounce.key"].state == "warning"
    assert "the gate is open" in found["zerobounce.key"].told
    assert found["zerobounce.credits"].state == "skipped"


def test_a_bad_key_is_asked_once_and_told(doctor):
    examined = doctor(zerobounce={"api_key": "nonsense"})
    found = examined()
    assert found["zerobounce.key"].state == "failed"
    assert "zerobounce.api_key" in found["zerobounce.key"].fix
    assert "nonsense" not in found["zerobounce.key"].told + found["zerobounce.key"].fix
    assert [count for call, count in examined.worker.box.stats()["calls"].items() if "zerobounce" in call] == [1]


def test_credits_are_read_for_nothing(doctor):
    examined = doctor()
    before = examined.worker.box.stats()["credits"]
    assert examined()["zerobounce.credits"].facts["credits"] == before["left"]
    assert examined.worker.box.stats()["credits"] == before


@pytest.mark.parametrize(("left", "state"), [(0, "failed"), (999, "warning"), (1000, "ok")])
def test_credits(left, state):
    assert judge_credits(left, 1000).state == state
