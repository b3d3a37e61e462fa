"""Points reach Mautic exactly once, over an API that applies a call as often as it is made.

The intent is stored with a key before the request, the key stands at the end of the event's name, and what is in doubt
is looked up in Mautic's log by it: the sum of the log is the truth. docs/delivery.md names the holes that remain.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection

from mautic_sync.domain.plan import POINTS, Change
from mautic_sync.domain.undoing import UNDOES
from mautic_sync.errors import MalformedError, MauticSyncError, RefusedError, UnreadableError
from mautic_sync.mautic.contacts import contacts_by_id, get_contact
from mautic_sync.mautic.feeds import feed_max_id
from mautic_sync.mautic.points import LOG, Arrival, Granted, add_points, arrived, event_name
from mautic_sync.mautic.writes import Doubtful, Gone, Refused
from mautic_sync.pipeline import pull
from mautic_sync.pipeline.context import MOST_ATTEMPTS, Run
from mautic_sync.pipeline.flights import ask_for_anybody
from mautic_sync.pipeline.holding import plan_anew
from mautic_sync.store import changes, holds, ledger, notes, people

WATCHED = "points_watched"
"""Changes that counted as not done once, and until when the log is looked at for what still arrives: id → seconds."""
WATCHED_SECONDS = 86_400


def intend(run: Run, batch: Sequence[Any]) -> Sequence[Any]:
    """Store the intents of these planned changes, each with its key; returns those that may be sent now."""
    if run.log_above is None:
        # Once a run: ids only grow, and any bound that is lower is as good.
        run.log_above = feed_max_id(run.mautic, LOG)
    with run.engine.begin() as connection:
        return changes.mark_points_sent(
            connection, [row.id for row in batch], run_id=run.id, now=int(time.time()), log_above=run.log_above
        )


def send(run: Run, row: Any) -> Granted | Refused | Gone | Doubtful:
    """Grant the points of one intent. What was sent before is confirmed by the log: the first may have arrived too."""
    new = orjson.loads(row.new)
    result = add_points(
        run.mautic,
        row.mautic_id,
        new["delta"],
        name=event_name(row.reason, row.event_key),
        action=f"score {new['points']}",
    )
    if row.attempts == 1 or not isinstance(result, Granted):
        return result
    with run.engine.begin() as connection:
        numbers = people.numbers_of(connection, [row.person_id]).get(row.person_id, set())
    try:
        found = arrived(run.mautic, numbers, {row.event_key}, above=row.log_above).get(row.event_key)
    except MauticSyncError as error:
        # The points were granted, whatever became of the question how often.
        return Doubtful(f"Mautic answered 200, and its log could not be read: {error}")
    return Doubtful("Mautic answered 200, and its log does not show it.") if found is None else Granted(found.delta)


def settle(run: Run, connection: Connection, row: Any, delta: int) -> None:
    """Mautic has received `delta` points for this change: close it, and enter them in the account."""
    changes.settle_points(connection, [row.id], run_id=run.id, now=run.now)
    _enter(run, connection, row, delta, row.reason)
    run.counts.points += 1
    surplus = delta - orjson.loads(row.new)["delta"]
    if surplus:
        people.mark_dirty(connection, [row.person_id])
    _take_back_from_held(run, connection, row, surplus)


def _take_back_from_held(run: Run, connection: Connection, row: Any, surplus: int) -> None:
    """Plan to take back what Mautic has received too much for this change, where the person is held: nobody decides it."""
    if not surplus:
        return
    number = people.survivors_of(connection, [row.person_id]).get(row.person_id, row.person_id)
    held = holds.held_among(connection, [number]).get(number)
    if held is None:
        return
    granted = ledger.granted(connection, [number]).get(number, 0)
    new = {"points": granted - surplus, "delta": -surplus, UNDOES: held.undone}
    planned = Change(POINTS, {"points": granted}, new, f"undo of {held.undone}", row.value)
    present = changes.open_of(connection, number, POINTS)
    if present is None:
        wanted = {(number, POINTS): planned}
        changes.plan_changes(connection, [number], wanted, {}, run_id=run.id, now=run.now, baseline=True)
        return
    # What is on its way shall take back that much more: if it arrives as it was sent, the rest is too many again.
    more = orjson.loads(present.new)
    more["delta"] -= surplus
    changes.plan_otherwise(connection, present.id, planned._replace(new=more))


def _enter(run: Run, connection: Connection, row: Any, delta: int, reason: str) -> None:
    ledger.append(
        connection,
        [
            {
                "person_id": row.person_id,
                "at": run.now,
                "run_id": run.id,
                "change_id": row.id,
                "event_key": row.event_key,
                "delta": delta,
                "reason": reason,
            }
        ],
    )
    people.add_points(connection, {row.person_id: delta})
    if run.mappings.shows_points:
        people.mark_dirty(connection, [row.person_id])


# -- what is in doubt -----------------------------------------------------------------------------------------------


def settle_doubts(run: Run) -> None:
    """Look up the points whose answer was lost, and those that came to nothing once and may still arrive."""
    with run.engine.begin() as connection:
        doubtful = changes.doubtful_points(connection)
        watched = _watched(run, connection)
        keys = {row.event_key for row in (*doubtful, *watched)}
        survivors = {row.survivor for row in (*doubtful, *watched)}
        planned = [
            row for row in changes.open_points_by_key(connection, keys, survivors) if row.state == changes.PLANNED
        ]
        numbers = people.numbers_of(connection, survivors)
    if not keys:
        return
    above = min(row.log_above or 0 for row in (*doubtful, *watched))
    found = arrived(run.mautic, {number for some in numbers.values() for number in some}, keys, above=above)
    not_done = _not_done(run, [row for row in doubtful if row.event_key not in found])
    hopeless = [row for row in not_done if row.attempts >= MOST_ATTEMPTS]
    again = [row for row in not_done if row.attempts < MOST_ATTEMPTS]
    touched: set[int] = set()
    with run.engine.begin() as connection:
        # What was planned anew and arrived after all is settled by that; another sending would be one too many.
        settled = [row for row in (*doubtful, *planned) if row.event_key in found]
        for row in settled:
            settle(run, connection, row, found[row.event_key].delta)
        closed = {row.event_key: row for row in watched if row.open_key is None}
        late = _late(connection, closed, keys - {row.event_key for row in (*doubtful, *planned)}, found)
        for row, delta in late:
            _enter(run, connection, row, delta, f"arrived late: {row.reason}")
            awaited = _awaited(row)
            _take_back_from_held(run, connection, row, delta - awaited)
            if awaited:
                changes.let_unneeded_go(connection, {row.id}, run.now)
            run.tell("points_late", contact=row.mautic_id, points=delta)
        reason = "not found in Mautic's log: it was not done"
        current = people.current_ids(connection, {row.person_id for row in again})
        plan_anew(run, connection, [row for row in again if row.person_id in current], reason)
        # Whoever was merged is planned for as the survivor.
        changes.supersede(connection, [row.id for row in again if row.person_id not in current], reason, run.now)
        for row in hopeless:
            told = f"Mautic does not grant these points: sent {row.attempts} times and never found in its log"
            changes.refuse(connection, row.id, told, run.now)
            run.counts.failed += 1
            run.tell("refused", contact=row.mautic_id, status=None, reason=told)
        _watch(run, connection, [row.id for row in not_done])
        touched |= {row.survivor for row in (*settled, *again, *(row for row, _ in late))}
        people.mark_dirty(connection, touched)
        arrived_at = {row.mautic_id for row in (*settled, *(row for row, _ in late)) if row.mautic_id is not None}
    if arrived_at:
        # Whether the points were in there when the contact was last read, nobody knows.
        page = contacts_by_id(run.mautic, arrived_at)
        with run.engine.begin() as connection:
            pull.keep(run, connection, page.contacts, page.malformed)
    if doubtful or late:
        waiting = len(doubtful) - len(not_done) - sum(row.event_key in found for row in doubtful)
        run.tell("points_doubts", settled=len(settled), not_done=len(not_done), waiting=waiting, late=len(late))


def _awaited(row: Any) -> int:
    """What of a closed change is welcome when it arrives: an undo that was refused, and waits for `retry`."""
    new = orjson.loads(row.new)
    return int(new["delta"]) if row.state == changes.REFUSED and UNDOES in new else 0


def _not_done(run: Run, missing: Sequence[Any]) -> list[Any]:
    """Of the points that the log does not show, those that count as not done.

    A contact that is gone answers for itself at once: it was deleted, and nobody waits for its points, or merged, and
    the survivor's log is looked at by the next run.
    """
    not_done = []
    for row in missing:
        waited = run.is_overdue(row)
        if not waited and row.mautic_id is not None and row.vanished_at is None:
            continue
        number = None if row.mautic_id is None else _number_now(run, row.mautic_id)
        if number is None:
            with run.engine.begin() as connection:
                changes.supersede(connection, [row.id], "the contact was deleted in Mautic", run.now)
        elif waited and number == row.mautic_id:
            not_done.append(row)
    return not_done


def _number_now(run: Run, mautic_id: int) -> int | None:
    """The number to which this one leads in Mautic; a merge or a deletion that we had not seen is followed."""
    try:
        found = get_contact(run.mautic, mautic_id)
    except MalformedError:
        return mautic_id  # it is there
    except (UnreadableError, RefusedError):
        ask_for_anybody(run.mautic)
        return mautic_id  # Mautic cannot show this one alone: the points wait, or count as refused in the end
    if found is None or found.id != mautic_id:
        pull.pull_contact(run, mautic_id)
    return None if found is None else found.id


def _watched(run: Run, connection: Connection) -> list[Any]:
    """Changes under watch, one for each key."""
    until: Mapping[str, int] = notes.get_json(connection, WATCHED) or {}
    rows = changes.points_by_number(connection, [int(number) for number, end in until.items() if end > run.now])
    return list({row.event_key: row for row in rows}.values())


def _watch(run: Run, connection: Connection, numbers: Collection[int]) -> None:
    before: Mapping[str, int] = notes.get_json(connection, WATCHED) or {}
    after = {number: end for number, end in before.items() if end > run.now}
    after.update((str(number), run.now + WATCHED_SECONDS) for number in numbers)
    if after != before:
        notes.put_json(connection, WATCHED, after)


def _late(
    connection: Connection, closed: Mapping[str, Any], keys: Collection[str], found: Mapping[str, Arrival]
) -> list[tuple[Any, int]]:
    """What the log shows of closed changes beyond what their account does: a first sending after its second."""
    rows = [closed[key] for key in sorted(keys) if key in closed and key in found]
    entered = ledger.granted_by_key(connection, {row.survivor for row in rows}, keys)
    deltas = [(row, found[row.event_key].delta - sum(entered.get(row.event_key, {}).values())) for row in rows]
    return [(row, delta) for row, delta in deltas if delta]
