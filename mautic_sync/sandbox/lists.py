# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""`GET /api/contacts`: filters, order, search commands and the three sizes of a row."""

import re
from typing import Any

from .filters import BrokenFilterError, UnknownColumnError, where_sql
from .instance import CrashedError, Instance
from .shapes import Row, Shapes

_DEFAULT_LIMIT = 30
_COMMAND = re.compile(r"(!?)([a-z_]+):(\"[^\"]*\"|\S+)|(!?)(\"[^\"]*\"|\S+)")
_IS = {
    "anonymous": "date_identified IS NULL",
    "unowned": "owner_id IS NULL",
    "mine": "owner_id = 1",
}


class ContactList:
    """Pages of contacts."""

    def __init__(self, instance: Instance, shapes: Shapes) -> None:
        self._instance = instance
        self._shapes = shapes

    def page(self, query: Row) -> Row:
        instance = self._instance
        limit, start = _whole(query.get("limit"), _DEFAULT_LIMIT), _whole(query.get("start"), 0)
        columns = instance.contact_columns
        try:
            condition, values = where_sql(query.get("where"), columns, instance.contact_numbers, camel=True)
            order = self._order(query)
        except (UnknownColumnError, BrokenFilterError):
            raise CrashedError from None
        if query.get("search"):
            searched, more = self._search(str(query["search"]))
            condition, values = f"({condition}) AND ({searched})", [*values, *more]
        names = [str(v) for v in query["select"].values()] if isinstance(query.get("select"), dict) else None
        if names is not None and self._shapes.fails_to_select(names):
            raise CrashedError
        tables = instance.tables
        total = tables.value(f"SELECT COUNT(*) FROM leads WHERE {condition}", values)
        rows = tables.rows(
            f"SELECT * FROM leads WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?", (*values, limit or -1, start)
        )
        minimal = str(query.get("minimal", "")).lower() not in {"", "0", "false"}
        if names is not None:
            shown = self._shapes.selected(rows, names, minimal=minimal)
        else:
            shown = self._shapes.full(rows, listed=True, minimal=minimal)
            if minimal:
                for contact in shown:
                    contact.pop("lastActive", None)
        return {"total": str(total), "contacts": {str(c["id"]): c for c in shown}}

    def _order(self, query: Row) -> str:
        """The default order, last_active, has no tie-break in Mautic: always order by id (docs/mautic.md)."""
        wanted = query.get("orderBy")
        if not wanted:
            return "last_active DESC, id"
        direction = "DESC" if str(query.get("orderByDir", "")).lower() == "desc" else "ASC"
        parts = []
        for name in str(wanted).split(","):
            column = name.strip().removeprefix("l.")
            if column not in self._instance.contact_columns:
                raise UnknownColumnError(column, "ORDER BY")
            parts.append(f"{column} {direction}")
        return ", ".join(parts)

    def _search(self, text: str) -> tuple[str, list[Any]]:
        """Mautic's search commands; what it does not know is a word to look for."""
        parts: list[str] = []
        values: list[Any] = []
        for found in _COMMAND.finditer(text):
            negated, command, value = found[1] or found[4] or "", found[2], (found[3] or found[5] or "").strip('"')
            condition, more = self._command(command, value)
            parts.append(f"{'NOT ' if negated else ''}({condition})")
            values.extend(more)
        return " AND ".join(parts) or "1", values

    def _command(self, command: str | None, value: str) -> tuple[str, list[Any]]:
        if command == "is" and value in _IS:
            return _IS[value], []
        if command == "ids":
            return f"id IN ({', '.join(str(int(v)) for v in re.findall('[0-9]+', value)) or '0'})", []
        if command == "stage":
            ids = [str(s.id) for s in self._instance.stages.values() if s.name.lower() == value.lower()]
            return f"stage_id IN ({', '.join(ids) or '0'})", []
        if command == "tag":
            return (
                "id IN (SELECT lead_id FROM lead_tags_xref WHERE tag_id IN (SELECT id FROM lead_tags WHERE tag = ?))",
                [value],
            )
        if command == "segment":
            wanted = [str(i) for i, s in self._instance.entities.get("segments", {}).items() if s["alias"] == value]
            members = (
                "SELECT lead_id FROM lead_lists_leads WHERE manually_removed = 0 "
                f"AND leadlist_id IN ({', '.join(wanted) or '0'})"
            )
            return f"id IN ({members})", []
        aliases = {f.alias for f in self._instance.fields}
        if command in aliases:
            return f"{command} LIKE ?", [f"{value}%"]
        word = f"{command}:{value}" if command else value
        return (
            "(firstname LIKE ? OR lastname LIKE ? OR email LIKE ? OR company LIKE ?)",
            [f"{word}%"] * 4,
        )


def _whole(value: Any, default: int) -> int:
    if value is None or value == "":
        return default
    text = str(value)
    if not text.lstrip("-").isdigit():
        raise CrashedError
    return int(text)
