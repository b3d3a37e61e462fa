# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""`/_sandbox`: the sandbox's own addresses, by which tests look behind the scenes and make things happen."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from .faults import parse_faults
from .http import Request, Response
from .instance import ADMIN, VISITOR, Actor
from .routes import json_response
from .shapes import Row
from .tracking import Visit

if TYPE_CHECKING:
    from .server import Sandbox

_BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
_MALFORMATIONS = (
    "broken_utf8", "list_maps", "numbers_as_text", "null_dates", "huge_string", "unknown_stage", "missing_fields",
    "negative_id", "nested_value",
)  # fmt: skip
_HUGE = 2_000_000
#: How long a moving feed keeps rows back, by the sandbox's clock.
_HIDDEN_SECONDS = 20


class BadRequestError(Exception):
    """A sentence for whoever called /_sandbox wrongly."""


class Control:
    """Answers `/_sandbox/…`."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox
        self._instance = sandbox.instance
        self._mautic = sandbox.mautic
        self._acts: dict[str, Callable[[Row], Row]] = {
            "visit": self._visit, "open": self._open, "click": self._click, "reply": self._reply, "form": self._form,
            "edit": self._edit, "delete": self._delete, "vanish": self._vanish, "merge": self._merge,
            "set_stage": self._set_stage, "clear_stage": self._clear_stage, "unpublish_stage": self._unpublish_stage,
            "unsubscribe": self._unsubscribe, "send": self._send, "points": self._points, "malform": self._malform,
            "html": self._html, "restrict": self._restrict,
        }  # fmt: skip

    def answer(self, request: Request) -> Response:
        route = (request.method, request.path.rstrip("/"))
        handler = {
            ("GET", "/_sandbox/stats"): lambda _: self._sandbox.stats(),
            ("POST", "/_sandbox/stats/reset"): self._reset,
            ("POST", "/_sandbox/clock"): self._clock,
            ("GET", "/_sandbox/clock"): self._clock,
            ("POST", "/_sandbox/faults"): self._faults,
            ("POST", "/_sandbox/credits"): self._credits,
            ("POST", "/_sandbox/zerobounce"): self._script,
            ("POST", "/_sandbox/act"): self._act,
        }.get(route)
        if handler is None:
            return json_response({"error": f"there is no {request.method} {request.path} here"}, 404)
        try:
            return json_response(handler(_body(request)))
        except BadRequestError as bad:
            return json_response({"error": str(bad)}, 400)
        except (ValueError, TypeError, KeyError, AttributeError) as bad:
            return json_response({"error": f"the request could not be read: {bad}"}, 400)

    # -- books

    def books(self) -> Row:
        """Points, grants, credits and stages, from the sandbox's own tables; the caller holds the lock."""
        tables = self._instance.tables
        logged = dict(
            tables.connection.execute(
                "SELECT lead_id, SUM(CASE WHEN event_name LIKE 'subtract%' THEN -delta ELSE delta END) "
                "FROM lead_points_change_log WHERE group_id IS NULL GROUP BY lead_id"
            ).fetchall()
        )
        points = {
            str(contact): {"points": total or 0, "logged": logged.get(contact, 0)}
            for contact, total in tables.connection.execute(
                "SELECT id, points FROM leads WHERE points != 0 OR id IN (SELECT lead_id FROM lead_points_change_log)"
            )
        }
        grants = {
            name: {"count": count, "points": total}
            for name, count, total in tables.connection.execute(
                "SELECT event_name, COUNT(*), SUM(delta) FROM lead_points_change_log GROUP BY event_name"
            )
        }
        stages = dict(
            tables.connection.execute(
                "SELECT stage_id, COUNT(*) FROM leads GROUP BY stage_id ORDER BY stage_id"
            ).fetchall()
        )
        names = {i: s.name for i, s in self._instance.stages.items()}
        spent = self._instance.books.credits_spent
        return {
            "contacts": tables.value("SELECT COUNT(*) FROM leads"),
            "points": points,
            "grants": grants,
            "files": [
                {"file_id": file_id, "file_name": upload.name, "rows": len(upload.rows)}
                for file_id, upload in self._sandbox.zerobounce.uploads.items()
            ],
            "credits": {"left": self._sandbox.zerobounce.credits, "spent": sum(spent.values()), "by_address": spent},
            "stages": {("none" if i is None else names.get(i, str(i))): n for i, n in stages.items()},
            "webhooks": [],
        }

    def _reset(self, _sent: Row) -> Row:
        self._sandbox.reset_stats()
        return {"reset": True}

    # -- clock, faults, ZeroBounce

    def _clock(self, sent: Row) -> Row:
        clock = self._instance.clock
        if "now" in sent:
            try:
                moment = datetime.fromisoformat(str(sent["now"]))
            except ValueError:
                raise BadRequestError(f"`now` wants an ISO time, not {sent['now']!r}") from None
            clock.set(moment, freeze=bool(sent.get("freeze")))
        if "advance" in sent:
            if isinstance(sent["advance"], bool) or not isinstance(sent["advance"], int | float):
                raise BadRequestError(f"`advance` wants seconds, not {sent['advance']!r}")
            clock.advance(float(sent["advance"]))
        unknown = set(sent) - {"now", "advance", "freeze"}
        if unknown:
            raise BadRequestError(f"the clock knows `advance`, `now` and `freeze`, not {min(unknown)!r}")
        return {"now": clock.now().isoformat()}

    def _faults(self, sent: Row) -> Row:
        spec = sent.get("spec", sent.get("faults"))
        if not isinstance(spec, str):
            raise BadRequestError('send the faults as text, or as {"spec": "seed=7,before=0.05"}')
        faults = parse_faults(spec)
        self._sandbox.use_faults(faults)
        return {"faults": faults.__dict__}

    def _credits(self, sent: Row) -> Row:
        if not isinstance(sent.get("credits"), int) or isinstance(sent["credits"], bool):
            raise BadRequestError("`credits` wants a whole number")
        with self._instance.lock:
            self._sandbox.zerobounce.credits = sent["credits"]
        return {"credits": sent["credits"]}

    def _script(self, sent: Row) -> Row:
        address = sent.get("email")
        if not isinstance(address, str) or not address or "status" not in sent:
            raise BadRequestError("a scripted answer needs `email` and `status`")
        answer = {k: v for k, v in sent.items() if k != "email"} | {"sub_status": sent.get("sub_status", "")}
        with self._instance.lock:
            self._sandbox.zerobounce.scripted[address.strip().lower()] = answer
        return {"email": address, **answer}

    # -- things that happen

    def _act(self, sent: Row) -> Row:
        act = self._acts.get(str(sent.get("do")))
        if act is None:
            raise BadRequestError(f"`do` is one of {', '.join(self._acts)}, not {sent.get('do')!r}")
        with self._instance.lock:
            return act(sent)

    def _contact(self, sent: Row, key: str = "contact") -> Row:
        number = sent.get(key)
        if not isinstance(number, int) or isinstance(number, bool):
            raise BadRequestError(f"`{key}` wants a contact's id, not {number!r}")
        row = self._mautic.contacts.resolve(number)
        if row is None:
            raise BadRequestError(f"there is no contact {number}")
        return row

    @staticmethod
    def _visitor(sent: Row) -> Actor:
        return replace(
            VISITOR, ip=str(sent.get("ip") or "127.0.0.1"), user_agent=str(sent.get("user_agent") or _BROWSER)
        )

    def _cookies(self, row: Row | None) -> dict[str, str]:
        if row is None:
            return {}
        tables = self._instance.tables
        found = tables.value("SELECT tracking_id FROM lead_devices WHERE lead_id = ? ORDER BY id LIMIT 1", (row["id"],))
        return {"mautic_device_id": found or self._mautic.tracking.new_device(row["id"], _BROWSER)["tracking_id"]}

    def _visit(self, sent: Row) -> Row:
        row = self._contact(sent) if "contact" in sent else None
        url = str(sent.get("url") or "https://shop.example/")
        query = {"page_url": url, "page_title": str(sent.get("title") or url.rpartition("/")[2] or "home")}
        query |= {k: str(v) for k, v in sent.items() if k.startswith("utm_")}
        if "referer" in sent:
            query["page_referrer"] = str(sent["referer"])
        return _told(self._mautic.tracking.hit(self._visitor(sent), self._cookies(row), query))

    def _stat(self, sent: Row) -> Row:
        row = self._contact(sent)
        tables = self._instance.tables
        stat = tables.row("SELECT * FROM email_stats WHERE lead_id = ? ORDER BY id DESC LIMIT 1", (row["id"],))
        return stat or self._mautic.tracking.send(self._email(sent), row)

    def _email(self, sent: Row) -> Row:
        emails = self._mautic.catalogue.kind("emails")
        if not emails:
            made = {
                "name": "Newsletter",
                "subject": "Newsletter",
                "customHtml": '<a href="https://shop.example/">shop</a>',
            }
            return self._mautic.catalogue.make("emails", ADMIN, made)
        return self._mautic.catalogue.entity("emails", int(sent.get("email") or min(emails)))

    def _send(self, sent: Row) -> Row:
        stat = self._mautic.tracking.send(self._email(sent), self._contact(sent), source="email")
        return {"stat": stat["id"], "tracking_hash": stat["tracking_hash"]}

    def _open(self, sent: Row) -> Row:
        stat = self._stat(sent)
        visit = self._mautic.tracking.open(
            self._visitor(sent), self._cookies(self._contact(sent)), stat["tracking_hash"]
        )
        return _told(visit) | {"stat": stat["id"]}

    def _click(self, sent: Row) -> Row:
        stat = self._stat(sent)
        email = self._mautic.catalogue.entity("emails", stat["email_id"])
        redirect = self._mautic.tracking.trackable(email, str(sent.get("url") or "https://shop.example/offer"))
        name = self._instance.tables.value("SELECT redirect_id FROM page_redirects WHERE id = ?", (redirect,))
        tracking = self._mautic.tracking
        cookies = self._cookies(self._contact(sent))
        visit = tracking.click(self._visitor(sent), cookies, name, tracking.click_through(stat))
        return _told(visit) | {"stat": stat["id"]}

    def _reply(self, sent: Row) -> Row:
        return {"replied": self._mautic.tracking.reply(self._stat(sent)["tracking_hash"])}

    def _form(self, sent: Row) -> Row:
        forms = self._mautic.catalogue.kind("forms")
        wanted = sent.get("form", "Signup")
        form = next((f for f in forms.values() if wanted in {f["id"], f["name"]}), None)
        if form is None:
            raise BadRequestError(
                f"there is no form {wanted!r}; there are {', '.join(f['name'] for f in forms.values())}"
            )
        row = self._contact(sent) if "contact" in sent else None
        values = sent.get("values") or {k: sent[k] for k in ("email", "firstname") if k in sent}
        answers = {str(k): str(v) for k, v in values.items()}
        return _told(self._mautic.tracking.submit(self._visitor(sent), self._cookies(row), form, answers))

    def _edit(self, sent: Row) -> Row:
        values = sent.get("values") or sent.get("fields")
        if not isinstance(values, Mapping):
            raise BadRequestError("an edit needs `values`")
        outcome = self._mautic.contacts.edit(ADMIN, self._contact(sent), dict(values), batch=False)
        if outcome.error is not None:
            raise BadRequestError(f"Mautic refuses the edit: {outcome.error['message']}")
        return {"contact": outcome.row["id"] if outcome.row else None}

    def _delete(self, sent: Row) -> Row:
        row = self._contact(sent)
        self._mautic.contacts.delete(ADMIN, row)
        return {"deleted": row["id"]}

    def _vanish(self, sent: Row) -> Row:
        row = self._contact(sent)
        self._mautic.contacts.delete(ADMIN, row, audited=False)
        return {"vanished": row["id"]}

    def _merge(self, sent: Row) -> Row:
        visitor, known = self._contact(sent, "visitor"), self._contact(sent, "known")
        if visitor["id"] == known["id"]:
            raise BadRequestError("`visitor` and `known` are the same contact")
        merged = self._mautic.merging.merge(VISITOR, survivor=visitor["id"], loser=known["id"])
        return {"survivor": merged["id"], "gone": known["id"]}

    def _set_stage(self, sent: Row) -> Row:
        row = self._contact(sent)
        self._mautic.contacts.add_to_stage(ADMIN, self._stage(sent), row["id"])
        return {"contact": row["id"]}

    def _clear_stage(self, sent: Row) -> Row:
        row = self._contact(sent)
        outcome = self._mautic.contacts.edit(ADMIN, row, {"stage": None}, batch=False)
        return {"contact": outcome.row["id"] if outcome.row else None}

    def _stage(self, sent: Row) -> int:
        wanted = sent.get("stage")
        found = next((s.id for s in self._instance.stages.values() if wanted in {s.id, s.name}), None)
        if found is None:
            raise BadRequestError(f"there is no stage {wanted!r}")
        return found

    def _unpublish_stage(self, sent: Row) -> Row:
        stage = self._mautic.catalogue.stage(self._stage(sent))
        self._mautic.catalogue.edit_stage(ADMIN, stage, {"isPublished": False})
        return {"stage": stage.id}

    def _unsubscribe(self, sent: Row) -> Row:
        row = self._contact(sent)
        added = self._mautic.contacts.add_dnc(self._visitor(sent), row, "email", 1, "User unsubscribed.")
        return {"contact": row["id"], "added": added}

    def _points(self, sent: Row) -> Row:
        row = self._contact(sent)
        name = str(sent.get("name") or "1: Visits pricing")
        delta = int(sent.get("delta") or 0)
        self._mautic.contacts.log_points(row["id"], "127.0.0.1", "point", name, "page.hit", delta)
        before = int(row["points"] or 0)
        self._mautic.contacts.change(VISITOR, row, {"points": before + delta}, {"points": [before, before + delta]})
        return {"contact": row["id"], "points": before + delta}

    # -- what spoils answers

    def _malform(self, sent: Row) -> Row:
        row, how = self._contact(sent), sent.get("how")
        if how is None:
            self._instance.malformed.pop(row["id"], None)
        elif how in _MALFORMATIONS:
            self._instance.malformed[row["id"]] = how
        else:
            raise BadRequestError(f"`how` is one of {', '.join(_MALFORMATIONS)}, not {how!r}")
        return {"malformed": {str(k): v for k, v in self._instance.malformed.items()}}

    def _html(self, sent: Row) -> Row:
        self._sandbox.html_next = int(sent.get("next") or 1)
        return {"next": self._sandbox.html_next}

    def _restrict(self, sent: Row) -> Row:
        rights = sent.get("rights")
        if rights is not None and not isinstance(rights, list):
            raise BadRequestError('`rights` is a list such as ["contacts:view"], or null for all')
        self._instance.rights = None if rights is None else frozenset(map(str, rights))
        return {"rights": rights}

    def malformed(self, request: Request, body: bytes) -> bytes:
        """The answer with the contacts of `malform` spoilt."""
        spoilt = self._instance.malformed
        if not spoilt or request.method != "GET" or not re.match(r"^/api/contacts(/\d+)?$", request.path):
            return body
        answer = orjson.loads(body)
        contacts = answer.get("contacts")
        found = (
            [answer["contact"]]
            if "contact" in answer
            else list(contacts.values())
            if isinstance(contacts, dict)
            else []
        )
        broken = False
        for contact in found:
            how = spoilt.get(contact["id"])
            if how is not None:
                broken = _spoil(contact, how) or broken
        encoded = orjson.dumps(answer)
        return encoded.replace(b"BROKEN-UTF8", b"caf\xe9 \xff") if broken else encoded

    def disturb(self, kind: str) -> None:
        """A fault that concerns the data: rows that show up late, a visitor who merges."""
        with self._instance.lock:
            tables, feeds = self._instance.tables, self._mautic.feeds
            if kind == "merge":
                visitor = self._any("email IS NULL AND phone IS NULL")
                known = self._any("email IS NOT NULL")
                if visitor is not None and known is not None:
                    self._mautic.merging.merge(VISITOR, survivor=visitor, loser=known)
                return
            if feeds.hidden:
                feeds.hidden.clear()
                return
            feeds.hidden_until = self._instance.moment() + _HIDDEN_SECONDS
            for table in ("page_hits", "audit_log", "lead_points_change_log"):
                latest = tables.column(f"SELECT id FROM {table} ORDER BY id DESC LIMIT 5")
                feeds.hidden[table] = set(latest[1::2])

    def _any(self, condition: str) -> int | None:
        """One contact of these, by the dice."""
        tables = self._instance.tables
        count = tables.value(f"SELECT COUNT(*) FROM leads WHERE {condition}")
        offset = int(self._sandbox.dice.number() * count)
        found: int | None = tables.value(
            f"SELECT id FROM leads WHERE {condition} ORDER BY id LIMIT 1 OFFSET ?", (offset,)
        )
        return found


def _spoil(contact: Row, how: str) -> bool:
    """Makes one contact what no client expects; True when the bytes must be broken too."""
    fields = contact.get("fields")
    everything = fields.get("all") if isinstance(fields, dict) else None
    if how == "broken_utf8":
        target = everything if isinstance(everything, dict) else contact
        target["lastname"] = "BROKEN-UTF8"
        return True
    if how == "list_maps":
        contact["fields"] = [fields]
        contact["ipAddresses"] = {"a": {"ipAddress": "10.0.0.1"}}
    elif how == "numbers_as_text":
        contact["points"] = str(contact.get("points"))
        contact["id"] = str(contact["id"])
    elif how == "null_dates":
        contact["dateAdded"] = None
        contact["dateIdentified"] = "0000-00-00 00:00:00"
    elif how == "huge_string" and isinstance(everything, dict):
        everything["position"] = "x" * _HUGE
    elif how == "unknown_stage":
        contact["stage"] = {"id": 987654, "name": "Nowhere", "weight": 1}
    elif how == "missing_fields":
        contact.pop("fields", None)
    elif how == "negative_id":
        contact["id"] = -contact["id"]
    elif how == "nested_value" and isinstance(everything, dict):
        everything["email"] = {"value": ["a", "b"]}
    return False


def _told(visit: Visit) -> Row:
    return {"contact": visit.contact, "hit": visit.hit, "cookies": visit.cookies}


def _body(request: Request) -> Any:
    text = request.body.strip()
    if not text:
        return {}
    try:
        sent = orjson.loads(text)
    except orjson.JSONDecodeError:
        if request.path.rstrip("/") == "/_sandbox/faults":
            return {"spec": text.decode(errors="replace")}
        raise BadRequestError("the body is no JSON") from None
    if isinstance(sent, int | str) and request.path.rstrip("/") == "/_sandbox/faults":
        return {"spec": str(sent)}
    if sent is None:
        return {}
    if not isinstance(sent, dict):
        raise BadRequestError("the body must be a JSON object")
    return sent
