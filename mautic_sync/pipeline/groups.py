"""Sub-scores in Mautic's point groups of the same name: absolute values, so that a call may be repeated.

What was settled is kept with the person, and only what differs from it is written. docs/mautic.md: "Writing".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection

from mautic_sync.domain.plan import VALUE_OF_KIND, Change, plan_groups
from mautic_sync.domain.scoring import ScoreRules
from mautic_sync.errors import ConfigError, MalformedError, RefusedError, UnreadableError
from mautic_sync.mautic.points import GroupsSet, group_points, set_group_points
from mautic_sync.mautic.provisioning import list_point_groups
from mautic_sync.mautic.writes import Doubtful, Gone, Refused
from mautic_sync.pipeline.context import MOST_ATTEMPTS, Run
from mautic_sync.pipeline.flights import ask_for_anybody
from mautic_sync.pipeline.holding import plan_anew
from mautic_sync.store import changes, notes, people

if TYPE_CHECKING:
    from mautic_sync.pipeline.decide import Considered

EPOCH = "groups_epoch"
"""Counts how often Mautic or the store was set back to a backup: Mautic may have something else than what was settled."""


def read(run: Run) -> None:
    """Find the point groups that the mappings name, by name without regard to letter case.

    Raises ConfigError where this Mautic has no point groups at all.
    """
    wanted = run.mappings.scores.push_groups
    if not wanted:
        return
    present = list_point_groups(run.mautic)
    if present is None:
        version = f"This Mautic is {run.mautic.version}" if run.mautic.version else "This Mautic is too old"
        msg = (
            f"{version} and has no point groups, which came with 5.0: update Mautic, or leave push.groups in "
            "scoring.yaml empty."
        )
        raise ConfigError(msg)
    published = {one.name: one.id for one in reversed(present) if one.published}
    folded = {name.casefold(): number for name, number in published.items()}
    found = {name: published.get(name, folded.get(name.casefold())) for name in wanted}
    run.group_ids = {name: number for name, number in found.items() if number is not None}


def epoch(connection: Connection) -> int:
    return int(notes.get(connection, EPOCH) or 0)


def begin_epoch(run: Run, connection: Connection) -> None:
    """Mautic or the store was set back to a backup: whatever was written to a point group is written again."""
    notes.put(connection, EPOCH, str(epoch(connection) + 1))
    if run.mappings.scores.push_groups:
        people.mark_everyone_dirty(connection)


def change_of(one: Considered, scores: ScoreRules, now_epoch: int) -> Change | None:
    """The sub-scores that Mautic's point groups do not have yet."""
    value = VALUE_OF_KIND[one.decision.kind]
    return plan_groups(one.score.groups, scores.push_groups, one.standing.written, now_epoch, value)


def _sent(run: Run, row: Any) -> dict[str, Any]:
    """What goes out of a change: groups that went from Mautic or the mappings since it was planned are left out."""
    new = orjson.loads(row.new)
    return {**new, "groups": {name: score for name, score in new["groups"].items() if name in run.group_ids}}


def _by_id(run: Run, row: Any) -> dict[int, int]:
    return {run.group_ids[name]: score for name, score in _sent(run, row)["groups"].items()}


def send(run: Run, row: Any) -> GroupsSet | Refused | Gone | Doubtful:
    """Set the scores of one intent."""
    return set_group_points(run.mautic, row.mautic_id, _by_id(run, row))


def settle(run: Run, connection: Connection, rows: Sequence[Any]) -> None:
    """Mautic has these scores: close the changes, and remember what stands."""
    sent = {row.id: _sent(run, row) for row in rows}
    changes.settle(connection, rows, echoes={}, kinds=run.kinds_ever, run_id=run.id, now=run.now, sent=sent)
    run.counts.groups += sum(len(one["groups"]) for one in sent.values())


def _stands(run: Run, row: Any) -> bool | None:
    """Whether Mautic shows these scores; None: it has no such contact. What it cannot show of one contact is not shown."""
    try:
        shown = group_points(run.mautic, row.mautic_id)
    except MalformedError:
        return False
    except (UnreadableError, RefusedError):
        ask_for_anybody(run.mautic)
        return False
    return None if shown is None else all(shown.get(number, 0) == score for number, score in _by_id(run, row).items())


def settle_doubts(run: Run) -> None:
    """Look up scores whose answer was lost; those that do not show after `mautic.settle_after` are sent again."""
    with run.engine.begin() as connection:
        rows = changes.doubtful_groups(connection)
    if not rows:
        return
    done: list[Any] = []
    again: list[Any] = []
    hopeless: list[Any] = []
    gone: list[Any] = []
    for row in rows:
        stands = _stands(run, row)
        if stands is None:
            gone.append(row)
        elif stands:
            done.append(row)
        elif run.is_overdue(row):
            (hopeless if row.attempts >= MOST_ATTEMPTS else again).append(row)
    with run.engine.begin() as connection:
        settle(run, connection, done)
        plan_anew(run, connection, again, "not found in Mautic: it was not done")
        changes.supersede(connection, [row.id for row in gone], "the contact was deleted in Mautic", run.now)
        people.mark_dirty(connection, {row.person_id for row in (*done, *again)})
        for row in hopeless:
            told = f"Mautic does not keep these group scores: sent {row.attempts} times and never found there"
            changes.refuse(connection, row.id, told, run.now)
            run.counts.failed += 1
            run.tell("refused", contact=row.mautic_id, status=None, reason=told)
    waiting = len(rows) - len(done) - len(again) - len(hopeless) - len(gone)
    run.tell("groups_doubts", settled=len(done), not_done=len(again) + len(hopeless), waiting=waiting)
