"""Old activity is folded: what rules and fields need of it is kept, its rows go.

Decisions, scores and their accounts are the same before and after. A row stays that tells where somebody came from or
went last. Each transaction folds some rows of some persons, so that a run that is killed goes on where it was. A day's
fold looks at those who have rows that became old, or came old, since the one before; once a week one looks at everybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, RowMapping

from mautic_sync.domain.activity import Activity
from mautic_sync.domain.contact import Catalogue
from mautic_sync.domain.countries import fold as folded_text
from mautic_sync.domain.grammar import leaves
from mautic_sync.domain.journey import STEPS, Journey, Span
from mautic_sync.domain.matchers import ActivityMatcher, listed, wildcard
from mautic_sync.domain.scoring import day_of, day_start
from mautic_sync.mappings import Mappings
from mautic_sync.pipeline.context import Run
from mautic_sync.store import carried, decisions, notes, people
from mautic_sync.store.activities import NEXT_ACTIVITY, Counting, as_activity, named_kinds
from mautic_sync.store.engine import in_chunks
from mautic_sync.store.people import identified_at

PERSONS_AT_ONCE = 200
ROWS_AT_ONCE = 5_000
EVERYBODY_AFTER = 7 * 86_400
"""Seconds after which a fold looks at everybody again."""


def fold(run: Run) -> int:
    """Fold what is older than `store.keep_activity`, by whole days; returns how many rows went.

    A day is folded once: nothing is looked at again before the next one.
    """
    keep = run.settings.store.keep_activity
    if keep is None:
        return 0
    zone = run.counting.zone
    before = day_start(day_of(run.now - int(keep.total_seconds()), zone), zone)
    with run.engine.begin() as connection:
        if carried.looked(connection).before >= before:
            return 0
    total = fold_before(run, before)
    run.tell("folded", activities=total, before=day_text(before, zone))
    return total


def day_text(at: int, zone: ZoneInfo) -> str:
    """The day of a second since 1970, as ISO 8601 has it."""
    return date.fromordinal(day_of(at, zone)).isoformat()


def fold_before(run: Run, before: int) -> int:
    """Fold activity from before this time, seconds since 1970; returns how many rows went."""
    counting, catalogue = run.counting, run.catalogue
    with run.engine.begin() as connection:
        names = named_kinds(catalogue)
        carried.announce(connection, before, counting.proofs, counting.tallies, counting.zone.key, names)
        last = carried.looked(connection)
        next_row = int(notes.get(connection, NEXT_ACTIVITY) or 1)
    everybody = before - last.everybody >= EVERYBODY_AFTER
    total = 0
    for persons in _everybody(run, before) if everybody else _concerned(run, before, last):
        with run.engine.begin() as connection:
            kept = _telling(connection, persons, before, catalogue)
        total += _fold_rows(run, counting, persons, before, kept)
    with run.engine.begin() as connection:
        carried.note_looked(connection, carried.Looked(before, next_row, before if everybody else last.everybody))
    return total


def _everybody(run: Run, before: int) -> Iterator[Sequence[int]]:
    after = 0
    while True:
        with run.engine.begin() as connection:
            persons = carried.persons_with_old(connection, before, after, PERSONS_AT_ONCE)
        if not persons:
            return
        yield persons
        after = persons[-1]


def _concerned(run: Run, before: int, last: carried.Looked) -> Iterator[Sequence[int]]:
    """Of all others the last fold left only rows that stay, whatever the rules are; dates that moved wait for the week."""
    with run.engine.begin() as connection:
        persons = carried.persons_newly_old(connection, before, last)
    yield from in_chunks(persons, PERSONS_AT_ONCE)


def _fold_rows(run: Run, counting: Counting, persons: Sequence[int], before: int, kept: set[int]) -> int:
    last = total = 0
    while True:
        with run.engine.begin() as connection:
            starts = carried.starts(connection)
            rows = list(carried.old_rows(connection, persons, before, after=last, limit=ROWS_AT_ONCE))
            if not rows:
                return total
            last = rows[-1]["id"]
            going = carried.Fold(counting.proofs, counting.tallies, counting.zone)
            for row in rows:
                if row["id"] not in kept and not _may_come_again(row, starts):
                    going.take(row, as_activity(row, run.catalogue))
            total += going.store(connection)


def _may_come_again(row: RowMapping, starts: Mapping[str, int]) -> bool:
    """A row from before its feed was read: told because it changed, nobody could say later whether it was counted."""
    number = row["source_id"]
    return bool(number.isdecimal() and int(number) <= starts.get(row["source"], 0))


def _telling(connection: Connection, persons: Sequence[int], before: int, catalogue: Catalogue) -> set[int]:
    """The rows that tell the first and the last page, campaign and source, in all and up to when somebody became what."""
    survivors = people.survivors_of(connection, persons)
    now = [survivors.get(number, number) for number in persons]
    became, identified = decisions.first_transitions(connection, now), identified_at(connection, now)
    journeys: dict[int, tuple[Journey, Journey]] = {}
    for number, survivor in zip(persons, now, strict=True):
        first, until = became.get(survivor, {}), dict[Span, int]()
        reached = identified.get(survivor, min(first.values(), default=None))
        if reached is not None:
            until["before_lead"] = reached
        if "customer" in first:
            until["before_customer"] = first["customer"]
        journeys[number] = (Journey(until), Journey(until))
    for row in carried.old_rows(connection, persons, before, types=STEPS):
        one = as_activity(row, catalogue)
        named, unnamed = journeys[row["person_id"]]
        named.see(one, row["id"])
        unnamed.see(_with_a_name(one, row["object_id"]), row["id"])
    return {row for pair in journeys.values() for one in pair for row in one.rows}


def _with_a_name(one: Activity, object_id: int | None) -> Activity:
    """What has no name in the catalogue may have one tomorrow."""
    if one.type == "page.hit" or object_id is None or one.attributes.keys() & {"campaign", "email"}:
        return one
    return one._replace(attributes={**one.attributes, "campaign": f"#{object_id}"})


# -- what carried rows cannot tell ------------------------------------------------------------------------------------


def tell_what_is_missing(run: Run) -> None:
    """Say which rules count less than they ask for, because activity was folded before they asked."""
    with run.engine.begin() as connection:
        told = missing(connection, run.mappings, run.catalogue)
    for text in told:
        run.tell("folded_short", reason=text)


def missing(connection: Connection, mappings: Mappings, catalogue: Catalogue) -> list[str]:
    """What rules ask of activity that was folded when nobody asked it: a sentence each."""
    known = carried.folded(connection)
    if not known.before:
        return []
    zone = ZoneInfo(mappings.time_zone)
    found = []
    for way, matchers in (("tallies", mappings.score_matchers), ("proofs", _boundless(mappings))):
        for one in matchers:
            before = known.gaps.get(f"{way}:{one.key}", known.before)
            if before:
                found.append(
                    f"{asks_text(one, mappings)}: activity from before {day_text(before, zone)} is not counted, for it was folded "
                    "when no rule asked for this (store.keep_activity)"
                )
            found += [
                f"{asks_text(one, mappings)}: {text}, and the activity from before {day_text(known.before, zone)} counts by that"
                for text in _renamed(one, known, catalogue)
            ]
    others = sorted(set(known.zones) - {zone.key})
    if mappings.score_matchers and others:
        day = day_text(known.before, zone)
        found.append(f"days of activity from before {day} stay those of {', '.join(others)}, not of {zone.key}")
    return list(dict.fromkeys(found))


def _boundless(mappings: Mappings) -> Iterator[ActivityMatcher]:
    """Matchers of conditions that look back without limit; the others never see what is folded."""
    for condition in mappings.conditions:
        for leaf in leaves(condition.node) if condition.node is not None else ():
            if leaf.matcher is not None and leaf.within is None:
                yield leaf.matcher


def asks_text(one: ActivityMatcher, mappings: Mappings) -> str:
    """What a rule of activity asks for, and which: `page.hit with url */pricing* (`Reads pricing`)`."""
    where = ", ".join(f"{name} {' or '.join(listed(wanted))}" for name, wanted in one.where.items())
    rules = [
        f"`{rule.name}`"
        for rule in mappings.scores.rules
        if one.key in {matcher.key for matcher in (rule.matcher, rule.unless) if matcher is not None}
    ]
    by = f" ({', '.join(rules)})" if rules else ""
    return f"{one.type}{f' with {where}' if where else ''}{by}"


def _renamed(one: ActivityMatcher, known: carried.Folded, catalogue: Catalogue) -> Iterator[str]:
    """Objects that the matcher found by another name when their activity was folded, or did not find."""
    for kind, wanted in one.where.items():
        tests = [wildcard(folded_text(text)) for text in listed(wanted)]
        names: Mapping[int, str] = getattr(catalogue, f"{kind}s", {})
        for number, before in known.names.get(kind, {}).items():
            after = names.get(int(number), before)
            if any(test(folded_text(before)) for test in tests) != any(test(folded_text(after)) for test in tests):
                yield f"{kind} {number}, now `{after}`, was called `{before}` when activity was folded"
