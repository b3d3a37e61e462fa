"""What the doctor sees of a Mautic."""

from __future__ import annotations

import pytest
import requests

from mautic_sync.doctor.connection import judge_expiry, judge_limit, judge_skew, judge_version
from mautic_sync.doctor.rivals import is_private
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.mautic.automation import Role
from mautic_sync.mautic.provisioning import list_stages
from mautic_sync.pipeline.provision import provision

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
DAY = 86_400
NOW = 1_800_000_000


def post(worker, path, body):
    answer = requests.post(f"{worker.box.url}/api/{path}", json=body, auth=("admin", "sandbox"), timeout=10)
    assert answer.status_code == 201, answer.text
    return next(iter(answer.json().values()))


def patch(worker, path, body):
    answer = requests.patch(f"{worker.box.url}/api/{path}", json=body, auth=("admin", "sandbox"), timeout=10)
    assert answer.ok, answer.text


@pytest.fixture
def ready(doctor, mautic_version):
    """All that `init` makes is there."""
    examined = doctor(version=mautic_version)
    examined.worker.init()
    return examined


def test_all_is_well_after_init(ready):
    found = ready()
    assert [(name, one) for name, one in found.items() if one.state == "failed"] == []
    assert found["mautic.version"].facts["version"] == ready.worker.box.instance.traits.version
    assert found["stages"].state == found["fields"].state == found["names"].state == "ok"
    assert found["rights.writing"].state == "ok"


def test_a_segment_that_filters_another_stage_or_tag_is_named(doctor, rules, mautic_version):
    """As after a stage was renamed, or a tag deleted and made anew; what a marketer filters besides is no matter."""
    fields = "create_segments: {Leads: {stage: Lead}, Hot: {tag: hot}, VIP: {tag: vip}, Ghosts: {stage: Ghost}}\n"
    examined = doctor(version=mautic_version, mappings=rules(fields=fields))
    worker = examined.worker
    on_stage = {"glue": "and", "field": "stage", "object": "lead", "type": "stage", "operator": "="}
    on_tag = {"glue": "and", "field": "tags", "object": "lead", "type": "tags", "operator": "in"}
    on_city = {"glue": "and", "field": "city", "object": "lead", "type": "text", "operator": "="}
    other = post(worker, "stages/new", {"name": "Interessent", "weight": 90})["id"]
    ghost = post(worker, "stages/new", {"name": "Ghost", "weight": 10})["id"]
    hot = post(worker, "tags/new", {"tag": "hot"})["id"]
    vip = post(worker, "tags/new", {"tag": "vip"})["id"]
    post(worker, "segments/new", {"name": "leads", "filters": [{**on_stage, "properties": {"filter": str(other)}}]})
    post(worker, "segments/new", {"name": "Hot", "filters": [{**on_tag, "filter": [str(hot)], "properties": []}]})
    post(
        worker,
        "segments/new",
        {"name": "VIP", "filters": [{**on_tag, "operator": "!in", "properties": {"filter": [vip]}}]},
    )
    city = {**on_city, "properties": {"filter": "Rome"}}
    post(worker, "segments/new", {"name": "Ghosts", "filters": [city, {**on_stage, "properties": {"filter": ghost}}]})
    with worker.run("init") as run:
        amiss = {one.name: one.amiss for one in provision(run) if one.amiss}
        lead = next(one.id for one in list_stages(run.mautic) if one.name == "Lead")
    told = f"filters stage {other}, not Lead ({lead})"
    fix = "correct its filter in Mautic, or delete it and run `mautic-sync init` again"
    assert amiss == {"Leads": f"{told}: {fix}", "VIP": f"filters no tag, not vip ({vip}): {fix}"}
    found = examined()["segments"]
    assert (found.state, found.told) == (
        "warning",
        f"segment Leads {told}; segment VIP filters no tag, not vip ({vip})",
    )
    assert found.fix == f"C{fix[1:]}."


def test_a_segment_whose_tag_no_rule_sets_any_more_is_named(doctor, rules):
    actions = (packaged_mappings_dir() / "actions.yaml").read_text().replace("[hot]", "[heiss]")
    examined = doctor(mappings=rules(actions=actions.replace("version: 1\n", "")))
    examined.worker.init()
    found = examined()["segments"]
    told = "no rule sets the tag of Hot leads (hot): whoever has it keeps it, and stays in the segment"
    assert (found.state, found.told) == ("warning", told)


def test_a_segment_that_is_missing_is_for_init(doctor):
    examined = doctor()
    assert examined()["segments"].told == "missing in Mautic: Ghosts, Leads, Customers, Hot leads, Low value"
    examined.worker.init()
    assert examined()["segments"].state == "ok"


# -- the way there


def test_a_mautic_that_is_down_is_told_once_and_the_rest_is_skipped(ready):
    ready.worker.box.stop()
    found = ready()
    assert found["mautic.reachable"].state == "failed"
    assert "could not be reached" in found["mautic.reachable"].told
    assert found["mautic.credentials"].state == found["stages"].state == found["feeds"].state == "skipped"
    assert found["store"].state == "ok"
    assert [name for name, one in found.items() if one.state == "failed"] == ["mautic.reachable", "zerobounce.key"]


def test_what_is_no_mautic_is_told(ready):
    ready.worker.act("html", next=5)
    found = ready()
    assert found["mautic.reachable"].state == "failed"
    assert "API enabled" in found["mautic.reachable"].fix


def test_a_wrong_secret_is_told(ready):
    ready.worker = ready.worker.but(mautic={"client_secret": "wrong"})
    found = ready()
    assert found["mautic.reachable"].state == "ok"
    assert found["mautic.credentials"].state == "failed"
    assert "client_secret" in found["mautic.credentials"].told + found["mautic.credentials"].fix


def test_basic_auth_alone_is_dear(ready):
    ready.worker = ready.worker.but(
        mautic={"client_id": None, "client_secret": None, "username": "admin", "password": "sandbox"}
    )
    found = ready()
    assert found["mautic.credentials"].state == "warning"
    assert "ten times" in found["mautic.credentials"].told
    assert "OAuth 2" in found["mautic.credentials"].fix


@pytest.mark.parametrize(("password", "state"), [("sandbox", "ok"), ("wrong", "warning")])
def test_the_fallback_beside_a_client_is_tried(ready, password, state):
    ready.worker = ready.worker.but(mautic={"username": "admin", "password": password})
    assert ready()["mautic.basic"].state == state


def test_no_address_is_a_matter_of_settings(doctor):
    examined = doctor(mautic={"base_url": None})
    found = examined()
    assert found["mautic.address"].configuration
    assert "mautic-sync init" in found["mautic.address"].fix
    assert found["mautic.reachable"].state == "skipped"


@pytest.mark.parametrize(
    ("version", "pushes", "state"),
    [
        ("5.1.0", True, "ok"),
        ("7.0.3", True, "ok"),
        ("6.0.1", True, "ok"),
        ("4.4.9", True, "failed"),
        ("4.4.9", False, "warning"),
        ("7.1.0", True, "warning"),
        (None, True, "warning"),
    ],
)
def test_versions(version, pushes, state):
    assert judge_version(version, pushes=pushes).state == state


@pytest.mark.parametrize(("days", "state"), [(300, "ok"), (22, "ok"), (20, "warning"), (0, "warning")])
def test_a_certificate_that_expires_soon_is_told_with_its_day(days, state):
    found = judge_expiry(NOW + days * DAY, "An Authority", NOW)
    assert found.state == state
    assert found.facts["expires"] in found.told


@pytest.mark.parametrize(("skew", "state"), [(None, "skipped"), (-59, "ok"), (61, "warning"), (-3600, "warning")])
def test_skew(skew, state):
    assert judge_skew(skew).state == state


def test_a_clock_that_runs_ahead_is_measured(ready):
    ready.worker.box.advance(1800)
    found = ready()["mautic.clock"]
    assert found.state == "warning"
    assert "30 min ahead of ours" in found.told
    assert abs(found.facts["skew_seconds"] - 1800) < 60


@pytest.mark.parametrize(
    ("limit", "refused", "state"), [(None, False, "ok"), (100, False, "warning"), (None, True, "failed")]
)
def test_rate_limits(limit, refused, state):
    assert judge_limit(limit, None, refused=refused).state == state


def test_being_refused_for_too_many_calls_is_told(ready):
    ready.worker.post("/_sandbox/faults", {"spec": "seed=1,rate=1"})
    found = ready()
    assert found["mautic.reachable"].state == "failed"
    assert "429" in found["mautic.reachable"].told


# -- rights


def test_a_role_without_rights_is_told_row_by_row(ready):
    ready.worker.act("restrict", rights=["contacts:view", "stages:view", "fields:view", "stats:view"])
    found = ready()
    assert found["rights.contacts"].state == found["rights.stages"].state == found["rights.feeds"].state == "ok"
    assert found["rights.segments"].state == found["rights.forms"].state == "failed"
    assert "lead:lists:viewother" in found["rights.segments"].told
    assert found["rights.triggers"].state == "warning"
    assert found["rights.writing"].state == "failed"
    assert "lead:leads:editown" in found["rights.writing"].told
    assert found["two_writers.points"].state == "skipped"


def test_the_rights_that_are_enough_are_enough(ready):
    view = ["stages", "fields", "segments", "forms", "points", "stats", "campaigns", "webhooks"]
    ready.worker.act("restrict", rights=["contacts:view", "contacts:edit", *(f"{one}:view" for one in view)])
    found = ready()
    assert found["rights.writing"].state == "warning"  # for no role may write the notes of the packaged actions
    assert "notes" in found["rights.writing"].told
    assert [name for name, one in found.items() if name.startswith("rights.") and one.state == "failed"] == []


def test_seeing_ones_own_contacts_alone_is_told(ready):
    ready.worker.new(firstname="Pat")
    ready.worker.act("restrict", rights=["contacts:viewown"])
    found = ready()["rights.contacts"]
    assert found.state == "failed"
    assert "lead:leads:viewother" in found.told


def test_a_role_whose_rights_are_not_told_is_seen_at_the_first_write():
    assert not Role("Worker", is_admin=False, granted=None).lacks("lead:leads:editown")
    assert not Role("Worker", is_admin=False, granted={"lead:leads": frozenset({"full"})}).lacks("lead:leads:editown")
    assert Role("Worker", is_admin=False, granted={"lead:leads": frozenset({"editown"})}).lacks("lead:leads:editother")


def test_a_role_that_cannot_make_what_init_makes_is_told(doctor):
    examined = doctor()
    examined.worker.act(
        "restrict", rights=["contacts:view", "contacts:edit", "stages:view", "fields:view", "segments:view"]
    )
    found = examined()["rights.writing"]
    assert found.state == "warning"
    assert "stage:stages:create, lead:fields:full, lead:lists:create" in found.told


# -- stages and fields


def test_stages_that_are_missing_hidden_double_or_of_one_weight(doctor):
    examined = doctor()
    worker = examined.worker
    found = examined()["stages"]
    assert (found.state, found.fix) == ("failed", "Run `mautic-sync init`, which creates it.")
    worker.init()
    lead = next(one for one in worker.box.instance.stages.values() if one.name == "Lead")
    other = post(worker, "stages/new", {"name": "Partner", "weight": lead.weight})
    found = examined()["stages"]
    assert found.state == "warning"
    assert "Lead and Partner" in found.told
    patch(worker, f"stages/{other['id']}/edit", {"weight": 77})
    assert examined()["stages"].state == "ok"
    twin = post(worker, "stages/new", {"name": "Lead", "weight": 78})
    assert "two published stages of one name: Lead" in examined()["stages"].told
    patch(worker, f"stages/{twin['id']}/edit", {"isPublished": False})
    assert examined()["stages"].state == "ok"
    worker.act("unpublish_stage", stage=lead.id)
    found = examined()["stages"]
    assert (found.state, found.told) == ("failed", "unpublished in Mautic: Lead")


def test_fields_that_are_missing_hidden_or_of_another_type(doctor, rules):
    create = "create:\n  - {alias: sync_reason, label: Why, type: text}\nwrite:\n  sync_reason: '{reason}'\n"
    examined = doctor(mappings=rules(fields=create))
    worker = examined.worker
    assert examined()["fields"].fix == "Run `mautic-sync init`, which creates it."
    post(worker, "fields/contact/new", {"label": "Why", "alias": "sync_reason", "type": "datetime"})
    found = examined()["fields"]
    assert (found.state, found.told) == ("failed", "sync_reason is datetime, not text")
    made = worker.box.instance.fields_by_alias["sync_reason"]
    made.published = False
    assert "unpublished" in examined()["fields"].told
    made.published, made.type = True, "text"
    assert examined()["fields"].state == "ok"


def test_what_rules_name_and_mautic_lacks_is_told(doctor, rules):
    stages = (
        "stages:\n  - {stage: Customer, kind: customer, weight: 30, when: {field: no_such_field, gt: 0}}\n"
        "  - {stage: Lead, kind: lead, weight: 20, when: {verdict: accepted}}\n"
        "  - {stage: Ghost, kind: ghost, weight: 10}\n"
    )
    found = doctor(mappings=rules(stages=stages))()["names"]
    assert found.state == "failed"
    assert "no_such_field" in found.told
    assert found.configuration


# -- two writers


def campaign(events, **more):
    return {"name": "Welcome", "isPublished": True, "events": events, "lists": [], "forms": [], **more}


def act(type_, **properties):
    return {"id": "new1", "name": "act", "type": type_, "eventType": "action", "order": 1, "properties": properties}


def waits(type_):
    return {"id": "new2", "name": "wait", "type": type_, "eventType": "decision", "order": 1, "properties": {}}


def test_a_campaign_that_moves_a_managed_stage_is_told(ready):
    worker = ready.worker
    lead = next(one.id for one in worker.box.instance.stages.values() if one.name == "Lead")
    partner = post(worker, "stages/new", {"name": "Partner", "weight": 99})["id"]
    post(worker, "campaigns/new", campaign([act("stage.change", stage=partner)]))
    assert ready()["two_writers.stages"].state == "ok"
    made = post(worker, "campaigns/new", campaign([act("stage.change", stage=lead)], name="Nurture"))
    found = ready()["two_writers.stages"]
    assert found.state == "warning"
    assert "the campaign Nurture (to Lead)" in found.told
    patch(worker, f"campaigns/{made['id']}/edit", {"isPublished": False})
    assert ready()["two_writers.stages"].state == "ok"


def test_a_trigger_that_moves_stages_is_told(ready):
    events = [{"name": "move", "type": "stage.change", "properties": {}}]
    post(ready.worker, "points/triggers/new", {"name": "Gift", "points": 50, "events": events})
    found = ready()
    assert "the point trigger Gift" in found["two_writers.stages"].told
    assert (found["two_writers.triggers"].state, "Gift (at 50)" in found["two_writers.triggers"].told) == (
        "warning",
        True,
    )


def test_an_unpublished_trigger_fires_nothing(ready):
    post(ready.worker, "points/triggers/new", {"name": "Draft", "points": 5, "isPublished": False})
    assert ready()["two_writers.triggers"].state == "ok"


def test_what_mautic_rewards_as_we_do_is_told(ready):
    worker = ready.worker
    post(worker, "points/new", {"name": "Any page", "type": "url.hit", "delta": 2})
    found = ready()["two_writers.points"]
    assert found.state == "warning"
    assert "the point rule Any page (+2) and Reads pricing, Reads" in found.told


def test_what_mautic_takes_points_for_is_told_as_counting_twice(ready):
    post(ready.worker, "points/new", {"name": "Lurker", "type": "url.hit", "delta": -5})
    found = ready()["two_writers.points"]
    assert found.told.startswith(
        "the same thing counts twice, in Mautic and in scoring.yaml: the point rule Lurker (-5)"
    )


def test_a_campaign_and_a_form_that_reward_what_we_do_are_told(ready):
    worker = ready.worker
    post(worker, "campaigns/new", campaign([waits("email.open"), act("lead.changepoints", points=3)]))
    action = {"name": "Points", "type": "lead.pointschange", "order": 1, "properties": {"points": 5}}
    post(worker, "forms/new", {"name": "Signup", "fields": [], "actions": [action]})
    found = ready()["two_writers.points"]
    assert "the campaign Welcome and Opens" in found.told
    assert "the form Signup and Answers a form" in found.told


def test_what_mautic_rewards_and_we_do_not_is_no_matter(ready):
    worker = ready.worker
    post(worker, "points/new", {"name": "Draft", "type": "url.hit", "delta": 2, "isPublished": False})
    post(worker, "points/new", {"name": "Sent", "type": "email.send", "delta": 2})
    post(worker, "campaigns/new", campaign([act("lead.changepoints", points=3)]))
    found = ready()["two_writers.points"]
    assert found.state == "ok"
    assert "2 published in Mautic reward something else" in found.told


def test_points_that_are_not_pushed_meet_nobodys(doctor, rules):
    scoring = "groups:\n  interest:\n    - {name: Reads, on: page.hit, points: 1}\npush: {to: none}\n"
    found = doctor(mappings=rules(scoring=scoring, actions="on: []\n"))()
    assert found["two_writers.points"].state == found["two_writers.triggers"].state == "skipped"


def test_webhooks_to_private_addresses_are_refused_by_newer_versions(ready):
    hook = {"name": "sync", "webhookUrl": "http://mautic_sync:8765/hook", "triggers": ["mautic.page_on_hit"]}
    post(ready.worker, "hooks/new", hook)
    found = ready()["webhooks"]
    newer = ready.worker.box.instance.traits.version.startswith("7")
    assert found.state == ("warning" if newer else "ok")
    assert ("webhook_allowed_private_addresses" in found.fix) == newer


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://hooks.example.com/x", False),
        ("https://93.184.215.14/x", False),
        ("http://mautic_sync:8765/x", True),
        ("http://10.0.0.7/x", True),
        ("http://[::1]/x", True),
        ("http://worker.internal/x", True),
    ],
)
def test_private_addresses(url, private):
    assert is_private(url) == private


# -- owners and messages


def test_owners_are_looked_up_and_addresses_of_messages_only_read(doctor, rules, monkeypatch):
    actions = (
        "on:\n  - become: hot\n    do: {owner: {round_robin: [admin, nobody, away@example.com]}, "
        "notify: {to: ['env:OUR_CHAT', 'json://localhost/x'], text: hi}}\n"
    )
    examined = doctor(mappings=rules(actions=actions))
    found = examined()
    assert found["actions.owners"].told == "this Mautic has no such user: nobody, the 3. owner (an address)"
    examined.worker.box.instance.users.update(
        {2: {"username": "nobody"}, 3: {"email": "away@example.com", "isPublished": False}}
    )
    assert examined()["actions.owners"].told == "unpublished in Mautic: the 3. owner (an address)"
    assert "the 1. of 2: the environment has no OUR_CHAT" in found["actions.messages"].told
    monkeypatch.setenv("OUR_CHAT", "nonsense")
    found = examined()["actions.messages"]
    assert (found.state, "nonsense" in found.told) == ("failed", False)
    monkeypatch.setenv("OUR_CHAT", "json://localhost/secret-token")
    found = examined()["actions.messages"]
    assert (found.state, "secret-token" in found.told) == ("ok", False)
