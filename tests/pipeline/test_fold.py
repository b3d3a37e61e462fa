"""Full runs fold old activity: decisions and accounts stay the same, also when all is counted or read again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import delete, func, select

from mautic_sync.domain.contact import Catalogue
from mautic_sync.domain.matchers import ActivityMatcher, Matchers
from mautic_sync.domain.scoring import ScoreRule, ScoreRules
from mautic_sync.errors import ConfigError, StopError
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.pipeline import fold
from mautic_sync.pipeline.explain import explain_person
from mautic_sync.settings import load_settings
from mautic_sync.store import activities, carried, notes, people
from mautic_sync.store.schema import activity, contact, cursor

DAY = 86_400


@pytest.fixture
def worker(make_worker):
    worker = make_worker(contacts=60, push={"first_run_max": 10_000}, pull={"history": "90d"})
    worker.init()
    worker.sync()
    return worker


def keeping(worker, days):
    return worker.but(pull={"history": f"{days}d"}, store={"keep_activity": f"{days}d"}, push={"first_run_max": 10_000})


def explained(worker, now):
    """Person → what `explain` tells, as of one moment, but for the last activity and writes and what is folded."""
    with worker.run("look") as run, run.engine.begin() as connection:
        persons = connection.execute(select(contact.c.person_id)).scalars().all()
        told = {
            number: explain_person(connection, number, run.settings, run.mappings, now) for number in sorted(persons)
        }
    return {
        n: {k: v for k, v in one.items() if k not in {"activity", "folded", "last_write", "refused"}}
        for n, one in told.items()
    }


def nothing_new(document):
    """Whether no stage and no points were written; what Mautic refuses once, an address that two have, is tried again."""
    return (document["pushed"]["stages"], document["pushed"]["points"], document["transitions"]) == (0, 0, [])


def count_rows(worker):
    with worker.run("look") as run, run.engine.begin() as connection:
        return int(connection.execute(select(func.count()).select_from(activity)).scalar() or 0)


def test_a_full_run_folds_and_nobody_is_decided_otherwise(worker):
    with worker.run("look") as run:
        now = run.now
    before, rows = explained(worker, now), count_rows(worker)
    short = keeping(worker, 10)
    assert nothing_new(short.sync(full=True))
    assert count_rows(worker) < rows - 20
    assert explained(worker, now) == before
    assert [facts["activities"] for event, facts in short.told if event == "folded"] == [rows - count_rows(worker)]
    with worker.run("look") as run, run.engine.begin() as connection:
        notes.drop(connection, activities.MATCHERS)
    assert nothing_new(short.sync())
    assert explained(worker, now) == before
    # Every feed is read from its beginning again, as after a restored backup.
    left = count_rows(worker)
    with worker.run("look") as run, run.engine.begin() as connection:
        connection.execute(delete(cursor).where(cursor.c.feed.not_in(["contacts", "audit_log"])))
    assert nothing_new(worker.sync())
    assert (explained(worker, now), count_rows(worker)) == (before, left)


def test_the_usual_run_folds_nothing_and_neither_does_a_full_one_that_keeps_all(worker):
    rows = count_rows(worker)
    keeping(worker, 10).sync()
    worker.sync(full=True)
    assert count_rows(worker) == rows


def test_a_full_run_whose_fold_was_cut_short_is_made_good_by_the_next_one_and_then_the_day_is_done(worker, monkeypatch):
    short, rows = keeping(worker, 10), count_rows(worker)
    with monkeypatch.context() as patch:

        def full(*_):
            raise StopError("the disk is full")

        patch.setattr(carried.Fold, "store", full)
        with pytest.raises(StopError):
            short.sync(full=True)
    assert count_rows(worker) == rows
    short.sync(full=True)
    short.sync(full=True)
    assert [facts["activities"] for event, facts in short.told if event == "folded"] == [rows - count_rows(worker)]
    assert count_rows(worker) < rows - 20


def test_what_was_folded_of_somebody_is_told(worker):
    keeping(worker, 10).sync(full=True)
    with worker.run("look") as run, run.engine.begin() as connection:
        number = connection.execute(select(carried.carried.c.person_id).limit(1)).scalar_one()
        told = explain_person(connection, number, run.settings, run.mappings, run.now)["folded"]
    assert sum(one["times"] for one in told["activities"].values()) > 0
    assert told["not_counted"] == []


def test_a_rule_that_asks_for_what_was_folded_is_told_of_at_every_run(worker, tmp_path):
    short = keeping(worker, 10)
    short.sync(full=True)
    assert not [event for event, _ in short.told if event == "folded_short"]
    (tmp_path / "rules").mkdir()
    text = (packaged_mappings_dir() / "scoring.yaml").read_text()
    new = '    - {name: Reads prices, on: page.hit, where: {url: "*/prices*"}, points: 2}\n'
    (tmp_path / "rules" / "scoring.yaml").write_text(text.replace("  interest:", f"  interest:\n{new}", 1))
    short.mappings_dir = tmp_path / "rules"
    for _ in range(2):
        short.told.clear()
        short.plan()
        (told,) = [facts["reason"] for event, facts in short.told if event == "folded_short"]
        assert told.startswith("page.hit with url */prices* (`Reads prices`): activity from before 2")
    with short.run("look") as run, run.engine.begin() as connection:
        number = people.persons_of(connection, [1])[1]
        document = explain_person(connection, number, run.settings, run.mappings, run.now)
    assert document["folded"]["not_counted"] == [told]


def test_a_name_that_changed_after_folding_is_told_where_a_rule_asks_for_it(worker):
    asks = ActivityMatcher.of("form.submitted", {"form": "trial"})
    with worker.run("look") as run, run.engine.begin() as connection:
        proofs, names = Matchers(run.mappings.matchers), {"form": {3: "Trial", 4: "X"}}
        carried.announce(connection, run.now, proofs, Matchers([asks]), "UTC", names)
        mappings = replace(run.mappings, scores=ScoreRules((ScoreRule("Tries", "fit", 1, matcher=asks),), ("fit",)))
        assert fold.missing(connection, mappings, Catalogue(forms={3: "Trial", 4: "Y"})) == []
        (told,) = fold.missing(connection, mappings, Catalogue(forms={3: "Demo"}))
        assert "form 3, now `Demo`, was called `Trial` when activity was folded" in told
        (told,) = fold.missing(connection, replace(mappings, time_zone="Asia/Tokyo"), Catalogue(forms={3: "Trial"}))
        assert "stay those of UTC, not of Asia/Tokyo" in told


def test_less_than_rules_may_look_back_is_refused(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('[store]\nkeep_activity = "30d"\n')
    with pytest.raises(
        ConfigError, match=r"line 2: store\.keep_activity is 30 d, less than the 400 d of pull\.history"
    ):
        load_settings(config)
    config.write_text('[store]\nkeep_activity = "30d"\n\n[pull]\nhistory = "30d"\n')
    assert load_settings(config).store.keep_activity.days == 30
