"""How often, and on which days, people did what the rules of scores count: kept as activity arrives."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, delete, select

from mautic_sync.store.engine import in_chunks, upsert
from mautic_sync.store.schema import tally
from mautic_sync.store.text import dump

Days = list[int]
"""Day, count, day, count, …: days ascending, as `Signals.tallies` holds them."""

_OF_PERSONS = select(tally.c.person_id, tally.c.counts).where(
    tally.c.person_id.in_(bindparam("numbers", expanding=True))
)


def add(connection: Connection, found: Mapping[int, Mapping[str, Iterable[int]]]) -> None:
    """Count what was done once more: person → matcher → the day of each time."""
    for chunk in in_chunks(list(found)):
        tallies = of_persons(connection, chunk)
        for person_id in chunk:
            counts = tallies.setdefault(person_id, {})
            for key, days in found[person_id].items():
                kept = counts.setdefault(key, [])
                for day in days:
                    add_day(kept, day, 1)
        _save(connection, tallies)


def add_counted(connection: Connection, found: Mapping[int, Mapping[str, Days]]) -> None:
    """Count what was counted elsewhere already: person → matcher → days."""
    for chunk in in_chunks(list(found)):
        tallies = of_persons(connection, chunk)
        for person_id in chunk:
            counts = tallies.setdefault(person_id, {})
            for key, days in found[person_id].items():
                kept = counts.setdefault(key, [])
                for day, times in zip(days[::2], days[1::2], strict=True):
                    add_day(kept, day, times)
        _save(connection, tallies)


def clear(connection: Connection, person_ids: Collection[int] | None = None) -> None:
    """Forget the tallies of these persons, or of everybody."""
    if person_ids is None:
        connection.execute(delete(tally))
        return
    for chunk in in_chunks(list(person_ids)):
        connection.execute(delete(tally).where(tally.c.person_id.in_(chunk)))


def unite(connection: Connection, survivor: int, loser: int) -> None:
    """One person did what both did."""
    tallies = of_persons(connection, [survivor, loser])
    if loser not in tallies:
        return
    united = tallies.get(survivor, {})
    for key, days in tallies[loser].items():
        kept = united.setdefault(key, [])
        for day, count in zip(days[::2], days[1::2], strict=True):
            add_day(kept, day, count)
    _save(connection, {survivor: united})
    connection.execute(delete(tally).where(tally.c.person_id == loser))


def of_persons(connection: Connection, person_ids: Collection[int]) -> dict[int, dict[str, Days]]:
    """Person → matcher → days, for those who have any."""
    found: dict[int, dict[str, Days]] = {}
    for chunk in in_chunks(list(person_ids)):
        rows: Any = connection.execute(_OF_PERSONS, {"numbers": chunk}).all()
        found.update((person_id, orjson.loads(counts)) for person_id, counts in rows)
    return found


def add_day(days: Days, day: int, times: int) -> None:
    """So often more on this day."""
    if not days or day > days[-2]:
        days += (day, times)
        return
    place = bisect_left(days[::2], day) * 2
    if days[place] == day:
        days[place + 1] += times
    else:
        days[place:place] = (day, times)


def _save(connection: Connection, tallies: Mapping[int, Mapping[str, Days]]) -> None:
    upsert(connection, tally, [{"person_id": number, "counts": dump(counts)} for number, counts in tallies.items()])
