"""Activity of every feed, normalised and kept right, and rules that read it."""

from __future__ import annotations

import orjson
import pytest
import requests
from sqlalchemy import select

from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.store.people import persons_of
from mautic_sync.store.schema import activity, contact

GHOST = "  - stage: Ghost\n    kind: ghost\n    weight: 10\n"


def rules(tmp_path, condition: str):
    """Mappings whose leads are those for whom this condition holds."""
    directory = tmp_path / "rules"
    directory.mkdir(exist_ok=True)
    (directory / "stages.yaml").write_text(
        f"version: 1\nstages:\n  - stage: Lead\n    kind: lead\n    weight: 20\n    when: {condition}\n{GHOST}"
    )
    (directory / "scoring.yaml").write_text((packaged_mappings_dir() / "scoring.yaml").read_text())
    return directory


@pytest.fixture
def worker(make_worker, mautic_version):
    return make_worker(version=mautic_version)


def activities(worker, contact: int) -> list[tuple[str, dict]]:
    with worker.run("look") as run, run.engine.begin() as connection:
        person = persons_of(connection, [contact])[contact]
        rows = connection.execute(
            select(activity).where(activity.c.person_id == person).order_by(activity.c.source, activity.c.id)
        ).mappings()
        return [(row["type"], orjson.loads(row["attributes"])) for row in rows]


def test_every_feed_that_the_mappings_need_is_read(worker, tmp_path):
    worker.mappings_dir = rules(
        tmp_path, "{all: [{activity: email.bounced, at_least: 1}, {activity: dnc.unsubscribed, at_least: 1}]}"
    )
    who = worker.new(email="kim@feeds.example")
    worker.act("visit", contact=who, url="https://shop.example/pricing?utm_source=news&utm_campaign=may")
    worker.act("send", contact=who)
    worker.act("open", contact=who)
    worker.act("click", contact=who, url="https://shop.example/offer")
    worker.act("reply", contact=who)
    worker.act("unsubscribe", contact=who)
    worker.init()
    worker.sync()
    found = activities(worker, who)
    kinds = {kind for kind, _ in found}
    assert {"page.hit", "email.sent", "email.read", "email.click", "email.replied", "dnc.unsubscribed"} <= kinds
    hit = next(attributes for kind, attributes in found if kind == "page.hit")
    assert (hit["utm_source"], hit["utm_campaign"]) == ("news", "may")
    assert len(found) == len({(kind, str(attributes)) for kind, attributes in found})


def test_a_mail_opened_later_is_seen_though_its_row_is_old(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{activity: email.read, at_least: 1}")
    who = worker.new(email="kim@feeds.example")
    worker.act("send", contact=who)
    worker.init()
    worker.sync()
    assert worker.stage(who) == "Ghost"
    worker.post("/_sandbox/clock", {"advance": 3 * 86400})
    worker.skew = 3 * 86400
    worker.act("open", contact=who)
    worker.sync()
    assert worker.stage(who) == "Lead"


def test_the_name_of_a_form_is_what_the_rule_says(make_worker, tmp_path):
    worker = make_worker(
        contacts=40, mappings=rules(tmp_path, "{activity: form.submitted, where: {form: Signup}, at_least: 1}")
    )
    who = worker.new(firstname="Pat")
    worker.init()
    worker.sync()
    assert worker.stage(who) == "Ghost"
    worker.act("form", form="Contact", contact=who, values={"firstname": "Pat"})
    worker.sync()
    assert worker.stage(who) == "Ghost"
    worker.act("form", form="Signup", contact=who, values={"firstname": "Pat"})
    worker.sync()
    assert worker.stage(who) == "Lead"


@pytest.mark.parametrize("type_", ["email.replied", "email.bounced"])
def test_an_answer_and_a_bounce_tell_of_which_mail(worker, tmp_path, type_):
    first, second = (worker.new(email=f"{name}@feeds.example") for name in ("kim", "pat"))
    worker.act("send", contact=first)
    worker.act("reply", contact=first)
    bounce = {"reason": 2, "channelId": 1}
    with requests.Session() as session:
        session.trust_env = False
        address = f"{worker.box.url}/api/contacts/{second}/dnc/email/add"
        assert session.post(address, json=bounce, auth=("admin", "sandbox"), timeout=5).ok
    who = first if type_ == "email.replied" else second
    for name, stage in (("Offer", "Ghost"), ("Newsletter", "Lead")):
        where = f"{{activity: {type_}, where: {{email: {name}}}, optional: true}}"
        worker.mappings_dir = rules(tmp_path, where)
        worker.init()
        worker.sync()
        assert worker.stage(who) == stage


def test_activity_within_a_time_ends_when_the_time_is_over(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{activity: page.hit, within: 30d, at_least: 2}")
    who = worker.visitor("https://shop.example/a")
    worker.act("visit", contact=who, url="https://shop.example/b")
    worker.init()
    worker.sync()
    assert worker.stage(who) == "Lead"
    worker.skew = 29 * 86400
    worker.sync()
    assert worker.stage(who) == "Lead"
    worker.skew = 31 * 86400
    worker.sync()
    assert worker.stage(who) == "Ghost"


def test_new_rules_find_the_activity_of_before(worker, tmp_path):
    who = worker.visitor("https://shop.example/pricing/big")
    worker.init()
    worker.sync()
    assert worker.stage(who) == "Ghost"
    worker.mappings_dir = rules(tmp_path, "{activity: page.hit, where: {url: '*/pricing/*'}, at_least: 1}")
    worker.sync()
    assert worker.stage(who) == "Lead"


def test_membership_of_a_segment_counts_and_ends(make_worker, tmp_path):
    worker = make_worker(contacts=30, mappings=rules(tmp_path, "{segment: nurture}"))
    who = worker.new(firstname="Pat")
    worker.init()
    worker.sync()
    assert worker.stage(who) == "Ghost"
    with worker.run("look") as run:
        from mautic_sync.mautic.provisioning import list_segments

        nurture = next(one.id for one in list_segments(run.mautic) if one.alias == "nurture")
        run.mautic.write("POST", f"segments/{nurture}/contact/{who}/add")
    worker.sync()
    assert worker.stage(who) == "Lead"
    with worker.run("look") as run:
        run.mautic.write("POST", f"segments/{nurture}/contact/{who}/remove")
    worker.sync()
    assert worker.stage(who) == "Ghost"


def test_somebody_who_is_idle_is_decided_again_when_the_time_has_come(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{not: {idle: 10d}}")
    who = worker.visitor()
    worker.init()
    worker.sync()
    assert worker.stage(who) == "Lead"
    worker.skew = 9 * 86400
    worker.sync()
    assert worker.stage(who) == "Lead"
    worker.skew = 11 * 86400
    worker.sync()
    assert worker.stage(who) == "Ghost"
    worker.act("visit", contact=who, url="https://shop.example/")
    worker.post("/_sandbox/clock", {"advance": 11 * 86400})
    worker.act("visit", contact=who, url="https://shop.example/")
    worker.sync()
    assert worker.stage(who) == "Lead"


def test_a_mail_that_was_answered_was_read_though_never_opened(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{activity: email.read}")
    who = worker.new(email="kim@feeds.example")
    worker.post("/_sandbox/clock", {"advance": -3 * 86400})
    worker.act("send", contact=who)
    worker.init()
    worker.sync()
    worker.post("/_sandbox/clock", {"advance": 3 * 86400})
    worker.act("send", contact=worker.new(email="pat@feeds.example"))
    worker.act("reply", contact=who)
    worker.sync()
    assert worker.stage(who) == "Lead"


def active(worker, who) -> tuple[int | None, int | None]:
    """When somebody was last active, for us and for Mautic."""
    with worker.run("look") as run, run.engine.begin() as connection:
        person = persons_of(connection, [who])[who]
        ours = connection.execute(select(contact.c.last_active).where(contact.c.person_id == person)).scalar_one()
    return ours, worker.contact(who).last_active


def test_each_opening_of_a_mail_is_activity(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{not: {idle: 10d}}")
    worker.post("/_sandbox/clock", {"advance": -50 * 86400})
    who = worker.visitor()
    worker.act("send", contact=who)
    worker.init()
    worker.sync()
    for days, stage in ((20, "Ghost"), (15, "Ghost"), (15, "Lead")):
        worker.post("/_sandbox/clock", {"advance": days * 86400})
        worker.act("open", contact=who)
        worker.sync()
        ours, mautics = active(worker, who)
        assert (ours, worker.stage(who)) == (mautics, stage)


def test_an_answer_is_no_activity_to_mautic(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{not: {idle: 10d}}")
    worker.post("/_sandbox/clock", {"advance": -50 * 86400})
    who = worker.visitor()
    worker.act("send", contact=who)
    worker.post("/_sandbox/clock", {"advance": 50 * 86400})
    worker.act("reply", contact=who)
    worker.init()
    worker.sync()
    ours, mautics = active(worker, who)
    assert (ours, worker.stage(who)) == (mautics, "Ghost")


@pytest.mark.parametrize("condition", ["{activity: page.hit}", "{activity: page.hit, within: 7d}"])
def test_a_visit_that_mautic_dates_ahead_counts_when_its_time_has_come(worker, tmp_path, condition):
    worker.mappings_dir = rules(tmp_path, condition)
    worker.post("/_sandbox/clock", {"advance": 20 * 3600})
    who = worker.visitor()
    worker.post("/_sandbox/clock", {"advance": -20 * 3600})
    worker.init()
    for hours, stage in ((0, "Ghost"), (19, "Ghost"), (21, "Lead")):
        worker.skew = hours * 3600
        worker.sync()
        assert worker.stage(who) == stage
