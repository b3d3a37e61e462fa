# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""How contacts look in answers: there are seven shapes, depending on the call (docs/mautic.md: "Shapes that surprise")."""

from typing import Any

from .clock import iso
from .contact_fields import BUILT_IN, Field
from .instance import Instance
from .php import unserialize

Row = dict[str, Any]
#: The contact properties that bare serialisations (do-not-contact, submissions) show.
PROPERTIES = [
    "title",
    "firstname",
    "lastname",
    "company",
    "position",
    "email",
    "phone",
    "mobile",
    "address1",
    "address2",
    "city",
    "state",
    "zipcode",
    "timezone",
    "country",
]
_KNOWN_TO_FAIL = frozenset({"last_active", "stage_id", "date_identified"})
_UNLOCATED = dict.fromkeys(
    ["city", "region", "zipcode", "country", "latitude", "longitude", "isp", "organization", "timezone", "extra"], ""
)


def normalized(found: Field, value: Any) -> Any:
    """What `normalizedValue` says beside a value: labels for booleans and selections."""
    if value is None or value == "":
        return ""
    if found.type == "boolean" and found.properties:
        return found.properties.get("yes" if value else "no", value)
    return value


def number(found: Field, value: Any) -> Any:
    """A number cut to the field's scale."""
    if value is None or value == "":
        return value
    return float(value) if found.scale else int(value)


class Shapes:
    """Renders contacts."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._nulls: dict[tuple[int, str], Row] = {}

    # -- whole contacts

    def full(
        self, rows: list[Row], *, listed: bool = False, minimal: bool = False, echo: Row | None = None
    ) -> list[Row]:
        """Contacts as GET, edits, lists and batch edits show them; `echo` holds what an edit shows beyond the row."""
        related = None if minimal else self.related([r["id"] for r in rows])
        shown = []
        for row in rows:
            out = self._head(row)
            out["fields"] = self._fields(row, listed=listed, echo=echo or {})
            if related is not None:
                out |= self._relations(row, related)
            shown.append(out)
        return shown

    def created(self, row: Row, echo: Row) -> Row:
        """The echo of a contact just made."""
        out = self._head(row)
        groups: Row = {}
        everything: Row = {"id": str(row["id"])}
        for group, fields in self._instance.grouped.items():
            shown: Row = {}
            for found in fields:
                value = self._typed(found, row[found.alias], truth=True)
                if found.alias == "points" and "points" not in echo:
                    everything["points"], value = value or 0, value or None
                elif found.alias in echo:
                    everything[found.alias] = value = echo[found.alias]
                else:
                    everything[found.alias] = value
                shown[found.alias] = {
                    **found.new_metadata, "value": value, "normalizedValue": normalized(found, value),
                }  # fmt: skip
            groups[group] = shown or []
        out["fields"] = groups | {"all": everything}
        out |= self._relations(row, self.related([row["id"]]))
        out["utmtags"] = None
        return out

    def failed(self, row: Row) -> Row:
        """An item of a batch that was refused: texts as the database has them, and no `all`."""
        out = self._head(row)
        groups: Row = {}
        for group, fields in self._instance.column_grouped.items():
            shown = {}
            for found in fields:
                value = row[found.alias]
                if value is not None:
                    value = str(int(value) if isinstance(value, float) and value.is_integer() else value)
                shown[found.alias] = {
                    **found.metadata, "value": value, "normalizedValue": normalized(found, value),
                }  # fmt: skip
            groups[group] = shown or []
        out["fields"] = groups
        return out | self._relations(row, self.related([row["id"]]))

    def bare(self, row: Row) -> Row:
        """A contact as do-not-contact calls show it: keys with null are missing, numbers are floats."""
        head = self._head(row)
        out = {k: v for k, v in head.items() if v is not None}
        out |= {name: row[name] for name in PROPERTIES if row[name] is not None}
        groups: Row = {}
        for group, fields in self._instance.grouped.items():
            groups[group] = {f.alias: _without_nulls(self._loose(f, row)) for f in fields} or []
        out["fields"] = groups
        related = self.related([row["id"]])
        relations = self._relations(row, related)
        relations.pop("preferredProfileImage")
        out |= {k: v for k, v in relations.items() if v is not None}
        if row["last_active"] is not None:
            out["lastActive"] = iso(row["last_active"])
        out["tags"] = [{"id": t["id"], "tag": t["tag"]} for t in out["tags"]]
        out["doNotContact"] = [
            _without_nulls(d | {"dateAdded": iso(date)})
            for d, date in zip(relations["doNotContact"], related["dnc_dates"].get(row["id"], []), strict=True)
        ]
        stage = self._instance.stages.get(row["stage_id"] or 0)
        if stage is not None:
            out["stage"] = _without_nulls(
                {
                    "isPublished": stage.is_published, "dateAdded": iso(stage.date_added),
                    "dateModified": iso(stage.date_modified), "createdByUser": stage.created_by_user,
                    "modifiedByUser": stage.modified_by_user, "id": stage.id, "name": stage.name,
                    "weight": stage.weight, "description": stage.description,
                } | ({"projects": []} if self._instance.traits.has_projects else {})
            )  # fmt: skip
        return out

    def noted(self, row: Row) -> Row:
        """A contact inside a note."""
        groups: Row = {}
        for group, fields in self._instance.grouped.items():
            groups[group] = {f.alias: self._loose(f, row) for f in fields} or []
        return {"id": row["id"], "points": row["points"] or 0, "color": row["color"], "fields": groups}

    def selected(self, rows: list[Row], names: list[str], *, minimal: bool) -> list[Row]:
        """Contacts of a list with `select[]`: built-in fields only, null keys missing."""
        wanted = [n for n in names if n in BUILT_IN]
        fields = [self._instance.fields_by_alias[n] for n in wanted]
        related = None if minimal else self.related([r["id"] for r in rows])
        shown = []
        for row in rows:
            out: Row = {
                "isPublished": bool(row["is_published"]), "dateAdded": iso(row["date_added"]),
                "dateModified": iso(row["date_modified"]), "createdByUser": row["created_by_user"],
                "modifiedByUser": row["modified_by_user"], "id": row["id"], "points": row["points"] or 0,
            }  # fmt: skip
            out = _without_nulls(out)
            everything = {"id": str(row["id"])}
            everything |= {n: row[n] for n in wanted if row[n] is not None}
            groups: Row = {"core": [], "social": [], "personal": [], "professional": []}
            core = {f.alias: self._field(f, row[f.alias]) for f in fields}
            if core:
                groups["core"] = {n: _without_nulls(v) for n, v in core.items()}
            if not minimal:
                groups["core"] = []
            out["fields"] = groups | {"all": everything}
            if related is not None:
                relations = self._relations(row, related)
                out |= {k: v for k, v in relations.items() if v is not None}
            shown.append(out)
        return shown

    def fails_to_select(self, names: list[str]) -> bool:
        return "id" not in names or bool(_KNOWN_TO_FAIL.intersection(names))

    def of_submission(self, row: Row) -> Row:
        return {"id": row["id"], "points": row["points"] or 0, "color": row["color"]} | {p: row[p] for p in PROPERTIES}

    def stage(self, stage_id: int | None) -> Row | None:
        """A stage inside a contact."""
        found = self._instance.stages.get(stage_id or 0)
        if found is None:
            return None
        return {
            "createdByUser": found.created_by_user, "modifiedByUser": found.modified_by_user, "id": found.id,
            "name": found.name, "category": found.category, "weight": found.weight, "description": found.description,
        }  # fmt: skip

    # -- parts

    @staticmethod
    def _head(row: Row) -> Row:
        return {
            "isPublished": bool(row["is_published"]),
            "dateAdded": iso(row["date_added"]),
            "dateModified": iso(row["date_modified"]),
            "createdBy": row["created_by"],
            "createdByUser": row["created_by_user"],
            "modifiedBy": row["modified_by"],
            "modifiedByUser": row["modified_by_user"],
            "id": row["id"],
            "points": row["points"] or 0,
            "color": row["color"],
        }

    def _typed(self, found: Field, value: Any, *, truth: bool = False, listed: bool = False) -> Any:
        if value is None:
            return None
        if found.type == "boolean":
            return bool(value) if truth else str(int(value)) if listed else int(value)
        return number(found, value) if found.is_number else value

    def _field(self, found: Field, value: Any) -> Row:
        if value is None:
            cached = self._nulls.get((found.id, found.label))
            if cached is None:
                cached = {**found.metadata, "value": None, "normalizedValue": ""}
                self._nulls[found.id, found.label] = cached
            return cached
        return {**found.metadata, "value": value, "normalizedValue": normalized(found, value)}

    def _loose(self, found: Field, row: Row) -> Row:
        value = row[found.alias]
        if value is not None and found.is_number:
            value = float(value)
        elif value is not None and found.type == "boolean":
            value = bool(value)
        return {**found.metadata, "value": value, "normalizedValue": normalized(found, value)}

    def _fields(self, row: Row, *, listed: bool, echo: Row) -> Row:
        groups: Row = {}
        everything: Row = {"id": str(row["id"])} if row["id"] is not None else {}
        layout = self._instance.column_grouped if listed else self._instance.grouped
        for group, fields in layout.items():
            shown: Row = {}
            for found in fields:
                alias = found.alias
                value = row[alias]
                if alias in echo:
                    value = everything[alias] = echo[alias]
                    if echo.get(f"-{alias}"):
                        everything[alias] = None
                elif value is None:
                    everything[alias] = None
                else:
                    value = everything[alias] = self._typed(found, value, listed=listed)
                shown[alias] = self._field(found, value)
            groups[group] = shown or []
        groups["all"] = everything
        return groups

    def _relations(self, row: Row, related: Row) -> Row:
        contact = row["id"]
        owner = None
        if row["owner_id"] is not None:
            admin = {"username": "admin", "firstName": "Ada", "lastName": "Admin"}
            user = self._instance.users.get(row["owner_id"], admin)
            shown = {key: user[key] for key in admin}
            owner = {"createdByUser": None, "modifiedByUser": None, "id": row["owner_id"], **shown}
        return {
            "lastActive": iso(row["last_active"]),
            "owner": owner,
            "ipAddresses": related["ips"].get(contact, []),
            "tags": related["tags"].get(contact, []),
            "utmtags": related["utm"].get(contact, []),
            "stage": self.stage(row["stage_id"]),
            "dateIdentified": iso(row["date_identified"]),
            "preferredProfileImage": row["preferred_profile_image"],
            "doNotContact": related["dnc"].get(contact, []),
            "frequencyRules": [],
        }

    def related(self, contacts: list[int | None]) -> Row:
        """What hangs on these contacts, by contact: addresses, tags, UTM tags, do-not-contact rows."""
        tables = self._instance.tables
        ids = [c for c in contacts if c is not None]
        marks = ", ".join(str(int(i)) for i in ids)
        found: Row = {"ips": {}, "tags": {}, "utm": {}, "dnc": {}, "dnc_dates": {}}
        if not ids:
            return found
        for contact, ip_id, address, details in tables.connection.execute(
            "SELECT x.lead_id, i.id, i.ip_address, i.ip_details FROM lead_ips_xref x JOIN ip_addresses i "
            f"ON i.id = x.ip_id WHERE x.lead_id IN ({marks}) ORDER BY i.id"
        ):
            shown = {"ipAddress": address, "id": ip_id, "ipDetails": _UNLOCATED if details != "N;" else ""}
            found["ips"].setdefault(contact, []).append(shown)
        for contact, tag_id, tag, description in tables.connection.execute(
            "SELECT x.lead_id, t.id, t.tag, t.description FROM lead_tags_xref x JOIN lead_tags t ON t.id = x.tag_id "
            f"WHERE x.lead_id IN ({marks}) ORDER BY t.tag COLLATE NOCASE"
        ):
            found["tags"].setdefault(contact, []).append({"id": tag_id, "tag": tag, "description": description})
        for row in tables.rows(f"SELECT * FROM lead_utmtags WHERE lead_id IN ({marks}) ORDER BY id"):
            found["utm"].setdefault(row["lead_id"], []).append(utm_tags(row))
        for row in tables.rows(f"SELECT * FROM lead_donotcontact WHERE lead_id IN ({marks}) ORDER BY id"):
            shown = {
                "id": row["id"], "reason": row["reason"], "comments": row["comments"], "channel": row["channel"],
                "channelId": row["channel_id"],
            }  # fmt: skip
            found["dnc"].setdefault(row["lead_id"], []).append(shown)
            found["dnc_dates"].setdefault(row["lead_id"], []).append(row["date_added"])
        return found


def utm_tags(row: Row) -> Row:
    """A UTM tag as contacts show it."""
    return {
        "id": row["id"],
        "query": unserialize(row["query"]) if row["query"] else [],
        "referer": row["referer"],
        "remoteHost": row["remote_host"],
        "url": row["url"],
        "userAgent": row["user_agent"],
        "utmCampaign": row["utm_campaign"],
        "utmContent": row["utm_content"],
        "utmMedium": row["utm_medium"],
        "utmSource": row["utm_source"],
        "utmTerm": row["utm_term"],
    }


def _without_nulls(values: Row) -> Row:
    return {k: v for k, v in values.items() if v is not None}
