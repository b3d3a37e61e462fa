"""Where the account of points begins: with the whole history, or with what comes after the first push of points.

Points that are granted at once may fire Mautic's own point triggers, e-mails among them, for things done long ago.
`start: auto` of scoring.yaml therefore looks at the published triggers first. The choice is made over everybody, with
the first push that may grant points, and kept; before that it is made anew, so that a plan tells what a sync would do.
A run for one contact chooses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from mautic_sync.errors import StopError
from mautic_sync.mautic.provisioning import PointTrigger, list_point_groups, list_point_triggers
from mautic_sync.pipeline.context import Run
from mautic_sync.store import changes, decisions, ledger, notes, people

CHOSEN = "points_start"
"""What was chosen last: history or now."""
BEGUN = "points_begun"
"""What was chosen when points began; nothing before that."""
AT_ONCE = 1000
NOT_GRANTED = "history before the start, not granted"
FADED = "history faded"
OTHER_RULES = "history, by other rules"


@dataclass(frozen=True)
class Start:
    """`chosen`, and the published triggers that granting the history could fire; `unknown`: they could not be read."""

    chosen: Literal["history", "now"]
    triggers: tuple[PointTrigger, ...] = ()
    unknown: bool = False

    def as_json(self) -> dict[str, Any]:
        return {"points": self.chosen, "triggers": [asdict(one) for one in self.triggers], "unknown": self.unknown}


def is_open(run: Run, connection: Connection) -> bool:
    """Whether points are to be pushed and have not begun yet. Grants to single contacts are no beginning."""
    return run.mappings.scores.push_to == "points" and notes.get(connection, BEGUN) is None


def grants_to_one(run: Run) -> bool:
    """Whether a run for one contact may grant it points.

    Before points begin only where nobody else could make the choice fall otherwise: with `start: history`, or where
    Mautic has no trigger to fire.
    """
    with run.engine.begin() as connection:
        if not is_open(run, connection):
            return True
    wanted = run.mappings.scores.start
    if wanted == "history" or (wanted == "auto" and _triggers(run) == []):
        return True
    run.tell("points_wait", reason="points begin with the first sync of everybody")
    return False


def choose(run: Run) -> Start:
    """Choose before points begin, everybody being decided.

    With `now`, what was planned to be granted is planned no more; where that was chosen before and is no longer,
    everybody is decided again.
    """
    wanted = run.mappings.scores.start
    triggers = _triggers(run)
    grouped = bool(triggers) and _may_be_on_groups(run)
    with run.engine.begin() as connection:
        most = decisions.most_points(connection)
        fired = tuple(one for one in triggers or () if most is not None and (grouped or one.points <= most))
        chosen: Literal["history", "now"] = "now" if fired or triggers is None else "history"
        start = Start(chosen if wanted == "auto" else wanted, fired, unknown=triggers is None)
        before = notes.get(connection, CHOSEN)
        notes.put(connection, CHOSEN, start.chosen)
        if start.chosen == "now":
            changes.supersede_points(connection, "points begin now", run.now)
        elif before == "now":
            people.mark_everyone_dirty(connection)
    return start


def _triggers(run: Run) -> list[PointTrigger] | None:
    """The triggers that points may fire; None, which is told, where Mautic does not let us read them."""
    try:
        return [one for one in list_point_triggers(run.mautic) if one.published]
    except StopError as error:
        run.tell("triggers_unknown", reason=str(error))
        return None


def _may_be_on_groups(run: Run) -> bool:
    """Whether a trigger may look at the points of a group: which one does, and who has how many there, is not told."""
    try:
        return bool(list_point_groups(run.mautic))
    except StopError:
        return True


def told_too_late(run: Run, connection: Connection) -> str | None:
    """What to say of a `start` that asks for something else than was chosen when points began; None: nothing."""
    wanted, begun = run.mappings.scores.start, notes.get(connection, BEGUN)
    if begun is None or wanted in {"auto", begun} or run.mappings.scores.push_to != "points":
        return None
    how = "with the whole history" if begun == "history" else "without the history before them"
    return f"scoring.yaml, start: `{wanted}` changes nothing any more, for points have begun {how}"


def began_now(connection: Connection) -> bool:
    """Whether there may be history that was not granted."""
    return notes.get(connection, BEGUN) == "now"


def begin(run: Run, connection: Connection) -> None:
    """Points begin as this run chose, if they had not yet. With `now`, everybody's score counts as received."""
    run.grants = True
    if run.start is None:
        return
    notes.put(connection, BEGUN, run.start.chosen)
    if run.start.chosen == "now":
        _open_accounts(run, connection)


def _open_accounts(run: Run, connection: Connection) -> None:
    after = 0
    while True:
        scores = decisions.scores_above(connection, after, AT_ONCE)
        if not scores:
            return
        after = max(scores)
        granted = ledger.granted(connection, sorted(scores))
        rows = {number: score - granted.get(number, 0) for number, score in scores.items()}
        ledger.append(connection, [_line(run, number, delta, NOT_GRANTED) for number, delta in rows.items() if delta])


def let_history_fade(
    run: Run,
    connection: Connection,
    scores: Mapping[int, int],
    granted: dict[int, int],
    *,
    waiting: Collection[int],
    by_other_rules: set[int],
) -> None:
    """What a score loses is first taken from the history that was not granted, and corrected in `granted`.

    Else Mautic would be told to take back points that it never had, as history fades from day to day. What other rules
    took from it they give back to it first: else an edit that is taken back would grant history. `scores` are those of
    now, `granted` the sums of the ledger, `waiting` persons whose points are on the way.
    """
    moving = [
        number
        for number, score in scores.items()
        if number not in waiting
        and (score < granted.get(number, 0) or (number in by_other_rules and score > granted.get(number, 0)))
    ]
    if not moving:
        return
    openings = ledger.openings(connection, moving)
    taken = ledger.openings(connection, sorted(by_other_rules.intersection(moving)), reason=OTHER_RULES)
    rows = []
    for number in moving:
        more = scores[number] - granted.get(number, 0)
        change = max(more, -openings.get(number, 0)) if more < 0 else min(more, -taken.get(number, 0))
        if change:
            granted[number] = granted.get(number, 0) + change
            rows.append(_line(run, number, change, OTHER_RULES if number in by_other_rules else FADED))
    ledger.append(connection, rows)


def _line(run: Run, person_id: int, delta: int, reason: str) -> dict[str, Any]:
    return {
        "person_id": person_id,
        "at": run.now,
        "run_id": run.id,
        "change_id": 0,
        "event_key": ledger.OPENING,
        "delta": delta,
        "reason": reason,
    }
