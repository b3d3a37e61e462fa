"""Who is held because a run was undone: nothing is decided for them until what rules read about them changes.

What their undo has yet to write is looked at again in each run, for nobody decides it anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection

from mautic_sync.domain.contact import DNC_REASONS
from mautic_sync.domain.plan import CONTACT, Change, channel_of
from mautic_sync.domain.undoing import UNDOES, LeftAlone, Shown, Written, inverted, undo_contact, undo_dnc
from mautic_sync.pipeline.context import Run
from mautic_sync.store import changes, decisions, holds, people
from mautic_sync.store.text import dump

if TYPE_CHECKING:
    from mautic_sync.pipeline.decide import Considered

PERSONS_AT_ONCE = 500
UNWANTED = "it was not done, and the person is held since"
MANUAL = next(number for number, word in DNC_REASONS.items() if word == "manual")


def digest_of(run: Run, one: Considered) -> str:
    """A digest of a person's signals, without those that we write ourselves: no rule may read them."""
    signals, mappings = one.signals, run.mappings
    ours = {*mappings.fields.write, *mappings.validation.append, mappings.validation.typo_field}
    ours |= {alias for rule in mappings.action_rules.rules for alias in rule.do.fields}
    verdict = signals.verdict
    told = {
        "fields": {alias: value for alias, value in signals.fields.items() if alias not in ours},
        "tags": sorted(signals.tags - mappings.written_tags),
        "members": [sorted(signals.segments), sorted(signals.campaigns)],
        "dnc": {channel: reason for channel, reason in signals.dnc.items() if reason != MANUAL},
        "evidence": {key: list(times) for key, times in signals.evidence.items()},
        "tallies": {key: list(days) for key, days in signals.tallies.items()},
        "verdict": [verdict.status, verdict.sub_status],
        "active": signals.last_active if mappings.reads_idle else None,
    }
    return hashlib.blake2b(dump(told).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def still_held(run: Run, connection: Connection, considered: Sequence[Considered]) -> frozenset[int]:
    """Those of these persons who stay held; whoever has other signals than when the hold began is let go.

    Other rules read other signals: a hold that began under other rules begins anew, and goes on.
    """
    rows = holds.held_among(connection, [one.row.person_id for one in considered])
    if not rows:
        return frozenset()
    let_go, renewed = [], []
    for one in considered:
        row = rows.get(one.row.person_id)
        if row is None:
            continue
        digest = digest_of(run, one)
        if row.rules != run.mappings.fingerprint:
            began = {name: getattr(row, name) for name in ("person_id", "run_id", "undone", "at")}
            renewed.append({**began, "digest": digest, "rules": run.mappings.fingerprint})
        elif row.digest != digest:
            let_go.append(row.person_id)
    holds.hold(connection, renewed)
    holds.let_go(connection, let_go)
    if let_go:
        run.tell("let_go", persons=len(let_go))
    return frozenset(rows.keys() - set(let_go))


def plan_anew(run: Run, connection: Connection, rows: Sequence[Any], reason: str) -> None:
    """These changes were in doubt and came to nothing: they are sent again, but not to whom a run was undone since.

    An undo drops what it finds planned, too, but for do-not-contact that Mautic had lost.
    """
    if not rows:
        return
    held = holds.held_among(connection, sorted({row.person_id for row in rows}))
    unwanted = {row.id for row in rows if row.person_id in held and not _goes_on(row)}
    changes.supersede(connection, list(unwanted), UNWANTED, run.now)
    changes.try_again(connection, [row.id for row in rows if row.id not in unwanted], reason)


def _goes_on(row: Any) -> bool:
    new = orjson.loads(row.new)
    return UNDOES in new or (channel_of(row.target) is not None and "verdict" not in new)


def shown_of(run: Run, row: Any) -> Shown:
    """The contact of a row of `decisions.persons`, as Mautic showed it when it was last read."""
    stage = None if row.stage_id is None else run.stage_names.get(row.stage_id, f"#{row.stage_id}")
    written = decisions.standing_of(row).written
    return Shown(stage, orjson.loads(row.fields), frozenset(orjson.loads(row.tags)), written)


def leave_alone_what_changed(run: Run) -> None:
    """Drop from what undos have yet to write whatever Mautic no longer shows as they found it: it is somebody else's."""
    after = 0
    while True:
        with run.engine.begin() as connection:
            # Where nobody is held, no million of planned changes is looked through for their persons.
            rows = changes.planned_of_held(connection, after, PERSONS_AT_ONCE) if holds.anybody(connection) else []
            if not rows:
                return
            after = rows[-1].id
            numbers = sorted({row.person_id for row in rows})
            there = {row.person_id: row for row in decisions.persons(connection, numbers)}
            current, own_dnc = people.current_ids(connection, numbers), decisions.own_dnc(connection, numbers)
            for row in rows:
                person = there.get(row.person_id)
                if person is None or UNDOES not in orjson.loads(row.new):
                    continue
                left = _look_again(run, connection, row, person, own=row.person_id in own_dnc)
                for what, why in left:
                    run.tell("undo_left_alone", contact=current.get(row.person_id), what=what, why=why)


def _look_again(run: Run, connection: Connection, row: Any, person: Any, *, own: bool) -> list[LeftAlone]:
    """Bring one planned change of an undo to what still can go back; returns what is left alone."""
    old, new = orjson.loads(row.old), orjson.loads(row.new)
    undone, channel = new[UNDOES], channel_of(row.target)
    fresh: Change | None
    if row.target == CONTACT:
        # The run did the reverse of it: from what shall be there again to what the undo found.
        did = Written(verdict=new.get("verdict", ""))
        did.add(new, {**old, "tags": inverted(new.get("tags", ())), "flags": inverted(new.get("flags", ()))})
        # A stage that is gone from Mautic is refused when it is sent, and waits for `retry`.
        stages = [new["stage"]] if new.get("stage") else []
        fresh, left = undo_contact(did, shown_of(run, person), stages=stages, undone=undone, value=row.value)
    elif channel is not None:
        present = orjson.loads(person.dnc).get(channel)
        ours = own or not new.get("verdict")  # what an action set is nobody's verdict
        did_dnc = {**new, "reason": old["reason"]}
        fresh, left = undo_dnc(row.target, new, did_dnc, present=present, ours=ours, undone=undone)
    else:
        return []
    if fresh is None:
        why = "; ".join(f"{one.what} {one.why}" for one in left) or "Mautic shows it already"
        changes.supersede(connection, [row.id], f"left alone by the undo: {why}", run.now)
    elif fresh.new != new:
        changes.plan_otherwise(connection, row.id, fresh)
    return left
