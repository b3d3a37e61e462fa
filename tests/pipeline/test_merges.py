"""Merges that Mautic makes by itself: nobody unsubscribed becomes mailable, nobody loses a stage or history."""

from __future__ import annotations

import pytest
import requests


@pytest.fixture
def worker(make_worker, mautic_version):
    worker = make_worker(version=mautic_version)
    worker.init()
    worker.sync()
    return worker


def merged(worker, known: int, url: str = "https://shop.example/pricing") -> int:
    """A visitor whom we have seen submits the address of the known contact; returns the surviving number."""
    visitor = worker.visitor(url)
    worker.sync()
    worker.act("merge", visitor=visitor, known=known)
    return visitor


def test_do_not_contact_is_put_back_and_the_stage_restored(worker):
    known = worker.new(email="valid@example.com", firstname="Nia")
    worker.sync()
    worker.act("unsubscribe", contact=known)
    worker.sync()
    survivor = merged(worker, known)
    assert worker.contact(survivor).dnc == {}
    document = worker.sync()
    contact = worker.contact(survivor)
    assert contact.dnc == {"email": 1}
    assert worker.stage(survivor) == "Lead"
    assert document["merged"] == 1
    assert worker.sync()["pushed"]["calls"] == 0


def test_do_not_contact_comes_back_even_when_the_run_is_stopped_for_safety(worker):
    known = worker.new(email="valid@example.com")
    worker.sync()
    worker.act("unsubscribe", contact=known)
    worker.sync()
    survivor = merged(worker, known)
    for number in range(25):
        worker.new(firstname=f"P{number}", tags=["customer"])
    from mautic_sync.errors import SafetyStop

    with pytest.raises(SafetyStop):
        worker.sync()
    assert worker.contact(survivor).dnc == {"email": 1}


def test_a_plan_puts_nothing_back_but_says_it_would(worker):
    known = worker.new(email="valid@example.com")
    worker.sync()
    worker.act("unsubscribe", contact=known)
    worker.sync()
    survivor = merged(worker, known)
    plan = worker.plan()
    assert plan["listed"][0]["target"] == "dnc:email"
    assert worker.contact(survivor).dnc == {}


def test_what_the_visitor_did_belongs_to_the_survivor(worker):
    """A purchase before the address was known makes the known contact a customer."""
    known = worker.new(email="valid@example.com")
    worker.sync()
    survivor = merged(worker, known, "https://shop.example/order/thank-you")
    worker.sync()
    assert worker.stage(survivor) == "Customer"
    with worker.run("look") as run, run.engine.begin() as connection:
        from mautic_sync.store import people

        persons = people.persons_of(connection, [known, survivor])
        assert len(set(persons.values())) == 1
        assert people.current_ids(connection, persons.values()) == {persons[known]: survivor}


def test_a_merge_between_two_visits_of_ours_is_followed(worker):
    """Visitor and merge both happen between two runs: the survivor is a number we never saw."""
    known = worker.new(email="valid@example.com")
    worker.sync()
    worker.act("unsubscribe", contact=known)
    worker.sync()
    visitor = worker.visitor()
    worker.act("merge", visitor=visitor, known=known)
    worker.sync()
    assert worker.contact(visitor).dnc == {"email": 1}
    assert worker.stage(visitor) == "Lead"


def test_chains_of_merges_lead_to_the_last_survivor(worker):
    known = worker.new(email="valid@example.com")
    worker.sync()
    worker.act("unsubscribe", contact=known)
    worker.sync()
    first = merged(worker, known)
    second = worker.visitor()
    worker.act("merge", visitor=second, known=first)
    worker.sync()
    assert worker.contact(second).dnc == {"email": 1}
    assert worker.stage(second) == "Lead"
    assert worker.sync()["pushed"]["calls"] == 0


def test_a_merge_that_left_no_trace_is_found_by_a_full_run(worker):
    known = worker.new(email="valid@example.com")
    worker.sync()
    worker.act("unsubscribe", contact=known)
    worker.sync()
    survivor = merged(worker, known)
    worker.box.instance.tables.connection.execute("DELETE FROM audit_log WHERE action IN ('merge', 'delete')")
    worker.sync(full=True)
    worker.sync()
    assert worker.contact(survivor).dnc == {"email": 1}


def test_a_do_not_contact_that_a_person_took_back_stays_away(worker):
    known = worker.new(email="valid@example.com")
    worker.act("unsubscribe", contact=known)
    worker.sync()
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            f"{worker.box.url}/api/contacts/{known}/dnc/email/remove", auth=("admin", "sandbox"), timeout=5
        )
        assert answer.ok
    worker.sync()
    worker.sync()
    assert worker.contact(known).dnc == {}
