"""Reads what a Mautic instance has (stages, fields, segments, forms, …) and creates what the mappings need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mautic_sync.domain.contact import Catalogue
from mautic_sync.errors import RefusedError, StopError
from mautic_sync.mautic.contacts import list_of
from mautic_sync.mautic.decoding import escaped, unescaped
from mautic_sync.mautic.transport import Transport, parse_version

Info = TypeVar("Info")

PAGE = 100  # entities per call: forms and e-mails carry their whole text
# What `read_catalogue` may be asked for, beside the fields, which it always reads.
CATALOGUE_PARTS = ("segments", "campaigns", "stages", "forms", "assets", "emails", "pages", "tags")


@dataclass(frozen=True, slots=True)
class StageInfo:
    """A stage of Mautic. Two published stages of one name cannot both be set by an edit."""

    id: int
    name: str
    weight: int = 0
    published: bool = True
    description: str = ""


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """A field of contacts (`object` "lead") or companies."""

    alias: str
    label: str
    type: str
    published: bool = True
    object: str = "lead"
    id: int | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment; `filters` as Mautic holds them, empty for a static one."""

    id: int
    name: str
    alias: str
    published: bool = True
    filters: Sequence[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Named:
    """Anything else that rules name: a form, an asset, an e-mail, a page or a campaign."""

    id: int
    name: str
    published: bool = True


@dataclass(frozen=True, slots=True)
class PointTrigger:
    """What Mautic does, once for each contact, when points change and are so many then."""

    id: int
    name: str
    points: int
    published: bool = True


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who can own contacts."""

    id: int
    username: str
    email: str = ""
    published: bool = True
    """Mautic refuses an owner who is not (docs/mautic.md: "Writing")."""

    def is_called(self, name: int | str) -> bool:
        """By id, e-mail address or user name."""
        return name in {self.id, str(self.id)} or str(name).casefold() in {
            word.casefold() for word in (self.username, self.email) if word
        }


@dataclass(frozen=True, slots=True)
class Self:
    """Whom Mautic takes us for. `name` is how our own rows look in the audit log."""

    username: str
    name: str
    role: str
    is_admin: bool


def who_am_i(transport: Transport) -> Self:
    """The user that our credentials stand for: the cheapest call that proves them."""
    body = transport.read("users/self")
    if not isinstance(body, Mapping) or "username" not in body:
        raise StopError("Mautic does not say who we are (users/self): is mautic.base_url a Mautic?")
    role = body.get("role")
    role = role if isinstance(role, Mapping) else {}
    name = f"{body.get('firstName') or ''} {body.get('lastName') or ''}".strip()
    return Self(str(body["username"]), name, str(role.get("name") or ""), bool(role.get("isAdmin")))


def list_users(transport: Transport) -> list[User]:
    """The users of this Mautic; needs the right to see them."""
    rows = _all(transport, "users", "users")
    return [
        User(_id(row), str(row.get("username") or ""), str(row.get("email") or ""), _published(row)) for row in rows
    ]


# -- stages ---------------------------------------------------------------------------------------------------------


def list_stages(transport: Transport) -> list[StageInfo]:
    return [_stage(row) for row in _all(transport, "stages", "stages")]


def create_stage(
    transport: Transport, name: str, weight: int, description: str = "", *, published: bool = True
) -> StageInfo:
    body = transport.write(
        "POST",
        "stages/new",
        {"name": name, "weight": weight, "description": description, "isPublished": published},
    )
    return _created(body, "stage", _stage)


# -- fields ---------------------------------------------------------------------------------------------------------


def list_fields(transport: Transport, of: str = "contact") -> list[FieldInfo]:
    """The fields of contacts (`of="contact"`) or companies (`of="company"`)."""
    return [_field(row) for row in _all(transport, f"fields/{of}", "fields")]


def create_field(
    transport: Transport,
    alias: str,
    label: str,
    kind: str,
    *,
    group: str = "core",
    properties: Mapping[str, Any] | None = None,
) -> FieldInfo:
    """A new contact field. `kind` is Mautic's type: text, number, boolean, datetime, …; a boolean gets No and Yes."""
    body: dict[str, Any] = {"label": label, "alias": alias, "type": kind, "group": group, "isPublished": True}
    if properties is not None:
        body["properties"] = dict(properties)
    elif kind == "boolean":
        body["properties"] = {"no": "No", "yes": "Yes"}
    return _created(transport.write("POST", "fields/contact/new", body), "field", _field)


# -- segments -------------------------------------------------------------------------------------------------------


def list_segments(transport: Transport) -> list[SegmentInfo]:
    return [_segment(row) for row in _all(transport, "segments", "lists")]


def create_segment_on_stage(transport: Transport, name: str, alias: str, stage_id: int) -> SegmentInfo:
    """A segment that Mautic's cron fills with everybody in a stage. docs/mautic.md: "Writing"."""
    on_stage = {
        "glue": "and",
        "field": "stage",
        "object": "lead",
        "type": "stage",
        "operator": "=",
        "properties": {"filter": str(stage_id)},
    }
    return _create_segment(transport, name, alias, [on_stage])


def create_segment_on_tag(transport: Transport, name: str, alias: str, tag_id: int) -> SegmentInfo:
    """A segment that Mautic's cron fills with everybody who has a tag."""
    on_tag = {
        "glue": "and",
        "field": "tags",
        "object": "lead",
        "type": "tags",
        "operator": "in",
        "properties": {"filter": [tag_id]},
    }
    return _create_segment(transport, name, alias, [on_tag])


def _create_segment(transport: Transport, name: str, alias: str, filters: Sequence[Mapping[str, Any]]) -> SegmentInfo:
    body = {"name": name, "alias": alias, "isPublished": True, "filters": list(filters)}
    return _created(transport.write("POST", "segments/new", body), "list", _segment)


# -- everything that rules name -------------------------------------------------------------------------------------


def list_forms(transport: Transport) -> list[Named]:
    return [_named(row, "name") for row in _all(transport, "forms", "forms")]


def list_assets(transport: Transport) -> list[Named]:
    return [_named(row, "title") for row in _all(transport, "assets", "assets")]


def list_emails(transport: Transport) -> list[Named]:
    return [_named(row, "name") for row in _all(transport, "emails", "emails")]


def list_pages(transport: Transport) -> list[Named]:
    return [_named(row, "title") for row in _all(transport, "pages", "pages")]


def list_point_triggers(transport: Transport) -> list[PointTrigger]:
    """All triggers on points; none where there is no such list.

    Those without events colour contacts. Those on the points of a group look like the others.
    """
    try:
        rows = _all(transport, "points/triggers", "triggers")
    except RefusedError as refused:
        if refused.status == 404:
            return []
        raise
    return [
        PointTrigger(_id(row), str(row.get("name") or ""), int(row.get("points") or 0), _published(row)) for row in rows
    ]


def list_point_groups(transport: Transport) -> list[Named] | None:
    """Mautic's point groups; None where it has no such thing, being older than 5.0."""
    try:
        return [_named(row, "name") for row in _all(transport, "points/groups", "pointGroups")]
    except RefusedError as refused:
        if refused.status == 404:
            return None
        raise


def create_point_group(transport: Transport, name: str, description: str = "") -> Named:
    body = {"name": name, "description": description, "isPublished": True}
    return _created(transport.write("POST", "points/groups/new", body), "pointGroup", lambda row: _named(row, "name"))


def list_campaigns(transport: Transport) -> list[Named]:
    return [_named(row, "name") for row in _all(transport, "campaigns", "campaigns")]


def list_tags(transport: Transport) -> dict[str, int]:
    """The id of every tag by its name, as this Mautic stores it."""
    return {str(row.get("tag")): int(row["id"]) for row in _all(transport, "tags", "tags")}


def stored_tag(transport: Transport, tag: str) -> str:
    """The name under which this Mautic stores the tag when an edit gives it. docs/mautic.md: "Writing"."""
    return escaped(tag) if parse_version(transport.version or "") < (7,) else tag


def create_tag(transport: Transport, stored: str) -> int:
    """A new tag that is stored under this name; returns its id."""
    # Mautic reads entities before it stores the name, so that those of the name itself are written twice.
    return _created(transport.write("POST", "tags/new", {"tag": stored.replace("&#", "&amp;#")}), "tag", _id)


def read_catalogue(
    transport: Transport,
    need: Collection[str],
    *,
    written_fields: Collection[str] = (),
    written_tags: Collection[str] = (),
) -> Catalogue:
    """What this Mautic has: the published contact fields always, and of `CATALOGUE_PARTS` those in `need`.

    With `segments`, `stage_segments` names those whose filters read the stage, the points, or one of `written_fields`
    and `written_tags`: rules on them would come to depend on what we write.
    """
    unknown = set(need) - {*CATALOGUE_PARTS, "fields"}
    if unknown:
        raise ValueError(f"No such part of a catalogue: {', '.join(sorted(unknown))}.")
    names: dict[str, dict[int, str]] = {}
    readers: dict[str, Callable[[Transport], Sequence[Named | StageInfo]]] = {
        "campaigns": list_campaigns,
        "stages": list_stages,
        "forms": list_forms,
        "assets": list_assets,
        "emails": list_emails,
        "pages": list_pages,
    }
    for part, reader in readers.items():
        if part in need:
            names[part] = {entry.id: entry.name for entry in _or_none(reader, transport)}
    segments = list_segments(transport) if "segments" in need else []
    tags = list_tags(transport) if "tags" in need or (written_tags and segments) else {}
    written = {"stage", "points", *written_fields}
    tag_ids = {str(number) for stored, number in tags.items() if unescaped(stored) in written_tags}
    return Catalogue(
        fields={entry.alias: entry.type for entry in list_fields(transport) if entry.published},
        segment_names={segment.id: segment.name for segment in segments},
        segments={segment.id: segment.alias for segment in segments},
        tags=frozenset(map(unescaped, tags)),
        stage_segments=frozenset(segment.alias for segment in segments if _reads(segment, written, tag_ids)),
        **names,
    )


def _or_none(
    reader: Callable[[Transport], Sequence[Named | StageInfo]], transport: Transport
) -> Sequence[Named | StageInfo]:
    """What the reader lists; nothing where this Mautic has no such thing, a bundle being switched off."""
    try:
        return reader(transport)
    except RefusedError as refused:
        if refused.status == 404:
            return []
        raise


def _reads(segment: SegmentInfo, written: Collection[str], tag_ids: Collection[str]) -> bool:
    """Whether one of the segment's filters reads a field or a tag that we write."""
    for condition in segment.filters:
        name = str(condition.get("field"))
        if name in written:
            return True
        if name == "tags" and _values(condition) & set(tag_ids):
            return True
    return False


def held_by(segment: SegmentInfo, field: str) -> set[str]:
    """The ids of the stages (`field` "stage") or tags ("tags") that the segment's filters ask for."""
    found: set[str] = set()
    for condition in segment.filters:
        if condition.get("field") == field and not str(condition.get("operator")).startswith("!"):
            found |= _values(condition)
    return found


def _values(condition: Mapping[str, Any]) -> set[str]:
    """What a filter compares with; older Mautics, and segments that were made with them, keep it beside `properties`."""
    properties = condition.get("properties")
    beside = condition.get("filter")
    wanted = properties.get("filter", beside) if isinstance(properties, Mapping) else beside
    return {str(value) for value in (wanted if isinstance(wanted, list) else [wanted])}


# -- rows -----------------------------------------------------------------------------------------------------------


def _all(transport: Transport, path: str, key: str) -> Iterator[Mapping[str, Any]]:
    """Every row of a list that has no ids to page by, in pages of `PAGE`, each row once."""
    seen: set[int] = set()
    while True:
        page = list_of(
            transport.read(path, {"orderBy": "id", "orderByDir": "asc", "start": len(seen), "limit": PAGE}), key
        )
        fresh = [row for row in page if isinstance(row, Mapping) and _id(row) not in seen]
        seen.update(_id(row) for row in fresh)
        yield from fresh
        if len(page) < PAGE or not fresh:
            return


def _created(body: Any, key: str, understand: Callable[[Mapping[str, Any]], Info]) -> Info:
    row = body.get(key) if isinstance(body, Mapping) else None
    if not isinstance(row, Mapping):
        raise StopError(f"Mautic answered to the new {key} without showing it: look whether it exists, then run again.")
    return understand(row)


def _id(row: Mapping[str, Any]) -> int:
    try:
        return int(row["id"])
    except (KeyError, TypeError, ValueError):
        raise StopError("Mautic listed something without an id: is mautic.base_url a Mautic?") from None


def _stage(row: Mapping[str, Any]) -> StageInfo:
    return StageInfo(
        id=_id(row),
        name=str(row.get("name") or ""),
        weight=int(row.get("weight") or 0),
        published=_published(row),
        description=str(row.get("description") or ""),
    )


def _field(row: Mapping[str, Any]) -> FieldInfo:
    return FieldInfo(
        alias=str(row.get("alias") or ""),
        label=str(row.get("label") or ""),
        type=str(row.get("type") or ""),
        published=_published(row),
        object=str(row.get("object") or "lead"),
        id=_id(row),
        unique=bool(row.get("isUniqueIdentifier") or row.get("isUniqueIdentifer")),
    )


def _segment(row: Mapping[str, Any]) -> SegmentInfo:
    filters = row.get("filters")
    members = filters.values() if isinstance(filters, Mapping) else filters if isinstance(filters, list) else []
    return SegmentInfo(
        id=_id(row),
        name=str(row.get("name") or ""),
        alias=str(row.get("alias") or ""),
        published=_published(row),
        filters=[condition for condition in members if isinstance(condition, Mapping)],
    )


def _named(row: Mapping[str, Any], key: str) -> Named:
    return Named(_id(row), str(row.get(key) or row.get("name") or row.get("title") or ""), _published(row))


def _published(row: Mapping[str, Any]) -> bool:
    return row.get("isPublished") in {True, "1", None}
