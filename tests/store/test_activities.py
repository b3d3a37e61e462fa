"""Activity is added once, follows its contact, and is evidence for exactly the conditions of the mappings."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import func, select

from mautic_sync.domain.contact import Catalogue, Contact
from mautic_sync.domain.matchers import ActivityMatcher, Matchers
from mautic_sync.mautic.feeds import FeedActivity
from mautic_sync.store import activities, decisions, notes, people, tallies
from mautic_sync.store.activities import Counting
from mautic_sync.store.engine import open_engine
from mautic_sync.store.people import Reading
from mautic_sync.store.schema import activity, contact, dirty as dirty_table, evidence, membership

NOW = 1_800_000_000
CATALOGUE = Catalogue(forms={1: "Trial", 2: "Newsletter"}, pages={3: "Pricing"})
ANY_HIT = ActivityMatcher.of("page.hit", {})
PRICING = ActivityMatcher.of("page.hit", {"page": "pricing"})
SHOP = ActivityMatcher.of("page.hit", {"url": "*/shop/*"})
TRIAL = ActivityMatcher.of("form.submitted", {"form": ["trial", "demo"]})
ALL = (ANY_HIT, PRICING, SHOP, TRIAL)
COUNTING = Counting(Matchers(ALL), Matchers(ALL))


def hit(number, contact_id, **values):
    return FeedActivity("page_hits", str(number), "page.hit", contact_id, NOW + number, **values)


def add(connection, *rows, known_above=None):
    return activities.add_activities(connection, rows, COUNTING, CATALOGUE, known_above=known_above)


def save(connection, *mautic_ids):
    contacts = [Contact(number, {}) for number in mautic_ids]
    saved = people.save_contacts(connection, contacts, Reading(frozenset()), now=NOW)
    activities.adopt_waiting(connection, saved.persons, TALLYING, CATALOGUE)
    people.forget_dirty(connection, list(saved.persons.values()))
    return saved.persons[mautic_ids[0]]


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


def proofs(connection):
    return set(map(tuple, connection.execute(select(evidence.c.matcher, evidence.c.activity_id, evidence.c.person_id))))


def dirty(connection):
    return set(connection.execute(select(dirty_table.c.person_id)).scalars())


def test_a_page_that_comes_twice_adds_once(connection):
    save(connection, 7)
    page = [hit(1, 7), hit(2, 7, object_id=3), FeedActivity("form_submissions", "1", "form.submitted", 7, NOW)]
    assert add(connection, *page).new == 3
    before = proofs(connection)
    assert add(connection, *page).new == 0
    assert (connection.execute(select(func.count()).select_from(activity)).scalar(), proofs(connection)) == (3, before)


def test_a_row_that_stands_twice_on_a_page_is_added_once(connection):
    assert add(connection, hit(1, None), hit(1, None)).new == 1


def test_rows_above_the_last_one_known_are_not_looked_up(connection):
    add(connection, hit(1, None), hit(2, None))
    assert add(connection, hit(2, None), hit(3, None), known_above=2).new == 1


def test_one_row_may_tell_several_activities(connection):
    rows = [FeedActivity("email_stats", "5", f"email.{word}", None, NOW) for word in ("sent", "read")]
    assert add(connection, rows[0]).new == 1
    assert add(connection, *rows).new == 1
    assert activities.known_sources(connection, "email_stats", ["4", "5"]) == {"5"}


def test_what_matches_is_evidence_and_its_person_is_decided(connection):
    number = save(connection, 7)
    save(connection, 8)
    add(connection, hit(1, 7, url="https://x.example/shop/2"), hit(2, 7, object_id=3))
    found = decisions.evidence_of(connection, [number])[number]
    assert found == {ANY_HIT.key: (NOW + 1, NOW + 2), SHOP.key: (NOW + 1,), PRICING.key: (NOW + 2,)}
    assert dirty(connection) == {number}


def test_what_matches_nothing_is_kept_and_decides_nothing(connection):
    save(connection, 7)
    add(connection, FeedActivity("asset_downloads", "1", "asset.download", 7, NOW))
    assert (proofs(connection), dirty(connection)) == (set(), set())


def test_times_of_evidence_ascend_in_whatever_order_they_came(connection):
    number = save(connection, 7)
    add(connection, hit(3, 7), hit(1, 7), hit(2, 7))
    assert decisions.evidence_of(connection, [number])[number][ANY_HIT.key] == (NOW + 1, NOW + 2, NOW + 3)


def test_activity_of_nobody_known_waits_and_is_adopted(connection):
    added = add(connection, hit(1, 7, object_id=3), hit(2, None))
    assert added.unknown == {7}
    assert proofs(connection) == set()
    number = save(connection, 7)
    assert {(matcher, who) for matcher, _, who in proofs(connection)} == {(ANY_HIT.key, number), (PRICING.key, number)}
    assert connection.execute(select(activity.c.waiting_id).where(activity.c.person_id == number)).all() == [(None,)]


def test_adopting_decides_the_person(connection):
    add(connection, hit(1, 7))
    saved = people.save_contacts(connection, [Contact(7, {})], Reading(frozenset()), now=NOW)
    people.forget_dirty(connection, list(saved.persons.values()))
    activities.adopt_waiting(connection, saved.persons, COUNTING, CATALOGUE)
    assert dirty(connection) == set(saved.persons.values())


def test_a_row_that_changes_hands_takes_its_evidence_along(connection):
    first, second = save(connection, 7), save(connection, 8)
    add(connection, hit(1, 7, object_id=3))
    people.forget_dirty(connection, [first])
    add(connection, hit(1, 8, object_id=3))
    assert {who for _, _, who in proofs(connection)} == {second}
    assert dirty(connection) == {first, second}
    assert [row["source_id"] for row in activities.activity_of(connection, second)] == ["1"]


def test_a_row_of_nobody_that_gets_a_contact_becomes_evidence(connection):
    add(connection, hit(1, None))
    number = save(connection, 7)
    add(connection, hit(1, 7))
    assert {(matcher, who) for matcher, _, who in proofs(connection)} == {(ANY_HIT.key, number)}
    assert dirty(connection) == {number}


def test_a_row_whose_contact_was_deleted_stays_with_the_person(connection):
    number = save(connection, 7)
    add(connection, hit(1, 7))
    add(connection, hit(1, None))
    assert {who for _, _, who in proofs(connection)} == {number}


def test_long_and_odd_text_is_kept(connection):
    number = save(connection, 7)
    url = "https://x.example/shop/" + "🙂" * 4000
    add(connection, hit(1, 7, url=url, title="it's \ud800 \x00", referer=url, utm={"utm_source": url}))
    assert SHOP.key in decisions.evidence_of(connection, [number])[number]


def test_rows_of_a_mautic_that_was_set_back_are_kept_under_ids_of_their_own(connection):
    add(connection, *(hit(number, None) for number in (1, 2, 9, 10)))
    activities.set_aside(connection, "page_hits", 2, "111")
    activities.set_aside(connection, "page_hits", 1, "222")
    found = set(connection.execute(select(activity.c.source_id)).scalars())
    assert found == {"1", "222:2", "111:9", "111:10"}
    assert add(connection, *(hit(number, None) for number in (1, 2, 9, 10))).new == 3


# -- evidence made anew ---------------------------------------------------------------------------------------------


def test_evidence_is_made_anew_when_the_matchers_change_and_only_then(connection):
    number = save(connection, 7)
    add(connection, hit(1, 7, object_id=3))
    assert activities.count_anew(connection, Counting(Matchers([PRICING]), Matchers([PRICING])), CATALOGUE)
    assert decisions.evidence_of(connection, [number]) == {number: {PRICING.key: (NOW + 1,)}}
    assert not activities.count_anew(connection, Counting(Matchers([PRICING]), Matchers([PRICING])), CATALOGUE)
    assert activities.count_anew(connection, Counting(Matchers([]), Matchers([])), CATALOGUE)
    assert proofs(connection) == set()


def test_evidence_is_made_anew_when_names_in_mautic_change(connection):
    save(connection, 7)
    add(connection, hit(1, 7, object_id=3))
    activities.count_anew(connection, Counting(Matchers([PRICING]), Matchers([PRICING])), CATALOGUE)
    assert activities.count_anew(
        connection, Counting(Matchers([PRICING]), Matchers([PRICING])), Catalogue(pages={3: "Prices"})
    )
    assert proofs(connection) == set()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hit"), st.integers(1, 8), st.none() | st.integers(1, 5)),
        st.tuples(st.just("form"), st.integers(1, 4), st.none() | st.integers(1, 5)),
        st.tuples(st.just("save"), st.integers(1, 5)),
        st.tuples(st.just("identify"), st.integers(1, 5)),
        st.tuples(st.just("merge"), st.integers(1, 5), st.integers(1, 5)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_evidence_made_anew_is_the_evidence_that_was_gathered(sqlite_template, steps):
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(sqlite_template, Path(directory) / "store.db")
        engine = open_engine(f"sqlite:///{directory}/store.db")
        with engine.begin() as connection:
            for name, *values in steps:
                take_step(connection, name, values)
            gathered = proofs(connection)
            notes.drop(connection, activities.MATCHERS)
            activities.count_anew(connection, Counting(Matchers(ALL), Matchers(ALL)), CATALOGUE)
            assert proofs(connection) == gathered
        engine.dispose()


def take_step(connection, name, values):
    if name == "hit":
        number, who = values
        # An object never changes; whose row it is may.
        add(connection, hit(number, who, object_id=3 if number % 2 else None, url=f"/shop/{number % 3}"))
    elif name == "form":
        number, who = values
        add(
            connection,
            FeedActivity("form_submissions", str(number), "form.submitted", who, NOW, object_id=1 + number % 2),
        )
    elif name == "save":
        save(connection, values[0])
    elif name == "identify":
        contacts = [Contact(values[0], {"email": f"{values[0]}@b.example"})]
        saved = people.save_contacts(connection, contacts, Reading(frozenset()), now=NOW)
        activities.adopt_waiting(connection, saved.persons, COUNTING, CATALOGUE)
    else:
        old, new = values
        people.follow_merge(connection, old, new, now=NOW, run_id="r")
        known = people.persons_of(connection, [new])
        activities.adopt_waiting(connection, known, COUNTING, CATALOGUE)


# -- members --------------------------------------------------------------------------------------------------------


def test_members_are_those_that_mautic_lists_now(connection):
    numbers = {mautic_id: save(connection, mautic_id) for mautic_id in (1, 2, 3)}
    activities.replace_members(connection, "segment", 5, [1, 2, 99])
    people.forget_dirty(connection, list(numbers.values()))
    activities.replace_members(connection, "segment", 5, [2, 3])
    found = set(connection.execute(select(membership.c.person_id)).scalars())
    assert found == {numbers[2], numbers[3]}
    assert dirty(connection) == {numbers[1], numbers[3]}


def test_members_of_other_segments_and_campaigns_are_left_alone(connection):
    number = save(connection, 1)
    activities.replace_members(connection, "segment", 5, [1])
    activities.replace_members(connection, "segment", 6, [1])
    activities.replace_members(connection, "campaign", 5, [1])
    activities.replace_members(connection, "segment", 5, [])
    names = {"segment": {5: "five", 6: "six"}, "campaign": {5: "Five"}}
    assert decisions.members_of(connection, [number], names) == {
        number: {"segment": frozenset({"six"}), "campaign": frozenset({"Five"})}
    }


OPENS = ActivityMatcher.of("email.read", {})
TALLYING = Counting(Matchers(ALL), Matchers((*ALL, OPENS)))


def tallied(connection):
    persons = connection.execute(select(contact.c.person_id)).scalars().all()
    return {number: found for number, found in tallies.of_persons(connection, persons).items() if found}


@pytest.mark.parametrize("seed", range(5))
def test_tallies_are_what_a_recount_finds_whatever_happened_meanwhile(connection, seed):
    """Activity before and after its contact, in any order, moved to others, opened again, and merges."""
    chance = random.Random(seed)
    numbers = list(range(1, 9))
    saved: set[int] = set()
    merged: set[int] = set()
    for step in range(60):
        alive = sorted(saved - merged)
        what = chance.random()
        if what < 0.2:
            number = chance.choice(numbers)
            if number not in merged:
                save(connection, number)
                saved.add(number)
        elif what < 0.3 and len(alive) > 1:
            old, new = chance.sample(alive, 2)
            people.follow_merge(connection, old, new, now=NOW, run_id="run")
            merged.add(old)
        else:
            rows = [
                FeedActivity(source, str(row), type_, chance.choice(numbers), NOW + chance.randrange(5) * 40_000)
                for source, type_ in (("page_hits", "page.hit"), ("email_stats", "email.read"))
                for row in chance.sample(range(1, 12), 3)
            ]
            chance.shuffle(rows)
            activities.add_activities(connection, rows, TALLYING, CATALOGUE, known_above=None)
        if step % 10 == 9:
            kept = tallied(connection)
            activities.recount(connection, list(kept), TALLYING, CATALOGUE)
            assert tallied(connection) == kept
            notes.drop(connection, activities.MATCHERS)
            activities.count_anew(connection, TALLYING, CATALOGUE)
            assert tallied(connection) == kept
            assert kept or not saved
