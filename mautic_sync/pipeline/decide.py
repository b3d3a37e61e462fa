"""Store → decisions and planned changes, by the pure rules; up to 1,000 persons in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from mautic_sync.domain.classification import Decision, Previous, decide, needs_verdict
from mautic_sync.domain.contact import NO_VERDICT, Catalogue, Signals, VerdictSignal
from mautic_sync.domain.countries import mautic_country
from mautic_sync.domain.plan import (
    DNC,
    EMAIL_DNC,
    POINTS,
    VALUE_OF_DNC,
    VALUE_OF_KIND,
    Change,
    StagePlan,
    Standing,
    channel_of,
    plan_contact,
    plan_points,
    plan_stage,
)
from mautic_sync.domain.validation import Verdict
from mautic_sync.mappings import Mappings
from mautic_sync.pipeline.context import Run
from mautic_sync.store import changes, decisions, ledger, notes, people, runs

PERSONS_PER_TRANSACTION = 1000
BASELINE = "baseline"
"""When the first push was, and by which run."""
LOOP_GUARD = "loop_guard"
OTHERWISE = ":otherwise"
"""How the rule of the last stage ends: its reason has no evidence that could grow."""
MANUAL_DNC = 3
VALUE_OF_LOST_DNC = 500
SYNTAX_REJECT = VerdictSignal("rejected", "invalid", "failed_syntax_check")


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
    decision: Decision
    asks: bool


@dataclass(frozen=True)
class FirstPush:
    """The baseline: what it knew is nobody's transition."""

    at: int = 0
    run_id: str = ""

    def knew(self, one: Considered) -> bool:
        if one.verdict is None:  # rejected by its syntax: whoever was there was looked at
            return (one.row.date_added or 0) < self.at
        return bool(one.row.verdict_run == self.run_id or one.verdict.at < self.at)


def decide_changed(run: Run, *, baseline: bool) -> int:
    """Decide whoever changed or is due, and plan what Mautic should show. Returns how many were decided."""
    with run.engine.begin() as connection:
        people.mark_due(connection, run.now)
        _let_go_of_loops(run, connection)
        first_push = FirstPush(**(notes.get_json(connection, BASELINE) or {}))
    after = total = 0
    while True:
        with run.engine.begin() as connection:
            rows = decisions.to_decide(connection, after, PERSONS_PER_TRANSACTION)
            if not rows:
                return total
            after = rows[-1].person_id
            considered = consider(deciding_by(run), connection, rows, run.now)
            _store(run, connection, considered, baseline=baseline, first_push=first_push)
        total += len(rows)
        run.tell("decided", persons=total)


def deciding_by(run: Run) -> Deciding:
    return Deciding(run.mappings, run.catalogue, run.stage_names, gate_open=run.zerobounce is None)


def consider(by: Deciding, connection: Connection, rows: Sequence[Any], now: int) -> list[Considered]:
    """Decide these persons as of `now`, without storing anything."""
    numbers = [row.person_id for row in rows]
    evidence = decisions.evidence_of(connection, numbers)
    members = decisions.members_of(
        connection, numbers, {"segment": by.catalogue.segments, "campaign": by.catalogue.campaigns}
    )
    rules, validation = by.mappings.stages, by.mappings.validation
    gate_open = by.gate_open
    found = []
    for row in rows:
        fields = orjson.loads(row.fields)
        verdict = decisions.verdict_of(row)
        if verdict is not None:
            verdict_signal = validation.signal(verdict, now)
        elif row.address is None and "email" in fields:
            verdict_signal = SYNTAX_REJECT
        else:
            verdict_signal = NO_VERDICT
        belongs = members.get(row.person_id, {})
        signals = Signals(
            fields=fields,
            tags=frozenset(orjson.loads(row.tags)) if row.tags != "[]" else frozenset(),
            segments=belongs.get("segment", frozenset()),
            campaigns=belongs.get("campaign", frozenset()),
            dnc=orjson.loads(row.dnc) if row.dnc != "{}" else {},
            evidence=evidence.get(row.person_id, {}),
            verdict=verdict_signal,
            first_seen=row.date_added,
            last_active=row.last_active,
            stage=by.stage_names.get(row.stage_id, f"#{row.stage_id}") if row.stage_id is not None else None,
            kind=row.kind,
        )
        previous = Previous(row.stage, row.kind)
        decision = decide(signals, rules, previous, now, gate_open=gate_open)
        if decision.rule == row.rule and decision.stage == row.stage and not decision.rule.endswith(OTHERWISE):
            # What marketers read in Mautic stays while the same rule holds: a growing count is no news.
            decision = decision._replace(reason=row.reason)
        asks = row.address is not None and not gate_open and needs_verdict(signals, rules, previous, now)
        if asks and validation.only_if is not None:
            asks = validation.only_if.holds(signals, now)
        found.append(Considered(row, signals, verdict, decision, asks))
    return found


def _store(
    run: Run, connection: Connection, considered: Sequence[Considered], *, baseline: bool, first_push: FirstPush
) -> None:
    numbers = [one.row.person_id for one in considered]
    open_now = decisions.open_changes(connection, numbers)
    lost = people.lost_dnc_of(connection, numbers)
    own_dnc = decisions.own_dnc(connection, numbers)
    granting = run.mappings.scoring.push.to == "points"
    granted = ledger.granted(connection, numbers) if granting else {}
    on_the_way = changes.with_points_on_the_way(connection) if granting else set()
    stage_plans = {one.row.person_id: _stage_plan(run, one) for one in considered}
    moving = [number for number, planned in stage_plans.items() if planned.set_to is not None]
    guard = run.mappings.stages.loop_guard
    recent = decisions.recent_transitions(connection, moving, run.now - guard.within) if moving else {}
    looping = people.current_ids(connection, [number for number in moving if recent.get(number, 0) >= guard.changes])
    rows, manual, by_hand_no_more = [], [], []
    adopted: dict[int, str] = {}
    open_dnc: dict[int, set[str]] = {}
    for number, target in open_now:
        if channel_of(target) is not None:
            open_dnc.setdefault(number, set()).add(target)
    wanted: dict[tuple[int, str], Change | None] = {}
    for one in considered:
        number, decision = one.row.person_id, one.decision
        planned = stage_plans[number]
        if number in looping:
            run.quarantine(
                connection,
                LOOP_GUARD,
                str(looping[number]),
                f"stage changed {recent[number]} times within {guard.within // 3600} h; held at {one.signals.stage}",
                f"{one.signals.stage} → {planned.set_to}: {decision.reason}",
            )
            planned = StagePlan(left_alone="held by the loop guard", foreign=True, due_at=run.now + guard.within)
        if planned.manual_stage is not None:
            if (planned.manual_stage, planned.manual_since) != (one.row.manual_stage, one.row.manual_since):
                manual.append(
                    {"person_id": number, "manual_stage": planned.manual_stage, "manual_since": planned.manual_since}
                )
        elif one.row.manual_stage is not None:
            by_hand_no_more.append(number)
        if planned.adopted is not None:
            adopted[number] = planned.adopted
        due_at = min(filter(None, (decision.due_at, planned.due_at)), default=None)
        rows.append(
            {
                "person_id": number,
                "kind": decision.kind,
                "stage": decision.stage,
                "score": decision.score,
                "rule": decision.rule,
                "reason": decision.reason,
                "trace": orjson.dumps(decision.trace).decode(),
                "due_at": due_at,
                "asks": one.asks,
                "waiting": decision.waiting,
                "decided_at": run.now,
                "run_id": run.id,
            }
        )
        silent = baseline and not run.with_actions
        rejected = one.signals.verdict.outcome == "rejected" and not silent
        if rejected and not run.with_actions and first_push.knew(one):
            rejected = False  # the baseline knew it already: it is nobody's transition
        wanted[number, "contact"] = _contact_change(run, one, planned, rejected=rejected)
        wanted |= dict.fromkeys(((number, target) for target in open_dnc.get(number, ())), None)
        for channel, reason in lost.get(number, {}).items():
            wanted[number, f"{DNC}{channel}"] = _put_back(one, channel, reason)
        if wanted.get((number, EMAIL_DNC)) is None:
            wanted[number, EMAIL_DNC] = _dnc_change(run, one, own=number in own_dnc, rejected=rejected)
        points = points_change(one, granted.get(number, 0)) if granting and number not in on_the_way else None
        if points is not None or (number, POINTS) in open_now:
            wanted[number, POINTS] = points
    decisions.save_decisions(connection, rows)
    decisions.save_manual(connection, manual)
    decisions.clear_manual(connection, by_hand_no_more)
    changes.adopt_stages(connection, adopted, run.now)
    changes.plan_changes(connection, wanted, open_now, run_id=run.id, now=run.now, baseline=baseline)
    people.forget_dirty(connection, numbers)


def points_change(one: Considered, granted: int) -> Change | None:
    """What Mautic has yet to receive of the score, `granted` being what it has received."""
    decision = one.decision
    return plan_points(decision.score, granted, decision.reason, VALUE_OF_KIND[decision.kind])


def _let_go_of_loops(run: Run, connection: Connection) -> None:
    """Whoever was held by the loop guard and has been quiet for its time is no longer listed."""
    guard = run.mappings.stages.loop_guard
    held = [row["key"] for row in runs.in_quarantine(connection, LOOP_GUARD)]
    persons = people.persons_of(connection, [int(key) for key in held])
    recent = decisions.recent_transitions(connection, persons.values(), run.now - guard.within)
    quiet = [key for key in held if recent.get(persons.get(int(key), 0), 0) < guard.changes]
    runs.release_from_quarantine(connection, LOOP_GUARD, quiet, run.now)


def _stage_plan(run: Run, one: Considered) -> StagePlan:
    standing = decisions.standing_of(one.row)
    return plan_stage(one.decision.stage, one.signals.stage, standing, run.mappings.stages, run.now)


def _contact_change(run: Run, one: Considered, stage: StagePlan, *, rejected: bool) -> Change | None:
    if stage.set_to is None and one.row.stage_id in run.unpublished_stages:
        return None  # Mautic refuses every edit of a contact in an unpublished stage that does not set another
    validation, known = run.mappings.validation, run.catalogue.fields
    # The reason of a decision that is not shown would mislead.
    hidden = run.mappings.shown_reasons() if stage.left_alone else frozenset()
    wanted = {
        alias: value
        for alias, value in run.mappings.render_fields(one.decision, one.verdict).items()
        if alias in known and alias not in hidden
    }
    standing = decisions.standing_of(one.row)
    wanted.update(_appended(one, validation.append, known))
    if validation.typo_field is not None and validation.typo_field in known:
        wanted.update(_suggestion(one, validation.typo_field, standing))
    tags: dict[str, bool] = {}
    tag = validation.reject_tag
    if tag is not None and (rejected or (tag in one.signals.tags and one.signals.verdict.outcome == "accepted")):
        tags[tag] = rejected
    return plan_contact(
        one.decision,
        stage,
        current=one.signals.stage,
        fields=one.signals.fields,
        tags=one.signals.tags,
        standing=standing,
        wanted_fields=wanted,
        wanted_tags=tags,
        verdict=_verdict_mark(one) if tags else "",
    )


def _suggestion(one: Considered, alias: str, standing: Standing) -> dict[str, str | None]:
    """The spelling that ZeroBounce suggests; ours is emptied again when there is none any more."""
    if one.verdict is not None and one.verdict.did_you_mean:
        return {alias: one.verdict.did_you_mean}
    present, ours = one.signals.fields.get(alias), standing.written.get(alias)
    return {alias: None} if present and ours is not None and ours[1] == present else {}


def _verdict_mark(one: Considered) -> str:
    """Names the verdict because of which we act, so that we act once: another address or answer has another name."""
    said = one.signals.fields.get("email") if one.verdict is None else f"{one.verdict.address} {one.verdict.at}"
    return hashlib.blake2b(str(said).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _appended(one: Considered, append: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str | None]:
    """Blanks that ZeroBounce's answer can fill; what has a value is never overwritten."""
    if one.verdict is None or one.signals.verdict.outcome != "accepted":
        return {}
    found: dict[str, str | None] = {}
    for alias, source in append.items():
        value = one.verdict.raw.get(source)
        if alias in known and one.signals.fields.get(alias) in {None, ""} and isinstance(value, str) and value.strip():
            found[alias] = mautic_country(value.strip()) if alias == "country" else value.strip()
    return found


def _put_back(one: Considered, channel: str, reason: int) -> Change | None:
    """Do-not-contact that a merge in Mautic lost."""
    if channel in one.signals.dnc:
        return None
    why = "do-not-contact lost by a merge in Mautic"
    return Change(f"{DNC}{channel}", {"reason": None}, {"reason": reason}, why, VALUE_OF_LOST_DNC)


def _dnc_change(run: Run, one: Considered, *, own: bool, rejected: bool) -> Change | None:
    """Do-not-contact for e-mail because of a verdict, once per verdict: who takes it away or sets it again is right."""
    present = one.signals.dnc.get("email")
    if not run.mappings.validation.reject_dnc:
        return None
    if rejected and present is None:
        mark = _verdict_mark(one)
        if decisions.standing_of(one.row).written.get(EMAIL_DNC) == [mark, MANUAL_DNC]:
            return None
        said = "/".join(filter(None, (one.signals.verdict.status, one.signals.verdict.sub_status)))
        new = {"reason": MANUAL_DNC, "verdict": mark}
        return Change(EMAIL_DNC, {"reason": None}, new, f"ZeroBounce: {said}", VALUE_OF_DNC)
    if own and present == MANUAL_DNC and one.signals.verdict.outcome == "accepted":
        return Change(
            EMAIL_DNC, {"reason": MANUAL_DNC}, {"reason": None}, "the address is deliverable now", VALUE_OF_DNC
        )
    return None
