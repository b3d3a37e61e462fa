from __future__ import annotations

import json

import pytest
import requests
from hypothesis import given, strategies as st

from mautic_sync.domain.contact import Contact
from mautic_sync.errors import RetryError, StopError
from mautic_sync.mautic.contacts import parse_contact
from mautic_sync.mautic.writes import (
    ContactEdit,
    Doubtful,
    Gone,
    Moved,
    Refused,
    Settled,
    add_dnc,
    as_written,
    echo_matches,
    edit_batch,
    edit_one,
    has_tag,
    remove_dnc,
    set_stage,
)

BASE = "https://mautic.example"
BATCH = f"{BASE}/api/contacts/batch/edit"


def echo(number, stage=None, **fields):
    return {
        "id": number,
        "points": 0,
        "stage": {"id": stage} if stage else None,
        "fields": {"all": {"id": str(number), **fields}},
    }


def sent(http, call=0):
    return json.loads(http.calls[call].request.body)


# -- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_settles_what_its_echo_shows(http, transport):
    http.patch(BATCH, json={"contacts": [echo(7, 2), echo(8, city="Rome")], "statusCodes": [200, 200]})
    results = edit_batch(transport, [ContactEdit(7, {"stage": 2}), ContactEdit(8, {"city": "Rome"})])
    assert {number: type(result) for number, result in results.items()} == {7: Settled, 8: Settled}
    assert sent(http) == [{"id": 7, "stage": 2}, {"id": 8, "city": "Rome"}]


def test_the_recorded_batch_of_stages_settles(http, transport, step):
    http.patch(BATCH, json=step("batch edit stages"))
    results = edit_batch(
        transport, [ContactEdit(1, {"stage": 2}), ContactEdit(2, {"stage": 2}), ContactEdit(3, {"stage": 1})]
    )
    assert all(isinstance(result, Settled) for result in results.values())


def test_the_recorded_partial_failure_is_told_apart_by_item(http, transport, step):
    """HTTP is 200, and `contacts` and `errors` are objects with gaps."""
    http.patch(BATCH, json=step("batch edit, partial failure"))
    edits = [
        ContactEdit(1, {"stage": 3}),
        ContactEdit(9999, {"stage": 1}),
        ContactEdit(2, {"email": "nope"}),
        ContactEdit(3, {"firstname": "Ok"}),
    ]
    results = edit_batch(transport, edits)
    assert isinstance(results[1], Settled)
    assert results[9999] == Gone()
    assert isinstance(results[2], Refused)
    assert results[2].status == 400
    assert isinstance(results[3], Settled)


def test_the_echo_of_a_failed_item_is_not_believed(http, transport, step):
    http.patch(BATCH, json=step("batch edit, missing stage"))
    results = edit_batch(transport, [ContactEdit(1, {"stage": 3}), ContactEdit(3, {"lastname": "After"})])
    assert isinstance(results[1], Refused)
    assert isinstance(results[3], Settled)


def test_clearing_a_stage_settles(http, transport, step):
    http.patch(BATCH, json=step("batch edit, null stage"))
    edits = [
        ContactEdit(3, {"lastname": "Before"}),
        ContactEdit(1, {"stage": None}),
        ContactEdit(2, {"lastname": "Never"}),
    ]
    assert all(isinstance(result, Settled) for result in edit_batch(transport, edits).values())
    assert sent(http)[1] == {"id": 1, "stage": None}


def test_a_merged_contact_in_a_batch_is_gone_on_5_1_and_moved_on_7_0(http, transport, step):
    http.patch(BATCH, json=step("batch edit of the merged id"))
    (result,) = edit_batch(transport, [ContactEdit(1, {"city": "Bremen"})]).values()
    if step.version == "5.1.0":
        assert result == Gone()
    else:
        assert isinstance(result, Moved)
        assert result.new_id == 9


@pytest.mark.parametrize(
    "answer",
    [
        {"contacts": {"0": echo(7, 1), "1": echo(8, 2)}, "statusCodes": {"0": 200, "1": "200"}},
        {"contacts": [echo(7, 1), echo(8, 2)], "statusCodes": [200, 200], "errors": []},
    ],
)
def test_a_list_and_an_object_mean_the_same(http, transport, answer):
    http.patch(BATCH, json=answer)
    results = edit_batch(transport, [ContactEdit(7, {"stage": 1}), ContactEdit(8, {"stage": 2})])
    assert all(isinstance(result, Settled) for result in results.values())


@pytest.mark.parametrize(
    "echoed",
    [
        echo(7, 3),
        echo(7),
        echo(8, 2),
        None,
        {"id": "x"},
        [],
    ],
)
def test_an_echo_that_shows_something_else_is_in_doubt(http, transport, echoed):
    http.patch(BATCH, json={"contacts": [echoed, echo(8, 2)], "statusCodes": [200, 200]})
    results = edit_batch(transport, [ContactEdit(7, {"stage": 2}), ContactEdit(8, {"stage": 2})])
    assert isinstance(results[7], Doubtful)
    assert isinstance(results[8], Settled)


def test_the_right_contact_in_the_right_stage_with_another_value_is_settled_and_told(http, transport):
    """It is Mautic's last word: asking again would bring the same."""
    http.patch(BATCH, json={"contacts": [echo(7, 2), echo(8, 3)], "statusCodes": [200, 200]})
    values = {"stage": 2, "city": "<b></b>x"}
    results = edit_batch(transport, [ContactEdit(7, values), ContactEdit(8, values)])
    assert isinstance(results[7], Settled)
    assert results[7].differing == ("city",)
    assert isinstance(results[8], Doubtful)


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"contacts": [echo(7, 2)]}, {"statusCodes": [200]}, {"statusCodes": [500], "contacts": [echo(7, 2)]}],
)
def test_an_answer_without_codes_or_contacts_is_in_doubt(http, transport, answer):
    http.patch(BATCH, json=answer)
    assert isinstance(edit_batch(transport, [ContactEdit(7, {"stage": 2})])[7], Doubtful)


@pytest.mark.parametrize("fault", [{"status": 500, "json": {}}, {"status": 504}, {"body": requests.ReadTimeout()}])
def test_a_batch_without_an_answer_is_in_doubt_as_a_whole(http, transport, fault):
    """There is no transaction: earlier items may be stored."""
    http.patch(BATCH, **fault)
    results = edit_batch(transport, [ContactEdit(7, {"stage": 2}), ContactEdit(8, {"stage": 2})])
    assert [type(result) for result in results.values()] == [Doubtful, Doubtful]
    assert transport.calls == 1


def test_a_batch_that_was_surely_not_taken_is_no_doubt(http, transport):
    http.patch(BATCH, status=429, headers={"Retry-After": "9999"})
    with pytest.raises(RetryError):
        edit_batch(transport, [ContactEdit(7, {"stage": 2})])


def test_a_batch_without_the_right_to_edit_stops(http, transport):
    """Such a batch is answered with 200."""
    http.patch(BATCH, json={"contacts": [], "statusCodes": [403, 403], "errors": []})
    with pytest.raises(StopError, match="lead:leads:editown"):
        edit_batch(transport, [ContactEdit(7, {"stage": 2}), ContactEdit(8, {"stage": 2})])


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([7, 7], "same contact twice"),
        ([0], "without a contact id"),
        ([None], "without a contact id"),
        ([True], "without a contact id"),
        (["7"], "without a contact id"),
        (range(1, 202), "200"),
    ],
)
def test_what_mautic_would_misunderstand_is_never_sent(transport, ids, says):
    with pytest.raises(ValueError, match=says):
        edit_batch(transport, [ContactEdit(number, {"stage": 2}) for number in ids])
    assert transport.calls == 0


def test_an_empty_batch_is_no_call(transport):
    assert edit_batch(transport, []) == {}
    assert transport.calls == 0


# -- single edits ---------------------------------------------------------------------------------------------------


def test_the_recorded_edit_settles(http, transport, step):
    http.patch(f"{BASE}/api/contacts/1/edit", json=step("patch contact"))
    result = edit_one(
        transport, ContactEdit(1, {"city": "Munich", "zb_status": "valid", "tags": ["vip", "-newsletter"]})
    )
    assert isinstance(result, Settled)
    assert result.contact.tags == {"vip"}


def test_emptying_a_field_does_not_bring_back_numbers_that_nobody_stored(http, transport, step):
    """The echo shows `orders_count` 0 and `attribution` 0.0; the next read shows null."""
    http.patch(f"{BASE}/api/contacts/1/edit", json=step("patch contact, overwrite blank"))
    result = edit_one(transport, ContactEdit(1, {"city": ""}))
    assert isinstance(result, Settled)
    assert not {"orders_count", "attribution", "city"} & set(result.contact.fields)
    assert result.contact.fields["zb_status"] == "valid"


def test_an_edit_of_a_merged_contact_reaches_the_survivor(http, transport, step):
    http.patch(f"{BASE}/api/contacts/1/edit", json=step("patch of the merged id"))
    result = edit_one(transport, ContactEdit(1, {"city": "Hamburg"}))
    assert isinstance(result, Moved)
    assert result.new_id != 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {"status": 422, "json": {"errors": [{"message": "eve@example.com must be unique", "code": 422}]}},
            Refused(422, "e***@example.com must be unique"),
        ),
        (
            {"status": 400, "json": {"errors": [{"message": "stage: This value is not valid.", "code": 400}]}},
            Refused(400, "stage: This value is not valid"),
        ),
    ],
)
def test_a_refused_edit_says_why(http, transport, answer, expected):
    http.patch(f"{BASE}/api/contacts/7/edit", **answer)
    assert edit_one(transport, ContactEdit(7, {"stage": 2})) == expected


def test_who_is_not_found_is_gone_when_reading_says_so_twice(http, transport):
    missing = {"status": 404, "json": {"errors": [{"message": "Item was not found.", "code": 404}]}}
    http.patch(f"{BASE}/api/contacts/7/edit", **missing)
    http.get(f"{BASE}/api/contacts/7", **missing)
    assert edit_one(transport, ContactEdit(7, {"stage": 2})) == Gone()
    assert [call.request.method for call in http.calls] == ["PATCH", "GET", "GET"]


def test_who_is_there_is_not_gone_because_a_broken_connection_says_so(http, transport):
    missing = {"status": 404, "json": {"errors": [{"message": "Item was not found.", "code": 404}]}}
    http.patch(f"{BASE}/api/contacts/7/edit", **missing)
    http.get(f"{BASE}/api/contacts/7", **missing)
    http.get(f"{BASE}/api/contacts/7", json={"contact": echo(7)})
    assert isinstance(edit_one(transport, ContactEdit(7, {"stage": 2})), Doubtful)


@pytest.mark.parametrize("error", ["SQLSTATE[HY000]: General error: 2006 MySQL server has gone away", "Deadlock found"])
def test_an_error_of_the_database_leaves_an_edit_in_doubt(http, transport, error):
    http.patch(f"{BASE}/api/contacts/7/edit", status=400, json={"errors": [{"message": error, "code": 400}]})
    assert isinstance(edit_one(transport, ContactEdit(7, {"stage": 2})), Doubtful)
    http.patch(
        f"{BASE}/api/contacts/batch/edit",
        json={"contacts": [], "statusCodes": [400], "errors": [{"message": error, "code": 400}]},
    )
    assert isinstance(edit_batch(transport, [ContactEdit(7, {"stage": 2})])[7], Doubtful)


def test_an_edit_without_an_answer_is_in_doubt(http, transport):
    http.patch(f"{BASE}/api/contacts/7/edit", body=requests.ReadTimeout())
    assert isinstance(edit_one(transport, ContactEdit(7, {"stage": 2})), Doubtful)


# -- stages and do-not-contact --------------------------------------------------------------------------------------


def test_a_stage_set_by_itself_is_read_back(http, transport):
    http.post(f"{BASE}/api/stages/2/contact/7/add", json={"success": 1})
    http.get(f"{BASE}/api/contacts/7", json={"contact": echo(7, 2)})
    assert isinstance(set_stage(transport, 2, 7), Settled)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"json": {"contact": echo(7, 3)}}, Doubtful),
        ({"json": {"contact": echo(9, 2)}}, Moved),
        ({"status": 404, "json": {}}, Gone),
    ],
)
def test_a_stage_that_does_not_show_is_told_apart(http, transport, answer, kind):
    http.post(f"{BASE}/api/stages/2/contact/7/add", json={"success": 1})
    http.get(f"{BASE}/api/contacts/7", **answer)
    assert isinstance(set_stage(transport, 2, 7), kind)


@pytest.mark.parametrize("answer", [{"status": 503}, {"status": 401}, {"json": {"contact": []}}])
def test_a_stage_that_cannot_be_read_back_is_in_doubt(http, transport, answer):
    """It was set: no error may say that nothing happened."""
    http.post(f"{BASE}/api/stages/2/contact/7/add", json={"success": 1})
    http.get(f"{BASE}/api/contacts/7", **answer)
    assert isinstance(set_stage(transport, 2, 7), Doubtful)


def test_a_missing_contact_and_a_missing_stage_are_told_apart(http, transport, step):
    http.post(f"{BASE}/api/stages/9/contact/7/add", status=404, json=step("stage of missing"))
    http.get(f"{BASE}/api/contacts/7", json={"contact": echo(7)})
    assert isinstance(set_stage(transport, 9, 7), Doubtful)
    http.post(f"{BASE}/api/stages/2/contact/8/add", status=404, json=step("contact of missing"))
    http.get(f"{BASE}/api/contacts/8", status=404, json=step("contact missing"))
    assert set_stage(transport, 2, 8) == Gone()


def test_a_stage_without_an_answer_is_in_doubt(http, transport):
    http.post(f"{BASE}/api/stages/2/contact/7/add", status=500, json={})
    assert isinstance(set_stage(transport, 2, 7), Doubtful)


def test_do_not_contact_is_added_and_removed(http, transport, step):
    http.post(f"{BASE}/api/contacts/2/dnc/email/add", json=step("dnc add"))
    http.post(f"{BASE}/api/contacts/2/dnc/email/remove", json=step("dnc remove"))
    added = add_dnc(transport, 2, "email", 3, "invalid address (checked)")
    assert added.contact.dnc == {"email": 3}
    assert sent(http) == {"reason": 3, "comments": "invalid address (checked)"}
    assert remove_dnc(transport, 2, "email").contact.dnc == {}


def test_do_not_contact_that_shows_the_opposite_is_in_doubt(http, transport, step):
    http.post(f"{BASE}/api/contacts/2/dnc/email/add", json=step("dnc remove"))
    assert isinstance(add_dnc(transport, 2, "email", 3), Doubtful)


def test_do_not_contact_of_nobody_is_gone(http, transport, step):
    http.post(f"{BASE}/api/contacts/9999/dnc/email/add", json=step("dnc unknown contact"), status=404)
    http.get(f"{BASE}/api/contacts/9999", json=step("contact missing"), status=404)
    assert add_dnc(transport, 9999, "email", 3) == Gone()


# -- what goes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [None, "", 0, 0.0, "0", []])
def test_emptying_a_field_brings_the_switch_that_mautic_needs(empty):
    assert as_written({"city": empty, "stage": 2}) == {"city": "", "overwriteWithBlank": True, "stage": 2}


def test_a_number_that_mautic_would_drop_is_refused():
    with pytest.raises(ValueError, match="between -1 and 1"):
        as_written({"score": 0.5})


def test_a_cleared_stage_stays_null_and_a_no_stays_a_no():
    assert as_written({"stage": None, "is_hot": False, "tags": ("a", "-b")}) == {
        "stage": None,
        "is_hot": False,
        "tags": ["a", "-b"],
    }


# -- what comes back ------------------------------------------------------------------------------------------------


def shown(**parts):
    return Contact(7, parts.pop("fields", {}), **parts)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("  Rome ", "Rome"),
        ("a<b", "a"),
        ("a <b>bold</b> c", "a bold c"),
        ("a & b", "a &#38; b"),
        ("x  y", "x y"),
        (12.349, 12.35),
        (12.3, 12),
        ("12", 12),
        (7, 7.0),
        (True, True),
        (1, True),
        (False, False),
        (False, None),
        (None, None),
        (0, None),
        (["a", "b"], "a|b"),
        ("2026-11-01 10:00:30", "2026-11-01T10:00:00+00:00"),
        ("2026-11-01T12:00:30+02:00", "2026-11-01T10:00:30+00:00"),
        ("2026-11-01 10:00:00", "2026-11-01"),
        (10115, "10115"),
    ],
)
def test_what_mautic_makes_of_a_value_is_still_that_value(asked, stored):
    assert echo_matches({"f": asked}, shown(fields={"f": stored} if stored is not None else {})) == []


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("Rome", "Milan"),
        ("Rome", None),
        (12, 13),
        (12.34, 12.5),
        (True, None),
        (True, False),
        (False, True),
        (None, "Rome"),
        (["a"], "b"),
        ("2026-11-01 10:01:30", "2026-11-01T10:00:00+00:00"),
        ("2026-11-02", "2026-11-01"),
        ("soon", "2026-11-01T10:00:00+00:00"),
        ("many", 5),
    ],
)
def test_another_value_is_named(asked, stored):
    assert echo_matches({"f": asked}, shown(fields={"f": stored} if stored is not None else {})) == ["f"]


def test_tags_are_compared_with_their_case():
    contact = shown(tags=frozenset({"vip", "a & b"}))
    assert echo_matches({"tags": ["vip", "-old", "a &#38; b"]}, contact) == []
    assert echo_matches({"tags": ["VIP"]}, contact) == ["tags"]
    assert echo_matches({"tags": ["-vip"]}, contact) == ["tags"]


def test_a_tag_is_there_under_what_mautic_made_of_its_name():
    contact = shown(tags=frozenset({"tx", "two  blanks"}))
    assert has_tag(contact, "t<b>x")
    assert not has_tag(contact, "two blanks")
    assert echo_matches({"tags": ["-t<b>x"]}, contact) == ["tags"]


def test_parts_that_are_no_fields_are_compared_too():
    contact = shown(stage_id=2, owner_id=1, last_active=1795390014, points=5, dnc={"email": 1})
    asked = {
        "stage": 2,
        "owner": 1,
        "lastActive": "2026-11-22 23:26:54",
        "points": 5,
        "doNotContact": [{"channel": "email", "reason": 1}],
    }
    assert echo_matches(asked, contact) == []
    wrong = {
        "stage": None,
        "owner": 2,
        "lastActive": "2026-11-22 23:26:55",
        "points": 6,
        "doNotContact": [{"channel": "sms", "reason": 1}],
    }
    assert echo_matches(wrong, contact) == list(wrong)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<>&\x00"), max_size=40))
def test_ordinary_text_matches_its_own_echo(text):
    stored = parse_contact({"id": 7, "fields": {"all": {"f": text.strip()}}})
    assert echo_matches({"f": text}, stored) == []


@given(st.floats(1, 1e9), st.integers(0, 4))
def test_a_number_matches_itself_cut_to_any_scale(number, scale):
    factor = 10**scale
    stored = int(number * factor) / factor
    assert echo_matches({"f": number}, shown(fields={"f": stored})) == []
