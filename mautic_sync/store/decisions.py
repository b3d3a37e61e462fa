"""What is needed to decide, and what was decided."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    FromClause,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from mautic_sync.domain.actions import HOT, LOW_VALUE, NO_FLAGS, flags_text
from mautic_sync.domain.classification import RANK
from mautic_sync.domain.contact import NOTHING
from mautic_sync.domain.plan import NOTHING_STANDS, Standing
from mautic_sync.store import due
from mautic_sync.store.engine import as_driven, in_chunks, rows_among, upsert, upsert_over
from mautic_sync.store.people import former_of
from mautic_sync.store.schema import (
    IS_OPEN,
    action,
    change,
    contact,
    decision,
    dirty,
    dnc,
    evidence,
    kept_waiting,
    ledger,
    membership,
    person,
    standing,
    tally,
    transition,
    uploaded,
    verdict,
)

_CONTACT = (
    contact.c.person_id,
    contact.c.address,
    contact.c.fields,
    contact.c.tags,
    contact.c.points,
    contact.c.stage_id,
    contact.c.dnc,
    contact.c.date_added,
    contact.c.date_identified,
    contact.c.last_active,
)
_DECISION = (
    decision.c.kind,
    decision.c.stage,
    decision.c.score,
    decision.c.rule,
    decision.c.reason,
    decision.c.trace,
    decision.c.due_at,
    decision.c.asks,
    decision.c.waiting,
    decision.c.scores,
    decision.c.flags,
    decision.c.score_day,
    decision.c.hot_since,
)
_STANDING = (
    standing.c.stage.label("our_stage"),
    standing.c.written,
    standing.c.manual_stage,
    standing.c.manual_since,
)

UNDONE = "undone"
"""The rule of a decision that was put back."""
FOUND = "found"
"""The rule of a decision that a restored store had lost, and that Mautic's stage shows."""


def _everything(among: FromClause) -> Select[Any]:
    return (
        select(*_CONTACT, *_DECISION, *_STANDING, tally.c.counts.label("tallies"))
        .select_from(among)
        .outerjoin(decision, decision.c.person_id == contact.c.person_id)
        .outerjoin(standing, standing.c.person_id == contact.c.person_id)
        .outerjoin(tally, tally.c.person_id == contact.c.person_id)
        .where(contact.c.vanished_at.is_(None))
    )


EVERYTHING = _everything(contact)
_COLUMNS = [column.name for column in EVERYTHING.selected_columns]
# A named tuple: its columns are read a dozen times per person, each several times faster than from SQLAlchemy's row.
_as_person = partial(tuple.__new__, namedtuple("_Person", _COLUMNS))  # noqa: PYI024


def to_decide(connection: Connection, after: int, limit: int, *, everyone: bool = False) -> Sequence[Any]:
    """The next persons, by number, whose signals changed (or all of them), with all that decides about them."""
    query = _EVERYONE if everyone else _CHANGED
    return _persons(connection.execute(query, {"after": after, "most": limit}))


def _page(query: Select[Any], number: ColumnElement[int]) -> Select[Any]:
    return query.where(number > bindparam("after")).order_by(number).limit(bindparam("most"))


_EVERYONE = _page(EVERYTHING, contact.c.person_id)
# `dirty` first: SQLite would look at every contact before it looked there.
_CHANGED = _page(_everything(dirty.join(contact, contact.c.person_id == dirty.c.person_id)), dirty.c.person_id)


_HOT = and_(decision.c.flags.like('%"hot"%'), contact.c.vanished_at.is_(None))


def hot_persons(connection: Connection, limit: int | None) -> list[Any]:
    """Whoever is hot, the highest score first, as `to_decide` gives them."""
    query = EVERYTHING.where(_HOT).order_by(decision.c.score.desc(), contact.c.person_id)
    return _persons(connection.execute(query if limit is None else query.limit(limit)))


def count_hot(connection: Connection) -> int:
    query = select(func.count()).select_from(decision).join(contact, contact.c.person_id == decision.c.person_id)
    return int(connection.execute(query.where(_HOT)).scalar() or 0)


def one_person(connection: Connection, person_id: int) -> Any | None:
    return next(iter(_persons(connection.execute(EVERYTHING.where(contact.c.person_id == person_id)))), None)


def persons(connection: Connection, person_ids: Collection[int]) -> list[Any]:
    """These persons by number, as `to_decide` gives them; those who are gone from Mautic are missing."""
    found: list[Any] = []
    for chunk in in_chunks(sorted(person_ids)):
        query = EVERYTHING.where(contact.c.person_id.in_(chunk)).order_by(contact.c.person_id)
        found += _persons(connection.execute(query))
    return found


def put_back(connection: Connection, places: Mapping[int, tuple[str, str]], reason: str) -> None:
    """Person → (stage, kind) that a run which was undone had taken them from: what they have, until decided again."""
    if places:
        connection.execute(
            update(decision)
            .where(decision.c.person_id == bindparam("who"))
            .values(stage=bindparam("at_stage"), kind=bindparam("of_kind"), rule=UNDONE, reason=reason, trace="[]"),
            [{"who": number, "at_stage": stage, "of_kind": kind} for number, (stage, kind) in places.items()],
        )


def take_from_mautic(connection: Connection, places: Mapping[int, tuple[str, str]], run_id: str, now: int) -> None:
    """Person → (stage, kind) that we had decided, as Mautic shows after the store was restored: what they have.

    Else whoever has become a lead since the backup would fall: the verdict that made them one is lost.
    """
    rows = [
        {
            "person_id": number,
            "kind": kind,
            "stage": stage,
            "score": 0,
            "rule": FOUND,
            "reason": f"{stage}: found in Mautic after a restore",
            "trace": "[]",
            "asks": False,
            "waiting": False,
            "decided_at": now,
            "run_id": run_id,
        }
        for number, (stage, kind) in places.items()
    ]
    upsert(connection, decision, rows, update=("kind", "stage", "rule", "reason", "trace"))


def edit_flags(connection: Connection, edits: Mapping[int, Collection[str]], hot_since: Mapping[int, int]) -> None:
    """Person → flags that it has again (`hot`), or not any more (`-hot`): should those come again, they are news.

    `hot_since`: when somebody who is hot again became so, as far as that is known.
    """
    for chunk in in_chunks(sorted(edits)):
        rows = connection.execute(
            select(decision.c.person_id, decision.c.flags, decision.c.hot_since).where(decision.c.person_id.in_(chunk))
        ).all()
        for row in rows:
            edited = edits[row.person_id]
            there = orjson.loads(row.flags)
            there = [flag for flag in there if f"-{flag}" not in edited] + [
                flag for flag in edited if not flag.startswith("-") and flag not in there
            ]
            named = tuple(flag for flag in there if flag not in {HOT, LOW_VALUE})
            since = (row.hot_since or hot_since.get(row.person_id)) if HOT in there else None
            values = {"flags": flags_text(HOT in there, LOW_VALUE in there, named), "hot_since": since}
            connection.execute(update(decision).where(decision.c.person_id == row.person_id).values(**values))


def _persons(result: CursorResult[Any]) -> list[Any]:
    return list(map(_as_person, as_driven(result)))


_SAID = slice(len(_CONTACT), len(_CONTACT) + len(_DECISION) - 2)  # all but `score_day` and `hot_since`


def said(row: Any) -> tuple[Any, ...]:
    """What a row of `to_decide` was decided to be: `Decided` from `kind` to `flags`, all None where it never was."""
    return tuple(row[_SAID])


def standing_of(row: Any) -> Standing:
    if row.written is None:
        return NOTHING_STANDS
    written = NOTHING if row.written == "{}" else orjson.loads(row.written)
    return Standing(row.our_stage, written, row.manual_stage, row.manual_since)


def evidence_of(connection: Connection, person_ids: Sequence[int]) -> dict[int, dict[str, tuple[int, ...]]]:
    """Person → matcher → ascending times."""
    found: dict[int, dict[str, tuple[int, ...]]] = {}
    rows = rows_among(connection, _EVIDENCE, evidence.c.person_id, person_ids, driven=True)
    for (person_id, matcher), some in groupby(rows, itemgetter(0, 1)):
        found.setdefault(person_id, {})[matcher] = tuple([row[2] for row in some])
    return found


_EVIDENCE = select(evidence.c.person_id, evidence.c.matcher, evidence.c.at).order_by(
    evidence.c.person_id, evidence.c.matcher, evidence.c.at
)


def members_of(
    connection: Connection, person_ids: Sequence[int], names: Mapping[str, Mapping[int, str]]
) -> dict[int, dict[str, frozenset[str]]]:
    """Person → 'segment' and 'campaign' → names; `names` maps each kind to Mautic's ids and their names."""
    found: dict[int, dict[str, set[str]]] = {}
    if not any(names.values()):
        return {}
    for row in rows_among(connection, _MEMBERSHIPS, membership.c.person_id, person_ids):
        name = names.get(row.kind, {}).get(row.object_id)
        if name is not None:
            found.setdefault(row.person_id, {}).setdefault(row.kind, set()).add(name)
    return {
        person_id: {kind: frozenset(members) for kind, members in kinds.items()} for person_id, kinds in found.items()
    }


_MEMBERSHIPS = select(membership)


def own_dnc(connection: Connection, person_ids: Sequence[int]) -> set[int]:
    """Who carries a do-not-contact for e-mail that we set because of a verdict."""
    return {row.person_id for row in rows_among(connection, _OWN_DNC, dnc.c.person_id, person_ids)}


_OWN_DNC = select(dnc.c.person_id).where(dnc.c.ours, dnc.c.channel == "email")


def open_changes(connection: Connection, person_ids: Sequence[int]) -> dict[tuple[int, str], Any]:
    """(person, target) → the open change there."""
    rows = rows_among(connection, _OPEN_CHANGES, change.c.person_id, person_ids)
    return {(row.person_id, row.target): row for row in rows}


_OPEN_CHANGES = select(change).where(IS_OPEN)


def recent_transitions(connection: Connection, person_ids: Collection[int], since: int) -> dict[int, int]:
    """How often we changed the stage of each person since then.

    The baseline does not count, nor does what a merge had lost and we put back. Of persons who were merged each changed
    for itself: the one who did most often counts.
    """
    of_each: dict[int, int] = {}
    survivors = former_of(connection, person_ids)
    merged = {survivor for number, survivor in survivors.items() if number != survivor}
    put_back = (transition.c.from_stage == transition.c.to_stage).label("put_back")
    for chunk in in_chunks(list(survivors)):
        rows = connection.execute(
            select(transition.c.person_id, put_back, func.count())
            .where(transition.c.person_id.in_(chunk), transition.c.at > since, transition.c.baseline.is_(False))
            .group_by(transition.c.person_id, put_back)
        )
        for number, again, count in rows:
            if not (again and survivors[number] in merged):
                of_each[number] = of_each.get(number, 0) + count
    found: dict[int, int] = {}
    for number, count in of_each.items():
        found[survivors[number]] = max(found.get(survivors[number], 0), count)
    return found


def scores_above(connection: Connection, after: int, limit: int) -> dict[int, int]:
    """Person → score of the next persons who have one, or an account of points, by number; those deleted in Mautic too."""
    merged = person.alias()
    has_account = or_(
        exists().where(ledger.c.person_id == decision.c.person_id),
        exists().where(merged.c.redirect_to == decision.c.person_id, ledger.c.person_id == merged.c.id),
    )
    rows = connection.execute(
        select(decision.c.person_id, decision.c.score)
        .where(decision.c.person_id > after, or_(decision.c.score != 0, has_account))
        .order_by(decision.c.person_id)
        .limit(limit)
    )
    return {row.person_id: row.score for row in rows}


def most_points(connection: Connection) -> int | None:
    """The most that anybody would have in Mautic with the score added; None where no trigger would be looked at.

    Mautic looks at its triggers when points change, up or down, unless there are none before and after
    (docs/mautic.md: "Writing").
    """
    after = contact.c.points + decision.c.score
    query = (
        select(func.max(after))
        .join(decision, decision.c.person_id == contact.c.person_id)
        .where(contact.c.vanished_at.is_(None), decision.c.score != 0, or_(contact.c.points > 0, after > 0))
    )
    most = connection.execute(query).scalar()
    return None if most is None else int(most)


def first_transitions(connection: Connection, person_ids: Collection[int]) -> dict[int, dict[str, int]]:
    """Person → kind → when the first settled transition into it was; merged persons' count as well. Ghosts aside."""
    found: dict[int, dict[str, int]] = {}
    survivors = former_of(connection, person_ids)
    for chunk in in_chunks(list(survivors)):
        rows = connection.execute(
            select(transition.c.person_id, transition.c.to_kind, func.min(transition.c.at))
            .where(transition.c.person_id.in_(chunk), transition.c.to_kind != "ghost")
            .group_by(transition.c.person_id, transition.c.to_kind)
        )
        for number, kind, at in rows:
            first = found.setdefault(survivors[number], {})
            first[kind] = min(first.get(kind, at), at)
    return found


class Place(NamedTuple):
    """A stage, and the kind that it had when it was set; None where no mapping names it."""

    stage: str
    kind: str | None


def last_places(
    connection: Connection, person_ids: Collection[int], kinds: Mapping[str, str], *, adopted: bool = False
) -> dict[int, Place]:
    """Person → where the last settled transition left it, whatever became of the stage in Mautic since.

    Of several who were merged the highest place counts, in the order of `kinds` (stage → kind). A stage that was only
    found in Mautic and counts as ours is a place as well; an undo that led back to no stage leaves none. With `adopted`
    it is one also where it was found since the last transition, which led elsewhere.
    """
    order = {stage: place for place, stage in enumerate(kinds)}
    found: dict[int, Place] = {}
    since: dict[int, int | None] = {}
    cleared: set[int] = set()
    for chunk in in_chunks(list(person_ids)):
        rows = connection.execute(
            select(standing.c.person_id, standing.c.stage, standing.c.stage_at).where(standing.c.person_id.in_(chunk))
        )
        for number, stage, at in rows:
            if stage is not None:
                found[number], since[number] = Place(stage, kinds.get(stage)), at
            elif at is not None:
                cleared.add(number)
    survivors = former_of(connection, person_ids)
    last: dict[int, Place] = {}
    moved_at: dict[int, int] = {}
    for chunk in in_chunks([number for number in survivors if number not in cleared]):
        rows = connection.execute(
            select(transition.c.person_id, transition.c.to_stage, transition.c.to_kind, transition.c.at)
            .where(transition.c.person_id.in_(chunk))
            .order_by(transition.c.id)
        )
        for number, stage, kind, at in rows:
            last[number], moved_at[number] = Place(stage, kind), at
    highest: dict[int, Place] = {}
    for number, place in last.items():
        survivor = survivors[number]
        highest[survivor] = min(
            highest.get(survivor, place),
            place,
            key=lambda one: (-RANK.get(one.kind or "", -1), order.get(one.stage, len(order))),
        )
    # What a merge left has no time.
    newer = {n: found[n] for n, at in since.items() if adopted and at is not None and at >= moved_at.get(n, at)}
    return {**found, **highest, **newer}


def last_transition(connection: Connection) -> int:
    """When the newest transition was that is not of the baseline; 0 for none."""
    return int(connection.execute(select(func.max(transition.c.at)).where(~transition.c.baseline)).scalar() or 0)


def forget_rules(connection: Connection) -> None:
    """Forget which rule decided everybody: what a rule is called may stand for another one now, with another reason."""
    connection.execute(update(decision).values(rule=""))


def forget_flags_without_actions(connection: Connection) -> None:
    """Forget what is decided of whoever has had no action yet, so that it comes anew."""
    had_some = exists().where(action.c.person_id == decision.c.person_id)
    connection.execute(update(decision).where(decision.c.flags != NO_FLAGS, ~had_some).values(flags=NO_FLAGS))


class Decided(NamedTuple):
    """One row of `decision`: from `kind` to `flags` what it says, in the order of `said`."""

    person_id: int
    kind: str
    stage: str
    score: int
    rule: str
    reason: str
    trace: str
    due_at: int | None
    asks: bool
    waiting: bool
    scores: str
    flags: str
    score_day: int | None
    hot_since: int | None
    decided_at: int
    run_id: str


def save_decisions(connection: Connection, rows: Sequence[Decided], before: Mapping[int, Any] | None = None) -> None:
    """`before`: person → the row of `to_decide`, which has what was decided before."""
    before = before or {}
    upsert_over(connection, decision, Decided._fields, rows, before)
    due.note(
        connection,
        [
            (one.due_at, one.decided_at, one.person_id)
            for one in rows
            if one.due_at is not None and (one.person_id not in before or before[one.person_id].due_at != one.due_at)
        ],
    )


def save_manual(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Stages that somebody else set: person_id, manual_stage, manual_since."""
    upsert(connection, standing, [{"written": "{}", **row} for row in rows], update=("manual_stage", "manual_since"))


def clear_manual(connection: Connection, person_ids: Sequence[int]) -> None:
    for chunk in in_chunks(person_ids):
        connection.execute(
            update(standing).where(standing.c.person_id.in_(chunk)).values(manual_stage=None, manual_since=None)
        )


def keep_waiting(connection: Connection) -> None:
    """Note who waits for a verdict, as the baseline is made."""
    connection.execute(delete(kept_waiting))
    waiting = select(decision.c.person_id).where(decision.c.waiting)
    connection.execute(insert(kept_waiting).from_select(["person_id"], waiting))


def wait_no_more(connection: Connection, person_ids: Sequence[int]) -> set[int]:
    """Those of these persons who waited since the baseline; numbers ascend. They are noted no longer."""
    if not person_ids:
        return set()
    rows = rows_among(connection, _KEPT_WAITING, kept_waiting.c.person_id, person_ids)
    found = {row.person_id for row in rows}.intersection(person_ids)
    for chunk in in_chunks(sorted(found)):
        connection.execute(delete(kept_waiting).where(kept_waiting.c.person_id.in_(chunk)))
    return found


_KEPT_WAITING = select(kept_waiting)


def addresses_to_ask(
    connection: Connection, now: int, order: Sequence[tuple[str, bool]], limit: int, *, only: int | None = None
) -> list[str]:
    """Distinct addresses whose verdict could change somebody's kind and is missing or due, most valuable first.

    `order` has the (key, descending) pairs of `mappings/validation.yaml`; who lacks the value comes last.
    """
    columns = {
        "score": func.max(decision.c.score),
        "points": func.max(contact.c.points),
        "identified": func.max(contact.c.date_identified),
        "last_active": func.max(contact.c.last_active),
        "added": func.max(contact.c.date_added),
    }
    # Databases do not agree where NULL is sorted.
    by = [
        part
        for key, descending in order
        for part in (columns[key].is_(None), columns[key].desc() if descending else columns[key])
    ]
    query = (
        select(contact.c.address)
        .where(*_askable(only), _unanswered(now))
        .select_from(_ASKING)
        .group_by(contact.c.address)
        .order_by(*by, contact.c.address)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def count_to_ask(connection: Connection, now: int, *, only: int | None = None) -> int:
    addresses = func.count(contact.c.address.distinct())
    query = select(addresses).select_from(_ASKING).where(*_askable(only), _unanswered(now))
    return int(connection.execute(query).scalar() or 0)


def count_answered(connection: Connection, now: int) -> int:
    """Addresses that would be asked, were their verdict not already held."""
    query = select(func.count(contact.c.address.distinct())).select_from(_ASKING).where(*_askable(None), ~_due(now))
    return int(connection.execute(query).scalar() or 0)


_ASKING = decision.join(contact, contact.c.person_id == decision.c.person_id).outerjoin(
    verdict, verdict.c.address == contact.c.address
)


def _askable(only: int | None) -> list[ColumnElement[bool]]:
    asked = [decision.c.asks, contact.c.vanished_at.is_(None), contact.c.address.is_not(None)]
    return asked if only is None else [*asked, contact.c.person_id == only]


def _unanswered(now: int) -> ColumnElement[bool]:
    """Missing or due, and not in a file that is on its way."""
    return and_(_due(now), ~select(uploaded.c.address).where(uploaded.c.address == contact.c.address).exists())


def _due(now: int) -> ColumnElement[bool]:
    return or_(verdict.c.address.is_(None), and_(verdict.c.next_at.is_not(None), verdict.c.next_at <= now))


def planned_arrivals(connection: Connection) -> dict[tuple[str | None, str], int]:
    """(stage now, stage planned) → how many of the planned moves follow a verdict that is newer than the present stage.

    They are the gate's ordinary work: somebody waited, and was answered for.
    """
    rows = connection.execute(
        select(change.c.old, change.c.new)
        .join(contact, contact.c.person_id == change.c.person_id)
        .join(verdict, verdict.c.address == contact.c.address)
        .outerjoin(standing, standing.c.person_id == change.c.person_id)
        .where(
            change.c.state == "planned",
            change.c.target == "contact",
            change.c.baseline.is_(False),
            or_(standing.c.stage_at.is_(None), verdict.c.at >= standing.c.stage_at),
        )
    )
    counted: dict[tuple[str | None, str], int] = {}
    for row in rows:
        new = orjson.loads(row.new)
        if "stage" in new:
            move = (orjson.loads(row.old).get("stage"), new["stage"])
            counted[move] = counted.get(move, 0) + 1
    return counted


def vanished_since(connection: Connection, at: int) -> dict[str, int]:
    """Kind → how many contacts of it were found to be gone at `at` or later."""
    rows = connection.execute(
        select(decision.c.kind, func.count())
        .join(contact, contact.c.person_id == decision.c.person_id)
        .where(contact.c.vanished_at >= at)
        .group_by(decision.c.kind)
    )
    return {row[0]: row[1] for row in rows}


def let_vanished_go(connection: Connection, at: int) -> None:
    """Whoever is gone by now has been counted: only those found from `at` on count again."""
    connection.execute(update(contact).where(contact.c.vanished_at >= at).values(vanished_at=at - 1))
