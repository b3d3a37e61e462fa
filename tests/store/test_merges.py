"""Two contacts that Mautic made one: one person here, and nothing of either lost."""

from __future__ import annotations

import orjson
import pytest
from sqlalchemy import insert, select

from mautic_sync.domain.activity import Activity
from mautic_sync.domain.contact import Catalogue, Contact
from mautic_sync.domain.matchers import ActivityMatcher, Matchers
from mautic_sync.mautic.feeds import FeedActivity
from mautic_sync.store import activities, changes, decisions, people
from mautic_sync.store.activities import Counting
from mautic_sync.store.people import Reading
from mautic_sync.store.schema import (
    alias,
    change,
    contact,
    decision,
    dirty,
    dnc,
    evidence,
    kept_waiting,
    membership,
    merge,
    metadata,
    person,
    standing,
    transition,
)

NOW = 1_800_000_000
READING = Reading(frozenset({"email", "firstname"}))
HIT = ActivityMatcher.of("page.hit", {})
COUNTING = Counting(Matchers([HIT]), Matchers([HIT]))
GHOST, KNOWN = 1, 2


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


def save(connection, number, email=None, **values):
    fields = {"email": email} if email else {}
    saved = people.save_contacts(
        connection, [Contact(number, fields, date_added=NOW, date_modified=NOW, **values)], READING, now=NOW
    )
    people.forget_dirty(connection, list(saved.persons.values()))
    return saved.persons[number]


def hit(connection, number, mautic_id):
    row = FeedActivity("page_hits", str(number), "page.hit", mautic_id, NOW + number)
    activities.add_activities(connection, [row], COUNTING, Catalogue(), known_above=None)


@pytest.fixture
def two(connection):
    """A ghost with number 1 in Mautic and a known person with number 2: their persons."""
    return save(connection, GHOST), save(connection, KNOWN, "a@b.example", stage_id=5)


def follow(connection, old, new):
    return people.follow_merge(connection, old, new, now=NOW, run_id="run")


def everything(connection):
    return {table.name: sorted(map(str, connection.execute(select(table)).all())) for table in metadata.tables.values()}


def test_the_identified_person_survives_whatever_number_survives_in_mautic(connection, two):
    ghost, known = two
    assert follow(connection, KNOWN, GHOST) == (known, ghost)
    assert people.persons_of(connection, [GHOST, KNOWN]) == {GHOST: known, KNOWN: known}
    assert people.current_ids(connection, [known]) == {known: GHOST}


def test_the_identified_person_survives_when_her_number_does(connection, two):
    ghost, known = two
    assert follow(connection, GHOST, KNOWN) == (known, ghost)
    assert people.current_ids(connection, [known]) == {known: KNOWN}


@pytest.mark.parametrize("email", ["", "b@b.example"])
def test_of_two_that_are_alike_the_elder_or_the_old_one_survives(connection, email):
    first, second = save(connection, 1, email), save(connection, 2, email and "c@b.example")
    survivor, loser = follow(connection, 1, 2)
    assert {survivor, loser} == {first, second}
    assert survivor == first


def test_who_waits_since_the_baseline_still_does_when_the_other_number_is_left(connection, two):
    ghost, known = two
    connection.execute(insert(kept_waiting), {"person_id": ghost})
    follow(connection, KNOWN, GHOST)
    assert decisions.wait_no_more(connection, sorted(two)) == {known}
    assert decisions.wait_no_more(connection, sorted(two)) == set()


def test_following_a_merge_twice_changes_nothing(connection, two):
    follow(connection, KNOWN, GHOST)
    once = everything(connection)
    assert follow(connection, KNOWN, GHOST) is None
    assert everything(connection) == once


def test_a_merge_that_fails_in_the_middle_leaves_both_as_they_were(store):
    with store.begin() as connection:
        save(connection, GHOST)
        save(connection, KNOWN, "a@b.example")
        before = everything(connection)

    def fail():
        with store.begin() as connection:
            follow(connection, KNOWN, GHOST)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.begin() as connection:
        assert everything(connection) == before


def test_a_contact_merged_into_itself_is_nothing(connection, two):
    before = everything(connection)
    assert follow(connection, KNOWN, KNOWN) is None
    assert everything(connection) == before


def test_a_merge_of_two_that_nobody_knows_is_nothing(connection, two):
    assert follow(connection, 8, 9) is None
    assert people.persons_of(connection, [8, 9]) == {}


def test_an_old_number_that_nobody_knew_leads_to_the_survivor(connection, two):
    _, known = two
    assert follow(connection, 9, KNOWN) == (known, known)
    assert people.persons_of(connection, [9]) == {9: known}
    assert people.current_ids(connection, [known]) == {known: KNOWN}
    once = everything(connection)
    assert follow(connection, 9, KNOWN) is None
    assert everything(connection) == once


def test_a_new_number_that_nobody_knew_is_the_current_one_of_the_person(connection, two):
    _, known = two
    assert follow(connection, KNOWN, 9) == (known, known)
    assert people.current_ids(connection, [known]) == {known: 9}
    assert save(connection, 9, "a@b.example") == known


def test_all_numbers_of_a_chain_lead_to_the_survivor(connection):
    numbers = [save(connection, number) for number in (1, 2, 3)]
    known = save(connection, 4, "a@b.example")
    follow(connection, 1, 2)
    follow(connection, 2, 3)
    follow(connection, 3, 4)
    assert set(people.persons_of(connection, [1, 2, 3, 4]).values()) == {known}
    assert people.current_ids(connection, [known]) == {known: 4}
    redirects = dict(connection.execute(select(person.c.id, person.c.redirect_to)).all())
    assert redirects == {**dict.fromkeys(numbers, known), known: None}


@pytest.mark.parametrize("order", [[(1, 2), (3, 4), (2, 4)], [(3, 4), (2, 4), (1, 2)], [(1, 2), (2, 4), (3, 4)]])
def test_the_order_of_merges_does_not_matter(connection, order):
    for number in (1, 2, 3):
        save(connection, number)
    known = save(connection, 4, "a@b.example")
    for old, new in order:
        follow(connection, old, new)
    assert set(people.persons_of(connection, [1, 2, 3, 4]).values()) == {known}
    assert people.current_ids(connection, [known]) in ({known: 4}, {known: 2})


def test_a_merge_has_a_ledger_row_with_both_as_they_were(connection, two):
    ghost, known = two
    follow(connection, KNOWN, GHOST)
    row = connection.execute(select(merge)).one()
    assert (row.at, row.run_id, row.survivor, row.loser) == (NOW, "run", known, ghost)
    assert "a@b.example" in row.before
    assert f'"{ghost}"' in row.before


def test_one_contact_and_one_decision_stay_and_the_survivor_is_decided(connection, two):
    _, known = two
    values = ("ghost", "Ghost", 0, "", "", "[]", None, False, False, "{}", "[]", None, None, NOW, "r")
    decisions.save_decisions(connection, [decisions.Decided(number, *values) for number in two])
    follow(connection, KNOWN, GHOST)
    assert connection.execute(select(contact.c.person_id)).scalars().all() == [known]
    assert connection.execute(select(dirty)).scalars().all() == [known]
    assert connection.execute(select(decision.c.person_id)).scalars().all() == [known]


def test_evidence_and_membership_are_united(connection, two):
    ghost, known = two
    hit(connection, 1, GHOST)
    hit(connection, 2, KNOWN)
    activities.replace_members(connection, "segment", 7, [GHOST, KNOWN])
    activities.replace_members(connection, "campaign", 8, [GHOST])
    follow(connection, KNOWN, GHOST)
    assert decisions.evidence_of(connection, [known]) == {known: {HIT.key: (NOW + 1, NOW + 2)}}
    assert decisions.evidence_of(connection, [ghost]) == {}
    names = {"segment": {7: "seven"}, "campaign": {8: "eight"}}
    assert decisions.members_of(connection, [known], names) == {
        known: {"segment": frozenset({"seven"}), "campaign": frozenset({"eight"})}
    }
    assert len(connection.execute(select(membership)).all()) == 2
    assert len(connection.execute(select(evidence)).all()) == 2


def test_activity_is_read_through_the_redirect_and_never_rewritten(connection, two):
    ghost, known = two
    hit(connection, 1, GHOST)
    hit(connection, 2, KNOWN)
    follow(connection, KNOWN, GHOST)
    assert [(row["source_id"], row["person_id"]) for row in activities.activity_of(connection, known)] == [
        ("2", known),
        ("1", ghost),
    ]
    assert len(activities.activity_of(connection, known, limit=1)) == 1


def test_activity_that_waited_under_the_old_number_finds_the_survivor(connection, two):
    _, known = two
    hit(connection, 1, 9)
    follow(connection, 9, KNOWN)
    activities.adopt_waiting(connection, {KNOWN: known}, COUNTING, Catalogue())
    assert decisions.evidence_of(connection, [known]) == {known: {HIT.key: (NOW + 1,)}}


# -- do-not-contact -------------------------------------------------------------------------------------------------


def test_do_not_contact_of_either_stays_and_is_expected_to_be_lost(connection):
    ghost = save(connection, GHOST, dnc={"sms": 3})
    known = save(connection, KNOWN, "a@b.example", dnc={"email": 1})
    assert follow(connection, KNOWN, GHOST) == (known, ghost)
    assert people.lost_dnc_of(connection, [known]) == {known: {"email": 1, "sms": 3}}
    # Mautic lost both.
    save(connection, GHOST, "a@b.example")
    assert people.lost_dnc_of(connection, [known]) == {known: {"email": 1, "sms": 3}}


def test_the_survivors_own_reason_stands_where_both_had_one(connection):
    save(connection, GHOST, dnc={"email": 3})
    known = save(connection, KNOWN, "a@b.example", dnc={"email": 1})
    follow(connection, KNOWN, GHOST)
    assert people.lost_dnc_of(connection, [known]) == {known: {"email": 1}}


@pytest.mark.parametrize("lost", [{}, {"sms": 3}])
def test_what_the_merged_contact_still_shows_was_not_lost(connection, lost):
    known = save(connection, KNOWN, "a@b.example", dnc={"email": 1, **lost})
    save(connection, GHOST)
    follow(connection, GHOST, KNOWN)
    save(connection, KNOWN, "a@b.example", dnc={"email": 1})
    assert people.lost_dnc_of(connection, [known]) == ({known: lost} if lost else {})
    # So that who subscribes again later is not unsubscribed by us.
    save(connection, KNOWN, "a@b.example")
    assert people.lost_dnc_of(connection, [known]) == ({known: lost} if lost else {})


def test_what_was_put_back_is_not_put_back_again(connection):
    save(connection, GHOST)
    known = save(connection, KNOWN, "a@b.example", dnc={"email": 1})
    follow(connection, KNOWN, GHOST)
    save(connection, GHOST, "a@b.example")
    people.note_own_dnc(connection, known, "email", 1, ours=False, shown={"email": 1})
    assert people.lost_dnc_of(connection, [known]) == {}
    assert [tuple(row) for row in connection.execute(select(dnc.c.person_id, dnc.c.ours))] == [(known, False)]


def test_numbers_that_were_not_known_are_feared_to_have_lost_it_too(connection):
    known = save(connection, KNOWN, "a@b.example", dnc={"email": 1})
    follow(connection, KNOWN, 9)
    assert people.lost_dnc_of(connection, [known]) == {known: {"email": 1}}


# -- what we wrote --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new", "stage"), [(KNOWN, GHOST, "Ghost"), (GHOST, KNOWN, "Customer")])
def test_what_stands_is_what_we_set_on_the_number_that_survives_in_mautic(connection, two, old, new, stage):
    ghost, known = two
    for number, name in ((ghost, "Ghost"), (known, "Customer")):
        connection.execute(insert(standing).values(person_id=number, stage=name, written="{}"))
    follow(connection, old, new)
    assert connection.execute(select(standing.c.person_id, standing.c.stage)).all() == [(known, stage)]


def test_where_we_had_set_nothing_nothing_stands(connection, two):
    _, known = two
    connection.execute(insert(standing).values(person_id=known, stage="Customer", written="{}"))
    follow(connection, KNOWN, GHOST)
    assert connection.execute(select(standing)).all() == []


def test_open_changes_of_both_are_superseded(connection, two):
    for state, number in zip(("planned", "doubtful"), two, strict=True):
        add_change(connection, number, state=state)
    follow(connection, KNOWN, GHOST)
    rows = connection.execute(select(change.c.state, change.c.open_key)).all()
    assert [tuple(row) for row in rows] == [("superseded", None)] * 2


def test_an_answer_that_comes_after_the_merge_reopens_nothing(connection, two):
    _, known = two
    number = add_change(connection, known, state="sent")
    row = connection.execute(select(change)).one()
    follow(connection, KNOWN, GHOST)
    assert changes.settle(connection, [row], echoes={}, kinds={"Lead": "lead"}, run_id="r", now=NOW) == []
    changes.doubt(connection, [number], "late", now=NOW)
    changes.refuse(connection, number, "late", NOW)
    assert connection.execute(select(change.c.state)).scalar() == "superseded"
    assert connection.execute(select(transition)).all() == []


def test_what_was_written_for_the_loser_is_shown_for_the_survivor(connection, two):
    ghost, known = two
    add_change(connection, ghost, state="refused", open_key=None, settled_at=NOW)
    connection.execute(
        insert(transition).values(
            person_id=ghost, to_stage="Lead", to_kind="lead", at=NOW, run_id="r", change_id=1, baseline=False
        )
    )
    follow(connection, KNOWN, GHOST)
    assert [row.state for row in changes.refused_of(connection, known)] == ["refused"]
    assert list(changes.refused_persons(connection)) == [known]
    assert [row["mautic_id"] for row in changes.listed(connection, ["refused"])] == [GHOST]
    assert decisions.recent_transitions(connection, [known], NOW - 1) == {known: 1}
    add_change(connection, known, state="settled", open_key=None, settled_at=NOW)
    assert changes.last_write(connection, known)["state"] == "settled"
    assert changes.refused_persons(connection) == {}


def add_change(connection, person_id, **values):
    row = {
        "run_id": "r",
        "person_id": person_id,
        "target": "contact",
        "open_key": f"{person_id} contact",
        "state": "planned",
        "value": 1,
        "old": "{}",
        "new": '{"stage": "Lead"}',
        "reason": "",
        "baseline": False,
        "attempts": 0,
        "planned_at": NOW,
        **values,
    }
    return connection.execute(insert(change).values(**row)).inserted_primary_key[0]


def test_every_number_has_one_person_and_every_person_one_current_number(connection, two):
    follow(connection, KNOWN, GHOST)
    rows = connection.execute(select(alias.c.mautic_id, alias.c.current).order_by(alias.c.mautic_id)).all()
    assert [tuple(row) for row in rows] == [(GHOST, True), (KNOWN, False)]


def test_the_matcher_of_these_tests_counts_every_hit():
    assert HIT.matches(Activity("page.hit", NOW))


def decide(connection, person_id, **values):
    row = {"kind": "lead", "stage": "Lead", "score": 0, "rule": "", "reason": "", "trace": "[]", "asks": False}
    row |= {"waiting": False, "decided_at": NOW, "run_id": "run", "person_id": person_id}
    connection.execute(insert(decision), row | values)


@pytest.mark.parametrize("hot", ["ghost", "known", "both"])
def test_who_is_left_is_what_either_was(connection, two, hot):
    """The tag that came with it is there still: it goes when the flag goes, and nothing is told twice."""
    for number, name, since in ((two[0], "ghost", NOW - 5), (two[1], "known", NOW)):
        is_hot = hot in {name, "both"}
        decide(connection, number, flags='["hot"]' if is_hot else '["when:x"]', hot_since=since if is_hot else None)
    survivor, loser = follow(connection, KNOWN, GHOST)
    rows = connection.execute(select(decision.c.person_id, decision.c.flags, decision.c.hot_since)).all()
    ((number, flags, since),) = rows
    assert (number, loser) == (survivor, two[0])
    assert set(orjson.loads(flags)) == ({"hot"} if hot == "both" else {"hot", "when:x"})
    assert since == (NOW if hot == "known" else NOW - 5)


def test_who_was_never_decided_is_what_the_other_was(connection, two):
    decide(connection, two[0], flags='["hot"]', hot_since=NOW)
    survivor, _loser = follow(connection, KNOWN, GHOST)
    rows = connection.execute(select(decision.c.person_id, decision.c.flags, decision.c.hot_since)).all()
    assert rows == [(survivor, '["hot"]', NOW)]
