"""Activity that was folded counts as if its rows were still there: for evidence, tallies and what brought somebody."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import func, select

from mautic_sync.domain.contact import Catalogue, Contact
from mautic_sync.domain.journey import STEPS, Journey
from mautic_sync.domain.matchers import ActivityMatcher, Matchers
from mautic_sync.mautic.feeds import FeedActivity
from mautic_sync.pipeline import fold
from mautic_sync.store import activities, carried, decisions, notes, people, tallies
from mautic_sync.store.activities import Counting
from mautic_sync.store.engine import open_engine
from mautic_sync.store.people import Reading
from mautic_sync.store.schema import activity, contact
from tests.conftest import LONG

DAY = 86_400
NOW = 1_800_000_000 - 1_800_000_000 % DAY
CATALOGUE = Catalogue(forms={1: "Trial"}, emails={4: "News"}, campaigns={5: "Spring"})
ANY_HIT = ActivityMatcher.of("page.hit", {})
SHOP = ActivityMatcher.of("page.hit", {"url": "*/shop/*"})
TRIAL = ActivityMatcher.of("form.submitted", {"form": "trial"})
SENT = ActivityMatcher.of("email.sent", {})
OPENS = ActivityMatcher.of("email.read", {})
COUNTING = Counting(Matchers((SHOP, TRIAL, OPENS)), Matchers((ANY_HIT, TRIAL, SENT, OPENS)))
FEEDS = {
    "page_hits": ("page.hit",),
    "form_submissions": ("form.submitted",),
    "email_stats": ("email.sent", "email.read"),
    "lead_event_log": ("campaign.added",),
}


class Mautic:
    """What the feeds tell: rows whose time never moves; mails are opened later."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {feed: [] for feed in FEEDS}
        self.became: dict[int, int] = {}

    def new(self, feed: str, contact_id: int | None, day: int, what: int) -> list[FeedActivity]:
        row = {"id": len(self.rows[feed]) + 1, "contact": contact_id, "at": NOW - day * DAY + what, "what": what}
        self.rows[feed].append(row)
        return self.told(feed, row)

    def told(self, feed: str, row: dict[str, Any]) -> list[FeedActivity]:
        who = row["contact"]
        while who in self.became:
            who = self.became[who]
        url = ("https://x.example/shop/1?utm_campaign=may", "https://x.example/", "https://x.example/shop/2")[
            row["what"] % 3
        ]
        more: dict[str, Any] = {"page_hits": {"url": url}, "form_submissions": {"object_id": 1 + row["what"] % 2}}.get(
            feed, {"object_id": 4 if feed == "email_stats" else 5 + row["what"] % 2}
        )
        found = [FeedActivity(feed, str(row["id"]), FEEDS[feed][0], who, row["at"], **more)]
        if feed == "page_hits" and row["what"] % 3 == 0:
            found = [one._replace(utm={"utm_campaign": "may"}) for one in found]
        if feed == "page_hits" and row["what"] > 2:
            found = [one._replace(referer=f"https://search-{row['what']}.example/") for one in found]
        if "opened" in row:
            found.append(FeedActivity(feed, str(row["id"]), "email.read", who, row["opened"], **more))
        return found


class Store:
    """One store, that is told what a run would be told."""

    def __init__(self, engine: Any, counting: Counting = COUNTING) -> None:
        self.engine, self.counting = engine, counting

    def save(self, contact_id: int) -> None:
        one = Contact(contact_id, {}, date_identified=NOW - 40 * DAY if contact_id % 2 else None)
        with self.engine.begin() as connection:
            saved = people.save_contacts(connection, [one], Reading(frozenset()), now=NOW)
            activities.adopt_waiting(connection, saved.persons, self.counting, CATALOGUE)

    def add(self, rows: list[FeedActivity], known_above: int | None) -> None:
        with self.engine.begin() as connection:
            activities.add_activities(connection, rows, self.counting, CATALOGUE, known_above=known_above)

    def merge(self, old: int, new: int) -> None:
        with self.engine.begin() as connection:
            people.follow_merge(connection, old, new, now=NOW, run_id="run")
            activities.adopt_waiting(connection, people.persons_of(connection, [new]), self.counting, CATALOGUE)

    def fold(self, day: int) -> int:
        run: Any = SimpleNamespace(engine=self.engine, counting=self.counting, catalogue=CATALOGUE)
        return fold.fold_before(run, NOW - day * DAY)

    def count_anew(self) -> None:
        with self.engine.begin() as connection:
            notes.drop(connection, activities.MATCHERS)
            activities.count_anew(connection, self.counting, CATALOGUE)

    def recount(self) -> None:
        with self.engine.begin() as connection:
            persons = connection.execute(select(contact.c.person_id)).scalars().all()
            activities.recount(connection, persons, self.counting, CATALOGUE)

    def rows(self) -> int:
        with self.engine.begin() as connection:
            return int(connection.execute(select(func.count()).select_from(activity)).scalar() or 0)

    def seen(self, *, merged: bool = False) -> dict[int, Any]:
        """Person → all that rules and fields read of activity."""
        with self.engine.begin() as connection:
            persons = list(connection.execute(select(contact.c.person_id)).scalars())
            identified = people.identified_at(connection, persons)
            journeys = {
                number: Journey({"before_lead": identified[number]} if number in identified else {})
                for number in persons
            }
            for number, order, one in activities.of_persons(connection, persons, STEPS, CATALOGUE):
                journeys[number].see(one, order)
            proofs = decisions.evidence_of(connection, persons)
            days = tallies.of_persons(connection, persons)
        told = {number: journey.told() for number, journey in journeys.items()}
        if merged:  # a merge may move the moment up to which is looked back to one before what was folded
            told = {n: {k: v for k, v in one.items() if not k.startswith("before_")} for n, one in told.items()}
        return {number: (proofs.get(number, {}), days.get(number, {}), told[number]) for number in persons}


CONTACTS = st.integers(1, 5)
STEP = st.one_of(
    st.tuples(
        st.just("new"), st.sampled_from(sorted(FEEDS)), st.none() | CONTACTS, st.integers(0, 90), st.integers(0, 5)
    ),
    st.tuples(st.just("again"), st.sampled_from(sorted(FEEDS)), st.integers(0, 20)),
    st.tuples(st.just("open"), st.integers(0, 20), st.integers(0, 90)),
    st.tuples(st.just("save"), CONTACTS),
    st.tuples(st.just("merge"), CONTACTS, CONTACTS),
    st.tuples(st.just("fold"), st.integers(1, 80)),
    st.tuples(st.sampled_from(["recount", "count_anew"])),
)


def follow(mautic: Mautic, stores: list[Store], step: tuple[Any, ...], *, folds: Store) -> None:
    name, *values = step
    if name == "new":
        feed = values[0]
        above = len(mautic.rows[feed])
        rows = mautic.new(*values)
        for store in stores:
            store.add(rows, above)
    elif name in {"again", "open"}:
        feed = values[0] if name == "again" else "email_stats"
        known = mautic.rows[feed]
        if not known:
            return
        row = known[(values[1] if name == "again" else values[0]) % len(known)]
        if name == "open":
            row.setdefault("opened", NOW - values[1] * DAY)
        for store in stores:
            store.add(mautic.told(feed, row), None)
    elif name == "save":
        if values[0] not in mautic.became:
            for store in stores:
                store.save(values[0])
    elif name == "merge":
        old, new = values
        if old != new and old not in mautic.became and new not in mautic.became:
            mautic.became[old] = new
            for store in stores:
                store.merge(old, new)
    elif name == "fold":
        folds.fold(values[0])
    else:
        for store in stores:
            getattr(store, name)()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "store.db"
    open_engine(f"sqlite:///{path}").dispose()
    return path


@settings(max_examples=120 if LONG else 60, deadline=None)
@given(steps=st.lists(STEP, min_size=8, max_size=40))
def test_whatever_happens_and_whenever_it_is_folded_the_same_is_seen(template, steps):
    with tempfile.TemporaryDirectory() as directory:
        engines = []
        for name in ("whole", "folded"):
            path = Path(directory) / f"{name}.db"
            shutil.copy(template, path)
            engines.append(open_engine(f"sqlite:///{path}"))
        try:
            whole, folded = stores = [Store(engine) for engine in engines]
            mautic = Mautic()
            for number in (1, 2, 3):
                for store in stores:
                    store.save(number)
            for step in [*steps, ("count_anew",), ("recount",)]:
                follow(mautic, stores, step, folds=folded)
                merged = bool(mautic.became)
                assert folded.seen(merged=merged) == whole.seen(merged=merged), step
        finally:
            for engine in engines:
                engine.dispose()


# -- on every database ------------------------------------------------------------------------------------------------


@pytest.fixture
def lived(store):
    """A store in which five contacts did much, and Mautic that told of it."""
    chance, found, mautic = random.Random(7), Store(store), Mautic()
    for number in range(1, 6):
        found.save(number)
    for _ in range(120):
        feed = chance.choice(sorted(FEEDS))
        above = len(mautic.rows[feed])
        found.add(mautic.new(feed, chance.randrange(1, 6), chance.randrange(90), chance.randrange(6)), above)
    return found, mautic


def test_folding_takes_rows_and_changes_nothing_that_is_seen(lived):
    found, mautic = lived
    before, rows = found.seen(), found.rows()
    gone = found.fold(30)
    assert gone > 40
    assert (found.rows(), found.seen()) == (rows - gone, before)
    assert found.fold(30) == 0
    found.count_anew()
    assert found.seen() == before
    found.recount()
    assert found.seen() == before
    for feed, told in mautic.rows.items():  # Mautic tells all of it again
        found.add([one for row in told for one in mautic.told(feed, row)], None)
    assert (found.rows(), found.seen()) == (rows - gone, before)


def test_what_was_folded_goes_with_a_merge(lived):
    found, mautic = lived
    found.fold(30)
    mautic.became[2] = 4
    found.merge(2, 4)
    before = found.seen()
    assert len(before) == 4
    found.count_anew()
    assert found.seen() == before
    found.fold(10)
    found.recount()
    assert found.seen(merged=True) == {n: (p, d, strip(t)) for n, (p, d, t) in before.items()}
    with found.engine.begin() as connection:
        (number,) = people.persons_of(connection, [4]).values()
        assert sum(times for times, _, _ in carried.done_by(connection, number).values()) > 10


def strip(told):
    return {name: value for name, value in told.items() if not name.startswith("before_")}


def test_what_was_cut_short_goes_on(lived, monkeypatch):
    found, _ = lived
    before, rows = found.seen(), found.rows()
    monkeypatch.setattr(fold, "ROWS_AT_ONCE", 7)
    calls = iter(range(4))
    real = carried.Fold.store

    def killed(self, connection):
        done = real(self, connection)
        if next(calls) == 3:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(carried.Fold, "store", killed)
    with pytest.raises(KeyboardInterrupt):
        found.fold(30)
    monkeypatch.setattr(carried.Fold, "store", real)
    between = found.rows()
    assert rows - 21 <= between < rows
    found.count_anew()
    assert found.seen() == before
    assert found.fold(30) > 0
    found.count_anew()
    assert found.seen() == before


@pytest.fixture
def looked_at(monkeypatch):
    """The persons whom folds looked at."""
    seen: set[int] = set()
    real = fold._telling

    def telling(connection, persons, *more):
        seen.update(persons)
        return real(connection, persons, *more)

    monkeypatch.setattr(fold, "_telling", telling)
    return seen


def test_the_next_days_fold_looks_only_at_whoever_has_rows_that_became_old_or_came_old(store, looked_at):
    found, mautic = Store(store), Mautic()
    for number in range(1, 6):
        found.save(number)
        found.add(mautic.new("page_hits", number, 60, 0), number - 1)
    found.add(mautic.new("page_hits", 2, 30, 0), 5)
    found.add(mautic.new("page_hits", 3, 29, 0), 6)
    with store.begin() as connection:
        persons = people.persons_of(connection, range(1, 6))
    assert found.fold(30) == 0  # the first and the last page of everybody
    assert looked_at == set(persons.values())
    looked_at.clear()
    found.add(mautic.new("page_hits", 4, 50, 0), 7)
    found.add(mautic.new("page_hits", 4, 40, 0), 8)
    assert found.fold(29) == 1
    assert looked_at == {persons[2], persons[4]}
    looked_at.clear()
    assert found.fold(28) == 0
    assert looked_at == {persons[3]}


def test_once_a_week_a_fold_looks_at_everybody_and_so_takes_old_rows_that_found_their_person_late(store, looked_at):
    found, mautic = Store(store), Mautic()
    found.save(1)
    found.add(mautic.new("page_hits", 1, 60, 0), 0)
    for row, day in enumerate((60, 50, 40), start=1):
        found.add(mautic.new("page_hits", 2, day, 0), row)
    found.fold(30)
    found.save(2)  # now there is somebody for what waited
    looked_at.clear()
    assert [found.fold(day) for day in range(29, 23, -1)] == [0] * 6
    assert looked_at == set()
    assert found.fold(23) == 1
    assert len(looked_at) == 2
    looked_at.clear()
    assert found.fold(22) == 0
    assert looked_at == set()


def test_each_days_fold_takes_all_that_a_look_at_everybody_would(store):
    chance, found, mautic = random.Random(11), Store(store), Mautic()
    for number in range(1, 6):
        found.save(number)
    took = []
    for day in range(60, 20, -1):
        for _ in range(chance.randrange(6)):
            feed = chance.choice(sorted(FEEDS))
            above = len(mautic.rows[feed])
            found.add(
                mautic.new(feed, chance.randrange(1, 6), chance.randrange(day - 5, 90), chance.randrange(6)), above
            )
        took.append(found.fold(day))
        with store.begin() as connection:
            last = carried.looked(connection)
            carried.look_again(connection)
        assert found.fold(day) == 0
        with store.begin() as connection:
            carried.note_looked(connection, last)
    assert sum(took) > 40
    assert sum(one > 0 for one in took) > 20


def test_a_bounce_that_was_folded_is_still_known(store):
    found = Store(store)
    found.save(1)
    found.save(2)
    found.add([FeedActivity("lead_donotcontact", "1", "email.bounced", 1, NOW - 50 * DAY)], 0)
    assert found.fold(30) == 1
    with store.begin() as connection:
        assert activities.who_did(connection, "email.bounced", {1, 2}) == {1}
        assert activities.stores_any_of(connection, "lead_donotcontact")


def test_a_mail_whose_opening_is_told_again_or_only_after_folding_counts_once(store):
    found, mautic = Store(store), Mautic()
    found.save(1)
    found.add(mautic.new("email_stats", 1, 60, 0), 0)
    (row,) = mautic.rows["email_stats"]
    found.fold(30)
    row["opened"] = NOW - 59 * DAY
    for _ in range(2):
        found.add(mautic.told("email_stats", row), None)
        found.fold(30)
        ((proofs, days, _),) = found.seen().values()
        assert proofs[OPENS.key] == (row["opened"],)
        assert (days[OPENS.key][1::2], days[SENT.key][1::2]) == ([1], [1])


def test_activity_of_nobody_and_of_those_not_met_yet_stays(store):
    found = Store(store)
    rows = [
        FeedActivity("page_hits", "1", "page.hit", None, NOW - 50 * DAY),
        FeedActivity("page_hits", "2", "page.hit", 9, NOW - 50 * DAY),
    ]
    found.add(rows, 0)
    assert (found.fold(30), found.rows()) == (0, 2)


def test_rows_from_before_their_feed_was_read_stay_for_they_may_be_told_again(store):
    found, mautic = Store(store), Mautic()
    found.save(1)
    with store.begin() as connection:
        carried.note_start(connection, "email_stats", 1)
    found.add(mautic.new("email_stats", 1, 60, 0), None)
    found.add(mautic.new("email_stats", 1, 59, 0), None)
    assert (found.fold(30), found.rows()) == (1, 1)
    for row in mautic.rows["email_stats"]:
        found.add(mautic.told("email_stats", row), None)
    assert found.rows() == 1


def test_a_matcher_that_comes_later_does_not_count_what_was_folded_and_its_gap_is_known(lived):
    found, _ = lived
    found.fold(30)
    kept = Counting(Matchers((SHOP, TRIAL, OPENS, ANY_HIT)), COUNTING.tallies)
    with found.engine.begin() as connection:
        activities.count_anew(connection, kept, CATALOGUE)
    Store(found.engine, kept).fold(20)
    with found.engine.begin() as connection:
        gaps = carried.folded(connection).gaps
    assert gaps[f"proofs:{ANY_HIT.key}"] == NOW - 30 * DAY
    assert gaps[f"proofs:{SHOP.key}"] == gaps[f"tallies:{ANY_HIT.key}"] == 0
    # It left and came back: nobody knows what was folded in between.
    found.count_anew()
    found.fold(15)
    with found.engine.begin() as connection:
        activities.count_anew(connection, kept, CATALOGUE)
    Store(found.engine, kept).fold(10)
    with found.engine.begin() as connection:
        assert carried.folded(connection).gaps[f"proofs:{ANY_HIT.key}"] == NOW - 15 * DAY
