"""A backup holds the whole store, comes from any database and goes into any other, and is put back whole or not at all."""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing

import orjson
import pytest
from sqlalchemy import create_engine, insert, select, text

from mautic_sync.errors import ConfigError, StopError, StoreBusyError
from mautic_sync.store import backup, carried, changes, ledger, notes, runs
from mautic_sync.store.engine import open_engine, run_lock
from mautic_sync.store.schema import change, metadata, quarantine

NOW = 1_793_534_400
ODD = "Zoë \x01 “quoted”, 'single', \\ and 😀\n"


def fill(engine, rows=3):
    """Something of every type in the store: numbers, text, truth and nothing."""
    with engine.begin() as connection:
        notes.put(connection, "mautic", "https://mautic.example.com")
        runs.begin_run(connection, "run", "sync", NOW)
        for number in range(rows):
            connection.execute(
                insert(change).values(
                    run_id="run", person_id=number + 1, target="points", open_key=None, state="settled", value=100,
                    old="{}", new='{"delta":7}', reason=ODD, baseline=bool(number % 2), attempts=1, planned_at=NOW,
                    event_key=f"{number:016x}",
                )
            )  # fmt: skip
        ledger.append(
            connection,
            [
                {
                    "person_id": number + 1, "at": NOW, "run_id": "run", "change_id": number + 1,
                    "event_key": f"{number:016x}", "delta": -7, "reason": ODD,
                }
                for number in range(rows)
            ],
        )  # fmt: skip


def content(engine) -> dict[str, list[tuple]]:
    """All rows of all tables, without the notes that the store was restored, and up to which change."""
    with engine.begin() as connection:
        return {
            name: [
                tuple(row)
                for row in connection.execute(select(table).order_by(*table.primary_key))
                if row[0] not in {backup.RESTORED, changes.RESTORED_UP_TO}
            ]
            for name, table in metadata.tables.items()
        }


def restored(url, path, **more):
    found = backup.restore(url, path, now=NOW + 1, **more)
    return found, open_engine(url)


def url_of(engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_what_comes_back_is_what_was_there(store, tmp_path):
    fill(store)
    before = content(store)
    taken = backup.take(store, tmp_path / "backup", NOW)
    assert (taken.mautic, taken.tables["ledger"], taken.rows) == (
        "https://mautic.example.com",
        3,
        sum(map(len, before.values())),
    )
    with store.begin() as connection:
        connection.execute(ledger.ledger.delete())
        notes.put(connection, "since", "then")
    found, engine = restored(url_of(store), tmp_path / "backup", force=True)
    assert (found, content(engine)) == (taken, before)
    with engine.begin() as connection:
        assert notes.get_json(connection, backup.RESTORED) == {"at": NOW + 1, "made_at": NOW}
        assert changes.restored_up_to(connection) == max(row[0] for row in before["change"])
        # Rows that come later are numbered on, wherever the numbers of those before them began.
        connection.execute(insert(quarantine).values(
            source="x", key="y", reason="", excerpt="", first_at=1, last_at=1, run_id="r",
        ))  # fmt: skip
        ledger.append(connection, [{
            "person_id": 1, "at": 1, "run_id": "r", "change_id": 0, "event_key": "k", "delta": 1, "reason": "",
        }])  # fmt: skip
        numbers = sorted(connection.execute(select(ledger.ledger.c.id)).scalars())
        assert numbers == [*(row[0] for row in before["ledger"]), before["ledger"][-1][0] + 1]
    engine.dispose()


def test_a_store_moves_from_one_database_to_another_and_back(store, tmp_path):
    fill(store)
    before = content(store)
    backup.take(store, tmp_path / "there", NOW)
    _, moved = restored(f"sqlite:///{tmp_path}/moved.db", tmp_path / "there")
    assert content(moved) == before
    backup.take(moved, tmp_path / "back", NOW)
    moved.dispose()
    _, again = restored(url_of(store), tmp_path / "back", force=True)
    assert content(again) == before
    again.dispose()


def test_a_store_that_is_not_empty_is_replaced_only_by_force(store, tmp_path):
    fill(store)
    backup.take(store, tmp_path / "backup", NOW)
    before = content(store)
    with pytest.raises(StopError, match=r"not empty.*--force"):
        backup.restore(url_of(store), tmp_path / "backup", now=NOW)
    assert content(store) == before


def test_a_restore_that_fails_changes_nothing(store, tmp_path, monkeypatch):
    fill(store, 5)
    backup.take(store, tmp_path / "backup", NOW)
    with store.begin() as connection:
        notes.put(connection, "since", "then")
    before = content(store)

    def cut(_old, _new):
        raise ZeroDivisionError

    monkeypatch.setattr(backup, "_compare", cut)
    with pytest.raises(ZeroDivisionError):
        backup.restore(url_of(store), tmp_path / "backup", now=NOW, force=True)
    assert content(store) == before
    with store.begin() as connection:
        assert notes.get(connection, backup.RESTORED) is None


def test_the_first_fold_of_a_restored_store_looks_at_everybody(store, tmp_path):
    with store.begin() as connection:
        carried.note_looked(connection, carried.Looked(NOW, 7, NOW))
    backup.take(store, tmp_path / "backup", NOW)
    _, engine = restored(url_of(store), tmp_path / "backup", force=True)
    with engine.begin() as connection:
        assert carried.looked(connection) == carried.Looked()
    engine.dispose()


def test_a_run_keeps_a_restore_out(store, tmp_path):
    backup.take(store, tmp_path / "backup", NOW)
    with run_lock(store), pytest.raises(StoreBusyError):
        backup.restore(url_of(store), tmp_path / "backup", now=NOW)


def test_a_backup_taken_while_a_run_writes_is_as_of_one_moment(store, tmp_path):
    """Each transaction writes a change and its line; a backup has both or neither."""
    done = threading.Event()

    def write():
        number = 0
        while not done.is_set():
            fill_one(store, number := number + 1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            taken = backup.take(store, tmp_path / "backup", NOW)
            assert taken.tables["ledger"] == taken.tables["change"]
    finally:
        done.set()
        writer.join()


def fill_one(engine, number):
    with engine.begin() as connection:
        connection.execute(insert(change).values(
            run_id="run", person_id=number, target="points", state="settled", value=1, old="{}", new="{}", reason="",
            baseline=False, attempts=0, planned_at=1,
        ))  # fmt: skip
        ledger.append(connection, [{
            "person_id": number, "at": 1, "run_id": "r", "change_id": 0, "event_key": "k", "delta": 1, "reason": "",
        }])  # fmt: skip


# -- files: one database is enough


@pytest.fixture
def sqlite_store(tmp_path, sqlite_template):
    (tmp_path / "store.db").write_bytes(sqlite_template.read_bytes())
    engine = open_engine(f"sqlite:///{tmp_path}/store.db")
    fill(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def taken(sqlite_store, tmp_path):
    path = tmp_path / "backup"
    backup.take(sqlite_store, path, NOW)
    return path


def test_the_file_is_for_its_owner_alone_and_takes_the_place_of_an_older_one(sqlite_store, taken):
    taken.chmod(0o644)
    fill_one(sqlite_store, 9)
    assert backup.take(sqlite_store, taken, NOW + 9).tables["ledger"] == 4
    assert stat.S_IMODE(taken.stat().st_mode) == 0o600
    assert {path.name for path in taken.parent.glob(".backup*")} == set()


def test_what_is_no_backup_is_not_overwritten(sqlite_store, tmp_path):
    (tmp_path / "letter").write_text("dear")
    for path in (tmp_path / "letter", tmp_path / "store.db", tmp_path):
        with pytest.raises(ConfigError, match=r"no backup|directory"):
            backup.take(sqlite_store, path, NOW)
    assert (tmp_path / "letter").read_text() == "dear"


def test_a_place_that_cannot_be_written_to_is_told(sqlite_store, tmp_path):
    with pytest.raises(StopError, match="cannot write the backup"):
        backup.take(sqlite_store, tmp_path / "nowhere" / "backup", NOW)


def rewritten(path, head):
    lines = gzip.decompress(path.read_bytes()).split(b"\n")
    first = {**orjson.loads(lines[0]), **head}
    path.write_bytes(gzip.compress(b"\n".join([orjson.dumps(first), *lines[1:]])))


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ({"product": "another"}, "no backup of mautic-sync but of another"),
        ({"schema": "9999", "version": "9.9"}, "newer mautic-sync .9.9, store version 9999"),
        ({"format": 2}, "newer mautic-sync"),
    ],
)
def test_a_file_of_another_product_or_a_newer_version_is_refused_by_name(taken, tmp_path, head, told):
    rewritten(taken, head)
    with pytest.raises(StopError, match=told):
        backup.restore(f"sqlite:///{tmp_path}/new.db", taken, now=NOW)
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("harm", ["nothing", "text", "short", "bit", "row"])
def test_a_damaged_file_is_refused_and_the_store_is_as_it_was(sqlite_store, taken, harm):
    whole = taken.read_bytes()
    if harm == "row":
        lines = gzip.decompress(whole).split(b"\n")
        taken.write_bytes(gzip.compress(b"\n".join(line for line in lines if b"0000000000000001" not in line)))
    else:
        bit = whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 4]) + whole[len(whole) // 2 + 1 :]
        taken.write_bytes({"nothing": b"", "text": b"hello", "short": whole[:-200], "bit": bit}[harm])
    before = content(sqlite_store)
    with pytest.raises(StopError, match=r"damaged|no backup"):
        backup.restore(url_of(sqlite_store), taken, now=NOW, force=True)
    assert content(sqlite_store) == before


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StopError, match="cannot read the backup"):
        backup.restore(f"sqlite:///{tmp_path}/new.db", tmp_path / "none", now=NOW)


def test_a_backup_of_an_older_version_is_brought_up_to_date(taken, tmp_path):
    """As the second version wrote it: without the tables and columns that came later."""
    later = {"action": None, "held": None, "decision": {"hot_since"}, "quarantine": {"times"}}
    head, *lines, _end = map(orjson.loads, gzip.decompress(taken.read_bytes()).splitlines())
    kept, counts, places = [{**head, "schema": "0002"}], {}, []
    for line in lines:
        if isinstance(line, dict):
            gone = later.get(line["table"], set())
            places = [] if gone is None else [n for n, column in enumerate(line["columns"]) if column not in gone]
            if gone is not None:
                name, counts[line["table"]] = line["table"], 0
                kept.append({"table": name, "columns": [line["columns"][place] for place in places]})
        elif places:
            counts[name] += 1
            kept.append([line[place] for place in places])
    kept.append({"end": counts})
    taken.write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, kept))))
    found, engine = restored(f"sqlite:///{tmp_path}/new.db", taken)
    assert found.schema == "0002"
    with engine.begin() as connection:
        assert sum(connection.execute(select(ledger.ledger.c.delta)).scalars()) == -21
        assert connection.execute(text("SELECT COUNT(*) FROM held")).scalar() == 0
    engine.dispose()


def test_a_damaged_store_is_not_backed_up_and_can_be_replaced(sqlite_store, taken, tmp_path):
    before = content(sqlite_store)
    sqlite_store.dispose()
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    harmed = path.read_bytes()
    with pytest.raises(StopError, match=r"damaged.*--force"):
        backup.restore(f"sqlite:///{path}", taken, now=NOW)
    _, engine = restored(f"sqlite:///{path}", taken, force=True)
    assert content(engine) == before
    assert (tmp_path / "store.db.damaged-1").read_bytes() == harmed
    engine.dispose()


def test_a_restore_that_is_killed_leaves_the_old_store_or_the_new_one(sqlite_store, tmp_path):
    with sqlite_store.begin() as connection:
        ledger.append(connection, [
            {"person_id": number, "at": 1, "run_id": "r", "change_id": 0, "event_key": "k", "delta": 1, "reason": ODD}
            for number in range(20_000)
        ])  # fmt: skip
    path = tmp_path / "backup"
    taken = backup.take(sqlite_store, path, NOW)
    with sqlite_store.begin() as connection:
        connection.execute(ledger.ledger.delete().where(ledger.ledger.c.id > 10))
    url = url_of(sqlite_store)
    sqlite_store.dispose()
    code = f"from pathlib import Path; from mautic_sync.store import backup; backup.restore({url!r}, Path({str(path)!r}), now=1, force=True)"
    states = set()
    for delay in (0.6, 1.0, 1.2, 1.4, 1.7):
        process = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        engine = open_engine(url)
        with engine.begin() as connection:
            states.add(len(connection.execute(select(ledger.ledger.c.id)).all()))
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        engine.dispose()
    assert states <= {10, taken.tables["ledger"]}
    subprocess.run([sys.executable, "-c", code], check=True)
    engine = create_engine(url)
    with engine.begin() as connection:
        assert len(connection.execute(select(ledger.ledger.c.id)).all()) == taken.tables["ledger"]
    engine.dispose()


# -- what a kill leaves behind ----------------------------------------------------------------------------------------


def killed(word, call):
    """Run this call of `backup` in a process that is killed when it comes to the function `word`."""
    code = (
        "import os; from pathlib import Path; from mautic_sync.store import backup; "
        "from mautic_sync.store.engine import open_engine; "
        f"backup.{word} = lambda *_, **__: os.kill(os.getpid(), 9); {call}"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL


def test_the_next_restore_takes_away_what_a_killed_one_left_and_nothing_else(store, tmp_path, monkeypatch):
    temporary = tmp_path if store.dialect.name == "sqlite" else tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    fill(store)
    path, url = tmp_path / "backup", url_of(store)
    backup.take(store, path, NOW)
    store.dispose()
    for word in ("_fill", "_check", "_compare"):
        killed(word, f"backup.restore({url!r}, Path({str(path)!r}), now=1, force=True)")
        (left,) = temporary.glob(".restore-*")
        assert (left / "store.db").exists()
    others = [
        left.with_name(f"{left.name[:-8]}somebody"),  # holds something else
        left.with_name(f"{left.name[:-9]}-2-{left.name[-8:]}"),  # of another store
    ]
    for other in others:
        other.mkdir()
        (other / "store.db").touch()
    (others[0] / "letter").write_text("dear")
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "store.db").touch()
    others.append(left.with_name(f"{left.name[:-8]}pointing"))
    others[-1].symlink_to(target)
    _, engine = restored(url, path, force=True)
    engine.dispose()
    assert sorted(temporary.glob(".restore-*")) == sorted(others)
    assert (others[0] / "store.db").exists()
    assert (target / "store.db").exists()


def test_the_next_backup_takes_away_what_a_killed_one_of_this_name_left_and_nothing_else(sqlite_store, tmp_path):
    fill_one(sqlite_store, 9)
    path = tmp_path / "daily"
    url = url_of(sqlite_store)
    for word in ("_write", "look"):
        killed(word, f"backup.take(open_engine({url!r}), Path({str(path)!r}), 1)")
        (left,) = tmp_path.glob(".daily.*")
    assert left.stat().st_size > 0
    others = [tmp_path / name for name in (".daily.letters_", ".daily.backup", ".daily.2.abcdefgh")]
    for other in others:
        other.write_bytes(b"dear" if other == others[0] else left.read_bytes())
    backup.take(sqlite_store, path, NOW)
    assert sorted(tmp_path.glob(".daily.*")) == sorted(others)


def test_a_backup_leaves_one_of_the_same_name_that_goes_on(sqlite_store, tmp_path, monkeypatch):
    path, real = tmp_path / "daily", backup.look

    def meanwhile(part):
        monkeypatch.setattr(backup, "look", real)
        backup.take(sqlite_store, path, NOW + 1)
        assert part.exists()
        return real(part)

    monkeypatch.setattr(backup, "look", meanwhile)
    assert backup.take(sqlite_store, path, NOW).made_at == NOW
    assert backup.look(path).made_at == NOW
    assert list(tmp_path.glob(".daily.*")) == []
