# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""What a Mautic holds besides contacts: stages, fields, segments, campaigns, forms, e-mails, assets, hooks, tags, notes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from typing import Any

from .clock import iso
from .contact_fields import Field
from .contacts import NOT_FOUND, Contacts
from .instance import Actor, Instance, RefusedError, Stage
from .php import PhpDate, decode_entities, escape_special, php_array, strip_tags
from .shapes import Row, Shapes

_ENTITY_DATES = ("dateAdded", "dateModified")
_TRIGGERS = {
    "mautic.company_post_save": ("Company Create/Update Event", "Triggered when a company is created/updated"),
    "mautic.company_post_delete": ("Company Deleted Event", "Triggered when a company is deleted"),
    "mautic.lead_channel_subscription_changed": (
        "Contact Channel Subscription Change Event",
        "Triggered when a contact's channel subscription status changes.",
    ),
    "mautic.lead_company_change": ("Contact Company Subscription Change Event", ""),
    "mautic.lead_post_delete": ("Contact Deleted Event", "Triggered when a contact is deleted."),
    "mautic.lead_post_save_new": ("Contact Identified Event", "Triggered when a contact is identified."),
    "mautic.lead_points_change": ("Contact Points Changed Event", "Triggered when a contact's points are modified."),
    "mautic.lead_list_change": (
        "Contact Segment Membership Change Event",
        "Triggered when a contact segment membership is changed",
    ),
    "mautic.lead_post_save_update": ("Contact Updated Event", "Triggered when a contact is updated."),
    "mautic.email_on_open": ("Email Open Event", "mautic.email.webhook.event.open_desc"),
    "mautic.email_on_send": ("Email Send Event", "mautic.email.webhook.event.send_desc"),
    "mautic.form_on_submit": ("Form Submit Event", "mautic.form.webhook.event.form.submit_desc"),
    "mautic.page_on_hit": ("Page Hit Event", "mautic.page.webhook.event.hit_desc"),
    "mautic.sms_on_send": ("Text Send Event", "mautic.sms.webhook.event.send_desc"),
}
_DYNAMIC_CONTENT = [
    {
        "tokenName": "Dynamic Content 1",
        "content": "Default Dynamic Content",
        "filters": [
            {
                "content": None,
                "filters": [
                    {
                        "glue": None, "field": None, "object": None,
                        "type": "Symfony\\Component\\Form\\Extension\\Core\\Type\\TextType", "operator": None,
                        "display": None, "filter": None,
                    }
                ],
            }
        ],
    }
]  # fmt: skip
_SIZES = {"remote": -1}


class Catalogue:
    """Everything that is made, listed, edited and deleted through one pattern of calls."""

    def __init__(self, instance: Instance, shapes: Shapes, contacts: Contacts) -> None:
        self._instance = instance
        self._tables = instance.tables
        self._shapes = shapes
        self._contacts = contacts
        self._makers: dict[str, Callable[[Actor, Row, Row], None]] = {
            "segments": self._fill_segment,
            "campaigns": self._fill_campaign,
            "forms": self._fill_form,
            "emails": self._fill_email,
            "assets": self._fill_asset,
            "hooks": self._fill_hook,
            "points/groups": self._fill_point_group,
            "points/triggers": self._fill_trigger,
            "points": self._fill_point_rule,
        }

    # -- stages

    def stage(self, stage_id: int) -> Stage:
        found = self._instance.stages.get(stage_id)
        if found is None:
            raise RefusedError(404, NOT_FOUND)
        return found

    def shown_stage(self, stage: Stage) -> Row:
        shown = {
            "isPublished": stage.is_published, "dateAdded": iso(stage.date_added),
            "dateModified": iso(stage.date_modified), "createdBy": stage.created_by,
            "createdByUser": stage.created_by_user, "modifiedBy": stage.modified_by,
            "modifiedByUser": stage.modified_by_user, "id": stage.id, "name": stage.name, "category": stage.category,
            "weight": stage.weight, "description": stage.description, "publishUp": stage.publish_up,
            "publishDown": stage.publish_down,
        }  # fmt: skip
        return self._with_projects(shown)

    def list_stages(self, query: Row) -> Row:
        stages = sorted(self._instance.stages.values(), key=lambda s: s.id)
        return {"total": len(stages), "stages": [self.shown_stage(s) for s in paged(stages, query)]}

    def make_stage(self, actor: Actor, sent: Row) -> Stage:
        name = strip_tags(str(sent.get("name") or ""))
        if not name:
            raise invalid("name", "A name is required.")
        instance = self._instance
        stage = Stage(id=instance.next_id("stages"), name=name, **instance.stamps(actor))
        self._set_stage(stage, sent)
        instance.stages[stage.id] = stage
        described = {"description": [None, stage.description]} if stage.description else {}
        details = described | {"name": [None, name]} | instance.modified_details()
        instance.audit(actor, "stage", "stage", stage.id, "create", details)
        return stage

    def edit_stage(self, actor: Actor, stage: Stage, sent: Row) -> Stage:
        instance = self._instance
        before = {f.name: getattr(stage, f.name) for f in dataclass_fields(stage)}
        self._set_stage(stage, sent)
        if sent.get("name"):
            stage.name = strip_tags(str(sent["name"]))
        audited = ("description", "name", "weight", "is_published")
        changes: Row = {_camel(n): [before[n], getattr(stage, n)] for n in audited if before[n] != getattr(stage, n)}
        if changes:
            touched = instance.touched(actor, stage.date_modified)
            if touched["date_modified"] != stage.date_modified:
                changes["dateModified"] = [iso(stage.date_modified), iso(touched["date_modified"])]
            for name, value in touched.items():
                setattr(stage, name, value)
            instance.audit(actor, "stage", "stage", stage.id, "update", changes)
        return stage

    def delete_stage(self, stage: Stage) -> None:
        """Its contacts lose it; no audit row tells (docs/mautic.md: "Reading what changed")."""
        del self._instance.stages[stage.id]
        self._tables.run("UPDATE leads SET stage_id = NULL WHERE stage_id = ?", (stage.id,))
        self._tables.run("DELETE FROM lead_stages_change_log WHERE stage_id = ?", (stage.id,))

    @staticmethod
    def _set_stage(stage: Stage, sent: Row) -> None:
        if "description" in sent:
            stage.description = sent["description"] if sent["description"] is None else str(sent["description"])
        if "weight" in sent:
            stage.weight = int(sent["weight"] or 0)
        if "isPublished" in sent:
            stage.is_published = truth(sent["isPublished"])

    # -- fields

    def shown_field(self, found: Field) -> Row:
        shown = {
            "isPublished": found.published, "dateAdded": iso(found.date_added),
            "dateModified": iso(found.date_modified), "createdBy": None, "createdByUser": found.created_by_user,
            "modifiedBy": None, "modifiedByUser": found.modified_by_user, "id": found.id, "label": found.label,
            "alias": found.alias, "type": found.type, "group": found.group, "order": found.order, "object": "lead",
            "defaultValue": found.default, "isRequired": found.required, "isFixed": found.fixed, "isListable": True,
            "isVisible": True, "isShortVisible": found.short_visible, "isUniqueIdentifier": found.unique,
            "isPubliclyUpdatable": False, "properties": found.properties,
        }  # fmt: skip
        if self._instance.traits.field_extras:
            limited = found.fixed or found.type in {"text", "select", "lookup", "multiselect"} or found.id <= 28
            shown |= {"isIndex": found.unique, "charLengthLimit": 64 if limited else None}
        return shown

    def list_fields(self, query: Row) -> Row:
        fields = sorted(self._instance.fields, key=lambda f: f.id)
        return {"total": len(fields), "fields": {str(f.id): self.shown_field(f) for f in paged(fields, query)}}

    def field(self, field_id: int) -> Field:
        found = next((f for f in self._instance.fields if f.id == field_id), None)
        if found is None:
            raise RefusedError(404, NOT_FOUND)
        return found

    def make_field(self, actor: Actor, sent: Row) -> Field:
        instance = self._instance
        label = strip_tags(str(sent.get("label") or ""))
        if not label:
            raise invalid("label", "A label is required.")
        alias = re.sub(r"[^a-z0-9_]+", "_", str(sent.get("alias") or label).lower()).strip("_")
        if alias in instance.fields_by_alias or alias in instance.tables.contact_columns:
            raise invalid("alias", instance.traits.alias_taken)
        properties = sent.get("properties")
        stamps = instance.stamps(actor)
        made = Field(
            id=instance.next_field_id(),
            label=label,
            alias=alias,
            type=str(sent.get("type") or "text"),
            group=str(sent.get("group") or "core"),
            order=instance.custom_order(),
            short_visible=instance.traits.field_short_visible,
            unique=truth(sent.get("isUniqueIdentifier", False)),
            default=sent.get("defaultValue"),
            properties=dict(properties) if isinstance(properties, Mapping) else {},
            published=truth(sent.get("isPublished", True)),
            date_added=stamps["date_added"],
            date_modified=stamps["date_modified"],
            created_by_user=stamps["created_by_user"],
            modified_by_user=stamps["modified_by_user"],
        )
        instance.add_field(made)
        instance.audit(actor, "lead", "field", made.id, "create", self._field_details(made))
        return made

    def _field_details(self, made: Field) -> Row:
        kind: Row = {"type": ["text", made.type]} if made.type != "text" else {}
        order: Row = {"order": [1, made.order]} if made.order != 1 else {}
        properties: Row = {"properties": [[], made.properties]} if made.properties else {}
        alias: Row = {"alias": [None, made.alias]}
        limit: Row = {"charLengthLimit": [64, None]} if made.type != "text" else {}
        label: Row = {"label": [None, made.label]}
        if self._instance.traits.field_extras:
            return label | kind | properties | alias | limit | order | self._instance.modified_details()
        return label | kind | properties | order | alias | limit

    def edit_field(self, actor: Actor, found: Field, sent: Row) -> Field:
        if sent.get("label"):
            found.label = strip_tags(str(sent["label"]))
        if isinstance(sent.get("properties"), Mapping):
            found.properties = dict(sent["properties"])
        touched = self._instance.touched(actor, found.date_modified)
        found.date_modified, found.modified_by_user = touched["date_modified"], touched["modified_by_user"]
        return found

    # -- entities of one pattern

    def kind(self, kind: str) -> dict[int, Row]:
        return self._instance.entities.setdefault(kind, {})

    def entity(self, kind: str, entity_id: int) -> Row:
        found = self.kind(kind).get(entity_id)
        if found is None:
            raise RefusedError(404, NOT_FOUND)
        return found

    def make(self, kind: str, actor: Actor, sent: Row) -> Row:
        """A new segment, campaign, form, e-mail, asset, hook or point group."""
        instance = self._instance
        name_key = "title" if kind == "assets" else "name"
        name = strip_tags(str(sent.get(name_key) or ""))
        if not name:
            raise invalid(name_key, f"A {name_key} is required.")
        made = self._stamped(actor)
        made |= {"isPublished": truth(sent.get("isPublished", True))}
        made |= {"id": instance.next_id(kind), name_key: name}
        self._makers[kind](actor, made, sent)
        if kind not in {"points/groups", "hooks"}:
            made = self._with_projects(made)
        self.kind(kind)[made["id"]] = made
        return made

    def edit(self, kind: str, actor: Actor, found: Row, sent: Row) -> Row:
        for key, value in sent.items():
            if key in found and key not in {"id", *_ENTITY_DATES, "fields", "events"}:
                found[key] = truth(value) if key == "isPublished" else value
        touched = self._instance.touched(actor, None)
        if not (self._instance.traits.modified_frozen and found.get("dateModified")):
            found["dateModified"] = iso(touched["date_modified"])
        found["modifiedBy"], found["modifiedByUser"] = actor.user_id, actor.signature
        bundle = _BUNDLES.get(kind)
        if bundle is not None:
            self._instance.audit(
                actor, bundle[0], bundle[1], found["id"], "update", {"name": [None, found.get("name")]}
            )
        return found

    def _stamped(self, actor: Actor) -> Row:
        stamps = self._instance.stamps(actor)
        return {
            "isPublished": True, "dateAdded": iso(stamps["date_added"]), "dateModified": iso(stamps["date_modified"]),
            "createdBy": stamps["created_by"], "createdByUser": stamps["created_by_user"],
            "modifiedBy": stamps["modified_by"], "modifiedByUser": stamps["modified_by_user"],
        }  # fmt: skip

    def _with_projects(self, shown: Row) -> Row:
        return shown | {"projects": []} if self._instance.traits.has_projects else shown

    def _twice_saved(self, made: Row, actor: Actor) -> None:
        """Some entities are saved a second time at once: who modified them is then set on every version."""
        made["modifiedBy"], made["modifiedByUser"] = actor.user_id, actor.name

    def _fill_segment(self, actor: Actor, made: Row, sent: Row) -> None:
        made |= {
            "publicName": str(sent.get("publicName") or made["name"]),
            "alias": str(sent.get("alias") or slug(made["name"])), "description": sent.get("description"),
            "category": None, "filters": sent.get("filters") or [], "isGlobal": truth(sent.get("isGlobal", True)),
            "isPreferenceCenter": truth(sent.get("isPreferenceCenter", False)),
        }  # fmt: skip
        for condition in made["filters"]:
            if isinstance(condition, dict) and condition.get("type") == "stage" and condition.get("operator") == "eq":
                raise invalid("filters", "The operator is not valid for this field.")
        details = {"name": [None, made["name"]], "alias": [None, made["alias"]]}
        self._instance.audit(actor, "lead", "segment", made["id"], "create", details)
        if made["filters"] and self._instance.traits.filtered_segment_saved_twice:
            self._instance.audit(actor, "lead", "segment", made["id"], "update", {"filters": [[], made["filters"]]})

    def _fill_campaign(self, actor: Actor, made: Row, sent: Row) -> None:
        instance = self._instance
        ids: dict[str, str] = {}
        events = []
        for event in sent.get("events") or []:
            number = instance.next_id("campaign_events")
            ids[str(event.get("id"))] = str(number)
            events.append(
                {
                    "id": number, "name": event.get("name"), "description": event.get("description"),
                    "type": event.get("type"), "eventType": event.get("eventType"), "channel": None, "channelId": None,
                    "order": event.get("order", 0), "properties": event.get("properties") or [], "triggerDate": None,
                    "triggerInterval": event.get("triggerInterval", 0), "triggerIntervalUnit": None,
                    "triggerHour": None, "triggerRestrictedStartHour": None, "triggerRestrictedStopHour": None,
                    "triggerRestrictedDaysOfWeek": [], "triggerMode": event.get("triggerMode"), "decisionPath": None,
                    "parent": None, "children": [],
                }
            )  # fmt: skip
        lists = []
        for entry in sent.get("lists") or []:
            segment = self.kind("segments").get(int(entry.get("id", 0)))
            if segment is not None:
                keys = [
                    "createdByUser",
                    "modifiedByUser",
                    "id",
                    "name",
                    "publicName",
                    "alias",
                    "description",
                    "category",
                ]
                lists.append({k: segment[k] for k in keys})
        made |= {
            "category": None, "description": sent.get("description"),
            "allowRestart": truth(sent.get("allowRestart", False)), "publishUp": None, "publishDown": None,
            "events": events, "forms": sent.get("forms") or [], "lists": lists,
            "canvasSettings": _renamed(sent.get("canvasSettings") or [], ids),
        }  # fmt: skip
        self._twice_saved(made, actor)
        for action in ("create", "update"):
            instance.audit(actor, "campaign", "campaign", made["id"], action, {"name": [None, made["name"]]})

    def _fill_form(self, actor: Actor, made: Row, sent: Row) -> None:
        instance = self._instance
        alias = str(sent.get("alias") or slug(made["name"], joint=""))
        fields = []
        for order, entry in enumerate(sent.get("fields") or [], start=1):
            shown = {
                "id": instance.next_id("form_fields"), "label": entry.get("label"), "showLabel": True,
                "alias": entry.get("alias") or slug(str(entry.get("label")), joint="_"), "type": entry.get("type", "text"),
                "defaultValue": entry.get("defaultValue"), "isRequired": truth(entry.get("isRequired", False)),
                "validationMessage": None, "helpMessage": None, "order": order,
                "properties": entry.get("properties") or [], "validation": [], "parent": None, "conditions": [],
                "labelAttributes": None, "inputAttributes": None, "containerAttributes": None,
                "leadField": entry.get("leadField"), "saveResult": True, "isAutoFill": False,
                "mappedObject": entry.get("mappedObject"), "mappedField": entry.get("mappedField"),
            }  # fmt: skip
            if instance.traits.has_projects:
                shown |= {"isReadOnly": False, "fieldWidth": "100%"}
            fields.append(shown)
        made |= {
            "alias": alias, "category": None, "description": sent.get("description"),
            "cachedHtml": f'<form method="post" action="{instance.base_url}/form/submit?formId={made["id"]}"></form>',
            "publishUp": None, "publishDown": None, "fields": fields, "actions": sent.get("actions") or [],
            "template": sent.get("template"), "inKioskMode": truth(sent.get("inKioskMode", False)),
            "renderStyle": False, "formType": sent.get("formType", "standalone"),
            "postAction": sent.get("postAction", "return"), "postActionProperty": sent.get("postActionProperty"),
            "noIndex": None, "formAttributes": None, "language": None, "dateModified": made["dateAdded"],
        }  # fmt: skip
        self._twice_saved(made, actor)
        instance.audit(actor, "form", "form", made["id"], "update", self._form_details(made))

    def _form_details(self, made: Row) -> Row:
        details: Row = {"name": [None, made["name"]]}
        newer = self._instance.traits.has_projects
        if newer:
            details["noIndex"] = [True, None]
        if made["postAction"] != "message":
            details["postAction"] = ["message", made["postAction"]]
        details["alias"] = [None, made["alias"]]
        fields: Row = {}
        for entry in made["fields"]:
            described: Row = {key: [None, entry[key]] for key in ("label", "type", "alias")}
            if entry["isRequired"]:
                described["isRequired"] = [False, True]
            described["order"] = [0, entry["order"]]
            fields[f"new{self._instance.hex(40)}"] = described
        dated: Row = {"dateModified": [None, made["dateModified"]]}
        return details | (dated | {"fields": fields} if newer else {"fields": fields} | dated)

    def _fill_email(self, actor: Actor, made: Row, sent: Row) -> None:
        made |= {
            "subject": sent.get("subject"), "language": sent.get("language") or "en", "category": None,
            "fromAddress": None, "fromName": None, "replyToAddress": None, "bccAddress": None,
            "useOwnerAsMailer": None,
            "utmTags": {"utmSource": None, "utmMedium": None, "utmCampaign": None, "utmContent": None},
            "customHtml": sent.get("customHtml"), "plainText": sent.get("plainText"),
            "template": sent.get("template"), "emailType": sent.get("emailType", "template"), "publishUp": None,
            "publishDown": None, "publicPreview": False, "readCount": 0, "sentCount": 0, "revision": 1,
            "assetAttachments": [], "variantStartDate": None, "variantSentCount": 0, "variantReadCount": 0,
            "variantParent": None, "variantChildren": [], "translationParent": None, "translationChildren": [],
            "unsubscribeForm": None, "dynamicContent": _DYNAMIC_CONTENT, "lists": sent.get("lists") or [],
            "headers": [], "dateModified": made["dateAdded"],
        }  # fmt: skip
        named: Row = {}
        if self._instance.traits.has_projects:
            made["preheaderText"] = None
            named = {"name": [None, made["name"]]}
        empty = {"utmSource": None, "utmMedium": None, "utmCampaign": None, "utmContent": None}
        details: Row = {"dateModified": [None, made["dateModified"]], **named, "subject": [None, made["subject"]]}
        details |= {"utmTags": [[], empty], "template": [None, made["template"]], "lists": [[], []]}
        self._instance.audit(actor, "email", "email", made["id"], "create", details)

    def _fill_asset(self, actor: Actor, made: Row, sent: Row) -> None:
        storage = str(sent.get("storageLocation") or "local")
        file = str(sent.get("file") or "")
        alias = str(sent.get("alias") or slug(made["title"]))
        made |= {
            "alias": alias, "category": None, "description": sent.get("description"), "language": "en",
            "publishUp": None, "publishDown": None, "downloadCount": 0, "uniqueDownloadCount": 0, "revision": 1,
            "extension": file.rpartition(".")[2], "mime": "", "size": _SIZES.get(storage, 0),
            "downloadUrl": f"{self._instance.base_url}/asset/{made['id']}:{alias}", "storageLocation": storage,
            "disallow": True,
        }  # fmt: skip
        self._instance.entities.setdefault("asset_files", {})[made["id"]] = {"file": file}
        details: Row = {"title": [None, made["title"]]}
        if storage != "local":
            name = file.rpartition("/")[2]
            details |= {
                "storageLocation": ["local", storage],
                "remotePath": [None, file],
                "originalFileName": [name, None],
            }
        details |= {"alias": [None, alias]} | self._instance.modified_details()
        self._instance.audit(actor, "asset", "asset", made["id"], "create", details)

    def _fill_hook(self, actor: Actor, made: Row, sent: Row) -> None:
        if not sent.get("webhookUrl"):
            raise invalid("webhookUrl", "A value is required.")
        made |= {
            "description": sent.get("description"), "webhookUrl": sent["webhookUrl"],
            "secret": sent.get("secret") or self._instance.hex(40),
            "eventsOrderbyDir": sent.get("eventsOrderbyDir"), "category": None, "triggers": sent.get("triggers") or [],
        }  # fmt: skip
        details: Row = {"events": {}}
        details |= {k: [None, made[k]] for k in ("name", "webhookUrl", "secret", "eventsOrderbyDir") if made[k]}
        if self._instance.traits.modified_at_creation:
            details["dateModified"] = [None, PhpDate(self._instance.clock.now())]
        self._instance.audit(actor, "webhook", "webhook", made["id"], "create", details)

    @staticmethod
    def _fill_point_group(_actor: Actor, made: Row, sent: Row) -> None:
        made["description"] = sent.get("description")

    def _fill_point_rule(self, actor: Actor, made: Row, sent: Row) -> None:
        """Its properties are not taken over the API: only Mautic's own form sets them."""
        if not sent.get("type"):
            raise invalid("type", "A type is required.")
        made |= {
            "category": None, "type": str(sent["type"]), "description": sent.get("description"), "publishUp": None,
            "publishDown": None, "delta": int(sent.get("delta") or 0), "properties": [],
            "repeatable": truth(sent.get("repeatable", False)),
        }  # fmt: skip
        details: Row = {} if made["isPublished"] else {"isPublished": [True, False]}
        details |= {"repeatable": [False, True]} if made["repeatable"] else {}
        details |= {"name": [None, made["name"]], "type": [None, made["type"]]} | self._instance.modified_details()
        self._instance.audit(actor, "point", "point", made["id"], "create", details)

    def _fill_trigger(self, actor: Actor, made: Row, sent: Row) -> None:
        events = [
            {
                "id": self._instance.next_id("trigger_events"), "name": event.get("name"),
                "description": event.get("description"), "type": event.get("type"),
                "order": event.get("order", order), "properties": event.get("properties") or [],
            }
            for order, event in enumerate(sent.get("events") or [], start=1)
        ]  # fmt: skip
        made |= {
            "category": None, "description": sent.get("description"), "publishUp": None, "publishDown": None,
            "points": int(sent.get("points") or 0), "color": str(sent.get("color") or "a0acb8"), "events": events,
            "triggerExistingLeads": truth(sent.get("triggerExistingLeads", False)), "dateModified": made["dateAdded"],
        }  # fmt: skip
        self._twice_saved(made, actor)
        details: Row = {"name": [None, made["name"]], "points": [0, made["points"]]}
        self._instance.audit(actor, "point", "trigger", made["id"], "update", details)

    def triggers(self) -> Row:
        texts = self._instance.traits.company_change_text
        return {
            "triggers": {
                kind: {"label": label, "description": described or texts}
                for kind, (label, described) in _TRIGGERS.items()
            }
        }

    # -- membership

    def join_segment(self, segment: int, contact: int, *, manual: bool = True) -> None:
        self.entity("segments", segment)
        member = (segment, contact)
        removed = self._tables.value(
            "SELECT manually_removed FROM lead_lists_leads WHERE leadlist_id = ? AND lead_id = ?", member
        )
        if removed == 0:
            return
        self._tables.run("DELETE FROM lead_lists_leads WHERE leadlist_id = ? AND lead_id = ?", member)
        row = {
            "leadlist_id": segment, "lead_id": contact, "date_added": self._instance.now, "manually_removed": 0,
            "manually_added": int(manual),
        }  # fmt: skip
        self._tables.insert("lead_lists_leads", row)
        self._log_membership(contact, "segment", "added", segment)

    def leave_segment(self, segment: int, contact: int) -> None:
        self.entity("segments", segment)
        gone = self._tables.run(
            "UPDATE lead_lists_leads SET manually_removed = 1, manually_added = 0 WHERE leadlist_id = ? AND lead_id = ?"
            " AND manually_removed = 0",
            (segment, contact),
        )
        if gone:
            self._log_membership(contact, "segment", "removed", segment)

    def join_campaign(self, campaign: int, contact: int) -> None:
        self.entity("campaigns", campaign)
        if self._tables.run(
            "UPDATE campaign_leads SET manually_removed = 0, manually_added = 1 WHERE campaign_id = ? AND lead_id = ?",
            (campaign, contact),
        ):
            return
        row = {
            "campaign_id": campaign, "lead_id": contact, "date_added": self._instance.now, "manually_removed": 0,
            "manually_added": 1, "rotation": 1,
        }  # fmt: skip
        self._tables.insert("campaign_leads", row)
        self._log_membership(contact, "campaign", "added", campaign)

    def leave_campaign(self, campaign: int, contact: int) -> None:
        self.entity("campaigns", campaign)
        gone = self._tables.run(
            "UPDATE campaign_leads SET manually_removed = 1, manually_added = 0 WHERE campaign_id = ? AND lead_id = ?",
            (campaign, contact),
        )
        if gone:
            self._log_membership(contact, "campaign", "removed", campaign)

    def _log_membership(self, contact: int, thing: str, action: str, thing_id: int) -> None:
        name = self.entity(f"{thing}s", thing_id)["name"]
        self._instance.log_event(contact, "lead", thing, action, name, thing_id)

    def segments_of(self, contact: int) -> Row:
        rows = self._tables.rows(
            "SELECT * FROM lead_lists_leads WHERE lead_id = ? AND manually_removed = 0 ORDER BY leadlist_id", (contact,)
        )
        shown: Row = {}
        for row in rows:
            segment = self.kind("segments").get(row["leadlist_id"])
            if segment is not None:
                shown[str(segment["id"])] = {
                    "id": segment["id"], "name": segment["name"], "alias": segment["alias"],
                    "dateAdded": iso(row["date_added"]), "manuallyRemoved": bool(row["manually_removed"]),
                    "manuallyAdded": bool(row["manually_added"]),
                }  # fmt: skip
        return {"total": len(shown), "lists": shown or []}

    def campaigns_of(self, contact: int) -> Row:
        rows = self._tables.rows(
            "SELECT * FROM campaign_leads WHERE lead_id = ? AND manually_removed = 0 ORDER BY campaign_id", (contact,)
        )
        shown: Row = {}
        for row in rows:
            campaign = self.kind("campaigns").get(row["campaign_id"])
            if campaign is not None:
                sources = [s["id"] for s in campaign["lists"]]
                marks = ", ".join(map(str, sources)) or "0"
                members = self._tables.column(
                    f"SELECT leadlist_id FROM lead_lists_leads WHERE lead_id = ? AND leadlist_id IN ({marks})",
                    (contact,),
                )
                shown[str(campaign["id"])] = {
                    "id": campaign["id"], "name": campaign["name"], "listMembership": members,
                    "dateAdded": iso(row["date_added"]), "manuallyRemoved": bool(row["manually_removed"]),
                    "manuallyAdded": bool(row["manually_added"]),
                }  # fmt: skip
        return {"total": len(shown), "campaigns": shown or []}

    # -- tags, notes, devices

    def list_tags(self, query: Row) -> Row:
        tags = self._tables.rows("SELECT id, tag, description FROM lead_tags ORDER BY id")
        return {"total": len(tags), "tags": {str(t["id"]): t for t in paged(tags, query)} or []}

    def make_tag(self, sent: Row) -> Row:
        name = strip_tags(decode_entities(str(sent.get("tag") or "")))
        if not name:
            raise invalid("tag", "A value is required.")
        return {"id": self._contacts.tag_id(name), "tag": name, "description": None}

    def make_note(self, actor: Actor, sent: Row) -> Row:
        row = self._contacts.need(int(sent.get("lead") or 0))
        note = {
            "lead_id": row["id"], "text": strip_tags(str(sent.get("text") or "")),
            "type": str(sent.get("type") or "general"), "date_time": sent.get("dateTime"),
        }  # fmt: skip
        note_id = self._tables.insert("lead_notes", note)
        self._instance.audit(actor, "lead", "note", note_id, "create", {"text": [None, note["text"]]})
        return {
            "id": note_id, "text": note["text"], "type": note["type"], "dateTime": note["date_time"],
            "lead": self._shapes.noted(row),
        }  # fmt: skip

    def notes_of(self, contact: int, query: Row) -> Row:
        rows = self._tables.rows("SELECT * FROM lead_notes WHERE lead_id = ? ORDER BY id DESC", (contact,))
        notes = [{"id": r["id"], "text": r["text"], "type": r["type"], "lead": {}} for r in rows]
        return {"total": len(notes), "notes": paged(notes, query)}

    def devices_of(self, contact: int) -> Row:
        rows = self._tables.rows("SELECT * FROM lead_devices WHERE lead_id = ? ORDER BY id", (contact,))
        devices = [
            {
                "id": r["id"], "lead": {"id": contact}, "clientInfo": [], "device": r["device"],
                "deviceOsName": r["device_os_name"], "deviceBrand": r["device_brand"], "deviceModel": r["device_model"],
                "trackingId": r["tracking_id"], "dateAdded": iso(r["date_added"]),
            }
            for r in rows
        ]  # fmt: skip
        return {"total": len(devices), "devices": devices}

    # -- point groups

    def set_group_points(
        self, actor: Actor, row: Row, group_id: int, operator: str, value: int, *, name: str, action: str
    ) -> Row:
        group = self.entity("points/groups", group_id)
        before = (
            self._tables.value(
                "SELECT score FROM point_group_contact_score WHERE contact_id = ? AND group_id = ?",
                (row["id"], group_id),
            )
            or 0
        )
        score = {"plus": before + value, "minus": before - value, "times": before * value, "set": value}.get(
            operator, int(before / value) if value else before
        )
        self._tables.run(
            "INSERT OR REPLACE INTO point_group_contact_score VALUES (?, ?, ?)", (row["id"], group_id, score)
        )
        if score != before:
            self._contacts.log_points(
                row["id"], actor.ip, "API", escape_special(name), action, score - before, group_id
            )
        return {"groupScore": {"score": score, "group": _group_shown(group)}}

    def group_points(self, contact: int) -> Row:
        rows = self._tables.rows(
            "SELECT group_id, score FROM point_group_contact_score WHERE contact_id = ? ORDER BY group_id", (contact,)
        )
        scores = [
            {"score": r["score"], "group": _group_shown(self.entity("points/groups", r["group_id"]))} for r in rows
        ]
        return {"total": len(scores), "groupScores": scores}


_BUNDLES = {"hooks": ("webhook", "webhook"), "emails": ("email", "email"), "forms": ("form", "form")}


def _group_shown(group: Row) -> Row:
    return {"id": group["id"], "name": group["name"], "description": group["description"]}


def paged(values: list[Any], query: Row) -> list[Any]:
    """`start` and `limit` over a list; 30 by default, all with 0."""
    start, limit = int(query.get("start") or 0), int(query.get("limit") or 0 if "limit" in query else 30)
    return values[start : start + limit] if limit else values[start:]


def invalid(field: str, text: str) -> RefusedError:
    return RefusedError(400, f"{field}: {text}", {field: [text]})


def truth(value: Any) -> bool:
    """What PHP forms take for true."""
    return value not in {False, None, "0", "false", "", "no"}


def slug(name: str, joint: str = "-") -> str:
    return joint.join(re.findall(r"[a-z0-9]+", name.lower()))


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def _renamed(value: Any, ids: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return php_array({k: _renamed(v, ids) for k, v in value.items()}) if value else value
    if isinstance(value, list):
        return [_renamed(v, ids) for v in value]
    return ids.get(value, value) if isinstance(value, str) else value
