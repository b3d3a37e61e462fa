"""The main job against a real Mautic: one story, in order, on contacts that it makes and removes itself.

The store is told beforehand that everything up to now is known, and each plan is looked at before it is carried out,
so that no contact of the instance itself is ever written to.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from mautic_sync.mappings import load_mappings
from mautic_sync.mautic.contacts import max_id_and_total
from mautic_sync.mautic.feeds import feed_max_id
from mautic_sync.pipeline import pull
from mautic_sync.pipeline.provision import provision
from mautic_sync.pipeline.run import Options, opened_run, plan_only, summary, sync
from mautic_sync.settings import Settings
from mautic_sync.store import changes, ledger, notes as store_notes, people as people_store, runs
from mautic_sync.store.engine import open_engine
from mautic_sync.store.runs import Cursor


class LiveWorker:
    def __init__(self, live: Any, zerobounce: Any, directory: Any) -> None:
        self.live = live
        self.settings = Settings(
            mautic={"base_url": live.url, "client_id": live.client_id, "client_secret": live.client_secret},
            zerobounce={"api_key": "sandbox-key", "base_url": zerobounce.zerobounce_url, "max_per_second": 50},
            store={"url": f"sqlite:///{directory / 'live.db'}"},
        )
        self.engine = open_engine(self.settings.store.url)

    def opened(self, command: str) -> Any:
        return opened_run(self.settings, load_mappings(None), self.engine, command=command, now=int(time.time()))

    def begin_here(self) -> None:
        """What is in this Mautic already is none of our business."""
        with self.opened("init") as run:
            provision(run)
            pull.read_instance(run, fresh=True)
            highest = {pull.CONTACTS: max_id_and_total(run.mautic)[0]}
            for feed in ("audit_log", *sorted(set(pull.FEED_OF_TYPE.values()) - {"email_stat_replies"})):
                highest[feed] = feed_max_id(run.mautic, feed)
            with run.engine.begin() as connection:
                for feed, number in highest.items():
                    runs.put_cursor(connection, feed, Cursor(number, number))
                # Else everybody is read again, for fields of theirs that were not kept.
                store_notes.put_json(connection, pull.READ_FIELDS, sorted(run.kept_of_contacts))

    def sync(self) -> dict[str, Any]:
        with self.opened("plan") as run:
            plan_only(run, Options())
            with run.engine.begin() as connection:
                planned = {row["mautic_id"] for row in changes.listed(connection, [changes.PLANNED])}
        strangers = planned - set(self.live.contacts)
        assert not strangers, "somebody else's contacts changed meanwhile; run again on a quieter Mautic"
        with self.opened("sync") as run:
            sync(run, Options())
            return summary(run)


@pytest.fixture(scope="module")
def worker(live, zerobounce, live_directory):
    worker = LiveWorker(live, zerobounce, live_directory)
    worker.begin_here()
    yield worker
    worker.engine.dispose()


@pytest.fixture(scope="module")
def address(live, zerobounce):
    """`address(name, status)`: an address of this session alone, and what ZeroBounce says of it."""

    def make(name: str, status: str, sub_status: str = "") -> str:
        text = f"{live.mark}-{name}@live.example"
        script = {"email": text, "status": status, "sub_status": sub_status}
        live.session.post(f"{zerobounce.url}/_sandbox/zerobounce", json=script, timeout=10).raise_for_status()
        return text

    return make


@pytest.fixture(scope="module")
def people(live, worker, address):
    """Made once; each test goes on where the one before it ended."""
    mark = live.mark
    return {
        "good": live.new(email=address("good", "valid"), firstname=mark),
        "dead": live.new(email=address("dead", "invalid", "mailbox_not_found"), firstname=mark),
        "unsure": live.new(email=address("unsure", "catch-all"), firstname=mark),
        "phone": live.new(firstname=mark, phone="+49 30 901820"),
        "buyer": live.new(email=address("buyer", "do_not_mail", "toxic"), firstname=mark, tags=["customer"]),
        "rich": live.new(email=address("rich", "valid"), firstname=mark, points=17),
        "visitor": live.visit("https://shop.example/")[0],
        "shopper": live.visit("https://shop.example/order/thank-you?o=1")[0],
    }


def test_everybody_gets_the_stage_of_what_they_are(live, worker, people):
    document = worker.sync()
    assert {name: live.stage(number) for name, number in people.items()} == {
        "good": "Lead",
        "dead": "Ghost",
        "unsure": "Ghost",
        "phone": "Lead",
        "buyer": "Customer",
        "rich": "Lead",
        "visitor": "Ghost",
        "shopper": "Customer",
    }
    assert document["pushed"]["stages"] == 8
    assert (document["failed"], document["doubtful"], document["quarantined"]) == (0, 0, 0)


def test_reasons_verdicts_and_points_stand_in_mautic(live, people):
    good = live.contact(people["good"])["fields"]["all"]
    assert good["sync_reason"] == "Lead: e-mail accepted"
    assert good["zb_status"] == "valid"
    assert good["zb_checked"]
    assert live.contact(people["rich"])["points"] == 17


def test_with_nothing_new_nothing_is_written(worker, people):
    worker.sync()
    for _ in range(3):
        document = worker.sync()
        assert document["pushed"]["calls"] == 0
        assert document["validated"]["credits"] == 0
        assert document["pulled"]["calls"] <= 11


def test_a_full_run_changes_nothing_for_ours(live, worker, people):
    """Everybody is read, which is why only the reading part is tried here."""
    with worker.opened("plan") as run:
        pull.meet_instance(run, adopt=False)
        pull.read_instance(run, fresh=True)
        pull.prepare_store(run)
        before = run.mautic.writes
        persons = {number: pull.pull_contact(run, number) for number in people.values()}
        with run.engine.begin() as connection:
            assert people_store.persons_of(connection, list(persons)) == persons
        assert run.mautic.writes == before
    assert worker.sync()["pushed"]["calls"] == 0


def test_edits_visits_and_deletions_are_seen(live, worker, people):
    live.call("PATCH", f"contacts/{people['visitor']}/edit", json={"phone": "+49 40 1"})
    live.call("POST", f"contacts/{people['phone']}/dnc/email/add", json={"reason": 1, "comments": "live"})
    live.call("DELETE", f"contacts/{people['unsure']}/delete")
    live.contacts.remove(people["unsure"])
    document = worker.sync()
    # The edits were made with our own client, whose rows are not news to us; another user's would be.
    assert document["failed"] == 0
    with worker.opened("sync") as run:
        sync(run, Options(contact=people["visitor"]))
    assert live.stage(people["visitor"]) == "Lead"


def granted(live, number: int) -> list[int]:
    """What Mautic's log says that we granted to a contact, in order."""
    where = {"where[0][col]": "lead_id", "where[0][expr]": "eq", "where[0][val]": number, "order[0][col]": "id"}
    rows = live.call("GET", "stats/lead_points_change_log", params={**where, "order[0][dir]": "asc"})["stats"]
    return [int(row["delta"]) for row in rows if row["event_name"].startswith("mautic-sync: ")]


def test_a_score_is_granted_once_and_taken_back(live, worker):
    number = live.new(firstname=live.mark, phone="+49 30 2", position="CEO", country="Germany", points=17)
    assert worker.sync()["pushed"]["points"] == 1
    assert (granted(live, number), live.contact(number)["points"]) == ([15], 32)
    assert worker.sync()["pushed"]["calls"] == 0
    live.call("PATCH", f"contacts/{number}/edit", json={"position": "Student"})
    with worker.opened("sync") as run:
        sync(run, Options(contact=number))
    assert (granted(live, number), live.contact(number)["points"]) == ([15, -10], 22)
    assert worker.sync()["pushed"]["calls"] == 0


def tags(live, number: int) -> set[str]:
    return {one["tag"] for one in live.contact(number)["tags"]}


def notes(live, number: int) -> list[str]:
    found = live.call("GET", f"contacts/{number}/notes")["notes"]
    return [one["text"] for one in (found.values() if isinstance(found, dict) else found)]


def test_who_becomes_hot_is_tagged_and_noted_once_and_cold_again_without_the_tag(live, worker):
    number = live.new(firstname=live.mark, phone="+49 30 3", position="Head of Sales", country="Austria")
    document = worker.sync()
    assert document["failed"] == 0
    assert "hot" in tags(live, number)
    (note,) = notes(live, number)
    assert "Hot: 15 points. Decides 10, Home market 5" in note
    assert worker.sync()["pushed"]["calls"] == 0
    live.call(
        "PATCH", f"contacts/{number}/edit", json={"position": "", "country": "France", "overwriteWithBlank": True}
    )
    with worker.opened("sync") as run:
        sync(run, Options(contact=number))
    assert worker.sync()["failed"] == 0
    assert "hot" not in tags(live, number)
    assert (live.contact(number)["points"], len(notes(live, number))) == (0, 1)
    assert worker.sync()["pushed"]["calls"] == 0


def test_a_shared_address_gets_its_stage_all_the_same(live, worker, people):
    """Two contacts with one address can only come from outside the API: the stage call is tried by itself."""
    from mautic_sync.mautic.writes import Settled, set_stage

    with worker.opened("look") as run:
        pull.read_instance(run, fresh=False)
        result = set_stage(run.mautic, run.stage_ids["Lead"], people["good"])
    assert isinstance(result, Settled)
    assert live.stage(people["good"]) == "Lead"


def test_a_merge_that_mautic_makes_loses_no_unsubscription_and_no_stage(live, worker, address):
    """An unsubscribed lead submits a form from a new browser: Mautic keeps the visitor and forgets the rest."""
    form = live.call(
        "POST",
        "forms/new",
        json={
            "name": live.mark,
            "formType": "standalone",
            "isPublished": True,
            "postAction": "return",
            "fields": [
                {
                    "label": "Email",
                    "alias": "email",
                    "type": "email",
                    "mappedObject": "contact",
                    "mappedField": "email",
                    "leadField": "email",
                    "isRequired": True,
                }
            ],
        },
    )["form"]["id"]
    live.others.append(f"forms/{form}/delete")
    merged = address("merged", "valid")
    known = live.new(email=merged, firstname=live.mark, position="CEO")
    assert worker.sync()["failed"] == 0
    live.call("POST", f"contacts/{known}/dnc/email/add", json={"reason": 1, "comments": "live"})
    with worker.opened("sync") as run:
        sync(run, Options(contact=known))
    visitor, device = live.visit("https://shop.example/pricing")
    worker.sync()
    assert live.stage(visitor) == "Ghost"
    live.submit(form, {"email": merged}, device)
    assert live.contact(known)["id"] == visitor
    assert live.dnc(visitor) == {}
    worker.sync()
    assert live.dnc(visitor) == {"email": 1}
    assert live.stage(visitor) == "Lead"
    assert worker.sync()["pushed"]["calls"] == 0
    # Mautic moved the log of both; the account of both is one.
    with worker.engine.begin() as connection:
        person_id = people_store.persons_of(connection, [visitor])[visitor]
        assert sum(granted(live, visitor)) == ledger.granted(connection, [person_id])[person_id]
