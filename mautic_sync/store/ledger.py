"""Points that Mautic has received from us: append-only, and read through the redirect of merged persons.

Lines under the key `OPENING` are no grants: they stand for history that was not granted, so that only what came later
is. Mautic's log has nothing of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from mautic_sync.store.bulk import insert_many
from mautic_sync.store.engine import in_chunks, rows_among
from mautic_sync.store.people import former_of
from mautic_sync.store.schema import contact, ledger, person

OPENING = "opening"


def append(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of person_id, at, run_id, change_id, event_key, delta, reason."""
    insert_many(connection, ledger, rows)


def granted(connection: Connection, person_ids: Sequence[int]) -> dict[int, int]:
    """Person → the sum of the account, `OPENING` included, what merged persons had received included; numbers ascend."""
    own = rows_among(connection, _OWN, ledger.c.person_id, person_ids, driven=True)
    found = {who: int(points) for who, points in own}
    for who, points in rows_among(connection, _MERGED, person.c.redirect_to, person_ids):
        found[who] = found.get(who, 0) + int(points)
    return found


# Two queries, each along an index: one over the survivor of each row would read the whole ledger.
_OWN = select(ledger.c.person_id, func.sum(ledger.c.delta)).group_by(ledger.c.person_id)
_MERGED = (
    select(person.c.redirect_to, func.sum(ledger.c.delta))
    .join(ledger, ledger.c.person_id == person.c.id)
    .group_by(person.c.redirect_to)
)


def openings(connection: Connection, person_ids: Collection[int], *, reason: str | None = None) -> dict[int, int]:
    """Person → the part of `granted` that Mautic never received: history from before the start.

    `reason`: only what was entered for this reason.
    """
    found: dict[int, int] = {}
    survivors = former_of(connection, person_ids)
    of_lines = [ledger.c.event_key == OPENING] + ([] if reason is None else [ledger.c.reason == reason])
    for chunk in in_chunks(list(survivors)):
        rows = connection.execute(
            select(ledger.c.person_id, func.sum(ledger.c.delta))
            .where(ledger.c.person_id.in_(chunk), *of_lines)
            .group_by(ledger.c.person_id)
        )
        for number, points in rows:
            found[survivors[number]] = found.get(survivors[number], 0) + int(points)
    return found


def next_with_lines(connection: Connection, after: int, limit: int) -> list[int]:
    """The next persons who are in Mautic and have an account, by number; survivors of merges."""
    who = func.coalesce(person.c.redirect_to, ledger.c.person_id)
    query = (
        select(who)
        .select_from(ledger)
        .outerjoin(person, person.c.id == ledger.c.person_id)
        .join(contact, contact.c.person_id == who)
        .where(after < who, ledger.c.event_key != OPENING, contact.c.vanished_at.is_(None))
        .distinct()
        .order_by(who)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def account(connection: Connection, person_id: int, limit: int | None = None) -> list[dict[str, Any]]:
    """The lines of one person's account, the newest first."""
    query = (
        select(ledger)
        .where(ledger.c.person_id.in_(former_of(connection, [person_id])))
        .order_by(ledger.c.id.desc())
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def lines_of(connection: Connection, person_ids: Collection[int]) -> dict[int, list[Any]]:
    """Person → the lines of its account, those of merged persons too, the oldest first."""
    survivors = former_of(connection, person_ids)
    found: dict[int, list[Any]] = {number: [] for number in person_ids}
    for chunk in in_chunks(list(survivors)):
        for row in connection.execute(select(ledger).where(ledger.c.person_id.in_(chunk)).order_by(ledger.c.id)):
            found[survivors[row.person_id]].append(row)
    for lines in found.values():
        lines.sort(key=lambda line: line.id)
    return found


def granted_by_key(
    connection: Connection, person_ids: Collection[int], keys: Collection[str]
) -> dict[str, dict[int, int]]:
    """Event key → person → the sum of what it, and those merged into it, were granted under that key."""
    survivors = former_of(connection, person_ids)
    found: dict[str, dict[int, int]] = {}
    for chunk in in_chunks(list(survivors)):
        query = select(ledger.c.person_id, ledger.c.event_key, ledger.c.delta).where(ledger.c.person_id.in_(chunk))
        for number, key, delta in connection.execute(query):
            if key in keys:
                sums = found.setdefault(key, {})
                sums[survivors[number]] = sums.get(survivors[number], 0) + delta
    return found
