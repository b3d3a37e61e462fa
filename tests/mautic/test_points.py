"""A grant of points on the wire, and how it is found again in the log."""

from __future__ import annotations

import orjson
import pytest
import requests
import responses

from mautic_sync.errors import MalformedError, StopError
from mautic_sync.mautic.points import LOG, Arrival, Granted, add_points, arrived
from mautic_sync.mautic.writes import Doubtful, Gone, Refused

BASE = "https://mautic.example"
CONTACT = f"{BASE}/api/contacts/7"
KEY, OTHER = "00112233aabbccdd", "ffeeddccbbaa9988"


def answering(http, **answer):
    http.post(f"{BASE}/api/contacts/7/points/plus/-3", **answer)


def grant(transport):
    return add_points(transport, 7, -3, name=f"mautic-sync: why {KEY}", action="score 4")


def log(http, *rows):
    stats = [{"id": str(number), "lead_id": "7", **row} for number, row in enumerate(rows, 11)]
    http.get(f"{BASE}/api/stats/{LOG}", json={"total": str(len(rows)), "stats": stats})


def test_points_are_taken_back_by_a_negative_plus(http, connect):
    """`minus/3` would be logged as +3."""
    answering(http, json={"success": 1})
    assert grant(connect()) == Granted(-3)
    sent = orjson.loads(http.calls[-1].request.body)
    assert sent == {"eventName": f"mautic-sync: why {KEY}", "actionName": "score 4"}


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"status": 422, "json": {"errors": [{"message": "no", "code": 422}]}}, Refused),
        ({"status": 400, "json": {"errors": [{"message": "SQLSTATE[22001]: too long", "code": 400}]}}, Doubtful),
        ({"status": 400, "json": {"errors": [{"message": "SQLSTATE[HY000]: gone away", "code": 400}]}}, Doubtful),
        ({"status": 400, "json": {"errors": [{"message": "SQLSTATE[40001]: Deadlock found", "code": 400}]}}, Doubtful),
        ({"status": 500, "json": {"errors": [{"message": "hook", "code": 500}]}}, Doubtful),
        ({"status": 200, "json": {"success": 0}}, Doubtful),
        ({"status": 200, "body": "<html>"}, Doubtful),
        ({"body": requests.exceptions.ReadTimeout()}, Doubtful),
    ],
)
def test_every_other_answer_is_a_no_or_leaves_a_doubt(http, connect, answer, result):
    answering(http, **answer)
    assert isinstance(grant(connect()), result)


def test_a_contact_is_gone_when_reading_it_says_so_twice(http, connect):
    missing = {"status": 404, "json": {"errors": [{"message": "Contact not found.", "code": 404}]}}
    answering(http, **missing)
    http.get(CONTACT, **missing)
    assert isinstance(grant(connect()), Gone)
    assert [call.request.method for call in http.calls] == ["POST", "GET", "GET"]


def test_a_contact_that_is_there_is_not_gone_because_one_answer_says_so(http, connect):
    missing = {"status": 404, "json": {"errors": [{"message": "Contact not found.", "code": 404}]}}
    answering(http, **missing)
    http.get(CONTACT, **missing)
    http.get(CONTACT, json={"contact": {"id": 7, "fields": {"all": {}}}})
    assert isinstance(grant(connect()), Doubtful)


def test_a_missing_right_ends_the_run_and_grants_nothing(http, connect):
    answering(http, status=403, json={"errors": [{"message": "no", "code": 403}]})
    with pytest.raises(StopError, match="lead:leads:editown"):
        grant(connect())


def test_the_rows_of_a_key_are_summed_under_all_numbers_of_a_person(http, connect):
    log(
        http,
        {"event_name": f"mautic-sync: a &#38; b {KEY}", "delta": "7"},
        {"event_name": f"mautic-sync: {KEY}", "delta": "-3"},
        {"event_name": f"mautic-sync: {OTHER}", "delta": "100"},
        {"event_name": f"x{KEY}", "delta": "100"},
        {"event_name": f"{KEY} points", "delta": "100"},
        {"delta": "100"},
    )
    assert arrived(connect(), [9, 7], {KEY}, above=10) == {KEY: Arrival(4, 2)}
    asked = http.calls[-1].request.params
    assert {asked[f"where[{number}][col]"]: asked[f"where[{number}][val]"] for number in (0, 1)} == {
        "id": "10",
        "lead_id": "7,9",
    }


def test_many_numbers_are_asked_for_in_parts(http, connect):
    log(http)
    assert arrived(connect(), range(1, 402), {KEY}, above=0) == {}
    assert len(http.calls) == 3


@pytest.mark.parametrize("row", [{"delta": "?"}, {}])
def test_a_row_of_ours_that_cannot_be_read_is_no_zero(http, connect, row):
    log(http, {"event_name": f"mautic-sync: {KEY}", **row})
    with pytest.raises(MalformedError, match="delta"):
        arrived(connect(), [7], {KEY}, above=0)


def test_no_number_is_no_question(http: responses.RequestsMock, connect):
    assert arrived(connect(), [], {KEY}, above=0) == {}
    assert len(http.calls) == 0
