"""Runs through injected faults end where an undisturbed run would: nothing lost, nothing done by halves."""

from __future__ import annotations

import pytest

from mautic_sync.errors import MauticSyncError
from mautic_sync.store import changes
from tests.conftest import LONG

CONTACTS = 60
QUIET = "seed=1,before=0,after=0,late=0,echo=0,truncate=0,rate=0,moving=0,merge=0"


# Hours after which held addresses are asked about again; points fade meanwhile.
LATER = (7, 7 + 25, 7 + 25 + 73)


def shown(worker) -> dict[int, tuple]:
    """What marketers see of everybody: stage, reason, do-not-contact, points."""
    tables = worker.box.instance.tables.connection
    rows = tables.execute("SELECT id, stage_id, sync_reason, points FROM leads ORDER BY id").fetchall()
    return {row[0]: tuple(row[1:]) for row in rows}


@pytest.mark.parametrize("seed", [3, 7, 11] if LONG else [3, 11])
def test_faults_of_every_sort_change_nothing_in_the_end(make_worker, seed):
    """10 % of all calls fail before, after or late, with wrong echoes, cut pages and 429s."""
    undisturbed = make_worker(contacts=CONTACTS, seed=5)
    undisturbed.init()
    for hours in (0, *LATER):
        undisturbed.skew = hours * 3600
        undisturbed.sync()
    expected = shown(undisturbed)

    worker = make_worker(contacts=CONTACTS, seed=5, mautic={"settle_after": "10s"})
    worker.init()
    faults = f"seed={seed},before=0.03,after=0.02,late=0.01,echo=0.01,truncate=0.01,rate=0.01,broken=0.01"
    worker.post("/_sandbox/faults", {"spec": faults})
    for _ in range(6):
        try:
            worker.sync()
        except MauticSyncError:
            continue
    worker.post("/_sandbox/faults", {"spec": QUIET})
    # Doubtful writes count as not done after their time; an address whose answer was lost is asked again later.
    for hours in (0, *LATER):
        worker.patience(30)
        worker.skew = hours * 3600
        worker.sync()
    assert shown(worker) == expected
    worker.box.reset_stats()
    assert worker.sync()["doubtful"] == 0
    assert worker.box.stats()["writes"] == 0
    with worker.run("look") as run, run.engine.begin() as connection:
        assert changes.pending_counts(connection) == {}
    spent = worker.box.stats()["credits"]["by_address"]
    # An answer that was lost may be paid for and asked for again later; never twice in one run.
    assert all(count <= 6 for count in spent.values())
