"""Planned changes → Mautic, most valuable first, each an intent before it is sent and settled by what Mautic shows.

Contacts without points go in small batches, the others one by one: a batch swallows points (docs/mautic.md:
"Writing"), so points follow when all edits of their band of value are answered for. What is in doubt is looked up before
anything else is written there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection

from mautic_sync.domain.contact import Contact
from mautic_sync.domain.plan import CONTACT, GROUPS, POINTS, VALUE_OF_KIND, channel_of
from mautic_sync.domain.undoing import UNDOES
from mautic_sync.errors import ForbiddenError, MauticSyncError
from mautic_sync.mautic.contacts import contacts_by_id
from mautic_sync.mautic.points import Granted, GroupsSet
from mautic_sync.mautic.writes import (
    ContactEdit,
    Doubtful,
    Gone,
    Moved,
    Refused,
    Result,
    Settled,
    add_dnc,
    clear_stage,
    echo_matches,
    edit_batch,
    edit_one,
    remove_dnc,
    set_stage,
)
from mautic_sync.pipeline import actions, groups, points, waiting
from mautic_sync.pipeline.context import MOST_ATTEMPTS, Run
from mautic_sync.pipeline.decide import VALUE_OF_LOST_DNC
from mautic_sync.pipeline.flights import keep_in_flight, note_end
from mautic_sync.pipeline.holding import plan_anew
from mautic_sync.pipeline.refusals import BAD_VALUE, SHARED_ADDRESS, is_about_owner, way_out
from mautic_sync.store import changes, people

PLANNED_AT_ONCE = 2000
FORBIDDEN_IN_A_ROW = 5
"""So many changes, one after the other, are answered by 403 until that is taken for an answer to all."""
FORBIDDEN = 403


class Band(NamedTuple):
    """Values of changes, both included; without `most` there is no highest."""

    least: int
    most: int | None = None


BANDS = (Band(VALUE_OF_KIND["ghost"] + 1), Band(0, VALUE_OF_KIND["ghost"]))
"""Ghosts, most of a large instance, wait until everybody else has edits, points and actions."""


@dataclass(frozen=True, slots=True)
class Forbidden:
    """A 403: nothing was changed, for a right is missing, or something before Mautic does not let this one through."""

    error: ForbiddenError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one change, and `sent`: what of its `new` really went out.

    `dropped` in there are fields that Mautic refused and that are not asked for again; `refused` is its no to the rest
    of `new`, which is kept.
    """

    result: Result | Granted | GroupsSet | Forbidden
    sent: Mapping[str, Any]
    refused: Refused | None = None


def settle_doubts(run: Run) -> None:
    """Look up every write whose answer was lost; what is not found after `mautic.settle_after` was not done."""
    with run.engine.begin() as connection:
        changes.doubt_what_was_sent(connection, int(time.time()))
    points.settle_doubts(run)
    groups.settle_doubts(run)
    with run.engine.begin() as connection:
        rows = changes.doubtful(connection)
    if not rows:
        return
    page = contacts_by_id(run.mautic, {row.mautic_id for row in rows})
    found = {one.id: one for one in page.contacts}
    done: list[tuple[Any, Contact]] = []
    not_done: list[Any] = []
    for row in rows:
        there = found.get(row.mautic_id)
        if there is not None and not _missing(run, row, there):
            done.append((row, there))
        elif run.is_overdue(row):
            not_done.append(row)
    hopeless = [row for row in not_done if row.attempts >= MOST_ATTEMPTS]
    again = [row for row in not_done if row.attempts < MOST_ATTEMPTS]
    with run.engine.begin() as connection:
        _settle(run, connection, [(row, there, orjson.loads(row.new)) for row, there in done])
        plan_anew(run, connection, again, "not found in Mautic: it was not done")
        # Of those that are done, too: what was decided of them meanwhile could not be planned.
        people.mark_dirty(connection, {row.person_id for row in (*(row for row, _ in done), *again)})
        for row in hopeless:
            reason = f"Mautic does not keep this value: sent {row.attempts} times and never found there"
            _refuse(run, connection, row, None, reason)
    run.tell("doubts", settled=len(done), not_done=len(not_done), waiting=len(rows) - len(done) - len(not_done))


def push_lost_dnc(run: Run) -> None:
    """Do-not-contact that a merge in Mautic lost, before anything else: nobody unsubscribed stays mailable."""
    _push_dnc(run, least_value=VALUE_OF_LOST_DNC, until=time.monotonic() + run.settings.push.max_seconds)


def push(run: Run) -> None:
    """Write what is planned, by value, for at most `push.max_seconds`; the rest stays planned."""
    began = time.monotonic()
    until = began + run.settings.push.max_seconds
    _push_dnc(run, least_value=0, until=until)
    acting = 0.0
    met: set[int] = set()
    for band in BANDS if _in_window(run) else BANDS[:1]:
        _push_band(run, band, until)
        written = time.monotonic()
        actions.carry_out(run, least_value=band.least, until=until, met=met)
        acting += time.monotonic() - written
    with run.engine.begin() as connection:
        waiting.note_pace(connection, run.counts.landed, time.monotonic() - began - acting)
    _end_forbidden(run)


def push_planned_by(run: Run) -> None:
    """Write what this run has planned and nothing else: an undo, which a person asked for."""
    run.planned_by = run.id
    until = time.monotonic() + run.settings.push.max_seconds
    _push_dnc(run, least_value=0, until=until)
    for band in BANDS:
        _push_band(run, band, until)
    _end_forbidden(run)


def _push_band(run: Run, band: Band, until: float) -> None:
    """Edits, then points and group scores, of these values."""
    _push(run, CONTACT, band, until)
    if not run.points_wait:
        _push(run, POINTS, band, until)
    _push(run, GROUPS, band, until)


def _push_dnc(run: Run, *, least_value: int, until: float) -> None:
    with run.engine.begin() as connection:
        targets = [target for target in changes.planned_targets(connection) if channel_of(target) is not None]
    for target in targets:
        _push(run, target, Band(least_value), until)


def _in_window(run: Run) -> bool:
    """Ghosts are written in `push.window` only."""
    window = run.settings.push.window
    if window is None:
        return True
    clock = datetime.fromtimestamp(run.now, ZoneInfo(run.settings.time_zone)).strftime("%H:%M")
    begin, end = window.split("-")
    return begin <= clock < end if begin < end else clock >= begin or clock < end


def _push(run: Run, target: str, band: Band, until: float) -> None:
    """Keep `mautic.concurrency` requests in flight until there is no more, or no more time."""
    batches = _batches(run, target, band)

    def intend() -> Sequence[Any] | None:
        batch = next(batches, None)
        if batch is None:
            return None
        return points.intend(run, batch) if target == POINTS else _intend(run, batch)

    keep_in_flight(
        run.settings.mautic.concurrency,
        until,
        intend=intend,
        send=lambda rows: _send(run, rows),
        land=lambda rows, future: _land(run, rows, future),
    )


def _intend(run: Run, batch: Sequence[Any]) -> Sequence[Any]:
    """Store these as sent; returns those that nothing has closed meanwhile."""
    with run.engine.begin() as connection:
        return changes.mark_sent(connection, [row.id for row in batch], run_id=run.id, now=int(time.time()))


def _batches(run: Run, target: str, band: Band) -> Iterator[Sequence[Any]]:
    """Changes that may go out in one request, as they were when they were read."""
    after: tuple[int, int] | None = None
    with run.engine.begin() as connection:
        granting = changes.with_points_on_the_way(connection)
    while True:
        with run.engine.begin() as connection:
            rows = changes.next_planned(
                connection,
                limit=PLANNED_AT_ONCE,
                target=target,
                after=after,
                least_value=band.least,
                most_value=band.most,
                only=run.only,
                planned_by=run.planned_by,
            )
        if not rows:
            return
        after = (-rows[-1].value, rows[-1].id)
        waiting: list[Any] = []
        for row in rows:
            # A change whose effect did not show once goes alone: it may be what fails its batch. So does whoever
            # has points or may get some at any moment.
            if target != CONTACT or row.points or row.attempts or row.person_id in granting:
                yield [row]
                continue
            waiting.append(row)
            if len(waiting) == run.settings.mautic.batch_size:
                yield waiting
                waiting = []
        if waiting:
            yield waiting


def _send(run: Run, rows: Sequence[Any]) -> Mapping[int, Outcome]:
    """Send these changes; the outcome by its id of each that was sent."""
    if len(rows) > 1:
        try:
            return _edit_together(run, rows)
        except ForbiddenError:
            return _find_forbidden(run, rows)
    (row,) = rows
    try:
        return {row.id: _send_alone(run, row)}
    except ForbiddenError as error:
        return {row.id: Outcome(Forbidden(error), {})}


def _send_alone(run: Run, row: Any) -> Outcome:
    if row.target == POINTS:
        return Outcome(points.send(run, row), {})
    if row.target == GROUPS:
        return Outcome(groups.send(run, row), {})
    return _edit_alone(run, row) if row.target == CONTACT else _send_dnc(run, row)


def _find_forbidden(run: Run, rows: Sequence[Any]) -> Mapping[int, Outcome]:
    """A batch was answered by 403, and is sent one by one, until that fails or is seen to be forbidden to all."""
    outcomes: dict[int, Outcome] = {}
    in_a_row = 0
    for row in rows:
        try:
            outcomes.update(_send(run, [row]))
        except MauticSyncError as failed:
            # Those before it are answered for; this one is looked up later.
            outcomes[row.id] = Outcome(Doubtful(str(failed)), {})
            break
        in_a_row = in_a_row + 1 if isinstance(outcomes[row.id].result, Forbidden) else 0
        if in_a_row == FORBIDDEN_IN_A_ROW:
            break
    return outcomes


def _values(run: Run, new: Mapping[str, Any]) -> dict[str, Any]:
    """What an edit sends."""
    values: dict[str, Any] = dict(new.get("fields", {}))
    if "stage" in new:
        values["stage"] = None if new["stage"] is None else run.stage_ids[new["stage"]]
    if "tags" in new:
        values["tags"] = new["tags"]
    return values


def _edit_together(run: Run, rows: Sequence[Any]) -> Mapping[int, Outcome]:
    wanted = {row.id: orjson.loads(row.new) for row in rows}
    outcomes = {row.id: Outcome(_no_stage(new), new) for row in rows if _lacks_stage(run, new := wanted[row.id])}
    rows = [row for row in rows if row.id not in outcomes]
    results = edit_batch(run.mautic, [ContactEdit(row.mautic_id, _values(run, wanted[row.id])) for row in rows])
    for row in rows:
        outcomes[row.id] = _second_try(run, row, Outcome(results[row.mautic_id], wanted[row.id]))
    return outcomes


def _lacks_stage(run: Run, new: Mapping[str, Any]) -> bool:
    """Whether the stage was taken away in Mautic since this was planned."""
    return new.get("stage") is not None and new["stage"] not in run.stage_ids


def _no_stage(new: Mapping[str, Any]) -> Refused:
    return Refused(404, f"Mautic has no published stage {new['stage']} any more")


def _second_try(run: Run, row: Any, outcome: Outcome) -> Outcome:
    """An item that failed in a batch alone: a 404 there may be a merged contact, a 422 a shared address."""
    if not isinstance(outcome.result, Refused | Gone):
        return outcome
    try:
        return _edit_alone(run, row)
    except ForbiddenError as error:
        return Outcome(Forbidden(error), {})
    except MauticSyncError as error:
        # The others of the batch are answered for; this one is looked up later.
        return Outcome(Doubtful(str(error)), outcome.sent)


def _edit_alone(run: Run, row: Any) -> Outcome:
    new = orjson.loads(row.new)
    if _lacks_stage(run, new):
        return Outcome(_no_stage(new), new)
    result = edit_one(run.mautic, ContactEdit(row.mautic_id, _values(run, new)))
    if isinstance(result, Refused) and "stage" in new and (result.status == SHARED_ADDRESS or is_about_owner(result)):
        # Every edit of a contact whose address another one has, or whose owner is no published user, is refused.
        return _stage_alone(run, row, new, result)
    if isinstance(result, Refused) and result.status == BAD_VALUE:
        # A value from ZeroBounce's answer that Mautic does not know (a region, say) must not cost the stage.
        fields = new.get("fields", {})
        filled = fields.keys() - run.mappings.fields.write.keys()
        rest = {**new, "fields": {name: value for name, value in fields.items() if name not in filled}}
        if filled and _values(run, rest):
            result = edit_one(run.mautic, ContactEdit(row.mautic_id, _values(run, rest)))
            if not isinstance(result, Refused):
                return Outcome(result, {**rest, "dropped": {name: fields[name] for name in filled}})
    if isinstance(result, Refused) and result.status == BAD_VALUE and "stage" in new and new.get("fields"):
        # Nor must one that fields.yaml makes, for a field that has no such choice.
        return _stage_alone(run, row, new, result)
    return Outcome(result, new)


def _stage_alone(run: Run, row: Any, new: Mapping[str, Any], no: Refused) -> Outcome:
    """The edit was refused; the stage can still be set."""
    if new["stage"] is not None:
        result = set_stage(run.mautic, run.stage_ids[new["stage"]], row.mautic_id)
    else:
        result = clear_stage(run.mautic, row.stage_id, row.mautic_id)
    return Outcome(result, {name: new[name] for name in ("stage", UNDOES) if name in new}, no)


def _send_dnc(run: Run, row: Any) -> Outcome:
    new, channel = orjson.loads(row.new), str(channel_of(row.target))
    if new["reason"] is None:
        return Outcome(remove_dnc(run.mautic, row.mautic_id, channel), new)
    comment = f"{people.DNC_COMMENT}: {row.reason}"
    return Outcome(add_dnc(run.mautic, row.mautic_id, channel, new["reason"], comment), new)


def _missing(run: Run, row: Any, there: Contact) -> list[str]:
    """What of a change Mautic does not show."""
    new = orjson.loads(row.new)
    channel = channel_of(row.target)
    if channel is not None:
        return [channel] if (channel in there.dnc) != (new["reason"] is not None) else []
    if _lacks_stage(run, new):
        return ["stage"]
    return echo_matches(_values(run, new), there)


def _land(run: Run, rows: Sequence[Any], future: Future[Mapping[int, Outcome]]) -> None:
    """Store what became of a batch: settled, refused, gone or in doubt."""
    numbers = [row.id for row in rows]
    try:
        outcomes = future.result()
    except MauticSyncError as error:
        # Raised where nothing was changed: the changes stay planned, the run ends.
        with run.engine.begin() as connection:
            changes.back_to_planned(connection, numbers, str(error))
        raise
    except BaseException as error:
        with run.engine.begin() as connection:
            changes.doubt(connection, numbers, str(error), now=int(time.time()))
        raise
    with run.engine.begin() as connection:
        settled: list[tuple[Any, Contact, Mapping[str, Any]]] = []
        in_part: list[tuple[Any, Refused]] = []
        granted = 0
        unsent = [number for number in numbers if number not in outcomes]
        changes.back_to_planned(connection, unsent, "not sent: others of its batch were forbidden")
        for row in rows:
            if row.id not in outcomes:
                continue
            result, sent = outcomes[row.id].result, outcomes[row.id].sent
            if isinstance(result, Settled):
                settled.append((row, result.contact, sent))
                if (no := outcomes[row.id].refused) is not None:
                    in_part.append((row, no))
                if result.differing:
                    run.tell("made_otherwise", contact=row.mautic_id, values=list(result.differing))
            elif isinstance(result, Granted):
                points.settle(run, connection, row, result.delta)
                granted += 1
            elif isinstance(result, GroupsSet):
                groups.settle(run, connection, [row])
                granted += 1
            elif isinstance(result, Moved):
                _moved(run, connection, row, result, sent)
            elif isinstance(result, Gone):
                changes.supersede(connection, [row.id], "the contact was deleted in Mautic", run.now)
                people.vanish(connection, [row.mautic_id], run.now)
            elif isinstance(result, Refused):
                _refuse(run, connection, row, result.status, result.reason)
            elif isinstance(result, Forbidden):
                changes.back_to_planned(connection, [row.id], str(result.error))
                run.forbidden.append((row, result.error))
            else:
                changes.doubt(connection, [row.id], result.reason, now=int(time.time()))
                run.counts.doubtful += 1
                run.tell("doubtful", contact=row.mautic_id, reason=result.reason)
        still_open = changes.open_among(connection, [row.id for row, _ in in_part])
        _settle(run, connection, settled)
        for row, no in in_part:
            if row.id in still_open:
                _refuse_rest(run, connection, row, no)
        if any(not isinstance(one.result, Forbidden | Doubtful) for one in outcomes.values()):
            run.allowed = True
            _count_forbidden(run, connection)
    run.counts.landed += len(outcomes)
    run.tell("pushed", changes=len(settled) + granted)
    if len(run.forbidden) >= FORBIDDEN_IN_A_ROW:
        # It is nobody's own: all of them wait for the right, and none of this counts as an attempt.
        raise run.forbidden[-1][1]
    note_end(run, in_doubt=all(isinstance(one.result, Doubtful) for one in outcomes.values()))


def _count_forbidden(run: Run, connection: Connection) -> bool:
    """What was forbidden is so by itself: it is tried again, alone, and refused in the end.

    Returns whether any of it was tried for the first time.
    """
    first = False
    for row, error in run.forbidden:
        attempts = changes.count_attempt(connection, row.id)
        first |= attempts == 1
        if attempts >= MOST_ATTEMPTS:
            _refuse(run, connection, row, FORBIDDEN, str(error))
        else:
            run.counts.failed += 1
            run.tell("forbidden", contact=row.mautic_id, reason=str(error))
    run.forbidden.clear()
    return first


def _end_forbidden(run: Run) -> None:
    """Nothing more is sent. Raises the last 403 where nothing was let through, and it is news."""
    if run.forbidden:
        error = run.forbidden[-1][1]
        with run.engine.begin() as connection:
            first = _count_forbidden(run, connection)
        if first and not run.allowed:
            raise error


def _refuse(run: Run, connection: Connection, row: Any, status: int | None, reason: str) -> None:
    told = reason if status is None else _way_out(connection, row, Refused(status, reason))
    error = f"{status or ''} {told}".strip()
    changes.refuse(connection, row.id, error, run.now)
    if told == reason:  # else the run did what can be done
        _count_refused(run, connection, row, error)
    run.tell("refused", contact=row.mautic_id, status=status, reason=told)


def _refuse_rest(run: Run, connection: Connection, row: Any, no: Refused) -> None:
    """What was not written of a change whose stage alone could be set: kept and told."""
    rest = {name: value for name, value in orjson.loads(row.new).items() if name != "stage"}
    if not _values(run, rest):
        return
    told = _way_out(connection, row, no)
    error = f"{no.status} {told}"
    if told == no.reason:
        _count_refused(run, connection, row, error)
    changes.refuse_rest(connection, row, rest, error, run_id=run.id, now=run.now)
    run.tell("refused", contact=row.mautic_id, status=no.status, reason=told)


def _count_refused(run: Run, connection: Connection, row: Any, error: str) -> None:
    """The same no to the same person as before is kept and listed, but is nothing new."""
    if not changes.refused_before(connection, row, error):
        run.counts.failed += 1


def _way_out(connection: Connection, row: Any, no: Refused) -> str:
    others = people.numbers_sharing_address(connection, row.person_id) if no.status == SHARED_ADDRESS else ()
    return way_out(no, others)


def _moved(run: Run, connection: Connection, row: Any, result: Moved, sent: Mapping[str, Any]) -> None:
    """The number was merged meanwhile, and our change reached the survivor: follow it, and decide the survivor again."""
    arrived = result.contact if row.target == CONTACT else None
    changes.supersede(connection, [row.id], "merged in Mautic", run.now)
    people.follow_merge(connection, row.mautic_id, result.new_id, now=run.now, run_id=run.id)
    run.counts.merged += 1
    if arrived is not None:
        people.save_contacts(connection, [arrived], run.reading, now=run.now)
        _adopt(run, connection, [(arrived, sent)])
    people.mark_dirty(connection, set(people.persons_of(connection, [result.new_id]).values()))


def _adopt(run: Run, connection: Connection, shown: Sequence[tuple[Contact, Mapping[str, Any]]]) -> None:
    """Stages that we set and whose changes a merge closed: they count as ours, whoever the contact is now."""
    persons = people.persons_of(connection, [one.id for one, _ in shown])
    ours = {persons[one.id]: sent["stage"] for one, sent in shown if "stage" in sent and one.id in persons}
    changes.adopt_stages(connection, ours, run.now)


def _settle(run: Run, connection: Connection, settled: Sequence[tuple[Any, Contact, Mapping[str, Any]]]) -> None:
    if not settled:
        return
    # A do-not-contact call answers with the contact too, but not with all its fields.
    edited = [(row, one, sent) for row, one, sent in settled if row.target == CONTACT]
    people.save_contacts(
        connection,
        [one for _, one, _ in edited],
        run.reading,
        now=run.now,
        ours={one.id: _values(run, sent) for _, one, sent in edited},
    )
    still_open = changes.open_among(connection, [row.id for row, _, _ in settled])
    _adopt(run, connection, [(one, sent) for row, one, sent in edited if row.id not in still_open])
    _close(run, connection, [(row, one, sent) for row, one, sent in settled if row.id in still_open])


def _close(run: Run, connection: Connection, settled: Sequence[tuple[Any, Contact, Mapping[str, Any]]]) -> None:
    transitions = changes.settle(
        connection,
        [row for row, _, _ in settled],
        echoes={row.person_id: one.fields for row, one, _ in settled},
        kinds=run.kinds_ever,
        run_id=run.id,
        now=run.now,
        sent={row.id: sent for row, _, sent in settled},
    )
    run.counts.stages += sum("stage" in sent for _, _, sent in settled)
    for moved in transitions:
        if moved.moves:
            move = (moved.from_stage, moved.to_stage)
            run.counts.moves[move] = run.counts.moves.get(move, 0) + 1
    actions.queue_entries(run, connection, {row.id: row for row, _, _ in settled}, transitions)
    for row, one, sent in settled:
        run.counts.fields += len(sent.get("fields", {}))
        channel = channel_of(row.target)
        if channel is not None:
            run.counts.dnc += 1
            people.note_own_dnc(
                connection, row.person_id, channel, sent["reason"], ours=row.value < VALUE_OF_LOST_DNC, shown=one.dnc
            )
