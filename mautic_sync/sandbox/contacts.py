# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""Contacts and everything that happens to them through the API: making, editing, batches, points, stages, deletion."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from .contact_fields import BUILT_IN, SOCIAL, Field
from .instance import Actor, CrashedError, Instance, RefusedError
from .php import PhpDate, decode_entities, escape_special, strip_tags
from .shapes import Row, Shapes
from .values import IgnoredError, InvalidError, accepted

NOT_FOUND = "Item was not found."
#: Tables whose rows are the contact's own and go with it; in the others the rows stay without lead_id.
_GONE_WITH_CONTACT = [
    "lead_points_change_log",
    "lead_stages_change_log",
    "lead_donotcontact",
    "lead_devices",
    "lead_event_log",
    "lead_utmtags",
    "lead_lists_leads",
    "campaign_leads",
    "campaign_lead_event_log",
    "companies_leads",
    "lead_tags_xref",
    "lead_ips_xref",
    "lead_frequencyrules",
]
_LEFT_BEHIND = ("page_hits", "form_submissions", "email_stats", "asset_downloads", "video_hits")
_OPERATORS = {"plus": "add (+)", "minus": "subtract (-)", "times": "multiply (x)", "divide": "divide (/)"}
_LONGEST_EVENT_NAME = 191
_MAX_BATCH = 200
_TOO_LONG = (
    "An exception occurred while executing a query: SQLSTATE[22001]: String data, right truncated: 1406 Data too long "
    "for column '{}' at row 1"
)


@dataclass
class Edit:
    """What one edit does, collected before anything is written."""

    values: Row = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)
    echo: Row = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    status: int = 400


@dataclass
class Outcome:
    """What became of one item."""

    status: int
    row: Row | None = None
    echo: Row = field(default_factory=dict)
    created: bool = False
    error: Row | None = None


class Contacts:
    """The rules of contacts over the tables."""

    def __init__(self, instance: Instance, shapes: Shapes) -> None:
        self._instance = instance
        self._tables = instance.tables
        self._shapes = shapes

    # -- finding

    def load(self, contact: int) -> Row | None:
        return self._tables.row("SELECT * FROM leads WHERE id = ?", (contact,))

    def resolve(self, contact: int) -> Row | None:
        """The contact, or the survivor it was merged into (docs/mautic.md: "Merging, which renumbers people")."""
        found = self.load(contact)
        if found is None:
            survivor = self._tables.value(
                "SELECT contact_id FROM contact_merge_records WHERE merged_id = ?", (contact,)
            )
            found = self.load(survivor) if survivor is not None else None
        return found

    def need(self, contact: int, message: str = NOT_FOUND) -> Row:
        found = self.resolve(contact)
        if found is None:
            raise RefusedError(404, message)
        return found

    def by_email(self, address: str) -> list[int]:
        return self._tables.column("SELECT id FROM leads WHERE email = ? ORDER BY id", (address.strip(),))

    # -- making and editing one

    def create(self, actor: Actor, sent: Row, *, batch: bool, blank: bool = False) -> Outcome:
        """`POST new`: an address that exists updates its contact instead."""
        address = sent.get("email")
        if isinstance(address, str) and address.strip():
            known = self.by_email(address)
            if known:
                row = self.load(known[0])
                assert row is not None
                return self.edit(actor, row, sent, batch=batch, blank=blank, found_by_address=True)
        instance = self._instance
        empty: Row = dict.fromkeys(self._tables.contact_columns)
        empty |= {"is_published": 1, "points": 0, "internal": 0}
        edit = self._read(empty, sent, blank=blank, batch=batch)
        self._check_stage(empty, sent, edit, creating=True)
        if edit.errors:
            return self._refusal(edit)
        stamps = instance.stamps(actor)
        row = {**empty, **stamps, "added_at": instance.moment(), "changed_at": instance.moment()}
        changes = self._apply_fields(row, edit, listed=False, creating=True)
        if blank and "points" not in changes:
            _note_change(changes, instance.fields_by_alias["points"], 0, 0.0, old_field=0)
        row["owner_id"] = self._owner(sent)
        row["stage_id"] = edit.values.get("stage_id")
        row.pop("id")
        if row["stage_id"] is not None:
            changes = {"stage": [None, row["stage_id"]]} | changes
        row["id"] = self._tables.insert("leads", row)
        self._company(actor, row)
        identified = self._identify(row, changes, before="")
        tags = self._tags(row["id"], sent.get("tags"))
        if tags:
            at = list(changes)
            rebuilt = {k: changes[k] for k in at if k != "dateIdentified"} | {"tags": tags}
            changes = rebuilt | ({"dateIdentified": changes["dateIdentified"]} if "dateIdentified" in changes else {})
        if row["stage_id"] is not None:
            for _ in range(2):  # docs/mautic.md: "Writing": `POST new` with a stage writes two lines
                self._log_stage(row["id"], row["stage_id"], "Stage changed", plain=True)
        if sent.get("ipAddress"):
            instance.ip_id(str(sent["ipAddress"]), looked_up=False)
        self._store(row)
        self._write_audit(actor, row["id"], "create", changes, "api-batch" if batch else "api-single")
        if identified:
            self._say_identified(actor, row["id"], "lead", "api-batch" if batch else "api-single", actor.name or "")
        self._dnc_of_edit(actor, row["id"], sent)
        return Outcome(201, row, edit.echo, created=True)

    def edit(
        self,
        actor: Actor,
        row: Row,
        sent: Row,
        *,
        batch: bool,
        blank: bool = False,
        found_by_address: bool = False,
        found_alone: bool = False,
    ) -> Outcome:
        """An edit of a contact already read; in a batch it writes back the points it read (docs/mautic.md: "Writing")."""
        edit = self._read(row, sent, blank=blank, batch=batch)
        if "owner" not in sent and row["owner_id"] is not None and row["owner_id"] not in self._published_users():
            edit.errors["owner"] = [self._instance.traits.invalid_choice]
        self._check_unique(row, edit)
        self._check_stage(row, sent, edit, creating=False)
        if edit.errors:
            return self._refusal(edit, row)
        before = dict(row)
        row = dict(row)
        changes: Row = {}
        tags = self._tags(row["id"], sent.get("tags"))
        if tags and not found_by_address:
            changes["tags"] = tags
        if "stage_id" in edit.values and edit.values["stage_id"] != row["stage_id"]:
            changes["stage"] = [row["stage_id"], edit.values["stage_id"]]
            row["stage_id"] = edit.values["stage_id"]
        if edit.values.get("stage_id") is not None:
            self._log_stage_of_edit(row["id"], edit.values["stage_id"])
        changes |= self._apply_fields(row, edit, listed=batch, creating=False)
        if tags and found_by_address:
            changes["tags"] = tags
        rewrites = batch and bool(before["points"]) and not found_alone
        if rewrites and "points" not in changes:
            points = {"points": [before["points"], float(before["points"])]}
            lead = {k: changes[k] for k in ("tags", "stage") if k in changes}
            changes = lead | points | {k: v for k, v in changes.items() if k not in lead}
        if "owner" in sent:
            owner = self._owner(sent)
            if owner != row["owner_id"]:
                changes["owner"] = [row["owner_id"], owner]
                row["owner_id"] = owner
        if sent.get("lastActive"):
            self._set_last_active(row, sent["lastActive"], changes)
        if "company" in edit.values:
            self._company(actor, row)
        identified = self._identify(row, changes, before="")
        if changes:
            row |= self._instance.touched(actor, row["date_modified"])
            row["changed_at"] = self._instance.moment()
            written = {k: v for k, v in row.items() if k != "id" and v != before[k]}
            if rewrites:
                written["points"] = row["points"]
            self._tables.update("leads", row["id"], written)
            self._write_audit(actor, row["id"], "update", changes, "api-batch" if batch else "api-single")
            if identified:
                self._say_identified(actor, row["id"], "lead", "api-batch" if batch else "api-single", actor.name or "")
        self._dnc_of_edit(actor, row["id"], sent)
        if not row["points"]:
            row["points"] = 0
        return Outcome(200, row, edit.echo)

    def _read(self, row: Row, sent: Row, *, blank: bool, batch: bool) -> Edit:
        """Which field values the request sets, which it may not, and what the echo shows beside the row."""
        instance = self._instance
        edit = Edit()
        blank = blank or bool(sent.get("overwriteWithBlank"))
        for found in instance.ordered_fields:
            alias = found.alias
            value = sent.get(alias)
            is_blank = value is None or value == ""
            if is_blank:
                if not blank:
                    continue
                sent_blank = alias in sent
                if row[alias] is None or (alias == "points" and not row[alias]):
                    edit.echo[alias] = (0.0 if found.scale else 0) if found.is_number else ""
                    if batch and alias == "points":
                        edit.values[alias] = None
                elif sent_blank or self._put_blanks(sent, alias):
                    edit.values[alias] = 0 if alias == "points" and not batch else None
                    if not found.is_number:
                        edit.echo |= {alias: "", f"-{alias}": True}
                    else:
                        edit.echo[alias] = 0.0 if found.scale else 0
                continue
            try:
                edit.values[alias] = accepted(
                    found, value, invalid_choice=instance.traits.invalid_choice,
                    keep_seconds=instance.traits.modified_frozen or not row.get("id"),
                )  # fmt: skip
            except IgnoredError:
                continue
            except InvalidError as refused:
                edit.errors[alias] = [refused.message]
        return edit

    @staticmethod
    def _put_blanks(sent: Row, alias: str) -> bool:
        """PUT blanks what is not sent; PATCH with overwriteWithBlank only what is sent empty."""
        return alias not in sent and "overwriteWithBlank" not in sent

    def _check_unique(self, row: Row, edit: Edit) -> None:
        """An address that another contact has too makes every edit fail, whatever is sent."""
        address = edit.values["email"] if "email" in edit.values else row["email"]
        if address and any(other != row["id"] for other in self.by_email(str(address))):
            edit.errors.setdefault("email", ["This field must be unique."])
            edit.status = 422

    def _check_stage(self, row: Row, sent: Row, edit: Edit, *, creating: bool) -> None:
        instance = self._instance
        settable = set(instance.settable_stages().values())
        if "stage" not in sent:
            if row["stage_id"] is not None and row["stage_id"] not in settable:
                edit.errors["stage"] = [instance.traits.invalid_choice]
            return
        wanted = sent["stage"]
        if wanted is None:
            edit.values["stage_id"] = None
            return
        if wanted == "" or wanted is False:
            raise CrashedError
        number = int(wanted) if isinstance(wanted, int) or str(wanted).isdigit() else 0
        if number not in settable:
            if creating:
                raise CrashedError
            edit.errors["stage"] = [instance.traits.invalid_choice]
            return
        edit.values["stage_id"] = number

    @staticmethod
    def _refusal(edit: Edit, row: Row | None = None) -> Outcome:
        message = ", ".join(f"{alias}: {', '.join(texts)}" for alias, texts in edit.errors.items())
        return Outcome(edit.status, row, error={"code": edit.status, "message": message, "details": edit.errors})

    def _apply_fields(self, row: Row, edit: Edit, *, listed: bool, creating: bool) -> Row:
        """Writes the values into the row; the changes come back as audit details have them."""
        changes: Row = {}
        fields = self._instance.column_fields if listed else self._instance.ordered_fields
        for found in fields:
            alias = found.alias
            if alias not in edit.values:
                continue
            old, new = row[alias], edit.values[alias]
            if alias == "points":
                if (new is None and not listed) or (new is not None and old == new and not creating):
                    continue
                old_points = int(old or 0)
                shown = None if new is None else float(new)
                _note_change(changes, found, old_points, shown, old_field=float(old_points))
                row["points"] = int(new or 0)
                continue
            if old == new or (old is None and new is None):
                continue
            _note_change(changes, found, old, float(new) if found.is_number and new is not None else new)
            row[alias] = new
        return changes

    def _owner(self, sent: Row) -> int | None:
        owner = sent.get("owner")
        if owner in {None, "", 0, "0"}:
            return None
        if not str(owner).isdigit() or int(str(owner)) not in self._published_users():
            raise RefusedError(
                400,
                f"owner: {self._instance.traits.invalid_choice}",
                {"owner": [self._instance.traits.invalid_choice]},
            )
        return int(str(owner))

    def _published_users(self) -> set[int]:
        return {1, *(number for number, user in self._instance.users.items() if user.get("isPublished", True))}

    def _set_last_active(self, row: Row, value: Any, changes: Row) -> None:
        found = self._instance.fields_by_alias["last_active"]
        try:
            moment = accepted(found, value, invalid_choice="", keep_seconds=True)
        except IgnoredError:
            return
        if moment != row["last_active"]:
            changes["lastActive"] = [row["last_active"], moment]
            row["last_active"] = moment

    def _company(self, actor: Actor, row: Row) -> None:
        """A company's name makes or finds the company and ties the contact to it."""
        name = row["company"]
        self._tables.run("DELETE FROM companies_leads WHERE lead_id = ?", (row["id"],))
        if not name:
            return
        instance = self._instance
        company = self._tables.value("SELECT id FROM companies WHERE companyname = ?", (name,))
        if company is None:
            company = self._tables.insert("companies", {"companyname": name, "date_added": instance.now})
            details = {"companyname": [None, name], "fields": {"companyname": [None, name]}}
            instance.audit(actor, "lead", "company", company, "create", details | instance.modified_details())
        tie = {"company_id": company, "lead_id": row["id"], "date_added": instance.now, "is_primary": 1}
        self._tables.insert("companies_leads", tie)

    def _identify(self, row: Row, changes: Row, *, before: str | None) -> bool:
        """Whether the contact becomes known by this change (docs/mautic.md: anonymous for Mautic)."""
        if row["date_identified"] is not None or is_anonymous(row):
            return False
        row["date_identified"] = self._instance.now
        changes["dateIdentified"] = [before, PhpDate(self._instance.clock.now())]
        return True

    def _say_identified(
        self, actor: Actor, contact: int, bundle: str, source: str, described: str, source_id: int | None = None
    ) -> None:
        self._instance.audit(actor, "lead", "lead", contact, "identified", {})
        self._instance.log_event(contact, bundle, source, "identified_contact", described, source_id)

    def _write_audit(self, actor: Actor, contact: int, action: str, changes: Row, source: str) -> None:
        if changes:
            signed = changes | {"manipulated_by": actor.name or "", "manipulator_key": f"lead:{source}"}
            self._instance.audit(actor, "lead", "lead", contact, action, signed)

    def _store(self, row: Row) -> None:
        self._tables.update("leads", row["id"], {k: v for k, v in row.items() if k != "id"})

    # -- tags

    def _tags(self, contact: int, wanted: Any) -> Row:
        """Adds `x`, removes `-x`; names are case-sensitive. What changed comes back as audit details have it."""
        if isinstance(wanted, str):
            wanted = wanted.split(",")
        if not isinstance(wanted, list):
            return {}
        added, removed = [], []
        for entry in wanted:
            name = self._tag_name(str(entry))
            if name.startswith("-"):
                tag = self._tables.value("SELECT id FROM lead_tags WHERE tag = ?", (name[1:],))
                gone = tag is not None and self._tables.run(
                    "DELETE FROM lead_tags_xref WHERE lead_id = ? AND tag_id = ?", (contact, tag)
                )
                if gone:
                    removed.append(name[1:])
            elif name and self.tag(contact, name):
                added.append(name)
        return ({"added": added} if added else {}) | ({"removed": removed} if removed else {})

    def _tag_name(self, sent: str) -> str:
        text = decode_entities(sent.strip())
        return escape_special(text) if self._instance.traits.tags_escaped else strip_tags(text)

    def tag(self, contact: int, name: str) -> bool:
        return bool(
            self._tables.run("INSERT OR IGNORE INTO lead_tags_xref VALUES (?, ?)", (contact, self.tag_id(name)))
        )

    def tag_id(self, name: str) -> int:
        found = self._tables.value("SELECT id FROM lead_tags WHERE tag = ?", (name,))
        return int(found) if found is not None else self._tables.insert("lead_tags", {"tag": name})

    # -- stages

    def _log_stage(self, contact: int, stage: int, action: str, *, plain: bool) -> None:
        name = self._instance.stages[stage].name
        self._tables.insert(
            "lead_stages_change_log",
            {
                "lead_id": contact, "stage_id": stage, "event_name": f"{stage}:{'' if plain else ' '}{name}",
                "action_name": action, "date_added": self._instance.now,
            },
        )  # fmt: skip

    def _log_stage_of_edit(self, contact: int, stage: int) -> None:
        """Mautic compares with the latest line, which after a null or within one second is not the current stage."""
        tie = "ASC" if self._instance.traits.stage_lines_tie else "DESC"
        latest = self._tables.value(
            f"SELECT stage_id FROM lead_stages_change_log WHERE lead_id = ? ORDER BY date_added DESC, id {tie} LIMIT 1",
            (contact,),
        )
        if latest != stage:
            self._log_stage(contact, stage, "Stage changed", plain=True)

    def add_to_stage(self, actor: Actor, stage: int, contact: int) -> None:
        if stage not in self._instance.stages:
            raise RefusedError(404, NOT_FOUND)
        row = self.need(contact, "Contact not found.")
        self._log_stage(row["id"], stage, "Manually Added", plain=False)
        self._move_stage(actor, row, stage)

    def remove_from_stage(self, actor: Actor, stage: int, contact: int) -> None:
        """Clears whatever stage the contact is in."""
        if stage not in self._instance.stages:
            raise RefusedError(404, NOT_FOUND)
        row = self.need(contact, "Contact not found.")
        self._log_stage(row["id"], stage, "Manually Removed", plain=False)
        self._move_stage(actor, row, None)

    def _move_stage(self, actor: Actor, row: Row, stage: int | None) -> None:
        if row["stage_id"] != stage:
            self.change(actor, row, {"stage_id": stage}, {"stage": [row["stage_id"], stage]})

    def change(self, actor: Actor, row: Row, values: Row, details: Row) -> None:
        """A small change with its audit row."""
        touched = self._instance.touched(actor, row["date_modified"])
        moved = {**values, **touched, "changed_at": self._instance.moment()}
        self._tables.update("leads", row["id"], moved)
        row |= moved
        self._instance.audit(actor, "lead", "lead", row["id"], "update", details)

    # -- points

    def add_points(
        self, actor: Actor, contact: int, operator: str, amount: str, sent: Row, group: int | None = None
    ) -> None:
        row = self.need(contact, "Contact not found.")
        try:
            number = int(float(amount))
        except ValueError:
            raise CrashedError from None
        if operator not in _OPERATORS:
            raise CrashedError
        name = escape_special(str(sent.get("eventName") or _OPERATORS[operator]))
        action = escape_special(str(sent.get("actionName") or "API"))
        for column, text in (("event_name", name), ("action_name", action)):
            if len(text) > _LONGEST_EVENT_NAME:
                raise RefusedError(400, _TOO_LONG.format(column))
        before = int(row["points"] or 0)
        after = {
            "plus": before + number,
            "minus": before - number,
            "times": before * number,
            "divide": int(before / number) if number else before,
        }[operator]
        self.log_points(row["id"], actor.ip, "API", name, action, number, group)
        if after != before:
            self.change(actor, row, {"points": after}, {"points": [before, after]})

    def log_points(
        self, contact: int, ip: str, kind: str, name: str, action: str, delta: int, group: int | None = None
    ) -> None:
        self._tables.insert(
            "lead_points_change_log",
            {
                "lead_id": contact, "ip_id": self._instance.ip_id(ip), "group_id": group, "type": kind,
                "event_name": name, "action_name": action, "delta": delta, "date_added": self._instance.now,
            },
        )  # fmt: skip

    # -- do-not-contact

    def add_dnc(
        self, actor: Actor, row: Row, channel: str, reason: int, comments: str, channel_id: int | None = None
    ) -> bool:
        """A second row of one channel is ignored, or replaces a milder one, by version."""
        instance = self._instance
        present = self._tables.row(
            "SELECT id, reason FROM lead_donotcontact WHERE lead_id = ? AND channel = ?", (row["id"], channel)
        )
        status: Row = {"reason": reason}
        if present is not None:
            if present["reason"] in instance.traits.dnc_kept_reasons or present["reason"] == reason:
                return False
            self._tables.run("DELETE FROM lead_donotcontact WHERE id = ?", (present["id"],))
            status["old_reason"] = present["reason"]
        self._tables.insert(
            "lead_donotcontact",
            {
                "lead_id": row["id"], "date_added": instance.now, "reason": reason, "channel": channel,
                "channel_id": channel_id, "comments": comments,
            },
        )  # fmt: skip
        self.change(actor, row, {}, {"dnc_channel_status": {channel: status | {"comments": comments}}})
        return True

    def remove_dnc(self, actor: Actor, row: Row, channel: str) -> bool:
        present = self._tables.row(
            "SELECT id, reason, comments FROM lead_donotcontact WHERE lead_id = ? AND channel = ?", (row["id"], channel)
        )
        if present is None:
            return False
        self._tables.run("DELETE FROM lead_donotcontact WHERE id = ?", (present["id"],))
        status = {"reason": 0, "old_reason": present["reason"], "comments": present["comments"]}
        self.change(actor, row, {}, {"dnc_channel_status": {channel: status}})
        return True

    def _dnc_of_edit(self, actor: Actor, contact: int, sent: Row) -> None:
        for entry in sent.get("doNotContact") or []:
            if isinstance(entry, Mapping) and entry.get("channel"):
                row = self.need(contact)
                reason = int(entry.get("reason") or 3)
                if reason == 0:
                    self.remove_dnc(actor, row, str(entry["channel"]))
                else:
                    self.add_dnc(actor, row, str(entry["channel"]), reason, str(entry.get("comments") or ""))

    # -- deleting

    def delete(self, actor: Actor, row: Row, *, audited: bool = True) -> None:
        contact = row["id"]
        for table in _GONE_WITH_CONTACT:
            self._tables.run(f"DELETE FROM {table} WHERE lead_id = ?", (contact,))
        for table in _LEFT_BEHIND:
            self._tables.run(f"UPDATE {table} SET lead_id = NULL WHERE lead_id = ?", (contact,))
        self._tables.run("DELETE FROM contact_merge_records WHERE contact_id = ?", (contact,))
        self._tables.run("DELETE FROM lead_notes WHERE lead_id = ?", (contact,))
        self._tables.run("DELETE FROM point_group_contact_score WHERE contact_id = ?", (contact,))
        self._tables.run("DELETE FROM leads WHERE id = ?", (contact,))
        if audited:
            self._instance.audit(actor, "lead", "lead", contact, "delete", {"name": primary_identifier(row)})

    # -- batches

    def batch_create(self, actor: Actor, items: list[Any]) -> tuple[list[Outcome], None]:
        _check_size(items)
        return [self.create(actor, dict(item) if isinstance(item, dict) else {}, batch=True) for item in items], None

    def batch_edit(
        self,
        actor: Actor,
        items: list[Any],
        *,
        method: str,
        step: Callable[[], AbstractContextManager[Any]],
    ) -> dict[int, Outcome]:
        """Each item in turn, from contacts read beforehand; `step` holds the lock for one of them.

        Between two items others may write, and a batch then puts old points back: that is Mautic's race.
        """
        _check_size(items)
        if any(isinstance(item, int | float) for item in items):
            raise CrashedError
        with self._instance.lock:
            loaded, errors = self._load_batch(items)
        outcomes: dict[int, Outcome] = {}
        rights = actor.rights
        used: set[int] = set()
        asked = {_item_id(item) for item in items}
        for index, item in enumerate(items):
            with step():
                sent = dict(item) if isinstance(item, dict) else {}
                row = loaded.get(index)
                if row is None and method == "PATCH":
                    outcomes[index] = Outcome(404, error={"message": NOT_FOUND, "code": 404, "type": "api"})
                    continue
                if rights is not None and "contacts:edit" not in rights:
                    outcomes[index] = Outcome(403, error={"message": _FORBIDDEN, "code": 403, "type": "api"})
                    continue
                if row is None:
                    outcomes[index] = self.create(actor, sent, batch=True, blank=True)
                    continue
                if row["id"] in used and self._instance.traits.repeated_id_clones:
                    self._clone(row)
                alone = row["id"] not in asked  # a survivor is read by itself, and keeps its points
                outcome = self.edit(actor, row, sent, batch=True, blank=method == "PUT", found_alone=alone)
                if outcome.error is None and outcome.row is not None:
                    row.update(outcome.row)
                    outcome = replace(outcome, row=row)
                used.add(row["id"])
                outcomes[index] = self._with_error(outcome, errors.get(index))
        return outcomes

    @staticmethod
    def _with_error(outcome: Outcome, error: Row | None) -> Outcome:
        return outcome if error is None else replace(outcome, status=error["code"], error=error)

    def _load_batch(self, items: list[Any]) -> tuple[dict[int, Row], dict[int, Row]]:
        """Which contact meets which item. Items without an id are left out when the contacts are counted off.

        docs/mautic.md: "Writing": the next contact receives the values of the item before it.
        """
        errors: dict[int, Row] = {}
        wanted: list[int] = []
        for index, item in enumerate(items):
            number = _item_id(item)
            if number is None:
                errors[index] = {"message": "mautic.api.call.id_missing", "code": 400, "type": "api"}
            else:
                wanted.append(number)
        rows: dict[int, Row] = {}
        found: dict[int, Row] = {}
        for position, number in enumerate(wanted):
            if number not in rows:
                follow = self._instance.traits.batch_follows_merges
                row = self.resolve(number) if follow else self.load(number)
                if row is not None:
                    rows[number] = row
            if number in rows:
                found[position] = rows[number]
        return found, errors

    def _clone(self, row: Row) -> None:
        """The second item with one id: the entity, detached after its first save, is stored as a new contact."""
        copy = {k: v for k, v in row.items() if k != "id"}
        row["id"] = self._tables.insert("leads", copy)


_FORBIDDEN = "You do not have access to the requested area/action."


def is_anonymous(row: Row) -> bool:
    """No name, company, address or social handle; a phone does not count (docs/mautic.md)."""
    return not any(row.get(alias) for alias in ("firstname", "lastname", "company", "email", *SOCIAL))


def primary_identifier(row: Row) -> str:
    """What Mautic calls a contact in its logs."""
    name = " ".join(part for part in (row["firstname"], row["lastname"]) if part)
    social = next((row[a] for a in SOCIAL if row.get(a)), None)
    return name or row["company"] or row["email"] or social or "Anonymous"


def _note_change(changes: Row, found: Field, old: Any, new: Any, *, old_field: Any = ...) -> None:
    if found.alias in BUILT_IN:
        changes[found.alias] = [old, new]
    changes.setdefault("fields", {})[found.alias] = [old if old_field is ... else old_field, new]


def _check_size(items: list[Any]) -> None:
    if len(items) > _MAX_BATCH:
        raise RefusedError(500, f"A max of {_MAX_BATCH} entities are supported at a time.")


def _item_id(item: Any) -> int | None:
    number = item.get("id") if isinstance(item, dict) else None
    if isinstance(number, bool) or number is None or not str(number).isdigit():
        return None
    return int(number) or None
