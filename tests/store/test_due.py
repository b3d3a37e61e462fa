"""Whoever is due is decided again: as if every decision were looked at, without a look at them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import func, select

from mautic_sync.domain.contact import Contact
from mautic_sync.store import decisions, due, people
from mautic_sync.store.engine import open_engine
from mautic_sync.store.people import Reading
from mautic_sync.store.schema import contact, decision, dirty, due as due_rows
from tests.conftest import LONG
from tests.store.conftest import ways_to

NOW = 1_800_000_000
READING = Reading(frozenset({"email"}))


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


def met(connection, *numbers):
    """Persons of these contacts, decided once with no time at which that could change."""
    saved = people.save_contacts(connection, [Contact(number, {}) for number in numbers], READING, now=NOW)
    for number in numbers:
        decide(connection, saved.persons[number], None)
    return [saved.persons[number] for number in numbers]


def decide(connection, person_id, due_at, at=NOW):
    before = {row.person_id: row for row in connection.execute(select(decision))}
    texts = {"rule": "r", "reason": "", "trace": "[]", "scores": "{}", "flags": "[]", "run_id": "r"}
    flags = {"asks": False, "waiting": False, "score_day": None, "hot_since": None}
    row = {"person_id": person_id, "kind": "lead", "stage": "Lead", "score": 1, "due_at": due_at, "decided_at": at}
    decisions.save_decisions(connection, [decisions.Decided(**row | texts | flags)], before)
    people.forget_dirty(connection, [person_id])


def marked(connection, now):
    due.mark(connection, now)
    return set(connection.execute(select(dirty.c.person_id)).scalars())


def kept(connection):
    return connection.execute(select(func.count()).select_from(due_rows)).scalar()


def test_who_is_due_is_decided_again_from_that_second_on(connection):
    one, two, three = met(connection, 1, 2, 3)
    decide(connection, one, NOW + 1)
    decide(connection, two, NOW + 2)
    assert marked(connection, NOW) == set()
    assert marked(connection, NOW + 1) == {one}
    assert marked(connection, NOW + 5) == {one, two}
    assert three not in marked(connection, NOW + 5)


def test_who_was_decided_otherwise_meanwhile_is_due_at_the_later_time_alone(connection):
    (one,) = met(connection, 1)
    decide(connection, one, NOW + 1)
    decide(connection, one, NOW + 9)
    assert marked(connection, NOW + 8) == set()
    assert marked(connection, NOW + 9) == {one}


def test_who_is_due_sooner_than_was_thought_is_decided_then(connection):
    (one,) = met(connection, 1)
    decide(connection, one, NOW + 9)
    decide(connection, one, NOW + 1)
    assert marked(connection, NOW + 1) == {one}


def test_a_time_that_is_decided_again_in_the_same_second_counts_once(connection):
    (one,) = met(connection, 1)
    for due_at in (NOW + 5, NOW + 7, NOW + 5):
        decide(connection, one, due_at)
    assert marked(connection, NOW + 5) == {one}


def test_who_is_due_and_was_not_decided_stays_so(connection):
    """A run that is killed, or that decides nothing of somebody who is held."""
    (one,) = met(connection, 1)
    decide(connection, one, NOW + 1)
    assert marked(connection, NOW + 1) == {one}
    people.forget_dirty(connection, [one])
    assert marked(connection, NOW + 1) == {one}


def test_what_was_decided_leaves_nothing_behind(connection):
    one, two = met(connection, 1, 2)
    for number in (one, two):
        decide(connection, number, NOW + 1)
    marked(connection, NOW + 1)
    decide(connection, one, NOW + 20)
    decide(connection, two, None)
    marked(connection, NOW + 2)
    assert kept(connection) == 1
    assert marked(connection, NOW + 20) == {one}


def test_made_anew_they_are_what_the_decisions_say(connection):
    one, two = met(connection, 1, 2)
    for due_at in range(NOW + 10, NOW + 20):
        decide(connection, one, due_at)
    decide(connection, two, NOW + 30)
    assert kept(connection) == 11
    due.renew(connection)
    assert kept(connection) == 2
    assert marked(connection, NOW + 18) == set()
    assert marked(connection, NOW + 30) == {one, two}


def test_who_was_never_decided_and_takes_over_a_decision_by_a_merge_is_due_in_time(connection):
    (loser,) = met(connection, 1)
    decide(connection, loser, NOW + 5)
    people.save_contacts(connection, [Contact(2, {"email": "a@b.example"})], READING, now=NOW)
    survivor, gone = people.follow_merge(connection, 1, 2, now=NOW, run_id="r")
    assert gone == loser
    decide(connection, survivor, NOW + 5)
    assert marked(connection, NOW + 5) == {survivor}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_nobody_who_is_not_due_is_looked_at(connection):
    met(connection, *range(1, 50))
    steps = ways_to(connection, lambda: due.mark(connection, NOW))
    assert any("due" in step for step in steps)
    assert not [step for step in steps if step.startswith("SCAN")], steps


PERSONS = st.integers(1, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), PERSONS, st.one_of(st.none(), st.integers(-1, 6))),
        st.tuples(st.just("touch"), PERSONS),
        st.tuples(st.just("vanish"), PERSONS),
        st.tuples(st.just("return"), PERSONS),
        st.tuples(st.just("merge"), PERSONS, PERSONS),
        st.tuples(st.just("renew")),
        st.tuples(st.just("wait"), st.integers(-2, 5)),
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("due") / "store.db"
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        met(connection, 1, 2, 3, 4)
    engine.dispose()
    return path


@given(steps=STEPS)
@settings(max_examples=1_000 if LONG else 100, deadline=None)
def test_whoever_a_look_at_all_decisions_would_find_is_found(template, steps):
    """Whatever happened before, and though the clock is set back."""
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(template, directory)
        engine = open_engine(f"sqlite:///{Path(directory) / template.name}")
        with engine.begin() as connection:
            _go(connection, steps)
        engine.dispose()


def _go(connection, steps):
    now = NOW
    for what, *more in steps:
        persons = people.persons_of(connection, [1, 2, 3, 4])
        who = persons[more[0]] if what not in {"wait", "renew"} else 0
        if what == "decide":
            decide(connection, who, None if more[1] is None else now + more[1], now)
        elif what == "touch":
            people.mark_dirty(connection, [who])
        elif what == "vanish":
            people.vanish(connection, [more[0]], now)
        elif what == "merge":
            people.follow_merge(connection, *more, now=now, run_id="r")
        elif what == "return" and people.current_ids(connection, [who])[who] == more[0]:
            people.save_contacts(connection, [Contact(more[0], {})], READING, now=now)
        elif what == "renew":
            due.renew(connection)
        elif what == "wait":
            now += more[0]
        there = select(contact.c.person_id).where(contact.c.vanished_at.is_(None))
        is_due = select(decision.c.person_id).where(decision.c.due_at <= now, decision.c.person_id.in_(there))
        waited = set(connection.execute(select(dirty.c.person_id)).scalars())
        expected = waited | set(connection.execute(is_due).scalars())
        assert marked(connection, now) == expected
