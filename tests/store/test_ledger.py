"""The account of points: append-only, one for everybody who was merged, and never closed by what it cannot know."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from mautic_sync.domain.contact import Contact
from mautic_sync.domain.plan import CONTACT, POINTS, Change, plan_points
from mautic_sync.store import changes, decisions, ledger, people
from mautic_sync.store.people import Reading
from mautic_sync.store.schema import change, contact

NOW = 1_800_000_000
GHOST, KNOWN = 1, 2


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


def save(connection, number, email=None):
    fields = {"email": email} if email else {}
    saved = people.save_contacts(connection, [Contact(number, fields)], Reading(frozenset({"email"})), now=NOW)
    return saved.persons[number]


@pytest.fixture
def two(connection):
    """A ghost with number 1 in Mautic and a known person with number 2: their persons."""
    return save(connection, GHOST), save(connection, KNOWN, "a@b.example")


def enter(connection, person_id, delta, key="k"):
    row = {"person_id": person_id, "at": NOW, "run_id": "run", "change_id": 1, "event_key": key, "reason": "why"}
    ledger.append(connection, [{**row, "delta": delta}])


def plan(connection, person_id, score, granted=0):
    open_now = decisions.open_changes(connection, [person_id])
    points = plan_points(score, granted, "why", 100)
    wanted = {} if points is None else {(person_id, POINTS): points}
    changes.plan_changes(connection, [person_id], wanted, open_now, run_id="run", now=NOW, baseline=False)
    found = decisions.open_changes(connection, [person_id]).get((person_id, POINTS))
    return None if found is None else found.id


def send(connection, *numbers, above=5):
    return changes.mark_points_sent(connection, numbers, run_id="run", now=NOW, log_above=above)


def states(connection):
    return list(connection.execute(select(change.c.state).order_by(change.c.id)).scalars())


def test_the_account_is_the_sum_of_its_lines(connection, two):
    ghost, known = two
    for person_id, delta in ((ghost, 3), (known, 7), (known, -2)):
        enter(connection, person_id, delta)
    assert ledger.granted(connection, sorted(two)) == {ghost: 3, known: 5}
    assert ledger.granted(connection, [known]) == {known: 5}
    assert ledger.granted(connection, []) == {}
    assert [line["delta"] for line in ledger.account(connection, known)] == [-2, 7]
    assert [line["delta"] for line in ledger.account(connection, known, 1)] == [-2]


def test_the_accounts_of_merged_persons_are_one_along_a_chain(connection, two):
    ghost, known = two
    third = save(connection, 3)
    for person_id, delta in ((ghost, 3), (known, 7), (third, 1)):
        enter(connection, person_id, delta, key=f"k{delta}")
    people.follow_merge(connection, KNOWN, GHOST, now=NOW, run_id="run")
    people.follow_merge(connection, GHOST, 3, now=NOW, run_id="run")
    assert ledger.granted(connection, [known])[known] == 11
    assert ledger.granted(connection, list(range(known + 1)))[known] == 11
    assert len(ledger.account(connection, known)) == 3
    assert ledger.granted_by_key(connection, [known], {"k3", "k1", "other"}) == {"k3": {known: 3}, "k1": {known: 1}}


def test_an_intent_has_a_key_that_it_keeps_and_the_lowest_bound_of_the_log(connection, two):
    number = plan(connection, two[0], 7)
    (first,) = send(connection, number, above=9)
    assert (first.mautic_id, first.attempts, first.log_above, first.state) == (GHOST, 1, 9, "sent")
    assert first.event_key.isalnum()
    assert first.event_key == first.event_key.lower()
    changes.doubt(connection, [number], "timed out", now=NOW)
    changes.try_again(connection, [number], "not found")
    (second,) = send(connection, number, above=4)
    assert (second.event_key, second.attempts, second.log_above) == (first.event_key, 2, 4)
    changes.doubt(connection, [number], "timed out", now=NOW)
    changes.try_again(connection, [number], "not found")
    (third,) = send(connection, number, above=12)
    assert (third.event_key, third.attempts, third.log_above) == (first.event_key, 3, 4)


def test_keys_differ(connection, two):
    rows = send(connection, *(plan(connection, person_id, 7) for person_id in two))
    assert len({row.event_key for row in rows}) == 2


def test_a_newer_score_inherits_the_key_of_what_may_still_arrive(connection, two):
    number = plan(connection, two[0], 7)
    (first,) = send(connection, number)
    changes.doubt(connection, [number], "timed out", now=NOW)
    assert plan(connection, two[0], 9) == number  # settled first
    changes.try_again(connection, [number], "not found")
    (second,) = send(connection, plan(connection, two[0], 9))
    assert (second.event_key, second.attempts) == (first.event_key, 2)
    assert states(connection) == ["superseded", "sent"]


def test_after_a_restore_all_that_has_a_key_is_looked_for_in_the_whole_log(connection, two):
    waiting, _ = (plan(connection, person_id, 7) for person_id in two)
    send(connection, waiting, above=9)
    changes.back_to_planned(connection, [waiting], "nothing was changed")
    changes.doubt_points_with_keys(connection)
    assert states(connection) == ["doubtful", "planned"]
    (row,) = changes.doubtful_points(connection)
    assert (row.id, row.log_above) == (waiting, 0)


def test_whoever_has_an_edit_on_the_way_waits(connection, two):
    wanted = {(two[0], CONTACT): Change(CONTACT, {}, {"fields": {"a": "b"}}, "why", 100)}
    changes.plan_changes(connection, [two[0]], wanted, {}, run_id="run", now=NOW, baseline=False)
    edit = decisions.open_changes(connection, [two[0]])[two[0], CONTACT].id
    changes.mark_sent(connection, [edit], run_id="run", now=NOW)
    numbers = [plan(connection, person_id, 7) for person_id in two]
    assert [row.id for row in send(connection, *numbers)] == [numbers[1]]
    assert states(connection) == ["sent", "planned", "sent"]


def test_points_on_the_way_outlive_a_merge_and_belong_to_the_survivor(connection, two):
    ghost, known = two
    sent, planned = plan(connection, ghost, 3), plan(connection, known, 7)
    send(connection, sent)
    people.follow_merge(connection, KNOWN, GHOST, now=NOW, run_id="run")
    assert states(connection) == ["sent", "superseded"]
    assert changes.with_points_on_the_way(connection) == {known}
    changes.doubt_what_was_sent(connection, NOW)
    (row,) = changes.doubtful_points(connection)
    assert (row.id, row.person_id, row.survivor, row.mautic_id) == (sent, ghost, known, GHOST)
    assert changes.doubtful(connection) == []
    assert people.numbers_of(connection, [known]) == {known: {GHOST, KNOWN}}
    changes.settle_points(connection, [sent], run_id="run", now=NOW)
    assert changes.with_points_on_the_way(connection) == set()
    assert states(connection) == ["settled", "superseded"]
    assert planned != sent


def test_points_on_the_way_outlive_that_the_contact_vanished(connection, two):
    sent, planned = plan(connection, two[0], 3), plan(connection, two[1], 7)
    send(connection, sent)
    people.vanish(connection, [GHOST, KNOWN], NOW)
    assert states(connection) == ["sent", "superseded"]
    changes.doubt_what_was_sent(connection, NOW)
    (row,) = changes.doubtful_points(connection)
    assert (row.vanished_at, row.mautic_id) == (NOW, GHOST)
    assert planned != sent


def test_what_was_granted_is_in_the_contact_as_last_read(connection, two):
    people.add_points(connection, {two[0]: 7})
    people.add_points(connection, {two[0]: -2})
    people.add_points(connection, {})
    query = select(contact.c.points).order_by(contact.c.person_id)
    assert list(connection.execute(query).scalars()) == [5, 0]


def test_contacts_are_counted_once_whatever_is_planned_for_them(connection, two):
    plan(connection, two[0], 7)
    wanted = {(two[0], CONTACT): Change(CONTACT, {}, {"fields": {"a": "b"}}, "why", 100)}
    changes.plan_changes(connection, [two[0]], wanted, {}, run_id="run", now=NOW, baseline=False)
    assert (changes.count_planned(connection), changes.count_contacts(connection)) == (2, 1)
