"""Opening the store, what is said when it cannot be opened, the run lock, upserts, and text that no database loves."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, event, func, insert, select, text
from sqlalchemy.exc import OperationalError

from mautic_sync.errors import ConfigError, StopError, StoreBusyError
from mautic_sync.store import notes
from mautic_sync.store.engine import (
    LOCK_NUMBER,
    in_chunks,
    open_engine,
    reading,
    run_lock,
    upsert,
    upsert_over,
    upsert_rows,
    worker_lock,
)
from mautic_sync.store.schema import change, decision, evidence, membership, meta, standing, verdict
from mautic_sync.store.text import dump

PASSWORD = "geheim-4711"


# -- opening --------------------------------------------------------------------------------------------------------


def refusal(url: str, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        open_engine(url)
    told = str(caught.value)
    assert PASSWORD not in told
    assert "\n" not in told
    return told


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "oracle://u:geheim-4711@host/db",
        "postgresql+nosuch://u:geheim-4711@host/db",
        "postgresql+asyncpg://u:geheim-4711@host/db",
        "postgresql://u:geheim-4711@host:port/db",
    ],
)
def test_what_is_no_url_of_a_supported_database_is_a_mistake_in_the_configuration(url):
    assert "store.url is no SQLAlchemy URL of a supported database" in refusal(url, ConfigError)


def test_a_new_store_is_readable_for_its_owner_alone(tmp_path):
    open_engine(f"sqlite:///{tmp_path}/new/store.db").dispose()
    assert (tmp_path / "new" / "store.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("url", ["postgresql://u:a@geheim-4711@host/db", "mariadb://u:a@b/geheim-4711@host/db"])
def test_a_password_that_needs_encoding_is_told_and_not_shown(url):
    assert "%40" in refusal(url, ConfigError)


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_an_option_that_the_driver_does_not_know_is_a_mistake_in_the_configuration(server):
    told = refusal(f"{server}://u:{PASSWORD}@127.0.0.1:1/db?nosuch=1&password={PASSWORD}", ConfigError)
    assert "options after the `?`" in told


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_a_driver_that_is_not_installed_is_named_with_the_way_to_get_it(server, monkeypatch):
    monkeypatch.setitem(sys.modules, {"postgresql": "psycopg", "mariadb": "pymysql"}[server], None)
    assert f"pip install 'mautic-sync[{server}]'" in refusal(f"{server}://u:{PASSWORD}@127.0.0.1:1/db", ConfigError)


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_a_server_that_does_not_answer_stops_the_run(server):
    told = refusal(f"{server}://u:{PASSWORD}@127.0.0.1:1/db", StopError)
    assert "cannot open the store" in told
    assert "127.0.0.1:1/db" in told
    assert "refused" in told


def test_a_file_that_is_no_database_stops_the_run(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"This was a database once." * 400)
    assert "is damaged or no database of ours" in refusal(f"sqlite:///{path}", StopError)


def test_a_damaged_database_stops_the_run(tmp_path, sqlite_template):
    healthy = sqlite_template.read_bytes()
    path = tmp_path / "store.db"
    path.write_bytes(healthy[:100] + b"\xaa" * (len(healthy) - 100))
    assert "is damaged or no database of ours" in refusal(f"sqlite:///{path}", StopError)


def test_a_directory_that_cannot_be_made_stops_the_run():
    assert "cannot make the directory" in refusal("sqlite:////proc/nowhere/store.db", StopError)


def test_a_directory_that_cannot_be_written_stops_the_run():
    told = refusal("sqlite:////proc/store.db", StopError)
    assert "cannot open the store" in told
    assert "that this user may write its directory" in told


@pytest.mark.parametrize(
    ("said", "way_out"),
    [
        ("database or disk is full", "The disk is full: make room"),
        ("attempt to write a readonly database", "Give this user the right to write"),
        ("disk I/O error", "The disk is full, or fails: make room"),
    ],
)
def test_a_store_that_cannot_be_opened_is_told_with_the_way_out(tmp_path, monkeypatch, said, way_out):
    def fail(_engine):
        raise OperationalError("", {}, sqlite3.OperationalError(said))

    monkeypatch.setattr("mautic_sync.store.engine.migrate", fail)
    assert way_out in refusal(f"sqlite:///{tmp_path}/store.db", StopError)


def test_the_directory_of_a_new_store_is_made(tmp_path):
    open_engine(f"sqlite:///{tmp_path}/deep/down/store.db").dispose()
    assert (tmp_path / "deep/down/store.db").exists()


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)
def test_a_database_that_does_not_exist_stops_the_run(store):
    told = refusal(store.url.set(database="nowhere").render_as_string(hide_password=False), StopError)
    assert "nowhere" in told
    assert "pass-word" not in told


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_postgresql_database_that_cannot_hold_all_characters_is_refused(other_database):
    assert "LATIN1" in refusal(other_database("ENCODING 'LATIN1' TEMPLATE template0"), ConfigError)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_postgresql_database_without_an_encoding_holds_all_characters(other_database):
    engine = open_engine(other_database("ENCODING 'SQL_ASCII' TEMPLATE template0"))
    with engine.begin() as connection:
        notes.put(connection, "name", "Zoë 🙂")
        assert notes.get(connection, "name") == "Zoë 🙂"
    engine.dispose()


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)
def test_connections_that_the_server_closed_are_replaced(store, same_store):
    with store.begin() as connection:
        session = connection.execute(text(OWN_SESSION[store.dialect.name])).scalar()
    with same_store.connect().execution_options(isolation_level="AUTOCOMMIT") as killer:
        killer.execute(text(END_SESSION[store.dialect.name].format(session)))
    with store.begin() as connection:
        assert connection.execute(text(OWN_SESSION[store.dialect.name])).scalar() != session


OWN_SESSION = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}
END_SESSION = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}


def test_a_report_reads_one_moment_while_a_run_goes_on_writing(store):
    with reading(store) as report:
        before = report.execute(select(func.count()).select_from(meta)).scalar()
        with store.begin() as connection:
            notes.put(connection, "written", "meanwhile")
        assert report.execute(select(func.count()).select_from(meta)).scalar() == before
    with reading(store) as report:
        assert report.execute(select(func.count()).select_from(meta)).scalar() == before + 1


def test_what_fails_in_the_middle_leaves_nothing(store):
    def fail():
        with store.begin() as connection:
            notes.put(connection, "half", "done")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.begin() as connection:
        assert notes.get(connection, "half") is None


# -- the run lock ---------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from mautic_sync.store.engine import open_engine, run_lock
engine = open_engine(sys.argv[1])
with run_lock(engine):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def same_store(store):
    """A second engine of the same store, as another process would have it."""
    engine = open_engine(store.url.render_as_string(hide_password=False))
    yield engine
    engine.dispose()


def test_a_second_run_is_refused_while_the_first_holds_the_store(store, same_store):
    with run_lock(store):
        with pytest.raises(StoreBusyError, match="another run holds this store") as caught, run_lock(same_store):
            pass
        assert caught.value.exit_code == 5
    with run_lock(same_store):
        pass


def test_a_run_that_failed_gives_the_store_back(store, same_store):
    with pytest.raises(RuntimeError), run_lock(store):
        raise RuntimeError
    with run_lock(same_store):
        pass


def test_a_run_that_waits_gets_the_store_when_the_other_ends(store, same_store):
    held, waited = threading.Event(), []

    def wait() -> None:
        held.wait(10)
        with run_lock(same_store, wait=30):
            waited.append("got it")

    thread = threading.Thread(target=wait)
    with run_lock(store):
        thread.start()
        held.set()
        thread.join(0.5)
        assert waited == []
    thread.join(30)
    assert waited == ["got it"]


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)
def test_a_server_that_ends_idle_sessions_does_not_end_the_lock(store, backend):
    """The session of the lock has nothing to do while a run takes its hours."""
    careless = {
        "postgresql": ("ALTER ROLE tester SET idle_session_timeout = 200", "ALTER ROLE tester RESET ALL"),
        "mariadb": ("SET GLOBAL wait_timeout = 1", "SET GLOBAL wait_timeout = DEFAULT"),
    }[backend]
    with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(careless[0]))
    holder = create_engine(store.url, poolclass=NullPool)
    other = create_engine(store.url, poolclass=NullPool)
    try:
        with run_lock(holder):
            time.sleep(1.5)
            with pytest.raises(StoreBusyError), run_lock(other):
                pass
    finally:
        with other.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(careless[1]))


@pytest.mark.parametrize("lock", [run_lock, worker_lock], ids=lambda lock: lock.__name__)
def test_the_lock_is_gone_when_its_holder_is_killed(store, lock):
    program = HOLDER.replace("run_lock", lock.__name__)
    holder = subprocess.Popen(
        [sys.executable, "-c", program, store.url.render_as_string(hide_password=False)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreBusyError), lock(store):
            pass
        holder.kill()
        holder.wait()
    with lock(store, wait=10):
        pass


def test_one_worker_serves_a_store_and_leaves_it_free_between_its_runs(store, same_store):
    with worker_lock(store):
        with pytest.raises(StoreBusyError, match="mautic-sync run"), worker_lock(same_store):
            pass
        with run_lock(same_store):
            pass
    with worker_lock(same_store):
        pass


def test_stores_in_other_databases_are_not_held(store, other_database):
    other = open_engine(other_database(""))
    with run_lock(store), run_lock(other):
        pass
    other.dispose()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_link_to_the_store_is_the_same_store(store, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "store.db")
    linked = open_engine(f"sqlite:///{link}")
    with run_lock(store), pytest.raises(StoreBusyError), run_lock(linked):
        pass
    linked.dispose()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_lock_file_that_cannot_be_opened_stops_the_run(store, tmp_path):
    (tmp_path / "store.db.lock").mkdir()
    with pytest.raises(StopError, match="keeps runs apart"), run_lock(store):
        pass


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)
def test_a_server_that_went_away_does_not_hide_the_error_of_the_run(store, same_store):
    holders = {
        "postgresql": "SELECT pid FROM pg_locks WHERE locktype = 'advisory'",
        "mariadb": f"SELECT IS_USED_LOCK(CONCAT('mautic_sync ', {LOCK_NUMBER}, ' ', MD5(DATABASE())))",
    }

    def run():
        with run_lock(store):
            with same_store.connect().execution_options(isolation_level="AUTOCOMMIT") as killer:
                holder = killer.execute(text(holders[store.dialect.name])).scalar()
                killer.execute(text(END_SESSION[store.dialect.name].format(holder)))
            raise RuntimeError("of the run")

    with pytest.raises(RuntimeError, match="of the run"):
        run()


# -- upserts --------------------------------------------------------------------------------------------------------


def row_of(connection, table, **key):
    query = select(table)
    for name, value in key.items():
        query = query.where(table.c[name] == value)
    return connection.execute(query).mappings().one()


def test_an_upsert_adds_what_is_new_and_updates_what_is_there(store):
    with store.begin() as connection:
        upsert(connection, meta, [{"key": "a", "value": "1"}, {"key": "b", "value": "1"}])
        upsert(connection, meta, [{"key": "b", "value": "2"}, {"key": "c", "value": "2"}])
        assert dict(connection.execute(select(meta.c.key, meta.c.value)).all()) == {"a": "1", "b": "2", "c": "2"}


def test_an_upsert_updates_only_the_columns_that_it_is_told(store):
    first = {"person_id": 1, "stage": "Lead", "written": "{}", "manual_stage": None}
    with store.begin() as connection:
        upsert(connection, standing, [first])
        upsert(connection, standing, [{**first, "stage": "other", "manual_stage": "VIP"}], update=("manual_stage",))
        row = row_of(connection, standing, person_id=1)
    assert (row["stage"], row["manual_stage"]) == ("Lead", "VIP")


def test_an_upsert_without_columns_leaves_what_is_there(store):
    row = {"matcher": "m", "activity_id": 1, "person_id": 1, "at": 5}
    with store.begin() as connection:
        upsert(connection, evidence, [row], update=())
        upsert(connection, evidence, [{**row, "person_id": 2}, {**row, "activity_id": 2}], update=())
        found = connection.execute(select(evidence.c.activity_id, evidence.c.person_id).order_by("activity_id")).all()
    assert [tuple(one) for one in found] == [(1, 1), (2, 1)]


def test_an_upsert_of_a_key_of_several_columns_and_nothing_else_is_done_once(store):
    row = {"kind": "segment", "object_id": 1, "person_id": 1}
    with store.begin() as connection:
        upsert(connection, membership, [row, row], update=())
        upsert(connection, membership, [row])
        assert connection.execute(select(func.count()).select_from(membership)).scalar() == 1


@pytest.mark.parametrize(("page_bytes", "expected"), [(None, 2_048), (4_096, 4_096)])
def test_a_new_file_has_small_pages_an_old_one_keeps_its_own_and_both_have_a_journal_of_64_mb(
    tmp_path, page_bytes, expected
):
    path = tmp_path / "store.db"
    if page_bytes is not None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA page_size={page_bytes}")
            connection.execute("VACUUM")
    engine = open_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        of = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("page_size", "wal_autocheckpoint", "journal_mode", "synchronous")
        }
    engine.dispose()
    assert of == {
        "page_size": expected,
        "wal_autocheckpoint": 2**26 // expected,
        "journal_mode": "wal",
        "synchronous": 2,
    }


def test_an_upsert_of_nothing_is_nothing(store):
    with store.begin() as connection:
        upsert(connection, meta, [])


def test_an_upsert_into_a_table_with_another_unique_key_is_refused(store):
    with store.begin() as connection, pytest.raises(ValueError, match="another unique key"):
        upsert(connection, change, [{"id": 1, "open_key": "1 contact"}])


@pytest.mark.parametrize("seed", range(5))
def test_rows_put_over_others_are_what_was_given(store, seed):
    chance = random.Random(seed)

    def row(number):
        kind, due_at, asks = chance.choice(["lead", "ghost"]), chance.choice([None, 5, 6]), chance.random() < 0.5
        texts = {"reason": str(chance.random()), "trace": "[]", "stage": "Lead", "rule": "r", "run_id": "run"}
        return {"person_id": number, "kind": kind, "due_at": due_at, "asks": asks, "score": chance.randrange(9),
                "waiting": False, "decided_at": 1, **texts}  # fmt: skip

    first = [row(number) for number in range(1, 41)]
    # Some are new, some come twice: then the last counts.
    then = [row(chance.randint(1, 60)) for _ in range(50)]
    names = tuple(first[0])
    with store.begin() as connection:
        upsert_rows(connection, decision, names, [tuple(one.values()) for one in first])
        columns = select(*(decision.c[name] for name in names)).order_by(decision.c.person_id)
        before = {one.person_id: one for one in connection.execute(columns)}
        upsert_over(connection, decision, names, [tuple(one.values()) for one in then], before)
        found = [dict(one) for one in connection.execute(columns).mappings()]
    expected = {one["person_id"]: one for one in (*first, *then)}
    assert found == [expected[number] for number in sorted(expected)]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_an_index_is_written_only_where_its_column_changes(store):
    names = ("person_id", "kind", "stage", "score", "rule", "reason", "trace", "asks", "waiting", "decided_at",
             "run_id")  # fmt: skip
    rows = [(number, "lead", "Lead", 1, "r", "because", "[]", False, False, 1, "run") for number in range(1, 31)]
    said = []
    with store.begin() as connection:
        upsert_rows(connection, decision, names, rows)
        before = {one.person_id: one for one in connection.execute(select(decision))}
        event.listen(connection, "before_cursor_execute", lambda *seen: said.append(seen[2].split("DO UPDATE SET")[1]))
        upsert_over(connection, decision, names, [(*row[:3], 2, *row[4:]) for row in rows], before)
    (set_,) = said
    assert "score" in set_
    assert not {"kind", "asks"} & set(re.findall(r"\w+", set_))


def test_chunks_hold_everything_once_and_in_order():
    assert [list(chunk) for chunk in in_chunks([1, 2, 3, 4, 5], 2)] == [[1, 2], [3, 4], [5]]
    assert list(in_chunks([])) == []


# -- text -----------------------------------------------------------------------------------------------------------

TEXTS = {
    "four bytes": ("🙂 𝕊 𠜎", "🙂 𝕊 𠜎"),
    "quotes": ('O\'Neil "x" `y` \\ %s %(a)s :b ; --', 'O\'Neil "x" `y` \\ %s %(a)s :b ; --'),
    "lines": ("a\r\nb\tc", "a\r\nb\tc"),
    "long": ("ü" * 5000, "ü" * 5000),
    "lone surrogate": ("a\ud800b", "a?b"),
    "broken UTF-8": (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf?"),
    "nul": ("a\x00b", "ab"),
    "composed and decomposed": ("é e\u0301", "é e\u0301"),
    "longer than a TEXT of MariaDB": ("🙂" * 20_000, "🙂" * 20_000),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_comes_back_as_it_was_or_with_replacements(store, name):
    given, expected = TEXTS[name]
    with store.begin() as connection:
        notes.put(connection, "text", given)
        assert notes.get(connection, "text") == expected
        notes.put(connection, "json", dump({"text": given, "number": 10**30}))
        assert notes.get_json(connection, "json")["text"] == given.encode("utf-8", "replace").decode()


def test_text_longer_than_its_column_is_cut_on_every_database(store):
    row = {"kind": "lead", "score": 1, "reason": "r" * 70_000, "trace": "[]", "asks": False, "waiting": False}
    with store.begin() as connection:
        upsert(
            connection,
            decision,
            [{"person_id": 1, "stage": "🙂" * 300, "rule": "x" * 300, "decided_at": 1, "run_id": "r", **row}],
        )
        found = row_of(connection, decision, person_id=1)
    assert (found["stage"], found["rule"], len(found["reason"])) == ("🙂" * 191, "x" * 191, 70_000)


def test_keys_that_differ_in_letters_and_accents_alone_are_two_keys(store):
    names = ["muller@x.example", "müller@x.example", "Muller@x.example", "mu\u0308ller@x.example"]
    row = {"status": "valid", "sub_status": "", "did_you_mean": "", "at": 1, "run_id": "r", "attempts": 0, "raw": "{}"}
    with store.begin() as connection:
        connection.execute(insert(verdict), [{"address": name, **row} for name in names])
        for name in names:
            assert row_of(connection, verdict, address=name)["address"] == name


def test_the_drivers_of_both_servers_are_installed_where_they_must_be():
    if os.environ.get("CI") == "true":
        __import__("psycopg")
        __import__("pymysql")
