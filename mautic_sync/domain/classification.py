"""The decision: which kind and which Mautic stage a person has now, why, and until when that surely stays so.

`decide` is a pure function of signals, rules, our previous decision and a time. Stages are read from top to bottom
and the first whose condition holds wins, with two exceptions that keep people from falling for no reason: a sticky
stage is left upwards only, and a verdict moves people only when it arrives. While it is missing, expired or held,
whoever has a kind keeps it and newcomers wait as they are; only a fresh reject takes a kind away.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from mautic_sync.domain.conditions import NOW, Condition, Trace, ahead_of
from mautic_sync.domain.contact import KINDS, Kind, Signals, VerdictSignal
from mautic_sync.domain.grammar import TOTAL, UNCHECKED
from mautic_sync.domain.validation import normalise_address

RANK: Mapping[str, int] = {kind: rank for rank, kind in enumerate(KINDS)}
ASSUMED_ACCEPTED = VerdictSignal("accepted", status="valid")
ASSUMED_REJECTED = VerdictSignal("rejected", status="invalid")
GATE_OPEN = VerdictSignal("accepted", status="valid", sub_status=UNCHECKED)
"""What an address counts as while there is no ZeroBounce key to check it with."""

MOST_REMEMBERED = 4_096  # decisions
KEPT = ":kept"
"""End of the id of what decided, where nothing but what they had before did."""

OTHERWISE = ":otherwise"
"""The same, where no stage's condition holds."""

NotAsked = Literal["low_value", "only_if", "no_key"]
"""Why nobody asks for a verdict that would matter: the rule `low_value`, `only_if` of validation.yaml, or no key."""
NOT_ASKED: Mapping[NotAsked, str] = {
    "low_value": "of low value, the e-mail is not validated",
    "only_if": "the e-mail is not to be validated (only_if)",
    "no_key": "the e-mail cannot be validated without a ZeroBounce key",
}
WAITS_TO_BECOME = "waits to become"
UNTIL_ONE_ARRIVES = ", until one arrives"

Notes = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class StageRule:
    """One stage of Mautic that we manage, and when a contact is in it; no condition: everybody else."""

    name: str
    kind: Kind
    weight: int
    sticky: bool = False
    condition: Condition | None = None


@dataclass(frozen=True)
class LoopGuard:
    """A contact whose stage we changed `changes` times within `within` seconds is held."""

    changes: int
    within: int


@dataclass(frozen=True)
class StageRules:
    """The stages in the order of the file (highest first) and what protects contacts from them.

    `takes_over` names stages of others that we may replace, `respect_manual` is in seconds.
    """

    stages: tuple[StageRule, ...]
    takes_over: frozenset[str] = frozenset()
    respect_manual: int = 90 * 86_400
    loop_guard: LoopGuard = LoopGuard(3, 86_400)
    by_name: Mapping[str, StageRule] = field(init=False, repr=False, compare=False)
    managed: frozenset[str] = field(init=False, repr=False, compare=False)
    _position: Mapping[str, int] = field(init=False, repr=False, compare=False)
    first_reading_verdict: int = field(init=False, repr=False, compare=False)
    """Place of the highest stage that depends on a verdict; the number of stages when none does."""
    _read: Callable[[Signals], Hashable] | None = field(init=False, repr=False, compare=False)
    """What the stages read of a person besides the verdict; None where time alone changes what they say."""
    _remembered: dict[Hashable, Decision] = field(init=False, repr=False, compare=False)
    """Decisions by all that they depend on, but the score and the reason told before: of most people the rules know one
    of a few sets of things."""

    def __post_init__(self) -> None:
        if not self.stages or self.stages[-1].condition is not None:
            raise ValueError("the last stage must take everybody else: it has no condition")
        object.__setattr__(self, "by_name", {stage.name: stage for stage in self.stages})
        object.__setattr__(self, "managed", frozenset(self.by_name))
        object.__setattr__(self, "_position", {stage.name: index for index, stage in enumerate(self.stages)})
        reading = (i for i, stage in enumerate(self.stages) if stage.condition and stage.condition.reads_verdict)
        object.__setattr__(self, "first_reading_verdict", next(reading, len(self.stages)))
        object.__setattr__(self, "_read", _reader(self.stages))
        object.__setattr__(self, "_remembered", {})

    def position(self, name: str | None) -> int | None:
        """Place of a managed stage from the top, None for any other."""
        return self._position.get(name) if name is not None else None

    def first_of(self, kind: Kind | None) -> int | None:
        """Place of the lowest stage of a kind: where somebody stands of whom nothing but the kind is known."""
        return next((i for i in reversed(range(len(self.stages))) if self.stages[i].kind == kind), None)

    @property
    def reads_verdict(self) -> bool:
        """Whether any stage depends on a verdict at all."""
        return self.first_reading_verdict < len(self.stages)


class Previous(NamedTuple):
    """What we decided last time, or nothing; `rule` and `reason` as in `Decision`."""

    stage: str | None = None
    kind: Kind | None = None
    rule: str | None = None
    reason: str = ""


NOTHING_BEFORE = Previous()


class Decision(NamedTuple):
    """Kind and stage of one person with the grounds.

    `rule` is the stable id of what decided (`Lead:any[0]`), `reason` a line for marketers that stays the same while
    that rule decides: a growing count is no news. `trace` the deciding path as JSON. `due_at` is the earliest second at which time alone
    could change the decision. `waiting`: kept or held back until a verdict arrives.
    """

    kind: Kind
    stage: str
    score: int = 0
    rule: str = ""
    reason: str = ""
    trace: Notes = ()
    due_at: int | None = None
    waiting: bool = False


def decide(
    signals: Signals, rules: StageRules, previous: Previous | None, now: int, *, gate_open: bool = False
) -> Decision:
    """Decide one person.

    1. The first stage whose condition holds, or the sticky stage they already have.
    2. Without a decisive verdict for an address that could have one: look what an accepted one would give. Who would
       otherwise fall keeps what they have; who would rise waits.
    3. `gate_open` (there is no ZeroBounce key): an address without a verdict counts as accepted.

    Where time changes nothing, whoever is like somebody who was decided before is decided by looking that up.
    """
    before = previous or NOTHING_BEFORE
    verdict, read = signals.verdict, rules._read  # noqa: SLF001  # two halves of one thing
    evidence = signals.evidence
    if read is None or verdict.expires_at is not None or (evidence and ahead_of(evidence, now)):
        return _decide(signals, rules, before, now, gate_open=gate_open)
    remembered = rules._remembered  # noqa: SLF001
    answer = (verdict.outcome, verdict.status, verdict.sub_status, verdict.fresh)
    key = (read(signals), _has_address(signals), answer, before[:3] if before.rule else before, gate_open)
    found = remembered.get(key)
    if found is None:
        if len(remembered) >= MOST_REMEMBERED:
            remembered.clear()
        found = _decide(signals, rules, before, now, gate_open=gate_open)
        stage_rule = rules.by_name[found.stage]
        if evidence and stage_rule.condition is not None and not _is_kept(before, found.rule, stage_rule):
            return found  # its reason may tell the day on which somebody did something
        remembered[key] = found
    kind, stage, _score, rule, reason, trace, due_at, waiting = found
    if _is_kept(before, rule, rules.by_name[stage]):
        reason = before.reason
    # As `Decision(…)` would, which for so many costs twice as much.
    return tuple.__new__(Decision, (kind, stage, signals.scores.get(TOTAL, 0), rule, reason, trace, due_at, waiting))


def _decide(signals: Signals, rules: StageRules, before: Previous, now: int, *, gate_open: bool) -> Decision:
    place = _place(signals, rules, before, now)
    if place < rules.first_reading_verdict or not _undecided(signals, now):
        return _decision(signals, rules, before, now, place)
    verdict = signals.verdict
    if gate_open and (verdict.outcome in {"missing", "accepted"}):
        assumed = signals.with_verdict(GATE_OPEN)
        opened = _place(assumed, rules, before, now, rules.first_reading_verdict)
        if opened == place:
            return _decision(signals, rules, before, now, place)
        notes: Notes = ({"note": "the gate is open: without a ZeroBounce key the address counts as accepted"},)
        return _decision(assumed, rules, before, now, opened, notes)
    accepted_signals = signals.with_verdict(ASSUMED_ACCEPTED)
    accepted = _place(accepted_signals, rules, before, now, rules.first_reading_verdict)
    if place == accepted:
        return _decision(signals, rules, before, now, place)
    missing = f"verdict {'expired' if verdict.outcome not in {'held', 'missing'} else verdict.outcome}"
    stages = rules.stages
    had = RANK[before.kind] if before.kind else -1
    would_fall = RANK[stages[place].kind] < had <= RANK[stages[accepted].kind]
    at = rules.position(before.stage)
    would_slip = at is not None and at == accepted < place and stages[at].kind == stages[place].kind == before.kind
    if not would_fall and not would_slip:
        held_back = accepted < place
        notes = ({"note": f"{missing}: {WAITS_TO_BECOME} {stages[accepted].name}"},) if held_back else ()
        return _decision(signals, rules, before, now, place, notes, waiting=held_back)
    notes = ({"note": f"{missing}: kept as if it were accepted{UNTIL_ONE_ARRIVES}"},)
    if stages[accepted].kind == before.kind:
        decided = _decision(accepted_signals, rules, before, now, accepted, notes, waiting=True)
        # After an edit of the rules only the reason is known: what a rule is called may stand for another one now.
        as_before = before.rule == decided.rule if before.rule else before.reason in {"", decided.reason}
        if verdict.outcome == "accepted" or as_before:
            return decided
        # They had other grounds: to tell an accepted address as the reason would tell what never was.
        kept: int | None = accepted
    else:
        kept = at if at is not None and stages[at].kind == before.kind else rules.first_of(before.kind)
    if kept is None:
        return _decision(signals, rules, before, now, place, notes[:0], waiting=True)
    stage = stages[kept]
    return Decision(
        kind=stage.kind,
        stage=stage.name,
        score=signals.scores.get(TOTAL, 0),
        rule=f"{stage.name}{KEPT}",
        reason=f"{stage.name}: kept until the e-mail is validated",
        trace=notes,
        due_at=_due_at(signals, rules, now, len(stages)),
        waiting=True,
    )


def not_asked(decision: Decision, why: NotAsked) -> Decision:
    """The decision of somebody who waits for a verdict that nobody will ask for: it waits no more, and says so."""
    reason, told = decision.reason, NOT_ASKED[why]
    if decision.rule.endswith(KEPT):
        reason = f"{decision.stage}: kept; {told}"
    elif decision.rule.endswith(OTHERWISE):
        reason = f"{decision.stage}: {told}"
    trace = tuple(
        {**step, "note": _note_not_asked(step["note"], told)} if "note" in step else step for step in decision.trace
    )
    return decision._replace(reason=reason, trace=trace, waiting=False)


def _note_not_asked(note: str, told: str) -> str:
    """`verdict missing: an accepted one would make Lead; …`."""
    return f"{note.replace(WAITS_TO_BECOME, 'an accepted one would make').removesuffix(UNTIL_ONE_ARRIVES)}; {told}"


def needs_verdict(signals: Signals, rules: StageRules, previous: Previous | None, now: int) -> bool:
    """Whether a verdict would matter: deciding once as accepted and once as rejected gives different results.

    Always false for somebody without an address that could be asked about. Whether a fresh verdict is already there
    is not looked at (`ValidationRules.is_fresh`).
    """
    before = previous or NOTHING_BEFORE
    if _place(signals, rules, before, now) < rules.first_reading_verdict or not _has_address(signals):
        return False
    # Without the verdict nothing above could hold: there is nothing to look at again.
    start = rules.first_reading_verdict
    accepted = _place(signals.with_verdict(ASSUMED_ACCEPTED), rules, before, now, start)
    return accepted != _place(signals.with_verdict(ASSUMED_REJECTED), rules, before, now, start)


@dataclass(frozen=True, slots=True)
class StageTrace:
    """How one stage's rule stands for a person; `trace` is None for the stage that takes everybody else."""

    stage: str
    kind: Kind
    trace: Trace | None

    def as_dict(self) -> dict[str, Any]:
        return {"stage": self.stage, "kind": self.kind, "when": self.trace.as_dict() if self.trace else None}


def explain(signals: Signals, rules: StageRules, now: int) -> tuple[StageTrace, ...]:
    """Every stage with its whole condition, part by part: what `decide` looked at, for people who ask why."""
    return tuple(
        StageTrace(stage.name, stage.kind, stage.condition.trace(signals, now) if stage.condition else None)
        for stage in rules.stages
    )


def _place(signals: Signals, rules: StageRules, before: Previous, now: int, start: int = 0) -> int:
    """The first stage that holds, or the sticky one that the person has, whichever is higher.

    Stages above `start` are known not to be it.
    """
    sticky = _sticky(rules, before)
    stages = rules.stages
    for index in range(start, len(stages)):
        if index == sticky:
            return index
        condition = stages[index].condition
        if condition is None or condition.holds(signals, now):
            return index
    raise AssertionError("the last stage takes everybody")  # StageRules refuses to be made otherwise


def _sticky(rules: StageRules, before: Previous) -> int:
    if before.kind is None and before.stage is None:
        return -1
    at = rules.position(before.stage)
    if at is not None:
        return at if rules.stages[at].sticky else -1
    # The stage was renamed or removed: its kind is what they keep.
    return next((i for i, stage in enumerate(rules.stages) if stage.sticky and stage.kind == before.kind), -1)


def _reader(stages: Sequence[StageRule]) -> Callable[[Signals], Hashable] | None:
    """Gives the values of all that the conditions of these stages read, the verdict aside; None if they read time."""
    inputs = dict.fromkeys(one for stage in stages if stage.condition for one in stage.condition.inputs)
    if NOW in inputs:
        return None
    names = {subject: [one.name for one in inputs if one.subject == subject] for subject, _name in inputs}
    aliases, counted, activities, groups = (
        tuple(names.get(subject, ())) for subject in ("field", "count", "activity", "score")
    )
    tags = frozenset(names.get("tag", ()))
    places = tuple(Signals._fields.index(place) for subject, place in _PLACES.items() if subject in names)
    reads_dnc = "dnc" in names

    def read(signals: Signals) -> Hashable:
        fields, evidence, scores = signals.fields, signals.evidence, signals.scores
        return (
            # Some values of different types are equal, but not told alike.
            tuple([one if one.__class__ is str else (one.__class__, one) for one in map(fields.get, aliases)])
            if fields
            else None,
            signals.tags & tags if signals.tags else None,
            tuple([len(evidence.get(matcher, ())) for matcher in counted]) if evidence else None,
            tuple(map(evidence.get, activities)) if activities else None,
            tuple(map(scores.get, groups)) if groups else None,
            tuple([signals[place] for place in places]) if places else None,
            tuple(sorted(signals.dnc.items())) if reads_dnc else None,
        )

    return read


_PLACES = {"segment": "segments", "campaign": "campaigns", "stage": "stage", "kind": "kind"}
"""Subjects whose value is one that can be compared as it is."""


def _has_address(signals: Signals) -> bool:
    address = signals.fields.get("email")
    return isinstance(address, str) and normalise_address(address) is not None


def _undecided(signals: Signals, now: int) -> bool:
    """Whether there is an address whose verdict is missing, held or no longer fresh."""
    verdict = signals.verdict
    fresh = verdict.fresh and (verdict.expires_at is None or now < verdict.expires_at)
    decisive = fresh and verdict.outcome in {"accepted", "rejected"}
    return not decisive and _has_address(signals)


def _due_at(signals: Signals, rules: StageRules, now: int, above: int) -> int | None:
    """When time alone could change one of the first `above` stages: those below cannot win while these stand."""
    soonest: int | None = None
    for stage in rules.stages[:above]:
        condition = stage.condition
        if condition is not None and condition.timed:
            at = condition.due_at(signals, now)
            if at is not None and (soonest is None or at < soonest):
                soonest = at
    return soonest


def _decision(
    signals: Signals,
    rules: StageRules,
    before: Previous,
    now: int,
    place: int,
    notes: Notes = (),
    *,
    waiting: bool = False,
) -> Decision:
    stage = rules.stages[place]
    condition = stage.condition
    due_at = _due_at(signals, rules, now, len(rules.stages) if waiting else place + 1)
    score = signals.scores.get(TOTAL, 0)
    if condition is None:
        reason = f"{stage.name}: {_otherwise(signals, rules, waiting=waiting)}"
        trace: Notes = ({"stage": stage.name, "text": "no other rule holds", "holds": True}, *notes)
        return Decision(stage.kind, stage.name, score, f"{stage.name}{OTHERWISE}", reason, trace, due_at, waiting)
    part: Condition | None = None
    if condition.holds(signals, now):
        path, part = condition.told_by(signals, now)
        rule = f"{stage.name}:{path or 'when'}"
        trace = ({"stage": stage.name, **part.deciding(signals, now).as_dict()}, *notes)
    else:
        rule = f"{stage.name}:sticky"
        trace = ({"stage": stage.name, "text": "sticky: had it before", "holds": True}, *notes)
    if _is_kept(before, rule, stage):
        reason = before.reason
    elif part is not None:
        reason = f"{stage.name}: {part.reason_text(signals, now)}"
    else:
        reason = f"{stage.name}: was {before.stage or stage.name} before, and that stays"
    return Decision(stage.kind, stage.name, score, rule, reason, trace, due_at, waiting)


def _is_kept(before: Previous, rule: str, stage: StageRule) -> bool:
    """Whether the same condition decides the same as last time: then its reason stays as it was told."""
    same = rule == before.rule and stage.name == before.stage and stage.condition is not None
    return same and not rule.endswith(KEPT)


def _otherwise(signals: Signals, rules: StageRules, *, waiting: bool) -> str:
    """Why somebody is where everybody else is, as far as a verdict tells."""
    verdict = signals.verdict
    if waiting and verdict.outcome == "held" and verdict.status:
        return f"e-mail held ({verdict.sub_status or verdict.status})"
    if waiting:
        return "waits for the e-mail to be validated"
    if rules.reads_verdict and verdict.outcome == "rejected":
        return "e-mail rejected"
    return "no other rule holds"
