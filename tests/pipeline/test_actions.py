"""Actions: set off by transitions, done once, never on the baseline."""

from __future__ import annotations

import pytest

from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.pipeline import decide as deciding
from mautic_sync.store import people
from mautic_sync.store.schema import action

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

    def score(signals, rules, now, not_before=0):
        fit = found.get(str(signals.fields.get("firstname")), 0)
        return real(signals, rules, now, not_before)._replace(total=fit, groups={"fit": fit, "interest": 0})

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


def rescore(worker, scores, **by_name):
    scores.update(by_name)
    with worker.run("look") as run, run.engine.begin() as connection:
        people.mark_everyone_dirty(connection)


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
    assert note == f"Hot: 12 points. nothing counts any more [mautic-sync:{row.key}]"
    assert worker.contact(number).tags == {"hot"}
    rescore(worker, scores, Pat=5)  # between `until` and `when`: still hot
    rescore(worker, scores, Pat=13)
    assert worker.sync()["actions"]["done"] == 0
    rescore(worker, scores, Pat=1)
    assert worker.sync()["actions"]["done"] == 1
    assert worker.contact(number).tags == frozenset()
    assert len(notes_of(worker, number)) == 1


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


def test_a_plan_tells_what_its_changes_would_set_off(started):
    worker = started("on:\n  - {enter: {kind: lead}, do: {tags: {add: [entered]}}}\n")
    worker.new(firstname="Pat", phone="+49 30 1")
    assert worker.plan()["actions"] == [{"rule": "enter lead", "count": 1}]


def test_nobody_asks_about_an_address_of_low_value(started, scores, rules):
    low = (
        (packaged_mappings_dir() / "scoring.yaml")
        .read_text()
        .replace("{field: company, in: []}", "{field: company, in: [Evil Corp]}")
    )
    worker = started(files={"scoring": low})
    worker.new(firstname="Pat", email="pat@evil.example", company="evil corp")
    worker.new(firstname="Kim", email="kim@good.example", company="Good")
    document = worker.sync()
    assert document["validated"]["credits"] == 1
    found = worker.contacts([1, 2])
    assert [found[number].tags for number in (1, 2)] == [{"low-value"}, frozenset()]
