"""Activity as it was read from the feeds, and the evidence that it is for the conditions of the mappings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import BigInteger, Connection, case, cast, delete, literal, select, update

from mautic_sync.domain.activity import Activity
from mautic_sync.domain.contact import Catalogue
from mautic_sync.domain.matchers import Matchers
from mautic_sync.domain.scoring import day_of
from mautic_sync.mautic.feeds import FeedActivity
from mautic_sync.store import carried, notes, tallies
from mautic_sync.store.bulk import insert_rows
from mautic_sync.store.carried import OPENED
from mautic_sync.store.engine import in_chunks, upsert
from mautic_sync.store.people import former_of, mark_dirty, mark_everyone_dirty, persons_of, survivors_of
from mautic_sync.store.schema import activity, alias, evidence, membership
from mautic_sync.store.text import dump

NEXT_ACTIVITY = "next_activity"
MATCHERS = "matchers"
REBUILD_ROWS = 10_000


NOTHING_COUNTS = Matchers(())
UTC = ZoneInfo("UTC")


@dataclass(frozen=True)
class Counting:
    """What the rules count: `proofs` are kept as evidence with their times, `tallies` by day of the zone for scores."""

    proofs: Matchers
    tallies: Matchers = NOTHING_COUNTS
    zone: ZoneInfo = UTC
    shown: frozenset[str] = frozenset()
    """Types each of which may change what is shown of a person: whoever did it is decided again."""

    @cached_property
    def types(self) -> frozenset[str]:
        return self.proofs.types | self.tallies.types


class _Found:
    """What some activity is evidence of, until it is stored."""

    def __init__(self, counting: Counting) -> None:
        self._counting = counting
        self._proofs: list[dict[str, Any]] = []
        self._days: dict[int, dict[str, list[int]]] = {}

    def look_at(self, number: int, person_id: int, one: Activity) -> None:
        """`number` is the row of the activity, `one` what it is for the rules."""
        for matcher in self._counting.proofs.matching(one):
            self._proofs.append({"matcher": matcher.key, "activity_id": number, "person_id": person_id, "at": one.at})
        tallied = self._counting.tallies.matching(one)
        if tallied:
            day = day_of(one.at, self._counting.zone)
            days = self._days.setdefault(person_id, {})
            for matcher in tallied:
                days.setdefault(matcher.key, []).append(day)

    def keep(self, connection: Connection, *, recounted: Collection[int] = ()) -> set[int]:
        """Store it; the tallies of the `recounted` have it already. Returns whom it is about."""
        upsert(connection, evidence, self._proofs, update=())
        for person_id in recounted:
            self._days.pop(person_id, None)
        tallies.add(connection, self._days)
        return {row["person_id"] for row in self._proofs} | self._days.keys()


@dataclass
class Added:
    """What a page of a feed brought."""

    new: int = 0
    persons: Mapping[int, int] = field(default_factory=dict)
    """Mautic id → person, of those whom the page speaks of."""
    unknown: set[int] = field(default_factory=set)
    """Mautic ids that nobody in the store has: the contact was not seen yet, or was deleted."""
    unnamed: set[str] = field(default_factory=set)
    """Parts of the catalogue (`forms`, `emails`, …) that lack what a new row is about."""


def add_activities(
    connection: Connection,
    rows: Sequence[FeedActivity],
    counting: Counting,
    catalogue: Catalogue,
    *,
    known_above: int | None,
) -> Added:
    """Keep a page of a feed: new rows are added, rows that changed hands follow. A mail is opened once.

    Rows with a numeric `source_id` above `known_above` cannot be in the store yet and are not looked up (None: look
    all up). What was folded was counted, and is not added again.
    """
    added = Added()
    if not rows:
        return added
    changed: set[int] = set()
    added.persons = persons = persons_of(connection, {row.contact_id for row in rows if row.contact_id is not None})
    present = _present(connection, [row for row in rows if known_above is None or int(row.source_id) <= known_above])
    gone, starts = carried.folded(connection), carried.starts(connection)
    new: dict[tuple[str, str, str], FeedActivity] = {}
    for row in rows:
        key = (row.source, row.source_id, row.type)
        known = present.get(key) if present else None
        if known is None:
            if gone.before and _was_read(row, known_above) and gone.had(*key, row.at, starts):
                continue
            new[key] = row
            if row.contact_id is not None and row.contact_id not in persons:
                added.unknown.add(row.contact_id)
            if row.object_id is not None:
                part = _PART_OF.get(row.type)
                if part is not None and row.object_id not in getattr(catalogue, part):
                    added.unnamed.add(part)
            continue
        if row.type == OPENED and row.at < known.at:
            changed |= _date_back(connection, known, row.at)
        if row.contact_id in persons and known.person_id != persons[row.contact_id]:
            changed |= _change_hands(connection, known, persons[row.contact_id], row, counting, catalogue)
    first = int(notes.get(connection, NEXT_ACTIVITY) or 1)
    counted = counting.types
    stored: list[tuple[Any, ...]] = []
    showing: set[int] = set()
    found = _Found(counting)
    for number, row in enumerate(new.values(), start=first):
        contact_id, type_ = row.contact_id, row.type
        person_id = None if contact_id is None else persons.get(contact_id)
        attributes = _kept(row)
        kept = dump(attributes)
        waiting = contact_id if person_id is None else None
        stored.append((number, row.source, row.source_id, type_, person_id, waiting, row.at, row.object_id, kept))
        if person_id is not None and type_ in counted:
            found.look_at(number, person_id, _named(type_, row.at, row.object_id, attributes, catalogue))
        if person_id is not None and type_ in counting.shown:
            showing.add(person_id)
    if stored:
        notes.put(connection, NEXT_ACTIVITY, str(first + len(stored)))
        insert_rows(connection, activity, _STORED, stored)
        added.new = len(stored)
    recount(connection, changed, counting, catalogue)
    mark_dirty(connection, found.keep(connection, recounted=changed) | changed | showing)
    return added


def _was_read(row: FeedActivity, known_above: int | None) -> bool:
    return known_above is None or int(row.source_id) <= known_above


def known_sources(connection: Connection, source: str, source_ids: Sequence[str]) -> set[str]:
    """Which rows of a feed are in the store."""
    found: set[str] = set()
    for chunk in in_chunks(source_ids):
        found.update(
            connection.execute(
                select(activity.c.source_id).where(activity.c.source == source, activity.c.source_id.in_(chunk))
            ).scalars()
        )
    return found


def who_did(connection: Connection, type_: str, mautic_ids: Collection[int]) -> set[int]:
    """Which of these contacts have activity of this type."""
    persons = persons_of(connection, mautic_ids)
    found: set[int] = set()
    for chunk in in_chunks(list(set(persons.values()))):
        found.update(
            connection.execute(
                select(activity.c.person_id).where(activity.c.type == type_, activity.c.person_id.in_(chunk)).distinct()
            ).scalars()
        )
    found |= carried.who_did(connection, type_, set(persons.values()) - found)
    return {number for number, person_id in persons.items() if person_id in found}


def stores_any_of(connection: Connection, source: str) -> bool:
    """Whether rows of this feed are in the store, or were before they were folded."""
    if source in carried.folded(connection).sources:
        return True
    return connection.execute(select(activity.c.id).where(activity.c.source == source).limit(1)).first() is not None


def set_aside(connection: Connection, source: str, above: int, mark: str) -> None:
    """Mautic was restored from a backup: rows above its highest id are kept, under ids that it cannot use again."""
    connection.execute(
        update(activity)
        .where(
            activity.c.source == source,
            # As a CASE, for PostgreSQL may compare first and look for the colon later.
            cast(case((activity.c.source_id.not_like("%:%"), activity.c.source_id)), BigInteger) > above,
        )
        .values(source_id=literal(f"{mark}:") + activity.c.source_id)
    )


def _present(connection: Connection, rows: Sequence[FeedActivity]) -> dict[tuple[str, str, str], Any]:
    found: dict[tuple[str, str, str], Any] = {}
    by_source: dict[str, list[str]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row.source_id)
    for source, numbers in by_source.items():
        for chunk in in_chunks(numbers):
            stored = connection.execute(
                select(activity.c.id, activity.c.source_id, activity.c.type, activity.c.person_id, activity.c.at).where(
                    activity.c.source == source, activity.c.source_id.in_(chunk)
                )
            )
            found.update({(source, one.source_id, one.type): one for one in stored})
    return found


def _date_back(connection: Connection, known: Any, at: int) -> set[int]:
    """A mail was first opened earlier than is stored, as stores did that kept the latest time. Returns whom it is about."""
    connection.execute(update(activity).where(activity.c.id == known.id).values(at=at))
    connection.execute(update(evidence).where(evidence.c.activity_id == known.id).values(at=at))
    owners = set(connection.execute(select(evidence.c.person_id).where(evidence.c.activity_id == known.id)).scalars())
    return owners | _now(connection, [known.person_id])


def _change_hands(
    connection: Connection,
    known: Any,
    person_id: int,
    row: FeedActivity,
    counting: Counting,
    catalogue: Catalogue,
) -> set[int]:
    """Mautic moved a row to another contact: docs/mautic.md, "Reading what changed". Returns whom it is about."""
    number = known.id
    connection.execute(update(activity).where(activity.c.id == number).values(person_id=person_id, waiting_id=None))
    before = connection.execute(select(evidence.c.person_id).where(evidence.c.activity_id == number)).scalars().all()
    connection.execute(update(evidence).where(evidence.c.activity_id == number).values(person_id=person_id))
    if not before:
        # It was nobody's until now.
        one = _named(row.type, row.at, row.object_id, _kept(row), catalogue)
        proofs = _Found(Counting(counting.proofs))
        proofs.look_at(number, person_id, one)
        proofs.keep(connection)
    return {*before, person_id} | _now(connection, [known.person_id])


def _now(connection: Connection, person_ids: Collection[int | None]) -> set[int]:
    """These persons, or into whom they were merged."""
    numbers = {number for number in person_ids if number is not None}
    survivors = survivors_of(connection, numbers)
    return {survivors.get(number, number) for number in numbers}


def _kept(row: FeedActivity) -> dict[str, str]:
    kept = {name: value for name, value in row.utm.items() if value} if row.utm else {}
    if row.url:
        kept["url"] = row.url
    if row.title:
        kept["title"] = row.title
    if row.referer:
        kept["referer"] = row.referer
    return kept


# Which catalogue names the object of an activity.
_NAMED_BY = {
    "form.submitted": "form",
    "asset.download": "asset",
    "email.sent": "email",
    "email.read": "email",
    "email.click": "email",
    "email.replied": "email",
    "email.bounced": "email",
    "page.hit": "page",
    "segment.added": "segment",
    "segment.removed": "segment",
    "campaign.added": "campaign",
    "campaign.removed": "campaign",
    "campaign.event": "campaign",
}


# The part of the catalogue that names what activity of a type is about.
_PART_OF = {type_: f"{kind}s" for type_, kind in _NAMED_BY.items()}
_STORED = ("id", "source", "source_id", "type", "person_id", "waiting_id", "at", "object_id", "attributes")


def as_activity(stored: Any, catalogue: Catalogue) -> Activity:
    """A stored row as the rules read it: ids replaced by the names that marketers use."""
    return _named(stored["type"], stored["at"], stored["object_id"], orjson.loads(stored["attributes"]), catalogue)


def _named(type_: str, at: int, object_id: int | None, attributes: dict[str, str], catalogue: Catalogue) -> Activity:
    kind = _NAMED_BY.get(type_)
    title = attributes.pop("title", None)
    if kind is not None and object_id is not None:
        names: Mapping[int, str] = getattr(catalogue, _PART_OF[type_])
        if object_id in names:
            attributes[kind] = names[object_id]
    if kind == "page" and "page" not in attributes and title:
        attributes["page"] = title
    return Activity(type_, at, attributes)


_WAITING = select(
    activity.c.id, activity.c.waiting_id, activity.c.type, activity.c.at, activity.c.object_id, activity.c.attributes
)


def adopt_waiting(
    connection: Connection,
    persons: Mapping[int, int],
    counting: Counting,
    catalogue: Catalogue,
) -> None:
    """Activity that waited under a Mautic id goes to the person that this id now has: Mautic id → person in the store."""
    now_of = select(alias.c.person_id).where(alias.c.mautic_id == activity.c.waiting_id).scalar_subquery()
    for chunk in in_chunks(list(persons)):
        waits = activity.c.waiting_id.in_(chunk)
        rows = connection.execute(_WAITING.where(waits)).all()
        if not rows:
            continue
        # In this order: MariaDB assigns from left to right, and finds the person by the id that is emptied.
        connection.execute(
            update(activity).where(waits).ordered_values((activity.c.person_id, now_of), (activity.c.waiting_id, None))
        )
        found = _Found(counting)
        showing: set[int] = set()
        for number, waiting_id, type_, at, object_id, attributes in rows:
            person_id = persons[waiting_id]
            if type_ in counting.types:
                found.look_at(number, person_id, _named(type_, at, object_id, orjson.loads(attributes), catalogue))
            if type_ in counting.shown:
                showing.add(person_id)
        mark_dirty(connection, found.keep(connection) | showing)


def recount(connection: Connection, person_ids: Collection[int], counting: Counting, catalogue: Catalogue) -> None:
    """The tallies of these persons from all that is kept of them, also of those who were merged into them."""
    if not person_ids or not counting.tallies.types:
        return
    found = _Found(Counting(NOTHING_COUNTS, counting.tallies, counting.zone))
    survivors = former_of(connection, person_ids)
    for chunk in in_chunks(list(survivors)):
        rows = connection.execute(
            select(activity).where(activity.c.person_id.in_(chunk), activity.c.type.in_(counting.tallies.types))
        ).mappings()
        for row in rows:
            found.look_at(row["id"], survivors[row["person_id"]], as_activity(row, catalogue))
    tallies.clear(connection, person_ids)
    found.keep(connection)
    tallies.add_counted(connection, carried.tallies_of(connection, survivors, counting.tallies.keys))


def count_anew(connection: Connection, counting: Counting, catalogue: Catalogue) -> bool:
    """After the mappings or the names in Mautic changed: evidence and tallies for exactly these. True if any changed."""
    fingerprint = _fingerprint(counting, catalogue)
    if notes.get(connection, MATCHERS) == fingerprint:
        return False
    connection.execute(delete(evidence))
    tallies.clear(connection)
    last = 0
    while counting.types:
        rows = (
            connection.execute(
                select(activity)
                .where(activity.c.id > last, activity.c.type.in_(counting.types), activity.c.person_id.is_not(None))
                .order_by(activity.c.id)
                .limit(REBUILD_ROWS)
            )
            .mappings()
            .all()
        )
        if not rows:
            break
        last = rows[-1]["id"]
        found = _Found(counting)
        survivors = survivors_of(connection, {row["person_id"] for row in rows})
        for row in rows:
            found.look_at(row["id"], survivors.get(row["person_id"], row["person_id"]), as_activity(row, catalogue))
        found.keep(connection)
    carried.restore(connection, counting.proofs.keys, counting.tallies.keys)
    notes.put(connection, MATCHERS, fingerprint)
    return True


def counted_keys(connection: Connection) -> tuple[frozenset[str], frozenset[str]] | None:
    """The matchers, by key, of which the store has the evidence, and of which it has the tallies; None before any run."""
    known = notes.get_json(connection, MATCHERS)
    if known is None:
        return None
    proofs, _names, counted, _zone = known
    return frozenset(proofs), frozenset(counted)


def _fingerprint(counting: Counting, catalogue: Catalogue) -> str:
    return orjson.dumps(
        [
            sorted(counting.proofs.keys),
            {kind: sorted(names.items()) for kind, names in named_kinds(catalogue).items()},
            sorted(counting.tallies.keys),
            counting.zone.key,
        ]
    ).decode()


def named_kinds(catalogue: Catalogue) -> dict[str, Mapping[int, str]]:
    """Kind of what activity is about → id → name, as far as the catalogue has them."""
    return {kind: getattr(catalogue, f"{kind}s") for kind in sorted(set(_NAMED_BY.values()))}


def name_again(connection: Connection, counting: Counting, before: Catalogue, after: Catalogue) -> None:
    """The catalogue was read again: what counts of the activity about what is named otherwise now, and of no other."""
    if notes.get(connection, MATCHERS) != _fingerprint(counting, before):
        if count_anew(connection, counting, after):
            mark_everyone_dirty(connection)
        return
    for kind in sorted(set(_NAMED_BY.values())):
        old, new = getattr(before, f"{kind}s"), getattr(after, f"{kind}s")
        renamed = sorted(number for number in {*old, *new} if old.get(number) != new.get(number))
        types = [type_ for type_ in counting.types if _NAMED_BY.get(type_) == kind]
        for chunk in in_chunks(renamed) if types else ():
            _match_again(connection, chunk, types, counting, after)
    notes.put(connection, MATCHERS, _fingerprint(counting, after))


def _match_again(
    connection: Connection,
    object_ids: Sequence[int],
    types: Sequence[str],
    counting: Counting,
    catalogue: Catalogue,
) -> None:
    last = 0
    while True:
        rows = (
            connection.execute(
                select(activity)
                .where(
                    activity.c.id > last,
                    activity.c.object_id.in_(object_ids),
                    activity.c.type.in_(types),
                    activity.c.person_id.is_not(None),
                )
                .order_by(activity.c.id)
                .limit(REBUILD_ROWS)
            )
            .mappings()
            .all()
        )
        if not rows:
            return
        last = rows[-1]["id"]
        survivors = survivors_of(connection, {row["person_id"] for row in rows})
        persons = {survivors.get(row["person_id"], row["person_id"]) for row in rows}
        proofs = _Found(Counting(counting.proofs))
        for row in rows:
            proofs.look_at(row["id"], survivors.get(row["person_id"], row["person_id"]), as_activity(row, catalogue))
        for numbers in in_chunks([row["id"] for row in rows]):
            connection.execute(delete(evidence).where(evidence.c.activity_id.in_(numbers)))
        proofs.keep(connection)
        recount(connection, persons, counting, catalogue)
        mark_dirty(connection, persons)


def replace_members(connection: Connection, kind: str, object_id: int, mautic_ids: Collection[int]) -> None:
    """The members of a segment or campaign, as Mautic lists them now."""
    wanted = set(persons_of(connection, mautic_ids).values())
    present = set(
        connection.execute(
            select(membership.c.person_id).where(membership.c.kind == kind, membership.c.object_id == object_id)
        ).scalars()
    )
    for chunk in in_chunks(list(present - wanted)):
        connection.execute(
            delete(membership).where(
                membership.c.kind == kind, membership.c.object_id == object_id, membership.c.person_id.in_(chunk)
            )
        )
    upsert(
        connection,
        membership,
        [{"kind": kind, "object_id": object_id, "person_id": number} for number in sorted(wanted - present)],
        update=(),
    )
    mark_dirty(connection, present ^ wanted)


def of_persons(
    connection: Connection, person_ids: Collection[int], types: Collection[str], catalogue: Catalogue
) -> Iterator[tuple[int, int, Activity]]:
    """(person, number of the row, activity) of these types, also of those who were merged into them; in no order."""
    survivors = former_of(connection, person_ids)
    for chunk in in_chunks(list(survivors)):
        rows = connection.execute(
            select(activity).where(activity.c.person_id.in_(chunk), activity.c.type.in_(types))
        ).mappings()
        for row in rows:
            yield survivors[row["person_id"]], row["id"], as_activity(row, catalogue)


def activity_of(connection: Connection, person_id: int, limit: int = 20) -> list[Any]:
    """The latest activity of a person, also what former persons merged into it did."""
    return list(
        connection.execute(
            select(activity)
            .where(activity.c.person_id.in_(former_of(connection, [person_id])))
            .order_by(activity.c.at.desc(), activity.c.id.desc())
            .limit(limit)
        ).mappings()
    )
