"""The account of points as Mautic's log shows it: after a restore, in a new store, and what is new with every full run.

A store that was put back from a backup does not know what Mautic has received since, and a new one does not know what
the one before it had granted; a Mautic that was put back has lost what our ledger knows. Each grant of ours carries its
key in Mautic's log, so all this is found by comparing, key by key, and entered in the ledger as one line more. Doing it
twice changes nothing. A full run compares what the log has had since the last one, so that no grant that was taken for
refused or lost, for whatever reason, stays unseen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from mautic_sync.errors import StopError
from mautic_sync.mautic.feeds import feed_max_id
from mautic_sync.mautic.points import LOG, Grant, grants_of, our_grants
from mautic_sync.pipeline import groups
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.pull import NEW_STORE, SET_BACK, pull_changes
from mautic_sync.store import changes, ledger, notes, people
from mautic_sync.store.backup import RESTORED
from mautic_sync.store.engine import in_chunks

CONTACTS_AT_ONCE = 200
BOOKS = "points_books"
"""The row of Mautic's points log above which the ledger is yet to be compared with it."""
VISIBLE_LATE = 1_000
"""Rows below the newest that may become visible after it: their transactions were open."""
FOUND = "found in Mautic's log"
LOST = "lost with a restored backup of Mautic"


def is_due(connection: Connection) -> bool:
    return notes.get(connection, RESTORED) is not None or notes.get(connection, SET_BACK) is not None


def refuse_one_contact(connection: Connection) -> None:
    """Nobody is granted points by an account that was not compared."""
    if is_due(connection):
        msg = "the store or Mautic was restored from a backup: run a whole `mautic-sync sync` first"
        raise StopError(msg)


def one_contact(run: Run, contact_id: int) -> None:
    """In a new store whose log was not looked at yet, compare at least the account of who is to be granted points."""
    with run.engine.begin() as connection:
        new = notes.get(connection, NEW_STORE) is not None
    if new:
        _compare(run, [contact_id], lost=False)


def compare_accounts(run: Run, *, full: bool) -> None:
    """Compare the ledger with Mautic's log, if one of them was restored or the store is new; everybody was read.

    Where that is not so, a `full` run compares what is new in the log.
    """
    with run.engine.begin() as connection:
        restored = is_due(connection)
        whole = restored or notes.get(connection, NEW_STORE) is not None
        lost = notes.get(connection, SET_BACK) is not None
        above = 0 if whole else int(notes.get(connection, BOOKS) or 0)
    if not whole and not (full and run.mappings.scores.push_to == "points"):
        return
    newest = feed_max_id(run.mautic, LOG)
    for rows in our_grants(run.mautic, above=above):
        suspects = _suspects(run, rows)
        if _anybody_unknown(run, suspects):
            # Merged since everybody was read, perhaps: the account of who was merged is that of the one who is left.
            pull_changes(run)
        for chunk in in_chunks(sorted(suspects), CONTACTS_AT_ONCE):
            _compare(run, chunk, lost=lost, strangers=whole)
    if lost:
        for numbers in _with_accounts(run):
            _compare(run, numbers, lost=True)
    with run.engine.begin() as connection:
        if notes.get(connection, RESTORED) is not None:
            groups.begin_epoch(run, connection)
        notes.drop(connection, RESTORED)
        notes.drop(connection, SET_BACK)
        notes.drop(connection, NEW_STORE)
        # What was left out, for it was on its way, is looked at again by the next one.
        waiting = changes.lowest_key_on_the_way(connection)
        compared = newest - VISIBLE_LATE if waiting is None else min(newest - VISIBLE_LATE, waiting)
        notes.put(connection, BOOKS, str(max(0, compared)))
    if restored or run.counts.reconciled:
        run.tell("reconciled", lines=run.counts.reconciled)


def _suspects(run: Run, rows: Sequence[Grant]) -> set[int]:
    """Contacts of this page of the log for which it does not say, key by key, what the ledger says.

    Whose key it is counts too: where Mautic lost a merge, the ledger still has it with the person that was merged into.
    Of a key that may stand in the log twice, the other row may be on another page, or have been compared by an earlier
    run: whoever has one is a suspect.
    """
    with run.engine.begin() as connection:
        persons = people.persons_of(connection, {row.contact_id for row in rows})
        entered = ledger.granted_by_key(connection, set(persons.values()), {row.key for row in rows})
        twice = changes.keys_that_may_stand_twice(connection, set(persons.values()))
    whose = [(row, persons.get(row.contact_id, 0)) for row in rows]
    logged: dict[tuple[str, int], int] = {}
    for row, person_id in whose:
        logged[row.key, person_id] = logged.get((row.key, person_id), 0) + row.delta
    return {
        row.contact_id
        for row, person_id in whose
        if row.key in twice or logged[row.key, person_id] != entered.get(row.key, {}).get(person_id)
    }


def _anybody_unknown(run: Run, contact_ids: Collection[int]) -> bool:
    with run.engine.begin() as connection:
        return not people.persons_of(connection, contact_ids).keys() >= set(contact_ids)


def _by_key(rows: Sequence[Grant]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row.key] = found.get(row.key, 0) + row.delta
    return found


def _with_accounts(run: Run) -> Iterator[list[int]]:
    """The numbers in Mautic of everybody who has lines in the ledger."""
    after = 0
    while True:
        with run.engine.begin() as connection:
            persons = ledger.next_with_lines(connection, after, CONTACTS_AT_ONCE)
            if not persons:
                return
            after = persons[-1]
            numbers = people.current_ids(connection, persons)
        yield list(numbers.values())


def _compare(run: Run, contact_ids: Sequence[int], *, lost: bool, strangers: bool = True) -> None:
    """Enter what the ledger lacks of these contacts' log, and, where Mautic has `lost` something, what it has too many.

    What is on its way, or counts as not done and keeps its key, is settled by the log anyway and left out. With
    `strangers` whoever could not be read yet has an account as well: it is not looked at again when they can be.
    """
    with run.engine.begin() as connection:
        persons = (
            people.meet(connection, contact_ids, run.now) if strangers else people.persons_of(connection, contact_ids)
        )
        numbers = people.numbers_of(connection, set(persons.values()))
    owner = {number: person_id for person_id, some in numbers.items() for number in some}
    log: dict[int, list[Grant]] = {}
    for grant in grants_of(run.mautic, owner):
        log.setdefault(owner[grant.contact_id], []).append(grant)
    with run.engine.begin() as connection:
        lines = ledger.lines_of(connection, numbers)
        waiting = changes.keys_on_the_way(connection, numbers)
        rows: list[dict[str, Any]] = []
        for person_id in numbers:
            entered: dict[str, int] = {}
            for line in lines[person_id]:
                entered[line.event_key] = entered.get(line.event_key, 0) + line.delta
            logged = _by_key(log.get(person_id, []))
            differing = _differing(logged, entered, waiting, lost=lost)
            rows += [
                _line(run, person_id, key, delta, FOUND if key in logged else LOST) for key, delta in differing.items()
            ]
        ledger.append(connection, rows)
        people.mark_dirty(connection, {row["person_id"] for row in rows})
    run.counts.reconciled += len(rows)


def _differing(
    logged: Mapping[str, int], entered: Mapping[str, int], waiting: Collection[str], *, lost: bool
) -> dict[str, int]:
    """Key → what the ledger lacks of it, negative for what it has too many."""
    keys = set(logged) | (set(entered) - {ledger.OPENING} if lost else set())
    deltas = {key: logged.get(key, 0) - entered.get(key, 0) for key in sorted(keys - set(waiting))}
    return {key: delta for key, delta in deltas.items() if delta}


def _line(run: Run, person_id: int, key: str, delta: int, reason: str) -> dict[str, Any]:
    return {
        "person_id": person_id,
        "at": run.now,
        "run_id": run.id,
        "change_id": 0,
        "event_key": key,
        "delta": delta,
        "reason": reason,
    }
