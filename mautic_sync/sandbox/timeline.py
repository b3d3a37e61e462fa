# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""`/api/contacts/activity`: the history of contacts, gathered from the tables (docs/mautic.md warns against reading it)."""

from typing import Any

from .clock import iso
from .instance import Instance
from .php import unserialize
from .shapes import Row

_TYPES = {
    "asset.download": "Asset downloaded", "campaign.event": "Campaign action triggered",
    "campaign.event.scheduled": "Campaign event scheduled", "campaign_membership": "Campaign membership change",
    "lead.source.created": "Contact created by source", "lead.source.identified": "Contact identified by source",
    "lead.donotcontact": "Do not contact", "dynamic.content.sent": "Dynamic Content Triggered",
    "email.failed": "Email failed", "email.read": "Email read", "email.replied": "Email replied",
    "email.sent": "Email sent", "sms.failed": "Failed", "focus.on_click": "Focus click", "focus.on_view": "Focus view",
    "form.submitted": "Form submitted", "lead.imported": "Imported",
    "integration_sync_issues": "Integration sync notice", "message.queue": "Message Queue", "page.hit": "Page hit",
    "point.gained": "Point gained", "segment_membership": "Segment membership change", "sms.sent": "Sent",
    "stage.changed": "Stage changed", "sms_reply": "Text message received", "lead.utmtagsadded": "UTM tags recorded",
    "page.videohit": "Video view event",
}  # fmt: skip


class Timeline:
    """Events of one contact or of all."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._tables = instance.tables

    def page(self, query: Row, contact: int | None) -> Row:
        """One page, newest first; the limit holds for each kind of event."""
        filters = query.get("filters") if isinstance(query.get("filters"), dict) else {}
        assert isinstance(filters, dict)
        included = _listed(filters.get("includeEvents"))
        excluded = _listed(filters.get("excludeEvents"))
        limit = int(query.get("limit") or 25)
        page = int(query.get("page") or 1)
        kinds = [k for k in _READERS if (not included or k in included) and k not in excluded]
        since = str(filters.get("dateFrom") or "")
        total, events = 0, []
        for kind in kinds:
            table, date, condition = _READERS[kind]
            where = f"({condition}) AND lead_id {'IS NOT NULL' if contact is None else '= ?'} AND {date} >= ?"
            values = (*(() if contact is None else (contact,)), since)
            total += self._tables.value(f"SELECT COUNT(*) FROM {table} WHERE {where}", values)
            rows = self._tables.rows(
                f"SELECT * FROM {table} WHERE {where} ORDER BY {date} DESC, id DESC LIMIT ? OFFSET ?",
                (*values, limit, (page - 1) * limit),
            )
            events += [self._event(kind, row, row[date]) for row in rows]
        events.sort(key=lambda e: str(e["timestamp"]), reverse=True)
        dates = {k: filters[k] for k in ("dateFrom", "dateTo") if filters.get(k)}
        return {
            "events": events,
            "filters": {**dates, "search": "", "includeEvents": included, "excludeEvents": excluded},
            "order": ["timestamp", "DESC"], "types": _TYPES, "total": total, "page": page, "limit": limit,
            "maxPages": max(1, -(-total // limit)),
        }  # fmt: skip

    def _event(self, kind: str, row: Row, date: str) -> Row:
        label: Any = row.get("event_name") or row.get("url") or row.get("properties") or _TYPES[kind]
        event = {
            "event": kind, "eventId": f"{kind}{row['id']}", "eventLabel": label, "eventType": _TYPES[kind],
            "timestamp": iso(date), "contactId": str(row["lead_id"]),
        }  # fmt: skip
        if kind == "page.hit":
            event |= {
                "eventId": str(row["id"]),
                "eventLabel": {"label": row["url_title"] or row["url"], "href": row["url"], "isExternal": True},
                "details": {"hit": self._hit(row)},
            }
        return event

    def _hit(self, row: Row) -> Row:
        device = self._tables.row("SELECT * FROM lead_devices WHERE id = ?", (row["device_id"],)) or {}
        hit = {"hitId": str(row["id"]), "userAgent": row["user_agent"], "dateHit": iso(row["date_hit"])}
        if row["date_left"]:
            hit["dateLeft"] = iso(row["date_left"])
        if row["source"]:
            hit |= {"source": row["source"], "sourceId": str(row["source_id"])}
        hit["url"] = row["url"]
        if row["url_title"]:
            hit["urlTitle"] = row["url_title"]
        hit["query"] = unserialize(row["query"]) if row["query"] else []
        return hit | {
            "clientInfo": device.get("client_info"), "device": device.get("device"),
            "deviceOsName": device.get("device_os_name"), "deviceBrand": device.get("device_brand"),
            "deviceModel": device.get("device_model"),
        }  # fmt: skip


#: By event: the table, its date, and which of its rows count.
_READERS = {
    "asset.download": ("asset_downloads", "date_download", "1"),
    "lead.source.created": ("lead_event_log", "date_added", "action = 'created_contact'"),
    "lead.source.identified": ("lead_event_log", "date_added", "action = 'identified_contact'"),
    "lead.donotcontact": ("lead_donotcontact", "date_added", "1"),
    "email.read": ("email_stats", "date_read", "is_read = 1"),
    "email.sent": ("email_stats", "date_sent", "is_failed = 0"),
    "email.failed": ("email_stats", "date_sent", "is_failed = 1"),
    "form.submitted": ("form_submissions", "date_submitted", "1"),
    "page.hit": ("page_hits", "date_hit", "1"),
    "point.gained": ("lead_points_change_log", "date_added", "1"),
    "stage.changed": ("lead_stages_change_log", "date_added", "1"),
    "lead.utmtagsadded": ("lead_utmtags", "date_added", "1"),
    "segment_membership": ("lead_event_log", "date_added", "object = 'segment'"),
    "campaign_membership": ("lead_event_log", "date_added", "object = 'campaign'"),
}


def _listed(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [str(v) for v in value.values()]
    return [str(value)] if value else []
