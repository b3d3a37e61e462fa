"""`kill -9` at random moments while a tenth of all calls meets a fault: no point is lost, none is granted twice.

KILLS says how often (20 here, 200 by `make reliability`), SEED which moments and which events.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter

import requests
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from mautic_sync.sandbox import Sandbox
from mautic_sync.store.engine import open_engine
from mautic_sync.store.schema import alias, change, contact, decision, ledger, person

KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("SEED", "1"))
CONTACTS = 60
EVENTS = 12  # between two runs
FAULTS = "before=0.02,after=0.02,late=0.03,truncate=0.01,broken=0.02"
QUIET = "before=0,after=0,late=0,truncate=0"
TIMEOUT = 2  # seconds
SETTLE = 5  # seconds: above the three that a late call may take
LONGEST_RUN = 60  # seconds
OURS = "mautic-sync"


class Scene:
    """One sandbox that things happen in, and the worker as a process beside it."""

    def __init__(self, box: Sandbox, directory) -> None:
        self.box, self.directory = box, directory
        self.chance = random.Random(f"kills {SEED}")
        self.session = requests.Session()
        self.session.trust_env = False
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MAUTIC_SYNC_")},
            "MAUTIC_SYNC_MAUTIC__BASE_URL": box.url,
            "MAUTIC_SYNC_MAUTIC__CLIENT_ID": "sandbox",
            "MAUTIC_SYNC_MAUTIC__CLIENT_SECRET": "sandbox-secret",
            "MAUTIC_SYNC_MAUTIC__TIMEOUT": str(TIMEOUT),
            "MAUTIC_SYNC_MAUTIC__SETTLE_AFTER": f"{SETTLE}s",
            "MAUTIC_SYNC_PUSH__MAX_CHANGE_RATIO": "1",
        }
        self.exits: Counter[str] = Counter()

    def post(self, path: str, body: object) -> None:
        self.session.post(self.box.url + path, json=body, timeout=30)

    def command(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "mautic_sync", *arguments],
            cwd=self.directory,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def live_on(self) -> None:
        """Visits, opened mails, forms and merges, points that Mautic grants itself."""
        for _ in range(EVENTS):
            who = self.chance.randint(1, CONTACTS)
            self.post(
                "/_sandbox/act",
                self.chance.choice(
                    [
                        {"do": "visit", "contact": who, "url": "https://shop.example/pricing"},
                        {"do": "visit", "url": "https://shop.example/blog"},
                        {"do": "open", "contact": who},
                        {"do": "unsubscribe", "contact": who},
                        {"do": "points", "contact": who, "delta": 4},
                        {"do": "form", "form": "Signup", "email": f"p{who}@kills.example"},
                    ]
                ),
            )

    def run_and_kill(self, longest: float) -> None:
        """Killed anywhere between its first call and the end of a run like the longest one so far."""
        called = self.box.stats()["total"]
        process = self.command("sync")
        began = time.monotonic()
        while process.poll() is None and self.box.stats()["total"] == called:
            time.sleep(0.02)
        time.sleep(self.chance.uniform(0, max(0.3, longest - (time.monotonic() - began))))
        if process.poll() is None:
            process.kill()
            process.wait()
            self.exits["killed"] += 1
        else:
            self.exits[f"exit {process.returncode}"] += 1

    def run(self) -> float:
        began = time.monotonic()
        process = self.command("sync")
        process.wait(LONGEST_RUN)
        self.exits[f"exit {process.returncode}"] += 1
        return time.monotonic() - began


def test_no_point_is_lost_and_none_granted_twice(tmp_path):
    began = time.monotonic()
    with Sandbox(contacts=CONTACTS, seed=SEED) as box:
        scene = Scene(box, tmp_path)
        assert scene.command("init", "--yes").wait(LONGEST_RUN) == 0
        longest = scene.run()
        scene.post("/_sandbox/faults", {"spec": f"seed={SEED},{FAULTS}"})
        while scene.exits["killed"] < KILLS:
            assert sum(scene.exits.values()) < 4 * KILLS + 20, "most runs end before they are killed"
            scene.live_on()
            scene.run_and_kill(longest)
        struck = sum(box.stats()["faults"].values())
        scene.post("/_sandbox/faults", {"spec": f"seed={SEED},{QUIET}"})
        engine = open_engine(f"sqlite:///{tmp_path / 'var' / 'mautic_sync.db'}")
        for _ in range(6):
            time.sleep(SETTLE)
            scene.run()
            with engine.begin() as connection:
                waiting = connection.execute(select(func.count()).where(change.c.open_key.is_not(None))).scalar()
            if not waiting:
                break
        books = ours_in_mautic(box)
        with engine.begin() as connection:
            account, scores = accounts(connection), scores_of(connection)
            lines = connection.execute(select(func.count()).select_from(ledger)).scalar()
        engine.dispose()
        again = {name: grant for name, grant in box.stats()["grants"].items() if OURS in name and grant["count"] > 1}
    show(scene, struck, lines, len(again), time.monotonic() - began)
    assert waiting == 0
    assert books
    assert books == account
    assert account == scores
    assert not again


def ours_in_mautic(box: Sandbox) -> dict[int, int]:
    """Contact → the sum of what its log says that we granted."""
    rows = box.instance.tables.connection.execute(
        "SELECT lead_id, SUM(delta) FROM lead_points_change_log WHERE event_name LIKE ? GROUP BY lead_id", (f"{OURS}%",)
    )
    return {number: points for number, points in rows if points}


def accounts(connection) -> dict[int, int]:
    """Contact → the sum of the ledger, that of merged persons included."""
    owner = func.coalesce(person.c.redirect_to, person.c.id)
    rows = connection.execute(
        select(alias.c.mautic_id, func.sum(ledger.c.delta))
        .select_from(ledger)
        .join(person, person.c.id == ledger.c.person_id)
        .join(alias, (alias.c.person_id == owner) & alias.c.current)
        .group_by(alias.c.mautic_id)
    )
    return {number: int(points) for number, points in rows if points}


def scores_of(connection) -> dict[int, int]:
    """Contact → its score."""
    rows = connection.execute(
        select(alias.c.mautic_id, decision.c.score)
        .join(decision, decision.c.person_id == alias.c.person_id)
        .join(contact, contact.c.person_id == alias.c.person_id)
        .where(alias.c.current, contact.c.vanished_at.is_(None))
    )
    return {number: score for number, score in rows if score}


def show(scene: Scene, struck: int, lines: int, twice: int, seconds: float) -> None:
    table = Table(title=f"kill -9, seed {SEED}")
    for heading in ("killed", "runs", "faults", "grants", "granted twice", "seconds"):
        table.add_column(heading, justify="right")
    runs = sum(scene.exits.values())
    table.add_row(str(scene.exits["killed"]), str(runs), str(struck), str(lines), str(twice), f"{seconds:.0f}")
    Console(width=100).print(table)
