"""Everybody decided as of another time, without storing anything: what time alone would do."""

from __future__ import annotations

from typing import Any

import orjson

from mautic_sync.domain.plan import CONTACT, GROUP, VALUE_OF_KIND, Change, plan_groups
from mautic_sync.pipeline import waiting
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.decide import PERSONS_PER_TRANSACTION, Considered, consider, deciding_by, points_change
from mautic_sync.pipeline.run import all_kinds, iso, moves_as_json
from mautic_sync.store import decisions, people


def as_of(run: Run, moment: int, limit: int) -> dict[str, Any]:
    """The document of `plan --as-of`: like a plan, from the decisions of now to those of `moment`."""
    moves: dict[tuple[str | None, str], int] = {}
    kinds: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    total = contacts = ghosts = after = 0
    while True:
        with run.engine.begin() as connection:
            rows = decisions.to_decide(connection, after, PERSONS_PER_TRANSACTION, everyone=True)
            if not rows:
                break
            after = rows[-1].person_id
            considered = consider(deciding_by(run), connection, rows, moment)
            found = [(one, _changes(run, one)) for one in considered]
            moved = [(one, changed) for one, changed in found if changed]
            numbers = people.current_ids(connection, [one.row.person_id for one, _ in moved[: limit - len(listed)]])
        for one in considered:
            kinds[one.decision.kind] = kinds.get(one.decision.kind, 0) + 1
        for one, changed in moved:
            contacts += 1
            if one.decision.stage != one.row.stage:
                move = (one.row.kind, one.decision.kind)
                moves[move] = moves.get(move, 0) + 1
            for change in changed:
                total += 1
                ghosts += change.value <= VALUE_OF_KIND["ghost"]
                if len(listed) < limit:
                    listed.append(
                        {
                            "contact": numbers.get(one.row.person_id),
                            "target": change.target,
                            "old": change.old,
                            "new": change.new,
                            "reason": change.reason,
                            "state": "forecast",
                            "points": one.row.points,
                        }
                    )
    with run.engine.begin() as connection:
        eta = waiting.eta(connection, run.settings.push, total, ghosts=ghosts)
    return {
        "as_of": iso(moment),
        "changes": total,
        **eta,
        "contacts": contacts,
        "moves": moves_as_json(moves),
        "kinds": all_kinds(kinds),
        "actions": [],
        "verdicts_to_buy": 0,
        "verdicts_needed": 0,
        "listed": listed,
        "quarantined": run.counts.quarantined,
    }


def _changes(run: Run, one: Considered) -> list[Change]:
    """From the decision of now to that of the other time: stage, and points where they are pushed."""
    decision, value, scores = one.decision, VALUE_OF_KIND[one.decision.kind], run.mappings.scores
    found = []
    if decision.stage != one.row.stage:
        found.append(Change(CONTACT, {"stage": one.row.stage}, {"stage": decision.stage}, decision.reason, value))
    points = points_change(one, one.row.score or 0, scores) if scores.push_to == "points" else None
    now = {f"{GROUP}{name}": (score, 0) for name, score in orjson.loads(one.row.scores or "{}").items()}
    groups = plan_groups(one.score.groups, scores.push_groups, now, 0, value)
    return [*found, *(one for one in (points, groups) if one is not None)]
