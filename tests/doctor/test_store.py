"""What the doctor sees of a store, and when runs last went through."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from mautic_sync.doctor.keeping import judge_room, missed_since
from mautic_sync.pipeline.pull import AUDIT_LAST
from mautic_sync.store import notes, runs
from mautic_sync.store.engine import open_engine
from mautic_sync.store.runs import Cursor

DAY = 86_400
GIB = 2**30
HOLD = """
import sys, time
from mautic_sync.store.engine import open_engine, run_lock
with run_lock(open_engine(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def ready(doctor):
    examined = doctor()
    examined.worker.init()
    return examined


def engine_of(examined):
    return open_engine(examined.worker.settings.store.url)


def test_a_whole_store_is_well(ready):
    found = ready()
    assert "is whole" in found["store"].told
    assert found["store.version"].state == found["store.room"].state == found["store.lock"].state == "ok"
    assert "free" in found["store.lock"].told


def test_a_damaged_file_is_told(ready):
    path = ready.worker.directory / "store.db"
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    found = ready()
    assert found["store"].state == "failed"
    assert "backup" in found["store"].fix
    assert path.read_bytes() == bytes(content)


def test_a_file_of_something_else_is_told(ready):
    (ready.worker.directory / "store.db").write_text("not a database, but long enough to have a header " * 100)
    found = ready()
    assert found["store"].state == "failed"
    assert found["runs"].state == "skipped"


def test_an_older_store_is_brought_up_to_date_by_the_next_run_alone(ready):
    engine = engine_of(ready)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    engine.dispose()
    found = ready()
    assert (found["store.version"].state, found["runs"].state) == ("warning", "skipped")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"
    engine.dispose()


def test_a_newer_store_is_refused(ready):
    engine = engine_of(ready)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    assert ready()["store.version"].state == "failed"


def test_the_process_that_holds_the_lock_is_named_and_a_dead_one_holds_nothing(ready):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, ready.worker.settings.store.url], stdout=subprocess.PIPE, env=os.environ
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        found = ready()["store.lock"]
        assert found.state == "ok"
        assert found.facts["holder"] == holder.pid
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert ready()["store.lock"].facts == {}


def test_a_store_of_another_mautic_is_told(ready):
    engine = engine_of(ready)
    with engine.begin() as connection:
        notes.put(connection, "mautic", "https://other.example")
    engine.dispose()
    found = ready()["store.mautic"]
    assert found.state == "failed"
    assert "--adopt" in found.fix


def test_a_wrong_url_is_a_matter_of_settings(ready):
    ready.worker = ready.worker.but(store={"url": "oracle://x"})
    found = ready()
    assert found["store"].configuration
    assert {one.state for name, one in found.items() if name.startswith("store.")} == {"skipped"}
    assert found["runs"].state == "skipped"


def test_a_database_that_is_away_is_told_once(ready):
    ready.worker = ready.worker.but(store={"url": "postgresql://tester:pass-word@127.0.0.1:9/none"})
    found = ready()
    assert found["store"].state == "failed"
    assert "pass-word" not in found["store"].told
    assert {one.state for name, one in found.items() if name.startswith("store.")} == {"skipped"}


@pytest.mark.parametrize(
    ("free", "used", "state"),
    [(50 * GIB, GIB, "ok"), (GIB // 2, 0, "warning"), (3 * GIB, 2 * GIB, "warning"), (2**20, 0, "failed")],
)
def test_room(free, used, state):
    assert judge_room(free, used).state == state


# -- runs


def a_run(examined, at, code, command="sync"):
    engine = engine_of(examined)
    with engine.begin() as connection:
        runs.begin_run(connection, f"r{at}", command, at)
        runs.end_run(connection, f"r{at}", at + 60, code, {})
    engine.dispose()


def test_no_run_yet_is_told(ready):
    assert ready()["runs"].told == "no run has gone through yet"


@pytest.mark.parametrize(("ago", "state"), [(600, "ok"), (2 * 3600, "warning")])
def test_the_age_of_the_last_success_is_measured_by_the_schedule(ready, ago, state):
    now = int(time.time())
    a_run(ready, now - ago, 4)
    found = ready()["runs"]
    assert found.state == state
    assert "ago" in found.told


def test_a_plan_is_no_success_and_how_runs_ended_is_told(ready):
    now = int(time.time())
    a_run(ready, now - 3 * DAY, 0)
    a_run(ready, now - 600, 3)
    a_run(ready, now - 500, 0, command="plan")
    found = ready()["runs"]
    assert found.state == "warning"
    assert "exit code 3" in found.fix


def test_a_nightly_schedule_may_rest_for_days(doctor):
    began = int(datetime(2026, 11, 20, 3, 21, tzinfo=UTC).timestamp())
    due = missed_since(began, "20 3 * * *", "UTC")
    assert datetime.fromtimestamp(due, UTC) == datetime(2026, 11, 23, 3, 20, tzinfo=UTC)


@pytest.mark.parametrize(("ahead", "state"), [(30, "ok"), (2 * 3600, "warning"), (300 * DAY, "failed")])
def test_runs_that_go_by_a_clock_that_was_once_ahead_are_told(ready, ahead, state):
    now = int(time.time())
    a_run(ready, now - 600, 0)
    a_run(ready, now + ahead, 0)
    found = ready()
    assert found["runs.clock"].state == state
    assert ("the last run before it was at" in found["runs.clock"].told) == (state == "failed")
    assert ("backup" in found["runs.clock"].fix) == (state == "failed")
    assert found["runs"].state == ("ok" if state == "ok" else "skipped")


# -- feeds


def test_a_mautic_that_was_set_back_is_told(ready):
    ready.worker.visitor()
    ready.worker.plan()
    assert ready()["feeds"].state == "ok"
    engine = engine_of(ready)
    with engine.begin() as connection:
        runs.put_cursor(connection, "page_hits", Cursor(10_000, 9_000))
    engine.dispose()
    found = ready()["feeds"]
    assert found.state == "failed"
    assert "sync --full" in found.fix


def test_a_mautic_that_was_set_back_and_has_written_on_is_told(ready):
    ready.worker.act("edit", contact=ready.worker.visitor(), values={"city": "Rome"})
    ready.worker.plan()
    assert ready()["feeds"].state == "ok"
    engine = engine_of(ready)
    with engine.begin() as connection:
        number, written_at = notes.get_json(connection, AUDIT_LAST)
        notes.put_json(connection, AUDIT_LAST, [number, written_at - 1])
    engine.dispose()
    found = ready()["feeds"]
    assert (found.state, f"another row {number}" in found.told) == ("failed", True)
