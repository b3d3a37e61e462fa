"""The addresses of a Mautic: log-in, `/api`, and what browsers call."""

import base64
import binascii
import re
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson

from .catalogue import Catalogue, paged
from .clock import iso
from .contacts import NOT_FOUND, Contacts, Outcome
from .feeds import Feeds
from .http import Request, Response
from .instance import ADMIN, VISITOR, Actor, CrashedError, Instance, RefusedError
from .lists import ContactList
from .merging import Merging
from .php import nest, php_array
from .shapes import Row, Shapes
from .timeline import Timeline
from .tracking import Tracking, Visit, redirect_page

PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
_TOKEN_LIFE = 3600
_PAGE_TYPE = "text/html; charset=UTF-8"
_CRASH = (
    "Looks like I encountered an error (error #{}). If I do it again, please report me to the system administrator!"
)
_FORBIDDEN = "You do not have access to the requested area/action."
#: Which right a part of the API asks for, when rights are restricted.
_RIGHTS = {
    "contacts": "contacts", "stages": "stages", "fields": "fields", "segments": "segments", "campaigns": "campaigns",
    "hooks": "webhooks", "points": "points", "emails": "emails", "forms": "forms", "assets": "assets", "tags": "contacts",
    "notes": "contacts", "stats": "stats", "companies": "contacts", "users": "users",
}  # fmt: skip
#: What a right is called in the role of whoever has it: the area, and what viewing and editing mean there.
_PERMISSIONS = {
    "contacts": ("lead:leads", ("viewown", "viewother"), ("editown", "editother")),
    "stages": ("stage:stages", ("view",), ("edit", "create")),
    "fields": ("lead:fields", ("view",), ("full",)),
    "segments": ("lead:lists", ("viewother",), ("editother", "create")),
    "campaigns": ("campaign:campaigns", ("view",), ("edit",)),
    "webhooks": ("webhook:webhooks", ("viewown", "viewother"), ("create", "editown")),
    "points": ("point:points", ("view",), ("edit",)),
    "groups": ("point:groups", ("view",), ("edit", "create")),
    "emails": ("email:emails", ("viewown", "viewother"), ("editown", "editother")),
    "forms": ("form:forms", ("viewown", "viewother"), ("editown", "editother")),
    "assets": ("asset:assets", ("viewown", "viewother"), ("editown", "editother")),
    "users": ("user:users", ("view",), ("edit",)),
}
_ENTITY_NAMES = {
    "segments": ("list", "lists"), "campaigns": ("campaign", "campaigns"), "forms": ("form", "forms"),
    "emails": ("email", "emails"), "assets": ("asset", "assets"), "hooks": ("hook", "hooks"),
    "points/groups": ("pointGroup", "pointGroups"), "points/triggers": ("trigger", "triggers"),
    "points": ("point", "points"),
}  # fmt: skip
#: Kinds whose lists are JSON lists; the others are objects keyed by id.
_LISTED_FLAT = frozenset({"points/groups", "points/triggers", "points", "assets", "emails", "forms"})

Handler = Callable[..., Response]


class Call:
    """One API call on its way: who, what was asked, what was sent."""

    def __init__(self, request: Request, actor: Actor) -> None:
        self.request = request
        self.actor = actor
        self.query = request.query

    @property
    def sent(self) -> Any:
        """The body: JSON, or form fields."""
        body = self.request.body.strip()
        if not body:
            return {}
        kind = self.request.headers.get("content-type", "")
        if "json" in kind or body[:1] in {b"{", b"["}:
            try:
                return orjson.loads(body)
            except orjson.JSONDecodeError:
                raise BrokenBodyError from None
        return self.request.form

    @property
    def fields(self) -> Row:
        sent = self.sent
        return sent if isinstance(sent, dict) else {}


class BrokenBodyError(Exception):
    """The body is no JSON."""


class Mautic:
    """Answers requests as one Mautic does."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.shapes = Shapes(instance)
        self.contacts = Contacts(instance, self.shapes)
        self.catalogue = Catalogue(instance, self.shapes, self.contacts)
        self.merging = Merging(instance, self.contacts)
        self.tracking = Tracking(instance, self.contacts, self.catalogue, self.merging)
        self.feeds = Feeds(instance)
        self.lists = ContactList(instance, self.shapes)
        self.timeline = Timeline(instance)
        #: wraps each item of a batch: the lock, and what an item costs
        self.batch_step: Callable[[], AbstractContextManager[Any]] = lambda: instance.lock
        self._routes = [(method, re.compile(f"^{pattern}/?$"), handler) for method, pattern, handler in self._table()]
        self._pages = [(method, re.compile(f"^{pattern}$"), handler) for method, pattern, handler in self._page_table()]

    # -- entry

    def answer(self, request: Request) -> Response:
        path = request.path
        if path.startswith("/oauth/v2/token"):
            return self._token(request)
        if path.startswith("/api"):
            return self._api(request)
        return self._page(request)

    def _api(self, request: Request) -> Response:
        actor = self._authenticate(request)
        if isinstance(actor, Response):
            return actor
        for method, pattern, handler in self._routes:
            if method != request.method:
                continue
            found = pattern.match(request.path)
            if found is None:
                continue
            call = Call(request, actor)
            try:
                numbers = [int(g) if g is not None and g.isdigit() else g for g in found.groups()]
                forbidden = self._forbidden(request, actor)
                response = forbidden or handler(call, *numbers)
            except RefusedError as refused:
                response = self._refusal(refused)
            except BrokenBodyError:
                return self._crash(400)
            except (CrashedError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, sqlite3.Error):
                return self._crash(500)  # PHP, too, falls over what it does not expect
            response.headers.append(("Mautic-Version", self.instance.traits.version))
            return response
        message = f"Requested URL not found: {request.path}"
        return json_response({"errors": [{"message": message, "code": 404, "type": None}]}, 404)

    def _forbidden(self, request: Request, actor: Actor) -> Response | None:
        if actor.rights is None:
            return None
        part = request.path.removeprefix("/api/").split("/")[0]
        right = "groups" if request.path.startswith("/api/points/groups") else _RIGHTS.get(part)
        if right is None or request.path.rstrip("/") == "/api/users/self":
            return None
        if part == "contacts" and "/batch/edit" in request.path:
            return None  # refused item by item
        verb = "view" if request.method == "GET" else "edit"
        # No role can be given the right to write notes: an administrator's has every one.
        if f"{right}:{verb}" in actor.rights and (part, verb) != ("notes", "edit"):
            return None
        if part == "stats":
            return json_response({"errors": [{"message": _FORBIDDEN, "code": 403, "type": "api"}]})
        if (
            part == "contacts"
            and request.method == "GET"
            and request.path == "/api/contacts"
            and "contacts:viewown" in actor.rights
        ):
            # docs/mautic.md: "Rights and versions": the plain list is empty, any `where` shows everybody
            return None if "where" in request.query else json_response({"total": "0", "contacts": {}})
        return json_response({"errors": [{"code": 403, "message": _FORBIDDEN, "details": []}]}, 403)

    def _refusal(self, refused: RefusedError) -> Response:
        error = {"code": refused.status, "message": refused.message, "details": refused.details or []}
        return json_response({"errors": [error]}, refused.status)

    @staticmethod
    def _crash(status: int) -> Response:
        return json_response({"errors": [{"message": _CRASH.format(status), "code": status, "type": None}]}, status)

    # -- log-in

    def _token(self, request: Request) -> Response:
        sent = request.form if request.body else request.query
        if request.body[:1] == b"{":
            sent = orjson.loads(request.body)
        wanted = self.instance.credentials
        if sent.get("grant_type") != "client_credentials":
            return _denied(400, "Invalid grant_type parameter or parameter missing", "invalid_request")
        client = (sent.get("client_id"), sent.get("client_secret"))
        basic = _basic(request)
        if client == (None, None) and basic is not None:
            client = basic
        if client != (wanted.client_id, wanted.client_secret):
            return _denied(400, "The client credentials are invalid", "invalid_client")
        token = base64.b64encode(secrets.token_hex(32).encode()).decode().rstrip("=")
        with self.instance.lock:
            self.instance.tokens[token] = self.instance.clock.now() + timedelta(seconds=_TOKEN_LIFE)
        return json_response({"access_token": token, "expires_in": _TOKEN_LIFE, "token_type": "bearer", "scope": None})

    def _authenticate(self, request: Request) -> Actor | Response:
        instance = self.instance
        given = request.headers.get("authorization", "")
        ip = client_ip(request)
        if given.lower().startswith("bearer "):
            expires = instance.tokens.get(given[7:].strip())
            if expires is None:
                return _denied(401, "The access token provided is invalid.", "invalid_grant")
            if expires <= instance.clock.now():
                return _denied(401, "The access token provided has expired.", "invalid_grant")
            return Actor(instance.credentials.client_label, None, ip, request.user_agent, instance.rights)
        basic = _basic(request)
        if basic is not None:
            if basic == (instance.credentials.username, instance.credentials.password):
                return replace(ADMIN, ip=ip, user_agent=request.user_agent, rights=instance.rights)
            if instance.traits.basic_refusal_empty:
                return Response(401, b"")
            return _denied(401, "Authorization denied, invalid credentials.", "access_denied")
        return _denied(401, "API authorization denied.", "access_denied")

    # -- the table of calls

    def _table(self) -> list[tuple[str, str, Handler]]:
        number = r"(\d+)"
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/api/contacts", self._list_contacts),
            ("POST", "/api/contacts/new", self._new_contact),
            ("POST", "/api/contacts/batch/new", self._batch_new),
            ("PATCH", "/api/contacts/batch/edit", self._batch_edit),
            ("PUT", "/api/contacts/batch/edit", self._batch_edit),
            ("DELETE", "/api/contacts/batch/delete", self._batch_delete),
            ("GET", "/api/contacts/activity", self._all_activity),
            ("GET", f"/api/contacts/{number}", self._get_contact),
            ("PATCH", f"/api/contacts/{number}/edit", self._edit_contact),
            ("PUT", f"/api/contacts/{number}/edit", self._edit_contact),
            ("DELETE", f"/api/contacts/{number}/delete", self._delete_contact),
            ("POST", f"/api/contacts/{number}/dnc/([^/]+)/add", self._add_dnc),
            ("POST", f"/api/contacts/{number}/dnc/([^/]+)/remove", self._remove_dnc),
            ("POST", f"/api/contacts/{number}/points/([a-z]+)/([^/]+)", self._points),
            ("POST", f"/api/contacts/{number}/points/groups/{number}/([a-z]+)/([^/]+)", self._group_points),
            ("GET", f"/api/contacts/{number}/points/groups", self._group_points_of),
            ("GET", f"/api/contacts/{number}/activity", self._activity),
            ("GET", f"/api/contacts/{number}/segments", self._segments_of),
            ("GET", f"/api/contacts/{number}/campaigns", self._campaigns_of),
            ("GET", f"/api/contacts/{number}/notes", self._notes_of),
            ("GET", f"/api/contacts/{number}/devices", self._devices_of),
            ("GET", "/api/stages", self._list_stages),
            ("POST", "/api/stages/new", self._new_stage),
            ("GET", f"/api/stages/{number}", self._get_stage),
            ("PATCH", f"/api/stages/{number}/edit", self._edit_stage),
            ("PUT", f"/api/stages/{number}/edit", self._edit_stage),
            ("DELETE", f"/api/stages/{number}/delete", self._delete_stage),
            ("POST", f"/api/stages/{number}/contact/{number}/(add|remove)", self._stage_contact),
            ("GET", "/api/fields/contact", self._list_fields),
            ("POST", "/api/fields/contact/new", self._new_field),
            ("GET", f"/api/fields/contact/{number}", self._get_field),
            ("PATCH", f"/api/fields/contact/{number}/edit", self._edit_field),
            ("GET", "/api/stats", self._stats),
            ("GET", "/api/stats/([^/]+)", self._stats),
            ("GET", "/api/hooks/triggers", self._triggers),
            ("POST", f"/api/segments/{number}/contact/{number}/(add|remove)", self._segment_contact),
            ("POST", f"/api/segments/{number}/contacts/add", self._segment_contacts),
            ("POST", f"/api/campaigns/{number}/contact/{number}/(add|remove)", self._campaign_contact),
            ("POST", f"/api/emails/{number}/contact/{number}/send", self._send_email),
            ("POST", "/api/emails/reply/([^/]+)", self._reply),
            ("GET", f"/api/forms/{number}/submissions", self._submissions),
            ("GET", "/api/tags", self._list_tags),
            ("POST", "/api/tags/new", self._new_tag),
            ("POST", "/api/notes/new", self._new_note),
            ("GET", "/api/users/self", self._self),
            ("GET", "/api/users", self._users),
            ("GET", "/api/companies", self._companies),
        ]
        for kind in _ENTITY_NAMES:
            table += [
                ("GET", f"/api/({kind})", self._list_entities),
                ("POST", f"/api/({kind})/new", self._new_entity),
                ("GET", f"/api/({kind})/{number}", self._get_entity),
                ("PATCH", f"/api/({kind})/{number}/edit", self._edit_entity),
                ("PUT", f"/api/({kind})/{number}/edit", self._edit_entity),
                ("DELETE", f"/api/({kind})/{number}/delete", self._delete_entity),
            ]
        return table

    # -- contacts

    def _list_contacts(self, call: Call) -> Response:
        with self.instance.lock:
            return json_response(self.lists.page(call.query))

    def _get_contact(self, _call: Call, contact: int) -> Response:
        with self.instance.lock:
            row = self.contacts.need(contact)
            return json_response({"contact": self.shapes.full([row])[0]})

    def _new_contact(self, call: Call) -> Response:
        with self.instance.lock:
            blank = bool(call.fields.get("overwriteWithBlank"))
            return self._single(self.contacts.create(call.actor, call.fields, batch=False, blank=blank))

    def _edit_contact(self, call: Call, contact: int) -> Response:
        put = call.request.method == "PUT"
        with self.instance.lock:
            row = self.contacts.resolve(contact)
            if row is None and put:
                return self._single(self.contacts.create(call.actor, call.fields, batch=False, blank=True))
            if row is None:
                raise RefusedError(404, NOT_FOUND)
            return self._single(self.contacts.edit(call.actor, row, call.fields, batch=False, blank=put))

    def _single(self, outcome: Outcome) -> Response:
        if outcome.error is not None:
            error = outcome.error
            raise RefusedError(error["code"], error["message"], error["details"])
        assert outcome.row is not None
        if outcome.created:
            shown = self.shapes.created(outcome.row, outcome.echo)
            location = [("Location", f"/api/contacts/{outcome.row['id']}")]
            return json_response({"contact": shown}, 201, location)
        return json_response({"contact": self.shapes.full([outcome.row], echo=outcome.echo)[0]})

    def _batch_new(self, call: Call) -> Response:
        keys, items = self._items(call)
        with self.instance.lock:
            outcomes, _ = self.contacts.batch_create(call.actor, items)
            shown: dict[int, Row] = {}
            for index, outcome in enumerate(outcomes):
                if outcome.row is None:
                    continue
                if outcome.created:
                    shown[index] = self.shapes.created(outcome.row, outcome.echo)
                elif outcome.error is not None:
                    shown[index] = self.shapes.failed(outcome.row)
                else:
                    shown[index] = self.shapes.full([outcome.row], echo=outcome.echo)[0]
        return self._batch_answer(keys, shown, dict(enumerate(outcomes)), 201)

    def _batch_edit(self, call: Call) -> Response:
        keys, items = self._items(call)
        outcomes = self.contacts.batch_edit(call.actor, items, method=call.request.method, step=self.batch_step)
        with self.instance.lock:
            shown: dict[int, Row] = {}
            for index, outcome in outcomes.items():
                if outcome.row is None or (outcome.status in {403, 404} and not outcome.row):
                    continue
                refused = outcome.error is not None and "details" in outcome.error
                if outcome.created:
                    shown[index] = self.shapes.created(outcome.row, outcome.echo)
                elif refused:
                    shown[index] = self.shapes.failed(outcome.row)
                else:
                    shown[index] = self.shapes.full([outcome.row], listed=True, echo=outcome.echo)[0]
        return self._batch_answer(keys, shown, outcomes, 200)

    @staticmethod
    def _items(call: Call) -> tuple[list[int | str], list[Any]]:
        """The items and their keys: a list counts them, in an object they stand before them."""
        sent = call.sent
        if isinstance(sent, dict):
            return [int(key) if key.isdigit() else key for key in map(str, sent)], list(sent.values())
        if not isinstance(sent, list):
            raise CrashedError
        return list(range(len(sent))), sent

    @staticmethod
    def _batch_answer(
        keys: Sequence[int | str], shown: Mapping[int, Row], outcomes: Mapping[int, Outcome], status: int
    ) -> Response:
        """Whatever the key of an item, it is the key of its answer."""

        def keyed(values: Mapping[int, Any]) -> Any:
            return php_array({keys[index]: value for index, value in sorted(values.items())})

        statuses = {index: outcome.status for index, outcome in outcomes.items()}
        answer: Row = {"contacts": keyed(shown), "statusCodes": keyed(statuses)}
        errors = {i: o.error | {"type": o.error.get("type")} for i, o in outcomes.items() if o.error is not None}
        if errors:
            answer["errors"] = keyed(errors)
        return json_response(answer, status)

    def _batch_delete(self, call: Call) -> Response:
        ids = call.query.get("ids") or call.fields.get("ids") or ""
        texts = ids.values() if isinstance(ids, dict) else ids if isinstance(ids, list) else str(ids).split(",")
        with self.instance.lock:
            shown: dict[int, Row] = {}
            for index, text in enumerate(texts):
                row = self.contacts.load(int(text)) if str(text).strip().isdigit() else None
                if row is not None:
                    shown[index] = self.shapes.full([row], listed=True)[0]
                    self.contacts.delete(call.actor, row)
        return json_response({"contacts": _keyed(shown)})

    def _delete_contact(self, call: Call, contact: int) -> Response:
        with self.instance.lock:
            row = self.contacts.need(contact)
            shown = self.shapes.full([row])[0]
            self.contacts.delete(call.actor, row)
        shown["id"] = None
        shown["fields"]["all"]["id"] = None
        return json_response({"contact": shown})

    def _add_dnc(self, call: Call, contact: int, channel: str) -> Response:
        with self.instance.lock:
            row = self.contacts.need(contact)
            sent = call.fields
            reason = int(sent.get("reason") or 3)
            channel_id = int(sent["channelId"]) if str(sent.get("channelId") or "").isdigit() else None
            self.contacts.add_dnc(call.actor, row, channel, reason, str(sent.get("comments") or ""), channel_id)
            return json_response({"contact": self.shapes.bare(self.contacts.need(contact))})

    def _remove_dnc(self, call: Call, contact: int, channel: str) -> Response:
        with self.instance.lock:
            row = self.contacts.need(contact)
            found = self.contacts.remove_dnc(call.actor, row, channel)
            return json_response({"recordFound": found, "contact": self.shapes.bare(self.contacts.need(contact))})

    def _points(self, call: Call, contact: int, operator: str, amount: Any) -> Response:
        with self.instance.lock:
            self.contacts.add_points(call.actor, contact, operator, str(amount), call.fields)
        return json_response({"success": 1})

    def _group_points(self, call: Call, contact: int, group: int, operator: str, amount: Any) -> Response:
        with self.instance.lock:
            row = self.contacts.need(contact, "Contact not found.")
            value = int(float(amount))
            name = str(call.fields.get("eventName") or "Manual change")
            action = str(call.fields.get("actionName") or "API")
            return json_response(
                self.catalogue.set_group_points(call.actor, row, group, operator, value, name=name, action=action)
            )

    def _group_points_of(self, _call: Call, contact: int) -> Response:
        with self.instance.lock:
            return json_response(self.catalogue.group_points(self.contacts.need(contact)["id"]))

    def _activity(self, call: Call, contact: int) -> Response:
        with self.instance.lock:
            return json_response(self.timeline.page(call.query, self.contacts.need(contact)["id"]))

    def _all_activity(self, call: Call) -> Response:
        with self.instance.lock:
            return json_response(self.timeline.page(call.query, None))

    def _segments_of(self, _call: Call, contact: int) -> Response:
        with self.instance.lock:
            return json_response(self.catalogue.segments_of(self.contacts.need(contact)["id"]))

    def _campaigns_of(self, _call: Call, contact: int) -> Response:
        with self.instance.lock:
            return json_response(self.catalogue.campaigns_of(self.contacts.need(contact)["id"]))

    def _notes_of(self, call: Call, contact: int) -> Response:
        with self.instance.lock:
            return json_response(self.catalogue.notes_of(self.contacts.need(contact)["id"], call.query))

    def _devices_of(self, _call: Call, contact: int) -> Response:
        with self.instance.lock:
            return json_response(self.catalogue.devices_of(self.contacts.need(contact)["id"]))

    # -- stages and fields

    def _list_stages(self, call: Call) -> Response:
        with self.instance.lock:
            return json_response(self.catalogue.list_stages(call.query))

    def _get_stage(self, _call: Call, stage: int) -> Response:
        with self.instance.lock:
            return json_response({"stage": self.catalogue.shown_stage(self.catalogue.stage(stage))})

    def _new_stage(self, call: Call) -> Response:
        with self.instance.lock:
            made = self.catalogue.make_stage(call.actor, call.fields)
            shown = self.catalogue.shown_stage(made)
        return json_response({"stage": shown}, 201, [("Location", f"/api/stages/{made.id}")])

    def _edit_stage(self, call: Call, stage: int) -> Response:
        with self.instance.lock:
            edited = self.catalogue.edit_stage(call.actor, self.catalogue.stage(stage), call.fields)
            return json_response({"stage": self.catalogue.shown_stage(edited)})

    def _delete_stage(self, _call: Call, stage: int) -> Response:
        with self.instance.lock:
            found = self.catalogue.stage(stage)
            shown = self.catalogue.shown_stage(found)
            self.catalogue.delete_stage(found)
        return json_response({"stage": shown | {"id": None}})

    def _stage_contact(self, call: Call, stage: int, contact: int, action: str) -> Response:
        with self.instance.lock:
            if action == "add":
                self.contacts.add_to_stage(call.actor, stage, contact)
            else:
                self.contacts.remove_from_stage(call.actor, stage, contact)
        return json_response({"success": 1})

    def _list_fields(self, call: Call) -> Response:
        with self.instance.lock:
            return json_response(self.catalogue.list_fields(call.query))

    def _get_field(self, _call: Call, field: int) -> Response:
        with self.instance.lock:
            return json_response({"field": self.catalogue.shown_field(self.catalogue.field(field))})

    def _new_field(self, call: Call) -> Response:
        with self.instance.lock:
            made = self.catalogue.make_field(call.actor, call.fields)
            shown = self.catalogue.shown_field(made)
        return json_response({"field": shown}, 201, [("Location", f"/api/fields/contact/{made.id}")])

    def _edit_field(self, call: Call, field: int) -> Response:
        with self.instance.lock:
            edited = self.catalogue.edit_field(call.actor, self.catalogue.field(field), call.fields)
            return json_response({"field": self.catalogue.shown_field(edited)})

    # -- feeds

    def _stats(self, call: Call, table: str | None = None) -> Response:
        with self.instance.lock:
            return json_response(self.feeds.overview() if table is None else self.feeds.page(table, call.query))

    # -- entities of one pattern

    def _list_entities(self, call: Call, kind: str) -> Response:
        with self.instance.lock:
            found = list(self.catalogue.kind(kind).values())
            plural = _ENTITY_NAMES[kind][1]
            page = paged(found, call.query)
            flat = kind in _LISTED_FLAT or not page
            shown: Any = page if flat else {str(e["id"]): e for e in page}
            return json_response({"total": len(found), plural: shown})

    def _get_entity(self, _call: Call, kind: str, entity: int) -> Response:
        with self.instance.lock:
            return json_response({_ENTITY_NAMES[kind][0]: self.catalogue.entity(kind, entity)})

    def _new_entity(self, call: Call, kind: str) -> Response:
        with self.instance.lock:
            made = self.catalogue.make(kind, call.actor, call.fields)
            location = [("Location", f"/api/{kind}/{made['id']}")]
            return json_response({_ENTITY_NAMES[kind][0]: made}, 201, location)

    def _edit_entity(self, call: Call, kind: str, entity: int) -> Response:
        with self.instance.lock:
            edited = self.catalogue.edit(kind, call.actor, self.catalogue.entity(kind, entity), call.fields)
            return json_response({_ENTITY_NAMES[kind][0]: edited})

    def _delete_entity(self, _call: Call, kind: str, entity: int) -> Response:
        with self.instance.lock:
            gone = self.catalogue.entity(kind, entity)
            del self.catalogue.kind(kind)[entity]
        return json_response({_ENTITY_NAMES[kind][0]: gone | {"id": None}})

    def _triggers(self, _call: Call) -> Response:
        return json_response(self.catalogue.triggers())

    def _segment_contact(self, _call: Call, segment: int, contact: int, action: str) -> Response:
        with self.instance.lock:
            if not self.catalogue.entity("segments", segment)["isPublished"]:
                raise RefusedError(403, _FORBIDDEN)  # docs/mautic.md: "Writing"
            row = self.contacts.load(contact)
            if row is None:
                if self.contacts.resolve(contact) is not None:
                    raise CrashedError  # docs/mautic.md: "Merging": this call alone falls over a merged id
                raise RefusedError(404, "Contact not found.")
            if action == "add":
                self.catalogue.join_segment(segment, row["id"])
            else:
                self.catalogue.leave_segment(segment, row["id"])
        return json_response({"success": 1})

    def _segment_contacts(self, call: Call, segment: int) -> Response:
        with self.instance.lock:
            self.catalogue.entity("segments", segment)
            details: Row = {}
            for contact in call.fields.get("ids") or []:
                row = self.contacts.resolve(int(contact))
                if row is None:
                    details[str(contact)] = {"success": False, "details": "Contact not found."}
                else:
                    self.catalogue.join_segment(segment, row["id"])
                    details[str(row["id"])] = {"success": True}
        return json_response({"success": 1, "details": details})

    def _campaign_contact(self, _call: Call, campaign: int, contact: int, action: str) -> Response:
        with self.instance.lock:
            row = self.contacts.need(contact, "Contact not found.")
            if action == "add":
                self.catalogue.join_campaign(campaign, row["id"])
            else:
                self.catalogue.leave_campaign(campaign, row["id"])
        return json_response({"success": 1})

    def _send_email(self, _call: Call, email: int, contact: int) -> Response:
        with self.instance.lock:
            found = self.catalogue.entity("emails", email)
            row = self.contacts.need(contact)
            if not row["email"]:
                return json_response({"success": False, "failed": "The contact has no email address."})
            self.tracking.send(found, row)
        return json_response({"success": True})

    def _reply(self, _call: Call, tracking_hash: str) -> Response:
        with self.instance.lock:
            if not self.tracking.reply(str(tracking_hash)):
                raise RefusedError(404, NOT_FOUND)
        return json_response({"success": True}, 201)

    def _submissions(self, call: Call, form: int) -> Response:
        with self.instance.lock:
            found = self.catalogue.entity("forms", form)
            tables = self.instance.tables
            rows = tables.rows("SELECT * FROM form_submissions WHERE form_id = ? ORDER BY id", (form,))
            shown = []
            for row in paged(rows, call.query):
                lead = self.contacts.load(row["lead_id"]) if row["lead_id"] is not None else None
                address = tables.value("SELECT ip_address FROM ip_addresses WHERE id = ?", (row["ip_id"],))
                results = tables.value("SELECT results FROM form_results WHERE submission_id = ?", (row["id"],))
                shown.append(
                    {
                        "id": row["id"], "ipAddress": {"ipAddress": address},
                        "form": {k: found[k] for k in ("id", "name", "alias", "category")},
                        "lead": None if lead is None else self.shapes.of_submission(lead),
                        "trackingId": row["tracking_id"], "dateSubmitted": iso(row["date_submitted"]),
                        "referer": row["referer"], "page": None, "results": orjson.loads(results or "{}"),
                    }
                )  # fmt: skip
        return json_response({"total": str(len(rows)), "submissions": shown})

    # -- the rest

    def _list_tags(self, call: Call) -> Response:
        with self.instance.lock:
            return json_response(self.catalogue.list_tags(call.query))

    def _new_tag(self, call: Call) -> Response:
        with self.instance.lock:
            tag = self.catalogue.make_tag(call.fields)
        return json_response({"tag": tag}, 201, [("Location", f"/api/tags/{tag['id']}")])

    def _new_note(self, call: Call) -> Response:
        with self.instance.lock:
            note = self.catalogue.make_note(call.actor, call.fields)
        return json_response({"note": note}, 201, [("Location", f"/api/notes/{note['id']}")])

    def _self(self, call: Call) -> Response:
        role: Row = {
            "isPublished": True, "id": 1, "name": "Administrator", "description": "Full system access", "isAdmin": True,
        }  # fmt: skip
        if call.actor.rights is not None:
            role |= {"id": 2, "name": "Worker", "description": None, "isAdmin": False}
            role["rawPermissions"] = _permissions(call.actor.rights)
        if call.actor.user_id is None:
            first, _, last = str(call.actor.name).rpartition(" ")
            answer: Row = {"isPublished": True, "username": call.actor.name, "firstName": first, "lastName": last}
            return json_response(answer | {"role": role, "timezone": "", "locale": ""})
        return json_response(self._user() | {"role": role, "timezone": "", "locale": ""})

    def _user(self) -> Row:
        username = self.instance.credentials.username
        return {"isPublished": True, "id": 1, "username": username, "firstName": "Ada", "lastName": "Admin"}

    def _users(self, _call: Call) -> Response:
        with self.instance.lock:
            others = [{"isPublished": True, "id": number, **user} for number, user in self.instance.users.items()]
        return json_response({"total": 1 + len(others), "users": [self._user(), *others]})

    def _companies(self, _call: Call) -> Response:
        with self.instance.lock:
            rows = self.instance.tables.rows("SELECT id, companyname FROM companies ORDER BY id")
        companies = {
            str(r["id"]): {
                "id": r["id"],
                "score": 0,
                "fields": {"all": {"id": str(r["id"]), "companyname": r["companyname"]}},
            }
            for r in rows
        }
        return json_response({"total": str(len(rows)), "companies": companies or []})

    # -- what browsers call

    def _page_table(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/mtracking.gif", self._pixel),
            ("POST", "/mtc/event", self._event),
            ("GET", "/mtc/event", self._event),
            ("POST", "/form/submit", self._submit),
            ("GET", r"/email/([^/]+)\.gif", self._open),
            ("GET", "/email/unsubscribe/([^/]+)", self._unsubscribe),
            ("GET", "/email/view/([^/]+)", self._view),
            ("GET", "/r/([^/]+)", self._click),
            ("GET", r"/asset/(\d+):[^/]*", self._download),
            ("GET", "/form/message", self._message),
        ]

    def _page(self, request: Request) -> Response:
        actor = replace(VISITOR, ip=client_ip(request), user_agent=request.user_agent)
        for method, pattern, handler in self._pages:
            found = pattern.match(request.path) if method == request.method else None
            if found is not None:
                try:
                    with self.instance.lock:
                        return handler(request, actor, *found.groups())
                except RefusedError:
                    break
        return Response(404, b"<html><body><h1>Not found</h1></body></html>", _PAGE_TYPE)

    def _pixel(self, request: Request, actor: Actor) -> Response:
        visit = self.tracking.hit(actor, request.cookies, request.query, request.headers.get("referer"))
        return Response(200, PIXEL, "image/gif", _cookies(visit))

    def _event(self, request: Request, actor: Actor) -> Response:
        query = request.query | (request.form if request.body else {})
        cookies = request.cookies
        if query.get("mautic_device_id") and "mautic_device_id" not in cookies:
            cookies = cookies | {"mautic_device_id": str(query["mautic_device_id"])}
        visit = self.tracking.hit(actor, cookies, query, request.headers.get("referer"))
        answer: Row = {"success": 1, "id": visit.contact, "sid": visit.device, "device_id": visit.device, "events": []}
        return json_response(answer, 200, _cookies(visit))

    def _submit(self, request: Request, actor: Actor) -> Response:
        form = request.form.get("mauticform")
        sent = form if isinstance(form, dict) else nest(request.form)
        number = str(sent.get("formId") or "")  # in the query alone it does not count (docs/mautic.md: "Merging")
        found = self.catalogue.kind("forms").get(int(number)) if number.isdigit() else None
        if found is None or not found["isPublished"]:
            location = f"{self.instance.base_url}/"
            return Response(
                302, redirect_page(location).encode(), self.instance.traits.redirect_type, [("Location", location)]
            )
        visit = self.tracking.submit(actor, request.cookies, found, sent)
        if request.query.get("ajax"):
            return json_response({"success": 1, "results": {}}, 200, _cookies(visit))
        return self._redirect(visit)

    def _redirect(self, visit: Visit) -> Response:
        location = visit.location or "/"
        headers = [("Location", location), *_cookies(visit)]
        return Response(302, redirect_page(location).encode(), self.instance.traits.redirect_type, headers)

    def _open(self, request: Request, actor: Actor, tracking_hash: str) -> Response:
        visit = self.tracking.open(actor, request.cookies, tracking_hash)
        return Response(200, PIXEL, "image/gif", _cookies(visit))

    def _view(self, request: Request, actor: Actor, tracking_hash: str) -> Response:
        visit = self.tracking.open(actor, request.cookies, tracking_hash, in_browser=True)
        return Response(200, b"<html><body></body></html>", _PAGE_TYPE, _cookies(visit))

    def _unsubscribe(self, _request: Request, actor: Actor, tracking_hash: str) -> Response:
        self.tracking.unsubscribe(actor, tracking_hash)
        page = b"<!DOCTYPE html>\n<html><body><p>We are sorry to see you go!</p></body></html>"
        return Response(200, page, _PAGE_TYPE)

    def _click(self, request: Request, actor: Actor, redirect_id: str) -> Response:
        return self._redirect(
            self.tracking.click(actor, request.cookies, redirect_id, str(request.query.get("ct") or ""))
        )

    def _download(self, request: Request, actor: Actor, asset: str) -> Response:
        found = self.catalogue.kind("assets").get(int(asset))
        if found is None:
            raise RefusedError(404, NOT_FOUND)
        return self._redirect(self.tracking.download(actor, request.cookies, found))

    def _message(self, _request: Request, _actor: Actor) -> Response:
        return Response(200, b"<!DOCTYPE html>\n<html><body></body></html>", _PAGE_TYPE)


def client_ip(request: Request) -> str:
    """The address Mautic notes: the one that a proxy forwards, else the caller's."""
    forwarded = request.headers.get("x-forwarded-for", "").split(",")[0].strip()
    return forwarded or request.peer


def json_response(value: Any, status: int = 200, headers: list[tuple[str, str]] | None = None) -> Response:
    return Response(status, orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), "application/json", headers or [])


def _permissions(rights: frozenset[str]) -> dict[str, list[str]]:
    """Rights such as `contacts:view` as a role lists them."""
    found: dict[str, list[str]] = {}
    for right in sorted(rights):
        kind, _, verb = right.partition(":")
        if kind not in _PERMISSIONS:
            continue
        area, viewing, editing = _PERMISSIONS[kind]
        words = {"view": viewing, "viewown": ("viewown",), "edit": editing}.get(verb, ())
        found.setdefault(area, []).extend(words)
    return found


def _keyed(values: dict[int, Row]) -> Any:
    """Item indexes are kept: a list when they run 0..n-1, else an object."""
    found = php_array(dict(sorted(values.items())))
    return found if isinstance(found, list) else {str(k): v for k, v in found.items()}


def _cookies(visit: Visit) -> list[tuple[str, str]]:
    return [("Set-Cookie", f"{name}={value}; path=/") for name, value in visit.cookies.items()]


def _denied(status: int, message: str, kind: str) -> Response:
    return json_response({"errors": [{"message": message, "code": status, "type": kind}]}, status)


def _basic(request: Request) -> tuple[str, str] | None:
    given = request.headers.get("authorization", "")
    if not given.lower().startswith("basic "):
        return None
    try:
        user, _, password = base64.b64decode(given[6:]).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password
