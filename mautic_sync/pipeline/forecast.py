"""Everybody decided as of another time, without storing anything: what time alone would do."""

from __future__ import annotations

from typing import Any

from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.decide import PERSONS_PER_TRANSACTION, consider, deciding_by
from mautic_sync.pipeline.run import all_kinds, iso, moves_as_json
from mautic_sync.store import decisions, people


def as_of(run: Run, moment: int, limit: int) -> dict[str, Any]:
    """The document of `plan --as-of`: like a plan, from the decisions of now to those of `moment`."""
    moves: dict[tuple[str | None, str], int] = {}
    kinds: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    total = after = 0
    while True:
        with run.engine.begin() as connection:
            rows = decisions.to_decide(connection, after, PERSONS_PER_TRANSACTION, everyone=True)
            if not rows:
                break
            after = rows[-1].person_id
            considered = consider(deciding_by(run), connection, rows, moment)
            moved = [one for one in considered if one.decision.stage != one.row.stage]
            numbers = people.current_ids(connection, [one.row.person_id for one in moved[: limit - len(listed)]])
        for one in considered:
            kinds[one.decision.kind] = kinds.get(one.decision.kind, 0) + 1
        for one in moved:
            total += 1
            move = (one.row.kind, one.decision.kind)
            moves[move] = moves.get(move, 0) + 1
            if len(listed) < limit:
                listed.append(
                    {
                        "contact": numbers.get(one.row.person_id),
                        "target": "contact",
                        "old": {"stage": one.row.stage},
                        "new": {"stage": one.decision.stage},
                        "reason": one.decision.reason,
                        "state": "forecast",
                    }
                )
    return {
        "as_of": iso(moment),
        "changes": total,
        "moves": moves_as_json(moves),
        "kinds": all_kinds(kinds),
        "verdicts_to_buy": 0,
        "verdicts_needed": 0,
        "listed": listed,
        "quarantined": run.counts.quarantined,
    }
