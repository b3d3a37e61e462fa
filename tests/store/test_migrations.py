"""Migrations make exactly the schema that the code reads and writes."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Timer

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.schema import CreateTable

from mautic_sync.errors import StopError
from mautic_sync.store import due, notes
from mautic_sync.store.engine import MIGRATIONS, VERSION_TABLE, migrate, open_engine
from mautic_sync.store.migrations import HEAD
from mautic_sync.store.schema import TABLE_OPTIONS, metadata


@pytest.fixture
def opened(url):
    engine = open_engine(url)
    yield engine
    engine.dispose()


def test_migrations_make_exactly_the_tables_of_the_schema(opened):
    with opened.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_twice_changes_nothing(opened):
    with opened.begin() as connection:
        notes.put(connection, "kept", "value")
    migrate(opened)
    with opened.begin() as connection:
        assert notes.get(connection, "kept") == "value"
        assert connection.execute(text(f"SELECT COUNT(*) FROM {VERSION_TABLE}")).scalar() == 1


def test_processes_that_start_at_the_same_time_migrate_once(url):
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(open_engine, [url] * 4))
    assert set(inspect(engines[0]).get_table_names()) == {*metadata.tables, VERSION_TABLE}
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_who_starts_while_another_migrates_waits_until_that_is_done(url, monkeypatch):
    """Longer than for anything else: a large store takes its time."""
    store_of_version("0008", url, monkeypatch)
    monkeypatch.setattr("mautic_sync.store.engine.SQLITE_BUSY_SECONDS", 0)
    with closing(sqlite3.connect(make_url(url).database, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        Timer(0.5, other.rollback).start()
        engine = open_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 0
    engine.dispose()


def test_a_store_of_a_newer_version_is_refused(url, opened):
    with opened.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StopError, match="written by a newer one"):
        open_engine(url)


def test_a_first_migration_that_was_cut_short_is_done_again(url):
    def cut(_connection, _cursor, statement, *_rest):
        if "CREATE TABLE person" in statement:
            raise InterruptedError

    event.listen(Engine, "before_cursor_execute", cut)
    try:
        with pytest.raises(InterruptedError):
            open_engine(url)
    finally:
        event.remove(Engine, "before_cursor_execute", cut)
    engine = open_engine(url)
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, VERSION_TABLE}
    engine.dispose()


def store_of_version(version, url, monkeypatch):
    """A new store whose tables are those of an older version."""
    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", lambda config, _to, upgrade=command.upgrade: upgrade(config, version))
        open_engine(url).dispose()


DECIDED = {"kind": "ghost", "stage": "Ghost", "score": 0, "rule": "r", "reason": "why", "trace": "[]", "asks": False,
           "waiting": False, "decided_at": 1, "run_id": "run"}  # fmt: skip
MET = {"fields": "{}", "tags": "[]", "points": 0, "dnc": "{}", "digest": "", "seen": 0}


def put(connection, table, **values):
    """A row with the columns that the table had in an older version."""
    places = ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})"), values)


def test_a_store_of_the_first_version_keeps_its_rows_and_gets_the_columns_of_points(url, monkeypatch):
    store_of_version("0001", url, monkeypatch)
    engine = create_engine(url)
    with engine.begin() as connection:
        put(connection, "decision", person_id=7, **DECIDED)
    engine.dispose()
    engine = open_engine(url)
    with engine.begin() as connection:
        row = connection.execute(text("SELECT scores, score_day, flags FROM decision")).one()
        assert tuple(row) == ("{}", None, "[]")
    engine.dispose()


@pytest.mark.parametrize(
    ("before", "at"),
    [
        ("0001", "score_day"),
        ("0002", "CREATE TABLE action"),
        ("0003", "CREATE TABLE uploaded"),
        ("0004", "CREATE TABLE carried"),
        ("0005", "ADD COLUMN times"),
        ("0006", "INSERT INTO dirty"),
        ("0006", "DROP INDEX ix_contact_dirty"),
        ("0007", "ADD COLUMN owner_id"),
        ("0008", "CREATE INDEX ix_change_person_id_open_key"),
        ("0008", "DROP INDEX ix_evidence_person_id"),
        ("0008", "CREATE INDEX ix_contact_vanished_at"),
        ("0009", "CREATE TABLE kept_waiting"),
        ("0010", "CREATE INDEX ix_change_person_id "),
        ("0011", "INSERT INTO due"),
        ("0011", "DROP INDEX ix_decision_due_at"),
    ],
)
def test_a_migration_that_was_cut_short_is_done_again(url, monkeypatch, before, at):
    store_of_version(before, url, monkeypatch)

    def cut(_connection, _cursor, statement, *_rest):
        if at in statement:
            raise InterruptedError

    event.listen(Engine, "before_cursor_execute", cut)
    try:
        with pytest.raises(InterruptedError):
            open_engine(url)
    finally:
        event.remove(Engine, "before_cursor_execute", cut)
    engine = open_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_who_was_to_be_decided_before_the_upgrade_is_decided_after_it(url, monkeypatch):
    store_of_version("0006", url, monkeypatch)
    engine = create_engine(url)
    with engine.begin() as connection:
        for number, dirty, gone in ((1, 1, None), (2, 0, None), (3, 1, 9)):
            put(connection, "contact", person_id=number, address="a@b.example", dirty=dirty, vanished_at=gone, **MET)
    engine.dispose()
    engine = open_engine(url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT person_id FROM dirty")).scalars().all() == [1]
        kept = connection.execute(text("SELECT person_id, address, vanished_at FROM contact ORDER BY person_id")).all()
        assert [tuple(row) for row in kept] == [(number, "a@b.example", {3: 9}.get(number)) for number in (1, 2, 3)]
    engine.dispose()


@pytest.mark.parametrize(("with_actions", "kept"), [(False, [1, 2]), (True, [])])
def test_who_waited_since_the_baseline_before_the_upgrade_is_known_after_it(url, monkeypatch, with_actions, kept):
    store_of_version("0009", url, monkeypatch)
    engine = create_engine(url)
    with engine.begin() as connection:
        for number, waiting, added, identified in (
            (1, True, 5, None),
            (2, True, 5, 10),
            (3, True, 5, 11),
            (4, False, 5, None),
            (5, True, 11, None),
        ):
            put(connection, "decision", person_id=number, **{**DECIDED, "asks": waiting, "waiting": waiting})
            put(connection, "contact", person_id=number, date_added=added, date_identified=identified, **MET)
        acts = {"with_actions": True} if with_actions else {}
        notes.put_json(connection, "baseline", {"at": 10, "run_id": "run", **acts})
    engine.dispose()
    engine = open_engine(url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT person_id FROM kept_waiting ORDER BY 1")).scalars().all() == kept
    engine.dispose()


def test_who_was_due_before_the_upgrade_is_due_after_it(url, monkeypatch):
    store_of_version("0011", url, monkeypatch)
    engine = create_engine(url)
    with engine.begin() as connection:
        for number, due_at in ((1, 20), (2, None), (3, 10), (4, 20)):
            put(connection, "decision", person_id=number, due_at=due_at, **DECIDED)
            put(connection, "contact", person_id=number, **MET)
    engine.dispose()
    engine = open_engine(url)
    with engine.begin() as connection:
        for now, expected in ((9, []), (10, [3]), (20, [1, 3, 4])):
            due.mark(connection, now)
            assert connection.execute(text("SELECT person_id FROM dirty ORDER BY 1")).scalars().all() == expected
    engine.dispose()


def test_the_tables_of_another_program_are_left_alone(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE contact (name VARCHAR(10))"))
        connection.execute(text("INSERT INTO contact VALUES ('theirs')"))
    with pytest.raises(StopError, match="tables of another program \\(contact\\)"):
        open_engine(url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT name FROM contact")).scalars().all() == ["theirs"]
    assert inspect(engine).get_table_names() == ["contact"]
    engine.dispose()


def test_every_table_has_the_options_that_mariadb_needs():
    for table in metadata.tables.values():
        assert TABLE_OPTIONS.items() <= dict(table.kwargs).items()


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
def test_mariadb_keeps_every_table_as_the_schema_says(opened):
    with opened.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT table_name, engine, table_collation FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name <> :version"
            ),
            {"version": VERSION_TABLE},
        ).all()
    assert len(rows) == len(metadata.tables)
    assert {tuple(row)[1:] for row in rows} == {("InnoDB", "utf8mb4_bin")}
    assert "COLLATE utf8mb4_bin" in str(CreateTable(metadata.tables["verdict"]).compile(opened))


def test_the_head_is_the_last_migration():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD
