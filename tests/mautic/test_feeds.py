from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
import pytest
from hypothesis import given, strategies as st

from mautic_sync.domain.activity import ACTIVITY_TYPES
from mautic_sync.errors import MalformedError, RefusedError, StopError
from mautic_sync.mautic.feeds import (
    ABOUT_CONTACTS,
    DATE_COLUMNS,
    feed_after,
    feed_first_id_since,
    feed_max_id,
    feed_pages,
    normalise,
    parse_audit,
    parse_time,
    rows_by_id,
    rows_by_member,
    rows_new_or_since,
    rows_since,
)
from mautic_sync.mautic.times import format_time

BASE = "https://mautic.example"
AT = 1795390014
TIME = "2026-11-22 23:26:54"


# -- recorded rows --------------------------------------------------------------------------------------------------


def stats(recording):
    for exchange in recording:
        path, answer = exchange["request"]["path"], exchange["response"]["json"]
        if path.startswith("/api/stats/") and isinstance(answer, dict):
            for row in answer.get("stats", []):
                yield path.removeprefix("/api/stats/"), row


def test_every_recorded_row_is_understood(recording):
    seen = set()
    for table, row in stats(recording):
        for activity in normalise(table, row, contact_of_stat={1: 5}):
            assert activity.type in ACTIVITY_TYPES
            assert activity.source == table
            assert activity.at > 1_700_000_000
            seen.add(activity.type)
    assert {"page.hit", "email.sent"} & seen


def test_every_recorded_audit_row_of_a_contact_is_understood(recording):
    for table, row in stats(recording):
        if table == "audit_log" and (row["bundle"], row["object"]) == ("lead", "lead"):
            change = parse_audit(row)
            assert change.unreadable is None
            assert change.contact_id == int(row["object_id"])
            assert (change.merged_into is not None) == (change.action == "merge")


def test_the_dates_of_the_recorded_rows_are_where_the_table_says(recording):
    for table, row in stats(recording):
        if table in DATE_COLUMNS:
            assert parse_time(row[DATE_COLUMNS[table]]) is not None


def changes(step):
    rows = step("stats audit_log")["stats"]
    return {int(row["id"]): parse_audit(row) for row in rows if (row["bundle"], row["object"]) == ("lead", "lead")}


def test_the_audit_log_shows_stages_old_and_new(step):
    stages = [change.stage for change in changes(step).values() if change.stage and change.contact_id == 2]
    assert stages[:5] == [(None, 1), (1, 3), (3, 2), (2, None), (None, 3)]


def test_the_audit_log_shows_points_old_and_new(step):
    points = [change.points for change in changes(step).values() if change.points and change.contact_id == 1]
    assert points[:5] == [(0, 10), (10, 6), (6, 4), (4, 5), (5, 15)]


def test_the_audit_log_shows_do_not_contact_and_its_removal(step):
    """A removal has no other trace: the row of the table is deleted."""
    found = [dict(change.dnc) for change in changes(step).values() if change.dnc and change.contact_id == 2]
    assert found == [{"email": (0, 3)}, {"email": (3, 0)}, {"email": (0, 2)}]


def test_the_audit_log_shows_tags_fields_and_merges(step):
    found = changes(step)
    tagged = next(change for change in found.values() if change.tags_removed)
    assert (tagged.tags_added, tagged.tags_removed) == ({"vip"}, {"newsletter"})
    assert tagged.fields["city"] == ("Berlin", "Munich")
    merge = next(change for change in found.values() if change.action == "merge")
    assert merge.merged_into is not None
    assert merge.user_name == "System"
    assert any(change.user_name == "sync [1]" for change in found.values())


def test_a_click_in_a_mail_is_a_hit_with_a_redirect(step):
    row = step("clicks are page hits with redirect_id and email_id")["stats"][0]
    (click,) = normalise("page_hits", row)
    assert (click.type, click.contact_id, click.object_kind, click.object_id) == ("email.click", 1, "email", 1)
    assert click.url == "https://shop.example/offer?x=1"


def test_an_opened_mail_is_sent_and_read(step):
    row = step("email stats after open and click")["stats"][0]
    assert [activity.type for activity in normalise("email_stats", row)] == ["email.sent", "email.read"]


def test_a_reply_finds_its_contact_through_the_mail(step):
    row = step("replies")["stats"][0]
    (reply,) = normalise("email_stat_replies", row, contact_of_stat={1: 7})
    assert (reply.type, reply.contact_id, reply.source_id) == ("email.replied", 7, row["id"])
    assert normalise("email_stat_replies", row)[0].contact_id is None


def test_the_campaign_of_a_tracked_hit_comes_from_its_query(step):
    hits = [normalise("page_hits", row)[0] for row in step("stats page_hits")["stats"]]
    assert {"utm_source": "google", "utm_medium": "cpc", "utm_campaign": "autumn"} in [dict(hit.utm) for hit in hits]
    assert all(hit.tracking_id and hit.title for hit in hits)


# -- made-up rows ---------------------------------------------------------------------------------------------------


def only(table, **row):
    (activity,) = normalise(table, {"id": "1", "lead_id": "5", **row})
    return activity


def test_the_campaign_of_a_hit_comes_from_its_address():
    hit = only("page_hits", date_hit=TIME, url="https://x.example/?utm_source=a+b&utm_term=c&other=1", page_id="3")
    assert dict(hit.utm) == {"utm_source": "a b", "utm_term": "c"}
    assert (hit.object_kind, hit.object_id, hit.at) == ("page", 3, AT)


def test_a_redirect_that_no_mail_sent_is_no_activity():
    assert normalise("page_hits", {"id": "1", "redirect_id": "4", "lead_id": "5", "date_hit": TIME}) == []


def test_downloads_forms_and_videos_tell_what_they_were():
    assert only("asset_downloads", date_download=TIME, asset_id="2").object_id == 2
    assert only("form_submissions", date_submitted=TIME, form_id="3", referer="https://x/").referer == "https://x/"
    assert only("video_hits", date_hit=TIME, url="https://x/v").url == "https://x/v"


def test_a_failed_mail_bounced():
    row = {"id": "1", "lead_id": "5", "date_sent": TIME, "is_failed": "1", "email_id": "9", "is_read": "0"}
    assert [activity.type for activity in normalise("email_stats", row)] == ["email.sent", "email.bounced"]


def test_a_mail_that_was_opened_again_was_read_when_it_was_first_opened():
    row = {"id": "1", "date_sent": TIME, "is_read": "1", "date_read": TIME, "last_opened": "2026-11-23 00:00:00"}
    assert normalise("email_stats", row)[1].at == AT
    del row["date_read"]
    assert normalise("email_stats", row)[1].at > AT


@pytest.mark.parametrize(
    ("reason", "channel", "types"),
    [
        ("1", "email", ["dnc.unsubscribed"]),
        ("2", "email", ["dnc.bounced", "email.bounced"]),
        ("2", "sms", ["dnc.bounced"]),
        ("3", "email", ["dnc.manual"]),
        ("0", "email", []),
    ],
)
def test_do_not_contact_tells_why(reason, channel, types):
    row = {"id": "1", "lead_id": "5", "date_added": TIME, "reason": reason, "channel": channel}
    found = normalise("lead_donotcontact", row)
    assert [activity.type for activity in found] == types
    assert all(activity.channel == channel for activity in found)


@pytest.mark.parametrize(("channel_id", "mail"), [("7", 7), ("0", None), (None, None)])
def test_a_bounce_tells_of_which_mail(channel_id, mail):
    row = {"id": "1", "lead_id": "5", "date_added": TIME, "reason": "2", "channel": "email"}
    _dnc, bounced = normalise("lead_donotcontact", row | ({} if channel_id is None else {"channel_id": channel_id}))
    assert (bounced.object_kind, bounced.object_id) == (None if mail is None else "email", mail)


@pytest.mark.parametrize(
    ("row", "type_"),
    [
        ({"bundle": "lead", "object": "segment", "action": "added", "object_id": "4"}, "segment.added"),
        ({"bundle": "lead", "object": "campaign", "action": "removed", "object_id": "4"}, "campaign.removed"),
        ({"bundle": "lead", "object": "api-single", "action": "identified_contact"}, None),
        ({"bundle": "page", "object": "hit", "action": "created_contact", "object_id": "4"}, None),
    ],
)
def test_membership_is_in_the_event_log(row, type_):
    found = normalise("lead_event_log", {"id": "1", "lead_id": "5", "date_added": TIME, **row})
    assert [(activity.type, activity.object_id) for activity in found] == ([(type_, 4)] if type_ else [])


def test_a_scheduled_campaign_event_has_not_happened():
    row = {"id": "1", "lead_id": "5", "campaign_id": "2", "is_scheduled": "1", "date_triggered": TIME}
    assert normalise("campaign_lead_event_log", row) == []
    assert normalise("campaign_lead_event_log", {"id": "1", "lead_id": "5"}) == []
    assert only("campaign_lead_event_log", date_triggered=TIME, campaign_id="2", is_scheduled="0").object_id == 2


def test_activity_of_a_deleted_contact_has_no_contact():
    assert normalise("page_hits", {"id": "1", "date_hit": TIME})[0].contact_id is None


def test_a_table_without_activity_gives_none():
    assert normalise("lead_devices", {"id": "1"}) == []


@pytest.mark.parametrize(
    ("table", "row", "column"),
    [
        ("page_hits", {"lead_id": "1", "date_hit": TIME}, "`id`"),
        ("page_hits", {"id": "1", "lead_id": "x", "date_hit": TIME}, "`lead_id`"),
        ("page_hits", {"id": "1"}, "`date_hit`"),
        ("page_hits", {"id": "1", "date_hit": "yesterday"}, "`date_hit`"),
        ("page_hits", {"id": "1", "date_hit": TIME, "page_id": "-4"}, "`page_id`"),
        ("email_stat_replies", {"id": "u", "date_replied": TIME}, "`stat_id`"),
        ("lead_donotcontact", {"id": "1", "date_added": TIME, "reason": "9"}, "`reason`"),
        ("lead_donotcontact", {"id": "1", "date_added": TIME}, "`reason`"),
    ],
)
def test_what_cannot_be_understood_names_its_column(table, row, column):
    with pytest.raises(MalformedError) as caught:
        normalise(table, row)
    assert column in str(caught.value)


COLUMNS = [
    "id",
    "lead_id",
    "date_hit",
    "date_sent",
    "url",
    "query",
    "details",
    "object_id",
    "date_added",
    "action",
    "reason",
    "last_opened",
]


@given(
    st.sampled_from([*DATE_COLUMNS, "unknown"]),
    st.dictionaries(st.sampled_from(COLUMNS), st.text(max_size=12) | st.sampled_from(["1", TIME, "merge", "a:0:{}"])),
)
def test_no_row_breaks_it_in_any_other_way(table, row):
    for understand in (lambda: normalise(table, row), lambda: parse_audit(row)):
        try:
            understand()
        except MalformedError:
            continue


# -- audit rows -----------------------------------------------------------------------------------------------------


def audit(details, action="update", **row):
    return parse_audit(
        {
            "id": "9",
            "bundle": "lead",
            "object": "lead",
            "object_id": "5",
            "action": action,
            "date_added": TIME,
            "user_name": "x",
            "details": details,
            **row,
        }
    )


def test_details_that_cannot_be_read_still_say_that_the_contact_changed():
    change = audit('O:3:"Foo":0:{}')
    assert (change.contact_id, change.at) == (5, AT)
    assert "object" in change.unreadable


@pytest.mark.parametrize("details", ['O:3:"Foo":0:{}', "a:0:{}", 'a:1:{s:11:"merged_into";s:1:"x";}', "i:5;"])
def test_a_merge_into_nobody_is_malformed(details):
    with pytest.raises(MalformedError):
        audit(details, action="merge")


def test_a_merge_may_be_written_as_text():
    assert audit('a:1:{s:11:"merged_into";s:2:"10";}', action="merge").merged_into == 10


def test_a_stage_by_name_is_unreadable_rather_than_wrong():
    assert audit('a:1:{s:5:"stage";a:2:{i:0;N;i:1;s:4:"Lead";}}').unreadable is not None
    assert audit('a:1:{s:5:"stage";a:2:{i:0;s:0:"";i:1;s:1:"2";}}').stage == (None, 2)


def test_a_row_about_something_else_is_not_taken_for_a_contact():
    with pytest.raises(MalformedError):
        audit("a:0:{}", object="field")


def test_a_row_without_details_is_a_change():
    assert audit("", action="identified").unreadable is None


# -- reading --------------------------------------------------------------------------------------------------------


class Feed:
    """As much of Mautic's statistics as the conditions and orders that we send."""

    def __init__(self, rows):
        self.rows = rows
        self.queries = []

    def __call__(self, request):
        given = dict(parse_qsl(urlsplit(request.url).query))
        self.queries.append(given)
        found = [row for row in self.rows if self.holds(row, given, "where")]
        for number in (1, 0):
            if f"order[{number}][col]" in given:
                column, down = given[f"order[{number}][col]"], given[f"order[{number}][dir]"] == "desc"
                found.sort(key=lambda row, column=column: self.number(row[column]), reverse=down)
        return 200, {}, orjson.dumps({"total": str(len(found)), "stats": found[: int(given["limit"])]})

    @staticmethod
    def number(text):
        return (0, int(text), "") if str(text).isdigit() else (1, 0, str(text))

    def holds(self, row, given, prefix, every=True):
        results, number = [], 0
        while f"{prefix}[{number}][expr]" in given:
            expression = given[f"{prefix}[{number}][expr]"]
            if expression in {"orX", "andX"}:
                results.append(self.holds(row, given, f"{prefix}[{number}][val]", every=expression == "andX"))
            else:
                column, value = given[f"{prefix}[{number}][col]"], given[f"{prefix}[{number}][val]"]
                left, right = self.number(row.get(column, "")), self.number(value)
                results.append(
                    {
                        "gt": left > right,
                        "gte": left >= right,
                        "lte": left <= right,
                        "eq": left == right,
                        "in": row.get(column) in value.split(","),
                    }[expression]
                )
            number += 1
        return all(results) if every else any(results)


@pytest.fixture
def feed(http):
    def serve(table, rows):
        made = Feed(rows)
        http.add_callback("GET", f"{BASE}/api/stats/{table}", callback=made)
        return made

    return serve


def hits(ids):
    return [{"id": str(number), "lead_id": "1", "date_hit": format_time(AT + number)} for number in ids]


def test_a_feed_is_read_above_the_cursor_in_the_order_of_ids(feed, transport):
    served = feed("page_hits", hits(range(1, 30)))
    assert [row["id"] for row in feed_after(transport, "page_hits", 10, 3)] == ["11", "12", "13"]
    assert served.queries[0]["order[0][col]"] == "id"


def test_a_feed_takes_conditions(feed, transport):
    rows = [
        {**row, "bundle": "lead", "object": "field" if index % 2 else "lead"}
        for index, row in enumerate(hits(range(1, 9)))
    ]
    feed("audit_log", rows)
    assert [row["id"] for row in feed_after(transport, "audit_log", 0, 10, ABOUT_CONTACTS)] == ["1", "3", "5", "7"]


@pytest.mark.parametrize(
    "ids", [range(1, 96), [*range(1, 40), *range(5_000, 5_040), 90_000], range(3, 900, 9), [7], []]
)
def test_all_pages_of_a_feed_hold_every_row_once_and_in_order(feed, transport, ids):
    feed("page_hits", hits(ids))
    pages = list(feed_pages(transport, "page_hits", 2, limit=10, concurrency=3))
    assert [int(row["id"]) for page in pages for row in page] == [number for number in ids if number > 2]
    assert all(pages)


def test_a_feed_without_news_costs_one_call(feed, transport):
    feed("page_hits", hits(range(1, 30)))
    assert list(feed_pages(transport, "page_hits", 29, limit=10, concurrency=2)) == []
    assert transport.calls == 1


def test_a_feed_can_be_read_up_to_an_id(feed, transport):
    feed("page_hits", hits(range(1, 100)))
    pages = list(feed_pages(transport, "page_hits", 5, upto=55, limit=10, concurrency=2))
    assert [int(row["id"]) for page in pages for row in page] == list(range(6, 56))


def test_the_highest_id_of_a_feed(feed, transport):
    feed("page_hits", hits([4, 900]))
    feed("video_hits", [])
    assert feed_max_id(transport, "page_hits") == 900
    assert feed_max_id(transport, "video_hits") == 0


@given(st.sets(st.integers(1, 3_000), max_size=40).map(sorted), st.integers(0, 3_100))
def test_the_first_id_since_a_time_is_found_in_few_calls(ids, since):
    """Bisection, whatever the gaps; one above the highest when nothing is as young."""

    class Direct:
        calls = 0

        def read(self, _path, params, *, shape):
            Direct.calls += 1
            given = {name: str(value) for name, value in params}
            found = [row for row in hits(ids) if Feed([]).holds(row, given, "where")]
            found.sort(key=lambda row: int(row["id"]), reverse=given["order[0][dir]"] == "desc")
            return shape({"stats": found[: int(given["limit"])]})

    first = feed_first_id_since(Direct(), "page_hits", "date_hit", AT + since)
    assert [number for number in ids if number >= first] == [number for number in ids if number >= since]
    assert Direct.calls < 25


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 7), st.integers(0, 5))
def test_rows_of_one_second_are_never_torn_apart(seconds, limit, since):
    rows = [
        {"id": f"{index:04}-uuid", "date_replied": format_time(AT + second)} for index, second in enumerate(seconds)
    ]

    class Direct:
        def read(self, _path, params, *, shape):
            return shape(orjson.loads(Feed(rows)(type("Request", (), {"url": "/?" + urlencode(params)}))[2]))

    found = [
        row["id"]
        for page in rows_since(Direct(), "email_stat_replies", "date_replied", AT + since, limit)
        for row in page
    ]
    expected = sorted((second, f"{index:04}-uuid") for index, second in enumerate(seconds) if second >= since)
    assert found == [row_id for _, row_id in expected]


def test_a_mautic_that_ignores_a_condition_does_not_keep_us_for_ever(http, transport):
    rows = [{"id": "a", "date_replied": TIME}, {"id": "b", "date_replied": TIME}]
    http.get(f"{BASE}/api/stats/email_stat_replies", json={"stats": rows})
    with pytest.raises(StopError, match="again and again"):
        list(rows_since(transport, "email_stat_replies", "date_replied", AT, 2))


def test_members_are_read_by_member(feed, transport):
    rows = [{"leadlist_id": "3", "lead_id": str(number)} for number in range(1, 25)]
    feed("lead_lists_leads", [*rows, {"leadlist_id": "4", "lead_id": "99"}])
    pages = list(rows_by_member(transport, "lead_lists_leads", "leadlist_id", 3, limit=10))
    assert [int(row["lead_id"]) for page in pages for row in page] == list(range(1, 25))
    assert [len(page) for page in pages] == [10, 10, 4]


def test_an_unknown_table_is_refused_though_mautic_answers_200(http, transport, step):
    http.get(f"{BASE}/api/stats/leads", json=step("stats unknown table"))
    with pytest.raises(RefusedError, match="no table leads"):
        feed_after(transport, "leads", 0)


def test_a_forbidden_table_stops_though_mautic_answers_200(http, transport):
    http.get(f"{BASE}/api/stats/audit_log", json={"errors": [{"message": "Access denied", "code": 403}]})
    with pytest.raises(StopError, match="right"):
        feed_after(transport, "audit_log", 0)


def test_nulls_are_left_out_and_everything_is_text(http, transport):
    http.get(f"{BASE}/api/stats/page_hits", json={"stats": [{"id": 3, "url": None}]})
    assert feed_after(transport, "page_hits", 0) == [{"id": "3"}]


# -- times ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 4_102_444_800))
def test_a_time_that_is_sent_is_read_back(epoch):
    assert parse_time(format_time(epoch)) == epoch


@pytest.mark.parametrize("text", [None, "", "  ", "0000-00-00 00:00:00"])
def test_no_time_is_none(text):
    assert parse_time(text) is None


@pytest.mark.parametrize("text", ["soon", 5, [], "2026-13-01 00:00:00"])
def test_what_is_no_time_is_an_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)


@given(st.lists(st.integers(0, 9) | st.none(), max_size=30), st.integers(1, 7), st.integers(0, 30), st.integers(0, 9))
def test_new_rows_and_changed_ones_come_once_each_in_the_order_of_ids(opened, limit, after, since):
    """Mails are opened long after they were sent: their rows change under their old ids."""
    rows = [
        {"id": str(number), **({"last_opened": format_time(AT + second)} if second is not None else {})}
        for number, second in enumerate(opened, 1)
    ]

    class Direct:
        def read(self, _path, params, *, shape):
            return shape(orjson.loads(Feed(rows)(type("Request", (), {"url": "/?" + urlencode(params)}))[2]))

    pages = rows_new_or_since(Direct(), "email_stats", after, ["last_opened"], AT + since, limit)
    expected = [
        number for number, second in enumerate(opened, 1) if number > after or (second is not None and second >= since)
    ]
    assert [int(row["id"]) for page in pages for row in page] == expected


def test_rows_are_read_by_id_in_chunks(feed, transport):
    feed("email_stats", hits(range(1, 500, 2)))
    found = rows_by_id(transport, "email_stats", range(1, 401))
    assert sorted(found) == list(range(1, 401, 2))
    assert transport.calls == 2
    assert rows_by_id(transport, "email_stats", []) == {}
