"""A stage that the mappings do not name any more: whoever we put there moves on, quietly, and nobody else."""

from __future__ import annotations

import pytest

from mautic_sync.errors import SafetyStop
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.pipeline import push, undo
from mautic_sync.pipeline.explain import explain_person
from mautic_sync.store import people
from tests.conftest import Worker

ACTIONS = """version: 1
on:
  - {enter: {stage: Interessent}, name: by-stage, do: {tags: {add: [welcome]}}}
  - {enter: {stage: Lead}, name: by-old-stage, do: {tags: {add: [welcome]}}}
  - {enter: {kind: lead}, name: by-kind, do: {tags: {add: [welcome]}}}
  - {leave: {kind: lead}, name: gone, do: {tags: {add: [gone]}}}
  - {enter: {kind: customer}, name: bought, do: {tags: {add: [bought]}}}
"""


@pytest.fixture
def rules(tmp_path):
    """`rules(("stage: Lead", "stage: Interessent"), …)`: the packaged stages with this text for that."""

    def write(*other: tuple[str, str]):
        directory = tmp_path / f"rules-{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        for name in ("stages", "fields"):
            text = (packaged_mappings_dir() / f"{name}.yaml").read_text(encoding="utf-8")
            for before, after in other:
                text = text.replace(before, after)
            (directory / f"{name}.yaml").write_text(text, encoding="utf-8")
        # What a stage sets off that is not named beside it is refused.
        named = (directory / "stages.yaml").read_text(encoding="utf-8")
        actions = "".join(
            line
            for line in ACTIONS.splitlines(keepends=True)
            if "{stage: " not in line or f"stage: {line.partition('{stage: ')[2].partition('}')[0]}\n" in named
        )
        (directory / "actions.yaml").write_text(actions, encoding="utf-8")
        return directory

    return write


RENAMED = ("stage: Lead", "stage: Interessent")


@pytest.fixture
def worker(make_worker, rules):
    worker = make_worker(mappings=rules())
    worker.init()
    return worker


def by(worker, mappings) -> Worker:
    """The same store by other mappings, which `init` has provided for."""
    other = Worker(worker.box, worker.directory, mappings=mappings)
    other.init()
    return other


def leads(worker, count) -> list[int]:
    return [worker.new(firstname=f"L{number}", phone=f"+49 30 {number}") for number in range(count)]


def explained(worker, number):
    with worker.run("look") as run, run.engine.begin() as connection:
        person = people.persons_of(connection, [number])[number]
        return explain_person(connection, person, run.settings, run.mappings, run.now)


def undone(worker, run_id):
    with worker.run(f"undo {run_id}") as run:
        undo.look(run, run_id, 10)
        undo.carry_out(run, run_id)


def test_who_is_in_a_renamed_stage_moves_on_without_a_welcome(worker, rules):
    before = worker.new(firstname="Bea", phone="+49 30 1")
    found = worker.new(firstname="Fay", phone="+49 30 2")
    worker.act("set_stage", contact=found, stage="Lead")  # before us: adopted, and nobody's transition
    worker.sync()
    since = worker.new(firstname="Sue", phone="+49 30 3")
    worker.sync()
    assert worker.contact(since).tags == {"welcome"}
    worker.act("edit", contact=since, values={"tags": ["-welcome"]})
    worker.sync()
    renamed = by(worker, rules(RENAMED))
    plan = renamed.plan()
    assert (plan["actions"], plan["moves"]) == ([], [{"from": "Lead", "to": "lead", "count": 3}])
    assert explained(renamed, since)["left_alone"] == ""
    document = renamed.sync()
    assert document["transitions"] == [{"from": "Lead", "to": "Interessent", "count": 3}]
    assert document["actions"] == {"done": 0, "refused": 0, "pending": 0}
    assert {renamed.stage(number) for number in (before, found, since)} == {"Interessent"}
    assert renamed.contact(since).tags == frozenset()
    assert renamed.sync()["pushed"]["calls"] == 0


def test_who_was_found_in_a_sticky_stage_keeps_its_kind_when_the_new_name_was_planned_first(worker, rules):
    """Somebody set it by hand together with the tag: no transition of ours led there."""
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    worker.act("set_stage", contact=pat, stage="Customer")
    worker.act("edit", contact=pat, values={"tags": ["customer"]})
    worker.sync()
    worker.act("edit", contact=pat, values={"tags": ["-customer"]})
    worker.sync()
    renamed = by(worker, rules(("stage: Customer", "stage: Kunde")))
    renamed.plan()
    worker.act("edit", contact=pat, values={"city": "Rome"})
    renamed.sync()
    assert renamed.stage(pat) == "Kunde"


def test_who_becomes_another_kind_while_a_stage_is_renamed_sets_off_actions(worker, rules):
    number = worker.new(firstname="Bea", phone="+49 30 1")
    worker.sync()
    worker.act("edit", contact=number, values={"tags": ["customer"]})
    renamed = by(worker, rules(RENAMED))
    assert renamed.sync()["actions"]["done"] == 2
    assert renamed.stage(number) == "Customer"
    assert {"bought", "gone"} <= renamed.contact(number).tags


def test_a_renamed_stage_is_no_reason_to_stop(worker, rules):
    leads(worker, 25)
    for number in range(25):
        worker.new(firstname=f"C{number}", tags=["customer"])
    worker.sync()
    renamed = by(worker, rules(RENAMED, ("stage: Customer", "stage: Kunde")))
    assert renamed.sync()["transitions"] == [
        {"from": "Customer", "to": "Kunde", "count": 25},
        {"from": "Lead", "to": "Interessent", "count": 25},
    ]


def test_who_would_leave_a_kind_with_a_renamed_stage_is_protected(worker, rules):
    numbers = leads(worker, 25)
    worker.sync()
    wrong = rules(RENAMED, ("{field: phone, not_empty: true}", "{tag: nobody-has-this}"))
    renamed = by(worker, wrong)
    with pytest.raises(SafetyStop, match="25 of 25 would leave lead") as stopped:
        renamed.sync()
    assert renamed.stage(numbers[0]) == "Lead"
    plan_id = str(stopped.value).rpartition(" ")[2].strip("`.")
    assert renamed.sync(accept=plan_id)["transitions"] == [{"from": "Lead", "to": "Ghost", "count": 25}]


def test_an_undone_renaming_leaves_the_old_stage_ours(worker, rules):
    number = worker.new(firstname="Bea", phone="+49 30 1")
    worker.sync()
    renamed = by(worker, rules(RENAMED))
    run_id = renamed.sync()["run_id"]
    undone(renamed, run_id)
    assert renamed.stage(number) == "Lead"
    told = explained(renamed, number)
    assert (told["kind"], told["in_mautic"]["set_by_us"]) == ("lead", "Lead")
    with renamed.run("release") as run:
        undo.release(run.engine, None)
    assert renamed.sync()["actions"]["done"] == 0
    assert renamed.stage(number) == "Interessent"


def test_a_stage_of_others_that_was_taken_over_is_theirs_again_once_that_is_undone(worker, rules):
    with worker.run("look") as run:
        run.mautic.write("POST", "stages/new", {"name": "Prospect", "weight": 15, "isPublished": True})
    worker.sync()
    number = worker.new(firstname="Pia", phone="+49 30 1")
    worker.act("set_stage", contact=number, stage="Prospect")
    assert worker.sync()["pushed"]["stages"] == 0
    taking = by(worker, rules(("takes_over: []", "takes_over: [Prospect]")))
    assert taking.plan()["moves"] == [{"from": "Prospect", "to": "lead", "count": 1}]
    run_id = taking.sync()["run_id"]
    assert taking.stage(number) == "Lead"
    undone(taking, run_id)
    with taking.run("release") as run:
        undo.release(run.engine, None)
    worker.sync()
    assert worker.stage(number) == "Prospect"
    told = explained(worker, number)
    assert (told["left_alone"], told["in_mautic"]["set_by_us"]) == ("stage Prospect was not set by us", None)


def test_what_a_stage_set_off_before_it_was_renamed_is_done(worker, rules, monkeypatch):
    worker.sync()
    worker.new(firstname="Pat", phone="+49 30 1")
    with monkeypatch.context() as late:
        late.setattr(push.actions, "carry_out", lambda *_args, **_more: None)
        assert worker.sync()["actions"]["pending"] == 2
    renamed = by(worker, rules(RENAMED))
    assert renamed.sync()["actions"] == {"done": 2, "refused": 0, "pending": 0}
