"""Sub-scores stand in Mautic's point groups: as absolute values, only where they changed, whatever becomes of a call."""

from __future__ import annotations

import re

import pytest
import requests

from mautic_sync.cli.passes import describe_change
from mautic_sync.domain.scoring import Score
from mautic_sync.errors import ConfigError, ForbiddenError
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.mautic import points as mautic_points
from mautic_sync.mautic.writes import Doubtful
from mautic_sync.pipeline import decide as deciding, forecast, groups
from mautic_sync.pipeline.context import MOST_ATTEMPTS
from mautic_sync.pipeline.explain import explain_person
from mautic_sync.pipeline.run import Options, plan_only
from mautic_sync.store import people
from tests.pipeline.conftest import rescore
from tests.pipeline.test_restored import back_up, put_back

PATIENCE = 3600


@pytest.fixture
def scores(monkeypatch):
    """First name → (fit, interest), decided of everybody who has one."""
    found: dict[str, tuple[int, int]] = {}

    def score(signals, _rules, now, not_before, _parts):
        fit, interest = found.get(str(signals.fields.get("firstname")), (0, 0))
        return Score(fit + interest, {"fit": fit, "interest": interest}, max(not_before, now // 86_400))

    monkeypatch.setattr(deciding, "score", score)
    monkeypatch.setattr(deciding.occasions, "queue_flags", lambda *_: None)
    return found


@pytest.fixture
def rules(tmp_path):
    """Mappings that write the groups `fit` and `interest`, and no points."""
    found = tmp_path / "rules"
    found.mkdir()
    push_into(found, "fit, interest")
    return found


def push_into(directory, names):
    text = (packaged_mappings_dir() / "scoring.yaml").read_text()
    text, changed = re.subn(r"^push: \{.*?\}", f"push: {{to: none, groups: [{names}]}}", text, flags=re.MULTILINE)
    assert changed == 1
    (directory / "scoring.yaml").write_text(text)


@pytest.fixture
def worker(make_worker, scores, rules):
    worker = make_worker(mappings=rules)
    worker.init()
    worker.sync()
    return worker


@pytest.fixture
def pat(worker, scores):
    """Somebody with a stage, whose scores are 7 and −2 and not written yet."""
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=(7, -2))
    return number


def in_mautic(worker, number):
    """Name of the group → the contact's score there."""
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(
            f"{worker.box.url}/api/contacts/{number}/points/groups", timeout=10, auth=("admin", "sandbox")
        )
        assert answer.ok, answer.text
        return {one["group"]["name"]: one["score"] for one in answer.json()["groupScores"]}


def set_by_hand(worker, number, name, score):
    with worker.run("look") as run:
        groups.read(run)
        mautic_points.set_group_points(run.mautic, number, {run.group_ids[name]: score})


def explained(worker, number):
    with worker.run("look") as run, run.engine.begin() as connection:
        (person,) = people.persons_of(connection, [number]).values()
        return explain_person(connection, person, run.settings, run.mappings, run.now)["points"]


def test_both_versions_take_sub_scores(make_worker, mautic_version, scores, rules):
    worker = make_worker(version=mautic_version, mappings=rules)
    worker.init()
    number = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = (7, -2)
    worker.sync()
    assert in_mautic(worker, number) == {"fit": 7, "interest": -2}


def test_sub_scores_are_set_once_and_a_run_without_news_writes_nothing(worker, pat):
    (listed,) = worker.plan()["listed"]
    assert (listed["target"], describe_change(listed)) == ("groups", "fit 0 → 7, interest 0 → -2")
    document = worker.sync()
    assert (document["pushed"]["groups"], document["pushed"]["calls"], document["pending"]) == (2, 2, 0)
    assert in_mautic(worker, pat) == {"fit": 7, "interest": -2}
    with worker.run("look") as run, run.engine.begin() as connection:
        people.mark_everyone_dirty(connection)
    assert worker.sync()["pushed"]["calls"] == 0


def test_only_the_group_that_changed_is_written(worker, pat, scores):
    worker.sync()
    rescore(worker, scores, Pat=(7, 0))
    assert worker.sync()["pushed"]["calls"] == 1
    assert in_mautic(worker, pat) == {"fit": 7, "interest": 0}


def test_points_of_the_contact_stay_as_they_are(worker, pat):
    worker.act("points", contact=pat, delta=20)
    worker.sync()
    assert worker.contact(pat).points == 20


def test_what_stands_in_mautic_is_explained_and_forecast(worker, pat, scores):
    worker.sync()
    rescore(worker, scores, Pat=(8, -2))
    told = explained(worker, pat)
    assert (told["groups"], told["groups_in_mautic"]) == ({"fit": 8, "interest": -2}, {"fit": 7, "interest": -2})
    worker.sync()
    scores["Pat"] = (9, -2)
    with worker.run("plan") as run:
        plan_only(run, Options())
        document = forecast.as_of(run, run.now + 86400, 10)
    assert [describe_change(one) for one in document["listed"]] == ["fit 8 → 9"]


def test_init_makes_the_groups_once_and_takes_those_of_another_letter_case(make_worker, rules):
    worker = make_worker(mappings=rules)
    with requests.Session() as session:
        session.trust_env = False
        session.post(
            f"{worker.box.url}/api/points/groups/new", json={"name": "Fit"}, timeout=10, auth=("admin", "sandbox")
        )
    for _ in range(2):
        worker.init()
    with worker.run("look") as run:
        groups.read(run)
        assert len(groups.list_point_groups(run.mautic) or ()) == 2
        assert sorted(run.group_ids) == ["fit", "interest"]


def test_a_sync_without_the_groups_says_what_is_missing(make_worker, rules):
    worker = make_worker()
    worker.init()
    worker.mappings_dir = rules
    with pytest.raises(ConfigError, match=r"point group fit, point group interest.*mautic-sync init"):
        worker.sync()


def test_a_mautic_without_point_groups_is_refused_at_the_start(make_worker, rules, monkeypatch):
    worker = make_worker(mappings=rules)
    monkeypatch.setattr(groups, "list_point_groups", lambda _transport: None)
    with pytest.raises(ConfigError, match=r"has no point groups, which came with 5\.0"):
        worker.init()
    with pytest.raises(ConfigError, match=r"push\.groups"):
        worker.plan()


def lost(arrives):
    """A call whose answer does not come; whether it `arrives`."""

    def call(transport, contact_id, scores):
        if arrives:
            mautic_points.set_group_points(transport, contact_id, scores)
        return Doubtful("the connection broke")

    return call


@pytest.mark.parametrize("arrives", [True, False])
def test_a_lost_answer_is_looked_up_and_the_call_repeated_where_it_came_to_nothing(worker, pat, monkeypatch, arrives):
    with monkeypatch.context() as patch:
        patch.setattr(groups, "set_group_points", lost(arrives))
        assert worker.sync()["doubtful"] == 1
    if not arrives:
        assert worker.sync()["pushed"]["calls"] == 0  # it may still be on its way
        worker.patience(PATIENCE)
    document = worker.sync()
    assert (document["pushed"]["groups"], document["pushed"]["calls"]) == (2, 0 if arrives else 2)
    assert explained_groups(worker, pat) == in_mautic(worker, pat)


@pytest.mark.parametrize("arrives", [True, False])
def test_scores_that_change_while_others_are_in_doubt_are_written_when_it_is_over(
    worker, pat, scores, monkeypatch, arrives
):
    with monkeypatch.context() as patch:
        patch.setattr(groups, "set_group_points", lost(arrives))
        worker.sync()
        rescore(worker, scores, Pat=(8, 9))
        patch.setattr(groups, "group_points", lambda *_: {})  # nor does it show yet
        worker.sync()
    worker.patience(PATIENCE)
    worker.sync()
    assert in_mautic(worker, pat) == {"fit": 8, "interest": 9}
    assert worker.sync()["pushed"]["calls"] == 0


def explained_groups(worker, number):
    return explained(worker, number)["groups_in_mautic"]


@pytest.mark.parametrize("page", [False, True])
def test_scores_of_one_contact_that_mautic_cannot_show_stop_nobody_else(worker, pat, scores, unshown, page):
    kim = worker.new(firstname="Kim", phone="+49 30 2")
    worker.sync()
    unshown(f"/contacts/{pat}/points/groups", page=page)
    rescore(worker, scores, Kim=(5, 0), Pat=(9, 0))
    for _ in range(MOST_ATTEMPTS + 1):
        document = worker.sync()
        worker.patience(PATIENCE)
    assert (document["failed"], document["pending"]) == (1, 0)
    assert in_mautic(worker, kim)["fit"] == 5


def test_calls_that_meet_faults_come_to_the_same_in_the_end(worker, scores):
    numbers = [worker.new(firstname=f"P{n}", phone=f"+49 30 {n}") for n in range(12)]
    worker.sync()
    rescore(worker, scores, **{f"P{n}": (n, -n) for n in range(12)})
    worker.post("/_sandbox/faults", {"spec": "seed=5,before=0.1,after=0.2,late=0,merge=0,moving=0,echo=0"})
    for _ in range(3):
        worker.sync()
        worker.patience(PATIENCE)
    worker.post("/_sandbox/faults", {"spec": "seed=1,before=0,after=0,late=0,merge=0,moving=0,echo=0"})
    for _ in range(2):
        worker.patience(PATIENCE)
        worker.sync()
    found = [in_mautic(worker, number) for number in numbers]
    assert [(one.get("fit", 0), one.get("interest", 0)) for one in found] == [(n, -n) for n in range(12)]


def test_scores_that_a_merge_lost_are_set_again_for_the_survivor(worker, scores):
    known = worker.new(firstname="Pat", email="pat@shop.example", phone="+49 30 1")
    worker.sync()
    rescore(worker, scores, Pat=(7, 3))
    worker.sync()
    visitor = worker.visitor()
    worker.sync()
    set_by_hand(worker, visitor, "fit", 99)
    scores["Pat"] = (7, 0)
    worker.act("merge", visitor=visitor, known=known)
    worker.sync()
    worker.sync()
    assert in_mautic(worker, visitor) == {"fit": 7, "interest": 0}
    assert explained_groups(worker, visitor) == {"fit": 7, "interest": 0}


def test_after_mautic_was_set_back_everything_is_set_again(worker, pat):
    worker.sync()
    set_by_hand(worker, pat, "fit", 1)
    with worker.run("look") as run, run.engine.begin() as connection:
        groups.begin_epoch(run, connection)
    assert worker.sync()["pushed"]["groups"] == 2
    assert in_mautic(worker, pat) == {"fit": 7, "interest": -2}


def test_after_the_store_was_restored_everything_is_set_again(worker, pat, scores):
    """Mautic has what was set since the backup, of which the store knows nothing."""
    worker.sync()
    back_up(worker)
    rescore(worker, scores, Pat=(9, -2))
    worker.sync()
    put_back(worker)
    scores["Pat"] = (7, -2)
    assert worker.sync()["pushed"]["groups"] == 2
    assert in_mautic(worker, pat) == {"fit": 7, "interest": -2}
    assert worker.sync()["pushed"]["calls"] == 0


def test_a_group_that_the_mappings_drop_keeps_what_it_has(worker, pat, scores, rules):
    worker.sync()
    push_into(rules, "interest")
    rescore(worker, scores, Pat=(1, 1))
    assert worker.sync()["pushed"]["groups"] == 1
    assert in_mautic(worker, pat) == {"fit": 7, "interest": 1}


def test_the_history_says_that_a_sub_score_is_ours_and_no_grant_is_seen_in_it(worker, scores):
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = (7, 0)
    worker.sync()
    with worker.run("look") as run:
        (row,) = run.mautic.read("stats/lead_points_change_log", {"where[0][col]": "lead_id", "where[0][expr]": "eq",
                                                                  "where[0][val]": pat})["stats"]  # fmt: skip
    assert (row["event_name"], row["delta"]) == ("mautic-sync group score", "7")


def test_the_right_to_groups_is_named(worker):
    view = ["contacts", "stages", "fields", "segments", "forms", "points", "stats", "campaigns"]
    worker.act("restrict", rights=["contacts:edit", *(f"{one}:view" for one in view)])
    with pytest.raises(ForbiddenError, match="point:groups:view"):
        worker.sync(full=True)
