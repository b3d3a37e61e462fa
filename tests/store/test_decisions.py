"""Who is to be decided, and whose address is to be asked about."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from sqlalchemy import insert, select

from mautic_sync.domain.contact import Contact
from mautic_sync.domain.plan import Standing
from mautic_sync.domain.validation import Verdict
from mautic_sync.store import actions, changes, decisions, ledger, people, verdicts
from mautic_sync.store.people import Reading
from mautic_sync.store.schema import decision, standing, transition
from tests.store.conftest import ways_to

NOW = 1_800_000_000
BY_SCORE = (("score", True), ("identified", True))


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


def save(connection, *contacts):
    saved = people.save_contacts(connection, contacts, Reading(frozenset({"email"})), now=NOW)
    return [saved.persons[one.id] for one in contacts]


def decide(connection, person_id, **values):
    row = {
        "person_id": person_id,
        "kind": "ghost",
        "stage": "Ghost",
        "score": 0,
        "rule": "r",
        "reason": "because",
        "trace": "[]",
        "due_at": None,
        "asks": True,
        "waiting": False,
        "scores": "{}",
        "flags": "[]",
        "score_day": None,
        "hot_since": None,
        "decided_at": NOW,
        "run_id": "r",
    }
    decisions.save_decisions(connection, [decisions.Decided(**row | values)])


def known(number, email=None, **values):
    return Contact(number, {"email": email} if email else {}, **values)


def verdict(address, at=NOW):
    return Verdict(address, "valid", "", at, 0, raw={"free_email": True})


def test_persons_come_by_number_page_by_page(connection):
    numbers = save(connection, *(known(number) for number in range(1, 6)))
    seen, after = [], 0
    while rows := decisions.to_decide(connection, after, 2):
        assert len(rows) <= 2
        seen += [row.person_id for row in rows]
        after = seen[-1]
    assert seen == sorted(numbers)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_who_is_not_to_be_decided_is_not_looked_at(connection):
    steps = ways_to(connection, lambda: decisions.to_decide(connection, 0, 9))
    assert steps[0].startswith("SEARCH dirty ")
    assert not [step for step in steps if step.startswith("SCAN")]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("numbers", [[1, 2, 3], [1, 10**6, 10**9]])
def test_what_a_person_has_behind_it_is_no_burden(connection, numbers):
    """Accounts, evidence and changes that are done grow for ever; each is asked of whoever is decided."""
    (account, *_) = ways_to(connection, lambda: ledger.granted(connection, numbers))
    assert "COVERING INDEX ix_ledger_person_id_delta (person_id" in account
    (evidence,) = ways_to(connection, lambda: decisions.evidence_of(connection, numbers))
    assert "COVERING INDEX ix_evidence_person_id_matcher_at (person_id" in evidence
    (open_ones,) = ways_to(connection, lambda: decisions.open_changes(connection, numbers))
    assert "INDEX ix_change_person_id_open_key (person_id" in open_ones
    (answers,) = ways_to(connection, lambda: verdicts.verdicts_of(connection, ["a@b.example", "c@b.example"]))
    assert re.search(r"INDEX \w+ \(address=", answers)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_changes_of_one_person_are_found_without_a_look_at_those_of_all(connection):
    (number,) = save(connection, known(1))
    row = SimpleNamespace(person_id=number, target="contact", id=3)
    ways = ways_to(connection, lambda: changes.last_write(connection, number))
    of_open, of_closed = [step for step in ways if " change" in step]
    assert "INDEX ix_change_person_id_open_key (person_id=" in of_open
    assert "INDEX ix_change_person_id (person_id=" in of_closed
    asked = [
        lambda: changes.last_write(connection, number),
        lambda: changes.refused_before(connection, row, "no"),
        lambda: changes.refused_of(connection, number),
        lambda: changes.written_by(connection, "run", [number]),
        lambda: changes.take_over(connection, [number], "undone", "run"),
        lambda: changes.keys_on_the_way(connection, [number]),
        lambda: actions.has_change_on_the_way(connection, number),
        lambda: people.vanish(connection, [1], NOW),
    ]
    for ask in asked:
        steps = [step for step in ways_to(connection, ask) if " change" in step]
        assert steps
        assert all(re.search(r"SEARCH .*USING [\w ]+ \((?!open_key)", step) for step in steps), steps


def test_only_those_who_changed_are_decided_unless_everybody_is(connection):
    first, second = save(connection, known(1), known(2))
    people.forget_dirty(connection, [first])
    assert [row.person_id for row in decisions.to_decide(connection, 0, 9)] == [second]
    assert [row.person_id for row in decisions.to_decide(connection, 0, 9, everyone=True)] == [first, second]


def test_a_person_comes_with_all_that_decides(connection):
    (number,) = save(connection, known(1, "a@b.example"))
    decide(connection, number, kind="lead", stage="Lead")
    connection.execute(insert(standing).values(person_id=number, stage="Lead", written='{"zb": [1, 2]}'))
    verdicts.put_verdict(connection, verdict("a@b.example"), None, "run")
    row = decisions.one_person(connection, number)
    assert (row.kind, row.stage, row.reason) == ("lead", "Lead", "because")
    assert verdicts.verdicts_of(connection, [row.address]) == {"a@b.example": (verdict("a@b.example"), "run")}
    assert decisions.standing_of(row) == Standing("Lead", {"zb": [1, 2]})


def test_a_person_of_whom_nothing_is_known_comes_too(connection):
    (number,) = save(connection, known(1))
    row = decisions.one_person(connection, number)
    assert (row.kind, row.address, decisions.standing_of(row)) == (None, None, Standing())


def test_verdicts_are_found_by_address_however_many_are_asked_for(connection):
    held = ["a@b.example", "müller@b.example", "o'neil@b.example"]
    for address in held:
        verdicts.put_verdict(connection, verdict(address), None, "run")
    asked = [*held, "muller@b.example", "a%@b.example", *(f"{number}@c.example" for number in range(1100))]
    assert sorted(verdicts.verdicts_of(connection, asked)) == held
    assert verdicts.verdicts_of(connection, []) == {}


def test_a_decision_replaces_the_one_before(connection):
    (number,) = save(connection, known(1))
    decide(connection, number)
    decide(connection, number, kind="lead", due_at=NOW + 5)
    rows = connection.execute(select(decision.c.kind, decision.c.due_at)).all()
    assert [tuple(row) for row in rows] == [("lead", NOW + 5)]


def test_a_stage_set_by_hand_is_noted_beside_what_we_set(connection):
    first, second = save(connection, known(1), known(2))
    connection.execute(insert(standing).values(person_id=first, stage="Lead", written='{"a": 1}'))
    manual = [{"person_id": number, "manual_stage": "VIP", "manual_since": NOW} for number in (first, second)]
    decisions.save_manual(connection, manual)
    rows = [decisions.standing_of(decisions.one_person(connection, number)) for number in (first, second)]
    assert rows == [Standing("Lead", {"a": 1}, "VIP", NOW), Standing(None, {}, "VIP", NOW)]
    decisions.clear_manual(connection, [first])
    assert decisions.standing_of(decisions.one_person(connection, first)) == Standing("Lead", {"a": 1})


# -- whom to ask ----------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(connection):
    """Three addresses with scores 5, 9 and 9; of the last two, one was identified and one was not."""
    numbers = save(
        connection,
        known(1, "five@b.example", date_identified=NOW),
        known(2, "nine@b.example", date_identified=NOW - 9),
        known(3, "nine-unidentified@b.example"),
    )
    for number, score in zip(numbers, (5, 9, 9), strict=True):
        decide(connection, number, score=score)
    return numbers


def ask(connection, order=BY_SCORE, limit=10, now=NOW):
    return [address.removesuffix("@b.example") for address in decisions.addresses_to_ask(connection, now, order, limit)]


@pytest.mark.usefixtures("crowd")
def test_the_most_valuable_are_asked_first_and_who_lacks_a_value_last(connection):
    assert ask(connection) == ["nine", "nine-unidentified", "five"]
    assert ask(connection, (("score", False), ("identified", True))) == ["five", "nine", "nine-unidentified"]
    assert ask(connection, (("identified", False),)) == ["nine", "five", "nine-unidentified"]
    assert ask(connection, (("identified", True),)) == ["five", "nine", "nine-unidentified"]


@pytest.mark.parametrize("key", ["points", "last_active", "added"])
def test_every_order_that_the_mappings_allow_can_be_asked_for(connection, key):
    values = {"points": "points", "last_active": "last_active", "added": "date_added"}
    few, many = ({values[key]: value} for value in (1, 2))
    for number in save(connection, known(1, "few@b.example", **few), known(2, "many@b.example", **many)):
        decide(connection, number)
    assert ask(connection, ((key, True),)) == ["many", "few"]
    assert ask(connection, ((key, False),)) == ["few", "many"]


@pytest.mark.usefixtures("crowd")
def test_no_more_are_asked_than_the_limit(connection):
    assert ask(connection, limit=2) == ["nine", "nine-unidentified"]
    assert ask(connection, limit=0) == []
    assert decisions.count_to_ask(connection, NOW) == 3


def test_an_address_is_asked_once_whoever_has_it_by_its_most_valuable_person(connection, crowd):
    (number,) = save(connection, known(9, "Five@B.example"))
    decide(connection, number, score=50)
    assert ask(connection)[0] == "five"
    assert decisions.count_to_ask(connection, NOW) == 3


def test_who_needs_no_verdict_has_no_address_or_vanished_is_not_asked(connection, crowd):
    decide(connection, crowd[0], asks=False)
    people.vanish(connection, [2], NOW)
    decide(connection, *save(connection, known(9)))
    assert ask(connection) == ["nine-unidentified"]


@pytest.mark.usefixtures("crowd")
def test_an_address_is_asked_again_from_the_second_on_in_which_it_is_due(connection):
    verdicts.put_verdict(connection, verdict("five@b.example"), NOW, "run")
    verdicts.put_verdict(connection, verdict("nine@b.example"), None, "run")
    verdicts.put_verdict(connection, verdict("nine-unidentified@b.example"), NOW + 1, "run")
    assert ask(connection) == ["five"]
    assert ask(connection, now=NOW + 1) == ["nine-unidentified", "five"]
    assert (decisions.count_to_ask(connection, NOW), decisions.count_answered(connection, NOW)) == (1, 2)


# -- verdicts and credits -------------------------------------------------------------------------------------------


def test_verdicts_come_by_address_page_by_page_and_each_once(connection):
    names = ["a@b.example", "ä@b.example", "b@b.example", "z@b.example", "🙂@b.example"]
    for name in names:
        verdicts.put_verdict(connection, verdict(name), None, "run")
    seen, after = [], ""
    while found := verdicts.all_verdicts(connection, after, limit=2):
        seen += [one.address for one in found]
        after = found[-1].address
    assert sorted(seen) == sorted(names)
    assert verdicts.get_verdict(connection, "ä@b.example") == verdict("ä@b.example")


def test_a_verdict_with_words_that_nobody_expects_is_kept(connection):
    odd = Verdict(
        "a@b.example", "s" * 500, "🙂" * 100, NOW, 1, "\x00" * 5 + "x" * 999, {"big": 10**30, "odd": "\ud800"}
    )
    verdicts.put_verdict(connection, odd, None, "run")
    found = verdicts.get_verdict(connection, "a@b.example")
    assert (found.status, found.sub_status, found.raw["odd"]) == ("s" * 64, "🙂" * 64, "?")


def test_credits_are_counted_from_a_second_on(connection):
    for at, spent in ((NOW - 1, 1), (NOW, 2), (NOW + 1, 3)):
        row = {"run_id": "r", "at": at, "address": "a@b.example", "credits": spent, "status": "valid"}
        verdicts.put_credit(connection, row)
    assert [verdicts.credits_since(connection, since) for since in (NOW, NOW + 2)] == [5, 0]


def test_transitions_of_the_baseline_count_for_nobody(connection):
    (number,) = save(connection, known(1))
    for at, baseline in ((NOW - 9, False), (NOW, False), (NOW, True)):
        connection.execute(
            insert(transition).values(
                person_id=number, to_stage="L", to_kind="lead", at=at, run_id="r", change_id=1, baseline=baseline
            )
        )
    assert decisions.recent_transitions(connection, [number], NOW - 5) == {number: 1}


# -- where somebody stood -------------------------------------------------------------------------------------------

KINDS = {"Customer": "customer", "MQL": "lead", "Lead": "lead", "Ghost": "ghost"}


def moved(connection, person_id, *stages, at=NOW, shown=None):
    """Transitions of this person, one after the other."""
    for before, stage in zip((shown, *stages), stages, strict=False):
        row = {"from_stage": before, "to_stage": stage, "from_kind": None, "to_kind": KINDS.get(stage, "lead")}
        rest = {"at": at, "run_id": "r", "change_id": 1, "baseline": False}
        connection.execute(insert(transition).values(person_id=person_id, **row, **rest))


def stands(connection, person_id, stage, at=NOW):
    connection.execute(insert(standing).values(person_id=person_id, stage=stage, stage_at=at, written="{}"))


def places(connection, *person_ids):
    found = decisions.last_places(connection, person_ids, KINDS)
    return {number: place.stage for number, place in found.items()}


def test_the_last_transition_says_where_somebody_stands(connection):
    known, renamed, found, nobody = save(connection, *(Contact(number, {}) for number in range(1, 5)))
    moved(connection, known, "Ghost", "Customer", "Lead")
    stands(connection, known, "Ghost")  # as a merge leaves it: the stage of the number that survived
    moved(connection, renamed, "Prospect")
    stands(connection, found, "Lead")
    assert places(connection, known, renamed, found, nobody) == {known: "Lead", renamed: "Prospect", found: "Lead"}
    kinds = [place.kind for place in decisions.last_places(connection, [renamed, found], KINDS).values()]
    assert kinds == ["lead", "lead"]


@pytest.mark.parametrize(
    ("ours", "theirs", "stands_in"),
    [("Ghost", "Lead", "Lead"), ("Lead", "Ghost", "Lead"), ("Lead", "MQL", "MQL"), ("MQL", "Lead", "MQL")],
)
def test_of_merged_persons_the_highest_place_counts(connection, ours, theirs, stands_in):
    visitor, known = save(connection, Contact(1, {}), Contact(2, {"email": "a@b.example"}))
    moved(connection, known, ours)
    moved(connection, visitor, theirs)
    people.follow_merge(connection, 2, 1, now=NOW, run_id="r")
    assert places(connection, known) == {known: stands_in}


def test_who_was_put_back_to_no_stage_stands_nowhere(connection):
    (number,) = save(connection, Contact(1, {}))
    moved(connection, number, "Lead")
    stands(connection, number, None)
    assert places(connection, number) == {}


def test_what_a_merge_lost_and_was_put_back_is_no_flip(connection):
    visitor, known, alone = save(connection, Contact(1, {}), Contact(2, {"email": "a@b.example"}), Contact(3, {}))
    moved(connection, visitor, "Ghost")
    moved(connection, known, "Lead")
    people.follow_merge(connection, 2, 1, now=NOW, run_id="r")
    for number in (known, alone):
        moved(connection, number, "Lead", shown="Lead")
    assert decisions.recent_transitions(connection, [known, alone], NOW - 1) == {known: 1, alone: 1}
