# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""What visitors do: page hits, forms, opens, clicks, downloads, and the merges that forms bring about."""

import base64
import re
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import orjson

from .catalogue import Catalogue
from .contacts import Contacts
from .instance import Actor, Instance, RefusedError
from .merging import Merging
from .php import PhpDate, decode_click_through, serialize, strip_tags, unserialize
from .shapes import Row

_BOTS = re.compile(r"bot|crawl|spider|slurp|python-requests|curl|wget|httpclient|okhttp|^$", re.IGNORECASE)
_UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")
_UNSUBSCRIBED = 1


@dataclass
class Visit:
    """What an answer to a browser needs besides its body."""

    contact: int | None = None
    cookies: dict[str, str] = field(default_factory=dict)
    location: str | None = None
    hit: int | None = None
    device: str | None = None


def is_bot(user_agent: str) -> bool:
    """Bots get the same answers, and mostly leave no trace (docs/mautic.md: "Merging, which renumbers people")."""
    return bool(_BOTS.search(user_agent))


def redirect_page(location: str) -> str:
    shown = escape(location, quote=False).replace("'", "&#039;")
    return (
        '<!DOCTYPE html>\n<html>\n    <head>\n        <meta charset="UTF-8" />\n'
        f'        <meta http-equiv="refresh" content="0;url=\'{shown}\'" />\n\n'
        f"        <title>Redirecting to {shown}</title>\n    </head>\n    <body>\n"
        f'        Redirecting to <a href="{shown}">{shown}</a>.\n    </body>\n</html>'
    )


class Tracking:
    """Visitors over the tables."""

    def __init__(self, instance: Instance, contacts: Contacts, catalogue: Catalogue, merging: Merging) -> None:
        self._instance = instance
        self._tables = instance.tables
        self._contacts = contacts
        self._catalogue = catalogue
        self._merging = merging

    # -- who is it

    def _device(self, cookies: Row) -> Row | None:
        tracking_id = cookies.get("mautic_device_id")
        if not tracking_id:
            return None
        return self._tables.row(
            "SELECT id, lead_id, tracking_id FROM lead_devices WHERE tracking_id = ? ORDER BY id LIMIT 1",
            (tracking_id,),
        )

    def _visitor(self, cookies: Row) -> tuple[Row | None, Row | None]:
        device = self._device(cookies)
        if device is None or device["lead_id"] is None:
            return None, None
        return self._contacts.load(device["lead_id"]), device

    def new_device(self, contact: int, user_agent: str) -> Row:
        traits = self._instance.traits
        found = re.search(r"(Chrome|Firefox|Safari)/(\d+)(?:\.(\d+))?", user_agent)
        name, version = (found[1], f"{found[2]}.{found[3] or 0}") if found else ("", "")
        engine = {"Chrome": "Blink", "Firefox": "Gecko", "Safari": "WebKit"}.get(name, "")
        client = {
            "type": "browser", "name": name, "short_name": {"Chrome": "CH", "Firefox": "FF", "Safari": "SF"}.get(name, ""),
            "version": version, "engine": engine,
            "engine_version": f"{version}.0.0" if traits.client_engine_version and name else "", "family": name,
        }  # fmt: skip
        system = (
            ("GNU/Linux", "LIN")
            if "Linux" in user_agent
            else ("Windows", "WIN")
            if "Windows" in user_agent
            else ("", "")
        )
        device = {
            "lead_id": contact, "date_added": self._instance.now, "client_info": serialize(client), "device": "desktop",
            "device_os_name": system[0], "device_os_shortname": system[1], "device_os_version": "",
            "device_os_platform": "x64" if "x86_64" in user_agent or "x64" in user_agent else "", "device_brand": "",
            "device_model": "", "tracking_id": self._instance.device_id(),
        }  # fmt: skip
        return {**device, "id": self._tables.insert("lead_devices", device)}

    def _device_of(self, contact: int, user_agent: str) -> Row:
        """The contact's device of the same make, or a new one."""
        found = self._tables.row(
            "SELECT id, lead_id, tracking_id FROM lead_devices WHERE lead_id = ? ORDER BY id LIMIT 1", (contact,)
        )
        return found or self.new_device(contact, user_agent)

    def new_visitor(self, actor: Actor) -> Row:
        instance = self._instance
        traits = instance.traits
        row: Row = dict.fromkeys(self._tables.contact_columns)
        row |= {
            "is_published": 1, "points": 0, "internal": 0, "date_added": instance.now, "last_active": instance.now,
            "preferred_profile_image": "gravatar", "added_at": instance.moment(), "changed_at": instance.moment(),
            "modified_by_user": None if traits.modified_at_creation else " ",
        }  # fmt: skip
        row.pop("id")
        row["id"] = self._tables.insert("leads", row)
        self._tables.insert("lead_ips_xref", {"lead_id": row["id"], "ip_id": instance.ip_id(actor.ip)})
        addresses = ["", actor.ip]
        instance.audit(actor, "lead", "lead", row["id"], "create", {"ipAddresses": addresses})
        instance.audit(actor, "lead", "lead", row["id"], "ipadded", addresses)
        return row

    def _is_active(self, row: Row) -> None:
        """A contact shows itself: lastActive moves."""
        self._tables.update("leads", row["id"], {"last_active": self._instance.now})
        row["last_active"] = self._instance.now

    def _seen_at(self, actor: Actor, row: Row) -> None:
        """It does so on the site: a new address is noted as well."""
        instance = self._instance
        self._is_active(row)
        known = self._tables.value(
            "SELECT 1 FROM lead_ips_xref x JOIN ip_addresses i ON i.id = x.ip_id WHERE x.lead_id = ? AND i.ip_address = ?",
            (row["id"], actor.ip),
        )
        if known is None:
            # Mautic stores the address once more for a contact that it finds at a new one
            first = self._tables.row("SELECT * FROM ip_addresses WHERE id = ?", (instance.ip_id(actor.ip),)) or {}
            copy = self._tables.insert("ip_addresses", {k: v for k, v in first.items() if k != "id"})
            self._tables.insert("lead_ips_xref", {"lead_id": row["id"], "ip_id": copy})
            self._contacts.change(actor, row, {}, {"ipAddresses": ["", actor.ip]})
            instance.audit(actor, "lead", "lead", row["id"], "ipadded", ["", actor.ip])

    # -- page hits

    def hit(self, actor: Actor, cookies: Row, query: Row, referer: str | None = None) -> Visit:
        """The tracking pixel and `/mtc/event`."""
        if is_bot(actor.user_agent):
            return Visit()
        row, device = self._visitor(cookies)
        visit = Visit()
        fresh = row is None
        if row is None or device is None:
            row = self.new_visitor(actor)
            device = self.new_device(row["id"], actor.user_agent)
            visit.cookies |= {"mautic_device_id": device["tracking_id"], "mtc_id": str(row["id"])}
        url = str(query.get("page_url") or referer or self._instance.base_url)
        hit = self._add_hit(
            actor, row, device, url, str(query["page_title"]) if query.get("page_title") else None, query
        )
        if fresh:
            self._instance.log_event(row["id"], "page", "hit", "created_contact", url, hit)
        self._utm(actor, row, url, query, hit)
        visit.cookies["mautic_referer_id"] = str(hit)
        visit.contact, visit.hit, visit.device = row["id"], hit, device["tracking_id"]
        return visit

    def _add_hit(
        self, actor: Actor, row: Row, device: Row, url: str, title: str | None, query: Row, source: Row | None = None
    ) -> int:
        instance = self._instance
        if source is None:
            self._tables.run(
                "UPDATE page_hits SET date_left = ? WHERE id = (SELECT MAX(id) FROM page_hits WHERE tracking_id = ?)",
                (instance.now, device["tracking_id"]),
            )
        self._seen_at(actor, row)
        return self._tables.insert(
            "page_hits",
            {
                "lead_id": row["id"], "ip_id": instance.ip_id(actor.ip), "device_id": device["id"],
                "date_hit": instance.now, "country": "", "region": "", "city": "", "isp": "", "organization": "",
                "code": 200, "url": url, "url_title": title, "user_agent": actor.user_agent,
                "browser_languages": serialize({}), "tracking_id": device["tracking_id"], "query": serialize(query),
                "referer": query.get("page_referrer"), **(source or {}),
            },
        )  # fmt: skip

    def _utm(self, actor: Actor, row: Row, url: str, query: Row, hit: int) -> None:
        found = dict(parse_qsl(urlsplit(url).query)) | {k: str(v) for k, v in query.items() if k in _UTM}
        tags = {k: found[k] for k in _UTM if found.get(k)}
        if not tags:
            return
        instance = self._instance
        self._tables.insert(
            "lead_utmtags",
            {
                "lead_id": row["id"], "date_added": instance.now, "query": serialize(query), "url": url,
                "user_agent": actor.user_agent, **tags,
            },
        )  # fmt: skip
        name = "utm_source" if "utm_source" in tags else next(iter(tags))
        details = {"utmtags": [name, tags[name]], "manipulated_by": url, "manipulator_key": f"page:hit:{hit}"}
        self._contacts.change(actor, row, {}, details)

    # -- forms

    def submit(self, actor: Actor, cookies: Row, form: Row, sent: Row) -> Visit:
        """A form's answers: may make, identify or merge contacts (docs/mautic.md: "Merging, which renumbers people")."""
        visit = Visit(location=self._after_submit(form, sent))
        if is_bot(actor.user_agent):
            return visit
        values = self._form_values(form, sent)
        instance = self._instance
        row, device = self._visitor(cookies)
        created = row is None
        kiosk = form.get("inKioskMode")
        if row is None or device is None or kiosk:
            row = self.new_visitor(actor)
            device = self.new_device(row["id"], actor.user_agent)
            visit.cookies |= {"mautic_device_id": device["tracking_id"], "mtc_id": str(row["id"])}
        address = str(values.get("email") or "").strip()
        known = [c for c in self._contacts.by_email(address) if c != row["id"]] if address and not kiosk else []
        submission = instance.next_id("submissions")
        if created:
            instance.log_event(row["id"], "form", "submission", "created_contact", form["name"], form["id"])
        if known and str(row["email"] or "").lower() != address.lower():
            if row["email"]:
                # a different address: the two are never merged, the browser moves to the known contact
                other = self._contacts.load(known[0])
                assert other is not None
                row, device = other, self._device_of(known[0], actor.user_agent)
                visit.cookies |= {"mautic_device_id": device["tracking_id"], "mtc_id": str(row["id"])}
            else:
                row = self._merging.merge(actor, survivor=row["id"], loser=known[0])
        self._seen_at(actor, row)
        self._take_values(actor, row, values, form)
        self._tables.insert(
            "form_submissions",
            {
                "id": submission, "form_id": form["id"], "ip_id": instance.ip_id(actor.ip), "lead_id": row["id"],
                "tracking_id": device["tracking_id"], "date_submitted": instance.now, "referer": "",
            },
        )  # fmt: skip
        results = {f["alias"]: str(sent.get(f["alias"], "")) for f in form["fields"]}
        self._tables.insert("form_results", {"submission_id": submission, "results": orjson.dumps(results).decode()})
        if ("mautic_device_id" not in visit.cookies and instance.session_cookie not in cookies) or (
            created and instance.session_cookie not in cookies
        ):
            visit.cookies[instance.session_cookie] = instance.device_id()[:26]
        visit.contact = row["id"]
        return visit

    @staticmethod
    def _after_submit(form: Row, sent: Row) -> str:
        if form.get("postAction") == "redirect" and form.get("postActionProperty"):
            return str(form["postActionProperty"])
        return str(sent.get("return") or "/form/message")

    def _form_values(self, form: Row, sent: Row) -> Row:
        """What the form's fields set on the contact."""
        values: Row = {}
        for entry in form["fields"]:
            alias = entry.get("mappedField") or entry.get("leadField")
            given = sent.get(entry["alias"])
            if alias in self._instance.fields_by_alias and isinstance(given, str) and given.strip():
                values[alias] = strip_tags(given)
        return values

    def _take_values(self, actor: Actor, row: Row, values: Row, form: Row) -> None:
        changes: Row = {}
        written: Row = {}
        for found in self._instance.ordered_fields:
            alias = found.alias
            new = values.get(alias)
            if new is None or row[alias] == new:
                continue
            if alias == "email" and str(row[alias] or "").lower() == str(new).lower():
                continue
            if alias in _UNSTORED:
                continue
            changes[alias] = [row[alias], new]
            changes.setdefault("fields", {})[alias] = [row[alias], new]
            written[alias] = new
        if not changes:
            return
        instance = self._instance
        identified = row["date_identified"] is None
        row |= written
        if identified:
            written["date_identified"] = instance.now
            changes["dateIdentified"] = ["", PhpDate(instance.clock.now())]
        signed = {"manipulated_by": form["name"], "manipulator_key": f"form:submission:{form['id']}"}
        self._contacts.change(actor, row, written, changes | signed)
        if identified:
            instance.audit(actor, "lead", "lead", row["id"], "identified", {})
            instance.log_event(row["id"], "form", "submission", "identified_contact", form["name"], form["id"])

    # -- e-mails

    def send(self, email: Row, contact: Row, *, source: str = "api") -> Row:
        """Notes an e-mail as sent; its links become tracked ones."""
        instance = self._instance
        stat = {
            "email_id": email["id"], "lead_id": contact["id"], "email_address": contact["email"],
            "date_sent": instance.now, "is_read": 0, "is_failed": 0, "viewed_in_browser": 0,
            "tracking_hash": instance.hex(22), "retry_count": 0, "source": source, "source_id": 0, "open_count": 0,
            "open_details": serialize({}),
        }  # fmt: skip
        stat["id"] = self._tables.insert("email_stats", stat)
        email["sentCount"] += 1
        for url in re.findall(r'href="(https?://[^"]+)"', str(email.get("customHtml") or "")):
            self.trackable(email, url)
        return stat

    def trackable(self, email: Row, url: str) -> int:
        instance = self._instance
        known = self._tables.value(
            "SELECT r.id FROM page_redirects r JOIN channel_url_trackables t ON t.redirect_id = r.id "
            "WHERE r.url = ? AND t.channel_id = ? AND t.channel = 'email'",
            (url, email["id"]),
        )
        if known is not None:
            return int(known)
        redirect: Row = {
            "is_published": 1, "date_added": instance.now, "created_by_user": email["createdByUser"],
            "redirect_id": instance.hex(25), "url": url, "hits": 0, "unique_hits": 0,
        }  # fmt: skip
        if instance.traits.modified_at_creation:
            redirect |= {"date_modified": instance.now, "modified_by_user": email["createdByUser"]}
        redirect_id = self._tables.insert("page_redirects", redirect)
        tie = {"channel_id": email["id"], "redirect_id": redirect_id, "channel": "email", "hits": 0, "unique_hits": 0}
        self._tables.insert("channel_url_trackables", tie)
        return redirect_id

    def stat(self, tracking_hash: str) -> Row | None:
        return self._tables.row("SELECT * FROM email_stats WHERE tracking_hash = ?", (tracking_hash,))

    def open(self, actor: Actor, cookies: Row, tracking_hash: str, *, in_browser: bool = False) -> Visit:
        visit = Visit()
        stat = self.stat(tracking_hash)
        row = self._contacts.load(stat["lead_id"]) if stat is not None and stat["lead_id"] is not None else None
        if stat is None or row is None or (is_bot(actor.user_agent) and not self._instance.traits.bots_open_mails):
            return visit
        known = self._device(cookies)
        if known is None or known["lead_id"] != row["id"]:
            device = self._device_of(row["id"], actor.user_agent)
            visit.cookies |= {"mautic_device_id": device["tracking_id"], "mtc_id": str(row["id"])}
        self._is_active(row)
        self._note_opening(actor, stat, in_browser=in_browser)
        visit.contact = row["id"]
        return visit

    def _note_opening(self, actor: Actor, stat: Row, *, in_browser: bool = False) -> None:
        instance = self._instance
        opened = {"datetime": instance.now, "useragent": actor.user_agent, "inBrowser": in_browser}
        details = unserialized_list(stat["open_details"])
        self._tables.update(
            "email_stats",
            stat["id"],
            {
                "is_read": 1, "date_read": stat["date_read"] or instance.now, "last_opened": instance.now,
                "open_count": stat["open_count"] + 1, "ip_id": instance.ip_id(actor.ip),
                "open_details": serialize([*details, opened]),
            },
        )  # fmt: skip

    def click(self, actor: Actor, cookies: Row, redirect_id: str, ct: str) -> Visit:
        """A tracked link: a page hit with redirect and e-mail, which opens a mail that was not; the browser moves to the
        e-mail's contact.
        """
        redirect = self._tables.row("SELECT * FROM page_redirects WHERE redirect_id = ?", (redirect_id,))
        if redirect is None:
            raise RefusedError(404, "Not found")
        url = redirect["url"]
        location = url
        if self._instance.traits.link_keeps_ct and ct:
            location = f"{url}{'&' if '?' in url else '?'}ct={quote(ct, safe='')}"
        visit = Visit(location=location)
        if is_bot(actor.user_agent):
            return visit
        through = decode_click_through(ct)
        stat = self.stat(str(through.get("stat") or ""))
        row, device = self._visitor(cookies)
        contact = stat["lead_id"] if stat is not None else None
        if contact is not None and (row is None or row["id"] != contact):
            row, device = self._contacts.load(contact), self._device_of(contact, actor.user_agent)
            visit.cookies |= {"mautic_device_id": device["tracking_id"], "mtc_id": str(contact)}
        if row is None or device is None:
            row = self.new_visitor(actor)
            device = self.new_device(row["id"], actor.user_agent)
            visit.cookies |= {"mautic_device_id": device["tracking_id"], "mtc_id": str(row["id"])}
        email = stat["email_id"] if stat is not None else None
        query: Row = dict(parse_qsl(urlsplit(url).query))
        if through:
            query["ct"] = _texts(through)
        query["page_url"] = url
        source: Row = {"redirect_id": redirect["id"]}
        if email is not None:
            source |= {"email_id": email, "source": "email", "source_id": email}
        first = not self._tables.value(
            "SELECT 1 FROM page_hits WHERE redirect_id = ? AND lead_id = ?", (redirect["id"], row["id"])
        )
        hit = self._add_hit(actor, row, device, url, None, query, source)
        if stat is not None and not stat["is_read"]:
            self._note_opening(actor, stat)
        for table, condition in (("page_redirects", "id = ?"), ("channel_url_trackables", "redirect_id = ?")):
            self._tables.run(
                f"UPDATE {table} SET hits = hits + 1, unique_hits = unique_hits + ? WHERE {condition}",
                (int(first), redirect["id"]),
            )
        visit.cookies["mautic_referer_id"] = str(hit)
        visit.contact, visit.hit = row["id"], hit
        return visit

    def reply(self, tracking_hash: str) -> bool:
        stat = self.stat(tracking_hash)
        if stat is None:
            return False
        digits = self._instance.hex(32)
        uuid = "-".join((digits[:8], digits[8:12], f"4{digits[13:16]}", f"a{digits[17:20]}", digits[20:]))
        reply = {"id": uuid, "stat_id": stat["id"], "date_replied": self._instance.now}
        self._tables.insert("email_stat_replies", reply | {"message_id": f"api-{self._instance.device_id()[:10]}"})
        if not stat["is_read"]:
            # Read, though never opened: `last_opened` and lastActive stay.
            self._tables.update("email_stats", stat["id"], {"is_read": 1, "date_read": self._instance.now})
        return True

    def unsubscribe(self, actor: Actor, tracking_hash: str) -> None:
        stat = self.stat(tracking_hash)
        row = self._contacts.load(stat["lead_id"]) if stat is not None and stat["lead_id"] is not None else None
        if stat is not None and row is not None:
            self._is_active(row)
            self._contacts.add_dnc(actor, row, "email", _UNSUBSCRIBED, "User unsubscribed.", stat["email_id"])

    def click_through(self, stat: Row) -> str:
        """The `ct` parameter of a link in a sent e-mail."""
        email = stat["email_id"]
        through = {
            "source": ["email", email], "email": email, "stat": stat["tracking_hash"],
            "lead": str(stat["lead_id"]), "channel": {"email": email},
        }  # fmt: skip
        return base64.b64encode(serialize(through).encode()).decode()

    # -- assets

    def download(self, actor: Actor, cookies: Row, asset: Row) -> Visit:
        visit = Visit(location=self._instance.entities["asset_files"][asset["id"]]["file"])
        if is_bot(actor.user_agent):
            return visit
        row, device = self._visitor(cookies)
        if row is None or device is None:
            row = self.new_visitor(actor)
            device = self.new_device(row["id"], actor.user_agent)
            visit.cookies |= {"mautic_device_id": device["tracking_id"], "mtc_id": str(row["id"])}
        self._seen_at(actor, row)
        download = {
            "asset_id": asset["id"], "ip_id": self._instance.ip_id(actor.ip), "lead_id": row["id"],
            "date_download": self._instance.now, "code": 200, "tracking_id": device["tracking_id"],
        }  # fmt: skip
        self._tables.insert("asset_downloads", download)
        asset["downloadCount"] += 1
        visit.contact = row["id"]
        return visit


_UNSTORED = frozenset({"points", "last_active"})


def unserialized_list(text: str | None) -> list[Any]:
    found = unserialize(text) if text else []
    return found if isinstance(found, list) else []


def _texts(value: Any) -> Any:
    """A query parameter's values are texts, whatever was put in."""
    if isinstance(value, dict):
        return {k: _texts(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_texts(v) for v in value]
    return str(value)
