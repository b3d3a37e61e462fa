"""Everything that is decided of one person whose score is known: the stage, then the flags that may read it, then
whether anybody will ask for a verdict that they wait for.

One definition for all who decide: a run, a forecast, `explain` and the tests of the rules.
"""

from __future__ import annotations

from typing import NamedTuple

from mautic_sync.domain.classification import Decision, NotAsked, Previous, StageRules, decide, not_asked
from mautic_sync.domain.conditions import Condition
from mautic_sync.domain.contact import Signals, VerdictSignal
from mautic_sync.domain.scoring import COLD, Flags, ScoreRules, flags_of

SYNTAX_REJECT = VerdictSignal("rejected", "invalid", "failed_syntax_check")
"""What somebody has whose address is none: nobody needs to be asked about it."""


class Judgement(NamedTuple):
    """The decision with its score, the flags, and why nobody asks for a verdict that would matter."""

    decision: Decision
    flags: Flags
    not_asked: NotAsked | None = None


def judge(
    signals: Signals,
    stages: StageRules,
    scores: ScoreRules,
    previous: Previous,
    before: Flags,
    now: int,
    *,
    gate_open: bool,
    only_if: Condition | None = None,
) -> Judgement:
    """Decide one person whose `signals` hold the score by name; `previous` and `before` are what was decided last.

    `only_if` is that of validation.yaml. Whoever waits for a verdict that nobody will ask for does not wait.
    """
    decision = decide(signals, stages, previous, now, gate_open=gate_open)
    flags = COLD
    if scores.hot is not None or scores.low_value is not None:
        decided = signals if signals.kind == decision.kind else signals.with_kind(decision.kind)
        flags = flags_of(decided, scores, before, now)
    if not decision.waiting:
        return Judgement(decision, flags)
    why = _why_not_asked(signals, flags, only_if, now, gate_open=gate_open)
    return Judgement(decision if why is None else not_asked(decision, why), flags, why)


def _why_not_asked(
    signals: Signals, flags: Flags, only_if: Condition | None, now: int, *, gate_open: bool
) -> NotAsked | None:
    if gate_open:
        return "no_key"
    if flags.low_value:
        return "low_value"
    return "only_if" if only_if is not None and not only_if.holds(signals, now) else None
