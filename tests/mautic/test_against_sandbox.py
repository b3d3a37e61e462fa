"""The same code over real HTTP against a simulated Mautic, which was written from the recordings without knowing it."""

from __future__ import annotations

import uuid

import pytest

from mautic_sync.errors import RefusedError, StopError
from mautic_sync.mautic import contacts, feeds, handling, provisioning
from mautic_sync.mautic.transport import Transport
from mautic_sync.mautic.writes import (
    ContactEdit,
    Doubtful,
    Gone,
    Refused,
    Settled,
    add_dnc,
    edit_batch,
    edit_one,
    remove_dnc,
    set_stage,
)
from mautic_sync.sandbox import Faults, Sandbox

CUSTOM = ["orders_count", "last_purchase"]


@pytest.fixture(scope="module", params=["5.1", "7.0"])
def sandbox(request):
    with Sandbox(contacts=300, seed=5, version=request.param) as box:
        yield box


@pytest.fixture(params=["oauth", "basic"], scope="module")
def transport(sandbox, request):
    oauth = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
    basic = {"username": "admin", "password": "sandbox"}
    with Transport(sandbox.url, **(oauth if request.param == "oauth" else basic)) as made:
        yield made


@pytest.fixture(scope="module")
def everybody(sandbox, transport):
    """All contacts by id, as the plain list shows them."""
    found, after = {}, 0
    while (page := contacts.contacts_after(transport, after, 100)).rows:
        assert page.malformed == []
        found.update({contact.id: contact for contact in page.contacts})
        after = page.last_id
    return found


def parts(contact, fields):
    """What a sweep promises of a contact."""
    kept = {alias: value for alias, value in contact.fields.items() if alias in fields}
    times = (contact.date_added, contact.date_modified, contact.date_identified, contact.last_active)
    return kept, contact.tags, contact.points, contact.stage_id, contact.owner_id, dict(contact.dnc), times


@pytest.mark.parametrize("custom", [[], CUSTOM, ["website"]])
def test_a_sweep_equals_the_plain_list(transport, everybody, custom):
    fields = {*contacts.SELECTABLE, *custom}
    pages = list(contacts.sweep(transport, 0, None, 40, 2, custom))
    swept = [contact for page in pages for contact in page.contacts]
    assert [contact.id for contact in swept] == sorted(everybody)
    for contact in swept:
        assert parts(contact, fields) == parts(everybody[contact.id], fields)


def test_the_world_has_custom_values_tags_and_do_not_contact(everybody):
    """Else the test above would prove little."""
    assert any(set(CUSTOM) & set(contact.fields) for contact in everybody.values())
    assert any(contact.tags for contact in everybody.values())
    assert any(contact.dnc for contact in everybody.values())


def test_contacts_are_found_by_id(transport, everybody):
    some = sorted(everybody)[::7]
    page = contacts.contacts_by_id(transport, [*some, 10**9], chunk=20)
    assert [contact.id for contact in page.contacts] == some
    assert contacts.get_contact(transport, some[0]) == everybody[some[0]]
    assert contacts.get_contact(transport, 10**9) is None


@pytest.mark.parametrize("table", sorted(feeds.DATE_COLUMNS))
def test_a_feed_in_windows_equals_the_feed_in_one_page(transport, table):
    where = feeds.ABOUT_CONTACTS if table == "audit_log" else ()
    if table == "email_stat_replies":
        whole = [row for page in feeds.rows_since(transport, table, "date_replied", 0) for row in page]
        pages = feeds.rows_since(transport, table, "date_replied", 0, 2)
    else:
        whole = feeds.feed_after(transport, table, 0, 100_000, where)
        pages = feeds.feed_pages(transport, table, 0, limit=30, concurrency=2, where=where)
    rows = [row for page in pages for row in page]
    assert rows == whole
    for row in rows:
        feeds.normalise(table, row)
        if table == "audit_log":
            assert feeds.parse_audit(row).unreadable is None


def test_the_first_id_of_a_time_is_found(transport):
    rows = feeds.feed_after(transport, "page_hits", 0, 100_000)
    since = feeds.parse_time(rows[len(rows) // 2]["date_hit"])
    first = feeds.feed_first_id_since(transport, "page_hits", "date_hit", since)
    assert first == min(int(row["id"]) for row in rows if feeds.parse_time(row["date_hit"]) >= since)


def test_opened_mails_are_found_by_their_date(transport):
    opened = [row for row in feeds.feed_after(transport, "email_stats", 0, 100_000) if "last_opened" in row]
    pages = feeds.rows_since(transport, "email_stats", "last_opened", 0, 10)
    assert sorted(int(row["id"]) for page in pages for row in page) == [int(row["id"]) for row in opened]
    assert opened


def test_an_unknown_table_and_column_are_refused(transport):
    with pytest.raises(RefusedError):
        feeds.feed_after(transport, "leads", 0)
    with pytest.raises(RefusedError):
        feeds.feed_after(transport, "page_hits", 0, 10, [("nope", "eq", 1)])


def test_stages_fields_segments_and_edits_make_the_round(transport, everybody):
    # Of two published stages with one name only one can be set: each round has its own.
    stage = provisioning.create_stage(transport, f"Trial {uuid.uuid4()}", 70)
    assert stage in provisioning.list_stages(transport)
    made = {entry.alias for entry in provisioning.list_fields(transport)}
    if "trial_note" not in made:
        provisioning.create_field(transport, "trial_note", "Trial note", "text")
    segment = provisioning.create_segment_on_stage(transport, "Trials", f"trials-{stage.id}", stage.id)
    assert segment.alias in provisioning.read_catalogue(transport, ["segments"]).stage_segments
    ghosts = [contact.id for contact in everybody.values() if contact.points == 0 and not contact.fields][:3]
    edits = [ContactEdit(number, {"stage": stage.id, "trial_note": " a <b>b</b> & c "}) for number in ghosts]
    results = edit_batch(transport, [*edits, ContactEdit(10**9, {"stage": stage.id})])
    assert [type(results[number]) for number in ghosts] == [Settled] * 3
    assert results[10**9] == Gone()
    emptied = edit_one(transport, ContactEdit(ghosts[0], {"stage": None, "trial_note": None}))
    assert isinstance(emptied, Settled)
    assert contacts.get_contact(transport, ghosts[0]).stage_id is None
    assert isinstance(set_stage(transport, stage.id, ghosts[0]), Settled)
    assert isinstance(edit_one(transport, ContactEdit(ghosts[1], {"stage": 10**6})), Refused)


def test_do_not_contact_makes_the_round(transport, everybody):
    number = next(contact.id for contact in everybody.values() if contact.fields.get("email") and not contact.dnc)
    assert add_dnc(transport, number, "email", 2, "bounced").contact.dnc == {"email": 2}
    changes = [
        feeds.parse_audit(row) for row in feeds.feed_after(transport, "audit_log", 0, 100_000, feeds.ABOUT_CONTACTS)
    ]
    assert [change.dnc for change in changes if change.contact_id == number][-1] == {"email": (0, 2)}
    assert remove_dnc(transport, number, "email").contact.dnc == {}


def test_our_own_changes_are_known_in_the_audit_log(transport, everybody):
    number = min(everybody)
    assert isinstance(edit_one(transport, ContactEdit(number, {"city": f"City {uuid.uuid4()}"})), Settled)
    last = feeds.parse_audit(feeds.feed_after(transport, "audit_log", 0, 100_000, feeds.ABOUT_CONTACTS)[-1])
    assert last.contact_id == number
    assert transport.is_own(last.user_name) == (transport.server_user is not None)


def test_wrong_credentials_are_named(sandbox):
    for credentials, setting in (
        ({"client_id": "sandbox", "client_secret": "wrong"}, r"mautic\.client_secret"),
        ({"username": "admin", "password": "wrong"}, r"mautic\.password"),
    ):
        with Transport(sandbox.url, **credentials) as wrong, pytest.raises(StopError, match=setting):
            wrong.read("contacts")


@pytest.fixture
def faulty():
    """A Mautic that begins to misbehave when told, and a transport that does not really sleep."""
    with (
        Sandbox(contacts=200, seed=9) as box,
        Transport(
            box.url, client_id="sandbox", client_secret="sandbox-secret", timeout=5, sleep=lambda _: None
        ) as transport,
    ):
        yield box, transport


def test_reading_is_complete_although_one_answer_in_six_fails(faulty):
    box, transport = faulty
    calm = [contact for page in contacts.sweep(transport, 0, None, 10, 2, CUSTOM) for contact in page.contacts]
    rows = feeds.feed_after(transport, "page_hits", 0, 100_000)
    box.use_faults(Faults(seed=4, before=0.07, truncate=0.07, rate=0.03))
    assert [c for page in contacts.sweep(transport, 0, None, 10, 2, CUSTOM) for c in page.contacts] == calm
    assert [row for page in feeds.feed_pages(transport, "page_hits", 0, limit=40) for row in page] == rows
    assert sum(box.stats()["faults"].values()) > 3


def test_what_is_called_settled_is_stored_whatever_goes_wrong(faulty):
    """And nothing that may have happened is called refused or gone: only those who share an address are refused."""
    box, transport = faulty
    stage = provisioning.create_stage(transport, "Trial", 70)
    everyone = contacts.contacts_after(transport, 0, 200).contacts
    box.use_faults(Faults(seed=2, before=0.1, after=0.1, echo=0.2, truncate=0.1))
    results = {}
    for start in range(0, len(everyone), 10):
        edits = [ContactEdit(contact.id, {"stage": stage.id}) for contact in everyone[start : start + 10]]
        results |= edit_batch(transport, edits)
    box.use_faults(Faults())
    stored = {contact.id: contact.stage_id for contact in contacts.contacts_after(transport, 0, 200).contacts}
    assert {type(result) for result in results.values()} >= {Settled, Doubtful}
    assert {result.status for result in results.values() if isinstance(result, Refused)} <= {422}
    assert not any(isinstance(result, Gone) for result in results.values())
    for number, result in results.items():
        if isinstance(result, Settled):
            assert stored[number] == stage.id


def test_a_note_is_found_on_whatever_page_of_the_notes_it_is(transport, everybody, monkeypatch):
    monkeypatch.setattr(handling, "NOTES_AT_ONCE", 2)
    number = next(iter(everybody))
    keys = [uuid.uuid4().hex for _ in range(5)]
    for key in keys:
        handling.add_note(transport, number, "Call her", key)
    assert all(handling.has_note(transport, number, key) for key in keys)
    assert not handling.has_note(transport, number, "another")
