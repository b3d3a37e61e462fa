"""Changes on their way: at most one open per person and target, and nothing that was sent is ever forgotten."""

from __future__ import annotations

import orjson
import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from mautic_sync.domain.contact import Contact
from mautic_sync.domain.plan import CONTACT, EMAIL_DNC, Change
from mautic_sync.store import changes, decisions, people
from mautic_sync.store.people import Reading
from mautic_sync.store.schema import change, standing, transition

NOW = 1_800_000_000
KINDS = {"Ghost": "ghost", "Lead": "lead", "Customer": "customer"}


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


@pytest.fixture
def person(connection):
    return save(connection, 7)


def save(connection, mautic_id):
    saved = people.save_contacts(connection, [Contact(mautic_id, {})], Reading(frozenset()), now=NOW)
    return saved.persons[mautic_id]


def to(stage, value=100, target=CONTACT, **fields):
    return Change(target, {"stage": "Ghost"}, {"stage": stage, **({"fields": fields} if fields else {})}, "why", value)


def plan(connection, wanted, *, now=NOW, baseline=False):
    numbers = sorted({person_id for person_id, _ in wanted})
    wanted = {key: one for key, one in wanted.items() if one is not None}
    open_now = decisions.open_changes(connection, numbers)
    changes.plan_changes(connection, numbers, wanted, open_now, run_id="run", now=now, baseline=baseline)


def all_states(connection):
    return [row.state for row in connection.execute(select(change.c.state).order_by(change.c.id))]


def open_ones(connection, person_id):
    return {target: row for (_, target), row in decisions.open_changes(connection, [person_id]).items()}


def send(connection, *numbers):
    changes.mark_sent(connection, numbers, run_id="run", now=NOW)


def test_a_plan_is_an_open_change(connection, person):
    plan(connection, {(person, CONTACT): to("Lead"), (person, EMAIL_DNC): None})
    row = open_ones(connection, person)[CONTACT]
    assert (row.state, row.attempts, row.baseline, orjson.loads(row.new)) == ("planned", 0, False, {"stage": "Lead"})
    assert changes.count_planned(connection) == 1


def test_targets_of_one_person_are_open_side_by_side(connection, person):
    plan(connection, {(person, CONTACT): to("Lead"), (person, EMAIL_DNC): to("x", target=EMAIL_DNC)})
    assert set(open_ones(connection, person)) == {CONTACT, EMAIL_DNC}


def test_the_database_itself_refuses_a_second_open_change(store):
    with store.begin() as connection:
        number = save(connection, 7)
        plan(connection, {(number, CONTACT): to("Lead")})
    with pytest.raises(IntegrityError), store.begin() as connection:
        changes.plan_changes(
            connection, [number], {(number, CONTACT): to("Customer")}, {}, run_id="run", now=NOW, baseline=False
        )


def test_a_newer_decision_replaces_what_is_planned(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")})
    plan(connection, {(person, CONTACT): to("Customer")}, now=NOW + 1)
    assert all_states(connection) == ["superseded", "planned"]
    assert orjson.loads(open_ones(connection, person)[CONTACT].new) == {"stage": "Customer"}


def test_what_is_not_wanted_any_more_is_superseded(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")})
    plan(connection, {(person, CONTACT): None})
    assert all_states(connection) == ["superseded"]


def test_the_same_plan_again_is_left_alone(connection, person):
    plan(connection, {(person, CONTACT): to("Lead", a="1", b="2")})
    before = connection.execute(select(change)).all()
    plan(connection, {(person, CONTACT): to("Lead", b="2", a="1")}, now=NOW + 1)
    assert connection.execute(select(change)).all() == before


def test_what_waits_since_the_baseline_is_still_the_baseline(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")}, baseline=True)
    plan(connection, {(person, CONTACT): to("Lead", zb="valid")})
    assert open_ones(connection, person)[CONTACT].baseline
    assert changes.count_planned(connection, baseline=True) == 1
    assert changes.planned_moves(connection, baseline=False) == {}


def test_another_stage_than_the_one_that_waits_since_the_baseline_is_news(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")}, baseline=True)
    plan(connection, {(person, CONTACT): to("Customer")})
    assert changes.planned_moves(connection, baseline=False) == {("Ghost", "Customer"): 1}


@pytest.mark.parametrize("state", ["sent", "doubtful"])
@pytest.mark.parametrize("wanted", [to("Customer"), None])
def test_what_is_sent_or_in_doubt_is_never_replaced(connection, person, state, wanted):
    plan(connection, {(person, CONTACT): to("Lead")})
    number = open_ones(connection, person)[CONTACT].id
    send(connection, number)
    if state == "doubtful":
        changes.doubt(connection, [number], "timed out", now=NOW)
    plan(connection, {(person, CONTACT): wanted})
    assert all_states(connection) == [state]


def test_moves_are_counted_by_stage(connection):
    for mautic_id, stage in ((1, "Lead"), (2, "Lead"), (3, "Customer")):
        plan(connection, {(save(connection, mautic_id), CONTACT): to(stage)})
    plan(connection, {(save(connection, 4), CONTACT): Change(CONTACT, {}, {"fields": {"a": "b"}}, "why", 1)})
    assert changes.planned_moves(connection) == {("Ghost", "Lead"): 2, ("Ghost", "Customer"): 1}


# -- sending --------------------------------------------------------------------------------------------------------


def test_the_most_valuable_come_first_page_by_page_and_each_once(connection):
    values = [100, 300, 200, 100, 300, 100, 200]
    for mautic_id, value in enumerate(values, start=1):
        plan(connection, {(save(connection, mautic_id), CONTACT): to("Lead", value)})
    seen, after = [], None
    while rows := changes.next_planned(connection, limit=2, target=CONTACT, after=after):
        seen += [(row.value, row.mautic_id) for row in rows]
        after = (-rows[-1].value, rows[-1].id)
    assert seen == [(300, 2), (300, 5), (200, 3), (200, 7), (100, 1), (100, 4), (100, 6)]
    least = changes.next_planned(connection, limit=9, target=CONTACT, after=None, least_value=200)
    assert [row.value for row in least] == [300, 300, 200, 200]
    most = changes.next_planned(connection, limit=9, target=CONTACT, after=None, least_value=101, most_value=200)
    assert [row.value for row in most] == [200, 200]
    assert changes.next_planned(connection, limit=9, target=EMAIL_DNC, after=None) == []


def test_a_planned_change_comes_with_its_contact_as_last_read(connection):
    contact = Contact(7, {}, points=12, stage_id=3, dnc={"email": 1})
    saved = people.save_contacts(connection, [contact], Reading(frozenset()), now=NOW)
    plan(connection, {(saved.persons[7], CONTACT): to("Lead")})
    (row,) = changes.next_planned(connection, limit=9, target=CONTACT, after=None)
    assert (row.mautic_id, row.points, row.stage_id, orjson.loads(row.dnc_now)) == (7, 12, 3, {"email": 1})


def test_what_was_sent_is_not_sent_again_and_goes_back_when_nothing_was_changed(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")})
    number = open_ones(connection, person)[CONTACT].id
    send(connection, number)
    assert changes.next_planned(connection, limit=9, target=CONTACT, after=None) == []
    assert open_ones(connection, person)[CONTACT].attempts == 1
    changes.back_to_planned(connection, [number], "Mautic was down")
    row = open_ones(connection, person)[CONTACT]
    assert (row.state, row.sent_at, row.error) == ("planned", None, "Mautic was down")


def test_what_an_earlier_run_had_sent_is_in_doubt(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")})
    send(connection, open_ones(connection, person)[CONTACT].id)
    assert changes.doubt_what_was_sent(connection, NOW) == 1
    assert changes.doubt_what_was_sent(connection, NOW) == 0
    assert [(row.state, row.mautic_id) for row in changes.doubtful(connection)] == [("doubtful", 7)]


def test_what_was_closed_since_it_was_read_is_not_sent(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")})
    number = open_ones(connection, person)[CONTACT].id
    changes.supersede(connection, [number], "merged in Mautic", NOW)
    assert changes.mark_sent(connection, [number], run_id="run", now=NOW) == []
    assert all_states(connection) == ["superseded"]


def test_what_was_in_doubt_and_not_done_waits_with_its_attempts(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")}, baseline=True)
    number = open_ones(connection, person)[CONTACT].id
    send(connection, number)
    changes.doubt(connection, [number], "timed out", now=NOW)
    changes.try_again(connection, [number], "it was not done")
    row = open_ones(connection, person)[CONTACT]
    assert (row.id, row.state, row.attempts, row.sent_at, row.baseline) == (number, "planned", 1, None, True)


# -- settling -------------------------------------------------------------------------------------------------------


def settle(connection, *numbers, echoes=None, now=NOW):
    rows = [row for row in connection.execute(select(change)) if row.id in numbers]
    return changes.settle(connection, rows, echoes=echoes or {}, kinds=KINDS, run_id="run", now=now)


def test_a_settled_change_is_closed_stands_and_is_a_transition(connection, person):
    plan(connection, {(person, CONTACT): to("Lead", zb="valid")})
    number = open_ones(connection, person)[CONTACT].id
    send(connection, number)
    assert settle(connection, number, echoes={person: {"zb": "Valid"}}) == [
        changes.Transition(number, person, "Ghost", "ghost", "Lead", "lead")
    ]
    assert open_ones(connection, person) == {}
    row = connection.execute(select(standing)).one()
    assert (row.stage, row.stage_at, orjson.loads(row.written)) == ("Lead", NOW, {"zb": ["valid", "Valid"]})
    moved = connection.execute(select(transition)).one()
    assert (moved.from_stage, moved.to_stage, moved.from_kind, moved.to_kind) == ("Ghost", "Lead", "ghost", "lead")
    assert (moved.change_id, moved.baseline, moved.at) == (number, False, NOW)
    assert changes.last_write(connection, person)["state"] == "settled"


def test_edit_and_do_not_contact_of_one_person_settled_together_both_stand(connection, person):
    dnc = Change(EMAIL_DNC, {"reason": None}, {"reason": 3, "verdict": "v1"}, "rejected", 400)
    plan(connection, {(person, CONTACT): to("Lead"), (person, EMAIL_DNC): dnc})
    numbers = [row.id for row in open_ones(connection, person).values()]
    send(connection, *numbers)
    settle(connection, *numbers)
    row = connection.execute(select(standing)).one()
    assert (row.stage, orjson.loads(row.written)) == ("Lead", {EMAIL_DNC: ["v1", 3]})


def test_a_second_answer_for_the_same_change_settles_nothing(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")})
    number = open_ones(connection, person)[CONTACT].id
    assert len(settle(connection, number)) == 1
    assert settle(connection, number) == []
    assert len(connection.execute(select(transition)).all()) == 1


def test_fields_alone_are_no_transition_and_what_stood_still_stands(connection, person):
    connection.execute(
        insert(standing).values(
            person_id=person, stage="Lead", stage_at=5, written='{"a": [1, 1]}', manual_stage="Customer", manual_since=6
        )
    )
    plan(connection, {(person, CONTACT): Change(CONTACT, {}, {"fields": {"b": "2"}}, "why", 1)})
    assert settle(connection, open_ones(connection, person)[CONTACT].id, echoes={person: {"b": "2"}}) == []
    row = connection.execute(select(standing)).one()
    assert (row.stage, row.stage_at, row.manual_stage, row.manual_since) == ("Lead", 5, "Customer", 6)
    assert orjson.loads(row.written) == {"a": [1, 1], "b": ["2", "2"]}
    assert connection.execute(select(transition)).all() == []


def test_our_own_stage_ends_what_was_set_by_hand(connection, person):
    decisions.save_manual(connection, [{"person_id": person, "manual_stage": "Customer", "manual_since": 6}])
    plan(connection, {(person, CONTACT): to("Lead")})
    settle(connection, open_ones(connection, person)[CONTACT].id)
    row = connection.execute(select(standing)).one()
    assert (row.stage, row.manual_stage, row.manual_since) == ("Lead", None, None)


def test_a_settled_change_of_the_baseline_is_marked_as_such(connection, person):
    plan(connection, {(person, CONTACT): to("Lead")}, baseline=True)
    settle(connection, open_ones(connection, person)[CONTACT].id)
    assert connection.execute(select(transition.c.baseline)).scalar() is True


def test_many_changes_are_settled_together(connection):
    contacts = [Contact(mautic_id, {}) for mautic_id in range(1, 702)]
    saved = people.save_contacts(connection, contacts, Reading(frozenset()), now=NOW)
    plan(connection, {(number, CONTACT): to("Lead") for number in saved.persons.values()})
    numbers = set(connection.execute(select(change.c.id)).scalars())
    send(connection, *numbers)
    assert len(settle(connection, *numbers)) == 701
    assert set(all_states(connection)) == {"settled"}


# -- refusals -------------------------------------------------------------------------------------------------------


def refused(connection, person_id):
    plan(connection, {(person_id, CONTACT): to("Lead")})
    number = open_ones(connection, person_id)[CONTACT].id
    send(connection, number)
    changes.refuse(connection, number, "422 'points' \ud800", NOW)
    return number


def test_a_refused_change_is_closed_and_waits_for_retry(connection, person):
    number = refused(connection, person)
    assert open_ones(connection, person) == {}
    found = changes.refused_persons(connection)
    assert [(row.id, row.error) for row in found.pop(person)] == [(number, "422 'points' ?")]
    assert found == {}
    assert changes.refused_persons(connection, [number + 1]) == {}


def test_what_was_settled_later_needs_no_retry(connection, person):
    refused(connection, person)
    plan(connection, {(person, CONTACT): to("Customer")})
    settle(connection, open_ones(connection, person)[CONTACT].id)
    assert changes.refused_persons(connection) == {}


def test_what_was_refused_later_needs_a_retry(connection, person):
    plan(connection, {(person, CONTACT): to("Customer")})
    settle(connection, open_ones(connection, person)[CONTACT].id)
    refused(connection, person)
    assert list(changes.refused_persons(connection)) == [person]


def test_changes_are_listed_most_valuable_first_by_state_and_run(connection):
    for mautic_id, value in ((1, 100), (2, 300), (3, 200)):
        plan(connection, {(save(connection, mautic_id), CONTACT): to("Lead", value)})
    rows = changes.listed(connection, [changes.PLANNED], limit=2)
    assert [(row["mautic_id"], row["new"]) for row in rows] == [(2, {"stage": "Lead"}), (3, {"stage": "Lead"})]
    assert len(changes.listed(connection, [changes.PLANNED], run_id="run")) == 3
    assert changes.listed(connection, [changes.PLANNED], run_id="other") == []
    assert changes.listed(connection, [changes.SETTLED]) == []
