"""The oddities of docs/mautic.md that the recordings do not show, or show only once."""

import threading

import pytest
import requests

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/126.0.0.0"}


def signup(mautic, email, device=None, agent=None, form=1):
    headers = {"User-Agent": agent or BROWSER["User-Agent"]}
    if device:
        headers["Cookie"] = f"mautic_device_id={device}"
    data = {"mauticform[email]": email, "mauticform[formId]": form}
    return requests.post(
        f"{mautic.sandbox.url}/form/submit", data=data, headers=headers, allow_redirects=False, timeout=10
    )


def visit(mautic, url="https://shop.example/"):
    """A fresh browser's device id and contact."""
    response = requests.get(
        f"{mautic.sandbox.url}/mtracking.gif", params={"page_url": url}, headers=BROWSER, timeout=10
    )
    return response.cookies["mautic_device_id"], int(response.cookies["mtc_id"])


def test_a_shared_address_makes_every_edit_422_but_not_stages_and_points(mautic):
    first = mautic.new(email="a@shop.example")
    second = mautic.new(firstname="Twin")
    mautic.sandbox.instance.tables.run("UPDATE leads SET email = 'A@shop.example' WHERE id = ?", (second,))
    assert mautic.patch(f"/api/contacts/{second}/edit", {"city": "Rome"}).status_code == 422
    batch = mautic.patch("/api/contacts/batch/edit", [{"id": first, "stage": 1}]).json()
    assert batch["statusCodes"] == [422]
    assert batch["contacts"][0]["stage"] is None
    assert mautic.post(f"/api/stages/1/contact/{second}/add").json() == {"success": 1}
    assert mautic.post(f"/api/contacts/{second}/points/plus/3").json() == {"success": 1}
    assert mautic.contact(second)["points"] == 3


def test_setting_an_address_that_another_has_is_refused(mautic):
    mautic.new(email="a@shop.example")
    other = mautic.new(email="b@shop.example")
    refused = mautic.patch(f"/api/contacts/{other}/edit", {"email": "A@SHOP.example"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["details"] == {"email": ["This field must be unique."]}


def test_a_contact_in_an_unpublished_stage_takes_only_edits_that_send_a_stage(mautic):
    contact = mautic.new(firstname="Eve", stage=1)
    mautic.act(do="unpublish_stage", stage="Ghost")
    assert mautic.patch(f"/api/contacts/{contact}/edit", {"city": "Rome"}).status_code == 400
    assert mautic.patch(f"/api/contacts/{contact}/edit", {"stage": 2}).status_code == 200


@pytest.mark.parametrize(
    ("stage", "status"), [("", 500), (False, 500), (0, 400), ("Lead", 400), (99, 400), ("2", 200), (None, 200)]
)
def test_odd_stages_in_an_edit(mautic, stage, status):
    contact = mautic.new(firstname="Eve")
    assert mautic.patch(f"/api/contacts/{contact}/edit", {"stage": stage}).status_code == status


def test_a_crash_in_a_batch_leaves_the_earlier_items_stored(mautic):
    one, two = mautic.new(firstname="One"), mautic.new(firstname="Two")
    batch = mautic.patch("/api/contacts/batch/edit", [{"id": one, "stage": 2}, {"id": two, "stage": ""}])
    assert batch.status_code == 500
    assert mautic.contact(one)["stage"]["id"] == 2


def test_a_new_contact_with_an_unknown_stage_is_a_crash(mautic):
    assert mautic.post("/api/contacts/new", {"firstname": "Eve", "stage": 99}).status_code == 500


def test_of_two_stages_with_one_name_only_one_can_be_set(mautic):
    third = mautic.post("/api/stages/new", {"name": "Lead"}).json()["stage"]["id"]
    contact = mautic.new(firstname="Eve")
    statuses = {mautic.patch(f"/api/contacts/{contact}/edit", {"stage": s}).status_code for s in (2, third)}
    assert statuses == {200, 400}


@pytest.mark.parametrize("value", [0, "0", 0.5, -0.9])
def test_no_number_between_minus_one_and_one_can_be_written(mautic, value):
    mautic.post("/api/fields/contact/new", {"label": "Orders", "alias": "orders", "type": "number"})
    contact = mautic.new(firstname="Eve", orders=5, points=7)
    mautic.patch(f"/api/contacts/{contact}/edit", {"orders": value, "points": value})
    shown = mautic.contact(contact)
    assert (shown["fields"]["all"]["orders"], shown["points"]) == (5, 7)


def test_blank_values_need_overwrite_with_blank(mautic):
    contact = mautic.new(firstname="Eve", city="Rome", points=4)
    mautic.patch(f"/api/contacts/{contact}/edit", {"city": "", "points": None})
    assert mautic.contact(contact)["fields"]["all"]["city"] == "Rome"
    mautic.patch(f"/api/contacts/{contact}/edit", {"city": None, "points": "", "overwriteWithBlank": True})
    shown = mautic.contact(contact)
    assert (shown["fields"]["all"]["city"], shown["points"], shown["fields"]["all"]["firstname"]) == (None, 0, "Eve")


def test_booleans_are_shown_in_three_ways(mautic):
    mautic.post(
        "/api/fields/contact/new",
        {"label": "Hot", "alias": "hot", "type": "boolean", "properties": {"no": "No", "yes": "Yes"}},
    )
    made = mautic.post("/api/contacts/new", {"firstname": "Eve", "hot": True}).json()["contact"]
    listed = mautic.get("/api/contacts")["contacts"][str(made["id"])]
    shown = [c["fields"]["all"]["hot"] for c in (made, listed, mautic.contact(made["id"]))]
    assert shown == [True, "1", 1]


def test_text_is_cleaned_and_too_long_a_text_refused(mautic):
    contact = mautic.new(firstname="  Eve ", lastname="a<b")
    shown = mautic.contact(contact)["fields"]["all"]
    assert (shown["firstname"], shown["lastname"]) == ("Eve", "a")
    assert mautic.patch(f"/api/contacts/{contact}/edit", {"city": "x" * 192}).status_code == 400


@pytest.mark.parametrize(
    ("sent", "old", "new"),
    [
        ("R&D", "R&#38;D", "R&D"),
        ("R&amp;D", "R&#38;D", "R&D"),
        ("a\"b'c", "a&#34;b&#39;c", "a\"b'c"),
        ("t<b>x", "t&#60;b&#62;x", "tx"),
        ("Übär &eacute; &apos;", "Übär é &#38;apos;", "Übär é &apos;"),
    ],
)
def test_a_tag_is_stored_escaped_on_5_1_and_removed_by_its_name(mautic, version, sent, old, new):
    contact = mautic.new(firstname="Eve", tags=[sent])
    stored = old if version == "5.1" else new
    assert [tag["tag"] for tag in mautic.contact(contact)["tags"]] == [stored]
    mautic.patch("/api/contacts/batch/edit", [{"id": contact, "tags": [f"-{sent}"]}])
    assert mautic.contact(contact)["tags"] == []


def test_a_tag_made_by_itself_is_another_on_5_1(mautic, version):
    made = mautic.post("/api/tags/new", {"tag": "R&D"}).json()["tag"]
    contact = mautic.new(firstname="Eve", tags=["R&D"])
    (shown,) = mautic.contact(contact)["tags"]
    assert made["tag"] == "R&D"
    assert (shown["id"] == made["id"]) == (version == "7.0")
    assert mautic.post("/api/tags/new", {"tag": "R&amp;#38;D"}).json()["tag"]["tag"] == "R&#38;D"


def test_put_blanks_what_is_not_sent(mautic):
    contact = mautic.new(firstname="Eve", city="Rome", points=5)
    mautic.call("PUT", f"/api/contacts/{contact}/edit", {"firstname": "Eva"})
    shown = mautic.contact(contact)
    assert (shown["fields"]["all"]["firstname"], shown["fields"]["all"]["city"], shown["points"]) == ("Eva", None, 0)


def test_an_item_without_id_shifts_the_values(mautic):
    one, two = mautic.new(firstname="One"), mautic.new(firstname="Two")
    items = [{"id": one, "city": "Rome"}, {"city": "Bern"}, {"id": two, "city": "Oslo"}]
    answer = mautic.patch("/api/contacts/batch/edit", items).json()
    assert answer["statusCodes"] == [200, 400, 404]
    assert mautic.contact(two)["fields"]["all"]["city"] == "Bern"


def test_items_under_keys_of_their_own_are_answered_under_them(mautic):
    one, two = mautic.new(firstname="One"), mautic.new(firstname="Two")
    answer = mautic.patch("/api/contacts/batch/edit", {"7": {"id": one}, "3": {"id": two}, "a": {"id": 99}}).json()
    assert {key: found["id"] for key, found in answer["contacts"].items()} == {"7": one, "3": two}
    assert answer["statusCodes"] == {"7": 200, "3": 200, "a": 404}
    assert answer["errors"]["a"]["code"] == 404
    in_order = mautic.patch("/api/contacts/batch/edit", {"0": {"id": two}, "1": {"id": one}}).json()
    assert [found["id"] for found in in_order["contacts"]] == [two, one]
    assert in_order["statusCodes"] == [200, 200]
    new = mautic.post("/api/contacts/batch/new", {"5": {"firstname": "Three"}}).json()
    assert new["statusCodes"] == {"5": 201}
    assert new["contacts"]["5"]["fields"]["all"]["firstname"] == "Three"


def test_one_contact_sent_to_the_address_of_batches_is_a_crash(mautic):
    contact = mautic.new(firstname="Eve")
    assert mautic.patch("/api/contacts/batch/edit", {"id": contact, "city": "Rome"}).status_code == 500


def test_a_repeated_id_makes_a_new_contact_on_5_1_only(mautic, version):
    contact = mautic.new(firstname="Eve")
    mautic.patch("/api/contacts/batch/edit", [{"id": contact, "city": "Rome"}, {"id": contact, "city": "Bern"}])
    assert mautic.get("/api/contacts")["total"] == ("2" if version == "5.1" else "1")


def test_a_batch_puts_back_the_points_it_read(mautic):
    """Grants between the reading and the writing of a batch vanish, though their log lines stay."""
    contact = mautic.new(firstname="Eve", points=5)
    other = mautic.new(firstname="Bob")
    original = mautic.sandbox.mautic.batch_step

    class Between:
        def __init__(self):
            self.inner = original()

        def __enter__(self):
            self.inner.__enter__()

        def __exit__(self, *error):
            self.inner.__exit__(*error)
            if not granted:
                granted.append(mautic.post(f"/api/contacts/{contact}/points/plus/10").json())

    granted = []
    mautic.sandbox.mautic.batch_step = Between
    session = requests.Session()
    session.headers.update(mautic.session.headers)
    items = [{"id": other, "stage": 1}, {"id": contact, "stage": 1}]
    thread = threading.Thread(
        target=lambda: session.patch(f"{mautic.sandbox.url}/api/contacts/batch/edit", json=items, timeout=10)
    )
    thread.start()
    thread.join()
    session.close()
    assert granted == [{"success": 1}]
    assert mautic.contact(contact)["points"] == 5
    assert [r["delta"] for r in mautic.feed("lead_points_change_log")] == ["10"]


def test_points_are_logged_by_name_and_minus_as_plus(mautic):
    contact = mautic.new(firstname="Eve")
    mautic.post(f"/api/contacts/{contact}/points/minus/3", {"eventName": "a & b"})
    mautic.post(f"/api/contacts/{contact}/points/plus/-3")
    rows = mautic.feed("lead_points_change_log")
    assert [(r["event_name"], r["delta"]) for r in rows] == [("a &#38; b", "3"), ("add (+)", "-3")]
    assert mautic.contact(contact)["points"] == -6
    assert mautic.sandbox.stats()["points"][str(contact)]["points"] == -6


def test_a_second_do_not_contact_depends_on_the_version(mautic, version):
    contact = mautic.new(email="a@shop.example")
    for reason in (2, 3, 1, 2):
        mautic.post(f"/api/contacts/{contact}/dnc/email/add", {"reason": reason, "comments": str(reason)})
    assert [d["reason"] for d in mautic.contact(contact)["doNotContact"]] == [2 if version == "5.1" else 1]


def test_a_form_with_a_known_address_merges_into_the_visitor(mautic):
    known = mautic.new(email="eve@shop.example", firstname="Eve", stage=2, points=3, tags=["vip"])
    mautic.post(f"/api/contacts/{known}/dnc/email/add", {"reason": 1})
    device, visitor = visit(mautic)
    signup(mautic, "EVE@shop.example", device)
    survivor = mautic.contact(known)
    assert survivor["id"] == visitor
    assert (survivor["stage"], survivor["doNotContact"], survivor["points"]) == (None, [], 3)
    assert [t["tag"] for t in survivor["tags"]] == ["vip"]
    assert mautic.get("/api/contacts", params={"search": f"ids:{known}"})["total"] == "0"
    assert mautic.post(f"/api/segments/1/contact/{known}/add").status_code == 404


def test_a_form_from_nowhere_makes_the_survivor_on_the_spot(mautic):
    known = mautic.new(email="eve@shop.example")
    signup(mautic, "eve@shop.example")
    assert mautic.contact(known)["id"] == known + 1


def test_bots_merge_nothing(mautic):
    known = mautic.new(email="eve@shop.example")
    device, visitor = visit(mautic)
    assert signup(mautic, "eve@shop.example", device, agent="python-requests/2.32").status_code == 302
    assert mautic.contact(known)["id"] == known
    assert signup(mautic, "eve@shop.example", device, agent="mautic-sync/1.0").status_code == 302
    assert mautic.contact(known)["id"] == visitor


def test_another_address_blocks_a_merge(mautic):
    known = mautic.new(email="eve@shop.example")
    device, visitor = visit(mautic)
    signup(mautic, "bob@shop.example", device)
    signup(mautic, "eve@shop.example", device)
    assert {mautic.contact(c)["id"] for c in (known, visitor)} == {known, visitor}


def test_merges_chain_until_the_survivor_is_deleted(mautic):
    first = mautic.new(email="eve@shop.example")
    signup(mautic, "eve@shop.example")
    signup(mautic, "eve@shop.example")
    assert mautic.contact(first)["id"] == first + 2
    assert mautic.call("DELETE", f"/api/contacts/{first}/delete").status_code == 200
    assert mautic.call("GET", f"/api/contacts/{first + 2}").status_code == 404
    assert mautic.call("GET", f"/api/contacts/{first}").status_code == 404


def test_adding_a_merged_id_to_a_segment_is_a_crash(mautic):
    segment = mautic.post("/api/segments/new", {"name": "Club"}).json()["list"]["id"]
    known = mautic.new(email="eve@shop.example")
    signup(mautic, "eve@shop.example")
    assert mautic.post(f"/api/segments/{segment}/contact/{known}/add").status_code == 500


def test_a_prepared_visitor_keeps_its_own(mautic):
    known = mautic.new(email="eve@shop.example", stage=2)
    device, visitor = visit(mautic)
    prepared = {"stage": 2, "doNotContact": [{"channel": "email", "reason": 1, "comments": "unsubscribed"}]}
    mautic.patch(f"/api/contacts/{visitor}/edit", prepared)
    signup(mautic, "eve@shop.example", device)
    survivor = mautic.contact(known)
    assert (survivor["id"], survivor["stage"]["id"]) == (visitor, 2)
    assert [d["reason"] for d in survivor["doNotContact"]] == [1]


def test_deleting_keeps_hits_without_their_contact(mautic):
    _, visitor = visit(mautic)
    mautic.call("DELETE", f"/api/contacts/{visitor}/delete")
    assert ["lead_id" in r for r in mautic.feed("page_hits")] == [False]
    assert mautic.feed("lead_devices") == []


def test_a_phone_does_not_identify(mautic):
    contact = mautic.new(phone="+49 30 901820")
    assert mautic.contact(contact)["dateIdentified"] is None


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"expr": "contains", "col": "city", "val": "x"}, 3),
        ({"expr": "EQ", "col": "city", "val": "Rome"}, 3),
        ({"expr": "eq", "col": "city", "val": "rome"}, 1),
        ({"expr": "in", "col": "id", "val": "1,3"}, 2),
        ({"expr": "isNull", "col": "city"}, 1),
        ({"expr": "isNotNull", "col": "city"}, 2),
        ({"expr": "like", "col": "city", "val": "%e%"}, 2),
        ({"expr": "between", "col": "id", "val": "1,2"}, 3),
        ({"expr": "gt", "col": "date_added", "val": "whenever"}, 3),
        ({"expr": "gte", "col": "dateAdded", "val": "2020-01-01T00:00:00+05:00"}, 3),
    ],
)
def test_filters_of_lists(mautic, where, found):
    for city in ("Rome", "Bern", None):
        mautic.new(firstname="x", **({"city": city} if city else {}))
    params = {f"where[0][{k}]": v for k, v in where.items()}
    assert mautic.get("/api/contacts", params=params)["total"] == str(found)


def test_between_takes_two_values(mautic):
    for _ in range(4):
        mautic.new(firstname="x")
    params = {"where[0][col]": "id", "where[0][expr]": "between", "where[0][val][0]": 2, "where[0][val][1]": 3}
    assert list(mautic.get("/api/contacts", params=params)["contacts"]) == ["2", "3"]


def test_camel_case_works_at_the_top_only(mautic):
    inner = {"where[0][expr]": "orX", "where[0][val][0][col]": "dateAdded", "where[0][val][0][expr]": "isNotNull"}
    assert mautic.call("GET", "/api/contacts", params=inner).status_code == 500
    assert mautic.call("GET", "/api/contacts", params={"orderBy": "dateModified"}).status_code == 500


def test_a_list_as_value_of_in_is_a_crash(mautic):
    params = {"where[0][col]": "id", "where[0][expr]": "in", "where[0][val][0]": 1}
    assert mautic.call("GET", "/api/contacts", params=params).status_code == 500


def test_dates_move_on_5_1_and_stand_still_on_7_0(mautic, version):
    contact = mautic.new(firstname="Eve")
    before = mautic.contact(contact)["dateModified"]
    mautic.sandbox.advance(1800)
    mautic.patch(f"/api/contacts/{contact}/edit", {"city": "Rome"})
    after = mautic.contact(contact)["dateModified"]
    assert (before is None, after == before) == ((True, False) if version == "5.1" else (False, True))


def test_tokens_die_after_an_hour(mautic):
    mautic.sandbox.advance(3601)
    refused = mautic.call("GET", "/api/contacts")
    assert refused.status_code == 401
    assert refused.json()["errors"][0]["type"] == "invalid_grant"
    assert "Mautic-Version" not in refused.headers


def test_missing_rights_are_403_and_in_a_batch_per_item(mautic):
    contact = mautic.new(firstname="Eve")
    mautic.act(do="restrict", rights=["contacts:view"])
    assert mautic.call("GET", "/api/stages").status_code == 403
    batch = mautic.patch("/api/contacts/batch/edit", [{"id": contact, "stage": 1}])
    assert (batch.status_code, batch.json()["statusCodes"]) == (200, [403])


def test_who_did_it_stands_in_the_audit_log(mautic):
    contact = mautic.new(firstname="Eve")
    mautic.act(do="edit", contact=contact, values={"city": "Rome"})
    rows = [r for r in mautic.feed("audit_log") if r["object"] == "lead"]
    assert [(r["user_name"], r["action"]) for r in rows] == [
        ("sync [sandbox]", "create"),
        ("sync [sandbox]", "identified"),
        ("Ada Admin", "update"),
    ]


def test_last_active_can_be_set_back(mautic):
    _, visitor = visit(mautic)
    mautic.patch(f"/api/contacts/{visitor}/edit", {"lastActive": "2026-01-02 03:04:05"})
    assert mautic.contact(visitor)["lastActive"] == "2026-01-02T03:04:05+00:00"


def sent(mautic, contact):
    """The id of a new mail that was sent to a contact, and its line of statistics."""
    html = '<a href="https://shop.example/offer">offer</a>'
    email = mautic.post("/api/emails/new", {"name": "Offer", "subject": "Offer", "customHtml": html}).json()["email"][
        "id"
    ]
    mautic.post(f"/api/emails/{email}/contact/{contact}/send", {})
    return email, mautic.feed("email_stats")[-1]


def test_mail_is_sent_opened_clicked_and_answered(mautic):
    contact = mautic.new(email="eve@shop.example")
    email, _ = sent(mautic, contact)
    for what in ("open", "click", "reply"):
        mautic.act(do=what, contact=contact, url="https://shop.example/offer")
    stat = mautic.feed("email_stats")[0]
    assert (stat["is_read"], stat["open_count"]) == ("1", "1")
    hit = mautic.feed("page_hits")[0]
    assert (hit["email_id"], hit["source"], hit["lead_id"]) == (str(email), "email", str(contact))
    assert mautic.get("/api/stats/email_stat_replies")["stats"][0]["stat_id"] == stat["id"]


@pytest.mark.parametrize(("what", "opened"), [("open", True), ("click", True), ("reply", False)])
def test_an_opening_and_a_click_are_activity_and_an_answer_reads_the_mail_alone(mautic, what, opened):
    contact = mautic.new(email="eve@shop.example")
    sent(mautic, contact)
    mautic.act(do=what, contact=contact, url="https://shop.example/offer")
    stat = mautic.feed("email_stats")[-1]
    assert (stat["is_read"], "date_read" in stat, "last_opened" in stat) == ("1", True, opened)
    assert (mautic.contact(contact)["lastActive"] is not None) is opened


def test_a_mail_that_is_opened_again_keeps_its_first_opening(mautic):
    contact = mautic.new(email="eve@shop.example")
    sent(mautic, contact)
    mautic.act(do="open", contact=contact)
    first = mautic.feed("email_stats")[-1]
    mautic.sandbox.instance.clock.advance(60)
    mautic.act(do="open", contact=contact)
    again = mautic.feed("email_stats")[-1]
    assert (again["date_read"], again["open_count"]) == (first["date_read"], "2")
    assert again["last_opened"] > first["last_opened"]
    assert mautic.contact(contact)["lastActive"][:19] == again["last_opened"].replace(" ", "T")


def test_unsubscribing_in_the_browser_is_activity(mautic):
    contact = mautic.new(email="eve@shop.example")
    _, stat = sent(mautic, contact)
    requests.get(f"{mautic.sandbox.url}/email/unsubscribe/{stat['tracking_hash']}", headers=BROWSER, timeout=10)
    assert mautic.contact(contact)["lastActive"] is not None


def test_a_bot_opens_a_mail_on_5_1_alone(mautic, version):
    contact = mautic.new(email="eve@shop.example")
    _, stat = sent(mautic, contact)
    bot = {"User-Agent": "Googlebot/2.1"}
    requests.get(f"{mautic.sandbox.url}/email/{stat['tracking_hash']}.gif", headers=bot, timeout=10)
    assert mautic.feed("email_stats")[-1]["is_read"] == ("1" if version == "5.1" else "0")
