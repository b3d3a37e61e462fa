# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""Mautic's tables in an in-memory SQLite, under Mautic's own table and column names, so that filters become SQL by rule."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

#: The statistics tables with their columns, as `/api/stats` lists them.
FEEDS: dict[str, tuple[str, ...]] = {
    table: tuple(columns.split())
    for table, columns in {
        "asset_downloads": "id asset_id ip_id lead_id date_download code tracking_id email_id referer source source_id utm_campaign utm_content utm_medium utm_source utm_term",
        "audit_log": "id user_id user_name bundle object object_id action details date_added ip_address",
        "campaign_lead_event_log": "id campaign_id channel channel_id date_queued date_triggered event_id ip_id is_scheduled lead_id metadata non_action_path_taken rotation system_triggered trigger_date version",
        "campaign_leads": "campaign_id lead_id date_added manually_removed manually_added rotation date_last_exited",
        "channel_url_trackables": "channel_id redirect_id channel hits unique_hits",
        "companies_leads": "company_id date_added is_primary lead_id",
        "dynamic_content_lead_data": "id date_added dynamic_content_id lead_id slot",
        "dynamic_content_stats": "id date_sent dynamic_content_id last_sent lead_id sent_count sent_details source source_id tokens",
        "email_stat_replies": "id stat_id date_replied message_id",
        "email_stats": "id email_id lead_id ip_id email_address date_sent is_read is_failed viewed_in_browser date_read tracking_hash retry_count source source_id open_count last_opened open_details copy_id list_id tokens",
        "email_stats_devices": "id date_opened device_id ip_id stat_id",
        "focus_stats": "id date_added focus_id lead_id type type_id",
        "form_submissions": "id form_id ip_id lead_id tracking_id date_submitted referer page_id",
        "ip_addresses": "id ip_address ip_details",
        "lead_categories": "id category_id date_added lead_id manually_added manually_removed",
        "lead_companies_change_log": "id action_name company_id date_added event_name lead_id type",
        "lead_devices": "id lead_id date_added client_info device device_os_name device_os_shortname device_os_version device_os_platform device_brand device_model tracking_id",
        "lead_donotcontact": "id lead_id date_added reason channel channel_id comments",
        "lead_event_log": "id lead_id bundle object action object_id date_added properties user_id user_name",
        "lead_frequencyrules": "id channel date_added frequency_number frequency_time lead_id pause_from_date pause_to_date preferred_channel",
        "lead_lists_leads": "leadlist_id lead_id date_added manually_removed manually_added",
        "lead_points_change_log": "id lead_id ip_id group_id type event_name action_name delta date_added",
        "lead_stages_change_log": "id lead_id stage_id event_name action_name date_added",
        "lead_utmtags": "id lead_id date_added query url user_agent utm_campaign utm_medium utm_source referer remote_host utm_content utm_term",
        "page_hits": "id redirect_id email_id lead_id ip_id device_id date_hit date_left country region city isp organization code url url_title user_agent browser_languages tracking_id source source_id query page_id page_language referer remote_host",
        "page_redirects": "id is_published date_added created_by_user date_modified modified_by_user redirect_id url hits unique_hits checked_out checked_out_by checked_out_by_user created_by modified_by",
        "point_lead_action_log": "date_fired ip_id lead_id point_id",
        "point_lead_event_log": "date_fired event_id ip_id lead_id",
        "push_notification_stats": "id click_count click_details date_clicked date_read date_sent ip_id is_clicked last_clicked lead_id list_id notification_id retry_count source source_id tokens tracking_hash",
        "sms_message_stats": "id date_sent details ip_id is_failed lead_id list_id sms_id source source_id tokens tracking_hash",
        "stage_lead_action_log": "date_fired ip_id lead_id stage_id",
        "tweet_stats": "id date_sent favorite_count handle is_failed lead_id response_details retry_count retweet_count source source_id tweet_id twitter_tweet_id",
        "video_hits": "id browser_languages channel channel_id city code country date_hit date_left duration guid ip_id isp lead_id organization page_language query referer region remote_host time_watched url user_agent",
        "webhook_logs": "id date_added note runtime status_code webhook_id",
    }.items()
}
#: Columns of the newer version only.
COLUMNS_OF_7 = {"campaign_lead_event_log": ("date_queued", "version")}

#: Columns of `leads` that are no contact fields.
CONTACT_COLUMNS = (
    "id", "is_published", "date_added", "created_by", "created_by_user", "date_modified", "modified_by",
    "modified_by_user", "owner_id", "stage_id", "date_identified", "preferred_profile_image", "color", "internal",
)  # fmt: skip
#: The sandbox's own: when a contact was last changed, finer than Mautic's seconds.
CONTACT_OWN = ("changed_at", "added_at")

_OTHERS = """
CREATE TABLE lead_tags_xref (lead_id INTEGER, tag_id INTEGER, PRIMARY KEY (lead_id, tag_id)) WITHOUT ROWID;
CREATE TABLE lead_tags (id INTEGER PRIMARY KEY, tag TEXT, description TEXT);
CREATE TABLE lead_ips_xref (lead_id INTEGER, ip_id INTEGER, PRIMARY KEY (lead_id, ip_id)) WITHOUT ROWID;
CREATE TABLE contact_merge_records (merged_id INTEGER PRIMARY KEY, contact_id INTEGER, name TEXT, date_added TEXT);
CREATE INDEX merge_survivor ON contact_merge_records (contact_id);
CREATE TABLE lead_notes (id INTEGER PRIMARY KEY, lead_id INTEGER, text TEXT, type TEXT, date_time TEXT);
CREATE TABLE companies (id INTEGER PRIMARY KEY, companyname TEXT COLLATE NOCASE, date_added TEXT);
CREATE TABLE point_group_contact_score (contact_id INTEGER, group_id INTEGER, score INTEGER,
    PRIMARY KEY (contact_id, group_id));
CREATE TABLE form_results (submission_id INTEGER PRIMARY KEY, results TEXT);
CREATE INDEX tag_leads ON lead_tags_xref (tag_id);
"""
_INDEXES = {
    "page_hits": ("lead_id", "tracking_id"),
    "lead_devices": ("lead_id", "tracking_id"),
    "lead_donotcontact": ("lead_id",),
    "lead_points_change_log": ("lead_id",),
    "lead_stages_change_log": ("lead_id",),
    "lead_event_log": ("lead_id",),
    "lead_utmtags": ("lead_id",),
    "email_stats": ("lead_id", "tracking_hash", "last_opened"),
    "form_submissions": ("lead_id",),
    "asset_downloads": ("lead_id",),
    "lead_lists_leads": ("leadlist_id, lead_id", "lead_id"),
    "campaign_leads": ("campaign_id", "lead_id"),
    "campaign_lead_event_log": ("lead_id",),
    "companies_leads": ("lead_id",),
    "ip_addresses": ("ip_address",),
    "audit_log": ("object_id",),
}


def sql_type(column: str) -> str:
    """The type of a feed's column, from its name: what Mautic counts is a number, the rest is text."""
    if column == "id" or column.endswith("_id") or column in _NUMBERS:
        return "INTEGER"
    return "TEXT COLLATE NOCASE"


_NUMBERS = frozenset(
    ["delta", "hits", "unique_hits", "is_read", "is_failed", "viewed_in_browser", "retry_count", "open_count", "is_published", "reason", "code", "rotation", "manually_added", "manually_removed", "is_scheduled", "system_triggered", "non_action_path_taken", "is_primary", "version", "created_by", "modified_by", "checked_out_by"]
)  # fmt: skip
#: Columns that look like numbers by their name, and are none.
TEXT_IDS = {("page_redirects", "redirect_id"), ("email_stat_replies", "id"), ("email_stat_replies", "message_id")}


class Tables:
    """One in-memory database; the caller holds the sandbox's lock."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=MEMORY;")
        for table, columns in FEEDS.items():
            self.connection.execute(f"CREATE TABLE {table} ({', '.join(_column(table, c) for c in columns)})")
            for indexed in _INDEXES.get(table, ()):
                name = indexed.replace(", ", "_")
                self.connection.execute(f"CREATE INDEX {table}_{name} ON {table} ({indexed})")
        own = ", ".join(f"{c} {_contact_type(c)}" for c in (*CONTACT_COLUMNS, *CONTACT_OWN))
        self.connection.execute(f"CREATE TABLE leads ({own})")
        self.connection.execute("CREATE INDEX leads_stage ON leads (stage_id)")
        self.connection.execute("CREATE INDEX leads_modified ON leads (date_modified)")
        self.connection.executescript(_OTHERS)
        self.contact_columns: list[str] = [*CONTACT_COLUMNS, *CONTACT_OWN]

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Many rows at once: in one transaction, indexes made afterwards."""
        indexes = self.connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        )
        made = indexes.fetchall()
        for name, _ in made:
            self.connection.execute(f"DROP INDEX {name}")
        self.connection.execute("BEGIN")
        yield
        self.connection.execute("COMMIT")
        for _, sql in made:
            self.connection.execute(sql)

    def add_contact_column(self, name: str, kind: str) -> None:
        self.connection.execute(f"ALTER TABLE leads ADD COLUMN {name} {kind}")
        self.contact_columns.append(name)

    def index_contacts(self, column: str) -> None:
        self.connection.execute(f"CREATE INDEX leads_{column} ON leads ({column})")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        cursor = self.connection.execute(sql, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, values: Sequence[Any] = ()) -> dict[str, Any] | None:
        found = self.rows(sql, values)
        return found[0] if found else None

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        found = self.connection.execute(sql, values).fetchone()
        return None if found is None else found[0]

    def column(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return [row[0] for row in self.connection.execute(sql, values).fetchall()]

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self.connection.execute(sql, values).rowcount

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        self.connection.executemany(sql, values)

    def insert(self, table: str, values: Mapping[str, Any]) -> int:
        marks = ", ".join("?" * len(values))
        cursor = self.connection.execute(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values())
        )
        return int(cursor.lastrowid or 0)

    def update(self, table: str, row_id: int, values: Mapping[str, Any]) -> None:
        if values:
            sets = ", ".join(f"{column} = ?" for column in values)
            self.connection.execute(f"UPDATE {table} SET {sets} WHERE id = ?", (*values.values(), row_id))


def _column(table: str, column: str) -> str:
    if column == "id" and (table, column) not in TEXT_IDS:
        return "id INTEGER PRIMARY KEY AUTOINCREMENT"
    if column == "tracking_id" or (table, column) in TEXT_IDS:
        return f"{column} TEXT"
    return f"{column} {sql_type(column)}"


def _contact_type(column: str) -> str:
    if column == "id":
        return "INTEGER PRIMARY KEY AUTOINCREMENT"
    if column in {"is_published", "created_by", "modified_by", "owner_id", "stage_id", "internal"}:
        return "INTEGER"
    return "REAL" if column in CONTACT_OWN else "TEXT COLLATE NOCASE"
