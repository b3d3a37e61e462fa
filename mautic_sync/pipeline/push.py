"""Planned changes → Mautic, most valuable first, each an intent before it is sent and settled by what Mautic shows.

Contacts without points go in small batches, the others one by one: a batch swallows points (docs/mautic.md:
"Writing"). What is in doubt is looked up before anything else is written there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection

from mautic_sync.domain.contact import Contact
from mautic_sync.domain.plan import CONTACT, EMAIL_DNC, VALUE_OF_KIND
from mautic_sync.errors import MauticSyncError
from mautic_sync.mautic.contacts import contacts_by_id
from mautic_sync.mautic.writes import (
    ContactEdit,
    Doubtful,
    Gone,
    Moved,
    Refused,
    Result,
    Settled,
    add_dnc,
    echo_matches,
    edit_batch,
    edit_one,
    remove_dnc,
    set_stage,
)
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.decide import VALUE_OF_LOST_DNC
from mautic_sync.store import changes, people

PLANNED_AT_ONCE = 2000
SHARED_ADDRESS = 422
BAD_VALUE = 400


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that go out in one request."""

    rows: Sequence[Any]
    send: Callable[[], Mapping[int, Result]]
    """Sends them; the result of each by change id."""


def settle_doubts(run: Run) -> None:
    """Look up every write whose answer was lost; what is not found after `mautic.settle_after` was not done."""
    with run.engine.begin() as connection:
        changes.doubt_what_was_sent(connection)
        rows = changes.doubtful(connection)
    if not rows:
        return
    page = contacts_by_id(run.mautic, {row.mautic_id for row in rows})
    found = {one.id: one for one in page.contacts}
    patience = int(run.settings.mautic.settle_after.total_seconds())
    done: list[tuple[Any, Contact]] = []
    dropped: list[Any] = []
    for row in rows:
        there = found.get(row.mautic_id)
        if there is not None and not _missing(run, row, there):
            done.append((row, there))
        elif int(time.time()) - (row.sent_at or 0) >= patience:
            dropped.append(row)
    with run.engine.begin() as connection:
        _settle(run, connection, done)
        changes.supersede(connection, [row.id for row in dropped], "not found in Mautic: it was not done", run.now)
        people.mark_dirty(connection, {row.person_id for row in dropped})
    run.tell("doubts", settled=len(done), not_done=len(dropped), waiting=len(rows) - len(done) - len(dropped))


def push_lost_dnc(run: Run) -> None:
    """Do-not-contact that a merge in Mautic lost, before anything else: nobody unsubscribed stays mailable."""
    _push(run, EMAIL_DNC, least_value=VALUE_OF_LOST_DNC, until=time.monotonic() + run.settings.push.max_seconds)


def push(run: Run) -> None:
    """Write what is planned, by value, for at most `push.max_seconds`; the rest stays planned."""
    until = time.monotonic() + run.settings.push.max_seconds
    _push(run, EMAIL_DNC, least_value=0, until=until)
    least = 0 if _in_window(run) else VALUE_OF_KIND["ghost"] + 1
    _push(run, CONTACT, least_value=least, until=until)


def _in_window(run: Run) -> bool:
    """Ghosts, the least valuable and most of a large instance, are written in `push.window` only."""
    window = run.settings.push.window
    if window is None:
        return True
    clock = datetime.fromtimestamp(run.now, ZoneInfo(run.settings.time_zone)).strftime("%H:%M")
    begin, end = window.split("-")
    return begin <= clock < end if begin < end else clock >= begin or clock < end


def _push(run: Run, target: str, *, least_value: int, until: float) -> None:
    """Keep `mautic.concurrency` requests in flight until there is no more, or no more time."""
    batches = _batches(run, target, least_value)
    with ThreadPoolExecutor(max_workers=run.settings.mautic.concurrency, thread_name_prefix="write") as pool:
        flying: dict[Future[Mapping[int, Result]], Batch] = {}
        try:
            while True:
                while len(flying) < run.settings.mautic.concurrency and time.monotonic() < until:
                    batch = next(batches, None)
                    if batch is None:
                        break
                    with run.engine.begin() as connection:
                        changes.mark_sent(
                            connection, [row.id for row in batch.rows], run_id=run.id, now=int(time.time())
                        )
                    flying[pool.submit(batch.send)] = batch
                if not flying:
                    return
                landed, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in landed:
                    _land(run, flying.pop(future), future)
        except BaseException:
            # What is in flight is answered for first: then the run may end.
            for future, batch in flying.items():
                with suppress(MauticSyncError):
                    _land(run, batch, future)
            raise


def _batches(run: Run, target: str, least_value: int) -> Iterator[Batch]:
    after: tuple[int, int] | None = None
    while True:
        with run.engine.begin() as connection:
            rows = changes.next_planned(
                connection, limit=PLANNED_AT_ONCE, target=target, after=after, least_value=least_value, only=run.only
            )
        if not rows:
            return
        after = (-rows[-1].value, rows[-1].id)
        if target == EMAIL_DNC:
            for row in rows:
                yield Batch([row], partial(_send_dnc, run, row))
            continue
        yield from _contact_batches(run, rows)


def _contact_batches(run: Run, rows: Sequence[Any]) -> Iterator[Batch]:
    size = run.settings.mautic.batch_size
    waiting: list[Any] = []
    for row in rows:
        if row.points:
            yield Batch([row], partial(_edit_by_itself, run, row))
            continue
        waiting.append(row)
        if len(waiting) == size:
            yield Batch(waiting, partial(_edit_together, run, waiting))
            waiting = []
    if waiting:
        yield Batch(waiting, partial(_edit_together, run, waiting))


def _edit(run: Run, row: Any) -> ContactEdit:
    return ContactEdit(row.mautic_id, _values(run, row))


def _values(run: Run, row: Any) -> dict[str, Any]:
    new = orjson.loads(row.new)
    values: dict[str, Any] = dict(new.get("fields", {}))
    if "stage" in new:
        values["stage"] = run.stage_ids[new["stage"]]
    if "tags" in new:
        values["tags"] = new["tags"]
    return values


def _edit_together(run: Run, rows: Sequence[Any]) -> Mapping[int, Result]:
    if len(rows) == 1:
        return _edit_by_itself(run, rows[0])
    results = edit_batch(run.mautic, [_edit(run, row) for row in rows])
    return {row.id: _second_try(run, row, results[row.mautic_id]) for row in rows}


def _edit_by_itself(run: Run, row: Any) -> Mapping[int, Result]:
    return {row.id: _edit_alone(run, row)}


def _edit_alone(run: Run, row: Any) -> Result:
    result = edit_one(run.mautic, _edit(run, row))
    new = orjson.loads(row.new)
    if isinstance(result, Refused) and result.status == SHARED_ADDRESS and "stage" in new:
        # Every edit of a contact whose address another one has is refused; its stage can still be set.
        return set_stage(run.mautic, run.stage_ids[new["stage"]], row.mautic_id)
    if isinstance(result, Refused) and result.status == BAD_VALUE:
        # A value from ZeroBounce's answer that Mautic does not know (a region, say) must not cost the stage.
        filled = new.get("fields", {}).keys() - run.mappings.fields.write.keys()
        rest = {name: value for name, value in _values(run, row).items() if name not in filled}
        if filled and rest:
            return edit_one(run.mautic, ContactEdit(row.mautic_id, rest))
    return result


def _second_try(run: Run, row: Any, result: Result) -> Result:
    """An item that failed in a batch alone: a 404 there may be a merged contact, a 422 a shared address."""
    if not isinstance(result, Refused | Gone):
        return result
    try:
        return _edit_alone(run, row)
    except MauticSyncError as error:
        # The others of the batch are answered for; this one is looked up later.
        return Doubtful(str(error))


def _send_dnc(run: Run, row: Any) -> Mapping[int, Result]:
    reason = orjson.loads(row.new)["reason"]
    if reason is None:
        return {row.id: remove_dnc(run.mautic, row.mautic_id, "email")}
    return {row.id: add_dnc(run.mautic, row.mautic_id, "email", reason, f"{people.DNC_COMMENT}: {row.reason}")}


def _missing(run: Run, row: Any, there: Contact) -> list[str]:
    """What of a change Mautic does not show."""
    new = orjson.loads(row.new)
    if row.target == EMAIL_DNC:
        return ["email"] if ("email" in there.dnc) != (new["reason"] is not None) else []
    if "stage" in new and new["stage"] not in run.stage_ids:
        return ["stage"]
    return echo_matches(_values(run, row), there)


def _land(run: Run, batch: Batch, future: Future[Mapping[int, Result]]) -> None:
    """Store what became of a batch: settled, refused, gone or in doubt."""
    numbers = [row.id for row in batch.rows]
    try:
        results = future.result()
    except MauticSyncError as error:
        # Raised where nothing was changed: the changes stay planned, the run ends.
        with run.engine.begin() as connection:
            changes.back_to_planned(connection, numbers, str(error))
        raise
    except BaseException as error:
        with run.engine.begin() as connection:
            changes.doubt(connection, numbers, str(error))
        raise
    with run.engine.begin() as connection:
        settled: list[tuple[Any, Contact]] = []
        for row in batch.rows:
            result = results[row.id]
            if isinstance(result, Settled) and result.contact is not None:
                settled.append((row, result.contact))
            elif isinstance(result, Moved):
                _moved(run, connection, row, result)
            elif isinstance(result, Gone):
                people.vanish(connection, [row.mautic_id], run.now)
            elif isinstance(result, Refused):
                changes.refuse(connection, row.id, f"{result.status} {result.reason}".strip(), run.now)
                run.counts.failed += 1
                run.tell("refused", contact=row.mautic_id, status=result.status, reason=result.reason)
            else:
                reason = result.reason if isinstance(result, Doubtful) else "no echo"
                changes.doubt(connection, [row.id], reason)
                run.counts.doubtful += 1
                run.tell("doubtful", contact=row.mautic_id, reason=reason)
        _settle(run, connection, settled)
    run.tell("pushed", changes=len(settled))


def _moved(run: Run, connection: Connection, row: Any, result: Moved) -> None:
    """The number was merged meanwhile: follow it, and decide the survivor again."""
    changes.supersede(connection, [row.id], "merged in Mautic", run.now)
    people.follow_merge(connection, row.mautic_id, result.new_id, now=run.now, run_id=run.id)
    run.counts.merged += 1
    if result.contact is not None:
        people.save_contacts(connection, [result.contact], run.reading, now=run.now)
    people.mark_dirty(connection, set(people.persons_of(connection, [result.new_id]).values()))


def _settle(run: Run, connection: Connection, settled: Sequence[tuple[Any, Contact]]) -> None:
    if not settled:
        return
    people.save_contacts(
        connection,
        # A do-not-contact call answers with the contact too, but not with all its fields.
        [one for row, one in settled if row.target == CONTACT],
        run.reading,
        now=run.now,
        ours={one.id: _values(run, row) for row, one in settled if row.target == CONTACT},
    )
    moves = changes.settle(
        connection,
        [row for row, _ in settled],
        echoes={row.person_id: one.fields for row, one in settled},
        kinds=run.kinds,
        run_id=run.id,
        now=run.now,
    )
    run.counts.stages += len(moves)
    for move in moves:
        run.counts.moves[move] = run.counts.moves.get(move, 0) + 1
    for row, one in settled:
        new = orjson.loads(row.new)
        run.counts.fields += len(new.get("fields", {}))
        if row.target == EMAIL_DNC:
            run.counts.dnc += 1
            people.note_own_dnc(
                connection, row.person_id, "email", new["reason"], ours=row.value < VALUE_OF_LOST_DNC, shown=one.dnc
            )
