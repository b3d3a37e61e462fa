"""What is left of old activity whose rows are gone: by day and matcher for scores, its times for conditions.

Rows are folded into the person who had them, and read through its redirect like activity itself. What no matcher
counted when it was folded cannot be counted later: `Folded` tells what is complete.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping, delete, or_, select

from mautic_sync.domain.activity import Activity
from mautic_sync.domain.matchers import Matchers
from mautic_sync.domain.scoring import day_of
from mautic_sync.store import notes, tallies
from mautic_sync.store.engine import in_chunks, upsert
from mautic_sync.store.people import former_of
from mautic_sync.store.schema import activity, carried, evidence, person
from mautic_sync.store.tallies import Days
from mautic_sync.store.text import dump

OPENED = "email.read"
"""Never folded: Mautic may tell of it long after, in the row of a mail sent long before."""
FOLDED = "folded"
STARTS = "feed_starts"
"""Feed → the row after which all of its rows were read; earlier ones are told now and then, and kept."""
LOOKED = "folded_up_to"
RESTORED_AT_ONCE = 1_000


@dataclass(frozen=True)
class Folded:
    """What is known of folding as a whole.

    Activity from before `before`, seconds since 1970, of the feeds `sources` is folded. `gaps` maps `proofs:KEY` and
    `tallies:KEY` of a matcher to the time before which it was not counted, 0 for nothing. Days are those of `zones`,
    names those that `names` holds for each kind and id.
    """

    before: int = 0
    gaps: Mapping[str, int] = field(default_factory=dict)
    zones: Sequence[str] = ()
    sources: Sequence[str] = ()
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def had(self, source: str, source_id: str, type_: str, at: int, starts: Mapping[str, int]) -> bool:
        """Whether this row of a feed, which was read before and is not in the store, was folded."""
        if at >= self.before or type_ == OPENED or source not in self.sources:
            return False
        return not source_id.isdecimal() or int(source_id) > starts.get(source, 0)


@dataclass(frozen=True)
class Looked:
    """How far the last fold looked that came to its end; nothing of it in a new or a restored store.

    It looked at activity from before `before` whose row was below `next_row`. `everybody` is the `before` of the last
    one that looked at everybody: only such a fold meets rows that were given to a person, or to another, later on.
    """

    before: int = 0
    next_row: int = 0
    everybody: int = 0


def looked(connection: Connection) -> Looked:
    known = notes.get_json(connection, LOOKED)
    return Looked() if known is None else Looked(**known)


def note_looked(connection: Connection, one: Looked) -> None:
    notes.put_json(connection, LOOKED, vars(one))


def look_again(connection: Connection) -> None:
    """The next fold looks at everybody."""
    notes.drop(connection, LOOKED)


def folded(connection: Connection) -> Folded:
    known = notes.get_json(connection, FOLDED)
    return Folded() if known is None else Folded(**known)


def starts(connection: Connection) -> dict[str, int]:
    return notes.get_json(connection, STARTS) or {}


def note_start(connection: Connection, feed: str, start: int) -> None:
    """All rows of this feed above `start` are about to be read.

    Once something is folded the beginning stays: rows from before it come now for the first time, and are never folded.
    """
    known = starts(connection)
    if feed in known and folded(connection).before:
        return
    notes.put_json(connection, STARTS, {**known, feed: min(start, known.get(feed, start))})


def announce(
    connection: Connection, before: int, proofs: Matchers, counted: Matchers, zone: str, names: Mapping[str, Any]
) -> None:
    """Activity from before this time is about to be folded, for exactly these matchers."""
    known = folded(connection)
    keys = [f"proofs:{key}" for key in proofs.keys] + [f"tallies:{key}" for key in counted.keys]
    gaps = {key: known.gaps.get(key, known.before) for key in sorted(keys)}
    zones = sorted({*known.zones, zone})
    # The first name counts: what is called otherwise later was folded under this one.
    called = {
        kind: {**{str(number): name for number, name in found.items()}, **known.names.get(kind, {})}
        for kind, found in names.items()
    }
    after = Folded(max(before, known.before), gaps, zones, known.sources, called)
    notes.put_json(connection, FOLDED, vars(after))


def persons_with_old(connection: Connection, before: int, after: int, limit: int) -> list[int]:
    """The next persons, by number, who have activity from before this time that could be folded."""
    return list(
        connection.execute(
            select(activity.c.person_id)
            .where(activity.c.person_id > after, activity.c.at < before, activity.c.type != OPENED)
            .group_by(activity.c.person_id)
            .order_by(activity.c.person_id)
            .limit(limit)
        ).scalars()
    )


def persons_newly_old(connection: Connection, before: int, last: Looked) -> list[int]:
    """All who have activity that could be folded now and that the last fold did not look at, by number.

    One pass over all rows, which tells nobody twice: in the order of persons it would take SQLite many times as long.
    """
    query = select(activity.c.person_id).where(
        activity.c.at < before,
        activity.c.type != OPENED,
        or_(activity.c.at >= last.before, activity.c.id >= last.next_row),
    )
    found = set(connection.execute(query.execution_options(yield_per=10_000)).scalars())
    return sorted(found - {None})


def old_rows(
    connection: Connection,
    person_ids: Sequence[int],
    before: int,
    *,
    after: int = 0,
    limit: int | None = None,
    types: Collection[str] | None = None,
) -> Iterator[RowMapping]:
    """Their activity from before this time that could be folded, with `limit` by number of the row; read as it is asked for."""
    query = select(activity).where(
        activity.c.person_id.in_(person_ids),
        activity.c.at < before,
        activity.c.type != OPENED,
        activity.c.id > after,
    )
    if types is not None:
        query = query.where(activity.c.type.in_(types))
    if limit is not None:
        query = query.order_by(activity.c.id).limit(limit)
    yield from connection.execute(query.execution_options(yield_per=1_000)).mappings()


class Fold:
    """Some rows on their way into what is carried."""

    def __init__(self, proofs: Matchers, counted: Matchers, zone: Any) -> None:
        self._proofs, self._counted, self._zone = proofs, counted, zone
        self._found: dict[int, dict[str, dict[str, list[int]]]] = {}
        self._rows: list[int] = []
        self._sources: set[str] = set()

    def take(self, row: RowMapping, one: Activity) -> None:
        """`row` is the stored one, `one` what it is for the rules."""
        found = self._found.setdefault(row["person_id"], _nothing())
        for matcher in self._proofs.matching(one):
            found["proofs"].setdefault(matcher.key, []).extend((row["id"], one.at))
        for matcher in self._counted.matching(one):
            tallies.add_day(found["tallies"].setdefault(matcher.key, []), day_of(one.at, self._zone), 1)
        _meet(found["done"], one.type, [1, one.at, one.at])
        self._rows.append(row["id"])
        self._sources.add(row["source"])

    def store(self, connection: Connection) -> int:
        """Carry what was taken, and delete its rows; returns how many."""
        for chunk in in_chunks(list(self._found)):
            stored = {number: _unpacked(counts) for number, counts in _of_numbers(connection, chunk)}
            for number in chunk:
                _unite(stored.setdefault(number, _nothing()), self._found[number])
            rows = [{"person_id": number, "folded": dump(one)} for number, one in stored.items()]
            upsert(connection, carried, rows)
        known = folded(connection)
        if self._sources - set(known.sources):
            after = {**vars(known), "sources": sorted({*known.sources, *self._sources})}
            notes.put_json(connection, FOLDED, after)
        for numbers in in_chunks(self._rows):
            connection.execute(delete(activity).where(activity.c.id.in_(numbers)))
        return len(self._rows)


def _nothing() -> dict[str, Any]:
    return {"tallies": {}, "proofs": {}, "done": {}}


def _unpacked(text: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(text)
    return found


def _of_numbers(connection: Connection, person_ids: Sequence[int]) -> Iterator[tuple[int, str]]:
    for row in connection.execute(select(carried).where(carried.c.person_id.in_(person_ids))):
        yield row.person_id, row.folded


def _unite(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, days in more["tallies"].items():
        kept = into["tallies"].setdefault(key, [])
        for day, times in zip(days[::2], days[1::2], strict=True):
            tallies.add_day(kept, day, times)
    for key, moments in more["proofs"].items():
        into["proofs"].setdefault(key, []).extend(moments)
    for type_, met in more["done"].items():
        _meet(into["done"], type_, met)


def _meet(done: dict[str, list[int]], type_: str, more: Sequence[int]) -> None:
    """Times, first and last moment of a type."""
    times, first, last = done.get(type_, (0, more[1], more[2]))
    done[type_] = [times + more[0], min(first, more[1]), max(last, more[2])]


# -- reading it again -------------------------------------------------------------------------------------------------


def tallies_of(
    connection: Connection, survivors: Mapping[int, int], keys: Collection[str]
) -> dict[int, dict[str, Days]]:
    """Survivor → matcher → days, of persons (number → survivor) as `former_of` gives them."""
    found: dict[int, dict[str, Days]] = {}
    for chunk in in_chunks(list(survivors)):
        for number, text in _of_numbers(connection, chunk):
            _tallied(found.setdefault(survivors[number], {}), _unpacked(text), keys)
    return found


def _tallied(into: dict[str, Days], one: Mapping[str, Any], keys: Collection[str]) -> None:
    for key in one["tallies"].keys() & set(keys):
        kept = into.setdefault(key, [])
        for day, times in zip(one["tallies"][key][::2], one["tallies"][key][1::2], strict=True):
            tallies.add_day(kept, day, times)


def restore(connection: Connection, proofs: Collection[str], counted: Collection[str]) -> None:
    """Give everybody the evidence and the tallies of what was folded, for matchers of these keys."""
    after = 0
    while True:
        rows = connection.execute(
            select(carried, person.c.redirect_to)
            .outerjoin(person, person.c.id == carried.c.person_id)
            .where(carried.c.person_id > after)
            .order_by(carried.c.person_id)
            .limit(RESTORED_AT_ONCE)
        ).all()
        if not rows:
            return
        after = rows[-1].person_id
        found: dict[int, dict[str, Days]] = {}
        proven: list[dict[str, Any]] = []
        for row in rows:
            number, one = row.redirect_to or row.person_id, _unpacked(row.folded)
            _tallied(found.setdefault(number, {}), one, counted)
            proven += _proofs(number, one, proofs)
        upsert(connection, evidence, proven, update=())
        tallies.add_counted(connection, {number: days for number, days in found.items() if days})


def _proofs(person_id: int, one: Mapping[str, Any], keys: Collection[str]) -> Iterable[dict[str, Any]]:
    for key in one["proofs"].keys() & set(keys):
        moments = one["proofs"][key]
        for number, at in zip(moments[::2], moments[1::2], strict=True):
            yield {"matcher": key, "activity_id": number, "person_id": person_id, "at": at}


def who_did(connection: Connection, type_: str, person_ids: Collection[int]) -> set[int]:
    """Which of these persons have folded activity of this type."""
    found: set[int] = set()
    for chunk in in_chunks(list(person_ids)):
        found.update(number for number, text in _of_numbers(connection, chunk) if type_ in _unpacked(text)["done"])
    return found


def done_by(connection: Connection, person_id: int) -> dict[str, list[int]]:
    """Type → how often, first and last moment, of what was folded of a person and all who were merged into it."""
    done: dict[str, list[int]] = {}
    for chunk in in_chunks(list(former_of(connection, [person_id]))):
        for _number, text in _of_numbers(connection, chunk):
            for type_, met in _unpacked(text)["done"].items():
                _meet(done, type_, met)
    return done
