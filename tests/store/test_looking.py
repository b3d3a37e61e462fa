"""Looking at a store on every database: nothing is made, migrated, locked or written."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from mautic_sync.errors import StopError
from mautic_sync.store import looking, runs
from mautic_sync.store.engine import run_lock
from mautic_sync.store.migrations import HEAD


def place_of(engine):
    return looking.place_of(engine.url.render_as_string(hide_password=False))


def test_an_empty_database_stays_empty(url, backend):
    place = looking.place_of(url)
    if backend == "sqlite":
        assert not place.exists
        with pytest.raises(StopError, match="init"), looking.looked_at(place):
            pass
        assert list(place.directory.iterdir()) == []
        return
    with looking.looked_at(place) as connection:
        assert looking.version(connection) is None
        assert inspect(connection).get_table_names() == []


def test_a_file_that_may_not_be_read_is_no_damaged_one(tmp_path, monkeypatch):
    path = tmp_path / "store.db"
    path.write_bytes(b"what root reads all the same" * 100)
    monkeypatch.setattr(looking.os, "access", lambda *_: False)
    with pytest.raises(StopError) as told, looking.looked_at(looking.place_of(f"sqlite:///{path}")) as connection:
        looking.version(connection)
    assert "the right to read" in str(told.value)
    assert "move the file away" not in str(told.value)


def test_a_connection_for_looking_cannot_write(store):
    with looking.looked_at(place_of(store)) as connection:
        with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
            connection.execute(text("DELETE FROM run"))
        connection.rollback()


def test_a_store_is_whole_and_current(store):
    with looking.looked_at(place_of(store)) as connection:
        assert looking.faults(connection) == []
        assert looking.version(connection) == HEAD
        assert looking.is_current(looking.version(connection))


def test_who_holds_the_lock_is_seen_without_taking_it(store):
    place = place_of(store)
    with looking.looked_at(place) as connection:
        assert looking.lock_holder(place, connection) is None
        with run_lock(store):
            assert looking.lock_holder(place, connection).number
        assert looking.lock_holder(place, connection) is None
        with run_lock(store):
            pass


def test_the_last_runs(store):
    with store.begin() as connection:
        for at, code in ((100, 0), (200, 4), (300, 1)):
            runs.begin_run(connection, f"r{at}", "sync", at)
            runs.end_run(connection, f"r{at}", at + 10, code, {})
        runs.begin_run(connection, "p", "plan", 400)
        runs.begin_run(connection, "now", "sync", 500)
    with looking.looked_at(place_of(store)) as connection:
        assert looking.last_good_run(connection, ("sync",), (0, 4)) == (200, 210)
        assert looking.last_good_run(connection, ("sync",), (7,)) is None
        assert looking.last_exit_codes(connection, ("sync",), 3) == [None, 1, 4]


def test_a_server_that_is_away_is_told_without_its_password():
    place = looking.place_of("postgresql://tester:pass-word@127.0.0.1:9/none")
    with pytest.raises(StopError, match="cannot be read") as told, looking.looked_at(place):
        pass
    assert "pass-word" not in str(told.value)
