"""Contacts as Mautic shows them, the persons behind them, and who is decided again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import insert, select, text, update

from mautic_sync.domain.contact import Contact
from mautic_sync.store import decisions, holds, people
from mautic_sync.store.people import Reading
from mautic_sync.store.schema import alias, change, contact, dirty as dirty_table, dnc, person

NOW = 1_800_000_000
READING = Reading(frozenset({"email", "firstname", "zb_status"}))


def made(number, **fields):
    extra = {
        name: fields.pop(name)
        for name in ("tags", "points", "stage_id", "owner_id", "dnc", "last_active")
        if name in fields
    }
    return Contact(number, fields, date_added=NOW - 1000, date_modified=NOW, **extra)


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


@pytest.fixture
def keep(connection):
    """Save contacts as decided already; returns the number of the person of the first one."""

    def save(*contacts):
        saved = people.save_contacts(connection, contacts, READING, now=NOW)
        people.forget_dirty(connection, list(saved.persons.values()))
        return saved.persons[contacts[0].id]

    return save


def stored(connection, person_id):
    return connection.execute(select(contact).where(contact.c.person_id == person_id)).one()


def dirty(connection):
    return set(connection.execute(select(dirty_table.c.person_id)).scalars())


def test_a_new_contact_gets_a_person_and_is_decided(connection):
    saved = people.save_contacts(connection, [made(7, email=" A@B.Example ")], READING, now=NOW)
    assert (saved.new, saved.changed) == (1, 0)
    number = saved.persons[7]
    assert people.current_ids(connection, [number]) == {number: 7}
    assert dirty(connection) == {number}
    assert stored(connection, number).address == "a@b.example"


def test_a_contact_that_changed_is_decided_again(connection, keep):
    number = keep(made(7, email="a@b.example"))
    saved = people.save_contacts(connection, [made(7, email="c@b.example")], READING, now=NOW)
    assert (saved.new, saved.changed) == (0, 1)
    assert dirty(connection) == {number}
    assert people.find_person(connection, None, "c@b.example") == [number]


def test_a_contact_that_is_as_it_was_is_left_alone(connection, keep):
    keep(made(7, email="a@b.example", tags=frozenset({"x"})))
    saved = people.save_contacts(
        connection, [made(7, email="a@b.example", tags=frozenset({"x"}))], READING, now=NOW + 60
    )
    assert (saved.new, saved.changed, dirty(connection)) == (0, 0, set())


def test_a_field_that_no_rule_reads_is_not_kept_and_decides_nothing(connection, keep):
    number = keep(made(7, email="a@b.example", shoe_size="42"))
    people.save_contacts(connection, [made(7, email="a@b.example", shoe_size="43")], READING, now=NOW)
    assert dirty(connection) == set()
    assert "shoe_size" not in stored(connection, number).fields


def test_points_are_kept_and_decide_nothing(connection, keep):
    number = keep(made(7, points=1))
    saved = people.save_contacts(connection, [made(7, points=5)], READING, now=NOW)
    assert (saved.changed, dirty(connection), stored(connection, number).points) == (0, set(), 5)


def test_an_owner_is_kept_and_decides_nothing(connection, keep):
    """Even where the date of the last change stands still, as it does in Mautic 7."""
    number = keep(made(7))
    for owner in (2, None):
        saved = people.save_contacts(connection, [made(7, owner_id=owner)], READING, now=NOW)
        assert (saved.changed, dirty(connection)) == (0, set())
        assert people.owners_of(connection, [number]) == {number: owner}


@pytest.mark.parametrize(("matters", "expected"), [(True, 1), (False, 0)])
def test_activity_alone_decides_where_a_rule_reads_idleness(connection, keep, matters, expected):
    keep(made(7, last_active=NOW - 100))
    reading = replace(READING, idle_matters=matters)
    people.save_contacts(connection, [made(7, last_active=NOW)], reading, now=NOW)
    assert len(dirty(connection)) == expected


def test_our_own_edit_is_no_reason_to_decide_again(connection, keep):
    number = keep(made(7, email="a@b.example", tags=frozenset({"old", "x"})))
    after = made(7, email="a@b.example", zb_status="valid", stage_id=3, tags=frozenset({"x", "new"}))
    edit = {"zb_status": "valid", "stage": 3, "tags": ["new", "-old"]}
    people.save_contacts(connection, [after], READING, now=NOW, ours={7: edit})
    assert dirty(connection) == set()
    assert stored(connection, number).stage_id == 3


@pytest.mark.parametrize(
    "foreign",
    [
        {"firstname": "Ada"},
        {"tags": frozenset({"by hand"})},
        {"dnc": {"email": 1}},
        {"stage_id": 9},
    ],
)
def test_a_foreign_change_at_the_same_time_as_our_edit_is_decided(connection, keep, foreign):
    number = keep(made(7, email="a@b.example"))
    after = made(7, **{"email": "a@b.example", "zb_status": "valid", "stage_id": 3, **foreign})
    edit = {"zb_status": "valid", "stage": 3}
    people.save_contacts(connection, [after], READING, now=NOW, ours={7: edit})
    assert dirty(connection) == {number}


def test_who_waits_to_be_decided_goes_on_waiting_when_nothing_changed(connection):
    for at in (NOW, NOW + 60):
        people.save_contacts(connection, [made(7, email="a@b.example")], READING, now=at)
    assert len(dirty(connection)) == 1


def test_do_not_contact_is_kept_and_goes_when_it_is_taken_back(connection, keep):
    number = keep(made(7, dnc={"email": 1, "sms": 3}))
    rows = {row.channel: (row.reason, row.restore, row.ours) for row in connection.execute(select(dnc))}
    assert rows == {"email": (1, False, False), "sms": (3, False, False)}
    keep(made(7, dnc={"sms": 3}))
    assert connection.execute(select(dnc.c.person_id, dnc.c.channel)).all() == [(number, "sms")]


def test_the_day_a_contact_was_added_never_gets_later(connection, keep):
    number = keep(made(7))
    keep(replace(made(7), date_added=NOW + 500))
    assert stored(connection, number).date_added == NOW - 1000


def test_person_numbers_are_never_used_again(connection, keep):
    first = keep(made(1), made(2))
    for table, column in ((contact, contact.c.person_id), (alias, alias.c.person_id), (person, person.c.id)):
        connection.execute(table.delete().where(column > 0))
    assert keep(made(1)) == first + 2


def test_person_numbers_of_a_transaction_that_failed_were_never_given(store):
    def fail():
        with store.begin() as connection:
            people.save_contacts(connection, [made(1)], READING, now=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.begin() as connection:
        assert people.save_contacts(connection, [made(2)], READING, now=NOW).persons == {2: 1}
        assert people.persons_of(connection, [1]) == {}


def test_many_contacts_at_once_are_all_kept(connection):
    contacts = [made(number, email=f"{number}@b.example") for number in range(1, 1202)]
    saved = people.save_contacts(connection, contacts, READING, now=NOW)
    assert saved.new == len(set(saved.persons.values())) == 1201
    assert people.save_contacts(connection, contacts, READING, now=NOW).changed == 0


def test_values_that_no_database_loves_are_kept(connection, keep):
    name = "Zoë \ud83d O'Neil \\ 🙂 \x00"
    number = keep(made(7, email="zoë@b.example", firstname=name, tags=frozenset({"🙂", "it's", "\udc00"})))
    assert people.find_person(connection, None, "zoë@b.example") == [number]
    assert "🙂" in stored(connection, number).fields
    keep(made(7, email="zoë@b.example", firstname=name, tags=frozenset({"🙂", "it's", "\udc00"})))
    assert dirty(connection) == set()


# -- full passes, vanishing and returning ---------------------------------------------------------------------------


def test_a_full_pass_finds_who_was_not_met_up_to_its_end(connection, keep):
    keep(*(made(number) for number in (1, 2, 3, 4)))
    people.save_contacts(connection, [made(1), made(3)], READING, now=NOW, seen=1)
    assert [row.mautic_id for row in people.unseen(connection, 1, 3)] == [2]
    assert [row.mautic_id for row in people.unseen(connection, 1, 4)] == [2, 4]
    assert [row.mautic_id for row in people.unseen(connection, 1, 4, limit=1)] == [2]
    assert [row.mautic_id for row in people.unseen(connection, 1, 4, after=2)] == [4]


def test_who_vanished_is_not_missed_again_and_is_not_decided(connection, keep):
    number = keep(made(1), made(2))
    assert people.vanish(connection, [1], NOW) == [number]
    people.mark_everyone_dirty(connection)
    assert [row.mautic_id for row in people.unseen(connection, 1, 9)] == [2]
    assert number not in {row.person_id for row in decisions.to_decide(connection, 0, 10)}
    assert people.count_by_stage(connection) == {None: 1}


def test_vanishing_closes_what_was_open(connection, keep):
    number = keep(made(1))
    connection.execute(change.insert().values(**open_change(number)))
    people.vanish(connection, [1], NOW)
    row = connection.execute(select(change)).one()
    assert (row.state, row.open_key) == ("superseded", None)


def test_who_returns_is_the_same_person_and_is_decided(connection, keep):
    number = keep(made(1, email="a@b.example"))
    people.vanish(connection, [1], NOW)
    saved = people.save_contacts(connection, [made(1, email="a@b.example")], READING, now=NOW)
    assert saved.persons == {1: number}
    assert stored(connection, number).vanished_at is None
    assert dirty(connection) == {number}


def test_the_end_of_a_former_number_is_not_the_end_of_the_person(connection, keep):
    number = keep(made(1, email="a@b.example"), made(2))
    people.follow_merge(connection, 1, 2, now=NOW, run_id="r")
    assert people.vanish(connection, [1], NOW) == []
    assert stored(connection, number).vanished_at is None
    assert people.vanish(connection, [2], NOW) == [number]


def test_nobody_who_is_gone_is_decided_again_whatever_happens(connection, keep):
    number, gone = keep(made(1, email="a@b.example")), keep(made(2, email="a@b.example"))
    people.mark_everyone_dirty(connection)
    people.vanish(connection, [2], NOW)
    assert dirty(connection) == {number}
    people.mark_everyone_dirty(connection)
    people.mark_dirty(connection, [number, gone, 999])
    people.mark_address(connection, "a@b.example")
    people.note_active(connection, {gone: NOW})
    assert dirty(connection) == {number}


def test_who_returns_by_an_edit_of_ours_is_decided_all_the_same(connection, keep):
    number = keep(made(1, stage_id=1))
    people.vanish(connection, [1], NOW)
    people.save_contacts(connection, [made(1, stage_id=2)], READING, now=NOW, ours={1: {"stage": 2}})
    assert dirty(connection) == {number}


def test_a_verdict_decides_again_everybody_with_the_address(connection, keep):
    numbers = {keep(made(number, email="a@b.example")) for number in (1, 2)}
    keep(made(3, email="other@b.example"))
    people.mark_address(connection, "a@b.example")
    assert dirty(connection) == numbers


def test_kinds_are_counted_without_those_who_vanished(connection, keep):
    for number, kind in ((1, "lead"), (2, "lead"), (3, "ghost"), (4, "lead")):
        decisions.save_decisions(connection, [decisions.Decided(**decided(keep(made(number)), kind=kind))])
    assert people.kinds_of(connection, [1, 2, 3]) == {"lead": 2, "ghost": 1}
    people.vanish(connection, [4], NOW)
    assert people.count_by_kind(connection) == {"lead": 2, "ghost": 1}


def decided(person_id, **values):
    return {
        "person_id": person_id,
        "kind": "lead",
        "stage": "Lead",
        "score": 1,
        "rule": "r",
        "reason": "",
        "trace": "[]",
        "due_at": None,
        "asks": False,
        "waiting": False,
        "scores": "{}",
        "flags": "[]",
        "score_day": None,
        "hot_since": None,
        "decided_at": NOW,
        "run_id": "r",
        **values,
    }


def open_change(person_id, **values):
    return {
        "run_id": "r",
        "person_id": person_id,
        "target": "contact",
        "open_key": f"{person_id} contact",
        "state": "planned",
        "value": 1,
        "old": "{}",
        "new": "{}",
        "reason": "",
        "baseline": False,
        "attempts": 0,
        "planned_at": NOW,
        **values,
    }


def test_our_own_do_not_contact_is_noted_and_taken_back(connection, keep):
    number = keep(made(1))
    people.note_own_dnc(connection, number, "email", 3, ours=True, shown={"email": 3})
    assert decisions.own_dnc(connection, [number]) == {number}
    people.note_own_dnc(connection, number, "email", None, ours=False, shown={})
    assert decisions.own_dnc(connection, [number]) == set()
    assert connection.execute(select(dnc)).all() == []


def test_do_not_contact_that_somebody_else_set_is_not_ours(connection, keep):
    number = keep(made(1, dnc={"email": 3}))
    assert decisions.own_dnc(connection, [number]) == set()


def test_of_those_who_are_held_only_the_named_are_found(connection):
    saved = people.save_contacts(connection, [made(number) for number in (1, 2, 3)], READING, now=NOW)
    first, between, last = saved.persons.values()
    row = {"run_id": "r", "undone": "u", "at": NOW, "digest": "d", "rules": "r"}
    holds.hold(connection, [{"person_id": number, **row} for number in (first, between, last)])
    assert holds.held_among(connection, [first, last]).keys() == {first, last}


def test_nobody_is_found_without_number_and_address(connection):
    people.save_contacts(connection, [made(1)], READING, now=NOW)
    assert people.find_person(connection, None, None) == []


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
def test_mariadb_looks_up_many_merged_persons_one_by_one(connection):
    """It would read all persons instead, taking those of whom none was merged into another for one and the same."""
    connection.execute(insert(person), [{"id": number, "created_at": NOW} for number in range(1, 5_001)])
    connection.execute(update(person).where(person.c.id <= 20).values(redirect_to=person.c.id + 1_000))
    connection.execute(text("ANALYZE TABLE person"))
    query = select(person.c.id).where(person.c.redirect_to.in_(range(1_001, 1_501)))
    plan = connection.execute(text(f"EXPLAIN {query.compile(connection, compile_kwargs={'literal_binds': True})}"))
    assert [row.type for row in plan] == ["range"]
