"""`undo`: Mautic is as it was before the run, those people are held, and nothing that somebody did since is touched."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import requests
from sqlalchemy import select

from mautic_sync.cli import repairing
from mautic_sync.cli.passes import describe_change
from mautic_sync.errors import ConfigError
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.mautic.writes import Doubtful
from mautic_sync.pipeline import decide as deciding, points, push, undo
from mautic_sync.pipeline.context import MOST_ATTEMPTS
from mautic_sync.pipeline.explain import explain_person
from mautic_sync.store import actions, changes, holds, people
from mautic_sync.store.schema import action, decision, ledger
from tests.pipeline.conftest import rescore

LIMIT = 50


@pytest.fixture
def worker(make_worker, scores):
    worker = make_worker()
    worker.init()
    worker.sync()  # the baseline of an empty Mautic
    return worker


@pytest.fixture
def pat(worker, scores):
    """Somebody whom a run made a lead and gave 7 points."""
    scores["Pat"] = 7
    return worker.new(firstname="Pat", phone="+49 30 1")


def look(worker, undone):
    with worker.run(f"undo {undone}") as run:
        return undo.look(run, undone, LIMIT)


def carry_out(worker, undone):
    """Returns the id of the undo, what it found, and its counts."""
    with worker.run(f"undo {undone}") as run:
        found = undo.look(run, undone, LIMIT)
        undo.carry_out(run, undone)
        return run.id, found, run.counts


def held(worker) -> list[int]:
    with worker.run("look") as run, run.engine.begin() as connection:
        return [row["mautic_id"] for row in holds.listed(connection)]


def release(worker) -> int:
    with worker.run("release") as run:
        return undo.release(run.engine, None)


def account(worker) -> list[int]:
    with worker.run("look") as run, run.engine.begin() as connection:
        return list(connection.execute(select(ledger.c.delta).order_by(ledger.c.id)).scalars())


def log(worker) -> list[tuple[str, int]]:
    return worker.box.instance.tables.connection.execute(
        "SELECT event_name, delta FROM lead_points_change_log WHERE event_name LIKE 'mautic-sync%' ORDER BY id"
    ).fetchall()


def shown(worker, number):
    """Stage, the reason that marketers read, tags, do-not-contact and points."""
    one = worker.contact(number)
    return (one.stage_id, one.fields.get("sync_reason"), one.tags, dict(one.dnc), one.points)


def test_stage_fields_and_points_are_as_before_and_the_account_agrees(worker, pat):
    before = shown(worker, pat)
    run_id = worker.sync()["run_id"]
    assert worker.stage(pat) == "Lead"
    assert worker.contact(pat).points == 7
    _, found, counts = carry_out(worker, run_id)
    assert shown(worker, pat) == before
    assert (counts.stages, counts.points, counts.failed) == (1, 1, 0)
    assert found.left == 0
    assert account(worker) == [7, -7]
    assert [delta for _, delta in log(worker)] == [7, -7]
    assert run_id in log(worker)[1][0]


def test_looking_writes_nothing_and_plans_nothing(worker, pat):
    run_id = worker.sync()["run_id"]
    before = shown(worker, pat)
    worker.box.reset_stats()
    found = look(worker, run_id)
    assert (found.changes, found.contacts) == (2, 1)
    assert {row["target"] for row in found.listed} == {"contact", "points"}
    assert "granted 7 → 0 (Mautic: 7 points, -7)" in map(describe_change, found.listed)
    assert (worker.box.stats()["writes"], shown(worker, pat), held(worker)) == (0, before, [])
    assert worker.sync()["pushed"]["calls"] == 0


def test_who_was_undone_is_held_until_a_signal_changes(worker, pat, scores):
    carry_out(worker, worker.sync()["run_id"])
    before = shown(worker, pat)
    for full in (False, True):
        assert worker.sync(full=full)["pushed"]["calls"] == 0
    scores["Pat"] = 9  # another score is no signal
    with worker.run("look") as run, run.engine.begin() as connection:
        people.mark_everyone_dirty(connection)
    worker.sync()
    assert (shown(worker, pat), held(worker)) == (before, [pat])
    worker.act("edit", contact=pat, values={"city": "Rome"})  # nor is what no rule reads
    worker.sync()
    assert held(worker) == [pat]
    worker.act("edit", contact=pat, values={"phone": "+49 30 2"})
    worker.sync()
    assert (held(worker), worker.stage(pat), worker.contact(pat).points) == ([], "Lead", 9)


def test_who_is_let_go_is_decided_again(worker, pat):
    carry_out(worker, worker.sync()["run_id"])
    assert release(worker) == 1
    worker.sync()
    assert (worker.stage(pat), worker.contact(pat).points, held(worker)) == ("Lead", 7, [])
    assert account(worker) == [7, -7, 7]


def test_the_hold_is_shown_by_explain(worker, pat):
    run_id = worker.sync()["run_id"]
    undo_id, _, _ = carry_out(worker, run_id)
    with worker.run("look") as run, run.engine.begin() as connection:
        (person,) = people.find_person(connection, pat, None)
        told = explain_person(connection, person, run.settings, run.mappings, run.now)
    assert (told["held"]["undone"], told["held"]["run_id"]) == (run_id, undo_id)


def test_other_rules_do_not_end_a_hold(worker, pat, tmp_path):
    carry_out(worker, worker.sync()["run_id"])
    (tmp_path / "rules").mkdir()
    text = (packaged_mappings_dir() / "stages.yaml").read_text()
    (tmp_path / "rules" / "stages.yaml").write_text(text.replace("respect_manual: 90d", "respect_manual: 91d"))
    worker.mappings_dir = tmp_path / "rules"
    for _ in range(2):
        worker.sync()
        assert held(worker) == [pat]
    worker.act("edit", contact=pat, values={"phone": "+49 30 2"})
    worker.sync()
    assert held(worker) == []


def test_a_stage_and_a_field_that_somebody_changed_since_are_left_alone(worker, pat):
    run_id = worker.sync()["run_id"]
    worker.act("set_stage", contact=pat, stage="Customer")
    worker.act("edit", contact=pat, values={"sync_reason": "mine"})
    _, found, _ = carry_out(worker, run_id)
    assert {row["what"] for row in found.left_alone} >= {"stage", "sync_reason"}
    assert (worker.stage(pat), worker.contact(pat).fields["sync_reason"]) == ("Customer", "mine")
    assert worker.contact(pat).points == 0  # points are not theirs


@pytest.mark.usefixtures("no_actions")
def test_what_somebody_changes_while_the_undo_asks_is_left_alone(worker, pat):
    run_id = worker.sync()["run_id"]
    customer = next(number for number, stage in worker.box.instance.stages.items() if stage.name == "Customer")
    with worker.run(f"undo {run_id}") as run:
        assert undo.look(run, run_id, LIMIT).left == 0
        worker.act("set_stage", contact=pat, stage=customer)
        found, _ = undo.carry_out(run, run_id, LIMIT)
    assert worker.stage(pat) == "Customer"
    assert [row["what"] for row in found.left_alone] == ["stage"]


def test_points_that_a_later_run_changed_are_left_alone(worker, pat, scores):
    run_id = worker.sync()["run_id"]
    scores["Pat"] = 3
    with worker.run("look") as run, run.engine.begin() as connection:
        people.mark_everyone_dirty(connection)
    later = worker.sync()["run_id"]
    _, found, _ = carry_out(worker, run_id)
    assert "points" in {row["what"] for row in found.left_alone}
    assert account(worker) == [7, -4]
    carry_out(worker, later)
    carry_out(worker, run_id)
    assert account(worker) == [7, -4, 4, -7]
    assert worker.contact(pat).points == 0


def test_points_that_mautic_granted_meanwhile_stay(worker, pat):
    run_id = worker.sync()["run_id"]
    worker.act("points", contact=pat, delta=20)
    carry_out(worker, run_id)
    assert worker.contact(pat).points == 20


def test_an_undo_is_a_run_that_can_be_repeated_and_undone(worker, pat):
    run_id = worker.sync()["run_id"]
    undo_id, _, _ = carry_out(worker, run_id)
    worker.box.reset_stats()
    _, again, _ = carry_out(worker, run_id)
    assert (again.changes, again.left, worker.box.stats()["writes"]) == (0, 0, 0)
    carry_out(worker, undo_id)
    assert (worker.stage(pat), worker.contact(pat).points) == ("Lead", 7)
    assert account(worker) == [7, -7, 7]


def test_do_not_contact_that_the_run_set_is_taken_back_and_set_again_after_release(worker):
    number = worker.new(email="invalid@example.com", firstname="Otto")
    worker.sync()
    run_id = worker.sync()["run_id"]
    with worker.run("look") as run, run.engine.begin() as connection:
        by = {
            row["settled_run"] for row in changes.listed(connection, [changes.SETTLED]) if row["target"] == "dnc:email"
        }
    assert by, "nothing was set"
    (run_id,) = by
    assert worker.contact(number).dnc == {"email": 3}
    tagged = worker.contact(number).tags
    assert tagged
    carry_out(worker, run_id)
    assert (worker.contact(number).dnc, worker.contact(number).tags) == ({}, frozenset())
    worker.sync()
    assert worker.contact(number).dnc == {}
    release(worker)
    worker.sync()
    assert (worker.contact(number).dnc, worker.contact(number).tags) == ({"email": 3}, tagged)


def test_what_was_unsubscribed_and_put_back_after_a_merge_is_not_taken_back(worker):
    known = worker.new(email="valid@example.com", firstname="Uma")
    worker.sync()
    worker.act("unsubscribe", contact=known)
    worker.sync()
    merged = worker.visitor()
    worker.sync()
    worker.act("merge", known=known, visitor=merged)
    worker.sync()
    with worker.run("look") as run, run.engine.begin() as connection:
        put_back = [row for row in changes.listed(connection, [changes.SETTLED]) if row["value"] == 500]
    _, found, _ = carry_out(worker, put_back[0]["settled_run"])
    assert "dnc:email" in {row["what"] for row in found.left_alone}
    assert worker.contact(merged).dnc == {"email": 1}


def test_no_action_is_set_off_and_none_that_nobody_began_is_done(worker, pat, monkeypatch):
    with monkeypatch.context() as never:
        never.setattr(push.actions, "carry_out", lambda *_args, **_more: None)
        buyer = worker.new(firstname="Bea", email="valid@example.com", tags=["customer"])
        run_id = worker.sync()["run_id"]
    with worker.run("look") as run, run.engine.begin() as connection:
        planned = connection.execute(select(action)).all()
    assert planned
    carry_out(worker, run_id)
    worker.sync()
    with worker.run("look") as run, run.engine.begin() as connection:
        states = set(connection.execute(select(action.c.state)).scalars())
        assert len(connection.execute(select(action)).all()) == len(planned)
    assert states == {actions.SUPERSEDED}
    assert worker.stage(buyer) is None


def test_actions_that_were_carried_out_are_named(worker):
    number = worker.new(firstname="Bea", email="valid@example.com", tags=["customer"])
    run_id = worker.sync()["run_id"]
    found = look(worker, run_id)
    assert found.actions == 1
    assert (found.carried_out[0]["contact"], found.carried_out[0]["done"]) == (number, ["segments:remove:nurture"])


def test_who_was_deleted_in_mautic_is_left_alone(worker, pat):
    run_id = worker.sync()["run_id"]
    worker.act("delete", contact=pat)
    _, found, counts = carry_out(worker, run_id)
    assert (found.changes, counts.failed) == (0, 0)
    assert {row["why"] for row in found.left_alone} == {"deleted in Mautic"}


def test_a_run_that_nobody_knows_is_refused(worker):
    with pytest.raises(ConfigError, match="no run 20200101T000000-000000"):
        look(worker, "20200101T000000-000000")


def test_the_decision_is_put_back_with_the_stage(worker, pat):
    """Else a sticky stage would be kept after the release, though nobody should ever have had it."""
    carry_out(worker, worker.sync()["run_id"])
    with worker.run("look") as run, run.engine.begin() as connection:
        kinds = connection.execute(select(decision.c.kind, decision.c.stage)).all()
    assert kinds == [("ghost", "Ghost")]


@pytest.mark.parametrize("cut", ["before the push", "after the first answer"])
def test_an_undo_that_was_cut_short_is_finished_by_the_next_sync_or_by_itself(worker, scores, monkeypatch, cut):
    numbers = [worker.new(firstname="Pat", phone=f"+49 30 {one}") for one in range(4)]
    scores["Pat"] = 7
    before = [shown(worker, number) for number in numbers]
    run_id = worker.sync()["run_id"]

    class Killed(BaseException):
        pass

    def killed(*_args, **_more):
        raise Killed

    with monkeypatch.context() as dying:
        if cut == "before the push":
            dying.setattr(push, "push_planned_by", killed)
        else:
            dying.setattr(points, "intend", killed)
        with pytest.raises(Killed):
            carry_out(worker, run_id)
    assert sorted(held(worker)) == sorted(numbers)
    if cut == "before the push":
        worker.sync()
    else:
        carry_out(worker, run_id)
    assert [shown(worker, number) for number in numbers] == before
    assert account(worker) == [7] * 4 + [-7] * 4
    assert worker.sync()["pushed"]["calls"] == 0


HOT = """version: 1
on:
  - {become: hot, do: {tags: {add: [hot]}}}
  - {become: cold, do: {tags: {remove: [hot]}}}
"""


@pytest.fixture
def hot(make_worker, monkeypatch, tmp_path):
    """A worker whose rules tag who is hot, how to rescore, a lead who became hot, and the run that told so."""
    found = {}
    real = deciding.score

    def score(signals, rules, now, not_before, parts):
        fit = found.get(str(signals.fields.get("firstname")), 0)
        return real(signals, rules, now, not_before, parts)._replace(total=fit, groups={"fit": fit, "interest": 0})

    monkeypatch.setattr(deciding, "score", score)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "actions.yaml").write_text(HOT)
    worker = make_worker(mappings=tmp_path / "rules")
    worker.init()
    worker.sync()
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    rescore(worker, found, Pat=12)
    run_id = worker.sync()["run_id"]
    assert worker.contact(number).tags == {"hot"}
    return worker, found, number, run_id


def flags(worker) -> list[tuple[str, bool]]:
    """The flags of everybody, and whether it is known since when they are hot."""
    with worker.run("look") as run, run.engine.begin() as connection:
        rows = connection.execute(select(decision.c.flags, decision.c.hot_since)).all()
    return [(row.flags, row.hot_since is not None) for row in rows]


def test_who_was_made_cold_has_tag_and_flag_again_and_loses_both_when_let_go(hot):
    worker, found, number, _ = hot
    rescore(worker, found, Pat=0)
    run_id = worker.sync()["run_id"]
    assert (worker.contact(number).tags, flags(worker)) == (frozenset(), [("[]", False)])
    carry_out(worker, run_id)
    assert (worker.contact(number).tags, flags(worker)) == ({"hot"}, [('["hot"]', True)])
    release(worker)
    worker.sync()
    assert (worker.contact(number).tags, flags(worker)) == (frozenset(), [("[]", False)])


def test_an_undone_undo_gives_the_flag_back_with_the_tag(hot):
    worker, found, number, run_id = hot
    undo_id, _, _ = carry_out(worker, run_id)
    assert (worker.contact(number).tags, flags(worker)) == (frozenset(), [("[]", False)])
    carry_out(worker, undo_id)
    assert (worker.contact(number).tags, flags(worker)) == ({"hot"}, [('["hot"]', True)])
    release(worker)
    rescore(worker, found, Pat=0)
    worker.sync()
    assert (worker.contact(number).tags, flags(worker)) == (frozenset(), [("[]", False)])


@pytest.mark.parametrize(("was", "now"), [(1, 12), (12, 1)])
def test_who_became_hot_or_cold_and_nothing_was_begun_does_so_again_when_let_go(hot, monkeypatch, was, now):
    """The action is taken back, and so is what was decided: else nobody would ever give the tag, or take it away."""
    worker, found, number, _ = hot
    rescore(worker, found, Pat=was)
    worker.sync()
    before = (worker.contact(number).tags, flags(worker))
    rescore(worker, found, Pat=now)
    with monkeypatch.context() as never:
        never.setattr(push.actions, "carry_out", lambda *_args, **_more: None)
        run_id = worker.sync()["run_id"]
        carry_out(worker, run_id)
    worker.sync()
    assert (worker.contact(number).tags, flags(worker)) == before
    release(worker)
    worker.sync()
    assert worker.contact(number).tags == (frozenset(), {"hot"})[now == 12]


@pytest.mark.parametrize(("was", "now"), [(12, 1), (1, 12)])
def test_what_an_undo_gives_back_is_known_when_the_same_had_come_again_and_nothing_was_begun(
    hot, monkeypatch, was, now
):
    """Else the action that waited counts as all that there is to take back, and the tag of the undo stays as it is."""
    worker, found, number, _ = hot
    for score in (was, now):
        rescore(worker, found, Pat=score)
        run_id = worker.sync()["run_id"]
    with monkeypatch.context() as never:
        never.setattr(push.actions, "carry_out", lambda *_args, **_more: None)
        rescore(worker, found, Pat=was)
        worker.sync()
        carry_out(worker, run_id)
    assert worker.contact(number).tags == ({"hot"} if was == 12 else frozenset())
    release(worker)
    rescore(worker, found, Pat=now)
    worker.sync()
    assert worker.contact(number).tags == ({"hot"} if now == 12 else frozenset())


@pytest.fixture
def cut_short(worker, monkeypatch):
    """`cut_short(run)`: the undo of a run that plans what it will write and writes nothing of it."""

    def undone(run_id):
        with monkeypatch.context() as stopped:
            stopped.setattr(push, "push_planned_by", lambda _: None)
            carry_out(worker, run_id)

    return undone


def left_alone(worker) -> set[str]:
    return {facts["what"] for event, facts in worker.told if event == "undo_left_alone"}


@pytest.mark.parametrize("again", [False, True])
def test_what_somebody_sets_before_a_cut_short_undo_goes_on_is_left_alone(worker, pat, cut_short, again):
    run_id = worker.sync()["run_id"]
    cut_short(run_id)
    worker.act("set_stage", contact=pat, stage="Customer")
    worker.act("edit", contact=pat, values={"sync_reason": "mine"})
    if again:
        _, found, _ = carry_out(worker, run_id)
        left = {row["what"] for row in found.left_alone}
    planned = [row["new"] for row in worker.plan()["listed"]]
    assert not any("stage" in new or "sync_reason" in new.get("fields", {}) for new in planned)
    if not again:
        left = left_alone(worker)
    worker.sync()
    assert left == {"stage", "sync_reason"}
    assert (worker.stage(pat), worker.contact(pat).fields["sync_reason"]) == ("Customer", "mine")
    assert (worker.contact(pat).points, held(worker)) == (0, [pat])  # points are not theirs


@pytest.mark.parametrize("granted", [0, 7])
def test_an_undo_that_is_repeated_keeps_nothing_of_what_it_leaves_alone_now(worker, scores, cut_short, granted):
    scores["Pat"] = granted
    number = worker.new(firstname="Pat", phone="+49 30 1")
    run_id = worker.sync()["run_id"]
    (edit,) = (row for row in look(worker, run_id).listed if row["target"] == "contact")
    cut_short(run_id)
    worker.act("set_stage", contact=number, stage="Customer")
    worker.act("edit", contact=number, values=dict.fromkeys(edit["new"]["fields"], "9"))
    carry_out(worker, run_id)
    one = worker.contact(number)
    assert (worker.stage(number), one.points) == ("Customer", 0)
    assert {one.fields[alias] for alias in edit["new"]["fields"]} <= {"9", 9}
    with worker.run("look") as run, run.engine.begin() as connection:
        assert changes.listed(connection, [changes.PLANNED]) == []


def test_what_is_still_as_the_undo_found_it_goes_back_beside_what_is_not(worker, pat, cut_short):
    before = worker.stage(pat)
    cut_short(worker.sync()["run_id"])
    worker.act("edit", contact=pat, values={"sync_reason": "mine"})
    worker.sync()
    assert left_alone(worker) == {"sync_reason"}
    assert (worker.stage(pat), worker.contact(pat).fields["sync_reason"]) == (before, "mine")


def test_what_somebody_sets_while_an_undo_is_in_doubt_is_left_alone(worker, pat, monkeypatch):
    run_id = worker.sync()["run_id"]
    with monkeypatch.context() as losing:
        losing.setattr(push, "edit_one", lambda *_: Doubtful("the answer was lost"))
        losing.setattr(push, "edit_batch", lambda _, edits: {one.contact_id: Doubtful("lost") for one in edits})
        assert carry_out(worker, run_id)[2].doubtful == 1
    worker.act("set_stage", contact=pat, stage="Customer")
    worker.patience(3600)
    worker.sync()
    assert worker.stage(pat) == "Customer"


def test_who_unsubscribes_before_a_cut_short_undo_goes_on_stays_so(worker, cut_short, tmp_path):
    number = worker.new(email="invalid@example.com", firstname="Otto")
    run_id = worker.sync()["run_id"]
    tagged = worker.contact(number).tags
    cut_short(run_id)
    with requests.Session() as session:
        session.trust_env = False
        url = f"{worker.box.url}/api/contacts/{number}/dnc/email/remove"
        assert session.post(url, timeout=10, auth=("admin", "sandbox")).ok
    worker.act("unsubscribe", contact=number)
    assert worker.contact(number).dnc == {"email": 1}
    # With other rules the hold goes on, whatever has changed.
    (tmp_path / "rules").mkdir()
    text = (packaged_mappings_dir() / "stages.yaml").read_text()
    (tmp_path / "rules" / "stages.yaml").write_text(text.replace("respect_manual: 90d", "respect_manual: 91d"))
    worker.mappings_dir = tmp_path / "rules"
    worker.sync()
    assert held(worker) == [number]
    assert worker.contact(number).dnc == {"email": 1}
    assert left_alone(worker) == {"dnc:email"}
    assert worker.contact(number).tags < tagged


@contextmanager
def losing_answers(monkeypatch, module, call):
    """What this call asks for is done, and nobody is told."""
    real = getattr(module, call)

    def lost(*args, **more):
        real(*args, **more)
        return Doubtful("the answer was lost")

    with monkeypatch.context() as losing:
        losing.setattr(module, call, lost)
        yield


def test_points_whose_answer_was_lost_are_taken_back_once(worker, pat, monkeypatch):
    run_id = worker.sync()["run_id"]
    with losing_answers(monkeypatch, points, "add_points"):
        _, _, counts = carry_out(worker, run_id)
        assert counts.doubtful == 1
    _, again, _ = carry_out(worker, run_id)
    assert (again.changes, account(worker), worker.contact(pat).points) == (0, [7, -7], 0)


def test_points_whose_answer_was_lost_belong_to_the_run_that_sent_them(worker, pat, monkeypatch):
    """Whichever run finds them, be it the undo itself."""
    with losing_answers(monkeypatch, points, "add_points"):
        run_id = worker.sync()["run_id"]
    assert worker.contact(pat).points == 7
    carry_out(worker, run_id)
    assert (account(worker), worker.contact(pat).points) == ([7, -7], 0)


def test_a_stage_whose_answer_was_lost_belongs_to_the_run_that_set_it_with_its_actions(
    make_worker, monkeypatch, tmp_path
):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "actions.yaml").write_text("version: 1\non:\n  - {enter: {kind: lead}, do: {note: hello}}\n")
    worker = make_worker(mappings=tmp_path / "rules")
    worker.init()
    worker.sync()
    number = worker.new(firstname="Pat")
    worker.sync()
    worker.act("edit", contact=number, values={"phone": "+49 30 1"})
    with losing_answers(monkeypatch, push, "edit_one"):
        run_id = worker.sync()["run_id"]
    assert worker.stage(number) == "Lead"
    _, found, _ = carry_out(worker, run_id)
    assert (worker.stage(number), found.unfinished) == ("Ghost", 1)
    worker.sync()
    assert worker.box.instance.tables.column("SELECT text FROM lead_notes") == []


def arriving_later(monkeypatch) -> list:
    """Points calls break; each arrives when what is in the list that is returned is called."""
    real, waiting = points.add_points, []

    def call(*args, **more):
        waiting.append(lambda: real(*args, **more))
        return Doubtful("no answer came in time")

    monkeypatch.setattr(points, "add_points", call)
    return waiting


@pytest.mark.parametrize("late_is", ["the run", "the undo"])
def test_what_arrives_too_many_for_somebody_who_is_held_is_taken_back(worker, pat, monkeypatch, late_is):
    with monkeypatch.context() as breaking:
        late = arriving_later(breaking)
        run_id = worker.sync()["run_id"]
        if late_is == "the undo":
            late.pop()()
            worker.sync()
            carry_out(worker, run_id)
    worker.patience(3600)
    if late_is == "the run":
        carry_out(worker, worker.sync()["run_id"])
    else:
        worker.sync()
    assert (held(worker), worker.contact(pat).points) == ([pat], 0)
    late.pop()()
    worker.sync()
    assert (held(worker), worker.contact(pat).points) == ([pat], 0)
    assert worker.sync()["pushed"]["calls"] == 0


@pytest.mark.parametrize("undo_arrives", [True, False])
def test_what_arrives_too_many_while_the_undo_is_in_doubt_is_taken_back(worker, pat, monkeypatch, undo_arrives):
    with monkeypatch.context() as breaking:
        late = arriving_later(breaking)
        worker.sync()
    worker.patience(3600)
    run_id = worker.sync()["run_id"]
    with monkeypatch.context() as breaking:
        undoing = arriving_later(breaking)
        carry_out(worker, run_id)
    late.pop()()
    worker.sync()
    if undo_arrives:
        undoing.pop()()
    worker.patience(3600)
    worker.sync()
    assert (account(worker), held(worker)) == ([7, 7, *([-7, -7] if undo_arrives else [-14])], [pat])
    assert worker.contact(pat).points == 0
    assert worker.sync()["pushed"]["calls"] == 0


@pytest.mark.parametrize("found", ["while it is watched", "by a full run"])
def test_an_undo_of_points_that_was_refused_and_arrives_is_not_tried_again(worker, pat, monkeypatch, found):
    run_id = worker.sync()["run_id"]
    with monkeypatch.context() as breaking:
        late = arriving_later(breaking)
        carry_out(worker, run_id)
        for _ in range(MOST_ATTEMPTS):
            worker.patience(3600)
            worker.sync()
    late[0]()
    if found == "by a full run":
        worker.skew = 2 * points.WATCHED_SECONDS
    worker.sync(full=True)
    assert (account(worker), worker.contact(pat).points) == ([7, -7], 0)
    with worker.run("retry") as run:
        with run.engine.begin() as connection:
            wanted = repairing._Wanted.of(connection, ())
        repairing._plan_again(run, wanted)
    worker.sync(full=True)
    assert (account(worker), worker.contact(pat).points) == ([7, -7], 0)


def test_what_is_in_doubt_of_a_run_that_is_undone_is_told_and_not_done_afterwards(worker, pat, monkeypatch):
    with monkeypatch.context() as breaking:
        arriving_later(breaking)
        run_id = worker.sync()["run_id"]
        assert worker.stage(pat) == "Lead"
        _, found, _ = carry_out(worker, run_id)
    assert [(one["what"], one["why"]) for one in found.left_alone] == [("points", undo.ON_THE_WAY)]
    worker.patience(3600)
    for _ in range(2):
        document = worker.sync()
    assert (document["pending"], document["failed"], held(worker)) == (0, 0, [pat])
    assert (account(worker), worker.contact(pat).points) == ([], 0)


def test_what_a_later_run_has_in_doubt_is_not_done_for_somebody_who_is_held(worker, pat, scores, monkeypatch):
    worker.sync()
    scores["Pat"] = 9
    worker.act("edit", contact=pat, values={"tags": ["vip"]})
    run_id = worker.sync()["run_id"]
    worker.act("edit", contact=pat, values={"tags": ["customer"]})
    with monkeypatch.context() as losing:
        losing.setattr(push, "edit_one", lambda *_: Doubtful("the answer was lost"))
        assert worker.sync()["doubtful"] == 1
    carry_out(worker, run_id)
    worker.patience(3600)
    for _ in range(2):
        document = worker.sync()
    assert (document["pending"], held(worker), worker.stage(pat)) == (0, [pat], "Lead")
    release(worker)
    worker.sync()
    assert (worker.stage(pat), worker.contact(pat).points) == ("Customer", 9)
