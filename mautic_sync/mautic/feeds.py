"""Reads Mautic's statistics tables forward by id, and makes activity and audit changes of their rows.

Rows come as Mautic sends them (text by column, nulls left out); `normalise` and `parse_audit` give them meaning.
docs/mautic.md: "What is read from where".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from mautic_sync.domain.contact import NOTHING
from mautic_sync.errors import MalformedError, RefusedError, StopError
from mautic_sync.mautic.contacts import Where, list_of, where_params
from mautic_sync.mautic.decoding import unescaped
from mautic_sync.mautic.php import PhpValue, unserialize
from mautic_sync.mautic.times import format_time, parse_time
from mautic_sync.mautic.transport import Transport
from mautic_sync.mautic.windows import in_windows

__all__ = [
    "ABOUT_CONTACTS",
    "DATE_COLUMNS",
    "AuditChange",
    "FeedActivity",
    "feed_after",
    "feed_first_id_since",
    "feed_max_id",
    "feed_pages",
    "newest_rows",
    "normalise",
    "parse_audit",
    "parse_time",
    "readable_id",
    "readable_time",
    "rows_by_id",
    "rows_by_key",
    "rows_by_member",
    "rows_new_or_since",
    "rows_since",
]

Row = dict[str, str]

# When a row was written, by table.
DATE_COLUMNS = {
    "page_hits": "date_hit",
    "email_stats": "date_sent",
    "email_stat_replies": "date_replied",
    "form_submissions": "date_submitted",
    "asset_downloads": "date_download",
    "video_hits": "date_hit",
    "lead_donotcontact": "date_added",
    "lead_event_log": "date_added",
    "campaign_lead_event_log": "date_triggered",
    "lead_points_change_log": "date_added",
    "lead_stages_change_log": "date_added",
    "lead_devices": "date_added",
    "lead_utmtags": "date_added",
    "audit_log": "date_added",
}
# Of wide tables, the columns that are looked at: the others would be most of a page's memory.
COLUMNS_READ = {
    "page_hits": (
        *("id", "lead_id", "date_hit", "url", "url_title", "referer", "query", "tracking_id"),
        *("page_id", "redirect_id", "email_id"),
    ),
    "email_stats": (
        *("id", "lead_id", "email_id", "date_sent", "is_read", "date_read", "last_opened", "is_failed"),
        *("tracking_id", "tracking_hash"),
    ),
}
# The rows of `audit_log` that `parse_audit` understands.
ABOUT_CONTACTS: tuple[Where, ...] = (("bundle", "eq", "lead"), ("object", "eq", "lead"))
UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
LONGEST_URL = 4_096  # characters that are kept
LONGEST_UUID = 36
PROBE = 20  # rows looked at for one with a date, when searching for a date
_DNC_TYPES = {1: "dnc.unsubscribed", 2: "dnc.bounced", 3: "dnc.manual"}


# -- reading --------------------------------------------------------------------------------------------------------


def feed_after(
    transport: Transport, table: str, after: int, limit: int = 10_000, where: Sequence[Where] = ()
) -> list[Row]:
    """The next rows above the id `after`, ascending. `where` adds conditions as (column, expression, value).

    Raises RefusedError for a table or column that this Mautic does not have.
    """
    return _rows(transport, table, [("id", "gt", after), *where], [("id", "asc")], limit)


def feed_pages(
    transport: Transport,
    table: str,
    after: int,
    *,
    upto: int | None = None,
    limit: int = 10_000,
    concurrency: int = 2,
    where: Sequence[Where] = (),
) -> Iterator[list[Row]]:
    """All rows with `after < id <= upto`, page by page in id order; one call when one page holds them all."""
    bound: list[Where] = [] if upto is None else [("id", "lte", upto)]
    first = feed_after(transport, table, after, limit, [*bound, *where])
    if len(first) < limit:
        if first:
            yield first
        return
    last = _last_position(first)
    end = feed_max_id(transport, table) if upto is None else upto
    density = len(first) / max(1, last - readable_id(first[0]) + 1)

    def fetch(low: int, high: int) -> list[Row]:
        return feed_after(transport, table, low, limit, [("id", "lte", high), *where])

    head = (after, first)
    for _low, _high, rows in in_windows(fetch, last, end, limit, concurrency, density, readable_id, head=head):
        if rows:
            yield rows


def feed_max_id(transport: Transport, table: str) -> int:
    """The highest id of a table; 0 when it is empty."""
    rows = newest_rows(transport, table, 1)
    return readable_id(rows[0]) if rows else 0


def newest_rows(transport: Transport, table: str, limit: int) -> list[Row]:
    """The rows with the highest ids, the highest first."""
    return _rows(transport, table, [("id", "gt", 0)], [("id", "desc")], limit)


def feed_first_id_since(transport: Transport, table: str, date_column: str, epoch: int) -> int:
    """The lowest id written at `epoch` (seconds, UTC) or later, found by bisection; one above the highest if none was.

    Ids and dates are taken to ascend together, which they do but for seconds.
    """
    first = _first_dated(transport, table, date_column, 1)
    if first is None or first[1] >= epoch:
        return 1
    low, high = first[0] + 1, feed_max_id(transport, table) + 1
    while low < high:
        middle = (low + high) // 2
        found = _first_dated(transport, table, date_column, middle)
        if found is None or found[1] >= epoch:
            high = middle
        else:
            low = found[0] + 1
    return low


def rows_since(
    transport: Transport,
    table: str,
    date_column: str,
    since_epoch: int,
    limit: int = 10_000,
    where: Sequence[Where] = (),
) -> Iterator[list[Row]]:
    """All rows whose date is `since_epoch` or later, by date and id: for dates that move, and for ids that are UUIDs.

    Rows of one second are never torn apart: the next page begins after the last (date, id).
    docs/mautic.md: "Reading what changed".
    """
    order = [(date_column, "asc"), ("id", "asc")]
    rows = _rows(transport, table, [(date_column, "gte", format_time(since_epoch)), *where], order, limit)
    seen: set[str] = set()
    while rows:
        fresh = [row for row in rows if row.get("id") not in seen]
        if fresh:
            yield fresh
        if len(rows) < limit:
            return
        if not fresh:
            raise StopError(f"Mautic answers with the same rows of {table} again and again: it ignored a condition.")
        last = next((row for row in reversed(rows) if readable_time(row, date_column) is not None), None)
        if last is None:
            raise StopError(f"Mautic answers with a full page of {table} in which no row has a readable {date_column}.")
        date, row_id = last[date_column], last.get("id", "")
        seen = {row.get("id", "") for row in rows if row.get(date_column) == date}
        params = [
            ("where[0][expr]", "orX"),
            ("where[0][val][0][col]", date_column),
            ("where[0][val][0][expr]", "gt"),
            ("where[0][val][0][val]", date),
            ("where[0][val][1][expr]", "andX"),
            ("where[0][val][1][val][0][col]", date_column),
            ("where[0][val][1][val][0][expr]", "eq"),
            ("where[0][val][1][val][0][val]", date),
            ("where[0][val][1][val][1][col]", "id"),
            ("where[0][val][1][val][1][expr]", "gt"),
            ("where[0][val][1][val][1][val]", row_id),
            *where_params(where, start=1),
        ]
        rows = _fetch(transport, table, params, order, limit)


def rows_new_or_since(
    transport: Transport, table: str, after: int, date_columns: Sequence[str], since_epoch: int, limit: int = 10_000
) -> Iterator[list[Row]]:
    """Rows above the id `after`, and older ones one of whose dates is `since_epoch` or later, by id: one call when few.

    For `email_stats`, whose rows change when the mail is opened or answered, and for campaign events that were scheduled.
    """
    wanted = [("id", "gt", after), *[(column, "gte", format_time(since_epoch)) for column in date_columns]]
    any_of = [
        (f"where[1][val][{place}][{key}]", value)
        for place, one in enumerate(wanted)
        for key, value in zip(("col", "expr", "val"), one, strict=True)
    ]
    last = 0
    while True:
        params = [
            ("where[0][col]", "id"),
            ("where[0][expr]", "gt"),
            ("where[0][val]", last),
            ("where[1][expr]", "orX"),
            *any_of,
        ]
        rows = _fetch(transport, table, params, [("id", "asc")], limit)
        if rows:
            yield rows
        if len(rows) < limit:
            return
        last = _onwards(rows, "id", last, table)


def rows_by_id(transport: Transport, table: str, ids: Sequence[int], chunk: int = 200) -> dict[int, Row]:
    """The rows of these ids; missing ones are absent."""
    wanted = sorted(set(ids))
    found: dict[int, Row] = {}
    for start in range(0, len(wanted), chunk):
        part = wanted[start : start + chunk]
        rows = _rows(transport, table, [("id", "in", ",".join(map(str, part)))], [("id", "asc")], len(part))
        found.update({number: row for row in rows if (number := readable_id(row))})
    return found


def rows_by_key(transport: Transport, table: str, keys: Sequence[str], chunk: int = 100) -> dict[str, Row]:
    """The rows of these ids as text, UUIDs among them; missing ones are absent, and so is what can be no id."""
    wanted = sorted({key for key in keys if key.replace("-", "").isalnum() and key.isascii()})
    found: dict[str, Row] = {}
    for start in range(0, len(wanted), chunk):
        part = wanted[start : start + chunk]
        rows = _rows(transport, table, [("id", "in", ",".join(part))], [("id", "asc")], len(part))
        found.update({row["id"]: row for row in rows if "id" in row})
    return found


def rows_by_member(
    transport: Transport,
    table: str,
    key_column: str,
    key: int,
    *,
    member_column: str = "lead_id",
    limit: int = 10_000,
    where: Sequence[Where] = (),
) -> Iterator[list[Row]]:
    """The rows of a table without ids, for one key, by member: who is in a segment or a campaign.

    `manually_removed` is "1" for those who were taken out by hand and are no members.
    """
    after = 0
    while True:
        conditions: list[Where] = [(key_column, "eq", key), (member_column, "gt", after), *where]
        rows = _rows(transport, table, conditions, [(member_column, "asc")], limit)
        if rows:
            yield rows
        if len(rows) < limit:
            return
        after = _onwards(rows, member_column, after, table)


def _onwards(rows: Sequence[Row], column: str, before: int, table: str) -> int:
    """Where the page after this full one begins; rows without a readable number are passed over."""
    last = max((readable_id(row, column) for row in rows), default=0)
    if last <= before:
        raise StopError(f"Mautic answered with a full page of {table} that has no {column} above the one asked for.")
    return last


def _rows(
    transport: Transport, table: str, where: Sequence[Where], order: Sequence[tuple[str, str]], limit: int
) -> list[Row]:
    return _fetch(transport, table, where_params(where), order, limit)


def _fetch(
    transport: Transport,
    table: str,
    conditions: Sequence[tuple[str, Any]],
    order: Sequence[tuple[str, str]],
    limit: int,
) -> list[Row]:
    params = [*conditions]
    for number, (column, direction) in enumerate(order):
        params += [(f"order[{number}][col]", column), (f"order[{number}][dir]", direction)]
    read = COLUMNS_READ.get(table)

    def shape(body: Any) -> list[Row]:
        if isinstance(body, Mapping) and "availableTables" in body:
            raise RefusedError(
                f"This Mautic has no table {table} among its statistics.", status=404, reason="unknown table"
            )
        rows = (row for row in list_of(body, "stats") if isinstance(row, Mapping))
        if read is None:
            return [{column: str(value) for column, value in row.items() if value is not None} for row in rows]
        return [{column: str(value) for column in read if (value := row.get(column)) is not None} for row in rows]

    found: list[Row] = transport.read(f"stats/{table}", [*params, ("limit", limit)], shape=shape)
    return found


def _first_dated(transport: Transport, table: str, date_column: str, start: int) -> tuple[int, int] | None:
    """(id, date) of the first row from the id `start` on that has an id and a date that can be read."""
    while True:
        rows = feed_after(transport, table, start - 1, PROBE)
        for row in rows:
            at = readable_time(row, date_column)
            if at is not None and readable_id(row):
                return readable_id(row), at
        if len(rows) < PROBE:
            return None
        start = _onwards(rows, "id", start - 1, table) + 1


# -- activity -------------------------------------------------------------------------------------------------------


class FeedActivity(NamedTuple):
    """One thing a contact did, as one row tells it. (`source`, `source_id`, `type`) names it for good.

    `contact_id` is None when the contact was deleted. `object_kind` says what `object_id` is the id of: page, email,
    form, asset, segment or campaign. `at` is in seconds since 1970, UTC.
    """

    source: str
    source_id: str
    type: str
    contact_id: int | None
    at: int
    url: str | None = None
    title: str | None = None
    object_id: int | None = None
    object_kind: str | None = None
    referer: str | None = None
    utm: Mapping[str, str] = NOTHING
    tracking_id: str | None = None
    channel: str | None = None
    """Of a do-not-contact row: `email`, `sms`, …"""
    last_opened: int | None = None
    """Of a mail that was read: when it was opened last; None if it was answered without being opened."""


def normalise(table: str, row: Row, *, contact_of_stat: Mapping[int, int | None] | None = None) -> list[FeedActivity]:
    """The activities that one row of `table` tells: none, one, or several. Raises MalformedError naming the column.

    `email_stat_replies` know their contact only through `email_stats`: `contact_of_stat` maps `stat_id` to it.
    """
    if table == "page_hits":
        return _page_hit(row)
    if table == "email_stats":
        return _email_stat(row)
    if table == "email_stat_replies":
        stat = _whole(row, "stat_id")
        contact = (contact_of_stat or {}).get(stat)
        return [FeedActivity(table, _uuid(row), "email.replied", contact, _at(row, "date_replied"))]
    if table == "form_submissions":
        return [_activity(table, row, "form.submitted", "date_submitted", "form", referer=_text(row, "referer"))]
    if table == "asset_downloads":
        return [_activity(table, row, "asset.download", "date_download", "asset", referer=_text(row, "referer"))]
    if table == "video_hits":
        url = _text(row, "url")
        return [
            _activity(table, row, "video.hit", "date_hit", None, url=url, referer=_text(row, "referer"), utm=_utm(url))
        ]
    if table == "lead_donotcontact":
        return _do_not_contact(row)
    if table == "lead_event_log":
        kind, action = row.get("object"), row.get("action")
        if row.get("bundle") != "lead" or kind not in {"segment", "campaign"} or action not in {"added", "removed"}:
            return []
        return [_activity(table, row, f"{kind}.{action}", "date_added", kind, object_column="object_id")]
    if table == "campaign_lead_event_log":
        # A scheduled event has not happened yet.
        if row.get("is_scheduled") == "1" or not row.get("date_triggered"):
            return []
        return [_activity(table, row, "campaign.event", "date_triggered", "campaign")]
    return []


def _page_hit(row: Row) -> list[FeedActivity]:
    url = _text(row, "url")
    utm = _utm(url)
    query = row.get("query")
    if query and "utm_" in query:
        utm = {**_utm_of_query(query, besides=utm), **utm}
    if "redirect_id" in row:
        # A link in a text message or a notification is no page hit and no click in a mail.
        if "email_id" not in row:
            return []
        return [_activity("page_hits", row, "email.click", "date_hit", "email", url=url, utm=utm)]
    return [
        _activity(
            "page_hits",
            row,
            "page.hit",
            "date_hit",
            "page",
            url=url,
            title=_text(row, "url_title"),
            referer=_text(row, "referer"),
            utm=utm,
        )
    ]


def _email_stat(row: Row) -> list[FeedActivity]:
    found = []
    sent = _time(row, "date_sent")
    if sent is not None:
        found.append(_activity("email_stats", row, "email.sent", "date_sent", "email"))
    if row.get("is_read") == "1" or row.get("date_read") or row.get("last_opened"):
        # The first opening: `last_opened` moves each time. mautic.md: "What is read from where".
        column = "date_read" if row.get("date_read") else "last_opened" if row.get("last_opened") else "date_sent"
        read = _activity("email_stats", row, "email.read", column, "email")
        found.append(read._replace(last_opened=readable_time(row, "last_opened")))
    if row.get("is_failed") == "1" and sent is not None:
        found.append(_activity("email_stats", row, "email.bounced", "date_sent", "email"))
    return found


def _do_not_contact(row: Row) -> list[FeedActivity]:
    table = "lead_donotcontact"
    reason = _whole(row, "reason")
    channel = row.get("channel") or "email"
    if reason == 0:  # contactable
        return []
    kind = _DNC_TYPES.get(reason)
    if kind is None:
        raise MalformedError("`reason` of a row of lead_donotcontact is unknown.")
    found = [_activity(table, row, kind, "date_added", None, channel=channel)]
    if reason == 2 and channel == "email":
        # Of a bounce Mautic notes which mail it was.
        mail = _activity(
            table, row, "email.bounced", "date_added", "email", object_column="channel_id", channel=channel
        )
        found.append(mail)
    return found


def _activity(
    table: str,
    row: Row,
    kind: str,
    date_column: str,
    object_kind: str | None,
    *,
    object_column: str | None = None,
    url: str | None = None,
    title: str | None = None,
    referer: str | None = None,
    utm: Mapping[str, str] | None = None,
    channel: str | None = None,
) -> FeedActivity:
    object_id = None
    if object_kind is not None:
        column = object_column or f"{object_kind}_id"
        object_id = (_whole(row, column) or None) if row.get(column) else None
    # By place, as `FeedActivity` lists them: naming them takes longer than making it.
    return FeedActivity(
        table,
        str(_whole(row, "id")),
        kind,
        _whole(row, "lead_id") if row.get("lead_id") else None,
        _at(row, date_column),
        url,
        title,
        object_id,
        object_kind if object_id is not None else None,
        referer,
        utm or NOTHING,
        _text(row, "tracking_id"),
        channel,
    )


def _utm(url: str | None) -> dict[str, str]:
    if not url or "utm_" not in url:
        return {}
    try:
        pairs = parse_qsl(urlsplit(url).query)
    except ValueError:
        return {}
    return {name: value for name, value in pairs if name in UTM}


def _utm_of_query(text: str | None, besides: Mapping[str, str]) -> dict[str, str]:
    """Tracking pixels carry the campaign beside the page's address: only the stored query of the hit tells it.

    What it tells `besides` what the address does; mostly nothing, and then it need not be understood.
    """
    if not text or "utm_" not in text or not any(name not in besides and f'"{name}"' in text for name in UTM):
        return {}
    try:
        query = unserialize(text)
    except MalformedError:
        return {}
    if not isinstance(query, dict):
        return {}
    return {name: value for name in UTM if isinstance(value := query.get(name), str) and value}


# -- audit ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AuditChange:
    """What one row of `audit_log` says about a contact.

    `action` is Mautic's word: create, update, identified, ipadded, delete, merge, … Pairs are (old, new). `dnc` maps a
    channel to (old, new) reasons, 0 for contactable. `unreadable` says why the details could not be understood: that
    the contact changed is certain all the same.
    """

    id: int
    contact_id: int
    action: str
    at: int
    user_name: str
    merged_into: int | None = None
    stage: tuple[int | None, int | None] | None = None
    points: tuple[float, float] | None = None
    dnc: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tags_added: frozenset[str] = frozenset()
    tags_removed: frozenset[str] = frozenset()
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    unreadable: str | None = None


def parse_audit(row: Row) -> AuditChange:
    """One row of `audit_log` about a contact (`ABOUT_CONTACTS`).

    Raises MalformedError when the row does not tell whom it is about, or into whom somebody was merged.
    """
    if row.get("bundle", "lead") != "lead" or row.get("object", "lead") != "lead":
        raise MalformedError("The audit row is not about a contact.")
    known: dict[str, Any] = {
        "id": _row_id(row),
        "contact_id": _whole(row, "object_id"),
        "action": row.get("action", ""),
        "at": _at(row, "date_added"),
        "user_name": row.get("user_name", ""),
    }
    try:
        details = _details(row.get("details", ""))
        known |= {
            "stage": _stage(details.get("stage")),
            "points": _points(details.get("points")),
            "dnc": _dnc(details.get("dnc_channel_status")),
            "tags_added": _names(_part(details.get("tags"), "added")),
            "tags_removed": _names(_part(details.get("tags"), "removed")),
            "fields": _fields(details.get("fields")),
        }
    except MalformedError as error:
        if known["action"] == "merge":
            raise
        return AuditChange(**known, unreadable=str(error))
    if known["action"] == "merge":
        into = details.get("merged_into")
        if isinstance(into, str) and into.isdigit():
            into = int(into)
        if not isinstance(into, int) or isinstance(into, bool) or into <= 0:
            raise MalformedError("`merged_into` of a merge in the audit log is no id.")
        known["merged_into"] = into
    return AuditChange(**known)


def _details(text: str) -> dict[int | str, PhpValue]:
    if not text:
        return {}
    details = unserialize(text)
    if details is None:
        return {}
    if not isinstance(details, dict):
        raise MalformedError("`details` of an audit row are no array.")
    return details


def _pair(value: PhpValue) -> tuple[PhpValue, PhpValue] | None:
    if isinstance(value, dict) and 0 in value and 1 in value:
        return value[0], value[1]
    return None


def _stage(value: PhpValue) -> tuple[int | None, int | None] | None:
    pair = _pair(value)
    if pair is None:
        if value is None:
            return None
        raise MalformedError("`stage` of an audit row is no pair.")
    return _stage_id(pair[0]), _stage_id(pair[1])


def _stage_id(value: PhpValue) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedError("`stage` of an audit row is no id.")
    return value or None


def _points(value: PhpValue) -> tuple[float, float] | None:
    pair = _pair(value)
    if pair is None:
        return None
    old, new = (0 if part is None or part == "" else part for part in pair)
    try:
        return float(old), float(new)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise MalformedError("`points` of an audit row is no number.") from None


def _dnc(value: PhpValue) -> dict[str, tuple[int, int]]:
    if not isinstance(value, dict):
        return {}
    found = {}
    for channel, change in value.items():
        if not isinstance(change, dict):
            raise MalformedError("`dnc_channel_status` of an audit row is no map.")
        new, old = change.get("reason"), change.get("old_reason", 0)
        if not isinstance(new, int) or not isinstance(old, int):
            raise MalformedError("`dnc_channel_status` of an audit row has no reason.")
        found[str(channel)] = (int(old), int(new))
    return found


def _part(value: PhpValue, key: str) -> PhpValue:
    return value.get(key) if isinstance(value, dict) else None


def _names(value: PhpValue) -> frozenset[str]:
    return frozenset(unescaped(str(name)) for name in value.values()) if isinstance(value, dict) else frozenset()


def _fields(value: PhpValue) -> dict[str, tuple[Any, Any]]:
    if not isinstance(value, dict):
        return {}
    return {str(alias): pair for alias, change in value.items() if (pair := _pair(change)) is not None}


# -- columns --------------------------------------------------------------------------------------------------------


def _row_id(row: Row) -> int:
    return _whole(row, "id")


def readable_id(row: Row, column: str = "id") -> int:
    """The number in this column; 0 for a row that has none, which is for `normalise` to complain about."""
    try:
        return _whole(row, column)
    except MalformedError:
        return 0


def readable_time(row: Row, column: str) -> int | None:
    """The time in this column in seconds since 1970, UTC; None where there is none that can be read."""
    try:
        return _time(row, column)
    except MalformedError:
        return None


def _last_position(rows: Sequence[Row]) -> int:
    return max((readable_id(row) for row in rows), default=0)


def _uuid(row: Row) -> str:
    """The id as text: those of replies are UUIDs."""
    text = row.get("id", "")
    if not text or len(text) > LONGEST_UUID:
        raise MalformedError("`id` of a row is no id.")
    return text


def _whole(row: Row, column: str) -> int:
    try:
        number = int(row[column])
    except KeyError:
        raise MalformedError(f"`{column}` is missing in a row.") from None
    except ValueError:
        raise MalformedError(f"`{column}` of a row is no number.") from None
    if not 0 <= number < 2**63:
        raise MalformedError(f"`{column}` of a row is out of range.")
    return number


def _time(row: Row, column: str) -> int | None:
    try:
        return parse_time(row.get(column))
    except (ValueError, OverflowError):
        raise MalformedError(f"`{column}` of a row is no time.") from None


def _at(row: Row, column: str) -> int:
    at = _time(row, column)
    if at is None:
        raise MalformedError(f"`{column}` is missing in a row.")
    return at


def _text(row: Row, column: str) -> str | None:
    value = row.get(column)
    if value is None:
        return None
    if "\x00" in value:
        value = value.replace("\x00", "")
    return value.strip()[:LONGEST_URL] or None
