"""Store → decisions and planned changes, by the pure rules; up to 1,000 persons in one transaction."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from mautic_sync.domain.actions import ENDS, HOT, LOW_VALUE, NO_FLAGS, flags_text, read_flags
from mautic_sync.domain.classification import Decision, NotAsked, Previous, StageRules, needs_verdict
from mautic_sync.domain.conditions import Condition
from mautic_sync.domain.contact import NO_VERDICT, NOTHING, Catalogue, Kind, Signals
from mautic_sync.domain.countries import mautic_country
from mautic_sync.domain.grammar import TOTAL
from mautic_sync.domain.judgement import SYNTAX_REJECT, judge
from mautic_sync.domain.plan import (
    CONTACT,
    DNC,
    EMAIL_DNC,
    GROUPS,
    NOTHING_STANDS,
    POINTS,
    VALUE_OF_DNC,
    VALUE_OF_KIND,
    Change,
    StagePlan,
    Standing,
    plan_contact,
    plan_points,
    plan_stage,
)
from mautic_sync.domain.scoring import (
    COLD,
    Flags,
    Part,
    Score,
    ScoreRules,
    reasons_due_at,
    reasons_text,
    score,
    sooner,
)
from mautic_sync.domain.undoing import UNDOES
from mautic_sync.domain.validation import Verdict
from mautic_sync.mappings import Mappings, Templates
from mautic_sync.pipeline import groups, occasions, opening
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.holding import still_held
from mautic_sync.pipeline.placeholders import Placeholders, placeholders_of
from mautic_sync.store import actions, changes, decisions, due, holds, ledger, notes, people, runs, verdicts
from mautic_sync.store.decisions import Place

PERSONS_PER_TRANSACTION = 1000
COLLECT_AFTER = 50_000  # objects more
BASELINE = "baseline"
"""When the first push was, and by which run."""
LOOP_GUARD = "loop_guard"
MANUAL_DNC = 3
VALUE_OF_LOST_DNC = 500
NOBODYS: frozenset[str] = frozenset()
NOBODY: frozenset[int] = frozenset()
NOBODY_UNTOLD: Mapping[int, Place] = {}
NOBODY_UNHEARD: Mapping[int, Flags] = {}
NO_ANSWER = (None, None)


@dataclass(frozen=True)
class Deciding:
    """What decides besides the person: the rules bound to this Mautic, its names, and whether the gate stands open."""

    mappings: Mappings
    catalogue: Catalogue
    stage_names: Mapping[int, str]
    gate_open: bool


class Considered(NamedTuple):
    """One person with the decision, and what was read to make it."""

    row: Any
    signals: Signals
    verdict: Verdict | None
    standing: Standing
    score: Score
    flags: Flags
    decision: Decision
    asks: bool
    parts: Sequence[Part]
    """What each rule gives of the score."""
    named: tuple[str, ...]
    """Flags of the conditions of actions that are true."""
    told_due_at: int | None
    """When time could change one of these, what fields tell of the score, or whether `only_if` lets us ask."""
    verdict_run: str | None
    """The run that asked for the verdict."""
    not_asked: NotAsked | None
    """Why nobody asks for a verdict that would matter."""

    @property
    def flags_text(self) -> str:
        """The flags as they are kept."""
        return flags_text(self.flags.hot, self.flags.low_value, self.named)

    def due_at(self, planned: StagePlan) -> int | None:
        """When time alone could change anything of what is decided, with this plan for the stage."""
        due_at = self.decision.due_at
        for at in (planned.due_at, self.score.due_at, self.flags.due_at, self.told_due_at):
            if at is not None and (due_at is None or at < due_at):
                due_at = at
        return due_at


@dataclass(frozen=True)
class FirstPush:
    """The baseline: what it knew is nobody's transition, unless it was told to act."""

    at: int = 0
    run_id: str = ""
    with_actions: bool = False

    def knew(self, one: Considered) -> bool:
        if one.verdict is None:  # rejected by its syntax: whoever was there was looked at
            return (one.row.date_added or 0) < self.at
        return one.verdict_run == self.run_id or one.verdict.at < self.at


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Deciding makes no circular garbage: to look for some among what a batch is made of took a twelfth of its time."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_collecting_seldom()
def decide_changed(run: Run, *, baseline: bool) -> int:
    """Decide whoever changed or is due, and plan what Mautic should show. Returns how many were decided."""
    with run.engine.begin() as connection:
        due.mark(connection, run.now)
        _let_go_of_loops(run, connection)
        first_push = FirstPush(**(notes.get_json(connection, BASELINE) or {}))
        calm = decisions.last_transition(connection) <= run.now - run.mappings.stages.loop_guard.within
        holding = holds.anybody(connection)
    writing = _Writing.of(run)
    after = total = 0
    while True:
        with run.engine.begin() as connection:
            rows = decisions.to_decide(connection, after, PERSONS_PER_TRANSACTION)
            if not rows:
                return total
            after = rows[-1].person_id
            open_now = decisions.open_changes(connection, [row.person_id for row in rows])
            untold = places_of_untold(connection, open_now, run.kinds_ever, run.mappings.stages)
            heard = _flags_heard_of(connection, rows, baseline=baseline)
            considered = consider(deciding_by(run), connection, rows, run.now, untold, heard)
            held = still_held(run, connection, considered) if holding else NOBODY
            _store(
                run,
                connection,
                considered,
                writing,
                open_now=open_now,
                held=held,
                baseline=baseline,
                first_push=first_push,
                calm=calm,
            )
        total += len(rows)
        run.tell("decided", persons=total)


def begin_with_actions(run: Run) -> None:
    """Before a first push that is to act: what a `plan`, or a run that was stopped, had decided without acting is news."""
    with run.engine.begin() as connection:
        if notes.get(connection, BASELINE) is None:
            decisions.forget_flags_without_actions(connection)
            people.mark_everyone_dirty(connection)


def deciding_by(run: Run) -> Deciding:
    return Deciding(run.mappings, run.catalogue, run.stage_names, gate_open=run.zerobounce is None)


def places_of_untold(
    connection: Connection, open_now: Mapping[tuple[int, str], Any], kinds: Mapping[str, str], stages: StageRules
) -> dict[int, Place]:
    """Person → where they are, of all whose next stage is planned and Mautic was not told of it; newcomers are ghosts.

    Nobody has been in a stage that was planned only: a plan tries rules, and a safety stop refuses what is a mistake.
    Else who was taken for a customer would stay one when the mistake is mended, because that stage is sticky.
    """
    untold = [
        number
        for (number, target), row in open_now.items()
        if target == CONTACT
        and row.state == changes.PLANNED
        and "stage" in (new := orjson.loads(row.new))
        and UNDOES not in new
    ]
    if not untold:
        return {}
    lowest = stages.stages[-1]
    last = decisions.last_places(connection, untold, kinds, adopted=True)
    return {number: last.get(number, Place(lowest.name, lowest.kind)) for number in untold}


def _flags_heard_of(connection: Connection, rows: Sequence[Any], *, baseline: bool) -> dict[int, Flags]:
    """Person → the flags that somebody has heard of, where they are others than those that were decided.

    Who became hot, or cold, by rules that were edited before anything was done about it is decided anew: a plan tries
    rules, and what it makes hot is not to stay so because it has more points than `until` says. Before the first push
    nothing is done about anybody.
    """
    before = {row.person_id: _flags_before(row.flags) for row in rows if not row.rule and row.flags is not None}
    if baseline:
        return {number: Flags(False, flags.low_value) for number, flags in before.items() if flags.hot}
    if not before:
        return {}
    found: dict[int, Flags] = {}
    for occasion, hot in ((HOT, True), (ENDS[HOT], False)):
        among = [number for number, flags in before.items() if flags.hot == hot]
        found.update(
            (one, Flags(not hot, before[one].low_value)) for one in actions.unheard(connection, occasion, among)
        )
    return found


def consider(
    by: Deciding,
    connection: Connection,
    rows: Sequence[Any],
    now: int,
    untold: Mapping[int, Place] = NOBODY_UNTOLD,
    heard: Mapping[int, Flags] = NOBODY_UNHEARD,
) -> list[Considered]:
    """Decide these persons as of `now`, without storing anything.

    `untold` is that of `places_of_untold`, `heard` has flags that count as decided before instead of those that were.
    """
    numbers = [row.person_id for row in rows]
    evidence = decisions.evidence_of(connection, numbers)
    answers = verdicts.verdicts_of(connection, [row.address for row in rows if row.address is not None])
    members = decisions.members_of(
        connection, numbers, {"segment": by.catalogue.segments, "campaign": by.catalogue.campaigns}
    )
    rules, validation, scores = by.mappings.stages, by.mappings.validation, by.mappings.scores
    only_if = validation.only_if
    gate_open = by.gate_open
    named = by.mappings.action_rules.named
    tells_reasons = "reasons" in by.mappings.placeholders
    stage_names = by.stage_names
    made = tuple.__new__  # of a NamedTuple, as calling it would, which for so many costs twice as much
    nothing: dict[str, frozenset[str]] = {}
    found = []
    for row in rows:
        number, address, stage_id, kind = row.person_id, row.address, row.stage_id, row.kind
        tags, dnc, tallies = row.tags, row.dnc, row.tallies
        fields = orjson.loads(row.fields) if row.fields != "{}" else NOTHING
        verdict, verdict_run = answers.get(address, NO_ANSWER)
        if verdict is not None:
            verdict_signal = validation.signal(verdict, now)
        elif address is None and "email" in fields:
            verdict_signal = SYNTAX_REJECT
        else:
            verdict_signal = NO_VERDICT
        belongs = members.get(number, nothing)
        by_name: dict[str, int] = {}  # filled below: to make the signals anew would cost as much as the score
        signals = made(
            Signals,
            (
                fields,
                frozenset(orjson.loads(tags)) if tags != "[]" else NOBODYS,
                belongs.get("segment", NOBODYS) if belongs else NOBODYS,
                belongs.get("campaign", NOBODYS) if belongs else NOBODYS,
                orjson.loads(dnc) if dnc != "{}" else NOTHING,
                evidence.get(number, NOTHING),
                verdict_signal,
                row.date_added,
                row.last_active,
                stage_names.get(stage_id) or f"#{stage_id}" if stage_id is not None else None,
                kind,
                orjson.loads(tallies) if tallies is not None else NOTHING,
                by_name,
            ),
        )
        parts: list[Part] = []
        scored = score(signals, scores, now, row.score_day or 0, parts)
        by_name.update(scored.groups)
        by_name[TOTAL] = scored.total
        place = untold.get(number)
        had = (row.stage, kind) if place is None else place
        previous = made(Previous, (*had, row.rule, row.reason))
        before = heard.get(number) or _flags_before(row.flags)
        decision, flags, not_asked = judge(
            signals, rules, scores, previous, before, now, gate_open=gate_open, only_if=only_if
        )
        holding, told_due_at = _holding(named, signals, decision.kind, now) if named else ((), None)
        # Nobody pays for a verdict about somebody of low value.
        asks = address is not None and not gate_open and not flags.low_value
        asks = asks and needs_verdict(signals, rules, previous, now)
        if asks and only_if is not None:
            asks = only_if.holds(signals, now)
            if only_if.timed:
                told_due_at = sooner(told_due_at, only_if.due_at(signals, now))
        standing = decisions.standing_of(row) if row.written is not None else NOTHING_STANDS
        if tells_reasons:
            told_due_at = sooner(told_due_at, reasons_due_at(scored, parts, scores))
        one = (
            row,
            signals,
            verdict,
            standing,
            scored,
            flags,
            decision,
            asks,
            parts,
            holding,
            told_due_at,
            verdict_run,
            not_asked,
        )
        found.append(made(Considered, one))
    return found


def plan_stages(
    connection: Connection, considered: Sequence[Considered], stages: StageRules, now: int, *, calm: bool = False
) -> tuple[list[StagePlan], dict[int, int]]:
    """What becomes of each stage; and whom the loop guard holds, with how often we changed their stage lately.

    `calm`: we changed none lately, so that nobody can have been changed too often.
    """
    plans = [plan_stage(one.decision.stage, one.signals.stage, one.standing, stages, now) for one in considered]
    if calm:
        return plans, {}
    guard = stages.loop_guard
    moving = [one.row.person_id for one, plan in zip(considered, plans, strict=True) if plan.set_to]
    recent = decisions.recent_transitions(connection, moving, now - guard.within)
    often = {number: count for number, count in recent.items() if count >= guard.changes}
    if often:
        held = StagePlan(left_alone="held by the loop guard", foreign=True, due_at=now + guard.within)
        plans = [held if one.row.person_id in often else plan for one, plan in zip(considered, plans, strict=True)]
    return plans, often


def _holding(
    named: Sequence[tuple[str, Condition]], signals: Signals, kind: Kind, now: int
) -> tuple[tuple[str, ...], int | None]:
    """Flags of the conditions of actions that are true of this person, who is decided; when time could change one."""
    decided = signals if signals.kind == kind else signals.with_kind(kind)
    holding: list[str] = []
    due_at = None
    for flag, condition in named:
        if condition.holds(decided, now):
            holding.append(flag)
        if condition.timed:
            due_at = sooner(due_at, condition.due_at(decided, now))
    return tuple(holding), due_at


def _flags_before(text: str | None) -> Flags:
    """The flags that were decided last time."""
    if text is None or text == NO_FLAGS:
        return COLD
    flags = read_flags(text)
    return Flags(HOT in flags, LOW_VALUE in flags)


def _store(
    run: Run,
    connection: Connection,
    considered: Sequence[Considered],
    writing: _Writing,
    *,
    open_now: Mapping[tuple[int, str], Any],
    held: frozenset[int],
    baseline: bool,
    first_push: FirstPush,
    calm: bool,
) -> None:
    """`open_now` are all open changes of these persons. `held`: of whom a run was undone; only do-not-contact that they
    lost is put back. `calm`: we changed no stage lately, so that nobody can have been changed too often.
    """
    met = [one.row.person_id for one in considered]
    lost = people.lost_dnc_of(connection, met)
    wanted: dict[tuple[int, str], Change] = {}
    for one in considered if lost else ():
        wanted.update(_put_back_lost(one, lost.get(one.row.person_id, NOTHING)))
    if held:
        considered = [one for one in considered if one.row.person_id not in held]
    numbers = [one.row.person_id for one in considered]
    own_dnc = decisions.own_dnc(connection, numbers)
    now, stages, scores = run.now, run.mappings.stages, run.mappings.scores
    stage_plans, often = plan_stages(connection, considered, stages, now, calm=calm)
    granting = scores.push_to == "points" and run.grants
    granted = ledger.granted(connection, numbers) if granting else {}
    epoch = groups.epoch(connection) if scores.push_groups else None
    on_the_way = changes.with_points_on_the_way(connection) if granting else set()
    if granting and opening.began_now(connection):
        totals = {one.row.person_id: one.score.total for one in considered}
        # Rules that were edited leave nobody the name of the one that decided.
        by_other_rules = {one.row.person_id for one in considered if not one.row.rule}
        opening.let_history_fade(run, connection, totals, granted, waiting=on_the_way, by_other_rules=by_other_rules)
    looping = people.current_ids(connection, often)
    rows, manual, by_hand_no_more = [], [], []
    adopted: dict[int, str] = {}
    told = writing.placeholders.of(connection, considered, run.now)
    silent = baseline and not run.with_actions
    # What the run of the baseline decides again after its push is still the baseline.
    quiet = (baseline or first_push.run_id == run.id) and not run.with_actions
    flagged: list[Considered] = []
    by_hand: dict[int, str] = {}
    since_baseline = _accepted_late(connection, considered)
    for one, planned in zip(considered, stage_plans, strict=True):
        row, signals, _, _, scored, flags, decision, asks, _, named, _, _, _ = one
        kind, stage, total, rule, reason, trace, _, waiting = decision
        number = row.person_id
        if number in looping:
            run.quarantine(
                connection,
                LOOP_GUARD,
                str(looping[number]),
                f"stage changed {often[number]} times within {stages.loop_guard.within // 3600} h; held at {signals.stage}",
                f"{signals.stage} → {stage}: {reason}",
            )
        if planned.manual_stage is not None:
            if (planned.manual_stage, planned.manual_since) != (row.manual_stage, row.manual_since):
                manual.append(
                    {"person_id": number, "manual_stage": planned.manual_stage, "manual_since": planned.manual_since}
                )
        elif row.manual_stage is not None:
            by_hand_no_more.append(number)
        waited = number in since_baseline
        if planned.adopted is not None:
            adopted[number] = planned.adopted
            if planned.adopted == row.manual_stage and not (quiet or waited):
                by_hand[number] = planned.adopted
        sub_texts, trace_text = orjson.dumps(scored.groups).decode(), orjson.dumps(trace).decode()
        flags_now = flags_text(flags.hot, flags.low_value, named)
        says = (kind, stage, total, rule, reason, trace_text, one.due_at(planned), asks, waiting, sub_texts, flags_now)
        if decisions.said(row) != says:
            hot_since = (row.hot_since or now) if flags.hot else None
            rows.append(decisions.Decided(number, *says, scored.day, hot_since, now, run.id))
        if (row.flags or NO_FLAGS) != flags_now and not (quiet or waited):
            flagged.append(one)
        rejected = signals.verdict.outcome == "rejected" and not silent
        if rejected and not run.with_actions and first_push.knew(one):
            rejected = False  # the baseline knew it already: it is nobody's transition
        edit = writing.contact_change(one, planned, told.get(number, NOTHING), rejected=rejected)
        if edit is not None:
            wanted[number, CONTACT] = edit
        if writing.dnc and (rejected or number in own_dnc) and (number, EMAIL_DNC) not in wanted:
            refused = _dnc_change(one, own=number in own_dnc, rejected=rejected)
            if refused is not None:
                wanted[number, EMAIL_DNC] = refused
        if granting and number not in on_the_way:
            points = points_change(one, granted.get(number, 0), scores)
            if points is not None:
                wanted[number, POINTS] = points
        if epoch is not None:
            sub_scores = groups.change_of(one, scores, epoch)
            if sub_scores is not None:
                wanted[number, GROUPS] = sub_scores
    decisions.save_decisions(connection, rows, {one.row.person_id: one.row for one in considered})
    occasions.queue_flags(run, connection, flagged)
    decisions.save_manual(connection, manual)
    decisions.clear_manual(connection, by_hand_no_more)
    occasions.queue_by_hand(run, connection, by_hand, considered)
    changes.adopt_stages(connection, adopted, run.now)
    changes.plan_changes(
        connection,
        numbers,
        wanted,
        open_now,
        run_id=run.id,
        now=run.now,
        baseline=baseline,
        since_baseline=since_baseline,
    )
    people.forget_dirty(connection, met)


def _accepted_late(connection: Connection, considered: Sequence[Considered]) -> set[int]:
    """Who gets a kind by a verdict that they waited for since the baseline: a file took its time, or the credits did
    not reach.
    """
    through = {one.row.person_id: one for one in considered if one.row.waiting and not one.decision.waiting}
    waited = decisions.wait_no_more(connection, list(through))
    return {
        number
        for number in waited
        if through[number].signals.verdict.outcome == "accepted"
        and through[number].row.kind != through[number].decision.kind
    }


def points_change(one: Considered, granted: int, scores: ScoreRules) -> Change | None:
    """What Mautic has yet to receive of the score, `granted` being what it has received."""
    if one.score.total == granted:
        return None
    reasons = reasons_text(one.parts, scores) or "nothing counts any more"
    return plan_points(one.score.total, granted, reasons, VALUE_OF_KIND[one.decision.kind])


def _let_go_of_loops(run: Run, connection: Connection) -> None:
    """Whoever was held by the loop guard and has been quiet for its time is no longer listed."""
    guard = run.mappings.stages.loop_guard
    held = [row["key"] for row in runs.in_quarantine(connection, LOOP_GUARD)]
    persons = people.persons_of(connection, [int(key) for key in held])
    recent = decisions.recent_transitions(connection, persons.values(), run.now - guard.within)
    quiet = [key for key in held if recent.get(persons.get(int(key), 0), 0) < guard.changes]
    runs.release_from_quarantine(connection, LOOP_GUARD, quiet, run.now)


@dataclass(frozen=True)
class _Writing:
    """What the mappings write besides the stage, looked up once for all."""

    run: Run
    templates: Templates
    without_reasons: Templates
    placeholders: Placeholders
    append: Mapping[str, str]
    typo_field: str | None
    reject_tag: str | None
    dnc: bool

    @classmethod
    def of(cls, run: Run) -> _Writing:
        validation, known = run.mappings.validation, run.catalogue.fields
        templates = {alias: template for alias, template in run.mappings.fields.write.items() if alias in known}
        reasons = run.mappings.shown_reasons()
        shown = Templates(templates)
        return cls(
            run,
            templates=shown,
            placeholders=placeholders_of(run, shown.names),
            # The reason of a decision that is not shown would mislead.
            without_reasons=Templates({alias: text for alias, text in templates.items() if alias not in reasons}),
            append={alias: source for alias, source in validation.append.items() if alias in known},
            typo_field=validation.typo_field if validation.typo_field in known else None,
            reject_tag=validation.reject_tag,
            dnc=validation.reject_dnc,
        )

    def contact_change(
        self, one: Considered, stage: StagePlan, told: Mapping[str, str], *, rejected: bool
    ) -> Change | None:
        if stage.set_to is None and one.row.stage_id in self.run.unpublished_stages:
            return None  # Mautic refuses every edit of a contact in an unpublished stage that does not set another
        signals, verdict = one.signals, one.verdict
        templates = self.without_reasons if stage.left_alone else self.templates
        wanted = templates.render(one.decision, verdict, told)
        more = _appended(one, self.append) if verdict is not None else {}
        if self.typo_field is not None and (verdict is not None or self.typo_field in signals.fields):
            more.update(_suggestion(one, self.typo_field))
        if more:
            wanted = {**wanted, **more}
        tags: dict[str, bool] = {}
        tag = self.reject_tag
        if tag is not None and (rejected or (tag in signals.tags and signals.verdict.outcome == "accepted")):
            tags[tag] = rejected
        return plan_contact(
            one.decision,
            stage,
            current=signals.stage,
            fields=signals.fields,
            tags=signals.tags,
            standing=one.standing,
            wanted_fields=wanted,
            wanted_tags=tags,
            verdict=_verdict_mark(one) if tags else "",
        )


def _suggestion(one: Considered, alias: str) -> dict[str, str | None]:
    """The spelling that ZeroBounce suggests; ours is emptied again when there is none any more."""
    if one.verdict is not None and one.verdict.did_you_mean:
        return {alias: one.verdict.did_you_mean}
    present, ours = one.signals.fields.get(alias), one.standing.written.get(alias)
    return {alias: None} if present and ours is not None and ours[1] == present else {}


def _verdict_mark(one: Considered) -> str:
    """Names the verdict because of which we act, so that we act once: another address or answer has another name."""
    said = one.signals.fields.get("email") if one.verdict is None else f"{one.verdict.address} {one.verdict.at}"
    return hashlib.blake2b(str(said).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _appended(one: Considered, append: Mapping[str, str]) -> dict[str, str | None]:
    """Blanks that ZeroBounce's answer can fill; what has a value is never overwritten."""
    if one.verdict is None or one.signals.verdict.outcome != "accepted":
        return {}
    found: dict[str, str | None] = {}
    for alias, source in append.items():
        value = one.verdict.raw.get(source)
        if one.signals.fields.get(alias) in {None, ""} and isinstance(value, str) and value.strip():
            found[alias] = mautic_country(value.strip()) if alias == "country" else value.strip()
    return found


def _put_back_lost(one: Considered, lost: Mapping[str, int]) -> dict[tuple[int, str], Change]:
    """Do-not-contact that Mautic lost, by a merge or as it was set back, by person and target."""
    why = "do-not-contact that a merge or a restored backup of Mautic lost"
    return {
        (one.row.person_id, f"{DNC}{channel}"): Change(
            f"{DNC}{channel}", {"reason": None}, {"reason": reason}, why, VALUE_OF_LOST_DNC
        )
        for channel, reason in lost.items()
        if channel not in one.signals.dnc
    }


def _dnc_change(one: Considered, *, own: bool, rejected: bool) -> Change | None:
    """Do-not-contact for e-mail because of a verdict, once per verdict: who takes it away or sets it again is right."""
    present = one.signals.dnc.get("email")
    if rejected and present is None:
        mark = _verdict_mark(one)
        if one.standing.written.get(EMAIL_DNC) == [mark, MANUAL_DNC]:
            return None
        said = "/".join(filter(None, (one.signals.verdict.status, one.signals.verdict.sub_status)))
        new = {"reason": MANUAL_DNC, "verdict": mark}
        return Change(EMAIL_DNC, {"reason": None}, new, f"ZeroBounce: {said}", VALUE_OF_DNC)
    if own and present == MANUAL_DNC and one.signals.verdict.outcome == "accepted":
        return Change(
            EMAIL_DNC, {"reason": MANUAL_DNC}, {"reason": None}, "the address is deliverable now", VALUE_OF_DNC
        )
    return None
