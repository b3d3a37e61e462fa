"""Actions on their way: planned → sent → done, refused or doubtful; what was merged is read as the survivor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from mautic_sync.domain.actions import flag_edit, read_flags, stands
from mautic_sync.store.bulk import insert_many
from mautic_sync.store.engine import in_chunks
from mautic_sync.store.people import former_of
from mautic_sync.store.schema import IS_OPEN, action, alias, change, contact, decision, person
from mautic_sync.store.text import dump

PLANNED, SENT, DOUBTFUL = "planned", "sent", "doubtful"
DONE, REFUSED, SUPERSEDED = "done", "refused", "superseded"
OPEN = (PLANNED, SENT, DOUBTFUL)
_WAITING = (PLANNED, REFUSED)
HOLDS_NO_MORE = "it holds no more"

_SURVIVOR: ColumnElement[Any] = func.coalesce(person.c.redirect_to, action.c.person_id)
_WITH_CONTACT = (
    select(action, _SURVIVOR.label("survivor"), alias.c.mautic_id, contact.c.vanished_at)
    .outerjoin(person, person.c.id == action.c.person_id)
    .outerjoin(alias, and_(alias.c.person_id == _SURVIVOR, alias.c.current))
    .outerjoin(contact, contact.c.person_id == _SURVIVOR)
)


def queue(connection: Connection, rows: Sequence[Mapping[str, Any]], *, run_id: str, now: int) -> None:
    """Store due actions (key, person_id, rule, occasion, todo, value); a key that is there already is left alone."""
    known: set[str] = set()
    for chunk in in_chunks([row["key"] for row in rows]):
        known.update(connection.execute(select(action.c.key).where(action.c.key.in_(chunk))).scalars())
    insert_many(
        connection,
        action,
        [
            {
                **row,
                "todo": dump(row["todo"]),
                "done": "{}",
                "state": PLANNED,
                "attempts": 0,
                "run_id": run_id,
                "planned_at": now,
            }
            for row in rows
            if row["key"] not in known
        ],
    )


def take_back(connection: Connection, occasion: str, person_ids: Collection[int], now: int, *, run_id: str) -> set[int]:
    """The occasion holds no more for these persons: what is left of its actions is closed, but for what is in doubt.

    Returns the persons for whom nothing had been done about it yet, so that its opposite has nothing to undo.
    """
    found = _of_occasion(connection, occasion, person_ids)
    whole: set[int] = set()
    numbers: list[int] = []
    for person_id, some in found.items():
        numbers += [row.id for row in some if row.state in _WAITING]
        if _are_unheard(some):
            whole.add(person_id)
    for chunk in in_chunks(numbers):
        connection.execute(
            update(action)
            .where(action.c.id.in_(chunk))
            .values(state=SUPERSEDED, settled_at=now, settled_run=run_id, error=HOLDS_NO_MORE)
        )
    return whole


def unheard(connection: Connection, occasion: str, person_ids: Collection[int]) -> set[int]:
    """The persons for whom nothing has been done yet about the last time that this occasion set off actions."""
    waiting = select(action.c.id).where(action.c.state.in_(_WAITING), action.c.occasion == occasion).limit(1)
    if connection.execute(waiting).first() is None:
        return set()  # mostly, and of everybody it would take long to ask
    return {
        person_id
        for person_id, some in _of_occasion(connection, occasion, person_ids).items()
        if some[-1].state in _WAITING and _are_unheard(some)
    }


def _of_occasion(connection: Connection, occasion: str, person_ids: Collection[int]) -> dict[int, list[Any]]:
    """Person → actions that this occasion set off, by number; those of merged persons too."""
    survivors = former_of(connection, person_ids)
    found: dict[int, list[Any]] = {}
    for chunk in in_chunks(sorted(survivors)):
        rows = connection.execute(
            select(action).where(action.c.person_id.in_(chunk), action.c.occasion == occasion).order_by(action.c.id)
        )
        for row in rows:
            found.setdefault(survivors[row.person_id], []).append(row)
    return {person_id: sorted(some, key=attrgetter("id")) for person_id, some in found.items()}


def _are_unheard(some: Sequence[Any]) -> bool:
    """Whether of these, by number, nobody has heard of those that were set off last."""
    return all(_is_untouched(row) for row in some if row.run_id == some[-1].run_id)


def _is_untouched(row: Any) -> bool:
    """Nobody has heard of it: a message that failed was not taken, what else was tried may have been done."""
    tells_only = orjson.loads(row.todo).keys() <= {"notify", "notify_to", "numbered"}
    return row.state in _WAITING and row.done == "{}" and (not row.attempts or tells_only)


def doubt_what_was_sent(connection: Connection, now: int) -> None:
    """At the start of a run: what an earlier one was doing when it was killed.

    What is in doubt since a time that has not come was sent while the clock was ahead; it counts from now on.
    """
    connection.execute(
        update(action)
        .where(action.c.state == SENT)
        .values(state=DOUBTFUL, error="the worker stopped before the answer")
    )
    connection.execute(update(action).where(action.c.state == DOUBTFUL, action.c.sent_at > now).values(sent_at=now))


def let_vanished_go(connection: Connection, now: int) -> None:
    """Nobody waits for the actions of contacts that Mautic deleted, nor is asked about those that were refused."""
    gone = connection.execute(
        select(action.c.id)
        .outerjoin(person, person.c.id == action.c.person_id)
        .join(contact, contact.c.person_id == _SURVIVOR)
        .where(action.c.state.in_((*OPEN, REFUSED)), contact.c.vanished_at.is_not(None))
    ).scalars()
    supersede(connection, list(gone), "the contact was deleted in Mautic", now)


def supersede(connection: Connection, numbers: Collection[int], error: str, now: int) -> None:
    """Let these go, open or refused, with what is left of them."""
    for chunk in in_chunks(list(numbers)):
        connection.execute(
            update(action)
            .where(action.c.id.in_(chunk), action.c.state.in_((*OPEN, REFUSED)))
            .values(state=SUPERSEDED, settled_at=now, error=error)
        )


def next_persons(
    connection: Connection, *, limit: int, after: tuple[int, int] | None, least_value: int, only: int | None
) -> list[Any]:
    """Open actions, most valuable first: (id, value, survivor). `after` is (value, id) of the last one seen."""
    query = (
        select(action.c.id, action.c.value, _SURVIVOR.label("survivor"))
        .outerjoin(person, person.c.id == action.c.person_id)
        .where(action.c.state.in_((PLANNED, DOUBTFUL)), action.c.value >= least_value)
        .order_by(action.c.value.desc(), action.c.id)
        .limit(limit)
    )
    if after is not None:
        value, number = after
        query = query.where(or_(action.c.value < value, and_(action.c.value == value, action.c.id > number)))
    if only is not None:
        query = query.where(_SURVIVOR.in_([only]))
    return list(connection.execute(query))


def open_of(connection: Connection, person_id: int) -> list[Any]:
    """The open actions of a survivor, oldest first, with its number in Mautic."""
    query = _WITH_CONTACT.where(
        action.c.person_id.in_(former_of(connection, [person_id])), action.c.state.in_(OPEN)
    ).order_by(action.c.id)
    return list(connection.execute(query))


def has_change_on_the_way(connection: Connection, person_id: int) -> bool:
    """Whether a change of this person is sent or in doubt: nothing else is written there until it is answered for."""
    query = select(change.c.id).where(
        change.c.person_id == person_id, IS_OPEN, change.c.state.in_(("sent", "doubtful"))
    )
    return connection.execute(query.limit(1)).first() is not None


def mark_sent(connection: Connection, numbers: Sequence[int], *, run_id: str, now: int) -> None:
    connection.execute(
        update(action)
        .where(action.c.id.in_(numbers))
        .values(state=SENT, sent_at=now, settled_run=run_id, attempts=action.c.attempts + 1)
    )


def back_to_planned(
    connection: Connection, number: int, done: Mapping[str, Any], error: str | None, *, attempts: int
) -> None:
    """What is done of it stays done; the rest waits. `attempts` are those that count."""
    connection.execute(
        update(action)
        .where(action.c.id == number)
        .values(state=PLANNED, done=dump(dict(done)), sent_at=None, settled_run=None, error=error, attempts=attempts)
    )


def close(
    connection: Connection,
    number: int,
    state: str,
    done: Mapping[str, Any],
    error: str | None,
    *,
    run_id: str,
    now: int,
) -> None:
    """`done` or `refused` (until `retry`)."""
    values = {"state": state, "done": dump(dict(done)), "error": error, "settled_run": run_id, "settled_at": now}
    connection.execute(update(action).where(action.c.id == number).values(values))


def doubt(connection: Connection, number: int, done: Mapping[str, Any], error: str, *, run_id: str, now: int) -> None:
    """Nobody knows by `now` what became of the rest of it; it may be tried again later."""
    values = {"state": DOUBTFUL, "done": dump(dict(done)), "error": error, "settled_run": run_id, "sent_at": now}
    connection.execute(update(action).where(action.c.id == number).values(values))


def try_refused_again(connection: Connection, numbers: Collection[int] | None = None) -> int:
    """`retry`: what is left of refused actions (of these, or of all) is planned anew. Returns how many."""
    statement = (
        update(action)
        .where(action.c.state == REFUSED)
        .values(state=PLANNED, attempts=1, sent_at=None, settled_at=None, settled_run=None)
    )
    if numbers is None:
        return connection.execute(statement).rowcount
    return sum(
        connection.execute(statement.where(action.c.id.in_(chunk))).rowcount for chunk in in_chunks(list(numbers))
    )


def let_outdated_go(connection: Connection, numbers: Collection[int], now: int) -> int:
    """`retry`: refused actions of these whose occasion holds no more are closed. Returns how many."""
    outdated: list[int] = []
    for chunk in in_chunks(list(numbers)):
        query = (
            select(action.c.id, action.c.occasion, decision.c.stage, decision.c.kind, decision.c.flags)
            .join(person, person.c.id == action.c.person_id)
            .join(decision, decision.c.person_id == _SURVIVOR)
            .where(action.c.state == REFUSED, action.c.id.in_(chunk))
        )
        outdated += [
            row.id
            for row in connection.execute(query)
            if not stands(row.occasion, stage=row.stage, kind=row.kind, flags=read_flags(row.flags))
        ]
    supersede(connection, outdated, HOLDS_NO_MORE, now)
    return len(outdated)


def count_unbegun(connection: Connection, run_id: str) -> int:
    """How many actions that this run set off nobody has begun."""
    return int(connection.execute(select(func.count()).where(*_unbegun(run_id))).scalar() or 0)


def take_back_of_run(connection: Connection, run_id: str, now: int) -> dict[int, list[str]]:
    """What this run set off and nobody has begun is closed.

    Returns person → flags whose coming (`hot`) or going (`-hot`) set it off, and of which nobody has heard so.
    """
    query = (
        select(action.c.id, action.c.occasion, _SURVIVOR.label("survivor"))
        .outerjoin(person, person.c.id == action.c.person_id)
        .where(*_unbegun(run_id))
    )
    closed: set[int] = set()
    by_occasion: dict[str, set[int]] = {}
    for row in connection.execute(query):
        closed.add(row.id)
        by_occasion.setdefault(row.occasion, set()).add(row.survivor)
    unheard_of: dict[int, list[str]] = {}
    for occasion, numbers in sorted(by_occasion.items()):
        flag = flag_edit(occasion)
        if flag is None:
            continue
        for person_id, some in _of_occasion(connection, occasion, numbers).items():
            if all(row.id in closed for row in some if row.run_id == run_id):
                unheard_of.setdefault(person_id, []).append(flag)
    connection.execute(
        update(action)
        .where(*_unbegun(run_id))
        .values(state=SUPERSEDED, settled_at=now, error="the run that set it off was undone")
    )
    return unheard_of


def _unbegun(run_id: str) -> list[ColumnElement[bool]]:
    return [*_UNBEGUN, action.c.run_id == run_id]


# The state comes first in an index, and few are planned.
_UNBEGUN = (action.c.state == PLANNED, action.c.attempts == 0, action.c.done == "{}")


def next_done_by(connection: Connection, run_id: str, after: int, limit: int) -> list[int]:
    """The next persons, survivors of merges, by number, for whom this run carried out something."""
    query = (
        select(_SURVIVOR)
        .select_from(action)
        .outerjoin(person, person.c.id == action.c.person_id)
        .where(*_begun(run_id), after < _SURVIVOR)
        .distinct()
        .order_by(_SURVIVOR)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def done_by(connection: Connection, run_id: str, person_ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """Person → actions of which this run carried out a part at least, in order; those of merged persons too."""
    survivors = former_of(connection, person_ids)
    found: dict[int, list[dict[str, Any]]] = {}
    for chunk in in_chunks(list(survivors)):
        query = select(action).where(*_begun(run_id), action.c.person_id.in_(chunk)).order_by(action.c.id)
        for row in connection.execute(query).mappings():
            found.setdefault(survivors[row["person_id"]], []).append(_readable(dict(row)))
    return found


def last_set_off(connection: Connection, occasion: str, person_ids: Collection[int]) -> dict[int, int]:
    """Person → when this occasion last set off an action."""
    found: dict[int, int] = {}
    for chunk in in_chunks(sorted(person_ids)):
        query = (
            select(action.c.person_id, func.max(action.c.planned_at))
            .where(action.c.person_id.in_(chunk), action.c.occasion == occasion)
            .group_by(action.c.person_id)
        )
        found.update((number, at) for number, at in connection.execute(query))
    return found


def _begun(run_id: str) -> list[ColumnElement[bool]]:
    return [action.c.settled_run == run_id, action.c.done != "{}"]


def doubt_what_is_open(connection: Connection) -> None:
    """After a restore: what is open may have been done since, and is looked for before it is done again."""
    connection.execute(_DOUBTED_BY_RESTORE)


def doubt_keys(connection: Connection, keys: Collection[str]) -> None:
    """What was set off again after a restore may have been done before it, and is looked for like what was open then."""
    for chunk in in_chunks(sorted(keys)):
        connection.execute(_DOUBTED_BY_RESTORE.where(action.c.key.in_(chunk)))


_DOUBTED_BY_RESTORE = (
    update(action)
    .where(action.c.state.in_(OPEN), action.c.attempts == 0)
    .values(state=DOUBTFUL, attempts=1, error="the store was restored")
)


def count_open(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).where(action.c.state.in_(OPEN))).scalar() or 0)


def is_taken_out(row: Any, occasions: Collection[str]) -> bool:
    """Whether nobody has begun this, and no rule names what set it off any more."""
    return row.state == PLANNED and not row.attempts and row.done == "{}" and row.occasion not in occasions


def count_open_by_rule(connection: Connection, occasions: Collection[str]) -> dict[str, int]:
    """Rule → how many of its actions are open, but for those that were taken out (`is_taken_out`)."""
    taken_out = and_(*_UNBEGUN, action.c.occasion.not_in(sorted(occasions)))
    rows = connection.execute(
        select(action.c.rule, func.count()).where(action.c.state.in_(OPEN), ~taken_out).group_by(action.c.rule)
    )
    return {row[0]: row[1] for row in rows}


def refused(connection: Connection) -> list[dict[str, Any]]:
    """Refused actions, with the contact's number in Mautic."""
    query = _WITH_CONTACT.where(action.c.state == REFUSED).order_by(action.c.id)
    return [_readable(dict(row)) for row in connection.execute(query).mappings()]


def last_of(connection: Connection, person_id: int, limit: int) -> list[dict[str, Any]]:
    """The newest actions of a person, those of merged ones too."""
    query = (
        select(action)
        .where(action.c.person_id.in_(former_of(connection, [person_id])))
        .order_by(action.c.id.desc())
        .limit(limit)
    )
    return [_readable(dict(row)) for row in connection.execute(query).mappings()]


def _readable(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "todo": orjson.loads(row["todo"]), "done": orjson.loads(row["done"])}
