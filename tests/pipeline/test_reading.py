"""What was read is complete and right, whatever Mautic's tables go through between two runs."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from sqlalchemy import select

from mautic_sync.errors import ConfigError, SafetyStop
from mautic_sync.mapping_problems import MappingsError
from mautic_sync.mautic import contacts as mautic_contacts
from mautic_sync.mautic.provisioning import list_stages
from mautic_sync.mautic.transport import Transport
from mautic_sync.pipeline import pull
from mautic_sync.pipeline.explain import deciding_from_store
from mautic_sync.pipeline.run import Options, sync
from mautic_sync.store import notes, people, runs
from mautic_sync.store.activities import MATCHERS, count_anew
from mautic_sync.store.schema import activity, decision, evidence
from tests.pipeline.conftest import resubscribe

DAY = 86400
GHOST = "  - stage: Ghost\n    kind: ghost\n    weight: 10\n"


def rules(tmp_path, condition: str, name: str = "rules"):
    """Mappings whose leads are those for whom this condition holds."""
    directory = tmp_path / name
    directory.mkdir()
    (directory / "stages.yaml").write_text(
        f"version: 1\nstages:\n  - stage: Lead\n    kind: lead\n    weight: 20\n    when: {condition}\n{GHOST}"
    )
    return directory


@pytest.fixture
def worker(make_worker):
    return make_worker()


@pytest.fixture
def ready(worker):
    """With the packaged mappings and a first run behind it."""
    worker.init()
    worker.sync()
    return worker


def sql(worker, query: str, *values):
    return worker.box.instance.tables.connection.execute(query, values).fetchall()


def quarantine(worker) -> dict[tuple[str, str], str]:
    with worker.run("look") as run, run.engine.begin() as connection:
        return {(row["source"], row["key"]): row["excerpt"] for row in runs.in_quarantine(connection)}


def cursor_of(worker, feed: str):
    with worker.run("look") as run, run.engine.begin() as connection:
        return runs.get_cursor(connection, feed)


# -- the audit log


def test_an_unsubscription_and_a_merge_between_two_runs_lose_nothing(ready):
    known, visitor = ready.new(email="valid@example.com"), ready.visitor()
    ready.sync()
    ready.act("unsubscribe", contact=known)
    ready.act("merge", visitor=visitor, known=known)
    assert ready.contact(visitor).dnc == {}
    ready.sync()
    assert ready.contact(visitor).dnc == {"email": 1}


def test_whoever_came_unsubscribed_and_was_merged_between_two_runs_is_kept_unsubscribed(ready):
    known, visitor = ready.new(email="valid@example.com"), ready.visitor()
    ready.act("unsubscribe", contact=known)
    ready.act("merge", visitor=visitor, known=known)
    ready.sync()
    assert ready.contact(visitor).dnc == {"email": 1}
    assert ready.stage(visitor) == "Lead"


def test_whoever_subscribed_again_before_a_merge_stays_contactable(ready):
    known, visitor = ready.new(email="valid@example.com"), ready.visitor()
    ready.act("unsubscribe", contact=known)
    ready.sync()
    resubscribe(ready, known)
    ready.act("merge", visitor=visitor, known=known)
    ready.sync()
    ready.sync()
    assert ready.contact(visitor).dnc == {}


def test_a_row_of_the_audit_log_that_becomes_visible_late_is_applied_once(ready):
    first, second = (ready.new(firstname=name, phone="+49 30 1") for name in "AB")
    ready.sync()
    ready.sync()
    ready.act("edit", contact=first, values={"tags": ["customer"]})
    late = sql(ready, "SELECT * FROM audit_log ORDER BY id DESC LIMIT 1")[0]
    sql(ready, "DELETE FROM audit_log WHERE id = ?", late[0])
    ready.act("edit", contact=second, values={"tags": ["x"]})
    ready.sync()
    sql(ready, f"INSERT INTO audit_log VALUES ({','.join('?' * len(late))})", *late)
    assert ready.sync()["pulled"]["contacts"] == 1
    assert ready.stage(first) == "Customer"
    assert ready.sync()["pulled"]["contacts"] == 0


def test_an_unsubscription_that_becomes_visible_after_its_merge_was_followed_is_put_back(ready):
    known, visitor = ready.new(email="valid@example.com"), ready.visitor()
    ready.sync()
    ready.act("unsubscribe", contact=known)
    late = sql(ready, "SELECT * FROM audit_log WHERE details LIKE '%dnc_channel%' ORDER BY id DESC LIMIT 1")[0]
    sql(ready, "DELETE FROM audit_log WHERE id = ?", late[0])
    ready.act("merge", visitor=visitor, known=known)
    ready.sync()
    sql(ready, f"INSERT INTO audit_log VALUES ({','.join('?' * len(late))})", *late)
    ready.sync()
    assert ready.contact(visitor).dnc == {"email": 1}


# -- a full pass


def cut_full_pass_short(slow, monkeypatch):
    """Ctrl-C when half of six contacts have been read, one by one."""
    sweep = mautic_contacts.sweep

    def cut_short(*args):
        for page in sweep(*args):
            yield page
            if page.last_id >= 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as cutting:
        cutting.setattr(mautic_contacts, "sweep", cut_short)
        with pytest.raises(KeyboardInterrupt):
            slow.sync(full=True)


def test_a_full_pass_that_was_cut_short_begins_again_for_a_field_that_it_did_not_keep(worker, tmp_path, monkeypatch):
    worker.mappings_dir = rules(tmp_path, "{field: phone, not_empty: true}")
    for number in range(6):
        worker.new(firstname=f"A{number}", zipcode="53111")
    worker.init()
    slow = worker.but(mautic={"page_size": 1}, push={"max_change_ratio": 1})
    slow.sync()
    cut_full_pass_short(slow, monkeypatch)
    slow.mappings_dir = rules(tmp_path, "{field: zipcode, is: '53111'}", "others")
    assert slow.sync()["kinds"]["lead"] == 6


# -- contacts and activity side by side


def test_activity_that_is_read_before_its_contact_is_kept_all_the_same(make_worker, monkeypatch):
    """The same Mautic read twice: once while pages of contacts are awaited, once after them."""
    monkeypatch.setattr(pull, "FEED_PAGE_ROWS", 20)
    sweep, read = mautic_contacts.sweep, Transport.read

    def slow(transport, path, params=(), **more):
        if path == "contacts":
            time.sleep(0.05)
        return read(transport, path, params, **more)

    def alone(*args):
        *others, _meanwhile = args
        yield from sweep(*others)

    first = make_worker(contacts=100, seed=3, mautic={"page_size": 10})
    first.init()
    found = []
    for name, replacement in (("sweep", sweep), ("alone", alone)):
        worker = first.but(mautic={"page_size": 10}, store={"url": f"sqlite:///{first.directory / name}.db"})
        monkeypatch.setattr(Transport, "read", slow)
        monkeypatch.setattr(mautic_contacts, "sweep", replacement)
        worker.plan()
        monkeypatch.setattr(Transport, "read", read)
        events = [event for event, _ in worker.told if event in {"contacts", "activities"}]
        assert ("activities" in events[: events.index("contacts", 2)]) is (name == "sweep")
        with worker.run("look") as run, run.engine.begin() as connection:
            rows = connection.execute(
                select(activity.c.source, activity.c.source_id, activity.c.type, activity.c.person_id, activity.c.at)
            )
            proofs = connection.execute(select(evidence.c.matcher, evidence.c.person_id, evidence.c.at))
            decided = connection.execute(select(decision.c.person_id, decision.c.stage, decision.c.reason))
            found.append([sorted(map(tuple, one)) for one in (rows, proofs, decided)])
    assert all(found[0])
    assert found[0] == found[1]


# -- mails and scheduled events


def test_a_mail_opened_before_the_clock_of_our_first_run_is_seen(worker, tmp_path):
    """When nobody had opened any mail, only Mautic's own times tell where the opened ones begin."""
    worker.mappings_dir = rules(tmp_path, "{activity: email.read, at_least: 1}")
    worker.post("/_sandbox/clock", {"advance": -3600})
    who, other = (worker.new(email=f"{name}@feeds.example") for name in "ab")
    worker.act("send", contact=who)
    worker.act("send", contact=other)
    worker.init()
    worker.sync()
    worker.act("open", contact=who)
    worker.sync()
    assert worker.stage(who) == "Lead"


@pytest.fixture
def opened(worker, tmp_path):
    """Whose mail was sent and opened eight days ago, where rules ask for openings within days; and when it was opened."""
    worker.mappings_dir = rules(tmp_path, "{activity: email.read, within: 5d}")
    (worker.mappings_dir / "scoring.yaml").write_text(
        "version: 1\ngroups:\n  interest:\n"
        "    - {name: First, on: email.read, points: 100, once: true}\n"
        "    - {name: Ignores, on: email.sent, unless: {activity: email.read, within: 2d}, points: -2}\n"
        "  fit: []\n"
        "decay: {group: interest, half_life: 8d}\n"
    )
    who = worker.new(email="kim@feeds.example")
    worker.act("send", contact=who)
    worker.act("open", contact=who)
    worker.init()
    worker.sync()
    (at,) = openings(worker)
    worker.post("/_sandbox/clock", {"advance": 8 * DAY})
    worker.skew = 8 * DAY
    worker.sync()
    return worker, who, at


def openings(worker) -> set[int]:
    """When mails were opened, as activity and as evidence."""
    with worker.run("look") as run, run.engine.begin() as connection:
        opened = connection.execute(select(activity.c.at).where(activity.c.type == "email.read")).scalars()
        return {*opened, *connection.execute(select(evidence.c.at)).scalars()}


def test_a_mail_that_is_opened_again_was_opened_when_it_first_was(opened):
    worker, who, at = opened
    assert (worker.stage(who), worker.contact(who).points) == ("Ghost", 50)
    worker.act("open", contact=who)
    for full in (False, True):
        worker.sync(full=full)
        assert (worker.stage(who), worker.contact(who).points, openings(worker)) == ("Ghost", 50, {at})


def test_an_opening_that_was_stored_with_a_later_time_is_corrected_when_its_row_is_read_again(opened):
    worker, who, at = opened
    with worker.run("look") as run, run.engine.begin() as connection:
        connection.execute(activity.update().where(activity.c.type == "email.read").values(at=at + 7 * DAY))
        notes.drop(connection, MATCHERS)
        count_anew(connection, run.counting, run.catalogue)
    assert at not in openings(worker)
    worker.act("open", contact=who)
    worker.sync()
    assert (worker.stage(who), worker.contact(who).points, openings(worker)) == ("Ghost", 50, {at})


def test_an_old_mail_that_is_opened_does_not_have_the_mails_since_read_again(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{activity: email.read, at_least: 1}")
    worker.post("/_sandbox/clock", {"advance": -30 * DAY})
    everybody = [worker.new(email=f"k{number}@feeds.example") for number in range(9)]
    for who in everybody:
        worker.act("send", contact=who)
    worker.init()
    worker.sync()
    worker.post("/_sandbox/clock", {"advance": 30 * DAY})
    worker.act("open", contact=everybody[0])
    worker.act("send", contact=everybody[5])
    worker.sync()
    cursor = cursor_of(worker, "email_stats")
    assert (cursor.last_id, cursor.resume_from) == (10, 9)


def test_the_time_of_one_row_in_the_far_future_hides_no_later_one(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{activity: email.read, at_least: 1}")
    first, second = (worker.new(email=f"{name}@feeds.example") for name in "ab")
    worker.act("send", contact=second)
    worker.act("open", contact=first)
    sql(worker, "UPDATE email_stats SET last_opened = '2199-01-01 00:00:00' WHERE lead_id = ?", first)
    worker.init()
    worker.sync()
    worker.sync()
    worker.act("open", contact=second)
    worker.sync()
    assert worker.stage(second) == "Lead"


def test_a_scheduled_campaign_event_counts_when_it_has_taken_place(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{activity: campaign.event, at_least: 1}")
    who, other = worker.new(firstname="Pat"), worker.new(firstname="Kim")
    add = "INSERT INTO campaign_lead_event_log (id, campaign_id, event_id, lead_id, is_scheduled, date_triggered) "
    day = "strftime('%Y-%m-%d %H:%M:%S', 'now', ?)"
    sql(worker, add + "VALUES (1, 1, 1, ?, 1, NULL)", who)
    sql(worker, add + f"VALUES (2, 1, 1, ?, 0, {day})", other, "-1 day")
    worker.init()
    worker.sync()
    worker.sync()
    assert (worker.stage(who), worker.stage(other)) == ("Ghost", "Lead")
    sql(worker, f"UPDATE campaign_lead_event_log SET is_scheduled = 0, date_triggered = {day} WHERE id = 1", "0 day")
    worker.sync()
    assert worker.stage(who) == "Lead"


# -- rows that cannot be understood

EVERY_FEED = (
    "{any: [{activity: page.hit, at_least: 3}, {activity: email.read, at_least: 3}, "
    "{activity: email.bounced, at_least: 3}, {activity: email.replied, at_least: 3}]}"
)
BROKEN = {
    "page_hits": "date_hit",
    "email_stats": "date_read",
    "email_stat_replies": "date_replied",
    "audit_log": "date_added",
}


@pytest.fixture
def broken(worker, tmp_path):
    """The last row of each feed is broken before the first run, and the last one of now when this is called."""
    worker.mappings_dir = rules(tmp_path, EVERY_FEED)
    who = worker.new(email="kim@feeds.example")

    def spoil(column_of: dict[str, str] = BROKEN) -> None:
        worker.act("visit", contact=who, url="https://shop.example/?email=secret@person.example")
        worker.act("send", contact=who)
        worker.act("open", contact=who)
        worker.act("reply", contact=who)
        worker.act("edit", contact=who, values={"lastname": f"F{len(sql(worker, 'SELECT id FROM page_hits'))}"})
        for table, column in column_of.items():
            last = f"(SELECT max(rowid) FROM {table})"
            sql(worker, f"UPDATE {table} SET {column} = 'garbage' WHERE rowid = {last}")

    spoil()
    sql(worker, "UPDATE email_stats SET is_failed = 1")
    worker.init()
    worker.sync()
    worker.who, worker.spoil = who, spoil
    return worker


def test_a_malformed_row_of_a_feed_stops_no_run_and_hides_no_other_row(broken):
    broken.spoil()
    assert broken.sync()["quarantined"] == 4
    assert broken.sync()["quarantined"] == 0
    assert broken.sync(full=True)["quarantined"] == 0
    held = quarantine(broken)
    assert {source for source, _ in held} == set(BROKEN)
    assert not [text for text in held.values() if "secret@" in text]
    for _ in range(3):
        broken.spoil({})
    broken.sync()
    assert broken.stage(broken.who) == "Lead"


def test_quarantined_rows_are_read_again_by_a_retry(broken):
    broken.spoil()
    broken.sync()
    day = "strftime('%Y-%m-%d %H:%M:%S', 'now')"
    sql(broken, f"UPDATE page_hits SET date_hit = {day} WHERE date_hit = 'garbage'")
    sql(broken, "DELETE FROM email_stat_replies WHERE date_replied = 'garbage'")
    sql(broken, f"UPDATE audit_log SET date_added = {day} WHERE date_added = 'garbage'")
    before = len(quarantine(broken))
    with broken.run("retry") as run:
        pull.read_instance(run, fresh=False)
        assert pull.retry_rows(run) == before
        with run.engine.begin() as connection:
            hits = connection.execute(select(activity.c.id).where(activity.c.type == "page.hit")).all()
    assert len(hits) == len(sql(broken, "SELECT id FROM page_hits"))
    assert {source for source, _ in quarantine(broken)} == {"email_stats"}


def test_a_broken_member_of_a_segment_stops_no_run(make_worker, tmp_path):
    worker = make_worker(contacts=60, mappings=rules(tmp_path, "{segment: nurture}"))
    worker.init()
    before = worker.sync()["kinds"]["lead"]
    segment = sql(worker, "SELECT leadlist_id FROM lead_lists_leads GROUP BY 1 ORDER BY count(*) DESC")
    for (number,) in segment:
        sql(worker, "INSERT INTO lead_lists_leads (leadlist_id, lead_id) VALUES (?, 'abc')", number)
    document = worker.sync()
    assert (document["kinds"]["lead"], document["quarantined"]) == (before, 1)


# -- a Mautic that was set back


def test_rows_that_went_with_their_form_are_no_sign_of_a_backup(worker, tmp_path):
    worker.mappings_dir = rules(tmp_path, "{activity: form.submitted, at_least: 5}")
    who = worker.new(firstname="Pat")
    for number in (1, 50):
        add = "INSERT INTO form_submissions (id, form_id, lead_id, date_submitted) VALUES (?, 1, ?, datetime('now'))"
        sql(worker, add, number, who)
    worker.init()
    worker.sync()
    worker.sync()
    sql(worker, "DELETE FROM form_submissions WHERE id = 50")
    assert worker.sync()["failed"] == 0


def test_an_audit_log_that_was_emptied_is_no_sign_of_a_backup(ready):
    ready.new(firstname="Pat")
    ready.sync()
    sql(ready, "DELETE FROM audit_log")
    assert ready.sync()["failed"] == 0


def test_the_number_of_somebody_lost_with_a_backup_may_become_somebody_else(ready):
    kept, buyer = ready.new(firstname="Pat"), ready.new(email="valid@example.com", tags=["customer"])
    ready.sync()
    ready.sync()
    sql(ready, "DELETE FROM leads WHERE id = ?", buyer)
    sql(ready, "DELETE FROM lead_tags_xref")
    sql(ready, "DELETE FROM audit_log WHERE id > 4")
    with pytest.raises(SafetyStop):
        ready.sync()
    assert ready.sync(full=True)["vanished"] == 1
    other = ready.new(firstname="Otto")
    sql(ready, "UPDATE leads SET id = ? WHERE id = ?", buyer, other)
    sql(ready, "UPDATE audit_log SET object_id = ? WHERE object_id = ?", buyer, other)
    ready.sync()
    assert (ready.stage(kept), ready.stage(buyer)) == ("Ghost", "Ghost")


def test_the_number_that_was_given_again_before_the_full_run_is_somebody_else(ready):
    buyer = ready.new(email="valid@example.com", tags=["customer"])
    gone = ready.visitor()
    last = ready.new(firstname="Pat")
    ready.sync()
    ready.sync()
    sql(ready, "DELETE FROM leads WHERE id IN (?, ?)", buyer, gone)
    sql(ready, "DELETE FROM lead_tags_xref")
    ready.post("/_sandbox/clock", {"advance": 3600})
    other = ready.new(firstname="Otto")
    sql(ready, "UPDATE leads SET id = ? WHERE id = ?", buyer, other)
    sql(ready, "DELETE FROM audit_log WHERE id > 4")
    assert ready.sync(full=True)["vanished"] == 2
    assert (ready.stage(buyer), ready.stage(last)) == ("Ghost", "Ghost")
    with ready.run("look") as run, run.engine.begin() as connection:
        assert gone not in people.current_ids(connection, people.persons_of(connection, [buyer, last]).values())


# -- names


def test_a_form_made_since_the_catalogue_was_read_is_known_by_its_name(make_worker, tmp_path):
    condition = "{activity: form.submitted, where: {form: Fresh}, at_least: 1, optional: true}"
    worker = make_worker(contacts=5, mappings=rules(tmp_path, condition))
    who = worker.new(firstname="Pat")
    worker.init()
    worker.sync()
    with worker.run("look") as run:
        run.mautic.write("POST", "forms/new", {"name": "Fresh", "formType": "standalone", "isPublished": True})
    worker.act("form", form="Fresh", contact=who, values={"firstname": "Pat"})
    worker.sync()
    assert worker.stage(who) == "Lead"
    worker.box.reset_stats()
    worker.sync()
    assert not [call for call in worker.box.stats()["calls"] if "/api/forms" in call]


def test_a_misspelt_stage_is_refused_and_one_of_mautic_found_in_an_older_store_too(make_worker, tmp_path):
    """Older stores kept a catalogue without stages."""
    worker = make_worker(contacts=5, mappings=rules(tmp_path, "{stage: Partner}"))
    worker.init()
    worker.sync()
    with worker.run("look") as run, run.engine.begin() as connection:
        kept = notes.get_json(connection, pull.CATALOGUE)
        kept.pop("stages", None)
        notes.put_json(connection, pull.CATALOGUE, kept)
        assert deciding_from_store(connection, run.settings, run.mappings).catalogue.stages
    assert worker.sync()["kinds"]["lead"] == 0
    worker.mappings_dir = rules(tmp_path, "{stage: Partnr}", "misspelt")
    with pytest.raises(MappingsError, match="this Mautic has no stage `Partnr`; did you mean `Partner`"):
        worker.sync()


# -- what the rules need and the store lacks


def activities_of(worker) -> list[tuple[str, str, str]]:
    with worker.run("look") as run, run.engine.begin() as connection:
        rows = connection.execute(select(activity.c.source, activity.c.source_id, activity.c.type))
        return sorted(tuple(row) for row in rows)


def beside(worker, tmp_path, **sections):
    """Another worker of the same Mautic, with a store of its own."""
    directory = tmp_path / "beside"
    directory.mkdir()
    return type(worker)(worker.box, directory, mappings=worker.mappings_dir, **sections)


@pytest.fixture
def longer(make_worker, tmp_path):
    """A worker that has read 20 days of history, now told to read 400; and what it must have then."""
    short = make_worker(contacts=60, push={"max_change_ratio": 1}, pull={"history": "20d"})
    short.init()
    short.sync()
    fresh = beside(short, tmp_path, pull={"history": "400d"})
    fresh.plan()
    assert len(activities_of(short)) < len(activities_of(fresh))
    return short.but(push={"max_change_ratio": 1}, pull={"history": "400d"}), activities_of(fresh)


def test_history_is_read_again_from_its_new_beginning_when_it_has_grown(longer):
    worker, expected = longer
    worker.sync()
    assert activities_of(worker) == expected
    assert worker.sync()["pulled"]["activities"] == 0


def test_a_reading_of_longer_history_that_was_cut_short_goes_on(longer, monkeypatch):
    worker, expected = longer
    monkeypatch.setattr(pull, "FEED_PAGE_ROWS", 25)
    told = 0

    def cut(event, **_facts):
        nonlocal told
        told += event == "activities"
        if told == 3:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), worker.run() as run:
        run.tell = cut
        sync(run, Options())
    assert told == 3
    worker.sync()
    assert activities_of(worker) == expected


def test_rules_that_newly_read_idle_have_everybody_read_again(make_worker, tmp_path):
    """Visits move Mautic's `lastActive` without a trace in the audit log: what is kept of it is stale."""
    directory = rules(tmp_path, "{field: lastname, not_empty: true}")
    for name in ("scoring", "actions"):
        (directory / f"{name}.yaml").write_text("version: 1\n")
    worker = make_worker(contacts=30, mappings=directory)
    worker.init()
    worker.sync()
    assert worker.sync()["pulled"]["contacts"] == 0
    again = rules(tmp_path, "{idle: 300d}", "idle")
    for name in ("scoring", "actions"):
        (again / f"{name}.yaml").write_text("version: 1\n")
    worker.mappings_dir = again
    assert worker.but(push={"max_change_ratio": 1}).sync()["pulled"]["contacts"] == 30
    assert worker.sync()["pulled"]["contacts"] == 0


@pytest.mark.parametrize("how", ["sync", "plan"])
def test_rules_that_read_a_field_again_have_everybody_read_again(worker, tmp_path, how):
    reading = rules(tmp_path, "{field: zipcode, is: '53111'}")
    without = rules(tmp_path, "{field: phone, not_empty: true}", "without")
    worker = worker.but(push={"max_change_ratio": 1})
    worker.mappings_dir = reading
    everybody = [worker.new(firstname=name, zipcode="53111") for name in "AB"]
    worker.init()
    worker.sync()
    worker.mappings_dir = without
    worker.act("edit", contact=everybody[0], values={"city": "Bonn"})
    getattr(worker, how)()
    newcomer = worker.new(firstname="C", zipcode="53111")
    getattr(worker, how)()
    worker.mappings_dir = reading
    worker.sync()
    assert [worker.stage(one) for one in (*everybody, newcomer)] == ["Lead"] * 3
    assert worker.sync()["pulled"]["contacts"] == 0


def test_rules_that_read_idle_again_have_everybody_read_again(make_worker, tmp_path):
    idle, without = rules(tmp_path, "{idle: 300d}"), rules(tmp_path, "{field: lastname, not_empty: true}", "without")
    for directory in (idle, without):
        for name in ("scoring", "actions"):
            (directory / f"{name}.yaml").write_text("version: 1\n")
    worker = make_worker(contacts=30, mappings=idle, push={"max_change_ratio": 1})
    worker.init()
    for directory, contacts in ((idle, 30), (without, 0), (idle, 30), (idle, 0)):
        worker.mappings_dir = directory
        assert worker.sync()["pulled"]["contacts"] == contacts


def test_a_full_pass_that_was_cut_short_reads_again_whom_a_run_between_kept_without_a_field(
    worker, tmp_path, monkeypatch
):
    worker.mappings_dir = reading = rules(tmp_path, "{field: zipcode, is: '53111'}")
    first, *_others = [worker.new(firstname=f"A{number}", zipcode="53111") for number in range(6)]
    worker.init()
    slow = worker.but(mautic={"page_size": 1}, push={"max_change_ratio": 1})
    slow.sync()
    cut_full_pass_short(slow, monkeypatch)
    slow.mappings_dir = rules(tmp_path, "{field: phone, not_empty: true}", "without")
    slow.sync(contact=first)
    slow.mappings_dir = reading
    assert slow.sync()["kinds"]["lead"] == 6


def test_a_stage_that_was_deleted_and_is_made_anew_is_given_again(worker):
    """Mautic tells nobody whose stage it was: without `init` only the nightly run would see it."""
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    worker.init()
    worker.sync()
    with worker.run("look") as run:
        stage = next(one for one in list_stages(run.mautic) if one.name == "Lead")
        run.mautic.write("DELETE", f"stages/{stage.id}/delete")
    assert worker.stage(pat) is None
    with pytest.raises(ConfigError, match="mautic-sync init"):
        worker.sync()
    worker.init()
    assert worker.plan()["changes"] == 1
    worker.sync()
    assert worker.stage(pat) == "Lead"
    assert worker.sync()["pulled"]["contacts"] == 0
    worker.init()
    assert worker.sync()["pulled"]["contacts"] == 0
