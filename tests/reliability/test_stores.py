"""A store that fails: locked, full, damaged, put back. The worker says what to do, and afterwards the books agree.

Each case is a real process over a real file. KILLS (20 here, 200 by `make reliability`) says how many contacts there are,
and how often an undo is killed.
"""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from sqlalchemy import func, select

from mautic_sync.sandbox import Sandbox
from mautic_sync.store import holds
from mautic_sync.store.engine import open_engine
from mautic_sync.store.schema import change
from tests.reliability.test_kills import LONGEST_RUN, QUIET, SEED, SETTLE, Scene, accounts, ours_in_mautic, scores_of

KILLS = int(os.environ.get("KILLS", "20"))
CONTACTS = 12 if KILLS <= 20 else 60
UNDOS = KILLS // 10
ENDED = {0, 4}


class Bench(Scene):
    """A scene whose store can be looked at and harmed."""

    def __init__(self, box, directory) -> None:
        super().__init__(box, directory)
        self.store = directory / "var" / "mautic_sync.db"

    def say(self, *arguments: str, before=None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "mautic_sync", *arguments],
            cwd=self.directory, env=self.env, capture_output=True, text=True, timeout=LONGEST_RUN, check=False,
            preexec_fn=before,
        )  # fmt: skip

    def books(self):
        """What Mautic's log, our ledger and the scores say, and how many changes are open."""
        engine = open_engine(f"sqlite:///{self.store}")
        with engine.begin() as connection:
            found = (ours_in_mautic(self.box), accounts(connection), scores_of(connection))
            waiting = connection.execute(select(func.count()).where(change.c.open_key.is_not(None))).scalar()
        engine.dispose()
        return found, waiting

    def settle(self) -> None:
        """Run until nothing is open, and compare the books."""
        for _ in range(6):
            assert self.say("sync").returncode in ENDED
            (mautic, account, scores), waiting = self.books()
            if not waiting:
                break
            time.sleep(SETTLE)
        assert mautic
        assert mautic == account == scores
        assert not [
            name for name, one in self.box.stats()["grants"].items() if "mautic-sync" in name and one["count"] > 1
        ]


@pytest.fixture
def scene(tmp_path):
    with Sandbox(contacts=CONTACTS, seed=SEED) as box:
        scene = Bench(box, tmp_path)
        assert scene.say("init", "--yes").returncode == 0
        yield scene


def test_a_store_that_another_program_locks_is_told_and_nothing_is_lost(scene):
    scene.say("plan")
    with closing(sqlite3.connect(scene.store, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        done = scene.say("sync")
    assert done.returncode == 1
    assert "locked" in done.stderr
    assert "Traceback" not in done.stderr
    scene.settle()


def test_a_disk_that_is_full_is_told_and_nothing_is_granted_twice(scene):
    """No file may grow beyond a few pages more than the store has: SQLite meets a full disk in the middle of a run."""
    scene.say("plan")
    size = scene.store.stat().st_size
    told = []
    for room in (20_000, 60_000, 120_000, 240_000):

        def limit(most: int = size + room) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        done = scene.say("sync", before=limit)
        assert "Traceback" not in done.stderr
        told += [done.stderr] if done.returncode == 1 else []
        scene.live_on()
    assert told
    assert any("disk" in one for one in told)
    scene.settle()


def test_a_damaged_store_is_told_with_the_way_out(scene):
    assert scene.say("sync").returncode == 0
    assert scene.say("backup", "good").returncode == 0
    scene.live_on()
    assert scene.say("sync").returncode in ENDED
    with closing(sqlite3.connect(scene.store)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = scene.store.read_bytes()
    harmed = whole[:8192] + os.urandom(len(whole) - 8192)
    for content, command in (
        (b"not a database at all " * 400, ("sync",)),
        (harmed, ("sync",)),
        (harmed, ("backup", "bad")),
    ):
        scene.store.write_bytes(content)
        done = scene.say(*command)
        assert done.returncode == 1, done.stderr
        assert "restore" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (scene.directory / "bad").exists()
    assert scene.say("restore", "good").returncode == 1
    assert scene.say("restore", "good", "--force").returncode == 0
    scene.settle()


def test_an_old_store_that_is_put_back_grants_nothing_twice(scene):
    assert scene.say("sync").returncode == 0
    assert scene.say("backup", "old").returncode == 0
    for _ in range(3):
        scene.live_on()
        assert scene.say("sync").returncode in ENDED
    assert scene.say("restore", "old", "--force").returncode == 0
    scene.live_on()
    scene.settle()


def test_an_undo_that_is_killed_again_and_again_ends_where_it_should(scene):
    before = scene.box.stats()["stages"]
    began = time.monotonic()
    assert scene.say("sync").returncode == 0
    longest = time.monotonic() - began
    (granted, _, _), _ = scene.books()
    assert granted
    listed = json.loads(scene.say("status", "--json").stdout)["runs"]
    run_id = next(row["run_id"] for row in listed if row["command"] == "sync")  # `init` may have begun in that second
    scene.post("/_sandbox/faults", {"spec": f"seed={SEED},before=0.04,after=0.04,late=0.04,broken=0.03"})
    for _ in range(UNDOS):
        process = scene.command("undo", run_id, "--yes")
        time.sleep(scene.chance.uniform(0.8, max(1.5, longest)))
        process.kill()
        process.wait()
    scene.post("/_sandbox/faults", {"spec": f"seed={SEED},{QUIET}"})
    for _ in range(6):
        assert scene.say("undo", run_id, "--yes").returncode in ENDED
        (mautic, account, _), waiting = scene.books()
        if not waiting:
            break
        time.sleep(SETTLE)
    assert (waiting, mautic, account) == (0, {}, {})
    assert scene.box.stats()["stages"] == before
    engine = open_engine(f"sqlite:///{scene.store}")
    with engine.begin() as connection:
        assert holds.count(connection) > CONTACTS / 2
    engine.dispose()
