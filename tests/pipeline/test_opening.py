"""Points begin with the whole history, or now: then Mautic receives only what comes later."""

from __future__ import annotations

import re
import shutil

import pytest
import requests
import responses
from sqlalchemy import select

from mautic_sync.cli.passes import make_plan
from mautic_sync.errors import StopError
from mautic_sync.mappings import load_mappings, packaged_mappings_dir
from mautic_sync.mautic.provisioning import PointTrigger, list_point_triggers
from mautic_sync.mautic.transport import Transport
from mautic_sync.pipeline import opening
from mautic_sync.pipeline.explain import explain_person
from mautic_sync.store import people
from mautic_sync.store.schema import ledger

WELCOME = PointTrigger(1, "Welcome gift", 12)


@pytest.fixture
def worker_with(make_worker, tmp_path):
    """A worker beside a Mautic with a director (10 points of ours, 5 of Mautic's), whose scoring.yaml says `start`."""

    def make(start: str):
        rules = tmp_path / "rules"
        shutil.copytree(packaged_mappings_dir(), rules)
        text = (rules / "scoring.yaml").read_text(encoding="utf-8")
        (rules / "scoring.yaml").write_text(text.replace("start: auto", f"start: {start}"), encoding="utf-8")
        worker = make_worker(mappings=rules)
        worker.init()
        worker.pat = worker.new(firstname="Pat", phone="+49 30 1", position="Director")
        worker.act("points", contact=worker.pat, delta=5)
        return worker

    return make


@pytest.fixture
def triggers(monkeypatch):
    """The point triggers that Mautic has."""
    found: list[PointTrigger] = []
    monkeypatch.setattr(opening, "list_point_triggers", lambda _mautic: found)
    return found


def lines(worker) -> list[tuple[str, int]]:
    with worker.run("look") as run, run.engine.begin() as connection:
        rows = connection.execute(select(ledger).order_by(ledger.c.id))
        return [("opening" if row.event_key == "opening" else "granted", row.delta) for row in rows]


def points(worker) -> int:
    return worker.contact(worker.pat).points


def start_of(worker):
    with worker.run("plan") as run:
        return make_plan(run, 10)["start"]


def made(worker, path, **values):
    answer = requests.post(f"{worker.box.url}/api/{path}/new", json=values, auth=("admin", "sandbox"), timeout=10)
    assert answer.status_code == 201, answer.text


def told(worker):
    with worker.run("look") as run, run.engine.begin() as connection:
        (person,) = people.find_person(connection, worker.pat, None)
        return explain_person(connection, person, worker.settings, load_mappings(worker.mappings_dir), run.now)


def test_history_is_granted_at_once(worker_with, triggers):
    triggers.append(WELCOME)
    worker = worker_with("history")
    assert start_of(worker)["points"] == "history"
    assert [one["name"] for one in start_of(worker)["triggers"]] == ["Welcome gift"]
    worker.sync()
    assert (points(worker), lines(worker)) == (15, [("granted", 10)])


def test_now_grants_only_what_comes_later(worker_with, triggers):
    worker = worker_with("now")
    assert not [one for one in worker.plan()["listed"] if one["target"] == "points"]
    worker.sync()
    assert (points(worker), lines(worker)) == (5, [("opening", 10)])
    assert worker.sync()["pushed"]["calls"] == 0
    worker.act("edit", contact=worker.pat, fields={"country": "Germany"})
    worker.sync()
    assert (points(worker), lines(worker)) == (10, [("opening", 10), ("granted", 5)])
    found = told(worker)["points"]
    assert (found["score"], found["granted"], found["opening"], found["mautic"]) == (15, 5, 10, 10)


def test_history_that_fades_is_not_taken_back_from_mautic(worker_with, triggers):
    worker = worker_with("now")
    worker.sync()
    worker.act("edit", contact=worker.pat, fields={"country": "Germany"})
    worker.sync()
    worker.act("edit", contact=worker.pat, fields={"position": "Gardener"})
    worker.sync()
    assert (points(worker), lines(worker)) == (10, [("opening", 10), ("granted", 5), ("opening", -10)])
    worker.act("edit", contact=worker.pat, fields={"country": "France"})
    worker.sync()
    assert points(worker) == 5
    assert sum(delta for _, delta in lines(worker)) == 0
    assert worker.sync()["pushed"]["calls"] == 0


def test_an_edit_of_the_rules_that_is_taken_back_grants_no_history(worker_with, triggers):
    worker = worker_with("now")
    worker.act("edit", contact=worker.pat, fields={"country": "Germany"})
    worker.sync()
    file = worker.mappings_dir / "scoring.yaml"
    text = file.read_text()
    for points_of_director in ("4", "-3", "10"):
        file.write_text(re.sub(r"(name: Decides,.*points: )10", rf"\g<1>{points_of_director}", text))
        worker.plan()
        worker.sync()
    assert lines(worker) == [
        ("opening", 15),
        ("opening", -6),
        ("opening", -7),
        ("opening", 13),
    ]
    assert (points(worker), told(worker)["points"]["score"]) == (5, 15)
    file.write_text(re.sub(r"(name: Decides,.*points: )10", r"\g<1>12", text))
    worker.sync()
    assert points(worker) == 7


def test_what_somebody_did_since_other_rules_counted_is_granted(worker_with, triggers):
    worker = worker_with("now")
    worker.sync()
    file = worker.mappings_dir / "scoring.yaml"
    text = file.read_text()
    file.write_text(re.sub(r"(name: Decides,.*points: )10", r"\g<1>4", text))
    worker.sync()
    worker.act("edit", contact=worker.pat, fields={"country": "Germany"})
    worker.sync()
    assert lines(worker) == [("opening", 10), ("opening", -6), ("granted", 5)]
    file.write_text(text)
    worker.sync()
    assert lines(worker)[3:] == [("opening", 6)]
    assert points(worker) == 10


def test_auto_is_history_where_no_trigger_could_fire(worker_with, triggers):
    triggers += [
        PointTrigger(1, "Far away", 16),
        PointTrigger(2, "Unpublished", 12, published=False),
    ]
    worker = worker_with("auto")
    assert start_of(worker) == {"points": "history", "triggers": [], "unknown": False}
    worker.sync()
    assert points(worker) == 15


@pytest.mark.parametrize("threshold", [5, 15])
def test_auto_begins_now_where_a_trigger_could_fire(worker_with, triggers, threshold):
    """Mautic fires a trigger at 5 points as well when somebody who has them already gets more."""
    triggers.append(PointTrigger(1, "Welcome gift", threshold))
    worker = worker_with("auto")
    found = start_of(worker)
    assert (found["points"], [one["name"] for one in found["triggers"]]) == ("now", ["Welcome gift"])
    worker.sync()
    assert (points(worker), lines(worker)) == (5, [("opening", 10)])


def test_any_trigger_may_look_at_the_points_of_a_group(worker_with):
    worker = worker_with("auto")
    event = {"name": "Tag", "type": "lead.changetags", "order": 1, "properties": {"add_tags": ["gift"]}}
    made(worker, "points/triggers", name="Far away", points=500, isPublished=True, events=[event])
    assert start_of(worker) == {"points": "history", "triggers": [], "unknown": False}
    made(worker, "points/groups", name="Interest")
    found = start_of(worker)
    assert (found["points"], [one["name"] for one in found["triggers"]]) == ("now", ["Far away"])


def test_the_choice_is_made_anew_until_the_first_push_and_then_kept(worker_with, triggers):
    triggers.append(WELCOME)
    worker = worker_with("auto")
    assert start_of(worker)["points"] == "now"
    triggers.clear()
    assert start_of(worker)["points"] == "history"
    assert [one["new"] for one in worker.plan()["listed"] if one["target"] == "points"] == [{"points": 10, "delta": 10}]
    triggers.append(WELCOME)
    worker.sync()
    assert points(worker) == 5
    triggers.clear()
    assert start_of(worker) is None
    worker.sync()
    assert (points(worker), lines(worker)) == (5, [("opening", 10)])


@pytest.mark.parametrize(
    ("start", "then", "told"),
    [
        ("history", "now", "start: `now` changes nothing any more, for points have begun with the whole history"),
        ("now", "history", "start: `history` changes nothing any more, for points have begun without the history"),
        ("now", "auto", None),
        ("now", "now", None),
    ],
)
def test_a_start_that_comes_too_late_is_told(worker_with, triggers, start, then, told):
    worker = worker_with(start)
    worker.sync()
    rules = worker.mappings_dir / "scoring.yaml"
    rules.write_text(rules.read_text().replace(f"start: {start}", f"start: {then}"), encoding="utf-8")
    with worker.run("plan") as run:
        warnings = make_plan(run, 1)["warnings"]
    assert [told in one for one in warnings] == ([True] if told else [])


def test_triggers_that_cannot_be_read_count_as_if_they_would_fire(worker_with, monkeypatch):
    def refuse(_mautic):
        raise StopError("no right to see points")

    monkeypatch.setattr(opening, "list_point_triggers", refuse)
    worker = worker_with("auto")
    assert start_of(worker) == {"points": "now", "triggers": [], "unknown": True}


def test_a_merge_of_two_histories_takes_nothing_from_mautic(worker_with, triggers):
    worker = worker_with("now")
    visitor = worker.visitor()
    worker.act("edit", contact=visitor, fields={"position": "CEO"})
    worker.sync()
    assert sorted(lines(worker)) == [("opening", 10), ("opening", 11)]
    worker.act("merge", visitor=visitor, known=worker.pat)
    worker.sync()
    worker.sync()
    worker.pat = visitor
    assert points(worker) == 5
    assert sum(delta for _, delta in lines(worker)) == told(worker)["points"]["score"]


def test_who_comes_after_the_first_push_is_granted_everything(worker_with, triggers):
    worker = worker_with("now")
    worker.sync()
    late = worker.new(firstname="Lee", phone="+49 30 2", position="CEO")
    worker.sync()
    assert worker.contact(late).points == 10


def test_points_that_are_switched_on_later_begin_then(worker_with, triggers):
    worker = worker_with("auto")
    scoring = worker.mappings_dir / "scoring.yaml"
    text = scoring.read_text(encoding="utf-8")
    scoring.write_text(text.replace("to: points", "to: none"), encoding="utf-8")
    assert start_of(worker) is None
    worker.sync()
    assert (points(worker), lines(worker)) == (5, [])
    scoring.write_text(text, encoding="utf-8")
    triggers.append(WELCOME)
    assert start_of(worker)["points"] == "now"
    worker.sync()
    assert (points(worker), lines(worker)) == (5, [("opening", 10)])


def test_one_contact_alone_is_no_beginning(worker_with, triggers):
    worker = worker_with("now")
    worker.sync(contact=worker.pat)
    assert (points(worker), lines(worker)) == (5, [])
    worker.sync()
    assert (points(worker), lines(worker)) == (5, [("opening", 10)])


def test_one_contact_alone_is_granted_nothing_while_a_trigger_could_fire(worker_with, triggers):
    worker = worker_with("auto")
    worker.plan()
    triggers.append(WELCOME)
    document = worker.sync(contact=worker.pat)
    assert (document["pushed"]["stages"], points(worker), lines(worker)) == (1, 5, [])
    assert [event for event, _ in worker.told if event == "points_wait"] == ["points_wait"]
    assert start_of(worker)["points"] == "now"
    worker.sync()
    assert (points(worker), lines(worker)) == (5, [("opening", 10)])


def test_what_waited_for_everybody_is_granted_with_them(worker_with, triggers):
    worker = worker_with("auto")
    kim = worker.new(firstname="Kim", phone="+49 30 2", position="CEO")
    triggers.append(WELCOME)
    worker.plan()
    worker.sync(contact=worker.pat)
    triggers.clear()
    worker.sync()
    assert (points(worker), worker.contact(kim).points) == (15, 10)


def test_one_contact_alone_does_not_choose_for_the_others(worker_with, triggers):
    """Without triggers it is granted its points at once; one that is published afterwards is still looked at."""
    worker = worker_with("auto")
    kim = worker.new(firstname="Kim", phone="+49 30 2", position="CEO")
    worker.sync(contact=worker.pat)
    assert (points(worker), lines(worker)) == (15, [("granted", 10)])
    triggers.append(WELCOME)
    found = start_of(worker)
    assert (found["points"], [one["name"] for one in found["triggers"]]) == ("now", ["Welcome gift"])
    worker.sync()
    assert (points(worker), worker.contact(kim).points) == (15, 0)
    assert sorted(lines(worker)) == [("granted", 10), ("opening", 10)]


def test_one_contact_alone_is_granted_its_history_where_the_rules_say_so(worker_with, triggers):
    triggers.append(WELCOME)
    worker = worker_with("history")
    worker.sync(contact=worker.pat)
    assert (points(worker), lines(worker)) == (15, [("granted", 10)])
    assert start_of(worker)["points"] == "history"
    worker.sync()
    assert (points(worker), lines(worker)) == (15, [("granted", 10)])


def test_a_mautic_without_a_list_of_triggers_has_none(make_worker):
    with make_worker().run("look") as run:
        assert list_point_triggers(run.mautic) == []


@responses.activate
def test_triggers_are_read_as_mautic_lists_them():
    base = "https://mautic.example"
    responses.post(f"{base}/oauth/v2/token", json={"access_token": "t", "expires_in": 3600, "token_type": "bearer"})
    rows = {
        "1": {"id": 1, "name": "Gift", "points": 50, "isPublished": True, "color": "a0acb8", "events": [{"id": 4}]},
        "2": {"id": 2, "name": "Draft", "points": "7", "isPublished": False},
        "3": {"id": 3, "name": "Colour only", "points": 20, "isPublished": True, "events": []},
    }
    responses.get(f"{base}/api/points/triggers", json={"total": 3, "triggers": rows})
    with Transport(base, client_id="a", client_secret="b") as transport:
        assert list_point_triggers(transport) == [
            PointTrigger(1, "Gift", 50),
            PointTrigger(2, "Draft", 7, published=False),
            PointTrigger(3, "Colour only", 20),
        ]
