"""The whole way, from pull to push, comes to the same end on every database."""

from __future__ import annotations

import orjson
import pytest
from sqlalchemy import func, select

from mautic_sync.store import people
from mautic_sync.store.engine import open_engine, reading
from mautic_sync.store.schema import activity, alias, change, credit, decision, evidence, standing, transition, verdict

CONTACTS = 60


def end_of_the_way(worker):
    """Sync twice with a merge, a new contact and a deletion in between; what the runs tell, and what is stored."""
    worker.init()
    first = worker.sync()
    ghost = worker.visitor()
    known = worker.new(email="zoë.🙂@firm.example", firstname="Zoë 🙂 O'Neil")
    worker.sync()
    worker.act("merge", visitor=ghost, known=known)
    worker.act("delete", contact=1)
    second = worker.sync()
    worker.sync(full=True)
    third = worker.sync()
    told = [
        {name: run[name] for name in ("kinds", "transitions", "validated", "merged", "quarantined", "failed")}
        for run in (first, second, third)
    ]
    engine = open_engine(worker.settings.store.url)
    with reading(engine) as connection:
        stored = {
            "decisions": connection.execute(
                select(alias.c.mautic_id, decision.c.kind, decision.c.stage, decision.c.score, decision.c.rule)
                .join(alias, alias.c.person_id == decision.c.person_id)
                .where(alias.c.current)
                .order_by(alias.c.mautic_id)
            ).all(),
            "standing": [
                # Not the times that were written: they are those of the clock.
                (row.person_id, row.stage, {**orjson.loads(row.written), "zb_checked": None})
                for row in connection.execute(select(standing).order_by(standing.c.person_id))
            ],
            "verdicts": sorted(connection.execute(select(verdict.c.address, verdict.c.status)).all()),
            "kinds": people.count_by_kind(connection),
            "rows": {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar()
                for table in (activity, alias, change, credit, evidence, transition)
            },
        }
    engine.dispose()
    return told, stored, worker.contacts(list(range(2, CONTACTS)))


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)
def test_the_whole_way_ends_the_same_on_every_database(url, make_worker):
    here = end_of_the_way(make_worker(contacts=CONTACTS, store={"url": url}))
    on_sqlite = end_of_the_way(make_worker(contacts=CONTACTS))
    assert here[0] == on_sqlite[0]
    assert here[1] == on_sqlite[1]
    assert {number: one.stage_id for number, one in here[2].items()} == {
        number: one.stage_id for number, one in on_sqlite[2].items()
    }
    assert here[0][0]["transitions"]
