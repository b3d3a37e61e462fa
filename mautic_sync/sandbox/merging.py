# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""How two contacts become one, and what is lost on the way (docs/mautic.md: "Merging, which renumbers people")."""

from typing import Any

from .clock import iso
from .contact_fields import BUILT_IN
from .contacts import Contacts, primary_identifier
from .instance import Actor, Instance
from .shapes import Row

#: Rows that move to the survivor.
_MOVED = [
    "page_hits",
    "form_submissions",
    "asset_downloads",
    "email_stats",
    "video_hits",
    "lead_points_change_log",
    "lead_event_log",
    "lead_devices",
    "campaign_lead_event_log",
    "lead_notes",
    "companies_leads",
]
#: Rows that are lost with the loser.
_LOST = ("lead_donotcontact", "lead_stages_change_log", "lead_utmtags", "lead_frequencyrules")


class Merging:
    """Merges over the tables."""

    def __init__(self, instance: Instance, contacts: Contacts) -> None:
        self._instance = instance
        self._tables = instance.tables
        self._contacts = contacts

    def merge(self, actor: Actor, *, survivor: int, loser: int) -> Row:
        """The visitor's contact survives, the known contact's id is deleted and leads to the survivor."""
        kept, lost = self._contacts.load(survivor), self._contacts.load(loser)
        assert kept is not None
        assert lost is not None
        instance, tables = self._instance, self._tables
        values, changes = self._merged_values(kept, lost)
        identified = kept["date_identified"] is None and lost["date_identified"] is not None
        points = int(kept["points"] or 0) + int(lost["points"] or 0)
        if points != kept["points"]:
            changes["points"] = [kept["points"], points]
        values |= {"points": points}
        if lost["date_identified"] is not None and (
            kept["date_identified"] is None or lost["date_identified"] < kept["date_identified"]
        ):
            values["date_identified"] = lost["date_identified"]
            changes = {"dateIdentified": [iso(kept["date_identified"]), iso(lost["date_identified"])]} | changes
        if (lost["last_active"] or "") > (kept["last_active"] or ""):
            values["last_active"] = lost["last_active"]
        if kept["owner_id"] is None and lost["owner_id"] is not None:
            values["owner_id"] = lost["owner_id"]
            changes["owner"] = [None, lost["owner_id"]]
        tags = self._unite_tags(survivor, loser)
        if tags:
            changes["tags"] = {"added": tags}
        self._move_rows(survivor, loser)
        # the loser goes first here, so that its address is free for the survivor
        tables.run("DELETE FROM leads WHERE id = ?", (loser,))
        if changes:
            self._contacts.change(actor, kept, values, changes)
        if identified:
            instance.audit(actor, "lead", "lead", survivor, "identified", {})
        tables.run("UPDATE contact_merge_records SET contact_id = ? WHERE contact_id = ?", (survivor, loser))
        record = (loser, survivor, primary_identifier(lost), instance.now)
        tables.run("INSERT OR REPLACE INTO contact_merge_records VALUES (?, ?, ?, ?)", record)
        instance.audit(actor, "lead", "lead", loser, "merge", {"merged_into": survivor})
        instance.audit(actor, "lead", "lead", loser, "delete", {"name": primary_identifier(lost)})
        merged = self._contacts.load(survivor)
        assert merged is not None
        return merged

    def _merged_values(self, kept: Row, lost: Row) -> tuple[Row, Row]:
        """Field by field the later changed contact wins, on a tie the visitor; blanks are filled from the other."""
        kept_wins = self._changed(kept) >= self._changed(lost)
        values: Row = {}
        changes: Row = {}
        for found in self._instance.ordered_fields:
            alias = found.alias
            if alias in {"points", "last_active"}:
                continue
            first, second = (kept, lost) if kept_wins else (lost, kept)
            value = first[alias] if first[alias] not in {None, ""} else second[alias]
            if value != kept[alias] and value not in {None, ""}:
                values[alias] = value
                changed: list[Any] = [kept[alias], value]
                if alias in BUILT_IN:
                    changes[alias] = changed
                changes.setdefault("fields", {})[alias] = changed
        return values, changes

    def _changed(self, row: Row) -> tuple[str, float]:
        """What decides who wins: dateModified, else dateAdded; within one second the sandbox looks closer."""
        if row["date_modified"] is None:
            return row["date_added"], row["added_at"] or 0.0
        if self._instance.traits.modified_frozen:
            return row["date_modified"], 0.0
        return row["date_modified"], row["changed_at"] or 0.0

    def _unite_tags(self, survivor: int, loser: int) -> list[str]:
        added = self._tables.column(
            "SELECT tag FROM lead_tags WHERE id IN (SELECT tag_id FROM lead_tags_xref WHERE lead_id = ? "
            "EXCEPT SELECT tag_id FROM lead_tags_xref WHERE lead_id = ?) ORDER BY tag",
            (loser, survivor),
        )
        self._tables.run(
            "INSERT OR IGNORE INTO lead_tags_xref SELECT ?, tag_id FROM lead_tags_xref WHERE lead_id = ?",
            (survivor, loser),
        )
        self._tables.run("DELETE FROM lead_tags_xref WHERE lead_id = ?", (loser,))
        return added

    def _move_rows(self, survivor: int, loser: int) -> None:
        run = self._tables.run
        for table in _MOVED:
            run(f"UPDATE {table} SET lead_id = ? WHERE lead_id = ?", (survivor, loser))
        for table in _LOST:
            run(f"DELETE FROM {table} WHERE lead_id = ?", (loser,))
        for table, key in (("lead_lists_leads", "leadlist_id"), ("campaign_leads", "campaign_id")):
            run(
                f"DELETE FROM {table} WHERE lead_id = ? AND {key} IN (SELECT {key} FROM {table} WHERE lead_id = ?)",
                (loser, survivor),
            )
            run(f"UPDATE {table} SET lead_id = ? WHERE lead_id = ?", (survivor, loser))
        run(
            "INSERT OR IGNORE INTO lead_ips_xref SELECT ?, ip_id FROM lead_ips_xref WHERE lead_id = ?",
            (survivor, loser),
        )
        run("DELETE FROM lead_ips_xref WHERE lead_id = ?", (loser,))
        run("DELETE FROM point_group_contact_score WHERE contact_id = ?", (loser,))
