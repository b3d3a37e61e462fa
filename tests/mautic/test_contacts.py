from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from hypothesis import example, given, strategies as st

from mautic_sync.errors import MalformedError, RefusedError, StopError
from mautic_sync.mautic.contacts import (
    SELECTABLE,
    contacts_after,
    contacts_by_id,
    excerpt,
    get_contact,
    max_id_and_total,
    parse_contact,
    sweep,
)

BASE = "https://mautic.example"
CONTACTS = f"{BASE}/api/contacts"


# -- shapes ---------------------------------------------------------------------------------------------------------


def test_every_recorded_contact_is_understood(recording):
    seen = 0
    for exchange in recording:
        answer = exchange["response"]["json"]
        if not isinstance(answer, dict) or exchange["response"]["status"] >= 300 or "delete" in exchange["name"]:
            continue
        rows = answer.get("contacts") or []
        rows = list(rows.values()) if isinstance(rows, dict) else rows
        for row in [*rows, *([answer["contact"]] if "contact" in answer else [])]:
            contact = parse_contact(row)
            assert contact.id == int(row["id"])
            assert "id" not in contact.fields
            seen += 1
    assert seen > 20


def test_a_contact_shows_its_fields_tags_and_times(step):
    contact = parse_contact(step("patch contact")["contact"])
    assert contact.fields["email"] == "EVE@example.com"
    assert contact.fields["zb_status"] == "valid"
    assert contact.tags == {"vip"}
    assert contact.date_added is not None
    assert contact.date_identified is not None
    assert contact.stage_id is None
    assert contact.complete


def test_values_follow_the_type_of_their_field(step):
    batch = [parse_contact(row) for row in step("batch new")["contacts"].values()]
    assert batch[1].fields["orders_count"] == 2
    assert batch[1].fields["last_purchase"] == "2026-11-01T10:00:00+00:00"


def test_a_stage_and_do_not_contact_are_ids_and_reasons(step):
    contact = parse_contact(step("stage by edit")["contact"])
    assert contact.stage_id == 3
    assert contact.dnc == {"email": 2}


def test_an_answer_without_fields_all_has_the_values_of_its_groups(step):
    """The do-not-contact calls answer in this shape."""
    contact = parse_contact(step("dnc add")["contact"])
    assert contact.fields == {"firstname": "Paul", "phone": "+49 30 901820"}
    assert contact.dnc == {"email": 3}


def row(**parts):
    return {"id": 7, "fields": {"all": {"id": "7"}}, **parts}


def typed(kind, value):
    return row(fields={"core": {"f": {"alias": "f", "type": kind, "value": value}}, "all": {"id": "7", "f": value}})


@pytest.mark.parametrize(
    ("kind", "value", "regular"),
    [
        ("boolean", "1", True),
        ("boolean", 1, True),
        ("boolean", True, True),
        ("boolean", "0", False),
        ("boolean", 0, False),
        ("boolean", "", None),
        ("number", "12", 12),
        ("number", "12.50", 12.5),
        ("number", 51.0, 51),
        ("number", " ", None),
        ("number", 10**30, 1e30),
        ("text", "  x\x00y ", "xy"),
        ("text", 10115, "10115"),
        ("text", 1.5, "1.5"),
        ("text", True, "1"),
        ("text", "   ", None),
        ("multiselect", ["a", "b"], "a|b"),
        ("multiselect", "a|b", "a|b"),
        ("datetime", "2026-11-01 10:00:00", "2026-11-01T10:00:00+00:00"),
        ("datetime", "2026-11-01T12:00:00+02:00", "2026-11-01T10:00:00+00:00"),
        ("datetime", "0000-00-00 00:00:00", None),
        ("date", "2026-11-01", "2026-11-01"),
        ("date", "2026-11-01 00:00:00", "2026-11-01"),
        ("date", "0000-00-00", None),
        ("text", "x" * 100_000, "x" * 65_536),
    ],
)
def test_a_value_in_any_of_its_shapes_is_the_same_value(kind, value, regular):
    assert parse_contact(typed(kind, value)).fields.get("f") == regular
    assert type(parse_contact(typed(kind, value)).fields.get("f")) is type(regular)


@pytest.mark.parametrize(
    ("broken", "key"),
    [
        ([], "object"),
        ("text", "object"),
        ({}, "`id`"),
        (row(id="seven"), "`id`"),
        (row(id=-1), "`id`"),
        (row(id=10**40), "`id`"),
        (row(id=True), "`id`"),
        (row(points="many"), "`points`"),
        (row(points=[1]), "`points`"),
        (row(stage="Lead"), "`stage`"),
        (row(owner={"id": "x"}), "`owner`"),
        (row(tags=5), "`tags`"),
        (row(tags=[["vip"]]), "`tags`"),
        (row(doNotContact="yes"), "`doNotContact`"),
        (row(doNotContact=["email"]), "`doNotContact`"),
        (row(doNotContact=[{"reason": 1}]), "`doNotContact.channel`"),
        (row(doNotContact=[{"channel": "email", "reason": "x"}]), "`doNotContact.reason`"),
        (row(dateAdded="yesterday"), "`dateAdded`"),
        (row(lastActive=5), "`lastActive`"),
        (typed("number", "many"), "`fields.f`"),
        (typed("number", {}), "`fields.f`"),
        (typed("boolean", "perhaps"), "`fields.f`"),
        (typed("date", "soon"), "`fields.f`"),
        (typed("datetime", "soon"), "`f`"),
        (typed("text", {"a": 1}), "`fields.f`"),
    ],
)
def test_what_cannot_be_understood_names_its_key(broken, key):
    with pytest.raises(MalformedError) as caught:
        parse_contact(broken)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "attribute", "value"),
    [
        ({"stage": {}}, "stage_id", None),
        ({"stage": []}, "stage_id", None),
        ({"stage": None}, "stage_id", None),
        ({"stage": {"id": "4"}}, "stage_id", 4),
        ({"stage": 4}, "stage_id", 4),
        ({"stage": {"name": "Lead"}}, "stage_id", None),
        ({"owner": {"id": 1}}, "owner_id", 1),
        ({"points": "53"}, "points", 53),
        ({"points": 51.0}, "points", 51),
        ({"points": None}, "points", 0),
        ({"tags": {"1": {"tag": "vip"}}}, "tags", {"vip"}),
        ({"tags": ["vip", {"tag": " a "}, None, 2026, {"id": 3}]}, "tags", {"vip", "a", "2026"}),
        ({"tags": [{"tag": "R&#38;D"}, {"tag": "R&D"}, {"tag": "&#60;b&#62;"}]}, "tags", {"R&D", "<b>"}),
        ({"tags": None}, "tags", frozenset()),
        ({"doNotContact": {"email": {"reason": "1"}}}, "dnc", {"email": 1}),
        ({"doNotContact": [{"channel": "email", "reason": 0}]}, "dnc", {}),
        ({"dateAdded": "2026-11-22T23:26:54+00:00"}, "date_added", 1795390014),
        ({"dateAdded": "2026-11-22 23:26:54"}, "date_added", 1795390014),
        ({"dateAdded": {"date": "2026-11-22 23:26:54.000000", "timezone": "UTC"}}, "date_added", 1795390014),
        ({"dateAdded": ""}, "date_added", None),
        ({"fields": []}, "fields", {}),
        ({"fields": {"all": [], "core": []}}, "fields", {}),
        ({"fields": {"all": {"id": "7", "last_active": "2026-11-22 23:26:54"}}}, "last_active", 1795390014),
        ({"fields": {"all": {"id": "7", "x": "1", "points": 3}}}, "fields", {"x": "1"}),
        ({"fields": {"core": [{"alias": "city", "type": "text", "value": "Rome"}]}}, "fields", {"city": "Rome"}),
    ],
)
def test_every_shape_that_mautic_was_seen_to_use_is_understood(parts, attribute, value):
    assert getattr(parse_contact(row(**parts)), attribute) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
KEYS = ["id", "points", "stage", "owner", "tags", "doNotContact", "dateAdded", "lastActive", "fields"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON) | JSON)
def test_no_shape_breaks_it_in_any_other_way(raw):
    """It answers with a contact or with MalformedError, and an excerpt can always be kept."""
    try:
        parse_contact(raw)
    except MalformedError:
        assert isinstance(excerpt(raw), str)


@given(JSON, st.sampled_from(["number", "boolean", "date", "datetime", "text", "multiselect"]))
@example(float("inf"), "text")
@example(float("nan"), "text")
def test_no_value_breaks_it_in_any_other_way(value, kind):
    try:
        fields = parse_contact(typed(kind, value)).fields
    except MalformedError:
        return
    orjson.dumps(dict(fields))


def test_an_excerpt_is_short_and_masked():
    assert "eve@" not in excerpt({"email": "eve@example.com", "bin": "x" * 10_000})
    assert len(excerpt({"bin": "x" * 10_000})) <= 2_000


# -- reading --------------------------------------------------------------------------------------------------------


def holds(number, expression, values):
    return {"gt": number > values[0], "lte": number <= values[0], "in": number in values}[expression]


class Contacts:
    """As much of Mautic's list of contacts as paging by id needs."""

    def __init__(self, rows):
        self.rows = {row["id"]: row for row in rows}
        self.queries = []

    def __call__(self, request):
        query = parse_qsl(urlsplit(request.url).query)
        self.queries.append(query)
        given = dict(query)
        found = [self.rows[number] for number in sorted(self.rows)]
        number = 0
        while f"where[{number}][expr]" in given:
            expression, value = given[f"where[{number}][expr]"], given.get(f"where[{number}][val]")
            if expression == "orX":
                columns = [
                    text for name, text in query if name.startswith(f"where[{number}][val]") and name.endswith("[col]")
                ]
                found = [
                    row for row in found if any(row["fields"]["all"].get(column) is not None for column in columns)
                ]
            else:
                found = [row for row in found if holds(row["id"], expression, [int(part) for part in value.split(",")])]
            number += 1
        if given.get("orderByDir") == "desc":
            found.reverse()
        page = found[: int(given.get("limit", 30))]
        selected = {text for name, text in query if name == "select[]"}
        if selected:
            page = [
                {
                    **row,
                    "fields": {
                        "all": {k: v for k, v in row["fields"]["all"].items() if k in selected & {*SELECTABLE, "id"}}
                    },
                }
                for row in page
            ]
        body = {"total": str(len(found)), "contacts": {str(row["id"]): row for row in page}}
        return 200, {"Mautic-Version": "5.1.0"}, orjson.dumps(body)


def people(ids, custom=()):
    return [
        {
            "id": number,
            "points": number % 3,
            "stage": {"id": 1} if number % 2 else None,
            "tags": [{"tag": "vip"}] if number % 5 == 0 else [],
            "fields": {
                "all": {
                    "id": str(number),
                    "email": f"p{number}@example.com",
                    "website": "kept by the plain list only",
                    "zb_status": "valid" if number in custom else None,
                }
            },
        }
        for number in ids
    ]


@pytest.fixture
def listing(http):
    def serve(rows):
        contacts = Contacts(rows)
        http.add_callback("GET", CONTACTS, callback=contacts)
        return contacts

    return serve


def test_a_page_begins_above_the_last_id_and_orders_by_id(listing, transport):
    contacts = listing(people(range(1, 30)))
    page = contacts_after(transport, 10, 5)
    assert [contact.id for contact in page.contacts] == [11, 12, 13, 14, 15]
    assert (page.last_id, page.rows) == (15, 5)
    assert ("orderBy", "id") in contacts.queries[0]


def test_the_end_of_the_list_keeps_the_cursor_where_it_is(listing, transport):
    listing(people(range(1, 4)))
    assert contacts_after(transport, 3, 5).last_id == 3


def test_a_malformed_row_does_not_spoil_its_page(listing, transport):
    rows = people(range(1, 5))
    rows[1]["tags"] = 5
    listing(rows)
    page = contacts_after(transport, 0, 10)
    assert [contact.id for contact in page.contacts] == [1, 3, 4]
    assert [(broken.id, broken.reason) for broken in page.malformed] == [(2, "`tags` is no list.")]
    assert page.last_id == 4


def test_the_highest_id_and_the_total_come_from_one_call(listing, transport):
    listing(people([3, 900]))
    assert max_id_and_total(transport) == (900, 2)
    assert transport.calls == 1


def test_an_empty_mautic_has_no_highest_id(http, transport, step):
    http.get(CONTACTS, json=step("no contacts yet"))
    assert max_id_and_total(transport) == (0, 0)


def test_contacts_are_read_by_id_in_chunks_and_missing_ones_are_absent(listing, transport):
    listing(people(range(1, 500, 2)))
    page = contacts_by_id(transport, range(1, 500), chunk=200)
    assert [contact.id for contact in page.contacts] == list(range(1, 500, 2))
    assert transport.calls == 3


def test_reading_nobody_makes_no_call(transport):
    assert contacts_by_id(transport, []).contacts == []
    assert transport.calls == 0


def test_a_merged_contact_answers_with_the_survivor(http, transport, step):
    http.get(f"{CONTACTS}/1", json=step("contact 1 after the merge"))
    contact = get_contact(transport, 1)
    assert contact is not None
    assert contact.id != 1


def test_a_missing_contact_is_none(http, transport, step):
    http.get(f"{CONTACTS}/9999", json=step("contact missing"), status=404)
    assert get_contact(transport, 9999) is None


def test_another_refusal_is_an_error(http, transport):
    http.get(f"{CONTACTS}/1", json={"errors": [{"message": "no"}]}, status=400)
    with pytest.raises(RefusedError):
        get_contact(transport, 1)


def test_an_answer_without_a_list_stops_the_run(http, transport):
    http.get(CONTACTS, json={"hello": "world"})
    with pytest.raises(StopError, match="without the list `contacts`"):
        contacts_after(transport, 0, 10)


@pytest.mark.parametrize(
    ("ids", "custom"),
    [
        (range(1, 301), range(1, 301, 7)),
        (range(1, 301), ()),
        (range(1, 301), range(1, 301)),
        ([*range(1, 50), *range(100_000, 100_200), 5_000_000], [3, 100_007, 5_000_000]),
        (range(10, 100_000, 371), range(10, 100_000, 3710)),
        (range(1, 8), [2]),
        ([1], []),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_sweep_gives_what_the_plain_list_gives(listing, transport, ids, custom, concurrency):
    """For the fields that were asked for, whatever the gaps between the ids."""
    rows = people(ids, frozenset(custom))
    listing(rows)
    pages = list(sweep(transport, 0, None, 20, concurrency, ["zb_status", "email"]))
    found = [contact for page in pages for contact in page.contacts]
    assert [contact.id for contact in found] == sorted(ids)
    assert all(contact.complete for contact in found)
    for contact, raw in zip(found, rows, strict=True):
        plain = parse_contact(raw)
        assert contact.fields.get("zb_status") == plain.fields.get("zb_status")
        assert contact.fields["email"] == plain.fields["email"]
        assert (contact.stage_id, contact.tags, contact.points) == (plain.stage_id, plain.tags, plain.points)
    positions = [page.last_id for page in pages]
    assert positions == sorted(set(positions))
    assert positions[-1] == max(ids)


def test_a_sweep_stays_within_its_bounds(listing, transport):
    listing(people(range(1, 400)))
    pages = list(sweep(transport, 100, 250, 20, 2, []))
    assert [contact.id for page in pages for contact in page.contacts] == list(range(101, 251))
    assert pages[-1].last_id == 250


def test_a_sweep_without_custom_fields_says_that_its_contacts_are_not_complete(listing, transport):
    contacts = listing(people(range(1, 400)))
    pages = list(sweep(transport, 0, None, 20, 2, []))
    assert not any(contact.complete for page in pages for contact in page.contacts)
    assert all("website" not in contact.fields for page in pages for contact in page.contacts)
    assert not any("orX" in str(query) for query in contacts.queries)


def test_a_sweep_reads_a_few_custom_values_in_few_extra_calls(listing, transport):
    contacts = listing(people(range(1, 1001), frozenset(range(1, 1001, 100))))
    list(sweep(transport, 0, None, 50, 2, ["zb_status"]))
    # the highest id, the count, one page of custom values, and twenty pages of fifty
    assert len(contacts.queries) == 23


def test_a_small_mautic_is_read_by_the_plain_list(listing, transport):
    contacts = listing(people(range(1, 30)))
    pages = list(sweep(transport, 0, None, 20, 2, ["zb_status"]))
    assert all(contact.fields["website"] for page in pages for contact in page.contacts)
    assert not any(name == "select[]" for query in contacts.queries[1:] for name, _ in query)


def test_a_sweep_of_nobody_gives_nothing(listing, transport):
    listing(people(range(1, 30)))
    assert list(sweep(transport, 29, None, 20, 2, [])) == []


def test_a_malformed_row_is_reported_once_by_a_sweep(listing, transport):
    rows = people(range(1, 101), frozenset(range(1, 101, 9)))
    rows[9]["tags"] = 5  # id 10, with a custom value
    rows[10]["tags"] = 5  # id 11, without
    listing(rows)
    pages = list(sweep(transport, 0, None, 20, 2, ["zb_status"]))
    assert sorted(broken.id for page in pages for broken in page.malformed) == [10, 11]
    assert len([contact for page in pages for contact in page.contacts]) == 98
