"""Runs, cursors, plans, notes and the quarantine."""

from __future__ import annotations

import pytest

from mautic_sync.mappings import load_mappings
from mautic_sync.pipeline import health, rules
from mautic_sync.settings import Settings
from mautic_sync.store import notes, runs
from mautic_sync.store.runs import Cursor

NOW = 1_800_000_000


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


def quarantine(connection, key="7", reason="no number", at=NOW, excerpt="{}"):
    return runs.put_in_quarantine(connection, "contact", key, reason, excerpt, now=at, run_id="r")


def test_what_is_new_in_quarantine_is_told_once(connection):
    assert quarantine(connection)
    assert not quarantine(connection, at=NOW + 1)
    (row,) = runs.in_quarantine(connection)
    assert (row["first_at"], row["last_at"], row["reason"]) == (NOW, NOW + 1, "no number")


def test_another_reason_is_new(connection):
    quarantine(connection)
    assert quarantine(connection, reason="no text")
    assert len(runs.in_quarantine(connection)) == 1


def test_what_was_resolved_is_gone_and_new_when_it_returns(connection):
    quarantine(connection)
    quarantine(connection, key="8")
    runs.release_from_quarantine(connection, "contact", ["7"], NOW + 1)
    assert [row["key"] for row in runs.in_quarantine(connection)] == ["8"]
    assert quarantine(connection, at=NOW + 2)
    assert {row["key"]: row["first_at"] for row in runs.in_quarantine(connection)} == {"7": NOW, "8": NOW}


def test_sources_are_kept_apart(connection):
    quarantine(connection)
    assert runs.put_in_quarantine(connection, "page_hits", "7", "no number", "", now=NOW, run_id="r")
    runs.release_from_quarantine(connection, "page_hits", ["7"], NOW)
    assert [row["source"] for row in runs.in_quarantine(connection)] == ["contact"]
    assert runs.in_quarantine(connection, "page_hits") == []


def test_many_keys_are_released_at_once(connection):
    quarantine(connection, key="1500")
    runs.release_from_quarantine(connection, "contact", [str(number) for number in range(2000)], NOW)
    assert runs.in_quarantine(connection) == []


def test_input_that_no_database_loves_is_quarantined_and_told_once(connection):
    odd = {"key": "k" * 200, "reason": "\ud800 \x00 'x' 🙂", "excerpt": "🙂\udcff\x00" * 3000}
    assert quarantine(connection, **odd)
    assert not quarantine(connection, **odd)
    (row,) = runs.in_quarantine(connection)
    assert row["reason"] == "?  'x' 🙂"
    assert row["excerpt"].startswith("🙂?🙂?")


def test_cursors_are_kept_replaced_and_forgotten(connection):
    assert runs.get_cursor(connection, "page_hits") is None
    runs.put_cursor(connection, "page_hits", Cursor(5, 4, "2026-01-01 00:00:00"))
    runs.put_cursor(connection, "page_hits", Cursor(2**40, 4))
    assert runs.get_cursor(connection, "page_hits") == Cursor(2**40, 4, None)
    assert runs.all_cursors(connection) == {"page_hits": 2**40}
    runs.drop_cursors(connection)
    assert runs.all_cursors(connection) == {}


def test_runs_are_listed_latest_first_with_what_they_did(connection):
    for number in (1, 2, 3):
        runs.begin_run(connection, f"run{number}", "sync", NOW + number)
    runs.end_run(connection, "run2", NOW + 9, 4, {"failed": 1})
    listed = runs.last_runs(connection, 2)
    assert [(row["id"], row["exit_code"], row["summary"]) for row in listed] == [
        ("run3", None, None),
        ("run2", 4, {"failed": 1}),
    ]


def test_plans_are_found_by_their_id(connection):
    runs.put_plan(connection, "p1", "r1", NOW, {"changes": 1})
    runs.put_plan(connection, "p2", "r2", NOW + 1, {"changes": 2})
    assert runs.get_plan(connection, "p1")["totals"] == {"changes": 1}
    assert runs.get_plan(connection, "p3") is None
    assert runs.plan_ids(connection) == ["p2", "p1"]


def test_notes_are_kept_replaced_and_dropped(connection):
    assert notes.get_json(connection, "n") is None
    notes.put_json(connection, "n", {1: frozenset({"b", "a"})})
    assert notes.get_json(connection, "n") == {"1": ["a", "b"]}
    notes.put(connection, "n", "x" * 100_000)
    assert notes.get(connection, "n") == "x" * 100_000
    notes.drop(connection, "n")
    assert notes.get(connection, "n") is None


def test_the_latest_start_is_that_of_the_latest_run_whatever_came_last(connection):
    assert runs.last_start(connection) is None
    runs.begin_run(connection, "a", "sync", NOW + 5)
    runs.begin_run(connection, "b", "sync", NOW)
    assert runs.last_start(connection) == NOW + 5


def test_one_run_is_found_with_its_summary(connection):
    runs.begin_run(connection, "a", "sync", NOW)
    assert runs.get_run(connection, "b") is None
    assert runs.get_run(connection, "a")["summary"] is None
    runs.end_run(connection, "a", NOW + 1, 0, {"seconds": 1.5})
    assert runs.get_run(connection, "a")["summary"] == {"seconds": 1.5}


def test_misfires_add_up(connection):
    assert health.misfires(connection) == {}
    health.note_misfires(connection, "sync", 3, NOW)
    health.note_misfires(connection, "sync", 2, NOW + 900)
    health.note_misfires(connection, "full_sync", 1, NOW)
    assert health.misfires(connection)["sync"] == {"count": 5, "last_at": NOW + 900}


def test_the_last_good_rules_come_back_as_they_were_written(store):
    """Also those of a directory that has only some of the files, with every character."""
    read = load_mappings()
    with store.begin() as connection:
        notes.put_json(connection, rules.KEPT, {"fingerprint": read.fingerprint, "at": NOW, "files": read.as_written()})
    again = rules.last_good(store, Settings())
    assert again is not None
    assert again.fingerprint == read.fingerprint
    assert again.as_written() == read.as_written()
    with store.begin() as connection:
        files = read.as_written() | {"stages": {"name": "stages.yaml", "packaged": False, "text": "version: 9"}}
        notes.put_json(connection, rules.KEPT, {"fingerprint": "x", "at": NOW, "files": files})
    assert rules.last_good(store, Settings()) is None
