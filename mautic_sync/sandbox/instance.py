"""One simulated Mautic: its tables, its clock, its settings, and what every part of it needs to write rows."""

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson

from .clock import Clock, stored
from .contact_fields import COLUMN_ORDER, FIRST_CUSTOM_ID, GROUPS, Field, default_fields
from .php import serialize
from .tables import CONTACT_OWN, Tables
from .versions import Traits


@dataclass(frozen=True)
class Credentials:
    """What opens the sandbox's doors."""

    client_id: str = "sandbox"
    client_secret: str = "sandbox-secret"  # noqa: S105  (a simulation keeps no secrets)
    client_name: str = "sync"
    username: str = "admin"
    password: str = "sandbox"  # noqa: S105
    zerobounce_key: str = "sandbox-key"

    @property
    def client_label(self) -> str:
        """How Mautic signs what this client does: `name [number]`, the number being what the public id begins with."""
        return f"{self.client_name} [{self.client_id.partition('_')[0]}]"


@dataclass(frozen=True)
class Actor:
    """Who acts in a request."""

    name: str | None
    user_id: int | None = None
    ip: str = "127.0.0.1"
    user_agent: str = ""
    rights: frozenset[str] | None = None

    @property
    def signature(self) -> str:
        """What `modified_by_user` and manipulations say."""
        return " " if self.name is None else self.name


VISITOR = Actor(None)
ADMIN = Actor("Ada Admin", 1)


class RefusedError(Exception):
    """A request that Mautic answers with an error."""

    def __init__(self, status: int, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


class CrashedError(Exception):
    """A request over which Mautic itself falls: 500 without its version header."""


@dataclass
class Stage:
    """A stage; times are stored times."""

    id: int
    name: str
    weight: int = 0
    description: str | None = None
    is_published: bool = True
    category: Any = None
    publish_up: str | None = None
    publish_down: str | None = None
    date_added: str | None = None
    date_modified: str | None = None
    created_by: int | None = None
    created_by_user: str | None = None
    modified_by: int | None = None
    modified_by_user: str | None = None


@dataclass
class Books:
    """What the sandbox counts for itself."""

    credits_spent: dict[str, int] = field(default_factory=dict)
    points_before: dict[int, int] = field(default_factory=dict)


class Instance:
    """The state of one simulated Mautic. Callers hold `lock` while they read or write it."""

    def __init__(self, traits: Traits, credentials: Credentials, *, seed: int = 1) -> None:
        self.traits = traits
        self.credentials = credentials
        self.clock = Clock()
        self.lock = threading.RLock()
        self.random = random.Random(f"instance {seed}")
        self.tables = Tables()
        self.fields: list[Field] = []
        self.stages: dict[int, Stage] = {}
        self.entities: dict[str, dict[int, dict[str, Any]]] = {}
        #: who can own contacts besides the administrator, who is 1
        self.users: dict[int, dict[str, Any]] = {}
        self.counters: dict[str, int] = {}
        self.tokens: dict[str, datetime] = {}
        self.books = Books()
        self.rights: frozenset[str] | None = None
        self.malformed: dict[int, str] = {}
        self.base_url = ""
        self.session_cookie = self.hex(32)
        self._ips: dict[str, int] = {}
        defaults = {f.alias: f for f in default_fields()}
        for alias in COLUMN_ORDER:
            self.tables.add_contact_column(alias, defaults[alias].sql_type)
        self.fields = list(defaults.values())
        for column in ("email", "last_active", "date_identified"):
            self.tables.index_contacts(column)
        self._arrange_fields()

    # -- fields

    def add_field(self, made: Field) -> Field:
        self.tables.add_contact_column(made.alias, made.sql_type)
        self.fields.append(made)
        self._arrange_fields()
        return made

    def next_field_id(self) -> int:
        return max(FIRST_CUSTOM_ID, max(f.id for f in self.fields) + 1)

    def custom_order(self) -> int:
        """Mautic puts a new field behind the other custom ones, and these before the fixed ones."""
        return 1 + sum(1 for f in self.fields if f.id >= FIRST_CUSTOM_ID)

    def _arrange_fields(self) -> None:
        custom = sorted((f for f in self.fields if f.id >= FIRST_CUSTOM_ID), key=lambda f: (f.order, f.id))
        first = [f for f in self.fields if f.id < FIRST_CUSTOM_ID]
        self.fields_by_alias = {f.alias: f for f in self.fields}
        in_columns = [self.fields_by_alias[a] for a in COLUMN_ORDER]
        custom_by_id = sorted(custom, key=lambda f: f.id)
        self.ordered_fields = [f for f in [*custom, *first] if f.published]
        self.column_fields = [f for f in [*in_columns, *custom_by_id] if f.published]
        self.grouped = _grouped(self.ordered_fields)
        self.column_grouped = _grouped(self.column_fields)
        self.contact_columns = frozenset(self.tables.contact_columns) - set(CONTACT_OWN)
        numeric = {"id", "is_published", "created_by", "modified_by", "owner_id", "stage_id", "internal"}
        self.contact_numbers = numeric | {f.alias for f in self.fields if "TEXT" not in f.sql_type}

    # -- time and chance

    @property
    def now(self) -> str:
        return stored(self.clock.now())

    def moment(self) -> float:
        return self.clock.now().timestamp()

    def hex(self, length: int) -> str:
        return "".join(self.random.choices("0123456789abcdef", k=length))

    def device_id(self) -> str:
        return "".join(self.random.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=23))

    # -- shared rows

    def next_id(self, kind: str) -> int:
        self.counters[kind] = self.counters.get(kind, 0) + 1
        return self.counters[kind]

    def ip_id(self, address: str, *, looked_up: bool = True) -> int:
        """The row of an address, made on first sight."""
        known = self._ips.get(address)
        if known is None:
            parts = [
                "city",
                "region",
                "zipcode",
                "country",
                "latitude",
                "longitude",
                "isp",
                "organization",
                "timezone",
                "extra",
            ]
            details = serialize(dict.fromkeys(parts, "") if looked_up else None)
            known = self.tables.insert("ip_addresses", {"ip_address": address, "ip_details": details})
            self._ips[address] = known
        return known

    def audit(
        self, actor: Actor, bundle: str, thing: str, object_id: int, action: str, details: Mapping[str, Any] | list[Any]
    ) -> None:
        if thing == "lead" and actor.name is not None:
            for hook in self.entities.get("hooks", {}).values():  # delivering an event saves its hook again
                hook["modifiedByUser"] = actor.name
        self.tables.insert(
            "audit_log",
            {
                "user_id": actor.user_id or 0,
                "user_name": actor.name or "System",
                "bundle": bundle,
                "object": thing,
                "object_id": object_id,
                "action": action,
                "details": serialize(details),
                "date_added": self.now,
                "ip_address": actor.ip,
            },
        )

    def log_event(
        self, contact: int, bundle: str, thing: str, action: str, described: str | None, object_id: int | None = None
    ) -> None:
        """A row of `lead_event_log`: where a contact came from, what it joined."""
        properties = "[]" if described is None else _php_json({"object_description": described})
        self.tables.insert(
            "lead_event_log",
            {
                "lead_id": contact, "bundle": bundle, "object": thing, "action": action, "object_id": object_id,
                "date_added": self.now, "properties": properties,
            },
        )  # fmt: skip

    def stamps(self, actor: Actor) -> dict[str, Any]:
        """The who and when of a row just made."""
        made = {"date_added": self.now, "created_by": actor.user_id, "created_by_user": actor.name}
        if self.traits.modified_at_creation:
            return made | {"date_modified": self.now, "modified_by": actor.user_id, "modified_by_user": actor.name}
        return made | {"date_modified": None, "modified_by": None, "modified_by_user": None}

    def touched(self, actor: Actor, before: str | None) -> dict[str, Any]:
        """The who and when of a change; on some versions the date never moves again (docs/mautic.md: "7.0.0, seen")."""
        date = before if self.traits.modified_frozen and before is not None else self.now
        return {"date_modified": date, "modified_by": actor.user_id, "modified_by_user": actor.signature}

    def settable_stages(self) -> dict[str, int]:
        """Stages an edit may set, by name: of two with one name the later hides the other."""
        return {s.name: s.id for s in self.stages.values() if s.is_published}

    def modified_details(self) -> dict[str, Any]:
        """The piece of audit details that newer versions add to everything just made."""
        if not self.traits.modified_at_creation:
            return {}
        return {"dateModified": [None, f"{self.now[:10]}T{self.now[11:]}+00:00"]}

    def acting(self, actor: Actor) -> Actor:
        return replace(actor, rights=self.rights)


def _grouped(fields: list[Field]) -> dict[str, list[Field]]:
    groups: dict[str, list[Field]] = {}
    for found in fields:
        groups.setdefault(found.group, []).append(found)
    for name in GROUPS:
        groups.setdefault(name, [])
    return groups


def _php_json(value: Any) -> str:
    """PHP's json_encode() escapes slashes and everything beyond ASCII."""
    text = orjson.dumps(value).decode().replace("/", "\\/")
    return "".join(c if ord(c) < 128 else "".join(f"\\u{u:04x}" for u in _utf16(c)) for c in text)


def _utf16(character: str) -> list[int]:
    raw = character.encode("utf-16-be")
    return [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]
