"""Fields of the contact tell what brought somebody and what the points are, and are written only when that changes."""

from __future__ import annotations

import shutil

import pytest

from mautic_sync.mappings import packaged_mappings_dir
from tests.pipeline.conftest import everyone_again

DAY = 86_400
SHOP = "https://shop.example"


@pytest.fixture
def worker_with(make_worker, tmp_path):
    """A worker whose fields.yaml writes these templates, after the baseline of an empty Mautic."""

    def make(**templates: str):
        rules = tmp_path / "rules"
        shutil.copytree(packaged_mappings_dir(), rules)
        created = "".join(f"  - {{alias: {alias}, label: {alias}}}\n" for alias in templates)
        written = "".join(f'  {alias}: "{template}"\n' for alias, template in templates.items())
        (rules / "fields.yaml").write_text(f"version: 1\ncreate:\n{created}write:\n{written}", encoding="utf-8")
        worker = make_worker(mappings=rules)
        worker.init()
        worker.sync()
        return worker

    return make


def fields(worker, number: int) -> dict:
    return dict(worker.contact(number).fields)


def quiet(worker) -> None:
    """From now on a run writes nothing."""
    for _ in range(3):
        document = worker.sync()
        if not document["pushed"]["calls"]:
            break
    assert worker.sync()["pushed"]["calls"] == 0


def test_the_way_to_becoming_a_lead_is_told_and_stays(worker_with):
    worker = worker_with(
        f_page="{first.page}", f_from="{first.referer}", f_by="{first.campaign}", l_page="{last.page}",
        b_page="{before_lead.page}", b_by="{before_lead.campaign}", c_page="{before_customer.page}",
    )  # fmt: skip
    number = worker.visitor(f"{SHOP}/start?utm_campaign=spring")
    worker.sync()
    found = fields(worker, number)
    assert (found["f_page"], found["f_by"], found["l_page"]) == (f"{SHOP}/start", "spring", f"{SHOP}/start")
    assert not {"b_page", "b_by", "c_page"} & found.keys()
    quiet(worker)
    worker.act("edit", contact=number, fields={"phone": "+49 30 1"})
    worker.sync()
    assert (fields(worker, number)["b_page"], fields(worker, number)["b_by"]) == (f"{SHOP}/start", "spring")
    quiet(worker)
    worker.post("/_sandbox/clock", {"advance": 600})
    worker.skew = 600
    worker.act("visit", contact=number, url=f"{SHOP}/later")
    worker.sync()
    found = fields(worker, number)
    assert (found["l_page"], found["f_page"]) == (f"{SHOP}/later", f"{SHOP}/start")
    assert found["b_page"] == f"{SHOP}/start"
    quiet(worker)


def test_the_source_is_told_though_a_campaign_comes_later(worker_with):
    worker = worker_with(
        f_source="{first.source}", f_by="{first.campaign}", l_source="{last.source}", b_source="{before_lead.source}"
    )
    number = worker.visitor(f"{SHOP}/start?utm_source=newsletter")
    worker.act("edit", contact=number, fields={"phone": "+49 30 1"})
    worker.sync()
    worker.post("/_sandbox/clock", {"advance": 600})
    worker.skew = 600
    worker.act(
        "visit", contact=number, url=f"{SHOP}/offer?utm_campaign=spring", referer="https://search.example/?q=shop"
    )
    worker.act("visit", contact=number, url=f"{SHOP}/basket", referer=f"{SHOP}/offer")
    worker.sync()
    found = fields(worker, number)
    assert (found["f_source"], found["f_by"]) == ("newsletter", "spring")
    assert (found["l_source"], found["b_source"]) == ("search.example", "newsletter")
    quiet(worker)


def test_points_reasons_name_and_link_are_told_and_come_to_rest(worker_with):
    worker = worker_with(
        p_why="{reasons}", p_fit="Fit {score.fit}", p_all="{points}", p_who="{name}", p_link="{link}", p_total="{score}"
    )
    number = worker.new(firstname="Pat", lastname="Doe", phone="+49 30 1", position="CEO", country="Germany")
    worker.sync()
    worker.sync()
    found = fields(worker, number)
    assert (found["p_why"], found["p_fit"], found["p_total"]) == ("Decides 10, Home market 5", "Fit 15", "15")
    assert (found["p_who"], found["p_all"]) == ("Pat Doe", "15")
    assert found["p_link"] == f"{worker.box.url}/s/contacts/view/{number}"
    quiet(worker)


def test_reasons_fade_in_mautic_day_by_day(worker_with):
    """Also while the score stays the same whole number."""
    worker = worker_with(p_why="{reasons}")
    number = worker.visitor(f"{SHOP}/pricing")
    for page in ("blog/one", "blog/two", "blog/three", "docs"):
        worker.act("visit", contact=number, url=f"{SHOP}/{page}")
    told = set()
    for days in (10, 1, 1, 1, 1, 1, 1):
        worker.post("/_sandbox/clock", {"advance": days * DAY})
        worker.skew += days * DAY
        worker.sync()
        told.add(fields(worker, number)["p_why"])
        everyone_again(worker)
        assert worker.sync()["pushed"]["calls"] == 0
    assert len(told) > 1


def test_points_that_mautic_grants_are_told_as_well(worker_with):
    worker = worker_with(p_all="{points}")
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    assert "p_all" not in fields(worker, number)
    worker.act("points", contact=number, delta=4)
    worker.sync()
    assert fields(worker, number)["p_all"] == "4"
    quiet(worker)
