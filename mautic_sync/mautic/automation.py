"""Reads what Mautic does by itself to stages and points, whom it calls, and what a role may do.

Point rules, triggers, campaigns and forms can write what we write: two writers. docs/mautic.md: "Rights and versions".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mautic_sync.errors import RefusedError
from mautic_sync.mautic.provisioning import _all, _id, _published
from mautic_sync.mautic.transport import Transport


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that a campaign, a form or a trigger does: Mautic's name of the type, and its values."""

    name: str
    type: str
    values: Mapping[str, Any]

    @property
    def stage_id(self) -> int | None:
        """The stage that it moves people to; None where it moves nobody, or does not say where to."""
        return _whole(self.values.get("stage")) if self.moves_stage else None

    @property
    def moves_stage(self) -> bool:
        return "stage" in self.type

    @property
    def grants_points(self) -> bool:
        return self.type in {"lead.changepoints", "lead.pointschange"}


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign, what it does, and the types of what it waits for; `starts_with_form`: a form leads into it."""

    id: int
    name: str
    published: bool
    acts: tuple[Act, ...]
    waits_for: frozenset[str]
    starts_with_form: bool


@dataclass(frozen=True, slots=True)
class PointRule:
    """Points that Mautic grants whenever something of this type happens."""

    id: int
    name: str
    type: str
    delta: int
    published: bool


@dataclass(frozen=True, slots=True)
class Trigger:
    """What Mautic does for whoever reaches so many points."""

    id: int
    name: str
    points: int
    published: bool
    acts: tuple[Act, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """A form and what submitting it sets off."""

    id: int
    name: str
    published: bool
    acts: tuple[Act, ...]


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that Mautic calls."""

    id: int
    name: str
    url: str
    published: bool


@dataclass(frozen=True, slots=True)
class Role:
    """What our credentials may do: everything, or what `granted` lists by permission; None where Mautic does not say."""

    name: str
    is_admin: bool
    granted: Mapping[str, frozenset[str]] | None

    def lacks(self, permission: str) -> bool:
        """Whether `lead:leads:editown` and its like is not granted."""
        if self.is_admin or self.granted is None:
            return False
        area, _, right = permission.rpartition(":")
        return not self.granted.get(area, frozenset()) & {right, "full"}


def list_automated_campaigns(transport: Transport) -> list[Campaign]:
    """The campaigns with what happens in them; none where campaigns are switched off."""
    return [_campaign(row) for row in _listed(transport, "campaigns", "campaigns")]


def list_point_rules(transport: Transport) -> list[PointRule]:
    return [
        PointRule(
            _id(row),
            str(row.get("name") or ""),
            str(row.get("type") or ""),
            _whole(row.get("delta")) or 0,
            _published(row),
        )
        for row in _listed(transport, "points", "points")
    ]


def list_triggers(transport: Transport) -> list[Trigger]:
    """The point triggers with what they do. Those on the points of a group look like the others."""
    return [
        Trigger(
            _id(row),
            str(row.get("name") or ""),
            _whole(row.get("points")) or 0,
            _published(row),
            tuple(_act(one) for one in _members(row.get("events"))),
        )
        for row in _listed(transport, "points/triggers", "triggers")
    ]


def list_acting_forms(transport: Transport) -> list[Form]:
    return [
        Form(
            _id(row),
            str(row.get("name") or ""),
            _published(row),
            tuple(_act(one) for one in _members(row.get("actions"))),
        )
        for row in _listed(transport, "forms", "forms")
    ]


def list_webhooks(transport: Transport) -> list[Webhook]:
    return [
        Webhook(_id(row), str(row.get("name") or ""), str(row.get("webhookUrl") or ""), _published(row))
        for row in _listed(transport, "hooks", "hooks")
    ]


def own_role(transport: Transport) -> Role:
    """The role of our credentials. Mautic tells its rights only where it is not the administrator's."""
    body = transport.read("users/self")
    role = body.get("role") if isinstance(body, Mapping) else None
    role = role if isinstance(role, Mapping) else {}
    raw = role.get("rawPermissions")
    granted = (
        {str(area): frozenset(map(str, _values(rights))) for area, rights in raw.items()}
        if isinstance(raw, Mapping)
        else None
    )
    return Role(str(role.get("name") or ""), bool(role.get("isAdmin")), granted)


def _listed(transport: Transport, path: str, key: str) -> Iterator[Mapping[str, Any]]:
    """All rows; none where this Mautic has no such thing, a bundle being switched off."""
    try:
        yield from _all(transport, path, key)
    except RefusedError as refused:
        if refused.status != 404:
            raise


def _campaign(row: Mapping[str, Any]) -> Campaign:
    events = list(_members(row.get("events")))
    return Campaign(
        _id(row),
        str(row.get("name") or ""),
        _published(row),
        tuple(_act(one) for one in events if one.get("eventType") == "action"),
        frozenset(str(one.get("type")) for one in events if one.get("eventType") == "decision"),
        bool(row.get("forms")),
    )


def _act(row: Mapping[str, Any]) -> Act:
    values = row.get("properties")
    return Act(str(row.get("name") or ""), str(row.get("type") or ""), values if isinstance(values, Mapping) else {})


def _members(value: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a PHP map, whether it came as a list or as an object."""
    yield from (one for one in _values(value) if isinstance(one, Mapping))


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
