"""Changes on their way: planned → sent → settled, refused or doubtful; at most one open per person and target."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, exists, func, or_, select, update

from mautic_sync.domain.plan import CONTACT, GROUP, GROUPS, POINTS, Change
from mautic_sync.domain.undoing import UNDOES
from mautic_sync.store import notes
from mautic_sync.store.bulk import insert_many, insert_rows
from mautic_sync.store.decisions import Place, last_places
from mautic_sync.store.engine import in_chunks, upsert
from mautic_sync.store.people import former_of
from mautic_sync.store.schema import IS_CLOSED, IS_OPEN, alias, change, contact, held, person, standing, transition
from mautic_sync.store.text import dump

PLANNED, SENT, DOUBTFUL = "planned", "sent", "doubtful"
SETTLED, REFUSED, SUPERSEDED = "settled", "refused", "superseded"
OPEN = (PLANNED, SENT, DOUBTFUL)
PLANNED_AT_ONCE = 500
RESTORED_UP_TO = "changes_restored_up_to"
"""The highest number of a change when the store was last restored."""


def open_key(person_id: int, target: str) -> str:
    return f"{person_id} {target}"


def plan_changes(
    connection: Connection,
    person_ids: Collection[int],
    wanted: Mapping[tuple[int, str], Change],
    open_now: Mapping[tuple[int, str], Any],
    *,
    run_id: str,
    now: int,
    baseline: bool,
    since_baseline: Collection[int] = (),
) -> None:
    """Replace what was planned for these persons by what is wanted now: (person, target) → the change.

    `since_baseline`: whose change belongs to the baseline, though it is planned only now.

    What is sent or in doubt is settled first and stays. Points that were sent under a key and not found keep it: what
    of them may still arrive is found with the next.
    """
    decided = set(person_ids)
    stale = [
        present.id
        for key, present in open_now.items()
        if present.state == PLANNED and key not in wanted and key[0] in decided
    ]
    rows: list[tuple[Any, ...]] = []
    for (person_id, target), one in wanted.items():
        present = open_now.get((person_id, target))
        new = dump(one.new)
        if present is not None:
            if present.state != PLANNED or present.new == new:
                continue
            stale.append(present.id)
        kept = (0, None, None)
        if present is not None and target == POINTS:
            kept = (present.attempts, present.event_key, present.log_above)
        of_baseline = baseline or person_id in since_baseline or _waits_since_baseline(one, present)
        said = (one.value, dump(one.old), new, one.reason, of_baseline, now)
        rows.append((run_id, person_id, target, open_key(person_id, target), PLANNED, *said, *kept))
    if stale:
        connection.execute(
            update(change)
            .where(change.c.id == bindparam("which"))
            .values(state=SUPERSEDED, open_key=None, settled_at=now, error="a newer decision replaced it"),
            [{"which": number} for number in stale],
        )
    insert_rows(connection, change, _PLANNED, rows)


_PLANNED = ("run_id", "person_id", "target", "open_key", "state", "value", "old", "new", "reason", "baseline",
            "planned_at", "attempts", "event_key", "log_above")  # fmt: skip


def _waits_since_baseline(one: Change, present: Any | None) -> bool:
    """What waits since the baseline is still the baseline; another stage is news, and counts for the safety stop."""
    if present is None or not present.baseline:
        return False
    return bool(one.new.get("stage") == orjson.loads(present.new).get("stage"))


_WITH_CONTACT = (
    select(change, alias.c.mautic_id, contact.c.points, contact.c.stage_id, contact.c.dnc.label("dnc_now"))
    .join(alias, and_(alias.c.person_id == change.c.person_id, alias.c.current))
    .join(contact, contact.c.person_id == change.c.person_id)
)


def planned_targets(connection: Connection) -> list[str]:
    """The targets for which something is planned, in alphabetical order."""
    return sorted(connection.execute(select(change.c.target).where(change.c.state == PLANNED).distinct()).scalars())


def next_planned(
    connection: Connection,
    *,
    limit: int,
    target: str,
    after: tuple[int, int] | None,
    least_value: int = 0,
    most_value: int | None = None,
    only: int | None = None,
    planned_by: str | None = None,
) -> list[Any]:
    """Planned changes, most valuable first, each with `mautic_id`, `points`, `stage_id` of its contact now.

    `after` is (-value, id) of the last one seen; `only` asks for one person's, `planned_by` for one run's.
    """
    of_target = [change.c.state == PLANNED, change.c.target == target, change.c.value >= least_value]
    if most_value is not None:
        of_target.append(change.c.value <= most_value)
    if only is not None:
        of_target += [IS_OPEN, change.c.person_id == only]
    if planned_by is not None:
        of_target.append(change.c.run_id == planned_by)
    query = _WITH_CONTACT.where(*of_target).order_by(change.c.id)
    found: list[Any] = []
    value, last = (None, 0) if after is None else (-after[0], after[1])
    # One value after the other, each by id: so the index gives them in order, and nobody sorts a million changes.
    while len(found) < limit:
        if value is not None:
            page = query.where(change.c.value == value, change.c.id > last).limit(limit - len(found))
            found += connection.execute(page)
        if len(found) < limit:
            lower = [] if value is None else [change.c.value < value]
            highest = select(change.c.value).where(*of_target, *lower).order_by(change.c.value.desc()).limit(1)
            value, last = connection.execute(highest).scalar(), 0
            if value is None:
                break
    return found


def mark_sent(connection: Connection, numbers: Sequence[int], *, run_id: str, now: int) -> list[Any]:
    """The intents of one batch: after this, a lost answer leaves them in doubt, never forgotten.

    Returns those that were still planned, in the order given and with their contacts as they are now: what a merge or
    a deletion closed since they were read must not be sent.
    """
    still: dict[int, Any] = {}
    for chunk in in_chunks(numbers):
        rows = connection.execute(_WITH_CONTACT.where(change.c.id.in_(chunk), change.c.state == PLANNED))
        still.update((row.id, row) for row in rows)
    for chunk in in_chunks(list(still)):
        connection.execute(
            update(change)
            .where(change.c.id.in_(chunk), change.c.state == PLANNED)
            .values(state=SENT, sent_at=now, settled_run=run_id, attempts=change.c.attempts + 1)
        )
    return [still[number] for number in numbers if number in still]


def mark_points_sent(
    connection: Connection, numbers: Sequence[int], *, run_id: str, now: int, log_above: int
) -> list[Any]:
    """Intents of points, each with its `event_key`, new or kept from an earlier sending, and `attempts` counted.

    `log_above` is an id of Mautic's points log below which none of these is. Who has an edit on the way waits: a batch
    that arrives late would swallow the points.
    """
    rows = connection.execute(select(change.c.id, change.c.person_id).where(change.c.id.in_(numbers))).all()
    person_of = {row.id: row.person_id for row in rows}
    editing = set(
        connection.execute(
            select(change.c.person_id).where(
                change.c.open_key.in_([open_key(person_id, CONTACT) for person_id in person_of.values()]),
                change.c.state.in_((SENT, DOUBTFUL)),
            )
        ).scalars()
    )
    ready = [number for number in numbers if person_of.get(number) not in editing]
    marked = mark_sent(connection, ready, run_id=run_id, now=now)
    if not marked:
        return []
    connection.execute(
        update(change)
        .where(change.c.id == bindparam("which"))
        .values(event_key=bindparam("key"), log_above=bindparam("above")),
        [
            {
                "which": row.id,
                "key": row.event_key or secrets.token_hex(8),
                # Lower than before where Mautic was set back to a backup meanwhile.
                "above": log_above if row.log_above is None else min(row.log_above, log_above),
            }
            for row in marked
        ],
    )
    sent = {row.id: row for row in connection.execute(_WITH_CONTACT.where(change.c.id.in_([row.id for row in marked])))}
    return [sent[row.id] for row in marked]


def back_to_planned(connection: Connection, numbers: Sequence[int], error: str) -> None:
    """Nothing was changed by the call: the intents wait for the next run, and it does not count as an attempt."""
    for chunk in in_chunks(numbers):
        connection.execute(
            update(change)
            .where(change.c.id.in_(chunk), change.c.state == SENT)
            .values(state=PLANNED, sent_at=None, settled_run=None, error=error, attempts=change.c.attempts - 1)
        )


def count_attempt(connection: Connection, number: int) -> int:
    """What was put back counts as an attempt after all. Returns how many there were."""
    this = change.c.id == number
    connection.execute(update(change).where(this, IS_OPEN).values(attempts=change.c.attempts + 1))
    return int(connection.execute(select(change.c.attempts).where(this)).scalar() or 0)


def try_again(connection: Connection, numbers: Sequence[int], error: str) -> None:
    """What was in doubt was not done: planned anew, with its attempts counted; a newer decision may replace it."""
    for chunk in in_chunks(numbers):
        connection.execute(
            update(change)
            .where(change.c.id.in_(chunk), change.c.state == DOUBTFUL)
            .values(state=PLANNED, sent_at=None, settled_run=None, error=error)
        )


def doubt(connection: Connection, numbers: Sequence[int], error: str, *, now: int) -> None:
    """Nobody knows what became of these by `now`: between the intent and that the call may have waited for long."""
    for chunk in in_chunks(numbers):
        connection.execute(
            update(change).where(change.c.id.in_(chunk), IS_OPEN).values(state=DOUBTFUL, error=error, sent_at=now)
        )


def doubt_what_was_sent(connection: Connection, now: int) -> int:
    """At the start of a run: what an earlier one had sent when it was killed.

    What is in doubt since a time that has not come was sent while the clock was ahead; it counts from now on.
    """
    done = connection.execute(
        update(change)
        .where(change.c.state == SENT)
        .values(state=DOUBTFUL, error="the worker stopped before the answer")
    )
    connection.execute(update(change).where(change.c.state == DOUBTFUL, change.c.sent_at > now).values(sent_at=now))
    return done.rowcount


def doubt_points_with_keys(connection: Connection) -> None:
    """After a restore: what has a key may have been sent since, also where nothing was on its way then.

    The log is looked through from its beginning: if Mautic was restored as well, its ids have begun again lower.
    """
    connection.execute(
        update(change)
        .where(change.c.target == POINTS, IS_OPEN, change.c.event_key.is_not(None))
        .values(state=DOUBTFUL, log_above=0, error="the store was restored")
    )


def look_from_the_beginning(connection: Connection) -> None:
    """Mautic was set back: ids of its points log have begun again lower, and what is on its way may arrive under one."""
    connection.execute(
        update(change).where(change.c.target == POINTS, IS_OPEN, change.c.event_key.is_not(None)).values(log_above=0)
    )


def note_restored(connection: Connection) -> None:
    """Remember which changes a restored store was given."""
    notes.put(connection, RESTORED_UP_TO, str(connection.execute(select(func.max(change.c.id))).scalar() or 0))


def restored_up_to(connection: Connection) -> int:
    """Up to this number changes came with a backup, so that they may have been carried out, with all they set off."""
    return int(notes.get(connection, RESTORED_UP_TO) or 0)


def doubtful(connection: Connection) -> list[Any]:
    """Changes in doubt whose effect the contact itself shows, with the current `mautic_id` of each person."""
    return list(
        connection.execute(
            select(change, alias.c.mautic_id)
            .join(alias, and_(alias.c.person_id == change.c.person_id, alias.c.current))
            .where(change.c.state == DOUBTFUL, change.c.target.not_in((POINTS, GROUPS)))
            .order_by(change.c.id)
        )
    )


def doubtful_groups(connection: Connection) -> list[Any]:
    """Sub-scores in doubt, with the current `mautic_id` of each person."""
    return list(
        connection.execute(
            select(change, alias.c.mautic_id)
            .join(alias, and_(alias.c.person_id == change.c.person_id, alias.c.current))
            .where(change.c.state == DOUBTFUL, change.c.target == GROUPS)
            .order_by(change.c.id)
        )
    )


_SURVIVOR = func.coalesce(person.c.redirect_to, change.c.person_id)
_POINTS_SENT = (
    select(change, _SURVIVOR.label("survivor"), alias.c.mautic_id, contact.c.vanished_at)
    .outerjoin(person, person.c.id == change.c.person_id)
    .outerjoin(alias, and_(alias.c.person_id == _SURVIVOR, alias.c.current))
    .outerjoin(contact, contact.c.person_id == _SURVIVOR)
    .order_by(change.c.id)
)


def doubtful_points(connection: Connection) -> list[Any]:
    """Points in doubt, those of merged persons too: each with its `survivor` and that one's `mautic_id`, or None."""
    return list(connection.execute(_POINTS_SENT.where(change.c.state == DOUBTFUL, change.c.target == POINTS)))


def points_by_number(connection: Connection, numbers: Collection[int]) -> list[Any]:
    """These points changes, whatever their state, as `doubtful_points` gives them."""
    found: list[Any] = []
    for chunk in in_chunks(list(numbers)):
        found += connection.execute(_POINTS_SENT.where(change.c.id.in_(chunk)))
    return found


def open_points_by_key(connection: Connection, keys: Collection[str], person_ids: Collection[int]) -> list[Any]:
    """Open points changes of these persons that carry one of these keys, as `doubtful_points` gives them."""
    found: list[Any] = []
    for chunk in in_chunks(list(person_ids)):
        where = change.c.open_key.in_([open_key(number, POINTS) for number in chunk])
        found += [row for row in connection.execute(_POINTS_SENT.where(where)) if row.event_key in keys]
    return found


def keys_on_the_way(connection: Connection, person_ids: Collection[int]) -> set[str]:
    """Keys of points of these persons, and of those merged into them, that Mautic's log settles sooner or later."""
    found: set[str] = set()
    for chunk in in_chunks(list(former_of(connection, person_ids))):
        query = select(change.c.event_key).where(
            change.c.person_id.in_(chunk), IS_OPEN, change.c.event_key.is_not(None)
        )
        found.update(connection.execute(query).scalars())
    return found


def lowest_key_on_the_way(connection: Connection) -> int | None:
    """The row of Mautic's points log above which all those are that may yet come of open changes; None for none."""
    query = select(func.min(func.coalesce(change.c.log_above, 0)))
    return connection.execute(query.where(IS_OPEN, change.c.event_key.is_not(None))).scalar()


def keys_that_may_stand_twice(connection: Connection, person_ids: Collection[int]) -> set[str]:
    """Keys of points of these persons, and of those merged into them, that were sent again or counted as not done."""
    found: set[str] = set()
    for chunk in in_chunks(list(former_of(connection, person_ids))):
        query = select(change.c.event_key).where(
            change.c.person_id.in_(chunk),
            IS_CLOSED,
            change.c.event_key.is_not(None),
            or_(change.c.attempts > 1, change.c.state != SETTLED),
        )
        found.update(connection.execute(query).scalars())
    return found


def with_points_on_the_way(connection: Connection) -> set[int]:
    """Persons, survivors of merges, with points that are sent or in doubt, under whatever number."""
    rows = connection.execute(
        select(_SURVIVOR)
        .select_from(change)
        .outerjoin(person, person.c.id == change.c.person_id)
        .where(change.c.state.in_((SENT, DOUBTFUL)), change.c.target == POINTS)
    )
    return set(rows.scalars())


def settle_points(connection: Connection, numbers: Collection[int], *, run_id: str, now: int) -> None:
    """Mautic has received these points: close the changes. They are those of the run that sent them, if it is known."""
    sent_by = func.coalesce(change.c.settled_run, run_id)
    for chunk in in_chunks(list(numbers)):
        connection.execute(
            update(change)
            .where(change.c.id.in_(chunk), IS_OPEN)
            .values(state=SETTLED, open_key=None, settled_at=now, settled_run=sent_by, error=None)
        )


class Transition(NamedTuple):
    """A settled change of stage: from where the last one had left the person, or from what Mautic showed before ours."""

    change_id: int
    person_id: int
    from_stage: str | None
    from_kind: str | None
    to_stage: str
    to_kind: str

    @property
    def moves(self) -> bool:
        """False where Mautic had lost the stage, and it was only put back."""
        return self.from_stage != self.to_stage


def settle(
    connection: Connection,
    settled: Sequence[Any],
    *,
    echoes: Mapping[int, Mapping[str, Any]],
    kinds: Mapping[str, str],
    run_id: str,
    now: int,
    sent: Mapping[int, Mapping[str, Any]] | None = None,
) -> list[Transition]:
    """Mautic took what we asked for: close the changes, note what stands, record transitions and return them.

    `echoes` maps a person to the fields as Mautic holds them now, `kinds` a stage to its kind, the highest first and
    those that no mapping names any more last, `sent` a change to what became of its `new` where that is less: as that
    it is kept. What was closed while it was on its way, by a merge or a deletion, stays closed.
    """
    still_open = open_among(connection, [row.id for row in settled])
    settled = [row for row in settled if row.id in still_open]
    if not settled:
        return []
    connection.execute(
        update(change)
        .where(change.c.id == bindparam("which"))
        .values(
            # That of the run that sent it, whichever finds it.
            state=SETTLED,
            open_key=None,
            settled_at=now,
            settled_run=func.coalesce(change.c.settled_run, run_id),
            error=None,
        ),
        [{"which": row.id} for row in settled],
    )
    places = last_places(connection, [row.person_id for row in settled if row.target == CONTACT], kinds)
    standings: dict[int, dict[str, Any]] = {}
    for chunk in in_chunks(list({row.person_id for row in settled})):
        rows = connection.execute(select(standing).where(standing.c.person_id.in_(chunk))).mappings()
        standings.update((row["person_id"], {**row, "written": orjson.loads(row["written"])}) for row in rows)
    transitions: list[Transition] = []
    baseline = {row.id: row.baseline for row in settled}
    for row in settled:
        old, new = orjson.loads(row.old), orjson.loads(row.new)
        if sent is not None and new != (less := sent.get(row.id, new)):
            new = less
            connection.execute(update(change).where(change.c.id == row.id).values(new=dump(new)))
        # One person may have several changes here: edit and do-not-contact.
        stands = standings.setdefault(row.person_id, _nothing_stands(row.person_id))
        stands["written"].update(_written(row.target, new, echoes.get(row.person_id, {})))
        if "stage" in new:
            # An undo may lead back to no stage at all, or to one that is not ours and must not become so.
            ours = new["stage"] if new["stage"] in kinds else None
            stands.update(stage=ours, stage_at=now, manual_stage=None, manual_since=None)
        if new.get("stage") in kinds:
            transitions.append(_transition(row.id, row.person_id, old, new, places, kinds))
    upsert(connection, standing, [{**stands, "written": dump(stands["written"])} for stands in standings.values()])
    _record(connection, transitions, baseline, run_id=run_id, now=now)
    return transitions


def settle_by_hand(
    connection: Connection, stages: Mapping[int, str], *, kinds: Mapping[str, str], run_id: str, now: int
) -> list[Transition]:
    """Person → the stage that somebody set by hand and that is decided now: a transition without a change of ours."""
    places = last_places(connection, list(stages), kinds)
    found = [_transition(0, number, {}, {"stage": stage}, places, kinds) for number, stage in stages.items()]
    transitions = [one for one in found if one.moves]
    _record(connection, transitions, {}, run_id=run_id, now=now)
    return transitions


def _record(
    connection: Connection, transitions: Sequence[Transition], baseline: Mapping[int, bool], *, run_id: str, now: int
) -> None:
    """Also what was only put back: who must do that again and again is held by the loop guard."""
    rows = [
        {**one._asdict(), "at": now, "run_id": run_id, "baseline": baseline.get(one.change_id, False)}
        for one in transitions
    ]
    insert_many(connection, transition, rows)


def open_among(connection: Connection, numbers: Sequence[int]) -> set[int]:
    """Which of these changes are still open."""
    found: set[int] = set()
    for chunk in in_chunks(numbers):
        found.update(connection.execute(select(change.c.id).where(change.c.id.in_(chunk), IS_OPEN)).scalars())
    return found


def open_of(connection: Connection, person_id: int, target: str) -> Any | None:
    """The open change of this person there."""
    return connection.execute(select(change).where(change.c.open_key == open_key(person_id, target))).first()


def _nothing_stands(person_id: int) -> dict[str, Any]:
    return {
        "person_id": person_id,
        "stage": None,
        "stage_at": None,
        "written": {},
        "manual_stage": None,
        "manual_since": None,
    }


def _written(target: str, new: Mapping[str, Any], echo: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What a settled change adds to `Standing.written`."""
    fields = {**new.get("fields", {}), **new.get("dropped", {})}
    noted: dict[str, list[Any]] = {name: [value, echo.get(name)] for name, value in fields.items()}
    noted.update((f"{GROUP}{name}", [score, new["epoch"]]) for name, score in new.get("groups", {}).items())
    if "verdict" in new:
        noted.update(
            (f"tag:{tag.removeprefix('-')}", [new["verdict"], not tag.startswith("-")]) for tag in new.get("tags", ())
        )
        if "reason" in new:
            noted[target] = [new["verdict"], new["reason"]]
    return noted


def adopt_stages(connection: Connection, stages: Mapping[int, str], now: int) -> None:
    """Person → the stage that Mautic shows and that counts as set by us from now on."""
    rows = [
        {**_nothing_stands(person_id), "stage": stage, "stage_at": now, "written": "{}"}
        for person_id, stage in stages.items()
    ]
    upsert(connection, standing, rows, update=("stage", "stage_at", "manual_stage", "manual_since"))


def stands_in_any(connection: Connection, stages: Collection[str], fields: Collection[str]) -> bool:
    """Whether somebody was given one of these stages, or one of these fields was written to anybody, by us."""
    conditions = [standing.c.stage == stage for stage in stages]
    conditions += [standing.c.written.contains(f'"{alias}"', autoescape=True) for alias in fields]
    if not conditions:
        return False
    return connection.execute(select(standing.c.person_id).where(or_(*conditions)).limit(1)).first() is not None


def refuse(connection: Connection, number: int, error: str, now: int) -> None:
    """Mautic said no: the change is closed and waits for `retry`."""
    connection.execute(
        update(change)
        .where(change.c.id == number, IS_OPEN)
        .values(state=REFUSED, open_key=None, settled_at=now, error=error)
    )


def refuse_rest(
    connection: Connection, row: Any, rest: Mapping[str, Any], error: str, *, run_id: str, now: int
) -> None:
    """Mautic said no to this part of a change that settled without it: it waits for `retry` as a change of its own."""
    kept = ("person_id", "target", "value", "old", "reason", "baseline", "attempts", "planned_at", "sent_at")
    closed = {"state": REFUSED, "open_key": None, "settled_at": now, "settled_run": run_id, "error": error}
    values = {name: getattr(row, name) for name in kept}
    insert_many(connection, change, [{**values, **closed, "run_id": row.run_id, "new": dump(rest)}])


def refused_before(connection: Connection, row: Any, error: str) -> bool:
    """Whether the last that Mautic said about this person and target, before this change, was the very same no."""
    last = connection.execute(
        select(change.c.state, change.c.error)
        .where(
            change.c.person_id == row.person_id,
            change.c.target == row.target,
            IS_CLOSED,
            change.c.state.in_((SETTLED, REFUSED)),
            change.c.id < row.id,
        )
        .order_by(change.c.id.desc())
        .limit(1)
    ).first()
    return last is not None and (last.state, last.error) == (REFUSED, error)


def supersede(connection: Connection, numbers: Collection[int], error: str, now: int) -> None:
    for chunk in in_chunks(list(numbers)):
        connection.execute(
            update(change)
            .where(change.c.id.in_(chunk), IS_OPEN)
            .values(state=SUPERSEDED, open_key=None, settled_at=now, error=error)
        )


def supersede_points(connection: Connection, error: str, now: int) -> None:
    """Plan no points for anybody: they are not to be granted."""
    connection.execute(
        update(change)
        .where(change.c.state == PLANNED, change.c.target == POINTS)
        .values(state=SUPERSEDED, open_key=None, error=error, settled_at=now)
    )


def pending_counts(connection: Connection) -> dict[str, int]:
    """Open changes by state: planned, sent, doubtful."""
    rows = connection.execute(
        select(change.c.state, func.count()).where(change.c.state.in_(OPEN)).group_by(change.c.state)
    )
    return {row[0]: row[1] for row in rows}


def count_planned(connection: Connection, *, baseline: bool | None = None, most_value: int | None = None) -> int:
    query = select(func.count()).select_from(change).where(change.c.state == PLANNED)
    if most_value is not None:
        query = query.where(change.c.value <= most_value)
    if baseline is not None:
        query = query.where(change.c.baseline.is_(baseline))
    return int(connection.execute(query).scalar() or 0)


def count_contacts(connection: Connection) -> int:
    """How many contacts the planned changes are about."""
    query = select(func.count(change.c.person_id.distinct())).where(change.c.state == PLANNED)
    return int(connection.execute(query).scalar() or 0)


def planned_moves(connection: Connection, *, baseline: bool | None = None) -> dict[tuple[str | None, str], int]:
    """(stage now, stage planned) → how many; what only undoes a run is no move."""
    query = select(change.c.old, change.c.new).where(change.c.state == PLANNED, change.c.target == "contact")
    if baseline is not None:
        query = query.where(change.c.baseline.is_(baseline))
    counted: dict[tuple[str | None, str], int] = {}
    for row in connection.execute(query.execution_options(yield_per=5000)):
        new = orjson.loads(row.new)
        if "stage" in new and UNDOES not in new:
            move = (orjson.loads(row.old).get("stage"), new["stage"])
            counted[move] = counted.get(move, 0) + 1
    return counted


def planned_transitions(connection: Connection, kinds: Mapping[str, str]) -> Iterator[Transition]:
    """What the planned changes of stage will be once they are settled; the baseline's and those of an undo aside."""
    planned = [change.c.state == PLANNED, change.c.target == CONTACT]
    values = connection.execute(select(change.c.value).where(*planned).distinct()).scalars().all()
    news = select(change.c.id, change.c.person_id, change.c.old, change.c.new).where(
        *planned, change.c.value == bindparam("worth"), change.c.id > bindparam("after"), change.c.baseline.is_(False)
    )
    page = news.order_by(change.c.id).limit(PLANNED_AT_ONCE)
    for value in values:  # one after the other, as in `next_planned`
        after = 0
        while rows := connection.execute(page, {"worth": value, "after": after}).all():
            after = rows[-1].id
            places = last_places(connection, [row.person_id for row in rows], kinds)
            for row in rows:
                new = orjson.loads(row.new)
                if new.get("stage") in kinds and UNDOES not in new:
                    yield _transition(row.id, row.person_id, orjson.loads(row.old), new, places, kinds)


def _transition(
    number: int,
    person_id: int,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    places: Mapping[int, Place],
    kinds: Mapping[str, str],
) -> Transition:
    shown = old.get("stage")
    stage, kind = places.get(person_id, (shown, kinds.get(shown or "")))
    return Transition(number, person_id, stage, kind, new["stage"], kinds[new["stage"]])


def listed(
    connection: Connection, states: Collection[str], *, limit: int | None = None, run_id: str | None = None
) -> list[dict[str, Any]]:
    """Changes to show: most valuable first, with the contact's number and `points` in Mautic, as last read."""
    query = (
        select(change, alias.c.mautic_id, contact.c.points)
        .outerjoin(person, person.c.id == change.c.person_id)
        .outerjoin(
            alias, and_(alias.c.person_id == func.coalesce(person.c.redirect_to, change.c.person_id), alias.c.current)
        )
        .outerjoin(contact, contact.c.person_id == alias.c.person_id)
        .where(change.c.state.in_(list(states)))
        .order_by(change.c.value.desc(), change.c.id)
    )
    if run_id is not None:
        query = query.where(_in_run(run_id))
    if limit is not None:
        query = query.limit(limit)
    return [
        {**row, "old": orjson.loads(row["old"]), "new": orjson.loads(row["new"])}
        for row in connection.execute(query).mappings()
    ]


def _in_run(run_id: str) -> ColumnElement[bool]:
    return or_(change.c.settled_run == run_id, and_(change.c.settled_run.is_(None), change.c.run_id == run_id))


def last_write(connection: Connection, person_id: int) -> dict[str, Any] | None:
    """The newest change of a person that Mautic took or may take; what it refused is no write."""
    newest = (
        select(change).where(change.c.person_id.in_(former_of(connection, [person_id]))).order_by(change.c.id.desc())
    ).limit(1)
    found = [
        row
        for some in (IS_OPEN, and_(IS_CLOSED, change.c.state == SETTLED))
        for row in connection.execute(newest.where(some)).mappings()
    ]
    row = max(found, key=itemgetter("id"), default=None)
    if row is None:
        return None
    return {**row, "old": orjson.loads(row["old"]), "new": orjson.loads(row["new"])}


def refused_persons(connection: Connection, numbers: Collection[int] | None = None) -> dict[int, list[Any]]:
    """Person → refused changes (these, or all), the newest of each target where nothing newer was settled there."""
    found: dict[int, list[Any]] = {}
    for row in connection.execute(_refusals()):
        if numbers is None or row.id in numbers:
            found.setdefault(row.survivor, []).append(row)
    return found


def refused_of(connection: Connection, person_id: int) -> list[Any]:
    """What `refused_persons` has of one person."""
    return list(connection.execute(_refusals().where(change.c.person_id.in_(former_of(connection, [person_id])))))


def _refusals() -> Select[Any]:
    newer = change.alias()
    outdated = exists().where(
        # What was written to the survivor of a merge answers for the one that is gone, too.
        newer.c.person_id.in_((change.c.person_id, _SURVIVOR)),
        newer.c.target == change.c.target,
        newer.c.settled_at.is_not(None),
        newer.c.state.in_((SETTLED, REFUSED)),
        newer.c.id > change.c.id,
    )
    return (
        select(change, _SURVIVOR.label("survivor"))
        .outerjoin(person, person.c.id == change.c.person_id)
        .where(IS_CLOSED, change.c.state == REFUSED, ~outdated)
        .order_by(change.c.id)
    )


def let_unneeded_go(connection: Connection, numbers: Collection[int], now: int) -> int:
    """Close those of these refused changes of which nothing was planned since their persons were decided again: Mautic
    shows what is wanted. Returns how many.
    """
    newer = change.alias()
    since = (
        newer.c.person_id.in_((change.c.person_id, _SURVIVOR)),
        newer.c.target == change.c.target,
        newer.c.id > change.c.id,
    )
    planned = or_(
        exists().where(*since, newer.c.open_key.is_not(None)),
        exists().where(*since, newer.c.settled_at.is_not(None), newer.c.state != SUPERSEDED),
    )
    unneeded = [row for row in connection.execute(_refusals().where(~planned)) if row.id in numbers]
    for row in unneeded:
        # With those before it that it stood for.
        same = (
            change.c.person_id.in_(former_of(connection, [row.survivor])),
            change.c.target == row.target,
            IS_CLOSED,
            change.c.state == REFUSED,
        )
        told = {"state": SUPERSEDED, "settled_at": now, "error": "it is not needed any more"}
        connection.execute(update(change).where(*same).values(told))
    return len(unneeded)


# -- undoing a run --------------------------------------------------------------------------------------------------


def next_written_by(connection: Connection, run_id: str, after: int, limit: int) -> list[int]:
    """The next persons, survivors of merges, by number, to whom this run wrote something, or perhaps did."""
    query = (
        select(_SURVIVOR)
        .select_from(change)
        .outerjoin(person, person.c.id == change.c.person_id)
        .where(change.c.settled_run == run_id, change.c.state.in_((SENT, DOUBTFUL, SETTLED)), after < _SURVIVOR)
        .distinct()
        .order_by(_SURVIVOR)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def written_by(connection: Connection, run_id: str, person_ids: Collection[int]) -> dict[int, list[Any]]:
    """Person → what this run wrote to it, and to those merged into it, in order."""
    found: dict[int, list[Any]] = {}
    survivors = former_of(connection, person_ids)
    for chunk in in_chunks(list(survivors)):
        rows = connection.execute(
            select(change)
            .where(change.c.person_id.in_(chunk), IS_CLOSED, change.c.settled_run == run_id, change.c.state == SETTLED)
            .order_by(change.c.id)
        )
        for row in rows:
            found.setdefault(survivors[row.person_id], []).append(row)
    return found


def take_over(connection: Connection, person_ids: Collection[int], undone: str, run_id: str) -> None:
    """What an undo that was cut short had planned for these persons belongs to this one."""
    for chunk in in_chunks(list(person_ids)):
        rows = connection.execute(
            select(change.c.id, change.c.new).where(change.c.person_id.in_(chunk), IS_OPEN, change.c.state == PLANNED)
        ).all()
        numbers = [row.id for row in rows if orjson.loads(row.new).get(UNDOES) == undone]
        connection.execute(update(change).where(change.c.id.in_(numbers)).values(run_id=run_id))


def planned_of_held(connection: Connection, after: int, limit: int) -> list[Any]:
    """The next planned changes, by number, of persons who are held."""
    query = (
        select(change)
        .join(held, held.c.person_id == change.c.person_id)
        .where(IS_OPEN, change.c.state == PLANNED, change.c.id > after)
        .order_by(change.c.id)
        .limit(limit)
    )
    return list(connection.execute(query))


def plan_otherwise(connection: Connection, number: int, planned: Change) -> None:
    """What an open change shall do now; it stays what it was for `retry`, and of the run that planned it."""
    connection.execute(
        update(change).where(change.c.id == number, IS_OPEN).values(old=dump(planned.old), new=dump(planned.new))
    )


def count_planned_by(connection: Connection, run_id: str) -> int:
    query = select(func.count()).where(change.c.state == PLANNED, change.c.run_id == run_id)
    return int(connection.execute(query).scalar() or 0)


def reopen(connection: Connection, number: int) -> None:
    """`retry` of what an undo could not write: nobody decides it anew, for the person is held."""
    row = connection.execute(select(change.c.person_id, change.c.target).where(change.c.id == number)).one()
    if open_of(connection, row.person_id, row.target) is None:
        key = open_key(row.person_id, row.target)
        values = {"state": PLANNED, "open_key": key, "sent_at": None, "settled_at": None, "settled_run": None}
        connection.execute(update(change).where(change.c.id == number).values(**values))
