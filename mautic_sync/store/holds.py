"""Persons of whom a run was undone, held as they are until their signals change or somebody lets them go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, func, select

from mautic_sync.store.engine import in_chunks, rows_among, upsert
from mautic_sync.store.people import mark_dirty
from mautic_sync.store.schema import alias, contact, held

_HELD = select(held)


def hold(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of person_id, run_id (of the undo), undone, at, digest, rules; who is held already is held anew."""
    upsert(connection, held, rows)


def held_among(connection: Connection, person_ids: Sequence[int]) -> dict[int, Any]:
    """Person → its row of `held`; numbers ascend."""
    rows = rows_among(connection, _HELD, held.c.person_id, person_ids)
    meant = set(person_ids)  # there may be others in between
    return {row.person_id: row for row in rows if row.person_id in meant}


def anybody(connection: Connection) -> bool:
    return connection.execute(select(held.c.person_id).limit(1)).first() is not None


def let_go(connection: Connection, person_ids: Collection[int]) -> int:
    """They are decided again by the next run. Returns how many of them were held."""
    found = 0
    for chunk in in_chunks(list(person_ids)):
        found += connection.execute(delete(held).where(held.c.person_id.in_(chunk))).rowcount
        mark_dirty(connection, chunk)
    return found


def next_held(connection: Connection, after: int, limit: int) -> list[int]:
    """The next persons who are held, by number."""
    query = select(held.c.person_id).where(held.c.person_id > after).order_by(held.c.person_id).limit(limit)
    return list(connection.execute(query).scalars())


_IS_THERE = exists().where(contact.c.person_id == held.c.person_id, contact.c.vanished_at.is_(None))


def count(connection: Connection) -> int:
    """How many are held; who is gone from Mautic does not count."""
    return int(connection.execute(select(func.count()).select_from(held).where(_IS_THERE)).scalar() or 0)


def listed(connection: Connection, limit: int | None = None) -> list[dict[str, Any]]:
    """Held persons with their number in Mautic, the longest held first."""
    query = (
        select(held, alias.c.mautic_id)
        .join(alias, and_(alias.c.person_id == held.c.person_id, alias.c.current))
        .where(_IS_THERE)
        .order_by(held.c.at, held.c.person_id)
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
