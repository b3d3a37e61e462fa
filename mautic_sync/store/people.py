"""Persons, their Mautic numbers, and their contacts as last read."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    not_,
    select,
    update,
)

from mautic_sync.domain.actions import HOT, LOW_VALUE, flags_text, read_flags
from mautic_sync.domain.contact import DNC_REASONS, Contact
from mautic_sync.domain.plan import GROUP, POINTS
from mautic_sync.domain.validation import normalise_address
from mautic_sync.store import notes, tallies
from mautic_sync.store.bulk import insert_many
from mautic_sync.store.engine import in_chunks, rows_among, upsert, upsert_over, upsert_rows
from mautic_sync.store.schema import (
    IS_OPEN,
    activity,
    alias,
    change,
    contact,
    decision,
    dirty,
    dnc,
    evidence,
    kept_waiting,
    membership,
    merge,
    person,
    standing,
)
from mautic_sync.store.text import dump

NEXT_PERSON = "next_person"
SAME_SECONDS = 60  # between two readings of when one contact was added
# Our own do-not-contact rows carry this at the beginning of their comment.
DNC_COMMENT = "mautic-sync"
_MANUAL = next(number for number, word in DNC_REASONS.items() if word == "manual")


@dataclass(frozen=True)
class Reading:
    """How contacts are kept: which fields the mappings need, and whether idleness or points in Mautic show anywhere."""

    fields: frozenset[str]
    idle_matters: bool = False
    points_matter: bool = False


@dataclass
class Saved:
    """What a page of contacts changed in the store."""

    new: int = 0
    changed: int = 0
    persons: dict[int, int] = field(default_factory=dict)
    """Mautic id → person."""


# Of points that were sent nothing but Mautic's log can tell: a merge moves them to the survivor.
_MAY_BE_CLOSED = and_(IS_OPEN, not_(and_(change.c.target == POINTS, change.c.state.in_(("sent", "doubtful")))))


def persons_of(connection: Connection, mautic_ids: Collection[int]) -> dict[int, int]:
    """Mautic id → person, for current and former numbers; unknown ids are missing."""
    found: dict[int, int] = {}
    for chunk in in_chunks(list(mautic_ids)):
        found.update(connection.execute(_PERSONS_OF, {"numbers": chunk}).all())
    return found


# Made once: to make a statement of 500 numbers costs more than to look them up.
_PERSONS_OF = select(alias.c.mautic_id, alias.c.person_id).where(
    alias.c.mautic_id.in_(bindparam("numbers", expanding=True))
)


def current_ids(connection: Connection, person_ids: Collection[int]) -> dict[int, int]:
    """Person → the Mautic id to call."""
    found: dict[int, int] = {}
    for chunk in in_chunks(list(person_ids)):
        rows = connection.execute(
            select(alias.c.mautic_id, alias.c.person_id).where(alias.c.person_id.in_(chunk), alias.c.current)
        )
        found.update((row.person_id, row.mautic_id) for row in rows)
    return found


def save_contacts(
    connection: Connection,
    contacts: Sequence[Contact],
    reading: Reading,
    *,
    now: int,
    seen: int | None = None,
    ours: Mapping[int, Mapping[str, Any]] | None = None,
) -> Saved:
    """Keep contacts as Mautic shows them now; who is new or changed is decided again.

    `seen` marks them as met by a full pass. `ours` maps Mautic ids to the values of an edit of ours that was just
    settled: such a change alone is no reason to decide again.
    """
    saved = Saved(persons=persons_of(connection, [one.id for one in contacts]))
    unknown = [one.id for one in contacts if one.id not in saved.persons]
    if unknown:
        saved.persons.update(_create_persons(connection, unknown, now))
        saved.new = len(unknown)
    before = _rows(connection, saved.persons.values())
    rows: list[dict[str, Any]] = []
    met: list[int] = []
    news: list[int] = []
    dnc_rows: list[tuple[int, Contact, Mapping[str, int]]] = []
    expected = _expecting_dnc(connection, saved.persons.values())
    for one in contacts:
        person_id = saved.persons[one.id]
        old = before.get(person_id)
        row = contact_row(person_id, one, reading)
        row["seen"] = seen if seen is not None else (old.seen if old else 0)
        if old is None:
            relevant = True
            old_dnc: Mapping[str, int] = {}
        else:
            old_dnc = {} if old.dnc == "{}" else orjson.loads(old.dnc)
            # A merge in Mautic loses the older date: docs/mautic.md, "Merging".
            row["date_added"] = min(filter(None, (old.date_added, row["date_added"])), default=None)
            relevant = row["digest"] != old.digest
            if relevant and ours is not None and one.id in ours:
                relevant = row["digest"] != _digest(_after_edit(old, row, ours[one.id]))
            if old.vanished_at is not None:
                relevant = True
            if reading.idle_matters and row["last_active"] != old.last_active:
                relevant = True
            if reading.points_matter and row["points"] != old.points:
                relevant = True
            if relevant:
                saved.changed += 1
        if relevant:
            news.append(person_id)
        # What a merge was feared to have lost and the contact still shows is not lost.
        if one.dnc != old_dnc or not expected.get(person_id, set()).isdisjoint(one.dnc):
            dnc_rows.append((person_id, one, old_dnc))
        if old is not None and not relevant and row["digest"] == old.digest and _same(row, old):
            if seen is not None and old.seen != seen:
                met.append(person_id)
            continue
        rows.append(row)
    if rows:
        upsert_over(connection, contact, tuple(rows[0]), [tuple(row.values()) for row in rows], before)
    upsert_rows(connection, dirty, ("person_id",), [(number,) for number in news])
    for chunk in in_chunks(met):
        connection.execute(update(contact).where(contact.c.person_id.in_(chunk)).values(seen=seen))
    for person_id, one, old_dnc in dnc_rows:
        _save_dnc(connection, person_id, one.dnc, old_dnc)
    return saved


def _expecting_dnc(connection: Connection, person_ids: Iterable[int]) -> dict[int, set[str]]:
    """Person → channels whose do-not-contact a merge may have lost."""
    found: dict[int, set[str]] = {}
    for chunk in in_chunks(list(person_ids)):
        for row in connection.execute(
            select(dnc.c.person_id, dnc.c.channel).where(dnc.c.person_id.in_(chunk), dnc.c.restore)
        ):
            found.setdefault(row.person_id, set()).add(row.channel)
    return found


def _save_dnc(connection: Connection, person_id: int, rows: Mapping[str, int], before: Mapping[str, int]) -> None:
    """Do-not-contact as the contact shows it. What a merge lost (`restore`) stays until it is put back."""
    for channel, reason in rows.items():
        row = {"person_id": person_id, "channel": channel, "reason": reason, "restore": False, "ours": False}
        upsert(connection, dnc, [row], update=_told_of(reason))
    gone = [channel for channel in before if channel not in rows]
    if gone:
        connection.execute(
            delete(dnc).where(dnc.c.person_id == person_id, dnc.c.channel.in_(gone), dnc.c.restore.is_(False))
        )


def _told_of(reason: int) -> tuple[str, ...]:
    """Columns of a do-not-contact that change with this reason: what somebody asked for is not ours any more."""
    return ("reason", "restore") if reason == _MANUAL else ("reason", "restore", "ours")


def contact_row(person_id: int, one: Contact, reading: Reading) -> dict[str, Any]:
    address = one.fields.get("email")
    row: dict[str, Any] = {
        "person_id": person_id,
        "address": normalise_address(str(address)) if address else None,
        "fields": dump({key: value for key, value in one.fields.items() if key in reading.fields}),
        "tags": dump(sorted(one.tags)),
        "points": one.points,
        "stage_id": one.stage_id,
        "owner_id": one.owner_id,
        "dnc": dump(dict(one.dnc)),
        "date_added": one.date_added,
        "date_modified": one.date_modified,
        "date_identified": one.date_identified,
        "last_active": one.last_active,
        "vanished_at": None,
    }
    row["digest"] = _digest(row)
    return row


_DECIDED = ("fields", "tags", "stage_id", "dnc", "date_identified")


def _decided_part(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _DECIDED}


def _after_edit(old: Any, row: Mapping[str, Any], edit: Mapping[str, Any]) -> dict[str, Any]:
    """What `old` would be if nothing but our edit had changed; values as Mautic echoed them in `row`."""
    shown = orjson.loads(row["fields"])
    fields = {alias_: value for alias_, value in orjson.loads(old.fields).items() if alias_ not in edit}
    fields.update({alias_: shown[alias_] for alias_ in edit if alias_ in shown})
    tags = set(orjson.loads(old.tags))
    for tag in edit.get("tags", ()):
        if tag.startswith("-"):
            tags.discard(tag[1:])
        else:
            tags.add(tag)
    return {
        **_decided_part(old),
        "fields": dump(fields),
        "tags": dump(sorted(tags)),
        "stage_id": edit.get("stage", old.stage_id),
    }


def _digest(row: Mapping[str, Any]) -> str:
    text = "\x00".join(str(row[name]) for name in _DECIDED)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _same(row: Mapping[str, Any], old: Any) -> bool:
    return bool(
        row["points"] == old.points
        and row["owner_id"] == old.owner_id
        and row["last_active"] == old.last_active
        and row["date_modified"] == old.date_modified
        and row["date_added"] == old.date_added
        and row["address"] == old.address
    )


def _rows(connection: Connection, person_ids: Iterable[int]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for chunk in in_chunks(list(person_ids)):
        for row in connection.execute(select(contact).where(contact.c.person_id.in_(chunk))):
            found[row.person_id] = row
    return found


def _create_persons(connection: Connection, mautic_ids: Sequence[int], now: int) -> dict[int, int]:
    first = int(notes.get(connection, NEXT_PERSON) or 1)
    notes.put(connection, NEXT_PERSON, str(first + len(mautic_ids)))
    numbers = {mautic_id: first + offset for offset, mautic_id in enumerate(mautic_ids)}
    insert_many(connection, person, [{"id": number, "created_at": now} for number in numbers.values()])
    insert_many(
        connection,
        alias,
        [{"mautic_id": mautic_id, "person_id": number, "current": True} for mautic_id, number in numbers.items()],
    )
    return numbers


def former_of(connection: Connection, person_ids: Collection[int]) -> dict[int, int]:
    """Number → survivor, for these persons and all that were merged into them: to read append-only tables through."""
    found = {number: number for number in person_ids}
    for chunk in in_chunks(list(person_ids)):
        rows = connection.execute(select(person.c.id, person.c.redirect_to).where(person.c.redirect_to.in_(chunk)))
        found.update((row.id, row.redirect_to) for row in rows)
    return found


def survivors_of(connection: Connection, person_ids: Collection[int]) -> dict[int, int]:
    """Merged persons among these → the person that they redirect to."""
    found: dict[int, int] = {}
    for chunk in in_chunks(list(person_ids)):
        rows = connection.execute(
            select(person.c.id, person.c.redirect_to).where(person.c.id.in_(chunk), person.c.redirect_to.is_not(None))
        )
        found.update((row.id, row.redirect_to) for row in rows)
    return found


def identified_at(connection: Connection, person_ids: Collection[int]) -> dict[int, int]:
    """Person → when Mautic says that it was identified, where it says so."""
    found: dict[int, int] = {}
    for chunk in in_chunks(list(person_ids)):
        rows = connection.execute(
            select(contact.c.person_id, contact.c.date_identified).where(
                contact.c.person_id.in_(chunk), contact.c.date_identified.is_not(None)
            )
        )
        found.update((row.person_id, row.date_identified) for row in rows)
    return found


def add_points(connection: Connection, deltas: Mapping[int, int]) -> None:
    """Person → points that Mautic has just received from us: the contact as last read has them too."""
    if deltas:
        connection.execute(
            update(contact)
            .where(contact.c.person_id == bindparam("who"))
            .values(points=contact.c.points + bindparam("delta")),
            [{"who": person_id, "delta": delta} for person_id, delta in deltas.items()],
        )


def numbers_of(connection: Connection, person_ids: Collection[int]) -> dict[int, set[int]]:
    """Person → all Mautic ids that lead there, the current and the former ones."""
    found: dict[int, set[int]] = {}
    for chunk in in_chunks(list(person_ids)):
        for row in connection.execute(select(alias).where(alias.c.person_id.in_(chunk))):
            found.setdefault(row.person_id, set()).add(row.mautic_id)
    return found


def stages_of(connection: Connection, person_ids: Iterable[int]) -> dict[int, int | None]:
    """Person → id of the stage that its contact had when it was last read."""
    return _last_read(connection, contact.c.stage_id, person_ids)


def owners_of(connection: Connection, person_ids: Iterable[int]) -> dict[int, int | None]:
    """Person → id of the Mautic user that its contact belonged to when it was last read."""
    return _last_read(connection, contact.c.owner_id, person_ids)


def _last_read(connection: Connection, column: ColumnElement[Any], person_ids: Iterable[int]) -> dict[int, int | None]:
    found: dict[int, int | None] = {}
    for chunk in in_chunks(list(person_ids)):
        rows = connection.execute(select(contact.c.person_id, column).where(contact.c.person_id.in_(chunk)))
        found.update((number, value) for number, value in rows)
    return found


def mark_dirty(connection: Connection, person_ids: Collection[int]) -> None:
    """These are decided again."""
    for chunk in in_chunks(list(person_ids)):
        mark_where(connection, contact.c.person_id.in_(chunk))


def mark_everyone_dirty(connection: Connection) -> None:
    _mark(connection, _CLEAN)


def mark_where(connection: Connection, condition: ColumnElement[bool]) -> None:
    """Whoever has a contact of which this is true is decided again."""
    _mark(connection, _CLEAN.where(condition))


def _mark(connection: Connection, numbers: Select[Any]) -> None:
    connection.execute(insert(dirty).from_select(["person_id"], numbers))


_CLEAN = select(contact.c.person_id).where(
    contact.c.vanished_at.is_(None), ~exists().where(dirty.c.person_id == contact.c.person_id)
)


def note_active(connection: Connection, latest: Mapping[int, int]) -> None:
    """Person → when a visit was: it moves the last activity without any other trace. Who was idle is decided anew."""
    for chunk in in_chunks(list(latest)):
        rows = connection.execute(
            select(contact.c.person_id, contact.c.last_active).where(contact.c.person_id.in_(chunk))
        )
        moved = [
            {"who": row.person_id, "at": latest[row.person_id]}
            for row in rows
            if (row.last_active or 0) < latest[row.person_id]
        ]
        if moved:
            connection.execute(
                update(contact).where(contact.c.person_id == bindparam("who")).values(last_active=bindparam("at")),
                moved,
            )
            mark_dirty(connection, [one["who"] for one in moved])


def mark_address(connection: Connection, address: str) -> None:
    mark_where(connection, contact.c.address == address)


def unseen(connection: Connection, seen: int, upto: int, limit: int = 1000, after: int = 0) -> list[Any]:
    """Contacts with a number up to `upto` that a full pass did not meet: (mautic_id, person_id, address), by id."""
    return list(
        connection.execute(
            select(alias.c.mautic_id, alias.c.person_id, contact.c.address)
            .join(contact, contact.c.person_id == alias.c.person_id)
            .where(
                alias.c.current,
                alias.c.mautic_id > after,
                alias.c.mautic_id <= upto,
                contact.c.seen != seen,
                contact.c.vanished_at.is_(None),
            )
            .order_by(alias.c.mautic_id)
            .limit(limit)
        )
    )


def kinds_of(connection: Connection, mautic_ids: Collection[int]) -> dict[str, int]:
    """Kind → how many of these contacts were decided to be of it and are not known to be gone."""
    counted: dict[str, int] = {}
    for chunk in in_chunks(list(mautic_ids)):
        rows = connection.execute(
            select(decision.c.kind, func.count())
            .join(alias, alias.c.person_id == decision.c.person_id)
            .join(contact, contact.c.person_id == decision.c.person_id)
            .where(alias.c.mautic_id.in_(chunk), alias.c.current, contact.c.vanished_at.is_(None))
            .group_by(decision.c.kind)
        )
        for kind, number in rows:
            counted[kind] = counted.get(kind, 0) + number
    return counted


def vanish(connection: Connection, mautic_ids: Collection[int], now: int) -> list[int]:
    """Mautic deleted these: their persons stay, with history, but nothing is decided or written for them.

    The end of a former number says nothing about its person. Returns the persons that are gone. Points on their way
    stay open until they were looked up: the contact may have been merged, and its survivor has them.
    """
    numbers: list[int] = []
    for ids in in_chunks(list(mautic_ids)):
        numbers += connection.execute(
            select(alias.c.person_id).where(alias.c.mautic_id.in_(ids), alias.c.current)
        ).scalars()
    for chunk in in_chunks(numbers):
        connection.execute(
            update(contact)
            .where(contact.c.person_id.in_(chunk), contact.c.vanished_at.is_(None))
            .values(vanished_at=now)
        )
        connection.execute(delete(dirty).where(dirty.c.person_id.in_(chunk)))
        connection.execute(
            update(change)
            .where(change.c.person_id.in_(chunk), _MAY_BE_CLOSED)
            .values(state="superseded", open_key=None, error="the contact was deleted in Mautic", settled_at=now)
        )
    return numbers


def follow_merge(connection: Connection, old_id: int, new_id: int, *, now: int, run_id: str) -> tuple[int, int] | None:
    """Mautic merged contact `old_id` into `new_id`: one transaction joins the two persons.

    The identified person survives here, whatever number survives in Mautic; the other number redirects. Returns
    (survivor, loser), or None when both numbers already lead to one person. Applying it again changes nothing.
    """
    # Mautic moved its rows; what waits under the old number would wait for ever.
    connection.execute(update(activity).where(activity.c.waiting_id == old_id).values(waiting_id=new_id))
    known = persons_of(connection, [old_id, new_id])
    if old_id not in known and new_id not in known:
        return None
    if old_id not in known or new_id not in known:
        only = next(iter(known.values()))
        connection.execute(update(alias).where(alias.c.person_id == only).values(current=False))
        upsert(connection, alias, [{"mautic_id": old_id, "person_id": only, "current": False}])
        upsert(connection, alias, [{"mautic_id": new_id, "person_id": only, "current": True}])
        _expect_lost_dnc(connection, only)
        _doubt_groups(connection, only)
        mark_dirty(connection, [only])
        return (only, only)
    if known[old_id] == known[new_id]:
        return None
    rows = _rows(connection, known.values())
    old, new = known[old_id], known[new_id]
    identified = {number for number in (old, new) if number in rows and rows[number].address}
    survivor, loser = (new, old) if identified == {new} or (not identified and new < old) else (old, new)
    connection.execute(
        insert(merge),
        {
            "at": now,
            "run_id": run_id,
            "rule": "mautic",
            "survivor": survivor,
            "loser": loser,
            "before": dump(
                {str(number): {**_decided_part(rows[number]), "points": rows[number].points} for number in rows}
            ),
        },
    )
    connection.execute(update(person).where(person.c.id == loser).values(redirect_to=survivor))
    connection.execute(update(person).where(person.c.redirect_to == loser).values(redirect_to=survivor))
    connection.execute(
        update(alias).where(alias.c.person_id.in_((survivor, loser))).values(person_id=survivor, current=False)
    )
    connection.execute(update(alias).where(alias.c.mautic_id == new_id).values(current=True))
    connection.execute(update(evidence).where(evidence.c.person_id == loser).values(person_id=survivor))
    tallies.unite(connection, survivor, loser)
    _unite(connection, membership, survivor, loser)
    _expect_lost_dnc(connection, survivor)
    _expect_lost_dnc(connection, loser)
    _unite(connection, dnc, survivor, loser)
    _unite(connection, kept_waiting, survivor, loser)
    if survivor not in rows and loser in rows:
        connection.execute(update(contact).where(contact.c.person_id == loser).values(person_id=survivor))
    connection.execute(delete(contact).where(contact.c.person_id == loser))
    connection.execute(delete(dirty).where(dirty.c.person_id == loser))
    _unite_flags(connection, survivor, loser)
    connection.execute(delete(decision).where(decision.c.person_id == loser))
    _keep_standing_of_number(connection, new, survivor, loser)
    connection.execute(
        update(change)
        .where(change.c.person_id.in_((survivor, loser)), _MAY_BE_CLOSED)
        .values(state="superseded", open_key=None, error="merged in Mautic", settled_at=now)
    )
    mark_dirty(connection, [survivor])
    return survivor, loser


def _unite_flags(connection: Connection, survivor: int, loser: int) -> None:
    """What either of them is, the one that is left is: what came with it is done, and goes when it is over."""
    rows = connection.execute(
        select(decision.c.person_id, decision.c.flags, decision.c.hot_since).where(
            decision.c.person_id.in_((survivor, loser))
        )
    ).all()
    if survivor not in {row.person_id for row in rows}:
        # What `due` has of it names the loser; it is decided anew.
        moved = update(decision).where(decision.c.person_id == loser).values(person_id=survivor, due_at=None)
        connection.execute(moved)
        return
    flags = frozenset[str]().union(*(read_flags(row.flags) for row in rows))
    named = tuple(sorted(flags - {HOT, LOW_VALUE}))
    since = min((row.hot_since for row in rows if row.hot_since is not None), default=None)
    values = {"flags": flags_text(HOT in flags, LOW_VALUE in flags, named), "hot_since": since}
    connection.execute(update(decision).where(decision.c.person_id == survivor).values(**values))


def _keep_standing_of_number(connection: Connection, owner: int, survivor: int, loser: int) -> None:
    """The surviving number keeps its own stage in Mautic: what we had set there is ours, not somebody's hand."""
    rows = connection.execute(
        select(standing.c.person_id, standing.c.stage, standing.c.written).where(
            standing.c.person_id.in_((survivor, loser))
        )
    ).all()
    stage = next((row.stage for row in rows if row.person_id == owner), None)
    groups: dict[str, Any] = {}
    for row in rows:
        groups.update(_doubted_groups(orjson.loads(row.written)))
    connection.execute(delete(standing).where(standing.c.person_id.in_((survivor, loser))))
    if stage is not None or groups:
        connection.execute(insert(standing), {"person_id": survivor, "stage": stage, "written": dump(groups)})


def _doubt_groups(connection: Connection, person_id: int) -> None:
    """A merge loses the point groups of the known contact: they are written again, whatever they are."""
    written = connection.execute(select(standing.c.written).where(standing.c.person_id == person_id)).scalar()
    stands = {} if written is None else orjson.loads(written)
    doubted = _doubted_groups(stands)
    if doubted:
        values = dump({**stands, **doubted})
        connection.execute(update(standing).where(standing.c.person_id == person_id).values(written=values))


def _doubted_groups(written: Mapping[str, Any]) -> dict[str, Any]:
    return {name: [None, None] for name in written if name.startswith(GROUP)}


def _expect_lost_dnc(connection: Connection, person_id: int) -> None:
    connection.execute(update(dnc).where(dnc.c.person_id == person_id).values(restore=True))


def share_dnc(connection: Connection, unmerged: Mapping[int, int], now: int) -> None:
    """Mautic id → the person with whom it was one: who of them had asked for it nobody can tell, and both have it.

    What is ours, because of a verdict, is about one address.
    """
    found: dict[int, list[dict[str, Any]]] = {}
    for chunk in in_chunks(sorted(set(unmerged.values()))):
        asked_for = select(dnc).where(dnc.c.person_id.in_(chunk), dnc.c.ours.is_(False))
        for row in connection.execute(asked_for).mappings():
            found.setdefault(row["person_id"], []).append(dict(row))
    persons = meet(connection, [number for number, before in unmerged.items() if before in found], now)
    rows = [{**row, "person_id": persons[number]} for number in persons for row in found[unmerged[number]]]
    upsert(connection, dnc, rows, update=())


def expect_set_back_dnc(connection: Connection, mautic_ids: Collection[int]) -> None:
    """Mautic was set back: what of the do-not-contact of these its contacts do not show any more, it has lost."""
    for chunk in in_chunks(sorted(persons_of(connection, mautic_ids).values())):
        known = dnc.c.person_id.in_(chunk)
        rows = connection.execute(update(dnc).where(known).values(restore=True))
        if rows.rowcount:
            _mark(connection, _CLEAN.where(contact.c.person_id.in_(select(dnc.c.person_id).where(known))))


def _unite(connection: Connection, table: Any, survivor: int, loser: int) -> None:
    rows = connection.execute(select(table).where(table.c.person_id == loser)).mappings().all()
    upsert(connection, table, [{**row, "person_id": survivor} for row in rows], update=())
    connection.execute(delete(table).where(table.c.person_id == loser))


def lost_dnc_of(connection: Connection, person_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """Person → channel → reason of do-not-contact that a merge in Mautic may have lost; numbers ascend."""
    found: dict[int, dict[str, int]] = {}
    for row in rows_among(connection, _LOST_DNC, dnc.c.person_id, person_ids):
        found.setdefault(row.person_id, {})[row.channel] = row.reason
    return found


_LOST_DNC = select(dnc).where(dnc.c.restore)


def note_own_dnc(
    connection: Connection, person_id: int, channel: str, reason: int | None, *, ours: bool, shown: Mapping[str, int]
) -> None:
    """After our own do-not-contact call: put back what a merge lost, set because of a verdict (`ours`), or taken back."""
    connection.execute(update(contact).where(contact.c.person_id == person_id).values(dnc=dump(dict(shown))))
    mark_dirty(connection, [person_id])
    if reason is None:
        connection.execute(delete(dnc).where(dnc.c.person_id == person_id, dnc.c.channel == channel))
        return
    row = {"person_id": person_id, "channel": channel, "reason": reason, "restore": False, "ours": ours}
    upsert(connection, dnc, [row])


def note_dnc(connection: Connection, person_id: int, channel: str, reason: int, *, lost: bool) -> None:
    """What Mautic's audit log told about do-not-contact, 0 for contactable; `lost`: a merge has lost it since."""
    if reason <= 0:
        connection.execute(delete(dnc).where(dnc.c.person_id == person_id, dnc.c.channel == channel))
        return
    row = {"person_id": person_id, "channel": channel, "reason": reason, "restore": lost, "ours": False}
    upsert(connection, dnc, [row], update=_told_of(reason))
    if lost:
        mark_dirty(connection, [person_id])


def meet(connection: Connection, mautic_ids: Collection[int], now: int) -> dict[int, int]:
    """Mautic id → person, numbers that nobody has made persons of: their contacts are read later."""
    known = persons_of(connection, mautic_ids)
    unknown = sorted(set(mautic_ids) - known.keys())
    return {**known, **_create_persons(connection, unknown, now)} if unknown else known


def numbers_above(connection: Connection, highest: int) -> list[int]:
    """Current Mautic ids above `highest`."""
    return list(
        connection.execute(select(alias.c.mautic_id).where(alias.c.mautic_id > highest, alias.c.current)).scalars()
    )


def release_above(connection: Connection, highest: int) -> None:
    """Mautic was set back and will give these numbers to others: they lead to nobody here any more."""
    connection.execute(delete(alias).where(alias.c.mautic_id > highest))
    connection.execute(update(activity).where(activity.c.waiting_id > highest).values(waiting_id=None))


def taken_over(connection: Connection, contacts: Sequence[Contact]) -> list[int]:
    """After Mautic was set back: the numbers of these contacts that belong to somebody else now.

    Mautic never changes the time at which a contact was added, but a merge hands the number on to the visitor's: so
    another time alone says nothing where the address is the same.
    """
    persons = persons_of(connection, [one.id for one in contacts])
    rows = _rows(connection, persons.values())
    found = []
    for one in contacts:
        known = rows.get(persons.get(one.id, 0))
        if known is None or known.date_added is None or one.date_added is None:
            continue
        address = one.fields.get("email")
        same = address is not None and normalise_address(str(address)) == known.address
        if not same and abs(one.date_added - known.date_added) > SAME_SECONDS:
            found.append(one.id)
    return found


def release(connection: Connection, mautic_ids: Collection[int]) -> None:
    """These numbers lead to nobody here any more: whoever has them is somebody new."""
    for chunk in in_chunks(list(mautic_ids)):
        connection.execute(delete(alias).where(alias.c.mautic_id.in_(chunk)))


def take_back(connection: Connection, mautic_ids: Collection[int]) -> dict[int, int]:
    """After Mautic was set back: former numbers that it shows again are current where their person has no other.

    Returns those whose merge was undone → the person that they led to. It stays with the number that it has, and they
    are on their own again.
    """
    persons = persons_of(connection, mautic_ids)
    having = current_ids(connection, set(persons.values()))
    for number, person_id in persons.items():
        if person_id not in having:
            having[person_id] = number
            connection.execute(update(alias).where(alias.c.mautic_id == number).values(current=True))
    unmerged = {number: person_id for number, person_id in persons.items() if having[person_id] != number}
    release(connection, unmerged)
    return unmerged


def count_by_stage(connection: Connection) -> dict[int | None, int]:
    """Stage id → how many contacts stand in it now, as last read."""
    return _count_there(connection, contact.c.stage_id)


def count_by_kind(connection: Connection) -> dict[str, int]:
    return _count_there(connection, decision.c.kind)


def _count_there(connection: Connection, column: Column[Any]) -> dict[Any, int]:
    """Value of this indexed column → how many persons who are in Mautic have it.

    All are counted along the index, and the few who are gone are taken off: to ask of each contact whether it is there
    would read every one of them.
    """
    counting = select(column, func.count()).group_by(column)
    gone = select(contact.c.person_id).where(contact.c.vanished_at.is_not(None))
    less = {row[0]: row[1] for row in connection.execute(counting.where(column.table.c.person_id.in_(gone)))}
    there = {row[0]: row[1] - less.get(row[0], 0) for row in connection.execute(counting)}
    return {value: count for value, count in there.items() if count}


def numbers_sharing_address(connection: Connection, person_id: int) -> list[int]:
    """The Mautic numbers of the others who have the address of this person, ascending."""
    other = contact.alias()
    query = (
        select(alias.c.mautic_id)
        .join(other, and_(other.c.person_id == alias.c.person_id, alias.c.current))
        .join(contact, contact.c.address == other.c.address)
        .where(contact.c.person_id == person_id, other.c.person_id != person_id, other.c.vanished_at.is_(None))
        .order_by(alias.c.mautic_id)
    )
    return list(connection.execute(query).scalars())


def find_person(connection: Connection, mautic_id: int | None, address: str | None) -> list[int]:
    """Persons behind a Mautic number (former ones too) or an address; nobody without either."""
    if mautic_id is not None:
        return list(persons_of(connection, [mautic_id]).values())
    if address is None:
        return []
    rows = connection.execute(
        select(contact.c.person_id).where(contact.c.address == address).order_by(contact.c.person_id)
    )
    return [row.person_id for row in rows]


def forget_dirty(connection: Connection, person_ids: Sequence[int]) -> None:
    """These have been decided: ascending, and all that were dirty between the first and the last."""
    connection.execute(_FORGET_DIRTY, {"first": person_ids[0], "last": person_ids[-1]})


_FORGET_DIRTY = delete(dirty).where(dirty.c.person_id.between(bindparam("first"), bindparam("last")))
