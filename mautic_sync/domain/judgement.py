"""Everything that is decided of one person whose score is known: the stage, then the flags that may read it.

One definition for all who decide: a run, a forecast, `explain` and the tests of the rules.
"""

from __future__ import annotations

from typing import NamedTuple

from mautic_sync.domain.classification import Decision, Previous, StageRules, decide
from mautic_sync.domain.contact import Signals, VerdictSignal
from mautic_sync.domain.scoring import COLD, Flags, Score, ScoreRules, flags_of

SYNTAX_REJECT = VerdictSignal("rejected", "invalid", "failed_syntax_check")
"""What somebody has whose address is none: nobody needs to be asked about it."""


class Judgement(NamedTuple):
    """The decision with its score, the flags, and the signals as the stages read them."""

    signals: Signals
    decision: Decision
    flags: Flags


def judge(
    signals: Signals,
    scored: Score,
    stages: StageRules,
    scores: ScoreRules,
    previous: Previous,
    before: Flags,
    now: int,
    *,
    gate_open: bool,
    reads_scores: bool,
) -> Judgement:
    """Decide one person with this score; `previous` and `before` are what was decided last.

    `reads_scores` says whether any stage reads a score: most rules do not, and are spared the copy.
    """
    if reads_scores:
        signals = signals._replace(scores=scored.by_name)
    decision = decide(signals, stages, previous, now, gate_open=gate_open)._replace(score=scored.total)
    if scores.hot is None and scores.low_value is None:
        return Judgement(signals, decision, COLD)
    decided = signals._replace(scores=scored.by_name, kind=decision.kind)
    return Judgement(signals, decision, flags_of(decided, scores, before, now))
