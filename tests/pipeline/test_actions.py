"""Actions: set off by transitions, done once, never on the baseline."""

from __future__ import annotations

import re
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import orjson
import pytest
import requests
from sqlalchemy import select, update

from mautic_sync.errors import ForbiddenError, MauticSyncError, SafetyStop, StopError
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.mautic.provisioning import list_stages
from mautic_sync.mautic.writes import Doubtful
from mautic_sync.pipeline import actions as acting, decide as deciding, push, refusals, undo
from mautic_sync.pipeline.context import MOST_ATTEMPTS
from mautic_sync.pipeline.pull import DECIDED_AS
from mautic_sync.store import actions as stored, backup, notes, people
from mautic_sync.store.schema import action, decision
from tests.pipeline.conftest import rescore

# What Apprise imports to know all its services.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NURTURE = {"name": "Nurture", "alias": "nurture", "isPublished": True}


@pytest.fixture
def rules(tmp_path):
    """Writes an actions.yaml and returns its directory; the other files are the packaged ones."""

    def write(actions=None, **files):
        directory = tmp_path / "rules"
        directory.mkdir(exist_ok=True)
        if actions is not None:
            files["actions"] = f"version: 1\n{actions}"
        for name, text in files.items():
            (directory / f"{name}.yaml").write_text(text, encoding="utf-8")
        return directory

    return write


@pytest.fixture
def scores(monkeypatch):
    """First name → points of the group `fit`, which is all that anybody has."""
    found: dict[str, int] = {}
    real = deciding.score

    def score(signals, rules, now, not_before, parts):
        fit = found.get(str(signals.fields.get("firstname")), 0)
        return real(signals, rules, now, not_before, parts)._replace(total=fit, groups={"fit": fit, "interest": 0})

    monkeypatch.setattr(deciding, "score", score)
    return found


@pytest.fixture
def started(make_worker, rules, scores):
    """`started(actions, …)`: a worker whose baseline is behind it."""

    def start(actions=None, *, version="5.1", files=None, **sections):
        worker = make_worker(version=version, mappings=rules(actions, **(files or {})), **sections)
        worker.init()
        worker.sync()
        return worker

    return start


def notes_of(worker, number) -> list[str]:
    with worker.run("look") as run:
        return [note["text"] for note in run.mautic.read(f"contacts/{number}/notes")["notes"]]


def segments_of(worker, number) -> list[str]:
    with worker.run("look") as run:
        lists = run.mautic.read(f"contacts/{number}/segments")["lists"]
        return sorted(one["alias"] for one in (lists.values() if isinstance(lists, dict) else lists))


def make_segment(worker, alias="nurture"):
    with worker.run("look") as run:
        return run.mautic.write("POST", "segments/new", {**NURTURE, "name": alias.title(), "alias": alias})["list"][
            "id"
        ]


def call(worker, method, path, body=None):
    with worker.run("look") as run:
        return run.mautic.write(method, path, body)


def rows_of(worker):
    with worker.run("look") as run, run.engine.begin() as connection:
        return list(connection.execute(action.select().order_by(action.c.id)))


def patience(worker, seconds=3600):
    """As if so much time had passed since doubtful actions were sent."""
    with worker.run("look") as run, run.engine.begin() as connection:
        connection.execute(action.update().values(sent_at=action.c.sent_at - seconds))


HOT = """
on:
  - become: hot
    do:
      tags: {add: [hot]}
      note: "Hot: {score} points. {reasons}"
  - become: cold
    do: {tags: {remove: [hot]}}
"""


def test_ghosts_come_after_the_points_and_actions_of_everybody_else(started, scores, monkeypatch):
    """On a large instance the time of many runs goes by with them."""
    worker = started(HOT)
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    ghosts = [worker.visitor(f"https://shop.example/{number}") for number in range(3)]
    scores["Pat"] = 12
    send = push._send

    def until_ghosts(run, rows):
        if any(row.mautic_id in ghosts for row in rows):
            raise StopError("time is up")
        return send(run, rows)

    with monkeypatch.context() as short:
        short.setattr(push, "_send", until_ghosts)
        with pytest.raises(StopError, match="time is up"):
            worker.sync()
    there = worker.contact(pat)
    assert (worker.stage(pat), there.points, there.tags) == ("Lead", 12, {"hot"})
    assert len(notes_of(worker, pat)) == 1
    worker.sync()
    assert {worker.stage(number) for number in ghosts} == {"Ghost"}
    assert len(notes_of(worker, pat)) == 1


# -- what sets them off ---------------------------------------------------------------------------------------------


def test_who_becomes_a_customer_leaves_a_segment(started, mautic_version):
    worker = started(version=mautic_version)
    segment = make_segment(worker)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    call(worker, "POST", f"segments/{segment}/contact/{number}/add")
    worker.sync()
    assert segments_of(worker, number) == ["nurture"]
    worker.act("edit", contact=number, values={"tags": ["customer"]})
    document = worker.sync()
    assert document["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert segments_of(worker, number) == []
    worker.box.reset_stats()
    assert worker.sync()["actions"]["done"] == 0
    assert worker.box.stats()["writes"] == 0


def test_becoming_hot_sets_a_tag_and_one_note(started, scores, mautic_version):
    worker = started(HOT, version=mautic_version)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    (note,) = notes_of(worker, number)
    (row,) = rows_of(worker)
    assert note.startswith("Hot: 12 points.")
    assert note.endswith(f" [mautic-sync:{row.key}]")
    assert worker.contact(number).tags == {"hot"}
    rescore(worker, scores, Pat=5)  # between `until` and `when`: still hot
    rescore(worker, scores, Pat=13)
    assert worker.sync()["actions"]["done"] == 0
    rescore(worker, scores, Pat=1)
    assert worker.sync()["actions"]["done"] == 1
    assert worker.contact(number).tags == frozenset()
    assert len(notes_of(worker, number)) == 1


@pytest.mark.parametrize("of_whom", ["visitor", "known"])
def test_who_is_hot_is_hot_through_a_merge_and_cold_after_it(started, scores, mautic_version, of_whom):
    """Mautic keeps the tag of either: nobody is told twice, and it goes when it is over."""
    worker = started(HOT, version=mautic_version)
    known = worker.new(firstname="Kim", phone="+49 30 1", email="valid@example.com")
    visitor = worker.visitor()
    worker.act("edit", contact=visitor, fields={"firstname": "Vis", "phone": "+49 30 2"})
    worker.sync()
    rescore(worker, scores, **({"Vis": 12} if of_whom == "visitor" else {"Kim": 12}))
    assert worker.sync()["actions"]["done"] == 1
    scores.update(Vis=5, Kim=5)  # between `until` and `when`: still hot
    worker.act("merge", visitor=visitor, known=known)
    worker.sync()
    assert (worker.contact(visitor).tags, len(notes_of(worker, visitor))) == ({"hot"}, 1)
    rescore(worker, scores, Vis=1, Kim=1)
    worker.sync()
    assert (worker.contact(visitor).tags, len(notes_of(worker, visitor))) == (frozenset(), 1)
    assert worker.sync()["pushed"]["calls"] == 0


def test_what_waits_for_a_merged_person_is_not_done_when_it_is_over(started, scores):
    worker = started(HOT)
    known = worker.new(firstname="Kim", phone="+49 30 1", email="valid@example.com")
    visitor = worker.visitor()
    worker.act("edit", contact=visitor, fields={"firstname": "Vis", "phone": "+49 30 2"})
    worker.sync()
    rescore(worker, scores, Vis=12)
    worker.sync(push=False)
    assert [row.state for row in rows_of(worker)] == ["planned"]
    scores.update(Vis=1, Kim=1)
    worker.act("merge", visitor=visitor, known=known)
    worker.sync()
    assert (worker.contact(visitor).tags, notes_of(worker, visitor)) == (frozenset(), [])


def test_nothing_is_done_on_the_baseline_nor_for_what_it_knew(make_worker, rules, scores):
    scores["Pat"] = 12
    worker = make_worker(mappings=rules(HOT + "  - {enter: {kind: lead}, do: {note: Hello}}\n"))
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.init()
    assert worker.sync()["actions"] == {"done": 0, "refused": 0, "pending": 0}
    rescore(worker, scores)
    assert worker.sync()["actions"] == {"done": 0, "refused": 0, "pending": 0}
    assert (worker.stage(number), worker.contact(number).tags, notes_of(worker, number)) == ("Lead", frozenset(), [])


def test_the_baseline_acts_when_it_is_told_to(make_worker, rules, scores):
    scores["Pat"] = 12
    worker = make_worker(mappings=rules(HOT + "  - {enter: {kind: lead}, do: {note: Hello}}\n"))
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.init()
    assert worker.sync(with_actions=True)["actions"]["done"] == 2
    assert (worker.contact(number).tags, len(notes_of(worker, number))) == ({"hot"}, 2)


def test_a_kind_is_entered_from_another_one_only(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {tags: {add: [entered]}}}\n")
    number = worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.sync()["actions"]["done"] == 1
    assert worker.contact(number).tags == {"entered"}


WELCOME = """
on:
  - {enter: {kind: lead}, do: {note: Welcome}}
  - {enter: {kind: customer}, do: {note: Thanks}}
"""


def test_a_merge_that_loses_the_stage_welcomes_nobody_again(started, mautic_version):
    worker = started(WELCOME, version=mautic_version)
    number = worker.new(firstname="Pat", phone="+49 30 1", email="pat@good.example")
    worker.sync()
    visitor = worker.visitor()
    worker.sync()
    worker.act("merge", visitor=visitor, known=number)
    assert worker.sync()["transitions"] == []
    worker.sync()
    assert worker.stage(visitor) == "Lead"
    assert len(notes_of(worker, visitor)) == 1
    worker.act("edit", contact=visitor, values={"tags": ["customer"]})
    assert worker.sync()["transitions"] == [{"from": "Lead", "to": "Customer", "count": 1}]
    assert len(notes_of(worker, visitor)) == 2


def test_of_two_leads_who_are_one_nobody_is_welcomed_again(started, mautic_version):
    worker = started(WELCOME, version=mautic_version)
    customer = worker.new(firstname="Pat", phone="+49 30 1", tags=["customer"])
    lead = worker.new(firstname="Pat", phone="+49 30 2")
    worker.sync()
    before = len(notes_of(worker, customer) + notes_of(worker, lead))
    worker.act("merge", visitor=lead, known=customer)
    worker.sync()
    worker.sync()
    assert worker.stage(lead) == "Customer"
    assert len(notes_of(worker, lead)) == before == 2


def test_a_stage_that_somebody_took_away_is_put_back_without_a_welcome(started):
    worker = started(WELCOME)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    worker.act("clear_stage", contact=number)
    assert worker.plan()["actions"] == []
    assert worker.sync()["transitions"] == []
    assert (worker.stage(number), len(notes_of(worker, number))) == ("Lead", 1)


@pytest.mark.parametrize("store", ["restored", "lost"])
def test_no_key_is_given_to_somebody_else_again(started, store):
    """What was done since the backup, or in the store before, is in Mautic with its key."""
    worker = started(WELCOME)
    with worker.run("look") as run:
        backup.take(run.engine, worker.directory / "backup", int(time.time()))
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    if store == "restored":
        backup.restore(worker.settings.store.url, worker.directory / "backup", now=int(time.time()), force=True)
    else:
        for file in worker.directory.glob("*.db*"):
            file.unlink()
    worker.sync()
    kim = worker.new(firstname="Kim", phone="+49 30 2")
    worker.sync()
    keys = {note.rpartition(" ")[2] for number in (pat, kim) for note in notes_of(worker, number)}
    assert len(keys) == 2


def test_a_change_that_a_backup_has_in_doubt_welcomes_nobody_twice(started, monkeypatch):
    """It is found done after the backup, and again after the restore: what it sets off has the same key."""
    worker = started(WELCOME)
    pat = worker.new(firstname="Pat")
    worker.sync()
    worker.act("edit", contact=pat, values={"phone": "+49 30 1"})
    real = push.edit_one

    def lost(*args):
        real(*args)
        return Doubtful("no answer")

    with monkeypatch.context() as losing:
        losing.setattr(push, "edit_one", lost)
        worker.sync()
    with worker.run("look") as run:
        backup.take(run.engine, worker.directory / "backup", int(time.time()))
    worker.sync()
    assert (worker.stage(pat), len(notes_of(worker, pat))) == ("Lead", 1)
    for _ in range(2):
        backup.restore(worker.settings.store.url, worker.directory / "backup", now=int(time.time()), force=True)
        document = worker.sync()
        assert document["transitions"] == [{"from": "Ghost", "to": "Lead", "count": 1}]
        assert document["actions"] == {"done": 1, "refused": 0, "pending": 0}
        assert len(notes_of(worker, pat)) == 1
    kim = worker.new(firstname="Kim", phone="+49 30 2")
    worker.sync()
    assert len(notes_of(worker, kim)) == 1


def test_a_stage_that_was_deleted_and_made_anew_welcomes_nobody(started):
    worker = started(WELCOME)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    with worker.run("look") as run:
        (stage,) = [stage.id for stage in list_stages(run.mautic) if stage.name == "Lead"]
    call(worker, "DELETE", f"stages/{stage}/delete")
    worker.init()
    worker.sync(full=True)
    assert (worker.stage(number), len(notes_of(worker, number))) == ("Lead", 1)


def test_another_name_for_a_stage_is_no_other_kind(started, rules):
    worker = started(WELCOME, push={"max_change_ratio": 1})
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    stages = (packaged_mappings_dir() / "stages.yaml").read_text(encoding="utf-8")
    renamed = stages.replace("stage: Lead\n", "stage: Prospect\n").replace("takes_over: []", "takes_over: [Lead]")
    fields = (packaged_mappings_dir() / "fields.yaml").read_text(encoding="utf-8")
    rules(stages=renamed, fields=fields.replace("{stage: Lead}", "{stage: Prospect}"))
    worker.init()
    assert worker.sync()["transitions"] == [{"from": "Lead", "to": "Prospect", "count": 1}]
    assert (worker.stage(number), len(notes_of(worker, number))) == ("Prospect", 1)


def test_whoever_was_made_a_customer_by_hand_enters_when_the_rules_say_so(started, mautic_version):
    worker = started(WELCOME, version=mautic_version)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    worker.act("set_stage", contact=number, stage="Customer")
    worker.sync()
    assert len(notes_of(worker, number)) == 1
    worker.act("edit", contact=number, values={"tags": ["customer"]})
    worker.sync()
    assert len(notes_of(worker, number)) == 2
    worker.sync()
    assert len(notes_of(worker, number)) == 2


@pytest.fixture
def waiting(make_worker, rules, scores):
    """`waiting(…)`: a worker after its baseline, for which the credits reached to none of three addresses."""

    def start(**options):
        scores.update(Pat=12, New=12)
        worker = make_worker(
            mappings=rules(HOT + "  - {enter: {kind: lead}, do: {note: Hello}}\n"),
            zerobounce={"max_credits_per_run": 1, "max_credits_per_day": 1},
        )
        for number in range(3):
            address = f"p{number}@waits.example"
            worker.post("/_sandbox/zerobounce", {"email": address, "status": "valid"})
            worker.new(firstname="Pat", email=address)
        worker.init()
        worker.sync(**options)
        return worker.but(zerobounce={"max_credits_per_run": 100, "max_credits_per_day": 100})

    return start


def test_whoever_only_waited_for_a_verdict_since_the_baseline_makes_no_transition(waiting):
    worker = waiting()
    document = worker.sync()
    assert document["kinds"]["lead"] == 3
    assert document["actions"] == {"done": 0, "refused": 0, "pending": 0}
    newcomer = worker.new(firstname="New", phone="+49 30 1")
    assert worker.sync()["actions"]["done"] == 2
    assert worker.contact(newcomer).tags == {"hot"}


def test_whoever_waited_acts_where_the_baseline_was_told_to(waiting):
    worker = waiting(with_actions=True)
    assert worker.sync()["actions"]["done"] == 4


@pytest.mark.parametrize("who", ["newcomer", "visitor"])
def test_whoever_came_after_the_baseline_has_not_waited_since_it_whatever_mautics_clock_says(started, scores, who):
    scores.update(New=12)
    worker = started(HOT + "  - {enter: {kind: lead}, do: {note: Hello}}\n")
    visitor = worker.visitor() if who == "visitor" else None
    worker.sync()
    worker.post("/_sandbox/clock", {"advance": -3600})
    worker.post("/_sandbox/zerobounce", {"email": "new@late.example", "status": "valid"})
    values = {"firstname": "New", "email": "new@late.example"}
    number = worker.new(**values) if visitor is None else visitor
    if visitor is not None:
        worker.act("edit", contact=visitor, values=values)
    document = worker.sync()
    assert (document["validated"]["credits"], document["actions"]["done"]) == (1, 2)
    assert worker.contact(number).tags == {"hot"}


LEAVING = """
on:
  - {leave: {stage: Lead}, do: {note: "Went to {stage}", tags: {add: [gone]}}}
  - {leave: {kind: ghost}, do: {tags: {add: [known]}}}
"""


def test_leaving_acts_once_when_mautic_has_taken_the_change(started, mautic_version):
    worker = started(LEAVING, version=mautic_version)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    visitor = worker.visitor()
    assert worker.sync()["actions"]["done"] == 0
    worker.act("edit", contact=visitor, values={"phone": "+49 30 2"})
    worker.act("edit", contact=number, values={"tags": ["customer"]})
    assert worker.plan()["actions"] == [{"rule": "leave Lead", "count": 1}, {"rule": "leave ghost", "count": 1}]
    assert worker.sync()["actions"] == {"done": 2, "refused": 0, "pending": 0}
    assert worker.contact(visitor).tags == {"known"}
    assert worker.contact(number).tags == {"customer", "gone"}
    (note,) = notes_of(worker, number)
    assert note.startswith("Went to Customer [mautic-sync:leave-lead-")
    worker.box.reset_stats()
    assert worker.sync()["actions"]["done"] == 0
    assert worker.box.stats()["writes"] == 0


def test_the_baseline_leaves_nothing(make_worker, rules):
    packaged = (packaged_mappings_dir() / "stages.yaml").read_text()
    worker = make_worker(mappings=rules(LEAVING, stages=packaged.replace("respect_manual: 90d", "respect_manual: 1m")))
    worker.init()
    lead = next(number for number, stage in worker.box.instance.stages.items() if stage.name == "Lead")
    number = worker.new(firstname="Pat", phone="+49 30 1", tags=["customer"], stage=lead)
    worker.plan()
    worker.post("/_sandbox/clock", {"advance": 600})
    worker.skew = 600
    assert worker.sync()["actions"] == {"done": 0, "refused": 0, "pending": 0}
    assert (worker.stage(number), worker.contact(number).tags) == ("Customer", {"customer"})


WHITE_GLOVE = """
on:
  - when: {all: [{score: fit, gte: 8}, {tag: vip}]}
    name: White glove
    do: {tags: {add: [white-glove]}}
"""


def test_a_named_condition_acts_once_each_time_it_becomes_true(started, scores):
    worker = started(WHITE_GLOVE)
    number = worker.new(firstname="Pat", phone="+49 30 1", tags=["vip"])
    worker.sync()
    rescore(worker, scores, Pat=9)
    assert worker.sync()["actions"]["done"] == 1
    assert worker.contact(number).tags == {"vip", "white-glove"}
    worker.act("edit", contact=number, values={"tags": ["-white-glove"]})
    rescore(worker, scores, Pat=10)
    assert worker.sync()["actions"]["done"] == 0
    rescore(worker, scores, Pat=1)
    worker.sync()
    rescore(worker, scores, Pat=9)
    assert worker.sync()["actions"]["done"] == 1


def test_what_is_over_before_anything_was_done_is_taken_back(started, scores):
    worker = started(HOT)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    assert worker.plan()["actions"] == [{"rule": "become hot", "count": 1}]
    rescore(worker, scores, Pat=1)
    assert worker.plan()["actions"] == []
    assert worker.sync()["actions"] == {"done": 0, "refused": 0, "pending": 0}
    assert notes_of(worker, number) == []


def rules_of_hot(gte, until):
    hot = f"when: {{score: total, gte: {gte}}}\n  until: {{score: total, lt: {until}}}"
    return f"version: 1\ngroups:\n  fit: [{{name: F, when: {{field: firstname, is: Pat}}, points: 1}}]\nhot:\n  {hot}\n"


def test_a_plan_that_tries_what_is_hot_heats_nobody(started, rules, scores):
    """Between `until` and `when` somebody stays what they were: by rules that were tried they have been nothing."""
    worker = started(HOT, files={"scoring": rules_of_hot(7, 4)})
    number = worker.new(firstname="Pat", phone="+49 30 1")
    rescore(worker, scores, Pat=5)
    worker.sync()
    rules(scoring=rules_of_hot(5, 4))
    assert worker.plan()["actions"] == [{"rule": "become hot", "count": 1}]
    rules(scoring=rules_of_hot(7, 4))
    assert worker.plan()["actions"] == []
    worker.sync()
    assert (worker.contact(number).tags, notes_of(worker, number)) == (frozenset(), [])


def test_an_action_that_is_taken_out_before_it_was_begun_is_not_done(started, rules, scores):
    worker = started(HOT)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    assert worker.plan()["actions"] == [{"rule": "become hot", "count": 1}]
    rules("on:\n  - {become: cold, do: {tags: {remove: [hot]}}}\n")
    assert worker.plan()["actions"] == []
    assert worker.sync()["actions"]["pending"] == 0
    rules(HOT)
    worker.sync()
    assert (worker.contact(number).tags, notes_of(worker, number)) == (frozenset(), [])


def test_what_is_corrected_before_an_action_was_begun_is_done_as_corrected(started, rules, scores):
    wrong = HOT.replace("add: [hot]", "add: [hott]").replace("note:", "dnc: {add: [sms]}\n      note:", 1)
    worker = started(wrong)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    worker.plan()
    rules(wrong.replace("hott", "hot").replace("[sms]", "[email]"))
    assert worker.sync()["actions"]["done"] == 1
    assert (worker.contact(number).tags, worker.contact(number).dnc) == ({"hot"}, {"email": 3})


def test_an_action_that_is_renamed_before_it_was_begun_is_done(started, rules, scores):
    worker = started(HOT)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    worker.plan()
    rules(HOT.replace("become: hot", "become: hot\n    name: To sales"))
    assert worker.sync()["actions"]["done"] == 1
    assert len(notes_of(worker, number)) == 1


def test_a_plan_before_the_first_push_heats_nobody_either(make_worker, rules, scores):
    """Nothing was done about it, for nothing is done before the first push: who becomes hot after it is news."""
    worker = make_worker(mappings=rules(HOT, scoring=rules_of_hot(5, 4)))
    worker.init()
    number = worker.new(firstname="Pat", phone="+49 30 1")
    rescore(worker, scores, Pat=5)
    worker.plan()
    rules(scoring=rules_of_hot(7, 4))
    worker.sync()
    rescore(worker, scores, Pat=8)
    worker.sync()
    assert (worker.contact(number).tags, len(notes_of(worker, number))) == ({"hot"}, 1)


@pytest.mark.parametrize("before", ["a plan", "a stop", "a stop of a run with actions"])
def test_a_first_push_with_actions_acts_on_what_was_decided_without_it_before(make_worker, rules, scores, before):
    """Once for everybody, however often it was stopped."""
    worker = make_worker(mappings=rules(HOT, scoring=rules_of_hot(7, 4)))
    worker.init()
    number = worker.new(firstname="Pat", phone="+49 30 1")
    rescore(worker, scores, Pat=8)
    if before == "a plan":
        worker.plan()
    else:
        for _ in range(2):
            with pytest.raises(SafetyStop):
                worker.but(push={"first_run_max": 0}).sync(with_actions="with actions" in before)
    assert worker.sync(with_actions=True)["actions"]["done"] == 1
    assert (worker.contact(number).tags, len(notes_of(worker, number))) == ({"hot"}, 1)
    worker.sync()
    assert len(notes_of(worker, number)) == 1


def test_a_plan_that_tries_what_is_cold_cools_nobody(started, rules, scores):
    worker = started(HOT, files={"scoring": rules_of_hot(7, 4)})
    number = worker.new(firstname="Pat", phone="+49 30 1")
    for score in (8, 5):
        rescore(worker, scores, Pat=score)
        worker.sync()
    assert worker.contact(number).tags == {"hot"}
    rules(scoring=rules_of_hot(7, 6))
    assert worker.plan()["actions"] == [{"rule": "become cold", "count": 1}]
    rules(scoring=rules_of_hot(7, 4))
    assert worker.sync()["actions"] == {"done": 0, "refused": 0, "pending": 0}
    assert (worker.contact(number).tags, len(notes_of(worker, number))) == ({"hot"}, 1)
    rules(scoring=rules_of_hot(7, 6))
    worker.sync()
    assert worker.contact(number).tags == frozenset()


def test_what_was_refused_is_let_go_when_it_is_over(started, scores):
    worker = started(HOT.replace("note:", "campaigns: {add: [Onboarding]}\n      note:"))
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    assert worker.sync()["actions"]["refused"] == 1
    rescore(worker, scores, Pat=1)
    assert worker.sync()["actions"]["done"] == 1
    assert [row.state for row in rows_of(worker)] == ["superseded", "done"]
    assert worker.contact(number).tags == frozenset()


def test_a_plan_tells_what_its_changes_would_set_off(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {tags: {add: [entered]}}}\n")
    worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.plan()["actions"] == [{"rule": "enter lead", "count": 1}]


@pytest.fixture
def excluding():
    """The packaged scoring.yaml, where whoever works for Evil Corp is of low value."""
    packaged = (packaged_mappings_dir() / "scoring.yaml").read_text()
    return packaged.replace("{field: company, in: []}", "{field: company, in: [Evil Corp]}")


def test_nobody_asks_about_an_address_of_low_value(started, excluding):
    worker = started(files={"scoring": excluding})
    worker.new(firstname="Pat", email="pat@evil.example", company="evil corp")
    worker.new(firstname="Kim", email="kim@good.example", company="Good")
    document = worker.sync()
    assert document["validated"]["credits"] == 1
    found = worker.contacts([1, 2])
    assert [found[number].tags for number in (1, 2)] == [{"low-value"}, frozenset()]


def test_whose_address_is_not_asked_about_for_low_value_is_told_so_until_it_is(started, excluding):
    worker = started(files={"scoring": excluding})
    pat = worker.new(firstname="Pat", email="pat@evil.example", company="Evil Corp")
    worker.post("/_sandbox/zerobounce", {"email": "pat@evil.example", "status": "valid"})
    worker.sync()
    assert worker.contact(pat).fields["sync_reason"] == "Ghost: of low value, the e-mail is not validated"
    assert worker.sync()["pushed"]["fields"] == 0
    worker.act("edit", contact=pat, values={"company": "Good"})
    document = worker.sync()
    assert document["validated"]["credits"] == 1
    assert worker.contact(pat).fields["sync_reason"] == "Lead: e-mail accepted"
    worker.act("edit", contact=pat, values={"company": "Evil Corp"})
    worker.sync()
    assert (worker.stage(pat), worker.contact(pat).fields["sync_reason"]) == ("Lead", "Lead: e-mail accepted")


def test_what_an_older_program_told_is_told_anew(started, excluding):
    worker = started(files={"scoring": excluding})
    worker.new(firstname="Pat", email="pat@evil.example", company="Evil Corp")
    worker.sync()
    older = "Ghost: waits for the e-mail to be validated"
    with worker.run("look") as run, run.engine.begin() as connection:
        connection.execute(update(decision).values(reason=older))
        notes.drop(connection, DECIDED_AS)
    worker.sync()
    with worker.run("look") as run, run.engine.begin() as connection:
        told = connection.execute(select(decision.c.reason)).scalars().all()
    assert told == ["Ghost: of low value, the e-mail is not validated"]


def test_who_falls_out_of_low_value_while_there_are_no_credits_is_told_to_wait(started, excluding):
    worker = started(files={"scoring": excluding}, zerobounce={"max_credits_per_day": 0})
    pat = worker.new(firstname="Pat", email="pat@evil.example", company="Evil Corp", phone="+49 30 1")
    worker.sync()
    assert worker.contact(pat).fields["sync_reason"] == "Lead: phone known"
    worker.act("edit", contact=pat, values={"phone": "", "overwriteWithBlank": True})
    worker.sync()
    reason = "Lead: kept; of low value, the e-mail is not validated"
    assert (worker.stage(pat), worker.contact(pat).fields["sync_reason"]) == ("Lead", reason)
    worker.act("edit", contact=pat, values={"company": "Good"})
    worker.sync()
    assert worker.contact(pat).fields["sync_reason"] == "Lead: kept until the e-mail is validated"


def test_who_is_no_longer_of_low_value_loses_the_tag(started, scores):
    worker = started()
    pat = worker.new(firstname="Pat", company="Acme")
    rescore(worker, scores, Pat=-20)
    worker.sync()
    assert worker.contact(pat).tags == {"low-value"}
    rescore(worker, scores, Pat=0)
    worker.sync()
    assert worker.contact(pat).tags == frozenset()


# -- each part ------------------------------------------------------------------------------------------------------


def test_all_parts_of_an_action_are_done(started):
    fields = (packaged_mappings_dir() / "fields.yaml").read_text()
    worker = started(
        """
on:
  - enter: {kind: lead}
    do:
      tags: {add: [new], remove: [old]}
      fields: {email_suggestion: "{stage} {score.fit}"}
      dnc: {add: [email]}
      segments: {add: [Welcome lot]}
      campaigns: {add: [Onboarding]}
      owner: {round_robin: [admin]}
      note: "<b>{name}</b> {link}"
""",
        files={"fields": fields},
    )
    make_segment(worker, "welcome-lot")
    campaign = call(worker, "POST", "campaigns/new", {"name": "Onboarding", "isPublished": True})["campaign"]["id"]
    number = worker.new(firstname="Pat", lastname="Doe", phone="+49 30 1", tags=["old"])
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    there = worker.contact(number)
    assert (there.tags, there.owner_id, there.dnc) == ({"new"}, 1, {"email": 3})
    assert there.fields["email_suggestion"] == "Lead 0"
    assert segments_of(worker, number) == ["welcome-lot"]
    with worker.run("look") as run:
        assert str(campaign) in run.mautic.read(f"contacts/{number}/campaigns")["campaigns"]
    (note,) = notes_of(worker, number)
    assert note.startswith(f"b Pat Doe /b {worker.box.url}/s/contacts/view/{number} [mautic-sync:enter-lead-")
    worker.box.reset_stats()
    worker.sync()
    assert worker.box.stats()["writes"] == 0


ODD_TAGS = ["R&D", 'a"b', "o'neil", "t<b>x", "Ümlaut ß"]
ON_ODD_TAGS = orjson.dumps(ODD_TAGS).decode()
SHOWN_ODD_TAGS = {"5.1": frozenset(ODD_TAGS), "7.0": frozenset({"R&D", 'a"b', "o'neil", "tx", "Ümlaut ß"})}


def test_tags_with_special_characters_are_added_and_removed(started, scores, mautic_version):
    worker = started(
        f"""
on:
  - become: hot
    do: {{tags: {{add: {ON_ODD_TAGS}}}}}
  - become: cold
    do: {{tags: {{remove: {ON_ODD_TAGS}}}}}
""",
        version=mautic_version,
    )
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert worker.contact(number).tags == SHOWN_ODD_TAGS[mautic_version]
    rescore(worker, scores, Pat=0)
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert worker.contact(number).tags == frozenset()


def test_a_tag_that_mautic_keeps_is_refused(started, mautic_version):
    """One made in Mautic 5.1 itself: no edit knows it by any name."""
    worker = started(
        "on:\n  - {enter: {kind: lead}, do: {tags: {remove: ['R&D']}, note: Hello}}\n", version=mautic_version
    )
    made = call(worker, "POST", "tags/new", {"tag": "R&D"})["tag"]["id"]
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.box.instance.tables.run("INSERT INTO lead_tags_xref VALUES (?, ?)", (number, made))
    kept = mautic_version == "5.1"
    assert worker.sync()["actions"] == {"done": int(not kept), "refused": int(kept), "pending": 0}
    assert (worker.contact(number).tags, len(notes_of(worker, number))) == ({"R&D"} if kept else set(), 1)
    (row,) = rows_of(worker)
    assert row.error == ("edit: 200 Mautic shows other tags than -R&D; mend them there" if kept else None)


def test_a_rule_and_a_segment_know_a_tag_by_its_true_name(make_worker, rules, mautic_version):
    packaged = (packaged_mappings_dir() / "stages.yaml").read_text()
    stages = packaged.replace("- {tag: customer}", "- {tag: R&D}")
    assert stages != packaged
    fields = "version: 1\ncreate_segments: {Research: {tag: R&D}}\n"
    worker = make_worker(version=mautic_version, mappings=rules(stages=stages, fields=fields))
    worker.init()
    number = worker.new(firstname="Pat", phone="+49 30 1", tags=["R&D"])
    worker.sync()
    assert worker.stage(number) == "Customer"
    with worker.run("look") as run:
        (segment,) = run.mautic.read("segments")["lists"].values()
        (tag,) = run.mautic.read(f"contacts/{number}")["contact"]["tags"]
    assert segment["filters"][0]["properties"]["filter"] == [tag["id"]]


def test_owners_get_contacts_in_turn_and_keep_them(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {owner: {round_robin: [1, sal@example.com]}}}\n")
    worker.box.instance.users[2] = {"username": "sal", "email": "sal@example.com", "firstName": "Sal", "lastName": "S"}
    owned = worker.new(firstname="Ann", phone="+49 30 0", owner=1)
    worker.sync()
    first, second = (worker.new(firstname=name, phone=f"+49 30 {name}") for name in ("Pat", "Kim"))
    worker.sync()
    assert [worker.contact(number).owner_id for number in (owned, first, second)] == [1, 2, 1]


SAL = {"username": "sal", "email": "sal@example.com"}


def test_owners_who_are_gone_or_unpublished_are_passed_over(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {owner: {round_robin: [sal, 3, admin]}}}\n")
    worker.box.instance.users[2] = {**SAL, "isPublished": False}
    numbers = [worker.new(firstname="Pat", phone=f"+49 30 {n}") for n in range(2)]
    assert worker.sync()["actions"] == {"done": 2, "refused": 0, "pending": 0}
    assert [worker.contact(number).owner_id for number in numbers] == [1, 1]


def test_a_lead_without_owner_gets_one_when_the_rule_is_corrected(started, rules):
    rule = "on:\n  - {enter: {kind: lead}, do: {owner: {round_robin: [%s]}, segments: {add: [%s]}}}\n"
    worker = started(rule % ("sal", "Very important"))
    make_segment(worker, "vip")
    worker.box.instance.users[2] = {**SAL, "isPublished": False}
    number = worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.sync()["actions"]["refused"] == 1
    (row,) = rows_of(worker)
    assert "none of the action's owners as a published user" in row.error
    rules(rule % ("admin", "vip"))
    assert tried_again(worker) == {"done": 1, "refused": 0, "pending": 0}
    assert (worker.contact(number).owner_id, segments_of(worker, number)) == (1, ["vip"])


def test_an_owner_who_is_named_no_more_leaves_the_others(started, rules):
    rule = "on:\n  - {enter: {kind: lead}, do: {tags: {add: [new]}, owner: {round_robin: [%s]}}}\n"
    worker = started(rule % "sal")
    number = worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.sync()["actions"]["refused"] == 1
    rules(rule % "")
    assert tried_again(worker) == {"done": 1, "refused": 0, "pending": 0}
    assert (worker.contact(number).owner_id, worker.contact(number).tags) == (None, {"new"})


@pytest.fixture
def users_unlisted(monkeypatch):
    """Our user may not list users."""

    def forbidden(_):
        raise ForbiddenError("users", "user:users:view")

    monkeypatch.setattr(acting, "list_users", forbidden)


@pytest.mark.usefixtures("users_unlisted")
def test_owners_by_number_are_taken_as_they_are_where_users_cannot_be_listed(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {owner: {round_robin: [sal, 1]}}}\n")
    number = worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.sync()["actions"]["done"] == 1
    assert worker.contact(number).owner_id == 1


def test_whose_owner_has_left_the_action_says_what_to_do(started, scores):
    worker = started(HOT)
    worker.box.instance.users[2] = {"username": "sal", "email": "sal@example.com", "firstName": "Sal", "lastName": "S"}
    worker.new(firstname="Pat", phone="+49 30 1", owner=2)
    worker.sync()
    worker.box.instance.users[2]["isPublished"] = False
    rescore(worker, scores, Pat=12)
    worker.sync()
    (row,) = rows_of(worker)
    assert row.error == f"edit: 400 {refusals.OWNER_LEFT}"


@pytest.mark.usefixtures("users_unlisted")
def test_an_owner_by_number_whom_mautic_does_not_take_is_the_actions_own(started):
    """Where users cannot be listed nobody knows it before: it is not the contact whose owner has left."""
    worker = started("on:\n  - {enter: {kind: lead}, do: {tags: {add: [new]}, owner: {round_robin: [9]}}}\n")
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    (row,) = rows_of(worker)
    assert row.error == f"edit: 400 {acting.NO_OWNER}"
    assert worker.contact(number).tags == {"new"}


def test_whose_address_another_has_the_action_says_what_to_do(started, scores):
    worker = started(HOT)
    first, twin = (worker.new(firstname=name, email=f"{name}@one.example", phone="+49 30 1") for name in ("Pat", "Kim"))
    worker.sync()
    tables = worker.box.instance.tables
    with worker.box.instance.lock:
        tables.connection.execute("UPDATE leads SET email = 'pat@one.example' WHERE id = ?", (twin,))
    rescore(worker, scores, Pat=12)
    worker.sync()
    (row,) = rows_of(worker)
    told = "merge them in Mautic, or change one address; then `mautic-sync retry`"
    assert row.error == f"edit: 422 another contact has this address too: {told}"
    assert len(notes_of(worker, first)) == 1


def test_an_owner_is_replaced_where_the_rule_says_so(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {owner: {round_robin: [2], replace: true}}}\n")
    worker.box.instance.users[2] = {"username": "sal", "email": "sal@example.com", "firstName": "Sal", "lastName": "S"}
    owned = worker.new(firstname="Ann", phone="+49 30 0", owner=1)
    worker.sync()
    assert worker.contact(owned).owner_id == 2


def test_an_unsubscription_is_never_taken_away(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {dnc: {remove: [email]}}}\n")
    numbers = []
    for name, reason in (("Pat", 1), ("Kim", 3)):
        numbers.append(worker.new(firstname=name, phone="+49 30 1", email=f"{name}@good.example"))
        call(worker, "POST", f"contacts/{numbers[-1]}/dnc/email/add", {"reason": reason})
    worker.sync()
    assert [worker.contact(number).dnc for number in numbers] == [{"email": 1}, {}]


def test_a_contact_with_points_is_edited_alone(started, scores):
    worker = started(HOT)
    numbers = [worker.new(firstname="Pat", phone=f"+49 30 {n}") for n in range(3)]
    worker.sync()
    rescore(worker, scores, Pat=12)
    worker.box.reset_stats()
    worker.sync()
    assert not [call for call in worker.box.stats()["calls"] if "batch" in call]
    assert {one.points for one in worker.contacts(numbers).values()} == {12}


# -- what goes wrong ------------------------------------------------------------------------------------------------


def test_what_mautic_lacks_is_kept_and_the_rest_done(started):
    worker = started(
        "on:\n  - {enter: {kind: lead}, do: {campaigns: {add: [Onboarding]}, segments: {remove: [nowhere]}, note: Hello}}\n"
    )
    number = worker.new(firstname="Pat", phone="+49 30 1")
    document = worker.sync()
    assert (document["actions"], document["failed"]) == ({"done": 0, "refused": 1, "pending": 0}, 1)
    assert len(notes_of(worker, number)) == 1
    (row,) = rows_of(worker)
    assert "this Mautic has no campaign Onboarding" in row.error
    assert ("nothing_to_leave", {"what": "segment nowhere"}) in worker.told
    assert worker.sync()["failed"] == 0
    call(worker, "POST", "campaigns/new", {"name": "Onboarding", "isPublished": True})
    with worker.run("retry") as run, run.engine.begin() as connection:
        assert stored.try_refused_again(connection) == 1
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert len(notes_of(worker, number)) == 1


def test_a_field_that_does_not_take_its_value_costs_the_others_nothing(started):
    choices = {"list": [{"label": "Basic", "value": "basic"}]}
    fields = '{tel_note: "{kind}", plan: gold, city: "{stage}"}'
    worker = started()
    text = {"label": "Note", "alias": "tel_note", "type": "text", "isPublished": True}
    call(worker, "POST", "fields/contact/new", text)
    chosen = {"label": "Plan", "alias": "plan", "type": "select", "isPublished": True, "properties": choices}
    plan = call(worker, "POST", "fields/contact/new", chosen)["field"]["id"]
    worker.mappings_dir.joinpath("actions.yaml").write_text(
        f"version: 1\non:\n  - {{enter: {{kind: lead}}, do: {{tags: {{add: [new]}}, fields: {fields}}}}}\n",
        encoding="utf-8",
    )
    number = worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.sync()["actions"] == {"done": 0, "refused": 1, "pending": 0}
    there = worker.contact(number)
    assert (there.tags, there.fields["tel_note"], there.fields["city"]) == ({"new"}, "lead", "Lead")
    assert rows_of(worker)[0].error == "edit: 400 plan: This value is not valid"
    worker.act("edit", contact=number, values={"city": "Bonn"})
    choices["list"].append({"label": "Gold", "value": "gold"})
    call(worker, "PATCH", f"fields/contact/{plan}/edit", {"properties": choices})
    with worker.run("retry") as run, run.engine.begin() as connection:
        stored.try_refused_again(connection)
    run = worker.sync()
    assert run["actions"] == {"done": 1, "refused": 0, "pending": 0}
    there = worker.contact(number)
    assert (there.fields["plan"], there.fields["city"]) == ("gold", "Bonn")
    with worker.run("undo") as undoing:
        (carried_out,) = undo.look(undoing, run["run_id"], 10).carried_out
    assert carried_out["done"] == ["fields"]


def test_an_unpublished_segment_is_told_of_before_anything_is_asked(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {segments: {add: [nurture]}}}\n")
    segment = make_segment(worker)
    call(worker, "PATCH", f"segments/{segment}/edit", {"isPublished": False})
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.box.reset_stats()
    assert worker.sync()["actions"]["refused"] == 1
    assert not [one for one in worker.box.stats()["calls"] if "segments/" in one and "contact" in one]
    assert "the segment nurture is unpublished" in rows_of(worker)[0].error
    call(worker, "PATCH", f"segments/{segment}/edit", {"isPublished": True})
    assert tried_again(worker)["done"] == 1
    assert segments_of(worker, number) == ["nurture"]


def test_a_segment_is_found_by_its_alias_then_by_the_name_that_mautic_shows(started, mautic_version):
    worker = started(
        "on:\n  - {enter: {kind: lead}, do: {segments: {add: [first, 'Söme \"Seg\" & Co', Renamed]}}}\n",
        version=mautic_version,
    )
    for alias, name in (
        ("other", "First"),
        ("first", "Second"),
        ("some-seg", "Söme &#34;Seg&#34; &#38; Co"),
        ("once", "Renamed"),
    ):
        call(worker, "PATCH", f"segments/{make_segment(worker, alias)}/edit", {"name": name})
    number = worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert segments_of(worker, number) == ["first", "once", "some-seg"]


@pytest.mark.parametrize("written", [False, True])
def test_a_run_that_is_cut_short_writes_one_note(started, scores, monkeypatch, written):
    worker = started(HOT)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    real = acting.add_note

    def killed(*args):
        if written:
            real(*args)
        raise RuntimeError("killed")

    monkeypatch.setattr(acting, "add_note", killed)
    with pytest.raises(RuntimeError):
        worker.sync()
    monkeypatch.setattr(acting, "add_note", real)
    assert worker.sync()["actions"] == {"done": 0, "refused": 0, "pending": 1}
    patience(worker)
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert (len(notes_of(worker, number)), worker.contact(number).tags) == (1, {"hot"})


def test_a_note_whose_call_waited_for_long_is_waited_for_from_its_end(started, scores, monkeypatch):
    worker = started(HOT)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    now, waited = time.time, []
    monkeypatch.setattr(time, "time", lambda: now() + sum(waited))

    def slow(*_args):
        waited.append(3600)
        return Doubtful("no answer")

    with monkeypatch.context() as slowly:
        slowly.setattr(acting, "add_note", slow)
        assert worker.sync()["doubtful"] == 1
    assert worker.sync()["actions"] == {"done": 0, "refused": 0, "pending": 1}
    (row,) = rows_of(worker)
    call(worker, "POST", "notes/new", {"lead": number, "type": "general", "text": f"Hot [mautic-sync:{row.key}]"})
    patience(worker)
    assert worker.sync()["actions"]["done"] == 1
    assert len(notes_of(worker, number)) == 1


def test_what_was_being_done_when_the_worker_was_killed_is_in_doubt(started, scores):
    worker = started(HOT)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    worker.plan()
    (row,) = rows_of(worker)
    with worker.run("look") as run, run.engine.begin() as connection:
        stored.mark_sent(connection, [row.id], run_id=run.id, now=run.now)
    call(worker, "POST", "notes/new", {"lead": number, "type": "general", "text": f"Hot [mautic-sync:{row.key}]"})
    assert worker.sync()["actions"]["pending"] == 1
    patience(worker)
    assert worker.sync()["actions"]["done"] == 1
    assert len(notes_of(worker, number)) == 1


def test_an_answer_that_is_lost_leaves_later_actions_waiting(started, scores, monkeypatch):
    worker = started(HOT)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    monkeypatch.setattr(acting, "add_note", lambda *_: Doubtful("no answer"))
    document = worker.sync()
    assert (document["actions"]["pending"], document["doubtful"]) == (1, 1)
    monkeypatch.undo()
    with worker.run("look") as run, run.engine.begin() as connection:
        people.mark_everyone_dirty(connection)  # without the scores that were made up, nobody is hot any more
    assert worker.sync()["actions"] == {"done": 0, "refused": 0, "pending": 2}
    assert worker.contact(number).tags == {"hot"}
    patience(worker)
    assert worker.sync()["actions"] == {"done": 2, "refused": 0, "pending": 0}
    assert (worker.contact(number).tags, len(notes_of(worker, number))) == (frozenset(), 1)


def test_an_action_reaches_whom_the_contact_was_merged_into(started, scores, mautic_version):
    worker = started(HOT + "  - {become: hot, do: {segments: {add: [nurture]}}}\n", version=mautic_version)
    make_segment(worker)
    number = worker.new(firstname="Pat", email="pat@good.example", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    worker.plan()
    visitor = worker.visitor()
    worker.act("merge", visitor=visitor, known=number)
    document = worker.sync()
    assert document["actions"]["pending"] == 0
    assert worker.contact(visitor).tags == {"hot"}
    assert (segments_of(worker, visitor), len(notes_of(worker, visitor))) == (["nurture"], 1)


def test_a_merge_between_reading_and_acting_is_followed(started, scores, monkeypatch):
    worker = started(HOT + "  - {become: hot, do: {segments: {add: [nurture]}}}\n")
    make_segment(worker)
    number = worker.new(firstname="Pat", email="pat@good.example", phone="+49 30 1")
    visitor = worker.visitor()
    worker.sync()
    rescore(worker, scores, Pat=12)
    real = acting.carry_out

    def merging(*args, **more):
        worker.act("merge", visitor=visitor, known=number)
        monkeypatch.setattr(acting, "carry_out", real)
        return real(*args, **more)

    monkeypatch.setattr(acting, "carry_out", merging)
    assert worker.sync()["actions"]["done"] == 2
    assert (segments_of(worker, visitor), worker.contact(visitor).tags) == (["nurture"], {"hot"})


def test_nobody_is_asked_about_the_refused_action_of_a_contact_that_is_gone(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {campaigns: {add: [Onboarding]}}}\n")
    number = worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.sync()["actions"]["refused"] == 1
    worker.act("delete", contact=number)
    worker.sync()
    assert [row.state for row in rows_of(worker)] == [stored.SUPERSEDED]


def test_nobody_acts_on_a_contact_that_is_gone(started, scores):
    worker = started(HOT)
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    worker.plan()
    worker.act("delete", contact=number)
    assert worker.sync()["actions"] == {"done": 0, "refused": 0, "pending": 0}


@pytest.fixture
def answered(monkeypatch):
    """`answered(method, path, status, times)`: so often Mautic answers so to what matches, and does nothing."""
    planned: list[list] = []
    real = requests.Session.request

    def request(session, method, url, **more):
        for one in planned:
            wanted, path, status, times = one
            if wanted == method and re.search(path, url) and times:
                one[3] -= 1
                answer = requests.Response()
                answer.status_code, answer.url = status, url
                answer._content = orjson.dumps({"errors": [{"message": "Item was not found.", "code": status}]})
                return answer
        return real(session, method, url, **more)

    monkeypatch.setattr(requests.Session, "request", request)
    return lambda *wanted: planned.append(list(wanted))


def test_an_action_whose_contact_mautic_cannot_show_is_tried_by_later_runs(started, scores, answered):
    worker = started(HOT)
    pat, kim = (worker.new(firstname=name, phone=f"+49 30 {number}") for number, name in enumerate(("Pat", "Kim"), 1))
    worker.sync()
    rescore(worker, scores, Pat=12, Kim=12)
    answered("GET", f"/contacts/{pat}$", 500, 1)
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 1}
    assert [row.attempts for row in rows_of(worker) if row.state == stored.PLANNED] == [1]
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert [len(notes_of(worker, number)) for number in (pat, kim)] == [1, 1]
    rescore(worker, scores, Pat=0)
    answered("GET", f"/contacts/{pat}$", 500, MOST_ATTEMPTS)
    for _ in range(MOST_ATTEMPTS):
        assert worker.sync()["actions"]["pending"] == 1
    assert worker.sync()["actions"] == {"done": 0, "refused": 1, "pending": 0}


def test_while_mautic_as_a_whole_fails_no_action_is_refused(started, scores, answered, monkeypatch):
    worker = started(HOT)
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    real = acting.ask_for_anybody

    def failing_as_well(transport):
        answered("GET", "/contacts$", 500, 2)
        real(transport)

    monkeypatch.setattr(acting, "ask_for_anybody", failing_as_well)
    answered("GET", f"/contacts/{pat}$", 500, 1)
    with pytest.raises(MauticSyncError, match="500"):
        worker.sync()
    (row,) = rows_of(worker)
    assert (row.state, row.attempts) == (stored.PLANNED, 0)
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert len(notes_of(worker, pat)) == 1


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/contacts/{}$"), ("PATCH", "/contacts/{}/edit"), ("POST", "/notes/new")]
)
def test_who_is_said_to_be_missing_once_is_still_there(started, scores, answered, method, path):
    """So Mautic answers as well when its connection to the database breaks."""
    worker = started(HOT)
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=12)
    answered(method, path.format(pat), 404, 1)
    worker.sync()
    patience(worker)
    worker.sync()
    assert (worker.contact(pat).tags, len(notes_of(worker, pat))) == ({"hot"}, 1)
    assert [row.state for row in rows_of(worker)] == [stored.DONE]


# -- messages -------------------------------------------------------------------------------------------------------


@pytest.fixture
def inbox():
    """A service on the loopback that keeps what Apprise posts to it; `inbox.status` is its answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if server.status == 200:
                server.got.append(orjson.loads(body))
                server.paths.append(self.path)
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.paths, server.status = [], [], 200
    server.address = f"json://user:topsecret@127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def notified(started, monkeypatch, inbox):
    """A worker whose leads are told to the inbox."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SALES_INBOX", inbox.address)
    return started(
        'on:\n  - {enter: {kind: lead}, do: {tags: {add: [lead]}, notify: {to: ["env:SALES_INBOX"], text: "{name} is new"}}}\n'
        "notify: {max_per_run: 2}\n"
    )


def test_a_message_is_sent_with_its_key(notified, inbox):
    notified.new(firstname="Pat", phone="+49 30 1")
    assert notified.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    (row,) = rows_of(notified)
    assert [(one["title"], one["message"]) for one in inbox.got] == [
        ("mautic-sync: enter lead", f"Pat is new\n\n[mautic-sync:{row.key}]")
    ]
    notified.sync()
    assert len(inbox.got) == 1
    assert "topsecret" not in str([tuple(row) for row in rows_of(notified)])


def test_a_message_of_which_nothing_is_left_is_sent_all_the_same(started, monkeypatch, inbox):
    """Its text speaks of a company, and there is none: the title and the key still say what happened."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    tell = f'{{to: ["{inbox.address}"], text: "{{company}}"}}'
    worker = started(f"on:\n  - {{enter: {{kind: lead}}, do: {{notify: {tell}}}}}\n")
    worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    (row,) = rows_of(worker)
    assert [(one["title"], one["message"]) for one in inbox.got] == [
        ("mautic-sync: enter lead", f"[mautic-sync:{row.key}]")
    ]


def test_an_address_that_is_named_twice_is_told_once(started, monkeypatch, inbox):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    tell = f'{{to: ["{inbox.address}", "{inbox.address}"], text: "{{name}}"}}'
    worker = started(f"on:\n  - {{enter: {{kind: lead}}, do: {{notify: {tell}}}}}\n")
    worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.sync()["actions"]["done"] == 1
    assert len(inbox.got) == 1


def test_many_messages_become_one(notified, inbox):
    for name in ("Pat", "Kim", "Lou"):
        notified.new(firstname=name, phone="+49 30 1")
    assert notified.sync()["actions"]["done"] == 3
    (digest,) = inbox.got
    assert digest["title"] == "mautic-sync: 3 messages in one"
    assert [line.split(" [")[0] for line in digest["message"].splitlines()] == [
        f"- enter lead: {name} is new" for name in ("Pat", "Kim", "Lou")
    ]


def test_what_one_digest_cannot_hold_comes_in_another(notified, inbox, monkeypatch):
    monkeypatch.setattr(acting, "LINES_OF_DIGEST", 2)
    for name in ("Pat", "Kim", "Lou"):
        notified.new(firstname=name, phone="+49 30 1")
    assert notified.sync()["actions"]["done"] == 3
    assert [one["title"] for one in inbox.got] == ["mautic-sync: 2 messages in one", "mautic-sync: 1 message"]
    told = "".join(one["message"] for one in inbox.got)
    assert all(f"[{row.key}]" in told for row in rows_of(notified))


def test_a_message_that_is_not_taken_is_sent_by_a_later_run(notified, inbox):
    number = notified.new(firstname="Pat", phone="+49 30 1")
    inbox.status = 500
    assert notified.sync()["actions"] == {"done": 0, "refused": 0, "pending": 1}
    assert notified.contact(number).tags == {"lead"}
    inbox.status = 200
    assert notified.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert len(inbox.got) == 1


def test_a_message_without_address_is_refused_and_waits_for_retry(notified, inbox, monkeypatch):
    notified.new(firstname="Pat", phone="+49 30 1")
    monkeypatch.delenv("SALES_INBOX")
    assert notified.sync()["actions"] == {"done": 0, "refused": 1, "pending": 0}
    assert "SALES_INBOX" in rows_of(notified)[0].error
    monkeypatch.setenv("SALES_INBOX", inbox.address)
    with notified.run("retry") as run, run.engine.begin() as connection:
        stored.try_refused_again(connection)
    assert notified.sync()["actions"]["done"] == 1
    assert len(inbox.got) == 1


@pytest.fixture
def telling(started, rules, monkeypatch, inbox):
    """`telling(rule, …)`: a worker whose messages to paths of the inbox are not taken; `telling.now(rule, …)` has other rules."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    inbox.status = 500

    def text(*wanted: tuple[str | None, list[str]]) -> str:
        named = [
            f"  - enter: {{kind: lead}}\n{f'    name: {name}' if name else ''}\n"
            f"    do: {{notify: {{to: {[f'{inbox.address}/{path}' for path in paths]}, text: Told {paths[0]}}}}}\n"
            for name, paths in wanted
        ]
        return f"on:\n{''.join(named)}" if named else "on: []\n"

    def start(*wanted):
        return started(text(*wanted))

    def now(*wanted):
        rules(text(*wanted))
        inbox.status = 200

    start.now = now
    return start


def sent(inbox) -> list[tuple[str, str]]:
    return [(path, one["message"].split("\n")[0]) for path, one in zip(inbox.paths, inbox.got, strict=True)]


def tried_again(worker):
    with worker.run("retry") as run, run.engine.begin() as connection:
        stored.try_refused_again(connection)
    return worker.sync()["actions"]


def test_a_message_never_reaches_whom_another_rule_names(telling, inbox):
    worker = telling((None, ["sales"]), (None, ["press"]))
    worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    telling.now((None, ["press"]))
    assert worker.sync()["actions"] == {"done": 1, "refused": 1, "pending": 0}
    assert sent(inbox) == [("/press", "Told press")]
    assert "names nobody any more for whom the message was meant" in rows_of(worker)[0].error
    assert tried_again(worker) == {"done": 0, "refused": 1, "pending": 0}
    telling.now((None, ["press"]), (None, ["sales"]))
    assert tried_again(worker) == {"done": 1, "refused": 0, "pending": 0}
    assert sent(inbox)[1:] == [("/sales", "Told sales")]


def test_a_message_of_a_rule_that_was_renamed_is_sent(telling, inbox):
    worker = telling(("call them", ["sales"]))
    worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    telling.now(("call them now", ["sales"]))
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert sent(inbox) == [("/sales", "Told sales")]


def test_a_message_goes_to_the_address_that_its_rule_was_corrected_to(telling, inbox):
    worker = telling(("call them", ["slaes", "boss"]))
    worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    telling.now(("call them", ["sales", "boss"]), ("other", ["press"]))
    assert worker.sync()["actions"] == {"done": 1, "refused": 0, "pending": 0}
    assert sorted(sent(inbox)) == [("/boss", "Told slaes"), ("/sales", "Told slaes")]


@pytest.mark.parametrize(("tags", "heard"), [("", []), ("tags: {add: [hot]}, ", ["Pat is cold"])])
def test_nobody_hears_of_what_is_over_by_a_message_that_was_not_taken(started, scores, inbox, monkeypatch, tags, heard):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    to = f"to: ['{inbox.address}']"
    worker = started(
        f"on:\n  - {{become: hot, do: {{{tags}notify: {{{to}, text: '{{name}} is hot'}}}}}}\n"
        f"  - {{become: cold, do: {{tags: {{remove: [hot]}}, notify: {{{to}, text: '{{name}} is cold'}}}}}}\n"
    )
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    inbox.status = 500
    rescore(worker, scores, Pat=12)
    assert worker.sync()["actions"]["pending"] == 1
    inbox.status = 200
    rescore(worker, scores, Pat=1)
    assert worker.sync()["actions"]["pending"] == 0
    assert [text for _, text in sent(inbox)] == heard
    assert worker.contact(number).tags == frozenset()


def test_a_message_whose_rule_is_gone_is_refused(telling, inbox):
    worker = telling(("call them", ["sales"]))
    worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    telling.now()
    assert worker.sync()["actions"] == {"done": 0, "refused": 1, "pending": 0}
    assert inbox.got == []


def test_a_message_that_an_older_version_stored_is_sent_to_those_of_its_rule(telling, inbox):
    worker = telling((None, ["sales"]), (None, ["press"]))
    worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    with worker.run("look") as run, run.engine.begin() as connection:
        connection.execute(action.update().values(todo='{"notify": "Told earlier"}'))
    inbox.status = 200
    assert worker.sync()["actions"]["done"] == 2
    assert sorted(sent(inbox)) == [("/press", "Told earlier"), ("/sales", "Told earlier")]


@pytest.mark.parametrize("wrong", ["nonsense", "nothing://topsecret@example.com"])
def test_an_address_that_is_none_is_refused_without_being_shown(notified, monkeypatch, wrong, capfd):
    notified.new(firstname="Pat", phone="+49 30 1")
    monkeypatch.setenv("SALES_INBOX", wrong)
    assert notified.sync()["actions"]["refused"] == 1
    assert "none that Apprise understands" in rows_of(notified)[0].error
    said = "".join(capfd.readouterr()) + str(notified.told) + str(rows_of(notified))
    assert "topsecret" not in said


def test_without_apprise_the_message_is_refused_and_the_rest_done(notified, monkeypatch):
    number = notified.new(firstname="Pat", phone="+49 30 1")
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert notified.sync()["actions"]["refused"] == 1
    assert notified.contact(number).tags == {"lead"}
    assert "mautic-sync[notify]" in rows_of(notified)[0].error


# -- under faults ---------------------------------------------------------------------------------------------------

QUIET = "seed=1,before=0,after=0,late=0,echo=0,truncate=0,rate=0,moving=0,merge=0"


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_becomes_of_the_calls_each_contact_has_one_note_and_its_tags(started, scores, monkeypatch, seed):
    worker = started(HOT + "  - {become: hot, do: {segments: {add: [nurture]}, owner: {round_robin: [1]}}}\n")
    make_segment(worker)
    numbers = [worker.new(firstname="Pat", phone=f"+49 30 {n}") for n in range(8)]
    worker.sync()
    rescore(worker, scores, Pat=12)
    worker.plan()
    real = acting.carry_out

    def carry_out(*args, **more):
        worker.post("/_sandbox/faults", {"spec": f"seed={seed},before=0.25,after=0.25,late=0,echo=0,moving=0,merge=0"})
        try:
            real(*args, **more)
        finally:
            worker.post("/_sandbox/faults", {"spec": QUIET})

    with monkeypatch.context() as faulty:
        faulty.setattr(acting, "carry_out", carry_out)
        for _ in range(2):
            with suppress(MauticSyncError):
                worker.sync()
            patience(worker)
    assert worker.sync()["actions"]["pending"] == 0
    there = worker.contacts(numbers)
    assert {(frozenset(one.tags), one.owner_id) for one in there.values()} == {(frozenset({"hot"}), 1)}
    assert [len(notes_of(worker, number)) for number in numbers] == [1] * len(numbers)
    assert [segments_of(worker, number) for number in numbers] == [["nurture"]] * len(numbers)
