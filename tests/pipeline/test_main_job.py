"""The main job: out of Mautic, decided, and back, on both versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from mautic_sync.errors import ConfigError, SafetyStop, StopError
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.store import due, people, runs
from mautic_sync.store.schema import decision, due as due_rows
from tests.conftest import LONG

REAL_DAY = 86400


@pytest.fixture
def worker(make_worker, mautic_version):
    worker = make_worker(version=mautic_version)
    worker.act_ids = {
        "good": worker.new(email="valid@example.com", firstname="Vera"),
        "dead": worker.new(email="invalid@example.com", firstname="Ivo"),
        "unsure": worker.new(email="catch_all@example.com"),
        "phone": worker.new(firstname="Paul", phone="+49 30 901820"),
        "buyer": worker.new(email="toxic@example.com", tags=["customer"]),
        "visitor": worker.visitor(),
        "shopper": worker.visitor("https://shop.example/order/thank-you?o=1"),
    }
    worker.init()
    return worker


def test_everybody_gets_the_stage_of_what_they_are(worker):
    """Reachable → Lead, bought → Customer, everybody else → Ghost; a held address waits, a dead one is a ghost."""
    document = worker.sync()
    stages = {name: worker.stage(number) for name, number in worker.act_ids.items()}
    assert stages == {
        "good": "Lead",
        "dead": "Ghost",
        "unsure": "Ghost",
        "phone": "Lead",
        "buyer": "Customer",
        "visitor": "Ghost",
        "shopper": "Customer",
    }
    assert document["kinds"] == {"ghost": 3, "lead": 2, "customer": 2}
    assert document["pushed"]["stages"] == 7
    assert document["transitions"] == [
        {"from": None, "to": "Customer", "count": 2},
        {"from": None, "to": "Ghost", "count": 3},
        {"from": None, "to": "Lead", "count": 2},
    ]


def test_marketers_read_the_reason_and_the_verdict_in_mautic(worker):
    worker.sync()
    good = worker.contact(worker.act_ids["good"]).fields
    assert good["sync_reason"] == "Lead: e-mail accepted"
    assert good["zb_status"] == "valid"
    dead = worker.contact(worker.act_ids["dead"]).fields
    assert (dead["zb_status"], dead["zb_sub_status"]) == ("invalid", "mailbox_not_found")


def test_a_customer_is_never_sent_to_zerobounce(worker):
    """A customer stays one whatever the address: no credit for them."""
    address = "boss@bought.example"
    worker.new(email=address, tags=["customer"])
    worker.sync()
    assert address not in worker.box.stats()["credits"]["by_address"]


def test_a_plan_writes_nothing_and_spends_nothing(worker):
    worker.box.reset_stats()
    plan = worker.plan()
    assert plan["contacts"] == 7
    assert plan["changes"] == 9  # points for two of them, too
    assert plan["verdicts_needed"] == 3
    stats = worker.box.stats()
    assert stats["writes"] == 0
    assert stats["credits"]["spent"] == 0
    assert set(stats["stages"]) == {"none"}


def test_with_nothing_new_a_hundred_runs_write_nothing_and_spend_nothing(worker, mautic_version):
    runs = 100 if LONG or mautic_version == "5.1" else 20
    worker.sync()
    worker.sync()
    worker.box.reset_stats()
    spent = worker.box.stats()["credits"]["spent"]
    for _ in range(runs):
        document = worker.sync()
        assert document["pushed"] == {"stages": 0, "points": 0, "groups": 0, "fields": 0, "dnc": 0, "calls": 0}
    stats = worker.box.stats()
    assert stats["writes"] == 0
    assert stats["credits"]["spent"] == spent
    # Token, stages, contacts, and one call for each of the eight feeds that the mappings need.
    assert stats["total"] == runs * 11


def test_a_full_run_with_nothing_new_writes_nothing(worker):
    worker.sync()
    worker.sync()
    worker.box.reset_stats()
    worker.sync(full=True)
    assert worker.box.stats()["writes"] == 0


def test_an_edit_by_a_marketer_is_seen(worker):
    """On 7.0 `dateModified` never moves: the audit log tells."""
    worker.sync()
    worker.act("edit", contact=worker.act_ids["visitor"], values={"phone": "+49 40 123"})
    document = worker.sync()
    assert document["pulled"]["contacts"] == 1
    assert worker.stage(worker.act_ids["visitor"]) == "Lead"
    assert document["transitions"] == [{"from": "Ghost", "to": "Lead", "count": 1}]


def test_a_new_contact_and_a_new_visit_are_seen(worker):
    worker.sync()
    newcomer = worker.new(email="free_email@example.com")
    worker.act("visit", contact=worker.act_ids["good"], url="https://shop.example/order/thank-you")
    worker.sync()
    assert worker.stage(newcomer) == "Lead"
    assert worker.stage(worker.act_ids["good"]) == "Customer"
    assert worker.contact(worker.act_ids["good"]).fields["sync_reason"].startswith("Customer: page visit")


def test_once_a_customer_always_a_customer(worker):
    worker.sync()
    worker.act("edit", contact=worker.act_ids["buyer"], values={"tags": ["-customer"]})
    worker.sync()
    assert worker.stage(worker.act_ids["buyer"]) == "Customer"


def test_a_deleted_contact_is_let_go(worker):
    worker.sync()
    worker.act("delete", contact=worker.act_ids["phone"])
    assert worker.sync()["kinds"] == {"ghost": 3, "lead": 1, "customer": 2}


def test_a_full_run_forgets_when_somebody_was_due_and_is_no_more(worker):
    worker.sync()
    with worker.run("look") as run, run.engine.begin() as connection:
        (person,) = people.persons_of(connection, [worker.act_ids["visitor"]]).values()
        due.note(connection, [(run.now + 999 * REAL_DAY, run.now, person)])
    worker.sync(full=True)
    with worker.run("look") as run, run.engine.begin() as connection:
        decided = select(decision.c.due_at, decision.c.person_id).where(decision.c.due_at.is_not(None))
        noted = select(due_rows.c.due_at, due_rows.c.person_id)
        expected = sorted(map(tuple, connection.execute(decided)))
        assert expected
        assert sorted(map(tuple, connection.execute(noted))) == expected


def test_what_vanished_silently_is_found_by_a_full_run(worker):
    worker.sync()
    worker.act("vanish", contact=worker.act_ids["phone"])
    worker.act("vanish", contact=worker.act_ids["visitor"])
    assert worker.sync()["vanished"] == 0
    document = worker.sync(full=True)
    assert document["vanished"] == 2
    assert document["kinds"] == {"ghost": 2, "lead": 1, "customer": 2}


def test_a_contact_with_points_is_edited_alone_and_keeps_them(worker):
    """Batches swallow points: docs/mautic.md, "Writing"."""
    rich = worker.new(email="gold@example.com", points=12)
    worker.box.reset_stats()
    worker.sync()
    assert worker.contact(rich).points == 12
    assert worker.stage(rich) == "Lead"
    calls = worker.box.stats()["calls"]
    assert calls["PATCH /api/contacts/{id}/edit"] == 1
    assert calls["PATCH /api/contacts/batch/edit"] == 2  # of leads and customers, and of ghosts


def test_a_shared_address_gets_its_stage_by_the_stage_endpoint(worker):
    """Every edit of such a contact is refused with 422."""
    address = "anna@one-address.example"
    worker.post("/_sandbox/zerobounce", {"email": address, "status": "valid"})
    first, twin = worker.new(email=address), worker.visitor()
    worker.box.instance.tables.connection.execute("UPDATE leads SET email = ? WHERE id = ?", (address, twin))
    worker.sync()
    assert [worker.stage(first), worker.stage(twin)] == ["Lead", "Lead"]
    assert worker.box.stats()["credits"]["by_address"] == {address: 1}
    document = worker.sync()
    assert document["pushed"]["calls"] == 0


def test_init_creates_only_what_the_mappings_name_and_is_safe_to_repeat(worker):
    instance = worker.box.instance
    before = (len(instance.stages), worker.box.stats()["stages"])
    worker.box.reset_stats()
    worker.init()
    assert (len(instance.stages), worker.box.stats()["stages"]) == before
    assert worker.box.stats()["writes"] == 0
    weights = [stage.weight for stage in instance.stages.values()]
    assert len(set(weights)) == len(weights)


def test_a_plan_made_before_init_still_ends_with_reasons_in_mautic(make_worker):
    """The fields to write into did not exist when everybody was first decided."""
    worker = make_worker()
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.plan()
    worker.init()
    worker.sync()
    assert worker.contact(number).fields["sync_reason"] == "Lead: phone known"


def test_a_sync_without_init_says_so_and_writes_nothing(make_worker):
    worker = make_worker(contacts=20)
    with pytest.raises(ConfigError, match="mautic-sync init"):
        worker.sync()
    assert worker.box.stats()["writes"] == 0


def test_without_a_key_the_gate_holds_nobody_and_says_so_once_a_run(make_worker):
    worker = make_worker(zerobounce={"api_key": None})
    number = worker.new(email="invalid@example.com")
    wrong = worker.visitor()
    worker.box.instance.tables.connection.execute("UPDATE leads SET email = 'no address' WHERE id = ?", (wrong,))
    worker.init()
    worker.sync()
    assert worker.stage(number) == "Lead"
    assert worker.stage(wrong) == "Ghost"
    assert [event for event, _ in worker.told].count("gate_open") == 1


def test_a_key_that_comes_later_takes_only_the_rejected_away(make_worker):
    worker = make_worker(zerobounce={"api_key": None})
    dead, good, unsure = (worker.new(email=f"{name}@example.com") for name in ("invalid", "valid", "catch_all"))
    worker.init()
    worker.sync()
    keyed = worker.but(zerobounce={"api_key": "sandbox-key"})
    keyed.sync()
    assert [keyed.stage(number) for number in (dead, good, unsure)] == ["Ghost", "Lead", "Lead"]


def test_runs_that_begin_in_the_same_second_are_listed_in_their_order(make_worker):
    worker = make_worker()
    worker.skew = 3600  # the clock is then set back: all that follow begin in the second of the first
    begun = []
    for number in range(6):
        with worker.run(f"look{number}") as run:
            begun.append(run.id)
        worker.skew = 0
    with worker.run("look") as run, run.engine.begin() as connection:
        assert [row["id"] for row in runs.last_runs(connection)] == [run.id, *reversed(begun)]


def test_another_mautic_behind_the_same_store_is_refused(worker, make_worker):
    worker.sync()
    other = make_worker(contacts=5)
    other.settings = other.settings.model_copy(update={"store": worker.settings.store})
    with pytest.raises(ConfigError, match="belongs to the Mautic at"):
        other.sync()


def test_a_store_belongs_to_the_first_mautic_that_answered(worker):
    elsewhere = worker.box.url.replace("127.0.0.1", "localhost")
    refused = worker.but(mautic={"base_url": elsewhere, "client_secret": "wrong"})
    with pytest.raises(StopError):
        refused.sync()
    assert worker.sync()["failed"] == 0
    with pytest.raises(StopError):
        refused.sync(adopt=True)
    assert worker.sync()["failed"] == 0


def test_a_mautic_that_was_set_back_is_refused_until_a_full_run(worker, make_worker):
    """A feed that ends below our cursor: a restored backup, or another Mautic at the same address."""
    worker.sync()
    tables = worker.box.instance.tables.connection
    tables.execute("DELETE FROM audit_log WHERE id > 5")
    with pytest.raises(SafetyStop, match="sync --full") as stopped:
        worker.sync()
    assert stopped.value.facts["plan"] is None
    assert worker.sync(full=True)["failed"] == 0
    assert worker.sync()["pushed"]["calls"] == 0


def test_an_unreachable_mautic_is_told_with_what_to_do(make_worker):
    worker = make_worker()
    worker.box.stop()
    with pytest.raises(StopError, match=r"mautic\.base_url|reach"):
        worker.sync()


def test_changed_mappings_decide_everybody_again(worker, tmp_path: Path):
    worker.sync()
    rules = tmp_path / "rules"
    rules.mkdir()
    text = (packaged_mappings_dir() / "stages.yaml").read_text()
    (rules / "stages.yaml").write_text(text.replace("        - {field: phone, not_empty: true}\n", ""))
    worker.mappings_dir = rules
    worker.sync()
    assert worker.stage(worker.act_ids["phone"]) == "Ghost"


def test_another_rule_in_the_same_place_tells_its_own_reason(worker, tmp_path: Path):
    """Both rules are called `Lead:any[2]`; the reason of the first must not stay."""
    number = worker.new(phone="+49 30 901820", city="Rome")
    worker.sync()
    assert worker.contact(number).fields["sync_reason"] == "Lead: phone known"
    rules = tmp_path / "rules"
    rules.mkdir()
    text = (packaged_mappings_dir() / "stages.yaml").read_text()
    (rules / "stages.yaml").write_text(text.replace("{field: phone, not_empty: true}", "{field: city, is: Rome}"))
    worker.mappings_dir = rules
    worker.sync()
    assert worker.contact(number).fields["sync_reason"] == "Lead: city Rome"


def test_a_rule_on_a_field_that_was_not_kept_reads_everybody_again(worker, tmp_path: Path):
    """What new rules need and the store lacks is pulled first."""
    worker.sync()
    worker.act("edit", contact=worker.act_ids["visitor"], values={"city": "Rome"})
    worker.sync()
    rules = tmp_path / "rules"
    rules.mkdir()
    text = (packaged_mappings_dir() / "stages.yaml").read_text()
    (rules / "stages.yaml").write_text(
        text.replace(
            "{field: phone, not_empty: true}", "{any: [{field: phone, not_empty: true}, {field: zipcode, is: '00100'}]}"
        )
    )
    number = worker.new(firstname="Zip", zipcode="00100")
    worker.sync()
    assert worker.stage(number) == "Ghost"
    worker.mappings_dir = rules
    worker.sync()
    assert worker.stage(number) == "Lead"
