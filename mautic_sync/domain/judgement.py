"""Everything that is decided of one person whose score is known: the stage, then the flags that may read it.

One definition for all who decide: a run, a forecast, `explain` and the tests of the rules.
"""

from __future__ import annotations

from typing import NamedTuple

from mautic_sync.domain.classification import Decision, Previous, StageRules, decide
from mautic_sync.domain.contact import Signals, VerdictSignal
from mautic_sync.domain.scoring import COLD, Flags, ScoreRules, flags_of

SYNTAX_REJECT = VerdictSignal("rejected", "invalid", "failed_syntax_check")
"""What somebody has whose address is none: nobody needs to be asked about it."""


class Judgement(NamedTuple):
    """The decision with its score, and the flags."""

    decision: Decision
    flags: Flags


def judge(
    signals: Signals,
    stages: StageRules,
    scores: ScoreRules,
    previous: Previous,
    before: Flags,
    now: int,
    *,
    gate_open: bool,
) -> Judgement:
    """Decide one person whose `signals` hold the score by name; `previous` and `before` are what was decided last."""
    decision = decide(signals, stages, previous, now, gate_open=gate_open)
    if scores.hot is None and scores.low_value is None:
        return Judgement(decision, COLD)
    decided = signals if signals.kind == decision.kind else signals.with_kind(decision.kind)
    return Judgement(decision, flags_of(decided, scores, before, now))
