"""The doctor changes nothing: not in Mautic, not at ZeroBounce, not in the store, not beside it."""

from __future__ import annotations

import hashlib

import pytest

from mautic_sync.doctor import CHECKS
from mautic_sync.mautic.probing import Probe


def files(directory):
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in directory.iterdir()}


def books(worker):
    return {name: value for name, value in worker.box.stats().items() if name not in {"calls", "total", "now", "peak"}}


def audited(worker):
    return worker.box.instance.tables.value("SELECT COUNT(*) FROM audit_log")


def test_a_store_that_is_not_there_is_not_made(doctor):
    examined = doctor()
    found = examined()
    assert list(examined.worker.directory.iterdir()) == []
    assert found["store"].state == "skipped"
    assert "mautic-sync init" in found["store"].told


def test_not_even_its_directory(doctor):
    examined = doctor()
    examined.worker = examined.worker.but(store={"url": f"sqlite:///{examined.worker.directory}/deep/er/store.db"})
    assert examined()["store.room"].state == "ok"
    assert list(examined.worker.directory.iterdir()) == []


def test_books_and_store_are_as_before(doctor, mautic_version):
    examined = doctor(contacts=40, version=mautic_version, push={"first_run_max": 1000})
    worker = examined.worker
    worker.init()
    worker.sync()
    worker.box.reset_stats()
    before = files(worker.directory), books(worker), audited(worker)
    examined()
    assert (files(worker.directory), books(worker), audited(worker)) == before
    assert worker.box.stats()["writes"] == 0
    assert {call.split()[0] for call in worker.box.stats()["calls"]} == {"GET", "POST"}
    assert {call for call in worker.box.stats()["calls"] if call.startswith("POST")} == {"POST /oauth/v2/token"}


def test_a_store_in_use_is_as_before(doctor):
    """Somebody has it open, so that its journal is beside it."""
    examined = doctor()
    worker = examined.worker
    worker.init()
    with worker.run("look") as run, run.engine.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM run").fetchall()
        before = files(worker.directory)
        assert "store.db-wal" in before
        found = examined()
        after = files(worker.directory)
        for name in ("store.db", "store.db-wal"):
            assert after[name] == before[name]
        assert after.keys() == before.keys()
    assert found["store"].state == "ok"


def test_a_probe_cannot_write(make_worker):
    worker = make_worker()
    with Probe(worker.box.url, client_id="sandbox", client_secret="sandbox-secret") as probe:
        with pytest.raises(TypeError):
            probe.write("POST", "stages/new", {"name": "X"})
        with pytest.raises(TypeError):
            probe._send("PATCH", f"{worker.box.url}/api/contacts/1/edit", None)
    assert worker.box.stats()["writes"] == 0


def test_every_finding_that_is_not_well_says_what_to_do(doctor, rules):
    """Over a Mautic where nothing is as it should be."""
    owner = (
        "on:\n  - become: hot\n    do: {owner: {round_robin: [nobody]}, notify: {to: ['env:NOT_THERE'], text: hi}}\n"
    )
    examined = doctor(mappings=rules(actions=owner), zerobounce={"api_key": "wrong"})
    for state in (None, ["contacts:view"], []):
        examined.worker.act("restrict", rights=state)
        found = examined()
        assert set(found) == {check.id for check in CHECKS}
        for name, finding in found.items():
            assert finding.told, name
            assert bool(finding.fix) == (finding.state in {"warning", "failed"}), (name, finding)
            assert "sandbox-secret" not in finding.told + finding.fix
            assert "@" not in finding.told + finding.fix
