"""`explain` as its users read it, from the store alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from mautic_sync.cli import app
from mautic_sync.cli.common import console
from mautic_sync.cli.passes import make_plan, show_plan
from mautic_sync.pipeline.run import summary

RULES = """version: 1
start: now
groups:
  fit:
    - {name: Decides, when: {field: position, in: [CEO]}, points: 10}
  interest:
    - {name: Reads, on: page.hit, points: 2}
decay: {group: interest, half_life: 90d}
"""


@pytest.fixture
def explain(make_worker, tmp_path, monkeypatch):
    """`explain(worker_does, …)` of a worker whose points begin now."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "scoring.yaml").write_text(RULES)
    worker = make_worker(mappings=tmp_path / "rules")
    worker.init()
    monkeypatch.setenv("MAUTIC_SYNC_STORE__URL", worker.settings.store.url)
    monkeypatch.setenv("MAUTIC_SYNC_MAPPINGS__DIR", str(tmp_path / "rules"))

    def run(number, *arguments):
        worker.sync()
        done = CliRunner().invoke(app, ["explain", str(number), *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    run.worker = worker
    return run


def test_who_it_is_about_stands_first(explain):
    number = explain.worker.new(firstname="Pat", email="pat@who.example", phone="+49 30 1")
    assert explain(number).splitlines()[0] == f"Contact {number} (pat@who.example): lead, stage Lead"
    visitor = explain.worker.visitor()
    assert explain(visitor).splitlines()[0] == f"Contact {visitor}: ghost, stage Ghost"


def test_what_is_cut_off_of_a_score_is_told(explain):
    number = explain.worker.visitor()
    later = datetime.fromtimestamp(time.time(), UTC) + timedelta(days=30)
    assert "cut off" not in explain(number)
    assert "interest 1 (1.587, cut off)" in explain(number, "--as-of", later.date().isoformat())


def test_what_is_cut_off_of_a_score_is_told_however_little_it_lacks_of_a_whole_number(explain, tmp_path):
    (tmp_path / "rules" / "scoring.yaml").write_text(RULES.replace("half_life: 90d", "half_life: 36500d"))
    number = explain.worker.visitor()
    tomorrow = datetime.fromtimestamp(time.time(), UTC) + timedelta(days=1)
    told = explain(number, "--as-of", tomorrow.date().isoformat())
    assert "interest: Reads, page visit, 1 time" in told
    assert "interest 1 (1.99996, cut off)" in told


def test_what_no_run_has_counted_since_the_rules_changed_is_told(explain, tmp_path):
    number = explain.worker.visitor("https://shop.example/pricing")
    assert "Not counted" not in explain(number)
    new = '    - {name: Prices, on: page.hit, where: {url: "*/pricing*"}, points: 5}\n'
    (tmp_path / "rules" / "scoring.yaml").write_text(RULES.replace("  interest:\n", f"  interest:\n{new}"))
    told = " ".join(CliRunner().invoke(app, ["explain", str(number)]).stdout.split())
    assert "Not counted: page.hit with url */pricing* (`Prices`): no run has counted it since the rules changed" in told
    assert "Prices, page visit" not in told
    told = explain(number)
    assert "Not counted" not in told
    assert "Prices, page visit */pricing*, 1 time" in told


def test_a_name_that_no_run_has_read_is_not_said_to_be_missing_for_good(make_worker, tmp_path, monkeypatch):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "scoring.yaml").write_text(RULES)
    (tmp_path / "rules" / "actions.yaml").write_text("version: 1\n")
    stages = "version: 1\nstages:\n- {stage: Lead, kind: lead, weight: 2, when: {tag: a}}\n- {stage: Ghost, kind: ghost, weight: 1}\n"
    (tmp_path / "rules" / "stages.yaml").write_text(stages)
    (tmp_path / "rules" / "fields.yaml").write_text("version: 1\n")
    worker = make_worker(contacts=3, mappings=tmp_path / "rules")
    worker.init()
    worker.sync()
    monkeypatch.setenv("MAUTIC_SYNC_STORE__URL", worker.settings.store.url)
    monkeypatch.setenv("MAUTIC_SYNC_MAPPINGS__DIR", str(tmp_path / "rules"))
    new = "    - {name: Signs up, on: form.submitted, where: {form: Signup}, points: 5}\n"
    (tmp_path / "rules" / "scoring.yaml").write_text(RULES.replace("  interest:\n", f"  interest:\n{new}"))
    for command in (["explain", "1"], ["hot"]):
        told = str(CliRunner().invoke(app, command).exception)
        assert "this Mautic has no form `Signup`" in told
        assert "by what the last run read of Mautic: `mautic-sync plan` reads it anew" in told
    worker.plan()
    assert CliRunner().invoke(app, ["explain", "1"]).exit_code == 0


def test_history_that_was_not_granted_does_not_stand_among_what_was(explain):
    number = explain.worker.new(firstname="Pat", position="CEO", phone="+49 30 1")
    told = explain(number)
    assert "Granted:" not in told.splitlines()
    assert "Not granted:\n" in told
    assert "+10  history before the start, not granted" in told


def test_of_a_shared_address_the_last_write_is_the_stage_and_the_fields_are_not_written(explain, capsys):
    worker = explain.worker
    first, twin = worker.new(email="anna@one.example", phone="+49 30 1"), worker.visitor()
    worker.box.instance.tables.connection.execute("UPDATE leads SET email = ? WHERE id = ?", ("anna@one.example", twin))
    told = " ".join(explain(first).split())
    assert "Last write: no stage → Lead (settled), 20" in told
    assert f"422 contact {twin} has this address too: merge them in Mautic, or change one address" in told
    assert "Not written: sync_reason = " in told
    with worker.run("plan") as run:
        show_plan(console(), {**summary(run), **make_plan(run, 10)})
    planned = " ".join(capsys.readouterr().out.split())
    assert "2 contacts could not be written: `mautic-sync quarantine` tells why" in planned
    assert "Nothing else to change." in planned
    assert "Mautic shows the truth" not in planned
