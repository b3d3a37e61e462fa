# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""The world a sandbox begins with: visitors, known people and customers of a small shop, and what they did.

The same number of contacts and the same seed make the same world, relative to the moment the sandbox starts.
"""

import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlencode

import orjson

from .instance import ADMIN, Instance
from .php import serialize
from .routes import Mautic
from .shapes import Row
from .zerobounce import CATCH_ALL, DEAD, DISPOSABLE, FREE, TYPOS

_DAY = 86400
_DAYS = 120
_DEFAULT_ACTIVITIES = 5.0
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
)
_FIRST = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Ida",
    "Jonas",
    "Katharina",
    "Leon",
    "Maria",
    "Noah",
    "Olivia",
    "Paul",
    "Ronja",
    "Samuel",
    "Tara",
    "Uwe",
    "Vera",
    "Wanda",
    "Xaver",
    "Yara",
    "Zoe",
    "Lukas",
    "Mia",
    "Emil",
    "Nora",
    "Oskar",
]
_LAST = [
    "Adler",
    "Bauer",
    "Conrad",
    "Dietz",
    "Ebert",
    "Fischer",
    "Graf",
    "Huber",
    "Imhof",
    "Jansen",
    "Keller",
    "Lang",
    "Moser",
    "Neumann",
    "Otto",
    "Peters",
    "Quast",
    "Richter",
    "Seidel",
    "Thoma",
    "Ulrich",
    "Vogel",
    "Weber",
    "Yilmaz",
    "Ziegler",
    "Martin",
    "Rossi",
    "Novak",
    "Dubois",
    "Larsen",
]
_COMPANIES = (
    "Nordlicht Logistik", "Alpenblick Hotels", "Brandt & Söhne", "Kite Software", "Helio Solar", "Fjord Foods",
    "Sternwerk", "Atlas Print", "Acme Rival", "Blue Harbour", "Kaffeekontor", "Vega Medical",
)  # fmt: skip
_POSITIONS = ("CEO", "Head of Marketing", "Marketing Manager", "Buyer", "Owner", "Assistant", "CTO", "Sales Director")
_PLACES = (
    ("Germany", "Berlin"), ("Germany", "Hamburg"), ("Germany", "Munich"), ("Austria", "Vienna"),
    ("Switzerland", "Zurich"), ("France", "Lyon"), ("Netherlands", "Utrecht"), ("Italy", "Turin"),
    ("United States", "Boston"),
)  # fmt: skip
_PAGES = (
    ("https://shop.example/", "Home", 30), ("https://shop.example/pricing", "Pricing", 12),
    ("https://shop.example/products/lamp", "Desk lamp", 14), ("https://shop.example/products/chair", "Office chair", 12),
    ("https://shop.example/products/desk", "Standing desk", 10), ("https://shop.example/blog/better-light", "Better light", 8),
    ("https://shop.example/blog/home-office", "Your home office", 8), ("https://shop.example/cart", "Your cart", 4),
    ("https://shop.example/about", "About us", 2),
)  # fmt: skip
_THANK_YOU = ("https://shop.example/order/thank-you", "Thank you for your order")
_CAMPAIGNS = (
    ("google", "cpc", "autumn"),
    ("newsletter", "email", "offer"),
    ("instagram", "social", "lamp"),
    ("bing", "cpc", "desk"),
)
_REFERERS = ("https://www.google.com/", "https://duckduckgo.com/", "https://www.instagram.com/", None, None, None)
_OFFER_LINKS = ("https://shop.example/offer", "https://shop.example/products/chair")
_CLIENT = serialize({"type": "browser", "name": "Chrome", "short_name": "CH", "version": "126.0", "engine": "Blink"})
_UTM = ("utm_source", "utm_medium", "utm_campaign")
_CAME_FROM = serialize({"ipAddresses": ["", "127.0.0.1"]})
_IP_ADDED = serialize(["", "127.0.0.1"])
_NOTHING = serialize({})
_EVIDENCE = ("field", "tag", "form", "page")


@dataclass
class _Person:
    """A contact being made up."""

    id: int
    kind: str
    added: int
    last: int
    values: Row = field(default_factory=dict)
    points: int = 0
    identified: int | None = None
    by_api: bool = False


class _World:
    def __init__(self, mautic: Mautic, contacts: int, seed: int, activities: float) -> None:
        self.mautic = mautic
        self.instance: Instance = mautic.instance
        self.random = random.Random(f"world {contacts} {seed}")
        self.activities = activities
        self.end = int(self.instance.moment())
        self.start = self.end - _DAYS * _DAY
        self.count = contacts
        self.people: list[_Person] = []
        self.rows: dict[str, list[tuple[int, Row]]] = {}
        self.addresses: dict[str, None] = {}
        self.asked = 0
        self._page_choice = [p for p in _PAGES for _ in range(p[2])]

    def text(self, moment: int) -> str:
        days, seconds = divmod(moment, _DAY)
        return f"{_date(days)} {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    def note(self, table: str, moment: int, row: Row) -> Row:
        self.rows.setdefault(table, []).append((moment, row))
        return row

    # -- what Mautic was set up with

    def furnish(self) -> None:
        instance, catalogue = self.instance, self.mautic.catalogue
        instance.clock.advance(-(_DAYS + 5) * _DAY)
        professional = {"group": "professional"}
        catalogue.make_field(
            ADMIN, {"label": "Orders count", "alias": "orders_count", "type": "number", **professional}
        )
        catalogue.make_field(
            ADMIN, {"label": "Last purchase", "alias": "last_purchase", "type": "datetime", **professional}
        )
        catalogue.make_stage(ADMIN, {"name": "Partner", "weight": 50, "description": "Resellers and affiliates"})
        email = {"label": "Email", "type": "email", "alias": "email", "mappedObject": "contact", "mappedField": "email",
                 "leadField": "email", "isRequired": True}  # fmt: skip
        name = {"label": "First name", "type": "text", "alias": "firstname", "mappedObject": "contact",
                "mappedField": "firstname", "leadField": "firstname"}  # fmt: skip
        for form in ("Signup", "Checkout", "Contact"):
            sent = {"name": form, "postAction": "return", "fields": [email, name]}
            catalogue.make("forms", ADMIN, sent)
        for title in ("Whitepaper", "Price list"):
            file = f"https://shop.example/files/{title.lower().replace(' ', '-')}.pdf"
            catalogue.make("assets", ADMIN, {"title": title, "storageLocation": "remote", "file": file})
        links = "".join(f'<a href="{u}">look</a> ' for u in _OFFER_LINKS)
        for email_name in ("Newsletter", "Offer"):
            sent_email = {"name": email_name, "subject": email_name, "customHtml": f"<html><body>{links}</body></html>"}
            made = catalogue.make("emails", ADMIN, sent_email | {"template": "blank"})
            for url in _OFFER_LINKS:
                self.mautic.tracking.trackable(made, url)
        catalogue.make("segments", ADMIN, {"name": "Nurture", "alias": "nurture"})
        event = {"id": "new1", "name": "Send Offer", "type": "email.send", "eventType": "action", "order": 1,
                 "properties": {"email": 2}, "triggerMode": "immediate"}  # fmt: skip
        catalogue.make("campaigns", ADMIN, {"name": "Welcome", "events": [event], "lists": [{"id": 1}]})
        for tag in ("customer", "newsletter", "vip"):
            self.mautic.contacts.tag_id(tag)
        instance.clock.advance((_DAYS + 5) * _DAY)
        instance.ip_id("127.0.0.1")

    # -- people

    def populate(self) -> None:
        chance = self.random
        moments = sorted(self.start + int((_DAYS * _DAY - 3600) * chance.random() ** 0.9) for _ in range(self.count))
        for number, added in enumerate(moments, start=1):
            drawn = chance.random()
            kind = "ghost" if drawn < 0.65 else "known" if drawn < 0.93 else "phone" if drawn < 0.95 else "customer"
            person = _Person(number, kind, added, added)
            self.people.append(person)
            if kind != "ghost":
                self._identify(person)
            self._live(person)
            self._audit_made(person)

    def _identify(self, person: _Person) -> None:
        chance, values = self.random, person.values
        first, last = chance.choice(_FIRST), chance.choice(_LAST)
        if person.kind == "phone":
            values["phone"] = f"+49 30 9018{chance.randrange(10000):04}"
            person.by_api = True
            if chance.random() < 0.3:
                values |= {"firstname": first, "lastname": last}
                person.identified = person.added
            return
        if chance.random() < 0.8:
            values |= {"firstname": first, "lastname": last}
        if chance.random() < 0.5:
            values["company"] = chance.choice(_COMPANIES)
        if chance.random() < 0.6:
            values["country"], values["city"] = chance.choice(_PLACES)
        if chance.random() < 0.4:
            values["position"] = chance.choice(_POSITIONS)
        if chance.random() < 0.2:
            values["phone"] = f"+49 40 3344{chance.randrange(10000):04}"
        values["email"] = self._address(person, first, last)
        person.by_api = chance.random() < 0.25
        person.identified = (
            person.added if person.by_api else min(self.end - 60, person.added + chance.randrange(20, 6 * _DAY))
        )

    def _address(self, person: _Person, first: str, last: str) -> str:
        chance = self.random
        drawn = chance.random()
        if person.kind == "customer" or drawn < 0.8:
            domain = (
                chance.choice(sorted(FREE))
                if drawn < 0.45
                else f"{last.lower()}-{chance.choice(('group', 'werk', 'shop'))}.example"
            )
        elif drawn < 0.84:
            domain = chance.choice(sorted(TYPOS))
        elif drawn < 0.88:
            domain = chance.choice(sorted(DISPOSABLE))
        elif drawn < 0.93:
            domain = chance.choice(sorted(CATCH_ALL))
        elif drawn < 0.97:
            domain = chance.choice(sorted(DEAD))
        else:
            unknown = ("greylisted", "mail_server_did_not_respond", "timeout_exceeded", "role_based", "valid")
            return f"{chance.choice(unknown)}@example.com"
        address = f"{first.lower()}.{last.lower()}@{domain}"
        # oddities come by turn, so that a small world has them too
        self.asked += 1
        turn = self.asked % 40
        if turn == 23:
            return chance.choice(list(self.addresses)[-20:])
        if address in self.addresses:
            address = f"{first.lower()}.{last.lower()}{person.id}@{domain}"
        self.addresses[address] = None
        return address.upper() if turn == 7 else f" {address}" if turn == 13 else address

    def _live(self, person: _Person) -> None:
        """What the person did, on the site and with mails."""
        chance = self.random
        on_site = not person.by_api or chance.random() < 0.5
        device = ip = None
        if on_site:
            ip = f"203.0.{chance.randrange(113, 120)}.{chance.randrange(1, 255)}"
            device = self.note("lead_devices", person.added, self._device(person))
        expected = self.activities * (0.75 if person.kind == "ghost" else 1.5)
        number = max(1 if on_site else 0, int(chance.expovariate(1 / expected) + 0.5)) if expected > 0 else int(on_site)
        moments = (
            sorted(chance.randrange(person.added, self.end - 30) for _ in range(max(0, number - 1)))
            if number > 1
            else []
        )
        if number and on_site:
            moments.insert(0, person.added)
        for order, moment in enumerate(moments):
            drawn = chance.random()
            if person.kind in {"known", "customer"} and drawn < 0.35 and moment > (person.identified or 0):
                self._mail(person, moment, device, ip)
            elif device is not None and drawn < 0.97:
                self._hit(person, moment, device, ip, first=order == 0)
            elif device is not None:
                self._download(person, moment, device, ip)
        if person.kind in {"known", "customer"}:
            self._relate(person, device, ip)
        if person.kind == "customer":
            self._buy(person, device, ip)

    def _device(self, person: _Person) -> Row:
        agent = self.random.choice(_AGENTS)
        tracking_id = "".join(self.random.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=23))
        return {
            "lead_id": person.id, "date_added": self.text(person.added), "client_info": _CLIENT,
            "device": "desktop", "device_os_name": "Windows" if "Windows" in agent else "GNU/Linux",
            "device_os_shortname": "WIN" if "Windows" in agent else "LIN", "device_os_version": "",
            "device_os_platform": "x64", "device_brand": "", "device_model": "", "tracking_id": tracking_id,
            "agent": agent,
        }  # fmt: skip

    def _ip(self, person: _Person, address: str | None, moment: int) -> str:
        if address is not None:
            self.note("ips", moment, {"lead_id": person.id, "ip": address})
        return address or "127.0.0.1"

    def _hit(
        self,
        person: _Person,
        moment: int,
        device: Row,
        ip: str | None,
        *,
        first: bool,
        page: Sequence[str] | None = None,
    ) -> None:
        chance = self.random
        url, title = (page or chance.choice(self._page_choice))[:2]
        utm: tuple[str, str, str] | None = None
        if first and chance.random() < 0.35:
            utm = chance.choice(_CAMPAIGNS)
        url, query = _asked_for(url, title, utm)
        if utm is not None:
            self.note(
                "lead_utmtags",
                moment,
                {"lead_id": person.id, "date_added": self.text(moment), "query": query, "url": url,
                 "user_agent": device["agent"], **dict(zip(_UTM, utm, strict=True))},
            )  # fmt: skip
        person.last = max(person.last, moment)
        self.note(
            "page_hits",
            moment,
            {
                "lead_id": person.id, "ip": self._ip(person, ip, moment) if first else ip or "127.0.0.1", "device": device,
                "date_hit": self.text(moment), "country": "", "region": "", "city": "", "isp": "", "organization": "",
                "code": 200, "url": url, "url_title": title, "user_agent": device["agent"], "browser_languages": "a:0:{}",
                "tracking_id": device["tracking_id"], "query": query,
                "referer": chance.choice(_REFERERS) if first else None,
            },
        )  # fmt: skip

    def _download(self, person: _Person, moment: int, device: Row, ip: str | None) -> None:
        person.last = max(person.last, moment)
        row = {"asset_id": self.random.choice((1, 1, 2)), "ip": ip or "127.0.0.1", "lead_id": person.id,
               "date_download": self.text(moment), "code": 200, "tracking_id": device["tracking_id"]}  # fmt: skip
        self.note("asset_downloads", moment, row)

    def _mail(self, person: _Person, moment: int, device: Row | None, ip: str | None) -> None:
        """A mail sent; opened, clicked, answered or bounced with everyday chances."""
        chance = self.random
        email = chance.choice((1, 1, 2))
        drawn = chance.random()
        stat: Row = {
            "email_id": email, "lead_id": person.id, "email_address": person.values["email"].strip(),
            "date_sent": self.text(moment), "is_read": 0, "is_failed": 0, "viewed_in_browser": 0,
            "tracking_hash": f"{chance.getrandbits(88):022x}", "retry_count": 0, "source": "email", "source_id": email,
            "open_count": 0, "open_details": "a:0:{}",
        }  # fmt: skip
        self.note("email_stats", moment, stat)
        if drawn < 0.03:
            stat["is_failed"] = 1
            self._dnc(person, moment + 20, 2, "Mailbox unavailable", email)
            return
        if drawn < 0.45:
            opened = min(self.end - 20, moment + chance.randrange(60, 2 * _DAY))
            person.last = max(person.last, opened)
            text = self.text(opened)
            agent = device["agent"] if device else _AGENTS[0]
            details = [{"datetime": text, "useragent": agent, "inBrowser": False}]
            stat |= {
                "is_read": 1,
                "date_read": text,
                "last_opened": text,
                "open_count": 1,
                "open_details": serialize(details),
            }
            if drawn < 0.13 and device is not None and opened < self.end - 60:
                self._click(person, opened + chance.randrange(5, 40), device, ip, stat)
            if drawn < 0.045:
                self.note("replies", min(self.end - 10, opened + 300), {"stat": stat})

    def _click(self, person: _Person, moment: int, device: Row, ip: str | None, stat: Row) -> None:
        email = stat["email_id"]
        which = self.random.randrange(len(_OFFER_LINKS))
        url = _OFFER_LINKS[which]
        through = {"source": ["email", str(email)], "email": str(email), "stat": stat["tracking_hash"],
                   "lead": str(person.id), "channel": {"email": str(email)}}  # fmt: skip
        person.last = max(person.last, moment)
        redirect = (email - 1) * len(_OFFER_LINKS) + which + 1
        self.note(
            "page_hits",
            moment,
            {
                "redirect_id": redirect, "email_id": email, "lead_id": person.id, "ip": ip or "127.0.0.1", "device": device,
                "date_hit": self.text(moment), "country": "", "region": "", "city": "", "isp": "", "organization": "",
                "code": 200, "url": url, "user_agent": device["agent"], "browser_languages": "a:0:{}",
                "tracking_id": device["tracking_id"], "source": "email", "source_id": email,
                "query": serialize({"ct": through, "page_url": url}),
            },
        )  # fmt: skip

    def _dnc(self, person: _Person, moment: int, reason: int, comments: str, channel_id: int | None = None) -> None:
        if person.values.get("dnc"):
            return
        person.values["dnc"] = reason
        row = {"lead_id": person.id, "date_added": self.text(moment), "reason": reason, "channel": "email",
               "channel_id": channel_id, "comments": comments}  # fmt: skip
        self.note("lead_donotcontact", moment, row)

    def _relate(self, person: _Person, device: Row | None, ip: str | None) -> None:
        """Sign-up, segment, campaign, tags, points and do-not-contact of a known person."""
        chance = self.random
        since = person.identified or person.added
        if not person.by_api:
            self._submission(person, since, "Contact" if chance.random() < 0.2 else "Signup", device, ip)
        if chance.random() < 0.25:
            row = {
                "leadlist_id": 1,
                "lead_id": person.id,
                "date_added": self.text(since),
                "manually_removed": 0,
                "manually_added": 1,
            }
            self.note("lead_lists_leads", since, row)
            self._event(person, since, "lead", "segment", "added", 1, "Nurture")
        if chance.random() < 0.2:
            row = {"campaign_id": 1, "lead_id": person.id, "date_added": self.text(since), "manually_removed": 0,
                   "manually_added": 0, "rotation": 1}  # fmt: skip
            self.note("campaign_leads", since, row)
            self._event(person, since, "lead", "campaign", "added", 1, "Welcome")
            done = min(self.end - 5, since + 600)
            log = {"campaign_id": 1, "event_id": 1, "lead_id": person.id, "date_triggered": self.text(done),
                   "is_scheduled": 0, "system_triggered": 1, "rotation": 1, "metadata": "a:0:{}"}  # fmt: skip
            self.note("campaign_lead_event_log", done, log)
        if chance.random() < 0.3:
            self.note("tags", since, {"lead_id": person.id, "tag": "newsletter"})
        if chance.random() < 0.15:
            for _ in range(chance.randrange(1, 4)):
                self._points(person, chance.randrange(since, self.end))
        drawn = chance.random()
        if drawn < 0.03:
            self._dnc(person, chance.randrange(since, self.end), 1, "User unsubscribed.", 1)
        elif drawn < 0.04:
            self._dnc(person, chance.randrange(since, self.end), 3, "Asked on the phone", None)
        if person.id % 33 == 1:
            self._partner(person, since)

    def _partner(self, person: _Person, moment: int) -> None:
        person.values["stage_id"] = 1
        row = {"lead_id": person.id, "stage_id": 1, "event_name": "1:Partner", "action_name": "Stage changed",
               "date_added": self.text(moment)}  # fmt: skip
        self.note("lead_stages_change_log", moment, row)

    def _points(self, person: _Person, moment: int) -> None:
        delta, name = self.random.choice(((5, "1: Visits pricing"), (10, "2: Fills a form"), (-3, "3: Ignores mail")))
        person.points += delta
        row = {"lead_id": person.id, "ip": "127.0.0.1", "type": "point", "event_name": name, "action_name": "page.hit",
               "delta": delta, "date_added": self.text(moment)}  # fmt: skip
        self.note("lead_points_change_log", moment, row)

    def _submission(self, person: _Person, moment: int, form: str, device: Row | None, ip: str | None) -> None:
        person.last = max(person.last, moment)
        results = {"email": person.values["email"], "firstname": person.values.get("firstname", "")}
        row = {
            "form_id": {"Signup": 1, "Checkout": 2, "Contact": 3}[form], "ip": ip or "127.0.0.1", "lead_id": person.id,
            "tracking_id": device["tracking_id"] if device else None, "date_submitted": self.text(moment),
            "referer": "https://shop.example/", "results": results,
        }  # fmt: skip
        self.note("form_submissions", moment, row)

    def _buy(self, person: _Person, device: Row | None, ip: str | None) -> None:
        """A customer is seen by one of four kinds of evidence, or by two."""
        chance = self.random
        since = person.identified or person.added
        moment = chance.randrange(since, self.end)
        evidence = {_EVIDENCE[person.id % len(_EVIDENCE)]} | (
            {chance.choice(_EVIDENCE)} if chance.random() < 0.3 else set()
        )
        if device is None and evidence <= {"page"}:
            evidence = {"field"}
        if "field" in evidence:
            person.values |= {
                "orders_count": float(chance.randrange(1, 9)),
                "last_purchase": self.text(moment)[:17] + "00",
            }
        if "tag" in evidence:
            self.note("tags", moment, {"lead_id": person.id, "tag": "customer"})
        if "form" in evidence:
            self._submission(person, moment, "Checkout", device, ip)
        if "page" in evidence and device is not None:
            self._hit(person, moment, device, ip, first=False, page=_THANK_YOU)

    def _event(
        self, person: _Person, moment: int, bundle: str, thing: str, action: str, thing_id: int | None, told: str
    ) -> None:
        properties = orjson.dumps({"object_description": told}).decode().replace("/", "\\/")
        row = {"lead_id": person.id, "bundle": bundle, "object": thing, "action": action, "object_id": thing_id,
               "date_added": self.text(moment), "properties": properties}  # fmt: skip
        self.note("lead_event_log", moment, row)

    def _audit_made(self, person: _Person) -> None:
        """The audit rows of how the contact came to be, and became known."""
        client = self.instance.credentials.client_label if person.id % 2 else "CRM import [2]"
        author = client if person.by_api else "System"
        fields = {
            k: [None, v]
            for k, v in person.values.items()
            if k in {"firstname", "lastname", "company", "email", "phone"}
        }

        def note(moment: int, action: str, details: Any, who: str) -> None:
            row = {"user_id": 0, "user_name": who, "bundle": "lead", "object": "lead", "object_id": person.id,
                   "action": action, "details": details if isinstance(details, str) else serialize(details), "date_added": self.text(moment),
                   "ip_address": "127.0.0.1"}  # fmt: skip
            self.note("audit_log", moment, row)

        if person.by_api:
            note(person.added, "create", {"fields": fields} | fields, author)
        else:
            note(person.added, "create", _CAME_FROM, "System")
            note(person.added, "ipadded", _IP_ADDED, "System")
            self._event(person, person.added, "page", "hit", "created_contact", None, "https://shop.example/")
        if person.identified is not None:
            if not person.by_api:
                note(person.identified, "update", {"fields": fields} | fields, "System")
            note(person.identified, "identified", _NOTHING, author)
            source = ("lead", "api-single") if person.by_api else ("form", "submission")
            self._event(person, person.identified, *source, "identified_contact", None, author)

    # -- into the tables

    def store(self) -> None:
        tables = self.instance.tables
        ids: dict[str, int] = {}
        for moment, row in sorted(self.rows.pop("ips", []), key=lambda r: r[0]):
            del moment
            address = row["ip"]
            if address not in ids:
                ids[address] = self.instance.ip_id(address)
        ids["127.0.0.1"] = self.instance.ip_id("127.0.0.1")
        self._store_people()
        self._plain("lead_devices", keep="id")
        for table in ("page_hits", "asset_downloads", "form_submissions", "lead_points_change_log"):
            for _, row in self.rows.get(table, []):
                address = row.pop("ip")
                row["ip_id"] = ids.get(address) or ids.setdefault(address, self.instance.ip_id(address))
                device = row.pop("device", None)
                if device is not None:
                    row["device_id"] = device["id"]
        ties = {(r["lead_id"], r["ip_id"]) for _, r in self.rows.get("page_hits", [])}
        tables.run_many("INSERT OR IGNORE INTO lead_ips_xref VALUES (?, ?)", sorted(ties))
        self._store_submissions()
        self._plain("email_stats", keep="id")
        replies = sorted(self.rows.pop("replies", []), key=lambda r: r[0])
        tables.run_many(
            "INSERT INTO email_stat_replies (id, stat_id, date_replied, message_id) VALUES (?, ?, ?, ?)",
            [
                (_uuid(self.random), r["stat"]["id"], self.text(m), f"api-{r['stat']['tracking_hash'][:10]}")
                for m, r in replies
            ],
        )
        tags = {t: self.mautic.contacts.tag_id(t) for t in ("customer", "newsletter", "vip")}
        pairs = {(r["lead_id"], tags[r["tag"]]) for _, r in self.rows.pop("tags", [])}
        tables.run_many("INSERT OR IGNORE INTO lead_tags_xref VALUES (?, ?)", sorted(pairs))
        for table in list(self.rows):
            self._plain(table)

    def _store_people(self) -> None:
        tables = self.instance.tables
        columns = tables.contact_columns
        client = self.instance.credentials.client_label
        newer = self.instance.traits.modified_at_creation
        rows = []
        for person in self.people:
            values = person.values
            added = self.text(person.added)
            edited = person.identified if person.identified and not person.by_api else None
            modified = self.text(edited) if edited else added if newer and person.by_api else None
            by = client if person.by_api and person.id % 2 else "CRM import [2]" if person.by_api else None
            row = dict.fromkeys(columns)
            row |= {k: v for k, v in values.items() if k != "dnc"}
            row |= {
                "id": person.id, "is_published": 1, "date_added": added, "created_by_user": by, "date_modified": modified,
                "modified_by_user": " " if not person.by_api else by if newer else None, "points": person.points,
                "internal": 0, "added_at": float(person.added), "changed_at": float(edited or person.added),
                "last_active": None if person.by_api and person.last == person.added else self.text(person.last),
                "date_identified": self.text(person.identified) if person.identified else None,
                "preferred_profile_image": None if person.by_api else "gravatar",
            }  # fmt: skip
            rows.append(tuple(row.values()))
        names = ", ".join(dict.fromkeys(columns))
        tables.run_many(f"INSERT INTO leads ({names}) VALUES ({', '.join('?' * len(columns))})", rows)
        names_of = sorted({p.values["company"] for p in self.people if p.values.get("company")})
        company = {
            n: tables.insert("companies", {"companyname": n, "date_added": self.text(self.start)}) for n in names_of
        }
        tables.run_many(
            "INSERT INTO companies_leads (company_id, lead_id, date_added, is_primary) VALUES (?, ?, ?, 1)",
            [(company[p.values["company"]], p.id, self.text(p.added)) for p in self.people if p.values.get("company")],
        )

    def _store_submissions(self) -> None:
        listed = sorted(self.rows.get("form_submissions", []), key=lambda r: r[0])
        results = []
        for _, row in listed:
            row["id"] = self.instance.next_id("submissions")
            results.append((row["id"], orjson.dumps(row.pop("results")).decode()))
        self.instance.tables.run_many("INSERT INTO form_results VALUES (?, ?)", results)

    def _plain(self, table: str, keep: str | None = None) -> None:
        """Rows into their table in time order; with `keep` each row learns its id."""
        listed = self.rows.pop(table, [])
        if not listed:
            return
        listed.sort(key=lambda r: r[0])
        columns = list(dict.fromkeys(c for _, row in listed for c in row if c != "agent"))
        if keep is not None:
            base = self.instance.tables.value(f"SELECT COALESCE(MAX(id), 0) FROM {table}")
            for offset, (_, row) in enumerate(listed, start=1):
                row[keep] = base + offset
            columns.append(keep)
        marks = ", ".join("?" * len(columns))
        self.instance.tables.run_many(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})",
            ([row.get(c) for c in columns] for _, row in listed),
        )

    def count_clicks(self) -> None:
        run = self.instance.tables.run
        for table, key in (("page_redirects", "id"), ("channel_url_trackables", "redirect_id")):
            run(
                f"UPDATE {table} SET hits = (SELECT COUNT(*) FROM page_hits h WHERE h.redirect_id = {table}.{key}), "
                f"unique_hits = (SELECT COUNT(DISTINCT lead_id) FROM page_hits h WHERE h.redirect_id = {table}.{key})"
            )
        for email_id, email in self.mautic.catalogue.kind("emails").items():
            value = self.instance.tables.value
            email["sentCount"] = value("SELECT COUNT(*) FROM email_stats WHERE email_id = ?", (email_id,))
            email["readCount"] = value(
                "SELECT COUNT(*) FROM email_stats WHERE email_id = ? AND is_read = 1", (email_id,)
            )


@cache
def _date(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(days * _DAY))


@cache
def _asked_for(url: str, title: str, utm: tuple[str, str, str] | None) -> tuple[str, str]:
    """The address of a hit and its serialised query, of which a shop has only so many."""
    named = dict(zip(_UTM, utm, strict=True)) if utm is not None else {}
    if named:
        url = f"{url}?{urlencode(named)}"
    return url, serialize({"page_url": url, "page_title": title, **named})


def _uuid(chance: random.Random) -> str:
    digits = f"{chance.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], f"4{digits[13:16]}", f"a{digits[17:20]}", digits[20:]))


def build_world(mautic: Mautic, *, contacts: int, seed: int, activities_per_contact: float | None) -> None:
    """Fills an empty Mautic with a believable world."""
    activities = _DEFAULT_ACTIVITIES if activities_per_contact is None else activities_per_contact
    world = _World(mautic, contacts, seed, activities)
    world.furnish()
    collecting = gc.isenabled()
    gc.disable()  # millions of rows that all stay: looking for garbage among them takes longer than making them
    try:
        world.populate()
        with mautic.instance.tables.loading():
            world.store()
        world.count_clicks()
    finally:
        if collecting:
            gc.enable()
