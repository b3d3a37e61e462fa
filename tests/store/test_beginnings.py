"""What the store tells of beginnings: of points, of being a lead or a customer, of the way there. On every database."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from mautic_sync.domain.contact import Catalogue, Contact
from mautic_sync.domain.plan import CONTACT, POINTS, Change
from mautic_sync.mautic.feeds import FeedActivity
from mautic_sync.store import activities, changes, decisions, ledger, people
from mautic_sync.store.activities import NOTHING_COUNTS, Counting
from mautic_sync.store.people import Reading
from mautic_sync.store.schema import change, dirty, transition

NOW = 1_800_000_000
KNOWN, VISITOR = 1, 2
NAMES = Catalogue(campaigns={5: "Onboarding"})


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


def save(connection, number, points=0, email=None, reading=Reading(frozenset({"email"}))):  # noqa: B008
    one = Contact(number, {"email": email} if email else {}, points=points)
    return people.save_contacts(connection, [one], reading, now=NOW).persons[number]


def decided(connection, person_id, score):
    row = {
        "person_id": person_id, "kind": "lead", "stage": "Lead", "score": score, "rule": "r", "reason": "", "trace": "[]",
        "due_at": None, "asks": False, "waiting": False, "decided_at": NOW, "run_id": "run", "scores": "{}",
        "score_day": 1, "flags": "[]", "hot_since": None,
    }  # fmt: skip
    decisions.save_decisions(connection, [decisions.Decided(**row)])


def enter(connection, person_id, delta, key):
    row = {
        "person_id": person_id,
        "at": NOW,
        "run_id": "run",
        "change_id": 0 if key == ledger.OPENING else 1,
        "event_key": key,
        "reason": "why",
    }
    ledger.append(connection, [{**row, "delta": delta}])


def moved(connection, person_id, kind, at):
    row = {"person_id": person_id, "to_stage": kind, "to_kind": kind, "at": at, "run_id": "run", "change_id": 1}
    connection.execute(insert(transition).values(**row, baseline=False))


def merge(connection):
    people.follow_merge(connection, KNOWN, VISITOR, now=NOW, run_id="run")


def test_history_that_was_not_granted_is_part_of_the_account_and_told_apart(connection):
    known, visitor = save(connection, KNOWN, email="a@b.example"), save(connection, VISITOR)
    enter(connection, known, 10, ledger.OPENING)
    enter(connection, known, 3, "key")
    enter(connection, visitor, 4, ledger.OPENING)
    assert ledger.granted(connection, sorted([known, visitor])) == {known: 13, visitor: 4}
    assert ledger.openings(connection, [known, visitor]) == {known: 10, visitor: 4}
    merge(connection)
    assert ledger.openings(connection, [known]) == {known: 14}
    assert ledger.granted_by_key(connection, [known], {"key"}) == {"key": {known: 3}}


@pytest.mark.parametrize(
    ("points", "score", "most"), [(5, 10, 15), (50, -5, 45), (5, -8, -3), (-4, 5, 1), (0, -5, None), (50, 0, None)]
)
def test_triggers_are_looked_at_when_points_change_unless_there_are_none(connection, points, score, most):
    decided(connection, save(connection, KNOWN, points=points), score)
    assert decisions.most_points(connection) == most


def test_the_most_points_are_those_of_contacts_that_are_there(connection):
    for number, points in ((KNOWN, 5), (VISITOR, 1)):
        decided(connection, save(connection, number, points=points), 10)
    assert decisions.most_points(connection) == 15
    people.vanish(connection, [KNOWN], NOW)
    assert decisions.most_points(connection) == 11


def test_scores_are_listed_by_person_without_those_of_nothing(connection):
    persons = [save(connection, number) for number in (1, 2, 3)]
    for person_id, score in zip(persons, (7, 0, -3), strict=True):
        decided(connection, person_id, score)
    assert decisions.scores_above(connection, 0, 10) == {persons[0]: 7, persons[2]: -3}
    assert decisions.scores_above(connection, persons[0], 10) == {persons[2]: -3}
    assert decisions.scores_above(connection, 0, 1) == {persons[0]: 7}


def test_whoever_has_an_account_is_listed_with_a_score_of_nothing(connection):
    known, visitor, other = (save(connection, number) for number in (KNOWN, VISITOR, VISITOR + 1))
    for person_id in (known, visitor, other):
        decided(connection, person_id, 0)
    enter(connection, visitor, 4, "key")
    assert decisions.scores_above(connection, 0, 10) == {visitor: 0}
    merge(connection)
    assert decisions.scores_above(connection, 0, 10) == {known: 0}


def test_points_that_are_planned_are_planned_no_more_and_all_else_stays(connection):
    person_id = save(connection, KNOWN)
    wanted = {
        (person_id, target): Change(target, {}, {"points": 1, "delta": 1}, "why", 1) for target in (POINTS, CONTACT)
    }
    changes.plan_changes(connection, [person_id], wanted, {}, run_id="run", now=NOW, baseline=True)
    changes.supersede_points(connection, "points begin now", NOW)
    rows = connection.execute(select(change.c.target, change.c.state, change.c.open_key)).all()
    assert {(row.target, row.state, row.open_key is None) for row in rows} == {
        (POINTS, "superseded", True),
        (CONTACT, "planned", False),
    }


def test_who_first_became_what_is_told_of_merged_persons_too(connection):
    known, visitor = save(connection, KNOWN, email="a@b.example"), save(connection, VISITOR)
    for person_id, kind, at in ((known, "lead", 30), (known, "lead", 20), (known, "ghost", 5), (visitor, "lead", 10)):
        moved(connection, person_id, kind, at)
    assert decisions.first_transitions(connection, [known]) == {known: {"lead": 20}}
    merge(connection)
    moved(connection, known, "customer", 40)
    assert decisions.first_transitions(connection, [known]) == {known: {"lead": 10, "customer": 40}}


def test_a_way_is_that_of_all_who_were_merged(connection):
    known = save(connection, KNOWN, email="a@b.example")
    save(connection, VISITOR)
    rows = [
        FeedActivity("page_hits", "1", "page.hit", VISITOR, NOW, url="https://a.example/"),
        FeedActivity("lead_event_log", "2", "campaign.added", KNOWN, NOW, object_id=5),
        FeedActivity("email_stats", "3", "email.sent", KNOWN, NOW),
    ]
    activities.add_activities(connection, rows, Counting(NOTHING_COUNTS), NAMES, known_above=None)
    merge(connection)
    found = list(activities.of_persons(connection, [known], {"page.hit", "campaign.added"}, NAMES))
    assert {(number, one.type) for number, _, one in found} == {(known, "page.hit"), (known, "campaign.added")}
    assert {one.attributes.get("campaign") for _, _, one in found} == {None, "Onboarding"}


def test_what_is_shown_makes_who_did_it_be_decided_again_and_nothing_else_does(connection):
    person_id = save(connection, KNOWN)
    people.forget_dirty(connection, [person_id])
    hits = [FeedActivity("page_hits", str(number), "page.hit", KNOWN, NOW + number) for number in (1, 2)]
    counting = Counting(NOTHING_COUNTS)
    activities.add_activities(connection, hits[:1], counting, NAMES, known_above=None)
    assert connection.execute(select(dirty)).scalars().all() == []
    showing = Counting(NOTHING_COUNTS, shown=frozenset({"page.hit"}))
    activities.add_activities(connection, hits, showing, NAMES, known_above=None)
    assert connection.execute(select(dirty)).scalars().all() == [person_id]


@pytest.mark.parametrize("matter", [False, True])
def test_points_in_mautic_matter_where_a_field_tells_them(connection, matter):
    reading = Reading(frozenset(), points_matter=matter)
    person_id = save(connection, KNOWN, reading=reading)
    people.forget_dirty(connection, [person_id])
    save(connection, KNOWN, points=4, reading=reading)
    assert connection.execute(select(dirty)).scalars().all() == [person_id] * matter
