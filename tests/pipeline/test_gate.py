"""The gate: what is asked, what it costs, and what a verdict does."""

from __future__ import annotations

import re

import pytest

from mautic_sync.mappings import packaged_mappings_dir

DAY = 86400


def scripted(worker, address: str, status: str, sub_status: str = "", **more) -> str:
    worker.post("/_sandbox/zerobounce", {"email": address, "status": status, "sub_status": sub_status, **more})
    return address


@pytest.fixture
def worker(make_worker):
    worker = make_worker()
    worker.init()
    worker.sync()  # the baseline of an empty Mautic: what comes later is somebody's transition
    return worker


def spent(worker) -> dict[str, int]:
    return worker.box.stats()["credits"]["by_address"]


def test_an_address_is_asked_once_whoever_has_it_and_in_whatever_letters(worker):
    address = scripted(worker, "anna@gate.example", "valid")
    worker.new(email=address)
    twin = worker.visitor()
    worker.box.instance.tables.connection.execute(
        "UPDATE leads SET email = ? WHERE id = ?", (" ANNA@Gate.example ", twin)
    )
    worker.sync()
    worker.sync(full=True)
    assert spent(worker) == {address: 1}
    assert worker.stage(twin) == "Lead"


def test_what_cannot_be_an_address_costs_nothing_and_is_rejected(worker):
    number = worker.visitor()
    worker.box.instance.tables.connection.execute("UPDATE leads SET email = 'nobody at home' WHERE id = ?", (number,))
    worker.sync()
    assert worker.stage(number) == "Ghost"
    assert spent(worker) == {}


def test_a_run_never_spends_more_than_its_budget(worker):
    for number in range(12):
        worker.new(email=scripted(worker, f"p{number}@budget.example", "valid"))
    short = worker.but(zerobounce={"max_credits_per_run": 5})
    document = short.sync()
    assert document["validated"]["credits"] == 5
    assert document["kinds"]["lead"] == 5
    assert short.sync()["kinds"]["lead"] == 10


def test_a_day_never_costs_more_than_its_budget(worker):
    for number in range(12):
        worker.new(email=scripted(worker, f"p{number}@budget.example", "valid"))
    short = worker.but(zerobounce={"max_credits_per_day": 7})
    short.sync()
    short.sync()
    assert sum(spent(worker).values()) == 7
    short.skew = DAY
    short.sync()
    assert sum(spent(worker).values()) == 12


def test_a_held_address_is_asked_again_at_growing_distance(worker):
    address = scripted(worker, "maybe@held.example", "catch-all")
    number = worker.new(email=address)
    worker.sync()
    assert (worker.stage(number), spent(worker)[address]) == ("Ghost", 1)
    for hours, paid in ((5, 1), (7, 2), (7 + 23, 2), (7 + 25, 3)):
        worker.skew = hours * 3600
        worker.sync()
        assert spent(worker)[address] == paid, hours
    scripted(worker, address, "valid")
    worker.skew = (7 + 25 + 73) * 3600
    worker.sync()
    assert worker.stage(number) == "Lead"


def test_unknown_costs_nothing_and_is_held(worker):
    number = worker.new(email=scripted(worker, "x@unknown.example", "unknown", "greylisted"))
    assert worker.sync()["validated"] == {"credits": 0, "accept": 0, "hold": 1, "reject": 0, "cached": 0}
    assert worker.stage(number) == "Ghost"


def test_a_reject_marks_do_not_contact_and_tags(worker):
    number = worker.new(email=scripted(worker, "dead@gate.example", "invalid", "mailbox_not_found"))
    document = worker.sync()
    contact = worker.contact(number)
    assert contact.dnc == {"email": 3}
    assert contact.tags == {"email-rejected"}
    assert document["pushed"]["dnc"] == 1
    assert worker.sync()["pushed"]["calls"] == 0


def test_a_new_address_that_works_takes_our_do_not_contact_back(worker):
    number = worker.new(email=scripted(worker, "dead@gate.example", "invalid", "mailbox_not_found"))
    worker.sync()
    worker.act("edit", contact=number, values={"email": scripted(worker, "alive@gate.example", "valid")})
    worker.sync()
    worker.sync()
    contact = worker.contact(number)
    assert (contact.dnc, contact.tags) == ({}, frozenset())
    assert worker.stage(number) == "Lead"


def test_somebody_elses_do_not_contact_is_never_taken_back(worker):
    number = worker.new(email=scripted(worker, "dead@gate.example", "invalid", "mailbox_not_found"))
    worker.act("unsubscribe", contact=number)
    worker.sync()
    worker.act("edit", contact=number, values={"email": scripted(worker, "alive@gate.example", "valid")})
    worker.sync()
    worker.sync()
    assert worker.contact(number).dnc == {"email": 1}


def test_the_baseline_sets_no_do_not_contact_unless_told(make_worker):
    for with_actions, expected in ((False, {}), (True, {"email": 3})):
        worker = make_worker()
        number = worker.new(email="invalid@example.com")
        worker.init()
        worker.sync(with_actions=with_actions)
        worker.sync()
        assert worker.contact(number).dnc == expected
        assert worker.stage(number) == "Ghost"


def test_an_expired_verdict_takes_nobody_down(worker):
    """Only a fresh reject takes `lead` away."""
    address = scripted(worker, "anna@gate.example", "valid")
    number = worker.new(email=address)
    worker.sync()
    worker.post("/_sandbox/credits", {"credits": 0})
    worker.skew = 200 * DAY
    document = worker.sync()
    assert worker.stage(number) == "Lead"
    assert document["failed"] == 1
    worker.post("/_sandbox/credits", {"credits": 10})
    scripted(worker, address, "invalid", "mailbox_not_found")
    worker.sync()
    assert worker.stage(number) == "Ghost"


def test_a_bad_key_stops_the_asking_and_nothing_else(worker):
    lead = worker.new(phone="+49 30 1")
    addressed = worker.new(email=scripted(worker, "anna@gate.example", "valid"))
    wrong = worker.but(zerobounce={"api_key": "not-the-key"})
    document = wrong.sync()
    assert document["failed"] == 1
    assert (worker.stage(lead), worker.stage(addressed)) == ("Lead", "Ghost")
    told = str(wrong.told)
    assert "zerobounce.api_key" in told
    assert "not-the-key" not in told


def test_blanks_are_filled_and_nothing_is_overwritten(worker):
    full = {"firstname": "Anna", "lastname": "Arendt", "city": "Bonn", "country": "Germany"}
    blank = worker.new(email=scripted(worker, "anna@gate.example", "valid", **full))
    named = worker.new(email=scripted(worker, "other@gate.example", "valid", **full), firstname="Otto")
    worker.sync()
    assert {**full}.items() <= worker.contact(blank).fields.items()
    assert worker.contact(named).fields["firstname"] == "Otto"
    assert worker.contact(named).fields["lastname"] == "Arendt"


def test_a_filled_value_that_mautic_refuses_costs_nobody_the_stage(worker):
    number = worker.new(email=scripted(worker, "anna@gate.example", "valid", firstname="Anna", region="Nowhere"))
    coded = worker.new(email=scripted(worker, "otto@gate.example", "valid", country="DE"))
    document = worker.sync()
    assert (worker.stage(number), document["failed"]) == ("Lead", 0)
    assert worker.contact(coded).fields["country"] == "Germany"
    assert worker.sync()["pushed"]["calls"] == 0


def test_a_suggested_spelling_is_kept(worker):
    number = worker.new(
        email=scripted(worker, "anna@gmial.example", "invalid", "possible_typo", did_you_mean="anna@gmail.example")
    )
    worker.sync()
    with worker.run("look") as run, run.engine.begin() as connection:
        from mautic_sync.store.verdicts import get_verdict

        assert get_verdict(connection, "anna@gmial.example").did_you_mean == "anna@gmail.example"
    assert worker.stage(number) == "Ghost"
    assert worker.contact(number).fields["email_suggestion"] == "anna@gmail.example"


def test_an_unheard_of_status_is_held_with_a_warning(worker):
    number = worker.new(email=scripted(worker, "x@new.example", "quantum", "entangled"))
    worker.sync()
    assert worker.stage(number) == "Ghost"
    assert ("unknown_status", {"status": "quantum", "sub_status": "entangled", "treated_as": "held"}) in worker.told


def with_only_if(make_worker, tmp_path, condition):
    (tmp_path / "rules").mkdir()
    packaged = (packaged_mappings_dir() / "validation.yaml").read_text()
    rules = re.sub(r"^only_if: .*$", lambda _: f"only_if: {condition}", packaged, flags=re.MULTILINE)
    (tmp_path / "rules" / "validation.yaml").write_text(rules, encoding="utf-8")
    worker = make_worker(mappings=tmp_path / "rules")
    worker.init()
    worker.sync()
    return worker


def test_whom_only_if_leaves_out_is_told_so(make_worker, tmp_path):
    worker = with_only_if(make_worker, tmp_path, "{not: {field: country, in: [US]}}")
    number = worker.new(email="pat@only-if.example", country="United States")
    worker.sync()
    assert spent(worker) == {}
    assert worker.contact(number).fields["sync_reason"] == "Ghost: the e-mail is not to be validated (only_if)"


def test_whom_only_if_leaves_out_for_a_time_is_asked_about_when_it_is_over(make_worker, tmp_path):
    worker = with_only_if(make_worker, tmp_path, "{age: 7d}")
    number = worker.new(email=scripted(worker, "pat@only-if.example", "valid"))
    worker.sync()
    assert (worker.stage(number), spent(worker)) == ("Ghost", {})
    worker.skew = 7 * DAY + 3600
    worker.sync()
    assert (worker.stage(number), spent(worker)) == ("Lead", {"pat@only-if.example": 1})
