"""What a run asks of the store costs the same however much that has come to hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event
from sqlalchemy.engine import Engine

from mautic_sync.cli import inspection
from mautic_sync.cli.common import persons_meant
from mautic_sync.pipeline.explain import explain_person
from tests.pipeline.test_merges import merged

GROWING = {"person", "alias", "contact", "activity", "evidence", "membership", "verdict", "credit", "decision", "tally"}
GROWING |= {"standing", "change", "ledger", "transition", "action", "merge"}
COUNTS = re.compile(r"SELECT (\w+)\.(\w+), count\(\*\) AS count_1 FROM \1 GROUP BY \1\.\2")
"""Read along an index from end to end, and nothing but that: a tenth of a second for a million."""


@contextmanager
def read_through() -> Iterator[list[str]]:
    """Statements that read a table that grows from end to end, as SQLite plans them: no index bounds it."""
    found: list[str] = []
    explained: set[str] = set()

    def see(_connection, cursor, statement, parameters, _context, many):
        shape = " ".join(re.sub(r"\?(, \?)+", "?", statement).split())
        if shape in explained or not shape.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            return
        explained.add(shape)
        some = parameters[0] if many else parameters
        steps = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", some).fetchall()
        for *_, step in steps:
            looked = re.match(r"(SCAN|SEARCH) (\w+)(.*)", step)
            if not looked or looked[2] not in GROWING or "?" in looked[3]:
                continue
            if not (COUNTS.fullmatch(shape) and "COVERING INDEX" in looked[3]):
                found.append(f"{step}: {shape}")

    event.listen(Engine, "before_cursor_execute", see)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", see)
    assert len(explained) > 10


def test_no_run_reads_through_what_grows(make_worker, mautic_version):
    worker = make_worker(version=mautic_version)
    buyer, known = worker.new(email="valid@example.com", tags=["customer"]), worker.new(email="free_email@example.com")
    lost = worker.new(email="catch_all@example.com")
    worker.init()
    worker.sync()
    with read_through() as found:
        worker.sync()
        for contact in (buyer, known):
            worker.act("visit", contact=contact, url="https://shop.example/pricing")
        worker.act("unsubscribe", contact=buyer)
        worker.act("edit", contact=known, values={"firstname": "Nia"})
        worker.act("delete", contact=lost)
        worker.plan()
        worker.sync()
        survivor = merged(worker, known)
        worker.act("visit", contact=survivor, url="https://shop.example/order/thank-you")
        document = worker.sync()
    assert document["merged"] == 1
    assert worker.stage(survivor) == "Customer"
    assert found == []


def test_status_and_explain_read_through_nothing_that_grows(make_worker):
    worker = make_worker()
    buyer = worker.new(email="valid@example.com", tags=["customer"])
    worker.init()
    worker.sync()
    with worker.run("look") as run, read_through() as found:
        status = inspection._status_document(worker.settings, run.engine)
        with run.engine.begin() as connection:
            (person,) = persons_meant(connection, str(buyer))
            document = explain_person(connection, person, run.settings, run.mappings, run.now)
    assert (status["kinds"]["customer"], document["kind"]) == (1, "customer")
    assert found == []
