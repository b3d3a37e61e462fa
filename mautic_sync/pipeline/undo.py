"""The reverse of a run: what is still as it made it goes back to what it was, and those people are held.

An undo is a run like any other: what it will write is planned together with the hold, in one transaction for each few
hundred persons, and then pushed as intents. So it can be killed at any moment: the same command, or the next sync,
goes on where it was. docs/delivery.md: "Undo".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, Engine

from mautic_sync.domain.actions import HOT, flag_edit, occasion_of
from mautic_sync.domain.plan import CONTACT, DNC, GROUPS, POINTS, Change
from mautic_sync.domain.undoing import UNDOES, LeftAlone, Written, inverted, undo_contact, undo_dnc, undo_points
from mautic_sync.errors import ConfigError
from mautic_sync.mautic.transport import refuse_old
from mautic_sync.pipeline import pull, push
from mautic_sync.pipeline.actions import FIELD, NOTIFY
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.decide import MANUAL_DNC, VALUE_OF_LOST_DNC, consider, deciding_by
from mautic_sync.pipeline.holding import digest_of, shown_of
from mautic_sync.pipeline.run import Options, prepare
from mautic_sync.store import actions, changes, decisions, holds, ledger, people, runs

PERSONS_AT_ONCE = 500
ON_THE_WAY = "a write to it is on its way or in doubt; undo again when it is answered for"


@dataclass(frozen=True)
class Reversal:
    """What goes back for one person, and what does not."""

    person_id: int
    contact: int | None
    back: tuple[Change, ...] = ()
    left: tuple[LeftAlone, ...] = ()
    carried_out: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Rule → parts of actions that nobody can take back."""
    points: int = 0
    """What Mautic shows now."""


@dataclass
class Found:
    """What an undo would do: totals, and the first of each for people to read."""

    undone: str
    changes: int = 0
    contacts: int = 0
    unfinished: int = 0
    """Actions that the run set off and nobody has begun."""
    left: int = 0
    actions: int = 0
    listed: list[dict[str, Any]] = field(default_factory=list)
    left_alone: list[dict[str, Any]] = field(default_factory=list)
    carried_out: list[dict[str, Any]] = field(default_factory=list)

    def add(self, reversals: Iterable[Reversal], limit: int) -> None:
        """Count these, and list as many as the limit leaves room for."""
        for one in reversals:
            self.changes += len(one.back)
            self.contacts += bool(one.back)
            self.left += len(one.left)
            for change in one.back[: max(0, limit - len(self.listed))]:
                self.listed.append(_as_json(one, change))
            for what, why in one.left[: max(0, limit - len(self.left_alone))]:
                self.left_alone.append({"contact": one.contact, "what": what, "why": why})
            self.actions += len(one.carried_out)
            for rule, parts in one.carried_out[: max(0, limit - len(self.carried_out))]:
                self.carried_out.append({"contact": one.contact, "rule": rule, "done": list(parts)})

    def as_json(self) -> dict[str, Any]:
        return {
            "undoes": self.undone,
            "changes": self.changes,
            "contacts": self.contacts,
            "actions_taken_back": self.unfinished,
            "listed": self.listed,
            "left_alone": {"count": self.left, "listed": self.left_alone},
            "cannot_be_undone": {"count": self.actions, "listed": self.carried_out},
        }


def look(run: Run, undone: str, limit: int) -> Found:
    """Read what is new, and tell what an undo would write; writes nothing to Mautic and plans nothing.

    Raises ConfigError for a run that the store does not know.
    """
    with run.engine.begin() as connection:
        if runs.get_run(connection, undone) is None:
            last = [row["id"] for row in runs.last_runs(connection, 2) if row["id"] != run.id]
            msg = f"there is no run {undone}" + (f"; the last one is {last[0]}" if last else "")
            raise ConfigError(f"{msg}. `mautic-sync status` lists them.")
    prepare(run, Options())
    refuse_old(run.mautic.version)
    push.settle_doubts(run)
    found = Found(undone)
    for reversals in _reversals(run, undone):
        found.add(reversals, limit)
    with run.engine.begin() as connection:
        found.unfinished = actions.count_unbegun(connection, undone)
    return found


def carry_out(run: Run, undone: str, limit: int = 0) -> tuple[Found, int]:
    """Plan the reverse, hold those people, and push. Returns what it found, as `look` does, and how many of the planned
    writes are still to be made.

    What `undone` set off and nobody has begun is taken back, with what was decided of it (hot, low value).
    """
    # The question may have waited for hours: what people changed in Mautic meanwhile is theirs.
    pull.pull_changes(run)
    found = Found(undone)
    with run.engine.begin() as connection:
        found.unfinished = actions.count_unbegun(connection, undone)
        taken_back = actions.take_back_of_run(connection, undone, run.now)
        _edit_flags(connection, {number: inverted(flags) for number, flags in taken_back.items()})
    after = 0
    while True:
        with run.engine.begin() as connection:
            numbers = _next_persons(connection, undone, after)
            if not numbers:
                break
            after = numbers[-1]
            reversals = _reversals_of(run, connection, undone, numbers)
            back = {one.person_id: one for one in reversals if one.back}
            _let_go_of_earlier(run, connection, undone, [number for number in numbers if number not in back])
            _plan(run, connection, undone, back)
        found.add(reversals, limit)
        run.tell("undo_planned", persons=len(back))
    push.push_planned_by(run)
    with run.engine.begin() as connection:
        return found, changes.count_planned_by(connection, run.id)


def _reversals(run: Run, undone: str) -> Iterator[list[Reversal]]:
    after = 0
    while True:
        with run.engine.begin() as connection:
            numbers = _next_persons(connection, undone, after)
            if not numbers:
                return
            after = numbers[-1]
            found = _reversals_of(run, connection, undone, numbers)
        yield found


def _next_persons(connection: Connection, undone: str, after: int) -> list[int]:
    """The next to whom the run wrote or did something, by number."""
    written = changes.next_written_by(connection, undone, after, PERSONS_AT_ONCE)
    return sorted({*written, *actions.next_done_by(connection, undone, after, PERSONS_AT_ONCE)})[:PERSONS_AT_ONCE]


def _reversals_of(run: Run, connection: Connection, undone: str, numbers: Sequence[int]) -> list[Reversal]:
    """What goes back for these persons, who ascend."""
    written = changes.written_by(connection, undone, numbers)
    there = {row.person_id: row for row in decisions.persons(connection, numbers)}
    open_now = decisions.open_changes(connection, numbers)
    current = people.current_ids(connection, numbers)
    own_dnc = decisions.own_dnc(connection, numbers)
    done = actions.done_by(connection, undone, numbers)
    accounts = _Accounts(connection, written)
    found = []
    for number in numbers:
        rows, acts = written.get(number, []), done.get(number, [])
        if number not in there:
            gone = tuple(LeftAlone(target, "deleted in Mautic") for target in sorted({row.target for row in rows}))
            found.append(Reversal(number, current.get(number), left=gone))
            continue
        person = _Person(run, undone, there[number], own=number in own_dnc)
        back: list[Change] = []
        left: list[LeftAlone] = []
        for change, some in person.reverse(rows, acts, accounts):
            left += some
            if change is None:
                continue
            on_the_way = open_now.get((number, change.target))
            if on_the_way is not None and on_the_way.state != changes.PLANNED:
                left.append(LeftAlone(change.target, ON_THE_WAY))
            else:
                back.append(change)
        told = {one.what for one in left} | {change.target for change in back}
        left += [
            LeftAlone(target, ON_THE_WAY)
            for (who, target), row in open_now.items()
            if who == number and row.settled_run == undone and target not in told
        ]
        lasting = tuple((act["rule"], parts) for act in acts if (parts := _lasting(act["done"])))
        found.append(Reversal(number, current.get(number), tuple(back), tuple(left), lasting, person.points))
    return found


def _edits(done: Mapping[str, Any]) -> list[str]:
    """The tags that an action really gave or took, as an edit has them."""
    tags = done.get("tags")
    return tags if isinstance(tags, list) else []


def _dnc_set(done: Mapping[str, Any]) -> Iterator[tuple[str, int | None, int | None]]:
    """(target, reason before, reason after) of the do-not-contacts that an action really set or took back."""
    for part, happened in done.items():
        kind, _, rest = part.partition(":")
        if kind == "dnc" and happened:
            action, _, channel = rest.partition(":")
            before, after = (None, MANUAL_DNC) if action == "add" else (MANUAL_DNC, None)
            yield f"{DNC}{channel}", before, after


def _lasting(done: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts of an action that are not taken back: whatever is not tags and do-not-contact."""
    parts = {"message" if part.startswith(NOTIFY) else "fields" if part.startswith(FIELD) else part for part in done}
    return tuple(sorted(part for part in parts if part != "tags" and not part.startswith(DNC)))


class _Accounts:
    """What a run granted, and what the account of each person has had since."""

    def __init__(self, connection: Connection, written: Mapping[int, Sequence[Any]]) -> None:
        keys = {number: {row.event_key for row in rows if row.target == POINTS} for number, rows in written.items()}
        having = sorted(number for number, some in keys.items() if some)
        self.granted = ledger.granted(connection, having)
        self.by_run: dict[int, int] = {}
        self.since: dict[int, int] = {}
        for number, lines in ledger.lines_of(connection, having).items():
            ours = [line for line in lines if line.event_key in keys[number]]
            self.by_run[number] = sum(line.delta for line in ours)
            self.since[number] = sum(
                line.delta
                for line in lines
                if ours and line.id > ours[0].id and line.event_key not in {*keys[number], ledger.OPENING}
            )

    def reverse(self, number: int, undone: str, value: int) -> tuple[Change | None, list[LeftAlone]]:
        """A later run that was undone itself counts for nothing; what it took back is as before."""
        by_run, since = self.by_run.get(number, 0), self.since.get(number, 0)
        if since == -by_run:
            return None, []
        if since:
            return None, [LeftAlone(POINTS, "a later run has changed them; undo that one first")]
        return undo_points(self.granted.get(number, 0), by_run, undone, value), []


class _Person:
    """One person as Mautic shows it now, and what of a run can be taken back there."""

    def __init__(self, run: Run, undone: str, row: Any, *, own: bool) -> None:
        self.run = run
        self.undone = undone
        self.number = row.person_id
        self.own = own
        self.points: int = row.points
        self.shown = shown_of(run, row)
        self.dnc: Mapping[str, int] = orjson.loads(row.dnc)

    def reverse(
        self, rows: Sequence[Any], acts: Sequence[Mapping[str, Any]], accounts: _Accounts
    ) -> Iterator[tuple[Change | None, Sequence[LeftAlone]]]:
        """The reverse of these changes and actions, one for each target."""
        by_target: dict[str, list[Any]] = {CONTACT: []} if any(_edits(act["done"]) for act in acts) else {}
        for row in rows:
            by_target.setdefault(row.target, []).append(row)
        for target, some in by_target.items():
            if target == POINTS:
                yield accounts.reverse(self.number, self.undone, some[-1].value)
            elif any(row.person_id != self.number for row in some):
                yield None, [LeftAlone(target, "merged in Mautic since")]
            elif target == CONTACT:
                yield self._contact(some, acts)
            elif target == GROUPS:
                yield None, [LeftAlone(target, "point groups show the scores of now: the next change sets them")]
            else:
                first, last = orjson.loads(some[0].old), orjson.loads(some[-1].new)
                present = self.dnc.get(target.partition(":")[2])
                yield undo_dnc(target, first, last, present=present, ours=self.own, undone=self.undone)
        for act in acts:
            for target, before, after in _dnc_set(act["done"]):
                if target not in by_target:
                    present = self.dnc.get(target.partition(":")[2])
                    old, new = {"reason": before}, {"reason": after, "verdict": ""}
                    yield undo_dnc(target, old, new, present=present, ours=True, undone=self.undone)

    def _contact(self, rows: Sequence[Any], acts: Sequence[Mapping[str, Any]]) -> tuple[Change | None, list[LeftAlone]]:
        written = Written()
        for row in rows:
            written.add(orjson.loads(row.old), orjson.loads(row.new))
        for act in acts:
            tags, flag = _edits(act["done"]), flag_edit(act["occasion"])
            # What came with a flag that goes may have been taken by another action before.
            counts = flag is not None and (tags or flag.startswith("-"))
            written.add({}, {"tags": tags, "flags": [flag] if counts else []})
        value = max([row.value for row in rows] + [act["value"] for act in acts])
        return undo_contact(written, self.shown, stages=self.run.stage_ids, undone=self.undone, value=value)


def _let_go_of_earlier(run: Run, connection: Connection, undone: str, numbers: Sequence[int]) -> None:
    """For these nothing goes back any more: what the same undo, cut short, had planned for them is closed."""
    earlier = {
        key: row
        for key, row in decisions.open_changes(connection, numbers).items()
        if orjson.loads(row.new).get(UNDOES) == undone
    }
    changes.plan_changes(connection, numbers, {}, earlier, run_id=run.id, now=run.now, baseline=True)


def _plan(run: Run, connection: Connection, undone: str, back: Mapping[int, Reversal]) -> None:
    """Store what will be written, and hold these persons as they were before the run."""
    numbers = sorted(back)
    wanted = {(number, change.target): change for number in numbers for change in back[number].back}
    open_now = {
        key: row
        for key, row in decisions.open_changes(connection, numbers).items()
        if key in wanted or not _stays(row, undone)
    }
    changes.plan_changes(connection, numbers, wanted, open_now, run_id=run.id, now=run.now, baseline=True)
    changes.take_over(connection, numbers, undone, run.id)
    considered = consider(deciding_by(run), connection, decisions.persons(connection, numbers), run.now)
    holds.hold(
        connection,
        [
            {
                "person_id": one.row.person_id,
                "run_id": run.id,
                "undone": undone,
                "at": run.now,
                "digest": digest_of(run, one),
                "rules": run.mappings.fingerprint,
            }
            for one in considered
        ],
    )
    decisions.put_back(connection, _places(run, wanted), f"undo of {undone}")
    # A tag goes back together with the flag that stands for it: else nobody would take it away, or give it, again.
    edits = {number: change.new["flags"] for (number, _), change in wanted.items() if "flags" in change.new}
    _let_same_news_go(run, connection, edits)
    _edit_flags(connection, edits)


def _let_same_news_go(run: Run, connection: Connection, edits: Mapping[int, Collection[str]]) -> None:
    """Who is hot again by the undo needs no action that was to say the same; if it waited, the end of hot would end it alone."""
    persons: dict[str, list[int]] = {}
    for number, some in edits.items():
        for edit in some:
            if (occasion := occasion_of(edit)) is not None:
                persons.setdefault(occasion, []).append(number)
    for occasion, numbers in sorted(persons.items()):
        actions.take_back(connection, occasion, numbers, run.now, run_id=run.id)


def _edit_flags(connection: Connection, edits: Mapping[int, Collection[str]]) -> None:
    decisions.edit_flags(connection, edits, actions.last_set_off(connection, HOT, edits))


def _stays(row: Any, undone: str) -> bool:
    """Do-not-contact that a merge lost is put back whatever happens, and the undo of another run has its own changes."""
    return row.value >= VALUE_OF_LOST_DNC or orjson.loads(row.new).get(UNDOES) not in {None, undone}


def _places(run: Run, wanted: Mapping[tuple[int, str], Change]) -> dict[int, tuple[str, str]]:
    """Person → stage and kind as they are before the run's; without a stage of ours, those of everybody else."""
    otherwise = run.mappings.stages.stages[-1]
    found = {}
    for (number, target), change in wanted.items():
        if target == CONTACT and "stage" in change.new:
            stage = change.new["stage"] if change.new["stage"] in run.kinds_ever else otherwise.name
            found[number] = (stage, run.kinds_ever[stage])
    return found


def _as_json(one: Reversal, change: Change) -> dict[str, Any]:
    return {
        "contact": one.contact,
        "target": change.target,
        "old": dict(change.old),
        "new": dict(change.new),
        "reason": change.reason,
        "state": changes.PLANNED,
        "points": one.points,
    }


def release(engine: Engine, person_ids: Collection[int] | None) -> int:
    """Let these persons go, or everybody: they are decided again by the next run. Returns how many were held."""
    released, after = 0, 0
    while True:
        with engine.begin() as connection:
            numbers = holds.next_held(connection, after, PERSONS_AT_ONCE) if person_ids is None else list(person_ids)
            released += holds.let_go(connection, numbers)
        if person_ids is not None or not numbers:
            return released
        after = numbers[-1]
