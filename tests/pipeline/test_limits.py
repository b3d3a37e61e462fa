"""Limits in the large: what counts towards the safety stop, and what a run may not do behind anybody's back."""

from __future__ import annotations

import pytest

from mautic_sync.errors import ConfigError, SafetyStop, StopError
from mautic_sync.pipeline import validate


@pytest.fixture
def worker(make_worker):
    worker = make_worker()
    worker.init()
    return worker


def plan_of(stopped) -> str:
    return str(stopped.value).rpartition(" ")[2].strip("`.")


def test_one_contact_that_does_not_exist_widens_nothing(worker):
    worker.new(email="valid@example.com")
    worker.plan()
    with pytest.raises(StopError, match="no contact 999999"):
        worker.sync(contact=999_999)
    assert set(worker.box.stats()["stages"]) == {"none"}


def test_a_first_import_larger_than_the_budget_is_ordinary_work(worker):
    """Newcomers whose verdict arrives are not taken out of ghost: no stop, run after run."""
    worker.sync()
    for number in range(100):
        worker.new(email=f"p{number}@example.com" if number % 2 else f"valid+{number}@example.com")
    short = worker.but(zerobounce={"max_credits_per_run": 30})
    for _ in range(3):
        short.sync()
    assert short.sync()["kinds"]["lead"] > 60


def test_a_run_that_would_stop_spends_nothing_first(worker):
    leads = [worker.new(firstname=f"L{number}", phone=f"+49 30 {number}") for number in range(40)]
    worker.sync()
    for number in leads[:25]:
        worker.act("edit", contact=number, values={"phone": "", "overwriteWithBlank": True})
    worker.new(email="somebody@spent.example")
    with pytest.raises(SafetyStop):
        worker.sync()
    assert worker.box.stats()["credits"]["spent"] == 0


def test_an_accepted_plan_covers_what_it_showed_and_little_more(worker):
    for number in range(12):
        worker.new(firstname=f"L{number}", phone=f"+49 30 {number}")
    careful = worker.but(push={"first_run_max": 10})
    plan_id = careful.plan()["plan_id"]
    for number in range(30):
        worker.new(firstname=f"M{number}", phone=f"+49 40 {number}")
    with pytest.raises(SafetyStop) as stopped:
        careful.sync(accept=plan_id)
    assert careful.sync(accept=plan_of(stopped))["pushed"]["stages"] == 42


def test_vanished_contacts_are_remembered_until_a_run_was_let_through(worker):
    leads = [worker.new(firstname=f"L{number}", phone=f"+49 30 {number}") for number in range(40)]
    worker.sync()
    for number in leads[:30]:
        worker.act("vanish", contact=number)
    with pytest.raises(SafetyStop, match="30 vanished"):
        worker.sync(full=True)
    with pytest.raises(SafetyStop, match="30 vanished") as stopped:
        worker.sync()
    worker.sync(accept=plan_of(stopped))
    worker.sync()


def test_a_rejected_newcomer_is_told_so(worker):
    """Waiting and rejected end in the same stage for different reasons."""
    worker.sync()
    number = worker.new(email="invalid@example.com")
    worker.sync()
    worker.sync()
    assert "rejected" in worker.contact(number).fields["sync_reason"]


def test_retry_refuses_another_mautic_before_it_reads_it(worker, make_worker):
    worker.sync()
    other = make_worker(contacts=5)
    other.settings = other.settings.model_copy(update={"store": worker.settings.store})
    from mautic_sync.pipeline import pull

    with pytest.raises(ConfigError, match="belongs to"), other.run("retry") as run:
        pull.meet_instance(run, adopt=False)


def test_an_address_is_not_asked_again_at_once_after_a_crash(worker, monkeypatch):
    """The worker dies between the answer and the ledger: the address waits, so that it is not paid twice in a row."""
    worker.sync()
    worker.new(email="anna@crash.example")

    class Died(BaseException):
        pass

    def die(*_arguments, **_options):
        raise Died

    with monkeypatch.context() as dying:
        dying.setattr(validate, "keep_answer", die)
        with pytest.raises(Died):
            worker.sync()
    worker.sync()
    assert worker.box.stats()["credits"]["by_address"]["anna@crash.example"] == 1
    worker.skew = 7 * 3600
    worker.sync()
    assert worker.box.stats()["credits"]["by_address"]["anna@crash.example"] == 2


def test_an_edit_while_addresses_are_asked_is_seen_before_anything_is_written(worker, monkeypatch):
    worker.sync()
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.new(email="anna@slow.example")
    ask = validate.validate

    def slowly(run):
        ask(run)
        worker.act("set_stage", contact=number, stage="Customer")

    monkeypatch.setattr(validate, "validate", slowly)
    worker.sync()
    assert worker.stage(number) == "Customer"
