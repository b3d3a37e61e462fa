"""The worker's times: nothing is lost, nothing overlaps, and clocks may jump. Passes run against the sandbox."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import select

from mautic_sync.cron import Cron
from mautic_sync.errors import Terminated
from mautic_sync.mappings import load_mappings
from mautic_sync.pipeline import health
from mautic_sync.pipeline.health import FULL_SYNC, SYNC
from mautic_sync.schedule import GRACE_SECONDS, Timetable, Worker, crons_of, overdue
from mautic_sync.settings import Settings
from mautic_sync.store import runs
from mautic_sync.store.engine import open_engine, run_lock
from mautic_sync.store.schema import run as run_table

BERLIN = "Europe/Berlin"
USUAL = {SYNC: Cron("8-59/15 * * * *", BERLIN)}
NOON = int(datetime(2026, 11, 2, 12, 0, tzinfo=ZoneInfo(BERLIN)).timestamp())
MINUTE = 60
HOUR = 3600


def test_a_time_is_given_once_and_not_before_it_comes():
    table = Timetable(USUAL, NOON)
    assert table.following == {SYNC: NOON + 8 * MINUTE}
    assert table.due(NOON + 8 * MINUTE - 1) == []
    (due,) = table.due(NOON + 8 * MINUTE + 3)
    assert (due.schedule, due.at, due.misfires) == (SYNC, NOON + 8 * MINUTE, 0)
    assert table.due(NOON + 8 * MINUTE + 4) == []


def test_times_that_passed_during_a_long_run_become_one_and_are_counted():
    table = Timetable(USUAL, NOON)
    table.due(NOON + 8 * MINUTE)
    (due,) = table.due(NOON + 55 * MINUTE)  # 12:23, 12:38 and 12:53
    assert (due.at, due.misfires) == (NOON + 53 * MINUTE, 3)
    assert table.following == {SYNC: NOON + 68 * MINUTE}


def test_a_clock_that_was_set_back_stops_nothing():
    table = Timetable(USUAL, NOON)
    table.due(NOON + 8 * MINUTE)
    table.due(NOON + 8 * MINUTE - 3 * HOUR)
    assert table.following == {SYNC: NOON + 8 * MINUTE - 3 * HOUR + 15 * MINUTE}


def test_a_small_step_back_repeats_nothing():
    table = Timetable(USUAL, NOON)
    table.due(NOON + 8 * MINUTE)
    assert table.due(NOON + 8 * MINUTE - 2) == []
    assert table.due(NOON + 8 * MINUTE) == []


def test_a_clock_that_jumps_ahead_by_a_year_means_one_run():
    table = Timetable(USUAL, NOON)
    (due,) = table.due(NOON + 365 * 24 * HOUR)
    assert due.misfires > 10_000 - 2
    assert table.due(NOON + 365 * 24 * HOUR + 1) == []


def test_a_full_run_comes_before_the_usual_one():
    crons = crons_of(Settings(schedule={"sync": "0 * * * *", "full_sync": "0 3 * * *"}, time_zone=BERLIN))
    assert [one.schedule for one in Timetable(crons, NOON).due(NOON + 15 * HOUR)] == [FULL_SYNC, SYNC]


@settings(deadline=None, max_examples=80)
@given(steps=st.lists(st.integers(1, 5000), max_size=40), begin=st.integers(1_770_000_000, 1_800_000_000))
def test_each_time_is_served_once_or_counted_as_missed(steps, begin):
    """Every planned time is the `at` of one due entry or among its misfires: none is forgotten, none told twice."""
    table, now, told, missed = Timetable(USUAL, begin), begin, 0, 0
    for step in steps:
        now += step
        for due in table.due(now):
            in_time = now - due.at <= GRACE_SECONDS
            told += in_time
            missed += due.misfires
    assert told + missed == len(list(USUAL[SYNC].times(begin, now)))


@pytest.mark.parametrize(
    ("succeeded", "first"),
    [
        ({}, SYNC),
        ({SYNC: NOON - MINUTE, FULL_SYNC: NOON - 8 * HOUR}, None),
        ({SYNC: NOON - 20 * MINUTE, FULL_SYNC: NOON - 8 * HOUR}, SYNC),
        ({SYNC: NOON - MINUTE, FULL_SYNC: NOON - 30 * HOUR}, FULL_SYNC),
        ({SYNC: NOON - MINUTE}, None),
    ],
)
def test_a_worker_that_starts_makes_up_for_what_is_overdue(succeeded, first):
    assert overdue(crons_of(Settings(time_zone=BERLIN)), succeeded, NOON) == first


# -- passes ---------------------------------------------------------------------------------------------------------


class SetClock:
    """A clock that sleeping moves, and that a test sets. After `until` seconds of sleep SIGTERM arrives."""

    def __init__(self, now: int, until: float) -> None:
        self.time, self.slept, self.until = float(now), 0.0, until
        self.jumps: list[tuple[float, float]] = []

    def now(self) -> float:
        return self.time

    def passed(self) -> float:
        return self.slept

    def sleep(self, seconds: float) -> None:
        if self.slept >= self.until:
            raise Terminated
        self.slept += seconds
        self.time += seconds
        while self.jumps and self.slept >= self.jumps[0][0]:
            self.time += self.jumps.pop(0)[1]


@pytest.fixture
def scene(make_worker):
    """A world that was synced once, and a function that runs a worker beside it for so many seconds."""
    worker = make_worker(contacts=20)
    worker.init()
    worker.visitor()

    class Scene:
        beside = worker
        mappings = staticmethod(load_mappings)

        def __init__(self):
            self.told: list[tuple[str, dict]] = []

        def engine(self):
            return open_engine(worker.settings.store.url)

        def run(self, seconds: float, *, jumps=(), **sections):
            self.told = []
            clock = SetClock(int(time.time()) // 3600 * 3600 + 3600, seconds)
            clock.jumps = list(jumps)
            engine = self.engine()
            settings = worker.but(
                **{"schedule": {"sync": "*/10 * * * *", "full_sync": "35 * * * *"}, **sections}
            ).settings
            try:
                with suppress(Terminated):
                    Worker(
                        settings,
                        engine,
                        self.mappings,
                        lambda event, **facts: self.told.append((event, facts)),
                        clock,
                    ).work()
            finally:
                engine.dispose()
            return [facts for event, facts in self.told if event == "run_done"]

        def of(self, event: str) -> list[dict]:
            return [facts for name, facts in self.told if name == event]

        def rows(self):
            engine = self.engine()
            try:
                with engine.begin() as connection:
                    return connection.execute(select(run_table).order_by(run_table.c.started_at, run_table.c.id)).all()
            finally:
                engine.dispose()

    return Scene()


def test_runs_at_once_and_then_at_its_times(scene):
    done = scene.run(42 * MINUTE)
    assert [one["schedule"] for one in done] == [SYNC, SYNC, SYNC, SYNC, FULL_SYNC, SYNC]
    assert done[0]["contacts"] == 21
    assert done[4]["contacts"] == 21, "the full run reads everybody"
    assert {row.exit_code for row in scene.rows() if row.command.startswith("run")} == {0}


def test_time_never_goes_back_though_the_clock_does(scene):
    scene.run(42 * MINUTE, jumps=[(12 * MINUTE, -3 * HOUR)])
    started = [row.started_at for row in scene.rows() if row.command.startswith("run")]
    assert len(started) >= 4
    assert started == sorted(started)
    assert scene.of("clock_jumped") == [{"seconds": -3 * HOUR}]
    assert all(facts["seconds"] > 2 * HOUR for facts in scene.of("clock_back"))
    assert len(scene.of("clock_back")) >= 2


def test_a_clock_that_jumps_ahead_is_noticed_and_counted(scene):
    scene.run(12 * MINUTE, jumps=[(5 * MINUTE, 65 * MINUTE)])
    (told,) = [facts for facts in scene.of("misfired") if facts["schedule"] == SYNC]
    engine = scene.engine()
    with engine.begin() as connection:
        assert health.misfires(connection)[SYNC]["count"] == told["count"] >= 6
    engine.dispose()


def test_a_failed_run_is_told_and_the_next_one_comes(scene):
    scene.run(22 * MINUTE, mautic={"client_secret": "wrong"})
    failed = scene.of("run_failed")
    assert len(failed) == 3
    assert {one["exit_code"] for one in failed} == {1}
    assert all("mautic.client_secret" in one["reason"] for one in failed)
    assert [row.exit_code for row in scene.rows() if row.id in {one["run"] for one in failed}] == [1, 1, 1]


def test_what_nobody_thought_of_stops_no_worker(scene):
    def surprise():
        raise ZeroDivisionError("a surprise")

    scene.mappings = surprise
    scene.run(12 * MINUTE)
    assert len(scene.of("crashed")) == 2


def test_a_safety_stop_is_told_and_writes_nothing(scene):
    scene.beside.box.reset_stats()
    scene.run(1 * MINUTE, push={"first_run_max": 3})
    (failed,) = scene.of("run_failed")
    assert failed["exit_code"] == 3
    assert "--accept" in failed["reason"]
    assert scene.beside.box.stats()["writes"] == 0


def test_plans_where_the_push_is_off(scene):
    scene.beside.box.reset_stats()
    assert len(scene.run(12 * MINUTE, push={"enabled": False})) == 2
    assert scene.beside.box.stats()["writes"] == 0


def test_a_run_by_hand_is_waited_for_and_then_told(scene, monkeypatch):
    monkeypatch.setattr("mautic_sync.schedule.BUSY_SECONDS", 0.1)
    engine = scene.engine()
    with run_lock(engine):
        assert scene.run(1 * MINUTE) == []
    engine.dispose()
    assert [one["schedule"] for one in scene.of("busy")] == [SYNC]


def test_a_stop_in_the_middle_of_a_run_is_noted_with_it(scene, monkeypatch):
    def stopped(*_args):
        raise Terminated

    monkeypatch.setattr("mautic_sync.pipeline.run.push.push", stopped)
    scene.run(12 * MINUTE)
    assert [row.exit_code for row in scene.rows() if row.command.startswith("run")] == [143]


# -- the rules before each run --------------------------------------------------------------------------------------

GHOST = "  - stage: Ghost\n    kind: ghost\n    weight: 10\n"


def stages(directory, condition: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "stages.yaml").write_text(
        f"version: 1\nstages:\n  - stage: Lead\n    kind: lead\n    weight: 20\n    when: {condition}\n{GHOST}"
    )


def state(scene):
    from mautic_sync.pipeline import rules

    engine = scene.engine()
    try:
        with engine.begin() as connection:
            return rules.state_of(connection)
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    "broken",
    [
        "{field: lastname, not_emty: true}",  # cannot be read
        "{field: nosuchfield, not_empty: true}",  # reads well, and this Mautic has no such field
    ],
)
def test_broken_rules_are_told_and_the_last_good_ones_go_on(scene, tmp_path, broken):
    directory = tmp_path / "rules"
    scene.mappings = lambda: load_mappings(directory)
    stages(directory, "{field: lastname, not_empty: true}")
    assert len(scene.run(1 * MINUTE, push={"max_change_ratio": 1})) == 1
    good = state(scene)
    who = scene.beside.new(lastname="Later")
    stages(directory, broken)
    assert len(scene.run(12 * MINUTE, push={"max_change_ratio": 1})) >= 1, scene.of("run_failed")
    assert scene.beside.stage(who) == "Lead"
    assert scene.of("rules_broken")[0]["going_on_with"] == good["fingerprint"]
    assert "stages.yaml, line" in state(scene)["broken"]["reason"]
    assert state(scene)["fingerprint"] == good["fingerprint"]
    stages(directory, "{field: lastname, not_empty: true}")
    scene.run(12 * MINUTE)
    assert state(scene)["broken"] is None


def test_rules_that_name_a_stage_that_mautic_lacks_wait_for_init(scene, tmp_path):
    directory = tmp_path / "rules"
    scene.mappings = lambda: load_mappings(directory)
    stages(directory, "{field: lastname, not_empty: true}")
    scene.run(1 * MINUTE, push={"max_change_ratio": 1})
    text = (directory / "stages.yaml").read_text()
    (directory / "stages.yaml").write_text(text.replace("stage: Lead", "stage: Prospect"))
    assert scene.run(12 * MINUTE)
    assert "mautic-sync init" in scene.of("rules_broken")[0]["reason"]


def test_broken_rules_without_any_good_ones_are_an_error(scene, tmp_path):
    directory = tmp_path / "rules"
    scene.mappings = lambda: load_mappings(directory)
    stages(directory, "{field: lastname, not_emty: true}")
    assert scene.run(12 * MINUTE) == []
    assert {one["exit_code"] for one in scene.of("run_failed")} == {2}


def test_a_rule_that_newly_needs_activity_has_its_history_read_first(scene, tmp_path):
    directory = tmp_path / "rules"
    scene.mappings = lambda: load_mappings(directory)
    worker = scene.beside
    who = worker.visitor()
    worker.act("form", form="Signup", email="early@schedule.example", contact=who)
    (directory).mkdir()
    for name in ("scoring", "actions", "validation", "fields"):
        (directory / f"{name}.yaml").write_text({"fields": "version: 1\nwrite: {}\n"}.get(name, "version: 1\n"))
    stages(directory, "{field: lastname, not_empty: true}")
    scene.run(1 * MINUTE, push={"max_change_ratio": 1})
    engine = scene.engine()
    with engine.begin() as connection:
        assert "form_submissions" not in runs.all_cursors(connection)
    stages(directory, "{activity: form.submitted, at_least: 1}")
    scene.run(12 * MINUTE, push={"max_change_ratio": 1})
    with engine.begin() as connection:
        assert "form_submissions" in runs.all_cursors(connection)
    engine.dispose()
    assert scene.of("rules_changed")
    assert worker.stage(who) == "Lead", scene.of("run_failed")
